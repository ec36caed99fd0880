# SPDX-License-Identifier: Apache-2.0
"""msb-vmm exec and attach on a terminal, against a scripted agent."""

import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios

import pytest
from conftest import MSB_VMM, wait_until
from scripted_agent import agent  # noqa: F401  (a fixture)
from scripted_agent import (ATTACHED_INPUT, ATTACHED_TERMINAL, RESIZE, SECONDS, SIGNAL, START, STDERR, TERMINAL, answering,
                            attached, done, exited, frame, refused, running, start_fields, started)


class Terminal:
    """msb-vmm on a terminal of its own."""

    def __init__(self, vmm, *arguments):
        self.ours, self.theirs = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(self.theirs)
        environment = dict(vmm.environment, TERM="vt100")
        self.process = subprocess.Popen([MSB_VMM, *arguments], stdin=self.theirs, stdout=self.theirs,
                                        stderr=subprocess.PIPE, env=environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self.ours)
        os.close(self.theirs)

    def resize(self, rows, columns):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("<HHHH", rows, columns, 0, 0))

    def raw(self):
        return termios.tcgetattr(self.theirs)[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == 0

    def restored(self):
        return termios.tcgetattr(self.theirs) == self.before

    def wait(self):
        errors = self.process.communicate(timeout=SECONDS)[1]
        return self.process.returncode, errors.decode()


def accepting(_, connection, __, ___):
    connection.say(done())
    return True


def test_a_terminal_is_raw_while_the_process_runs_and_follows_its_size(vmm, agent):
    typed = []

    def script(one, connection, kind, _):
        if kind != START:
            connection.say(done())
            return True
        connection.say(started())
        while not b"".join(typed).endswith(b"q"):
            typed.append(connection.frame()[1])
        connection.say(exited(7))
        connection.wait_for_end()
        one.seen.append("closed")
        return None

    one = agent(script)
    with Terminal(vmm, "exec", one.path, "-t", "--", "sh") as terminal:
        wait_until(terminal.raw, "the terminal is raw", SECONDS)
        terminal.resize(50, 132)
        terminal.process.send_signal(signal.SIGWINCH)
        wait_until(lambda: (RESIZE, struct.pack("<IHH", 7, 50, 132)) in one.seen, "the new size arrives", SECONDS)
        os.write(terminal.ours, b"\x03\x10\x11q")  # all of them are the process's: it is not kept
        assert terminal.wait() == (7, "")
        assert terminal.restored()
    fields = start_fields(one.seen[0][1])
    assert (fields["flags"] & TERMINAL, fields["rows"], fields["columns"]) == (TERMINAL, 30, 100)
    assert b"TERM=vt100" in fields["environment"]
    assert b"".join(typed) == b"\x03\x10\x11q"


@pytest.mark.parametrize("how", ["refused", "hostile", "vanishes", "interrupts", "SIGTERM", "SIGABRT"])
def test_a_terminal_is_restored_however_it_ends(vmm, agent, how):
    def requests(state, connection, kind, payload):
        connection.say(done())
        if kind == SIGNAL and struct.unpack("<III", payload)[1] == signal.SIGTERM:
            state["process"].say(exited(15, kind=2, out=5))
        return True

    one = agent(answering(refused(6, 2, b"none")) if how == "refused" else running(requests))
    with Terminal(vmm, "exec", one.path, "-t", "--", "sh") as terminal:
        if how != "refused":
            wait_until(terminal.raw, "the terminal is raw", SECONDS)
        if how == "hostile":
            one.script.state["process"].say(frame(STDERR, b"a terminal has none"))
        elif how == "vanishes":
            one.script.state["process"].stream.shutdown(socket.SHUT_RDWR)
        elif how == "interrupts":
            for count in (1, 2, 3):
                terminal.process.send_signal(signal.SIGINT)
                if count < 3:
                    wait_until(lambda count=count: sum(each[0] == SIGNAL for each in one.seen) == count,
                               "the interrupt arrives", SECONDS)
        elif how.startswith("SIG"):
            terminal.process.send_signal(getattr(signal, how))
        status, _ = terminal.wait()
        assert status == {"refused": 127, "interrupts": 130, "SIGTERM": 143, "SIGABRT": -signal.SIGABRT}.get(how, 125)
        assert terminal.restored()


def test_detach_keys_let_go_of_a_kept_process(vmm, agent):
    one = agent(running(accepting))
    with Terminal(vmm, "exec", one.path, "-t", "--keep", "0", "--", "sh") as terminal:
        wait_until(terminal.raw, "the terminal is raw", SECONDS)
        os.write(terminal.ours, b"\x10")
        os.write(terminal.ours, b"\x11")
        assert terminal.wait() == (0, "msb-vmm: detached from process 7\n")
        assert terminal.restored()


def test_attaching_to_a_terminal_makes_this_one_raw_and_sets_the_size(vmm, agent):
    one = agent(running(accepting, attached(flags=ATTACHED_INPUT | ATTACHED_TERMINAL)))
    with Terminal(vmm, "attach", one.path, "7") as terminal:
        wait_until(terminal.raw, "the terminal is raw", SECONDS)
        wait_until(lambda: (RESIZE, struct.pack("<IHH", 7, 30, 100)) in one.seen, "the size arrives", SECONDS)
        os.write(terminal.ours, b"\x10\x11")
        assert terminal.wait()[0] == 0
        assert terminal.restored()
