# SPDX-License-Identifier: Apache-2.0
"""Registries and networks that fail: what can be mended is, and what cannot is said in one sentence."""

import contextlib
import re

import pytest
from msb import Msb, sentence
from registry import faults
from registry.content import OCI_MANIFEST


# What is asked for again and again until it is given up: where, how it fails, what the sentence names beside the image.
HOPELESS = {
    "503 for a manifest": ("/manifests/", faults.status(503, ("Retry-After", "0")), "503"),
    "503 for a layer": ("LAYER", faults.status(503), "503"),
    "a silent registry": ("/manifests/", faults.silence, ""),
    "a silent layer": ("LAYER", faults.silence, "LAYER"),
    "a layer that is always cut": ("LAYER", faults.cut(0), "LAYER"),
    "a layer that is said to be shorter": ("LAYER", faults.length(-1000), "LAYER"),
    "a layer that is another document": ("LAYER", faults.status(200), "LAYER"),
}


@pytest.fixture(scope="module", autouse=True)
def hopeless(bed, small, tmp_path_factory):
    """Giving up takes half a minute, so these pulls go on beside the other tests of this file."""
    layer = small.layers[1]["digest"]
    started = {}
    with contextlib.ExitStack() as stack:
        for name, (pattern, fault, word) in HOPELESS.items():
            proxy = stack.enter_context(bed.proxy())
            proxy.on(pattern.replace("LAYER", layer), fault)
            msb = Msb(tmp_path_factory.mktemp("hopeless"), bed)
            process = stack.enter_context(msb.start("pull", "--timeout", "1", f"{proxy.address}/{small.name}"))
            stack.callback(process.kill)
            started[name] = msb, proxy, process, word.replace("LAYER", layer)
        yield started


@pytest.fixture
def reference(proxy, small):
    return f"{proxy.address}/{small.name}"


@pytest.fixture
def big(small):
    """The digest of the layer that is worth cutting: a little over 300 KiB."""
    return small.layers[1]["digest"]


@pytest.fixture(autouse=True)
def whole_store(msb):
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


def test_a_layer_that_is_cut_each_time_comes_whole_as_long_as_it_goes_on(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.cut(120_000))
    msb.pull(reference)
    assert len(gets(proxy, big)) == 3


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


@pytest.mark.parametrize("pattern, code", [("/manifests/", 500), ("/manifests/", 504), ("/blobs/", 502), ("/blobs/", 503)])
def test_a_registry_that_fails_for_a_moment_is_asked_again(msb, proxy, reference, pattern, code):
    proxy.on(pattern, faults.status(code), first=1)
    msb.pull(reference)


@pytest.mark.parametrize("pattern, code", [("/manifests/", 429), ("/blobs/", 503)])
def test_a_registry_that_says_when_to_come_again_is_left_alone_until_then(msb, proxy, reference, pattern, code):
    rule = proxy.on(pattern, faults.status(code, ("Retry-After", "2")), first=1)
    msb.pull(reference)
    assert rule.requests[1].when - rule.requests[0].when >= 2


def test_a_layer_without_a_length_is_pulled(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.without_length)
    msb.pull(reference)


@pytest.mark.parametrize("digest", [None, "", "sha256:", "sha512:" + "0" * 128, "x" * 5000, "../../etc/passwd"],
                         ids=["none", "empty", "no digits", "sha512", "long", "a path"])
def test_a_registry_that_tells_no_digest_that_we_know_is_not_needed_to(msb, proxy, reference, small, digest):
    proxy.on("", faults.content_digest(digest))
    assert msb.pull(reference)["digest"] == small.digest
    assert msb.pull(reference)["upToDate"] is True


def test_a_layer_without_a_type_is_pulled(msb, proxy, reference):
    proxy.on("/blobs/", faults.content_type(None))
    msb.pull(reference)


# Refused


@pytest.mark.parametrize("code, words", [(403, "denies access"), (404, "has no"), (410, "410"), (418, "418")])
@pytest.mark.parametrize("pattern", ["/manifests/", "/blobs/"])
def test_what_a_registry_refuses_is_not_asked_again_and_again(msb, proxy, reference, pattern, code, words):
    proxy.on(pattern, faults.status(code))
    msb.refused("pull", reference, words=[reference, words])
    assert len(proxy.requests) < 20
    assert msb.references() == []


def test_what_a_registry_says_about_a_refusal_is_told_without_control_characters(msb, proxy, reference):
    errors = b'{"errors": [{"code": "DENIED", "message": "come\\u001b[2Jback \\r\\nmsb: tomorrow", "detail": null}]}'
    proxy.on("/manifests/", faults.status(403, body=errors))
    sentence = msb.refused("pull", reference)
    assert "\x1b" not in sentence and "back" in sentence


def test_a_registry_that_wants_us_back_tomorrow_is_not_waited_for(msb, proxy, reference):
    proxy.on("/manifests/", faults.status(429, ("Retry-After", "86400")))
    msb.refused("pull", reference, words=[reference, "24 hours"])


def test_a_corrupt_layer_is_refused_by_its_digest(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.corrupt(200_000))
    msb.refused("pull", reference, words=[reference, big])
    assert big not in msb.blobs()
    assert msb.references() == []


def test_a_layer_that_is_said_to_be_longer_is_refused(msb, proxy, reference, big):
    proxy.on(f"/blobs/{big}", faults.length(1000))
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


def test_a_web_page_in_the_place_of_a_manifest_is_refused(msb, proxy, reference):
    proxy.on("/manifests/", faults.body(b"<html>Log in to this hotel</html>", "text/html"))
    msb.refused("pull", reference, words=[proxy.address, "text/html"])


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\0" * 100, b'{"schemaVersion": 1}', b"[" * 100_000],
                         ids=["empty", "object", "list", "zeros", "version", "deep"])
def test_a_manifest_that_is_none_is_refused(msb, proxy, reference, content):
    proxy.on("/manifests/", faults.body(content, OCI_MANIFEST))
    msb.refused("pull", reference, words=[reference])


def test_headers_that_do_not_end_are_refused(msb, proxy, reference):
    proxy.on("/manifests/", faults.status(404, *[("X-Padding", "x" * 8000)] * 1000))
    msb.refused("pull", reference, words=[proxy.address])


@pytest.mark.parametrize("name", HOPELESS)
def test_what_never_comes_is_given_up(hopeless, small, name):
    msb, proxy, process, word = hopeless[name]
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    sentence(errors, [f"{proxy.address}/{small.name}", word])
    assert 2 < len(proxy.requests) < 60
    assert msb.references() == []
    msb.check_store()
