# SPDX-License-Identifier: Apache-2.0
"""`msb cp`, with the guest's agent on this host, whose files are then the guest's, and with agents that do not mean well."""

import contextlib
import os
import signal
import socket
import stat
import struct
import subprocess
import tarfile
import threading
import time

import pytest
from conftest import REPOSITORY, wait_until
from exec_frames import Type
from fake_sandbox import host  # noqa: F401  (a fixture)
from raw_tar import RawTar
from scripted_agent import Agent, done, frame, refused

# The agent gives what is copied in to root.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent on this host has to be root, as in a guest")

SOURCES = [source for source in sorted((REPOSITORY / "initramfs").glob("*.c")) if source.name != "main.c"]


@pytest.fixture(scope="module")
def agent_program(tmp_path_factory):
    program = tmp_path_factory.mktemp("agent") / "agent"
    subprocess.run(["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-no-pie", "-fno-pie", f"-I{REPOSITORY}",
                    "-idirafter", REPOSITORY / "build/initramfs/include", "-o", program,
                    REPOSITORY / "tests/host/agent_on_host.c", *SOURCES], check=True)
    return program


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def join(stream, agent):
    """Joins a connection to one of the agent, as the machine does. Who asked may be gone by now."""
    with contextlib.suppress(OSError):
        assert stream.recv(13, socket.MSG_WAITALL) == b"CONNECT 1025\n"
        stream.sendall(b"OK 1073741824\n")
        inner = socket.socket(socket.AF_UNIX)
        inner.connect(agent)
        for ends in ((stream, inner), (inner, stream)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def serve(server, agent):
    with contextlib.suppress(OSError):
        while True:
            join(server.accept()[0], agent)


@pytest.fixture
def web(host, agent_program):  # noqa: F811
    """A sandbox whose files are this host's."""
    sandbox = host.start_sandbox()
    inner = str(sandbox.directory / "inner")
    ours, control = socket.socketpair()
    server = socket.socket(socket.AF_UNIX)
    server.bind(sandbox.agent)
    server.listen()
    with ours, control, subprocess.Popen([agent_program, inner], stdin=control) as process:
        wait_until(lambda: os.path.exists(inner), "the agent listens")
        threading.Thread(target=serve, args=[server, inner], daemon=True).start()
        yield sandbox
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        ours.close()
        control.close()
        assert process.wait(timeout=10) == 0


@pytest.fixture
def guest(tmp_path):
    """A directory of the guest."""
    made = tmp_path / "guest"
    made.mkdir()
    return made


def make_tree(path):
    (path / "d/deep").mkdir(parents=True)
    (path / "d/deep/file").write_bytes(os.urandom(300_000))
    (path / "d/run").write_text("#!/bin/sh\n")
    (path / "d/run").chmod(0o755)
    (path / "d/link").symlink_to("../outside")
    (path / "d/ü b").write_text("blank")
    (path / "empty").mkdir()
    return path


def listing(path):
    """What is below: type and permissions, and content."""
    found = {}
    for entry in sorted(path.rglob("*")):
        mode = entry.lstat().st_mode
        content = os.readlink(entry) if entry.is_symlink() else entry.read_bytes() if entry.is_file() else None
        found[str(entry.relative_to(path))] = (stat.S_IFMT(mode) if entry.is_symlink() else mode, content)
    return found


def test_a_file_goes_in_and_comes_out(host, web, guest, tmp_path):  # noqa: F811
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o750)
    host.done("cp", source, f"web:{guest}/new")
    assert (guest / "new").read_bytes() == source.read_bytes()
    assert stat.S_IMODE((guest / "new").stat().st_mode) == 0o750
    host.done("cp", source, f"web:{guest}")
    assert (guest / "source").exists()
    host.done("cp", f"web:{guest}/new", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert (tmp_path / "back").stat().st_mtime_ns == (guest / "new").stat().st_mtime_ns
    (tmp_path / "into").mkdir()
    host.done("cp", f"web:{guest}/new", f"{tmp_path}/into/")
    assert (tmp_path / "into/new").read_bytes() == source.read_bytes()
    assert sorted(os.listdir(guest)) == ["new", "source"]


def test_trees_go_in_and_come_out(host, web, guest, tmp_path):  # noqa: F811
    source = make_tree(tmp_path / "source")
    host.done("cp", source, f"web:{guest}")
    assert listing(guest / "source") == listing(source)
    host.done("cp", source, f"web:{guest}/named")
    assert listing(guest / "named") == listing(source)
    (guest / "content").mkdir()
    host.done("cp", f"{source}/.", f"web:{guest}/content")
    assert listing(guest / "content") == listing(source)
    host.done("cp", f"{source}/.", f"web:{guest}/made")
    assert listing(guest / "made") == listing(source)
    for word, place in ((f"web:{guest}/source", "out"), (f"web:{guest}/source/.", "out-content")):
        host.done("cp", word, tmp_path / place)
        assert listing(tmp_path / place) == listing(source)
    host.done("cp", f"web:{guest}/source", tmp_path / "out")
    assert listing(tmp_path / "out/source") == listing(source)
    host.done("cp", f"web:{guest}/source/d/link", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "../outside"


def test_owners_and_times_are_kept_when_asked_for(host, web, guest, tmp_path):  # noqa: F811
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("f")
    os.chown(source / "f", 1234, 5678)
    os.utime(source / "f", ns=(1, 1_600_000_000_123_456_789))
    host.done("cp", source, f"web:{guest}/plain")
    host.done("cp", "-a", source, f"web:{guest}/kept")
    assert ((guest / "plain/f").stat().st_uid, (guest / "kept/f").stat().st_uid) == (0, 1234)
    assert (guest / "kept/f").stat().st_mtime_ns == 1_600_000_000_123_456_789
    (guest / "there").write_text("older")
    host.done("cp", "-a", source / "f", f"web:{guest}/there")
    found = (guest / "there").stat()
    assert (found.st_uid, found.st_gid, (guest / "there").read_text()) == (1234, 5678, "f")


def test_what_has_no_place_is_refused(host, web, guest, tmp_path):  # noqa: F811
    source = make_tree(tmp_path / "source")
    file = source / "d/run"
    (guest / "file").write_text("kept")
    host.refused("cp", file, f"web:{guest}/none/x", words=["there is no directory", f"{guest}/none"])
    host.refused("cp", file, f"web:{guest}/none/", words=["there is no directory"])
    host.refused("cp", file, f"web:{guest}/file/", words=["no directory"])
    host.refused("cp", source, f"web:{guest}/file", words=["no directory"])
    (guest / "source").write_text("in the way")
    host.refused("cp", source, f"web:{guest}", words=["no directory"])
    host.refused("cp", f"web:{guest}/none", tmp_path, words=["there is no", f"{guest}/none"])
    host.refused("cp", f"web:{guest}/file", tmp_path / "none/x", words=["none/x"])
    host.refused("cp", f"web:{guest}", file, words=["no directory"])
    host.refused("cp", tmp_path / "none", f"web:{guest}", words=["none"])
    host.refused("cp", "/dev/null", f"web:{guest}", words=["/dev/null"])
    host.refused("cp", "web:/dev/zero", tmp_path / "zero", words=["/dev/zero"])
    host.refused("cp", "a", "b", words=["NAME:PATH"])
    host.refused("cp", "web:a", "web:b", words=["NAME:PATH"])
    host.refused("cp", "web:", tmp_path, words=["web:/PATH"])
    host.refused("cp", "wbe:/x", tmp_path, words=["wbe"])
    assert (guest / "file").read_text() == "kept"


def test_streams_are_tar(host, web, guest, tmp_path):  # noqa: F811
    source = make_tree(tmp_path / "source")
    host.done("cp", source, f"web:{guest}/in")
    stream = host.done("cp", f"web:{guest}/in", "-")
    (tmp_path / "stream").write_bytes(stream)
    with tarfile.open(tmp_path / "stream") as tar:
        assert "./d/run" in tar.getnames()
    (guest / "again").mkdir()
    host.done("cp", "-", f"web:{guest}/again", stdin=stream)
    assert listing(guest / "again") == listing(source)


def test_an_interrupted_copy_in_leaves_the_old_file(host, web, guest):  # noqa: F811
    (guest / "file").write_text("old")
    big = guest.parent / "big"
    with open(big, "wb") as file:
        file.truncate(4 << 30)
    with host.start("cp", big, f"web:{guest}/file") as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) != 0
    assert (guest / "file").read_text() == "old"
    wait_until(lambda: os.listdir(guest) == ["file"], "nothing but the old file is there")


# --- Agents that are scripted ---

FILE_TYPES = {"file": stat.S_IFREG | 0o644, "directory": stat.S_IFDIR | 0o755}


def entry(path, mode, change=0, modified=0):
    fields = struct.pack("<IIIIQQQqqII", mode, 0, 0, 1, 0, 1, 0, modified, 0, change, 0)
    return frame(Type.FILE_ENTRY, fields + path + b"\0\0")


def scripted(sandbox, kind, say, modified=0):
    """An agent that has one file or directory, at every path, and says this when its content is asked for."""

    def script(_, connection, request, payload):
        if request == Type.FILES:
            connection.say(done())
        elif request == Type.FILE_STAT:
            connection.say(entry(payload[32:].split(b"\0")[0], FILE_TYPES[kind], modified=modified), done())
        elif request in (Type.FILE_READ, Type.FILE_PACK):
            return say(connection)
        return True

    return Agent(sandbox.agent, script)


def packing(data):
    def say(connection):
        for at in range(0, len(data), 65_536):
            connection.say(frame(Type.FILE_DATA, data[at:at + 65_536]))
        connection.say(done(1))

    return say


HOSTILE = {
    "a name with ..": RawTar().file("../outside", "evil"),
    "a name with .. in the middle": RawTar().directory("./a/").file("./a/../../outside", "evil"),
    "an absolute name": RawTar().file("/tmp/msb-evil", "evil"),
    "a symbolic link and a file through it": RawTar().symlink("./l", "..").file("./l/outside", "evil"),
    "a symbolic link swapped for a directory": RawTar().directory("./d/").file("./d/f").symlink("./d", "..").file("./d/outside", "e"),
    "an absolute link and a directory through it": RawTar().symlink("./l", "/tmp").directory("./l/msb-evil/"),
    "a hard link to what is outside": RawTar().hard_link("./h", "../outside").file("./h", "evil"),
    "a hard link through a link": RawTar().symlink("./l", "..").hard_link("./h", "./l/outside"),
}


@pytest.mark.parametrize("stream", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_a_guest_sends_leads_out(host, tmp_path, stream):  # noqa: F811
    sandbox = host.start_sandbox()
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    before = sorted(os.listdir(tmp_path))
    with contextlib.closing(scripted(sandbox, "directory", packing(stream.bytes()))):
        host.refused("cp", "web:/x", tmp_path / "into", words=["into"])
    assert outside.read_text() == "untouched" and outside.stat().st_nlink == 1
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "into"])
    assert not os.path.lexists("/tmp/msb-evil")


def test_special_files_are_left_out_and_told(host, tmp_path):  # noqa: F811
    sandbox = host.start_sandbox()
    stream = RawTar().add("./null", b"3", device=(1, 3)).add("./p\x1b[2J", b"6").add("./f", content=b"x", mode=0o6777)
    with contextlib.closing(scripted(sandbox, "directory", packing(stream.bytes()))):
        result = host("cp", "web:/x", tmp_path / "into")
    assert result.returncode == 0
    assert b"2 special files" in result.stderr and b"\x1b" not in result.stderr
    assert os.listdir(tmp_path / "into") == ["f"]
    assert (tmp_path / "into/f").stat().st_mode & 0o7000 == 0


def test_a_guest_that_ends_halfway_leaves_the_old_file(host, tmp_path):  # noqa: F811
    sandbox = host.start_sandbox()
    (tmp_path / "file").write_text("old")
    before = sorted(os.listdir(tmp_path))
    with contextlib.closing(scripted(sandbox, "file", lambda connection: connection.say(frame(Type.FILE_DATA, b"new")))):
        host.refused("cp", "web:/x", tmp_path / "file", words=["web:/x"])
        host.refused("cp", "web:/x", tmp_path / "other")
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("modified", [-2**63, 2**63 - 1, -1])
def test_a_file_has_any_time(host, tmp_path, modified):  # noqa: F811
    sandbox = host.start_sandbox()
    with contextlib.closing(scripted(sandbox, "file", lambda one: one.say(frame(Type.FILE_DATA, b"x"), done(1)), modified)):
        host.done("cp", "web:/x", tmp_path / "file")
    told = (tmp_path / "file").stat().st_mtime_ns // 10**9
    # A file system has the nearest that it can have: ext4 nothing before 1901.
    assert told in (modified // 10**9, -2**31)


def test_a_guest_that_refuses_is_quoted_without_its_control_characters(host, tmp_path):  # noqa: F811
    sandbox = host.start_sandbox()
    with contextlib.closing(scripted(sandbox, "directory", lambda one: one.say(refused(8, 13, b"no \x1b[2J way")))):
        told = host.refused("cp", "web:/x", tmp_path / "into", words=["way"])
    assert "\x1b" not in told


def test_a_tree_that_changed_while_it_was_packed_is_told(host, tmp_path):  # noqa: F811
    sandbox = host.start_sandbox()
    stream = RawTar().file("./f", "x").bytes()
    with contextlib.closing(scripted(sandbox, "directory", lambda one: one.say(
            frame(Type.FILE_DATA, stream), refused(8, 0, b"f of /x changed while it was packed")))):
        host.refused("cp", "web:/x", tmp_path / "into", words=["changed while it was packed"])


def test_differences_are_sorted_and_shown_as_text(host):  # noqa: F811
    sandbox = host.start_sandbox()

    def script(_, connection, request, __):
        if request == Type.FILES:
            connection.say(done())
        else:
            assert request == Type.FILE_DIFF
            connection.say(entry(b"etc/new\x1b[2J", stat.S_IFREG, 1), entry(b"etc", stat.S_IFDIR, 2),
                           entry(b"bin/old", stat.S_IFREG, 3), done(3))
        return True

    with contextlib.closing(Agent(sandbox.agent, script)):
        assert host.done("diff", "web") == b"D /bin/old\nC /etc\nA /etc/new\\x1b[2J\n"
        assert b'"change": "deleted"' in host.done("diff", "web", "--format", "json")
