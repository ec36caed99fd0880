# SPDX-License-Identifier: Apache-2.0
"""Connections to a server, with await."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import (
    Any,
    AsyncContextManager,
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    Generator,
    Generic,
    Optional,
    Type,
    TypeVar,
    Union,
)

import httpx

from .._core import sandboxes
from .._core.call import RESUMPTION, Attempts, Call, Reply, Retries, is_good, trouble
from .._core.settings import Settings
from .._core.streams import CodeEvents, CommandEvents, EventReader, LogEvents, ProcessEvents
from ..errors import MicrosandboxError
from ..results import CodeOutput, Result
from ..types import Exit, LogLine, Output, ProcessOutput, ServerInfo

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R", bound="EventReader[Any]")
S = TypeVar("S", bound="Stream[Any, Any]")
O = TypeVar("O", bound="AsyncContextManager[Any]")

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30)


class Client:
    """A server, and the connections to it. Sandboxes may share one; those that are given none make their own.

    `attempts` bounds how often a request is sent that was not answered, where that is safe.
    """

    def __init__(self, server_url: Optional[str] = None, api_key: Optional[str] = None, *, attempts: int = 5) -> None:
        self.settings = Settings.of(server_url, api_key)
        self._retries = Retries(attempts)
        self._http = httpx.AsyncClient(limits=LIMITS, trust_env=False, verify=self.settings.tls(),
                                       headers={"Accept-Encoding": "identity"})

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def health(self) -> str:
        return await self.send(sandboxes.health())

    async def server(self) -> ServerInfo:
        """What the server and the key allow."""
        return await self.send(sandboxes.server())

    async def send(self, call: Call[T]) -> T:
        attempts = Attempts(call, self.settings.url, self._retries)
        while True:
            outcome: Union[Reply, Exception]
            try:
                response = await self._begin(call)
                try:
                    outcome = Reply(response.status_code, response.headers, await response.aread())
                finally:
                    await response.aclose()
            except httpx.TransportError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                return attempts.result(outcome)
            await asyncio.sleep(pause)

    async def open(self, call: Call[Any], retries: Optional[Retries] = None) -> httpx.Response:
        """A good answer whose body is to be read, and which is to be closed."""
        attempts = Attempts(call, self.settings.url, retries or self._retries)
        while True:
            outcome: Union[Reply, Exception]
            try:
                response = await self._begin(call)
                if is_good(response.status_code):
                    return response
                try:
                    outcome = Reply(response.status_code, response.headers, await response.aread())
                finally:
                    await response.aclose()
            except httpx.TransportError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                attempts.result(outcome)
            else:
                await asyncio.sleep(pause)

    async def _begin(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**call.options(self.settings.url, self.settings.key))
        sending = asyncio.ensure_future(self._http.send(request, stream=True))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await _abandon(sending)
            raise


async def _abandon(sending: asyncio.Future[httpx.Response]) -> None:
    """Cancels it, again and again: anyio 3 loses a cancellation that comes while a connection is being made."""
    while not sending.done():
        sending.cancel()
        await asyncio.wait({sending}, timeout=0.05)
    if not sending.cancelled() and sending.exception() is None:
        await sending.result().aclose()


class Stream(Generic[E, R]):
    """Events of an answer, while they come. Leaving `async with` ends it, as ending the loop does."""

    def __init__(self, client: Client, reader: R) -> None:
        self._client = client
        self._reader = reader
        self._events: Optional[AsyncGenerator[E, None]] = None

    async def __aenter__(self: S) -> S:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[E]:
        if self._events is None:
            self._events = self._read()
        return self._events

    async def close(self) -> None:
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
            except (httpx.TransportError, MicrosandboxError) as error:
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
        return self._reader.id

    @property
    def pid(self) -> Optional[int]:
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


class Opening(Generic[O]):
    """What is made when this is awaited, or entered by `async with`."""

    def __init__(self, make: Callable[[], Awaitable[O]]) -> None:
        self._make = make
        self._made: Optional[O] = None

    def __await__(self) -> Generator[Any, None, O]:
        return self._make().__await__()

    async def __aenter__(self) -> O:
        self._made = await self._make()
        return self._made

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        if self._made is not None:
            await self._made.__aexit__(kind, error, trace)
