# SPDX-License-Identifier: Apache-2.0
"""The registries that images are pulled from in tests: a client that others wrote finds them as they are meant to be."""

import json

import pytest
from conftest import IMAGES
from registry import faults
from registry.bed import PASSWORD, USER
from registry.connect_proxy import ConnectProxy
from registry.content import Image, Index, tar_of


def inspect(bed, where, *options, **more):
    return bed.skopeo("inspect", "--no-tags", *options, f"docker://{where}", **more)


def copy(bed, where, tmp_path, **more):
    return bed.skopeo("copy", f"docker://{where}", f"oci:{tmp_path}/layout:copy", **more)


def test_an_image_made_by_hand_is_whole_for_skopeo(bed, small, tmp_path):
    copy(bed, f"{bed.registry.address}/{small.name}", tmp_path)
    index = json.loads((tmp_path / "layout/index.json").read_text())
    assert index["manifests"][0]["digest"] == small.digest


def test_an_index_leads_skopeo_to_its_platform(bed):
    tar = tar_of({"file": b"content"})
    images = [Image([(tar, "")], docker=True, architecture=architecture) for architecture in ("arm64", "amd64")]
    name = bed.push("index", "both", Index(images, docker=True))
    found = json.loads(inspect(bed, f"{bed.registry.address}/{name}", "--format", "{{json .}}").stdout)
    assert found["Architecture"] == "amd64"


def test_skopeo_pushes_an_image_that_was_built(bed):
    name = bed.push_layout(IMAGES, "base", "base")
    [digest] = [entry["digest"] for entry in json.loads((IMAGES / "index.json").read_text())["manifests"]
                if entry["annotations"]["org.opencontainers.image.ref.name"] == "base"]
    assert inspect(bed, f"{bed.registry.address}/{name}", "--format", "{{.Digest}}").stdout.strip() == digest


def test_the_registry_with_passwords_wants_one(bed, small):
    where = f"{bed.basic.address}/{small.name}"
    assert "unauthorized" in inspect(bed, where, check=False).stderr
    assert "unauthorized" in inspect(bed, where, "--creds", f"{USER}:wrong", check=False).stderr
    inspect(bed, where, "--creds", f"{USER}:{PASSWORD}")


def test_the_registry_with_tokens_takes_those_of_its_server(bed, small, token_server):
    where = f"{bed.token.address}/{small.name}"
    inspect(bed, where)
    assert token_server.count("GET", "scope=repository%3Asmall%3Apull") == 1
    token_server.anonymous = False
    assert "unauthorized" in inspect(bed, where, check=False).stderr
    inspect(bed, where, "--creds", f"{USER}:{PASSWORD}")


def test_a_refresh_token_gets_a_token_by_post(bed, small, token_server, tmp_path):
    token_server.anonymous = False
    auth = tmp_path / "auth.json"
    # As Docker writes it: with "<token>:" for a name and password.
    entry = {"auth": "PHRva2VuPjo=", "identitytoken": token_server.give_refresh_token(USER)}
    auth.write_text(json.dumps({"auths": {bed.token.address: entry}}))
    inspect(bed, f"{bed.token.address}/{small.name}", "--authfile", auth)
    assert token_server.count("POST", "/token") == 1


def test_the_proxy_passes_on_what_no_rule_is_for_and_remembers_it(bed, small, proxy, tmp_path):
    copy(bed, f"{proxy.address}/{small.name}", tmp_path)
    for digest in small.blobs:
        assert proxy.count("GET", f"/blobs/{digest}") == 1
    assert proxy.count("GET", "/manifests/latest") == 1


@pytest.mark.parametrize("fault, words", [
    (faults.corrupt(1000), "digest"),
    (faults.status(404), "404"),
    (faults.length(-10), "digest"),
], ids=["corrupt", "404", "short"])
def test_a_fault_in_a_layer_fails_a_copy(bed, small, proxy, tmp_path, fault, words):
    proxy.on(f"/blobs/{small.layers[1]['digest']}", fault)
    assert words in copy(bed, f"{proxy.address}/{small.name}", tmp_path, check=False).stderr.lower()


def test_a_fault_once_is_a_fault_once(bed, small, proxy, tmp_path):
    rule = proxy.on(f"/blobs/{small.layers[1]['digest']}", faults.cut(100_000), first=1)
    assert copy(bed, f"{proxy.address}/{small.name}", tmp_path, check=False).returncode != 0
    copy(bed, f"{proxy.address}/{small.name}", tmp_path)
    assert len(rule.requests) >= 2


def test_a_redirect_leads_to_another_host_that_tells_what_it_was_given(bed, small, tmp_path):
    with bed.proxy(bed.basic) as proxy, bed.proxy() as other:
        proxy.on("/blobs/", faults.redirect(f"https://127.0.0.1:{other.port}"))
        bed.skopeo("copy", "--src-creds", f"{USER}:{PASSWORD}", f"docker://{proxy.address}/{small.name}",
                   f"oci:{tmp_path}/layout:copy")
        assert {request.method for request in other.requests} == {"GET"} and len(other.requests) == 3
        assert all(request.headers["host"] == f"127.0.0.1:{other.port}" for request in other.requests)


def test_a_proxy_of_the_environment_leads_to_names_that_only_it_knows(bed, small):
    with ConnectProxy({"registry.test:443": bed.registry.port}) as connect:
        inspect(bed, f"registry.test/{small.name}", environment={"HTTPS_PROXY": connect.url})
        assert connect.count("CONNECT", "registry.test:443") >= 1
