# SPDX-License-Identifier: Apache-2.0
"""Runs `msb` and `msb-vmm` with a store of their own, and looks at what is in it."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
from conftest import MSB_VMM, REPOSITORY, clean_environment

MSB = MSB_VMM.parent / "msb"
TIMEOUT = 60  # seconds


class Msb:
    """No output may have a secret of the test bed in it: not a password, nor what stands for one."""

    def __init__(self, directory, bed):
        self.bed = bed
        self.home = directory / "home"
        self.settings = directory / "settings"
        self.config = directory / "docker"
        self.config.mkdir(parents=True)
        self.environment = clean_environment(MSB_HOME=str(self.home), MSB_CONFIG=str(self.settings),
                                             SSL_CERT_FILE=str(bed.authority.certificate), DOCKER_CONFIG=str(self.config))

    def start(self, *arguments, program=MSB, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([program, *arguments], env=self.environment,
                                **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options)

    def __call__(self, *arguments, stdin=b"", program=MSB):
        result = subprocess.run([program, *arguments], input=stdin, capture_output=True, env=self.environment, timeout=TIMEOUT,
                                check=False)
        for secret in self.bed.secrets():
            assert secret.encode() not in result.stdout + result.stderr
        return result

    def peak_memory(self, *arguments, status=0):
        """Bytes of memory that a command had at most, and what it wrote to standard error."""
        told = self.config.parent / "peak-memory"
        result = self("-IS", REPOSITORY / "tests/peak_memory.py", told, MSB, *arguments, program=sys.executable)
        assert result.returncode == status, result.stderr
        return int(told.read_text()), result.stderr

    def done(self, *arguments, **options):
        """What a command that is to succeed printed."""
        result = self(*arguments, **options)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode()

    def json(self, *arguments, **options):
        return json.loads(self.done(*arguments, "--format", "json", **options))

    def pull(self, reference, *options):
        [pulled] = self.json("pull", reference, *options)
        return pulled

    def refused(self, *arguments, words=(), status=1, **options):
        """The one sentence of a command that is to fail; it has all of these words."""
        result = self(*arguments, **options)
        assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
        return sentence(result.stderr, words)

    def references(self):
        """The names of images; some have none."""
        return sorted(entry["reference"] for entry in self.json("image", "list") if entry["reference"])

    def files(self):
        """Paths of all regular files in the store, relative to it."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*") if not path.is_dir())

    def check_store(self):
        """Every blob is what its name says, every EROFS image is sound, and nothing else is there.

        A command that reads comes first: it clears away what one that was killed left.
        """
        self.done("image", "list")
        known = re.compile(r"images\.db(-journal)?|store\.lock|scratch/empty-[0-9]+\.ext4|blobs/sha256/[0-9a-f]{64}|layers/[^/.]+/[0-9a-f]{64}(\.erofs)?")
        for name in self.files():
            assert known.fullmatch(name), f"{name} does not belong to a store"
            path = self.home / name
            if name.startswith("blobs/"):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            elif name.startswith("layers/"):
                subprocess.run(["fsck.erofs", path], check=True, capture_output=True)

    def blobs(self):
        return {"sha256:" + path.name for path in (self.home / "blobs/sha256").iterdir()}

    def layer_images(self):
        return [path for path in (self.home / "layers").rglob("*") if path.is_file()]


def sentence(errors, words=()):
    """The last line of standard error and the only one that is msb's complaint: progress may stand before it."""
    lines = errors.decode().splitlines()
    assert [line for line in lines if line.startswith("msb: ")] == lines[-1:], errors
    for word in words:
        assert word in lines[-1], f"{word!r} is not in {lines[-1]!r}"
    return lines[-1]


@pytest.fixture
def msb(tmp_path, bed):
    return Msb(tmp_path, bed)
