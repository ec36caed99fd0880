# SPDX-License-Identifier: Apache-2.0
# Made of _async/files.py by unasync.py: change that one.
"""The files of a sandbox, without await."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import Generator, Iterator, List, Optional

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

    def read(self, path: Path, *, offset: Optional[int] = None, length: Optional[int] = None) -> bytes:
        """All of it, or at most `length` bytes from `offset` on."""
        return self._client.send(files.read(*self._of, path, offset, length))

    def read_text(self, path: Path, *, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Raises InvalidRequestError when it is no text in this encoding; `errors` as for `bytes.decode()`."""
        return files.decoded(path, self.read(path), encoding, errors)

    def read_pieces(
            self, path: Path, *, offset: Optional[int] = None, length: Optional[int] = None) -> Generator[bytes, None, None]:
        """Its bytes as they come, for files that are large."""
        return self._pieces(files.read(*self._of, path, offset, length))

    def write(
            self, path: Path, content: Content, *, mode: Optional[int] = None, parents: bool = False,
            uid: Optional[int] = None, gid: Optional[int] = None) -> int:
        """All of it or nothing; gives its length. `content` may also be an open file, or pieces."""
        made, again = files.body_of(content, pieces_of)
        return self._client.send(files.write(*self._of, path, made, again, mode, parents, uid, gid))

    def list(self, path: Path) -> List[FileInfo]:
        """What is in a directory."""
        return self._client.send(files.list_directory(*self._of, path))

    def stat(self, path: Path, *, follow: bool = False) -> FileInfo:
        """`follow`: of what a symbolic link leads to."""
        return self._client.send(files.stat(*self._of, path, follow))

    def exists(self, path: Path) -> bool:
        """Whether the path leads to something; a symbolic link to nothing does not."""
        try:
            self.stat(path, follow=True)
        except NotFoundError:
            self._client.send(sandboxes.get(*self._of))  # raises when it is the sandbox that is not there
            return False
        return True

    def remove(self, path: Path, *, recursive: bool = False) -> None:
        """A file, a symbolic link itself, or a directory: an empty one, unless `recursive`."""
        self._client.send(files.remove(*self._of, path, recursive))

    def make_directory(self, path: Path, *, parents: bool = False, mode: Optional[int] = None) -> None:
        """`parents`: those that are missing, too, and one that is there already is no error."""
        self._client.send(files.make_directory(*self._of, path, parents, mode))

    def move(self, source: Path, target: Path, *, replace: bool = False) -> None:
        """To another path of the sandbox; `replace`: also when something is there."""
        self._client.send(files.move(*self._of, source, target, replace))

    def upload(self, local: Path, remote: Path, *, mode: Optional[int] = None, parents: bool = False) -> int:
        """A file of this machine, piece by piece; gives its length."""
        def content() -> Iterator[bytes]:
            with open(local, "rb") as file:
                for piece in pieces_of(file):
                    yield piece

        if mode is None:
            mode = os.stat(local).st_mode & 0o777
        return self._client.send(files.write(*self._of, remote, content, True, mode, parents, None, None))

    def download(self, remote: Path, local: Path) -> int:
        """Into a file of this machine, which is there when all of it has come; gives its length."""
        draft = f"{os.fspath(local)}.{uuid.uuid4().hex[:8]}.part"
        pieces = self.read_pieces(remote)
        size = 0
        try:
            with open(draft, "xb") as file:
                for piece in pieces:
                    in_thread(file.write, piece)
                    size += len(piece)
            os.replace(draft, local)
        except BaseException:
            pieces.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise
        return size

    def pack(self, path: Path) -> Generator[bytes, None, None]:
        """A directory as a tar archive, piece by piece. A stranger made it: unpack it with care."""
        return self._pieces(files.pack(*self._of, path))

    def unpack(self, path: Path, archive: Content, *, parents: bool = False) -> int:
        """A tar archive into a directory; gives how many entries it has."""
        made, again = files.body_of(archive, pieces_of)
        return self._client.send(files.unpack(*self._of, path, made, again, parents))

    def _pieces(self, call: Call[bytes]) -> Generator[bytes, None, None]:
        response = self._client.open(call)
        try:
            for piece in response.iter_raw():
                yield piece
        except httpx.RequestError as error:
            raise trouble(error, call, self._client.settings.url) from error
        finally:
            response.close()
