# SPDX-License-Identifier: Apache-2.0
"""File locks on shared directories: between programs of a guest, and between them and the host's."""

import fcntl
import select
import signal
import sqlite3
import subprocess

import pytest
from conftest import PYTHON, TIMEOUT, wait_until
from test_shares import shared  # noqa: F401  (a fixture)

# Does each line it is sent, and says what came of it.
ACTOR = """
import errno, fcntl, os, sqlite3, struct, sys
file = open("/work/file", "r+")
def lock(kind, start=0, length=0, how=fcntl.lockf):
    how(file, kind, length, start) if how is fcntl.lockf else how(file, kind)
def keeper(start, length):
    found = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    return struct.unpack("hhqqi4x", found)[::2]  # type, start, process
print(os.getpid(), flush=True)
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except OSError as error:
        print("EDEADLK" if error.errno == errno.EDEADLK else errno.errorcode[error.errno], flush=True)
"""
SHARED, EXCLUSIVE, UNLOCK, AT_ONCE = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB


class Actor:
    def __init__(self, process):
        self.process = process
        self.pid = int(self.answer())

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self):
        assert select.select([self.process.stdout], [], [], TIMEOUT)[0], "no answer"
        return self.process.stdout.readline().decode().strip()

    def __call__(self, line):
        self.send(line)
        return self.answer()

    def lock(self, kind, *arguments, how="lockf"):
        return self(f"lock({int(kind)}, {', '.join([*map(str, arguments), f'how=fcntl.{how}'])})")

    def wait_for(self, kind, *arguments, how="lockf"):
        """Begins to wait for a lock: it is not there yet."""
        self.send(f"lock({int(kind)}, {', '.join([*map(str, arguments), f'how=fcntl.{how}'])})")
        assert not select.select([self.process.stdout], [], [], 1)[0], self.answer()


@pytest.fixture
def guest(vmm, shared, tmp_path):  # noqa: F811
    """Programs of one guest, as many as are asked for."""
    (shared / "file").write_text("content" * 100)
    socket = tmp_path / "socket"
    sandbox = vmm.start("run", "--image", PYTHON, "--share", f"{shared}:/work", "--socket", str(socket), "--", "cat", stdin=subprocess.PIPE)
    wait_until(socket.exists, "the socket is there", TIMEOUT)
    actors = []

    def start():
        actors.append(vmm.start("exec", str(socket), "--", "python3", "-c", ACTOR, stdin=subprocess.PIPE))
        return Actor(actors[-1])

    yield start
    for process in actors:
        process.kill()  # it may be waiting for a lock
        process.wait(TIMEOUT)
    sandbox.stdin.close()
    sandbox.wait(TIMEOUT)


@pytest.fixture
def file(guest, shared):  # noqa: F811
    with open(shared / "file", "r+") as opened:
        yield opened


def can_lock(file, take, kind=EXCLUSIVE):
    try:
        take(file, kind | AT_ONCE)
    except BlockingIOError:
        return False
    take(file, UNLOCK)
    return True


@pytest.mark.parametrize("how", ["lockf", "flock"])
def test_host_and_guest_keep_each_other_out_and_wait_for_each_other(guest, file, how):
    take = getattr(fcntl, how)
    actor, other = guest(), guest()
    take(file, EXCLUSIVE)
    assert actor.lock(EXCLUSIVE | AT_ONCE, how=how) == "EAGAIN"
    assert actor.lock(SHARED | AT_ONCE, how=how) == "EAGAIN"
    actor.wait_for(EXCLUSIVE, how=how)
    other.wait_for(SHARED, how=how)
    # Who waits can be ended.
    other.process.send_signal(signal.SIGTERM)
    assert other.process.wait(TIMEOUT) == 128 + signal.SIGTERM
    take(file, UNLOCK)
    assert actor.answer() == "None"
    assert not can_lock(file, take)
    assert not can_lock(file, take, SHARED)
    assert actor.lock(SHARED, how=how) == "None"
    assert can_lock(file, take, SHARED)
    assert not can_lock(file, take)
    # A holder that is killed holds nothing any more.
    actor.process.send_signal(signal.SIGKILL if how == "lockf" else signal.SIGTERM)
    wait_until(lambda: can_lock(file, take), "the lock of a dead program is free", TIMEOUT)


def test_programs_of_a_guest_wait_for_each_other_and_find_deadlocks(guest, file):
    one, two = guest(), guest()
    assert one.lock(EXCLUSIVE, 0, 10) == "None"
    assert two.lock(EXCLUSIVE, 10, 10) == "None"
    assert two.lock(SHARED | AT_ONCE, 5, 10) == "EAGAIN"
    assert two("keeper(0, 100)") == repr((fcntl.F_WRLCK, 0, one.pid))
    # The host sees both, and each range.
    with pytest.raises(BlockingIOError):
        fcntl.lockf(file, SHARED | AT_ONCE, 1, 19)
    fcntl.lockf(file, EXCLUSIVE | AT_ONCE, 10, 20)
    assert two("keeper(20, 5)") == repr((fcntl.F_WRLCK, 20, 0))  # the host's programs have no number there
    assert two.lock(SHARED | AT_ONCE, 25, 1) == "EAGAIN"
    one.wait_for(EXCLUSIVE, 10, 10)
    assert two.lock(EXCLUSIVE, 0, 10) == "EDEADLK"
    assert two.lock(UNLOCK, 10, 10) == "None"
    assert one.answer() == "None"
    # Closing any descriptor of the file ends a program's locks, as POSIX wants it.
    assert one("os.close(os.open('/work/file', os.O_RDONLY))") == "None"
    assert two.lock(EXCLUSIVE | AT_ONCE, 0, 20) == "None"


def test_a_database_is_changed_by_host_and_guest_at_once(guest, shared):  # noqa: F811
    path = shared / "database"
    host = sqlite3.connect(path, timeout=TIMEOUT, isolation_level=None)
    host.execute("create table counts (side text, value int)")
    host.execute("insert into counts values ('host', 0), ('guest', 0), ('both', 0)")
    actor = guest()
    assert actor("globals().update(base=sqlite3.connect('/work/database', timeout=120, isolation_level=None))") == "None"
    rounds = 60
    change = ("begin immediate", "update counts set value = value + 1 where side = '{}'", "update counts set value = value + 1 where side = 'both'",
              "commit")
    actor.send(f"[base.execute(each.format('guest')) and None for _ in range({rounds}) for each in {change!r}] and None")
    for _ in range(rounds):
        for each in change:
            host.execute(each.format("host"))
    said = actor.answer()
    assert said == "None", actor.process.stderr.read()
    counts = dict(host.execute("select side, value from counts"))
    assert counts == {"host": rounds, "guest": rounds, "both": 2 * rounds}
    assert actor("dict(base.execute('select side, value from counts'))") == repr(counts)
    assert host.execute("pragma integrity_check").fetchall() == [("ok",)]
    host.close()
