# SPDX-License-Identifier: Apache-2.0
"""HTTP as strangers send it, one request at a time: what is refused, where a request ends, and what of it is bounded."""

import email.utils
import json
import time

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import Http, Raw
from server_requests import HEALTH, call, is_healthy, memory, peak_memory, request_of

pytestmark = needs_root

SMUGGLED = b"GET /api/v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def nothing_smuggled(server):
    """The request behind the test's own was not taken for one."""
    def count():
        return sum(line.get("path") == "/api/v1/smuggled" for line in server.log())

    before = count()
    yield
    assert is_healthy(server)
    assert count() == before


# Requests of which two readers would read different things.

def framed(fields, body=b""):
    return b"POST /api/v1/health HTTP/1.1\r\nHost: localhost\r\n" + fields.encode() + b"\r\n" + body + SMUGGLED


FRAMINGS = {
    "length and chunks": framed("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunks and length": framed("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    "chunks and length 0": framed("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"),
    "two lengths": framed("Content-Length: 0\r\nContent-Length: 5\r\n", b"12345"),
    "two equal lengths": framed("Content-Length: 5\r\nContent-Length: 5\r\n", b"12345"),
    "a list of equal lengths": framed("Content-Length: 5, 5\r\n", b"12345"),
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
    "a blank before another colon": framed("X : y\r\n"),
    "a folded field": framed("X: a\r\n b\r\n"),
    "a folded field by a tab": framed("X: a\r\n\tb\r\n"),
    "a folded first field": framed("").replace(b"Host", b" Host", 1),
    "a folded Host": framed(" Transfer-Encoding: chunked\r\n"),
    "a folded encoding": framed("Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "a folded length": framed("Content-Length: 1\r\n 0\r\n"),
    "a lone LF": framed("X: a\nY: b\r\n"),
    "lone LFs": framed("").replace(b"\r", b""),
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
    with Raw(server.port, sent, timeout=5) as raw:
        answers = raw.read_all()
    assert answers.startswith(b"HTTP/1.1 400 "), answers
    assert answers.count(b"HTTP/1.1 ") == 1
    assert is_healthy(server)


def test_an_empty_line_before_a_request_is_passed_over(server):
    with Raw(server.port, b"\r\n" + HEALTH + b"\r\n\r\n" + HEALTH) as raw:
        assert raw.answer()[0] == 200 and raw.answer()[0] == 200
        raw.send(b"\r")
        assert is_healthy(server)
        raw.send(b"\n" + HEALTH)
        assert raw.answer()[0] == 200


TARGETS = ["/api/v1/../v1/health", "/api/v1/./health", "/api//v1/health", "/api/%2e%2e/health", "/api/v1/%2E/health", "/%",
           "/%zz", "/%0",
           "/api/v1/health%00", "api/v1/health", "*", "http://localhost:1/api/v1/health", "http://evil.example/api/v1/health",
           "https://localhost/api/v1/health", "http://a@localhost/api/v1/health", "http:///api/v1/health", "?",
           "//",
           "/v1/sandboxes/..", "/v1/sandboxes/%2e%2e/files", "/v1/sandboxes?a=%zz"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_no_path_of_names_is_refused(server, target):
    with Raw(server.port, request_of(server, b"", method="GET", path=target)) as raw:
        status, _, body = raw.answer()
    assert status == 400 and b"error" in body, (status, body)


@pytest.mark.parametrize("target", ["http://localhost/api/v1/health", "HTTP://LOCALHOST/api/v1/health?x"])
def test_a_target_may_have_a_scheme_and_the_host(server, target):
    with Raw(server.port, HEALTH.replace(b"/api/v1/health", target.encode())) as raw:
        assert raw.answer()[0] == 200


def test_the_host_of_a_target_is_judged_as_the_host_field_is(server):
    with Raw(server.port, b"GET http://evil.example/api/v1/health HTTP/1.1\r\nHost: evil.example\r\n\r\n") as raw:
        assert raw.answer()[0] == 403


def test_an_encoded_slash_does_not_part_names(server):
    with Raw(server.port, request_of(server, b"", method="GET", path="/v1/sandboxes/a%2fb")) as raw:
        assert raw.answer()[0] in (400, 404)


# Bodies.

CHUNKS = {
    "a negative size": b"-1\r\na\r\n0\r\n\r\n", "a signed size": b"+1\r\na\r\n0\r\n\r\n",
    "a size with 0x": b"0x1\r\na\r\n0\r\n\r\n", "a blank before a size": b" 1\r\na\r\n0\r\n\r\n",
    "a blank behind a size": b"1 \r\na\r\n0\r\n\r\n", "words behind a size": b"1 a\r\na\r\n0\r\n\r\n",
    "a size that is none": b"g\r\na\r\n0\r\n\r\n", "an empty size": b"\r\na\r\n0\r\n\r\n", "a blank for a size": b" \r\n\r\n",
    "a size beyond 64 bits": b"10000000000000000\r\na\r\n0\r\n\r\n", "a size far beyond 64 bits": b"f" * 100 + b"\r\na",
    "no end behind the data": b"1\r\nab\r\n0\r\n\r\n", "more data than was said": b"1\r\nabc\r\n0\r\n\r\n",
    "a lone LF behind a size": b"1\na\r\n0\r\n\r\n", "a lone LF behind the data": b"1\r\na\n0\r\n\r\n",
    "a lone CR in an extension": b"1;a\rb\r\na\r\n0\r\n\r\n", "no field behind the last": b"0\r\nGET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_chunks_that_are_none_are_refused(server, nothing_smuggled, chunks):
    with Raw(server.port, request_of(server, b"", "Transfer-Encoding: chunked", length=False) + chunks + SMUGGLED) as raw:
        answers = raw.read_all()
    assert answers.startswith(b"HTTP/1.1 400 "), answers
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("unit, first", [(b"1;" + b"a" * 1000 + b"\r\n" + b"x\r\n", b""), (b"a" * 1000, b"1;"), (b"0" * 1000, b""),
                                         (b"A: b\r\n" * 100, b"0\r\n"), (b"a" * 1000, b"0\r\nA: ")],
                         ids=["extensions", "an extension", "zeroes", "fields", "a field"])
def test_what_chunks_have_beside_their_data_is_bounded(server, unit, first):
    """32 KiB as a head. More than that is taken only to be passed over when the connection is closed."""
    with Raw(server.port, request_of(server, b"", "Transfer-Encoding: chunked", length=False) + first) as raw:
        for _ in range(60):
            raw.send(unit)
        status, fields = raw.head()
        assert status == 413 and fields["connection"] == "close"


def test_a_body_may_have_small_chunks(server):
    body = call("sandbox.nothing" + "x" * 20_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with Raw(server.port, request_of(server, b"", "Transfer-Encoding: chunked", length=False) + chunks) as raw:
        assert raw.answer()[0] == 404


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
    for sent in (head.replace(b"HTTP/1.1", b"HTTP/1.0") + body, HEALTH[:-2] + b"Expect: 100-continue\r\n\r\n"):
        with Raw(server.port, sent) as raw:  # it is not asked for what it cannot know, or does not have
            assert raw.answer()[0] == 200


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

HEAD_BYTES = 32 * 1024


def test_a_head_that_is_too_large_is_refused(server, nothing_smuggled):
    many = b"A: b\r\n" * 16_000
    for fields in (b"X: " + b"a" * 40_000 + b"\r\n", many, b"X" * 40_000 + b": a\r\n", b"X:" + b" " * 40_000 + b"a\r\n"):
        with Raw(server.port, HEALTH[:-2] + fields + b"\r\n" + SMUGGLED) as raw:
            status, answer = raw.head()
            assert status == 431 and answer["connection"] == "close"
    for line in (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"G" * 40_000):
        with Raw(server.port, line) as raw:
            assert raw.head()[0] == 414


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in pieces"])
def test_the_bound_of_a_head_is_exact(server, at_once):
    def status_of(size):
        head = HEALTH[:-2] + b"X: " + b"a" * (size - len(HEALTH) - 5) + b"\r\n\r\n"
        assert len(head) == size
        with Raw(server.port) as raw:
            for piece in [head] if at_once else [head[at:at + 5000] for at in range(0, size, 5000)]:
                raw.send(piece)
            return raw.head()[0]

    assert [status_of(HEAD_BYTES + more) for more in (-1, 0, 1, 2)] == [200, 200, 431, 431]


def test_heads_that_come_together_have_their_bound_each(server):
    head = HEALTH[:-2] + b"X: " + b"a" * 20_000 + b"\r\n\r\n"
    with Raw(server.port, head * 5) as raw:
        assert [raw.answer()[0] for _ in range(5)] == [200] * 5


def test_a_head_without_an_end_is_bounded(server):
    before = memory(server)
    with Raw(server.port, b"GET /") as raw, pytest.raises(OSError):
        for _ in range(1000):
            raw.send(b"a" * 100_000)
    assert memory(server) < before + (16 << 20)


def test_a_head_of_ever_more_fields_is_bounded(server):
    before = memory(server)
    with Raw(server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n") as raw, pytest.raises(OSError):
        for _ in range(500):
            raw.send(b"A: b\r\n" * 20_000)
    assert memory(server) < before + (16 << 20)


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


# The log.

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
    for answer in answers:
        age = time.time() - email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert -1 < age < 60, answer.headers["Date"]


def test_a_head_that_is_refused_is_logged(server):
    with Raw(server.port, b"nonsense\r\n\r\n") as raw:
        _, fields = raw.head()
    wait_until(lambda: any(line.get("request") == fields["x-request-id"] and line["status"] == 400 for line in server.log()),
               "it is logged")


def ask_for(server, *paths):
    """All that is in the log once it has requests to these."""
    identities = []
    for path in paths:
        with Raw(server.port, request_of(server, b"", method="GET", path=path)) as raw:
            identities.append(raw.head()[1]["x-request-id"])
    wait_until(lambda: set(identities) <= {line.get("request") for line in server.log()}, "all are logged")
    return server.log_path.read_bytes()


def test_the_log_has_no_keys(server):
    written = ask_for(server, f"/v1/x?key={server.key}", f"/%zz?key={server.key}", f"http://x/?{server.key}")
    assert server.key.encode() not in written


def test_bytes_that_break_lines_do_not_break_the_log(server):
    for line in ask_for(server, "/%0a%0d%1b[31m", "/%ff%fe", '/"\\', "/\x7f").splitlines():
        assert b"\x1b" not in line and json.loads(line)
