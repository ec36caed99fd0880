# SPDX-License-Identifier: Apache-2.0
"""What is done in another way without await than with. `microsandbox._async._runtime`, by hand like this, has the same names."""

from __future__ import annotations

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


def send(http: httpx.Client, request: httpx.Request) -> httpx.Response:
    """The answer, whose body is to be read."""
    return http.send(request, stream=True)


def pieces_of(source: Any) -> Iterator[bytes]:
    """Of an open file, or of what gives pieces."""
    if hasattr(source, "read"):
        while piece := source.read(PIECE):
            yield piece
    else:
        yield from source
