# SPDX-License-Identifier: Apache-2.0
# Made of _async/sandbox.py by unasync.py: change that one.
"""A sandbox of any image, without await."""

from __future__ import annotations

import contextlib
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from .._core import processes, sandboxes
from .._core.sandboxes import Duration, Envs, Size
from .._core.streams import CodeEvents, LogEvents
from ..errors import MicrosandboxError, NotFoundError
from ..results import Result
from ..types import Port, SandboxInfo, SandboxMetrics, SessionInfo
from .client import Client, CodeStream, LogStream
from .command import Command
from .files import Files


class Sandbox:
    """A sandbox on a server. `create()` and `connect()` make these objects."""

    def __init__(self, client: Client, info: SandboxInfo, *, owned: bool, shared: bool) -> None:
        self._client = client
        self._owned = owned  # it stops when `with` is left
        self._shared = shared  # the client is another's
        self._of = (info.name, info.namespace)
        self.info = info  # as it was when the server was asked last
        self.command = Command(client, *self._of)  # runs programs in it
        self.files = Files(client, *self._of)  # its files

    @classmethod
    def create(
            cls, image: str = "python", *, name: Optional[str] = None, namespace: Optional[str] = None,
            labels: Optional[Mapping[str, str]] = None, ephemeral: Optional[bool] = None, cpus: Optional[float] = None,
            memory: Optional[Size] = None, disk: Optional[Size] = None, processes: Optional[int] = None,
            volumes: Optional[Sequence[str]] = None, ports: Optional[Sequence[Union[str, int]]] = None,
            envs: Optional[Envs] = None, workdir: Optional[str] = None, user: Optional[str] = None,
            shell: Optional[str] = None, scripts: Optional[Mapping[str, str]] = None, exec: Optional[str] = None,
            command: Optional[Sequence[str]] = None, use_image_command: Optional[bool] = None,
            scope: Optional[str] = None, network: Optional[Sequence[str]] = None, timeout: Optional[Duration] = None,
            idle_timeout: Optional[Duration] = None, start_timeout: float = sandboxes.START_PATIENCE,
            server_url: Optional[str] = None, api_key: Optional[str] = None, client: Optional[Client] = None) -> Sandbox:
        """Makes a sandbox and starts it: `with Sandbox.create("python") as sandbox`, or `Sandbox.create(...)`.

        One without a name is ephemeral unless said: nothing is left of it when it has ended. `with` stops it at
        its end. `memory` and `disk` are in MiB, or have a unit ("1G"); a port is a number, which is published where there
        is room, or "HOST:GUEST"; `timeout` and `idle_timeout` say when the server stops it; `scope` what it may reach on
        the network ("none", "local", "public" or "any"), and `network` rules that decide before that ("deny tcp any 25");
        `start_timeout` is how long to wait for it to run, in seconds.
        """
        config = sandboxes.config_of(
            image=image, cpus=cpus, memory=memory, disk=disk, processes=processes, volumes=volumes, ports=ports, envs=envs,
            workdir=workdir, user=user, shell=shell, scripts=scripts, exec=exec, command=command,
            use_image_command=use_image_command, scope=scope, network=network, timeout=timeout,
            idle_timeout=idle_timeout)
        made_up = sandboxes.new_name()
        call = sandboxes.create(name or made_up, namespace, labels,
                                name is None if ephemeral is None else ephemeral, config, start_timeout)

        def make() -> Sandbox:
            ours = client or Client(server_url, api_key)
            try:
                return cls(ours, ours.send(call), owned=True, shared=client is not None)
            except BaseException as error:
                try:
                    if name is None and sandboxes.may_be_there(error):
                        with contextlib.suppress(MicrosandboxError):
                            ours.send(sandboxes.remove(made_up, namespace))
                finally:
                    if client is None:
                        ours.close()
                raise

        return make()

    @classmethod
    def connect(
            cls, name: str, *, namespace: Optional[str] = None, server_url: Optional[str] = None,
            api_key: Optional[str] = None, client: Optional[Client] = None) -> Sandbox:
        """One that is there. `with` lets go of it at its end, and it goes on."""
        def make() -> Sandbox:
            ours = client or Client(server_url, api_key)
            try:
                info = ours.send(sandboxes.get(name, namespace))
                return cls(ours, info, owned=False, shared=client is not None)
            except BaseException:
                if client is None:
                    ours.close()
                raise

        return make()

    @classmethod
    def list(
            cls, *, namespace: Optional[str] = None, labels: Optional[Mapping[str, str]] = None,
            state: Optional[str] = None, server_url: Optional[str] = None, api_key: Optional[str] = None,
            client: Optional[Client] = None) -> Iterator[SandboxInfo]:
        """Those that have all these labels, and are in that state; of namespace "*": all that the key may see."""
        ours = client or Client(server_url, api_key)
        try:
            cursor: Optional[str] = None
            while True:
                page = ours.send(sandboxes.page(namespace, labels, state, cursor))
                for info in page.sandboxes:
                    yield info
                cursor = page.cursor
                if cursor is None:
                    return
        finally:
            if client is None:
                ours.close()

    @property
    def name(self) -> str:
        """The one that was given, or made up."""
        return self.info.name

    @property
    def namespace(self) -> str:
        """Where its name is unique."""
        return self.info.namespace

    def __repr__(self) -> str:
        return f"<Sandbox '{self.name}' of the image '{self.info.image}', {self.info.state}>"

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        try:
            if self._owned:
                try:
                    self.stop()
                except NotFoundError:
                    pass  # it ended by itself, and was ephemeral
                except MicrosandboxError:
                    if error is None:  # which counts more
                        raise
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of the connections; the sandbox goes on."""
        if not self._shared:
            self._client.close()

    # Its life.

    def refresh(self) -> SandboxInfo:
        """Asks the server for `info` again."""
        self.info = self._client.send(sandboxes.get(*self._of))
        return self.info

    def start(self) -> None:
        """Nothing to do when it runs."""
        self.info = self._client.send(sandboxes.start(*self._of))

    def stop(self, *, at_once: bool = False) -> None:
        """In good order, and waits for its end; `at_once`: kills it."""
        self.info = self._client.send(sandboxes.stop(*self._of, at_once))

    def pause(self) -> None:
        """Nothing in it goes on."""
        self.info = self._client.send(sandboxes.pause(*self._of))

    def resume(self) -> None:
        """All in it goes on, where it was paused."""
        self.info = self._client.send(sandboxes.resume(*self._of))

    def remove(self) -> None:
        """Stops it at once, and removes all that it has kept."""
        self._client.send(sandboxes.remove(*self._of))

    # Code.

    def run(
            self, code: str, *, language: str = "python", session: Optional[str] = None,
            timeout: Optional[float] = None) -> Result:
        """Runs code in an interpreter, which keeps its state: "python", "javascript" or "shell". `session` tells
        several apart. Code whose time is over is interrupted: its result has the status "timeout"."""
        return self._client.send(processes.run_code(*self._of, processes.code(language, code, session, timeout)))

    def stream(
            self, code: str, *, language: str = "python", session: Optional[str] = None,
            timeout: Optional[float] = None) -> CodeStream:
        """The same, with what it gives while it runs."""
        return CodeStream(self._client, CodeEvents(*self._of, language, processes.code(language, code, session, timeout)))

    def sessions(self) -> List[SessionInfo]:
        """Interpreters that run() has started, and keep their state."""
        return self._client.send(processes.sessions(*self._of))

    def interrupt(self, *, language: str = "python", session: str = "main") -> None:
        """Code that runs in a session."""
        self._client.send(processes.interrupt(*self._of, language, session))

    def close_session(self, *, language: str = "python", session: str = "main") -> None:
        """Ends it, with its state."""
        self._client.send(processes.close_session(*self._of, language, session))

    # What it has.

    def ports(self) -> Tuple[Port, ...]:
        """Where its ports are published; none when it does not run."""
        return self._client.send(sandboxes.ports(*self._of))

    def url(self, port: int) -> str:
        """Where programs of the server's host reach a port that it publishes."""
        return self._client.send(sandboxes.url(*self._of, port))

    def app_url(self, port: int) -> str:
        """Where browsers of the server's host do, as an origin of its own."""
        return self._client.settings.app_url(self.name, self.namespace, port)

    def metrics(self) -> SandboxMetrics:
        """What it uses now."""
        return self._client.send(sandboxes.metrics(*self._of))

    def logs(self, *, tail: Optional[int] = None, follow: bool = False) -> LogStream:
        """What its command wrote, line by line; with `follow` until it has ended."""
        return LogStream(self._client, LogEvents(*self._of, tail, follow))
