# SPDX-License-Identifier: Apache-2.0
"""Registries and networks that fail: what can be mended is, and what cannot is said in one sentence."""

import re

import pytest
from registry import faults
from registry.content import OCI_MANIFEST


@pytest.fixture
def reference(proxy, small):
    return f"{proxy.address}/{small.name}"


@pytest.fixture
def big(small):
    """The digest of the layer that is worth cutting: a little over 300 KiB."""
    return small.layers[1]["digest"]


@pytest.fixture(autouse=True)
def a_whole_store(msb):
    """Whatever happened, nothing half-made stays."""
    yield
    if msb.home.exists():
        msb.check_store()


def gets(proxy, digest):
    return [request for request in proxy.requests if request.method == "GET" and digest in request.path]


# Mended


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_a_layer_that_was_cut_goes_on_where_it_ended(msb, proxy, reference, big, reset):
    proxy.on(f"/blobs/{big}", faults.cut(100_000, reset), first=1)
    msb.pull(reference)
    first, second = gets(proxy, big)
    assert "range" not in first.headers
    start = int(re.fullmatch(r"bytes=(\d+)-\d*", second.headers["range"]).group(1))
    assert start == 100_000 or reset and start <= 100_000


def test_a_layer_that_was_cut_comes_whole_from_who_knows_no_ranges(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.cut(100_000), nth=1)
    proxy.on(f"/blobs/{big}", faults.no_ranges)
    msb.pull(reference)


def test_a_layer_that_comes_in_two_parts_of_different_content_is_refused(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.cut(100_000), nth=1)
    proxy.on(f"/blobs/{big}", faults.corrupt(0))
    msb.refused("pull", reference, words=[reference, big])


def test_a_layer_that_stalls_is_asked_for_again(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.stall(100_000), first=1)
    msb.pull(reference, "--timeout", "1")
    assert len(gets(proxy, big)) == 2


@pytest.mark.parametrize("pattern", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_registry_that_fails_for_a_moment_is_asked_again(msb, proxy, reference, pattern, code):
    proxy.on(pattern, faults.status(code), first=1)
    msb.pull(reference)


@pytest.mark.parametrize("code", [429, 503])
def test_a_registry_that_says_when_to_come_again_is_left_alone_until_then(msb, proxy, reference, code):
    rule = proxy.on("/manifests/", faults.status(code, ("Retry-After", "2")), first=1)
    msb.pull(reference)
    assert rule.requests[1].when - rule.requests[0].when >= 2


def test_a_layer_without_a_length_is_pulled(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.without_length)
    msb.pull(reference)


@pytest.mark.parametrize("fault", [faults.content_digest(None), faults.content_type(None)], ids=["digest", "type"])
def test_headers_that_registries_may_leave_out_are_not_missed(msb, proxy, reference, fault):
    proxy.on("/blobs/", faults.content_type(None))
    proxy.on("/manifests/", fault)
    msb.pull(reference)


# Refused


@pytest.mark.parametrize("code, words", [(403, "403"), (404, "not"), (410, "410"), (418, "418"), (600, "600"), (200, "")])
@pytest.mark.parametrize("pattern", ["/manifests/", "/blobs/"])
def test_what_a_registry_refuses_is_not_asked_again_and_again(msb, proxy, reference, pattern, code, words):
    proxy.on(pattern, faults.status(code))
    msb.refused("pull", reference, words=[proxy.address, words])
    assert len(proxy.requests) < 20
    assert msb.references() == []


def test_what_a_registry_says_about_a_refusal_is_told_without_control_characters(msb, proxy, reference):
    errors = b'{"errors": [{"code": "DENIED", "message": "come\\u001b[2Jback \\r\\nmsb: tomorrow", "detail": null}]}'
    proxy.on("/manifests/", faults.status(403, body=errors))
    sentence = msb.refused("pull", reference)
    assert "\x1b" not in sentence and "back" in sentence


@pytest.mark.parametrize("pattern", ["/manifests/", "/blobs/"])
def test_a_registry_that_keeps_failing_is_given_up(msb, proxy, reference, pattern):
    proxy.on(pattern, faults.status(503, ("Retry-After", "0")))
    msb.refused("pull", reference, words=[proxy.address, "503"])
    assert len(proxy.requests) < 60


def test_a_registry_that_wants_us_back_tomorrow_is_not_waited_for(msb, proxy, reference):
    proxy.on("/manifests/", faults.status(429, ("Retry-After", "86400")))
    msb.refused("pull", reference, words=[proxy.address, "429"])


@pytest.mark.parametrize("fault", [faults.silence, faults.stall(50_000)], ids=["silent", "stalled"])
def test_a_layer_that_never_comes_is_given_up(msb, proxy, reference, big, fault):
    proxy.on(f"/blobs/{big}", fault)
    msb.refused("pull", "--timeout", "1", reference, words=[reference, big])


def test_a_manifest_that_never_comes_is_given_up(msb, proxy, reference):
    proxy.on("/manifests/", faults.silence)
    msb.refused("pull", "--timeout", "1", reference, words=[proxy.address])


def test_a_layer_that_is_always_cut_is_given_up(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.cut(0))
    msb.refused("pull", reference, words=[reference, big])


def test_a_corrupt_layer_is_refused_by_its_digest(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.corrupt(200_000))
    msb.refused("pull", reference, words=[reference, big])
    assert big not in msb.blobs()
    assert msb.references() == []


@pytest.mark.parametrize("change", [-1000, 1000], ids=["less", "more"])
def test_a_lie_about_a_layers_length_is_refused(msb, proxy, reference, big, change):
    proxy.on(f"/blobs/{big}", faults.length(change))
    msb.refused("pull", reference, words=[reference, big])


@pytest.mark.parametrize("claim", [None, 1 << 62], ids=["no length", "a great length"])
def test_a_layer_that_does_not_end_is_refused(msb, proxy, reference, big, claim):
    proxy.on(f"/blobs/{big}", faults.endless(claim=claim))
    msb.refused("pull", reference, words=[reference, big])


def test_a_corrupt_configuration_is_refused_by_its_digest(msb, proxy, reference, small):
    proxy.on(small.config["digest"], faults.corrupt(20))
    msb.refused("pull", reference, words=[reference, small.config["digest"]])


def test_a_manifest_that_is_not_what_the_registry_says_it_is_is_refused(msb, proxy, reference):
    proxy.on("/manifests/", faults.content_digest("sha256:" + "0" * 64))
    msb.refused("pull", reference, words=[reference])


@pytest.mark.parametrize("digest", ["sha256:", "sha512:" + "0" * 128, "x" * 5000, "../../etc/passwd"])
def test_a_digest_that_is_none_is_refused(msb, proxy, reference, digest):
    proxy.on("/manifests/", faults.content_digest(digest))
    msb.refused("pull", reference, words=[reference])


def test_a_web_page_in_the_place_of_a_manifest_is_refused(msb, proxy, reference):
    proxy.on("/manifests/", faults.body(b"<html>Log in to this hotel</html>", "text/html"))
    msb.refused("pull", reference, words=[proxy.address, "text/html"])


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\0" * 100, b'{"schemaVersion": 1}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(msb, proxy, reference, content):
    proxy.on("/manifests/", faults.body(content, OCI_MANIFEST))
    msb.refused("pull", reference, words=[reference])


def test_headers_that_do_not_end_are_refused(msb, proxy, reference):
    proxy.on("/manifests/", faults.status(404, *[("X-Padding", "x" * 8000)] * 1000))
    msb.refused("pull", reference, words=[proxy.address])
