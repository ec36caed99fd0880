# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC of microsandbox 0.2: who may ask, and what is said to those that do it wrong."""

import itertools
import json

import pytest
from server_bed import needs_root
from server_clients import BAD_KEY, INVALID, NO_KEY, NOT_FOUND, Http

pytestmark = needs_root

METHODS = ["sandbox.start", "sandbox.stop", "sandbox.metrics.get", "sandbox.repl.run", "sandbox.command.run"]
numbers = itertools.count()


# Who may.

def test_health_is_for_everyone(server):
    for method in ("GET", "HEAD"):
        answer = Http(server.port)(method, "/api/v1/health")
        assert answer.status == 200
    assert Http(server.port).get("/api/v1/health").json == {"message": "Service is healthy"}


def unauthorized(answer, code):
    assert (answer.status, answer.json["error"]["data"]["code"]) == (401, code), answer
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/api/v1/rpc", "/api/v1/sandbox/start", "/api/v1/sandbox/stop", "/api/v1/sandbox/command/run",
                                  "/api/v1/nothing", "/mcp"])
def test_everything_else_takes_a_key(server, path):
    body = {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {}, "id": 1}
    unauthorized(Http(server.port).post(path, body), NO_KEY)
    for wrong in ("msb_00000000_" + "A" * 43, server.key + "x", server.key[:-1], "x", "Bearer", "ü", "x" * 10_000):
        unauthorized(Http(server.port).post(path, body, headers={"Authorization": f"Bearer {wrong}".encode()}), BAD_KEY)


def test_a_key_may_be_shown_in_each_of_the_ways_of_the_0_2_line(server):
    ask = Http(server.port)
    for headers in ({"Authorization": f"Bearer {server.key}"}, {"Authorization": server.key},
                    {"Authorization": f"bearer  {server.key}"},
                    {"Proxy-Authorization": f"Bearer {server.key}"}, {"Proxy-Authorization": server.key},
                    {"Proxy-Authorization": server.key, "Authorization": "Bearer wrong"}):
        assert ask.post("/api/v1/rpc", {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "id": 1},
                        headers=headers).status == 200
    unauthorized(ask.post("/api/v1/rpc", {}, headers={"Proxy-Authorization": "wrong", "Authorization": server.key}), BAD_KEY)


def test_a_key_in_the_query_is_none(server):
    unauthorized(Http(server.port).post(f"/api/v1/rpc?key={server.key}&authorization={server.key}", {}), NO_KEY)


# Requests that are none.

def shape(answer, code, status, number=INVALID):
    """The one shape that errors have."""
    document = answer.json
    assert answer.status == status, answer
    assert set(document) == {"jsonrpc", "error", "id"} and document["jsonrpc"] == "2.0"
    error = document["error"]
    assert set(error) == {"code", "message", "data"}
    assert (error["code"], error["data"]["code"]) == (code, number), error
    assert error["message"] and not error["message"].endswith("."), error
    assert answer.headers["Content-Type"].startswith("application/json")
    return error["message"]


def test_an_unknown_method_is_told_with_the_one_that_may_be_meant(http):
    said = shape(http.rpc("sandbox.strat", {"sandbox": "x"}), -32601, 404, NOT_FOUND)
    assert "sandbox.strat" in said and "sandbox.start" in said
    for method in ("", "sandbox", "rpc.discover", "sandbox.list", "tools/list", "x" * 100_000, "\0", "ü"):
        shape(http.rpc(method), -32601, 404, NOT_FOUND)


@pytest.mark.parametrize("version", ["1.0", "", "2", 2.0, 2, None, ["2.0"], {}])
def test_another_version_is_refused(http, version):
    shape(http.rpc("sandbox.metrics.get", jsonrpc=version), -32600, 400)


def test_a_missing_version_is_refused(http):
    shape(http.post("/api/v1/rpc", {"method": "sandbox.metrics.get", "params": {}, "id": 1}), -32600, 400)


@pytest.mark.parametrize("method", [None, 1, ["sandbox.stop"], {}, True])
def test_a_method_that_is_no_text_is_refused(http, method):
    shape(http.rpc(method), -32600, 400)


def test_batches_are_refused(http):
    one = {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {}, "id": 1}
    for batch in ([], [one], [one, one], [1]):
        assert "batch" in shape(http.post("/api/v1/rpc", batch), -32600, 400)


@pytest.mark.parametrize("identity", ["a", "", 0, -1, 2**53, 1.5, None, "ü☃", "x" * 1000])
def test_an_answer_has_the_id_of_its_request(http, identity):
    assert http.rpc("sandbox.metrics.get", id=identity).json["id"] == identity
    assert http.rpc("sandbox.nothing", id=identity).json["id"] == identity
    assert http.rpc("sandbox.stop", {"sandbox": "nobody"}, id=identity).json["id"] == identity


def test_a_request_without_an_id_is_answered_with_none(http):
    answer = http.post("/api/v1/rpc", {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {}})
    assert answer.status == 200 and answer.json["id"] is None and "result" in answer.json


@pytest.mark.parametrize("identity", [{}, [], [1]])
def test_an_id_that_is_none_is_refused(http, identity):
    assert http.rpc("sandbox.metrics.get", id=identity).json["id"] is None
    shape(http.rpc("sandbox.metrics.get", id=identity), -32600, 400)


BROKEN = [b"", b"{", b"nonsense", b"{'a': 1}", b'{"jsonrpc": "2.0"', b"\xff\xfe", b"\0", b"NaN", b'{"a": NaN}', b'{"a": 1e}',
          b"[1,]",
          b"{} {}", b'{"a": "\x01"}', b"[" * 100_000, b'{"a":' * 1000, b'"\\ud800"', b"\xef\xbb\xbf{", b"//",
          b'{"id": 1' + b"0" * 400 + b"}x"]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_json_is_refused(http, body):
    answer = http.post("/api/v1/rpc", body, headers={"Content-Type": "application/json"})
    assert answer.status == 400 and answer.json["error"]["code"] in (-32700, -32600), answer
    assert answer.json["id"] is None


@pytest.mark.parametrize("document", [1, "text", None, True, 1.5, {}, {"jsonrpc": "2.0"}])
def test_json_that_is_no_request_is_refused(http, document):
    answer = http.post("/api/v1/rpc", json.dumps(document).encode(), headers={"Content-Type": "application/json"})
    shape(answer, -32600, 400)


def test_numbers_beyond_all_measure_do_no_harm(http):
    for number in (b"1" * 400, b"-" + b"9" * 30, b"1e400", b"1e-400", b"-0", b"0.1e1"):
        for member in (b'"id": %s', b'"params": {"sandbox": "x", "timeout": %s}', b'"params": %s'):
            body = b'{"jsonrpc": "2.0", "method": "sandbox.stop", ' + member % number + b"}"
            answer = http.post("/api/v1/rpc", body)
            assert 400 <= answer.status < 500 and "error" in answer.json, (body, answer)


WRONG = {"text": [1, 1.5, True, [], {}, ["a"]], "number": ["1", "", True, [], {}, -1, 0, 1e30],
         "list": ["a", 1, True, {}, [1], [None], [[]]],
         "object": ["a", 1, True, [], ["a"]]}
PARAMETERS = [("sandbox.start", {"sandbox": "text", "namespace": "text", "config": "object"}),
              ("sandbox.stop", {"sandbox": "text", "namespace": "text"}),
              ("sandbox.metrics.get", {"sandbox": "text", "namespace": "text"}),
              ("sandbox.repl.run", {"sandbox": "text", "namespace": "text", "language": "text", "code": "text",
                                    "timeout": "number"}),
              ("sandbox.command.run", {"sandbox": "text", "namespace": "text", "command": "text", "args": "list",
                                       "timeout": "number"})]
GOOD = {"sandbox": "typed", "language": "python", "code": "1", "command": "true"}


def good_params(parameters):
    return {name: GOOD[name] for name in parameters if name in GOOD}


@pytest.mark.parametrize("method, parameters", PARAMETERS, ids=METHODS)
def test_parameters_of_a_wrong_type_are_refused_by_name(http, method, parameters):
    for name, kind in parameters.items():
        for value in WRONG[kind]:
            said = shape(http.rpc(method, good_params(parameters) | {name: value}), -32602, 400)
            assert name in said, (name, value, said)


@pytest.mark.parametrize("method, parameters", PARAMETERS, ids=METHODS)
def test_parameters_that_are_missing_or_unknown_are_refused_by_name(http, method, parameters):
    good = good_params(parameters)
    for name in set(good) - ({"sandbox"} if method == "sandbox.metrics.get" else set()):
        rest = {other: value for other, value in good.items() if other != name}
        assert name in shape(http.rpc(method, rest), -32602, 400)
    assert "sandbxo" in shape(http.rpc(method, good | {"sandbxo": "x"}), -32602, 400)
    for params in ([], "a", 1, True, ["sandbox"]):
        shape(http.rpc(method, id=1, params=params), -32602, 400)


CONFIG = {"image": "text", "memory": "number", "cpus": "number", "volumes": "list", "ports": "list", "envs": "list",
          "depends_on": "list",
          "workdir": "text", "shell": "text", "scripts": "object", "exec": "text"}


def start_with(http, config):
    """The answer to a start of a new sandbox."""
    body = {"jsonrpc": "2.0", "method": "sandbox.start", "id": 1,
            "params": {"sandbox": f"typed{next(numbers)}", "config": {"image": "base"} | config}}
    return http.post("/api/v1/rpc", body)


@pytest.mark.parametrize("name, kind", CONFIG.items(), ids=CONFIG)
def test_a_config_of_wrong_types_is_refused_by_name(http, shared_host, name, kind):
    before = shared_host.kept()
    for value in WRONG[kind]:
        if (name, value) in (("memory", "1"), ("memory", ""), ("ports", [1])):
            continue  # words of more than the 0.2 line had: "512M", and a number for a port
        said = shape(start_with(http, {name: value}), -32602, 400)
        assert name in said, (value, said)
    assert shared_host.kept() == before


BAD_CONFIG = [("memory", 2**40), ("memory", 1.5), ("cpus", 1e9), ("cpus", 10**400), ("envs", ["NOEQUALS"]), ("envs", ["=x"]),
              ("envs", ["A=\0"]), ("ports", ["http"]), ("ports", ["1:99999"]), ("ports", ["-1:80"]), ("ports", [":"]),
              ("volumes", [""]), ("volumes", [":"]), ("workdir", "relative"), ("workdir", "/a\0b"), ("depends_on", ["other"]),
              ("scripts", {"../x": "echo"}), ("scripts", {"a": 1}), ("image", "NOT AN IMAGE"), ("image", "a" * 5000),
              ("exec", "a\0b"), ("memroy", 512)]


@pytest.mark.parametrize("name, value", BAD_CONFIG, ids=[f"{name}-{number}" for number, (name, _) in enumerate(BAD_CONFIG)])
def test_a_config_that_cannot_be_is_refused(http, shared_host, name, value):
    before = shared_host.kept()
    answer = start_with(http, {name: value})
    assert answer.status == 400 and answer.json["error"]["data"]["code"] == INVALID, answer
    assert shared_host.kept() == before


@pytest.mark.parametrize("name", ["memory", "workdir", "shell", "exec"])
def test_an_empty_text_in_a_config_is_as_none(http, name):
    assert start_with(http, {name: ""}).status == 200


def test_a_path_is_for_its_own_method(http):
    for path, method in (("start", "sandbox.stop"), ("stop", "sandbox.start"), ("command/run", "sandbox.repl.run")):
        request = {"jsonrpc": "2.0", "method": method, "params": GOOD, "id": 1}
        answer = http.post(f"/api/v1/sandbox/{path}", request)
        assert answer.status == 400 and answer.json["error"]["code"] in (-32600, -32602)


def test_paths_that_there_are_not_are_not_found(http):
    for path in ("/api", "/api/v1", "/api/v1/", "/api/v1/rpc/x", "/api/v1/sandbox", "/api/v2/rpc", "/api/v1/sandbox/list"):
        answer = http.post(path, {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "id": 1})
        assert answer.status in (404, 400) and "error" in answer.json, answer
    assert http.get("/nothing").json["error"]["code"] == "not_found"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_calls_come_by_post(http, method):
    answer = http(method, "/api/v1/rpc")
    assert answer.status == 405 and answer.headers["Allow"] == "POST"


def test_a_type_of_content_is_not_asked_for(http):
    body = json.dumps({"jsonrpc": "2.0", "method": "sandbox.metrics.get", "id": 1}).encode()
    for kind in (None, "application/json; charset=utf-8", "text/plain", "application/octet-stream"):
        assert http.post("/api/v1/rpc", body, headers={"Content-Type": kind}).status in (200, 415)
