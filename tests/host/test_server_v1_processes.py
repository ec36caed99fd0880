# SPDX-License-Identifier: Apache-2.0
"""The API below /v1: commands that are waited for, and processes that stay."""

import base64
import json
import time
import urllib.parse

import pytest
from conftest import wait_until
from json_schema import EVENTS, NDJSON, parts_of
from server_api import NOT_RUN
from server_bed import needs_root
from server_clients import Http, Raw

pytestmark = needs_root


# Commands.

def execute(api, box, *words, **more):
    return api.done("POST", f"{box}/exec", {"command": list(words)} | more)


def test_a_command_is_run_to_its_end(api, box, tmp_path):
    ran = execute(api, box, "sh", "-c", "cat; echo bad >&2; pwd; echo $A; exit 3", stdin="in\n", workdir=str(tmp_path),
                  envs=["A=b"])
    assert ran == {"exit_code": 3, "signal": None, "oom_killed": False, "timed_out": False, "stdout": f"in\n{tmp_path}\nb\n",
                   "stderr": "bad\n", "truncated": False}
    assert execute(api, box, "cat", stdin_base64=base64.b64encode(b"\0\xff").decode())["stdout"] == "\0\ufffd"
    ran = execute(api, box, "sh", "-c", "kill -KILL $$")
    assert (ran["exit_code"], ran["signal"]) == (137, "KILL")
    assert execute(api, box, "id", "-un", user="nobody")["stdout"] == "nobody\n"


def test_a_command_that_takes_too_long_is_killed(api, box, shared_host):
    before = len(shared_host.processes())
    ran = execute(api, box, "sh", "-c", "echo begun; sleep 1000 & sleep 1000", timeout=0.3)
    assert ran["timed_out"] is True and ran["stdout"] == "begun\n" and ran["signal"] == "KILL"
    wait_until(lambda: len(shared_host.processes()) == before, "it has gone with what it started")


def test_output_beyond_the_limit_is_cut_and_that_is_said(api, box):
    ran = execute(api, box, "head", "-c", "20000000", "/dev/zero")
    assert ran["truncated"] is True and len(ran["stdout"]) == 8 << 20 and ran["exit_code"] in (0, 141)


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_a_command_is_streamed(api, box, kind):
    events = api.streamed("POST", f"{box}/exec", {"command": ["sh", "-c", "echo a; sleep 0.1; echo b >&2; printf '\\377\\376'"]},
                          kind)
    assert events[0]["event"] == "started" and events[0]["pid"] > 1
    outputs = [event for event in events if event["event"] == "output"]
    assert "".join(event.get("text", "") for event in outputs if event["stream"] == "stderr") == "b\n"
    assert any(base64.b64decode(event["base64"]).endswith(b"\xff\xfe") for event in outputs if "base64" in event)
    assert events[-1] == {"event": "exited", "exit_code": 0, "signal": None, "oom_killed": False, "timed_out": False}
    for stream, total in (("stdout", 4), ("stderr", 2)):
        at = 0
        for event in outputs:
            if event["stream"] == stream:
                assert event["offset"] == at
                at = event["next"]
        assert at == total


def test_a_stream_comes_while_the_command_runs(api, box, tmp_path):
    script = f"echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo second"
    response, connection = api.open("POST", f"{box}/exec", {"command": ["sh", "-c", script]})
    assert json.loads(response.readline())["event"] == "started"
    assert json.loads(response.readline())["text"] == "first\n"
    (tmp_path / "go").touch()
    assert json.loads(response.readline())["text"] == "second\n"
    assert json.loads(response.readline())["event"] == "exited" and response.read() == b""
    connection.close()


def test_characters_are_not_cut_in_a_stream(api, box):
    program = "import os, time\nfor b in 'aü☃'.encode(): os.write(1, bytes([b])); time.sleep(0.02)"
    events = api.streamed("POST", f"{box}/exec", {"command": ["python3", "-c", program]})
    outputs = [event for event in events if event["event"] == "output"]
    content = b"".join(event["text"].encode() if "text" in event else base64.b64decode(event["base64"]) for event in outputs)
    assert content.decode() == "aü☃"


def test_the_streamed_command_of_a_client_that_left_is_killed(api, box, shared_host):
    before = len(shared_host.processes())
    response, connection = api.open("POST", f"{box}/exec", {"command": ["sh", "-c", "echo up; sleep 1000"]})
    response.readline()
    response.readline()
    connection.close()
    response.close()
    wait_until(lambda: len(shared_host.processes()) == before, "it has gone")


def test_a_large_stream_is_held_up_by_its_reader_and_comes_whole(api, box):
    response, connection = api.open("POST", f"{box}/exec", {"command": ["sh", "-c", "yes | head -c 30000000"]})
    time.sleep(0.3)
    total = 0
    for line in response:
        event = json.loads(line)
        total += len(event.get("text", ""))
    assert total == 30_000_000 and event["event"] == "exited"
    connection.close()


def test_a_stream_of_http_1_0_ends_with_its_connection(server, box):
    body = b'{"command": ["echo", "hi"]}'
    head = (f"POST /v1{box}/exec HTTP/1.0\r\nHost: localhost\r\nAuthorization: {server.key}\r\nAccept: {NDJSON}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    with Raw(server.port, head + body) as raw:
        status, fields = raw.head()
        assert status == 200 and "transfer-encoding" not in fields
        assert json.loads(raw.read_all().splitlines()[-1])["event"] == "exited"


def test_origins_of_the_list_may_read_streams(server_host):
    server_host.settle(origins=["https://app.example"])
    server = server_host.serve()
    ask = Http(server.port, server.key)
    ask.post("/v1/sandboxes", {"name": "box", "config": {"image": "base"}})
    answer = ask.post("/v1/sandboxes/box/exec", {"command": ["true"]},
                      headers={"Accept": NDJSON, "Origin": "https://app.example"})
    assert answer.status == 200 and answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


COMMANDS = [({}, "command"), ({"command": []}, "command"), ({"command": "ls"}, "command"), ({"command": [1]}, "command"),
            ({"command": [""]}, ""), ({"command": ["a\0b"]}, ""),
            ({"command": ["true"], "timeout": 0}, "timeout"), ({"command": ["true"], "timeout": -1}, "timeout"),
            ({"command": ["true"], "timeout": "1"}, "timeout"),
            ({"command": ["true"], "envs": ["A"]}, "envs"), ({"command": ["true"], "envs": {"A": "b"}}, "envs"),
            ({"command": ["true"], "workdir": "x"}, ""),
            ({"command": ["true"], "stdin": 1}, "stdin"), ({"command": ["true"], "stdin_base64": "!"}, "stdin_base64"),
            ({"command": ["true"], "stdin": "a", "stdin_base64": "YQ=="}, "stdin"),
            ({"command": ["true"], "cmd": 1}, "cmd"), ({"command": ["true"], "user": "no-such-user"}, "no-such-user"),
            ({"command": ["no-such-program"]}, "no-such-program"),
            ({"command": ["true"], "workdir": "/dev/null/x"}, ""), ({"command": ["/etc/passwd"]}, "")]


@pytest.mark.parametrize("body, word", COMMANDS, ids=range(len(COMMANDS)))
def test_a_command_that_cannot_be_is_refused(api, box, body, word):
    error = api.refused("POST", f"{box}/exec", body, status=NOT_RUN)
    assert word in error["message"]
    assert word in api.refused("POST", f"{box}/exec", body, status=NOT_RUN,
                               headers={"Accept": NDJSON})["message"], "also as a stream"
    if "stdin" not in word:
        api.refused("POST", f"{box}/processes", body, status=NOT_RUN)


# Processes that stay.

@pytest.fixture
def process(api, box):
    """Starts processes, and removes them."""
    made = []

    def make(*words, **more):
        started = api.done("POST", f"{box}/processes", {"command": list(words)} | more, status=201)
        made.append(started["id"])
        return f"{box}/processes/{started['id']}"

    yield make
    for identity in made:
        api("DELETE", f"{box}/processes/{identity}")


def output(api, path, **query):
    """All that is told of it: the text of each stream, and the last event."""
    events = api.streamed("GET", f"{path}/output?{urllib.parse.urlencode(query)}")
    text = {stream: "".join(event["text"] for event in events if event["event"] == "output" and event["stream"] == stream)
            for stream in ("stdout", "stderr")}
    return text, events[-1]


def test_a_process_outlives_the_request_that_started_it(api, box, process, tmp_path):
    path = process("sh", "-c", f"echo begun; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo ended; exit 4", label="mine")
    described = api.done("GET", path)
    assert (described["state"], described["label"], described["command"], described["kept"], described["terminal"],
            described["input"]) == ("running", "mine", "sh", True, False, False)
    assert described["id"] in [entry["id"] for entry in api.done("GET", f"{box}/processes")["processes"]]
    wait_until(lambda: output(api, path)[0]["stdout"] == "begun\n", "it wrote")
    assert output(api, path)[1] == {"event": "running"}
    (tmp_path / "go").touch()
    text, last = output(api, path, follow="true")
    assert text["stdout"] == "begun\nended\n" and (last["event"], last["exit_code"]) == ("exited", 4)
    assert api.done("GET", f"{path}/wait")["exit_code"] == 4
    assert api.done("GET", path)["state"] == "ended"
    assert output(api, path, stdout=6)[0]["stdout"] == "ended\n", "from an offset on"
    api.done("DELETE", path, status=204)
    api.refused("GET", path, status=404)


def test_a_process_is_followed_by_one_at_a_time(api, process):
    path = process("cat", input=True)
    response, connection = api.open("GET", f"{path}/output?follow=true")
    api.done("POST", f"{path}/stdin", b"one\n", headers={"Content-Type": "application/octet-stream"})
    assert json.loads(response.readline())["text"] == "one\n"
    other, other_connection = api.open("GET", f"{path}/output?follow=true&stdout=4")
    assert json.loads(response.readline())["event"] == "detached" and response.read() == b""
    api.done("POST", f"{path}/stdin?end=true", b"two\n", headers={"Content-Type": "application/octet-stream"})
    events = [json.loads(line) for line in other]
    assert events[0]["text"] == "two\n" and events[0]["offset"] == 4 and events[-1]["event"] == "exited"
    connection.close()
    other_connection.close()


def test_a_follower_that_left_is_followed_by_another(api, process, tmp_path):
    path = process("sh", "-c", f"echo one; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo two")
    response, connection = api.open("GET", f"{path}/output?follow=true")
    event = json.loads(response.readline())
    connection.close()
    response.close()
    (tmp_path / "go").touch()
    text, last = output(api, path, follow="true", stdout=event["next"])
    assert text["stdout"] == "two\n" and last["event"] == "exited"


def test_much_input_is_taken_as_fast_as_it_is_read(api, process):
    path = process("sh", "-c", "sleep 0.2; wc -c", input=True)
    sent = api.done("POST", f"{path}/stdin?end=true", b"x" * 5_000_000, headers={"Content-Type": "application/octet-stream"})
    assert sent["bytes"] == 5_000_000
    assert output(api, path, follow="true")[0]["stdout"].strip() == "5000000"
    assert api.refused("POST", f"{path}/stdin", b"more", status=(400, 409), headers={"Content-Type": "application/octet-stream"})


def test_input_for_one_that_has_none_is_refused(api, process):
    path = process("sleep", "1000")
    assert api.refused("POST", f"{path}/stdin", b"x", status=(400, 409), headers={"Content-Type": "application/octet-stream"})


def test_inputs_come_in_order(api, process):
    path = process("cat", input=True)
    for number in range(20):
        api.done("POST", f"{path}/stdin", f"{number}\n".encode(), headers={"Content-Type": "application/octet-stream"})
    api.done("POST", f"{path}/stdin?end=true", b"", headers={"Content-Type": "application/octet-stream"})
    assert output(api, path, follow="true")[0]["stdout"] == "".join(f"{number}\n" for number in range(20))


def test_a_terminal_has_a_size(api, process):
    path = process("sh", terminal={"rows": 11, "columns": 22})
    assert api.done("GET", path)["terminal"] is True
    api.done("POST", f"{path}/stdin", b"stty size\n", headers={"Content-Type": "application/octet-stream"})
    wait_until(lambda: "11 22" in output(api, path)[0]["stdout"], "it has the size")
    api.done("POST", f"{path}/resize", {"rows": 33, "columns": 44}, status=204)
    api.done("POST", f"{path}/stdin", b"stty size; exit\n", headers={"Content-Type": "application/octet-stream"})
    assert "33 44" in output(api, path, follow="true")[0]["stdout"]


def test_one_without_a_terminal_has_no_size(api, process):
    api.refused("POST", f"{process('sleep', '1000')}/resize", {"rows": 1, "columns": 1}, status=(400, 409))


@pytest.mark.parametrize("signal", ["TERM", "SIGTERM", 15])
def test_a_signal_reaches_the_process(api, process, signal):
    path = process("sh", "-c", "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
    wait_until(lambda: "ready" in output(api, path)[0]["stdout"], "it is ready")
    api.done("POST", f"{path}/signal", {"signal": signal}, status=204)
    assert api.done("GET", f"{path}/wait")["exit_code"] == 5
    api.done("POST", f"{path}/signal", {"signal": signal}, status=204)  # it has ended: no matter


@pytest.mark.parametrize("body", [{}, {"signal": "NOPE"}, {"signal": 0}, {"signal": 65}, {"signal": -1}, {"signal": 1.5},
                                  {"signal": None}, {"signal": "TERM", "group": "yes"}])
def test_a_signal_that_is_none_is_refused(api, process, body):
    assert "signal" in api.refused("POST", f"{process('sleep', '1000')}/signal", body)["message"] or "group" in body


def test_a_process_that_is_removed_is_killed_with_its_group(api, process, shared_host):
    before = len(shared_host.processes())
    path = process("sh", "-c", "sleep 1000 & trap '' TERM; sleep 1000")
    wait_until(lambda: len(shared_host.processes()) == before + 3, "all of it runs")
    api.done("DELETE", path, status=204)
    wait_until(lambda: len(shared_host.processes()) == before, "all of it has gone")
    assert api.refused("DELETE", path, status=404)["code"] == "not_found"


def test_output_that_nobody_read_gives_way_and_that_is_said(api, process):
    path = process("sh", "-c", "yes | head -c 5000000", keep=1 << 20)
    api.done("GET", f"{path}/wait")
    events = api.streamed("GET", f"{path}/output")
    assert events[0]["event"] == "lost" and events[0]["offset"] == 0
    assert events[0]["next"] + sum(len(event["text"]) for event in events if event["event"] == "output") == 5_000_000
    assert events[-1]["event"] == "exited"


@pytest.mark.parametrize("path", ["0", "4294967295", "x", "-1", "99999999999999999999", "1.5", "%31%30%30%30"])
def test_processes_that_there_are_not_are_not_found(api, box, path):
    api.refused("GET", f"{box}/processes/{path}", status=(400, 404))
    api.refused("DELETE", f"{box}/processes/{path}", status=(400, 404))


def test_a_process_of_another_client_goes_on_when_the_server_starts_anew(server_host):
    first = server_host.serve()
    ask = Http(first.port, first.key)
    ask.post("/v1/sandboxes", {"name": "box", "config": {"image": "base"}})
    identity = ask.post("/v1/sandboxes/box/processes", {"command": ["cat"], "input": True}).json["id"]
    first.stop()
    second = server_host.serve(key=False)
    ask = Http(second.port, first.key)
    path = f"/v1/sandboxes/box/processes/{identity}"
    assert ask.get(path).json["state"] == "running"
    assert ask.post(f"{path}/stdin?end=true", b"hi", headers={"Content-Type": "application/octet-stream"}).status == 200
    events = parts_of(NDJSON, ask.get(f"{path}/output?follow=true").body)
    assert events[0]["text"] == "hi"


def test_a_stream_ends_with_its_sandbox(api, new):
    path = f"/sandboxes/{new()['name']}"
    identity = api.done("POST", f"{path}/processes", {"command": ["sh", "-c", "echo up; sleep 1000"]}, status=201)["id"]
    response, connection = api.open("GET", f"{path}/processes/{identity}/output?follow=true")
    response.readline()
    api.done("POST", f"{path}/stop", {"at_once": True})
    events = [json.loads(line) for line in response]
    assert events[-1]["event"] in ("failed", "exited")
    connection.close()


def test_a_stream_ends_when_the_server_does(server_host):
    server = server_host.serve()
    ask = Http(server.port, server.key)
    ask.post("/v1/sandboxes", {"name": "box", "config": {"image": "base"}})
    identity = ask.post("/v1/sandboxes/box/processes", {"command": ["sleep", "1000"]}).json["id"]
    response, connection = ask.open("GET", f"/v1/sandboxes/box/processes/{identity}/output?follow=true",
                                    headers={"Accept": NDJSON})
    logs, logs_connection = ask.open("GET", "/v1/sandboxes/box/logs?follow=true", headers={"Accept": NDJSON})
    server.stop()
    assert json.loads(response.read().splitlines()[-1])["event"] == "failed"
    assert logs.read().splitlines()[-1:]
    connection.close()
    logs_connection.close()

def test_all_operations_for_processes_were_asked_for(document):
    """The last one here: nothing of the document was forgotten by these tests."""
    assert document.not_seen("processes") == set()
