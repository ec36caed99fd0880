# SPDX-License-Identifier: Apache-2.0
"""The stand-in for msb-vmm, by which tests of the server have sandboxes on this host: what `msb` makes of it."""

import socket
import subprocess

import pytest
from conftest import wait_until
from server_bed import needs_root
from vmm_on_host import pipe_both

pytestmark = needs_root


def test_a_sandbox_runs_commands_and_is_stopped(server_host):
    server_host.done("exe", "-d", "--name", "web", "base", "--", "sleep", "1000")
    assert server_host.running() == ["web"]
    assert server_host.done("exec", "web", "--", "sh", "-c", "echo $MSB_TEST_BED") == server_host.mark + "\n"
    assert len(server_host.processes()) >= 3, "its supervisor, its agent and its command"
    assert server_host.done("stop", "web") == "web is down\n"
    assert server_host.running() == [] and server_host.processes() == []


def test_a_command_ends_its_sandbox_with_its_status(server_host):
    server_host.done("exe", "-d", "--name", "web", "--env", "A=b", "base", "--", "sh", "-c", "echo $A; exit 3")
    wait_until(lambda: server_host.running() == [], "it has ended")
    assert server_host.processes() == []


def test_what_a_guest_leaves_behind_ends_with_it(server_host):
    server_host.done("exe", "-d", "--name", "web", "base", "--", "sleep", "1000")
    server_host.done("exec", "web", "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
    server_host.done("kill", "web")
    wait_until(lambda: server_host.processes() == [], "all processes have ended")


def test_it_holds_still_while_it_is_paused(server_host):
    server_host.done("exe", "-d", "--name", "web", "base", "--", "sleep", "1000")
    server_host.done("pause", "web")
    with server_host.start("exec", "web", "--", "echo", "hi") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        server_host.done("resume", "web")
        assert process.communicate(timeout=10)[0] == b"hi\n"


@pytest.mark.parametrize("name, words", [("fail-web", "kernel crashed"), ("crash-web", "137")])
def test_it_fails_when_its_name_asks_for_that(server_host, name, words):
    result = server_host("exe", "-d", "--name", name, "base")
    assert result.returncode != 0 and words in result.stderr.decode(), result


def test_what_the_agent_said_last_arrives_though_it_reads_no_more():
    for _ in range(50):
        (client, ours), (inner, agent) = socket.socketpair(), socket.socketpair()
        with client:
            client.sendall(b"the end of the input")
            agent.sendall(b"exited")
            agent.close()
            pipe_both(ours, inner)
            assert client.recv(100, socket.MSG_WAITALL) == b"exited"
