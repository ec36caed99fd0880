# SPDX-License-Identifier: Apache-2.0
"""The control socket of a real guest: counters, pause, disks that grow, and memory that goes back to the host."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import BASE, REPOSITORY, TIMEOUT, TOOLS, machines, read_output, wait_until

sys.path.insert(0, str(REPOSITORY / "tests"))
from control_client import Control, ControlError  # noqa: E402

MIB = 1 << 20
FULL = os.environ.get("MSB_TEST_FULL") == "1"


@contextlib.contextmanager
def sandbox(vmm, directory, script, *options, image=BASE):
    """A running command, and its control socket."""
    path = directory / "control"
    with vmm.start("run", "--image", image, "--control", path, *options, "--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        try:
            with Control(path) as control:
                yield process, control
        finally:
            if process.poll() is None:
                process.kill()


def answer(process, word):
    """Sends a line, reads one of the length that the answer has."""
    process.stdin.write(b"go\n")
    process.stdin.flush()
    assert read_output(process, len(word)) == word


def machine_of(process):
    [pid] = [pid for pid in machines() if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine")]
    return pid


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def time_used(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.truncate(8 * MIB)
    return path


def test_status_counters_and_events_follow_a_sandbox(vmm, tmp_path, disk):
    script = "read x; dd if=/dev/zero of=/dev/vda bs=4k count=256 conv=notrunc oflag=direct 2>/dev/null; echo -n written; read x"
    with sandbox(vmm, tmp_path, script, "--disk", disk, "--memory", "256") as (process, control):
        control("subscribe")
        if control("status")["state"] == "starting":
            control.event("running")
        status = control("status")
        assert status["state"] == "running"
        assert (status["memory_mib"], status["cpus"]) == (256, 1)
        assert status["disks"] == [{"disk": 0, "size": 8 * MIB, "read_only": False}]
        before = control.device("disk-0")
        answer(process, b"written")
        after = control.device("disk-0")
        assert after["bytes_written"] - before["bytes_written"] == MIB
        assert after["requests"] - before["requests"] >= 256
        assert after["errors"] == 0
        assert 0 < after["interrupts"] - before["interrupts"] <= after["requests"] - before["requests"]
        assert after["kicks"] > before["kicks"]
        # Reads of registers and acknowledgements of used buffers stay in the guest.
        written = {entry["name"]: entry["writes"] for entry in after["registers"]}
        assert written["Status"] > 0
        assert written == {entry["name"]: entry["writes"] for entry in before["registers"]}
        assert not any(entry["reads"] for entry in after["registers"])
        with pytest.raises(ControlError, match="--balloon"):
            control("set_balloon", mib=1)
        process.communicate(b"go\n", timeout=TIMEOUT)
        assert process.returncode == 0
        assert control.event("stopped")["exit_status"] == 0
        with pytest.raises(EOFError):
            control.read()


def test_a_paused_sandbox_does_nothing_and_goes_on_where_it_was(vmm, tmp_path, disk):
    script = ("i=0; while true; do i=$((i + 1)); printf '%07d\\n' $i; printf '%07d\\n' $i | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; done")
    with sandbox(vmm, tmp_path, script, "--disk", disk) as (process, control):
        last = 0

        def lines(count):
            nonlocal last
            for line in read_output(process, 8 * count).split():
                assert int(line) == last + 1
                last += 1

        lines(3)
        for _ in range(10 if FULL else 3):
            control("pause")
            control("pause")  # changes nothing
            assert control("status")["state"] == "paused"
            pid = machine_of(process)
            used, content = time_used(pid), disk.read_bytes()
            counters = control("counters")
            # What was under way on the host may still arrive; then nothing does.
            time.sleep(0.5)
            while True:
                os.set_blocking(process.stdout.fileno(), False)
                try:
                    piece = os.read(process.stdout.fileno(), 8)
                    assert int(piece) == last + 1
                    last += 1
                except BlockingIOError:
                    break
                finally:
                    os.set_blocking(process.stdout.fileno(), True)
            time.sleep(0.5)
            assert disk.read_bytes() == content
            assert control("counters") == counters
            assert time_used(pid) - used < 20  # ticks; counting takes some
            control("resume")
            lines(3)
        # And it ends from a pause as it would otherwise.
        control("pause")
        process.terminate()
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 128 + signal.SIGTERM


def test_pauses_and_resumes_that_come_together_are_all_answered(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "echo -n up; read x", "--cpus", "2") as (process, control):
        read_output(process, 2)
        words = ["resume", "pause"] * 100 + ["resume"]
        # Fewer at a time than may wait for the machine.
        for start in range(0, len(words), 10):
            lines = [json.dumps({"jsonrpc": "2.0", "id": word, "method": word}) for word in words[start:start + 10]]
            control.socket.sendall("".join(f"{line}\n" for line in lines).encode())
            assert [control.read() for _ in lines] == [{"jsonrpc": "2.0", "id": word, "result": {}} for word in words[start:start + 10]]
        process.communicate(b"go\n", timeout=TIMEOUT)
        assert process.returncode == 0


def test_a_machine_that_hangs_does_not_hang_its_launcher_nor_outlive_it(vmm, tmp_path):
    for ends in ("by SIGTERM", "by SIGKILL"):
        path = tmp_path / "s"
        with sandbox(vmm, tmp_path, "echo -n up; sleep 1000", "--socket", path, "--stop-timeout", "1") as (process, _):
            read_output(process, 2)
            pid = machine_of(process)
            os.kill(pid, signal.SIGSTOP)
            clients = []
            for _ in range(600):  # more than its socket has room for
                client = socket.socket(socket.AF_UNIX)
                client.connect(str(path))
                client.sendall(b"CONNECT 1024\n")
                clients.append(client)
            # Those for whom there is no room are turned away, by a launcher that goes on.
            clients[-1].settimeout(TIMEOUT)
            assert clients[-1].recv(1) == b""
            process.send_signal(signal.SIGTERM if ends == "by SIGTERM" else signal.SIGKILL)
            process.communicate(timeout=TIMEOUT)
            for client in clients:
                client.close()
            wait_until(lambda pid=pid: not pathlib.Path(f"/proc/{pid}/exe").exists(), "the machine ends with its launcher")
        path.unlink(missing_ok=True)
        (tmp_path / "control").unlink(missing_ok=True)


def test_a_sandbox_whose_machine_is_killed_while_paused_ends(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "echo -n up; sleep 1000") as (process, control):
        read_output(process, 2)
        control("pause")
        os.kill(machine_of(process), signal.SIGKILL)
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 125
        assert errors.startswith(b"msb-vmm: ")


def test_a_disk_grows_under_a_mounted_file_system(vmm, tmp_path, disk):
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk], check=True, timeout=TIMEOUT)
    script = ("mkdir /m && mount -t ext4 /dev/vda /m && echo -n mounted && read x && cat /sys/block/vda/size && read x && "
              "resize2fs /dev/vda > /dev/null 2>&1 && head -c 20M /dev/urandom > /m/big && umount /m && echo -n filled")
    with sandbox(vmm, tmp_path, script, "--disk", disk, image=TOOLS) as (process, control):
        assert read_output(process, 7) == b"mounted"
        control("set_disk_size", disk=0, size=32 * MIB)
        answer(process, b"65536\n")  # sectors
        answer(process, b"filled")
        for size in (16 * MIB, 32 * MIB + 1):
            with pytest.raises(ControlError):
                control("set_disk_size", disk=0, size=size)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
    subprocess.run(["e2fsck", "-f", "-n", disk], check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def balloon(control):
    return control("counters")["balloon"]


def test_a_balloon_takes_memory_and_gives_it_back(vmm, tmp_path):
    with sandbox(vmm, tmp_path, "head -c 100m /dev/zero | tail -c 100m | wc -c; read x", "--balloon", "--memory", "256") as (process, control):
        assert read_output(process, 10) == b"104857600\n"  # has touched its memory
        control("set_balloon", mib=128)
        wait_until(lambda: balloon(control)["actual"] == 128 * MIB, "the guest gives 128 MiB back", TIMEOUT)
        assert resident(machine_of(process)) < (128 + 32) * MIB
        control("set_balloon", mib=0)
        wait_until(lambda: balloon(control)["actual"] == 0, "the guest takes its memory back", TIMEOUT)
        process.communicate(b"go\n", timeout=TIMEOUT)
        assert process.returncode == 0


def test_memory_that_becomes_free_in_a_guest_goes_back_to_the_host(vmm, tmp_path):
    script = ("mkdir /m && mount -t tmpfs none /m && head -c 96m /dev/urandom > /m/big && echo -n full && read x && rm /m/big && "
              "echo -n free && read x")
    with sandbox(vmm, tmp_path, script, "--balloon", "--memory", "256") as (process, _):
        assert read_output(process, 4) == b"full"
        full = resident(machine_of(process))
        assert full > 96 * MIB
        answer(process, b"free")
        wait_until(lambda: resident(machine_of(process)) < full - 64 * MIB, "the host has 64 MiB back", TIMEOUT)


def test_a_guest_that_runs_out_of_memory_takes_back_what_the_balloon_has(vmm, tmp_path):
    script = "read x; head -c 100m /dev/zero | tail -c 100m | wc -c; read x"
    with sandbox(vmm, tmp_path, script, "--balloon", "--memory", "256") as (process, control):
        control("set_balloon", mib=160)
        wait_until(lambda: balloon(control)["actual"] == 160 * MIB, "the guest gives 160 MiB back", TIMEOUT)
        answer(process, b"104857600\n")
        assert balloon(control)["actual"] < 160 * MIB


def test_stress_ng_passes_while_memory_comes_and_goes(vmm, tmp_path, disk):
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk, "64M"], check=True, timeout=TIMEOUT)
    seconds = 60 if FULL else 10
    script = (f"mkdir /m && mount -t ext4 /dev/vda /m && cd /m && echo -n up && stress-ng --quiet --verify --timeout {seconds} --vm 1 --vm-bytes 48M --vm-method all "
              "--hdd 1 --hdd-bytes 8M --hdd-opts fsync,rd-rnd,wr-rnd --malloc 1 --malloc-bytes 16M --iomix 1 --iomix-bytes 4M && cd / && umount /m && echo -n passed")
    with sandbox(vmm, tmp_path, script, "--balloon", "--memory", "256", "--disk", disk, image=TOOLS) as (process, control):
        assert read_output(process, 2) == b"up"
        deadline = time.monotonic() + seconds
        largest = 0
        while time.monotonic() < deadline:
            for mib in (96, 16):
                control("set_balloon", mib=mib)
                time.sleep(1)
                largest = max(largest, balloon(control)["actual"])
        assert read_output(process, 6) == b"passed"
        assert largest > 32 * MIB
        assert control.device("balloon")["errors"] == 0
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
    subprocess.run(["e2fsck", "-f", "-n", disk], check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
