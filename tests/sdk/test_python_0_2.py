# SPDX-License-Identifier: Apache-2.0
"""Programs that were written for microsandbox 0.2, and use all that its Python SDK let them, with only the server's address changed."""

import asyncio
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conformance import nowhere, scripted
from conftest import wait_until
from python_sdk import PACKAGE, microsandbox, sync
from server_bed import needs_root

AIOHTTP = '''
class ClientSession:
    """As much of aiohttp's as programs of 0.2 touch themselves."""
    closed = False
    async def close(self):
        self.closed = True
'''

PROGRAM = '''
import asyncio
import aiohttp
from microsandbox import NodeSandbox, PythonSandbox
from microsandbox.command_execution import CommandExecution
from microsandbox.execution import Execution

async def main():
    async with PythonSandbox.create(name="cm") as sandbox:
        execution = await sandbox.run("name = 'Python'")
        execution: Execution = await sandbox.run("print(f'Hello {name}!')")
        listed: CommandExecution = await sandbox.command.run("ls", ["/nonexistent"])
        print(listed.exit_code != 0, listed.success, "nonexistent" in await listed.error())
        try:
            await sandbox.command.run("sleep", ["10"], timeout=1)
        except RuntimeError as error:
            print("timed out" in str(error))
        print(await sandbox.metrics.is_running(), (await sandbox.metrics.all()).get("name"))
    print(await execution.output())

    async with PythonSandbox.create(sandbox_name="first") as sandbox:
        await sandbox.start()
        print(sandbox.name, sandbox.is_started, await (await sandbox.run("print(2)")).output())

    sandbox = PythonSandbox(server_url=SERVER, namespace="default", name="explicit", api_key=KEY)
    try:
        await sandbox.metrics.cpu()
    except RuntimeError as error:
        print(error)
    sandbox._session = aiohttp.ClientSession()
    try:
        await sandbox.start(memory=1024, cpus=2.0)
        await sandbox.run("y = [i**2 for i in range(4)]")
        print(await (await sandbox.run("print(y)")).output(), sandbox._is_started)
        async with sandbox.create(SERVER, "default", "another", KEY) as other:
            failed = await other.run("1/0")
            print(failed.has_error(), failed.status, "ZeroDivisionError" in await failed.error())
    finally:
        await sandbox.stop()
        if sandbox._session and not sandbox._session.closed:
            await sandbox._session.close()

    async with NodeSandbox.create("%s" % SERVER, "default", "node", KEY) as sandbox:
        execution = await sandbox.run("const n = [1, 2, 3]; console.log(n.reduce((a, b) => a + b, 0)); console.error('bad')")
        print(await execution.output(), await execution.error(), execution.has_error(), execution.language)

asyncio.run(main())
'''

SAID = """True False True
True
True cm
Hello Python!
first True 2
Sandbox is not started. Call start() first.
[0, 1, 4, 9] True
True error True
6 bad True nodejs
"""


@needs_root
def test_programs_of_0_2_run_after_changing_the_address(server, tmp_path):
    if importlib.util.find_spec("aiohttp") is None:
        (tmp_path / "aiohttp.py").write_text(AIOHTTP)
    program = PROGRAM.replace("SERVER", repr(server.url)).replace("KEY", repr(server.key))
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                         check=False, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{PACKAGE / 'src'}", "MSB_SERVER_URL": server.url,
                                                        "MSB_API_KEY": server.key})
    assert (ran.stdout, ran.stderr) == (SAID, "")


# Ways to use it that programs have found.

@needs_root
def test_one_that_is_entered_by_hand_runs_as_long_as_it_is_kept(server_host):
    server = server_host.serve()

    async def run():
        sandbox = await microsandbox.PythonSandbox.create(server.url, name="kept", api_key=server.key).__aenter__()
        gc.collect()
        for _ in range(10):  # turns of the loop, in which it would be left
            await asyncio.sleep(0)
        assert await (await sandbox.run("print(1)")).output() == "1"
        await sandbox.stop()
        assert server_host.running() == []
        # Another, that nobody leaves: it ends with the loop.
        kept.append(await microsandbox.PythonSandbox.create(server.url, name="left", api_key=server.key).__aenter__())

    kept = []
    asyncio.run(run())
    wait_until(lambda: server_host.running() == [], "nothing runs")


@needs_root
def test_a_run_that_is_not_waited_for_longer_leaves_the_sandbox_usable(server):
    async def run():
        async with microsandbox.PythonSandbox.create(server.url, name="waits", api_key=server.key) as sandbox:
            await sandbox.run("x = 1")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(sandbox.run("import time; time.sleep(1000)"), 0.5)
            assert await (await sandbox.run("print(x + 1)")).output() == "2"
            with pytest.raises(RuntimeError, match="timed out"):
                await asyncio.wait_for(sandbox.command.run("sleep", ["1000"], 1), 30)

    asyncio.run(run())


class Small(microsandbox.PythonSandbox):
    """As programs make their own kinds of it."""

    async def get_default_image(self):
        return "small/image"

    async def start(self, image=None, memory=128, **options):
        await super().start(image, memory, **options)


class Ruby(microsandbox.BaseSandbox):
    async def get_default_image(self):
        return "ruby"

    async def run(self, code):
        return await self.command.run("ruby", ["-e", code])


def rpc(result):
    return {"json": {"jsonrpc": "2.0", "id": "1", "result": result}}


def bodies(saw):
    return [json.loads(request["body"]) for request in saw["seen"]]


def test_kinds_that_programs_made_go_by_what_they_say():
    ran = {"command": "ruby", "args": [], "exit_code": 0, "success": True, "output": [{"stream": "stdout", "text": "2"}]}
    with scripted([rpc("started"), rpc("stopped"), rpc("started"), rpc(ran), rpc("stopped")]) as (url, saw):
        async def run():
            async with Small.create(url, name="small"):
                pass
            async with Ruby.create(url, name="ruby") as sandbox:
                assert await (await sandbox.run("puts 1 + 1")).output() == "2"

        asyncio.run(run())
    first, _, second, command, _ = [body["params"] for body in bodies(saw)]
    assert first["config"] == {"image": "small/image", "memory": 128, "cpus": 1}
    assert second["config"] == {"image": "ruby", "memory": 512, "cpus": 1} and command["args"] == ["-e", "puts 1 + 1"]


def test_what_programs_set_before_the_start_counts():
    with scripted([rpc("started"), rpc("stopped")]) as (url, saw):
        async def run():
            sandbox = microsandbox.PythonSandbox()
            sandbox._server_url, sandbox._namespace, sandbox._name, sandbox._api_key = url, "team", "mine", "msb_key"
            await sandbox.start()
            await sandbox.stop()

        asyncio.run(run())
    assert all(body["params"].items() >= {"namespace": "team", "sandbox": "mine"}.items() for body in bodies(saw))
    assert {request["headers"]["authorization"] for request in saw["seen"]} == {"Bearer msb_key"}


@pytest.mark.parametrize(("arguments", "config"), [
    (("image", 256, 2.0, 60.0), {"image": "image", "memory": 256, "cpus": 2}),
    (("image", 256, 2.0, ["/a:/b"], ["80:80"], ["A=b"], ["db"], "/w", "/bin/sh", {"start": "x"}, "run", 60.0),
     {"image": "image", "memory": 256, "cpus": 2, "volumes": ["/a:/b"], "ports": ["80:80"], "envs": ["A=b"], "depends_on": ["db"],
      "workdir": "/w", "shell": "/bin/sh", "scripts": {"start": "x"}, "exec": "run"})], ids=["0.2.6", "later"])
def test_arguments_of_start_by_position_are_those_of_both_generations(arguments, config):
    with scripted([rpc("started"), rpc("stopped")]) as (url, saw):
        sandbox = sync.PythonSandbox(url)
        sandbox.start(*arguments)
        sandbox.stop()
    assert bodies(saw)[0]["params"]["config"] == config


KEY = "msb_eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOjF9.c2lnbmF0dXJl"


@pytest.mark.parametrize("kind", [microsandbox.PythonSandbox, sync.NodeSandbox])
def test_arguments_of_a_sandbox_by_position_are_those_of_both_generations(kind, monkeypatch):
    monkeypatch.delenv("MSB_API_KEY", raising=False)

    def identity(*arguments, **named):
        sandbox = kind("http://server:1/", *arguments, **named)
        assert sandbox._server_url == "http://server:1" and sandbox._session is None and not sandbox._is_started
        return sandbox._namespace, sandbox._name, sandbox._api_key

    assert identity("team", "mine", KEY) == ("team", "mine", KEY)
    assert identity("mine", KEY) == ("default", "mine", KEY)
    assert identity("team", "msb_name") == ("team", "msb_name", None)
    assert identity(sandbox_name="mine", api_key=KEY) == ("default", "mine", KEY)
    assert identity()[1].startswith("sandbox-")


@pytest.mark.parametrize(("module", "name"), [
    ("base_sandbox", "BaseSandbox"), ("command", "Command"), ("command_execution", "CommandExecution"), ("execution", "Execution"),
    ("metrics", "Metrics"), ("node_sandbox", "NodeSandbox"), ("python_sandbox", "PythonSandbox")])
def test_modules_of_0_2_are_where_programs_look_for_them(module, name):
    assert getattr(importlib.import_module(f"microsandbox.{module}"), name) is getattr(microsandbox, name)
    assert getattr(getattr(microsandbox, module), name) is getattr(microsandbox, name)  # without an import of its own


def test_results_have_what_programs_read_of_them():
    lines = [{"stream": "stdout", "text": "a"}, {"stream": "stderr", "text": "b"}, {"stream": "stdout", "text": "c  \n"}]
    ran = sync.Execution({"status": "success", "language": "python", "output": lines})
    assert (ran.output(), ran.error(), ran.has_error(), ran.status, ran.language) == ("a\nc", "b", True, "success", "python")
    assert (ran._output_lines, ran._status, ran._language, ran._has_error) == (lines, "success", "python", True)
    assert not sync.Execution({"status": "success", "output": lines[:1]}).has_error()
    assert sync.Execution({"status": "exception", "output": []}).has_error()
    done = sync.CommandExecution({"command": "ls", "args": ["-l"], "exit_code": 2, "success": False, "output": lines})
    assert (done.output(), done.error(), done.command, done.args, done.exit_code, done.success) == ("a\nc", "b", "ls", ["-l"], 2, False)
    nothing, none = sync.Execution(), sync.CommandExecution(output_data=None)
    assert (nothing.output(), nothing.status, nothing.language, nothing.has_error()) == ("", "unknown", "unknown", False)
    assert (none.output(), none.command, none.args, none.exit_code, none.success) == ("", "", [], -1, False)


# What goes wrong.

def test_no_connection_is_told_as_0_2_did():
    place, url = nowhere()
    with place, pytest.raises(RuntimeError, match="^Failed to communicate with Microsandbox server: cannot connect"):
        with sync.PythonSandbox.create(url):
            pass


def test_a_start_without_an_answer_is_each_kind_of_timeout():
    with scripted([{"hang": True}]) as (url, _), pytest.raises(RuntimeError, match="^Failed to start sandbox: timed out") as raised:
        sync.PythonSandbox(url).start(timeout=-29.7)  # 30 s more are allowed for the way
    assert isinstance(raised.value, TimeoutError) and isinstance(raised.value, asyncio.TimeoutError)


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_an_error_in_the_body_counts_more_than_one_of_the_stop(colour):
    with scripted([rpc("started"), {"status": 500, "json": {}}]) as (url, saw):
        def without():
            with sync.PythonSandbox.create(url):
                raise KeyError("body")

        async def with_await():
            async with microsandbox.PythonSandbox.create(url):
                raise KeyError("body")

        with pytest.raises(KeyError, match="body"):
            without() if colour == "sync" else asyncio.run(with_await())
    assert [body["method"] for body in bodies(saw)] == ["sandbox.start", "sandbox.stop"] and saw["open"] == 0


@pytest.mark.parametrize(("dotenv", "key"), [
    ("import os\ndef load_dotenv():\n    os.environ['MSB_API_KEY'] = 'from-file'\n", "from-file"),
    ("def load_dotenv():\n    raise UnicodeDecodeError('utf-8', b'', 0, 1, 'bad')\n", None)], ids=["there", "broken"])
def test_a_file_of_settings_is_read_where_python_dotenv_is(tmp_path, dotenv, key):
    (tmp_path / "dotenv.py").write_text(dotenv)
    environment = {name: value for name, value in os.environ.items() if name != "MSB_API_KEY"}
    said = subprocess.run([sys.executable, "-c", "import microsandbox; print(microsandbox.PythonSandbox()._api_key)"], check=True,
                          capture_output=True, text=True, env=environment | {"PYTHONPATH": f"{tmp_path}:{PACKAGE / 'src'}"})
    assert said.stdout == f"{key}\n"
