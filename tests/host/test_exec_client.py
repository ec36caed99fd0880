# SPDX-License-Identifier: Apache-2.0
"""The tests' own client of the exec protocol, against agents that say what docs/exec-protocol.md shows or forbids."""

import ipaddress
import re
import socket
import struct
import threading

import pytest
from conftest import REPOSITORY
from exec_client import ExecClient
from exec_frames import END, LENGTHS, Closed, Entry, ProtocolError, Refused, Stage, Type, start_payload

PATIENCE = 20  # seconds


def frame(kind, payload=b""):
    return struct.pack("<II", kind, len(payload)) + payload


def example():
    """The bytes of the document's example, as (host, guest)."""
    text = (REPOSITORY / "docs/exec-protocol.md").read_text().split("## Example")[1]
    sides = {"host": bytearray(), "guest": bytearray()}
    for line in text.splitlines():
        found = re.match(r"    (host |guest|     )  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)", line)
        if found:
            side = found[1].strip() or side
            sides[side] += bytes.fromhex(found[2])
    return bytes(sides["host"]), bytes(sides["guest"])


class Agent:
    """Takes connections one after another, greets each, and answers it with the next script: bytes to expect (None for
    all until the end of the stream), bytes to say, in turn."""

    def __init__(self, path, *scripts):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.scripts = scripts
        self.failure = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            for script in self.scripts:
                connection, _ = self.listener.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    self.follow(connection, script)
        except (AssertionError, OSError) as error:
            self.failure = error

    @staticmethod
    def take(connection, length):
        data = b""
        while len(data) < length and (piece := connection.recv(length - len(data))):
            data += piece
        return data

    def follow(self, connection, script):
        assert self.take(connection, 13) == b"CONNECT 1025\n"
        connection.sendall(b"OK 1073741824\n")
        for number, data in enumerate(script):
            if number % 2 == 1:
                connection.sendall(data)
            elif data is not None:
                assert self.take(connection, len(data)) == data
            else:
                while connection.recv(65536):
                    pass

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.thread.join(PATIENCE)
        self.listener.close()
        assert not self.thread.is_alive()
        if kind is None and self.failure is not None:
            raise self.failure


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent"


def client(path):
    return ExecClient(path, timeout=PATIENCE)


EXITED = struct.pack("<4I6Q", 1, 0, 0, 1, 10, 20, 30, 3, 0, 0)
STARTED = frame(Type.STARTED, struct.pack("<II", 1, 2))
HEADER_OF_START = frame(Type.START, start_payload(["x"]))


def test_example_of_the_document_is_what_is_said(path):
    host, guest = example()
    start, started = 8 + 54, 8 + 8
    assert len(host) == start + 8 + 3 + 8
    with Agent(path, (host[:start], guest[:started], host[start:], guest[started:] + EXITED[16:])):
        process = client(path).start(["cat", "-"], {"A": "1"})
        process.send_input(b"hi\n")
        process.end_input()
        output, error, exited = process.collect()
    assert (process.id, process.pid) == (1, 2)
    assert (output, error, exited.status, exited.written) == (b"hi\n", b"", 0, (3, 0, 0))
    assert (exited.user_us, exited.system_us, exited.max_rss_kib) == (10, 20, 30)
    assert (exited.signal, exited.timed_out) == (None, False)


def test_start_with_everything_is_encoded_as_documented():
    payload = start_payload(["a", b"\xff"], ["X=1"], "/d", "u:g", ["wheel", "7"], [(7, 10, END)], 0o77, 1500, 0, (24, 80),
                            channel=True, no_stdin=True, label="l", create_directory=True)
    assert payload == bytes.fromhex(
        "1f000000 02000000 01000000 02000000 01000000 3f000000 dc050000 00000000 1800 5000 00000000"
        "07000000 00000000 0a00000000000000 ffffffffffffffff"
    ) + b"l\0u:g\0/d\0wheel\x007\0a\0\xff\0X=1\0"


def test_refused_start_says_why(path):
    refused = frame(Type.REFUSED, struct.pack("<II", Stage.EXECUTE, 2) + b"cannot find x")
    with Agent(path, (HEADER_OF_START, refused)), pytest.raises(Refused) as raised:
        client(path).start(["x"])
    assert (raised.value.stage, raised.value.code, raised.value.text) == (Stage.EXECUTE, 2, "cannot find x")


def test_refusal_is_seen_though_the_agent_stopped_reading(path):
    refused = frame(Type.REFUSED, struct.pack("<II", Stage.USER, 0) + b"no")
    with Agent(path, (HEADER_OF_START, refused)), pytest.raises(Refused):
        client(path).start(["x"], data=b"x" * 8_000_000)


@pytest.mark.parametrize("said", [
    pytest.param(frame(Type.DONE, bytes(8)), id="DONE instead of STARTED"),
    pytest.param(frame(Type.STDOUT, b"x"), id="STDOUT before STARTED"),
    pytest.param(frame(Type.STARTED, bytes(8)), id="process 0"),
    pytest.param(frame(Type.STARTED, bytes(7)), id="STARTED too short"),
    pytest.param(frame(1, bytes(16)), id="HELLO"),
    pytest.param(frame(200), id="unknown type"),
    pytest.param(frame(Type.PING), id="a type of the host"),
    pytest.param(STARTED + frame(Type.STDOUT), id="empty STDOUT"),
    pytest.param(STARTED + frame(Type.STDOUT, bytes(65_537)), id="STDOUT too long"),
    pytest.param(STARTED + struct.pack("<II", Type.STDOUT, 0xffffffff), id="STDOUT of 4 GiB"),
    pytest.param(STARTED + STARTED, id="STARTED twice"),
    pytest.param(STARTED + frame(Type.EXITED, EXITED), id="EXITED without the output"),
    pytest.param(STARTED + frame(Type.STDOUT, b"123") + frame(Type.EXITED, EXITED) + frame(Type.STDOUT, b"x"),
                 id="STDOUT after EXITED"),
    pytest.param(STARTED + frame(Type.STDOUT, b"123") + frame(Type.EXITED, struct.pack("<I", 3) + EXITED[4:]),
                 id="EXITED of no kind"),
    pytest.param(STARTED + frame(Type.STDOUT, b"123") + frame(Type.EXITED, EXITED)[:-1], id="EXITED cut off"),
])
def test_what_the_document_forbids_is_an_error(path, said):
    with Agent(path, (HEADER_OF_START, said)), pytest.raises(ProtocolError):
        client(path).start(["x"]).collect()


def test_agent_that_vanishes_is_told_from_one_that_ends(path):
    with Agent(path, (HEADER_OF_START, STARTED)), pytest.raises(Closed):
        client(path).start(["x"]).collect()


def test_silent_agent_is_given_up(path):
    with Agent(path, (HEADER_OF_START, STARTED, None)):
        process = client(path).start(["x"])
        with pytest.raises(TimeoutError):
            process.receive(timeout=0.05)
        process.close()


def test_two_that_write_at_once_do_not_wait_for_each_other(path):
    data = bytes(2_000_000)
    chunks = [data[at:at + 65_536] for at in range(0, len(data), 65_536)]
    said = b"".join(frame(Type.STDOUT, chunk) for chunk in chunks)
    end = frame(Type.EXITED, struct.pack("<4I6Q", 1, 0, 0, 1, 0, 0, 0, len(data), 0, 0))
    heard = b"".join(frame(Type.STDIN, chunk) for chunk in chunks)
    with Agent(path, (HEADER_OF_START, STARTED + said, heard, end)):
        process = client(path).start(["x"])
        process.send_input(data)
        assert process.collect()[0] == data


def test_attach_goes_on_where_it_was_told(path):
    attached = frame(Type.ATTACHED, struct.pack("<II5QII", 7, 2, 5, 0, 9, 100, 200, 9, 0))
    with Agent(path, (frame(Type.ATTACH, struct.pack("<II3Q", 7, 0, 2, 0, END)),
                      attached + frame(Type.CHANNEL, b"c") + frame(Type.DETACHED))):
        process = client(path).attach(7, (2, 0, END))
        assert process.collect_streams() == (b"", b"", b"c")
    assert process.detached and process.offsets == [5, 0, 10]
    assert (process.attached.input, process.attached.channel_input) == (100, 200)
    assert (process.attached.input_ended, process.attached.channel_input_ended) == (True, False)
    assert (process.attached.terminal, process.attached.has_input) == (False, True)


def test_requests_share_a_connection_and_survive_a_refusal(path):
    refused = frame(Type.REFUSED, struct.pack("<II", Stage.PROCESS, 0) + b"no such process")
    process = struct.pack("<6I7Q", 1, 2, 1, 2, 0, 0, 99, 3, 2, 1, 0, 0, 0) + b"label\0program\0"
    listeners = [struct.pack("<II16s", 4, 80, bytes([127, 0, 0, 1])), struct.pack("<II16s", 6, 81, bytes(15) + b"\1")]
    with Agent(path, (
            frame(Type.PING, b"a"), frame(Type.PONG, b"a"),
            frame(Type.SIGNAL, struct.pack("<III", 5, 9, 1)), refused,
            frame(Type.LIST), frame(Type.PROCESS, process) + frame(Type.DONE, struct.pack("<Q", 1)),
            frame(Type.METRICS), frame(Type.MEASURED, struct.pack("<18Q", *range(18))),
            frame(Type.LISTENERS), b"".join(frame(Type.LISTENER, one) for one in listeners)
            + frame(Type.DONE, struct.pack("<Q", 2)),
            frame(Type.SET_CLOCK, struct.pack("<Q", 10**18)), frame(Type.DONE, bytes(8)),
            frame(Type.SET_NAMES, b"host\0\0hosts\0"), frame(Type.DONE, bytes(8)), None)):
        with client(path) as one:
            one.ping(b"a")
            with pytest.raises(Refused):
                one.signal(5, 9, group=True)
            listed, = one.list()
            metrics = one.metrics()
            found = one.listeners()
            one.set_clock(10**18)
            one.set_names("host", hosts="hosts")
    assert (listed.label, listed.program, listed.running, listed.written) == ("label", "program", True, (3, 2, 1))
    assert (metrics.time_ns, metrics.steal_us, metrics.oom_kills) == (0, 5, 17)
    assert [(one.address, one.port) for one in found] == [
        (ipaddress.ip_address("127.0.0.1"), 80), (ipaddress.ip_address("::1"), 81)]


def test_tunnel_carries_bytes_after_done(path):
    with Agent(path, (frame(Type.CONNECT, struct.pack("<II", 1, 80)) + b"early", frame(Type.DONE, bytes(8)) + b"late",
                      b"more", b"", None, b"last")):
        tunnel = client(path).connect_tcp(80, b"early")
        assert tunnel.receive() == b"late"
        tunnel.send(b"more")
        tunnel.end()
        assert tunnel.receive_all() == b"last"
        tunnel.close()


def test_files_are_written_and_read(path):
    leave = struct.pack("<I", 2**32 - 1)
    write = frame(Type.FILE_WRITE, struct.pack("<II", 8, 0o644) + leave * 2 + bytes(16) + b"/f\0")
    read = frame(Type.FILE_READ, bytes(16) + struct.pack("<QQ", 1, 2) + b"/f\0")
    stat = frame(Type.FILE_STAT, struct.pack("<I", 1) + bytes(28) + b"/f\0")
    fields = (0o100644, 1, 2, 3, 4, 5, 6, -7, 8)
    entry = struct.pack("<4I3Q2q2I", *fields, 0, 0) + b"/f\0\0"
    with Agent(path, (
            frame(Type.FILES), frame(Type.DONE, bytes(8)),
            write + frame(Type.FILE_DATA, b"abcd") + frame(Type.FILE_DATA), frame(Type.DONE, struct.pack("<Q", 4)),
            read, frame(Type.FILE_DATA, b"bc") + frame(Type.DONE, struct.pack("<Q", 2)),
            stat, frame(Type.FILE_ENTRY, entry) + frame(Type.DONE, bytes(8)), None)):
        with client(path).files() as files:
            files.write("/f", b"abcd", flags=8)
            assert files.read("/f", 1, 2) == b"bc"
            assert files.stat("/f", follow=True) == Entry(*fields, 0, "/f", "")


def test_types_are_those_of_the_document():
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", (REPOSITORY / "docs/exec-protocol.md").read_text(), re.MULTILINE)
    documented = {}
    for number, name in rows:  # the first table has the frames, a later one the file requests
        is_request = int(number) in {*range(128, 142), 144}
        documented.setdefault(int(number), f"FILE_{name}" if is_request else name)
    for kind in Type:
        assert documented[kind] == kind.name
    assert {Type(kind) for kind in documented if kind in iter(Type)} == set(Type)
    assert set(LENGTHS) < set(Type)
