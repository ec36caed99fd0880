# SPDX-License-Identifier: Apache-2.0
"""scripts/emulated-host: what a command gets and gives back, and what every ending leaves behind."""

import contextlib
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


def start_and_wait_for_ready(directory, script="echo ready; sleep 100", stdin=subprocess.DEVNULL):
    process = subprocess.Popen([EMULATED_HOST, "sh", "-c", script], cwd=directory, stdin=stdin,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process, children(process)


def descriptors(wanted):
    """Every descriptor on this host, as its path in /proc, of the files for whose status `wanted` is true."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # closed or ended meanwhile
            if wanted(path.stat()):
                found.append(path)
    return found


def scratch_disk(machine):
    """A descriptor of the file that is a machine's scratch disk, and its status: of that size, without a name."""
    held = [path for path in descriptors(lambda status: status.st_size == 8 << 30) if int(path.parts[2]) in machine]
    assert len({path.stat().st_ino for path in held}) == 1
    assert held[0].stat().st_nlink == 0
    return held[0], held[0].stat()


def is_held(file):
    return bool(descriptors(lambda status: os.path.samestat(status, file) and status.st_size == file.st_size))


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


def test_scratch_disk_is_an_empty_ext4_with_a_journal_direct_writes_and_attributes(tmp_path):
    script = """if True:
        import mmap, os
        [mount] = [line.split() for line in open("/proc/mounts") if " /scratch " in line]
        space = os.statvfs("/scratch")
        print(mount[2], os.listdir("/proc/fs/jbd2"), space.f_bavail * space.f_frsize > 7.5 * 2**30)
        print(os.listdir("/scratch"))
        block = mmap.mmap(-1, 4096)
        block.write(b"direct" * 682)
        file = os.open("/scratch/file", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        print(os.pwrite(file, block, 4096))
        os.setxattr("/scratch/file", "user.name", b"value")
        print(os.getxattr("/scratch/file", "user.name"), open("/scratch/file", "rb").read()[4090:4104])
    """
    for _ in range(2):  # the second sees nothing of the first
        done = call(tmp_path, "/usr/bin/python3", "-c", script)
        assert done.stdout.decode().splitlines() == [
            "ext4 ['vda-8'] True", "[]", "4096", r"b'value' b'\x00\x00\x00\x00\x00\x00directdi'"], done.stderr


def test_scratch_disk_takes_the_space_of_what_is_on_it_and_leaves_nothing(tmp_path):
    def megabytes():
        return path.stat().st_blocks * 512 / 1e6

    process, machine = start_and_wait_for_ready(tmp_path, stdin=subprocess.PIPE, script="""
        echo ready
        read go && head -c 100000000 /dev/zero > /scratch/file && sync && echo full
        read go && rm /scratch/file && sync && echo removed
        read go || exit 0""")
    path, disk = scratch_disk(machine)
    assert megabytes() < 20
    for said, least, most in (b"full\n", 100, 120), (b"removed\n", 0, 20):
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert process.stdout.readline() == said
        for _ in range(100):  # the kernel discards after it has committed
            if least <= megabytes() <= most:
                break
            time.sleep(0.05)
        assert least <= megabytes() <= most
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert not is_held(disk)


def test_two_machines_at_once_have_scratch_disks_of_their_own(tmp_path):
    started = [start_and_wait_for_ready(tmp_path, stdin=subprocess.PIPE,
                                        script=f"touch /scratch/{name}; echo ready; read go; ls -A /scratch")
               for name in ("first", "second")]
    first, second = [scratch_disk(machine)[1].st_ino for _, machine in started]
    assert first != second
    assert [process.communicate(b"go\n", timeout=60)[0] for process, _ in started] == [b"first\n", b"second\n"]


def test_scratch_disk_of_size_0_is_none(tmp_path):
    done = call(tmp_path, "sh", "-c", "grep -w /scratch /proc/mounts; ls /sys/block | grep vd",
                env=environment(MSB_EMULATED_SCRATCH="0"))
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("size, sentence", [
    ("much", "MSB_EMULATED_SCRATCH=much is not a size such as 8G or 512M, or 0 for none."),
    ("8", "MSB_EMULATED_SCRATCH=8 is not a size such as 8G or 512M, or 0 for none."),
    ("-1G", "MSB_EMULATED_SCRATCH=-1G is not a size such as 8G or 512M, or 0 for none."),
    ("999999T", "the scratch disk cannot be made: File too large: set MSB_EMULATED_SCRATCH to a smaller size, "
                "or to 0 for none."),
])
def test_bad_size_of_the_scratch_disk_is_125_and_a_sentence(tmp_path, size, sentence):
    done = call(tmp_path, "true", env=environment(MSB_EMULATED_SCRATCH=size))
    assert (done.returncode, done.stderr.decode()) == (125, f"emulated-host: {sentence}\n")


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
    _, disk = scratch_disk(machine)
    process.send_signal(number)
    assert process.wait(timeout=10) == -number
    wait_until_ended(machine)
    assert not is_held(disk)


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
