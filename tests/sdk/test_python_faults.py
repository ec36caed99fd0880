# SPDX-License-Identifier: Apache-2.0
"""The Python SDK where things go wrong at any moment: calls that are cancelled, servers that restart, very many calls.

What is the same for all SDKs is in sdk/conformance/cases/faults.json.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
import warnings

import pytest
from conformance import nowhere, scripted
from conftest import wait_until
from python_sdk import microsandbox, sync
from server_bed import needs_root

BOX = {"json": {"name": "box", "namespace": "default", "state": "running", "image": "base", "labels": {}, "ephemeral": False,
                "created_at": "2026-01-01T00:00:00.000Z", "started_at": None, "ports": [], "config": {}, "exit": None}}
RAN = {"json": {"exit_code": 0, "signal": None, "oom_killed": False, "timed_out": False, "stdout": "", "stderr": "",
                "truncated": False}}


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No descriptor, and no complaint about one that was forgotten."""
    before = descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
    wait_until(lambda: descriptors() <= before, "its connections are closed")


# Very many calls.

def test_thousands_of_calls_take_few_connections():
    with scripted([BOX, RAN]) as (url, saw):
        async def run():
            async with microsandbox.Sandbox.connect("box", server_url=url) as sandbox:
                async def some():
                    for _ in range(150):
                        await sandbox.command.run("true")
                await asyncio.gather(*(some() for _ in range(20)))
        asyncio.run(run())
    assert len(saw["seen"]) == 3001 and saw["connections"] <= 25 and saw["open"] == 0


def test_thousands_of_calls_without_await_take_few_connections():
    with scripted([BOX, RAN]) as (url, saw), sync.Sandbox.connect("box", server_url=url) as sandbox:
        def some():
            for _ in range(250):
                sandbox.command.run("true")
        threads = [threading.Thread(target=some) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sandbox.close()
    assert len(saw["seen"]) == 1001 and saw["connections"] <= 6 and saw["open"] == 0


def test_objects_that_are_made_and_left_keep_nothing():
    with scripted([BOX]) as (url, saw):
        async def run():
            for _ in range(100):
                async with microsandbox.Sandbox.connect("box", server_url=url):
                    pass
        asyncio.run(run())
    assert saw["connections"] == 100 and saw["open"] == 0


# Calls that are cancelled.

@pytest.mark.parametrize("answers", [[RAN], [RAN | {"pause": 0.003}], [RAN | {"cut": "body"}], [{"hang": True}],
                                     [{"status": 429, "headers": {"Retry-After": "1"}, "json": {}}]],
                         ids=["quick", "slow", "broken", "silent", "full"])
def test_a_call_can_be_cancelled_at_any_point(answers):
    with scripted([BOX, *answers]) as (url, saw):
        async def run():
            async with microsandbox.Client(url) as client:
                sandbox = await microsandbox.Sandbox.connect("box", client=client)
                for tick in range(60):
                    task = asyncio.ensure_future(sandbox.command.run("true"))
                    for _ in range(tick):  # turns of the loop, so that each await is met
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, microsandbox.MicrosandboxError):
                        await task
                for tick in range(20):
                    with contextlib.suppress(asyncio.TimeoutError, microsandbox.MicrosandboxError):
                        await asyncio.wait_for(sandbox.command.run("true"), tick / 2000)
                if answers == [RAN]:
                    assert (await sandbox.command.run("true")).success, "it goes on"
                assert len(asyncio.all_tasks()) == 1
        asyncio.run(run())
    assert saw["open"] == 0


@pytest.mark.parametrize("answers", [[RAN], [{"hang": True}]], ids=["quick", "silent"])
def test_a_call_can_be_cancelled_more_than_once(answers):
    """As a cancel scope of anyio does: at each turn, until the task has ended."""
    with scripted([BOX, *answers]) as (url, saw):
        async def run():
            async with microsandbox.Sandbox.connect("box", server_url=url) as sandbox:
                for tick in range(40):
                    task = asyncio.ensure_future(sandbox.command.run("true"))
                    for _ in range(tick):
                        await asyncio.sleep(0)
                    while not task.done():
                        task.cancel()
                        await asyncio.sleep(0)
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                others = asyncio.all_tasks() - {asyncio.current_task()}
                assert not others or not (await asyncio.wait(others, timeout=10))[1], "nothing of them goes on"
        asyncio.run(run())
    assert saw["open"] == 0


def test_a_stream_can_be_cancelled_at_any_point():
    events = [{"event": "started", "id": 1, "pid": 2}]
    events += [{"event": "output", "stream": "stdout", "offset": at, "next": at + 1, "text": "x"} for at in range(30)]
    with scripted([BOX, {"events": events, "hang": "body"}]) as (url, saw):
        async def follow(sandbox):
            async with sandbox.command.stream("true") as stream:
                async for _ in stream:
                    pass

        async def run():
            async with microsandbox.Sandbox.connect("box", server_url=url) as sandbox:
                for tick in range(60):
                    task = asyncio.ensure_future(follow(sandbox))
                    for _ in range(tick):
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        asyncio.run(run())
    assert saw["open"] == 0


def test_a_download_that_is_cancelled_leaves_nothing(tmp_path):
    with scripted([BOX, {"events": ["x" * 1000] * 3, "hang": "body"}]) as (url, saw):
        async def run():
            async with microsandbox.Sandbox.connect("box", server_url=url) as sandbox:
                for tick in range(0, 60, 3):
                    task = asyncio.ensure_future(sandbox.files.download("/file", tmp_path / "file"))
                    for _ in range(tick):
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        asyncio.run(run())
    assert saw["open"] == 0 and os.listdir(tmp_path) == []


LEFT = [{"event": "output", "stream": "stdout", "offset": at, "next": at + 1, "text": "x"} for at in range(3)]


def test_a_loop_over_a_stream_that_is_left_closes_it():
    with scripted([BOX, {"events": LEFT, "hang": "body"}]) as (url, saw):
        async def run():
            async with microsandbox.Sandbox.connect("box", server_url=url) as sandbox:
                async for _ in sandbox.command.stream("true"):
                    break
        asyncio.run(run())
    assert saw["open"] == 0


def test_a_loop_over_a_stream_that_is_left_closes_it_without_await():
    with scripted([BOX, {"events": LEFT, "hang": "body"}]) as (url, saw):
        with sync.Sandbox.connect("box", server_url=url) as sandbox:
            for _ in sandbox.command.stream("true"):
                break
    assert saw["open"] == 0


def test_an_interrupt_of_the_keyboard_closes_what_is_open():
    with scripted([BOX, {"hang": True}]) as (url, saw):
        timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), sync.Sandbox.connect("box", server_url=url) as sandbox:
            timer.start()
            sandbox.command.run("true")
        timer.join()
    assert saw["open"] == 0


# Servers that are slow, or not there.

def test_a_server_that_comes_late_is_waited_for():
    place, url = nowhere()
    with contextlib.closing(place), scripted([BOX]) as (late, _):
        def appear():
            time.sleep(0.3)
            place.listen()
            client, _ = place.accept()
            with client, contextlib.closing(sync.Client(late)) as there:
                assert client.recv(65536).startswith(b"GET /v1/sandboxes/box")
                body = there._http.get(f"{late}/v1/sandboxes/box").content
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        thread = threading.Thread(target=appear)
        thread.start()
        with sync.Sandbox.connect("box", server_url=url) as sandbox:
            assert sandbox.name == "box"
        thread.join()


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_was_said():
    with scripted([BOX, {"status": 201, "json": {"id": 1, "pid": 2}}, {"hang": True}]) as (url, _):
        with sync.Sandbox.connect("box", server_url=url) as sandbox:
            process = sandbox.command.start("true")
            before = time.monotonic()
            with pytest.raises(TimeoutError, match="0.3 s"):
                process.wait(timeout=0.3)
            assert time.monotonic() - before < 10


def test_a_line_without_end_is_no_end_of_memory(monkeypatch):
    monkeypatch.setattr("microsandbox._core.streams.LONGEST_LINE", 100_000)
    with scripted([BOX, {"events": ["x" * 60_000] * 4}]) as (url, _), sync.Sandbox.connect("box", server_url=url) as sandbox:
        with pytest.raises(microsandbox.NotUnderstoodError, match="longer"):
            list(sandbox.command.stream("true"))


def test_a_document_that_is_too_large_is_not_sent():
    with scripted([BOX]) as (url, saw), sync.Sandbox.connect("box", server_url=url) as sandbox:
        with pytest.raises(microsandbox.TooLargeError, match="files"):
            sandbox.command.run("cat", stdin="x" * (33 << 20))
    assert len(saw["seen"]) == 1


def test_what_can_be_sent_once_only_is_not_sent_again_without_its_beginning():
    full = {"status": 429, "headers": {"Retry-After": "0"}, "json": {}}
    with scripted([BOX, full, full, {"json": {"bytes": 4}}]) as (url, saw), sync.Sandbox.connect("box", server_url=url) as sandbox:
        with pytest.raises(microsandbox.FullError):
            sandbox.files.write("/file", iter([b"1234"]))
        assert sandbox.files.write("/file", b"1234") == 4
    assert [request["body"] for request in saw["seen"][1:]] == ["1234"] * 3


def test_a_file_that_is_no_text_is_an_error_that_says_what_to_do():
    with scripted([BOX, {"base64": "YcOkYv8="}]) as (url, _), sync.Sandbox.connect("box", server_url=url) as sandbox:
        with pytest.raises(microsandbox.InvalidRequestError, match=r"the file '/file' is no text in UTF-8: .* at byte 4; .*read\(\)"):
            sandbox.files.read_text("/file")
        assert sandbox.files.read_text("/file", errors="replace") == "aäb\ufffd"
        assert sandbox.files.read_text("/file", encoding="latin-1") == "aÃ¤bÿ"
        assert sandbox.files.read("/file") == b"a\xc3\xa4b\xff"


def test_no_file_is_another_thing_than_no_sandbox():
    missing = {"status": 404, "json": {"error": {"code": "not_found", "message": "no such thing"}}}
    with scripted([BOX, missing, BOX, missing, missing]) as (url, _), sync.Sandbox.connect("box", server_url=url) as sandbox:
        assert not sandbox.files.exists("/file")
        with pytest.raises(microsandbox.NotFoundError):
            sandbox.files.exists("/file")


def test_a_compressed_answer_is_not_understood():
    with scripted([{"headers": {"Content-Encoding": "gzip"}, "text": "no gzip"}]) as (url, _):
        with sync.Client(url) as client, pytest.raises(microsandbox.NotUnderstoodError, match="compressed"):
            client.health()


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_what_was_closed_says_so(colour):
    with scripted([BOX]) as (url, _):
        async def run():
            async with microsandbox.Sandbox.connect("box", server_url=url) as sandbox:
                pass
            await sandbox.command.run("true")

        def without():
            with sync.Sandbox.connect("box", server_url=url) as sandbox:
                pass
            sandbox.command.run("true")

        with pytest.raises(microsandbox.InvalidRequestError, match="/exec: the connections to .* were closed"):
            without() if colour == "sync" else asyncio.run(run())


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_lead_to_another_path_is_refused(name):
    with pytest.raises(microsandbox.InvalidRequestError, match="is no name"):
        sync.Sandbox.connect(name)


# The real server, restarted.

@needs_root
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_output_of_a_process_goes_on_when_the_server_is_restarted(server_host, how):
    first = server_host.serve()
    with sync.Sandbox.create("base", name="kept", server_url=first.url, api_key=first.key) as sandbox:
        gate = server_host.directory / "gate"
        process = sandbox.command.start("sh", ["-c", f"echo before; while [ ! -e {gate} ]; do sleep 0.05; done; echo after"])
        written = ""

        def restart():
            getattr(first, how)()
            server_host.serve(key=False, port=first.port)
            gate.touch()

        thread = None
        with process.output() as stream:
            for output in stream:
                written += output.text
                if thread is None:
                    thread = threading.Thread(target=restart)
                    thread.start()
        thread.join()
        assert written == "before\nafter\n" and stream.exit.success and stream.offsets == {"stdout": 13, "stderr": 0}


@needs_root
def test_a_command_breaks_off_when_the_server_is_killed_and_that_is_told(server_host):
    first = server_host.serve()

    async def run():
        async with microsandbox.Client(first.url, first.key) as client:
            sandbox = await microsandbox.Sandbox.create("base", name="cut", client=client)
            with pytest.raises(microsandbox.BrokenConnectionError, match="broke"):
                async with sandbox.command.stream("sh", ["-c", "echo ready; sleep 1000"]) as stream:
                    async for _ in stream:
                        first.kill()
            with pytest.raises(microsandbox.UnreachableError, match="MSB_SERVER_URL"):
                await sandbox.refresh()
            server_host.serve(key=False, port=first.port)
            assert (await sandbox.command.run("echo", ["again"])).stdout == "again\n"
            await sandbox.remove()

    asyncio.run(run())


@needs_root
def test_a_create_that_is_cancelled_leaves_nothing(server_host):
    server = server_host.serve()

    async def run():
        async with microsandbox.Client(server.url, server.key) as client:
            for tick in range(12):
                task = asyncio.ensure_future(microsandbox.Sandbox.create("base", client=client)._make())
                await asyncio.sleep(tick * 0.02)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await task).remove()

    asyncio.run(run())
    wait_until(lambda: server_host.kept() == [] and server_host.running() == [], "nothing is left")


@needs_root
def test_a_create_of_0_2_that_is_cancelled_leaves_nothing_running(server_host):
    server = server_host.serve()

    async def use(name):
        async with microsandbox.PythonSandbox.create(server.url, name=name, api_key=server.key):
            pass

    async def run():
        for tick in range(8):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(use(f"old{tick}"), 0.001 + tick * 0.03)

    asyncio.run(run())
    try:
        wait_until(lambda: server_host.running() == [], "nothing runs")
    except AssertionError as error:
        raise AssertionError(server_host.running(), server.log()) from error


@needs_root
@pytest.mark.parametrize("call", ["run", "command", "stream", "files", "start"])
def test_a_sandbox_that_dies_under_a_call_is_an_error(server_host, call):
    server = server_host.serve()
    with sync.Client(server.url, server.key) as client:
        sandbox = sync.Sandbox.create("base", name="die-soon", client=client)
        with pytest.raises(microsandbox.MicrosandboxError) as raised:
            {"run": lambda: sandbox.run("1", language="shell"), "command": lambda: sandbox.command.run("sleep", ["1000"]),
             "stream": lambda: list(sandbox.command.stream("sleep", ["1000"])), "files": lambda: sandbox.files.list("/"),
             "start": lambda: sandbox.command.start("sleep", ["1000"]).wait()}[call]()
        assert raised.value.code in ("failed", "conflict", "not_found"), raised.value
        assert "die-soon" in raised.value.message or raised.value.request_id
        sandbox.remove()
