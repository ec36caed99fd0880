# SPDX-License-Identifier: Apache-2.0
"""Requests about the files of a sandbox."""

from __future__ import annotations

import os
from typing import Any, Callable, List, Optional, Tuple, Union

from ..errors import InvalidRequestError
from ..types import FileInfo
from .call import Call, Reply, given, nothing, path_of

PIECE = 256 << 10  # bytes, of what is read from files here
Path = Union[str, "os.PathLike[str]"]


def _query(namespace: Optional[str], path: Path, **more: Any) -> Any:
    return {"namespace": namespace, "path": os.fspath(path), **more}


def octal(mode: Optional[int]) -> Optional[str]:
    return None if mode is None else f"{mode:04o}"


def _bytes(reply: Reply) -> int:
    return int(reply.document()["bytes"])


def decoded(path: Path, data: bytes, encoding: str, errors: str) -> str:
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"the file '{os.fspath(path)}' is no text in {encoding.upper()}: {error.reason} at byte {error.start}", code="invalid",
            hint="read its bytes with read(), or say its encoding, or errors='replace'") from error


def body_of(content: Any, pieces_of: Callable[[Any], Any]) -> Tuple[Callable[[], Any], bool]:
    """What makes the body, and whether it does so more than once."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, (bytes, bytearray, memoryview)):
        data = bytes(content)
        return (lambda: data), True
    return (lambda: pieces_of(content)), False


def read(name: str, namespace: Optional[str], path: Path, offset: Optional[int], length: Optional[int]) -> Call[bytes]:
    return Call("GET", path_of(name, "files", "content"), lambda reply: reply.body,
                query=_query(namespace, path, offset=offset, length=length), repeatable=True)


def write(name: str, namespace: Optional[str], path: Path, content: Callable[[], Any], again: bool, mode: Optional[int],
          parents: bool, uid: Optional[int], gid: Optional[int]) -> Call[int]:
    """`again`: whether `content` makes the same bytes each time. The old content stays until the new one is there."""
    query = _query(namespace, path, mode=octal(mode), parents=parents or None, uid=uid, gid=gid)
    return Call("PUT", path_of(name, "files", "content"), _bytes, query=query, content=content, repeatable=again,
                once=not again)


def list_directory(name: str, namespace: Optional[str], path: Path) -> Call[List[FileInfo]]:
    return Call("GET", path_of(name, "files"), lambda reply: list(map(FileInfo.of, reply.document()["entries"])),
                query=_query(namespace, path), repeatable=True)


def stat(name: str, namespace: Optional[str], path: Path, follow: bool) -> Call[FileInfo]:
    return Call("GET", path_of(name, "files", "stat"), lambda reply: FileInfo.of(reply.document()),
                query=_query(namespace, path, follow=follow or None), repeatable=True)


def remove(name: str, namespace: Optional[str], path: Path, recursive: bool) -> Call[None]:
    return Call("DELETE", path_of(name, "files"), nothing, query=_query(namespace, path, recursive=recursive or None),
                repeatable=True)


def make_directory(name: str, namespace: Optional[str], path: Path, parents: bool, mode: Optional[int]) -> Call[None]:
    return Call("POST", path_of(name, "files", "directories"), nothing, query={"namespace": namespace},
                document=given(path=os.fspath(path), parents=parents, mode=octal(mode)), repeatable=parents)


def move(name: str, namespace: Optional[str], source: Path, target: Path, replace: bool) -> Call[None]:
    return Call("POST", path_of(name, "files", "move"), nothing, query={"namespace": namespace},
                document={"from": os.fspath(source), "to": os.fspath(target), "replace": replace})


def pack(name: str, namespace: Optional[str], path: Path) -> Call[bytes]:
    return Call("GET", path_of(name, "files", "tar"), lambda reply: reply.body, query=_query(namespace, path),
                repeatable=True)


def unpack(name: str, namespace: Optional[str], path: Path, content: Callable[[], Any], again: bool,
           parents: bool) -> Call[int]:
    return Call("PUT", path_of(name, "files", "tar"), lambda reply: int(reply.document()["entries"]),
                query=_query(namespace, path, parents=parents or None), content=content,
                headers={"Content-Type": "application/x-tar"}, repeatable=again, once=not again)
