# SPDX-License-Identifier: Apache-2.0
"""`PythonSandbox` and `NodeSandbox` as microsandbox 0.2 has them, with await."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import Any, AsyncContextManager, AsyncIterator, ClassVar, Dict, Mapping, Optional, Sequence, Type, TypeVar

from .._core import language, sandboxes
from .._core.call import Call, given
from .._core.language import CommandFacts, ExecutionFacts, Requests
from .._core.sandboxes import Envs
from .._core.settings import Settings
from ..errors import MicrosandboxError
from .client import Client

B = TypeVar("B", bound="BaseSandbox")


class Execution(ExecutionFacts):
    """What code gave."""

    async def output(self) -> str:
        """Its standard output, without the white space at its end."""
        return self._text("stdout")

    async def error(self) -> str:
        """Its standard error, without the white space at its end."""
        return self._text("stderr")


class CommandExecution(CommandFacts):
    """How a command ended, and what it wrote."""

    async def output(self) -> str:
        """Its standard output, without the white space at its end."""
        return self._text("stdout")

    async def error(self) -> str:
        """Its standard error, without the white space at its end."""
        return self._text("stderr")


class BaseSandbox(ABC):
    """A sandbox for code of one language."""

    _language: ClassVar[str] = ""

    def __init__(
            self, server_url: Optional[str] = None, namespace: str = "default", name: Optional[str] = None,
            api_key: Optional[str] = None, *, sandbox_name: Optional[str] = None) -> None:
        """`sandbox_name` is what the first clients of 0.2 call `name`."""
        language.load_dotenv()
        namespace, name, api_key = language.identity(namespace, name or sandbox_name, api_key)
        settings = Settings.of(server_url, api_key)
        # Programs know these by their names, and change them before start().
        self._server_url = settings.url
        self._api_key = settings.key
        self._namespace = namespace
        self._name = name or sandboxes.new_name()
        self._is_started = False
        # Programs of 0.2 put an HTTP session of their own here, and close it. It is not used.
        self._session: Any = None
        self._client: Optional[Client] = None
        self._scope: Any = None

    @abstractmethod
    async def get_default_image(self) -> str:
        """What start() takes when it is given none."""

    @classmethod
    def create(
            cls: Type[B], server_url: Optional[str] = None, namespace: str = "default", name: Optional[str] = None,
            api_key: Optional[str] = None, cpus: Optional[float] = None, memory: Optional[int] = None,
            timeout: Optional[float] = None, *, sandbox_name: Optional[str] = None, image: Optional[str] = None,
            volumes: Optional[Sequence[str]] = None, ports: Optional[Sequence[str]] = None, envs: Optional[Envs] = None,
            depends_on: Optional[Sequence[str]] = None, workdir: Optional[str] = None, shell: Optional[str] = None,
            scripts: Optional[Mapping[str, str]] = None, exec: Optional[str] = None) -> AsyncContextManager[B]:
        """One that runs until `async with` is left."""
        sandbox = cls(server_url=server_url, namespace=namespace, name=name or sandbox_name, api_key=api_key)
        scope = sandbox._running(given(
            image=image, memory=memory, cpus=cpus, volumes=volumes, ports=ports, envs=envs, depends_on=depends_on,
            workdir=workdir, shell=shell, scripts=scripts, exec=exec, timeout=timeout))
        # Programs enter it by hand, and keep what that gives: as long as this is kept, it is not left.
        sandbox._scope = scope
        return scope

    @asynccontextmanager
    async def _running(self: B, options: Dict[str, Any]) -> AsyncIterator[B]:
        try:
            await self.start(**options)
        except BaseException as error:
            self._is_started = sandboxes.may_be_there(error)
            with contextlib.suppress(MicrosandboxError):
                await self.stop()
            raise
        try:
            yield self
        except BaseException:
            with contextlib.suppress(MicrosandboxError):  # the other one counts more
                await self.stop()
            raise
        await self.stop()

    async def start(
            self, image: Optional[str] = None, memory: int = 512, cpus: float = 1.0, volumes: Optional[Sequence[str]] = None,
            ports: Optional[Sequence[str]] = None, envs: Optional[Envs] = None, depends_on: Optional[Sequence[str]] = None,
            workdir: Optional[str] = None, shell: Optional[str] = None, scripts: Optional[Mapping[str, str]] = None,
            exec: Optional[str] = None, timeout: float = 180.0) -> None:
        """Nothing to do when it is started. As up to 0.2.6, the fourth may also be the timeout, in seconds."""
        if self._is_started:
            return
        call = self._requests.start(image or await self.get_default_image(), memory, cpus, timeout, volumes, ports, envs,
                                    depends_on, workdir, shell, scripts, exec)
        try:
            await self._send(call, language.START_FAILED)
        except BaseException:
            await self._close()
            raise
        self._is_started = True

    async def stop(self) -> None:
        """Nothing to do when it is not started."""
        try:
            if self._is_started:
                await self._send(self._requests.stop(), language.STOP_FAILED)
                self._is_started = False
        finally:
            await self._close()

    async def run(self, code: str) -> Execution:
        """Runs code, which finds what code before it left."""
        return Execution(await self._ask(self._requests.run(code), language.RUN_FAILED))

    @property
    def command(self) -> Command:
        """Runs programs in it."""
        return Command(self)

    @property
    def metrics(self) -> Metrics:
        """What it uses."""
        return Metrics(self)

    @property
    def name(self) -> str:
        """The one that was given, or made up."""
        return self._name

    @property
    def is_started(self) -> bool:
        """Whether start() was called here, and not stop()."""
        return self._is_started

    @property
    def _requests(self) -> Requests:
        return Requests(self._name, self._namespace, self._language)

    async def _ask(self, call: Call[Any], what: str) -> Any:
        if not self._is_started:
            raise language.not_started()
        return await self._send(call, what)

    async def _send(self, call: Call[Any], what: str) -> Any:
        if self._client is None:
            self._client = Client(self._server_url, self._api_key)
        try:
            return await self._client.send(call)
        except MicrosandboxError as error:
            raise language.said_of(error, what) from error.__cause__

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


class Command:
    """`sandbox.command`."""

    def __init__(self, sandbox_instance: BaseSandbox) -> None:
        self._sandbox = sandbox_instance

    async def run(
            self, command: str, args: Optional[Sequence[str]] = None, timeout: Optional[float] = None) -> CommandExecution:
        """Runs it to its end. Raises when its time, in seconds, is over."""
        call = self._sandbox._requests.command(command, args, timeout)
        return CommandExecution(await self._sandbox._ask(call, language.COMMAND_FAILED))


class Metrics:
    """`sandbox.metrics`."""

    def __init__(self, sandbox_instance: BaseSandbox) -> None:
        self._sandbox = sandbox_instance

    async def all(self) -> Dict[str, Any]:
        """With the names "name", "namespace", "running", "cpu_usage", "memory_usage" and "disk_usage"."""
        call = self._sandbox._requests.metrics()
        return language.first_metrics(await self._sandbox._ask(call, language.METRICS_FAILED))

    async def cpu(self) -> Optional[float]:
        """Percent of a processor."""
        measured = await self.all()
        return measured.get("cpu_usage")

    async def memory(self) -> Optional[int]:
        """MiB."""
        measured = await self.all()
        return measured.get("memory_usage")

    async def disk(self) -> Optional[int]:
        """Bytes."""
        measured = await self.all()
        return measured.get("disk_usage")

    async def is_running(self) -> bool:
        """As the server sees it now."""
        measured = await self.all()
        return bool(measured.get("running", False))


class PythonSandbox(BaseSandbox):
    """Runs Python."""

    _language = "python"

    async def get_default_image(self) -> str:
        """As in 0.2: on the server it is an alias."""
        return "microsandbox/python"


class NodeSandbox(BaseSandbox):
    """Runs JavaScript."""

    _language = "nodejs"

    async def get_default_image(self) -> str:
        """As in 0.2: on the server it is an alias."""
        return "microsandbox/node"
