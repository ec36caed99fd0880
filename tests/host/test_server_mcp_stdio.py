# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol over standard input and output: `msb mcp`, line by line."""

import json
import os
import signal
import subprocess

import pytest
from conftest import wait_until
from mcp_clients import NO_MESSAGES, REVISIONS, Lines
from server_bed import needs_root
from server_clients import Http

pytestmark = needs_root


def test_the_end_of_the_input_is_the_end(lines, server_host):
    assert lines.ask("ping")["result"] == {}
    assert lines.end() == b""
    assert server_host.processes() == []


def test_what_was_asked_for_before_the_end_is_answered(lines):
    lines.say(*[{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(20)])
    answers = [json.loads(line) for line in lines.end().splitlines()]
    assert sorted(answer["id"] for answer in answers) == list(range(20))


@pytest.mark.parametrize("body, code", [(body, code) for body, code in NO_MESSAGES if body],
                         ids=range(len([body for body, _ in NO_MESSAGES if body])))
def test_a_line_that_is_no_message_is_answered_and_the_next_is_read(shared_lines, body, code):
    shared_lines.say(body + b"\n")
    assert shared_lines.next()["error"]["code"] == code
    assert shared_lines.ask("ping")["result"] == {}


def test_empty_lines_and_ends_of_other_systems_are_passed_over(shared_lines):
    shared_lines.say(b"\n\r\n", b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\r\n')
    assert shared_lines.next() == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_a_last_line_without_an_end_is_read(lines):
    lines.say(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
    assert json.loads(lines.end())["result"] == {}


def test_a_line_that_is_too_long_is_refused_and_the_next_is_read(shared_lines):
    for _ in range(40):
        shared_lines.say(b"x" * (1 << 20))
    shared_lines.say(b"\n")
    assert shared_lines.next()["error"]["code"] in (-32600, -32700)
    assert shared_lines.ask("ping")["result"] == {}


def test_input_from_a_file_is_read(server_host, tmp_path):
    (tmp_path / "in").write_text('{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as sink:
        process = server_host.start("mcp", stdin=source, stdout=sink)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads((tmp_path / "out").read_text())["result"] == {}


def test_without_input_it_ends(server_host):
    assert Lines(server_host, stdin=subprocess.DEVNULL).end() == b""


def test_a_client_that_reads_no_more_is_no_reason_to_stay(server_host):
    made = Lines(server_host)
    made.process.stdout.close()
    made.process.stdout = None
    made.say(*[{"jsonrpc": "2.0", "id": number, "method": "tools/list"} for number in range(20)])
    wait_until(lambda: made.process.poll() is not None, "it has ended")
    made.process.stdin.close()
    made.process.stdin = None
    made.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_end_it_with_its_ephemeral_sandboxes(server_host, number):
    made = Lines(server_host)
    made.ask("initialize", {"protocolVersion": REVISIONS[0], "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})
    for box, ephemeral in (("gone", True), ("kept", False)):
        made.ask("tools/call", {"name": "sandbox_start", "arguments": {"sandbox": box, "config": {"image": "base"},
                                                                       "ephemeral": ephemeral}})
    os.kill(made.process.pid, number)
    made.process.communicate(timeout=30)
    wait_until(lambda: server_host.running() == ["kept"], "the one has ended, and the other goes on")
    if number != signal.SIGKILL:
        assert server_host.kept() == ["default/kept"]


def test_a_server_beside_it_sees_what_it_makes(server_host):
    """Both use one set of sandboxes, and neither spoils the other's."""
    server = server_host.serve()
    made = Lines(server_host)
    started = made.ask("tools/call", {"name": "sandbox_start", "arguments": {"sandbox": "ours", "config": {"image": "base"}}})
    assert "started" in started["result"]["content"][0]["text"]
    assert "ours" in server_host.running()
    answer = Http(server.port, server.key).rpc("sandbox.start", {"sandbox": "ours", "config": {"image": "base"}})
    assert answer.status in (200, 409), answer
    answer = Http(server.port, server.key).rpc("sandbox.command.run", {"sandbox": "ours", "command": "true"})
    assert answer.status in (200, 404, 409)
    ran = made.ask("tools/call", {"name": "sandbox_run_command", "arguments": {"sandbox": "ours", "command": "true"}})
    assert not ran["result"]["isError"]
    made.end()
    assert server_host.running() == ["ours"]


def test_the_time_until_a_ping_is_answered_does_not_depend_on_a_call(lines, tmp_path):
    lines.ask("tools/call", {"name": "sandbox_start", "arguments": {"sandbox": "box", "config": {"image": "base"}}})
    lines.say({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {"name": "sandbox_run_command", "arguments": {
        "sandbox": "box", "command": "sh", "args": ["-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"]}}})
    assert lines.ask("ping", identity=9)["id"] == 9
    (tmp_path / "go").touch()
    assert lines.next()["id"] == 8
