# SPDX-License-Identifier: Apache-2.0
"""What is done in another way with await than without. `microsandbox._sync._runtime`, by hand like this, has the same names."""

from __future__ import annotations

import asyncio
import contextlib
from typing import (
    IO,
    Any,
    AsyncContextManager,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Generic,
    Iterable,
    Optional,
    TypeVar,
    Union,
)

import httpx

from .._core.files import PIECE

O = TypeVar("O", bound="AsyncContextManager[Any]")

Content = Union[bytes, bytearray, memoryview, str, IO[bytes], Iterable[bytes], AsyncIterable[bytes]]

sleep = asyncio.sleep
in_thread = asyncio.to_thread


async def send(http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """The answer, whose body is to be read. Nothing of it is left when this is cancelled."""
    sending = asyncio.ensure_future(http.send(request, stream=True))
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        # To its end, also when this task is cancelled once more: a cancel scope of anyio does so at each turn.
        await asyncio.shield(asyncio.ensure_future(_abandon(sending)))
        raise


async def _abandon(sending: asyncio.Future[httpx.Response]) -> None:
    """Cancels it, again and again: anyio 3 loses a cancellation that comes while a connection is being made."""
    while not sending.done():
        sending.cancel()
        await asyncio.wait({sending}, timeout=0.05)
    if not sending.cancelled() and sending.exception() is None:
        with contextlib.suppress(httpx.HTTPError):
            await sending.result().aclose()


async def pieces_of(source: Any) -> AsyncIterator[bytes]:
    """Of an open file, or of what gives pieces."""
    if hasattr(source, "read"):
        while piece := await asyncio.to_thread(source.read, PIECE):
            yield piece
    elif hasattr(source, "__aiter__"):
        async for piece in source:
            yield piece
    else:
        for piece in source:
            yield piece


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

    async def __aexit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        if self._made is not None:
            await self._made.__aexit__(kind, error, trace)
