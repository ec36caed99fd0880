# SPDX-License-Identifier: Apache-2.0
"""Converted layers, mounted by this host's kernel as the guest's does it, are what `umoci unpack` makes of the image.

Without the layer that msb-vmm puts on top where layers do not list their directories: tests/e2e compares that.
"""

import os
import random
import subprocess
import time

import image_oracle
import nasty_images
import pytest
from conftest import BASE, IMAGES
from random_image import random_layers
from raw_tar import RawTar, header, padded, pax_record, write_image

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking owners and mounting need root")
FULL = os.environ.get("MSB_TEST_FULL") == "1"


@pytest.fixture(scope="module")
def lister(tmp_path_factory):
    return image_oracle.build_lister(tmp_path_factory.mktemp("lister"))


@pytest.fixture(scope="module")
def stackable(tmp_path_factory):
    if not image_oracle.can_stack(tmp_path_factory.mktemp("probe") / "probe"):
        pytest.skip("this host's kernel does not mount EROFS and overlayfs; tests/e2e compares in a guest")


def compare(image, directory, lister):
    started = int(time.time())
    theirs = image_oracle.tree_of_umoci(image, directory, lister)
    layers = image_oracle.convert(image, directory / "home")
    for layer in layers:
        image_oracle.check_file_system(layer)
    ours = image_oracle.tree_of_layers(layers, directory, lister)
    image_oracle.assert_equal(theirs, ours, implied=image_oracle.implied_directories(image, on_top=False), unpacked_since=started)
    assert len(ours) > 3


def skopeo_to_gzip(image, layout):
    subprocess.run(["skopeo", "copy", "-q", "--dest-compress-format", "gzip", f"oci:{image}", f"oci:{layout}:image"], check=True)
    return f"{layout}:image"


@pytest.mark.parametrize("name", nasty_images.ALL)
def test_tree_is_the_one_that_umoci_unpacks(name, tmp_path, lister, stackable):
    compare(write_image(tmp_path / "layout", nasty_images.ALL[name]()), tmp_path, lister)


@pytest.mark.parametrize("seed", range(1, 401 if FULL else 9))
def test_tree_of_random_layers_is_the_one_that_umoci_unpacks(seed, tmp_path, lister, stackable):
    compare(write_image(tmp_path / "layout", random_layers(random.Random(seed))), tmp_path, lister)


@pytest.mark.parametrize("tag", ["base"] + (["python", "node"] if FULL else []))
def test_tree_of_a_real_image_is_the_one_that_umoci_unpacks(tag, tmp_path, lister, stackable):
    # Debian's zstd-compressed layers are more than its umoci reads.
    compare(skopeo_to_gzip(f"{IMAGES}:{tag}", tmp_path / "layout"), tmp_path, lister)


def test_tree_of_an_image_that_buildah_made_is_the_one_that_umoci_unpacks(tmp_path, lister, stackable):
    buildah = ["buildah", "--storage-driver", "vfs", "--root", tmp_path / "root", "--runroot", tmp_path / "run"]

    def run(*arguments):
        return image_oracle.run([*buildah, *arguments]).decode().strip()

    container = run("from", "-q", f"oci:{BASE}")
    script = """set -e
        mkdir -p /made/by /var/empty; echo x > /made/by/hand; ln /made/by/hand /made/link; chmod 4711 /made/link
        rm -rf /etc/passwd /home; mkdir /home; chown 5:6 /made/by; ln -s hand /made/by/symlink; mkfifo /made/pipe
        chmod 1777 /var; mv /usr/share/msb-test /usr/share/moved; touch -d "2001-02-03 04:05:06" /made; rm -rf /opt; ln -s var /opt"""
    try:
        run("run", "--isolation", "chroot", container, "--", "sh", "-c", script)
        run("commit", "-q", container, f"oci:{tmp_path}/built:image")
    finally:
        run("rm", container)
    compare(skopeo_to_gzip(f"{tmp_path}/built:image", tmp_path / "layout"), tmp_path, lister)


def test_tree_of_an_image_that_umoci_added_to_is_the_one_that_it_unpacks(tmp_path, lister, stackable):
    image = skopeo_to_gzip(BASE, tmp_path / "layout")
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_bytes(b"content")
    (source / "deep/link").symlink_to("er/file")
    os.link(source / "deep/er/file", source / "deep/hard")
    os.setxattr(source / "deep/er/file", "user.kept", b"value")
    os.chown(source / "deep/er", 1000, 100)
    for arguments in (["--opaque", source, "/etc"], [source, "/srv/added"], ["--whiteout", "/usr/share"]):
        image_oracle.run(["umoci", "insert", "--image", image, *arguments])
    compare(image, tmp_path, lister)


# What only one of the two takes, and why. Either may refuse what means something else to every reader.
HARD_LINK_BELOW = ([RawTar().file("f", "x"), RawTar().hard_link("g", "f")])
ONE_SIDED = {
    "a name that goes up": ([RawTar().file("a/../b", "x")], True, "'..'", "it is refused, in any layer, and no engine writes it"),
    "a hard link into a lower layer": (HARD_LINK_BELOW, True, "does not come before it",
                                       "layers are converted apart from each other; engines that keep them apart refuse it, too"),
    "an old GNU sparse file": ([RawTar().file("x", "x").raw(header(b"s", b"S", 0, form="gnu"))], False, None,
                               "umoci knows '0' only; we read what GNU tar writes"),
    "a contiguous file": ([RawTar().add("c", b"7", b"x")], False, None, "POSIX: to be read as a regular file"),
    "a header for the whole archive": ([RawTar().raw(header(b"g", b"g", 12) + padded(pax_record(b"comment", b"x"))).file("f")],
                                       False, None, "git archive and others write one; nothing in it concerns a layer"),
    "a user attribute of a link": ([RawTar().symlink("l", "x", xattrs={"user.a": b"1"})], False, None,
                                   "the kernel refuses it; we leave it out"),
    "a path through a file": ([RawTar().file("f", "x").file("f/g", "y")], False, "not a directory", "both refuse it"),
    "a link to nothing": ([RawTar().hard_link("a", "nothing")], False, "does not come before it", "both refuse it"),
    "an entry of an unknown kind": ([RawTar().add("v", b"V")], False, "entries of type 'V'", "both refuse it"),
    "a list of access rights that is none": ([RawTar().file("f", xattrs={"system.posix_acl_access": b"\2\0\0\0bad"})], False,
                                             "access control list", "both refuse it"),
    "a socket as GNU's dump": ([RawTar().add("d", b"D")], False, "entries of type 'D'", "both refuse it"),
    "a cut-off archive": ([RawTar().raw(header(b"f", b"0", 600) + b"x" * 600)], False, "ends within an entry", "both refuse it"),
}


@pytest.mark.parametrize("case", ONE_SIDED)
def test_what_only_one_side_takes_is_known(case, tmp_path, vmm):
    layers, umoci_takes_it, refusal, _ = ONE_SIDED[case]
    image = write_image(tmp_path / "layout", layers)
    assert (image_oracle.unpack_with_umoci(image, tmp_path / "bundle").returncode == 0) == umoci_takes_it
    result = subprocess.run([image_oracle.MSB_VMM, "prepare", "--image", image], capture_output=True, check=False,
                            env=dict(os.environ, MSB_HOME=str(tmp_path / "home")))
    assert (result.returncode == 0) == (refusal is None), result.stderr
    assert (refusal or "").encode() in result.stderr
