# SPDX-License-Identifier: Apache-2.0
"""The writable layer on a disk: what a sandbox writes is there at its next start, however the last one ended; and its limits."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import BASE, PYTHON, REPOSITORY, TIMEOUT, TOOLS, machines, message, read_output, wait_until

sys.path.insert(0, str(REPOSITORY / "tests"))
from control_client import Control  # noqa: E402
from exec_client import ExecClient  # noqa: E402

MIB = 1 << 20


@pytest.fixture
def upper(scratch):
    """Makes a disk with an empty file system."""

    def make(size=1024 * MIB, name="upper.ext4", *options):
        path = scratch / name
        with open(path, "wb") as file:
            file.truncate(size)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1", *options, path], check=True, timeout=TIMEOUT)
        return path

    return make


def options_of(path, *more):
    return ["--upper", path, "--net", "none", *more]


def output(result):
    assert (result.returncode, result.stderr) == (0, b""), (result.returncode, result.stderr)
    return result.stdout.decode()


def start_on(vmm, path, script, text=b"up", *more, image=BASE):
    process = vmm.start("run", "--image", image, *options_of(path, *more), "--", "sh", "-c", script)
    assert read_output(process, len(text)) == text
    return process


def machine_of(process):
    [pid] = [pid for pid in machines() if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine")]
    assert process.poll() is None
    return pid


def kill_launcher(process):
    process.kill()
    process.communicate(timeout=TIMEOUT)


def kill_machine(process):
    os.kill(machine_of(process), signal.SIGKILL)
    process.communicate(timeout=TIMEOUT)


def check(path):
    """What e2fsck -f says of a file system whose journal a mount would replay first. Returns whether there was something to be replayed."""
    header = subprocess.run(["dumpe2fs", "-h", path], check=True, timeout=TIMEOUT, capture_output=True).stdout
    subprocess.run(["e2fsck", "-p", path], check=False, timeout=TIMEOUT, capture_output=True)  # replays the journal
    result = subprocess.run(["e2fsck", "-f", "-n", path], check=False, timeout=TIMEOUT, capture_output=True)
    assert result.returncode == 0, result.stdout.decode()
    return b"needs_recovery" in header


def test_what_a_sandbox_writes_is_there_at_its_next_start(vmm, upper):
    path = upper()
    first = ("echo kept > /root/file && mkdir -m 750 /new && chown 7:8 /new && ln -s file /root/link && rm /etc/passwd && "
             "mknod /root/null c 1 3 && chmod 700 / && cat /proc/sys/vm/dirty_expire_centisecs")
    assert output(vmm.run("sh", "-c", first, options=options_of(path))) == "50\n"
    assert not check(path)
    second = "cat /root/link; stat -c '%a %u:%g' /new; stat -c %a /; [ -e /etc/passwd ] || echo gone; echo x > /root/null && echo written; hostname"
    assert output(vmm.run("sh", "-c", second, options=options_of(path, "--hostname", "web-1"))).splitlines() == [
        "kept", "750 7:8", "700", "gone", "written", "web-1"]


def test_without_a_disk_nothing_is_kept(vmm):
    for _ in range(2):
        assert output(vmm.run("sh", "-c", "[ -e /root/file ] || echo fresh; echo x > /root/file", options=["--net", "none"])) == "fresh\n"


def test_the_disk_of_the_writable_layer_comes_behind_the_others(vmm, upper, scratch):
    data = scratch / "data"
    data.write_bytes(b"data".ljust(MIB, b"\0"))
    script = "head -c 4 /dev/vda; echo; cat /sys/block/vdb/size"
    assert output(vmm.run("sh", "-c", script, options=options_of(upper(64 * MIB), "--disk", data))).split() == ["data", "131072"]


def test_an_inherited_file_without_a_name_can_be_the_disk(vmm, upper):
    path = upper(64 * MIB, "upper.ext4", "-O", "^has_journal")
    with open(path, "r+b") as file:
        path.unlink()
        with vmm.start("run", "--image", BASE, *options_of(f"/dev/fd/{file.fileno()}"), "--", "sh", "-c", "echo x > /file && df -k / | tail -1",
                       pass_fds=[file.fileno()]) as process:
            stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, stderr) == (0, b"")
    assert int(stdout.split()[1]) < 64 << 10


def test_a_killed_launcher_lets_the_guest_end_in_order(vmm, upper):
    path = upper()
    process = start_on(vmm, path, "echo one > /file && echo -n up && exec sleep 1000")
    kill_launcher(process)
    # It waits for the machine that is ending, which has the disk.
    assert output(vmm.run("cat", "/file", options=options_of(path))) == "one\n"
    assert not check(path)


def test_a_launcher_that_is_killed_while_the_guest_boots_leaves_nothing(vmm, upper):
    path = upper()
    for delay in (0.1, 0.4, 1.0):
        process = vmm.start("run", "--image", BASE, *options_of(path), "--", "sleep", "1000")
        time.sleep(delay)
        kill_launcher(process)
        wait_until(lambda: not machines(), "the machine has ended")
        assert output(vmm.run("echo", "fine", options=options_of(path))) == "fine\n"
        check(path)


def test_a_guest_that_does_not_end_is_ended(vmm, upper, tmp_path):
    """An init that never looks at its connections."""
    (tmp_path / "init.c").write_text("int main(void) { for (;;) __builtin_ia32_pause(); }\n")
    subprocess.run(["cc", "-O1", "-static", "-o", tmp_path / "init", tmp_path / "init.c"], check=True, timeout=TIMEOUT)
    subprocess.run([sys.executable, REPOSITORY / "initramfs/pack_cpio.py", tmp_path / "init", tmp_path / "initramfs"], check=True, timeout=TIMEOUT)
    process = vmm.start("run", "--image", BASE, *options_of(upper(64 * MIB), "--initramfs", tmp_path / "initramfs"), "--", "true")
    wait_until(lambda: len(machines()) == 2, "the machine runs")
    machine = machine_of(process)
    kill_launcher(process)
    wait_until(lambda: machine not in machines(), "the machine has ended", 45)


def test_a_killed_launcher_lets_a_paused_guest_end_in_order(vmm, upper, tmp_path):
    path = upper()
    process = start_on(vmm, path, "echo one > /file && echo -n up && exec sleep 1000", b"up", "--control", tmp_path / "control")
    with Control(tmp_path / "control") as control:
        control("pause")
        kill_launcher(process)
    assert output(vmm.run("cat", "/file", options=options_of(path))) == "one\n"
    assert not check(path)


def test_a_killed_machine_is_a_power_cut(vmm, upper):
    path = upper()
    process = start_on(vmm, path, "echo one > /synced && sync && echo -n up && exec sleep 1000")
    kill_machine(process)
    assert output(vmm.run("cat", "/synced", options=options_of(path))) == "one\n"
    # Nothing but time: the guest writes back by itself.
    process = start_on(vmm, path, "echo two > /written && echo -n up && exec sleep 1000")
    time.sleep(3)
    kill_machine(process)
    check(path)
    assert output(vmm.run("cat", "/synced", "/written", options=options_of(path))) == "one\ntwo\n"


def test_a_writable_layer_is_whole_after_each_of_many_kills(vmm, upper):
    path = upper(256 * MIB)
    script = ("echo -n up; i=0; while true; do i=$((i + 1)); mkdir -p /d/$((i % 7)); cp /bin/busybox /d/$((i % 7))/$i; "
              "[ $((i % 5)) = 0 ] && sync; rm -rf /d/$(((i + 3) % 7)) /etc/passwd; echo $i > /etc/passwd; done")
    for number in range(4):
        process = start_on(vmm, path, script)
        time.sleep(0.5 * number)
        (kill_machine if number % 2 else kill_launcher)(process)
        wait_until(lambda: not machines(), "the machine has ended")
        check(path)
    output(vmm.run("sh", "-c", "rm -rf /d && test -s /etc/passwd", options=options_of(path)))


def test_a_full_disk_is_an_error_of_the_program_and_the_sandbox_goes_on(vmm, upper):
    path = upper(64 * MIB)
    script = ("dd if=/dev/zero of=/big bs=1M 2>&1 | grep -o 'No space left on device'; echo x > /small || echo full; "
              "rm /big; sync; echo y > /small && cat /small")
    assert vmm.run("sh", "-c", script, options=options_of(path)).stdout.split(b"\n")[0] == b"No space left on device"
    assert output(vmm.run("cat", "/small", options=options_of(path))) == "y\n"
    check(path)


def test_deleted_space_is_a_hole_in_the_file_again(vmm, upper):
    path = upper()
    before = path.stat().st_blocks * 512
    script = "dd if=/dev/urandom of=/big bs=1M count=100 2>/dev/null && sync && echo -n up; read go; rm /big"
    process = vmm.start("run", "--image", BASE, *options_of(path), "--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert read_output(process, 2) == b"up"
    assert path.stat().st_blocks * 512 > before + 100 * MIB
    process.communicate(b"\n", timeout=TIMEOUT)
    assert path.stat().st_blocks * 512 < before + 20 * MIB


def test_a_disk_that_was_made_larger_is_used_whole(vmm, upper):
    path = upper(128 * MIB)
    output(vmm.run("sh", "-c", "echo kept > /file", options=options_of(path)))
    os.truncate(path, 1024 * MIB)
    kept, line = output(vmm.run("sh", "-c", "cat /file; df -k / | tail -1", options=options_of(path))).splitlines()
    assert kept == "kept"
    assert int(line.split()[1]) > 900 << 10
    check(path)


def test_disks_that_hold_no_writable_layer_are_refused_in_words(vmm, upper, scratch):
    empty = scratch / "empty"
    empty.write_bytes(bytes(MIB))
    result = vmm.run("true", options=options_of(empty))
    assert message(result) == "the guest could not start: cannot mount the writable layer: the disk vda holds no ext4 file system"
    assert result.returncode == 125
    cut = upper(64 * MIB)
    os.truncate(cut, 32 * MIB)
    assert "cannot mount the writable layer on the disk vda" in message(vmm.run("true", options=options_of(cut)))
    result = vmm.run("true", options=options_of(scratch / "absent"))
    assert "absent" in message(result)
    assert result.returncode == 125


def test_directories_of_a_writable_layer_that_are_none_are_refused(vmm, upper, tmp_path):
    path = upper(64 * MIB)
    (tmp_path / "script").write_text("symlink upper /host\n")
    subprocess.run(["debugfs", "-w", "-f", tmp_path / "script", path], check=True, timeout=TIMEOUT, capture_output=True)
    assert "cannot prepare the writable layer: Not a directory" in message(vmm.run("true", options=options_of(path)))


def test_a_disk_in_use_is_nobody_elses(vmm, upper):
    path = upper(64 * MIB)
    process = start_on(vmm, path, "echo -n up; exec sleep 1000")
    result = vmm.run("true", options=options_of(path))
    assert message(result) == f'the disk "{path}" is in use; stop the sandbox that has it'
    process.terminate()
    process.communicate(timeout=TIMEOUT)


def test_words_that_make_no_sense_are_refused(vmm):
    for option, word, expected in [("--processes", "15", "16 to 4194304"), ("--processes", "4194305", "16 to 4194304"),
                                   ("--hostname", "", "1 to 64"), ("--hostname", "a b", "1 to 64"), ("--hostname", "h" * 65, "1 to 64")]:
        assert expected in message(vmm.run("true", options=[option, word]))



def test_a_fork_bomb_finds_the_limit_and_exec_still_works(vmm, tmp_path):
    socket = tmp_path / "socket"
    bomb = ('import os, signal, sys\nsys.stdout.write("up")\nsys.stdout.flush()\nwhile True:\n    try:\n        os.fork()\n'
            '    except OSError:\n        signal.pause()\n')
    process = vmm.start("run", "--image", PYTHON, "--net", "none", "--socket", socket, "--processes", "50", "--",
                        "python3", "-c", bomb)
    assert read_output(process, 2) == b"up"

    def execute(*command):
        return vmm("exec", socket, "--", *command)

    def count():
        return int(output(execute("cat", "/sys/fs/cgroup/pids.current")))

    wait_until(lambda: count() >= 50, "the sandbox is full", 60)
    assert 50 <= count() <= 51  # with cat
    refused = execute("sh", "-c", "true & wait")
    assert refused.returncode != 0 and b"fork" in refused.stderr
    # Root cannot lift it, here or in another mount of the control groups.
    lift = execute("sh", "-c", "echo max > /sys/fs/cgroup/pids.max")
    assert lift.returncode != 0
    assert output(execute("cat", "/proc/self/cgroup", "/sys/fs/cgroup/pids.max")) == "0::/\n50\n"
    process.terminate()
    process.communicate(timeout=TIMEOUT)


def test_threads_count_and_the_limit_holds_for_root_in_every_namespace(vmm):
    script = ("mkdir /other && unshare -C mount -t cgroup2 none /other && cat /other/pids.max /proc/1/cgroup; nsenter -t 1 -C cat /proc/self/cgroup; "
              "for i in $(seq 30); do sleep 5 & done; true")
    result = vmm.run("bash", "-c", script, image=TOOLS, options=["--net", "none", "--processes", "16"])
    assert result.stdout.decode().split("\n")[:3] == ["16", "0::/..", "0::/"]
    assert b"Resource temporarily unavailable" in result.stderr


ADDED, CHANGED, DELETED = 1, 2, 3


def diff_of(vmm, tmp_path, script, *options, image=BASE):
    socket = tmp_path / "diff"
    process = vmm.start("run", "--image", image, "--socket", socket, *options, "--", "sh", "-c", script + "echo -n up && exec sleep 1000")
    assert read_output(process, 2) == b"up"
    try:
        return ExecClient(socket).files().diff()
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)


def test_a_fresh_sandbox_differs_from_its_image_in_nothing(vmm, tmp_path, upper):
    (tmp_path / "shared").mkdir()
    share = ["--share", f"{tmp_path / 'shared'}:/some/where", "--host", f"db={tmp_path / 'socket'}:80"]
    for options in (share, [*share, "--upper", upper()]):
        assert diff_of(vmm, tmp_path, "", *options) == {}


def test_the_difference_to_the_image_is_told_in_memory_and_on_disk_and_at_the_next_start(vmm, tmp_path, upper):
    path = upper()
    script = ("mkdir -p /new/deep && echo x > /new/deep/file && rm /etc/passwd && echo y >> /etc/group && ln -s a /link && ")
    expected = {"new": ADDED, "new/deep": ADDED, "new/deep/file": ADDED, "etc": CHANGED, "etc/passwd": DELETED,
                "etc/group": CHANGED, "link": ADDED}
    assert diff_of(vmm, tmp_path, script, "--net", "none") == expected
    assert diff_of(vmm, tmp_path, script, "--net", "none", "--upper", path) == expected
    assert diff_of(vmm, tmp_path, "", "--net", "none", "--upper", path) == expected


def test_the_difference_of_directories_that_were_replaced_and_of_files_of_the_init(vmm, tmp_path):
    script = ("cd /usr/share && set -- */ && d=${1%/} && rm -rf $d && mkdir $d && echo x > $d/other && echo 10.0.0.1 a >> /etc/hosts && "
              "mkdir /mounted && mount -t tmpfs none /mounted && echo x > /mounted/hidden && ")
    found = diff_of(vmm, tmp_path, script, "--net", "none", image=TOOLS)
    [replaced] = [name for name in found if name.startswith("usr/share/") and name.count("/") == 2]
    assert found[replaced] == CHANGED and found[f"{replaced}/other"] == ADDED
    below = [kind for name, kind in found.items() if name.startswith(replaced + "/") and not name.endswith("/other")]
    assert below and set(below) == {DELETED}
    assert found["etc/hosts"] in (ADDED, CHANGED)
    assert not [name for name in found if name.startswith("mounted")]
