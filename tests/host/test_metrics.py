# SPDX-License-Identifier: Apache-2.0
"""`msb metrics`, of agents that are scripted here."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import time

from exec_frames import Type
from fake_sandbox import host  # noqa: F401  (a fixture)
from scripted_agent import Agent, frame

PATIENCE = 30  # seconds
FIELDS = ("time_ns", "processors", "user_us", "system_us", "idle_us", "steal_us", "memory_total", "memory_available", "disk_total",
          "disk_free", "files_total", "files_free", "received_bytes", "received_packets", "sent_bytes", "sent_packets",
          "processes", "oom_kills")


class Busy:
    """A guest that uses half of a processor."""

    def __init__(self):
        self.begun = time.monotonic_ns()

    def __call__(self, _, connection, request, __):
        assert request == Type.METRICS
        passed = time.monotonic_ns() - self.begun
        values = dict.fromkeys(FIELDS, 0) | {"time_ns": 10**9 + passed, "user_us": passed // 2000, "memory_total": 500_000_000,
                                             "memory_available": 400_000_000, "received_bytes": 1500, "processes": 7}
        connection.say(frame(Type.MEASURED, struct.pack("<18Q", *values.values())))
        return True


def silent(*_):
    return True


def test_a_guest_is_measured_and_one_that_does_not_answer_holds_up_nobody(host):  # noqa: F811
    host.write("web", "mute", "gone")
    web, mute = host.start_sandbox("web"), host.start_sandbox("mute")
    host.start_sandbox("gone")  # without an agent
    (web.state / "disk.ext4").write_bytes(b"x" * 8192)
    with contextlib.closing(Agent(web.agent, Busy())), contextlib.closing(Agent(mute.agent, silent)):
        begun = time.monotonic()
        rows = {row["name"]: row for row in json.loads(host.done("metrics", "--format", "json"))}
        assert time.monotonic() - begun < PATIENCE
        assert set(rows) == {"web", "mute", "gone"}
        assert 10 < rows["web"]["cpu_percent"] < 90
        assert rows["web"]["memory_used"] == 100_000_000 and rows["web"]["memory_limit"] == 512 << 20
        assert (rows["web"]["received"], rows["web"]["sent"], rows["web"]["processes"]) == (1500, 0, 7)
        assert rows["web"]["disk"] >= 8192 and rows["web"]["uptime_ms"] >= 65_000
        for name in ("mute", "gone"):
            assert rows[name]["cpu_percent"] is rows[name]["memory_used"] is None
            assert rows[name]["memory_limit"] == 512 << 20
        table = host.done("metrics", "web").decode()
        assert re.search(r"^web +\d+\.\d +100\.0 MB / 536\.9 MB ", table, re.MULTILINE) and table.count("\n") == 2
        assert re.search(r"^mute +- +- / 536\.9 MB ", host.done("metrics", "mute").decode(), re.MULTILINE)


def test_only_what_runs_is_measured(host):  # noqa: F811
    assert json.loads(host.done("metrics", "--format", "json")) == []
    host.refused("metrics", "web", words=["web", "not running"])


def read_until(terminal, text):
    data = b""
    deadline = time.monotonic() + PATIENCE
    while text not in data:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, data
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # the program has ended
            piece = b""
        assert piece, data
        data += piece
    return data


def test_a_terminal_gets_a_table_that_changes_until_an_interrupt(host):  # noqa: F811
    web = host.start_sandbox("web")
    with contextlib.closing(Agent(web.agent, Busy())):
        terminal, program_end = pty.openpty()
        with host.start("metrics", "--interval", "0.2", stdin=program_end, stdout=program_end, stderr=program_end) as process:
            os.close(program_end)
            drawn = read_until(terminal, b"web") + read_until(terminal, b"\x1b[2A") + read_until(terminal, b"web")
            assert b"\x1b[?25l" in drawn
            process.send_signal(signal.SIGINT)
            read_until(terminal, b"\x1b[?25h")
            assert process.wait(timeout=PATIENCE) == 130
        os.close(terminal)


def test_those_that_are_named_are_watched_until_they_have_ended(host):  # noqa: F811
    web = host.start_sandbox("web")
    with contextlib.closing(Agent(web.agent, Busy())):
        terminal, program_end = pty.openpty()
        with host.start("metrics", "--interval", "0.2", "web", stdin=subprocess.DEVNULL, stdout=program_end,
                        stderr=program_end) as process:
            os.close(program_end)
            read_until(terminal, b"web")
            web.end()
            read_until(terminal, b"\x1b[?25h")
            assert process.wait(timeout=PATIENCE) == 0
        os.close(terminal)
