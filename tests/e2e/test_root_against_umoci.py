# SPDX-License-Identifier: Apache-2.0
"""The root that a program in a guest sees is, entry by entry, what `umoci unpack` makes of the image."""

import os
import random
import time

import image_oracle
import nasty_images
import pytest
from conftest import Vmm
from random_image import random_trees
from raw_tar import RawTar, write_image

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking owners and devices needs root")
FULL = os.environ.get("MSB_TEST_FULL") == "1"


@pytest.fixture(scope="module")
def lister(tmp_path_factory):
    return image_oracle.build_lister(tmp_path_factory.mktemp("lister"))


def compare(tmp_path, layers, lister):
    image = write_image(tmp_path / "layout", layers)
    started = int(time.time())
    theirs = image_oracle.tree_of_umoci(image, tmp_path, lister)
    ours, mounts = image_oracle.tree_in_guest(Vmm(tmp_path / "home"), image)
    assert mounts == {b"proc", b"sys", b"dev"}
    image_oracle.assert_equal(theirs, ours, implied=image_oracle.implied_directories(image), mounts=mounts,
                              unpacked_since=started)
    return ours


def test_root_of_a_guest_is_the_tree_that_umoci_unpacks(tmp_path, lister):
    ours = compare(tmp_path, nasty_images.everything(lister), lister)
    assert len(ours) > 1400


def test_root_of_a_guest_with_a_hundred_layers_is_the_tree_that_umoci_unpacks(tmp_path, lister):
    layers = [*nasty_images.opaque_root(), *nasty_images.numbered_layers(97), nasty_images.program(lister)]
    # The first is hidden whole by the second, and left out.
    assert len(layers) == 101
    ours = compare(tmp_path, layers, lister)
    assert b"d/96" in ours and b"gone" not in ours


@pytest.mark.parametrize("seed", [1, 2, 3, 4] if FULL else [1])
def test_directories_that_a_layer_does_not_list_stay_as_they_are(seed, tmp_path, lister):
    layers = random_trees(random.Random(seed), 100 if FULL else 12)
    compare(tmp_path, [*layers, RawTar().file("tree_lister", lister.read_bytes(), mode=0o755)], lister)
    image = f"{tmp_path}/layout:image"
    assert len(image_oracle.implied_directories(image, on_top=False) - image_oracle.implied_directories(image)) > 10


@pytest.mark.parametrize("count", [128, 499] if FULL else [300])
def test_as_many_layers_as_an_image_may_have_start(count, tmp_path, lister):
    image = write_image(tmp_path / "layout", [*nasty_images.numbered_layers(count - 1), nasty_images.program(lister)])
    ours, _ = image_oracle.tree_in_guest(Vmm(tmp_path / "home"), image)
    assert sum(path.startswith(b"d/") for path in ours) == count - 1 - (count - 2) // 3

