# SPDX-License-Identifier: Apache-2.0
"""The life of a server: how it starts, ends and starts anew, what it finds then, and what its operator sees."""

import json
import os
import select
import signal
import socket
import threading

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Client026, Http, Raw, client_of, http_of, refusal

pytestmark = needs_root


# Starting and stopping.

def test_a_server_in_the_background_is_found_asked_and_stopped(server_host):
    said = server_host.done("server", "start", "--port", "0", "--detach")
    status = server_host.json("server", "status")
    assert status["running"] is True and status["url"] in said and status["dev"] is False
    assert str(status["pid"]) in server_host.done("server", "status") and status["url"] in server_host.done("server", "status")
    assert Http(int(status["url"].rsplit(":", 1)[1])).get("/api/v1/health").status == 200
    assert "down" in server_host.done("server", "stop")
    assert server_host.processes() == []
    assert server_host("server", "status").returncode == 1
    assert "no server runs" in server_host.refused("server", "stop")


def test_what_a_server_in_the_background_logs_is_shown(server_host):
    server_host.done("server", "start", "--port", "0", "--detach")
    port = int(server_host.json("server", "status")["url"].rsplit(":", 1)[1])
    for number in range(3):
        Http(port).get(f"/asked/{number}")

    def asked():
        lines = [json.loads(line) for line in server_host.done("server", "log").splitlines()]
        return [line["path"] for line in lines if "path" in line]

    # Lines are written once the answers are on their way.
    wait_until(lambda: asked() == [f"/asked/{number}" for number in range(3)], "what was asked is in the log")
    [last] = server_host.done("server", "log", "-t", "1").splitlines()
    assert json.loads(last)["path"] == "/asked/2"
    follower = server_host.start("server", "log", "-F", "-t", "0")

    def follows():
        Http(port).get("/asked/later")
        return select.select([follower.stdout], [], [], 0.05)[0]

    try:
        wait_until(follows, "what comes is shown")
        assert b"/asked/later" in follower.stdout.readline()
    finally:
        follower.kill()
        follower.communicate()
    server_host.done("server", "stop")


def test_a_log_there_is_none_of_is_an_error(server_host):
    assert "--detach" in server_host.refused("server", "log")


def test_a_second_server_is_told_of_the_first(server_host):
    server = server_host.serve()
    for options in ([], ["--detach"]):
        assert server.url in server_host.refused("server", "start", "--port", "0", *options)
    assert http_of(server).get("/api/v1/health").status == 200
    assert server_host.json("server", "status")["pid"] == server.process.pid


def test_many_that_start_at_a_time_become_one_server(server_host):
    processes = [server_host.start("server", "start", "--port", "0", "--detach") for _ in range(6)]
    for process in processes:
        process.communicate(timeout=30)
    assert sorted(process.returncode for process in processes) == [0] + 5 * [1]
    server_host.done("server", "stop")


@pytest.mark.parametrize("options, words", [
    (["--host", "nowhere.invalid"], ["nowhere.invalid"]), (["--host", "192.0.2.1"], ["192.0.2.1"]), (["--host", ""], ["address"]),
    (["--path", "/not/there"], ["/not/there"]),
])
def test_what_cannot_be_served_is_said(server_host, options, words):
    for more in ([], ["--detach"]):
        server_host.refused("server", "start", "--port", "0", *options, *more, words=words)
    wait_until(lambda: server_host.processes() == [], "nothing of it is left")


def test_a_port_that_is_taken_is_said(server_host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for more in ([], ["--detach"]):
            server_host.refused("server", "start", "--port", port, *more, words=[str(port)])


def test_a_server_can_take_the_port_of_the_one_before_at_once(server_host):
    first = server_host.serve()
    port = first.port
    with Raw(port, b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n") as raw:
        raw.answer()
        first.stop()
    second = server_host.serve(port=port)
    assert second.port == port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_in_good_order(server_host, number):
    server = server_host.serve()
    server.process.send_signal(number)
    assert server.process.wait(timeout=10) == 0
    assert server_host("server", "status").returncode == 1


def test_what_was_killed_is_not_taken_for_a_server(server_host):
    server_host.serve().kill()
    assert server_host("server", "status").returncode == 1
    assert server_host.serve().url == server_host.json("server", "status")["url"]


@pytest.mark.parametrize("text, words", [
    ("{", ["server.json"]), ("[]", ["server.json"]), ('{"hostz": []}', ["hostz", "hosts"]), ('{"hosts": "a"}', ["hosts"]),
    ('{"hosts": ["a b"]}', ["hosts", "a b"]), ('{"origins": ["https://a/b"]}', ["origins", "https://a/b"]),
    ('{"allow": {"volumes": ["/not/there"]}}', ["/not/there"]),
    ('{"allow": {"volumes": ["/"]}}', ["volumes"]), ('{"allow": {"volumes": ["data"]}}', ["volumes", "data"]),
    ('{"allow": {"ports": ["80"]}}', ["ports", "80"]),
    ('{"allow": {"scope": "all"}}', ["scope", "all"]), ('{"limits": {"sandboxes": -1}}', ["sandboxes"]),
    ('{"limits": {"memory": "lots"}}', ["memory", "lots"]),
    ('{"limits": {"cpu": 1}}', ["cpu", "cpus"]),
])
def test_settings_that_are_wrong_are_said_by_name(server_host, text, words):
    (server_host.config / "server.json").write_text(text)
    server_host.refused("server", "start", "--port", "0", words=words)


# Starting anew.

def test_a_new_server_finds_what_runs_with_all_that_it_is(server_host):
    first = server_host.serve()
    client = client_of(first, "lasting", namespace="space")
    client.start(image="python", envs=["KEPT=yes"], ports=["0:80"])
    client.run("import os; answer = 42")
    created = http_of(first).post("/v1/sandboxes", {"name": "labelled", "labels": {"a": "b"}, "config": {"image": "base"}})
    assert created.status == 201
    described = http_of(first).get("/v1/sandboxes/labelled").json
    supervisors = {name: server_host.supervisor(name) for name in ("lasting", "labelled")}
    first.stop()
    assert sorted(server_host.running()) == ["labelled", "lasting"], "its sandboxes go on"

    second = server_host.serve(key=False)
    second.key = first.key
    client = client_of(second, "lasting", namespace="space")
    assert client.command("sh", ["-c", "echo $KEPT"]).output() == "yes"
    assert client.run("answer").output() == "42", "its interpreters go on"
    assert http_of(second).get("/v1/sandboxes/labelled").json == described
    assert {name: server_host.supervisor(name) for name in supervisors} == supervisors
    client.stop()
    assert server_host.running() == ["labelled"]


def test_a_server_that_was_killed_leaves_nothing_that_the_next_does_not_find(server_host, tmp_path):
    first = server_host.serve()
    client = client_of(first, "lasting")
    client.start(image="python")
    client.run("answer = 42")
    begun = tmp_path / "begun"
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "sandbox.command.run",
                       "params": {"sandbox": "lasting", "command": "sh", "args": ["-c", f"touch {begun}; sleep 1000"]}})
    with Raw(first.port, f"POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: {first.key}\r\n"
                         f"Content-Length: {len(body)}\r\n\r\n{body}".encode()):
        wait_until(begun.exists, "the command runs")
        before = len(server_host.processes())
        first.kill()
    wait_until(lambda: len(server_host.processes()) <= before - 2, "the command of the killed server has ended")

    second = server_host.serve(key=False)
    client = Client026(second.url, "lasting", "python", first.key)
    assert client.run("answer").output() == "42"
    assert client.metrics()["running"] is True
    client.stop()
    assert server_host.running() == []


def test_what_ended_while_no_server_ran_is_found_as_that(server_host):
    first = server_host.serve()
    client_of(first, "ended").start(image="base")
    http_of(first).post("/v1/sandboxes", {"name": "gone", "ephemeral": True, "config": {"image": "base"}})
    first.kill()
    for name in ("ended", "gone"):
        os.kill(server_host.supervisor(name), signal.SIGKILL)
    wait_until(lambda: server_host.running() == [], "they have ended")
    second = server_host.serve(key=False)
    second.key = first.key
    assert client_of(second, "ended").metrics()["running"] is False
    wait_until(lambda: server_host.kept() == ["default/ended"], "what was ephemeral is removed")
    client_of(second, "ended").start(image="base")
    assert client_of(second, "ended").command("true").success


# The record is written with the lock held, so there is none without it.
@pytest.mark.parametrize("files", [["served.json", "lock"], ["lock"], []], ids=["record and lock", "lock", "nothing"])
def test_what_a_start_has_left_that_was_cut_off_by_a_kill_is_in_nobody_s_way(server_host, files):
    first = server_host.serve()
    client_of(first, "half").start(image="base")
    client_of(first, "half").stop()
    first.kill()
    state = server_host.home / "server/sandboxes/default/half"
    for path in state.iterdir():
        if path.name not in files:
            path.unlink()
    second = server_host.serve(key=False)
    second.key = first.key
    client_of(second, "half").start(image="base")
    assert client_of(second, "half").command("true").success
    second.stop()
    os.kill(server_host.supervisor("half"), signal.SIGKILL)
    wait_until(lambda: server_host.running() == [], "it has ended")
    for path in state.iterdir():
        if path.name not in files:
            path.unlink()
    third = server_host.serve(key=False)
    third.key = first.key
    assert http_of(third)("DELETE", "/v1/sandboxes/half").status == (204 if "served.json" in files else 404)
    assert server_host.kept() == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spec": 1}', '{"spec": {"image": 5}}', "null", "\0" * 100])
def test_a_damaged_record_keeps_no_server_from_starting(server_host, text):
    first = server_host.serve()
    for name in ("good", "bad"):
        client_of(first, name).start(image="base")
        client_of(first, name).stop()
    first.stop()
    record = server_host.home / "server/sandboxes/default/bad/served.json"
    record.write_text(text)
    second = server_host.serve(key=False)
    second.key = first.key
    assert client_of(second, "good").start(image="base") == "Sandbox good started successfully"
    assert "bad" in second.log_path.read_text(), "it is told in the log"
    assert record.read_text() == text, "it is left alone"
    client_of(second, "good").stop()


def test_requests_under_way_come_to_their_end_when_it_stops(server_host, tmp_path):
    server = server_host.serve()
    client_of(server, "busy").start(image="base")
    begun, enough = tmp_path / "begun", tmp_path / "enough"
    answers = []

    def ask():
        script = f"touch {begun}; while [ ! -e {enough} ]; do sleep 0.01; done; echo done"
        answers.append(client_of(server, "busy").command("sh", ["-c", script]))

    thread = threading.Thread(target=ask)
    idle = Raw(server.port)
    thread.start()
    wait_until(begun.exists, "the command runs")
    server.process.send_signal(signal.SIGTERM)
    with idle:
        assert idle.closed(), "who asks nothing is let go"

    def refused():
        try:
            return http_of(server).get("/api/v1/health").status == 503
        except OSError:
            return True

    wait_until(refused, "nothing new is taken")
    assert server.process.poll() is None
    enough.touch()
    thread.join()
    assert answers[0].output() == "done"
    assert server.process.wait(timeout=10) == 0
    assert server_host.running() == ["busy"]


# Its sandboxes, for its operator.

def test_the_operator_sees_and_removes_what_clients_made(server_host):
    server = server_host.serve()
    client_of(server, "one", namespace="a").start(image="base")
    client_of(server, "two").start(image="base")
    client_of(server, "two").stop()
    listed = server_host.json("server", "list")
    assert [(entry["namespace"], entry["name"], entry["running"]) for entry in listed] == [("a", "one", True),
                                                                                           ("default", "two", False)]
    assert "one" in server_host.done("server", "list") and "running" in server_host.done("server", "ls")
    [entry] = server_host.json("ps")
    assert entry["name"] == "one"
    assert server_host.json("server", "status")["sandboxes_running"] == 1
    assert "stop" in server_host.refused("server", "remove", "one", "--namespace", "a")
    assert "one" in server_host.refused("server", "remove", "one")
    server.stop()
    server_host.done("server", "remove", "two")
    assert server_host.kept() == ["a/one"]
    server_host.done("stop", "one")
    server_host.done("server", "rm", "-n", "a", "one")
    assert server_host.kept() == [] and server_host.json("server", "list") == []


def test_a_sandbox_that_the_operator_stops_is_stopped_for_its_clients(server_host):
    server = server_host.serve()
    client = client_of(server, "web")
    client.start(image="base")
    server_host.done("stop", "web")
    wait_until(lambda: not client.metrics()["running"], "the server knows")
    client.start(image="base")
    assert client.command("true").success


def test_sandboxes_of_a_project_are_started_by_name(server_host, tmp_path):
    (tmp_path / "data").mkdir()
    server_host.write(f"sandboxes:\n  web:\n    image: base\n    envs: [WHO=web]\n    volumes: ['{tmp_path}/data:/data']\n"
                      "    ports: ['0:80']\n  later:\n    image: base\n    depends_on: [web]\n")
    server = server_host.serve("--path", server_host.project)
    client = client_of(server, "web")
    assert http_of(server).result("sandbox.start", sandbox="web") == "Sandbox web started successfully"
    assert client.command("sh", ["-c", "echo $WHO"]).output() == "web", "its volumes are the operator's own word"
    status, _, said = refusal(http_of(server).rpc("sandbox.start", {"sandbox": "later"}))
    assert status == 400 and "later" in said
    status, _, said = refusal(http_of(server).rpc("sandbox.start", {"sandbox": "wbe"}))
    assert status == 404 and "web" in said
    assert refusal(http_of(server).rpc("sandbox.start", {"sandbox": "web", "namespace": "other"}))[0] == 404
    # What a client says of it is a client's word.
    client.stop()
    status, _, said = refusal(http_of(server).rpc(
        "sandbox.start", {"sandbox": "web", "config": {"image": "base", "volumes": [f"{tmp_path}/data:/data"]}}))
    assert status == 403 and "volumes" in said
