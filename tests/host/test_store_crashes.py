# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at any moment of what changes a store: what is left is whole, and the next command goes on from it."""

import itertools
import os
import random
import signal
import subprocess
import time

import pytest
from registry.content import Image, noise, tar_of, write_layout

ROUNDS = 100 if os.environ.get("MSB_TEST_FULL") == "1" else 10


@pytest.fixture(scope="module")
def images(bed):
    """Three of which each has two layers of the one before."""
    tars = [tar_of({f"d{number}/": b"", f"d{number}/noise": noise(400_000, b"crash %d" % number),
                    f"d{number}/text": b"x" * 100_000}) for number in range(6)]
    made = [Image([(tar, ("gzip", "zstd", "")[(start + number) % 3]) for number, tar in enumerate(tars[start:start + 4])])
            for start in range(3)]
    for number, image in enumerate(made):
        image.name = bed.push(f"crash{number}", "latest", image)
    return made


@pytest.fixture
def moments(request):
    """Random, and told when a test fails."""
    seed = int(os.environ.get("MSB_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"MSB_TEST_SEED={seed} repeats it")
    return random.Random(f"{seed} {request.node.name}")


class Rounds:
    """Kills a command at moments all over the time that it takes whole, which is that of the last one that came to its end."""

    def __init__(self, msb, moments):
        self.msb = msb
        self.moments = moments
        self.killed = 0

    def measure(self, *arguments):
        """Runs the command to its end."""
        started = time.monotonic()
        self.msb.done(*arguments)
        self.whole = time.monotonic() - started

    def __iter__(self):
        """ROUNDS, and more until half as many have killed: others would be a test of nothing."""
        for number in itertools.count():
            if number >= ROUNDS and self.killed >= ROUNDS / 2:
                return
            assert number < 10 * ROUNDS, f"only {self.killed} of {number} rounds killed before the end"
            yield number

    def kill(self, *arguments, **options):
        """Whether it had come to its end before."""
        moment = self.moments.uniform(0, self.whole * 1.1)
        with self.msb.start(*arguments, **options) as process:
            started = time.monotonic()
            try:
                process.communicate(timeout=moment)
                self.whole = time.monotonic() - started
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
        self.killed += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL), (moment, process.returncode)
        return process.returncode == 0


@pytest.fixture
def rounds(msb, moments):
    return Rounds(msb, moments)


def only_what_belongs(msb, *images):
    """The store has what these images are made of and not a byte more."""
    msb.check_store()
    assert msb.blobs() == {digest for image in images for digest in (*image.blobs, image.digest)}
    assert {path.name.partition(".")[0] for path in msb.layer_images()} \
        == {diff_id.partition(":")[2] for image in images for diff_id in image.diff_ids}


def test_a_pull_that_is_killed_leaves_a_whole_store_that_the_next_completes(bed, msb, rounds, images):
    reference = f"{bed.registry.address}/{images[0].name}"
    rounds.measure("pull", reference)
    for _ in rounds:
        msb.done("image", "prune", "--all")
        complete = rounds.kill("pull", reference)
        assert msb.references() in ([[reference]] if complete else [[], [reference]])
        msb.check_store()
        msb.pull(reference)
        only_what_belongs(msb, images[0])


def test_a_pull_beside_others_that_is_killed_harms_none(bed, msb, rounds, images):
    kept, *others = [f"{bed.registry.address}/{image.name}" for image in images]
    msb.pull(kept)
    rounds.measure("pull", *others)
    for _ in rounds:
        msb.done("image", "remove", *(name for name in msb.references() if name != kept))
        with msb.start("pull", *others) as beside:
            rounds.kill("pull", *others)
            _, errors = beside.communicate(timeout=60)
            assert beside.returncode == 0, errors.decode()
        only_what_belongs(msb, *images)


@pytest.mark.parametrize("command", [["image", "remove"], ["image", "prune", "--all"]], ids=["remove", "prune"])
def test_a_deletion_that_is_killed_leaves_images_that_are_whole_or_gone(bed, msb, rounds, images, command):
    kept, going = [f"{bed.registry.address}/{image.name}" for image in images[:2]]
    removal = [*command, going] if command[-1] == "remove" else command
    names = [kept, going] if command[-1] == "remove" else [going]
    for name in names:
        msb.pull(name)
    rounds.measure(*removal)
    for _ in rounds:
        msb.pull(going)
        rounds.kill(*removal)
        msb.check_store()
        left = msb.references()
        assert set(names[:-1]) <= set(left) <= set(names)
        for name in left:  # nothing is fetched for it
            assert msb.pull(name)["upToDate"] is True
    msb.done("image", "prune")
    only_what_belongs(msb, *[image for name, image in zip((kept, going), images) if name in msb.references()])


def test_a_load_that_is_killed_leaves_a_whole_store(msb, rounds, images, tmp_path):
    layout = write_layout(tmp_path / "layout", {"a.test/killed:latest": images[0]})
    archive = tmp_path / "archive.tar"
    subprocess.run(["tar", "-C", layout, "-cf", archive, "oci-layout", "index.json", "blobs"], check=True)
    rounds.measure("load", "-i", archive)
    for _ in rounds:
        msb.done("image", "prune", "--all")
        rounds.kill("load", "-i", archive)
        msb.check_store()
        msb.done("load", "-i", archive)
        only_what_belongs(msb, images[0])


def test_a_save_that_is_killed_leaves_the_old_file_or_the_new_one(bed, msb, rounds, images, tmp_path):
    old, new = [f"{bed.registry.address}/{image.name}" for image in images[:2]]
    msb.done("pull", old, new)
    target = tmp_path / "saved/archive.tar"
    target.parent.mkdir()
    msb.done("save", "-o", target, old)
    before = target.read_bytes()
    rounds.measure("save", "-o", target, new)
    after = target.read_bytes()
    for _ in rounds:
        msb.done("save", "-o", target, old)
        rounds.kill("save", "-o", target, new)
        assert target.read_bytes() in (before, after)
        # No system call replaces a file by one without a name: for a moment the new one has another.
        for other in set(target.parent.iterdir()) - {target}:
            assert (target.read_bytes(), other.read_bytes()) == (before, after)
            other.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_pull_that_is_interrupted_leaves_nothing_in_progress(bed, msb, images, proxy, number):
    from conftest import wait_until
    from registry import faults
    layer = images[0].layers[2]["digest"]
    proxy.on(layer, faults.stall(100_000))
    with msb.start("pull", f"{proxy.address}/{images[0].name}") as process:
        wait_until(lambda: proxy.count("GET", layer) == 1, "the layer is asked for")
        process.send_signal(number)
        process.communicate(timeout=10)
    assert process.returncode in (-number, 128 + number)
    msb.check_store()
    assert msb.references() == []
