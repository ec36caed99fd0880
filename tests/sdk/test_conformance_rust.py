# SPDX-License-Identifier: Apache-2.0
"""The suite of sdk/conformance with the Rust SDK, on a real server."""

import json
import os
import subprocess

import pytest
import rust_sdk
from conformance import FOLDER, load
from conformance_target import GUESTS, environment_of, target
from server_bed import needs_root

CASES = [(file, case["name"]) for file, case, _ in load()]
SECONDS = 3600 if GUESTS else 600

pytestmark = [pytest.mark.skipif(bool(rust_sdk.missing()), reason=rust_sdk.missing())]


@pytest.fixture(scope="module")
def outcomes(target, tmp_path_factory):
    """What the runner told of each case."""
    program = rust_sdk.build_example("conformance")
    environment = os.environ | environment_of(target, tmp_path_factory.mktemp("sandboxes"))
    done = subprocess.run([program, FOLDER], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    found = {(one["file"], one["case"]): one for one in told}
    assert set(found) == set(CASES), done.stderr
    assert done.returncode == (1 if any(one["outcome"] == "failed" for one in told) else 0), done.stderr
    return found


@needs_root
@pytest.mark.parametrize("case", CASES, ids=": ".join)
def test_behaves(case, outcomes):
    told = outcomes[case]
    if told["outcome"] == "skipped":
        pytest.skip(told["why"])
    assert told["outcome"] == "passed", told["why"]
