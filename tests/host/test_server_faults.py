# SPDX-License-Identifier: Apache-2.0
"""Many clients at a time, sandboxes that die or hang, and what is left of everything."""

import contextlib
import os
import signal
import threading

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import FAILED, Raw, client_of, http_of
from vmm_on_host import marked

pytestmark = needs_root


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

@pytest.mark.parametrize("method", ["sandbox.command.run", "sandbox.repl.run"])
@pytest.mark.parametrize("victim", ["supervisor", "agent"])
def test_a_sandbox_that_dies_during_a_call_ends_it(server_host, tmp_path, method, victim):
    server = server_host.serve()
    client = client_of(server, "doomed")
    client.start(image="python")
    client.run("1")
    begun = tmp_path / "begun"
    params = {"sandbox.command.run": {"command": "sh", "args": ["-c", f"touch {begun}; sleep 1000"]},
              "sandbox.repl.run": {"language": "python", "code": f"import time; open('{begun}', 'w'); time.sleep(1000)"}}[method]
    answers = []
    thread = threading.Thread(target=lambda: answers.append(http_of(server).rpc(method, {"sandbox": "doomed"} | params)))
    thread.start()
    wait_until(begun.exists, "the call is under way")
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
