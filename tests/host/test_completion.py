# SPDX-License-Identifier: Apache-2.0
"""Completion in bash, zsh and fish, by these shells themselves."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time

import pytest
from fake_sandbox import host  # noqa: F401  (a fixture)

PATIENCE = 30  # seconds


@pytest.fixture
def shop(host):  # noqa: F811
    host.write("web", "worker", scripts=["start", "test"])
    host.start_sandbox("web")
    return host


def run(shop, program, *arguments):
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    result = subprocess.run([program, *arguments], env=shop.environment | {"HOME": str(shop.project.parent)}, cwd=shop.project,
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def in_bash(shop, line):
    """What bash would put in the place of the word, as it cuts the line, that the cursor is at the end of."""
    words = re.split(r"\s+|(?<=[:=])|(?=[:=])", line)
    script = f"""
        source <(msb completion bash)
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_WORDS=({" ".join(map(shlex.quote, words))})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _msb
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return [word for word in run(shop, "bash", "--norc", "-c", script) if word]


def in_fish(shop, line):
    script = f"msb completion fish | source; complete -C {shlex.quote(line)}"
    return [word.split("\t")[0] for word in run(shop, "fish", "--no-config", "-c", script)]


CASES = {
    "msb sto": ["stop"],
    "msb run w": ["web", "worker"],
    "msb stop ": ["web"],
    "msb run web~": ["web~start", "web~test"],
    "msb log --foll": ["--follow"],
    "msb image li": ["list"],
    "msb completion z": ["zsh"],
    "msb stop --for": [],
    "msb cp we": ["web:"],
}


@pytest.mark.parametrize("line", CASES)
def test_bash(shop, line):
    assert in_bash(shop, line) == CASES[line]


@pytest.mark.parametrize("line", CASES)
def test_fish(shop, line):
    if CASES[line]:
        assert in_fish(shop, line) == CASES[line]


def test_what_bash_cuts_at_is_not_completed_twice(shop):
    assert in_bash(shop, "msb log --format=j") == ["json"]
    assert in_bash(shop, "msb cp web:") == []


def test_files_are_completed_where_there_is_nothing_else(shop):
    (shop.project / "unusual-file").touch()
    assert in_fish(shop, "msb cp ./unus") == ["./unusual-file"]
    assert in_bash(shop, "msb cp ./unus") == []  # and then -o default does


class Zsh:
    """A zsh at a terminal."""

    def __init__(self, shop):
        self.terminal, program_end = pty.openpty()
        environment = shop.environment | {"HOME": str(shop.project.parent), "TERM": "dumb", "PS1": "", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(["zsh", "-f", "-i"], env=environment, cwd=shop.project, stdin=program_end, stdout=program_end,
                                        stderr=program_end, start_new_session=True)
        os.close(program_end)

    def type(self, text, until):
        os.write(self.terminal, text.encode())
        data = ""
        deadline = time.monotonic() + PATIENCE
        while until not in data:
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, data
            data += os.read(self.terminal, 65_536).decode(errors="replace")
        return data

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


@pytest.fixture
def zsh(shop):
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh")
    shell = Zsh(shop)
    # A line that is completed is shown instead of run. The marks are not in what is typed, which the terminal shows too.
    shell.type("autoload -Uz compinit && compinit -u -D && source <(msb completion zsh); unset zle_bracketed_paste; "
               "show() { print -r -- \"<\"\"$BUFFER\"\">\"; BUFFER= }; zle -N show; bindkey '^T' show; "
               "setopt no_beep no_auto_list; print rea''dy\r", "ready")
    yield shell
    shell.close()


@pytest.mark.parametrize("line, completed", [
    ("msb sto", "msb stop "), ("msb run wo", "msb run worker "), ("msb stop ", "msb stop web "), ("msb run web~t", "msb run web~test "),
    ("msb cp we", "msb cp web:"), ("msb log --foll", "msb log --follow "), ("msb image li", "msb image list ")])
def test_zsh(zsh, line, completed):
    assert f"<{completed}>" in zsh.type(f"{line}\t\x14", ">")


def test_zsh_takes_the_script_as_a_file_as_well(shop, tmp_path):
    script = tmp_path / "_msb"
    script.write_bytes(shop.done("completion", "zsh"))
    assert run(shop, "zsh", "-n", str(script)) == []


def test_other_shells_are_refused(host):  # noqa: F811
    host.refused("completion", "tcsh", words=["tcsh", "bash, zsh and fish"])


def test_the_words_are_not_taken_for_options(shop):
    for words in (["msb", "run", "--help"], ["msb", "--", "-x"], ["msb", "--version", "-h", ""], ["--", "--"], [""], []):
        result = shop("__complete", *words)
        assert (result.returncode, result.stderr) == (0, b"")
    assert shop.done("__complete", "msb", "run", "--hel") == b"--help\n"


def test_a_broken_project_is_no_noise(shop):
    (shop.project / "Sandboxfile").write_text("sandboxes: [")
    result = shop("__complete", "msb", "run", "")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert shop.done("__complete", "msb", "stop", "") == b"web\n"
