# SPDX-License-Identifier: Apache-2.0
"""What attacks on the server have found: each test is one of them, and says what was wrong."""

import json
import os
import signal
import threading
import time

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Http, Raw, http_of

pytestmark = needs_root
BASE = {"config": {"image": "base"}}


def together(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def request(server, method, path, body=b"", key=None, **fields):
    """The bytes of one."""
    lines = {"Host": "localhost", "Authorization": f"Bearer {key or server.key}", "Content-Type": "application/json",
             "Content-Length": len(body)} | {name.replace("_", "-"): value for name, value in fields.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


# Several programs with one home.

def test_what_runs_has_a_record_whoever_removes_it_meanwhile(server_host, agents):
    """The record is written before the start takes the lock for good. One that is removed in between runs without a record:
    no other program sees it, none can remove it, no limit counts it, and its name is of no use."""
    starter, *removers = agents(), agents(), agents()
    for _ in range(40):
        together(lambda: starter.call("sandbox_start", sandbox="x", **BASE),
                 *[lambda one=one: one.call("sandbox_remove", sandbox="x") for one in removers])
        assert server_host.running() in ([], ["x"])
        if server_host.running() == ["x"]:
            assert server_host.kept() == ["default/x"]
        starter.call("sandbox_stop", sandbox="x")


def test_who_comes_too_late_to_make_one_leaves_it_to_who_made_it(server_host, agents):
    """Of two programs that make a sandbox of the same name, the one that found it locked cleared away "what it had made": the
    other's directory, whose sandbox then ran without a record, or whose files were gone."""
    server = server_host.serve()
    makers = [agents() for _ in range(3)]
    for _ in range(25):
        together(*[lambda one=one: one.call("sandbox_start", sandbox="x", **BASE) for one in makers],
                 lambda: http_of(server).post("/v1/sandboxes", {"name": "x"} | BASE))
        assert server_host.running() == ["x"]
        assert server_host.kept() == ["default/x"]
        makers[0].call("sandbox_remove", sandbox="x")
        wait_until(lambda: server_host.running() == [], "it has ended")


def test_sandboxes_that_are_removed_at_a_time_are_all_removed(server_host):
    """Whoever takes the lock of one clears away what removals left behind, and took what others were removing just then for
    that: five of six removals failed, as an error of the server, with a path of this host."""
    server = server_host.serve()
    answers = []

    def work(name):
        for _ in range(5):
            answers.append(http_of(server).post("/v1/sandboxes", {"name": name} | BASE))
            answers.append(http_of(server)("DELETE", f"/v1/sandboxes/{name}"))

    together(*[lambda name=name: work(name) for name in "abcdefgh"])
    assert [answer for answer in answers if answer.status not in (201, 204)] == []


def test_an_idempotency_key_gives_no_sandbox_that_another_program_removed(server_host, agents):
    """create() looks for the key among what it knows, and did not look whether that is there still."""
    server = server_host.serve()
    first = http_of(server).post("/v1/sandboxes", BASE, headers={"Idempotency-Key": "once"}).json
    assert not agents().call("sandbox_remove", sandbox=first["name"])[1]
    wait_until(lambda: server_host.running() == [], "it has ended")
    again = http_of(server).post("/v1/sandboxes", BASE, headers={"Idempotency-Key": "once"})
    if again.status == 201:
        assert http_of(server).get(f"/v1/sandboxes/{again.json['name']}").status == 200
    else:
        assert again.status == 409, again


def test_what_another_program_starts_does_not_run_before_it_does(server_host, agents):
    """Whatever has a supervisor was taken for running, also while it boots."""
    server = server_host.serve()
    agent = agents()
    thread = threading.Thread(target=lambda: http_of(server).post("/v1/sandboxes", {"name": "hang-up"} | BASE))
    thread.start()
    wait_until(lambda: list(server_host.runtime.glob("microsandbox/*/control")), "it has a supervisor that answers")
    assert http_of(server).get("/v1/sandboxes/hang-up").json["state"] == "starting"
    seen = [agent.states().get("hang-up") for _ in range(20)]
    agent.call("sandbox_remove", sandbox="hang-up")
    thread.join()
    assert "running" not in seen


def test_one_whose_supervisor_did_not_answer_once_is_found_when_it_does(server_host, agents):
    """A look that had no answer in 10 s left it as one that runs and has no agent, until its end: "the sandbox is running"."""
    server = server_host.serve()
    assert not agents().call("sandbox_start", sandbox="slow", **BASE)[1]
    supervisor = server_host.supervisor("slow")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        http_of(server).get("/v1/sandboxes/slow")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    answer = http_of(server).post("/v1/sandboxes/slow/exec", {"command": ["true"]})
    assert answer.status == 200, answer


def test_an_ephemeral_one_goes_with_its_agent_also_when_nobody_had_seen_it(server_host, agents):
    """Its end was seen by those who had seen it run, and by what starts: a server that looked later listed it as stopped."""
    server = server_host.serve()
    agent = agents()
    assert not agent.call("sandbox_start", sandbox="own", ephemeral=True, **BASE)[1]
    agent.process.kill()
    wait_until(lambda: server_host.running() == [], "it has ended with its agent")
    http_of(server).get("/v1/sandboxes")
    wait_until(lambda: server_host.kept() == [], "nothing of it is kept")


def test_a_start_that_its_server_did_not_see_the_end_of_is_none_that_runs(server_host):
    """Who starts one ends it after 60 s without a sign of life. The next server took it for running, without end."""
    first = server_host.serve()
    with Raw(first.port, request(first, "POST", "/v1/sandboxes", json.dumps({"name": "hang-up"} | BASE).encode())):
        wait_until(lambda: list(server_host.runtime.glob("microsandbox/*/control")), "it has a supervisor that answers")
        first.kill()
    second = server_host.serve(key=False)
    second.key = first.key
    assert http_of(second).get("/v1/sandboxes/hang-up").json["state"] != "running"


# What keys and the operator allow.

def test_what_the_operator_allows_no_more_is_not_started(server_host):
    """What a sandbox is was held against the settings when it was made, and of a later start its volumes alone."""
    first = server_host.serve()
    made = {"name": "large", "config": {"image": "base", "memory": 4096, "ports": ["0:8000"]}}
    assert http_of(first).post("/v1/sandboxes", made).status == 201
    http_of(first).post("/v1/sandboxes/large/stop")
    first.stop()
    server_host.settle(allow={"images": ["python"], "ports": []}, limits={"sandbox_memory": "1G"})
    second = server_host.serve(key=False)
    second.key = first.key
    answer = http_of(second).post("/v1/sandboxes/large/start")
    assert answer.status == 403, answer


def test_a_key_s_lifetime_is_that_of_what_it_starts(server_host):
    """It was that of what it makes: a sandbox that somebody else had made ran without end."""
    server = server_host.serve()
    http_of(server).post("/v1/sandboxes", {"name": "shared"} | BASE)
    http_of(server).post("/v1/sandboxes/shared/stop")
    short = Http(server.port, server_host.keygen("--max-lifetime", "1s")["key"])
    if short.post("/v1/sandboxes/shared/start").status == 200:
        wait_until(lambda: server_host.running() == [], "its time is over", seconds=10)


def test_a_key_s_number_of_sandboxes_counts_what_it_starts(server_host):
    """What others had made was counted as theirs, so that a key for one could start any number."""
    server = server_host.serve()
    for name in ("one", "two", "three"):  # each of another key
        Http(server.port, server_host.keygen()["key"]).post("/v1/sandboxes", {"name": name} | BASE)
        http_of(server).post(f"/v1/sandboxes/{name}/stop")
    few = Http(server.port, server_host.keygen("--max-sandboxes", "1")["key"])
    answers = [few.post(f"/v1/sandboxes/{name}/start").status for name in ("one", "two", "three")]
    assert answers.count(200) <= 1, answers


def follow(server, process, key=None):
    return Raw(server.port, request(server, "GET", f"/v1/sandboxes/s/processes/{process}/output?follow=true", key=key,
                                    Connection="close"))


@pytest.fixture
def ticking(server_host):
    """A server with a process of a sandbox that writes all the time, and its number."""
    server = server_host.serve()
    http_of(server).post("/v1/sandboxes", {"name": "s"} | BASE)
    started = http_of(server).post("/v1/sandboxes/s/processes",
                                   {"command": ["sh", "-c", "while :; do echo tick; sleep 0.1; done"]})
    return server, started.json["id"]


def test_a_read_only_key_takes_no_process_from_who_follows_it(server_host, ticking):
    """There is one follower at a time, and to follow is a GET: who may only look ended the stream of who uses it."""
    server, process = ticking
    looks = server_host.keygen("--read-only")["key"]
    with follow(server, process) as user:
        user.head()
        with follow(server, process, looks) as other:
            other.head()
            received = b""
            while received.count(b"tick") < 10 and (piece := user.receive()):
                received += piece
    assert b"detached" not in received


def test_streams_of_a_key_end_when_it_is_revoked(server_host, ticking):
    """docs/server.md: it counts at once. What was open went on without end."""
    server, process = ticking
    made = server_host.keygen()
    with follow(server, process, made["key"]) as stream:
        stream.head()
        server_host.done("server", "revoke", made["id"])
        deadline = time.monotonic() + 5
        while stream.receive():
            assert time.monotonic() < deadline, "it goes on"


def test_what_a_key_waits_for_ends_when_it_is_revoked(server_host, tmp_path):
    """The same of a request that has no answer yet: it gets one that says why."""
    server = server_host.serve()
    http_of(server).post("/v1/sandboxes", {"name": "s"} | BASE)
    made = server_host.keygen()
    command = json.dumps({"command": ["sh", "-c", f"touch {tmp_path}/begun; sleep 1000"]}).encode()
    with Raw(server.port, request(server, "POST", "/v1/sandboxes/s/exec", command, made["key"])) as raw:
        wait_until((tmp_path / "begun").exists, "it runs")
        server_host.done("server", "revoke", made["id"])
        status, fields, _ = raw.answer()
        assert status == 401 and fields["connection"] == "close"


# Requests.

def test_bodies_of_many_that_stall_have_a_bound_together(server_host):
    """Each had one, of 32 MiB: a key that may only look could have the server hold that a thousand times."""
    server = server_host.serve()
    whole, small = 32 << 20, 64 << 10  # the last is of each what does not count

    def ask(size):
        with Raw(server.port, request(server, "POST", "/mcp", b" " * size)) as raw:
            return raw.answer()

    stalled = [Raw(server.port, request(server, "POST", "/mcp", Content_Length=whole)) for _ in range(8)]
    try:
        for raw in stalled:
            raw.send(bytes(whole - 1))
        wait_until(lambda: ask(small + (1 << 20))[0] == 429, "all of it has come")
        status, fields, _ = ask(small + (1 << 20))
        assert status == 429 and int(fields["retry-after"]) > 0
        assert ask(small)[0] == 400, "a small one is read, which is no JSON"
    finally:
        for raw in stalled:
            raw.socket.close()
    wait_until(lambda: ask(small + (1 << 20))[0] == 400, "there is room again")


def test_names_that_are_long_and_alike_hold_up_nobody(server_host):
    """Each member is looked for among all before it: 4,000 names of 8 KB each took the server 6 s and more, in which it did
    nothing else. A key that may only look is enough."""
    server = server_host.serve()
    names = json.dumps({"a" * 7900 + f"{number:05}": 0 for number in range(4000)}).encode()
    looks = server_host.keygen("--read-only")["key"]
    with Raw(server.port, request(server, "POST", "/mcp", names, looks), timeout=60) as raw:
        begun = time.monotonic()
        assert raw.answer()[0] == 400
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("path", ["content?path={}/sent", "tar?path={}"])
def test_who_sends_a_file_learns_at_once_that_the_sandbox_has_ended(server_host, tmp_path, path):
    """What the sandbox said was looked at when the client's next bytes had come, or after 30 s."""
    server = server_host.serve()
    http_of(server).post("/v1/sandboxes", {"name": "s"} | BASE)
    target = f"/v1/sandboxes/s/files/{path.format(tmp_path)}"
    head = request(server, "PUT", target, Content_Length=1_000_000, Expect="100-continue")
    with Raw(server.port, head, timeout=10) as raw:
        assert raw.head()[0] == 100, "the sandbox is ready for it"
        raw.send(b"x")
        os.kill(server_host.supervisor("s"), signal.SIGKILL)
        status, _, _ = raw.answer()
        assert status == 502


def test_who_writes_to_a_process_learns_at_once_that_the_sandbox_has_ended(server_host):
    """The same of standard input."""
    server = server_host.serve()
    http_of(server).post("/v1/sandboxes", {"name": "s"} | BASE)
    process = http_of(server).post("/v1/sandboxes/s/processes", {"command": ["cat"], "input": True}).json["id"]
    head = request(server, "POST", f"/v1/sandboxes/s/processes/{process}/stdin", Content_Type="application/octet-stream",
                   Content_Length=1_000_000, Expect="100-continue")
    with Raw(server.port, head, timeout=10) as raw:
        assert raw.head()[0] == 100, "the process is ready for it"
        raw.send(b"x")
        os.kill(server_host.supervisor("s"), signal.SIGKILL)
        assert raw.answer()[0] == 502


@pytest.mark.parametrize("name, others", [("MCP-Protocol-Version", ["2026-07-28", "2025-06-18"]),
                                          ("Mcp-Method", ["tools/call", "tools/list"]),
                                          ("Mcp-Name", ["sandbox_list", "sandbox_remove"])])
def test_a_field_that_says_two_things_of_a_modern_message_is_refused(server_host, name, others):
    """The first one counted, and whoever is in between and goes by the last one was led astray."""
    server = server_host.serve()
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                       "params": {"name": "sandbox_list", "arguments": {}, "_meta": meta}}).encode()
    fields = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "sandbox_list"} | {
        name: f"{others[0]}\r\n{name}: {others[1]}"}
    with Raw(server.port, request(server, "POST", "/mcp", body, Accept="application/json", **fields)) as raw:
        assert raw.answer()[0] == 400
