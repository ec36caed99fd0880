# SPDX-License-Identifier: Apache-2.0
"""`msb image list`, `inspect`, `history`, `remove` and `prune`."""

import json

import pytest
from registry.content import Image, tar_of


@pytest.fixture(scope="module")
def rich(bed):
    """Two layers and every field of a configuration that a container has."""
    image = Image([(tar_of({"rich": b"rich"}), "gzip"), (tar_of({"richer": b"richer"}), "zstd")], config={
        "User": "1000:daemon", "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Env": ["PATH=/bin", "EMPTY=", "X=a=b"],
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo hello"], "Volumes": {"/data": {}}, "WorkingDir": "/work",
        "Labels": {"a.b/c": "value", "empty": ""}, "StopSignal": "SIGQUIT"})
    image.name = bed.push("rich", "v1", image)
    return image


@pytest.fixture
def reference(bed, msb, rich):
    name = f"{bed.registry.address}/{rich.name}"
    msb.pull(name)
    return name


def test_an_empty_store_lists_nothing(msb):
    assert msb.json("image", "list") == []
    assert len(msb.done("image", "list").splitlines()) == 1  # the heads of the columns


def test_images_are_listed_by_name(bed, msb, small, rich, reference):
    other = f"{bed.registry.address}/{small.name}"
    msb.pull(other)
    assert [entry["reference"] for entry in msb.json("image", "list")] == sorted([reference, other])
    [entry] = [entry for entry in msb.json("image", "list") if entry["reference"] == reference]
    assert entry["digest"] == entry["manifest"] == rich.digest
    assert entry["size"] == len(rich.manifest) + sum(map(len, rich.blobs.values())) or \
        entry["size"] == sum(map(len, rich.blobs.values()))
    table = msb.done("image", "list")
    assert len(table.splitlines()) == 3
    for name in (reference, other):
        assert name.partition("/")[0] in table


def test_an_image_is_inspected(msb, rich, reference):
    shown = json.loads(msb.done("image", "inspect", reference))
    [image] = shown if isinstance(shown, list) else [shown]
    assert image["digest"] == rich.digest
    assert image["architecture"] == "amd64" and image["os"] == "linux"
    assert [layer["digest"] for layer in image["layers"]] == [layer["digest"] for layer in rich.layers]
    text = json.dumps(image)
    for word in ("1000:daemon", "80/tcp", "53/udp", "X=a=b", "/bin/sh", "echo hello", "/data", "/work", "a.b/c", "SIGQUIT"):
        assert word in text


def test_a_history_tells_of_each_layer(msb, rich, reference):
    entries = msb.json("image", "history", reference)
    assert {entry["createdBy"] for entry in entries} == {"layer 0", "layer 1"}
    assert len(msb.done("image", "history", reference).splitlines()) == 3


@pytest.mark.parametrize("length", [6, 12, 64])
def test_a_digest_or_its_beginning_names_an_image(msb, rich, reference, length):
    shown = json.loads(msb.done("image", "inspect", rich.digest.partition(":")[2][:length]))
    [image] = shown if isinstance(shown, list) else [shown]
    assert image["digest"] == rich.digest
    json.loads(msb.done("image", "inspect", rich.digest))


@pytest.mark.parametrize("command", [["inspect"], ["history"], ["remove"]])
def test_an_image_that_is_not_there_is_named(msb, reference, command):
    msb.refused("image", *command, "localhost:5000/absent:v2", words=["localhost:5000/absent:v2"])
    msb.refused("image", *command, "sha256:" + "0" * 64, words=["0" * 64])


def test_a_removed_image_takes_its_files_with_it(msb, reference):
    msb.done("image", "remove", reference)
    assert msb.references() == [] and msb.blobs() == set() and msb.layer_images() == []
    msb.check_store()


def test_what_another_image_has_too_stays_when_one_is_removed(bed, msb):
    shared, *own = (tar_of({name: name.encode()}) for name in ("shared layer", "first", "second"))
    images = [Image([(shared, "gzip"), (tar, "gzip")]) for tar in own]
    names = [f"{bed.registry.address}/{bed.push('sharing', f'v{number}', image)}" for number, image in enumerate(images)]
    msb.done("pull", *names)
    msb.done("image", "remove", names[0])
    assert msb.blobs() == {*images[1].blobs, images[1].digest}
    assert msb.pull(names[1])["upToDate"] is True


def test_one_of_two_names_is_removed_and_the_image_stays(bed, msb, rich, reference):
    other = f"{bed.registry.address}/{bed.push('rich', 'v2', rich)}"
    msb.pull(other)
    msb.done("image", "remove", reference)
    assert msb.references() == [other]
    assert msb.blobs() == {*rich.blobs, rich.digest}


def test_several_are_removed_or_the_one_that_fails_is_named(bed, msb, small, reference):
    other = f"{bed.registry.address}/{small.name}"
    msb.pull(other)
    msb.refused("image", "remove", reference, "localhost:5000/absent", other, words=["localhost:5000/absent"])
    assert set(msb.references()) <= {reference, other}
    msb.check_store()


def test_prune_takes_images_without_a_name_and_leaves_the_others(bed, msb):
    old, new = (Image([(tar_of({"v": version}), "gzip")]) for version in (b"prune 1", b"prune 2"))
    name = f"{bed.registry.address}/{bed.push('pruned', 'latest', old)}"
    msb.pull(name)
    bed.push("pruned", "latest", new)
    msb.pull(name)
    before = msb.files()
    foretold = msb.json("image", "prune", "--dry-run")
    assert msb.files() == before
    assert msb.json("image", "prune") == foretold or foretold
    assert msb.references() == [name]
    assert msb.blobs() == {*new.blobs, new.digest}
    msb.check_store()


def test_prune_all_takes_everything_that_no_sandbox_uses(bed, msb, small, reference):
    msb.pull(f"{bed.registry.address}/{small.name}")
    msb.done("image", "prune")
    assert len(msb.references()) == 2
    msb.done("image", "prune", "--all", "--dry-run")
    assert len(msb.references()) == 2
    msb.done("image", "prune", "--all")
    assert msb.references() == [] and msb.blobs() == set() and msb.layer_images() == []


def test_prune_takes_what_does_not_belong_to_any_image(msb, reference):
    (msb.home / "blobs/sha256" / ("0" * 64)).write_bytes(b"left by something")
    msb.done("image", "prune")
    assert f"blobs/sha256/{'0' * 64}" not in msb.files()
    assert msb.references() == [reference]


def test_control_characters_of_an_image_do_not_reach_the_terminal(bed, msb):
    image = Image([(tar_of({"x": b"x"}), "gzip")], config={"Labels": {"evil": "\x1b]0;title\x07"}, "Env": ["A=\x1b[2J"]})
    config = json.loads(image.blobs[image.config["digest"]])
    assert "\x1b" in config["config"]["Env"][0]
    name = f"{bed.registry.address}/{bed.push('evil', 'latest', image)}"
    msb.pull(name)
    for command in (["inspect", name], ["history", name], ["list"]):
        assert "\x1b" not in msb.done("image", *command)


@pytest.mark.parametrize("arguments", [[], ["image"], ["image", "fly"], ["image", "inspect"], ["image", "remove"], ["pull"],
                                       ["pull", "--fly", "x"], ["pull", "--timeout", "soon", "x"], ["pull", "--timeout", "-1", "x"],
                                       ["image", "list", "--format", "xml"], ["load"], ["save", "x"], ["login", "--fly"]])
def test_what_is_no_command_is_refused_with_status_2(msb, arguments):
    result = msb(*arguments)
    assert result.returncode == 2
    assert result.stderr and not result.stdout
    assert msb.files() == [] if msb.home.exists() else True
