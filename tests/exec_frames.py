# SPDX-License-Identifier: Apache-2.0
"""The frames of the exec protocol, version 2, put together and taken apart: docs/exec-protocol.md in Python.

What the document does not allow an agent to say is a ProtocolError.
"""

import dataclasses
import enum
import ipaddress
import os
import struct

DATA_MAX = 65_536
SMALL_MAX = 1_024
REQUEST_MAX = 16_384
END = 2**64 - 1  # ATTACH: only what is written from now on; READ: all; limits: none
LEAVE = 2**32 - 1  # a user or group that stays as it is


class Type(enum.IntEnum):
    START = 32
    ATTACH = 33
    STDIN = 34
    CHANNEL_INPUT = 35
    STARTED = 48
    REFUSED = 49
    STDOUT = 50
    STDERR = 51
    EXITED = 52
    CHANNEL = 53
    ATTACHED = 54
    DETACHED = 55
    PING = 64
    SIGNAL = 65
    RESIZE = 66
    LIST = 67
    WAIT = 68
    FORGET = 69
    METRICS = 70
    LISTENERS = 71
    SET_CLOCK = 72
    ADD_ENTROPY = 73
    SET_NAMES = 74
    SOCKET_OWNER = 77
    DONE = 96
    PONG = 97
    PROCESS = 98
    MEASURED = 99
    LISTENER = 100
    OWNER = 101
    FILES = 112
    CONNECT = 113
    FILE_STAT = 128
    FILE_LIST = 129
    FILE_WALK = 130
    FILE_READ = 131
    FILE_WRITE = 132
    FILE_MKDIR = 133
    FILE_REMOVE = 134
    FILE_RENAME = 135
    FILE_CHMOD = 136
    FILE_CHOWN = 137
    FILE_SYMLINK = 138
    FILE_READLINK = 139
    FILE_PACK = 140
    FILE_UNPACK = 141
    FILE_DATA = 142
    FILE_ENTRY = 143
    FILE_DIFF = 144


# What the agent may send outside of the control connection: least and most bytes of payload.
LENGTHS = {
    Type.STARTED: (8, 8),
    Type.REFUSED: (8, SMALL_MAX),
    Type.STDOUT: (1, DATA_MAX),
    Type.STDERR: (1, DATA_MAX),
    Type.EXITED: (64, SMALL_MAX),
    Type.CHANNEL: (1, DATA_MAX),
    Type.ATTACHED: (56, 56),
    Type.DETACHED: (0, 0),
    Type.DONE: (8, 8),
    Type.PONG: (0, SMALL_MAX),
    Type.PROCESS: (82, SMALL_MAX),
    Type.MEASURED: (144, 144),
    Type.LISTENER: (24, 24),
    Type.OWNER: (8, 23),
    Type.FILE_DATA: (1, DATA_MAX),
    Type.FILE_ENTRY: (66, REQUEST_MAX),
}


class Stage(enum.IntEnum):
    BOOT = 1
    REQUEST = 2
    RESOURCES = 3
    DIRECTORY = 4
    USER = 5
    EXECUTE = 6
    PROCESS = 7
    FILE = 8


class Connect(enum.IntEnum):
    TCP = 1
    UNIX = 2
    UDP = 3


class Start(enum.IntFlag):
    CREATE_DIRECTORY = 1
    KEEP = 2
    TERMINAL = 4
    CHANNEL = 8
    NO_STDIN = 16


class FileFlag(enum.IntFlag):
    FOLLOW = 1
    PARENTS = 2
    RECURSIVE = 4
    ATOMIC = 8
    APPEND = 16
    EXCLUSIVE = 32
    UPDATE = 64
    MISSING_OK = 128
    SYNC = 256


class ProtocolError(Exception):
    """The agent said something that the document does not allow."""


class Closed(Exception):
    """The agent closed the connection."""


class Refused(Exception):
    """The agent answered REFUSED."""

    def __init__(self, payload):
        self.stage, self.code = struct.unpack_from("<II", payload)
        self.text = payload[8:].decode(errors="replace")
        if self.stage not in iter(Stage) or self.stage == Stage.BOOT:
            raise ProtocolError(f"REFUSED with stage {self.stage}")
        super().__init__(f"{Stage(self.stage).name} {self.code}: {self.text}")


@dataclasses.dataclass(frozen=True)
class Frame:
    type: Type
    payload: bytes


@dataclasses.dataclass(frozen=True)
class Exited:
    kind: int
    value: int
    flags: int
    process: int
    user_us: int
    system_us: int
    max_rss_kib: int
    written: tuple  # bytes, of each stream
    text: str

    @property
    def status(self):
        """The exit status; None when a signal ended it."""
        return self.value if self.kind == 1 else None

    @property
    def signal(self):
        return self.value if self.kind == 2 else None

    @property
    def out_of_memory(self):
        return bool(self.flags & 1)

    @property
    def dumped_core(self):
        return bool(self.flags & 2)

    @property
    def timed_out(self):
        return bool(self.flags & 4)

    @classmethod
    def parse(cls, payload):
        kind, value, flags, process, user, system, rss, *written = struct.unpack_from("<4I6Q", payload)
        if kind not in (1, 2) or value > (255, 64)[kind - 1] or flags > 7 or process == 0:
            raise ProtocolError(f"EXITED of kind {kind}, value {value}, flags {flags}, process {process}")
        return cls(kind, value, flags, process, user, system, rss, tuple(written), payload[64:].decode(errors="replace"))


@dataclasses.dataclass(frozen=True)
class Attached:
    process: int
    pid: int
    offsets: tuple  # with which each stream goes on
    input: int  # bytes of STDIN taken
    channel_input: int
    input_ended: bool
    channel_input_ended: bool
    terminal: bool
    has_input: bool

    @classmethod
    def parse(cls, payload):
        process, pid, *offsets, taken, channel_taken, flags, zero = struct.unpack("<II5QII", payload)
        if flags > 15 or (flags & 5 and not flags & 8) or zero != 0:
            raise ProtocolError(f"ATTACHED with flags {flags}, reserved field {zero}")
        return cls(process, pid, tuple(offsets), taken, channel_taken, *(bool(flags & bit) for bit in (1, 2, 4, 8)))


@dataclasses.dataclass(frozen=True)
class Listed:
    """A process, as LIST describes it."""

    process: int
    pid: int
    running: bool
    flags: Start
    attached: bool
    started_ns: int
    written: tuple
    oldest: tuple
    label: str
    program: str

    @classmethod
    def parse(cls, payload):
        process, pid, state, flags, attached, zero, started, *offsets = struct.unpack_from("<6I7Q", payload)
        if state not in (1, 2) or attached > 1 or zero != 0 or flags > 31:
            raise ProtocolError(f"PROCESS in state {state}, attached {attached}, flags {flags}, reserved {zero}")
        label, program = take_strings(payload[80:], 2)
        if max(len(label), len(program)) > 255:
            raise ProtocolError("PROCESS with a string of more than 255 bytes")
        return cls(process, pid, state == 1, Start(flags), attached == 1, started, tuple(offsets[:3]), tuple(offsets[3:]),
                   os.fsdecode(label), os.fsdecode(program))


@dataclasses.dataclass(frozen=True)
class Metrics:
    time_ns: int
    processors: int
    user_us: int
    system_us: int
    idle_us: int
    steal_us: int
    memory_total: int
    memory_available: int
    disk_total: int
    disk_free: int
    files_total: int
    files_free: int
    received_bytes: int
    received_packets: int
    sent_bytes: int
    sent_packets: int
    processes: int
    oom_kills: int


@dataclasses.dataclass(frozen=True)
class Listener:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @classmethod
    def parse(cls, payload):
        family, port, address = struct.unpack("<II16s", payload)
        if family not in (4, 6) or not 1 <= port <= 65_535:
            raise ProtocolError(f"LISTENER of family {family}, port {port}")
        return cls(ipaddress.ip_address(address[:4] if family == 4 else address), port)


@dataclasses.dataclass(frozen=True)
class Owner:
    """The program that has a socket."""

    pid: int
    user: int
    name: str

    @classmethod
    def parse(cls, payload):
        pid, user = struct.unpack_from("<II", payload)
        if pid == 0:
            raise ProtocolError("OWNER with the pid 0")
        return cls(pid, user, os.fsdecode(payload[8:]))


@dataclasses.dataclass(frozen=True)
class Entry:
    mode: int
    user: int
    group: int
    links: int
    size: int
    inode: int
    device: int
    modified_ns: int
    changed_ns: int
    change: int
    name: str
    target: str

    @classmethod
    def parse(cls, payload):
        *fields, zero = struct.unpack_from("<4I3Q2q2I", payload)
        if zero != 0:
            raise ProtocolError(f"ENTRY with a reserved field of {zero}")
        return cls(*fields, *map(os.fsdecode, take_strings(payload[64:], 2)))


def take_strings(payload, count):
    """Exactly so many strings, each ended by a 0 byte."""
    pieces = payload.split(b"\0")
    if len(pieces) != count + 1 or pieces[-1] != b"":
        raise ProtocolError(f"not {count} strings: {payload!r}")
    return pieces[:-1]


def strings(*values):
    """Strings as the protocol has them, whatever bytes they are made of."""
    return b"".join(os.fsencode(value) + b"\0" for value in values)


def done_value(frame):
    return struct.unpack("<Q", frame.payload)[0]


def done_without_value(value):
    if value != 0:
        raise ProtocolError(f"DONE with the value {value}, where it has none")


def connect_payload(kind, port=0, path=None):
    return struct.pack("<II", kind, port) + (b"" if path is None else strings(path))


def socket_payload(protocol, local_port, remote, remote_port):
    """The ends of a socket, for SOCKET_OWNER: of the IP protocol 6 or 17, and whom it talks to."""
    remote = ipaddress.ip_address(remote)
    return struct.pack("<IIHHI16s", remote.version, protocol, local_port, remote_port, 0, remote.packed)


def start_payload(argv, env=None, directory="/", user="", groups=(), limits=(), umask=0o022, timeout_ms=0, keep=None,
                  terminal=None, channel=False, no_stdin=False, label="", create_directory=False):
    variables = [os.fsencode(name) + b"=" + os.fsencode(value) for name, value in env.items()] \
        if hasattr(env, "items") else list(env or ())
    flags = Start(0)
    for flag, wanted in ((Start.CREATE_DIRECTORY, create_directory), (Start.KEEP, keep is not None),
                         (Start.TERMINAL, terminal is not None), (Start.CHANNEL, channel), (Start.NO_STDIN, no_stdin)):
        if wanted:
            flags |= flag
    rows, columns = terminal or (0, 0)
    fixed = struct.pack("<8IHHI", flags, len(argv), len(variables), len(groups), len(limits), umask, timeout_ms, keep or 0,
                        rows, columns, 0)
    return b"".join([fixed, *(struct.pack("<IIQQ", resource, 0, soft, hard) for resource, soft, hard in limits),
                     strings(label, user, directory, *groups, *argv, *variables)])
