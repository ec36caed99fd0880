# SPDX-License-Identifier: Apache-2.0
"""Who is let in: basic and token authentication, Docker's configuration and credential helpers, and who must not see a secret."""

import base64
import json

import pytest
from registry import faults
from registry.bed import PASSWORD, USER

BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
WRONG = base64.b64encode(f"{USER}:not this one".encode()).decode()


def configure(msb, **document):
    (msb.config / "config.json").write_text(json.dumps(document))


def know(msb, address, auth=BASIC, **more):
    configure(msb, auths={address: {"auth": auth, **more}})


def requests_with_credentials(server):
    return [request for request in server.requests if "authorization" in request.headers]


def test_without_credentials_the_registry_and_the_remedy_are_named(bed, msb, small):
    msb.refused("pull", f"{bed.basic.address}/{small.name}", words=[bed.basic.address, "msb login"])


@pytest.mark.parametrize("key", ["{}", "https://{}", "https://{}/v1/", "https://{}/v2/"])
def test_dockers_configuration_gives_credentials(bed, msb, small, key):
    know(msb, key.format(bed.basic.address))
    msb.pull(f"{bed.basic.address}/{small.name}")


def test_wrong_credentials_are_refused_and_not_shown(bed, msb, small):
    know(msb, bed.basic.address, WRONG)
    sentence = msb.refused("pull", f"{bed.basic.address}/{small.name}", words=[bed.basic.address])
    assert WRONG not in sentence and "not this one" not in sentence


@pytest.mark.parametrize("content", ["[]", "{", '{"auths": {"ADDRESS": {"auth": 3}}}',
                                     '{"auths": {"ADDRESS": {"auth": "***"}}}', '{"auths": {"ADDRESS": {"auth": "bm9jb2xvbg=="}}}',
                                     '{"credHelpers": {"ADDRESS": "../../bin/sh"}}', " " * (40 << 20)],
                         ids=["list", "cut", "number", "base64", "no colon", "helper path", "huge"])
def test_a_configuration_that_is_none_is_refused_by_its_name(bed, msb, small, content):
    (msb.config / "config.json").write_text(content.replace("ADDRESS", bed.basic.address))
    msb.refused("pull", f"{bed.basic.address}/{small.name}", words=["config.json"])


def test_credentials_of_another_registry_are_not_sent(bed, msb, small):
    with bed.proxy() as proxy:
        know(msb, bed.basic.address)
        msb.pull(f"{proxy.address}/{small.name}")
        assert requests_with_credentials(proxy) == []


# Tokens


def test_an_anonymous_token_is_enough_where_everyone_may_pull(bed, msb, small, token_server):
    msb.pull(f"{bed.token.address}/{small.name}")
    assert requests_with_credentials(token_server) == []
    assert token_server.count("GET", "/token") == 1


def test_credentials_get_a_token_and_only_the_token_server_sees_them(bed, msb, small, token_server):
    token_server.anonymous = False
    with bed.proxy(bed.token) as proxy:
        know(msb, proxy.address)
        msb.pull(f"{proxy.address}/{small.name}")
        assert all(request.headers["authorization"].startswith("Bearer ") for request in requests_with_credentials(proxy))
    [asked] = token_server.requests
    assert (asked.headers["authorization"], asked.method) == (f"Basic {BASIC}", "GET")


def test_without_credentials_for_the_token_server_the_remedy_is_named(bed, msb, small, token_server):
    token_server.anonymous = False
    msb.refused("pull", f"{bed.token.address}/{small.name}", words=[bed.token.address, "msb login"])


@pytest.mark.parametrize("field", ["token", "access_token"])
@pytest.mark.parametrize("lifetime", [None, 60])
def test_a_token_is_understood_in_each_of_its_forms(bed, msb, small, token_server, field, lifetime):
    token_server.field, token_server.lifetime = field, lifetime
    msb.pull(f"{bed.token.address}/{small.name}")


@pytest.mark.parametrize("refuse_post", [False, True], ids=["POST", "GET"])
def test_a_refresh_token_gets_tokens(bed, msb, small, token_server, refuse_post):
    token_server.anonymous = False
    token_server.refuse_post = refuse_post
    token = token_server.give_refresh_token(USER)
    know(msb, bed.token.address, "PHRva2VuPjo=", identitytoken=token)
    if refuse_post:  # and a server that knows GET alone has no use for it
        msb.refused("pull", f"{bed.token.address}/{small.name}", words=[bed.token.address])
        return
    msb.pull(f"{bed.token.address}/{small.name}")
    [asked] = token_server.requests
    assert asked.method == "POST" and b"grant_type=refresh_token" in asked.body


def test_a_token_that_expired_on_the_way_is_asked_for_again(bed, msb, small, token_server):
    with bed.proxy(bed.token) as proxy:
        challenge = (f'Bearer realm="{token_server.url}/token",service="{token_server.service}",'
                     'scope="repository:small:pull",error="invalid_token"')
        proxy.on("/blobs/", faults.status(401, ("WWW-Authenticate", challenge)), first=1)
        msb.pull(f"{proxy.address}/{small.name}")
    assert 2 <= token_server.count("GET", "/token") <= 3


def test_tokens_that_are_never_good_are_not_asked_for_again_and_again(bed, msb, small, token_server):
    token_server.lifetime = -120
    msb.refused("pull", f"{bed.token.address}/{small.name}", words=[bed.token.address])
    assert token_server.count("GET", "/token") <= 3


def answer_with(content, media_type="application/json", status=200):
    return lambda _, handler: handler.send(status, [("Content-Type", media_type), ("Content-Length", str(len(content)))], [content])


def endless(_, handler):
    def pieces():
        while not handler.server.owner.ended.is_set():
            yield b" " * 65536
    handler.send(200, [("Content-Type", "application/json")], pieces())


@pytest.mark.parametrize("answer", [
    answer_with(b"<html>"), answer_with(b"[]"), answer_with(b"{}"), answer_with(b'{"token": 3}'), answer_with(b'{"token": ""}'),
    answer_with(b'{"token": "a\\r\\nX-Injected: yes"}'),
    answer_with(b"{}", status=404), answer_with(b"[" * 100_000), endless,
], ids=["HTML", "list", "none", "number", "empty", "two lines", "404", "deep", "endless"])
def test_what_a_token_server_may_not_answer_is_refused(bed, msb, small, token_server, answer):
    token_server.override = answer
    msb.refused("pull", f"{bed.token.address}/{small.name}", words=[bed.token_server.address])


def challenged(proxy, challenge):
    proxy.on("", faults.status(401, ("WWW-Authenticate", challenge)))


@pytest.mark.parametrize("challenge", ["Negotiate", "Bearer", 'Bearer realm="', 'Bearer realm="ftp://x/"', "", "Basic realm=" + "x" * 9000,
                                       'Bearer realm="file:///etc/passwd",service="x"', 'Bearer realm="https://127.0.0.1:1/"'])
def test_a_challenge_that_nobody_can_answer_is_refused(msb, small, proxy, challenge):
    challenged(proxy, challenge)
    know(msb, proxy.address)
    msb.refused("pull", f"{proxy.address}/{small.name}", words=[proxy.address])


def test_credentials_are_not_sent_to_a_token_server_in_the_clear(bed, msb, small, proxy):
    with bed.proxy(tls=False) as listener:
        challenged(proxy, f'Bearer realm="{listener.url}/token",service="x"')
        know(msb, proxy.address)
        msb.refused("pull", f"{proxy.address}/{small.name}", words=[proxy.address])
        assert listener.requests == []


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_blob_is_fetched_where_it_was_moved_to_and_credentials_stay(bed, msb, small, status):
    with bed.proxy(bed.basic) as proxy, bed.proxy() as other:
        know(msb, proxy.address)
        proxy.on("/blobs/", faults.redirect(f"https://127.0.0.1:{other.port}", status))
        msb.pull(f"{proxy.address}/{small.name}")
        assert other.count("GET", "/blobs/") == len(small.blobs)
        assert requests_with_credentials(other) == []
        assert BASIC not in str(other.requests)
        assert requests_with_credentials(proxy) != []


def test_a_token_stays_when_a_blob_is_elsewhere(bed, msb, small, token_server):
    with bed.proxy(bed.token) as proxy, bed.proxy() as other:
        proxy.on("/blobs/", faults.redirect(f"https://127.0.0.1:{other.port}"))
        msb.pull(f"{proxy.address}/{small.name}")
        assert other.requests and requests_with_credentials(other) == []


def test_another_port_is_another_host(bed, msb, small):
    with bed.proxy(bed.basic) as proxy, bed.proxy() as other:
        know(msb, proxy.address)
        proxy.on("/blobs/", faults.redirect(other.url))
        msb.pull(f"{proxy.address}/{small.name}")
        assert other.requests and requests_with_credentials(other) == []


def test_a_redirect_out_of_tls_is_refused(bed, msb, small, proxy):
    with bed.proxy(tls=False) as listener:
        proxy.on("/blobs/", faults.redirect(listener.url))
        msb.refused("pull", f"{proxy.address}/{small.name}", words=[proxy.address])
        assert listener.requests == []
    msb.check_store()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://localhost:1/", "https://user:word@127.0.0.1:1/", "https://[", ""])
def test_a_redirect_to_what_is_no_https_url_is_refused(msb, small, proxy, target):
    proxy.on("/blobs/", faults.redirect(target, keep_path=False))
    msb.refused("pull", f"{proxy.address}/{small.name}", words=[proxy.address])
    msb.check_store()


def test_redirects_in_a_circle_end(msb, small, proxy):
    proxy.on("/blobs/", faults.redirect(proxy.url))
    msb.refused("pull", f"{proxy.address}/{small.name}", words=[proxy.address])
    assert proxy.count("GET", "/blobs/") < 200
