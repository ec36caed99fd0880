# SPDX-License-Identifier: Apache-2.0
"""The exec protocol with the real agent in a microVM: through msb-vmm exec, and through a client written from the document."""

import hashlib
import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tarfile
import time

import pytest
from conftest import BASE, IMAGES, MSB_VMM, PYTHON, REPOSITORY, read_output, wait_until

sys.path.insert(0, str(REPOSITORY / "tests"))
from exec_client import ExecClient  # noqa: E402
from exec_frames import Closed, Refused  # noqa: E402

DRIVERS = REPOSITORY / "protocol/interpreters"
SHELL = {"PATH": "/usr/bin:/bin"}


class Sandbox:
    def __init__(self, vmm, directory, image, *options):
        self.path = directory / "s"
        self.vmm = vmm
        self.process = vmm.start("run", "--image", image, "--socket", self.path, *options, "--", "sleep", "100000")
        wait_until(self.path.exists, "the sandbox's socket is there", 60)
        self.client = ExecClient(self.path)

    def exec(self, *arguments, stdin=b""):
        return subprocess.run([MSB_VMM, "exec", self.path, *arguments], input=stdin, capture_output=True, timeout=60, check=False)

    def sh(self, script, **options):
        process = self.client.start(["sh", "-c", script], SHELL, **options)
        with process:
            process.end_input()
            return process.collect()

    def end(self):
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=60)
        assert not self.path.exists()


@pytest.fixture(scope="module")
def sandbox(vmm, tmp_path_factory):
    made = Sandbox(vmm, tmp_path_factory.mktemp("exec"), BASE, "--memory", "384")
    yield made
    made.end()


def test_exec_passes_streams_and_the_exit_status(sandbox):
    result = sandbox.exec("--env", "A=b c", "--workdir", "/tmp", "--", "sh", "-c", 'cat; pwd; echo "$A" >&2; exit 7', stdin=b"in\n")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"in\n/tmp\n", b"b c\n")
    data = random.Random(3).randbytes(1_000_003)
    assert sandbox.exec("--", "cat", stdin=data).stdout == data
    assert sandbox.exec("--", "nonexistent").returncode == 127
    assert sandbox.exec("--timeout", "1", "--", "sleep", "1000").returncode == 124


def test_users_groups_limits_and_mask_are_the_guests(sandbox):
    result = sandbox.exec("--user", "nobody", "--group", "7", "--ulimit", "nofile=100:200", "--umask", "027", "--", "sh", "-c",
                          "id -un; id -G; ulimit -n; umask; echo $HOME")
    assert result.stderr == b""
    name, groups, files, mask, home = result.stdout.decode().splitlines()
    assert (name, files, mask) == ("nobody", "100", "0027")
    assert "7" in groups.split() and home.startswith("/")
    assert b"nosuchuser" in sandbox.exec("--user", "nosuchuser", "--", "true").stderr


def test_a_terminal_has_a_size_and_takes_control_characters(sandbox):
    with sandbox.client.start(["sh", "-c", "trap 'stty size' WINCH; stty size; while read line || true; do echo got $line; done"], SHELL,
                              terminal=(33, 77)) as process:
        seen = b""

        def until(text):
            nonlocal seen
            while text not in seen:
                frame = process.receive()
                assert frame is not None, seen
                seen += frame.payload

        until(b"33 77")
        sandbox.client.resize(process.id, 40, 100)
        until(b"40 100")
        process.send_input(b"word\n")
        until(b"got word")
        process.send_input(b"\x03")
        _, _, exited = process.collect()
        assert (exited.kind, exited.value) == (2, 2)


def test_output_is_exact_while_connections_are_killed_at_random(sandbox):
    source = random.Random(4)
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i of many; i=$((i+1)); done; exec 1>&-; echo end >&2; exit 3"
    expected = b"".join(b"line %d of many\n" % number for number in range(20000))
    process = sandbox.client.start(["sh", "-c", script], SHELL, keep=1 << 20, no_stdin=True, label="killed at random")
    output = b""
    exited = None
    for _ in range(200):
        try:
            for _ in range(source.randrange(1, 12)):
                frame = process.receive(timeout=30)
                if frame is None:
                    break
                if frame.type.name == "STDOUT":
                    output += frame.payload
        finally:
            process.close()
        exited = process.exited
        if exited is not None:
            break
        process = sandbox.client.attach(process.id, (len(output), 0, 0))
        assert process.attached.offsets[0] == len(output)  # nothing was lost
    assert exited is not None and exited.value == 3
    assert hashlib.sha256(output).digest() == hashlib.sha256(expected).digest()
    sandbox.client.forget(process.id)


def test_loss_is_reported_when_more_is_written_than_is_kept(sandbox):
    process = sandbox.client.start(["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo 0123456789abcde; i=$((i+1)); done"],
                                   SHELL, keep=4096, no_stdin=True)
    process.close()
    exited = sandbox.client.wait(process.id)
    assert exited.written[0] == 48000
    [listed] = [entry for entry in sandbox.client.list() if entry.process == process.id]
    assert not listed.running and listed.written[0] - listed.oldest[0] == 4096
    with sandbox.client.attach(process.id) as attached:
        assert attached.attached.offsets[0] == 48000 - 4096
        output, _, _ = attached.collect()
    assert output == b"0123456789abcde\n" * 256
    sandbox.client.forget(process.id)
    with pytest.raises(Refused):
        sandbox.client.attach(process.id)


def test_detached_processes_are_listed_reattached_and_killed_from_the_command_line(sandbox):
    number = sandbox.exec("--detach", "--label", "mine", "--", "sh", "-c", "echo before; exec sleep 1000").stdout.decode().strip()
    listed = subprocess.run([MSB_VMM, "ps", sandbox.path], capture_output=True, timeout=60, check=True).stdout.decode()
    assert any(line.split()[0] == number and "mine" in line for line in listed.splitlines())
    killed = subprocess.run([MSB_VMM, "kill", sandbox.path, number, "--signal", "KILL"], timeout=60, check=False)
    assert killed.returncode == 0
    result = subprocess.run([MSB_VMM, "attach", sandbox.path, number, "--from-start"], stdin=subprocess.DEVNULL,
                            capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (137, b"before\n")
    assert subprocess.run([MSB_VMM, "forget", sandbox.path, number], timeout=60, check=False).returncode == 0
    with pytest.raises(Refused):
        sandbox.client.attach(int(number))


def test_an_exec_that_runs_out_of_memory_is_told_apart_and_the_kernels_word_comes_along(sandbox):
    _, _, exited = sandbox.sh("echo 1 > /proc/sys/vm/overcommit_memory; exec dd if=/dev/zero of=/dev/null bs=600M count=1")
    assert exited.flags & 1 and "Killed process" in exited.text
    _, _, killed = sandbox.sh("kill -9 $$")
    assert (killed.kind, killed.value, killed.flags) == (2, 9, 0)


def test_usage_and_timeout_are_reported(sandbox):
    _, _, exited = sandbox.sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    assert exited.user_us > 0 and exited.max_rss_kib > 0
    _, _, late = sandbox.sh("sleep 1000", timeout_ms=300)
    assert late.flags & 4 and (late.kind, late.value) == (2, 9)


def test_two_hundred_processes_at_once(sandbox):
    processes = [sandbox.client.start(["sh", "-c", f"read x; echo {number} $x"], SHELL) for number in range(200)]
    for number, process in enumerate(processes):
        process.send_input(b"%d\n" % (number * 7))
        process.end_input()
    for number, process in enumerate(processes):
        output, _, exited = process.collect()
        process.close()
        assert (output, exited.value) == (b"%d %d\n" % (number, number * 7), 0)


def test_a_client_that_vanishes_takes_its_process_with_it(sandbox):
    process = sandbox.client.start(["sh", "-c", "echo $$; exec sleep 31415"], SHELL)
    process.receive()
    process.close()
    wait_until(lambda: b"31415" not in sandbox.sh("ps")[0], "the process is gone")
    with sandbox.client.connect() as connection:  # in the middle of a frame
        connection.send_bytes(struct.pack("<II", 32, 4_000_000) + b"half")
    with sandbox.client.connect() as connection:  # of no known type
        connection.send_bytes(struct.pack("<II", 4711, 0))
        with pytest.raises(Closed):
            connection.receive()
    sandbox.client.ping(b"still here")


def test_arguments_of_two_mebibytes_and_odd_bytes_arrive(sandbox):
    big = ["x" * 100_000] * 20
    output, _, exited = sandbox.sh("true")
    with sandbox.client.start(["sh", "-c", 'echo $#; printf %s "$ODD" | od -An -tx1', "-", *big],
                              [*(f"{key}={value}" for key, value in SHELL.items()), b"ODD=\xff\x01\n=\xc3("], no_stdin=True) as process:
        output, error, exited = process.collect()
    assert (exited.value, error) == (0, b"")
    assert output.split() == [b"20", b"ff", b"01", b"0a", b"3d", b"c3", b"28"]


def test_files_are_written_read_and_changed(sandbox):
    data = random.Random(5).randbytes(8_000_001)
    with sandbox.client.files() as files:
        files.write("/tmp/f/a/data", data, flags=2 | 8, mode=0o640)
        assert files.read("/tmp/f/a/data") == data
        assert files.read("/tmp/f/a/data", offset=1_000_000, length=77) == data[1_000_000:1_000_077]
        files.write("/tmp/f/a/data", b"tail", flags=16)
        entry = files.stat("/tmp/f/a/data")
        assert (entry.size, entry.mode & 0o7777) == (len(data) + 4, 0o640)
        files.symlink("data", "/tmp/f/a/link")
        assert files.readlink("/tmp/f/a/link") == "data"
        files.rename("/tmp/f/a/link", "/tmp/f/link")
        files.chmod("/tmp/f/a/data", 0o4711)
        files.chown("/tmp/f/a/data", 12, 13)
        assert sorted(entry.name for entry in files.walk("/tmp/f")) == ["a", "a/data", "link"]
        with pytest.raises(Refused):
            files.mkdir("/tmp/f/a")
        files.remove("/tmp/f", recursive=True)
        with pytest.raises(Refused):
            files.stat("/tmp/f")
    digest, _, _ = sandbox.sh("ls /tmp | wc -l")
    assert digest.strip() == b"0"


def test_a_tree_goes_in_and_out_as_a_tar_stream(sandbox):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/file", tarfile.REGTYPE), ("d/link", tarfile.SYMTYPE), ("d/hard", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid, member.mtime = kind, 0o751, 5, 6, 1_500_000_000
            member.linkname = {"d/link": "file", "d/hard": "d/file"}.get(name, "")
            member.size = 6 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"inside") if member.size else None)
    sandbox.client.unpack("/tmp/tree", stream.getvalue(), parents=True)
    output, _, _ = sandbox.sh("cd /tmp/tree/d; cat hard; stat -c '%a %u:%g %Y %h' file; readlink link")
    assert output == b"inside751 5:6 1500000000 2\nfile\n"
    packed, _ = sandbox.client.pack("/tmp/tree")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert sorted(member.name.removeprefix("./") for member in archive if member.name not in (".", "./")) == [
            "d", "d/file", "d/hard", "d/link"]
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w") as archive:
        member = tarfile.TarInfo("../escaped")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(Refused):
        sandbox.client.unpack("/tmp/tree", hostile.getvalue())
    assert sandbox.sh("ls -d /tmp/escaped; rm -r /tmp/tree")[0] == b""


def test_tunnels_lead_to_ports_and_sockets_in_the_guest(sandbox):
    server = sandbox.client.start(["nc", "-l", "-p", "8080", "-e", "cat"], SHELL, no_stdin=True)
    wait_until(lambda: any(entry.port == 8080 for entry in sandbox.client.listeners()), "the server listens", 30)
    data = random.Random(6).randbytes(300_000)
    with sandbox.client.connect_tcp(8080, data) as tunnel:
        tunnel.end()
        assert tunnel.receive_all() == data
    server.close()
    with pytest.raises(Refused):
        sandbox.client.connect_tcp(9)


def test_the_machine_is_measured_and_set(sandbox):
    before = sandbox.client.metrics()
    sandbox.sh("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done")
    after = sandbox.client.metrics()
    assert after.user_us > before.user_us and after.time_ns > before.time_ns
    assert 0 < after.memory_available < after.memory_total < 400 << 20
    assert after.processors == 1 and after.disk_total > 0
    sandbox.client.set_clock(1_700_000_000 * 10**9)
    assert abs(int(sandbox.sh("date +%s")[0]) - 1_700_000_000) < 60
    sandbox.client.set_clock(time.time_ns())
    sandbox.client.add_entropy(os.urandom(256))
    sandbox.client.set_names("renamed", "nameserver 192.0.2.1\n", "127.0.0.1 localhost renamed\n")
    assert sandbox.sh("hostname; cat /etc/resolv.conf")[0] == b"renamed\nnameserver 192.0.2.1\n"


def test_programs_in_the_guest_see_neither_the_agent_nor_its_file_service(sandbox):
    with sandbox.client.files() as files:
        programs, _, _ = sandbox.sh("cd /proc; for p in [0-9]*; do readlink $p/exe || true; done")
        # The one of the init is that of their own pid namespace, which only waits.
        assert sorted(programs.split()) == [b"/bin/sh", b"/bin/sleep", b"/init"]
        assert files.stat("/").mode & 0o170000 == 0o040000


def test_stopping_a_sandbox_asks_every_process_and_waits_for_each(vmm, tmp_path):
    stopped = Sandbox(vmm, tmp_path, BASE)
    # The whole group gets the signal, and a shell would say what ended its child.
    script = "exec 2>/dev/null; trap 'sleep 1; echo saved; exit 9' TERM; echo -n ready; while true; do sleep 0.1; done"
    second = subprocess.Popen([MSB_VMM, "exec", stopped.path, "--", "sh", "-c", script], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert read_output(second, 5) == b"ready"
    stopped.process.terminate()
    assert second.communicate(timeout=60) == (b"saved\n", b"")
    assert second.returncode == 9
    assert stopped.process.communicate(timeout=60) == (b"", b"")
    assert stopped.process.returncode == 143  # sleep's own


def test_another_socket_at_the_same_place_is_refused_and_a_dead_one_replaced(vmm, sandbox, tmp_path):
    taken = vmm("run", "--image", BASE, "--socket", sandbox.path, "--", "true")
    assert taken.returncode == 125 and taken.stderr.count(b"\n") == 1
    sandbox.client.ping()
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(dead))
    result = vmm("run", "--image", BASE, "--socket", dead, "--", "echo", "fine")
    assert (result.returncode, result.stdout) == (0, b"fine\n")
    assert not dead.exists()


class Session:
    """docs/interpreters.md, spoken by hand."""

    def __init__(self, client, arguments, variables):
        self.process = client.start(arguments, variables, keep=0, channel=True, no_stdin=True, label="session:test:x")
        self.received = b""
        self.output = b""
        self.id = 1
        self.send(op="hello", id=1)
        assert self.message()["op"] == "ready"

    def send(self, **message):
        body = json.dumps(message).encode()
        self.process.send_channel(struct.pack("<I", len(body)) + body)

    def message(self):
        while len(self.received) < 4 or len(self.received) < 4 + struct.unpack_from("<I", self.received)[0]:
            frame = self.process.receive()
            assert frame is not None, self.output
            if frame.type.name == "CHANNEL":
                self.received += frame.payload
            else:
                self.output += frame.payload
        [size] = struct.unpack_from("<I", self.received)
        body, self.received = self.received[4:4 + size], self.received[4 + size:]
        return json.loads(body)

    def run(self, code):
        self.id += 1
        self.send(op="run", id=self.id, code=code)
        messages = []
        while not messages or messages[-1]["op"] != "done":
            messages.append(self.message())
        return messages


def value(messages):
    [result] = [message for message in messages if message["op"] == "result"]
    return result["data"]["text/plain"]


def test_a_python_session_keeps_its_state_in_the_guest(vmm, tmp_path):
    python = Sandbox(vmm, tmp_path, PYTHON)
    try:
        session = Session(python.client, ["python3", "-u", "-c", (DRIVERS / "python.py").read_text()], SHELL)
        session.run("import numpy\na = numpy.arange(5)")
        assert value(session.run("int((a * a).sum())")) == "30"
        session.run("print('x' * 100_000, end='')")
        assert session.output == b"x" * 100_000  # all of it before the run is done
        assert any(message["op"] == "error" and message["name"] == "ZeroDivisionError" for message in session.run("1/0"))
        assert value(session.run("len(a)")) == "5"
    finally:
        python.end()


def test_a_javascript_session_keeps_its_state_in_the_guest(vmm, tmp_path):
    node = Sandbox(vmm, tmp_path, f"{IMAGES}:node")
    try:
        session = Session(node.client, ["node", "--no-force-async-hooks-checks", "-e", (DRIVERS / "node.js").read_text()], SHELL)
        session.run("const kept = [1, 2, 3]")
        assert value(session.run("await Promise.resolve(kept.length * 14)")) == "42"
    finally:
        node.end()
