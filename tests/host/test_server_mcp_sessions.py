# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol over HTTP: sessions and their keys, streams, progress, what is cancelled, what is allowed."""

import json
import threading

import pytest
from conftest import wait_until
from json_schema import events_of
from mcp_clients import REVISIONS, Mcp, error_of, new_name
from server_bed import needs_root
from server_clients import Http, Raw

pytestmark = needs_root


def test_a_session_that_was_ended_is_not_found(mcp):
    assert mcp.delete().status in (200, 204)
    assert mcp.ask("ping").status == 404 and mcp.delete().status == 404
    assert mcp.http.get("/mcp", headers=mcp.headers()).status == 404
    mcp.session = None


def test_a_session_is_for_its_key_alone(server, mcp, shared_host):
    other = Mcp(server, shared_host.keygen()["key"])
    other.session = mcp.session
    assert other.ask("ping").status == other.delete().status == 404
    assert other.http.get("/mcp", headers=other.headers({"Accept": "text/event-stream"})).status == 404
    assert mcp.ask("ping").json["result"] == {}


def test_a_session_of_a_key_that_was_revoked_is_no_way_in(server, shared_host):
    made = shared_host.keygen()
    client = Mcp(server, made["key"])
    client.initialize()
    shared_host.done("server", "revoke", made["id"])
    assert client.ask("ping").status == 401


def test_methods_of_http_that_mcp_has_not_are_refused(mcp):
    for method in ("PUT", "PATCH"):
        answer = mcp.http(method, "/mcp", headers=mcp.headers())
        assert answer.status == 405 and "POST" in answer.headers["Allow"]
    assert mcp.http.get("/mcp", headers=mcp.headers({"Accept": "application/json"})).status in (405, 406)
    sessionless = Http(mcp.http.port, mcp.http.key)
    assert sessionless("DELETE", "/mcp").status in (400, 405)
    assert sessionless.get("/mcp", headers={"Accept": "text/event-stream"}).status in (400, 405)
    assert sessionless.get("/mcp/x").status == 404


def test_a_stream_of_a_session_ends_with_it(mcp):
    response, connection = mcp.http.open("GET", "/mcp", headers=mcp.headers({"Accept": "text/event-stream"}))
    assert response.status == 200 and response.headers["Content-Type"].startswith("text/event-stream")
    assert mcp.http.get("/mcp", headers=mcp.headers({"Accept": "text/event-stream"})).status == 409, "one is enough"
    mcp.delete()
    response.read()  # to its end
    connection.close()
    mcp.session = None


def test_a_stream_that_its_client_left_may_be_had_again(mcp):
    opened = []

    def listens():
        response, connection = mcp.http.open("GET", "/mcp", headers=mcp.headers({"Accept": "text/event-stream"}))
        opened.append((response, connection))
        return response.status == 200

    for _ in range(3):
        wait_until(listens, "it is had")
        for response, connection in opened:
            connection.close()
            response.close()


def test_the_call_of_a_client_that_left_is_cancelled(server, mcp, shared_host, tmp_path):
    box = new_name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    before = len(shared_host.processes())
    for accept in ("application/json", "application/json, text/event-stream"):
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
            "_meta": {"progressToken": 1}, "name": "sandbox_run_command",
            "arguments": {"sandbox": box, "command": "sh", "args": ["-c", f"touch {tmp_path}/begun; sleep 1000"]}}})
        raw = Raw(server.port,
                  f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: {server.key}\r\nMcp-Session-Id: {mcp.session}\r\n"
                  f"Accept: {accept}\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        wait_until((tmp_path / "begun").exists, "it runs")
        raw.socket.close()
        (tmp_path / "begun").unlink()
        wait_until(lambda: len(shared_host.processes()) == before, "it has ended")
    mcp.call("sandbox_remove", sandbox=box)


def test_a_request_with_the_id_of_one_that_is_under_way_is_refused(server, mcp, tmp_path):
    box = new_name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    answers = []
    script = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    thread = threading.Thread(target=lambda: answers.append(mcp.call("sandbox_run_command", sandbox=box, command="sh",
                                                                     args=["-c", script])))
    thread.start()
    wait_until((tmp_path / "begun").exists, "it runs")
    assert error_of(mcp.ask("ping")) == (-32600, 1)
    assert mcp.ask("ping", identity=2).json["result"] == {}
    (tmp_path / "go").touch()
    thread.join()
    assert "result" in answers[0].json
    mcp.call("sandbox_remove", sandbox=box)


def test_a_request_that_is_cancelled_gets_no_response(server, mcp, shared_host, tmp_path):
    box = new_name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    before = len(shared_host.processes())
    answers = []
    thread = threading.Thread(target=lambda: answers.append(mcp.call("sandbox_run_command", sandbox=box, command="sh",
                                                                     args=["-c", f"touch {tmp_path}/begun; sleep 1000"])))
    thread.start()
    wait_until((tmp_path / "begun").exists, "it runs")
    mcp.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": "enough"}})
    thread.join(10)
    assert b"result" not in answers[0].body
    wait_until(lambda: len(shared_host.processes()) == before, "it has ended")
    mcp.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("token", [1, "a", 0, "ü"])
def test_progress_has_the_token_that_was_given(mcp, token):
    box = new_name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    answer = mcp.ask("tools/call", {"_meta": {"progressToken": token}, "name": "sandbox_run_command",
                                    "arguments": {"sandbox": box, "command": "sh", "args": ["-c", "echo a; sleep 0.3; echo b"]}})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *told, last = events_of(answer.text)
    assert last["id"] == 1 and told and all(message["params"]["progressToken"] == token
                                            and message["method"] == "notifications/progress" for message in told)
    mcp.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("token", [{}, [], 1.5, True])
def test_a_token_that_is_none_is_refused(mcp, token):
    assert error_of(mcp.ask("ping", {"_meta": {"progressToken": token}}))[0] == -32602


def test_sessions_of_a_key_are_bounded(server, shared_host):
    made = shared_host.keygen()
    clients = []
    try:
        for _ in range(100):
            clients.append(Mcp(server, made["key"]))
            clients[-1].initialize()
            assert clients[-1].session
        answer = Mcp(server, made["key"]).ask("initialize", {"protocolVersion": REVISIONS[0], "capabilities": {},
                                                             "clientInfo": {"name": "x", "version": "1"}})
        assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0
        other = Mcp(server)
        other.initialize()
        assert other.session, "others have theirs"
        other.delete()
    finally:
        for client in clients:
            client.delete()


def test_a_read_only_key_looks(server, shared_host, mcp):
    box = new_name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    looks = Mcp(server, shared_host.keygen("--read-only")["key"])
    looks.initialize()
    assert not looks.call("sandbox_list").json["result"]["isError"] and not looks.call("sandbox_get_metrics",
                                                                                       sandbox=box).json["result"]["isError"]
    for tool, arguments in (("sandbox_stop", {}), ("sandbox_remove", {}), ("sandbox_pause", {}),
                            ("sandbox_run_command", {"command": "true"}),
                            ("sandbox_run_code", {"code": "1", "language": "shell"}),
                            ("sandbox_write_file", {"path": "/tmp/x", "content": ""}),
                            ("sandbox_remove_file", {"path": "/tmp/x"})):
        result = looks.call(tool, sandbox=box, **arguments).json["result"]
        assert result["isError"] is True and "read-only" in result["content"][0]["text"], tool
    mcp.call("sandbox_remove", sandbox=box)


def test_nothing_of_the_host_is_had_by_asking(mcp):
    for config, word in (({"image": "base", "volumes": ["/etc:/host"]}, "volumes"), ({"image": "/"}, "directory"),
                         ({"image": "base", "ports": ["22:22"]}, "ports"),
                         ({"image": "base", "scope": "any"}, "scope"), ({"image": "base", "memory": 1_000_000}, "memory")):
        result = mcp.call("sandbox_start", sandbox=new_name(), config=config).json["result"]
        assert result["isError"] is True and word in result["content"][0]["text"], config


def test_logs_and_pauses(mcp):
    box = new_name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base", "command": ["sh", "-c", "echo logged; sleep 1000"]})

    def lines():
        return [line["text"] for line in json.loads(mcp.call("sandbox_get_logs", sandbox=box,
                                                             tail=5).json["result"]["content"][0]["text"])["lines"]]

    wait_until(lambda: lines() == ["logged"], "it has been logged")
    assert not mcp.call("sandbox_pause", sandbox=box).json["result"]["isError"]
    assert mcp.call("sandbox_run_command", sandbox=box, command="true").json["result"]["isError"]
    assert not mcp.call("sandbox_resume", sandbox=box).json["result"]["isError"]
    assert not mcp.call("sandbox_run_command", sandbox=box, command="true").json["result"]["isError"]
    mcp.call("sandbox_remove", sandbox=box)
