# SPDX-License-Identifier: Apache-2.0
"""Answers that come event by event: lines of JSON, read as they come."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, Dict, Generic, Iterator, List, Optional, TypeVar

import httpx

from ..errors import BrokenConnectionError, DetachedError, NotUnderstoodError, UnavailableError
from ..results import CODE_OUTPUTS, CodeOutput, Result, code_output
from ..types import Exit, LogLine, Lost, Output, ProcessOutput
from .call import NDJSON, NO_END, Call, failed_event, given, nothing, path_of

E = TypeVar("E")
Document = Dict[str, Any]

LONGEST_LINE = 64 << 20  # bytes: more than the server makes of what a sandbox shows


class EventReader(ABC, Generic[E]):
    """Of one stream. Bytes go in, in any pieces; events come out."""

    def __init__(self) -> None:
        self.done = False
        self._rest: List[bytes] = []
        self._size = 0

    @abstractmethod
    def call(self) -> Call[None]:
        """What asks for it, or for the rest of it."""

    @abstractmethod
    def event(self, kind: str, document: Document) -> Optional[E]:
        """What is told of it; None: nothing. Sets `done` at the last one."""

    def resumes(self, error: Exception) -> bool:
        """Whether call() asks for the rest of one that this broke off."""
        return False

    def feed(self, piece: bytes) -> Iterator[E]:
        """One after the other, as they are asked for: what is read of the stream is what was given, also when it breaks off."""
        *lines, rest = piece.split(b"\n")
        for end in lines:
            line = b"".join([*self._rest, end])
            self._rest, self._size = [], 0
            event = self._line(line)
            if event is not None:
                yield event
        if rest:
            self._rest.append(rest)
            self._size += len(rest)
            if self._size > LONGEST_LINE:
                raise NotUnderstoodError("a line of the stream is longer than any that a server sends",
                                         code="not_understood")

    def _line(self, line: bytes) -> Optional[E]:
        if not line.strip() or self.done:
            return None
        try:
            document = json.loads(line)
            kind = document["event"]
            if kind == "failed":
                self.done = True
                raise failed_event(document["error"])
            return self.event(kind, document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            start = line[:200].decode(errors="replace")
            raise NotUnderstoodError(f"the stream has a line that is no event: '{start}'", code="not_understood") from error

    def end(self) -> None:
        """The answer is over. Raises when there had to be more."""
        if not self.done:
            raise BrokenConnectionError("the stream ended before its last event", code="broken")


def _accept(method: str, path: str, **options: Any) -> Call[None]:
    return Call(method, path, nothing, headers={"Accept": NDJSON}, patience=NO_END, **options)


class CodeEvents(EventReader[CodeOutput]):
    """What code gives. Its `result` is there at the end, with all outputs."""

    def __init__(self, name: str, namespace: Optional[str], language: str, document: Document) -> None:
        super().__init__()
        self._call = _accept("POST", path_of(name, "code"), query={"namespace": namespace}, document=document)
        self._language = language
        self._outputs: List[CodeOutput] = []
        self.result: Optional[Result] = None

    def call(self) -> Call[None]:
        return self._call

    def event(self, kind: str, document: Document) -> Optional[CodeOutput]:
        if kind == "done":
            self.result = Result.of(self._language, document, self._outputs)
            self.done = True
            return None
        if kind not in CODE_OUTPUTS:  # of a newer server
            return None
        output = code_output(kind, document)
        self._outputs.append(output)
        return output


class CommandEvents(EventReader[Output]):
    """What a command writes. Its `exit` is there at the end."""

    def __init__(self, name: str, namespace: Optional[str], document: Document) -> None:
        super().__init__()
        self._call = _accept("POST", path_of(name, "exec"), query={"namespace": namespace}, document=document)
        self.id: Optional[int] = None
        self.pid: Optional[int] = None
        self.exit: Optional[Exit] = None

    def call(self) -> Call[None]:
        return self._call

    def event(self, kind: str, document: Document) -> Optional[Output]:
        if kind == "output":
            return Output.of(document)
        if kind == "started":
            self.id, self.pid = document["id"], document["pid"]
        elif kind == "exited":
            self.exit = Exit.of(document)
            self.done = True
        return None


class ProcessEvents(EventReader[ProcessOutput]):
    """What a process that is kept writes. One that broke off goes on with the next byte; `offsets` says which that is."""

    MOST_BREAKS = 5  # one after the other, without anything that came

    def __init__(self, name: str, namespace: Optional[str], process: int, stdout: int, stderr: int, follow: bool) -> None:
        super().__init__()
        self._path = path_of(name, "processes", process, "output")
        self._query = given(namespace=namespace, follow=follow)
        self._breaks = 0
        self.offsets = {"stdout": stdout, "stderr": stderr}
        self.exit: Optional[Exit] = None

    def call(self) -> Call[None]:
        return _accept("GET", self._path, query={**self._query, **self.offsets}, repeatable=True)

    def resumes(self, error: Exception) -> bool:
        if not isinstance(error, (httpx.TransportError, BrokenConnectionError, UnavailableError)):
            return False
        self._breaks += 1
        self.done = False
        self._rest, self._size = [], 0
        return self._breaks <= self.MOST_BREAKS

    def event(self, kind: str, document: Document) -> Optional[ProcessOutput]:
        if kind in ("output", "lost"):
            event: ProcessOutput = Output.of(document) if kind == "output" else Lost.of(document)
            self.offsets[event.stream] = event.next
            self._breaks = 0
            return event
        if kind == "exited":
            self.exit = Exit.of(document)
            self.done = True
        elif kind == "running":
            self.done = True
        elif kind == "detached":
            self.done = True
            raise DetachedError("somebody else follows the process now", code="detached",
                                hint="its output goes on at offset "
                                     f"{self.offsets['stdout']} of stdout and {self.offsets['stderr']} of stderr")
        return None


class LogEvents(EventReader[LogLine]):
    """What a sandbox's command wrote."""

    def __init__(self, name: str, namespace: Optional[str], tail: Optional[int], follow: bool) -> None:
        super().__init__()
        self._call = _accept("GET", path_of(name, "logs"), query={"namespace": namespace, "tail": tail, "follow": follow},
                             repeatable=True)

    def call(self) -> Call[None]:
        return self._call

    def event(self, kind: str, document: Document) -> Optional[LogLine]:
        if kind == "end":
            self.done = True
        return LogLine.of(document) if kind == "log" else None
