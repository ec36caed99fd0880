# SPDX-License-Identifier: Apache-2.0
"""What whole-system tests share: the programs under test, and a look at what each test leaves behind."""

import hashlib
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

pytest_plugins = ["registry.fixtures", "msb", "sandboxes", "server_bed"]

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
MSB_VMM = REPOSITORY / "build/release/bin/msb-vmm"
IMAGES = REPOSITORY / "build/images"
BASE = f"{IMAGES}:base"
PYTHON = f"{IMAGES}:python"
TOOLS = f"{IMAGES}:tools"
TIMEOUT = 120  # seconds; no single run may take longer, even in the emulated host

# A shell lets what it runs in the background ignore interrupts, nohup lets it ignore hang-ups, and programs pass both on to
# theirs; but not what they handle.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# This run's own, so that two runs at once do not see each other's files.
TEMPORARY = tempfile.TemporaryDirectory(prefix="msb-tests-")
os.environ["TMPDIR"] = tempfile.tempdir = TEMPORARY.name


class Vmm:
    """Runs msb-vmm with its converted layers in `home`."""

    def __init__(self, home):
        self.environment = dict(os.environ, MSB_HOME=str(home))

    def start(self, *arguments, prefix=(), **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([*prefix, MSB_VMM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.environment, **options)

    def __call__(self, *arguments, stdin=b"", prefix=()):
        return subprocess.run([*prefix, MSB_VMM, *arguments], input=stdin, capture_output=True, check=False, timeout=TIMEOUT,
                              env=self.environment)

    def run(self, *command, image=BASE, options=(), stdin=b"", prefix=()):
        return self("run", "--image", image, *options, "--", *command, stdin=stdin, prefix=prefix)


@pytest.fixture(scope="session")
def vmm():
    return Vmm(os.environ.get("MSB_HOME", REPOSITORY / "build/home"))


def read_output(process, size, seconds=TIMEOUT):
    """The first `size` bytes of a started program's standard output; fails when they do not come in time."""
    data = b""
    deadline = time.monotonic() + seconds
    while len(data) < size:
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise subprocess.TimeoutExpired(process.args, seconds, data)
        piece = os.read(process.stdout.fileno(), size - len(data))
        assert piece, f"only {data!r}, then the end; standard error: {process.stderr.read()!r}"
        data += piece
    return data


def ancestors(pid):
    """Process ids from the parent upwards; what has ended meanwhile has none."""
    while pid > 1:
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return
        pid = int(stat[stat.rindex(")") + 2:].split()[1])
        yield pid


def machines():
    """Process ids of this run's msb, msb-vmm and msb-machine: below this process, or below orphans. Zombies are left out."""
    def is_ours(pid):
        try:
            return os.readlink(f"/proc/{pid}/exe").startswith(str(MSB_VMM.parent) + "/msb")
        except OSError:
            return False

    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            above = list(ancestors(pid))
            if is_ours(pid) and (os.getpid() in above or above and all(map(is_ours, above[:-1]))):
                found.append(pid)
    return found


def networks():
    """Process ids of this run's passt, whose program only it may look at."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text()
            except OSError:
                continue
            above = list(ancestors(int(entry.name)))
            if name.startswith("passt") and (os.getpid() in above or above[:1] == [1]):
                found.append(int(entry.name))
    return found


def wait_until(condition, what, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_left_behind(vmm):
    """No process, mount, shared memory or temporary file of the product outlives a test."""

    def state():
        return {"mounts": pathlib.Path("/proc/self/mounts").read_text(),
                "shared memory": sorted(name for name in os.listdir("/dev/shm") if "msb" in name),
                "temporary files": sorted(name for name in os.listdir(TEMPORARY.name) if not name.startswith("pytest-of-"))}

    before_machines, before_networks = machines(), networks()
    before = state()
    yield
    try:
        wait_until(lambda: set(machines()) <= set(before_machines), "every msb process has ended")
        wait_until(lambda: set(networks()) <= set(before_networks), "every passt has ended")
    finally:
        for pid in set(machines()) - set(before_machines):
            os.kill(pid, signal.SIGKILL)
    assert state() == before


def message(result):
    """The one sentence that msb-vmm printed."""
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].startswith("msb-vmm: "), result.stderr
    return lines[0].removeprefix("msb-vmm: ")


@pytest.fixture
def scratch(tmp_path):
    """A directory whose file system takes direct I/O and punches holes, where the emulated host has one of its own."""
    place = pathlib.Path("/scratch")
    if not place.is_mount():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield pathlib.Path(directory)


@pytest.fixture
def layout():
    """A copy of the images, to be changed: beside them, since it is made of links."""
    with tempfile.TemporaryDirectory(prefix="changed-", dir=IMAGES.parent) as directory:
        yield pathlib.Path(shutil.copytree(IMAGES, pathlib.Path(directory) / "layout", copy_function=os.link))


def blob(layout, descriptor):
    return layout / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")


def manifest_of(layout, tag="base"):
    index = json.loads((layout / "index.json").read_text())
    [descriptor] = [entry for entry in index["manifests"]
                    if entry["annotations"]["org.opencontainers.image.ref.name"] == tag]
    return descriptor, json.loads(blob(layout, descriptor).read_text())


def image_with(layout, **fields):
    """An image of its own in `layout`: base, with fields of its configuration changed (config.md, `config`)."""

    def store(descriptor, document):
        content = json.dumps(document).encode()
        stored = dict(descriptor, digest="sha256:" + hashlib.sha256(content).hexdigest(), size=len(content))
        blob(layout, stored).write_bytes(content)
        return stored

    descriptor, manifest = manifest_of(layout)
    config = json.loads(blob(layout, manifest["config"]).read_text())
    config["config"] |= fields
    manifest["config"] = store(manifest["config"], config)
    name = {"org.opencontainers.image.ref.name": "changed"}
    index = {"schemaVersion": 2, "manifests": [dict(store(descriptor, manifest), annotations=name)]}
    (layout / "index.json").unlink()  # a link to the real one
    (layout / "index.json").write_text(json.dumps(index))
    return f"{layout}:changed"
