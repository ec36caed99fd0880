# SPDX-License-Identifier: Apache-2.0
"""scripts/emulated-host: what a command gets and gives back, and what every ending leaves behind."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

EMULATED_HOST = str(pathlib.Path(__file__).parents[2] / "scripts/emulated-host")

pytestmark = pytest.mark.skipif("MSB_EMULATED_HOST" in os.environ, reason="runs on the host itself")


def call(directory, *command, **more):
    return subprocess.run([EMULATED_HOST, *command], cwd=directory, capture_output=True, timeout=300,
                          **{"stdin": subprocess.DEVNULL, **more})


def environment(**variables):
    return {**os.environ, **variables}


def children(process):
    """The process ids of a process's children: here, of the machine."""
    listed = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


def running(number):
    try:
        return pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_and_wait_for_ready(directory):
    process = subprocess.Popen([EMULATED_HOST, "sh", "-c", "echo ready; sleep 100"], cwd=directory,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process, children(process)


def wait_until_ended(numbers):
    for _ in range(100):
        if not any(running(number) for number in numbers):
            return
        time.sleep(0.05)
    pytest.fail(f"processes left behind: {numbers}")


def test_command_gets_arguments_environment_directory_and_returns_status_and_files(tmp_path):
    directory = tmp_path / "with space, and comma"
    (directory / "inner").mkdir(parents=True)
    (directory / "given").write_text("from the host")
    script = """
        for argument in "$@"; do printf '<%s>' "$argument"; done
        printf '|%s|%s|%s|%s' "$(cat ../given)" "$PASSED" "$HOME" "$(pwd)"
        for path in /dev/kvm /dev/vsock /dev/net/tun /dev/fuse; do [ -w $path ] || echo "no $path"; done
        grep -qw svm /proc/cpuinfo && grep -q cgroup2 /proc/mounts || echo 'no svm or cgroup2'
        echo to errors >&2
        echo written > ../taken && chmod 4751 ../taken && ln ../taken ../link
        echo vanishes > /etc/written-in-the-machine
        sleep 1000 &
        exit 37
    """
    done = call(directory / "inner", "sh", "-c", script, "name", "a b", "new\nline", "quote'\"$x*", "",
                env=environment(MSB_EMULATED_ENV="PASSED UNSET", PASSED="pass ed",
                                MSB_EMULATED_WORK=str(directory)))
    assert done.stdout.decode() == ("<a b><new\nline><quote'\"$x*><>|from the host|pass ed|/root|"
                                    f"{directory}/inner")
    assert done.stderr == b"to errors\n"
    assert done.returncode == 37
    assert (directory / "taken").read_text() == "written\n"
    assert (directory / "taken").stat().st_mode & 0o7777 == 0o4751
    assert (directory / "link").stat().st_ino == (directory / "taken").stat().st_ino
    assert not os.path.exists("/etc/written-in-the-machine")


def test_streams_are_whole_and_separate(tmp_path):
    data = os.urandom(10_000_000)
    done = call(tmp_path, "tee", "/dev/stderr", stdin=None, input=data)
    assert done.stdout == data
    assert done.stderr == data
    assert done.returncode == 0


def test_reader_that_goes_away_ends_the_writer(tmp_path):
    process = subprocess.Popen([EMULATED_HOST, "yes"], cwd=tmp_path, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_two_at_once_command_that_dies_and_command_not_found(tmp_path):
    commands = (["sh", "-c", "kill -KILL $$"], ["no-such-command"])
    processes = [subprocess.Popen([EMULATED_HOST, *command], cwd=tmp_path, stdin=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE) for command in commands]
    died, missing = [(process.communicate()[1], process.returncode) for process in processes]
    assert died == (b"", 128 + signal.SIGKILL)
    assert missing == (b"emulated-host: cannot run no-such-command: No such file or directory\n", 127)


def test_time_that_is_up_is_124(tmp_path):
    started = time.monotonic()
    done = call(tmp_path, "sleep", "1000", env=environment(MSB_EMULATED_TIMEOUT="3"))
    assert done.returncode == 124
    assert b"the time of 3 s was up" in done.stderr
    assert time.monotonic() - started < 10


def test_kernel_panic_is_125_with_the_console(tmp_path):
    done = call(tmp_path, "sh", "-c", "echo before; sleep 0.2; echo c > /proc/sysrq-trigger; sleep 100")
    assert done.returncode == 125
    assert done.stdout == b"before\n"
    assert b"Kernel panic" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_the_machine_too(tmp_path, number):
    process, machine = start_and_wait_for_ready(tmp_path)
    assert machine
    process.send_signal(number)
    assert process.wait(timeout=10) == -number
    wait_until_ended(machine)


def test_machine_that_dies_is_125(tmp_path):
    process, machine = start_and_wait_for_ready(tmp_path)
    for child in machine:
        os.kill(child, signal.SIGKILL)
    assert process.wait(timeout=10) == 125
    assert b"the emulated machine ended before the command did" in process.stderr.read()


@pytest.mark.parametrize("variables, sentence", [
    ({"MSB_EMULATED_WORK": "/nonexistent"}, b"the work directory /nonexistent does not exist"),
    ({"MSB_EMULATED_WORK": "/"}, b"/ cannot be the work directory"),
    ({"MSB_EMULATED_TIMEOUT": "soon"}, b"MSB_EMULATED_TIMEOUT=soon is not a number of seconds"),
    ({"MSB_EMULATED_MEMORY": "much"}, b"the emulated machine ended before the command did"),
])
def test_bad_setting_is_125_and_a_sentence(tmp_path, variables, sentence):
    done = call(tmp_path, "true", env=environment(**variables))
    assert done.returncode == 125
    assert sentence in done.stderr
