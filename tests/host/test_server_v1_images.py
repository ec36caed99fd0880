# SPDX-License-Identifier: Apache-2.0
"""The API below /v1: images, and pulls."""

import urllib.parse

import pytest
from conftest import wait_until
from json_schema import NDJSON, parts_of
from registry import faults
from server_api import Api
from server_bed import needs_root
from server_clients import Http

pytestmark = needs_root


@pytest.fixture
def registry_host(server_host, bed, document):
    """A server that trusts the registry of the test bed."""
    server_host.environment |= {"SSL_CERT_FILE": str(bed.authority.certificate)}
    server = server_host.serve()
    return Api(Http(server.port, server.key), document), server


def test_images_are_listed_and_described(api):
    listed = {entry["reference"]: entry for entry in api.done("GET", "/images")["images"]}
    assert any("python" in name for name in listed)
    [found] = api.done("GET", "/images?reference=base")["images"]
    for name in ("base", found["digest"], found["digest"].partition(":")[2][:12],
                 urllib.parse.quote(found["reference"], safe="")):
        described = api.done("GET", f"/images/{name}")
        assert described["manifest"] == found["manifest"] and described["architecture"] == "amd64"
    api.refused("GET", "/images/nothing-of-that-name", status=404)
    api.refused("GET", "/images/NOT%20A%20REFERENCE", status=(400, 404))


def test_an_image_is_pulled_with_its_progress_and_removed(registry_host, bed, small, proxy):
    api, _ = registry_host
    proxy.on(small.layers[1]["digest"], faults.slow(300_000))
    reference = f"{proxy.address}/{small.name}"
    events = api.streamed("POST", "/images", {"reference": reference})
    assert events[-1]["event"] == "pulled" and events[-1]["image"]["digest"] == small.digest
    progress = [event for event in events if event["event"] == "progress"]
    assert progress and [event["received"] for event in progress] == sorted(event["received"] for event in progress)
    assert api.done("POST", "/images", {"reference": f"{bed.registry.address}/{small.name}"})["digest"] == small.digest
    query = urllib.parse.urlencode({"reference": reference})
    assert api.done("DELETE", f"/images?{query}")["image"]["reference"] == reference
    api.refused("DELETE", f"/images?{query}", status=404)


def test_a_sandbox_of_an_image_that_is_not_here_pulls_it(registry_host, bed, small):
    api, _ = registry_host
    made = api.done("POST", "/sandboxes", {"name": "pulled", "config": {"image": f"{bed.registry.address}/{small.name}"}},
                    status=201)
    assert made["state"] == "running"


def test_a_pull_whose_client_left_is_broken_off(registry_host, server_host, small, proxy):
    api, server = registry_host
    before = len(server_host.processes())
    proxy.on(small.layers[1]["digest"], faults.stall(100_000))
    response, connection = api.open("POST", "/images", {"reference": f"{proxy.address}/{small.name}"})
    response.readline()
    assert len(server_host.processes()) > before
    connection.close()
    response.close()
    wait_until(lambda: len(server_host.processes()) == before, "the pull has ended")
    assert server.process.poll() is None


@pytest.mark.parametrize("body", [{}, {"reference": ""}, {"reference": 1}, {"reference": "NOT AN IMAGE"}, {"reference": "/etc"},
                                  {"reference": "x", "tag": "y"}])
def test_a_pull_that_cannot_be_is_refused(api, body):
    api.refused("POST", "/images", body, status=(400, 403))


def test_a_pull_that_fails_says_why(registry_host, bed):
    api, _ = registry_host
    reference = f"{bed.registry.address}/nothing:1"
    for headers in (None, {"Accept": NDJSON}):
        answer = api.post("/images", {"reference": reference}, headers=headers)
        if answer.status == 200:
            assert parts_of(NDJSON, answer.body)[-1]["event"] == "failed"
        else:
            assert answer.status == 502 and reference in answer.json["error"]["message"]

def test_all_operations_for_images_were_asked_for(document):
    """The last one here: nothing of the document was forgotten by these tests."""
    assert document.not_seen("images") == set()
