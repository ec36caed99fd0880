# SPDX-License-Identifier: Apache-2.0
"""`msb exe`: temporary sandboxes, of which nothing is left."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest
from conftest import IMAGES, REPOSITORY, machines, read_output, wait_until
from sandboxes import kill, machine_of


def files(directory):
    return sorted(str(path) for path in directory.rglob("*") if not str(path).startswith(str(directory / "home/layers")))


def test_a_command_runs_with_its_streams_and_its_exit_status(sandboxes):
    result = sandboxes("exe", "base", "--", "sh", "-c", "cat; echo away >&2; exit 3", stdin=b"hello\n")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"hello\n", b"away\n")
    assert sandboxes("exe", "base", "--", "not-there").returncode == 127
    # What belongs to the command begins with its first word.
    assert sandboxes("exe", "-v=.:/here", "base", "echo", "-n", "--memory", "[1,2]").stdout == b"--memory [1,2]"
    # The wrapper, options, and a directory as an image.
    result = sandboxes("--cpus", "2", "--memory", "300M", "-v", f"{sandboxes.project}:/here:ro", "--env", "A=b",
                       "--workdir", "/here", f"{IMAGES}:base", "--", "sh", "-c",
                       "nproc; pwd; echo $A; touch /here/x; hostname; grep -c . /proc/self/mounts >/dev/null; df -m / | tail -1",
                       program="msx")
    lines = result.stdout.decode().splitlines()
    assert lines[:3] == ["2", "/here", "b"], (lines, result.stderr)
    assert re.fullmatch("base-[0-9a-f]{4}", lines[3])
    assert int(lines[4].split()[1]) > 9000, "its root has 10 GiB, which no memory has"


def test_of_one_that_has_ended_nothing_is_left(sandboxes):
    sandboxes.done("exe", "base", "--", "true")  # what is made once: the empty disk that others are copied from
    before = files(sandboxes.directory)
    sandboxes.done("exe", "base", "--", "sh", "-c", "echo secret > /kept; sync")
    assert files(sandboxes.directory) == before
    assert sandboxes.runtime_files() == []
    assert sandboxes.running() == []


def test_nothing_is_left_of_one_that_is_killed(sandboxes):
    sandboxes.done("exe", "base", "--", "true")
    before = files(sandboxes.directory)
    for victims in (["msb"], ["supervisor"], ["machine"], ["msb", "supervisor", "machine"]):
        process = sandboxes.start("exe", "--name", "victim", "base", "--", "sh", "-c", "echo secret > /kept; echo ready; sleep 1000")
        assert read_output(process, 6) == b"ready\n"
        supervisor = sandboxes.supervisor("victim")
        pids = {"msb": process.pid, "supervisor": supervisor, "machine": machine_of(supervisor)}
        for victim in victims:
            kill(pids[victim])
        _, errors = process.communicate(timeout=30)
        if victims == ["supervisor"]:
            assert process.returncode == 125 and b"killed" in errors
        if victims == ["machine"]:
            assert process.returncode == 125 and errors.startswith(b"msb: the machine process ended unexpectedly")
        wait_until(lambda: not machines(), "all processes have ended", seconds=20)
        assert sandboxes.running() == []  # which clears away what no process was left to clear away
        assert sandboxes.runtime_files() == []
        assert files(sandboxes.directory) == before, victims


def test_one_that_is_detached_outlives_msb_and_is_found(sandboxes):
    name = sandboxes.done("exe", "-d", "--name", "web", "-p", "0:80", "python", "--", "python3", "-m", "http.server", "80").strip()
    assert name == "web"
    [entry] = sandboxes.json("ps")
    assert (entry["name"], entry["kind"], entry["status"]["state"]) == ("web", "temporary", "running")
    [port] = sandboxes.json("port", "web")
    assert port["guest_port"] == 80
    fetched = subprocess.run(["curl", "-sS", "--retry", "20", "--retry-all-errors", "--retry-delay", "1",
                              f"http://127.0.0.1:{port['host_port']}/etc/hostname"], capture_output=True, timeout=60, check=False)
    assert fetched.returncode == 0, fetched.stderr
    assert b"GET /etc/hostname" in wait_for_log(sandboxes, "web", b"GET")
    assert sandboxes.done("exec", "web", "--", "sh", "-c", "echo $PATH; hostname").splitlines()[1] == "web"
    assert sandboxes.done("stop", "web") == "web is down\n"
    assert sandboxes.running() == []
    assert sandboxes.runtime_files() == []


def wait_for_log(sandboxes, name, text):
    """Everything that its command wrote, once `text` is in it."""
    deadline = time.monotonic() + 20
    while True:
        result = sandboxes("log", name)
        if text in result.stdout + result.stderr or time.monotonic() > deadline:
            return result.stdout + result.stderr
        time.sleep(0.2)


def test_a_temporary_sandbox_has_room_for_more_than_its_memory(sandboxes):
    told = sandboxes.done("exe", "--memory", "64", "base", "--", "sh", "-c",
                          "dd if=/dev/zero of=/big bs=1M count=80 2>/dev/null && wc -c < /big")
    assert told == f"{80 << 20}\n"


def test_limits_hold(sandboxes):
    told = sandboxes("exe", "--disk", "64", "base", "--", "sh", "-c",
                     "dd if=/dev/zero of=/big bs=1M count=100 2>&1 | grep -o 'No space left on device'; rm /big; echo alive")
    assert told.stdout == b"No space left on device\nalive\n", told
    result = sandboxes("x", "--timeout", "2", "base", "--", "sleep", "1000")
    assert result.returncode == 124 and b"2 s" in result.stderr
    result = sandboxes("exe", "--processes", "40", "base", "--", "sh", "-c",
                       "n=0; while [ $n -lt 100 ]; do sleep 100 & n=$((n + 1)); done; echo forked all")
    assert b"forked all" not in result.stdout and result.returncode != 0


def test_interrupts_reach_the_command(sandboxes):
    process = sandboxes.start("exe", "base", "--", "sh", "-c", "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.1; done",
                              start_new_session=True)
    assert read_output(process, 6) == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (7, b"caught\n")


def test_where_disks_have_no_holes_is_said_so(sandboxes):
    with tempfile.TemporaryDirectory(dir=REPOSITORY / "build") as directory:
        with open(f"{directory}/file", "wb") as file:
            file.truncate(1 << 20)
            if os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 0:
                pytest.skip(f"the file system of {REPOSITORY} has holes; that of an emulated host has none")
        sandboxes.environment["MSB_HOME"] = str(shutil.copytree(sandboxes.home, f"{directory}/home", symlinks=True))
        sandboxes.refused("exe", "base", "--", "true", words=["scratch", "no holes", "MSB_HOME"])
