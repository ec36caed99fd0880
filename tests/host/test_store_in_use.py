# SPDX-License-Identifier: Apache-2.0
"""Layers that a sandbox runs from stay until it ends, whatever is removed meanwhile.

msb-vmm here is the real one; the machine that it starts is a program that only keeps what it is given, since this host may have
no KVM. tests/e2e/test_images_in_use.py does it with a guest.
"""

import os
import shutil

import pytest
from conftest import MSB_VMM, wait_until

KEEPER = "#!/bin/sh\nexec sleep 1000\n"


@pytest.fixture
def launcher(tmp_path):
    directory = tmp_path / "bin"
    directory.mkdir()
    shutil.copy(MSB_VMM, directory)
    (directory / "msb-machine").write_text(KEEPER)
    (directory / "msb-machine").chmod(0o755)
    return directory / "msb-vmm"


def open_layers(pid, msb):
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:
            continue
        if target.startswith(str(msb.home / "layers")):
            found.append(target)
    return found


@pytest.mark.parametrize("command", [["image", "prune", "--all"], ["image", "remove"]], ids=["prune", "remove"])
def test_layers_of_a_sandbox_stay(bed, msb, small, launcher, command):
    reference = f"{bed.registry.address}/{small.name}"
    msb.pull(reference)
    layers = sorted(msb.layer_images())
    removal = [*command, reference] if command[-1] == "remove" else command
    with msb.start("run", "--image", reference, "--", "true", program=launcher) as process:
        wait_until(lambda: len(open_layers(process.pid, msb)) >= len(layers), "the launcher has opened the layers")
        msb(*removal)
        assert sorted(msb.layer_images()) == layers
        msb.check_store()
        process.kill()
    msb.done("image", "prune", "--all")
    assert msb.layer_images() == [] and msb.blobs() == set()
