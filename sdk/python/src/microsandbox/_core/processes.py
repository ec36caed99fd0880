# SPDX-License-Identifier: Apache-2.0
"""Requests about commands, processes that are kept, and code."""

from __future__ import annotations

import base64
from typing import Any, List, Optional, Sequence, Tuple, Union

from ..results import CommandResult, Result
from ..types import Exit, ProcessInfo, SessionInfo
from .call import NO_END, PATIENCE, Call, Document, Reply, given, nothing, path_of
from .sandboxes import Envs, env_words, words_of


def execution(command: str, args: Optional[Sequence[str]], *, envs: Optional[Envs], stdin: Union[None, str, bytes] = None,
              **words: Any) -> Document:
    """What is to be run."""
    document = given(command=[command, *words_of(args)], envs=env_words(envs), **words)
    if isinstance(stdin, str):
        document["stdin"] = stdin
    elif stdin is not None:
        document["stdin_base64"] = base64.b64encode(stdin).decode()
    return document


def run_command(name: str, namespace: Optional[str], document: Document) -> Call[CommandResult]:
    command, *args = document["command"]
    return Call("POST", path_of(name, "exec"), lambda reply: CommandResult.made(command, tuple(args), reply.document()),
                query={"namespace": namespace}, document=document, patience=NO_END)


def start(name: str, namespace: Optional[str], document: Document) -> Call[Tuple[int, int]]:
    def read(reply: Reply) -> Tuple[int, int]:
        started = reply.document()
        return int(started["id"]), int(started["pid"])

    return Call("POST", path_of(name, "processes"), read, query={"namespace": namespace}, document=document)


def processes(name: str, namespace: Optional[str]) -> Call[List[ProcessInfo]]:
    return Call("GET", path_of(name, "processes"), lambda reply: list(map(ProcessInfo.of, reply.document()["processes"])),
                query={"namespace": namespace}, repeatable=True)


def process(name: str, namespace: Optional[str], number: int) -> Call[ProcessInfo]:
    return Call("GET", path_of(name, "processes", number), lambda reply: ProcessInfo.of(reply.document()),
                query={"namespace": namespace}, repeatable=True)


def remove(name: str, namespace: Optional[str], number: int) -> Call[None]:
    return Call("DELETE", path_of(name, "processes", number), nothing, query={"namespace": namespace}, repeatable=True)


def write(name: str, namespace: Optional[str], number: int, data: bytes, end: bool) -> Call[int]:
    """It waits while the process does not read."""
    return Call("POST", path_of(name, "processes", number, "stdin"), lambda reply: int(reply.document()["bytes"]),
                query={"namespace": namespace, "end": end or None}, content=lambda: data, patience=NO_END)


def signal(name: str, namespace: Optional[str], number: int, word: Union[str, int], group: bool) -> Call[None]:
    return Call("POST", path_of(name, "processes", number, "signal"), nothing, query={"namespace": namespace},
                document={"signal": word, "group": group})


def resize(name: str, namespace: Optional[str], number: int, rows: int, columns: int) -> Call[None]:
    return Call("POST", path_of(name, "processes", number, "resize"), nothing, query={"namespace": namespace},
                document={"rows": rows, "columns": columns}, repeatable=True)


def wait(name: str, namespace: Optional[str], number: int, timeout: Optional[float]) -> Call[Exit]:
    return Call("GET", path_of(name, "processes", number, "wait"), lambda reply: Exit.of(reply.document()),
                query={"namespace": namespace}, repeatable=True, patience=timeout)


# Code.

def code(language: str, text: str, session: Optional[str], timeout: Optional[float]) -> Document:
    return given(language=language, code=text, session=session, timeout=timeout)


def run_code(name: str, namespace: Optional[str], document: Document) -> Call[Result]:
    return Call("POST", path_of(name, "code"), lambda reply: Result.of(document["language"], reply.document()),
                query={"namespace": namespace}, document=document, patience=NO_END)


def sessions(name: str, namespace: Optional[str]) -> Call[List[SessionInfo]]:
    return Call("GET", path_of(name, "sessions"), lambda reply: list(map(SessionInfo.of, reply.document()["sessions"])),
                query={"namespace": namespace}, repeatable=True)


def interrupt(name: str, namespace: Optional[str], language: str, session: str) -> Call[None]:
    return Call("POST", path_of(name, "sessions", language, session, "interrupt"), nothing, query={"namespace": namespace})


def close_session(name: str, namespace: Optional[str], language: str, session: str) -> Call[None]:
    return Call("DELETE", path_of(name, "sessions", language, session), nothing, query={"namespace": namespace},
                repeatable=True, patience=PATIENCE)
