# SPDX-License-Identifier: Apache-2.0
"""Images of a store that sandboxes run from."""

import json
import subprocess

import pytest
from conftest import TIMEOUT, Vmm, image_with, read_output
from msb import MSB

NAME = "sandbox.test/used:v1"


@pytest.fixture
def vmm(tmp_path):
    """With a store of its own: pruning would take the layers that other tests have converted."""
    return Vmm(tmp_path / "home")


@pytest.fixture
def msb(vmm, layout):
    """Runs msb on the store that `vmm` uses, where base has a name then."""

    def run(*arguments):
        result = subprocess.run([MSB, *arguments], capture_output=True, timeout=TIMEOUT, env=vmm.environment, check=False)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode()

    run("load", "--quiet", "--name", NAME, "-i", image_with(layout).rpartition(":")[0])
    return run


def test_an_image_of_the_store_runs_by_its_name_and_by_its_digest(vmm, msb):
    [image] = json.loads(msb("image", "inspect", NAME))
    for name in (NAME, image["digest"]):
        result = vmm.run("echo", "from the store", image=name)
        assert (result.returncode, result.stdout) == (0, b"from the store\n"), result.stderr


@pytest.mark.parametrize("command", [["image", "prune", "--all"], ["image", "remove", NAME]], ids=["prune", "remove"])
def test_a_sandbox_goes_on_when_its_image_is_taken_from_the_store(vmm, msb, command):
    with vmm.start("run", "--image", NAME, "--", "sh", "-c", "echo ready; read line; cat /usr/share/msb-test/check | wc -c",
                   stdin=subprocess.PIPE) as process:
        read_output(process, len("ready\n"))
        msb(*command)
        # Not read before: it comes from the layer now.
        output, errors = process.communicate(b"go on\n", timeout=TIMEOUT)
        assert process.returncode == 0 and int(output) > 0, errors
