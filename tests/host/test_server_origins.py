# SPDX-License-Identifier: Apache-2.0
"""Browsers: the names by which the server is called, and the origins that may use it."""

import pytest
from server_bed import needs_root
from server_clients import Http, Raw
from server_requests import HEALTH

pytestmark = needs_root


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


def test_its_own_origin_may(server):
    for origin, status in ((server.url, 200), (server.url.replace("127.0.0.1", "localhost"), 403), (server.url + "/", 403)):
        assert Http(server.port, server.key).get("/v1/server", headers={"Origin": origin}).status == status, origin


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
