# SPDX-License-Identifier: Apache-2.0
"""A server and several `msb mcp` of one home: each sees what the others make, start, stop and remove."""

import json
import shutil
import signal

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Http

pytestmark = needs_root


@pytest.fixture
def http(server_host):
    server = server_host.serve()
    return Http(server.port, server.key)


def start(agent, name, **options):
    return agent.done("sandbox_start", sandbox=name, config={"image": "base"}, **options)


def run(agent, name):
    return agent.call("sandbox_run_command", sandbox=name, command="true")


def test_what_an_agent_makes_the_server_has_too(http, agents):
    agent = agents()
    start(agent, "work")
    assert http.get("/v1/sandboxes/work").json["state"] == "running"
    assert http.post("/v1/sandboxes/work/exec", {"command": ["true"]}).json["exit_code"] == 0
    assert [entry["name"] for entry in http.get("/v1/sandboxes").json["sandboxes"]] == ["work"]
    refused = http.post("/v1/sandboxes", {"name": "work", "config": {"image": "base"}})
    assert refused.status == 409 and "there is a sandbox 'work' already" in refused.json["error"]["message"]


def test_a_sandbox_goes_from_hand_to_hand(http, agents):
    one, other = agents(), agents()
    start(one, "work")
    assert other.states() == {"work": "running"}
    assert not run(other, "work")[1]
    assert http.post("/v1/sandboxes/work/stop").json["state"] == "stopped"
    wait_until(lambda: one.states() == {"work": "stopped"}, "its end is seen by who started it")
    assert "is stopped" in run(other, "work")[0]
    assert http.post("/v1/sandboxes/work/start").json["state"] == "running"
    assert not run(one, "work")[1] and not run(other, "work")[1]
    start(other, "work")  # done already
    assert http("DELETE", "/v1/sandboxes/work").status == 204
    wait_until(lambda: one.states() == other.states() == {}, "it is gone for all")
    assert "there is no sandbox 'work'" in run(one, "work")[0]
    start(one, "work")
    assert not run(other, "work")[1]
    assert http("DELETE", "/v1/sandboxes/work").status == 204


def test_an_agent_goes_and_its_own_with_it(http, agents, server_host):
    one, other = agents(), agents()
    start(one, "work", ephemeral=True)
    assert other.states() == {"work": "running"} and http.get("/v1/sandboxes/work").json["state"] == "running"
    one.process.send_signal(signal.SIGKILL)
    one.process.wait()
    wait_until(lambda: other.states() == {}, "it ended with its agent")
    assert http.get("/v1/sandboxes/work").status == 404
    wait_until(lambda: server_host.kept() == [], "nothing of it is kept")


def test_an_ephemeral_one_that_does_not_run_is_its_agents_while_that_lives(agents, server_host):
    """As while it is being started: what begins meanwhile leaves it alone, and removes it when its agent is gone."""
    agent = agents()
    start(agent, "work")
    state = server_host.home / "server/sandboxes/default"
    shutil.copytree(state / "work", state / "begun", ignore=shutil.ignore_patterns("disk.ext4"))
    record = json.loads((state / "begun/served.json").read_text())
    (state / "begun/served.json").write_text(json.dumps(record | {"ephemeral": True}))
    assert agents().states() == {"begun": "stopped", "work": "running"}
    assert (state / "begun/served.json").exists()
    agent.kill()
    last = agents()
    wait_until(lambda: not (state / "begun").exists(), "it is removed")
    assert last.states() == {"work": "running"}
    last.done("sandbox_stop", sandbox="work")


def test_what_was_being_made_when_its_maker_was_killed_is_removed(agents, server_host):
    state = server_host.home / "server/sandboxes/default/made"
    state.mkdir(parents=True, mode=0o700)
    (state / "lock").touch(mode=0o600)
    assert agents().states() == {}
    assert not state.exists()
