# SPDX-License-Identifier: Apache-2.0
"""msb-vmm exec, attach, ps, kill and forget against an agent that is scripted here, and at times hostile."""

import os
import signal
import socket
import struct
import tempfile

import pytest
from conftest import message, wait_until
from scripted_agent import agent  # noqa: F401  (a fixture)
from scripted_agent import (ATTACH, ATTACHED_TERMINAL, DETACHED, DONE, END, FORGET, KEEP, LIST, MEASURED, METRICS,
                            NO_STDIN, PROCESS, SECONDS, SIGNAL, START, STDERR, STDIN, STDOUT, TERMINAL, answering,
                            attached, done, exited, frame, refused, running, start_fields, started)


def test_streams_and_status_pass_through_and_options_arrive(vmm, agent):
    def script(_, connection, kind, __):
        assert kind == START
        connection.say(started())
        data = b""
        while True:
            kind, payload = connection.frame()
            assert kind == STDIN
            if not payload:
                break
            data += payload
        connection.say(frame(STDOUT, data[::-1]), frame(STDERR, b"error"), exited(42, out=len(data), err=5))

    one = agent(script)
    result = vmm("exec", one.path, "-e", "A=1 = x", "-w", "/work", "-u", "me:us", "--group", "audio", "--group", "44",
                 "--ulimit", "nofile=10:20", "--umask", "027", "--timeout", "5", "--label", "a label",
                 "--", "cat", "-e", "--", "x", stdin=b"some input")
    assert (result.returncode, result.stdout, result.stderr) == (42, b"tupni emos", b"error")
    fields = start_fields(one.seen[0][1])
    assert fields["command"] == [b"cat", b"-e", b"--", b"x"]
    assert b"A=1 = x" in fields["environment"]
    assert any(each.startswith(b"PATH=") for each in fields["environment"])
    assert (fields["directory"], fields["user"], fields["label"]) == (b"/work", b"me:us", b"a label")
    assert fields["group_names"] == [b"audio", b"44"]
    assert fields["limit"] == [(7, 0, 10, 20)]
    assert (fields["umask"], fields["timeout_ms"], fields["flags"] & (KEEP | TERMINAL | NO_STDIN)) == (0o27, 5000, 0)


def test_much_of_both_directions_passes_through(vmm, agent):
    size = 5_000_000

    def script(_, connection, __, ___):
        connection.say(started())
        while True:
            _, payload = connection.frame()
            if not payload:
                break
            connection.say(frame(STDOUT, payload))
        connection.say(exited(0, out=size))

    data = os.urandom(size)
    result = vmm("exec", agent(script).path, "--", "cat", stdin=data)
    assert result.stdout == data
    assert result.returncode == 0


@pytest.mark.parametrize("frames, status, words", [
    ([started(), exited(9, kind=2)], 137, []),
    ([started(), exited(9, kind=2, flags=1)], 137, ["ran out of memory"]),
    ([started(), exited(9, kind=2, flags=4)], 124, ["time was over"]),
    ([refused(6, 2, b"there is no program x")], 127, ["there is no program x"]),
    ([refused(6, 13, b"not executable")], 126, ["not executable"]),
    ([refused(5, 0, b"no user \x1b[31mmallory")], 126, ["no user ?[31mmallory"]),
    ([refused(3, 12, b"no memory")], 125, ["no memory"]),
    # hostile from here on
    ([frame(STDOUT, b"x")], 125, ["STDOUT", "out of place"]),
    ([started(0)], 125, ["STARTED"]),
    ([started(), frame(STDOUT, b""), exited()], 125, ["STDOUT of 0 bytes"]),
    ([started(), exited(out=1)], 125, ["1 bytes were written where 0 came"]),
    ([started(), exited(process=8)], 125, ["process 8 instead of 7"]),
    ([started(), exited(256)], 125, ["EXITED"]),
    ([frame(DONE, b"\0" * 8)], 125, ["no place"]),
    ([frame(1234)], 125, ["type 1234"]),
    ([struct.pack("<II", STDOUT, 2**32 - 1)], 125, ["STDOUT of 4294967295 bytes"]),
])
def test_ends_and_refusals_have_the_statuses_of_container_engines(vmm, agent, frames, status, words):
    result = vmm("exec", agent(answering(*frames)).path, "--", "x")
    assert result.returncode == status
    if words:
        text = message(result)
        for word in words:
            assert word in text
    else:
        assert result.stderr == b""


def test_a_sandbox_that_ends_meanwhile_is_told(vmm, agent):
    def script(_, connection, __, ___):
        connection.say(started())

    result = vmm("exec", agent(script).path, "--", "x")
    assert result.returncode == 125
    assert "closed the connection before the process had ended" in message(result)


@pytest.mark.parametrize("greeting, words", [
    (b"", "has ended"),
    (b"HTTP/1.1 400 Bad Request\r\n", "not a microsandbox socket"),
    (b"OK\n", "not a microsandbox socket"),
])
@pytest.mark.parametrize("command", [["exec", "--", "x"], ["ps"], ["kill", "1"], ["forget", "1"], ["attach", "1"]])
def test_what_answers_with_something_else_is_told_apart(vmm, agent, greeting, words, command):
    def script(_, __, ___, ____):
        return None

    one = agent(script, greeting=greeting)
    result = vmm(command[0], one.path, *command[1:])
    assert result.returncode == 125
    assert words in message(result)


@pytest.mark.parametrize("command", [["exec", "--", "x"], ["ps"], ["kill", "1"], ["forget", "1"], ["attach", "1"]])
def test_sockets_that_cannot_be_connected_to_are_told_apart(vmm, command):
    with tempfile.TemporaryDirectory(prefix="exec-") as directory:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(f"{directory}/dead")
        for name, words in [("missing", "there is no sandbox at"), ("dead", "nobody listens at"),
                            (".", "is not a socket")]:
            result = vmm(command[0], f"{directory}/{name}", *command[1:])
            assert result.returncode == 125
            assert words in message(result)


@pytest.mark.parametrize("options, words", [
    (["--ulimit", "files=1"], "files=1"),
    (["--umask", "9"], "umask"),
    (["--timeout", "0"], "timeout"),
    (["--tty", "--no-stdin"], "exclude"),
    (["-e", "=x"], "no name"),
])
def test_impossible_options_are_refused(vmm, options, words):
    result = vmm("exec", "/nonexistent", *options, "--", "x")
    assert result.returncode == 125
    assert words in message(result)


def test_signals_go_to_the_process_over_a_connection_of_their_own(vmm, agent):
    def requests(state, connection, kind, payload):
        assert kind == SIGNAL
        connection.say(done())
        if struct.unpack("<III", payload) == (7, signal.SIGTERM, 0):
            state["process"].say(exited(5, out=5))
        return True

    one = agent(running(requests))
    process = vmm.start("exec", one.path, "--", "x")
    assert process.stdout.read(5) == b"ready"
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: (SIGNAL, struct.pack("<III", 7, signal.SIGUSR1, 0)) in one.seen, "the signal arrives", SECONDS)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, output, errors) == (5, b"", b"")


@pytest.mark.parametrize("options, words", [([], "was ended after three interrupts"),
                                            (["--keep", "100"], "let go of the process")])
def test_three_interrupts_end_the_waiting(vmm, agent, options, words):
    def requests(_, connection, __, ___):
        connection.say(done())
        return True

    one = agent(running(requests))
    process = vmm.start("exec", one.path, *options, "--", "x")
    assert process.stdout.read(5) == b"ready"
    for count in (1, 2):
        process.send_signal(signal.SIGINT)
        wait_until(lambda count=count: one.seen.count((SIGNAL, struct.pack("<III", 7, signal.SIGINT, 0))) == count,
                   "the interrupt arrives", SECONDS)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert words in errors.decode()
    wait_until(lambda: "closed" in one.seen, "the connection is closed", SECONDS)


def test_a_detached_process_is_kept_and_its_id_printed(vmm, agent):
    one = agent(answering(started(4711)))
    result = vmm("exec", one.path, "-d", "--", "server")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"4711\n", b"")
    fields = start_fields(one.seen[0][1])
    assert fields["flags"] & (KEEP | NO_STDIN) == KEEP | NO_STDIN
    result = vmm("exec", one.path, "-d", "-i", "--keep", "1000", "--", "server")
    assert result.returncode == 0
    fields = start_fields(one.seen[1][1])
    assert (fields["flags"] & (KEEP | NO_STDIN), fields["keep"]) == (KEEP, 1000)


def test_a_detached_process_that_is_refused_says_so(vmm, agent):
    result = vmm("exec", agent(answering(refused(6, 2, b"there is none"))).path, "-d", "--", "x")
    assert result.returncode == 127
    assert "there is none" in message(result)


def listed(process=7, flags=KEEP, label=b"label", program=b"sh", state=1, connected=0):
    return frame(PROCESS, struct.pack("<6IQ3Q3Q", process, 2, state, flags, connected, 0, 10**9, 5, 0, 0, 0, 0, 0)
                 + label + b"\0" + program + b"\0")


@pytest.mark.parametrize("options, offset", [([], END), (["--from-start"], 0)])
def test_attaching_goes_on_with_a_kept_process(vmm, agent, options, offset):
    def script(_, connection, kind, payload):
        assert (kind, payload) == (ATTACH, struct.pack("<II3Q", 7, 0, offset, offset, offset))
        connection.say(attached(out=100))
        assert connection.frame() == (STDIN, b"input")
        assert connection.frame() == (STDIN, b"")
        connection.say(frame(STDOUT, b"output"), exited(3, out=106))
        return None

    result = vmm("attach", agent(script).path, "7", *options, stdin=b"input")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"output", b"")


def test_a_process_without_input_is_attached_to_without_input(vmm, agent):
    def script(one, connection, kind, _):
        assert kind == ATTACH
        connection.say(attached(flags=0), exited(0))
        one.seen.append(connection.frame())
        return None

    one = agent(script)
    assert vmm("attach", one.path, "7", stdin=b"input").returncode == 0
    wait_until(lambda: None in one.seen, "the connection ends without input", SECONDS)


@pytest.mark.parametrize("answer, words", [
    (refused(7, 3, b"guests' words"), "there is no process 7 that was started to be kept (--detach or --keep)"),
    (refused(2, 22, b"not that far"), "not that far"),
    (attached(process=8), "process 8 instead of 7"),
    (attached(flags=ATTACHED_TERMINAL), "malformed ATTACHED"),
    (started(), "STARTED"),
])
def test_what_cannot_be_attached_to_is_told(vmm, agent, answer, words):
    def script(_, connection, __, ___):
        connection.say(answer)
        return None

    result = vmm("attach", agent(script).path, "7")
    assert result.returncode == 125
    assert words in message(result)


def test_another_connection_may_take_the_process(vmm, agent):
    def script(_, connection, kind, __):
        assert kind == ATTACH
        connection.say(attached(), frame(DETACHED))
        return None

    result = vmm("attach", agent(script).path, "7")
    assert result.returncode == 125
    assert "another connection" in message(result)


def test_processes_are_listed_in_lines_that_no_guest_can_forge(vmm, agent):
    def script(_, connection, kind, __):
        if kind == METRICS:
            connection.say(frame(MEASURED, struct.pack("<18Q", 62 * 10**9, *range(17))))
        else:
            assert kind == LIST
            connection.say(listed(connected=1), listed(8, label=b"a\x1b[2J\nb", program=b"\xff", state=2), done(2))
        return True

    result = vmm("ps", agent(script).path)
    assert result.returncode == 0
    lines = [line.split() for line in result.stdout.decode("ascii").splitlines()]
    assert lines == [["ID", "PID", "STATE", "AGE", "LABEL", "PROGRAM"], ["7", "2", "attached", "61s", "label", "sh"],
                     ["8", "2", "ended", "61s", "a?[2J?b", "?"]]


@pytest.mark.parametrize("answer, words", [([listed(), done(2)], "counts other answers"),
                                           ([listed(state=3), done(1)], "malformed PROCESS")])
def test_a_list_that_makes_no_sense_is_told(vmm, agent, answer, words):
    def script(_, connection, kind, __):
        connection.say(frame(MEASURED, struct.pack("<18Q", *range(18))) if kind == METRICS else b"".join(answer))
        return True

    result = vmm("ps", agent(script).path)
    assert result.returncode == 125
    assert words in message(result)


def test_kill_sends_any_signal_by_name(vmm, agent):
    def script(_, connection, kind, payload):
        assert kind == SIGNAL
        if struct.unpack("<III", payload)[0] == 9:
            connection.say(refused(7, 0, b"there is no process 9"))
        else:
            connection.say(done())
        return True

    one = agent(script)
    assert vmm("kill", one.path, "7").returncode == 0
    assert vmm("kill", one.path, "7", "--signal", "SIGKILL", "-g").returncode == 0
    assert [struct.unpack("<III", payload) for _, payload in one.seen] == [(7, 15, 0), (7, 9, 1)]
    result = vmm("kill", one.path, "9")
    assert result.returncode == 125
    assert "there is no process 9" in message(result)
    assert vmm("kill", one.path, "7", "--signal", "NOTHING").returncode == 125


def test_forget_lets_go_of_what_has_ended_and_says_what_has_not(vmm, agent):
    answers = {7: done(), 8: refused(2, 16, b"process 8 runs still"), 9: refused(7, 0, b"there is no process 9")}

    def script(_, connection, kind, payload):
        assert kind == FORGET
        connection.say(answers[struct.unpack("<I", payload)[0]])
        return True

    one = agent(script)
    result = vmm("forget", one.path, "7")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    for process, words in [("8", "process 8 runs still"), ("9", "there is no process 9"), ("0", "no process id"),
                           ("x", "no process id")]:
        result = vmm("forget", one.path, process)
        assert result.returncode == 125
        assert words in message(result)
    assert [payload for _, payload in one.seen] == [struct.pack("<I", process) for process in (7, 8, 9)]
