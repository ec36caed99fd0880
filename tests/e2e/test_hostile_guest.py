# SPDX-License-Identifier: Apache-2.0
"""A kernel that is not Linux and attacks the devices, on the real VMM (tests/hostile_guest.c)."""

import os
import pathlib
import subprocess
import threading

import pytest
from conftest import BASE, REPOSITORY, TIMEOUT, machines

ATTACKS = ["selectors", "queue sizes", "ring places", "broken rings", "indirect tables", "bad requests", "sectors", "buffers",
           "widths", "states", "walk", "processors"]
SECTORS = 16384


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "kernel"
    subprocess.run(["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-no-pie",
                    "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none", "-mcmodel=small",
                    "-Wl,-Ttext=0x1000000,--build-id=none,-z,noexecstack,-z,max-page-size=4096", "-o", path, REPOSITORY / "tests/hostile_guest.c"],
                   check=True, timeout=TIMEOUT)
    return path


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"".join(number.to_bytes(8, "little") * 64 for number in range(SECTORS)))
    return path


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_guest_that_attacks_its_devices_gets_nowhere_and_the_devices_serve_again(vmm, kernel, disk):
    process = vmm.start("run", "--image", BASE, "--net", "none", "--kernel", kernel, "--memory", "64", "--cpus", "4", "--disk", disk, "--console",
                        "--ready-timeout", "300", "--", "true")
    largest, lines = {}, []

    def watch():
        for pid in machines():
            if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine"):
                largest[pid] = max(largest.get(pid, 0), resident(pid))

    with process:
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        try:
            for line in process.stderr:
                lines.append(line.decode().strip())
                try:
                    watch()
                except OSError:
                    pass  # it has just ended
        finally:
            timer.cancel()
    assert lines[:-1] == [*(f"survived {attack}" for attack in ATTACKS), "done"], lines
    assert "the guest crashed" in lines[-1]  # its triple fault, in the end
    assert process.returncode == 125
    # Its memory is the guest's 64 MiB and little more, whatever the guest asked for.
    assert 0 < max(largest.values()) < (64 + 32) << 20
    assert disk.read_bytes() == b"".join(number.to_bytes(8, "little") * 64 for number in range(SECTORS))
