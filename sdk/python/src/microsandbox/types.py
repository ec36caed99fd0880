# SPDX-License-Identifier: Apache-2.0
"""What the server tells of sandboxes, and of what is in them. Members that a newer server adds are left out."""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any, Dict, Mapping, Optional, Tuple, Type, TypeVar, Union

D = TypeVar("D")


def _pick(kind: Type[D], document: Mapping[str, Any], **made: Any) -> D:
    """A `kind` of the members of the same names; those in `made` instead of the document's."""
    names = [one.name for one in fields(kind) if one.name not in made]
    return kind(**{name: document[name] for name in names}, **made)


def _time(text: Optional[str]) -> Optional[datetime]:
    if text is None:
        return None
    # fromisoformat() of Python 3.9 knows no Z, and no fractions but of 3 or 6 digits.
    moment = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    fraction = text[19:].rstrip("Z").lstrip(".")
    return moment.replace(microsecond=int(fraction.ljust(6, "0")[:6])) if fraction else moment


def _known_time(text: str) -> datetime:
    moment = _time(text)
    if moment is None:
        raise ValueError("a time is missing")
    return moment


@dataclass(frozen=True)
class Port:
    """A port of a sandbox, and where it is published; `url` where that was asked for, and the port has one."""

    protocol: str  # "tcp" or "udp"
    address: str  # of the server's host
    host_port: int  # on that address
    guest_port: int  # in the sandbox
    url: Optional[str]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Port:
        return _pick(cls, document, url=document.get("url"))


@dataclass(frozen=True)
class SandboxExit:
    """How a sandbox ended the last time."""

    status: int  # of its command; 125 when the sandbox failed itself
    cause: str  # "exited", "stopped", "timeout", "idle" or "failed"
    message: Optional[str]  # what went wrong, if something did
    ended_at: Optional[datetime]  # UTC

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> SandboxExit:
        return _pick(cls, document, message=document.get("message"), ended_at=_time(document.get("ended_at")))


@dataclass(frozen=True)
class SandboxInfo:
    """A sandbox, as it was when the server was asked."""

    name: str  # unique in its namespace
    namespace: str  # "default" unless said
    state: str  # "stopped", "starting", "running", "paused" or "stopping"
    image: str  # as it was asked for
    labels: Dict[str, str]  # what `Sandbox.list(labels=...)` finds it by
    ephemeral: bool  # nothing is left of it when it has ended
    created_at: datetime  # UTC
    started_at: Optional[datetime]  # UTC; of the last time
    ports: Tuple[Port, ...]  # those that are published; none when it does not run
    config: Dict[str, Any]  # what it was told to be, besides its image
    exit: Optional[SandboxExit]  # None also in lists

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> SandboxInfo:
        ended = document.get("exit")
        return _pick(cls, document, created_at=_known_time(document["created_at"]),
                     started_at=_time(document["started_at"]), ports=tuple(map(Port.of, document["ports"])),
                     exit=None if ended is None else SandboxExit.of(ended))


@dataclass(frozen=True)
class SandboxMetrics:
    """What a sandbox uses; what only a running one can tell is None when it does not run."""

    name: str  # of the sandbox
    namespace: str  # of the sandbox
    state: str  # as that of `SandboxInfo`
    cpu_percent: Optional[float]  # of one processor, since the look before
    memory_bytes: Optional[int]  # that programs in it use
    memory_total: Optional[int]  # bytes that there are for them
    disk_bytes: int  # that what it has written takes
    processes: Optional[int]  # how many there are in it
    received_bytes: Optional[int]  # over the network, since it started
    sent_bytes: Optional[int]  # likewise
    problem: Optional[str]  # why some of it is not known

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> SandboxMetrics:
        return _pick(cls, document)


@dataclass(frozen=True)
class LogLine:
    """A line of a sandbox's log."""

    time: datetime  # UTC
    stream: str  # "stdout" or "stderr"
    text: str  # with its newline, if it has one

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> LogLine:
        return _pick(cls, document, time=_known_time(document["time"]))


@dataclass(frozen=True)
class FileInfo:
    """A file, directory or whatever else a path leads to."""

    name: str  # in a list without its directory, else the path as it was asked for
    type: str  # "file", "directory", "symlink", "character_device", "block_device", "fifo", "socket" or "unknown"
    size: int  # bytes
    mode: int  # permissions: 0o644
    uid: int  # of its owner, in the sandbox
    gid: int  # of its group, in the sandbox
    modified_at: datetime  # UTC
    target: Optional[str]  # of a symbolic link

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> FileInfo:
        return _pick(cls, document, mode=int(document["mode"], 8), modified_at=_known_time(document["modified_at"]))


@dataclass(frozen=True)
class Exit:
    """How a process ended."""

    exit_code: int  # 128 and the signal's number when one ended it
    signal: Optional[str]  # "KILL"
    oom_killed: bool  # memory ran out
    timed_out: bool  # it was killed, as its time was over

    @property
    def success(self) -> bool:
        """Whether it ended by itself, with 0."""
        return self.exit_code == 0 and not self.timed_out

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Exit:
        return _pick(cls, document)


@dataclass(frozen=True)
class Output:
    """A piece of what a process wrote, with where it is in all that it wrote to this stream."""

    stream: str  # "stdout" or "stderr"
    data: bytes  # as it came
    offset: int  # of its first byte
    next: int  # offset of the byte after its last

    @property
    def text(self) -> str:
        """What is not UTF-8 is replaced by U+FFFD. Pieces are cut between characters."""
        return self.data.decode(errors="replace")

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Output:
        text = document.get("text")
        return _pick(cls, document, data=base64.b64decode(document["base64"]) if text is None else text.encode())


@dataclass(frozen=True)
class Lost:
    """What a process wrote between two offsets is not kept any more."""

    stream: str  # "stdout" or "stderr"
    offset: int  # of the first byte that is lost
    next: int  # offset of the first byte that is kept

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Lost:
        return _pick(cls, document)


ProcessOutput = Union[Output, Lost]


@dataclass(frozen=True)
class ProcessInfo:
    """A process that was started from outside."""

    id: int  # what `Command.attach()` takes
    pid: int  # as programs in the sandbox see it
    state: str  # "running" or "ended"
    label: str  # what `Command.start()` was given; empty: none
    command: str  # the first of its arguments
    started_at: datetime  # UTC
    attached: bool  # somebody follows it, or writes to it
    kept: bool  # it was started to be kept; others end with whoever started them
    terminal: bool  # it has one
    input: bool  # it has a standard input to write to
    written: Dict[str, int]  # bytes, of "stdout" and "stderr"
    oldest: Dict[str, int]  # the offset of the first byte that is still kept

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ProcessInfo:
        return _pick(cls, document, started_at=_known_time(document["started_at"]))


@dataclass(frozen=True)
class SessionInfo:
    """An interpreter that keeps its state."""

    language: str  # "python", "javascript" or "shell"
    name: str  # what `Sandbox.run(session=...)` takes
    state: str  # "free", "in_use" or "ended"
    process: int  # its id among the processes
    pid: int  # as programs in the sandbox see it

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> SessionInfo:
        return _pick(cls, document)


@dataclass(frozen=True)
class ServerInfo:
    """What the server allows, and the key."""

    version: str  # of the server
    limits: Dict[str, Any]  # of one sandbox and of all together: "sandboxes", "memory_mib", "sandbox_memory_mib" and others
    key: Dict[str, Any]  # the one that this was asked with: "namespace", "read_only", "max_sandboxes" and others

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ServerInfo:
        return _pick(cls, document)
