# SPDX-License-Identifier: Apache-2.0
"""Several processes at one store: each layer is fetched once, and whoever waits takes over from who ended."""

import os
import pathlib
import shutil
import signal
import tempfile
import threading

import pytest
from conftest import machines, wait_until
from registry import faults
from registry.content import Image, noise, tar_of


@pytest.fixture(scope="module")
def shared(bed):
    """Two images of four layers each, three of them the same."""
    common = [(tar_of({f"common{number}": noise(100_000, b"%d" % number)}), "gzip") for number in range(3)]
    images = [Image([*common, (tar_of({"own": noise(100_000, own)}), "gzip")]) for own in (b"one", b"other")]
    for name, image in zip(("one", "other"), images):
        image.name = bed.push(f"shared-{name}", "latest", image)
    return images


def finish(processes):
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def fetched(proxy, image):
    """How often each layer was asked for."""
    return [proxy.count("GET", layer["digest"]) for layer in image.layers]


def test_four_pulls_of_one_image_at_once_fetch_each_layer_once(msb, shared, proxy):
    start = threading.Event()
    proxy.on("/manifests/", faults.hold(start))
    processes = [msb.start("pull", f"{proxy.address}/{shared[0].name}") for _ in range(4)]
    wait_until(lambda: len(proxy.requests) >= 4, "every process asks for the manifest")
    start.set()
    finish(processes)
    assert fetched(proxy, shared[0]) == [1] * 4
    assert len(msb.references()) == 1
    msb.check_store()


def test_two_images_at_once_fetch_what_they_share_once(msb, shared, proxy):
    start = threading.Event()
    proxy.on("/manifests/", faults.hold(start))
    processes = [msb.start("pull", f"{proxy.address}/{image.name}") for image in shared]
    wait_until(lambda: len(proxy.requests) >= 2, "every process asks for the manifest")
    start.set()
    finish(processes)
    for image in shared:
        assert fetched(proxy, image) == [1] * 4
    msb.check_store()


def test_one_command_pulls_two_images_and_fetches_what_they_share_once(msb, shared, proxy):
    msb.done("pull", *(f"{proxy.address}/{image.name}" for image in shared))
    assert fetched(proxy, shared[0]) == [1] * 4
    assert len(msb.references()) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_who_waits_for_a_layer_fetches_it_when_its_maker_ends(msb, shared, proxy, number):
    layer = shared[0].layers[3]["digest"]
    never = threading.Event()
    proxy.on(layer, faults.hold(never), first=1)
    reference = f"{proxy.address}/{shared[0].name}"
    with msb.start("pull", reference) as maker:
        wait_until(lambda: proxy.count("GET", layer) == 1, "the layer is asked for")
        with msb.start("pull", reference) as waiter:
            wait_until(lambda: proxy.count("HEAD", "/manifests/") + proxy.count("GET", "/manifests/latest") >= 2, "both are at it")
            assert waiter.poll() is None
            maker.send_signal(number)
            maker.communicate(timeout=10)
            finish([waiter])
    never.set()
    assert proxy.count("GET", layer) == 2
    msb.check_store()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("detached", [False, True], ids=["in the foreground", "detached"])
@pytest.mark.parametrize("send", [os.killpg, os.kill], ids=["at a terminal", "msb alone"])
def test_the_first_pull_of_a_sandbox_that_is_interrupted(msb, shared, proxy, number, detached, send):
    """It ends soon, nothing of the sandbox is left, and the next one pulls what is missing."""
    layer = shared[0].layers[3]["digest"]
    never = threading.Event()
    proxy.on(layer, faults.hold(never), first=1)
    runtime = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: paths of sockets have 108 bytes
    msb.environment |= {"XDG_RUNTIME_DIR": runtime}
    reference = f"{proxy.address}/{shared[0].name}"
    with msb.start("exe", *(["-d"] if detached else []), reference, "--", "true", start_new_session=True) as process:
        wait_until(lambda: proxy.count("GET", layer) == 1, "the layer is asked for")
        send(process.pid, number)
        process.communicate(timeout=10)
        assert process.returncode != 0
    wait_until(lambda: msb.json("ps") == [] and not machines(), "nothing runs")
    assert [path for path in pathlib.Path(runtime).rglob("*") if path.is_socket()] == []
    shutil.rmtree(runtime)
    never.set()
    msb.pull(reference)
    msb.check_store()


def test_who_waits_for_a_layer_that_cannot_be_had_fails_as_well(msb, shared, proxy):
    layer = shared[0].layers[3]["digest"]
    start = threading.Event()
    corrupt = faults.corrupt(5000)

    def held_and_corrupt(exchange):
        start.wait(60)
        return corrupt(exchange)
    proxy.on(layer, held_and_corrupt)
    processes = [msb.start("pull", f"{proxy.address}/{shared[0].name}") for _ in range(2)]
    wait_until(lambda: proxy.count("GET", layer) == 1 and len({request.connection for request in proxy.requests}) >= 2,
               "both are at it")
    start.set()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and layer in errors.decode()
    msb.check_store()


def test_a_store_is_read_while_an_image_is_pulled_into_it(msb, small, shared, proxy):
    msb.pull(f"{proxy.address}/{small.name}")
    start = threading.Event()
    proxy.on(shared[0].layers[3]["digest"], faults.hold(start))
    with msb.start("pull", f"{proxy.address}/{shared[0].name}") as process:
        wait_until(lambda: proxy.count("GET", shared[0].layers[3]["digest"]) == 1, "the layer is asked for")
        assert len(msb.references()) == 1
        msb.json("image", "inspect", f"{proxy.address}/{small.name}")
        msb.done("image", "remove", f"{proxy.address}/{small.name}")
        start.set()
        finish([process])
    assert msb.references() == [f"{proxy.address}/{shared[0].name}"]
    msb.done("image", "prune")
    assert msb.blobs() == {*shared[0].blobs, shared[0].digest}
    msb.check_store()
