# SPDX-License-Identifier: Apache-2.0
"""`msb` with guests: a home, a runtime directory and commands of its own for each test; nothing of them is left."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest
from conftest import IMAGES, REPOSITORY, machines, wait_until
from msb import MSB, sentence

TIMEOUT = 150  # seconds, of one command in the emulated host


class Sandboxes:
    def __init__(self, directory):
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir()
        # Images that scripts/common.sh has loaded: their names and documents here, their converted layers where they are.
        store = pathlib.Path(os.environ.get("MSB_HOME", REPOSITORY / "build/home"))
        (self.home / "layers").symlink_to(store / "layers")
        shutil.copy(store / "images.db", self.home)
        (self.home / "blobs/sha256").mkdir(parents=True)
        for blob in (store / "blobs/sha256").iterdir():
            if blob.stat().st_size < 100_000:
                shutil.copy(blob, self.home / "blobs/sha256")
        self.user = directory / "user"
        self.user.mkdir()
        self.bin = self.user / ".local/bin"
        # Short: paths of sockets have 108 bytes.
        self.runtime = pathlib.Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        self.project = directory / "project"
        self.project.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MSB_", "XDG_"))}
        self.environment = kept | {"MSB_HOME": str(self.home), "HOME": str(self.user), "XDG_RUNTIME_DIR": str(self.runtime),
                                   "PATH": f"{MSB.parent}:{self.bin}:{os.environ['PATH']}"}

    def start(self, *arguments, cwd=None, program=MSB, **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([program, *map(str, arguments)], env=self.environment, cwd=cwd or self.project, **options)

    def __call__(self, *arguments, cwd=None, program=MSB, stdin=b"", timeout=TIMEOUT):
        return subprocess.run([program, *map(str, arguments)], env=self.environment, cwd=cwd or self.project, input=stdin,
                              capture_output=True, check=False, timeout=timeout)

    def done(self, *arguments, **options):
        """What a command that is to succeed printed."""
        result = self(*arguments, **options)
        assert result.returncode == 0, (result.stdout, result.stderr)
        return result.stdout.decode()

    def json(self, *arguments, **options):
        return json.loads(self.done(*arguments, "--format", "json", **options))

    def refused(self, *arguments, words=(), status=1, **options):
        """The one sentence of a command that is to fail; it has all of these words."""
        result = self(*arguments, **options)
        assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
        return sentence(result.stderr, words)

    def write(self, text, name="Sandboxfile"):
        (self.project / name).write_text(text)

    def running(self):
        return sorted(entry["name"] for entry in self.json("ps"))

    def supervisor(self, name):
        """The process id of a sandbox's msb-vmm."""
        [entry] = [entry for entry in self.json("ps") if entry["name"] == name]
        return entry["status"]["pid"]

    def runtime_files(self):
        return sorted(str(path.relative_to(self.runtime)) for path in self.runtime.rglob("*") if path.name != ".lock" and
                      path != self.runtime / "microsandbox")

    def close(self):
        try:
            for entry in json.loads(self("ps", "--format", "json").stdout or "[]"):
                self("kill", entry["id"])
        finally:
            shutil.rmtree(self.runtime)


def machine_of(supervisor):
    """The process id of the msb-machine below an msb-vmm."""
    for pid in machines():
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if "(msb-machine)" in stat and int(stat[stat.rindex(")") + 2:].split()[1]) == supervisor:
            return pid
    raise AssertionError(f"{supervisor} has no machine")


def kill(pid):
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def sandboxes(tmp_path):
    made = Sandboxes(tmp_path)
    yield made
    made.close()


__all__ = ["IMAGES", "Sandboxes", "kill", "machine_of", "sandboxes", "wait_until"]
