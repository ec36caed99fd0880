# SPDX-License-Identifier: Apache-2.0
"""Clients of the Model Context Protocol: the official one, and those that say what it would not, over HTTP and line by line."""

import contextlib
import itertools
import json
import queue
import subprocess
import threading

import pytest
from server_clients import Http

REVISIONS = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
TOOLS_0_2 = {"sandbox_start", "sandbox_stop", "sandbox_run_code", "sandbox_run_command", "sandbox_get_metrics"}
# What is no message, and the code of the error that answers it.
NO_MESSAGES = [(b"", -32700), (b"{", -32700), (b"[]", -32600), (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
               (b"1", -32600), (b'"x"', -32600), (b"null", -32600), (b"{}", -32600),
               (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600), (b'{"id": 1, "method": "ping"}', -32600),
               (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600),
               (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', -32600),
               (b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', -32600),
               (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600),
               (b'{"jsonrpc": "2.0", "id": 1}', -32600), (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600),
               (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}', -32602),
               (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": "x"}', -32602), (b"\xff\xfe", -32700),
               (b"[" * 100_000, -32700)]
numbers = itertools.count()


def new_name():
    return f"m{next(numbers)}"


class Sdk:
    """The official client, in a process of its own (tests/node/mcp_client.mjs)."""

    def __init__(self, node, *words, environment=None):
        self.process = node.start("mcp_client.mjs", *words, environment=environment)
        self.numbers = itertools.count(1)
        self.told = queue.Queue()
        self.kept = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.connected = self.wait(lambda line: "connected" in line)["connected"]

    def read(self):
        for line in self.process.stdout:
            self.told.put(json.loads(line))
        self.told.put(None)

    def wait(self, wanted, seconds=60):
        """The next line that is wanted; others are kept."""
        for line in self.kept:
            if wanted(line):
                self.kept.remove(line)
                return line
        while True:
            line = self.told.get(timeout=seconds)
            assert line is not None, self.process.stderr.read()
            if wanted(line):
                return line
            self.kept.append(line)

    def begin(self, action, **words):
        number = next(self.numbers)
        self.process.stdin.write(json.dumps({"id": number, "do": action} | words) + "\n")
        self.process.stdin.flush()
        return number

    def end(self, number):
        return self.wait(lambda line: line.get("id") == number and ("result" in line or "error" in line))

    def __call__(self, action, **words):
        answer = self.end(self.begin(action, **words))
        assert "result" in answer, answer
        return answer["result"]

    def call(self, tool, progress=False, **arguments):
        return self("call", name=tool, arguments=arguments, progress=progress)

    def text(self, tool, **arguments):
        """The first text of a call that is to succeed."""
        result = self.call(tool, **arguments)
        assert not result.get("isError"), result
        return result["content"][0]["text"]

    def progress(self, number):
        return [line["progress"] for line in self.kept if line.get("id") == number and "progress" in line]

    def close(self, terminate=False):
        """In good order, unless it was."""
        if self.process.poll() is None:
            self("close", terminate=terminate)
        assert self.process.wait(timeout=30) == 0
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def connect(server, shared_host, node):
    """Makes official clients: over HTTP to the server, or with a `msb mcp` of their own; `mode`: of mcp_client.mjs."""
    made = []

    def make(transport, mode=None):
        words = {"http": ["http", f"{server.url}/mcp", server.key],
                 "stdio": ["stdio", shared_host.programs / "msb", "mcp"]}[transport]
        era = ["--era", mode] if mode else []
        made.append(Sdk(node, *era, *words, environment=shared_host.environment))
        return made[-1]

    yield make
    for client in made:
        client.kill()


@pytest.fixture(params=["http", "stdio"])
def sdk(connect, request):
    client = connect(request.param)
    yield client
    client.close(terminate=True)


@pytest.fixture
def inspect(node, server, shared_host):
    """Runs the inspector's command line: its answer, as JSON."""
    def run(transport, *options):
        if transport == "http":
            words = [f"{server.url}/mcp", "--transport", "http", "--header", f"Authorization: Bearer {server.key}"]
        else:  # which inherits next to nothing
            given = {name: value for name, value in shared_host.environment.items() if name.startswith(("MSB_", "XDG_"))}
            words = [shared_host.programs / "msb", "mcp", *(word for name in given for word in ("-e", f"{name}={given[name]}"))]
        launcher = node.modules / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
        result = subprocess.run([node.program, launcher, "--cli", *map(str, [*words, *options])], env=shared_host.environment,
                                cwd=shared_host.project, capture_output=True, check=False, timeout=60)
        assert result.returncode == 0, (result.stdout, result.stderr)
        return json.loads(result.stdout)

    return run


class Mcp:
    """A client that says what a test wants it to."""

    def __init__(self, server, key=None, accept="application/json, text/event-stream"):
        self.http = Http(server.port, key or server.key)
        self.accept = accept
        self.session = None

    def headers(self, more=None):
        return {"Accept": self.accept, "Mcp-Session-Id": self.session} | (more or {})

    def post(self, message, headers=None):
        return self.http.post("/mcp", message, headers=self.headers(headers))

    def ask(self, method, params=None, identity=1, headers=None):
        message = {"jsonrpc": "2.0", "id": identity, "method": method} | ({} if params is None else {"params": params})
        return self.post(message, headers)

    def initialize(self, revision=REVISIONS[0]):
        answer = self.ask("initialize", {"protocolVersion": revision, "capabilities": {},
                                         "clientInfo": {"name": "x", "version": "1"}})
        self.session = answer.headers["Mcp-Session-Id"]
        return answer.json["result"]

    def call(self, tool, headers=None, **arguments):
        return self.ask("tools/call", {"name": tool, "arguments": arguments}, headers=headers)

    def delete(self):
        return self.http("DELETE", "/mcp", headers=self.headers())


@pytest.fixture
def mcp(server):
    client = Mcp(server)
    client.initialize()
    yield client
    if client.session:
        client.delete()


def error_of(answer):
    assert set(answer.json) == {"jsonrpc", "id", "error"}, answer
    return answer.json["error"]["code"], answer.json["id"]


class Lines:
    """`msb mcp`, line by line."""

    def __init__(self, host, **options):
        self.process = host.start("mcp", **({"stdin": subprocess.PIPE} | options))

    def say(self, *messages):
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
            self.process.stdin.write(data)
        self.process.stdin.flush()

    def next(self):
        line = self.process.stdout.readline()
        assert line.endswith(b"\n"), self.process.stderr.read()
        return json.loads(line)

    def ask(self, method, params=None, identity=1):
        self.say({"jsonrpc": "2.0", "id": identity, "method": method} | ({} if params is None else {"params": params}))
        return self.next()

    def end(self):
        out, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, errors
        return out

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def lines(server_host):
    made = Lines(server_host)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def shared_lines(shared_host):
    """For tests after which it goes on."""
    made = Lines(shared_host)
    yield made
    made.kill()


class Agent(Lines):
    """A `msb mcp` that has begun its session."""

    def __init__(self, host):
        super().__init__(host)
        self.ask("initialize", {"protocolVersion": REVISIONS[1], "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})

    def call(self, tool, **arguments):
        """The first text of a call, and whether it failed."""
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})["result"]
        return result["content"][0]["text"], result["isError"]

    def done(self, tool, **arguments):
        text, failed = self.call(tool, **arguments)
        assert not failed, text
        return text

    def states(self):
        return {entry["name"]: entry["state"] for entry in json.loads(self.done("sandbox_list"))["sandboxes"]}


@pytest.fixture
def agents(server_host):
    """Makes them, beside whatever runs."""
    made = []

    def make():
        made.append(Agent(server_host))
        return made[-1]

    yield make
    for agent in made:
        agent.kill()
