# SPDX-License-Identifier: Apache-2.0
"""Connections to a server, with await."""

from __future__ import annotations

from typing import Any, AsyncGenerator, AsyncIterator, Dict, Generic, Optional, TypeVar, Union

import httpx

from .._core import sandboxes
from .._core.call import RESUMPTION, Attempts, Call, Reply, Retries, is_good, trouble
from .._core.settings import Settings
from .._core.streams import CodeEvents, CommandEvents, EventReader, LogEvents, ProcessEvents
from ..errors import InvalidRequestError, MicrosandboxError
from ..results import CodeOutput, Result
from ..types import Exit, LogLine, Output, ProcessOutput, ServerInfo
from ._runtime import send, sleep

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R", bound="EventReader[Any]")
S = TypeVar("S", bound="Stream[Any, Any]")

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30)


class Client:
    """A server, and the connections to it. Sandboxes may share one; those that are given none make their own.

    `attempts` bounds how often a request is sent that was not answered, where that is safe.
    """

    def __init__(self, server_url: Optional[str] = None, api_key: Optional[str] = None, *, attempts: int = 5) -> None:
        self.settings = Settings.of(server_url, api_key)  # `url` and `key`: what this was given, or the environment says
        self._retries = Retries(attempts)
        self._http = httpx.AsyncClient(
            limits=LIMITS, trust_env=False, verify=self.settings.tls(), headers={"Accept-Encoding": "identity"})

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """All connections. Sandboxes that share it cannot be used any more; they go on."""
        await self._http.aclose()

    async def health(self) -> str:
        """What the server says of itself, which needs no key."""
        return await self.send(sandboxes.health())

    async def server(self) -> ServerInfo:
        """What the server and the key allow."""
        return await self.send(sandboxes.server())

    async def send(self, call: Call[T]) -> T:
        """The result of a request, which is sent again where that is safe. (Requests are the package's own.)"""
        attempts = Attempts(call, self.settings.url, self._retries)
        while True:
            outcome: Union[Reply, Exception]
            try:
                outcome = await self._read(await self._begin(call))
            except httpx.RequestError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                return attempts.result(outcome)
            await sleep(pause)

    async def open(self, call: Call[Any], retries: Optional[Retries] = None) -> httpx.Response:
        """A good answer whose body is to be read, and which is to be closed."""
        attempts = Attempts(call, self.settings.url, retries or self._retries)
        while True:
            outcome: Union[Reply, Exception]
            try:
                response = await self._begin(call)
                if is_good(response.status_code):
                    return response
                outcome = await self._read(response)
            except httpx.RequestError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                raise attempts.error(outcome)
            await sleep(pause)

    async def _begin(self, call: Call[Any]) -> httpx.Response:
        if self._http.is_closed:
            raise InvalidRequestError(f"{call.method} {call.path}: the connections to {self.settings.url} were closed",
                                      code="invalid", hint="do it before close(), or make another object for it")
        request = self._http.build_request(**call.options(self.settings.url, self.settings.key))
        return await send(self._http, request)

    @staticmethod
    async def _read(response: httpx.Response) -> Reply:
        try:
            return Reply(response.status_code, response.headers, await response.aread())
        finally:
            await response.aclose()


class Stream(Generic[E, R]):
    """Events of an answer, while they come. Leaving `async with` ends it, as ending the loop does."""

    def __init__(self, client: Client, reader: R) -> None:
        self._client = client
        self._reader = reader
        self._events: Optional[AsyncGenerator[E, None]] = None

    async def __aenter__(self: S) -> S:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[E]:
        if self._events is None:
            self._events = self._read()
        return self._events

    async def close(self) -> None:
        """Before its end, or after it; nothing comes any more."""
        if self._events is None:
            self._events = self._read()
        await self._events.aclose()

    async def _read(self) -> AsyncGenerator[E, None]:
        reader, retries = self._reader, None
        while True:
            call = reader.call()
            response = await self._client.open(call, retries)
            try:
                async for piece in response.aiter_raw():
                    for event in reader.feed(piece):
                        yield event
                reader.end()
                return
            except (httpx.RequestError, MicrosandboxError) as error:
                if not reader.resumes(error):
                    if isinstance(error, MicrosandboxError):
                        raise
                    raise trouble(error, call, self._client.settings.url) from error
            finally:
                await response.aclose()
            retries = RESUMPTION


class CodeStream(Stream[CodeOutput, CodeEvents]):
    """What code gives, while it runs. When this is closed before its end, the code is interrupted."""

    @property
    def result(self) -> Optional[Result]:
        """Of all of it, once it has ended."""
        return self._reader.result


class CommandStream(Stream[Output, CommandEvents]):
    """What a command writes, while it runs. When this is closed before its end, the command is killed."""

    @property
    def exit(self) -> Optional[Exit]:
        """How it ended, once it has."""
        return self._reader.exit

    @property
    def id(self) -> Optional[int]:
        """Of the process, once it has started: what `Command.attach()` takes."""
        return self._reader.id

    @property
    def pid(self) -> Optional[int]:
        """As programs in the sandbox see it, once it has started."""
        return self._reader.pid


class ProcessStream(Stream[ProcessOutput, ProcessEvents]):
    """What a process writes. It goes on over broken connections; closing it changes nothing about the process."""

    @property
    def exit(self) -> Optional[Exit]:
        """How it ended, once it has."""
        return self._reader.exit

    @property
    def offsets(self) -> Dict[str, int]:
        """Where each stream goes on: what `Process.output()` takes."""
        return dict(self._reader.offsets)


class LogStream(Stream[LogLine, LogEvents]):
    """Lines of a sandbox's log."""
