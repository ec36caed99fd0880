# SPDX-License-Identifier: Apache-2.0
"""`msb log`, of logs that are written here."""

import json
import os
import signal
import threading
import time

import pytest
from conftest import read_output
from fake_sandbox import host  # noqa: F401  (a fixture)

PATIENCE = 20  # seconds


def line(text, stream="stdout", seconds=1):
    return json.dumps({"time_ms": int(seconds * 1000), "stream": stream, "text": text}) + "\n"


@pytest.fixture
def state(host):  # noqa: F811
    """The state directory of a sandbox that does not run."""
    made = host.project / "menv/web"
    made.mkdir(parents=True)
    return made


def test_lines_go_to_the_streams_that_they_were_written_to(host, state):  # noqa: F811
    (state / "output.log.1").write_text(line("a\n") + line("b\n", "stderr"))
    (state / "output.log").write_text(line("c") + line("d\n") + line("e\n", "stderr"))
    result = host("log", "web")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"a\ncd\n", b"b\ne\n")
    assert host.done("logs", "web") == b"a\ncd\n"


def test_the_last_lines_and_those_since_a_time(host, state):  # noqa: F811
    now = time.time()
    (state / "output.log.1").write_text(line("old\n", seconds=now - 7200))
    (state / "output.log").write_text(line("older\n", seconds=now - 700) + line("new\n", seconds=now - 5))
    assert host.done("log", "--tail", "1", "web") == b"new\n"
    assert host.done("log", "-t", "2", "web") == b"older\nnew\n"
    assert host.done("log", "-t", "0", "web") == b""
    assert host.done("log", "-t", "9", "web") == b"old\nolder\nnew\n"
    assert host.done("log", "--since", "10m", "web") == b"new\n"
    assert host.done("log", "--since", "1h", "web") == b"older\nnew\n"
    assert host.done("log", "--since", "2001-01-01T00:00:00Z", "web") == b"old\nolder\nnew\n"
    host.refused("log", "--since", "soon", "web", words=["--since", "soon"])


def test_times_and_json(host, state):  # noqa: F811
    (state / "output.log").write_text(line("a", seconds=86400.005) + line("b\n", seconds=86401) + line("c\n", "stderr", 86402))
    result = host("log", "--timestamps", "web")
    assert result.stdout == b"1970-01-02T00:00:00.005Z ab\n"
    assert result.stderr == b"1970-01-02T00:00:02.000Z c\n"
    told = [json.loads(each) for each in host.done("log", "--format", "json", "web").splitlines()]
    assert [(one["stream"], one["text"]) for one in told] == [("stdout", "a"), ("stdout", "b\n"), ("stderr", "c\n")]


def test_what_no_sandbox_has_written_is_passed_over(host, state):  # noqa: F811
    (state / "output.log").write_text("rubbish\n" + line("good\n") + "[" * 200_000 + "\n" + line("better\n") + "cut")
    result = host("log", "web")
    assert (result.returncode, result.stdout) == (0, b"good\nbetter\n")
    assert result.stderr.startswith(b"msb: passed over 3 lines") and result.stderr.count(b"\n") == 1


def test_a_log_that_is_no_file_is_refused(host, state):  # noqa: F811
    (state / "output.log").symlink_to("/etc/passwd")
    host.refused("log", "web", words=["output.log"])


def test_a_sandbox_without_a_log_is_told(host):  # noqa: F811
    host.refused("log", "web", words=["web", "has not run yet"])
    host.refused("log", "wbe", words=["wbe"])
    host.start_sandbox("quiet", temporary=True)
    host.refused("log", "quiet", words=["quiet", "no log"])


def append(path, text):
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def test_a_log_is_followed_through_renaming_until_the_sandbox_ends(host):  # noqa: F811
    sandbox = host.start_sandbox()
    log = sandbox.state / "output.log"
    with host.start("log", "--follow", "web") as process:
        append(log, line("first\n"))  # it was not there yet
        assert read_output(process, 6, PATIENCE) == b"first\n"
        append(log, line("second\n"))
        assert read_output(process, 7, PATIENCE) == b"second\n"
        log.rename(f"{log}.1")
        append(log, line("third\n"))
        assert read_output(process, 6, PATIENCE) == b"third\n"
        assert process.poll() is None
        append(log, line("last\n"))
        sandbox.end()
        out, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, errors) == (0, b"last\n", b"")


def test_every_line_of_much_that_is_renamed_often_is_shown(host):  # noqa: F811
    sandbox = host.start_sandbox()
    log = sandbox.state / "output.log"
    append(log, line("0\n"))
    with host.start("log", "-F", "web") as process:

        def write():
            for number in range(1, 2000):
                if number % 500 == 0:
                    log.rename(f"{log}.1")
                    time.sleep(0.6)  # a reader that is away for longer may lose what is renamed twice
                append(log, line(f"{number}\n"))
            sandbox.end()

        writer = threading.Thread(target=write)
        writer.start()
        out, _ = process.communicate(timeout=3 * PATIENCE)
        writer.join()
    assert out.split() == [b"%d" % number for number in range(2000)]


def test_the_output_of_a_temporary_sandbox(host):  # noqa: F811
    sandbox = host.start_sandbox("quick", temporary=True)
    append(sandbox.directory / "output", line("hello\n"))
    assert host.done("log", "quick") == b"hello\n"
    with host.start("log", "-F", "quick") as process:
        assert read_output(process, 6, PATIENCE) == b"hello\n"
        sandbox.end()
        assert process.wait(timeout=PATIENCE) == 0


def test_an_interrupt_ends_following_without_a_word(host):  # noqa: F811
    sandbox = host.start_sandbox()
    append(sandbox.state / "output.log", line("x\n"))
    with host.start("log", "-F", "web") as process:
        assert read_output(process, 2, PATIENCE) == b"x\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    # What a shell calls status 130.
    assert (process.returncode, errors) == (-signal.SIGINT, b"")
    assert os.listdir(sandbox.state)
