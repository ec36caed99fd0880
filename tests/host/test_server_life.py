# SPDX-License-Identifier: Apache-2.0
"""The life of a server: how it starts, ends and starts anew, what it finds then, and what its operator allows."""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Client026, Http, Raw
from vmm_on_host import marked

pytestmark = needs_root

FORBIDDEN, FULL, FAILED = 3001, 3002, 5001


def client_of(server, name, **options):
    return Client026(server.url, name, "python", server.key, **options)


def http_of(server):
    return Http(server.port, server.key)


def refusal(answer):
    error = answer.json["error"]
    return answer.status, error["data"]["code"], error["message"]


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
    lines = [json.loads(line) for line in server_host.done("server", "log").splitlines()]
    assert [line["path"] for line in lines if "path" in line] == [f"/asked/{number}" for number in range(3)]
    [last] = server_host.done("server", "log", "-t", "1").splitlines()
    assert json.loads(last)["path"] == "/asked/2"
    follower = server_host.popen("server", "log", "-F", "-t", "0")
    try:
        time.sleep(0.2)  # it has opened the file by then, or shows all the same what comes later
        Http(port).get("/asked/later")
        assert b"/asked/" in follower.stdout.readline()
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
    processes = [server_host.popen("server", "start", "--port", "0", "--detach") for _ in range(6)]
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


# What the operator allows.

@pytest.fixture
def limited(server_host, tmp_path):
    """A server that allows little, and asks for a start."""
    for name in ("allowed/below", "readable", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed/out").symlink_to(tmp_path / "elsewhere")
    server_host.settle(
        allow={"images": ["base", "python:3.12-slim", "localhost:1/me/*"],
               "volumes": [f"{tmp_path}/allowed", f"{tmp_path}/readable:ro"],
               "ports": ["127.0.0.1:20000-20999"], "scope": "local"},
        limits={"sandboxes": 3, "memory": "1G", "cpus": 2, "sandbox_memory": "600M", "disk": "1G", "processes": 100,
                "lifetime": "1h"})
    server = server_host.serve()

    def start(name="it", **config):
        return http_of(server).rpc("sandbox.start", {"sandbox": name, "config": {"image": "base", "disk": "512M"} | config})

    return start


IMAGES = ["python", "node", "docker.io/library/python", "evil.example/base", "evil.example/localhost:1/me/x", "localhost:1/you/x",
          "localhost:1/me",
          "base@sha256:" + "0" * 64, "/", "/etc", "./x", "../x", "~", "~/x", "/tmp", "oci:/etc", "file:///etc",
          "sha256:" + "0" * 64, "abcdef012345"]


@pytest.mark.parametrize("image", IMAGES)
def test_images_that_are_not_allowed_are_refused_by_the_rule(limited, image):
    answer = limited(image=image)
    status, code, said = refusal(answer)
    assert status in (400, 403, 502), answer
    if status == 403:
        assert code == FORBIDDEN and ("images" in said or "directory" in said or "digest" in said)
    assert status == 403 or image in ("~", "~/x", "oci:/etc", "file:///etc", "base@sha256:" + "0" * 64, IMAGES[4])


@pytest.mark.parametrize("image", ["base", "docker.io/library/base", "python:3.12-slim"])
def test_images_that_are_allowed_are_whatever_they_are_called(limited, image):
    assert limited(image=image).status == 200


VOLUMES = ["{tmp}/elsewhere:/x", "/etc:/x", "/:/x", "{tmp}/allowed/../elsewhere:/x", "{tmp}/allowed/out:/x", "{tmp}/allowedx:/x",
           "{tmp}:/x", "{tmp}/readable:/x",
           "/proc/self/root/etc:/x", "/proc/1/root:/x", "/dev/fd/0:/x", "allowed:/x", "./allowed:/x", "~:/x", "../x:/x",
           "/etc/passwd:/x", "{tmp}/allowed/../../..:/x",
           "{home}:/x", "{home}/server:/x"]


@pytest.mark.parametrize("volume", VOLUMES)
def test_volumes_that_are_not_allowed_are_refused_by_the_rule(limited, server_host, tmp_path, volume):
    answer = limited(volumes=[volume.format(tmp=tmp_path, home=server_host.home)])
    status, _, said = refusal(answer)
    assert status in (400, 403), answer
    assert "volume" in said
    assert str(tmp_path / "elsewhere") not in said or "/elsewhere:" in volume, "where a link leads is not told"
    assert server_host.running() == []


@pytest.mark.parametrize("volume", ["{tmp}/allowed:/x", "{tmp}/allowed/below:/x", "{tmp}/allowed:/x:ro", "{tmp}/readable:/x:ro",
                                    "{tmp}/allowed/below/../below:/x"])
def test_volumes_that_are_allowed_are_taken(limited, tmp_path, volume):
    assert limited(volumes=[volume.format(tmp=tmp_path)]).status == 200


def test_without_settings_no_volume_is_allowed(server_host):
    server = server_host.serve()
    for volume in ("/tmp:/x", "/etc/hostname:/x", f"{server_host.project}:/x"):
        status, code, said = refusal(http_of(server).rpc("sandbox.start",
                                                         {"sandbox": "x", "config": {"image": "base", "volumes": [volume]}}))
        assert (status, code) == (403, FORBIDDEN) and "volumes" in said


@pytest.mark.parametrize("port", ["22:80", "19999:80", "21000:80", "0.0.0.0:20000:80", "192.168.1.1:20000:80", "[::1]:20000:80",
                                  "127.0.0.2:20000:80", "0.0.0.0:0:80",
                                  "80", "::80"])
def test_ports_that_are_not_allowed_are_refused_by_the_rule(limited, port):
    status, code, said = refusal(limited(ports=[port]))
    assert status in (400, 403) and "port" in said
    assert status == 400 or code == FORBIDDEN and "ports" in said


@pytest.mark.parametrize("name, value, rule", [
    ("memory", 601, "sandbox_memory"), ("memory", "601M", "sandbox_memory"), ("cpus", 3, "cpus"), ("cpus", 2.5, "cpus"),
    ("disk", "2G", "disk"),
    ("processes", 101, "processes"), ("timeout", "2h", "lifetime"), ("scope", "public", "scope"), ("scope", "any", "scope")])
def test_what_is_beyond_a_limit_is_refused_by_the_rule(limited, name, value, rule):
    status, code, said = refusal(limited(**{name: value}))
    assert (status, code) == (403, FORBIDDEN) and rule in said, said


def test_what_all_have_together_is_bounded(server_host):
    server_host.settle(limits={"sandboxes": 3, "memory": "1G"})
    server = server_host.serve()
    ask = http_of(server)

    def start(name, memory):
        return ask.rpc("sandbox.start", {"sandbox": name, "config": {"image": "base", "memory": memory}})

    assert start("one", 400).status == start("two", 500).status == 200
    answer = start("three", 200)
    status, code, said = refusal(answer)
    assert (status, code) == (429, FULL) and "memory" in said and int(answer.headers["Retry-After"]) > 0
    assert start("three", 100).status == 200
    status, code, said = refusal(start("four", 100))
    assert (status, code) == (429, FULL) and "sandboxes" in said
    ask.result("sandbox.stop", sandbox="two")
    assert start("four", 100).status == 200


def test_of_what_is_refused_nothing_is_kept(limited, server_host):
    for config in ({"image": "node"}, {"volumes": ["/etc:/x"]}, {"ports": ["22:80"]}, {"memory": 5000}):
        assert limited(**config).status == 403
    assert server_host.kept() == [] and server_host.running() == []


# Many at a time.

def test_sixteen_that_are_made_at_a_time_all_run(server_host):
    server = server_host.serve()
    answers = {}

    def start(number):
        answers[number] = http_of(server).rpc("sandbox.start",
                                              {"sandbox": f"s{number}", "config": {"image": "base", "ports": ["0:80"]}})

    threads = [threading.Thread(target=start, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number].status for number in range(16)] == 16 * [200], answers
    assert len(server_host.running()) == 16
    assert len(http_of(server).result("sandbox.metrics.get")["sandboxes"]) == 16


def test_one_that_many_start_at_a_time_is_started_once(server_host):
    server = server_host.serve()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client_of(server, "same").start(image="base"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == 8 * ["Sandbox same started successfully"]
    assert server_host.running() == ["same"]


def test_starts_and_stops_that_race_end_in_order(server_host):
    server = server_host.serve()
    client_of(server, "race").start(image="base")

    def work(number):
        with contextlib.suppress(RuntimeError):
            (client_of(server, "race").start if number % 2 else client_of(server, "race").stop)()

    threads = [threading.Thread(target=work, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client_of(server, "race").stop()
    assert server_host.running() == [] and len(server_host.processes()) == 1, "the server alone"


# A sandbox that dies.

CALLS = {"sandbox.command.run": {"command": "sleep", "args": ["1000"]},
         "sandbox.repl.run": {"language": "python", "code": "import time; time.sleep(1000)"}}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("victim", ["supervisor", "agent"])
def test_a_sandbox_that_dies_during_a_call_ends_it(server_host, method, victim):
    server = server_host.serve()
    client = client_of(server, "doomed")
    client.start(image="python")
    client.run("1")
    before = len(server_host.processes())
    answers = []
    thread = threading.Thread(target=lambda: answers.append(http_of(server).rpc(method, {"sandbox": "doomed"} | CALLS[method])))
    thread.start()
    if method == "sandbox.command.run":
        wait_until(lambda: len(server_host.processes()) > before, "the command runs")
    else:
        time.sleep(0.2)
    supervisor = server_host.supervisor("doomed")
    os.kill(supervisor if victim == "supervisor" else agent_of(supervisor), signal.SIGKILL)
    thread.join(20)
    [answer] = answers
    if "error" in answer.json:
        assert answer.status == 502 and answer.json["error"]["data"]["code"] == FAILED, answer
    else:
        assert answer.json["result"]["status"] == "error" and "the sandbox" in answer.text, answer
    assert http_of(server).get("/api/v1/health").status == 200
    if victim == "supervisor":
        wait_until(lambda: not client.metrics()["running"], "the server knows")
        client.start(image="python")
        assert client.run("2").output() == "2"


def agent_of(supervisor):
    with open(f"/proc/{supervisor}/task/{supervisor}/children") as children:
        [agent] = children.read().split()
    return int(agent)


def test_a_sandbox_that_dies_at_the_first_call_is_an_error_and_not_a_hang(server_host):
    server = server_host.serve()
    for method, params in {"sandbox.command.run": {"command": "true"},
                           "sandbox.repl.run": {"language": "python", "code": "1"}}.items():
        assert http_of(server).result("sandbox.start", sandbox="die-soon", config={"image": "base"})
        answer = http_of(server).rpc(method, {"sandbox": "die-soon"} | params)
        assert answer.status in (409, 502), answer
        wait_until(lambda: server_host.running() == [], "it has ended")
    http_of(server).result("sandbox.start", sandbox="die-soon", config={"image": "base"})
    assert http_of(server).rpc("sandbox.metrics.get", {"sandbox": "die-soon"}).status in (200, 502)


def test_a_sandbox_that_hangs_does_not_keep_others_waiting(server_host):
    server = server_host.serve()
    for name in ("stuck", "fine"):
        client_of(server, name).start(image="base")
    agent = agent_of(server_host.supervisor("stuck"))
    os.kill(agent, signal.SIGSTOP)
    try:
        thread = threading.Thread(target=lambda: http_of(server).rpc("sandbox.metrics.get", {"sandbox": "stuck"}))
        thread.start()
        assert client_of(server, "fine").command("true").success
        found = {entry["name"]: entry for entry in http_of(server).result("sandbox.metrics.get")["sandboxes"]}
        assert found["fine"]["memory_usage"] > 0 and found["stuck"]["memory_usage"] is None
    finally:
        os.kill(agent, signal.SIGCONT)
    thread.join()
    assert client_of(server, "stuck").command("true").success


# What is left.

def sockets(pid):
    """Of those that a process has: their numbers."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/{pid}/fd/{entry}")
            if name.startswith("socket:"):
                found[name] = entry
    return set(found)


def test_what_the_server_starts_gets_none_of_its_sockets(server_host):
    """A sandbox's supervisor outlives it, and whoever listens at its port then would be asked in its place."""
    server = server_host.serve()
    with Raw(server.port, b"GET "):
        client_of(server, "web").start(image="base")
        assert not sockets(server.process.pid) & sockets(server_host.supervisor("web"))
    port = server.port
    server.stop()
    with pytest.raises(OSError):
        Raw(port)
    assert server_host.serve(port=port).port == port


def test_of_everything_nothing_is_left(server_host):
    server = server_host.serve()
    client_of(server, "warm").start(image="base")
    client_of(server, "warm").stop()
    http_of(server)("DELETE", "/v1/sandboxes/warm")

    def state():
        files = sorted(str(path.relative_to(server_host.home)) for path in server_host.home.rglob("*"))
        return files, server_host.runtime_files(), len(server_host.processes())

    before, descriptors = state(), server.descriptors()
    for name in ("one", "fail-two", "three"):
        with contextlib.suppress(RuntimeError):
            client = client_of(server, name)
            client.start(image="python")
            client.run("1")
            client.command("true")
            client.metrics()
            if name == "three":
                client.stop()
        http_of(server)("DELETE", f"/v1/sandboxes/{name}")
    wait_until(lambda: state() == before and server.descriptors() <= descriptors, "all is as it was")
    assert len(marked(f"MSB_TEST_BED={server_host.mark}")) == 1
