# SPDX-License-Identifier: Apache-2.0
"""HTTP as strangers send it: what is refused, what is bounded, and what comes of clients that go away."""

import json
import os
import resource
import socket
import threading
import time

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Client026, Http, Raw

pytestmark = needs_root

FULL = os.environ.get("MSB_TEST_FULL") == "1"
HEALTH = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMUGGLED = b"GET /api/v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def many_descriptors():
    """Enough for the connections that tests open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def slow_head(server):
    """A connection on which half a head was sent when the module began."""
    with Raw(server.port, HEALTH[:20], timeout=60) as raw:
        yield raw


@pytest.fixture(scope="module")
def http(server, slow_head):
    return Http(server.port, server.key)


@pytest.fixture(scope="module")
def python(server):
    client = Client026(server.url, "python", "python", server.key)
    client.start()
    return client


def request_of(server, body, *fields, method="POST", path="/api/v1/rpc", length=True):
    """Bytes of a request with the key."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.key}", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def call(method, **params):
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()


def command_of(server, *words, **fields):
    return request_of(server, call("sandbox.command.run", sandbox="python", command=words[0], args=words[1:], **fields))


@pytest.fixture
def nothing_smuggled(server):
    """The request behind the test's own was not taken for one."""
    def count():
        return sum(line.get("path") == "/api/v1/smuggled" for line in server.log())

    before = count()
    yield
    assert is_healthy(server)
    assert count() == before


def is_healthy(server):
    return Http(server.port).get("/api/v1/health").status == 200


# Requests of which two readers would read different things.

def framed(fields, body=b""):
    return b"POST /api/v1/health HTTP/1.1\r\nHost: localhost\r\n" + fields.encode() + b"\r\n" + body + SMUGGLED


FRAMINGS = {
    "length and chunks": framed("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunks and length": framed("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    "chunks and length 0": framed("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"),
    "two lengths": framed("Content-Length: 0\r\nContent-Length: 5\r\n", b"12345"),
    "two equal lengths": framed("Content-Length: 5\r\nContent-Length: 5\r\n", b"12345"),
    "a list of different lengths": framed("Content-Length: 0, 5\r\n", b"12345"),
    "a negative length": framed("Content-Length: -1\r\n"),
    "a signed length": framed("Content-Length: +5\r\n", b"12345"),
    "a hexadecimal length": framed("Content-Length: 0x5\r\n", b"12345"),
    "a length with a fraction": framed("Content-Length: 5.0\r\n", b"12345"),
    "an empty length": framed("Content-Length: \r\n"),
    "a length of two words": framed("Content-Length: 1 0\r\n", b"12345"),
    "a length beyond 64 bits": framed("Content-Length: 18446744073709551616\r\n"),
    "a length far beyond 64 bits": framed("Content-Length: " + "9" * 100 + "\r\n"),
    "another encoding": framed("Transfer-Encoding: gzip\r\n"),
    "another encoding, then chunks": framed("Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "chunks, then another encoding": framed("Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "chunks of chunks": framed("Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "chunks twice": framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "two encodings": framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    "an unknown encoding": framed("Transfer-Encoding: xchunked\r\n"),
    "an encoding in quotes": framed('Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"),
    "an encoding with a parameter": framed("Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"),
    "an empty encoding": framed("Transfer-Encoding:\r\n", b"0\r\n\r\n"),
    "a blank before the colon": framed("Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "a control character in a value": framed("Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "a NUL in a value": framed("X: a\0b\r\n"),
    "a lone CR in a value": framed("X: a\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "a name that is none": framed("Content-Length\x00: 5\r\n"),
    "a field without a colon": framed("Content-Length\r\n"),
    "a field without a name": framed(": 5\r\n"),
    "chunks of HTTP/1.0": framed("Transfer-Encoding: chunked\r\n", b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "no Host": b"GET /api/v1/health HTTP/1.1\r\nX: y\r\n\r\n" + SMUGGLED,
    "two Hosts": b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "two different Hosts": b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("sent", FRAMINGS.values(), ids=FRAMINGS)
def test_a_request_whose_end_is_in_doubt_is_the_last_of_its_connection(server, nothing_smuggled, sent):
    with Raw(server.port, sent, timeout=5) as raw:
        answers = raw.read_all()
    assert answers[:4] == b"HTTP" and answers[8:13] == b" 400 ", answers
    assert answers.count(b"X-Request-Id") == 1
    assert b"HTTP/1.0" in answers or b"connection: close" in answers.lower()


AS_ONE = {
    "a list of equal lengths": "Content-Length: 5, 5\r\n",
    "a folded field": "X: a\r\n b\r\nContent-Length: 0\r\n",
    "a folded Host": " Transfer-Encoding: chunked\r\n",
    "a folded encoding": "Transfer-Encoding:\r\n chunked\r\n",
    "a folded length": "Content-Length: 1\r\n 0\r\n",
}


@pytest.mark.parametrize("fields", AS_ONE.values(), ids=AS_ONE)
def test_what_may_be_read_as_one_is_that_or_refused(server, nothing_smuggled, fields):
    """RFC 9110 section 8.6 and RFC 9112 section 5.2 allow both. There is no key, so no more than an error can come of it."""
    with Raw(server.port, framed(fields, b"0\r\n\r\n").replace(SMUGGLED, b"")) as raw:
        assert raw.head()[0] in (400, 401, 403)


LINES = {
    "HTTP/0.9": b"GET /api/v1/health\r\n\r\n",
    "HTTP/2.0": b"GET /api/v1/health HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "HTTP/1.2": b"GET /api/v1/health HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "HTTP/1.10": b"GET /api/v1/health HTTP/1.10\r\nHost: localhost\r\n\r\n",
    "http in lower case": b"GET /api/v1/health http/1.1\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two blanks": b"GET  /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method that is none": b"G(T /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\x01" * 160,
    "nothing but blanks": b" \r\n\r\n",
    "zeroes": bytes(100),
}


@pytest.mark.parametrize("sent", LINES.values(), ids=LINES)
def test_what_is_no_request_is_refused(server, sent):
    with Raw(server.port, sent) as raw:
        raw.socket.shutdown(socket.SHUT_WR)
        answers = raw.read_all()
    assert answers == b"" or answers.startswith(b"HTTP/1.1 400 "), answers
    assert answers.count(b"HTTP/1.1 ") <= 1
    assert is_healthy(server)


TARGETS = ["/api/v1/../v1/health", "/api/v1/./health", "/api//v1/health", "/api/%2e%2e/health", "/api/v1/%2E/health", "/%",
           "/%zz", "/%0",
           "/api/v1/health%00", "api/v1/health", "*", "http://localhost/api/v1/health", "http://evil.example/api/v1/health", "?",
           "//",
           "/v1/sandboxes/..", "/v1/sandboxes/%2e%2e/files", "/v1/sandboxes?a=%zz"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_no_path_of_names_is_refused(server, target):
    with Raw(server.port, request_of(server, b"", method="GET", path=target)) as raw:
        status, _, body = raw.answer()
    assert status == 400 and b"error" in body, (status, body)


def test_an_encoded_slash_does_not_part_names(server):
    with Raw(server.port, request_of(server, b"", method="GET", path="/v1/sandboxes/a%2fb")) as raw:
        assert raw.answer()[0] in (400, 404)


# Bodies.

CHUNKS = {
    "a negative size": b"-1\r\na\r\n0\r\n\r\n", "a signed size": b"+1\r\na\r\n0\r\n\r\n",
    "a size with 0x": b"0x1\r\na\r\n0\r\n\r\n",
    "a size that is none": b"g\r\na\r\n0\r\n\r\n", "an empty size": b"\r\na\r\n0\r\n\r\n", "a blank for a size": b" \r\n\r\n",
    "a size beyond 64 bits": b"10000000000000000\r\na\r\n0\r\n\r\n", "a size far beyond 64 bits": b"f" * 100 + b"\r\na",
    "no end behind the data": b"1\r\nab\r\n0\r\n\r\n", "more data than was said": b"1\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_chunks_that_are_none_are_refused(server, nothing_smuggled, chunks):
    with Raw(server.port, request_of(server, b"", "Transfer-Encoding: chunked", length=False) + chunks + SMUGGLED) as raw:
        answers = raw.read_all()
    assert answers == b"" or answers.startswith(b"HTTP/1.1 400 "), answers
    assert answers.count(b"HTTP/1.1 ") <= 1


def test_a_body_in_chunks_is_put_together(server):
    body = call("sandbox.nothing")
    chunks = b"".join(b"%x;x=y\r\n%c\r\n" % (1, byte) for byte in body)
    with Raw(server.port, request_of(server, b"", "Transfer-Encoding: chunked",
                                     length=False) + chunks + b"0\r\nX: y\r\n\r\n" + HEALTH) as raw:
        status, _, answer = raw.answer()
        assert status == 404 and b"sandbox.nothing" in answer
        assert raw.answer()[0] == 200, "the connection goes on behind it"


def test_a_gibibyte_is_refused_before_it_is_sent(server):
    for path in ("/api/v1/rpc", "/mcp", "/v1/sandboxes"):
        with Raw(server.port, request_of(server, b"", f"Content-Length: {1 << 30}", "Content-Type: application/json", path=path,
                                         length=False)) as raw:
            status, fields = raw.head()
            assert status == 413 and fields["connection"] == "close", path


def test_a_gibibyte_in_chunks_is_refused_while_it_is_sent(server):
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with Raw(server.port, request_of(server, b"", "Transfer-Encoding: chunked", length=False)) as raw:
        sent = 0
        try:
            while sent < 1 << 30:
                raw.send(piece)
                sent += 1 << 20
        except OSError:
            pass
        assert sent < 100 << 20
    assert peak_memory(server) < 400 << 20
    assert is_healthy(server)


def peak_memory(server, what="VmHWM"):
    with open(f"/proc/{server.process.pid}/status") as lines:
        [line] = [line for line in lines if line.startswith(what)]
    return int(line.split()[1]) << 10


def test_without_a_key_no_body_is_waited_for(server):
    with Raw(server.port, b"POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n") as raw:
        assert raw.head()[0] == 401


def test_a_body_is_asked_for_when_the_client_waits_for_that(server):
    body = call("sandbox.metrics.get")
    head = request_of(server, b"", f"Content-Length: {len(body)}", "Expect: 100-continue", length=False)
    with Raw(server.port, head) as raw:
        assert raw.head() == (100, {})
        raw.send(body)
        assert raw.answer()[0] == 200
        raw.send(head + body)  # it need not wait
        assert raw.head()[0] == 100 and raw.answer()[0] == 200


@pytest.mark.parametrize("length, key, status", [(1 << 30, True, 413), (10, False, 401)])
def test_a_body_that_is_not_wanted_is_not_asked_for(server, length, key, status):
    head = request_of(server, b"", f"Content-Length: {length}", "Expect: 100-continue", length=False)
    head = head if key else head.replace(server.key.encode(), b"")
    with Raw(server.port, head) as raw:
        assert raw.head()[0] == status


def test_a_body_behind_an_answer_that_did_not_need_it_is_passed_over(server):
    head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n"
    for length, goes_on in ((1000, True), (60_000, True), (10_000_000, False)):
        with Raw(server.port, head % (server.key.encode(), length)) as raw:
            try:
                raw.send(b"x" * length + HEALTH)
            except OSError:
                assert not goes_on
            status, fields, _ = raw.answer()
            assert status == 404
            assert (fields.get("connection") != "close") == goes_on
            if goes_on:
                assert raw.answer()[0] == 200


# Heads.

def test_a_head_that_is_too_large_is_refused(server, nothing_smuggled):
    for fields in (b"X: " + b"a" * 40_000 + b"\r\n", b"A: b\r\n" * 16_000, b"X" * 40_000 + b": a\r\n"):
        with Raw(server.port, HEALTH[:-2] + fields + b"\r\n" + SMUGGLED) as raw:
            assert raw.head()[0] in (400, 413)
    with Raw(server.port, b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") as raw:
        assert raw.head()[0] in (400, 413, 414)
    with Raw(server.port, HEALTH[:-2] + b"X: " + b"a" * 16_000 + b"\r\n\r\n") as raw:
        assert raw.head()[0] == 200


def test_a_head_without_an_end_is_bounded(server):
    before = peak_memory(server, "VmRSS")
    with Raw(server.port, b"GET /") as raw, pytest.raises(OSError):
        for _ in range(1000):
            raw.send(b"a" * 100_000)
    assert peak_memory(server, "VmRSS") < before + (16 << 20)


def test_a_request_may_come_byte_by_byte(server):
    with Raw(server.port) as raw:
        for byte in HEALTH:
            raw.send(bytes([byte]))
        assert raw.answer()[0] == 200


def test_http_1_0_is_answered_and_closed(server):
    with Raw(server.port, HEALTH.replace(b"HTTP/1.1", b"HTTP/1.0")) as raw:
        status, fields, body = raw.answer()
        assert status == 200 and b"healthy" in body and "transfer-encoding" not in fields
        assert raw.closed()


def test_a_head_is_answered_without_the_body(server):
    with Raw(server.port, HEALTH.replace(b"GET", b"HEAD") + HEALTH) as raw:
        status, fields, _ = raw.answer(bodiless=True)
        assert status == 200 and int(fields["content-length"]) > 0
        assert raw.answer()[2] == b'{"message":"Service is healthy"}'


# Connections.

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
    before = peak_memory(server, "VmRSS")
    ask(10_000)
    assert peak_memory(server, "VmRSS") < before + (2 << 20)


def test_every_answer_has_an_id_that_the_log_has(server):
    answers = [Http(server.port, server.key).get(path) for path in ("/api/v1/health", "/nothing", "/api/v1/rpc",
                                                                    "/v1/sandboxes/nobody")]
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    wait_until(lambda: set(ids) <= {line.get("request") for line in server.log()}, "all are logged")
    logged = {line["request"]: line for line in server.log() if "request" in line}
    for answer, identity in zip(answers, ids):
        line = logged[identity]
        assert line["status"] == answer.status and line["sent"] == len(answer.body) and line["ms"] >= 0
        assert line["method"] == "GET" and line["path"].startswith("/") and line["remote"] == "127.0.0.1"
    assert all(answer.headers["X-Content-Type-Options"] == "nosniff" for answer in answers)


def test_a_head_of_ever_more_fields_is_bounded(server):
    before = peak_memory(server, "VmRSS")
    with Raw(server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n") as raw, pytest.raises(OSError):
        for _ in range(500):
            raw.send(b"A: b\r\n" * 20_000)
    assert peak_memory(server, "VmRSS") < before + (16 << 20)


def test_the_log_has_no_keys(server):
    for path in (f"/v1/x?key={server.key}", f"/%zz?key={server.key}", f"http://x/?{server.key}"):
        with Raw(server.port, request_of(server, b"", method="GET", path=path)) as raw:
            raw.head()
    assert server.key not in server.log_path.read_text()


def test_bytes_that_break_lines_do_not_break_the_log(server):
    for path in ("/%0a%0d%1b[31m", "/%ff%fe", '/"\\', "/\x7f"):
        with Raw(server.port, request_of(server, b"", method="GET", path=path)) as raw:
            raw.head()
    for line in server.log_path.read_bytes().splitlines():
        assert b"\x1b" not in line and json.loads(line)


# Browsers.

@pytest.mark.parametrize("name", ["evil.example", "evil.example:5555", "localhost.evil.example", "127.0.0.1.evil.example",
                                  "localhostevil",
                                  "127.0.0.1:80@evil.example", "evil.example#localhost", "", "localhost:x", "localhost:123456",
                                  "[::1", "::1",
                                  "a b", "localhost/", "127.1", "2130706433", "0x7f000001"])
def test_names_that_lead_here_and_are_not_ours_are_refused(server, name):
    sent = HEALTH.replace(b"Host: localhost", b"Host: " + name.encode())
    with Raw(server.port, sent) as raw:
        assert raw.head()[0] in (400, 403)


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "localhost.", "localhost:1", "127.0.0.1", "127.0.0.1:5555", "[::1]",
                                  "[::1]:80", "10.1.2.3"])
def test_names_and_addresses_of_ours_are_served(server, name):
    with Raw(server.port, HEALTH.replace(b"localhost", name.encode())) as raw:
        assert raw.head()[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "http://127.0.0.1:5555", "", "x"])
def test_without_a_list_no_origin_may(server, origin):
    for method, path in (("GET", "/api/v1/health"), ("POST", "/api/v1/rpc"), ("OPTIONS", "/api/v1/rpc"), ("POST", "/mcp"),
                         ("GET", "/v1/sandboxes")):
        answer = Http(server.port, server.key)(method, path, headers={"Origin": origin})
        assert answer.status == 403 and "Access-Control-Allow-Origin" not in answer.headers, (method, path)


def test_origins_of_the_list_may_and_are_told_so(server_host):
    server_host.settle(origins=["https://app.example"], hosts=["sandbox.example"])
    server = server_host.serve()
    ask = Http(server.port, server.key)
    ours = {"Origin": "https://app.example"}
    preflight = Http(server.port)("OPTIONS", "/api/v1/rpc", headers=ours | {
        "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"})
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    for answer in (ask.get("/api/v1/health", headers=ours), ask.get("/v1/sandboxes", headers=ours),
                   ask.get("/v1/sandboxes/nobody", headers=ours), Http(server.port).get("/v1/sandboxes", headers=ours)):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example", answer
        assert "Origin" in answer.headers["Vary"]
    for origin in ("https://app.example:8443", "http://app.example", "https://app.example.evil", "https://xapp.example", "null"):
        assert ask.get("/api/v1/health", headers={"Origin": origin}).status == 403
    assert ask.get("/api/v1/health", headers={"Host": "sandbox.example:5555"}).status == 200
    assert ask.get("/api/v1/health", headers={"Host": "other.example"}).status == 403


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/rpc", "/mcp", "/v1/sandboxes", "/v1/openapi.json"])
@pytest.mark.parametrize("host", ["8000-python.localhost", "python.localhost", "x.localhost", "0-.localhost", "99999-a.localhost",
                                  "-.localhost",
                                  "8000-python.default.localhost", ".localhost"])
def test_the_api_is_not_at_the_hosts_of_apps(server, python, host, path):
    answer = Http(server.port, server.key).get(path, headers={"Host": host})
    assert answer.status in (400, 403, 404) and b"healthy" not in answer.body and b"openapi" not in answer.body


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


def test_the_command_of_a_client_that_left_while_it_wrote_is_killed(server, nothing_of_it_left):
    raw = Raw(server.port, command_of(server, "sh", "-c", "while :; do echo y; done"))
    time.sleep(0.1)
    raw.socket.close()


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

def test_a_slow_head_is_not_waited_for_for_ever(server, slow_head):
    assert slow_head.read_all() == b"" or slow_head.received.startswith(b"HTTP/1.1 408")
    assert is_healthy(server)


@pytest.mark.skipif(not FULL, reason="takes more than a minute: run with --full")
def test_slow_bodies_readers_and_idle_connections_are_let_go(server, python, nothing_of_it_left):
    body = Raw(server.port, command_of(server, "true")[:-5], timeout=120)
    idle = Raw(server.port, timeout=120)
    reader = Raw(server.port, command_of(server, "head", "-c", "10000000", "/dev/zero"), timeout=120)
    with body, idle, reader:
        assert body.read_all() == b"" or body.received.startswith(b"HTTP/1.1 408")
        assert idle.closed()
        time.sleep(5)  # beyond a minute in all
        assert len(reader.read_all()) < 10_000_000
