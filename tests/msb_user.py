# SPDX-License-Identifier: Apache-2.0
"""One who uses `msb`: his home, settings, project and runtime directory, and the commands that he gives there."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from conftest import clean_environment
from msb import MSB, sentence


class User:
    timeout = 60  # seconds, of one command

    def __init__(self, directory, programs=MSB.parent):
        self.directory = directory
        self.programs = programs
        self.prefix = []  # of every command, for example to be in another network
        self.home = directory / "home"
        self.config, self.user, self.project = (directory / name for name in ("config", "user", "project"))
        for made in (self.config, self.user, self.project):
            made.mkdir()
        self.bin = self.user / ".local/bin"
        # Short: paths of sockets have 108 bytes.
        self.runtime = pathlib.Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        self.environment = clean_environment(MSB_HOME=str(self.home), MSB_CONFIG=str(self.config), HOME=str(self.user),
                                             XDG_RUNTIME_DIR=str(self.runtime),
                                             PATH=f"{programs}:{self.bin}:{os.environ['PATH']}")

    def start(self, *arguments, cwd=None, program="msb", **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([*self.prefix, self.programs / program, *map(str, arguments)], env=self.environment, cwd=cwd or self.project,
                                **options)

    def __call__(self, *arguments, cwd=None, program="msb", stdin=b"", timeout=None):
        return subprocess.run([*self.prefix, self.programs / program, *map(str, arguments)], env=self.environment, cwd=cwd or self.project,
                              input=stdin, capture_output=True, check=False, timeout=timeout or self.timeout)

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
        """Names of sandboxes that run."""
        return sorted(entry["name"] for entry in self.json("ps"))

    def supervisor(self, name):
        """The process id of a sandbox's msb-vmm."""
        [entry] = [entry for entry in self.json("ps") if entry["name"] == name]
        return entry["status"]["pid"]

    def runtime_files(self):
        return sorted(str(path.relative_to(self.runtime)) for path in self.runtime.rglob("*") if path.name != ".lock" and
                      path != self.runtime / "microsandbox")

    def kill_sandboxes(self):
        for entry in json.loads(self("ps", "--format", "json").stdout or "[]"):
            self("kill", entry["id"])

    def close(self):
        try:
            self.kill_sandboxes()
        finally:
            shutil.rmtree(self.runtime)
