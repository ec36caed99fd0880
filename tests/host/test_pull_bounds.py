# SPDX-License-Identifier: Apache-2.0
"""Images that ask for more than they should get: of bytes, entries, nesting, kinds of content."""

import gzip
import io
import json
import os
import tarfile

import pytest
from msb import MSB, TIMEOUT, sentence
from registry import faults
from registry.content import (DOCKER_INDEX, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Image, descriptor_of, digest_of,
                              tar_of)
from registry.push import Pusher

MIB = 1 << 20


@pytest.mark.parametrize("fault", [
    faults.body(b" " * (100 * MIB), OCI_MANIFEST),
    faults.endless(OCI_MANIFEST),
    faults.endless(OCI_MANIFEST, claim=1000),
], ids=["100 MiB", "endless", "endless, said to be short"])
def test_a_manifest_of_no_reasonable_size_is_refused_at_once(msb, small, proxy, fault):
    proxy.on("/manifests/", fault, method="GET")
    used, errors = msb.peak_memory("pull", f"{proxy.address}/{small.name}", status=1)
    sentence(errors, [small.name])
    assert used < 64 * MIB


def test_a_descriptor_may_not_ask_for_a_document_of_100_mib(bed, msb):
    image = Image([(tar_of({"x": b"x"}), "gzip")])
    manifest = json.loads(image.manifest)
    manifest["config"]["size"] = 100 * MIB
    msb.refused("pull", put(bed, "config-size", image.blobs, json.dumps(manifest).encode()),
                words=["config-size", image.config["digest"]])


def put(bed, name, blobs, manifest, media_type=OCI_MANIFEST):
    """A manifest that no client would push, past the registry's own checks where that takes a proxy."""
    with Pusher(bed.registry, name) as pusher:
        for digest, content in blobs.items():
            pusher.blob(digest, content)
        pusher.manifest("latest", media_type, manifest)
    return f"{bed.registry.address}/{name}"


def serve(bed, proxy, small, manifest, media_type=OCI_MANIFEST):
    """The same, for what the registry does not take: the proxy has it."""
    answer = faults.body(manifest, media_type, ("Docker-Content-Digest", digest_of(manifest)))
    proxy.on("/manifests/", answer)
    return f"{proxy.address}/{small.name}"


def changed(small, **fields):
    return json.dumps(json.loads(small.manifest) | fields).encode()


@pytest.mark.parametrize("media_type, words", [
    ("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
    ("application/vnd.cncf.helm.config.v1+json", "helm"),
    ("text/plain", "text/plain"),
])
def test_a_manifest_of_a_kind_that_is_no_image_is_refused_by_its_kind(bed, msb, small, proxy, media_type, words):
    msb.refused("pull", serve(bed, proxy, small, changed(small, mediaType=media_type), media_type), words=[small.name, words])


def test_a_manifest_that_says_to_be_an_index_is_refused(bed, msb, small, proxy):
    msb.refused("pull", serve(bed, proxy, small, changed(small, mediaType=OCI_INDEX)), words=[small.name])
    proxy.rules.clear()
    msb.refused("pull", serve(bed, proxy, small, small.manifest, DOCKER_INDEX), words=[small.name])


@pytest.mark.parametrize("kind, words", [
    ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
    ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
    ("application/vnd.oci.image.layer.v1.tar+xz", "xz"),
    ("application/octet-stream", "octet-stream"),
])
def test_a_layer_of_a_kind_that_is_none_of_ours_is_refused_by_its_kind(bed, msb, small, proxy, kind, words):
    layers = [small.layers[0], small.layers[1] | {"mediaType": kind}]
    msb.refused("pull", serve(bed, proxy, small, changed(small, layers=layers)), words=[small.name, words])
    assert proxy.count("GET", small.layers[0]["digest"]) == 0


def test_an_artifact_that_is_no_image_is_refused_by_its_kind(bed, msb):
    content = json.dumps({"name": "chart"}).encode()
    config = descriptor_of("application/vnd.cncf.helm.config.v1+json", content)
    layer = descriptor_of("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart")
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}).encode()
    msb.refused("pull", put(bed, "chart", {config["digest"]: content, layer["digest"]: b"chart"}, manifest),
                words=["chart", "helm"])


@pytest.mark.parametrize("layers", [501, 20_000])
def test_too_many_layers_are_refused(bed, msb, small, proxy, layers):
    msb.refused("pull", serve(bed, proxy, small, changed(small, layers=small.layers[:1] * layers)), words=[small.name])
    assert proxy.count("GET", "/blobs/") == 0


@pytest.mark.parametrize("size", [-1, 1.5, "10", 1 << 63, 1 << 70, None])
def test_a_size_that_is_none_is_refused(bed, msb, small, proxy, size):
    layers = [small.layers[0] | {"size": size}]
    msb.refused("pull", serve(bed, proxy, small, changed(small, layers=layers)), words=[small.name, "size"])


@pytest.mark.parametrize("change", [-1, 1, 1 << 40])
def test_a_layer_of_another_size_than_the_manifest_says_is_refused(bed, msb, small, proxy, change):
    layer = small.layers[1]
    layers = [small.layers[0], layer | {"size": layer["size"] + change}]
    msb.refused("pull", serve(bed, proxy, small, changed(small, layers=layers)), words=[small.name, layer["digest"]])
    msb.check_store()


def test_a_layer_of_another_diff_id_than_the_configuration_says_is_refused(bed, msb):
    image = Image([(tar_of({"a": b"a"}), "gzip"), (tar_of({"b": b"b"}), "gzip")])
    config = json.loads(image.blobs[image.config["digest"]])
    config["rootfs"]["diff_ids"].reverse()
    content = json.dumps(config).encode()
    manifest = json.loads(image.manifest) | {"config": descriptor_of(OCI_CONFIG, content)}
    reference = put(bed, "diff-ids", image.blobs | {digest_of(content): content}, json.dumps(manifest).encode())
    said = msb.refused("pull", reference, words=["diff-ids", "diff ID"])
    assert any(layer["digest"] in said for layer in image.layers)
    msb.check_store()


def test_an_index_within_indexes_without_end_is_refused(bed, msb, small, proxy):
    inner = descriptor_of(small.manifest_type, small.manifest)
    documents = []
    for _ in range(8):
        content = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]}).encode()
        inner = descriptor_of(OCI_INDEX, content)
        documents.append(content)
    for content in documents:
        proxy.on(digest_of(content), faults.body(content, OCI_INDEX))
    msb.refused("pull", serve(bed, proxy, small, documents[-1], OCI_INDEX), words=[small.name, "index"])


# Bombs


def pulled_layer(bed, name, blob, diff_id="sha256:" + "1" * 64):
    """An image of one layer whose blob is given as it is."""
    image = Image([])
    config = json.loads(image.blobs[image.config["digest"]])
    config["rootfs"]["diff_ids"] = [diff_id]
    content = json.dumps(config).encode()
    layer = descriptor_of(OCI_LAYER + "+gzip", blob)
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor_of(OCI_CONFIG, content), "layers": [layer]}
    reference = put(bed, name, {digest_of(content): content, layer["digest"]: blob}, json.dumps(manifest).encode())
    return reference, layer["digest"]


def zeros(blocks):
    """gzip members of 64 MiB of zeros each, after one another (RFC 1952, 2.2)."""
    return gzip.compress(bytes(64 * MIB), 9, mtime=0) * blocks


def header_of(size):
    entry = tarfile.TarInfo("bomb")
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


BOMBS = {
    "said": gzip.compress(header_of(100 << 30), mtime=0) + zeros(1),
    "padding": gzip.compress(tar_of({"x": b"x"}), mtime=0) + zeros(4),
    "nested": gzip.compress(gzip.compress(zeros(4), mtime=0), mtime=0),
    "cut": gzip.compress(tar_of({"x": bytes(MIB)}), mtime=0)[:-200],
    "rubbish": gzip.compress(tar_of({"x": bytes(MIB)}), mtime=0) + b"rubbish" * 100,
    "plain": tar_of({"x": bytes(MIB)}),
    "empty": b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_layer_that_is_no_honest_gzip_is_refused_in_little_memory_and_disk(bed, msb, name):
    reference, digest = pulled_layer(bed, f"bomb-{name}", BOMBS[name])
    used, errors = msb.peak_memory("pull", reference, status=1)
    sentence(errors, [f"bomb-{name}", digest])
    assert used < 128 * MIB
    msb.check_store()
    assert sum((msb.home / name).stat().st_blocks * 512 for name in msb.files()) < MIB


@pytest.mark.skipif(os.environ.get("MSB_TEST_FULL") != "1", reason="run with --full")
def test_a_layer_of_too_many_entries_is_refused(bed, msb):
    members = io.BytesIO()
    for start in range(0, 2_100_000, 100_000):
        block = b"".join(tarfile.TarInfo(f"d/{number:07}").tobuf(tarfile.USTAR_FORMAT) for number in range(start, start + 100_000))
        members.write(gzip.compress(block, 1, mtime=0))
    reference, digest = pulled_layer(bed, "bomb-entries", members.getvalue())
    process = msb.start("pull", reference)
    _, errors = process.communicate(timeout=10 * TIMEOUT)
    assert process.returncode == 1, MSB
    assert digest in errors.decode() and "2000000" in errors.decode().replace(",", "")
    msb.check_store()
