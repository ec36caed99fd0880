# SPDX-License-Identifier: Apache-2.0
"""The API below /v1: the life of sandboxes, lists, metrics and logs."""

import json
import threading
import urllib.parse

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Http

pytestmark = needs_root


@pytest.fixture(scope="module", autouse=True)
def interpreter_used(api):
    """The path of a sandbox whose interpreter was used when the module began: it takes its time to be idle."""
    path = f"/sandboxes/{api.done('POST', '/sandboxes', {'config': {'image': 'base', 'idle_timeout': 1}}, status=201)['name']}"
    api.done("POST", f"{path}/code", {"language": "shell", "code": "true"})
    return path


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
    ours = {"Idempotency-Key": "once and again!"}
    made = new("once", headers=ours)
    assert new("once", headers=ours) == made
    assert api.refused("POST", "/sandboxes", {"name": "other", "config": {"image": "base"}}, status=409,
                       headers=ours)["code"] == "conflict"
    for wrong in ("x" * 256, "a\tb", "\u00fc".encode()):
        api.refused("POST", "/sandboxes", {"config": {"image": "base"}}, headers={"Idempotency-Key": wrong})


def test_requests_that_race_with_one_idempotency_key_make_one(api, shared_host):
    ours = {"Idempotency-Key": "race"}
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
    paths = {cause: f"/sandboxes/{new(config={'image': 'base'} | limit)['name']}"
             for cause, limit in (("timeout", {"timeout": 1}), ("idle", {"idle_timeout": "1s"}))}
    for cause, path in paths.items():
        wait_until(lambda path=path: api.done("GET", path)["state"] == "stopped", "its time is over")
        assert api.done("GET", path)["exit"]["cause"] == cause


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

def test_one_whose_interpreter_was_used_is_idle_nevertheless(api, interpreter_used):
    """The server lets go of sessions, so that they hold no sandbox that may end."""
    wait_until(lambda: api.done("GET", interpreter_used)["state"] == "stopped", "it was idle", seconds=30)
    assert api.done("GET", interpreter_used)["exit"]["cause"] == "idle"


def test_all_operations_for_sandboxes_were_asked_for(document):
    """The last one here: nothing of the document was forgotten by these tests."""
    assert document.not_seen("sandboxes") == set()
