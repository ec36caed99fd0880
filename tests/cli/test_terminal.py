# SPDX-License-Identifier: Apache-2.0
"""`msb` in a real terminal, tmux: interactive Python, Ctrl-C, resizing, pasting, letting go and coming back."""

import subprocess
import time
import uuid

import pytest


class Tmux:
    def __init__(self, sandboxes):
        self.socket = f"msb-{uuid.uuid4().hex[:8]}"
        self.environment = sandboxes.environment | {"TERM": "xterm-256color"}
        self.run("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "-c", sandboxes.project, "bash --norc --noprofile")
        self.keys("PS1='host> '", "Enter")

    def run(self, *arguments, **options):
        return subprocess.run(["tmux", "-L", self.socket, *map(str, arguments)], env=self.environment, check=True, timeout=30,
                              capture_output=True, **options).stdout.decode()

    def keys(self, *keys):
        self.run("send-keys", *keys)

    def screen(self):
        return self.run("capture-pane", "-p")

    def see(self, text, seconds=60):
        """Waits until the text is on the screen."""
        deadline = time.monotonic() + seconds
        while text not in self.screen():
            assert time.monotonic() < deadline, f"{text!r} is not in\n{self.screen()}"
            time.sleep(0.1)

    def prompts(self, count, seconds=60):
        """Waits for so many prompts of the shell."""
        deadline = time.monotonic() + seconds
        while sum(line.startswith("host>") for line in self.screen().splitlines()) < count:
            assert time.monotonic() < deadline, self.screen()
            time.sleep(0.1)

    def close(self):
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def tmux(sandboxes):
    made = Tmux(sandboxes)
    yield made
    made.close()


def test_interactive_python(sandboxes, tmux):
    sandboxes.write("sandboxes:\n  py: {image: python, command: [python3, -q]}\n")
    tmux.keys("clear; msb run py", "Enter")
    tmux.see(">>>")
    tmux.keys("x = 6 * 7; print('it', 'is', x)", "Enter")
    tmux.see("it is 42")
    tmux.keys("while True: pass", "Enter", "Enter")
    time.sleep(1)  # it loops by then; if it does not, the interrupt comes while it is typed, which is as well
    tmux.keys("C-c")
    tmux.see("KeyboardInterrupt")
    tmux.run("resize-window", "-x", "77", "-y", "23")
    tmux.keys("import os; print('size', os.get_terminal_size().columns)", "Enter")
    tmux.see("size 77")
    tmux.run("set-buffer", "y = [" + ", ".join(str(n) for n in range(300)) + "]\nprint('sum', sum(y))\n")
    tmux.run("paste-buffer")
    tmux.see(f"sum {sum(range(300))}")
    # It goes on without us, and is as it was when we come back.
    tmux.keys("clear", "C-l", "C-p", "C-q")
    tmux.see("msb attach py")
    assert sandboxes.running() == ["py"]
    tmux.keys("stty -a | grep -c ' icanon'", "Enter")  # the terminal is its own again
    tmux.keys("clear; msb attach py", "Enter", "Enter")
    tmux.see(">>>")
    tmux.keys("print('still', x)", "Enter")
    tmux.see("still 42")
    tmux.keys("exit()", "Enter")
    tmux.see("host>")
    assert sandboxes.running() == []


def test_a_shell_in_a_temporary_sandbox(sandboxes, tmux):
    tmux.keys("clear; msb exe --name tmp base -- sh", "Enter")
    tmux.see("#")
    tmux.keys("stty size; hostname", "Enter")
    tmux.see("30 100")
    tmux.see("tmp")
    tmux.keys("sleep 100", "Enter")
    tmux.keys("C-c")
    tmux.keys("echo status $?", "Enter")
    tmux.see("status 130")
    tmux.keys("exit 9", "Enter")
    tmux.see("host>")  # until then what is typed is for the sandbox
    tmux.keys("echo ended $?", "Enter")
    tmux.see("ended 9")
    assert sandboxes.running() == []


def test_consent_is_asked_for_once(sandboxes, tmux):
    (sandboxes.user / "data").mkdir()
    (sandboxes.user / "data/file").write_text("seen\n")
    sandboxes.write("sandboxes:\n  box: {image: base, volumes: ['../user/data:/data'], command: [cat, /data/file]}\n")
    tmux.keys("clear; msb run box", "Enter")
    tmux.see("Let it? [y/N]")
    tmux.keys("n", "Enter")
    tmux.see("was not started")
    tmux.keys("clear; msb run box", "Enter")
    tmux.see("Let it? [y/N]")
    tmux.keys("y", "Enter")
    tmux.see("seen")
    tmux.keys("clear; msb run box; echo ag''ain", "Enter")
    tmux.see("again")
    assert "Let it" not in tmux.screen() and "seen" in tmux.screen()
