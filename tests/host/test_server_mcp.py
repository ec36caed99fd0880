# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol, with the official client and inspector."""

import base64
import json

import pytest
from conftest import wait_until
from mcp_clients import REVISIONS, TOOLS_0_2, Sdk, new_name
from registry import faults
from server_bed import needs_root

pytestmark = needs_root

DOT = "class Dot:\n    def _repr_png_(self):\n        return b'\\x89PNG\\r\\n\\x1a\\nDOT'\nDot()"


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
    box = new_name()
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
    box = new_name()
    sdk.text("sandbox_start", sandbox=box, config={"image": "python"})
    content = sdk.call("sandbox_run_code", sandbox=box, language="python", code=DOT)["content"]
    [image] = [part for part in content if part["type"] == "image"]
    assert image["mimeType"] == "image/png" and base64.b64decode(image["data"]).startswith(b"\x89PNG")
    content = sdk.call("sandbox_run_code", sandbox=box, language="python",
                       code="class T:\n    def _repr_html_(self): return '<b>bold</b>'\nT()")["content"]
    assert any("<b>bold</b>" in part.get("text", "") for part in content)
    sdk.text("sandbox_remove", sandbox=box)


def test_files_go_both_ways(sdk, tmp_path):
    box = new_name()
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
    box = new_name()
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
    box = new_name()
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
    box = new_name()
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
    box = new_name()
    sdk.text("sandbox_start", sandbox=box, config={"image": "base"})
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    slow = sdk.begin("call", name="sandbox_run_command", arguments={"sandbox": box, "command": "sh", "args": ["-c", script]})
    sdk.text("sandbox_run_command", sandbox=box, command="touch", args=[str(tmp_path / "go")])
    assert not sdk.end(slow)["result"]["isError"]
    sdk.text("sandbox_remove", sandbox=box)


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_ephemeral_sandboxes_end_with_their_session_and_others_stay(connect, shared_host, server, transport):
    client = connect(transport)
    kept, gone = new_name(), new_name()
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
    gone = new_name()
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

@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_inspector_finds_nothing_amiss(inspect, transport):
    assert TOOLS_0_2 <= {tool["name"] for tool in inspect(transport, "--method", "tools/list", "--strict")["tools"]}
    assert len(inspect(transport, "--method", "prompts/list")["prompts"]) >= 2
    prompt = inspect(transport, "--method", "prompts/get", "--prompt-name", "create_python_sandbox", "--prompt-args",
                     "sandbox_name=abc")
    assert "abc" in prompt["messages"][0]["content"]["text"]


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_the_inspector_runs_code(inspect, transport):
    box = new_name()
    started = inspect(transport, "--method", "tools/call", "--tool-name", "sandbox_start", "--tool-arg", f"sandbox={box}",
                      'config={"image": "python"}')
    assert "started" in started["content"][0]["text"]
    ran = inspect(transport, "--method", "tools/call", "--tool-name", "sandbox_run_code", "--tool-arg", f"sandbox={box}",
                  "language=python", "code=6 * 7")
    assert json.loads(ran["content"][0]["text"])["output"] == [{"stream": "stdout", "text": "42"}]
    inspect(transport, "--method", "tools/call", "--tool-name", "sandbox_remove", "--tool-arg", f"sandbox={box}")
