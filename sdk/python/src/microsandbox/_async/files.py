# SPDX-License-Identifier: Apache-2.0
"""The files of a sandbox, with await."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import AsyncGenerator, AsyncIterator, List, Optional

import httpx

from .._core import files, sandboxes
from .._core.call import Call, trouble
from .._core.files import Path
from ..errors import NotFoundError
from ..types import FileInfo
from ._runtime import Content, in_thread, pieces_of
from .client import Client


class Files:
    """`sandbox.files`. Paths are absolute ones in the sandbox."""

    def __init__(self, client: Client, name: str, namespace: Optional[str]) -> None:
        self._client = client
        self._of = (name, namespace)

    async def read(self, path: Path, *, offset: Optional[int] = None, length: Optional[int] = None) -> bytes:
        """All of it, or at most `length` bytes from `offset` on."""
        return await self._client.send(files.read(*self._of, path, offset, length))

    async def read_text(self, path: Path, *, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Raises InvalidRequestError when it is no text in this encoding; `errors` as for `bytes.decode()`."""
        return files.decoded(path, await self.read(path), encoding, errors)

    def read_pieces(
            self, path: Path, *, offset: Optional[int] = None, length: Optional[int] = None) -> AsyncGenerator[bytes, None]:
        """Its bytes as they come, for files that are large."""
        return self._pieces(files.read(*self._of, path, offset, length))

    async def write(
            self, path: Path, content: Content, *, mode: Optional[int] = None, parents: bool = False,
            uid: Optional[int] = None, gid: Optional[int] = None) -> int:
        """All of it or nothing; gives its length. `content` may also be an open file, or pieces."""
        made, again = files.body_of(content, pieces_of)
        return await self._client.send(files.write(*self._of, path, made, again, mode, parents, uid, gid))

    async def list(self, path: Path) -> List[FileInfo]:
        """What is in a directory."""
        return await self._client.send(files.list_directory(*self._of, path))

    async def stat(self, path: Path, *, follow: bool = False) -> FileInfo:
        """`follow`: of what a symbolic link leads to."""
        return await self._client.send(files.stat(*self._of, path, follow))

    async def exists(self, path: Path) -> bool:
        """Whether the path leads to something; a symbolic link to nothing does not."""
        try:
            await self.stat(path, follow=True)
        except NotFoundError:
            await self._client.send(sandboxes.get(*self._of))  # raises when it is the sandbox that is not there
            return False
        return True

    async def remove(self, path: Path, *, recursive: bool = False) -> None:
        """A file, a symbolic link itself, or a directory: an empty one, unless `recursive`."""
        await self._client.send(files.remove(*self._of, path, recursive))

    async def make_directory(self, path: Path, *, parents: bool = False, mode: Optional[int] = None) -> None:
        """`parents`: those that are missing, too, and one that is there already is no error."""
        await self._client.send(files.make_directory(*self._of, path, parents, mode))

    async def move(self, source: Path, target: Path, *, replace: bool = False) -> None:
        """To another path of the sandbox; `replace`: also when something is there."""
        await self._client.send(files.move(*self._of, source, target, replace))

    async def upload(self, local: Path, remote: Path, *, mode: Optional[int] = None, parents: bool = False) -> int:
        """A file of this machine, piece by piece; gives its length."""
        async def content() -> AsyncIterator[bytes]:
            with open(local, "rb") as file:
                async for piece in pieces_of(file):
                    yield piece

        if mode is None:
            mode = os.stat(local).st_mode & 0o777
        return await self._client.send(files.write(*self._of, remote, content, True, mode, parents, None, None))

    async def download(self, remote: Path, local: Path) -> int:
        """Into a file of this machine, which is there when all of it has come; gives its length."""
        draft = f"{os.fspath(local)}.{uuid.uuid4().hex[:8]}.part"
        pieces = self.read_pieces(remote)
        size = 0
        try:
            with open(draft, "xb") as file:
                async for piece in pieces:
                    await in_thread(file.write, piece)
                    size += len(piece)
            os.replace(draft, local)
        except BaseException:
            await pieces.aclose()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise
        return size

    def pack(self, path: Path) -> AsyncGenerator[bytes, None]:
        """A directory as a tar archive, piece by piece. A stranger made it: unpack it with care."""
        return self._pieces(files.pack(*self._of, path))

    async def unpack(self, path: Path, archive: Content, *, parents: bool = False) -> int:
        """A tar archive into a directory; gives how many entries it has."""
        made, again = files.body_of(archive, pieces_of)
        return await self._client.send(files.unpack(*self._of, path, made, again, parents))

    async def _pieces(self, call: Call[bytes]) -> AsyncGenerator[bytes, None]:
        response = await self._client.open(call)
        try:
            async for piece in response.aiter_raw():
                yield piece
        except httpx.RequestError as error:
            raise trouble(error, call, self._client.settings.url) from error
        finally:
            await response.aclose()
