# SPDX-License-Identifier: Apache-2.0
"""The suite of sdk/conformance with the JavaScript SDK on a real server: by Node's HTTP client, and by fetch as in browsers."""

import json
import subprocess

import pytest
from conformance import load
from conformance_target import GUESTS, environment_of, target
from javascript_sdk import TESTS, javascript
from server_bed import needs_root

TIMEOUT = 3600 if GUESTS else 300  # seconds, of the whole suite


@pytest.fixture(scope="module", params=["node", "fetch"])
def outcomes(request, target, javascript, tmp_path_factory):
    """What became of each case, by its file and name."""
    directory = tmp_path_factory.mktemp("cases")
    directory.chmod(0o755)
    environment = javascript.environment | environment_of(target, directory)
    ran = subprocess.run([javascript.node, TESTS / "conformance_javascript.mjs", javascript.package, request.param], env=environment,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert not ran.stderr and ran.returncode == any(one["outcome"] == "failed" for one in told), ran.stderr
    return {(one["file"], one["case"]): one for one in told}


@needs_root
@pytest.mark.parametrize("entry", list(load()), ids=lambda entry: f"{entry[0]}: {entry[1]['name']}")
def test_behaves(entry, outcomes):
    file, case, _ = entry
    told = outcomes[file, case["name"]]
    if told["outcome"] == "skipped":
        pytest.skip(told["why"])
    assert told["outcome"] == "passed", told["why"]


@needs_root
def test_all_of_it_is_there_for_commonjs(server, javascript, tmp_path):
    program = """
        const { Sandbox, NodeSandbox, NotFoundError, asyncDispose } = require(process.argv[1]);
        (async () => {
          const sandbox = await Sandbox.create("base");
          console.log((await sandbox.command.run("echo", ["hello"])).stdout.trim());
          for await (const output of sandbox.command.stream("echo", ["in a stream"])) console.log(output.text.trim());
          await sandbox[asyncDispose]();
          await Sandbox.connect(sandbox.name).catch(error => console.log(error instanceof NotFoundError, error.name));
          const old = await NodeSandbox.create({ name: "old" });
          console.log(await (await old.run("console.log(6 * 7)")).output());
          await old.stop();
        })();
    """
    said = javascript.run("-e", program, javascript.package, cwd=tmp_path, MSB_SERVER_URL=server.url, MSB_API_KEY=server.key)
    assert said.splitlines() == ["hello", "in a stream", "true NotFoundError", "42"]
