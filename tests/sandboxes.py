# SPDX-License-Identifier: Apache-2.0
"""`msb` with guests: a home, a runtime directory and commands of its own for each test; nothing of them is left."""

import os
import pathlib
import shutil
import signal

import pytest
from conftest import IMAGES, REPOSITORY, machines, wait_until
from msb_user import User


class Sandboxes(User):
    timeout = 150  # in the emulated host

    def __init__(self, directory):
        super().__init__(directory)
        self.home.mkdir()
        # Images that scripts/common.sh has loaded: their names and documents here, their converted layers where they are.
        store = pathlib.Path(os.environ.get("MSB_HOME", REPOSITORY / "build/home"))
        (self.home / "layers").symlink_to(store / "layers")
        shutil.copy(store / "images.db", self.home)
        (self.home / "blobs/sha256").mkdir(parents=True)
        for blob in (store / "blobs/sha256").iterdir():
            if blob.stat().st_size < 100_000:
                shutil.copy(blob, self.home / "blobs/sha256")


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
