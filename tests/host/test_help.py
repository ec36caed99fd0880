# SPDX-License-Identifier: Apache-2.0
"""The help of every command and its examples, and what is said of options that stand where they are not taken."""

import re
import shlex

import pytest
from fake_sandbox import host  # noqa: F401  (a fixture)
from msb import sentence

LEVELS = ["--debug", "--trace", "--error", "--warn", "--info"]


def walk(host, command=()):  # noqa: F811
    """Every command and its help."""
    text = host.done(*command, "--help").decode()
    if command:
        yield list(command), text
    if re.search(r"^Usage: .* SUBCOMMAND$", text, re.MULTILINE):
        names = re.findall(r"^  ([a-z]+)(?:, [a-z]+)*  +\S", text, re.MULTILINE)
        assert names
        for name in names:
            yield from walk(host, (*command, name))


def options_of(text):
    return {name for names in re.findall(r"^  (-\S+)", text, re.MULTILINE) for name in names.split(",")}


def examples_of(text):
    lines = text.partition("\nExamples:\n")[2].replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def calls_of(example):
    """The words of each msb that an example runs; others may stand beside it in a pipeline."""
    lexer = shlex.shlex(example, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    calls = [[]]
    for word in lexer:
        if set(word) <= set("|<>()&;"):
            calls.append([])
        else:
            calls[-1].append(word)
    return [call for call in calls if call[:1] == ["msb"]]


def test_every_command_has_examples_with_options_that_there_are(host):  # noqa: F811
    commands = []
    for command, text in walk(host):
        commands.append(command)
        examples = examples_of(text)
        assert any(example.startswith(" ".join(["msb", *command])) for example in examples), command
        for example in examples:
            calls = calls_of(example)
            assert calls, example
            for call in calls:
                assert call[1:len(command) + 1] == command, example
                own = call[:call.index("--")] if "--" in call else call
                for word in own:
                    if word.startswith("--"):
                        assert word.partition("=")[0] in options_of(text), example
                    elif word.startswith("-") and word != "-":
                        assert word[:2] in options_of(text), example
    assert len(commands) > 40 and ["image", "prune"] in commands and ["version"] in commands


def test_levels_are_taken_by_every_command(host):  # noqa: F811
    for command, text in walk(host):
        assert not options_of(text) & set(LEVELS)
        result = host(*command, *LEVELS, "--nonsuch")
        assert (result.returncode, sentence(result.stderr)) == \
            (2, f"msb: there is no option --nonsuch; see `{' '.join(['msb', *command])} --help`")


@pytest.mark.parametrize("level", LEVELS)
def test_levels_stand_on_both_sides_of_a_command(host, level):  # noqa: F811
    for words in ([level, "ps"], ["ps", level], [level, "ps", level], ["image", level, "list"], ["image", "list", level]):
        assert host(*words).stderr == b""
        host.done(*words)
    (host.project / "Sandboxfile").unlink()
    assert host.refused("list", level) == host.refused(level, "list") == host.refused("list")


def test_nothing_else_of_msb_stands_behind_a_command(host):  # noqa: F811
    for option in ("--version", "-V"):
        result = host("list", option)
        assert (result.returncode, sentence(result.stderr)) == (2, f"msb: there is no option {option}; see `msb list --help`")


def test_levels_are_completed_before_a_command_only(host):  # noqa: F811
    assert host.done("__complete", "msb", "--deb") == b"--debug\n"
    for level in LEVELS:
        assert host.done("__complete", "msb", "run", level) == b""


@pytest.mark.parametrize("line", ["exe alpine -la", "run web~test -la", "shell web -la", "add web --image alpine ls -la"])
def test_where_the_options_of_another_command_go(host, line):  # noqa: F811
    words = shlex.split(line)
    result = host(*words)
    told = f"msb: there is no option -la; options of the command that is to run go behind \"--\"; see `msb {words[0]} --help`"
    assert (result.returncode, sentence(result.stderr)) == (2, told)


@pytest.mark.parametrize("line, told", [
    ("exe --memory= alpine", "--memory= has nothing behind it"),
    ("exe --memory '' alpine", "--memory: it is empty"),
    ("add web --image alpine --start= --user root", "--start= has nothing behind it"),
    ("instal alpine run", 'there is no command "instal"; did you mean "install"?'),
    ("stpo log", 'there is no command "stpo"; did you mean "stop"?')])
def test_what_is_missing_is_not_taken_from_elsewhere(host, line, told):  # noqa: F811
    result = host(*shlex.split(line))
    assert result.returncode == 2 and told in sentence(result.stderr)


def test_an_empty_image_is_said_to_be_empty(host):  # noqa: F811
    host.refused("exe", "", words=["the image is empty"])
    assert host("add", "x", "--image", "").returncode != 0


@pytest.mark.parametrize("line, told", [
    ("exe --memroy 1 alpine", '--memroy; did you mean "--memory"?'),
    ("exe alpine --memroy 1", '--memroy; did you mean "--memory"?'),
    ("up --debgu", '--debgu; did you mean "--debug"?'),
    ("exe -la alpine", "-la"),  # before any name: what is to run is not known
    ("exe alpine -la -- ls", "-la"),
    ("exe --init alpine", "--init"),  # --info is ignored, so nobody means it
    ("up web -la", "-la")])
def test_other_options_are_explained_without_it(host, line, told):  # noqa: F811
    result = host(*line.split())
    assert (result.returncode, sentence(result.stderr)) == (2, f"msb: there is no option {told}; see `msb {line.split()[0]} --help`")
