# SPDX-License-Identifier: Apache-2.0
"""Disks of real guests: what they hold, who may have them, and what is left of them after SIGKILL."""

import os
import random
import signal
import subprocess
import time

import pytest
from conftest import BASE, TIMEOUT, machines, message, read_output

FULL = os.environ.get("MSB_TEST_FULL") == "1"
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path):
    def make(size=8 * MIB, name="disk.img", folder=tmp_path):
        path = folder / name
        with open(path, "wb") as file:
            file.truncate(size)
        return path
    return make


def ext4(path):
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", path], check=True, timeout=TIMEOUT)
    return path


def check(path):
    """What e2fsck -f says of a file system whose journal a mount would replay first."""
    subprocess.run(["e2fsck", "-p", path], check=False, timeout=TIMEOUT, capture_output=True)  # replays the journal
    result = subprocess.run(["e2fsck", "-f", "-n", path], check=False, timeout=TIMEOUT, capture_output=True)
    assert result.returncode == 0, result.stdout.decode()


def output(result):
    assert (result.returncode, result.stderr) == (0, b""), (result.returncode, result.stderr)
    return result.stdout.decode()


def test_disks_are_there_in_order_with_size_identity_and_mode(vmm, disk):
    first, second = disk(), disk(3 * MIB + 512, "second")
    script = "cd /sys/block; for d in vd*; do echo $d $(cat $d/size) $(cat $d/serial) $(cat $d/ro) $(cat $d/queue/discard_max_bytes); done"
    lines = output(vmm.run("sh", "-c", script, options=["--disk", first, "--disk", f"{second}:ro"])).splitlines()
    assert lines == ["vda 16384 disk-0 0 2147483648", "vdb 6145 disk-1 1 0"]


def test_what_a_guest_writes_is_in_the_file_and_what_the_file_holds_is_what_a_guest_reads(vmm, disk):
    path = disk()
    content = random.Random(1).randbytes(MIB)
    with open(path, "r+b") as file:
        file.seek(4 * MIB)
        file.write(content)
    script = "dd if=/dev/vda of=/dev/vda bs=1M skip=4 seek=1 count=1 conv=notrunc 2>/dev/null && sync && md5sum /dev/vda"
    result = output(vmm.run("sh", "-c", script, options=["--disk", path]))
    assert path.read_bytes()[MIB:2 * MIB] == content
    assert path.stat().st_size == 8 * MIB
    assert result.split()[0] == subprocess.run(["md5sum", path], capture_output=True, check=True).stdout.split()[0].decode()


def test_a_read_only_disk_stays_as_it_is(vmm, disk):
    path = disk()
    result = vmm.run("sh", "-c", "echo x > /dev/vda; echo status $?", options=["--disk", f"{path}:ro"])
    assert b"status 1" in result.stdout
    assert path.read_bytes() == bytes(8 * MIB)


def test_a_file_system_on_a_disk_keeps_its_files(vmm, disk):
    path = ext4(disk(32 * MIB))
    options = ["--disk", path]
    write = "mkdir /m && mount -t ext4 /dev/vda /m && cp -a /bin /usr /m/ && umount /m"
    output(vmm.run("sh", "-c", write, options=options))
    check(path)
    compare = ("mkdir /m && mount -t ext4 -o ro /dev/vda /m && cd / && find bin usr -type f -exec md5sum {} + | sort > /a && "
               "cd /m && find bin usr -type f -exec md5sum {} + | sort > /b && cmp /a /b && wc -l < /a")
    assert int(output(vmm.run("sh", "-c", compare, options=options))) > 100


def test_as_many_disks_as_there_can_be(vmm, disk):
    paths = [disk(MIB, f"disk{number}") for number in range(8)]
    options = [word for path in paths for word in ("--disk", path)]
    script = "for d in a b c d e f g h; do echo -n $d | dd of=/dev/vd$d bs=512 conv=sync,fsync 2>/dev/null; done; echo done"
    assert output(vmm.run("sh", "-c", script, options=options)) == "done\n"
    assert [path.read_bytes()[:1] for path in paths] == [letter.encode() for letter in "abcdefgh"]
    result = vmm.run("true", options=[*options, "--disk", disk(MIB, "one more")])
    assert "9 disks are more than the 8" in message(result)
    assert result.returncode == 125


def test_disks_that_cannot_be_disks_are_refused_by_name(vmm, disk, tmp_path):
    odd = disk(1000, "odd")
    os.mkfifo(tmp_path / "fifo")
    for words, expected in [(tmp_path / "absent", "absent"), (tmp_path, str(tmp_path)), (odd, "1000 bytes"),
                            (disk(0, "empty"), "0 bytes"), (tmp_path / "fifo", "fifo"), ("/dev/null:ro", "/dev/null"), ("", "names no file")]:
        result = vmm.run("true", options=["--disk", words])
        assert expected in message(result)
        assert result.returncode == 125


def test_a_disk_that_a_sandbox_writes_is_nobody_elses(vmm, disk):
    path = disk()
    process = start_on(vmm, path, "echo -n up; exec sleep 1000", b"up")
    for word in (path, f"{path}:ro"):
        result = vmm.run("true", options=["--disk", word])
        assert "is in use" in message(result)
        assert result.returncode == 125
    process.kill()
    process.communicate(timeout=TIMEOUT)
    assert output(vmm.run("echo", "free", options=["--disk", path])) == "free\n"


def start_on(vmm, path, script, text, image=BASE, **options):
    process = vmm.start("run", "--image", image, "--disk", path, "--", "sh", "-c", script, **options)
    assert read_output(process, len(text)) == text
    return process


def kill_the_machine(process):
    """SIGKILL to the machine, not to its launcher, which reports it."""
    for pid in machines():
        if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine"):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=TIMEOUT)


def test_every_write_that_was_flushed_survives_sigkill(vmm, disk):
    """The guest says which record it wrote once fsync has returned."""
    moments = random.Random(os.environ.get("MSB_TEST_SEED", time.time_ns()))
    path = disk()
    script = ("i=0; while true; do i=$((i + 1)); printf '%07d\\n' $i | dd of=/dev/vda bs=512 seek=$i conv=sync,notrunc,fsync 2>/dev/null; "
              "printf '%07d\\n' $i; done")
    for _ in range(10 if FULL else 3):
        process = start_on(vmm, path, script, b"")
        told = read_output(process, 8)
        deadline = time.monotonic() + moments.uniform(0, 1.5)
        while time.monotonic() < deadline:
            told += read_output(process, 8)
        kill_the_machine(process)
        acknowledged = int(told[-8:])
        content = path.read_bytes()
        for number in range(1, acknowledged + 1):
            assert content[512 * number:512 * number + 8] == b"%07d\n" % number


def test_a_file_system_is_whole_after_each_of_many_kills(vmm, disk):
    path = ext4(disk(64 * MIB))
    moments = random.Random(os.environ.get("MSB_TEST_SEED", time.time_ns()))
    script = ("mkdir /m && mount -t ext4 /dev/vda /m && echo -n up; cd /m; i=0; while true; do i=$((i + 1)); mkdir -p d$((i % 7)); "
              "dd if=/dev/zero of=d$((i % 7))/f$((i % 31)) bs=4k count=$((i % 50)) 2>/dev/null; "
              "[ $((i % 5)) = 0 ] && sync; rm -rf d$(((i + 3) % 7)); done")
    for _ in range(20 if FULL else 4):
        process = start_on(vmm, path, script, b"up")
        time.sleep(moments.uniform(0, 2))
        kill_the_machine(process)
        check(path)
