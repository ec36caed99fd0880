# SPDX-License-Identifier: Apache-2.0
"""Connections: many at a time, clients that go away at any point of a request, and slow ones."""

import json
import os
import resource
import socket
import threading
import time

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Raw
from server_requests import HEALTH, call, command_of, is_healthy, memory, request_of

pytestmark = needs_root

FULL = os.environ.get("MSB_TEST_FULL") == "1"


@pytest.fixture(scope="module")
def many_descriptors(request):
    """Enough for the connections that tests open; the server begins with as few as a shell gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    request.getfixturevalue("server")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module", autouse=True)
def slow_head(many_descriptors, server):
    """A connection on which half a head was sent when the module began."""
    with Raw(server.port, HEALTH[:20], timeout=60) as raw:
        yield raw


@pytest.fixture(scope="module", autouse=True)
def slow_body(many_descriptors, server):
    """A connection on which half a body was sent when the module began."""
    with Raw(server.port, command_of(server, "true")[:-5], timeout=60) as raw:
        yield raw


def test_a_connection_serves_many_requests(server):
    with Raw(server.port) as raw:
        for _ in range(200):
            raw.send(HEALTH)
            assert raw.answer()[0] == 200
        raw.send(HEALTH[:-2] + b"Connection: close\r\n\r\n")
        _, fields, _ = raw.answer()
        assert fields["connection"] == "close" and raw.closed()


def test_requests_that_come_together_are_answered_in_order(server):
    calls = [request_of(server, json.dumps({"jsonrpc": "2.0", "method": "sandbox.nothing", "id": number}).encode())
             for number in range(100)]
    with Raw(server.port, b"".join(calls)) as raw:
        assert [json.loads(raw.answer()[2])["id"] for _ in calls] == list(range(100))


def test_a_command_does_not_hold_up_what_comes_behind_it(server, python):
    with Raw(server.port, command_of(server, "sh", "-c", "sleep 0.2; echo done") + HEALTH) as raw:
        assert b"done" in raw.answer()[2]
        assert raw.answer()[0] == 200


def test_a_thousand_idle_connections_keep_nobody_out(server):
    connections = [Raw(server.port, HEALTH if number % 2 else b"") for number in range(1000)]
    try:
        for _ in range(20):
            assert is_healthy(server)
        assert all(raw.answer()[0] == 200 for raw in connections[1::2])
    finally:
        for raw in connections:
            raw.socket.close()
    wait_until(lambda: server.descriptors() < 100, "they are let go")


def test_of_connections_beyond_the_limit_each_is_told(server):
    connections = []
    try:
        for _ in range(4200):
            connections.append(Raw(server.port))
        raw = connections[-1]
        status, fields = raw.head()
        assert status == 503 and int(fields["retry-after"]) > 0 and fields["connection"] == "close"
        assert json.loads(raw.read_all())["error"]["code"] == "full"
    finally:
        for raw in connections:
            raw.socket.close()
    wait_until(lambda: server.descriptors() < 100, "they are let go")
    assert is_healthy(server)


def test_two_hundred_commands_at_a_time_are_done(server, python):
    connections = [Raw(server.port, command_of(server, "sh", "-c", f"sleep 0.1; echo {number}")) for number in range(200)]
    for number, raw in enumerate(connections):
        with raw:
            status, _, body = raw.answer()
            assert status == 200 and json.loads(body)["result"]["output"][0]["text"] == str(number)


def test_memory_stays_as_it_is_over_ten_thousand_requests(server):
    def ask(times):
        with Raw(server.port) as raw:
            for _ in range(times // 100):
                raw.send(50 * (HEALTH + request_of(server, call("sandbox.nothing"))))
                for _ in range(100):
                    raw.answer()

    ask(3000)
    before = memory(server)
    ask(10_000)
    assert memory(server) < before + (2 << 20)


# Clients that go away.

@pytest.fixture
def nothing_of_it_left(server, http, python, shared_host):
    """After the test the server and the sandbox have what they had before."""
    def is_as_before():
        return server.descriptors() <= descriptors and len(shared_host.processes()) <= processes

    # What is made once: a session, and a connection by which its runs are interrupted.
    http.error("sandbox.repl.run", sandbox="python", language="python", code="while True: pass", timeout=0.01)
    descriptors, processes = server.descriptors(), len(shared_host.processes())
    yield
    wait_until(is_as_before, "nothing of it is left")
    assert is_healthy(server)


@pytest.mark.parametrize("size", [0, 1, 20, 60])
def test_a_client_that_leaves_in_its_head_is_forgotten(server, nothing_of_it_left, size):
    for _ in range(20):
        Raw(server.port, command_of(server, "true")[:size]).socket.close()


def test_a_client_that_leaves_in_its_body_is_forgotten(server, nothing_of_it_left):
    for _ in range(20):
        Raw(server.port, command_of(server, "true")[:-5]).socket.close()


def leave(raw, reset):
    if reset:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.socket.close()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_the_command_of_a_client_that_left_is_killed(server, nothing_of_it_left, tmp_path, reset):
    begun = tmp_path / "begun"
    raw = Raw(server.port, command_of(server, "sh", "-c", f"touch {begun}; sleep 1000 & sleep 1000"))
    wait_until(begun.exists, "it runs")
    leave(raw, reset)


def test_the_command_of_a_client_that_left_while_it_wrote_is_killed(server, nothing_of_it_left, tmp_path):
    begun = tmp_path / "begun"
    raw = Raw(server.port, command_of(server, "sh", "-c", f"echo y; touch {begun}; while :; do echo y; done"))
    wait_until(begun.exists, "it writes")
    raw.socket.close()


def test_a_request_whose_client_left_is_logged(server, python, tmp_path):
    begun = tmp_path / "begun"
    path = "/v1/sandboxes/python/exec"
    body = json.dumps({"command": ["sh", "-c", f"touch {begun}; sleep 1000"]}).encode()
    raw = Raw(server.port, request_of(server, body, "Content-Type: application/json", path=path))
    wait_until(begun.exists, "it runs")
    raw.socket.close()
    wait_until(lambda: [line["status"] for line in server.log() if line.get("path") == path] == [0], "it is logged without an answer")


def test_the_code_of_a_client_that_left_is_interrupted_and_its_session_goes_on(server, python, nothing_of_it_left, tmp_path):
    python.run("survivor = 1")
    begun = tmp_path / "begun"
    code = f"import pathlib, time\npathlib.Path('{begun}').touch()\ntime.sleep(1000)"
    raw = Raw(server.port, request_of(server, call("sandbox.repl.run", sandbox="python", language="python", code=code)))
    wait_until(begun.exists, "it runs")
    raw.socket.close()
    assert python.run("survivor").output() == "1"


def test_the_code_of_a_client_that_left_before_its_turn_never_runs(server, python, nothing_of_it_left, tmp_path):
    begun, never = tmp_path / "begun", tmp_path / "never"
    first = f"import os, time\nopen('{begun}', 'w')\nwhile not os.path.exists('{tmp_path}/enough'): time.sleep(0.01)"
    one = Raw(server.port, request_of(server, call("sandbox.repl.run", sandbox="python", language="python", code=first)))
    wait_until(begun.exists, "the first runs")
    other = Raw(server.port, request_of(server, call("sandbox.repl.run", sandbox="python", language="python",
                                                     code=f"open('{never}', 'w')")))
    for _ in range(5):
        assert is_healthy(server)  # it has been read by then
    other.socket.close()
    assert is_healthy(server)
    (tmp_path / "enough").touch()
    with one:
        assert one.answer()[0] == 200
    assert python.run("2").output() == "2"
    assert not never.exists()


def test_a_start_whose_client_left_is_carried_out(server, http, shared_host):
    raw = Raw(server.port, request_of(server, call("sandbox.start", sandbox="left", config={"image": "base"})))
    wait_until(lambda: "default/left" in shared_host.kept(), "it has begun")
    raw.socket.close()
    wait_until(lambda: "left" in shared_host.running(), "it runs")
    assert http.result("sandbox.stop", sandbox="left")
    assert "left" not in shared_host.running()


def test_a_client_that_does_not_read_its_answer_is_not_in_the_way(server, python, nothing_of_it_left):
    raws = [Raw(server.port, command_of(server, "head", "-c", "10000000", "/dev/zero")) for _ in range(4)]
    assert python.run("3").output() == "3"
    assert is_healthy(server)
    for raw in raws:
        raw.socket.close()


def test_a_client_that_says_that_it_has_no_more_requests_gets_its_answer(server):
    with Raw(server.port, HEALTH) as raw:
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.answer()[0] == 200


def test_the_command_of_a_client_that_sends_no_more_is_killed(server, nothing_of_it_left, tmp_path):
    begun = tmp_path / "begun"
    with Raw(server.port, command_of(server, "sh", "-c", f"touch {begun}; sleep 1000")) as raw:
        wait_until(begun.exists, "it runs")
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.closed()


def test_many_that_come_and_go_leave_nothing(server, nothing_of_it_left):
    def come_and_go():
        for number in range(50):
            with Raw(server.port, command_of(server, "sleep", "1000" if number % 2 else "0")) as raw:
                if number % 3 == 0:
                    raw.socket.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Slow ones.

def told_that_it_was_slow(raw):
    """The body of the answer, behind which the connection is closed."""
    status, fields, body = raw.answer()
    assert status == 408 and fields["connection"] == "close" and raw.closed()
    return json.loads(body)["error"]


def test_a_slow_head_is_not_waited_for_for_ever(server, slow_head):
    assert told_that_it_was_slow(slow_head)["code"] == "slow"
    assert is_healthy(server)


def test_a_slow_body_is_not_waited_for_for_ever(server, slow_body):
    assert told_that_it_was_slow(slow_body)["data"]["code"] == 2001
    assert is_healthy(server)


@pytest.mark.skipif(not FULL, reason="takes more than a minute: run with --full")
def test_slow_readers_and_idle_connections_are_let_go(server, python, nothing_of_it_left):
    idle = Raw(server.port, timeout=120)
    reader = Raw(server.port, command_of(server, "head", "-c", "10000000", "/dev/zero"), timeout=120)
    with idle, reader:
        assert idle.closed()
        time.sleep(5)  # beyond a minute in all
        assert len(reader.read_all()) < 10_000_000
