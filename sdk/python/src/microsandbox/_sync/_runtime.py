# SPDX-License-Identifier: Apache-2.0
"""What is done in another way without await than with. `microsandbox._async._runtime`, by hand like this, has the same names."""

from __future__ import annotations

import socket
import time
from typing import IO, Any, Callable, Iterable, Iterator, TypeVar, Union

import httpx

from .._core.files import PIECE

T = TypeVar("T")

Content = Union[bytes, bytearray, memoryview, str, IO[bytes], Iterable[bytes]]

sleep = time.sleep


def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """In this one, as it waits anyway."""
    return function(*arguments)


def _at_once(event: str, info: Any) -> None:
    """Has no body wait until its head was acknowledged, which takes 40 ms: httpcore 0.16 does not see to that itself."""
    if event == "connection.connect_tcp.complete":
        info["return_value"].get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def send(http: httpx.Client, request: httpx.Request) -> httpx.Response:
    """The answer, whose body is to be read."""
    request.extensions = {**request.extensions, "trace": _at_once}
    return http.send(request, stream=True)


def pieces_of(source: Any) -> Iterator[bytes]:
    """Of an open file, or of what gives pieces."""
    if hasattr(source, "read"):
        while piece := source.read(PIECE):
            yield piece
    else:
        yield from source
