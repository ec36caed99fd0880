# SPDX-License-Identifier: Apache-2.0
"""The operations of sdk/conformance with the Python SDK, of both colours: what it does without await is done in threads."""

import asyncio
import base64
import hashlib
import os
import pathlib
import tempfile
import urllib.request

from conformance import Failed
from python_sdk import microsandbox, sync

KINDS = {
    microsandbox.InvalidRequestError: "invalid", microsandbox.AuthenticationError: "authentication",
    microsandbox.ForbiddenError: "forbidden", microsandbox.NotFoundError: "not_found",
    microsandbox.ConflictError: "conflict", microsandbox.TooLargeError: "too_large", microsandbox.FullError: "full",
    microsandbox.SandboxFailedError: "failed", microsandbox.TimedOutError: "timed_out",
    microsandbox.UnavailableError: "unavailable", microsandbox.ServerError: "server",
    microsandbox.UnreachableError: "unreachable", microsandbox.BrokenConnectionError: "broken",
    microsandbox.NotUnderstoodError: "not_understood", microsandbox.DetachedError: "detached",
}
END = object()


def described(error):
    kind = KINDS.get(type(error), "other")
    if kind == "other" and "not started" in error.message:
        kind = "not_started"
    return {"kind": kind, "code": error.code, "number": error.number, "status": error.status, "message": error.message,
            "request_id": error.request_id, "hint": error.hint, "retry_after": error.retry_after}


def members(thing, *names):
    return {name: getattr(thing, name) for name in names}


def port_of(port):
    return members(port, "protocol", "address", "host_port", "guest_port", "url")


def info_of(info):
    ended = info.exit and members(info.exit, "status", "cause")
    return members(info, "name", "namespace", "state", "image", "labels", "ephemeral") | {
        "ports": [port_of(port) for port in info.ports], "exit": ended}


def exit_of(ended):
    return ended and members(ended, "exit_code", "signal", "oom_killed", "timed_out", "success")


def result_of(result):
    error = result.error and {"name": result.error.name, "message": result.error.message,
                              "traceback": list(result.error.traceback)}
    return members(result, "language", "status", "ok", "stdout", "stderr", "text", "exit_status", "reason", "truncated") | {
        "value": result.value and result.value.text, "error": error,
        "values": [members(value, "kind", "data") for value in result.values]}


def file_of(info):
    return members(info, "name", "type", "size", "target") | {"mode": f"{info.mode:04o}"}


def pattern(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def sum_of(data):
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def decoded(arguments, name, word):
    """`arguments` with bytes as `name` where they came as base64 by `word`."""
    if word in arguments:
        arguments = arguments | {name: base64.b64decode(arguments[word])}
        del arguments[word]
    return arguments


class PythonSdk:
    def __init__(self, colour):
        self.surface = sync if colour == "sync" else microsandbox
        self.is_sync = colour == "sync"
        self.names = {}  # (namespace, name) of what was created, with its settings
        self.opened = []

    # Calls of either colour.

    async def call(self, function, *arguments, **options):
        try:
            if self.is_sync:
                return await asyncio.to_thread(function, *arguments, **options)
            result = function(*arguments, **options)
            return await result if hasattr(result, "__await__") else result
        except microsandbox.MicrosandboxError as error:
            raise Failed(described(error)) from error

    async def each(self, items):
        """Of an iterator, asynchronous or not."""
        iterator = iter(items) if self.is_sync else items.__aiter__()
        while True:
            if self.is_sync:
                one = await self.call(next, iterator, END)
            else:
                try:
                    one = await iterator.__anext__()
                except StopAsyncIteration:
                    return
                except microsandbox.MicrosandboxError as error:
                    raise Failed(described(error)) from error
            if one is END:
                return
            yield one

    async def leave(self, thing):
        await self.call(thing.__exit__ if self.is_sync else thing.__aexit__, None, None, None)

    async def entered(self, make, arguments, enter):
        """What create() and connect() make, with or without its scope."""
        opening = await self.call(make, **arguments) if self.is_sync else self.made(make, arguments)
        if enter:
            thing = await self.call(opening.__enter__ if self.is_sync else opening.__aenter__)
            return thing
        thing = opening if self.is_sync else await self.call(lambda: opening)
        self.opened.append(thing)
        return thing

    @staticmethod
    def made(make, arguments):
        try:
            return make(**arguments)
        except microsandbox.MicrosandboxError as error:
            raise Failed(described(error)) from error

    async def release(self):
        """Lets go of what is open."""
        for thing in self.opened:
            await self.call(thing.close)
        self.opened.clear()

    async def remove_all(self, settings):
        for namespace, name in self.names:
            try:
                sandbox, handle = await self.connect(None, {"name": name, "namespace": namespace}, settings=settings)
                await self.call(handle.remove)
            except Failed as failure:
                if failure.error["kind"] != "not_found":
                    raise
        self.names.clear()

    # Sandboxes.

    async def create(self, _, arguments, settings, enter=False):
        if "name" in arguments:
            self.names[arguments.get("namespace"), arguments["name"]] = settings
        sandbox = await self.entered(self.surface.Sandbox.create, arguments | settings, enter)
        self.names[sandbox.namespace, sandbox.name] = settings
        return info_of(sandbox.info), sandbox

    async def connect(self, _, arguments, settings, enter=False):
        sandbox = await self.entered(self.surface.Sandbox.connect, arguments | settings, enter)
        return info_of(sandbox.info), sandbox

    async def list(self, _, arguments, settings):
        found = self.each(self.surface.Sandbox.list(**arguments, **settings))
        return [info_of(info) async for info in found], None

    async def client(self, _, arguments, settings):
        client = await self.call(self.surface.Client, **settings)
        self.opened.append(client)
        return None, client

    async def health(self, client, _):
        return await self.call(client.health), None

    async def server(self, client, _):
        return members(await self.call(client.server), "version", "limits", "key"), None

    async def life(self, sandbox, method, arguments):
        await self.call(method, **arguments)
        return info_of(sandbox.info), None

    async def refresh(self, sandbox, arguments):
        return await self.life(sandbox, sandbox.refresh, arguments)

    async def start(self, sandbox, arguments):
        return await self.life(sandbox, sandbox.start, arguments)

    async def stop(self, sandbox, arguments):
        return await self.life(sandbox, sandbox.stop, arguments)

    async def pause(self, sandbox, arguments):
        return await self.life(sandbox, sandbox.pause, arguments)

    async def resume(self, sandbox, arguments):
        return await self.life(sandbox, sandbox.resume, arguments)

    async def remove(self, sandbox, _):
        return await self.call(sandbox.remove), None

    async def close(self, sandbox, _):
        return await self.call(sandbox.close), None

    # Code.

    async def run(self, sandbox, arguments):
        return result_of(await self.call(sandbox.run, **arguments)), None

    async def stream(self, sandbox, arguments):
        arguments = dict(arguments)
        stop_at = arguments.pop("stop_at", None)
        stream = sandbox.stream(**arguments)
        outputs, said = [], ""
        try:
            async for one in self.each(stream):
                if isinstance(one, microsandbox.Text):
                    last = outputs[-1] if outputs else {}
                    if last.get("stream") == one.stream:
                        last["text"] += one.text
                    else:
                        outputs.append({"type": "text", "stream": one.stream, "text": one.text})
                    said += one.text if one.stream == "stdout" else ""
                elif isinstance(one, microsandbox.Value):
                    outputs.append({"type": one.kind, "data": one.data})
                else:
                    outputs.append({"type": "error", "name": one.name, "message": one.message})
                if stop_at is not None and stop_at in said:
                    break
        finally:
            await self.call(stream.close)
        return {"outputs": outputs, "result": stream.result and result_of(stream.result)}, None

    async def sessions(self, sandbox, _):
        return [members(one, "language", "name", "state") for one in await self.call(sandbox.sessions)], None

    async def interrupt(self, sandbox, arguments):
        return await self.call(sandbox.interrupt, **arguments), None

    async def close_session(self, sandbox, arguments):
        return await self.call(sandbox.close_session, **arguments), None

    # Commands and processes.

    async def command_run(self, sandbox, arguments):
        ran = await self.call(sandbox.command.run, **decoded(arguments, "stdin", "stdin_base64"))
        return exit_of(ran) | members(ran, "stdout", "stderr", "truncated"), None

    async def output_of(self, stream, stop_at):
        written, lost, pieces = {"stdout": b"", "stderr": b""}, [], 0
        try:
            async for one in self.each(stream):
                if isinstance(one, microsandbox.Lost):
                    lost.append(members(one, "stream", "offset", "next"))
                    continue
                written[one.stream] += one.data
                pieces += 1
                if stop_at is not None and stop_at.encode() in written["stdout"]:
                    break
        finally:
            await self.call(stream.close)
        return {"stdout": written["stdout"].decode(errors="replace"), "stderr": written["stderr"].decode(errors="replace"),
                "stdout_base64": base64.b64encode(written["stdout"]).decode(), "pieces": pieces, "lost": lost,
                "exit": exit_of(stream.exit)}

    async def command_stream(self, sandbox, arguments):
        arguments = decoded(arguments, "stdin", "stdin_base64")
        stop_at = arguments.pop("stop_at", None)
        return await self.output_of(sandbox.command.stream(**arguments), stop_at), None

    async def command_start(self, sandbox, arguments):
        process = await self.call(sandbox.command.start, **arguments)
        return members(process, "id", "pid"), process

    async def command_attach(self, sandbox, arguments):
        process = await self.call(sandbox.command.attach, **arguments)
        return members(process, "id", "pid"), process

    async def command_list(self, sandbox, _):
        return [self.process_described(one) for one in await self.call(sandbox.command.list)], None

    @staticmethod
    def process_described(info):
        return members(info, "id", "pid", "state", "label", "command", "input", "terminal")

    async def process_info(self, process, _):
        return self.process_described(await self.call(process.info)), None

    async def process_output(self, process, arguments):
        arguments = dict(arguments)
        stop_at = arguments.pop("stop_at", None)
        stream = process.output(**arguments)
        return await self.output_of(stream, stop_at) | {"offsets": stream.offsets}, None

    async def process_write(self, process, arguments):
        return await self.call(process.write, **decoded(arguments, "data", "data_base64")), None

    async def process_close_input(self, process, _):
        return await self.call(process.close_input), None

    async def process_wait(self, process, arguments):
        return exit_of(await self.call(process.wait, **arguments)), None

    async def process_signal(self, process, arguments):
        return await self.call(process.signal, **arguments), None

    async def process_kill(self, process, _):
        return await self.call(process.kill), None

    async def process_resize(self, process, arguments):
        return await self.call(process.resize, **arguments), None

    async def process_remove(self, process, _):
        return await self.call(process.remove), None

    # Files.

    async def files_read(self, sandbox, arguments):
        data = await self.call(sandbox.files.read, **arguments)
        return sum_of(data) | {"base64": base64.b64encode(data).decode(), "text": data.decode(errors="replace")}, None

    async def files_read_pieces(self, sandbox, arguments):
        pieces = [piece async for piece in self.each(sandbox.files.read_pieces(**arguments))]
        return sum_of(b"".join(pieces)), None

    @staticmethod
    def with_mode(arguments):
        return arguments | ({"mode": int(arguments["mode"], 8)} if "mode" in arguments else {})

    async def files_write(self, sandbox, arguments):
        arguments = self.with_mode(decoded(arguments, "content", "base64"))
        if "text" in arguments:
            arguments["content"] = arguments.pop("text")
        if "size" in arguments:
            arguments["content"] = pattern(arguments.pop("size"))
        return await self.call(sandbox.files.write, **arguments), None

    async def files_write_pieces(self, sandbox, arguments):
        data = pattern(arguments["size"])
        pieces = (data[at:at + 65536] for at in range(0, len(data), 65536))
        return await self.call(sandbox.files.write, arguments["path"], pieces), None

    async def files_list(self, sandbox, arguments):
        return [file_of(info) for info in await self.call(sandbox.files.list, **arguments)], None

    async def files_stat(self, sandbox, arguments):
        return file_of(await self.call(sandbox.files.stat, **arguments)), None

    async def files_exists(self, sandbox, arguments):
        return await self.call(sandbox.files.exists, **arguments), None

    async def files_remove(self, sandbox, arguments):
        return await self.call(sandbox.files.remove, **arguments), None

    async def files_make_directory(self, sandbox, arguments):
        return await self.call(sandbox.files.make_directory, **self.with_mode(arguments)), None

    async def files_move(self, sandbox, arguments):
        arguments = dict(arguments)
        return await self.call(sandbox.files.move, arguments.pop("from"), arguments.pop("to"), **arguments), None

    async def files_upload(self, sandbox, arguments):
        arguments = self.with_mode(arguments)
        with tempfile.NamedTemporaryFile() as file:
            file.write(pattern(arguments.pop("size")))
            file.flush()
            return await self.call(sandbox.files.upload, file.name, arguments.pop("path"), **arguments), None

    async def files_download(self, sandbox, arguments):
        with tempfile.TemporaryDirectory() as directory:
            local = pathlib.Path(directory) / "file"
            size = await self.call(sandbox.files.download, arguments["path"], local)
            data = local.read_bytes()
            assert size == len(data) and os.listdir(directory) == ["file"]
            return sum_of(data), None

    async def files_copy_tree(self, sandbox, arguments):
        pieces = [piece async for piece in self.each(sandbox.files.pack(arguments["from"]))]
        return await self.call(sandbox.files.unpack, arguments["to"], b"".join(pieces)), None

    # What a sandbox shows.

    async def ports(self, sandbox, _):
        return [port_of(port) for port in await self.call(sandbox.ports)], None

    async def url(self, sandbox, arguments):
        return await self.call(sandbox.url, **arguments), None

    async def app_url(self, sandbox, arguments):
        return sandbox.app_url(**arguments), None

    async def metrics(self, sandbox, _):
        measured = await self.call(sandbox.metrics)
        return members(measured, "name", "namespace", "state", "cpu_percent", "memory_bytes", "memory_total", "disk_bytes",
                       "processes"), None

    async def logs(self, sandbox, arguments):
        return [members(line, "stream", "text") async for line in self.each(sandbox.logs(**arguments))], None

    async def fetch(self, _, arguments):
        def get():
            with urllib.request.urlopen(arguments["url"], timeout=10) as answer:
                return {"status": answer.status, "text": answer.read().decode(errors="replace")}
        try:
            return await asyncio.to_thread(get), None
        except OSError as error:
            raise Failed({"kind": "other", "message": str(error)}) from error

    async def pause_for(self, _, arguments):
        return await asyncio.sleep(arguments["seconds"]), None

    # The 0.2 surface.

    async def old_new(self, _, arguments, settings):
        arguments = dict(arguments)
        kind = {"python": self.surface.PythonSandbox, "node": self.surface.NodeSandbox}[arguments.pop("language")]
        self.names[arguments.get("namespace", "default"), arguments["name"]] = settings
        return None, self.made(kind, arguments | settings)

    async def old_create(self, _, arguments, settings, enter=False):
        assert enter, "old.create is for scopes alone"
        arguments = dict(arguments)
        kind = {"python": self.surface.PythonSandbox, "node": self.surface.NodeSandbox}[arguments.pop("language")]
        self.names[arguments.get("namespace", "default"), arguments["name"]] = settings
        scope = kind.create(**arguments, **settings)
        sandbox = await self.call(scope.__enter__ if self.is_sync else scope.__aenter__)
        return None, OldScope(scope, sandbox)

    async def old_start(self, sandbox, arguments):
        return await self.call(sandbox.start, **arguments), None

    async def old_stop(self, sandbox, _):
        return await self.call(sandbox.stop), None

    async def old_run(self, sandbox, arguments):
        ran = await self.call(sandbox.run, **arguments)
        return {"output": await self.call(ran.output), "error": await self.call(ran.error), "has_error": ran.has_error(),
                "status": ran.status, "language": ran.language}, None

    async def old_command_run(self, sandbox, arguments):
        ran = await self.call(sandbox.command.run, **arguments)
        return members(ran, "exit_code", "success", "command", "args") | {
            "output": await self.call(ran.output), "error": await self.call(ran.error)}, None

    async def old_metrics(self, sandbox, _):
        metrics = sandbox.metrics
        names = ("all", "cpu", "memory", "disk", "is_running")
        return {name: await self.call(getattr(metrics, name)) for name in names}, None


class OldScope:
    """A sandbox of the 0.2 surface with the scope that it came from."""

    def __init__(self, scope, sandbox):
        self._scope = scope
        self._sandbox = sandbox
        self.__exit__ = getattr(scope, "__exit__", None)
        self.__aexit__ = getattr(scope, "__aexit__", None)

    def __getattr__(self, name):
        return getattr(self._sandbox, name)
