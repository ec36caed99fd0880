# SPDX-License-Identifier: Apache-2.0
"""The server with sandboxes that are machines: clients start one, run code in it, and reach nothing of the host by asking."""

import json
import os
import subprocess

import pytest
from conftest import REPOSITORY, wait_until
from server_guests import GuestHost
from server_clients import Client026, ClientLater, Http, Raw

PATIENCE = 100  # seconds, in the emulated host


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    made = GuestHost(tmp_path_factory.mktemp("guests"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(host):
    return host.serve()


@pytest.fixture(scope="module")
def client(server):
    """Of a sandbox with Python that runs, and publishes a port."""
    made = Client026(server.url, "work", "python", server.key)
    assert made.start(image="python", ports=["0:8000"], envs=["KEPT=yes"]) == "Sandbox work started successfully"
    yield made
    assert made.stop() == "Sandbox work stopped successfully"


def test_a_client_of_0_2_6_runs_code_and_commands(client):
    client.run("x = 40")
    ran = client.run("import os\nprint(x + 2, os.environ['KEPT'])")
    assert (ran.output(), ran.has_error()) == ("42 yes", False)
    ran = client.command("sh", ["-c", "uname; echo bad >&2; exit 3"])
    assert (ran.exit_code, ran.output(), ran.error()) == (3, "Linux", "bad")
    measured = client.metrics()
    assert measured["running"] is True and 0 < measured["memory_usage"] < 512
    assert measured["cpu_usage"] > 0 and measured["disk_usage"] > 0


def test_a_later_client_finds_what_the_other_left(server, client):
    later = ClientLater(server.url, "work", "python", server.key)
    assert later.start(image="python") == "Sandbox work started successfully"
    assert later.run("x").output() == "40"


def test_an_app_is_fetched_at_its_host_and_at_its_port(server, client):
    ask = Http(server.port, server.key)
    started = ask.post("/v1/sandboxes/work/processes", {"command": ["python3", "-m", "http.server", "8000"], "workdir": "/etc"})
    assert started.status == 201, started

    def fetched(port, host):
        with Raw(port, f"GET /hostname HTTP/1.0\r\nHost: {host}\r\n\r\n".encode(), timeout=PATIENCE) as raw:
            return raw.read_all()

    wait_until(lambda: b"200 OK" in fetched(server.port, "8000-work.localhost"), "the app answers", seconds=PATIENCE)
    assert fetched(server.port, "8000-work.localhost").endswith(b"\r\n\r\nwork\n")
    [port] = ask.get("/v1/sandboxes/work/ports").json["ports"]
    assert fetched(port["host_port"], "localhost").endswith(b"\r\n\r\nwork\n")
    assert b"404" in fetched(server.port, "8001-work.localhost").splitlines()[0]


def test_nothing_of_the_host_is_reached_by_asking(server, host, client):
    ask = Http(server.port, server.key)
    secret = host.directory / "secret"
    secret.write_text("of the host")
    for config in ({"image": "/"}, {"image": str(host.directory)}, {"image": "python", "volumes": [f"{host.directory}:/host"]},
                   {"image": "python", "scope": "any"}, {"image": "python", "ports": ["0.0.0.0:0:80"]}):
        answer = ask.rpc("sandbox.start", {"sandbox": "escape", "config": config})
        assert answer.status in (400, 403), (config, answer)
    for path in (secret, f"/proc/1/root{secret}", f"/../..{secret}"):
        assert ask.get(f"/v1/sandboxes/work/files/content?path={path}").status in (400, 404), path
    assert not client.command("cat", [str(secret)]).success
    reach = "import socket\nfor address in ('127.0.0.1', '10.0.2.2'):\n    try:\n        " \
            f"socket.create_connection((address, {server.port}), 3)\n        print('reached', address)\n" \
            "    except OSError:\n        print('no')"
    assert client.run(reach).output() == "no\nno", "the server's own port is not the guest's"


def test_the_official_mcp_client_runs_code(server, client, node):
    with node.start("mcp_client.mjs", "http", f"{server.url}/mcp", server.key) as process:
        code = {"sandbox": "work", "language": "python", "code": "6 * 7"}
        calls = [{"id": 1, "do": "call", "name": "sandbox_run_code", "arguments": code},
                 {"id": 2, "do": "close", "terminate": True}]
        connected = json.loads(process.stdout.readline())
        assert connected["connected"]["server"]["name"] == "microsandbox-server"
        process.stdin.write(json.dumps(calls[0]) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        process.stdin.write(json.dumps(calls[1]) + "\n")
        process.stdin.flush()
        process.communicate(timeout=PATIENCE)
    assert json.loads(answer["result"]["content"][0]["text"])["output"] == [{"stream": "stdout", "text": "42"}]


def test_the_javascript_client_of_0_2_is_served(server, host, tmp_path):
    """In an image of its own, from an alias of the operator's."""
    (host.config / "images.json").write_text('{"aliases": {"microsandbox/node": "node"}}')
    result = subprocess.run(["node", REPOSITORY / "tests/node/client_0_2.mjs", "later", server.url, server.key, "js", "node"],
                            capture_output=True, check=False, timeout=PATIENCE, env=os.environ)
    assert result.returncode == 0, result.stderr.decode()
    told = json.loads(result.stdout)
    assert told["runs"][1]["output"] == [{"stream": "stdout", "text": "42"}] and told["command"]["exit_code"] == 3
    assert told["stopped"] == "Sandbox js stopped successfully"
