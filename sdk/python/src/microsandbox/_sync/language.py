# SPDX-License-Identifier: Apache-2.0
"""`PythonSandbox` and `NodeSandbox` as microsandbox 0.2 has them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import Any, ClassVar, Dict, Iterator, Mapping, Optional, Sequence, Type, TypeVar

from .._core import sandboxes
from .._core.call import Call
from .._core.language import (
    CommandFacts,
    ExecutionFacts,
    Requests,
    first_metrics,
    load_dotenv,
    not_started,
    said_of,
)
from .._core.sandboxes import Envs
from .._core.settings import Settings
from ..errors import MicrosandboxError
from .client import Client

B = TypeVar("B", bound="BaseSandbox")


class Execution(ExecutionFacts):
    """What code gave."""

    def __init__(self, output_data: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(output_data)

    def output(self) -> str:
        return self._text("stdout")

    def error(self) -> str:
        return self._text("stderr")


class CommandExecution(CommandFacts):
    """How a command ended, and what it wrote."""

    def __init__(self, output_data: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(output_data)

    def output(self) -> str:
        return self._text("stdout")

    def error(self) -> str:
        return self._text("stderr")


class BaseSandbox(ABC):
    """A sandbox for code of one language."""

    _language: ClassVar[str]

    def __init__(self, server_url: Optional[str] = None, namespace: str = "default", name: Optional[str] = None,
                 api_key: Optional[str] = None) -> None:
        load_dotenv()
        self._settings = Settings.of(server_url, api_key)
        self._server_url = self._settings.url
        self._api_key = self._settings.key
        self._namespace = namespace
        self._name = name or sandboxes.new_name()
        # Programs of 0.2 put an HTTP session of their own here, and close it. It is not used.
        self._session: Any = None
        self._is_started = False
        self._client: Optional[Client] = None
        self._requests = Requests(self._name, namespace, self._language)

    @abstractmethod
    def get_default_image(self) -> str: ...

    @classmethod
    @contextmanager
    def create(cls: Type[B], server_url: Optional[str] = None, namespace: str = "default",
               name: Optional[str] = None, api_key: Optional[str] = None, cpus: Optional[float] = None,
               memory: Optional[int] = None, timeout: Optional[float] = None, *, image: Optional[str] = None,
               volumes: Optional[Sequence[str]] = None, ports: Optional[Sequence[str]] = None,
               envs: Optional[Envs] = None, depends_on: Optional[Sequence[str]] = None,
               workdir: Optional[str] = None, shell: Optional[str] = None,
               scripts: Optional[Mapping[str, str]] = None, exec: Optional[str] = None) -> Iterator[B]:
        """One that runs until `with` is left."""
        sandbox = cls(server_url=server_url, namespace=namespace, name=name, api_key=api_key)
        try:
            sandbox.start(image=image, memory=512 if memory is None else memory, cpus=1.0 if cpus is None else cpus,
                          volumes=volumes, ports=ports, envs=envs, depends_on=depends_on, workdir=workdir,
                          shell=shell, scripts=scripts, exec=exec, timeout=180.0 if timeout is None else timeout)
        except BaseException as error:
            sandbox._is_started = sandboxes.may_be_there(error)
            with contextlib.suppress(MicrosandboxError):
                sandbox.stop()
            raise
        try:
            yield sandbox
        finally:
            sandbox.stop()

    def start(self, image: Optional[str] = None, memory: int = 512, cpus: float = 1.0,
              volumes: Optional[Sequence[str]] = None, ports: Optional[Sequence[str]] = None,
              envs: Optional[Envs] = None, depends_on: Optional[Sequence[str]] = None,
              workdir: Optional[str] = None, shell: Optional[str] = None,
              scripts: Optional[Mapping[str, str]] = None, exec: Optional[str] = None,
              timeout: float = 180.0) -> None:
        """Nothing to do when it is started."""
        if self._is_started:
            return
        call = self._requests.start(image or self.get_default_image(), memory, cpus, timeout, volumes, ports, envs,
                                    depends_on, workdir, shell, scripts, exec)
        try:
            self._send(call, "Failed to start sandbox")
        except BaseException:
            self._close()
            raise
        self._is_started = True

    def stop(self) -> None:
        """Nothing to do when it is not started."""
        try:
            if self._is_started:
                self._send(self._requests.stop(), "Failed to stop sandbox")
                self._is_started = False
        finally:
            self._close()

    def run(self, code: str) -> Execution:
        """Runs code, which finds what code before it left."""
        return Execution(self._ask(self._requests.run(code), "Failed to execute code"))

    @property
    def command(self) -> Command:
        return Command(self)

    @property
    def metrics(self) -> Metrics:
        return Metrics(self)

    def _ask(self, call: Call[Any], what: str) -> Any:
        if not self._is_started:
            raise not_started()
        return self._send(call, what)

    def _send(self, call: Call[Any], what: str) -> Any:
        if self._client is None:
            self._client = Client(self._server_url, self._api_key)
        try:
            return self._client.send(call)
        except MicrosandboxError as error:
            raise said_of(error, what) from error.__cause__

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


class Command:
    """`sandbox.command`."""

    def __init__(self, sandbox_instance: BaseSandbox) -> None:
        self._sandbox = sandbox_instance

    def run(self, command: str, args: Optional[Sequence[str]] = None,
            timeout: Optional[float] = None) -> CommandExecution:
        """Runs it to its end. Raises when its time, in seconds, is over."""
        call = self._sandbox._requests.command(command, args, timeout)
        return CommandExecution(self._sandbox._ask(call, "Failed to execute command"))


class Metrics:
    """`sandbox.metrics`."""

    def __init__(self, sandbox_instance: BaseSandbox) -> None:
        self._sandbox = sandbox_instance

    def all(self) -> Dict[str, Any]:
        call = self._sandbox._requests.metrics()
        return first_metrics(self._sandbox._ask(call, "Failed to get sandbox metrics"))

    def cpu(self) -> Optional[float]:
        """Percent of a processor."""
        return self.all().get("cpu_usage")

    def memory(self) -> Optional[int]:
        """MiB."""
        return self.all().get("memory_usage")

    def disk(self) -> Optional[int]:
        """Bytes."""
        return self.all().get("disk_usage")

    def is_running(self) -> bool:
        return bool(self.all().get("running", False))


class PythonSandbox(BaseSandbox):
    """Runs Python."""

    _language = "python"

    def get_default_image(self) -> str:
        return "microsandbox/python"


class NodeSandbox(BaseSandbox):
    """Runs JavaScript."""

    _language = "nodejs"

    def get_default_image(self) -> str:
        return "microsandbox/node"
