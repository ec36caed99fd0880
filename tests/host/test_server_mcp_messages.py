# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol over HTTP: messages as such, also those that no official client sends."""

import json

import pytest
from json_schema import events_of
from mcp_clients import NO_MESSAGES, REVISIONS, TOOLS_0_2, Mcp, error_of, new_name
from server_bed import needs_root

pytestmark = needs_root


@pytest.mark.parametrize("revision", [*REVISIONS, "1999-01-01", "2099-01-01", ""])
def test_a_revision_is_agreed_on(server, revision):
    client = Mcp(server)
    agreed = client.initialize(revision)["protocolVersion"]
    assert agreed == (revision if revision in REVISIONS else REVISIONS[0])
    assert client.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, {"MCP-Protocol-Version": agreed}).status == 202
    assert client.ask("ping", headers={"MCP-Protocol-Version": agreed}).json["result"] == {}
    assert client.delete().status in (200, 204)


def test_the_id_of_a_session_cannot_be_guessed(server):
    sessions = set()
    for _ in range(10):
        client = Mcp(server)
        client.initialize()
        sessions.add(client.session)
        client.delete()
    assert len(sessions) == 10 and all(len(session) == 43 and session.replace("-", "").replace("_", "").isalnum()
                                       for session in sessions)


def test_clients_of_the_0_2_line_need_no_session(server):
    client = Mcp(server, accept=None)
    client.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})
    assert client.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).status in (200, 202)
    assert TOOLS_0_2 <= {tool["name"] for tool in client.ask("tools/list").json["result"]["tools"]}
    box = new_name()
    result = client.call("sandbox_start", sandbox=box, namespace="default",
                         config={"image": "base", "memory": 512, "cpus": 1, "volumes": [], "ports": [],
                                 "envs": []}).json["result"]
    assert result["content"] == [{"type": "text", "text": f"Sandbox {box} started successfully"}] and not result.get("isError")
    result = client.call("sandbox_run_command", sandbox=box, namespace="default", command="echo", args=["hi"]).json["result"]
    assert json.loads(result["content"][0]["text"])["output"] == [{"stream": "stdout", "text": "hi"}]
    assert client.ask("tools/call", {"name": "sandbox_get_metrics"}).json["result"]["content"], "without arguments"
    client.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("accept, kind", [("application/json", "application/json"), ("*/*", "application/json"),
                                          (None, "application/json"),
                                          ("text/event-stream", "text/event-stream"),
                                          ("application/json;q=0.5, text/event-stream", "application/json"),
                                          ("APPLICATION/JSON", "application/json"),
                                          ("text/event-stream, application/*", "application/json")])
def test_answers_come_as_the_client_accepts_them(server, accept, kind):
    client = Mcp(server, accept=accept)
    for method, params in (("initialize", {"protocolVersion": REVISIONS[0], "capabilities": {},
                                           "clientInfo": {"name": "x", "version": "1"}}), ("tools/list", {})):
        answer = client.ask(method, params)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind), answer
        message = answer.json if kind.endswith("json") else events_of(answer.text)[-1]
        assert message["id"] == 1 and "result" in message


@pytest.mark.parametrize("headers, status", [({"Accept": "text/html"}, 406), ({"Accept": "application/json;q=0"}, 406),
                                             ({"Content-Type": "text/plain"}, 415),
                                             ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
                                             ({"MCP-Protocol-Version": "1999-01-01"}, 400),
                                             ({"MCP-Protocol-Version": "x"}, 400), ({"Mcp-Session-Id": "x" * 43}, 404),
                                             ({"Mcp-Session-Id": "../x"}, 404)])
def test_fields_that_cannot_be_are_refused(mcp, headers, status):
    answer = mcp.http.post("/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode(),
                           headers={"Content-Type": "application/json"} | mcp.headers(headers))
    assert answer.status == status and "error" in answer.json, answer
    assert mcp.ask("ping").json["result"] == {}, "the session goes on"


@pytest.mark.parametrize("body, code", NO_MESSAGES, ids=range(len(NO_MESSAGES)))
def test_what_is_no_message_is_refused(mcp, body, code):
    answer = mcp.http.post("/mcp", body, headers={"Content-Type": "application/json"} | mcp.headers())
    assert answer.status in (200, 400) and error_of(answer)[0] == code, answer


@pytest.mark.parametrize("method", ["nothing", "tool/list", "resources/list", "completion/complete", "logging/setLevel",
                                    "sandbox.start", "", "x" * 1000, "tools/call/x"])
def test_unknown_methods_are_errors(mcp, method):
    assert error_of(mcp.ask(method, identity="abc")) == (-32601, "abc")


@pytest.mark.parametrize("identity", [0, -1, 2**53 - 1, "", "a", "ü"])
def test_an_answer_has_the_id_of_its_request(mcp, identity):
    assert mcp.ask("ping", identity=identity).json["id"] == identity


def test_notifications_are_accepted_and_unknown_ones_ignored(mcp):
    for method, params in (("notifications/initialized", None), ("notifications/nothing", {}),
                           ("notifications/cancelled", {"requestId": 5}), ("notifications/cancelled", {}),
                           ("notifications/cancelled", {"requestId": {}}),
                           ("notifications/progress", {"progressToken": 1, "progress": 1}),
                           ("notifications/roots/list_changed", None)):
        answer = mcp.post({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))
        assert answer.status == 202 and answer.body == b""
    for response in ({"result": {}}, {"error": {"code": 1, "message": "x"}}):
        assert mcp.post({"jsonrpc": "2.0", "id": 1} | response).status == 202


WRONG_CALLS = [({}, "name"), ({"name": 1}, "name"), ({"name": None}, "name"), ({"name": "nothing"}, "nothing"),
               ({"name": ""}, "tool"), ({"name": "sandbox_start; rm"}, "rm")]


@pytest.mark.parametrize("params, word", WRONG_CALLS, ids=range(len(WRONG_CALLS)))
def test_tools_that_there_are_not_are_errors(mcp, params, word):
    answer = mcp.ask("tools/call", params)
    assert error_of(answer)[0] == -32602 and word in answer.json["error"]["message"]


def wrong_values(schema):
    """Values that are none of a schema."""
    types = schema.get("type", "string")
    types = [types] if isinstance(types, str) else types
    samples = {"string": "text", "integer": 5, "number": 1.5, "boolean": True, "array": [{}], "object": {"x": {}}}
    fits = {"number": {"number", "integer"}, "integer": {"integer"}}
    for kind, sample in samples.items():
        if not any(kind in fits.get(each, {each}) for each in types):
            yield sample
    if "enum" in schema:
        yield "pyhton"


def test_arguments_of_wrong_types_are_answered_with_what_is_right(mcp):
    """Each argument of each tool, with a value of each other type: no call may pass, nor fail in any other way."""
    tools = mcp.ask("tools/list").json["result"]["tools"]
    for tool in tools:
        example = json.loads(tool["description"].partition("Example:")[2].strip().partition(" ")[2])
        for argument, schema in tool["inputSchema"]["properties"].items():
            for value in wrong_values(schema):
                result = mcp.call(tool["name"], **(example | {argument: value})).json["result"]
                text = result["content"][0]["text"]
                assert result["isError"] is True and argument in text and "Example:" in text, (tool["name"], argument, value,
                                                                                               text)
        for words in ([], "x", 1, True):
            answer = mcp.ask("tools/call", {"name": tool["name"], "arguments": words}).json
            assert answer.get("error", {}).get("code") == -32602 or answer["result"]["isError"] is True


def test_arguments_that_are_null_are_left_out(mcp):
    result = mcp.call("sandbox_get_metrics", sandbox=None, namespace=None).json["result"]
    assert not result["isError"]


def test_paths_of_files_that_cannot_be_are_errors(mcp):
    box = new_name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    for path in ("relative", "../x", "/a\0b", "/" + "x" * 300, ""):
        for tool, more in (("sandbox_read_file", {}), ("sandbox_write_file", {"content": "x"}), ("sandbox_list_files", {}),
                           ("sandbox_remove_file", {})):
            assert mcp.call(tool, sandbox=box, path=path, **more).json["result"]["isError"] is True, (tool, path)
    for wrong in ({}, {"content": "a", "content_base64": "YQ=="}, {"content_base64": "!!"}, {"content": "x", "mode": "999"}):
        assert mcp.call("sandbox_write_file", sandbox=box, path="/tmp/x", **wrong).json["result"]["isError"] is True, wrong
    mcp.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("params", [{}, {"name": "nothing"}, {"name": 1}, {"name": "create_python_sandbox"},
                                    {"name": "create_python_sandbox", "arguments": []},
                                    {"name": "create_python_sandbox", "arguments": {"sandbox_name": 1}},
                                    {"name": "create_python_sandbox", "arguments": {"sandbox_name": "x", "more": "y"}},
                                    {"name": "create_python_sandbox", "arguments": {"sandbox_name": ""}}])
def test_prompts_that_cannot_be_are_errors(mcp, params):
    assert error_of(mcp.ask("prompts/get", params))[0] == -32602


def test_a_cursor_that_was_not_given_is_an_error(mcp):
    for method in ("tools/list", "prompts/list"):
        assert error_of(mcp.ask(method, {"cursor": "x"}))[0] == -32602
        assert "result" in mcp.ask(method, {"cursor": None}).json


@pytest.mark.parametrize("params", [{"protocolVersion": 5}, {"protocolVersion": None}, {"protocolVersion": []}, {}, None])
def test_an_initialize_that_is_odd_does_no_harm(server, params):
    answer = Mcp(server).ask("initialize", params)
    assert answer.status in (200, 400) and ("result" in answer.json or error_of(answer)[0] == -32602)
