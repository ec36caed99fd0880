# SPDX-License-Identifier: Apache-2.0
"""`msb load` and `msb save`: archives of Docker and OCI, what other programs make of them, and archives that are not honest."""

import gzip
import io
import json
import subprocess
import tarfile

import pytest
from registry.content import OCI_INDEX, Image, Index, digest_of, noise, tar_of, write_layout

NAME = "registry.test/team/archived:v1"


@pytest.fixture(scope="module")
def image():
    return Image([(tar_of({"first": noise(50_000)}), "gzip"), (tar_of({"second": b"second" * 1000}), "gzip")])


@pytest.fixture
def layout(image, tmp_path):
    return write_layout(tmp_path / "layout", {NAME: image})


def pack(directory, target):
    subprocess.run(["tar", "-C", directory, "-cf", target, *sorted(path.name for path in directory.iterdir())], check=True)
    return target


@pytest.fixture
def oci_archive(layout, tmp_path):
    return pack(layout, tmp_path / "oci.tar")


@pytest.fixture
def docker_archive(bed, layout, tmp_path):
    """As skopeo writes it: plain layers."""
    bed.skopeo("copy", f"oci:{layout}:{NAME}", f"docker-archive:{tmp_path}/docker.tar:{NAME}")
    return tmp_path / "docker.tar"


def compressed(path):
    packed = path.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    return packed


def diff_ids(msb):
    return {"sha256:" + path.name.partition(".")[0] for path in msb.layer_images()}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("way", ["file", "stdin"])
@pytest.mark.parametrize("kind", ["oci_archive", "docker_archive"])
def test_archives_are_loaded_under_the_names_that_they_tell(msb, image, request, kind, way, packed):
    archive = request.getfixturevalue(kind)
    archive = compressed(archive) if packed else archive
    if way == "file":
        msb.done("load", "-i", archive)
    else:
        msb.done("load", "-i", "-", stdin=archive.read_bytes())
    assert msb.references() == [NAME]
    assert diff_ids(msb) == set(image.diff_ids)
    if kind == "oci_archive":
        assert msb.blobs() == {*image.blobs, image.digest}
    msb.check_store()


def test_a_pipe_that_cannot_seek_is_loaded(msb, image, oci_archive):
    with subprocess.Popen(["cat", oci_archive], stdout=subprocess.PIPE) as cat:
        with msb.start("load", "-i", "-", stdin=cat.stdout) as process:
            assert process.wait(60) == 0
    assert msb.references() == [NAME]


def test_a_layout_is_loaded(msb, image, layout):
    msb.done("load", "-i", layout)
    assert msb.references() == [NAME]
    assert msb.blobs() == {*image.blobs, image.digest}


def test_an_archive_of_several_images_is_loaded_whole(msb, tmp_path, image):
    other = Image([(tar_of({"other": b"other"}), "gzip")])
    both = Index([Image([(tar_of({"x": b"arm"}), "gzip")], architecture="arm64"), other])
    layout = write_layout(tmp_path / "several", {NAME: image, "registry.test/other:v1": both})
    msb.done("load", "-i", pack(layout, tmp_path / "several.tar"))
    assert msb.references() == sorted([NAME, "registry.test/other:v1"])


def test_a_name_moves_to_what_is_loaded_last(msb, image, oci_archive, tmp_path):
    other = Image([(tar_of({"other": b"other"}), "gzip")])
    msb.done("load", "-i", oci_archive)
    msb.done("load", "-i", write_layout(tmp_path / "other", {NAME: other}))
    assert [entry["manifest"] for entry in msb.json("image", "list") if entry["reference"] == NAME] == [other.digest]
    msb.done("image", "prune")
    assert msb.blobs() == {*other.blobs, other.digest}


# Saving


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_what_is_saved_is_the_same_image_elsewhere(bed, msb, image, oci_archive, tmp_path, kind):
    msb.done("load", "-i", oci_archive)
    saved = tmp_path / "saved.tar"
    msb.done("save", "-o", saved, "--type", kind, NAME)
    found = json.loads(bed.skopeo("inspect", f"{kind}:{saved}").stdout)
    if kind == "oci-archive":
        assert found["Digest"] == image.digest
    bed.skopeo("copy", f"{kind}:{saved}", f"oci:{tmp_path}/elsewhere:x")
    blobs, converted = msb.blobs(), diff_ids(msb)
    msb.done("image", "prune", "--all")
    msb.done("load", "-i", saved)
    assert msb.references() == [NAME]
    assert diff_ids(msb) == converted
    [shown] = json.loads(msb.done("image", "inspect", NAME))
    assert shown["config"] == image.config["digest"]  # what Docker calls the image's ID
    if kind == "oci-archive":
        assert (shown["manifest"], msb.blobs()) == (image.digest, blobs)


def test_what_is_saved_is_the_same_bytes_each_time(msb, oci_archive, tmp_path):
    msb.done("load", "-i", oci_archive)
    for kind in ("oci-archive", "docker-archive"):
        saved = []
        for number in range(2):
            msb.done("save", "-o", tmp_path / f"{number}.tar", "--type", kind, NAME)
            saved.append((tmp_path / f"{number}.tar").read_bytes())
        assert saved[0] == saved[1]


def test_several_images_are_saved_with_their_shared_layer_once(msb, tmp_path):
    shared = (tar_of({"shared": noise(100_000)}), "gzip")
    images = {f"registry.test/saved:v{number}": Image([shared, (tar_of({"own": b"%d" % number}), "gzip")]) for number in range(2)}
    msb.done("load", "-i", write_layout(tmp_path / "two", images))
    saved = tmp_path / "saved.tar"
    msb.done("save", "-o", saved, *images)
    with tarfile.open(saved) as archive:
        names = [name.removeprefix("./") for name in archive.getnames() if "blobs/sha256/" in name]
    assert len(names) == len(set(names)) == len({digest for image in images.values() for digest in (*image.blobs, image.digest)})
    msb.done("image", "prune", "--all")
    msb.done("load", "-i", saved)
    assert msb.references() == sorted(images)


def test_docker_reads_the_names_of_a_docker_archive(msb, oci_archive, tmp_path):
    msb.done("load", "-i", oci_archive)
    msb.done("save", "-o", tmp_path / "saved.tar", "--type", "docker-archive", NAME)
    with tarfile.open(tmp_path / "saved.tar") as archive:
        [manifest] = json.load(archive.extractfile("manifest.json"))
        assert manifest["RepoTags"] == [NAME]
        names = set(archive.getnames())
        assert {manifest["Config"], *manifest["Layers"]} <= names


def test_saving_what_is_not_there_leaves_the_file_as_it_was(msb, tmp_path):
    target = tmp_path / "kept.tar"
    target.write_bytes(b"kept")
    msb.refused("save", "-o", target, "registry.test/absent:v1", words=["registry.test/absent:v1"])
    assert target.read_bytes() == b"kept"
    msb.refused("save", "-o", tmp_path / "absent/x.tar", NAME)


# Archives that are not honest


def archive_of(entries):
    """A tar of {name: content or TarInfo}."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as writer:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                entry.type, entry.linkname = content
                writer.addfile(entry)
            else:
                entry.size = len(content)
                writer.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def oci_entries(image, **changed):
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image.descriptor | {
        "annotations": {"org.opencontainers.image.ref.name": changed.get("tag", NAME)}}]}
    blobs = {digest_of(image.manifest): image.manifest, **image.blobs}
    return [("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'), ("index.json", json.dumps(index).encode()),
            *((f"blobs/sha256/{digest.partition(':')[2]}", content) for digest, content in blobs.items())]


def without(entries, part):
    return [(name, content) for name, content in entries if part not in name]


DISHONEST = {
    "nothing": lambda image: b"",
    "rubbish": lambda image: noise(100_000),
    "text": lambda image: b"hello\n" * 1000,
    "a gzip of nothing": lambda image: gzip.compress(b""),
    "a cut gzip": lambda image: gzip.compress(archive_of(oci_entries(image)))[:-20],
    "an empty tar": lambda image: archive_of([]),
    "no index": lambda image: archive_of(without(oci_entries(image), "index.json")),
    "no layer": lambda image: archive_of(without(oci_entries(image), image.layers[0]["digest"][7:])),
    "no manifest": lambda image: archive_of(without(oci_entries(image), image.digest[7:])),
    "a layer as a link": lambda image: archive_of(
        without(oci_entries(image), image.layers[0]["digest"][7:])
        + [(f"blobs/sha256/{image.layers[0]['digest'][7:]}", (tarfile.SYMTYPE, "/etc/passwd"))]),
    "a layer that is another": lambda image: archive_of(
        without(oci_entries(image), image.layers[0]["digest"][7:]) + [(f"blobs/sha256/{image.layers[0]['digest'][7:]}", b"other")]),
    "Docker's without a configuration": lambda image: archive_of(
        [("manifest.json", b'[{"Config": "absent.json", "RepoTags": [], "Layers": []}]')]),
    "Docker's with a way out": lambda image: archive_of(
        [("manifest.json", b'[{"Config": "../../etc/passwd", "RepoTags": [], "Layers": []}]')]),
    "Docker's with links in a circle": lambda image: archive_of(
        [("manifest.json", b'[{"Config": "a.json", "RepoTags": [], "Layers": []}]'), ("a.json", (tarfile.SYMTYPE, "b.json")),
         ("b.json", (tarfile.SYMTYPE, "a.json"))]),
    "Docker's with a number for layers": lambda image: archive_of(
        [("manifest.json", b'[{"Config": "a.json", "RepoTags": null, "Layers": 3}]'), ("a.json", b"{}")]),
    "a deep index": lambda image: archive_of(
        [(name, b"[" * 100_000 if name == "index.json" else content) for name, content in oci_entries(image)]),
    "a huge index": lambda image: archive_of(
        [(name, b" " * (40 << 20) if name == "index.json" else content) for name, content in oci_entries(image)]),
}


@pytest.mark.parametrize("kind", DISHONEST)
def test_an_archive_that_is_none_is_refused_by_its_name(msb, image, tmp_path, kind):
    archive = tmp_path / "dishonest.tar"
    archive.write_bytes(DISHONEST[kind](image))
    msb.refused("load", "-i", archive, words=["dishonest.tar"])
    assert msb.references() == []
    msb.check_store()


def test_an_archive_that_ends_early_anywhere_is_refused(msb, image, tmp_path):
    whole = archive_of(oci_entries(image)).rstrip(b"\0")
    archive = tmp_path / "cut.tar"
    for part in range(1, 12):
        archive.write_bytes(whole[:len(whole) * part // 12])
        msb.refused("load", "-i", archive, words=["cut.tar"])
    assert msb.references() == []
    msb.check_store()


@pytest.mark.parametrize("name", ["../../outside", "/outside", "blobs/../../outside", "blobs/sha256/../../../outside"])
def test_names_that_lead_out_are_not_followed(msb, image, tmp_path, name):
    archive = tmp_path / "deep/down/outside.tar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(archive_of([(name, b"evil"), *oci_entries(image)]))
    msb("load", "-i", archive)
    assert not [path for path in tmp_path.rglob("outside")]
    msb.check_store()


@pytest.mark.parametrize("tag", ["../escape", "a b", "UPPER", "x" * 5000, "\x1b[2J"])
def test_a_name_that_is_none_does_not_enter_the_store(msb, image, tmp_path, tag):
    archive = tmp_path / "named.tar"
    archive.write_bytes(archive_of(oci_entries(image, tag=tag)))
    result = msb("load", "-i", archive)
    assert b"\x1b" not in result.stdout + result.stderr
    assert tag not in str(msb.references())
    msb.check_store()


@pytest.mark.parametrize("path", ["absent.tar", "."])
def test_what_cannot_be_read_is_named(msb, tmp_path, path):
    msb.refused("load", "-i", tmp_path / path, words=[str(tmp_path / path).rstrip("/.")])
