# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol of the revision 2026-07-28, where each request stands by itself, beside those before it."""

import json
import re
import subprocess

import pytest
from conftest import wait_until
from json_schema import events_of
from mcp_clients import REVISIONS, TOOLS_0_2, Mcp, new_name
from server_bed import needs_root
from server_clients import Http

pytestmark = needs_root

MODERN = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
META = {f"{PREFIX}protocolVersion": MODERN, f"{PREFIX}clientInfo": {"name": "x", "version": "1"},
        f"{PREFIX}clientCapabilities": {}}


class Modern:
    """A client without a session that says what a test wants it to."""

    def __init__(self, server):
        self.http = Http(server.port, server.key)

    def ask(self, method, params=None, meta=None, headers=None):
        params = {"_meta": META | (meta or {})} | (params or {})
        fields = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN, "Mcp-Method": method,
                  "Mcp-Name": params.get("name")}
        return self.http.post("/mcp", {"jsonrpc": "2.0", "id": 7, "method": method, "params": params},
                              headers=fields | (headers or {}))

    def call(self, tool, **arguments):
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def text(self, tool, **arguments):
        """The first text of a call that is to succeed."""
        result = self.call(tool, **arguments).json["result"]
        assert not result["isError"], result
        return result["content"][0]["text"]


@pytest.fixture
def modern(server):
    return Modern(server)


def modern_request(method, identity, **params):
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": {"_meta": META} | params}


# The official client.

@pytest.mark.parametrize("mode", ["pin", "auto"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_official_client_speaks_the_newest_revision(connect, transport, mode):
    client, box = connect(transport, mode), new_name()
    told = client.connected
    assert (told["era"], told["revision"], told.get("session")) == ("modern", MODERN, None)
    assert told["server"]["name"] == "microsandbox-server" and "sandbox_start" in told["instructions"]
    assert told["capabilities"] == {"tools": {"listChanged": False}, "prompts": {"listChanged": False}}
    assert TOOLS_0_2 <= {tool["name"] for tool in client("tools")["tools"]}
    name = client("prompts")["prompts"][0]["name"]
    assert "abc" in client("prompt", name=name, arguments={"sandbox_name": "abc"})["messages"][0]["content"]["text"]
    assert client.text("sandbox_start", sandbox=box, config={"image": "python"}) == f"Sandbox {box} started successfully"
    client.text("sandbox_run_code", sandbox=box, language="python", code="x = 40")
    ran = json.loads(client.text("sandbox_run_code", sandbox=box, language="python", code="x + 2"))
    assert ran["output"] == [{"stream": "stdout", "text": "42"}]
    assert client.call("sandbox_run_code", sandbox=box)["isError"] is True
    answer = client.end(client.begin("call", name="sandbox_strat", arguments={}))
    assert answer["code"] == -32602 and "sandbox_start" in answer["error"]
    client.text("sandbox_remove", sandbox=box)
    client.close()


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_progress_is_told_and_a_call_that_is_cancelled_ends(connect, shared_host, tmp_path, transport):
    client, box = connect(transport, "pin"), new_name()
    client.text("sandbox_start", sandbox=box, config={"image": "base"})
    before = len(shared_host.processes())
    number = client.begin("call", name="sandbox_run_command", progress=True, arguments={
        "sandbox": box, "command": "sh", "args": ["-c", "for i in 1 2 3; do echo step $i; sleep 0.3; done"]})
    assert not client.end(number)["result"]["isError"]
    assert any("step" in told.get("message", "") for told in client.progress(number))
    number = client.begin("call", name="sandbox_run_command", arguments={
        "sandbox": box, "command": "sh", "args": ["-c", f"touch {tmp_path}/begun; sleep 1000"]})
    wait_until((tmp_path / "begun").exists, "it runs")
    client("cancel", call=number)
    assert "error" in client.end(number)
    wait_until(lambda: len(shared_host.processes()) == before, "what it ran has ended")
    client.text("sandbox_remove", sandbox=box)
    client.close()


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_official_client_may_begin_with_initialize(connect, transport):
    client = connect(transport, "legacy")
    assert (client.connected["era"], client.connected["revision"]) == ("legacy", REVISIONS[0])
    assert TOOLS_0_2 <= {tool["name"] for tool in client("tools")["tools"]}
    client.close(terminate=True)


# The inspector, and the suite that says whether a server is one.

@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_inspector_finds_nothing_amiss(inspect, transport):
    era = ["--protocol-era", "modern"]
    assert inspect(transport, *era, "--method", "initialize")["protocolVersion"] == MODERN
    assert TOOLS_0_2 <= {tool["name"] for tool in inspect(transport, *era, "--method", "tools/list", "--strict")["tools"]}
    listed = inspect(transport, *era, "--method", "tools/call", "--tool-name", "sandbox_list")
    assert "sandboxes" in json.loads(listed["content"][0]["text"])


# What each scenario finds amiss: that there are neither tools made for it nor resources.
SCENARIOS = {"http-header-validation": [], "tools-list": [], "prompts-list": [], "dns-rebinding-protection": [],
             "caching": ["sep-2549-resources-list-caching-hints", "sep-2549-resources-templates-list-caching-hints"],
             "server-stateless": ["sep-2575-http-server-no-independent-requests-on-stream",
                                  "sep-2575-missing-capability-http-400", "sep-2575-server-no-log-without-loglevel",
                                  "sep-2575-server-rejects-undeclared-capability"]}


def test_the_conformance_suite_finds_nothing_amiss(server_host, node, tmp_path):
    server = server_host.serve("--dev", key=False)
    suite = node.modules / "@modelcontextprotocol/conformance/dist/index.js"
    for scenario, amiss in SCENARIOS.items():
        result = subprocess.run([node.program, suite, "server", "--url", f"{server.url}/mcp", "--scenario", scenario,
                                 "--spec-version", MODERN], env=server_host.environment, cwd=tmp_path, capture_output=True,
                                text=True, check=False, timeout=60)
        said = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
        found = re.findall(r"\[(\S+) *\] (SUCCESS|FAILURE|WARNING) ", said)
        assert any(verdict == "SUCCESS" for _, verdict in found), (said, result.stderr)
        assert sorted(check for check, verdict in found if verdict != "SUCCESS") == amiss, said


# Messages as such.

def test_discover_says_what_there_is(modern):
    answer = modern.ask("server/discover")
    assert answer.status == 200 and answer.headers["Mcp-Session-Id"] is None
    result = answer.json["result"]
    assert result["supportedVersions"] == [MODERN, *REVISIONS] and result["resultType"] == "complete"
    assert result["_meta"][f"{PREFIX}serverInfo"]["version"][0].isdigit()
    assert result["ttlMs"] >= 0 and result["cacheScope"] == "public"


def test_progress_comes_as_a_stream(modern):
    box = new_name()
    modern.text("sandbox_start", sandbox=box, config={"image": "base"})
    answer = modern.ask("tools/call", {"name": "sandbox_run_command", "arguments": {"sandbox": box, "command": "echo",
                                                                                    "args": ["hi"]}},
                        meta={"progressToken": "ü"})
    *told, last = events_of(answer.text)
    assert [message["params"]["progressToken"] for message in told] == ["ü"] * len(told) and told
    assert last["id"] == 7 and last["result"]["resultType"] == "complete"
    modern.text("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("version, status, code", [("2027-05-05", 400, -32022), (REVISIONS[0], 400, -32022),
                                                   ("1999-01-01", 400, -32022), (5, 400, -32602)])
def test_another_revision_is_refused_with_those_that_there_are(modern, version, status, code):
    answer = modern.ask("tools/list", meta={f"{PREFIX}protocolVersion": version},
                        headers={"MCP-Protocol-Version": str(version)})
    error = answer.json["error"]
    assert (answer.status, error["code"], answer.json["id"]) == (status, code, 7)
    if code == -32022:
        assert error["data"]["requested"] == version and error["data"]["supported"] == [MODERN, *REVISIONS]


def test_a_client_of_each_era_has_the_same_sandboxes(server, modern, mcp):
    box = new_name()
    modern.text("sandbox_start", sandbox=box, config={"image": "base"})
    assert not mcp.call("sandbox_run_command", sandbox=box, command="true").json["result"]["isError"]
    mcp.call("sandbox_remove", sandbox=box)
    assert box not in modern.text("sandbox_list")


def test_lines_of_both_eras_are_one_conversation(lines):
    lines.say(modern_request("server/discover", "d"))
    assert lines.next()["result"]["supportedVersions"][0] == MODERN
    agreed = lines.ask("initialize", {"protocolVersion": MODERN, "capabilities": {},
                                      "clientInfo": {"name": "x", "version": "1"}})
    assert agreed["result"]["protocolVersion"] == REVISIONS[0]
    assert lines.ask("ping") == {"jsonrpc": "2.0", "id": 1, "result": {}}
    lines.say(modern_request("ping", 2))
    assert lines.next()["error"]["code"] == -32601
    lines.say(modern_request("subscriptions/listen", 3, notifications={}))
    assert lines.next()["method"] == "notifications/subscriptions/acknowledged"
    assert lines.next()["result"]["_meta"][f"{PREFIX}subscriptionId"] == 3
    lines.say({"jsonrpc": "2.0", "id": 4, "method": "tools/list",
               "params": {"_meta": META | {f"{PREFIX}protocolVersion": "2027-05-05"}}})
    refused = lines.next()
    assert (refused["id"], refused["error"]["code"]) == (4, -32022)


# Ephemeral sandboxes.

@pytest.fixture(params=[Modern, Mcp], ids=["modern", "0.2"])
def sessionless(server, request):
    """Clients that have no session: of the newest revision, and of the 0.2 line."""
    return request.param(server)


def start_ephemeral(client, box, **config):
    result = client.call("sandbox_start", sandbox=box, config={"image": "base"} | config, ephemeral=True).json["result"]
    return result["content"][0]["text"], result["isError"]


def test_without_a_session_an_ephemeral_sandbox_ends_when_nothing_happens_in_it(sessionless, shared_host):
    box = new_name()
    assert start_ephemeral(sessionless, box, idle_timeout="1s") == (f"Sandbox {box} started successfully", False)
    sessionless.call("sandbox_run_command", sandbox=box, command="true")
    wait_until(lambda: box not in shared_host.running(), "it has ended", seconds=30)
    wait_until(lambda: f"default/{box}" not in shared_host.kept(), "what it kept is gone")


def test_without_a_session_an_ephemeral_sandbox_has_half_an_hour_unless_said(sessionless, shared_host):
    box = new_name()
    start_ephemeral(sessionless, box)
    record = json.loads((shared_host.home / f"server/sandboxes/default/{box}/served.json").read_text())
    assert record["ephemeral"] is True and record["spec"]["idle_timeout_s"] == 1800
    assert start_ephemeral(sessionless, box) == (f"Sandbox {box} started successfully", False), "it is there already"
    assert not sessionless.call("sandbox_remove", sandbox=box).json["result"]["isError"]


def test_without_a_session_a_lasting_sandbox_is_not_taken_for_an_ephemeral_one(sessionless):
    box = new_name()
    sessionless.call("sandbox_start", sandbox=box, config={"image": "base"})
    text, failed = start_ephemeral(sessionless, box)
    assert failed and "ephemeral" in text
    sessionless.call("sandbox_remove", sandbox=box)


def test_over_lines_an_ephemeral_sandbox_ends_with_the_program(connect, shared_host):
    client, box = connect("stdio", "pin"), new_name()
    client.text("sandbox_start", sandbox=box, config={"image": "base"}, ephemeral=True)
    assert box in shared_host.running()
    client.close()
    wait_until(lambda: box not in shared_host.running(), "it has ended")
    wait_until(lambda: f"default/{box}" not in shared_host.kept(), "what it kept is gone")
