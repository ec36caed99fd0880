# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol, with the official client and inspector, and with messages that no such client sends."""

import base64
import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import threading

import pytest
from conftest import wait_until
from json_schema import events_of
from registry import faults
from server_bed import needs_root
from server_clients import Http, Raw

pytestmark = needs_root

REVISIONS = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
TOOLS_0_2 = {"sandbox_start", "sandbox_stop", "sandbox_run_code", "sandbox_run_command", "sandbox_get_metrics"}
DOT = "class Dot:\n    def _repr_png_(self):\n        return b'\\x89PNG\\r\\n\\x1a\\nDOT'\nDot()"
numbers = itertools.count()


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
    """Makes official clients: over HTTP to the server, or with a `msb mcp` of their own."""
    made = []

    def make(transport):
        words = {"http": ["http", f"{server.url}/mcp", server.key],
                 "stdio": ["stdio", shared_host.programs / "msb", "mcp"]}[transport]
        made.append(Sdk(node, *words, environment=shared_host.environment))
        return made[-1]

    yield make
    for client in made:
        client.kill()


@pytest.fixture(params=["http", "stdio"])
def sdk(connect, request):
    client = connect(request.param)
    yield client
    client.close(terminate=True)


def name():
    return f"m{next(numbers)}"


# The official client.

def test_the_official_client_connects(sdk):
    told = sdk.connected
    assert told["server"]["name"] == "microsandbox-server" and told["server"]["version"][0].isdigit()
    assert told["capabilities"] == {"tools": {"listChanged": False}, "prompts": {"listChanged": False}}
    assert "sandbox_start" in told["instructions"] and len(told["instructions"]) < 2000
    assert told.get("revision") in (REVISIONS[0], None)
    assert sdk("ping") == {}


def test_tools_are_described_for_models(sdk):
    tools = {tool["name"]: tool for tool in sdk("tools")["tools"]}
    assert TOOLS_0_2 <= set(tools)
    for tool in tools.values():
        schema = tool["inputSchema"]
        assert schema["type"] == "object" and schema["additionalProperties"] is False
        assert "Example:" in tool["description"] and tool["title"] and set(tool["annotations"]) >= {"readOnlyHint",
                                                                                                    "destructiveHint"}
        example = json.loads(tool["description"].partition("Example:")[2].strip().partition(" ")[2])
        assert set(example) <= set(schema["properties"]) and set(schema["required"]) <= set(example), tool["name"]
        for described in schema["properties"].values():
            assert described["description"]
    assert tools["sandbox_list"]["annotations"]["readOnlyHint"] is True
    assert tools["sandbox_remove"]["annotations"]["destructiveHint"] is True


def test_prompts_of_the_0_2_line_are_there(sdk):
    prompts = {prompt["name"]: prompt for prompt in sdk("prompts")["prompts"]}
    for prompt in ("create_python_sandbox", "create_node_sandbox"):
        assert [argument["name"] for argument in prompts[prompt]["arguments"] if argument["required"]] == ["sandbox_name"]
        [message] = sdk("prompt", name=prompt, arguments={"sandbox_name": "a {b} c"})["messages"]
        assert message["role"] == "user" and "a {b} c" in message["content"]["text"]


def test_the_official_client_starts_a_sandbox_and_runs_code(sdk):
    box = name()
    assert sdk.text("sandbox_start", sandbox=box, config={"image": "python"}) == f"Sandbox {box} started successfully"
    sdk.text("sandbox_run_code", sandbox=box, language="python", code="x = 40")
    ran = json.loads(sdk.text("sandbox_run_code", sandbox=box, language="python", code="print('two lines')\nx + 2"))
    assert ran == {"status": "success", "language": "python",
                   "output": [{"stream": "stdout", "text": "two lines"}, {"stream": "stdout", "text": "42"}]}
    ran = json.loads(sdk.text("sandbox_run_command", sandbox=box, command="sh", args=["-c", "echo out; exit 3"]))
    assert (ran["exit_code"], ran["success"], ran["output"]) == (3, False, [{"stream": "stdout", "text": "out"}])
    measured = json.loads(sdk.text("sandbox_get_metrics", sandbox=box))
    assert measured["sandboxes"][0]["running"] is True
    assert sdk.text("sandbox_stop", sandbox=box) == f"Sandbox {box} stopped successfully"
    assert sdk.text("sandbox_remove", sandbox=box) == f"Sandbox {box} removed successfully"
    assert box not in sdk.text("sandbox_list")


def test_images_come_as_images(sdk):
    box = name()
    sdk.text("sandbox_start", sandbox=box, config={"image": "python"})
    content = sdk.call("sandbox_run_code", sandbox=box, language="python", code=DOT)["content"]
    [image] = [part for part in content if part["type"] == "image"]
    assert image["mimeType"] == "image/png" and base64.b64decode(image["data"]).startswith(b"\x89PNG")
    content = sdk.call("sandbox_run_code", sandbox=box, language="python",
                       code="class T:\n    def _repr_html_(self): return '<b>bold</b>'\nT()")["content"]
    assert any("<b>bold</b>" in part.get("text", "") for part in content)
    sdk.text("sandbox_remove", sandbox=box)


def test_files_go_both_ways(sdk, tmp_path):
    box = name()
    sdk.text("sandbox_start", sandbox=box, config={"image": "base"})
    path = str(tmp_path / "new/ü file")
    sdk.text("sandbox_write_file", sandbox=box, path=path, content="wörds\n", mode="600")
    assert sdk.text("sandbox_read_file", sandbox=box, path=path) == "wörds\n"
    [entry] = json.loads(sdk.text("sandbox_list_files", sandbox=box, path=str(tmp_path / "new")))["entries"]
    assert (entry["name"], entry["type"], entry["mode"]) == ("ü file", "file", "600")
    sdk.text("sandbox_write_file", sandbox=box, path=path, content_base64=base64.b64encode(b"\x89PNG\r\n\x1a\n..").decode())
    [image] = sdk.call("sandbox_read_file", sandbox=box, path=path)["content"]
    assert (image["type"], image["mimeType"]) == ("image", "image/png")
    (tmp_path / "binary").write_bytes(b"\0\1\2\xff" * 1000)
    [blob] = sdk.call("sandbox_read_file", sandbox=box, path=str(tmp_path / "binary"))["content"]
    assert base64.b64decode(blob["resource"]["blob"]) == b"\0\1\2\xff" * 1000
    sdk.text("sandbox_remove_file", sandbox=box, path=str(tmp_path / "new"), recursive=True)
    assert not (tmp_path / "new").exists()
    assert sdk.call("sandbox_read_file", sandbox=box, path=path)["isError"] is True
    sdk.text("sandbox_remove", sandbox=box)


def test_a_long_file_is_read_piece_by_piece(sdk, tmp_path):
    box = name()
    (tmp_path / "long").write_text("ü" * 3_000_000)
    sdk.text("sandbox_start", sandbox=box, config={"image": "base"})
    text, offset = "", 0
    for _ in range(5):
        content = sdk.call("sandbox_read_file", sandbox=box, path=str(tmp_path / "long"), offset=offset)["content"]
        text += content[0]["text"]
        offset += len(content[0]["text"].encode())
        if len(content) == 1:
            break
        assert f'"offset": {offset}' in content[1]["text"]
    assert text == "ü" * 3_000_000
    sdk.text("sandbox_remove", sandbox=box)


def test_a_wrong_call_is_answered_by_what_mends_it(sdk):
    for tool, arguments, words in [("sandbox_start", {"sandbx": "x"}, ["sandbx", "sandbox", "Example"]),
                                   ("sandbox_run_code", {"sandbox": "x"}, ["code", "language"]),
                                   ("sandbox_run_command", {"sandbox": "x", "command": "ls", "args": "-l"}, ["args", "Example"]),
                                   ("sandbox_run_code", {"sandbox": "x", "code": "1", "language": "pyhton"},
                                    ["language", "python"])]:
        result = sdk.call(tool, **arguments)
        assert result["isError"] is True
        for word in words:
            assert word in result["content"][0]["text"], (tool, word)
    result = sdk.call("sandbox_run_code", sandbox="nobody", code="1", language="python")
    assert result["isError"] is True and "nobody" in result["content"][0]["text"]
    answer = sdk.end(sdk.begin("call", name="sandbox_strat", arguments={}))
    assert answer["code"] == -32602 and "sandbox_start" in answer["error"]


def test_progress_of_output_is_told(sdk):
    box = name()
    sdk.text("sandbox_start", sandbox=box, config={"image": "python"})
    number = sdk.begin("call", name="sandbox_run_code", progress=True, arguments={
        "sandbox": box, "language": "python",
        "code": "import time\nfor i in range(10):\n    print('step', i, flush=True)\n    time.sleep(0.1)"})
    assert not sdk.end(number)["result"]["isError"]
    told = sdk.progress(number)
    assert 2 <= len(told) <= 10
    assert [step["progress"] for step in told] == sorted({step["progress"] for step in told})
    assert any("step" in step.get("message", "") for step in told)
    sdk.text("sandbox_remove", sandbox=box)


def test_progress_of_a_pull_is_told(server_host, node, bed, small, proxy):
    server_host.environment |= {"SSL_CERT_FILE": str(bed.authority.certificate)}
    server = server_host.serve()
    proxy.on(small.layers[1]["digest"], faults.slow(200_000))
    sdk = Sdk(node, "http", f"{server.url}/mcp", server.key)
    number = sdk.begin("call", name="sandbox_start", progress=True,
                       arguments={"sandbox": "pulled", "config": {"image": f"{proxy.address}/{small.name}"}})
    assert "started" in sdk.end(number)["result"]["content"][0]["text"]
    told = sdk.progress(number)
    assert len(told) > 1 and told[-1]["progress"] > told[0]["progress"] and told[-1]["total"] >= told[-1]["progress"]
    sdk.close()


def test_a_call_that_is_cancelled_ends(sdk, tmp_path, shared_host):
    box = name()
    sdk.text("sandbox_start", sandbox=box, config={"image": "python"})
    sdk.text("sandbox_run_code", sandbox=box, language="python", code="kept = 1")
    before = len(shared_host.processes())
    for tool, arguments in (("sandbox_run_command", {"command": "sh", "args": ["-c", f"touch {tmp_path}/begun; sleep 1000"]}),
                            ("sandbox_run_code", {"language": "python",
                                                  "code": f"import time\nopen('{tmp_path}/begun', 'w')\ntime.sleep(1000)"})):
        number = sdk.begin("call", name=tool, arguments={"sandbox": box} | arguments)
        wait_until((tmp_path / "begun").exists, "it runs")
        sdk("cancel", call=number)
        assert "error" in sdk.end(number)
        (tmp_path / "begun").unlink()
        wait_until(lambda: len(shared_host.processes()) == before, "what it ran has ended")
    assert json.loads(sdk.text("sandbox_run_code", sandbox=box, language="python", code="kept"))["output"][0]["text"] == "1"
    sdk.text("sandbox_remove", sandbox=box)


def test_calls_run_beside_one_another(sdk, tmp_path):
    box = name()
    sdk.text("sandbox_start", sandbox=box, config={"image": "base"})
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    slow = sdk.begin("call", name="sandbox_run_command", arguments={"sandbox": box, "command": "sh", "args": ["-c", script]})
    sdk.text("sandbox_run_command", sandbox=box, command="touch", args=[str(tmp_path / "go")])
    assert not sdk.end(slow)["result"]["isError"]
    sdk.text("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_ephemeral_sandboxes_end_with_their_session_and_others_stay(connect, shared_host, server, transport):
    client = connect(transport)
    kept, gone = name(), name()
    client.text("sandbox_start", sandbox=gone, config={"image": "base"}, ephemeral=True)
    client.text("sandbox_start", sandbox=kept, config={"image": "base"})
    assert {kept, gone} <= set(shared_host.running())
    client.close(terminate=True)
    wait_until(lambda: gone not in shared_host.running(), "it has ended")
    wait_until(lambda: f"default/{gone}" not in shared_host.kept(), "what it kept is gone")
    assert kept in shared_host.running()
    shared_host.done("stop", kept)


def test_ephemeral_sandboxes_end_when_the_program_of_their_client_is_killed(connect, shared_host):
    client = connect("stdio")
    gone = name()
    client.text("sandbox_start", sandbox=gone, config={"image": "base"}, ephemeral=True)
    client.kill()
    wait_until(lambda: gone not in shared_host.running(), "it has ended", seconds=30)
    wait_until(lambda: f"default/{gone}" not in shared_host.kept(), "what it kept is gone")


def test_ephemeral_sandboxes_end_with_a_server_that_is_stopped_or_killed(server_host, node):
    server = server_host.serve()
    sdk = Sdk(node, "http", f"{server.url}/mcp", server.key)
    sdk.text("sandbox_start", sandbox="gone", config={"image": "base"}, ephemeral=True)
    server.stop()
    assert server_host.running() == [] and server_host.kept() == []
    sdk.kill()
    server = server_host.serve()
    sdk = Sdk(node, "http", f"{server.url}/mcp", server.key)
    sdk.text("sandbox_start", sandbox="gone", config={"image": "base"}, ephemeral=True)
    server.kill()
    wait_until(lambda: server_host.running() == [], "it has ended")
    sdk.kill()
    server_host.serve()
    wait_until(lambda: server_host.kept() == [], "the next server removes what it kept")


# The inspector.

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


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_inspector_finds_nothing_amiss(inspect, transport):
    assert TOOLS_0_2 <= {tool["name"] for tool in inspect(transport, "--method", "tools/list", "--strict")["tools"]}
    assert len(inspect(transport, "--method", "prompts/list")["prompts"]) >= 2
    prompt = inspect(transport, "--method", "prompts/get", "--prompt-name", "create_python_sandbox", "--prompt-args",
                     "sandbox_name=abc")
    assert "abc" in prompt["messages"][0]["content"]["text"]


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_inspector_runs_code(inspect, transport):
    box = name()
    started = inspect(transport, "--method", "tools/call", "--tool-name", "sandbox_start", "--tool-arg", f"sandbox={box}",
                      'config={"image": "python"}')
    assert "started" in started["content"][0]["text"]
    ran = inspect(transport, "--method", "tools/call", "--tool-name", "sandbox_run_code", "--tool-arg", f"sandbox={box}",
                  "language=python", "code=6 * 7")
    assert json.loads(ran["content"][0]["text"])["output"] == [{"stream": "stdout", "text": "42"}]
    inspect(transport, "--method", "tools/call", "--tool-name", "sandbox_remove", "--tool-arg", f"sandbox={box}")


# Messages as such, over HTTP.

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


@pytest.mark.parametrize("revision", [*REVISIONS, "1999-01-01", "2099-01-01", ""])
def test_a_revision_is_agreed_on(server, revision):
    client = Mcp(server)
    agreed = client.initialize(revision)["protocolVersion"]
    assert agreed == (revision if revision in REVISIONS else REVISIONS[0])
    assert client.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, {"MCP-Protocol-Version": agreed}).status == 202
    assert client.ask("ping", headers={"MCP-Protocol-Version": agreed}).json["result"] == {}
    assert client.delete().status in (200, 204)


def test_the_id_of_a_session_cannot_be_guessed(server):
    sessions = set()
    for _ in range(10):
        client = Mcp(server)
        client.initialize()
        sessions.add(client.session)
        client.delete()
    assert len(sessions) == 10 and all(len(session) == 43 and session.replace("-", "").replace("_", "").isalnum()
                                       for session in sessions)


def test_clients_of_the_0_2_line_need_no_session(server):
    client = Mcp(server, accept=None)
    client.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})
    assert client.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).status in (200, 202)
    assert TOOLS_0_2 <= {tool["name"] for tool in client.ask("tools/list").json["result"]["tools"]}
    box = name()
    result = client.call("sandbox_start", sandbox=box, namespace="default",
                         config={"image": "base", "memory": 512, "cpus": 1, "volumes": [], "ports": [],
                                 "envs": []}).json["result"]
    assert result["content"] == [{"type": "text", "text": f"Sandbox {box} started successfully"}] and not result.get("isError")
    result = client.call("sandbox_run_command", sandbox=box, namespace="default", command="echo", args=["hi"]).json["result"]
    assert json.loads(result["content"][0]["text"])["output"] == [{"stream": "stdout", "text": "hi"}]
    assert client.ask("tools/call", {"name": "sandbox_get_metrics"}).json["result"]["content"], "without arguments"
    result = client.call("sandbox_start", sandbox=name(), config={"image": "base"}, ephemeral=True).json["result"]
    assert result["isError"] is True and "session" in result["content"][0]["text"]
    client.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("accept, kind", [("application/json", "application/json"), ("*/*", "application/json"),
                                          (None, "application/json"),
                                          ("text/event-stream", "text/event-stream"),
                                          ("application/json;q=0.5, text/event-stream", "application/json"),
                                          ("APPLICATION/JSON", "application/json"),
                                          ("text/event-stream, application/*", "application/json")])
def test_answers_come_as_the_client_accepts_them(server, accept, kind):
    client = Mcp(server, accept=accept)
    for method, params in (("initialize", {"protocolVersion": REVISIONS[0], "capabilities": {},
                                           "clientInfo": {"name": "x", "version": "1"}}), ("tools/list", {})):
        answer = client.ask(method, params)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind), answer
        message = answer.json if kind.endswith("json") else events_of(answer.text)[-1]
        assert message["id"] == 1 and "result" in message


@pytest.mark.parametrize("headers, status", [({"Accept": "text/html"}, 406), ({"Accept": "application/json;q=0"}, 406),
                                             ({"Content-Type": "text/plain"}, 415),
                                             ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
                                             ({"MCP-Protocol-Version": "1999-01-01"}, 400),
                                             ({"MCP-Protocol-Version": "x"}, 400), ({"Mcp-Session-Id": "x" * 43}, 404),
                                             ({"Mcp-Session-Id": "../x"}, 404)])
def test_fields_that_cannot_be_are_refused(mcp, headers, status):
    answer = mcp.http.post("/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode(),
                           headers={"Content-Type": "application/json"} | mcp.headers(headers))
    assert answer.status == status and "error" in answer.json, answer
    assert mcp.ask("ping").json["result"] == {}, "the session goes on"


def error_of(answer):
    assert set(answer.json) == {"jsonrpc", "id", "error"}, answer
    return answer.json["error"]["code"], answer.json["id"]


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


@pytest.mark.parametrize("body, code", NO_MESSAGES, ids=range(len(NO_MESSAGES)))
def test_what_is_no_message_is_refused(mcp, body, code):
    answer = mcp.http.post("/mcp", body, headers={"Content-Type": "application/json"} | mcp.headers())
    assert answer.status in (200, 400) and error_of(answer)[0] == code, answer


@pytest.mark.parametrize("method", ["nothing", "tool/list", "resources/list", "completion/complete", "logging/setLevel",
                                    "sandbox.start", "", "x" * 1000, "tools/call/x"])
def test_unknown_methods_are_errors(mcp, method):
    assert error_of(mcp.ask(method, identity="abc")) == (-32601, "abc")


@pytest.mark.parametrize("identity", [0, -1, 2**53 - 1, "", "a", "ü"])
def test_an_answer_has_the_id_of_its_request(mcp, identity):
    assert mcp.ask("ping", identity=identity).json["id"] == identity


def test_notifications_are_accepted_and_unknown_ones_ignored(mcp):
    for method, params in (("notifications/initialized", None), ("notifications/nothing", {}),
                           ("notifications/cancelled", {"requestId": 5}), ("notifications/cancelled", {}),
                           ("notifications/cancelled", {"requestId": {}}),
                           ("notifications/progress", {"progressToken": 1, "progress": 1}),
                           ("notifications/roots/list_changed", None)):
        answer = mcp.post({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))
        assert answer.status == 202 and answer.body == b""
    for response in ({"result": {}}, {"error": {"code": 1, "message": "x"}}):
        assert mcp.post({"jsonrpc": "2.0", "id": 1} | response).status == 202


WRONG_CALLS = [({}, "name"), ({"name": 1}, "name"), ({"name": None}, "name"), ({"name": "nothing"}, "nothing"),
               ({"name": ""}, "tool"), ({"name": "sandbox_start; rm"}, "rm")]


@pytest.mark.parametrize("params, word", WRONG_CALLS, ids=range(len(WRONG_CALLS)))
def test_tools_that_there_are_not_are_errors(mcp, params, word):
    answer = mcp.ask("tools/call", params)
    assert error_of(answer)[0] == -32602 and word in answer.json["error"]["message"]


def wrong_values(schema):
    """Values that are none of a schema."""
    types = schema.get("type", "string")
    types = [types] if isinstance(types, str) else types
    samples = {"string": "text", "integer": 5, "number": 1.5, "boolean": True, "array": [{}], "object": {"x": {}}}
    fits = {"number": {"number", "integer"}, "integer": {"integer"}}
    for kind, sample in samples.items():
        if not any(kind in fits.get(each, {each}) for each in types):
            yield sample
    if "enum" in schema:
        yield "pyhton"


def test_arguments_of_wrong_types_are_answered_with_what_is_right(mcp):
    """Each argument of each tool, with a value of each other type: no call may pass, nor fail in any other way."""
    tools = mcp.ask("tools/list").json["result"]["tools"]
    for tool in tools:
        example = json.loads(tool["description"].partition("Example:")[2].strip().partition(" ")[2])
        for argument, schema in tool["inputSchema"]["properties"].items():
            for value in wrong_values(schema):
                result = mcp.call(tool["name"], **(example | {argument: value})).json["result"]
                text = result["content"][0]["text"]
                assert result["isError"] is True and argument in text and "Example:" in text, (tool["name"], argument, value,
                                                                                               text)
        for words in ([], "x", 1, True):
            answer = mcp.ask("tools/call", {"name": tool["name"], "arguments": words}).json
            assert answer.get("error", {}).get("code") == -32602 or answer["result"]["isError"] is True


def test_arguments_that_are_null_are_left_out(mcp):
    result = mcp.call("sandbox_get_metrics", sandbox=None, namespace=None).json["result"]
    assert not result["isError"]


def test_paths_of_files_that_cannot_be_are_errors(mcp):
    box = name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    for path in ("relative", "../x", "/a\0b", "/" + "x" * 300, ""):
        for tool, more in (("sandbox_read_file", {}), ("sandbox_write_file", {"content": "x"}), ("sandbox_list_files", {}),
                           ("sandbox_remove_file", {})):
            assert mcp.call(tool, sandbox=box, path=path, **more).json["result"]["isError"] is True, (tool, path)
    for wrong in ({}, {"content": "a", "content_base64": "YQ=="}, {"content_base64": "!!"}, {"content": "x", "mode": "999"}):
        assert mcp.call("sandbox_write_file", sandbox=box, path="/tmp/x", **wrong).json["result"]["isError"] is True, wrong
    mcp.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("params", [{}, {"name": "nothing"}, {"name": 1}, {"name": "create_python_sandbox"},
                                    {"name": "create_python_sandbox", "arguments": []},
                                    {"name": "create_python_sandbox", "arguments": {"sandbox_name": 1}},
                                    {"name": "create_python_sandbox", "arguments": {"sandbox_name": "x", "more": "y"}},
                                    {"name": "create_python_sandbox", "arguments": {"sandbox_name": ""}}])
def test_prompts_that_cannot_be_are_errors(mcp, params):
    assert error_of(mcp.ask("prompts/get", params))[0] == -32602


def test_a_cursor_that_was_not_given_is_an_error(mcp):
    for method in ("tools/list", "prompts/list"):
        assert error_of(mcp.ask(method, {"cursor": "x"}))[0] == -32602
        assert "result" in mcp.ask(method, {"cursor": None}).json


@pytest.mark.parametrize("params", [{"protocolVersion": 5}, {"protocolVersion": None}, {"protocolVersion": []}, {}, None])
def test_an_initialize_that_is_odd_does_no_harm(server, params):
    answer = Mcp(server).ask("initialize", params)
    assert answer.status in (200, 400) and ("result" in answer.json or error_of(answer)[0] == -32602)


def test_a_session_that_was_ended_is_not_found(mcp):
    assert mcp.delete().status in (200, 204)
    assert mcp.ask("ping").status == 404 and mcp.delete().status == 404
    assert mcp.http.get("/mcp", headers=mcp.headers()).status == 404
    mcp.session = None


def test_a_session_is_for_its_key_alone(server, mcp, shared_host):
    other = Mcp(server, shared_host.keygen()["key"])
    other.session = mcp.session
    assert other.ask("ping").status == other.delete().status == 404
    assert other.http.get("/mcp", headers=other.headers({"Accept": "text/event-stream"})).status == 404
    assert mcp.ask("ping").json["result"] == {}


def test_a_session_of_a_key_that_was_revoked_is_no_way_in(server, shared_host):
    made = shared_host.keygen()
    client = Mcp(server, made["key"])
    client.initialize()
    shared_host.done("server", "revoke", made["id"])
    assert client.ask("ping").status == 401


def test_methods_of_http_that_mcp_has_not_are_refused(mcp):
    for method in ("PUT", "PATCH"):
        answer = mcp.http(method, "/mcp", headers=mcp.headers())
        assert answer.status == 405 and "POST" in answer.headers["Allow"]
    assert mcp.http.get("/mcp", headers=mcp.headers({"Accept": "application/json"})).status in (405, 406)
    sessionless = Http(mcp.http.port, mcp.http.key)
    assert sessionless("DELETE", "/mcp").status in (400, 405)
    assert sessionless.get("/mcp", headers={"Accept": "text/event-stream"}).status in (400, 405)
    assert sessionless.get("/mcp/x").status == 404


def test_a_stream_of_a_session_ends_with_it(mcp):
    response, connection = mcp.http.open("GET", "/mcp", headers=mcp.headers({"Accept": "text/event-stream"}))
    assert response.status == 200 and response.headers["Content-Type"].startswith("text/event-stream")
    assert mcp.http.get("/mcp", headers=mcp.headers({"Accept": "text/event-stream"})).status == 409, "one is enough"
    mcp.delete()
    response.read()  # to its end
    connection.close()
    mcp.session = None


def test_a_stream_that_its_client_left_may_be_had_again(mcp):
    opened = []

    def listens():
        response, connection = mcp.http.open("GET", "/mcp", headers=mcp.headers({"Accept": "text/event-stream"}))
        opened.append((response, connection))
        return response.status == 200

    for _ in range(3):
        wait_until(listens, "it is had")
        for response, connection in opened:
            connection.close()
            response.close()


def test_the_call_of_a_client_that_left_is_cancelled(server, mcp, shared_host, tmp_path):
    box = name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    before = len(shared_host.processes())
    for accept in ("application/json", "application/json, text/event-stream"):
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
            "_meta": {"progressToken": 1}, "name": "sandbox_run_command",
            "arguments": {"sandbox": box, "command": "sh", "args": ["-c", f"touch {tmp_path}/begun; sleep 1000"]}}})
        raw = Raw(server.port,
                  f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: {server.key}\r\nMcp-Session-Id: {mcp.session}\r\n"
                  f"Accept: {accept}\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        wait_until((tmp_path / "begun").exists, "it runs")
        raw.socket.close()
        (tmp_path / "begun").unlink()
        wait_until(lambda: len(shared_host.processes()) == before, "it has ended")
    mcp.call("sandbox_remove", sandbox=box)


def test_a_request_with_the_id_of_one_that_is_under_way_is_refused(server, mcp, tmp_path):
    box = name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    answers = []
    script = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    thread = threading.Thread(target=lambda: answers.append(mcp.call("sandbox_run_command", sandbox=box, command="sh",
                                                                     args=["-c", script])))
    thread.start()
    wait_until((tmp_path / "begun").exists, "it runs")
    assert error_of(mcp.ask("ping")) == (-32600, 1)
    assert mcp.ask("ping", identity=2).json["result"] == {}
    (tmp_path / "go").touch()
    thread.join()
    assert "result" in answers[0].json
    mcp.call("sandbox_remove", sandbox=box)


def test_a_request_that_is_cancelled_gets_no_response(server, mcp, shared_host, tmp_path):
    box = name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    before = len(shared_host.processes())
    answers = []
    thread = threading.Thread(target=lambda: answers.append(mcp.call("sandbox_run_command", sandbox=box, command="sh",
                                                                     args=["-c", f"touch {tmp_path}/begun; sleep 1000"])))
    thread.start()
    wait_until((tmp_path / "begun").exists, "it runs")
    mcp.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": "enough"}})
    thread.join(10)
    assert b"result" not in answers[0].body
    wait_until(lambda: len(shared_host.processes()) == before, "it has ended")
    mcp.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("token", [1, "a", 0, "ü"])
def test_progress_has_the_token_that_was_given(mcp, token):
    box = name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    answer = mcp.ask("tools/call", {"_meta": {"progressToken": token}, "name": "sandbox_run_command",
                                    "arguments": {"sandbox": box, "command": "sh", "args": ["-c", "echo a; sleep 0.3; echo b"]}})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *told, last = events_of(answer.text)
    assert last["id"] == 1 and told and all(message["params"]["progressToken"] == token
                                            and message["method"] == "notifications/progress" for message in told)
    mcp.call("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("token", [{}, [], 1.5, True])
def test_a_token_that_is_none_is_refused(mcp, token):
    assert error_of(mcp.ask("ping", {"_meta": {"progressToken": token}}))[0] == -32602


def test_sessions_of_a_key_are_bounded(server, shared_host):
    made = shared_host.keygen()
    clients = []
    try:
        for _ in range(100):
            clients.append(Mcp(server, made["key"]))
            clients[-1].initialize()
            assert clients[-1].session
        answer = Mcp(server, made["key"]).ask("initialize", {"protocolVersion": REVISIONS[0], "capabilities": {},
                                                             "clientInfo": {"name": "x", "version": "1"}})
        assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0
        other = Mcp(server)
        other.initialize()
        assert other.session, "others have theirs"
        other.delete()
    finally:
        for client in clients:
            client.delete()


def test_a_read_only_key_looks(server, shared_host, mcp):
    box = name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base"})
    looks = Mcp(server, shared_host.keygen("--read-only")["key"])
    looks.initialize()
    assert not looks.call("sandbox_list").json["result"]["isError"] and not looks.call("sandbox_get_metrics",
                                                                                       sandbox=box).json["result"]["isError"]
    for tool, arguments in (("sandbox_stop", {}), ("sandbox_remove", {}), ("sandbox_pause", {}),
                            ("sandbox_run_command", {"command": "true"}),
                            ("sandbox_run_code", {"code": "1", "language": "shell"}),
                            ("sandbox_write_file", {"path": "/tmp/x", "content": ""}),
                            ("sandbox_remove_file", {"path": "/tmp/x"})):
        result = looks.call(tool, sandbox=box, **arguments).json["result"]
        assert result["isError"] is True and "read-only" in result["content"][0]["text"], tool
    mcp.call("sandbox_remove", sandbox=box)


def test_nothing_of_the_host_is_had_by_asking(mcp):
    for config, word in (({"image": "base", "volumes": ["/etc:/host"]}, "volumes"), ({"image": "/"}, "directory"),
                         ({"image": "base", "ports": ["22:22"]}, "ports"),
                         ({"image": "base", "scope": "any"}, "scope"), ({"image": "base", "memory": 1_000_000}, "memory")):
        result = mcp.call("sandbox_start", sandbox=name(), config=config).json["result"]
        assert result["isError"] is True and word in result["content"][0]["text"], config


def test_logs_and_pauses(mcp):
    box = name()
    mcp.call("sandbox_start", sandbox=box, config={"image": "base", "command": ["sh", "-c", "echo logged; sleep 1000"]})

    def lines():
        return [line["text"] for line in json.loads(mcp.call("sandbox_get_logs", sandbox=box,
                                                             tail=5).json["result"]["content"][0]["text"])["lines"]]

    wait_until(lambda: lines() == ["logged"], "it has been logged")
    assert not mcp.call("sandbox_pause", sandbox=box).json["result"]["isError"]
    assert mcp.call("sandbox_run_command", sandbox=box, command="true").json["result"]["isError"]
    assert not mcp.call("sandbox_resume", sandbox=box).json["result"]["isError"]
    assert not mcp.call("sandbox_run_command", sandbox=box, command="true").json["result"]["isError"]
    mcp.call("sandbox_remove", sandbox=box)


# Messages as such, over standard input and output.

class Lines:
    """`msb mcp`, line by line."""

    def __init__(self, host, **options):
        self.process = host.popen("mcp", **({"stdin": subprocess.PIPE} | options))

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


@pytest.fixture
def lines(server_host):
    made = Lines(server_host)
    yield made
    made.process.kill()
    made.process.communicate()


def test_the_end_of_the_input_is_the_end(lines, server_host):
    assert lines.ask("ping")["result"] == {}
    assert lines.end() == b""
    assert server_host.processes() == []


def test_what_was_asked_for_before_the_end_is_answered(lines):
    lines.say(*[{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(20)])
    answers = [json.loads(line) for line in lines.end().splitlines()]
    assert sorted(answer["id"] for answer in answers) == list(range(20))


@pytest.mark.parametrize("body, code", [(body, code) for body, code in NO_MESSAGES if body],
                         ids=range(len([body for body, _ in NO_MESSAGES if body])))
def test_a_line_that_is_no_message_is_answered_and_the_next_is_read(lines, body, code):
    lines.say(body + b"\n")
    assert lines.next()["error"]["code"] == code
    assert lines.ask("ping")["result"] == {}


def test_empty_lines_and_ends_of_other_systems_are_passed_over(lines):
    lines.say(b"\n\r\n", b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\r\n')
    assert lines.next() == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_a_last_line_without_an_end_is_read(lines):
    lines.say(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
    assert json.loads(lines.end())["result"] == {}


def test_a_line_that_is_too_long_is_refused_and_the_next_is_read(lines):
    for _ in range(40):
        lines.say(b"x" * (1 << 20))
    lines.say(b"\n")
    assert lines.next()["error"]["code"] in (-32600, -32700)
    assert lines.ask("ping")["result"] == {}


def test_input_from_a_file_is_read(server_host, tmp_path):
    (tmp_path / "in").write_text('{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as sink:
        process = server_host.popen("mcp", stdin=source, stdout=sink)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads((tmp_path / "out").read_text())["result"] == {}


def test_without_input_it_ends(server_host):
    assert Lines(server_host, stdin=subprocess.DEVNULL).end() == b""


def test_a_client_that_reads_no_more_is_no_reason_to_stay(server_host):
    made = Lines(server_host)
    made.process.stdout.close()
    made.process.stdout = None
    made.say(*[{"jsonrpc": "2.0", "id": number, "method": "tools/list"} for number in range(20)])
    wait_until(lambda: made.process.poll() is not None, "it has ended")
    made.process.stdin.close()
    made.process.stdin = None
    made.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_end_it_with_its_ephemeral_sandboxes(server_host, number):
    made = Lines(server_host)
    made.ask("initialize", {"protocolVersion": REVISIONS[0], "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})
    for box, ephemeral in (("gone", True), ("kept", False)):
        made.ask("tools/call", {"name": "sandbox_start", "arguments": {"sandbox": box, "config": {"image": "base"},
                                                                       "ephemeral": ephemeral}})
    os.kill(made.process.pid, number)
    made.process.communicate(timeout=30)
    wait_until(lambda: server_host.running() == ["kept"], "the one has ended, and the other goes on")
    if number != signal.SIGKILL:
        assert server_host.kept() == ["default/kept"]


def test_a_server_beside_it_sees_what_it_makes(server_host):
    """Both use one set of sandboxes, and neither spoils the other's."""
    server = server_host.serve()
    made = Lines(server_host)
    started = made.ask("tools/call", {"name": "sandbox_start", "arguments": {"sandbox": "ours", "config": {"image": "base"}}})
    assert "started" in started["result"]["content"][0]["text"]
    assert "ours" in server_host.running()
    answer = Http(server.port, server.key).rpc("sandbox.start", {"sandbox": "ours", "config": {"image": "base"}})
    assert answer.status in (200, 409), answer
    answer = Http(server.port, server.key).rpc("sandbox.command.run", {"sandbox": "ours", "command": "true"})
    assert answer.status in (200, 404, 409)
    ran = made.ask("tools/call", {"name": "sandbox_run_command", "arguments": {"sandbox": "ours", "command": "true"}})
    assert not ran["result"]["isError"]
    made.end()
    assert server_host.running() == ["ours"]


def test_the_time_until_a_ping_is_answered_does_not_depend_on_a_call(lines, tmp_path):
    lines.ask("tools/call", {"name": "sandbox_start", "arguments": {"sandbox": "box", "config": {"image": "base"}}})
    lines.say({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {"name": "sandbox_run_command", "arguments": {
        "sandbox": "box", "command": "sh", "args": ["-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"]}}})
    assert lines.ask("ping", identity=9)["id"] == 9
    (tmp_path / "go").touch()
    assert lines.next()["id"] == 8
