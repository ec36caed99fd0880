# SPDX-License-Identifier: Apache-2.0
"""The API below /v1. Every answer is held against the document that the server serves."""

import base64
import http.client
import io
import itertools
import json
import os
import stat
import tarfile
import threading
import time
import urllib.parse

import jsonschema
import pytest
from conftest import wait_until
from json_schema import EVENTS, NDJSON, OpenApi, parts_of
from registry import faults
from server_bed import needs_root
from server_clients import Answer, Http, Raw

pytestmark = needs_root

NOT_RUN = (400, 403, 404, 409, 502)  # as errno has it: ENOENT, EACCES, ...
numbers = itertools.count()


class Api:
    """A client whose every answer is checked."""

    def __init__(self, http, document):
        self.http = http
        self.document = document

    def __call__(self, method, path, body=None, **options):
        answer = self.http(method, f"/v1{path}", body, **options)
        self.document.check(method, f"/v1{path}", answer)
        return answer

    def get(self, path, **options):
        return self("GET", path, **options)

    def post(self, path, body=None, **options):
        return self("POST", path, body, **options)

    def done(self, method, path, body=None, status=200, **options):
        """The document of an answer that is as it should be."""
        answer = self(method, path, body, **options)
        assert answer.status == status, answer
        return answer.json if answer.body else None

    def refused(self, method, path, body=None, status=400, **options):
        """The error of one that is not; where the status is a list, it is one of these."""
        answer = self(method, path, body, **options)
        assert answer.status in (status if isinstance(status, (list, tuple)) else [status]), answer
        return answer.json["error"]

    def streamed(self, method, path, body=None, kind=NDJSON, **options):
        """The events of a stream."""
        answer = self(method, path, body, headers={"Accept": kind}, **options)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind), answer
        return parts_of(kind, answer.body)

    def open(self, method, path, body=None, kind=NDJSON):
        """A stream to be read while it comes: lines of it, and what closes it."""
        response, connection = self.http.open(method, f"/v1{path}", body, {"Accept": kind})
        assert response.status == 200, Answer(response, response.read())
        return response, connection


@pytest.fixture(scope="module")
def document(server):
    return OpenApi(Http(server.port).get("/v1/openapi.json").json)


@pytest.fixture(scope="module")
def api(server, document):
    return Api(Http(server.port, server.key), document)


@pytest.fixture(scope="module")
def box(api):
    """The path of a sandbox with Python that runs."""
    made = api.done("POST", "/sandboxes", {"name": "box", "config": {"image": "python"}}, status=201)
    return f"/sandboxes/{made['name']}"


@pytest.fixture
def new(api):
    """Makes sandboxes, and removes them."""
    made = []

    def make(name=None, status=201, headers=None, **body):
        name = name or f"n{next(numbers)}"
        made.append(name)
        answer = api.post("/sandboxes", {"name": name, "config": {"image": "base"}} | body, headers=headers)
        assert answer.status == status, answer
        return answer.json

    yield make
    for name in made:
        api("DELETE", f"/sandboxes/{name}")


def path_query(path, **more):
    return urllib.parse.urlencode({"path": str(path)} | more)


# The document.

def test_the_document_is_one_of_openapi_3_1(document):
    assert document.document["openapi"].startswith("3.1.")
    assert document.document["info"]["title"] and document.document["info"]["version"]
    for where, schema in document.schemas():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema != {} and schema is not True, where


def test_every_path_says_what_its_names_are(document):
    for (method, template), operation in document.operations.items():
        said = operation.get("parameters", []) + document.document["paths"][template].get("parameters", [])
        named = {parameter["name"] for parameter in map(document.resolve, said) if parameter["in"] == "path"}
        assert named == {part[1:-1] for part in template.split("/") if part.startswith("{")}, (method, template)
        assert operation["operationId"] and operation.get("summary", operation.get("description")), (method, template)
        assert "default" in operation["responses"]
    names = [operation["operationId"] for operation in document.operations.values()]
    assert len(names) == len(set(names))


def test_all_references_lead_somewhere(document):
    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in references(document.document):
        assert document.resolver.resolve(reference)[1] is not None


def test_health_and_the_document_take_no_key(server, document):
    ask = Http(server.port)
    for path in ("/v1/health", "/v1/openapi.json"):
        answer = ask.get(path)
        assert answer.status == 200
        document.check("GET", path, answer)
    assert json.loads(ask.get("/v1/openapi.json").body) == document.document
    for path in ("/v1/server", "/v1/sandboxes", "/v1/images", "/v1/metrics", "/v1/nothing"):
        answer = ask.get(path)
        assert answer.status == 401 and answer.json["error"]["code"] == "no_key"
        document.check("GET", path, answer)


def test_unknown_paths_are_not_found_and_known_ones_say_their_methods(api, document):
    for path in ("/nothing", "/sandboxes/box/nothing", "/sandboxes/box/exec/more", "/images/a/b", ""):
        assert api.refused("GET", path, status=404)["code"] == "not_found"
    for template in document.document["paths"]:
        path = template.replace("{name}", "box").replace("{id}", "1").replace("{language}", "python").replace("{session}", "main")
        path = path.replace("{image}", "base").removeprefix("/v1")
        answer = api("PATCH", path)
        assert answer.status == 405 and answer.json["error"]["code"] == "method_not_allowed"
        methods = {method.upper() for method in document.document["paths"][template] if method != "parameters"}
        assert methods <= {word.strip() for word in answer.headers["Allow"].split(",")} <= methods | {"HEAD", "OPTIONS"}, template


def test_the_server_says_what_it_and_the_key_allow(api):
    said = api.done("GET", "/server")
    assert said["limits"]["sandboxes"] == 64 and said["key"]["name"] == "all" and said["key"]["namespace"] == "*"
    assert said["version"][0].isdigit()


# Sandboxes.

def test_a_sandbox_is_made_described_and_removed(api, shared_host):
    body = {"name": "made", "labels": {"team": "a", "x/y.z": ""},
            "config": {"image": "base", "cpus": 1.2, "memory": "300M", "envs": ["A=b"], "ports": ["0:80"]}}
    answer = api.post("/sandboxes", body)
    assert answer.status == 201
    assert api.get(answer.headers["Location"].removeprefix("/v1")).json["name"] == "made"
    made = answer.json
    assert (made["name"], made["namespace"], made["state"], made["image"]) == ("made", "default", "running", "base")
    assert made["labels"] == body["labels"] and made["ephemeral"] is False and made["exit"] is None
    assert (made["config"]["cpus"], made["config"]["memory_mib"], made["config"]["envs"]) == (2, 300, ["A=b"])
    [port] = made["ports"]
    assert port["guest_port"] == 80 and port["host_port"] > 1023
    assert api.done("GET", "/sandboxes/made") == made
    assert api.done("GET", "/sandboxes/made/ports")["ports"][0]["url"] == f"http://127.0.0.1:{port['host_port']}"
    api.done("DELETE", "/sandboxes/made", status=204)
    assert api.refused("GET", "/sandboxes/made", status=404)["code"] == "not_found"
    api.refused("DELETE", "/sandboxes/made", status=404)
    assert "made" not in shared_host.running() and "default/made" not in shared_host.kept()


def test_a_sandbox_without_a_name_gets_one(api):
    names = {api.done("POST", "/sandboxes", {"config": {"image": "base"}}, status=201)["name"] for _ in range(3)}
    assert len(names) == 3
    for name in names:
        api.done("DELETE", f"/sandboxes/{name}", status=204)


def test_a_sandbox_is_stopped_and_started(api, new):
    path = f"/sandboxes/{new()['name']}"
    stopped = api.done("POST", f"{path}/stop", {})
    assert (stopped["state"], stopped["exit"]["cause"]) == ("stopped", "stopped")
    assert stopped["ports"] == [] and stopped["started_at"] is None
    assert api.done("POST", f"{path}/stop")["state"] == "stopped", "again"
    assert api.done("POST", f"{path}/start")["state"] == "running"
    assert api.done("POST", f"{path}/start")["state"] == "running", "again"
    assert api.done("POST", f"{path}/stop", {"at_once": True})["state"] == "stopped"


def test_a_sandbox_is_paused_and_resumed(api, new):
    path = f"/sandboxes/{new()['name']}"
    for _ in range(2):
        assert api.done("POST", f"{path}/pause")["state"] == "paused"
    assert api.refused("POST", f"{path}/exec", {"command": ["true"]}, status=409)["code"] == "conflict"
    assert api.done("GET", path)["state"] == "paused"
    for _ in range(2):
        assert api.done("POST", f"{path}/resume")["state"] == "running"
    assert api.done("POST", f"{path}/exec", {"command": ["true"]})["exit_code"] == 0
    api.done("POST", f"{path}/pause")
    assert api.done("POST", f"{path}/stop")["state"] == "stopped"
    api.refused("POST", f"{path}/pause", status=409)


def test_a_name_that_is_taken_is_a_conflict(api, new):
    name = new()["name"]
    assert api.refused("POST", "/sandboxes", {"name": name, "config": {"image": "base"}}, status=409)["code"] == "conflict"


def test_one_that_is_made_again_with_the_same_key_is_the_same(api, new):
    ours = {"Idempotency-Key": f"once {next(numbers)}!"}
    made = new("once", headers=ours)
    assert new("once", headers=ours) == made
    assert api.refused("POST", "/sandboxes", {"name": "other", "config": {"image": "base"}}, status=409,
                       headers=ours)["code"] == "conflict"
    for wrong in ("x" * 256, "a\tb", "\u00fc".encode()):
        api.refused("POST", "/sandboxes", {"config": {"image": "base"}}, headers={"Idempotency-Key": wrong})


def test_requests_that_race_with_one_idempotency_key_make_one(api, shared_host):
    ours = {"Idempotency-Key": f"race {next(numbers)}"}
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(api.post("/sandboxes", {"config": {"image": "base"}},
                                                                       headers=ours))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {201}
    [name] = {answer.json["name"] for answer in answers}
    assert shared_host.running().count(name) == 1
    api.done("DELETE", f"/sandboxes/{name}", status=204)


def test_an_idempotency_key_outlives_the_server(server_host):
    first = server_host.serve()
    ours = {"Idempotency-Key": "once"}
    name = Http(first.port, first.key).post("/v1/sandboxes", {"config": {"image": "base"}}, headers=ours).json["name"]
    first.stop()
    second = server_host.serve(key=False)
    answer = Http(second.port, first.key).post("/v1/sandboxes", {"config": {"image": "base"}}, headers=ours)
    assert answer.status == 201 and answer.json["name"] == name


def test_an_ephemeral_sandbox_is_gone_once_it_has_ended(api, new, shared_host):
    name = new(ephemeral=True)["name"]
    assert f"default/{name}" in shared_host.kept()
    api("POST", f"/sandboxes/{name}/stop")
    wait_until(lambda: api.get(f"/sandboxes/{name}").status == 404, "it is gone")
    wait_until(lambda: f"default/{name}" not in shared_host.kept(), "what it kept is gone")
    name = new(ephemeral=True, config={"image": "base", "exec": "true"})["name"]
    wait_until(lambda: api.get(f"/sandboxes/{name}").status == 404, "it is gone")


def test_times_out_as_it_was_told(api, new):
    path = f"/sandboxes/{new(config={'image': 'base', 'timeout': 1})['name']}"
    wait_until(lambda: api.done("GET", path)["state"] == "stopped", "its time is over")
    assert api.done("GET", path)["exit"]["cause"] == "timeout"
    path = f"/sandboxes/{new(config={'image': 'base', 'idle_timeout': '1s'})['name']}"
    wait_until(lambda: api.done("GET", path)["state"] == "stopped", "it was idle")
    assert api.done("GET", path)["exit"]["cause"] == "idle"


def test_one_whose_interpreter_was_used_is_idle_nevertheless(api, new):
    """The server lets go of sessions, so that they hold no sandbox that may end."""
    path = f"/sandboxes/{new(config={'image': 'base', 'idle_timeout': 1})['name']}"
    api.done("POST", f"{path}/code", {"language": "shell", "code": "true"})
    wait_until(lambda: api.done("GET", path)["state"] == "stopped", "it was idle", seconds=30)


def test_a_list_has_pages(api, new):
    names = sorted(new(labels={"page": "yes"})["name"] for _ in range(5))
    found, cursor, pages = [], None, 0
    while True:
        query = {"label": "page=yes", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.done("GET", f"/sandboxes?{urllib.parse.urlencode(query)}")
        found += [entry["name"] for entry in page["sandboxes"]]
        pages += 1
        if pages == 1:
            api.done("DELETE", f"/sandboxes/{found[-1]}", status=204)  # the one that the cursor points to
            new("n" + found[-1] + "x", labels={"page": "no"})
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["sandboxes"]) == 2
    assert found == names and pages == 3


def test_a_list_is_of_those_that_are_asked_for(api, new):
    one = new(labels={"team": "a", "kind": "x"})["name"]
    two = new(labels={"team": "a"})["name"]
    api.done("POST", f"/sandboxes/{two}/stop")

    def listed(**query):
        return [entry["name"] for entry in api.done("GET", f"/sandboxes?{urllib.parse.urlencode(query)}")["sandboxes"]]

    assert listed(label="team=a") == sorted([one, two])
    assert listed(label="team=a,kind=x") == [one]
    assert listed(label="team=b") == [] and listed(label="other=a") == []
    assert listed(label="team=a", state="stopped") == [two]
    assert listed(label="team=a", namespace="other") == [] and set(listed(namespace="*")) >= {one, two}


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "limit=-1", "limit=1.5", "limit=", "cursor=x", "cursor=%00",
                                   "state=up", "label=a", "label=", "label=,",
                                   "namespace=", "unknown=1", "limit=99999999999999999999",
                                   "cursor=" + "A" * 2000])
def test_a_list_that_cannot_be_is_refused(api, query):
    name = query.partition("=")[0]
    assert name in api.refused("GET", f"/sandboxes?{query}")["message"]


BODIES = [({"name": 1}, "name"), ({"name": ""}, "name"), ({"name": "a b"}, "a b"), ({"labels": {"a": 1}}, "a"),
          ({"labels": {"a b": "c"}}, "a b"), ({"labels": {"a": "b,c"}}, "comma"),
          ({"labels": []}, "labels"), ({"labels": {f"l{n}": "" for n in range(65)}}, "64"), ({"ephemeral": "yes"}, "ephemeral"),
          ({"config": []}, "config"), ({"config": None}, "image"),
          ({"config": {}}, "image"), ({"config": {"image": 1}}, "image"), ({"config": {"image": "base", "memroy": 1}}, "memory"),
          ({"configuration": {}}, "config"),
          ({"config": {"image": "base", "ports": [1.5]}}, "ports")]


@pytest.mark.parametrize("body, word", BODIES, ids=range(len(BODIES)))
def test_a_sandbox_that_cannot_be_is_refused_by_name(api, body, word):
    answer = api.post("/sandboxes", {"config": {"image": "base"}} | body)
    assert answer.status in (400, 404) and word in answer.json["error"]["message"], answer


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff", b"[" * 10_000])
def test_a_body_that_is_no_object_is_refused(api, body):
    for path in ("/sandboxes", "/sandboxes/box/exec", "/sandboxes/box/code", "/images"):
        api.refused("POST", path, body, headers={"Content-Type": "application/json"}, status=(400, 404))


def test_what_is_not_there_is_not_found_in_every_path(api, document):
    for method, template in document.operations:
        if "{name}" in template:
            path = template.replace("{name}", "nobody").replace("{id}", "1").replace("{language}", "python").replace("{session}",
                                                                                                                     "main")
            body = {"exec": {"command": ["true"]}, "processes": {"command": ["true"]},
                    "code": {"language": "python", "code": "1"}, "signal": {"signal": "TERM"},
                    "resize": {"rows": 1, "columns": 1}, "directories": {"path": "/x"},
                    "move": {"from": "/x", "to": "/y"}}.get(template.rsplit("/", 1)[1])
            query = "?path=/x" if "/files" in template and method != "POST" else ""
            assert api.refused(method, path.removeprefix("/v1") + query, body if method == "POST" else None,
                               status=404)["code"] == "not_found", template


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


# Code.

def code(api, box, text, language="python", **more):
    return api.done("POST", f"{box}/code", {"language": language, "code": text} | more)


def test_code_gives_values_streams_and_errors(api, box):
    ran = code(api, box, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert ran["status"] == "ok" and ran["truncated"] is False
    assert sorted((part["type"], part.get("stream")) for part in ran["outputs"]) == sorted([("stream", "stdout"),
                                                                                            ("stream", "stderr"),
                                                                                            ("result", None)])
    [result] = [part for part in ran["outputs"] if part["type"] == "result"]
    assert result["data"]["text/plain"] == "42"
    ran = code(api, box, "1 / 0")
    assert ran["status"] == "error" and ran["outputs"][-1]["name"] == "ZeroDivisionError" and ran["outputs"][-1]["traceback"]


def test_values_that_are_images_come_as_such(api, box):
    text = "class Dot:\n    def _repr_png_(self):\n        return b'\\x89PNG\\r\\n\\x1a\\n'\ndisplay(Dot())\nDot()"
    ran = code(api, box, text)
    for part, kind in zip(ran["outputs"], ("display", "result")):
        assert part["type"] == kind and base64.b64decode(part["data"]["image/png"]) == b"\x89PNG\r\n\x1a\n"


def test_sessions_are_apart_and_listed_and_closed(api, box):
    code(api, box, "x = 1", session="one")
    assert code(api, box, "x", session="two")["status"] == "error"
    assert code(api, box, "x", session="one")["outputs"][0]["data"]["text/plain"] == "1"
    sessions = {(entry["language"], entry["name"]) for entry in api.done("GET", f"{box}/sessions")["sessions"]}
    assert {("python", "one"), ("python", "two")} <= sessions
    api.done("DELETE", f"{box}/sessions/python/one", status=204)
    assert ("python", "one") not in {(entry["language"], entry["name"])
                                     for entry in api.done("GET", f"{box}/sessions")["sessions"]}
    assert code(api, box, "x", session="one")["status"] == "error"
    api.refused("DELETE", f"{box}/sessions/python/nobody", status=404)
    api.refused("DELETE", f"{box}/sessions/pascal/main", status=(400, 404))


@pytest.mark.parametrize("language, text, wanted", [("javascript", "1 + 1", "2"), ("node", "'a'", "'a'"),
                                                    ("shell", "x=5; echo $x", "5\n"), ("bash", "echo $x", "5\n")])
def test_other_languages(api, box, language, text, wanted):
    ran = code(api, box, text, language)
    assert ran["status"] == "ok"
    assert (ran["outputs"][0].get("text") or ran["outputs"][0]["data"]["text/plain"]) == wanted


def test_a_shell_tells_its_status(api, box):
    assert code(api, box, "false", "shell")["exit_status"] == 1
    assert code(api, box, "true", "shell")["exit_status"] == 0


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_code_is_streamed(api, box, kind):
    events = api.streamed("POST", f"{box}/code", {"language": "python", "code": "print('a')\ndisplay(1)\n2"}, kind)
    kinds = [event for event, _ in itertools.groupby(event["event"] for event in events)]
    assert kinds == ["stream", "display", "result", "done"]
    assert events[-1]["status"] == "ok"


def test_code_comes_while_it_runs_and_is_interrupted(api, box, tmp_path):
    response, connection = api.open("POST", f"{box}/code", {"language": "python",
                                                            "code": "import time\nprint('up', flush=True)\ntime.sleep(1000)",
                                                            "session": "stopped"})
    assert json.loads(response.readline())["text"] == "up\n"
    api.done("POST", f"{box}/sessions/python/stopped/interrupt", status=204)
    events = [json.loads(line) for line in response]
    assert events[-1]["event"] == "done" and events[-1]["status"] in ("interrupted", "error")
    connection.close()
    api.refused("POST", f"{box}/sessions/python/stopped/interrupt", status=(404, 409))
    assert code(api, box, "'on'", session="stopped")["status"] == "ok"


def test_code_that_takes_too_long_says_so_with_what_it_gave(api, box):
    ran = code(api, box, "print('begun', flush=True)\nwhile True: pass", timeout=0.3)
    assert ran["status"] == "timeout" and ran["outputs"][0]["text"] == "begun\n"
    assert code(api, box, "1")["status"] == "ok"


CODES = [({"code": "1"}, "language"), ({"language": "python"}, "code"), ({"language": "pyhton", "code": "1"}, "python"),
         ({"language": "python", "code": 1}, "code"),
         ({"language": "python", "code": "1", "session": "a b"}, "a b"),
         ({"language": "python", "code": "1", "session": ""}, "session"),
         ({"language": "python", "code": "1", "timeout": 0}, "timeout"),
         ({"language": "python", "code": "1", "session": "../x"}, "../x"),
         ({"language": "python", "code": "1", "lang": 1}, "lang")]


@pytest.mark.parametrize("body, word", CODES, ids=range(len(CODES)))
def test_code_that_cannot_be_run_is_refused(api, box, body, word):
    assert word in api.refused("POST", f"{box}/code", body)["message"]
    assert word in api.refused("POST", f"{box}/code", body, headers={"Accept": NDJSON})["message"]


def test_too_many_that_wait_for_a_session_are_told_to_come_later(api, box, tmp_path):
    """A session takes so many, and then 429."""
    body = {"language": "python", "code": f"import os, time\nwhile not os.path.exists('{tmp_path}/go'): time.sleep(0.01)",
            "session": "crowded"}
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(api.post(f"{box}/code", body))) for _ in range(24)]
    for thread in threads:
        thread.start()
    wait_until(lambda: [answer.status for answer in answers].count(429) >= 5, "those beyond the limit are turned away")
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {200, 429}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status == 429)


# Files.

@pytest.fixture
def files(box):
    return f"{box}/files"


def test_a_file_is_written_and_read(api, files, tmp_path):
    content = os.urandom(3_000_000)
    octets = {"Content-Type": "application/octet-stream"}
    path = tmp_path / "a b/ü/file"
    api.refused("PUT", f"{files}/content?{path_query(path)}", b"x", status=404, headers=octets)
    sent = api.done("PUT", f"{files}/content?{path_query(path, mode='0750', parents='true')}", content, headers=octets)
    assert sent["bytes"] == len(content) and path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == 0o750
    assert api.get(f"{files}/content?{path_query(path)}").body == content
    assert api.get(f"{files}/content?{path_query(path, offset=1000, length=50)}").body == content[1000:1050]
    assert api.get(f"{files}/content?{path_query(path, offset=len(content) + 5)}").body == b""
    assert api.get(f"{files}/content?{path_query(path, length=0)}").body == b""
    api.done("PUT", f"{files}/content?{path_query(path)}", b"", headers=octets)
    assert path.read_bytes() == b""


def test_a_file_that_comes_in_chunks_is_written(api, server, files, tmp_path):
    path = tmp_path / "chunked"
    head = (f"PUT /v1{files}/content?{path_query(path)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {server.key}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n").encode()
    with Raw(server.port, head + b"5\r\nhello\r\n" + b"6\r\n world\r\n0\r\n\r\n") as raw:
        assert raw.answer()[0] == 200
    assert path.read_text() == "hello world"


def test_a_file_whose_sender_left_is_as_it_was(server, files, tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")
    head = (f"PUT /v1{files}/content?{path_query(path)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {server.key}\r\n"
            "Content-Length: 1000000\r\n\r\n").encode()
    before = server.descriptors()
    with Raw(server.port, head + b"x" * 500_000):
        wait_until(lambda: server.descriptors() > before + 1, "it is being written")
    wait_until(lambda: server.descriptors() <= before, "nobody writes any more")
    assert os.listdir(tmp_path) == ["kept"] and path.read_text() == "old"


def test_a_file_that_could_not_be_told_whole_does_not_look_so(api, new, tmp_path):
    name = new()["name"]
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    response, connection = api.http.open("GET", f"/v1/sandboxes/{name}/files/content?{path_query(tmp_path / 'large')}")
    response.read(1 << 20)
    api.done("POST", f"/sandboxes/{name}/stop", {"at_once": True})
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        while response.read(1 << 20):
            pass
    connection.close()


def test_a_large_file_does_not_pass_through_memory(api, server, files, tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(300 << 20)
    response, connection = api.http.open("GET", f"/v1{files}/content?{path_query(path)}")
    total = 0
    while piece := response.read(1 << 20):
        total += len(piece)
    assert total == 300 << 20
    connection.close()
    with open(f"/proc/{server.process.pid}/status") as lines:
        [peak] = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    assert peak < 200 << 10


def test_directories_are_made_listed_moved_and_removed(api, files, tmp_path):
    api.refused("POST", f"{files}/directories", {"path": f"{tmp_path}/a/b"}, status=404)
    api.done("POST", f"{files}/directories", {"path": f"{tmp_path}/a/b", "parents": True, "mode": "700"}, status=204)
    (tmp_path / "a/file").write_text("x")
    (tmp_path / "a/link").symlink_to("../nowhere")
    listed = {entry["name"]: entry for entry in api.done("GET", f"{files}?{path_query(tmp_path / 'a')}")["entries"]}
    assert {name: entry["type"] for name, entry in listed.items()} == {"b": "directory", "file": "file", "link": "symlink"}
    assert listed["link"]["target"] == "../nowhere" and listed["file"]["size"] == 1 and listed["b"]["mode"] == "0700"
    api.done("POST", f"{files}/move", {"from": f"{tmp_path}/a/file", "to": f"{tmp_path}/a/b/file"}, status=204)
    (tmp_path / "other").write_text("y")
    assert api.refused("POST", f"{files}/move", {"from": f"{tmp_path}/other", "to": f"{tmp_path}/a/b/file"},
                       status=409)["code"] == "conflict"
    api.done("POST", f"{files}/move", {"from": f"{tmp_path}/other", "to": f"{tmp_path}/a/b/file", "replace": True}, status=204)
    assert (tmp_path / "a/b/file").read_text() == "y"
    api.refused("DELETE", f"{files}?{path_query(tmp_path / 'a')}", status=409)
    api.done("DELETE", f"{files}?{path_query(tmp_path / 'a/link')}", status=204)
    api.done("DELETE", f"{files}?{path_query(tmp_path / 'a', recursive='true')}", status=204)
    assert os.listdir(tmp_path) == []
    api.refused("DELETE", f"{files}?{path_query(tmp_path / 'a')}", status=404)


def test_a_link_is_followed_when_it_is_to_be(api, files, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert api.done("GET", f"{files}/stat?{path_query(tmp_path / 'link')}")["type"] == "symlink"
    assert api.done("GET", f"{files}/stat?{path_query(tmp_path / 'link', follow='true')}")["type"] == "file"


def test_trees_go_both_ways_as_tar(api, files, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_bytes(os.urandom(100_000))
    (tmp_path / "in/link").symlink_to("deep")
    packed = api.get(f"{files}/tar?{path_query(tmp_path / 'in')}")
    assert packed.status == 200
    with tarfile.open(fileobj=io.BytesIO(packed.body)) as archive:
        assert sorted(name.removeprefix("./").rstrip("/") for name in archive.getnames() if name.strip("./")) == ["deep",
                                                                                                                  "deep/file",
                                                                                                                  "link"]
    sent = api.done("PUT", f"{files}/tar?{path_query(tmp_path / 'out', parents='true')}", packed.body,
                    headers={"Content-Type": "application/x-tar"})
    assert sent["entries"] >= 3
    assert (tmp_path / "out/deep/file").read_bytes() == (tmp_path / "in/deep/file").read_bytes()
    assert os.readlink(tmp_path / "out/link") == "deep"


def hostile_tar(name, kind=tarfile.REGTYPE, target=""):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
    return packed.getvalue()


NO_TARS = {"above": hostile_tar("../escaped"), "absolute": hostile_tar("/escaped"),
           "above after all": hostile_tar("a/../../escaped"),
           "nonsense": b"nonsense" * 200, "a byte": b"x", "half": hostile_tar("a")[:300]}


@pytest.mark.parametrize("packed", NO_TARS.values(), ids=NO_TARS)
def test_a_tar_that_leads_out_or_is_none_is_refused(api, files, tmp_path, packed):
    (tmp_path / "out").mkdir()
    answer = api("PUT", f"{files}/tar?{path_query(tmp_path / 'out')}", packed, headers={"Content-Type": "application/x-tar"})
    assert answer.status in (200, 400, 409, 502)
    assert not os.path.exists(tmp_path / "escaped") and not os.path.exists("/escaped")
    if answer.status == 200:
        assert b"escaped" in packed, "names are taken below the directory"


PATHS = ["", "relative", "../x", "./x", "a/b", "x" * 5000, "/" + "x" * 300, "/a\0b"]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_paths_that_cannot_be_are_refused(api, files, path):
    for method, place in (("GET", "content"), ("PUT", "content"), ("GET", "stat"), ("GET", "tar"), ("DELETE", "")):
        api.refused(method, f"{files}/{place}?{path_query(path)}".replace("/?", "?"), b"" if method == "PUT" else None,
                    status=NOT_RUN)


def test_errors_of_files_have_their_reasons(api, files, tmp_path):
    missing = path_query(tmp_path / "missing")
    for method, place in (("GET", "/content"), ("GET", "/stat"), ("GET", "/tar"), ("GET", ""), ("DELETE", "")):
        assert api.refused(method, f"{files}{place}?{missing}", status=404)["code"] == "not_found", place
    assert api.refused("GET", f"{files}/content?{path_query(tmp_path)}", status=(400, 409))
    (tmp_path / "file").write_text("x")
    assert api.refused("GET", f"{files}?{path_query(tmp_path / 'file')}", status=(400, 409))


def test_a_file_that_is_a_pipe_is_not_waited_for(api, files, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert api.refused("GET", f"{files}/content?{path_query(tmp_path / 'pipe')}", status=(400, 409, 502))


# Images.

@pytest.fixture
def registry_host(server_host, bed):
    """A server that trusts the registry of the test bed."""
    server_host.environment |= {"SSL_CERT_FILE": str(bed.authority.certificate)}
    server = server_host.serve()
    return Api(Http(server.port, server.key), OpenApi(Http(server.port).get("/v1/openapi.json").json)), server


def test_images_are_listed_and_described(api):
    listed = {entry["reference"]: entry for entry in api.done("GET", "/images")["images"]}
    assert any("python" in name for name in listed)
    [found] = api.done("GET", "/images?reference=base")["images"]
    for name in ("base", found["digest"], found["digest"].partition(":")[2][:12],
                 urllib.parse.quote(found["reference"], safe="")):
        described = api.done("GET", f"/images/{name}")
        assert described["manifest"] == found["manifest"] and described["architecture"] == "amd64"
    api.refused("GET", "/images/nothing-of-that-name", status=404)
    api.refused("GET", "/images/NOT%20A%20REFERENCE", status=(400, 404))


def test_an_image_is_pulled_with_its_progress_and_removed(registry_host, bed, small, proxy):
    api, _ = registry_host
    proxy.on(small.layers[1]["digest"], faults.slow(300_000))
    reference = f"{proxy.address}/{small.name}"
    events = api.streamed("POST", "/images", {"reference": reference})
    assert events[-1]["event"] == "pulled" and events[-1]["image"]["digest"] == small.digest
    progress = [event for event in events if event["event"] == "progress"]
    assert progress and [event["received"] for event in progress] == sorted(event["received"] for event in progress)
    assert api.done("POST", "/images", {"reference": f"{bed.registry.address}/{small.name}"})["digest"] == small.digest
    query = urllib.parse.urlencode({"reference": reference})
    assert api.done("DELETE", f"/images?{query}")["image"]["reference"] == reference
    api.refused("DELETE", f"/images?{query}", status=404)


def test_a_sandbox_of_an_image_that_is_not_here_pulls_it(registry_host, bed, small):
    api, _ = registry_host
    made = api.done("POST", "/sandboxes", {"name": "pulled", "config": {"image": f"{bed.registry.address}/{small.name}"}},
                    status=201)
    assert made["state"] == "running"


def test_a_pull_whose_client_left_is_broken_off(registry_host, server_host, small, proxy):
    api, server = registry_host
    before = len(server_host.processes())
    proxy.on(small.layers[1]["digest"], faults.stall(100_000))
    response, connection = api.open("POST", "/images", {"reference": f"{proxy.address}/{small.name}"})
    response.readline()
    assert len(server_host.processes()) > before
    connection.close()
    response.close()
    wait_until(lambda: len(server_host.processes()) == before, "the pull has ended")
    assert server.process.poll() is None


@pytest.mark.parametrize("body", [{}, {"reference": ""}, {"reference": 1}, {"reference": "NOT AN IMAGE"}, {"reference": "/etc"},
                                  {"reference": "x", "tag": "y"}])
def test_a_pull_that_cannot_be_is_refused(api, body):
    api.refused("POST", "/images", body, status=(400, 403))


def test_a_pull_that_fails_says_why(api):
    for headers in (None, {"Accept": NDJSON}):
        answer = api.post("/images", {"reference": "localhost:1/nothing:1"}, headers=headers)
        if answer.status == 200:
            assert parts_of(NDJSON, answer.body)[-1]["event"] == "failed"
        else:
            assert answer.status == 502 and "localhost:1" in answer.json["error"]["message"]


# Metrics and logs.

def test_metrics_are_told_of_one_and_of_all(api, box, new):
    measured = api.done("GET", f"{box}/metrics")
    assert measured["memory_bytes"] > 0 and measured["processes"] > 0 and measured["problem"] is None
    stopped = new()["name"]
    api.done("POST", f"/sandboxes/{stopped}/stop")
    found = {entry["name"]: entry for entry in api.done("GET", "/metrics")["sandboxes"]}
    assert found["box"]["memory_bytes"] > 0
    assert found[stopped]["memory_bytes"] is None and found[stopped]["state"] == "stopped"
    assert api.done("GET", "/metrics?namespace=nobody")["sandboxes"] == []


def test_a_log_is_told_followed_and_ends(api, new, tmp_path):
    script = f"for i in 1 2 3; do echo $i; done; echo bad >&2; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo last"
    name = new(config={"image": "base", "command": ["sh", "-c", script]})["name"]
    path = f"/sandboxes/{name}/logs"

    def lines(query=""):
        return [event["text"] for event in api.streamed("GET", path + query) if event["event"] == "log"]

    wait_until(lambda: len(lines()) == 4, "it wrote")
    assert [text for text in lines() if text != "bad\n"] == ["1\n", "2\n", "3\n"]
    assert len(lines("?tail=2")) == 2 and lines("?tail=0") == []
    response, connection = api.open("GET", path + "?follow=true&tail=1")
    json.loads(response.readline())
    (tmp_path / "go").touch()
    events = [json.loads(line) for line in response]
    connection.close()
    assert events[0]["text"] == "last\n" and events[-1] == {"event": "end", "state": "stopped"}
    assert lines()[-1] == "last\n", "also when it has ended"


def test_a_log_that_there_is_none_of_is_empty(api, box):
    assert [event["event"] for event in api.streamed("GET", f"{box}/logs")] == ["end"]
    for query in ("?tail=-1", "?tail=x", "?tail=1000001", "?follow=maybe"):
        api.refused("GET", f"{box}/logs{query}")


def test_all_operations_were_asked_for(document):
    """The last one here: nothing of the document was forgotten by these tests."""
    assert set(document.operations) <= document.seen | {("GET", "/v1/images"), ("POST", "/v1/images"), ("DELETE", "/v1/images")}
