# SPDX-License-Identifier: Apache-2.0
"""`msb pull` of what registries hold: media types, compressions, platforms, names, and what is there already."""

import subprocess

import pytest
from conftest import IMAGES
from registry import faults
from registry.content import DOCKER_LAYER, OCI_LAYER, Image, Index, tar_of, write_layout


def layer(name):
    return tar_of({f"{name}/": b"", f"{name}/content": name.encode() * 1000})


def contents(msb, tmp_path):
    """Path and content of every regular file in every layer of the store, layer after layer."""
    found = {}
    for number, image in enumerate(msb.layer_images()):
        directory = tmp_path / f"extracted-{number}"
        subprocess.run(["fsck.erofs", f"--extract={directory}", image], check=True, capture_output=True)
        found |= {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    return found


@pytest.mark.parametrize("docker, kinds, media_types", [
    (False, ["gzip", "zstd", ""], None),
    (True, ["gzip", ""], None),
    (False, ["gzip", "gzip", ""], [DOCKER_LAYER + ".gzip", OCI_LAYER + "+gzip", OCI_LAYER]),
], ids=["oci", "docker", "mixed"])
def test_layers_of_every_media_type_are_stored(bed, msb, tmp_path, docker, kinds, media_types):
    names = [f"{kind or 'plain'}{number}" for number, kind in enumerate(kinds)]
    image = Image([(layer(name), kind) for name, kind in zip(names, kinds)], docker=docker, media_types=media_types)
    reference = f"{bed.registry.address}/{bed.push('media-types', 'docker' if docker else 'oci', image)}"
    pulled = msb.pull(reference)
    assert pulled["reference"] == reference
    assert pulled["digest"] == pulled["manifest"] == image.digest
    assert pulled["upToDate"] is False
    assert [entry["digest"] for entry in pulled["layers"]] == [entry["digest"] for entry in image.layers]
    assert msb.blobs() == {*image.blobs, image.digest}
    msb.check_store()
    assert contents(msb, tmp_path) == {f"{name}/content": name.encode() * 1000 for name in names}


def test_an_image_that_skopeo_converted_to_dockers_format_is_pulled(bed, msb, tmp_path):
    image = Image([(layer("first"), "gzip"), (layer("second"), "gzip")])
    layout = write_layout(tmp_path / "layout", {"converted": image})
    pulled = msb.pull(f"{bed.registry.address}/{bed.push_layout(layout, 'converted', 'converted', '--format', 'v2s2')}")
    assert [entry["diffId"] for entry in pulled["layers"]] == image.diff_ids
    msb.check_store()


def test_an_image_as_skopeo_pushed_it_is_pulled(bed, msb):
    pulled = msb.pull(f"{bed.registry.address}/{bed.push_layout(IMAGES, 'base', 'base')}")
    assert len(pulled["layers"]) == 3
    msb.check_store()


def test_an_image_without_layers_is_pulled(bed, msb):
    reference = f"{bed.registry.address}/{bed.push('empty', 'latest', Image([]))}"
    assert msb.pull(reference)["layers"] == []
    msb.check_store()


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_of_an_index_this_platform_is_taken_and_its_own_digest_told(bed, msb, docker):
    images = {architecture: Image([(layer(architecture), "gzip")], docker=docker, architecture=architecture)
              for architecture in ("arm64", "amd64", "s390x")}
    index = Index(list(images.values()), docker=docker)
    pulled = msb.pull(f"{bed.registry.address}/{bed.push('platforms', f'docker-{docker}'.lower(), index)}")
    assert (pulled["digest"], pulled["manifest"]) == (index.digest, images["amd64"].digest)
    assert not msb.blobs() & {*images["arm64"].blobs, *images["s390x"].blobs} - set(images["amd64"].blobs)


def test_attestations_beside_an_image_are_not_it(bed, msb):
    attestation = Image([(b"{}", "")], system="unknown", architecture="unknown", media_types=["application/vnd.in-toto+json"])
    image = Image([(layer("attested"), "gzip")])
    assert msb.pull(f"{bed.registry.address}/{bed.push('attested', 'latest', Index([attestation, image]))}")["manifest"] \
        == image.digest


def test_an_index_without_our_platform_is_refused(bed, msb):
    index = Index([Image([(layer("arm"), "gzip")], architecture=architecture) for architecture in ("arm64", "riscv64")])
    reference = f"{bed.registry.address}/{bed.push('foreign', 'latest', index)}"
    msb.refused("pull", reference, words=[reference, "linux/amd64"])
    assert msb.references() == []
    msb.check_store()


def test_a_single_image_for_another_platform_is_refused(bed, msb):
    reference = f"{bed.registry.address}/{bed.push('arm', 'latest', Image([(layer('arm'), 'gzip')], architecture='arm64'))}"
    msb.refused("pull", reference, words=[reference, "arm64", "amd64"])
    assert msb.references() == []


def test_names_and_digests_are_printed_one_a_line(bed, msb, small):
    other = Image([(layer("other"), "gzip")])
    references = [f"{bed.registry.address}/{small.name}", f"{bed.registry.address}/{bed.push('other', 'v1', other)}"]
    lines = msb.done("pull", "--quiet", *references).splitlines()
    assert len(lines) == 2
    for line, reference, image in zip(lines, references, (small, other)):
        assert line.startswith(reference.rpartition(":")[0]) and line.endswith(f"@{image.digest}")


def test_quiet_says_nothing_but_the_result(bed, msb, small):
    result = msb("pull", "--quiet", f"{bed.registry.address}/{small.name}")
    assert result.returncode == 0 and result.stderr == b""


def test_a_digest_is_pulled_and_no_other_content(bed, msb, small, proxy):
    msb.pull(f"{proxy.address}/small@{small.digest}")
    other = Image([(layer("by digest"), "gzip")])
    bed.push("small", "other", other)
    with_other = f"{proxy.address}/small@{other.digest}"
    proxy.on(other.digest, faults.body(small.manifest, small.manifest_type), method="GET")
    msb.refused("pull", with_other, words=[other.digest])
    msb.check_store()


def test_what_is_up_to_date_costs_one_request(msb, small, proxy):
    reference = f"{proxy.address}/{small.name}"
    first = msb.pull(reference)
    proxy.requests.clear()
    second = msb.pull(reference)
    assert [(request.method, request.path) for request in proxy.requests] == [("HEAD", "/v2/small/manifests/latest")]
    assert second["upToDate"] is True and second["digest"] == first["digest"]


def test_what_is_up_to_date_in_an_index_costs_one_request(bed, msb, proxy):
    images = [Image([(layer("index"), "gzip")], architecture=architecture) for architecture in ("arm64", "amd64")]
    reference = f"{proxy.address}/{bed.push('index', 'latest', Index(images))}"
    msb.pull(reference)
    proxy.requests.clear()
    assert msb.pull(reference)["upToDate"] is True
    assert [request.method for request in proxy.requests] == ["HEAD"]


def test_of_a_new_image_under_an_old_name_only_what_is_new_is_fetched(bed, msb, proxy):
    shared, old, new = (layer(name) for name in ("shared", "old", "new"))
    before, after = Image([(shared, "gzip"), (old, "gzip")]), Image([(shared, "gzip"), (new, "gzip")])
    reference = f"{proxy.address}/{bed.push('moving', 'latest', before)}"
    msb.pull(reference)
    bed.push("moving", "latest", after)
    proxy.requests.clear()
    assert msb.pull(reference)["manifest"] == after.digest
    assert proxy.count("GET", after.layers[0]["digest"]) == 0
    assert proxy.count("GET", after.layers[1]["digest"]) == 1
    assert msb.references().count(reference) == 1
    msb.check_store()


def test_the_same_layer_packed_in_two_ways_is_converted_to_one(bed, msb):
    tar = layer("twice")
    for kind in ("gzip", "zstd"):
        msb.pull(f"{bed.registry.address}/{bed.push('packed', kind, Image([(tar, kind)]))}")
    assert len(msb.layer_images()) == 1


def test_a_name_without_a_tag_means_latest(bed, msb, small):
    assert msb.pull(f"{bed.registry.address}/small")["reference"] == f"{bed.registry.address}/small:latest"


@pytest.mark.parametrize("reference", ["", "x/UPPER", "a b", "x:y:z", "localhost:99999/x", "x@sha256:abc", "x@md5:" + "0" * 32,
                                       "x:" + "t" * 129, "-x/y", "x//y", "../x/y:tag", "x" * 5000, "é/x", "x:\n"])
def test_what_is_no_reference_is_refused_before_anything_is_asked(msb, reference):
    result = msb("pull", "--", reference)
    assert result.returncode in (1, 2)
    [line] = result.stderr.decode().splitlines()
    assert line.startswith("msb: ")
    assert len(line) < 1000
    assert not result.stdout
