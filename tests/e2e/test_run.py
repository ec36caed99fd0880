# SPDX-License-Identifier: Apache-2.0
"""Commands in a microVM, as a user runs them."""

import hashlib
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest
from conftest import BASE, PYTHON, TIMEOUT, Vmm, image_with, machines, message, read_output, wait_until


def output(result, status=0):
    assert result.stderr == b""
    assert result.returncode == status
    return result.stdout.decode()


def test_numpy_computes_in_stacked_layers_on_two_processors(vmm):
    result = vmm.run("python3", "-c",
                     "import numpy, os; print(numpy.linalg.eigvalsh([[2.0, 1.0], [1.0, 2.0]]), os.cpu_count())",
                     image=PYTHON, options=["--cpus", "2"])
    assert output(result) == "[1. 3.] 2\n"


def test_files_are_what_the_layers_make_of_them(vmm):
    assert output(vmm.run("/usr/share/msb-test/check")) == "all as expected\n"


def test_the_image_says_what_runs_when_nobody_else_does(vmm):
    # base asks for /bin/sh, which reads what to do from standard input.
    assert output(vmm("run", "--image", BASE, stdin=b"echo from the shell; nproc; exit 3\n"), 3) == "from the shell\n1\n"


def test_arguments_environment_directory_and_user_arrive(vmm):
    script = 'printf "<%s>" "$@"; echo; echo "$A|$B|$HOME"; pwd; id -u; id -g; umask'
    options = ["--env", "A=1 = x", "-e", "B=", "--workdir", "/made/for this", "--user", "1000:100"]
    result = vmm.run("sh", "-c", script, "-", "two words", "", "'quoted'", "new\nline", options=options)
    assert output(result) == "<two words><><'quoted'><new\nline>\n1 = x||/home/user\n/made/for this\n1000\n100\n0022\n"


def test_binary_data_passes_through_unchanged(vmm):
    data = random.Random(1).randbytes(3_000_001)
    result = vmm.run("sh", "-c", "tee /tmp/copy; sha256sum < /tmp/copy >&2", stdin=data)
    assert result.returncode == 0
    assert result.stdout == data
    assert result.stderr.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_standard_output_and_error_stay_apart(vmm):
    result = vmm.run("sh", "-c", "echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, b"out\n", b"err\n")


@pytest.mark.parametrize("command, status, words", [
    (["/nonexistent"], 127, "/nonexistent"),
    (["nonexistent"], 127, "nonexistent"),
    (["/etc/passwd"], 126, "Permission denied"),
    (["/tmp"], 126, "/tmp"),
])
def test_a_command_that_cannot_run_has_the_status_that_containers_give(vmm, command, status, words):
    result = vmm.run(*command)
    assert words in message(result)
    assert (result.returncode, result.stdout) == (status, b"")


@pytest.mark.parametrize("call, status, word", [("reboot", 129, "restart"), ("poweroff", 130, "power off")])
def test_a_command_that_calls_reboot_ends_the_sandbox_and_says_so(vmm, call, status, word):
    result = vmm.run(call, "-f")
    assert word in message(result)
    assert result.returncode == status


def test_running_out_of_memory_is_told_apart_from_being_killed(vmm):
    # One read that fills memory from inside the kernel.
    hungry = "echo 1 > /proc/sys/vm/overcommit_memory; exec dd if=/dev/zero of=/dev/null bs=200M count=1"
    result = vmm.run("sh", "-c", hungry, options=["--memory", "64"])
    assert result.returncode == 137
    assert "ran out of memory, of which it has 64 MiB" in message(result)
    killed = vmm.run("sh", "-c", "kill -9 $$")
    assert (killed.returncode, killed.stderr) == (137, b"")


def test_processes_cannot_see_or_harm_the_init(vmm):
    script = "kill -9 -1; kill -9 1; cat /proc/1/comm; ls /host /stage 2>/dev/null; echo still here"
    result = vmm.run("sh", "-c", script)
    assert result.returncode == 0
    assert result.stdout.endswith(b"still here\n")


def test_orphans_are_reaped_and_do_not_hold_the_sandbox(vmm):
    script = ("for i in $(seq 50); do (sh -c 'true &' &); done; "
              "for i in $(seq 100); do grep -sq '^State:.Z' /proc/[0-9]*/status || break; sleep 0.1; done; "
              "(sleep 1000 &); echo $i")
    assert int(output(vmm.run("sh", "-c", script))) < 100


def start_and_wait_for_output(vmm, script, text=b"ready", image=BASE, options=()):
    process = vmm.start("run", "--image", image, *options, "--", "sh", "-c", script)
    assert read_output(process, len(text)) == text
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(vmm, number):
    process = start_and_wait_for_output(vmm, "trap 'echo got; exit 5' INT TERM HUP USR1; echo -n ready; "
                                             "while true; do sleep 0.1; done")
    process.send_signal(number)
    out, _ = process.communicate(timeout=TIMEOUT)
    assert (out, process.returncode) == (b"got\n", 5)


def test_a_command_that_a_signal_ends_has_its_status(vmm):
    process = start_and_wait_for_output(vmm, "echo -n ready; exec sleep 1000")
    process.terminate()
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM


# The whole group gets the signal, and a shell says what ended its child.
QUIET = "exec 2>/dev/null; "


@pytest.mark.parametrize("options, number", [([], 37), (["--stop-signal", "quit"], signal.SIGQUIT)])
def test_sigterm_stops_a_command_by_the_signal_that_its_image_or_user_names(vmm, layout, options, number):
    process = start_and_wait_for_output(vmm, f"{QUIET}trap 'head -c 3000000 /dev/zero; exit 7' {number:d}; "
                                             "trap 'exit 1' TERM; echo -n ready; while true; do sleep 0.1; done",
                                        image=image_with(layout, StopSignal="SIGRTMIN+3"), options=options)
    process.terminate()
    assert process.communicate(timeout=TIMEOUT) == (bytes(3_000_000), b"")
    assert process.returncode == 7


IGNORES = f"{QUIET}trap 'echo told' TERM; echo -n ready; while true; do sleep 0.1; done"


def killed(process, *words):
    out, err = process.communicate(timeout=TIMEOUT)
    text = message(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    for word in words:
        assert word in text
    assert process.returncode == 137
    return out


def test_a_command_that_does_not_stop_in_time_is_killed(vmm):
    process = start_and_wait_for_output(vmm, IGNORES, options=["--stop-timeout", "2"])
    process.terminate()
    assert killed(process, "did not end within 2 s", "--stop-timeout") == b"told\n"


def test_a_stop_without_time_kills_at_once(vmm):
    process = start_and_wait_for_output(vmm, IGNORES, options=["--stop-timeout", "0"])
    process.terminate()
    assert killed(process, "--stop-timeout 0") == b""


def test_a_second_sigterm_does_not_wait(vmm):
    process = start_and_wait_for_output(vmm, IGNORES, options=["--stop-timeout", "600"])
    process.terminate()
    assert read_output(process, 5) == b"told\n"
    process.terminate()
    assert killed(process, "second SIGTERM") == b""


def test_an_image_whose_stop_signal_there_is_not_is_refused(vmm, layout):
    image = image_with(layout, StopSignal="SIGNOTHING")
    result = vmm.run("true", image=image)
    assert "the image's StopSignal" in message(result)
    assert result.returncode == 125
    assert vmm.run("true", image=image, options=["--stop-signal", "TERM"]).returncode == 0


def test_an_images_volumes_are_there_and_what_they_hold_stays(vmm, layout):
    image = image_with(layout, Volumes={"/data/deep/er": {}, "/usr/share/msb-test": {}})
    result = vmm.run("sh", "-c", "touch /data/deep/er/file && stat -c '%a %u %F' /data/deep/er && ls /usr/share/msb-test/check",
                     image=image)
    assert result.stdout.decode().splitlines() == ["755 0 directory", "/usr/share/msb-test/check"], result.stderr


@pytest.mark.parametrize("volumes, reason", [({"data": {}}, "no absolute path"), ({"/etc/passwd/x": {}}, "volume /etc/passwd/x")])
def test_an_image_whose_volumes_cannot_be_is_refused(vmm, layout, volumes, reason):
    result = vmm.run("true", image=image_with(layout, Volumes=volumes))
    assert reason in message(result)
    assert result.returncode == 125


def test_three_interrupts_end_a_command_that_ignores_them(vmm):
    process = start_and_wait_for_output(vmm, "trap '' INT; echo -n ready; while true; do sleep 1; done")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # equal signals that are pending together count once
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert b"three interrupts" in err


def test_a_reader_that_goes_away_ends_the_writer(vmm):
    process = vmm.start("run", "--image", BASE, "--", "yes")
    assert read_output(process, 2) == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=TIMEOUT) == 128 + signal.SIGPIPE
    process.stderr.close()


def test_killing_the_launcher_at_any_moment_leaves_nothing(vmm):
    # The autouse fixture waits for every process to be gone, and looks for mounts and files.
    source = random.Random(2)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) * 2:
        process = vmm.start("run", "--image", BASE, "--", "sleep", "1000")
        try:
            process.wait(timeout=source.uniform(0, 4))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode in (-number, 128 + number), err
    wait_until(lambda: not machines(), "every msb process has ended")


def test_a_machine_process_that_is_killed_is_reported(vmm):
    process = start_and_wait_for_output(vmm, "echo -n ready; exec sleep 1000")
    [machine] = [pid for pid in machines() if pid != process.pid]
    os.kill(machine, signal.SIGKILL)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 125
    assert b"signal 9" in err


# A guest of a few bytes: a 64-bit ELF kernel at 1 MiB that runs `code`.
def bare_kernel(path, code):
    header = bytearray(64)
    header[:20] = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00"
    address = 1 << 20
    header[24:32] = address.to_bytes(8, "little")
    header[32:40] = (64).to_bytes(8, "little")
    header[54:58] = (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    segment = b"".join(value.to_bytes(size, "little") for value, size in [
        (1, 4), (5, 4), (120, 8), (address, 8), (address, 8), (len(code), 8), (4096, 8), (4096, 8)])
    path.write_bytes(bytes(header) + segment + code)
    return path


def test_a_guest_that_never_becomes_ready_is_reported_as_such(vmm, tmp_path):
    kernel = bare_kernel(tmp_path / "halt", b"\xfa\xf4\xeb\xfd")  # cli; hlt; jmp back to hlt
    started = time.monotonic()
    result = vmm.run("true", options=["--kernel", kernel, "--ready-timeout", "4"])
    assert "did not become ready within 4 s" in message(result)
    assert result.returncode == 125
    assert time.monotonic() - started < 60


def test_an_unannounced_shutdown_is_reported_as_a_crash(vmm, tmp_path):
    kernel = bare_kernel(tmp_path / "fault", b"\x0f\x0b")  # ud2 without an IDT: a triple fault
    result = vmm.run("true", options=["--kernel", kernel])
    assert "crashed" in message(result)
    assert result.returncode == 125


def test_a_guest_kernel_that_panics_is_reported_as_a_crash_and_the_console_says_why(vmm):
    result = vmm.run("true", options=["--append", "rdinit=/nonexistent"])
    first, *words = result.stderr.decode().splitlines()
    assert first == "msb-vmm: the guest crashed: it stopped without announcing its end; its kernel said:"
    assert "Kernel panic - not syncing" in words[0]
    assert 1 < len(words) <= 16 and all(word.startswith("  ") for word in words)
    assert result.returncode == 125
    shown = vmm.run("true", options=["--console", "--append", "rdinit=/nonexistent"])
    assert b"Kernel panic" in shown.stderr


def test_timing_names_the_phases_in_order(vmm):
    result = vmm.run("echo", "x", options=["--timing"])
    phases = [line[:28].strip() for line in result.stderr.decode().splitlines()]
    wanted = ["msb-vmm started", "machine: started", "machine: built", "guest ready", "command started",
              "first output", "command exited", "machine stopped"]
    assert [phase for phase in phases if phase in wanted] == wanted


def host_state():
    handles = int(pathlib.Path("/proc/sys/fs/file-nr").read_text().split()[0])
    sockets = len(pathlib.Path("/proc/net/unix").read_text().splitlines())
    meminfo = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return handles, sockets, int(meminfo["MemAvailable"].split()[0]) // 1024


def test_ten_runs_leak_neither_descriptors_nor_memory(vmm):
    for _ in range(2):
        assert vmm.run("true").returncode == 0
    before = host_state()
    for _ in range(10):
        assert vmm.run("true").returncode == 0
    handles, sockets, memory = host_state()
    # Each run opens dozens of each and maps 512 MiB; what other programs do in between is less than one run's worth.
    assert handles - before[0] < 128  # the kernel counts handles in batches per processor
    assert sockets - before[1] < 10
    assert before[2] - memory < 100


@pytest.mark.skipif(os.environ.get("MSB_TEST_FULL") != "1", reason="long: runs with --full")
def test_fifty_starts_four_at_a_time(vmm):
    running = []
    for number in range(50):
        running.append((number, vmm.start("run", "--image", BASE, "--memory", "128", "--", "echo", str(number))))
        if len(running) == 4:
            first, process = running.pop(0)
            assert process.communicate(timeout=240) == (f"{first}\n".encode(), b"")
    for number, process in running:
        assert process.communicate(timeout=240) == (f"{number}\n".encode(), b"")


def test_a_first_use_by_two_at_once_converts_each_layer_safely(tmp_path):
    fresh = Vmm(tmp_path / "home")
    both = [fresh.start("run", "--image", BASE, "--", "/usr/share/msb-test/check") for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=240) == (b"all as expected\n", b"")
