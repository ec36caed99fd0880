# SPDX-License-Identifier: Apache-2.0
"""The files of a sandbox, with await."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from typing import IO, Any, AsyncIterable, AsyncIterator, Callable, Iterable, List, Optional, Tuple, Union

import httpx

from .._core import files
from .._core.call import Call, trouble
from .._core.files import Path
from ..errors import NotFoundError
from ..types import FileInfo
from .client import Client

Content = Union[bytes, bytearray, memoryview, str, IO[bytes], Iterable[bytes], AsyncIterable[bytes]]


class Files:
    """`sandbox.files`. Paths are absolute ones in the sandbox."""

    def __init__(self, client: Client, name: str, namespace: Optional[str]) -> None:
        self._client = client
        self._of = (name, namespace)

    async def read(self, path: Path, *, offset: Optional[int] = None, length: Optional[int] = None) -> bytes:
        return await self._client.send(files.read(*self._of, path, offset, length))

    async def read_text(self, path: Path, *, encoding: str = "utf-8", errors: str = "strict") -> str:
        return (await self.read(path)).decode(encoding, errors)

    async def read_pieces(self, path: Path, *, offset: Optional[int] = None,
                          length: Optional[int] = None) -> AsyncIterator[bytes]:
        """Its bytes as they come, for files that are large."""
        async for piece in self._pieces(files.read(*self._of, path, offset, length)):
            yield piece

    async def write(self, path: Path, content: Content, *, mode: Optional[int] = None, parents: bool = False,
                    uid: Optional[int] = None, gid: Optional[int] = None) -> int:
        """All of it or nothing; gives its length. `content` may also be an open file, or pieces."""
        made, again = _body(content)
        return await self._client.send(files.write(*self._of, path, made, again, mode, parents, uid, gid))

    async def list(self, path: Path) -> List[FileInfo]:
        return await self._client.send(files.list_directory(*self._of, path))

    async def stat(self, path: Path, *, follow: bool = False) -> FileInfo:
        """`follow`: of what a symbolic link leads to."""
        return await self._client.send(files.stat(*self._of, path, follow))

    async def exists(self, path: Path) -> bool:
        try:
            await self.stat(path, follow=True)
        except NotFoundError:
            return False
        return True

    async def remove(self, path: Path, *, recursive: bool = False) -> None:
        await self._client.send(files.remove(*self._of, path, recursive))

    async def make_directory(self, path: Path, *, parents: bool = False, mode: Optional[int] = None) -> None:
        await self._client.send(files.make_directory(*self._of, path, parents, mode))

    async def move(self, source: Path, target: Path, *, replace: bool = False) -> None:
        await self._client.send(files.move(*self._of, source, target, replace))

    async def upload(self, local: Path, remote: Path, *, mode: Optional[int] = None, parents: bool = False) -> int:
        """A file of this machine, piece by piece; gives its length."""
        def content() -> AsyncIterator[bytes]:
            return _file_pieces(local)

        if mode is None:
            mode = os.stat(local).st_mode & 0o777
        return await self._client.send(files.write(*self._of, remote, content, True, mode, parents, None, None))

    async def download(self, remote: Path, local: Path) -> int:
        """Into a file of this machine, which is there when all of it has come; gives its length."""
        draft = f"{os.fspath(local)}.{uuid.uuid4().hex[:8]}.part"
        size = 0
        try:
            with open(draft, "xb") as file:
                async for piece in self.read_pieces(remote):
                    await asyncio.to_thread(file.write, piece)
                    size += len(piece)
            os.replace(draft, local)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise
        return size

    async def pack(self, path: Path) -> AsyncIterator[bytes]:
        """A directory as a tar archive, piece by piece. A stranger made it: unpack it with care."""
        async for piece in self._pieces(files.pack(*self._of, path)):
            yield piece

    async def unpack(self, path: Path, archive: Content, *, parents: bool = False) -> int:
        """A tar archive into a directory; gives how many entries it has."""
        made, again = _body(archive)
        return await self._client.send(files.unpack(*self._of, path, made, again, parents))

    async def _pieces(self, call: Call[bytes]) -> AsyncIterator[bytes]:
        response = await self._client.open(call)
        try:
            async for piece in response.aiter_raw():
                yield piece
        except httpx.TransportError as error:
            raise trouble(error, call, self._client.settings.url) from error
        finally:
            await response.aclose()


async def _file_pieces(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, files.PIECE):
            yield piece


async def _pieces_of(source: Any) -> AsyncIterator[bytes]:
    if hasattr(source, "read"):
        while piece := await asyncio.to_thread(source.read, files.PIECE):
            yield piece
    elif hasattr(source, "__aiter__"):
        async for piece in source:
            yield piece
    else:
        for piece in source:
            yield piece


def _body(content: Content) -> Tuple[Callable[[], Any], bool]:
    """What makes the body, and whether it does so more than once."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, (bytes, bytearray, memoryview)):
        data = bytes(content)
        return (lambda: data), True
    return (lambda: _pieces_of(content)), False
