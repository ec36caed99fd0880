# SPDX-License-Identifier: Apache-2.0
"""The JavaScript SDK where things go wrong at any moment: calls that are abandoned, servers that restart, very many calls.

What is the same for all SDKs is in sdk/conformance/cases/faults.json.
"""

import json
import subprocess

import pytest
from conftest import wait_until
from javascript_sdk import TESTS, javascript
from server_bed import needs_root

SCRIPT = TESTS / "javascript_faults.mjs"


@pytest.fixture(params=["node", "fetch"])
def transport(request):
    return request.param


@pytest.fixture
def scenario(javascript, transport, tmp_path):
    """Runs one; gives what it said."""
    def of(name, *words, server=None):
        place = {"MSB_SERVER_URL": server.url, "MSB_API_KEY": server.key} if server else {}
        return json.loads(javascript.run(SCRIPT, javascript.package, transport, name, *words, cwd=tmp_path, **place))
    return of


def test_thousands_of_calls_take_few_connections(scenario, transport):
    saw = scenario("many")
    assert saw["seen"] == 3001
    assert saw["connections"] <= (25 if transport == "node" else 100) and saw["open"] == 0


def test_an_upload_that_is_refused_before_its_end_ends_there(javascript, tmp_path):
    javascript.run(SCRIPT, javascript.package, "node", "refused_upload", cwd=tmp_path)


@pytest.mark.parametrize("transport", ["node"])
def test_objects_that_are_made_and_left_keep_nothing(scenario):
    assert scenario("left") == {"seen": 100, "connections": 100, "open": 0}


def test_a_program_ends_though_it_closed_nothing(scenario):
    assert scenario("forgotten")["seen"] == 1


@pytest.mark.parametrize("transport,kind", [*(("node", kind) for kind in ("quick", "slow", "broken", "silent", "full")),
                                            ("fetch", "quick"), ("fetch", "silent")])
def test_a_call_can_be_abandoned_at_any_point(scenario, kind):
    assert scenario("aborted", kind)["open"] == 0


@pytest.mark.parametrize("name", ["aborted_stream", "closed_stream"])
def test_a_stream_can_be_left_at_any_point(scenario, name):
    assert scenario(name)["open"] == 0


@pytest.mark.parametrize("name,seen", [("aborted_before", 1), ("silent", 3), ("slow_reader", 2), ("too_large", 1)])
def test_what_is_not_as_usual(scenario, name, seen):
    assert scenario(name)["seen"] == seen


@pytest.mark.parametrize("transport,name", [("node", "endless_line"), ("node", "names"), ("node", "late"), ("fetch", "late"),
                                            ("fetch", "refused_port")])
def test_what_never_reaches_a_server_or_late(scenario, name):
    scenario(name)


# The real server.

@needs_root
def test_uploads_of_any_kind_and_those_that_fail(server, scenario, tmp_path):
    tmp_path.chmod(0o755)
    scenario("uploads", tmp_path, server=server)


@needs_root
@pytest.mark.parametrize("transport", ["node"])
@pytest.mark.parametrize("call", ["run", "command", "stream", "files", "start"])
def test_a_sandbox_that_dies_under_a_call_is_an_error(server_host, scenario, call):
    scenario("dies", call, server=server_host.serve())


@needs_root
@pytest.mark.parametrize("transport", ["node"])
def test_a_create_that_is_abandoned_leaves_nothing(server_host, scenario):
    scenario("aborted_create", server=server_host.serve())
    wait_until(lambda: server_host.running() == [], "nothing runs")
    assert [name for name in server_host.kept() if not name.startswith("default/old")] == []


class Running:
    """A scenario that the test takes part in."""

    def __init__(self, javascript, transport, server, name, *words):
        environment = javascript.environment | {"MSB_SERVER_URL": server.url, "MSB_API_KEY": server.key}
        self.process = subprocess.Popen([javascript.node, SCRIPT, javascript.package, transport, name, *words], env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def expect(self, word):
        line = self.process.stdout.readline()
        if line != f"{word}\n":
            self.process.kill()
            raise AssertionError((line, self.process.communicate()))

    def end(self):
        out, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return json.loads(out)


@needs_root
@pytest.mark.parametrize("transport,how", [("node", "kill"), ("node", "stop"), ("fetch", "kill")])
def test_the_output_of_a_process_goes_on_when_the_server_is_restarted(server_host, javascript, transport, how):
    first = server_host.serve()
    gate = server_host.directory / "gate"
    with Running(javascript, transport, first, "restarted", gate) as running:
        running.expect("ready")
        getattr(first, how)()
        server_host.serve(key=False, port=first.port)
        gate.touch()
        assert running.end() == {"text": "before\nafter\n", "success": True, "offsets": {"stdout": 13, "stderr": 0}}


@needs_root
def test_a_command_breaks_off_when_the_server_is_killed_and_that_is_told(server_host, javascript, transport):
    first = server_host.serve()
    with Running(javascript, transport, first, "killed") as running:
        running.expect("ready")
        first.kill()
        running.expect("unreachable")
        server_host.serve(key=False, port=first.port)
        running.process.stdin.write("go on\n")
        assert running.end() == {"stdout": "again\n"}
