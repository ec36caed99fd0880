# SPDX-License-Identifier: Apache-2.0
"""The host's directories and files in real guests: as good as a disk, seen from both sides, and never a way out."""

import contextlib
import ctypes
import os
import shutil
import stat
import struct
import subprocess
import time

import pytest
from conftest import PYTHON, REPOSITORY, TIMEOUT, Vmm, message, read_output
from test_disks import MIB, disk, output  # noqa: F401  (disk: a fixture)

BATTERY = REPOSITORY / "tests/posix_battery.py"
MOUNT = "import ctypes; assert ctypes.CDLL(None).mount(b'/dev/vda', b'/disk', b'ext4', 0, None) == 0"


@pytest.fixture
def shared(scratch):  # noqa: F811
    """A directory to share, with what must stay as it is beside it."""
    folder = scratch / "shared"
    folder.mkdir()
    canary = scratch / "canary"
    canary.write_text("alive")
    canary.chmod(0o640)
    before = canary.stat()
    yield folder
    after = canary.stat()
    assert canary.read_text() == "alive"
    assert (before.st_mode, before.st_ctime_ns, before.st_nlink) == (after.st_mode, after.st_ctime_ns, after.st_nlink)
    assert sorted(os.listdir(scratch)) == ["canary", "shared"]


def share(vmm, folder, script, options=(), image=None, words=""):
    images = {"image": image} if image else {}
    return vmm.run("sh", "-c", script, options=["--share", f"{folder}:/work{words}", *options], **images)


@pytest.fixture
def running(vmm):
    """A sandbox that does each line it is sent, and answers with what it said and the status."""
    started = []

    class Sandbox:
        def __init__(self, *options, image=PYTHON):
            loop = ("import subprocess, sys\n"
                    "print('up', flush=True)\n"
                    "for line in sys.stdin:\n"
                    "    done = subprocess.run(['sh', '-c', line], capture_output=True)\n"
                    "    said = done.stdout + done.stderr\n"
                    "    sys.stdout.buffer.write(b'%08d%03d' % (len(said), done.returncode) + said)\n"
                    "    sys.stdout.flush()\n")
            self.process = vmm.start("run", "--image", image, *options, "--", "python3", "-c", loop, stdin=subprocess.PIPE)
            started.append(self.process)
            assert read_output(self.process, 3) == b"up\n"

        def __call__(self, line, status=0):
            self.send(line)
            return self.answer(status)

        def send(self, line):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

        def answer(self, status=0):
            head = read_output(self.process, 11)
            said = read_output(self.process, int(head[:8])) if int(head[:8]) else b""
            assert int(head[8:]) == status, said
            return said.decode()

    yield Sandbox
    for process in started:
        process.stdin.close()
        process.wait(TIMEOUT)


def test_a_share_answers_as_ext4_does_to_all_that_posix_asks(vmm, disk, shared, tmp_path):  # noqa: F811
    path = disk(256 * MIB, folder=tmp_path)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", path], check=True, timeout=TIMEOUT)
    script = (f"mkdir /disk && python3 -c \"{MOUNT}\" && rmdir /disk/lost+found && python3 /battery.py /disk && echo and then && "
              "python3 /battery.py /work")
    result = share(vmm, shared, script, ["--disk", path, "--share", f"{BATTERY}:/battery.py:ro", "--memory", "1024"], PYTHON)
    expected, seen = (part.splitlines() for part in output(result).split("and then\n"))
    assert len(expected) > 200
    assert seen == expected


def test_files_go_both_ways_with_their_times_and_links(vmm, shared):
    (shared / "from-host").write_text("hello")
    (shared / "folder").mkdir()
    os.utime(shared / "from-host", (1_000_000_000, 1_500_000_000))
    script = ("cat /work/from-host; stat -c ' %a %u:%g %Y' /work/from-host; cd /work; mkdir -p a/b; echo out > a/b/file; ln -s b/file a/link; "
              "ln a/b/file a/hard; touch -d @1400000000 a/b/file; chmod 4750 a/b/file; mv folder renamed; rm from-host")
    assert output(share(vmm, shared, script)) == "hello 644 0:0 1500000000\n"
    file = (shared / "a/b/file").stat()
    assert (shared / "a/link").read_text() == "out\n"
    assert (file.st_nlink, int(file.st_mtime), stat.S_IMODE(file.st_mode), file.st_uid) == (2, 1_400_000_000, 0o750, os.getuid())
    assert sorted(os.listdir(shared)) == ["a", "renamed"]


def test_a_single_file_and_a_folder_that_may_only_be_read(vmm, shared):
    (shared / "file").write_text("content")
    (shared / "folder").mkdir()
    script = ("cat /etc/one /ro/file; echo changed > /etc/one; for what in 'touch /ro/file' 'rm /ro/file' 'mkdir /ro/x' 'mv /ro/file /ro/y' "
              "'chmod 700 /ro' 'ln /ro/file /ro/z' 'sh -c \": > /ro/file\"'; do $what 2>/dev/null && echo $what; done; "
              "touch /ro/file 2>&1 | grep -c 'Read-only'; mount -o remount,rw /ro; mount -o remount,rw,bind /ro && touch /ro/file && echo out")
    result = vmm.run("sh", "-c", script, options=["--share", f"{shared}/file:/etc/one", "--share", f"{shared}:/ro:ro"])
    assert result.stdout == b"contentcontent1\n"
    assert (shared / "file").read_text() == "changed\n"
    assert sorted(os.listdir(shared)) == ["file", "folder"]


def test_a_directory_as_the_root_stays_as_it_is(vmm, shared):
    (shared / "bin").mkdir()
    (shared / "etc").mkdir()
    shutil.copy("/bin/busybox", shared / "bin/busybox")
    for name in ("sh", "cat", "ls", "id", "touch"):
        (shared / "bin" / name).symlink_to("busybox")
    (shared / "etc/who").write_text("host\n")
    before = sorted(str(path) for path in shared.rglob("*"))
    script = "cat /etc/who; echo guest > /etc/who; cat /etc/who; touch /new; ls -d /proc/1 /dev/null /tmp; id -u"
    result = vmm("run", "--rootfs", shared, "--env", "PATH=/bin", "--", "sh", "-c", script)
    assert output(result) == "host\nguest\n/dev/null\n/proc/1\n/tmp\n0\n"
    assert sorted(str(path) for path in shared.rglob("*")) == before
    assert (shared / "etc/who").read_text() == "host\n"


def test_what_the_host_plants_leads_nowhere(vmm, shared):
    os.symlink("../canary", shared / "relative")
    os.symlink(shared.parent / "canary", shared / "absolute")
    os.symlink("..", shared / "folder")
    os.symlink("/proc/self/root", shared / "magic")
    os.mkfifo(shared / "pipe", 0o666)
    os.mknod(shared / "memory", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    os.mknod(shared / "disk", stat.S_IFBLK | 0o666, os.stat("/scratch").st_dev if os.path.ismount("/scratch") else os.makedev(7, 0))
    script = ("cd /work; for what in 'cat relative' 'cat absolute' 'cat folder/canary' 'ls magic/scratch' 'sh -c \"echo x > relative\"' "
              "'sh -c \"echo x > absolute\"' 'touch folder/canary/x' 'cat ../canary' 'cat folder/../canary'; do "
              "$what > /dev/null 2>&1 && echo leads out: $what; done; "
              "timeout 5 cat pipe > /tmp/got & echo through > pipe; wait; cat /tmp/got; stat -c %F pipe memory disk; "
              "mv pipe moved; rm memory disk moved relative absolute folder magic; ls -A")
    assert output(share(vmm, shared, script)) == "through\nfifo\ncharacter special file\nblock special file\n"
    assert os.listdir(shared) == []


def test_a_directory_that_vanishes_is_gone_and_nothing_else(running, shared):
    (shared / "inner").mkdir()
    (shared / "inner/file").write_text("x")
    guest = running("--share", f"{shared}/inner:/work:cache=never")
    guest("exec cat /work/file")
    shutil.rmtree(shared / "inner")
    assert "No such file" in guest("cat /work/file", 1)
    assert "No such file" in guest("touch /work/new", 1)
    assert guest("echo alive") == "alive\n"
    (shared / "inner").mkdir()  # another one
    assert "No such file" in guest("touch /work/new", 1)
    assert os.listdir(shared / "inner") == []


@contextlib.contextmanager
def small_file_system(folder, kind="tmpfs", size=4 * MIB, features=(), options=()):
    """A file system of its own at `folder`, where mounting is allowed."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    image = None
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    else:
        image = folder.parent / "canary-image"
        with open(image, "wb") as file:
            file.truncate(size)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", *features, image], check=True, timeout=TIMEOUT)
        command = ["mount", "-o", ",".join(["loop", *options]), image, folder]
    subprocess.run(command, check=True, timeout=TIMEOUT)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=TIMEOUT)  # a guest may still have it
        if image:
            image.unlink()


def test_a_full_disk_says_so_and_is_of_use_again(running, shared):
    with small_file_system(shared):
        guest = running("--share", f"{shared}:/work")
        assert "No space left" in guest("head -c 8M /dev/zero > /work/large", 1)
        assert "No space left" in guest("cp /usr/bin/python3 /work/small", 1)
        guest("rm /work/large && echo again > /work/small")
        assert (shared / "small").read_text() == "again\n"
        # This file system keeps no attributes: what needs them is refused, and the rest works.
        assert "not permitted" in guest("chown 5 /work/small", 1)
        guest("chmod 400 /work/small && chmod 644 /work/small")
        subprocess.run(["mount", "-o", "remount,ro", shared], check=True, timeout=TIMEOUT)
        assert "Read-only" in guest("echo more > /work/small", 2)
        assert guest("cat /work/small") == "again\n"


def test_a_file_system_that_hangs_delays_file_requests_only(vmm, running, shared, tmp_path):
    with small_file_system(shared, "ext4", 16 * MIB):
        socket = tmp_path / "socket"
        guest = running("--share", f"{shared}:/work", "--socket", str(socket))
        subprocess.run(["fsfreeze", "-f", shared], check=True, timeout=TIMEOUT)
        thawed = False
        try:
            guest.send("echo held > /work/file; echo done")
            for number in range(3):
                result = vmm("exec", str(socket), "--", "sh", "-c", f"echo {number} > /tmp/other; cat /tmp/other")
                assert (result.returncode, result.stdout) == (0, b"%d\n" % number)
            assert not (shared / "file").exists()
            subprocess.run(["fsfreeze", "-u", shared], check=True, timeout=TIMEOUT)
            thawed = True
            assert guest.answer() == "done\n"
            assert (shared / "file").read_text() == "held\n"
        finally:
            if not thawed:
                subprocess.run(["fsfreeze", "-u", shared], check=False, timeout=TIMEOUT)


def test_cache_modes_show_what_the_host_changes_as_promised(running, shared):
    for name in ("never", "auto", "always"):
        (shared / name).mkdir()
        (shared / name / "file").write_text("old")
        (shared / name / "other").write_text("")
    guest = running(*(word for name in ("never", "auto", "always") for word in ("--share", f"{shared}/{name}:/{name}:cache={name}")))
    for name in ("never", "auto", "always"):
        assert guest(f"cat /{name}/file; ls /{name}; stat -c %s /{name}/file") == "oldfile\nother\n3\n"
        (shared / name / "file").write_text("changed")
        (shared / name / "other").unlink()
        (shared / name / "new").write_text("")
    # At once.
    assert guest("cat /never/file; ls /never; stat -c %s /never/file") == "changedfile\nnew\n7\n"
    guest("! stat /never/other 2> /dev/null")
    # Within a second.
    time.sleep(1.1)
    assert guest("cat /auto/file; ls /auto; stat -c %s /auto/file") == "changedfile\nnew\n7\n"
    # Not at all: what was seen is what there is.
    assert guest("cat /always/file; stat -c %s /always/file; stat -c %n /always/other") == "old3\n/always/other\n"
    # What the guest changes the host sees at once.
    for name in ("never", "auto", "always"):
        guest(f"echo guest > /{name}/made; mv /{name}/made /{name}/moved; echo more >> /{name}/moved")
        assert (shared / name / "moved").read_text() == "guest\nmore\n"


def test_a_mapping_sees_what_is_written_in_every_mode(running, shared):
    options = []
    for name in ("never", "auto", "always"):
        (shared / name).mkdir()
        options += ["--share", f"{shared}/{name}:/{name}:cache={name}"]
    guest = running(*options)
    script = ("import mmap, sys; file = open(sys.argv[1], 'w+b'); file.truncate(8192); memory = mmap.mmap(file.fileno(), 8192); "
              "memory[4000:4005] = b'there'; memory.flush(); file.seek(4000); assert file.read(5) == b'there'")
    for name in ("never", "auto", "always"):
        guest(f'python3 -c "{script}" /{name}/mapped')
        assert (shared / name / "mapped").read_bytes()[4000:4005] == b"there"


def test_many_requests_are_in_flight_and_none_is_lost(vmm, shared):
    for number in range(8):
        (shared / f"in-{number}").write_bytes(bytes([number]) * (3 * MIB))
    script = ("cd /work; for n in 0 1 2 3 4 5 6 7; do (cat in-$n > out-$n; sync; cmp in-$n out-$n && echo same > ok-$n) & done; wait; cat ok-*")
    assert output(share(vmm, shared, script, ["--cpus", "2"])) == "same\n" * 8
    for number in range(8):
        assert (shared / f"out-{number}").read_bytes() == bytes([number]) * (3 * MIB)


def test_a_guest_that_is_killed_leaves_files_that_are_whole_or_not_there(vmm, shared):
    process = vmm.start("run", "--image", PYTHON, "--share", f"{shared}:/work", "--", "sh", "-c",
                        "cd /work; n=0; while :; do n=$((n+1)); echo content-$n > t && mv t f-$n; [ $n = 20 ] && echo many; done")
    assert read_output(process, 5) == b"many\n"
    process.kill()
    process.communicate(timeout=TIMEOUT)
    names = [name for name in os.listdir(shared) if name.startswith("f-")]
    assert len(names) >= 20
    for name in names:
        assert (shared / name).read_text() == f"content-{name[2:]}\n"


def test_what_cannot_be_shared_is_refused_in_one_sentence(vmm, shared):
    os.mkfifo(shared / "pipe")
    for word, words in ((f"{shared}", "is not HOST:GUEST"), (f"{shared}:work", "is not HOST:GUEST"), (f"{shared}:/", "not an absolute path"),
                        (f"{shared}:/a/../b", "not an absolute path"), (f"{shared}/none:/work", "No such file"),
                        (f"{shared}/pipe:/work", "neither a directory nor a regular file"), (f"{shared}:/work:rx", "none of ro, rw")):
        assert words in message(vmm.run("true", options=["--share", word]))
    assert "twice" in message(vmm.run("true", options=["--share", f"{shared}:/a", "--share", f"{shared}:/a/"]))
    assert "either by --image or by --rootfs" in message(vmm("run", "--", "true"))
    assert "either by --image or by --rootfs" in message(vmm.run("true", options=["--rootfs", shared]))
    (shared / "pipe").unlink()


USER = 4321


@pytest.fixture
def ordinary(shared, tmp_path):
    """Runs a script in a guest as an ordinary user of the host, to whom the shared directory belongs."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    home = tmp_path / "home"
    home.mkdir()
    for path in (shared, tmp_path, home):
        os.chown(path, USER, USER)
    for path in [shared.parent, tmp_path, *tmp_path.parents]:
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(path.stat().st_mode | 0o011)
    os.chmod("/dev/kvm", 0o666)
    vmm = Vmm(home)
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return lambda script: vmm.run("sh", "-c", script, options=["--share", f"{shared}:/work"], prefix=prefix)


def test_an_ordinary_user_of_the_host_is_root_in_the_guest_and_keeps_what_it_makes(shared, ordinary):
    (shared / "guarded").mkdir()
    (shared / "guarded/file").write_text("")
    (shared / "guarded/file").chmod(0o444)
    (shared / "guarded").chmod(0o555)
    for path in (shared / "guarded", shared / "guarded/file"):
        os.chown(path, USER, USER)
    (shared / "roots").write_text("root's")
    (shared / "roots").chmod(0o600)
    script = ("cd /work; stat -c '%n %U' . roots; cat roots 2>&1; touch mine; chown 5:6 mine; chmod 4400 mine; stat -c '%a %u:%g' mine; echo x >> mine; "
              "chmod -R u+w guarded; echo x > guarded/file; rm -r guarded; mknod null c 1 3; echo away > null; mkdir folder; chmod 0 folder; touch folder/inside; ls -l folder | wc -l; rm roots && echo removed")
    result = ordinary(script)
    assert (result.returncode, result.stderr) == (0, b""), result
    assert result.stdout.decode().splitlines() == [". root", "roots nobody", "cat: can't open 'roots': Permission denied", "4400 5:6", "2",
                                                   "removed"]
    mine = (shared / "mine").stat()
    assert (mine.st_uid, stat.S_IMODE(mine.st_mode), mine.st_size) == (USER, 0o600, 2)
    assert stat.S_ISREG((shared / "null").stat().st_mode)


def set_quota(path, user, blocks):
    """quotactl(2): so many KiB, and no more."""
    limits = struct.pack("QQQQQQQQI4x", blocks, blocks, 0, 0, 0, 0, 0, 0, 1)  # struct if_dqblk, QIF_BLIMITS
    device = subprocess.run(["findmnt", "-n", "-o", "SOURCE", path], check=True, capture_output=True, timeout=TIMEOUT).stdout.strip()
    set_user_quota = 0x800008 << 8  # QCMD(Q_SETQUOTA, USRQUOTA)
    if ctypes.CDLL(None, use_errno=True).quotactl(ctypes.c_int(set_user_quota - (1 << 32)), device, user, limits) != 0:
        raise OSError(ctypes.get_errno(), "quotactl")


def test_a_users_quota_is_the_guests_too(shared, ordinary):
    with small_file_system(shared, "ext4", 16 * MIB, ["-O", "quota"], ["usrquota"]):
        os.chown(shared, USER, USER)
        set_quota(shared, USER, 2048)
        result = ordinary("cd /work; head -c 4194304 /dev/zero > large; stat -c %s large; echo small > small; rm large; echo small > small; cat small")
        assert "Disk quota exceeded" in result.stderr.decode(), result  # of head, busybox says no more than "I/O error"
        assert result.stdout.decode().splitlines()[-1] == "small"
        assert 0 < int(result.stdout.split()[0]) <= 2 * MIB


def test_requests_go_on_beside_a_large_one(vmm, shared):
    """A long copy on the host's side does not keep others waiting for its end."""
    (shared / "large").write_bytes(os.urandom(64 * MIB))
    script = ("import os, threading, time\n"
              "def copy():\n"
              "    a = os.open('/work/large', os.O_RDONLY); b = os.open('/work/copy', os.O_RDWR | os.O_CREAT)\n"
              "    left = 64 << 20\n"
              "    while left: left -= os.copy_file_range(a, b, left)\n"
              "t = threading.Thread(target=copy); t.start(); n = 0\n"
              "while t.is_alive() or n < 10:\n"
              "    os.close(os.open(f'/work/{n}', os.O_CREAT)); n += 1\n"
              "    if n > 2000: break\n"
              "t.join(); print('ok')\n")
    assert output(vmm.run("python3", "-c", script, image=PYTHON, options=["--share", f"{shared}:/work"])) == "ok\n"
    assert (shared / "copy").read_bytes() == (shared / "large").read_bytes()
