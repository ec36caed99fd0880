# SPDX-License-Identifier: Apache-2.0
"""What whole-system tests share: the programs under test, and a look at what each test leaves behind."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

import pytest

pytest_plugins = ["registry.fixtures", "msb", "sandboxes", "server_bed", "server_api", "mcp_clients"]

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

# Nor their processes: what this run starts has this variable, and passes it on.
RUN = str(uuid.uuid4())
os.environ["MSB_TEST_RUN"] = RUN


def clean_environment(**variables):
    """What programs are to inherit: these variables, what marks this run, and nothing of what its user has set for them."""
    unwanted = re.compile("(?i)(https?|all|no)_proxy|(SSL_CERT|DOCKER|REGISTRY|MSB|XDG)_.*")
    kept = {name: value for name, value in os.environ.items() if not unwanted.fullmatch(name)}
    return kept | {"MSB_TEST_RUN": RUN} | variables


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


def variables(pid):
    """A process's environment: none where it has none, where it may not be read, and of what has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def is_of_this_run(pid):
    """Whether it is marked, or below one that is, or below this process.

    Machines have no environment, and that of passt may be nobody's to read. Where such a one has lost its supervisor nothing
    says whose it was, so it is taken for this run's.
    """
    above = list(ancestors(pid))
    mark = f"MSB_TEST_RUN={RUN}".encode()
    return (os.getpid() in above or any(mark in variables(one) for one in (pid, *above))
            or above == [1] and not variables(pid))


def processes(is_wanted):
    """Process ids of this run's that are wanted, by their directories in /proc."""
    return [int(name) for name in os.listdir("/proc")
            if name.isdigit() and is_wanted(f"/proc/{name}") and is_of_this_run(int(name))]


def machines():
    """Process ids of this run's msb, msb-vmm and msb-machine. Zombies are left out."""
    def is_msb(entry):
        try:
            return os.readlink(f"{entry}/exe").startswith(f"{MSB_VMM.parent}/msb")
        except OSError:
            return False

    return processes(is_msb)


def networks():
    """Process ids of this run's passt, whose program only it may look at."""
    def is_passt(entry):
        try:
            with open(f"{entry}/comm", "rb") as name:
                return name.read().startswith(b"passt")
        except OSError:
            return False

    return processes(is_passt)


def wait_until(condition, what, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_left_behind(vmm):
    """No process, mount, shared memory or temporary file of the product outlives a test."""

    def state():
        # Other runs have theirs in their own directories.
        mounts = [line for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()
                  if TEMPORARY.name in line or "/msb-tests-" not in line]
        return {"mounts": mounts,
                "shared memory": sorted(name for name in os.listdir("/dev/shm") if "msb" in name),
                "temporary files": sorted(name for name in os.listdir(TEMPORARY.name) if not name.startswith("pytest-of-"))}

    before_machines, before_networks = machines(), networks()
    before = state()
    yield
    try:
        wait_until(lambda: set(machines()) <= set(before_machines), "every msb process has ended")
        wait_until(lambda: set(networks()) <= set(before_networks), "every passt has ended")
    except AssertionError:
        for pid in set(machines()) - set(before_machines):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
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
