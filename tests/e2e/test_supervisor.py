# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that are looked after: in the background, attached to, stopped by limits, and what is written down of them."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from conftest import BASE, MSB_VMM, REPOSITORY, TIMEOUT, machines, read_output, wait_until

sys.path.insert(0, str(REPOSITORY / "tests"))
sys.path.insert(0, str(REPOSITORY / "tests/host"))
from control_client import Control  # noqa: E402
from pseudo_terminal import Terminal  # noqa: E402


class Events:
    """The pipe of --events, as the program that started the sandbox has it."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        self.text = b""

    def next(self, seconds=TIMEOUT):
        deadline = time.monotonic() + seconds
        while b"\n" not in self.text:
            assert select.select([self.reader], [], [], max(0, deadline - time.monotonic()))[0], f"an event within {seconds} s"
            piece = os.read(self.reader, 4096)
            if not piece:
                assert not self.text
                return None
            self.text += piece
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)

    def started(self):
        os.close(self.writer)
        self.writer = -1

    def close(self):
        for end in (self.reader, self.writer):
            if end >= 0:
                os.close(end)
        self.reader = self.writer = -1


class Sandbox:
    """A supervised sandbox, and its files in `directory`."""

    def __init__(self, vmm, directory, *options, command=(), **popen):
        self.vmm, self.directory = vmm, directory
        self.socket, self.control = directory / "agent", directory / "control"
        self.log, self.record_file = directory / "output.log", directory / "exit.json"
        self.events = Events()
        words = [*self.words(*options), *(("--", *command) if command else ())]
        self.process = vmm.start(*words, pass_fds=(self.events.writer,), **popen)
        self.events.started()

    def words(self, *options):
        return ["run", "--image", BASE, "--net", "none", "--events", str(self.events.writer), "--socket", self.socket, "--control", self.control,
                "--log", self.log, "--record", self.record_file, *options]

    def running(self):
        event = self.events.next()
        assert event["event"] == "running", event
        return event

    def ended(self):
        event = self.events.next()
        assert event["event"] == "ended", event
        assert self.events.next() is None
        return event

    def record(self):
        return json.loads(self.record_file.read_text())

    def logged(self, stream=None):
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return "".join(line["text"] for line in lines if stream in (None, line["stream"]))

    def attach(self, *options, **popen):
        popen.setdefault("stdin", subprocess.PIPE)
        return self.vmm.start("attach", self.socket, "main", *options, **popen)

    def machine(self):
        [pid] = [pid for pid in machines() if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine")]
        return pid


@contextlib.contextmanager
def sandbox(vmm, directory, *options, **words):
    running = Sandbox(vmm, directory, *options, **words)
    try:
        yield running
    finally:
        running.events.close()
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate(timeout=TIMEOUT)


def shell(script):
    return ("sh", "-c", script)


def test_in_the_background_the_command_is_attached_to_by_any_number(vmm, tmp_path):
    script = "echo ready; echo trouble >&2; while read line; do echo \"got $line\"; done; printf bye; exit 3"
    with sandbox(vmm, tmp_path, "--background", "--name", "mine", command=shell(script)) as box:
        event = box.running()
        assert event == {"event": "running", "process": event["process"], "pid": box.process.pid, "published": []}
        assert {os.readlink(f"/proc/{box.process.pid}/fd/{stream}") for stream in range(3)} == {"/dev/null"}
        with Control(box.control) as control:
            status = control("status")
        assert (status["name"], status["image"], status["background"]) == ("mine", BASE, True)
        assert (status["process"], status["pid"]) == (event["process"], box.process.pid)
        assert status["command"] == ["sh", "-c", script]
        one, two = box.attach("--from-start"), box.attach("--from-start")
        for client in (one, two):
            assert read_output(client, 6) == b"ready\n"
        two.stdin.write(b"two\n")
        two.stdin.flush()
        for client in (one, two):
            assert read_output(client, 8) == b"got two\n"
        two.kill()  # which ends nothing
        assert b"trouble\n" in two.communicate(timeout=TIMEOUT)[1]
        output, errors = one.communicate(b"one\n", timeout=TIMEOUT)
        assert (output, errors, one.returncode) == (b"got one\nbye", b"trouble\n", 3)
        assert box.ended() == {"event": "ended", "status": 3, "message": ""}
        assert box.process.communicate(timeout=TIMEOUT) == (b"", b"")
        assert box.process.returncode == 3
        assert box.logged("stdout") == "ready\ngot two\ngot one\nbye"
        assert box.logged("stderr") == "trouble\n"
        record = box.record()
        assert (record["status"], record["cause"], record["message"], record["kernel"]) == (3, "exited", "", [])
        assert record["started_ms"] < record["ended_ms"]


def test_a_prompt_is_logged_and_signals_of_who_is_attached_get_there(vmm, tmp_path):
    script = "trap 'echo interrupted; exit 7' INT; printf '$ '; while true; do sleep 0.1; done"
    with sandbox(vmm, tmp_path, "--background", command=shell(script)) as box:
        box.running()
        wait_until(lambda: box.log.exists() and box.logged() == "$ ", "the prompt is in the log", TIMEOUT)
        with box.attach("--from-start") as client:
            assert read_output(client, 2) == b"$ "
            client.send_signal(signal.SIGINT)
            output, _ = client.communicate(timeout=TIMEOUT)
            assert (output, client.returncode) == (b"interrupted\n", 7)
        assert box.ended()["status"] == 7


def test_a_terminal_is_left_by_keys_and_attached_to_again(vmm, tmp_path):
    events = Events()
    socket, control, log, record = (tmp_path / name for name in ("agent", "control", "log", "record"))
    script = "stty size; while read line; do echo \"<$line>\"; done"
    words = ["run", "--image", BASE, "--net", "none", "--events", str(events.writer), "--socket", socket, "--control", control, "--log", log,
             "--record", record, "--detach-keys", "--tty", "--", *shell(script)]
    # A shell in front, as msb would be: the supervisor leads no process group, and can leave the terminal's session.
    with Terminal(vmm, "-c", 'vmm=$1; shift; "$vmm" "$@"; true', "sh", MSB_VMM, *words, program="/bin/sh", pass_fds=(events.writer,)) as first:
        events.started()
        first.wait_for("30 100")
        pid = events.next()["pid"]
        first.type("one\r")
        first.wait_for("<one>")
        first.type("\x10\x11")
        assert events.next(TIMEOUT) == {"event": "detached"}
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    events_gone = events.reader
    os.close(events_gone)
    events.reader = -1
    with Control(control) as client:
        assert client("status")["background"] is True
        with Terminal(vmm, "attach", socket, "main", "--from-start", program=MSB_VMM) as second:
            second.wait_for("<one>")
            second.type("two\r")
            second.wait_for("<two>")
            second.type("\x10\x11")
            assert second.process.wait(TIMEOUT) == 0
        client("subscribe")
        assert client("status")["state"] == "running"
        client("stop", timeout_s=1, signal="KILL")
        assert client.event("stopped")["exit_status"] == 128 + signal.SIGKILL
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the supervisor ends", TIMEOUT)
    assert json.loads(record.read_text())["cause"] == "stopped"


def test_a_sandbox_in_the_foreground_stops_when_who_started_it_is_gone(vmm, tmp_path):
    with sandbox(vmm, tmp_path, command=shell("echo up; exec sleep 1000")) as box:
        box.running()
        assert read_output(box.process, 3) == b"up\n"
        box.events.close()
        box.process.communicate(timeout=TIMEOUT)
        assert box.process.returncode == 128 + signal.SIGTERM
        assert (box.record()["status"], box.record()["cause"]) == (128 + signal.SIGTERM, "stopped")
        assert box.logged() == "up\n"


def test_one_in_the_background_goes_on_when_who_started_it_is_gone(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "--background", command=shell("read line; exit 4")) as box:
        box.running()
        box.events.close()
        box.process.send_signal(signal.SIGHUP)
        with box.attach() as client:
            client.communicate(b"go\n", timeout=TIMEOUT)
            assert client.returncode == 4
        assert box.process.wait(TIMEOUT) == 4


def test_the_record_tells_a_machine_that_was_killed(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "--background", command=shell("sleep 1000")) as box:
        box.running()
        os.kill(box.machine(), signal.SIGKILL)
        assert box.ended()["status"] == 125
        assert box.record()["cause"] == "failed"
        assert "signal 9" in box.record()["message"]


def test_the_record_tells_a_guest_that_panicked_with_its_kernels_words(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "--background", "--append", "rdinit=/nonexistent", command=("true",)) as box:
        assert box.ended()["status"] == 125
        assert box.record()["cause"] == "failed"
        assert any("Kernel panic" in line for line in box.record()["kernel"])


def test_the_record_tells_a_sandbox_that_could_not_start(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "--background", command=("no-such-program",)) as box:
        assert box.ended()["status"] == 127
        assert (box.record()["status"], box.record()["cause"]) == (127, "exited")
    with sandbox(vmm, tmp_path, "--memory", "1", command=("true",)) as box:
        assert "--memory" in box.ended()["message"]
        assert (box.record()["status"], box.record()["cause"]) == (125, "failed")


def test_a_sandbox_is_stopped_when_its_time_is_over(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "--background", "--timeout", "5", command=shell("trap 'echo ending; exit 1' TERM; while true; do sleep 0.1; done")) as box:
        box.running()
        with box.attach() as client:
            client.communicate(timeout=TIMEOUT)
            assert client.returncode == 124
        assert box.ended()["status"] == 124
        assert box.logged("stdout") == "ending\n"
        assert (box.record()["status"], box.record()["cause"]) == (124, "timeout")
        assert "--timeout" in box.record()["message"]


def test_an_idle_sandbox_is_stopped_and_a_connection_keeps_it(vmm, tmp_path):
    limit = 6
    with sandbox(vmm, tmp_path, "--background", "--idle", "--idle-timeout", str(limit)) as box:
        assert box.running()["process"] is None
        busy = vmm.start("exec", box.socket, "--", "sh", "-c", "echo up; read line", stdin=subprocess.PIPE)
        assert read_output(busy, 3) == b"up\n"
        assert not select.select([box.events.reader], [], [], limit + 3)[0]
        began = time.monotonic()
        busy.communicate(b"go\n", timeout=TIMEOUT)
        assert busy.returncode == 0
        assert box.ended()["status"] == 124
        assert time.monotonic() - began > limit - 1
        assert (box.record()["status"], box.record()["cause"]) == (124, "idle")
        assert "--idle-timeout" in box.record()["message"]


def test_without_a_command_a_sandbox_is_there_until_it_is_stopped(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "--idle") as box:
        box.running()
        result = vmm("exec", box.socket, "--", "echo", "inside")
        assert (result.stdout, result.returncode) == (b"inside\n", 0)
        refused = vmm("attach", box.socket, "main")
        assert refused.returncode == 125
        assert b"no command of its own" in refused.stderr
        box.process.terminate()
        assert box.process.communicate(timeout=TIMEOUT) == (b"", b"")
        assert box.process.returncode == 0
        assert box.ended() == {"event": "ended", "status": 0, "message": ""}
        assert box.record()["cause"] == "stopped"


def test_a_sandbox_is_killed_at_once(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "--background", command=shell("trap '' TERM; echo up; while true; do sleep 1; done")) as box:
        box.running()
        with box.attach("--from-start") as client, Control(box.control) as control:
            assert read_output(client, 3) == b"up\n"
            control("subscribe")
            control("stop", timeout_s=600)
            control("kill")
            assert control.event("stopped")["exit_status"] == 137
            client.communicate(timeout=TIMEOUT)
            assert client.returncode == 137
        assert box.ended()["status"] == 137
        assert box.record()["cause"] == "stopped"


def test_what_is_written_goes_to_the_log_and_to_the_terminal_alike(vmm, tmp_path):
    with sandbox(vmm, tmp_path, command=shell("seq 100000; echo end >&2")) as box:
        output, errors = box.process.communicate(timeout=TIMEOUT)
        assert errors == b"end\n"
        assert box.logged("stdout").encode() == output == b"".join(b"%d\n" % i for i in range(1, 100001))
        assert box.logged("stderr") == "end\n"


@pytest.mark.parametrize("words, said", [
    (["--events", "1"], "standard stream"),
    (["--events", "999"], "no open descriptor"),
    (["--idle", "--tty"], "--idle"),
    (["--background", "--detach-keys"], "--detach-keys"),
    (["--timeout", "0"], "31536000"),
    (["--log", "/dev/null"], "no regular file"),
])
def test_options_that_make_no_sense_are_refused(vmm, words, said):
    result = vmm("run", "--image", BASE, *words, *(() if "--idle" in words else ("--", "true")))
    assert result.returncode == 125
    assert said in result.stderr.decode()
