# SPDX-License-Identifier: Apache-2.0
"""What whole-system tests share: the programs under test, and a look at what each test leaves behind."""

import os
import pathlib
import select
import signal
import subprocess
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
MSB_VMM = REPOSITORY / "build/release/bin/msb-vmm"
IMAGES = REPOSITORY / "build/images"
BASE = f"{IMAGES}:base"
PYTHON = f"{IMAGES}:python"
TIMEOUT = 150  # seconds; no single run may take longer, even in the emulated host


class Vmm:
    """Runs msb-vmm with its converted layers in `home`."""

    def __init__(self, home):
        self.environment = dict(os.environ, MSB_HOME=str(home))

    def start(self, *arguments, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([MSB_VMM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.environment, **options)

    def __call__(self, *arguments, stdin=b"", prefix=()):
        return subprocess.run([*prefix, MSB_VMM, *arguments], input=stdin, capture_output=True,
                              timeout=TIMEOUT, env=self.environment, check=False)

    def run(self, *command, image=BASE, options=(), stdin=b"", prefix=()):
        return self("run", "--image", image, *options, "--", *command, stdin=stdin, prefix=prefix)


@pytest.fixture(scope="session")
def vmm():
    return Vmm(os.environ.get("MSB_HOME", REPOSITORY / "build/home"))


def read_output(process, size, seconds=60):
    """The first `size` bytes of a started program's standard output; fails when they do not come in time."""
    data = b""
    deadline = time.monotonic() + seconds
    while len(data) < size:
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            process.kill()
            raise AssertionError(f"only {data!r} within {seconds} s; standard error: {process.stderr.read()!r}")
        piece = os.read(process.stdout.fileno(), size - len(data))
        assert piece, f"only {data!r}, then the end; standard error: {process.stderr.read()!r}"
        data += piece
    return data


def machines():
    """Process ids of msb-vmm and msb-machine of this checkout, zombies left out."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                program = os.readlink(entry / "exe")
            except OSError:
                continue
            if program.startswith(str(MSB_VMM.parent) + "/msb-"):
                found.append(int(entry.name))
    return found


def wait_until(condition, what, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_left_behind(vmm):
    """No process, mount, shared memory or temporary file of the product outlives a test."""

    def state():
        return {"mounts": pathlib.Path("/proc/self/mounts").read_text(),
                "shared memory": sorted(os.listdir("/dev/shm")),
                "temporary files": sorted(name for name in os.listdir("/tmp") if "msb" in name)}

    before_machines = machines()
    before = state()
    yield
    try:
        wait_until(lambda: set(machines()) <= set(before_machines), "every msb process has ended")
    finally:
        for pid in set(machines()) - set(before_machines):
            os.kill(pid, signal.SIGKILL)
    assert state() == before


def message(result):
    """The one sentence that msb-vmm printed."""
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].startswith("msb-vmm: "), result.stderr
    return lines[0].removeprefix("msb-vmm: ")
