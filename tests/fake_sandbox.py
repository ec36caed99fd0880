# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that run as far as `msb` can see: their directories, locks and sockets are there, and a test is who answers."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import threading

import pytest
from conftest import clean_environment
from msb import MSB, sentence

TIMEOUT = 60  # seconds


def take_lock(path):
    """A descriptor that holds the lock of a supervisor (fcntl(2), F_OFD_SETLK)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return descriptor


class ControlSocket:
    """Answers every request with one result."""

    def __init__(self, path, result):
        self.result = result
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream = self.server.accept()[0]
                with stream, stream.makefile("rwb") as lines:
                    for line in lines:
                        answer = {"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": self.result}
                        lines.write(json.dumps(answer).encode() + b"\n")
                        lines.flush()

    def close(self):
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


class FakeSandbox:
    def __init__(self, host, number, name, temporary):
        self.name = name
        self.directory = host.runtime / "microsandbox" / f"{number:08x}"
        self.directory.mkdir(mode=0o700, parents=True)
        self.state = None if temporary else host.project / "menv" / name
        self.locks = [take_lock(self.directory / "lock")]
        if self.state:
            self.state.mkdir(parents=True, exist_ok=True)
            self.locks.append(take_lock(self.state / "lock"))
        identity = {"kind": "temporary" if temporary else "project", "name": name,
                    "project": "" if temporary else str(host.project), "state": str(self.state or "")}
        (self.directory / "identity").write_text(json.dumps(identity))
        self.agent = str(self.directory / "agent")
        self.control = ControlSocket(self.directory / "control",
                                     {"state": "running", "uptime_ms": 65_000, "memory_mib": 512, "cpus": 1})

    def end(self):
        """As a supervisor that goes away."""
        self.control.close()
        for lock in self.locks:
            os.close(lock)
        self.locks = []


class FakeHost:
    """A project, a home and a runtime directory."""

    def __init__(self, directory):
        self.project = directory / "project"
        self.project.mkdir()
        self.home = directory / "home"
        # Short: paths of sockets have 108 bytes.
        self.runtime = pathlib.Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        self.sandboxes = []
        self.environment = clean_environment(MSB_HOME=str(self.home), XDG_RUNTIME_DIR=str(self.runtime),
                                             PATH=f"{MSB.parent}:{os.environ['PATH']}")
        self.write("web")

    def write(self, *names, scripts=()):
        """A Sandboxfile with these."""
        lines = ["sandboxes:"]
        for name in names:
            lines += [f"  {name}:", "    image: alpine:3"]
            if scripts:
                lines += ["    scripts:", *(f"      {script}: echo" for script in scripts)]
        (self.project / "Sandboxfile").write_text("\n".join(lines) + "\n")

    def start_sandbox(self, name="web", temporary=False):
        self.sandboxes.append(FakeSandbox(self, len(self.sandboxes) + 1, name, temporary))
        return self.sandboxes[-1]

    def start(self, *arguments, **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": self.project} | options
        return subprocess.Popen([MSB, *map(str, arguments)], env=self.environment, **options)

    def __call__(self, *arguments, stdin=b""):
        return subprocess.run([MSB, *map(str, arguments)], env=self.environment, cwd=self.project, input=stdin,
                              capture_output=True, check=False, timeout=TIMEOUT)

    def done(self, *arguments, **options):
        """What a command that is to succeed printed."""
        result = self(*arguments, **options)
        assert result.returncode == 0, (result.stdout, result.stderr)
        return result.stdout

    def refused(self, *arguments, words=(), **options):
        """The one sentence of a command that is to fail; it has all of these words."""
        result = self(*arguments, **options)
        assert result.returncode == 1, (result.returncode, result.stdout, result.stderr)
        return sentence(result.stderr, words)

    def close(self):
        for sandbox in self.sandboxes:
            if sandbox.locks:
                sandbox.end()
        shutil.rmtree(self.runtime)


@pytest.fixture
def host(tmp_path):
    made = FakeHost(tmp_path)
    yield made
    made.close()
