# SPDX-License-Identifier: Apache-2.0
"""What the agent takes of a sandbox's memory: the program of the init, compiled as it is for the guest."""

import socket
import struct
import subprocess

import pytest

from conftest import REPOSITORY, wait_until
from exec_frames import Type, start_payload

LIMIT_KIB = 2048
SOURCES = [source for source in sorted((REPOSITORY / "initramfs").glob("*.c")) if source.name != "main.c"]


@pytest.fixture
def agent(tmp_path):
    """(process, path of its socket)"""
    program, path = tmp_path / "agent", tmp_path / "s"
    subprocess.run(["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-no-pie", "-fno-pie", f"-I{REPOSITORY}",
                    "-idirafter", REPOSITORY / "build/initramfs/include", "-o", program,
                    REPOSITORY / "tests/host/agent_on_host.c", *SOURCES], check=True)
    # Its standard input is its control connection.
    host, control = socket.socketpair()
    with host, control, subprocess.Popen([program, path], stdin=control) as process:
        wait_until(path.exists, "the agent listens")
        yield process, path
        host.close()
        control.close()
        assert process.wait(timeout=10) == 0


def run(path, *command):
    """Runs a command to its end. Returns how many bytes it wrote."""
    payload = start_payload(list(command), {"PATH": "/usr/bin:/bin"}, no_stdin=True)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(struct.pack("<II", Type.START, len(payload)) + payload)
        with connection.makefile("rb") as stream:
            written = 0
            kind = None
            while header := stream.read(8):
                kind, length = struct.unpack("<II", header)
                assert len(stream.read(length)) == length
                written += length if kind == Type.STDOUT else 0
    assert kind == Type.EXITED
    return written


def memory_kib(process, field):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def test_the_agent_stays_under_two_mebibytes(agent):
    process, path = agent
    for _ in range(100):
        assert run(path, "echo", "x") == 2
    assert run(path, "head", "-c", str(64 << 20), "/dev/zero") == 64 << 20
    assert memory_kib(process, "VmHWM:") < LIMIT_KIB
