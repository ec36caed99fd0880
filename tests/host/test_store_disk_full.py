# SPDX-License-Identifier: Apache-2.0
"""A store on a file system that is full, or that does not let us write."""

import contextlib
import os
import subprocess

import pytest
from registry.content import Image, noise, tar_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")


@pytest.fixture
def disk(msb):
    """The store's directory is a file system of 1 MiB; gives a function that makes it larger."""
    msb.home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,mode=700", "tmpfs", msb.home], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", msb.home], check=True)
    finally:
        subprocess.run(["umount", msb.home], check=True)


@pytest.fixture(scope="module")
def large(bed):
    """Three layers of a megabyte."""
    image = Image([(tar_of({f"noise{number}": noise(1 << 20, b"full %d" % number)}), "gzip") for number in range(3)])
    image.name = bed.push("large", "latest", image)
    return image


@needs_root
def test_a_full_disk_is_named_and_the_store_stays_usable(bed, msb, small, large, disk):
    kept = f"{bed.registry.address}/{small.name}"
    msb.pull(kept)
    before = msb.files()
    msb.refused("pull", f"{bed.registry.address}/{large.name}", words=[large.name, "No space left on device"])
    assert msb.references() == [kept]
    msb.check_store()
    msb.done("image", "prune")
    assert msb.files() == before
    disk("20M")
    msb.pull(f"{bed.registry.address}/{large.name}")
    msb.check_store()


@needs_root
@pytest.mark.parametrize("command", [["image", "prune", "--all"], ["image", "remove"]], ids=["prune", "remove"])
def test_on_a_full_disk_images_can_still_be_removed(bed, msb, small, disk, command):
    reference = f"{bed.registry.address}/{small.name}"
    msb.pull(reference)
    with (msb.home / "filling").open("wb", buffering=0) as filling, contextlib.suppress(OSError):
        while filling.write(bytes(4096)):
            pass
    msb.done(*command, *([reference] if command[-1] == "remove" else []))
    (msb.home / "filling").unlink()
    assert msb.references() == [] and msb.blobs() == set()


@needs_root
def test_an_archive_that_does_not_fit_is_refused_and_not_left(bed, msb, large, tmp_path):
    msb.pull(f"{bed.registry.address}/{large.name}")
    target = tmp_path / "full"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", target], check=True)
    try:
        msb.refused("save", "-o", target / "archive.tar", f"{bed.registry.address}/{large.name}",
                    words=[str(target), "No space left on device"])
        assert os.listdir(target) == []
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.parametrize("make", [lambda home: home.write_text("a file"), lambda home: home.symlink_to("/proc/nonexistent/x")],
                         ids=["a file", "a link to nowhere"])
def test_a_home_that_cannot_be_is_named(bed, msb, small, make):
    make(msb.home)
    msb.refused("pull", f"{bed.registry.address}/{small.name}", words=[str(msb.home)])


@pytest.mark.parametrize("damage", [b"", b"not a database" * 1000])
def test_a_damaged_index_is_named_and_not_thrown_away(bed, msb, small, damage):
    msb.pull(f"{bed.registry.address}/{small.name}")
    (msb.home / "images.db").write_bytes(damage)
    result = msb("image", "list")
    if damage:
        assert result.returncode == 1 and b"images.db" in result.stderr
        assert (msb.home / "images.db").read_bytes() == damage
    else:  # an empty file is an empty database
        assert result.returncode == 0


def test_a_layer_that_was_damaged_on_disk_is_fetched_again(bed, msb, small):
    reference = f"{bed.registry.address}/{small.name}"
    msb.pull(reference)
    [image, *_] = msb.layer_images()
    os.truncate(image, 100)
    assert msb.pull(reference)["upToDate"] is False
    msb.check_store()


def test_a_blob_that_is_gone_is_fetched_again(bed, msb, small):
    reference = f"{bed.registry.address}/{small.name}"
    msb.pull(reference)
    (msb.home / "blobs/sha256" / small.layers[0]["digest"].partition(":")[2]).unlink()
    msb.pull(reference)
    assert small.layers[0]["digest"] in msb.blobs()
    msb.check_store()
