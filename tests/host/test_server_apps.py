# SPDX-License-Identifier: Apache-2.0
"""Apps in sandboxes at hosts of their own: <port>-<sandbox>.localhost."""

import contextlib
import json
import socket
import threading

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Client026, Http, Raw

pytestmark = needs_root


class App:
    """Listens at a port, which is a sandbox's too, and hands each connection to a function."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.serve = self.echo
        self.heads = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.handle, args=[self.server.accept()[0]], daemon=True).start()

    def handle(self, stream):
        with stream, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                piece = stream.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, rest = data.partition(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            self.serve(stream, rest)

    def close(self):
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)  # for accept() to end
        self.server.close()

    @staticmethod
    def echo(stream, _):
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-App: yes\r\n\r\nhello")


@pytest.fixture
def app():
    made = App()
    yield made
    made.close()


@pytest.fixture
def web(server, app):
    """A sandbox that publishes the app's port."""
    client = Client026(server.url, f"Web{app.port}", "python", server.key)
    client.start(image="base", ports=[f"0:{app.port}"])
    yield client
    client.stop()


def at(server, host, path="/", method="GET", fields=b"", body=b""):
    """A connection with one request."""
    return Raw(server.port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n".encode() + fields + b"\r\n" + body, timeout=10)


def host_of(web, app):
    return f"{app.port}-{web.name}.localhost"


def test_an_app_is_fetched_at_its_host(server, web, app):
    with at(server, f"{host_of(web, app)}:{server.port}", "/a/../b?c=%zz") as raw:
        status, fields, body = raw.answer()
        assert (status, fields["x-app"], body) == (200, "yes", b"hello")
        assert raw.closed()
    assert app.heads[0].startswith("GET /a/../b?c=%zz HTTP/1.1\r\n"), "a path is the app's own"


@pytest.mark.parametrize("form", ["{port}-{name}.localhost", "{port}-{name}.default.localhost", "{port}-{lower}.LOCALHOST",
                                  "{port}-{name}.localhost."])
def test_hosts_of_apps_have_several_forms(server, web, app, form):
    with at(server, form.format(port=app.port, name=web.name, lower=web.name.lower())) as raw:
        assert raw.answer()[2] == b"hello"


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/rpc", "/mcp", "/v1/sandboxes"])
def test_the_paths_of_the_api_are_the_app_s_there(server, web, app, path):
    with at(server, host_of(web, app), path) as raw:
        assert raw.answer()[2] == b"hello"


def test_what_is_not_published_is_not_shown(server, web, app):
    other = App()
    for host in (f"{other.port}-{web.name}.localhost", f"{app.port}-nobody.localhost", f"{app.port}-{web.name}.other.localhost",
                 f"{app.port}.localhost", f"{app.port}-.localhost", f"-{web.name}.localhost", f"99999-{web.name}.localhost",
                 f"0{app.port}-{web.name}.x.localhost", f"{app.port}-{web.name}-.localhost"):
        with at(server, host) as raw:
            assert raw.answer()[0] == 404, host
    assert other.heads == app.heads == []
    other.close()


def test_the_app_of_a_sandbox_that_was_stopped_is_gone(server, web, app):
    web.stop()
    with at(server, host_of(web, app)) as raw:
        assert raw.answer()[0] == 404


def test_an_app_that_does_not_answer_is_a_bad_gateway(server, web, app):
    app.close()
    with at(server, host_of(web, app)) as raw:
        status, _, body = raw.answer()
        assert status == 502 and str(app.port).encode() in body


def test_a_key_for_the_server_is_not_shown_to_apps_by_way_of_a_proxy_s_field(server, web, app):
    fields = b"Proxy-Authorization: Bearer secret\r\nAuthorization: Bearer the-app's-own\r\n" \
             b"Proxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n"
    with at(server, host_of(web, app), fields=fields) as raw:
        raw.answer()
    head = app.heads[0].lower()
    assert "secret" not in head and "proxy-" not in head and "keep-alive" not in head
    assert "authorization: bearer the-app's-own" in head and "connection: close" in head


def test_one_request_is_all_that_a_connection_has(server, web, app):
    second = f"GET /second HTTP/1.1\r\nHost: {host_of(web, app)}\r\n\r\n".encode()
    api = f"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nAuthorization: {server.key}\r\n\r\n".encode()
    with at(server, host_of(web, app), body=second + api) as raw:
        assert raw.answer()[2] == b"hello" and raw.closed()
    assert len(app.heads) == 1
    # What comes behind the request of another host must not reach the API either.
    with Raw(server.port, api + second) as raw:
        assert raw.answer()[0] == 200 and raw.answer()[2] == b"hello"


def test_bodies_pass_both_ways_while_they_come(server, web, app):
    def serve(stream, rest):
        stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = rest
        while True:
            if data:
                stream.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            if data.endswith(b"!"):
                break
            data = stream.recv(65536)
        stream.sendall(b"0\r\n\r\n")

    app.serve = serve
    with at(server, host_of(web, app), method="POST", fields=b"Content-Length: 8\r\n", body=b"abcd") as raw:
        raw.head()
        while b"abcd" not in raw.received:
            raw.received += raw.receive()
        raw.send(b"efg!")
        assert b"efg!" in raw.read_all()


def test_a_large_answer_comes_whole(server, web, app):
    def serve(stream, _):
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(20):
            stream.sendall(b"x" * 1_000_000)

    app.serve = serve
    with at(server, host_of(web, app)) as raw:
        assert len(raw.answer()[2]) == 20_000_000


def test_a_socket_of_the_web_is_one_both_ways(server, web, app):
    def serve(stream, rest):
        stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        while data := rest or stream.recv(65536):
            stream.sendall(data[::-1])
            rest = b""

    app.serve = serve
    with at(server, host_of(web, app), fields=b"Upgrade: echo\r\nConnection: Upgrade\r\n") as raw:
        status, fields = raw.head()
        assert (status, fields["upgrade"]) == (101, "echo")
        for word in (b"abc", b"\0\xff" * 100):
            raw.send(word)
            data = raw.received
            while len(data) < len(word):
                data += raw.receive()
            assert data == word[::-1]
            raw.received = b""
    assert "Upgrade: echo" in app.heads[0] and "Connection: Upgrade" in app.heads[0]


def test_early_heads_of_an_answer_pass(server, web, app):
    app.serve = lambda stream, _: stream.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    with at(server, host_of(web, app)) as raw:
        assert raw.head()[0] == 103 and raw.head()[0] == 204


NO_HTTP = {"nothing": b"", "nonsense": b"nonsense\r\n\r\n", "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
           "half a head": b"HTTP/1.1 200 OK\r\nX: y", "a large head": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000,
           "TLS": b"\x16\x03\x01" * 1000}


@pytest.mark.parametrize("said", NO_HTTP.values(), ids=NO_HTTP)
def test_an_app_that_speaks_no_http_does_no_harm(server, web, app, said):
    app.serve = lambda stream, _: stream.sendall(said)
    before = server.descriptors()
    with at(server, host_of(web, app)) as raw:
        raw.read_all()
    wait_until(lambda: server.descriptors() <= before, "its connections are closed")
    assert Http(server.port).get("/api/v1/health").status == 200


def test_a_request_whose_end_is_in_doubt_does_not_reach_an_app(server, web, app):
    for fields in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n",
                   b"Host: localhost\r\n"):
        with at(server, host_of(web, app), method="POST", fields=fields, body=b"0\r\n\r\n") as raw:
            assert raw.head()[0] == 400
    assert app.heads == []


def test_an_app_sees_that_its_client_has_left(server, web, app):
    gone = threading.Event()

    def serve(stream, _):
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while stream.recv(1000):
            pass
        gone.set()

    app.serve = serve
    before = server.descriptors()
    with at(server, host_of(web, app)) as raw:
        raw.head()
    assert gone.wait(10)
    wait_until(lambda: server.descriptors() <= before, "its connections are closed")


def test_the_sandbox_may_end_under_a_request(server, web, app):
    begun = threading.Event()

    def serve(stream, _):
        begun.set()
        stream.recv(1)

    app.serve = serve
    with at(server, host_of(web, app)) as raw:
        assert begun.wait(10)
        web.stop()
        raw.read_all()
    assert Http(server.port).get("/api/v1/health").status == 200


def test_ports_of_published_apps_lead_there_too(server, web, app):
    answer = Http(server.port, server.key).get(f"/v1/sandboxes/{web.name}")
    [port] = answer.json["ports"]
    assert (port["guest_port"], port["protocol"], port["address"]) == (app.port, "tcp", "127.0.0.1")
    with Raw(port["host_port"], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as raw:
        assert raw.answer()[2] == b"hello"


def test_clients_of_the_api_get_no_app(server, web, app):
    for host in ("localhost", f"127.0.0.1:{server.port}"):
        answer = Http(server.port, server.key).post("/api/v1/rpc", {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "id": 1},
                                                    headers={"Host": host})
        assert json.loads(answer.body)["result"]
    assert app.heads == []
