# SPDX-License-Identifier: Apache-2.0
"""build/images as scripts/images makes it: whole, with right digests. What the layers make of each
other is checked where they are stacked, by /usr/share/msb-test/check in the image `base`."""

import hashlib
import json
import pathlib
import subprocess
import zlib

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
LAYOUT = REPOSITORY / "build/images"


@pytest.fixture(scope="module", autouse=True)
def layout():
    subprocess.run([REPOSITORY / "scripts/images"], check=True)


def blob(descriptor):
    content = (LAYOUT / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == descriptor["digest"].partition(":")[2]
    assert len(content) == descriptor["size"]
    return content


def unpacked(descriptor):
    content = blob(descriptor)
    suffix = descriptor["mediaType"].removeprefix("application/vnd.oci.image.layer.v1.tar")
    if suffix == "+gzip":
        return zlib.decompress(content, wbits=31)
    if suffix == "+zstd":
        return subprocess.run(["zstd", "-dc"], input=content, capture_output=True, check=True).stdout
    assert suffix == ""
    return content


@pytest.mark.parametrize("tag", ["base", "python", "node", "tools", "develop"])
def test_image_has_three_layers_with_right_digests(tag):
    index = json.loads((LAYOUT / "index.json").read_text())
    [manifest] = [json.loads(blob(descriptor)) for descriptor in index["manifests"]
                  if descriptor["annotations"]["org.opencontainers.image.ref.name"] == tag]
    config = json.loads(blob(manifest["config"]))
    assert len(manifest["layers"]) >= 3
    assert ["sha256:" + hashlib.sha256(unpacked(layer)).hexdigest() for layer in manifest["layers"]] \
        == config["rootfs"]["diff_ids"]


def test_unchanged_images_are_left_alone():
    before = LAYOUT.stat()
    subprocess.run([REPOSITORY / "scripts/images"], check=True)
    after = LAYOUT.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
