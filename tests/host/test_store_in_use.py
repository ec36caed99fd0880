# SPDX-License-Identifier: Apache-2.0
"""Layers that a sandbox runs from stay until it ends, whatever is removed meanwhile.

A sandbox holds a shared lock of each of its layers (oci/store/layer_cache.hpp); here another program does, since a host may have no
KVM. tests/e2e/test_images_in_use.py has guests.
"""

import subprocess
import sys

import pytest
from conftest import read_output

HOLD = """
import fcntl, sys
held = [open(path, "rb") for path in sys.argv[1:]]
for file in held:
    fcntl.flock(file, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("command", [["image", "prune", "--all"], ["image", "remove"]], ids=["prune", "remove"])
@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_layers_that_a_sandbox_uses_stay_until_it_ends(bed, msb, small, command, killed):
    reference = f"{bed.registry.address}/{small.name}"
    msb.pull(reference)
    layers = sorted(msb.layer_images())
    removal = [*command, reference] if command[-1] == "remove" else command
    with subprocess.Popen([sys.executable, "-c", HOLD, *layers], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as sandbox:
        read_output(sandbox, len("held\n"))
        msb.done(*removal)
        assert sorted(msb.layer_images()) == layers
        msb.check_store()
        if killed:
            sandbox.kill()
        sandbox.communicate()
    msb.done("image", "prune", "--all")
    assert msb.layer_images() == [] and msb.blobs() == set()


def test_prune_all_leaves_the_name_of_an_image_that_a_sandbox_uses(bed, msb, small):
    reference = f"{bed.registry.address}/{small.name}"
    msb.pull(reference)
    with subprocess.Popen([sys.executable, "-c", HOLD, *msb.layer_images()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as sandbox:
        read_output(sandbox, len("held\n"))
        msb.done("image", "prune", "--all")
        assert msb.references() == [reference]
        assert msb.pull(reference)["upToDate"] is True
        sandbox.communicate()
