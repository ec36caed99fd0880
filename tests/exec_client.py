# SPDX-License-Identifier: Apache-2.0
"""A client of the exec protocol, version 2, in plain Python: written from docs/exec-protocol.md alone.

It shares nothing with the client that the product uses, and so proves that the document is enough to write one. It speaks
over a sandbox's Unix socket, one thing after another, and checks all that the agent says: what the document does not allow
is a ProtocolError. Nothing waits longer than `timeout` seconds (TimeoutError).

    client = ExecClient("/run/.../socket")
    process = client.start(["cat", "-"], {"A": "1"})
    process.send_input(b"hi\\n")
    process.end_input()
    output, error, exited = process.collect()
"""

import struct
import time

from exec_connection import TIMEOUT, Connection, Requests
from exec_files import Files
from exec_frames import (DATA_MAX, END, Attached, Exited, Listed, Listener, Metrics, ProtocolError, Refused, Type,
                         done_value, done_without_value, start_payload, strings)


class Process:
    """A process connection, after STARTED or ATTACHED."""

    def __init__(self, connection, first):
        self.connection = connection
        self.attached = None  # Attached, when it was attached to
        self.exited = None  # once EXITED has come
        self.detached = False
        frame = connection.receive()
        if frame.type == Type.REFUSED:
            connection.expect_closed()
            connection.close()
            raise Refused(frame.payload)
        if frame.type != first:
            raise ProtocolError(f"{frame.type.name} instead of {first.name}")
        if first == Type.STARTED:
            self.id, self.pid = struct.unpack("<II", frame.payload)
            offsets = (0, 0, 0)
        else:
            self.attached = Attached.parse(frame.payload)
            self.id, self.pid, offsets = self.attached.process, self.attached.pid, self.attached.offsets
        if self.id == 0:
            raise ProtocolError("a process with the id 0")
        self.offsets = list(offsets)  # of the byte that comes next, for attach()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Kills the process, or lets go of it when it was started with keep."""
        self.connection.close()

    def send_input(self, data):
        for at in range(0, len(data), DATA_MAX):
            self.connection.send(Type.STDIN, data[at:at + DATA_MAX])

    def end_input(self):
        self.connection.send(Type.STDIN)

    def send_channel(self, data):
        for at in range(0, len(data), DATA_MAX):
            self.connection.send(Type.CHANNEL_INPUT, data[at:at + DATA_MAX])

    def end_channel(self):
        self.connection.send(Type.CHANNEL_INPUT)

    def receive(self, timeout=None):
        """The next frame: STDOUT, STDERR, CHANNEL, then EXITED (`exited` has it in parts) or DETACHED, then none (None)."""
        if self.exited is not None or self.detached:
            self.connection.expect_closed(timeout)
            self.connection.close()
            return None
        frame = self.connection.receive(timeout)
        if frame.type == Type.EXITED:
            self.exited = Exited.parse(frame.payload)
            if self.exited.process != self.id:
                raise ProtocolError(f"EXITED of process {self.exited.process} on the connection of {self.id}")
            if self.exited.written != tuple(self.offsets):
                raise ProtocolError(f"EXITED after {self.offsets} bytes says {self.exited.written}")
        elif frame.type == Type.DETACHED:
            self.detached = True
        elif frame.type in (Type.STDOUT, Type.STDERR, Type.CHANNEL):
            self.offsets[(Type.STDOUT, Type.STDERR, Type.CHANNEL).index(frame.type)] += len(frame.payload)
        else:
            raise ProtocolError(f"{frame.type.name} on a process connection")
        return frame

    def collect_streams(self, timeout=None):
        """All that comes until EXITED or DETACHED: (output, error, channel)."""
        deadline = time.monotonic() + (self.connection.timeout if timeout is None else timeout)
        streams = {Type.STDOUT: bytearray(), Type.STDERR: bytearray(), Type.CHANNEL: bytearray()}
        while True:
            frame = self.receive(max(0.0, deadline - time.monotonic()))
            if frame is None:
                return tuple(map(bytes, streams.values()))
            if frame.type in streams:
                streams[frame.type] += frame.payload

    def collect(self, timeout=None):
        """(output, error, Exited), once it has ended; for a process whose channel is of no interest."""
        output, error, _ = self.collect_streams(timeout)
        if self.exited is None:
            raise ProtocolError("DETACHED, though nobody is known to have attached")
        return output, error, self.exited


class MachineRequests(Requests):
    """Requests about processes and about the machine."""

    def ping(self, data=b"ping"):
        if self.request(Type.PING, data, Type.PONG).payload != data:
            raise ProtocolError("PONG with other bytes than PING")

    def signal(self, process, signal, group=False):
        done_without_value(self.request(Type.SIGNAL, struct.pack("<III", process, signal, int(group))))

    def resize(self, process, rows, columns):
        done_without_value(self.request(Type.RESIZE, struct.pack("<IHH", process, rows, columns)))

    def list(self):
        found, count = self.items(Type.LIST, b"", Type.PROCESS, Listed.parse)
        if count != len(found):
            raise ProtocolError(f"DONE says {count} after {len(found)} PROCESS")
        return found

    def wait(self, process, timeout=None):
        frame = self.request(Type.WAIT, struct.pack("<I", process), Type.EXITED, timeout)
        exited = Exited.parse(frame.payload)
        if exited.process != process:
            raise ProtocolError(f"WAIT for process {process} answered by that of {exited.process}")
        return exited

    def forget(self, process):
        done_without_value(self.request(Type.FORGET, struct.pack("<I", process)))

    def metrics(self):
        return Metrics(*struct.unpack("<18Q", self.request(Type.METRICS, b"", Type.MEASURED).payload))

    def listeners(self):
        found, count = self.items(Type.LISTENERS, b"", Type.LISTENER, Listener.parse)
        if count < len(found):  # an agent may answer fewer than there are
            raise ProtocolError(f"DONE says {count} after {len(found)} LISTENER")
        return found

    def set_clock(self, realtime_ns):
        done_without_value(self.request(Type.SET_CLOCK, struct.pack("<Q", realtime_ns)))

    def add_entropy(self, data):
        done_without_value(self.request(Type.ADD_ENTROPY, data))

    def set_names(self, host_name="", resolver="", hosts=""):
        done_without_value(self.request(Type.SET_NAMES, strings(host_name, resolver, hosts)))


class Tunnel:
    """Bytes to and from a socket in the guest."""

    def __init__(self, connection):
        self.connection = connection
        frame = connection.receive()
        if frame.type == Type.REFUSED:
            connection.expect_closed()
            connection.close()
            raise Refused(frame.payload)
        if frame.type != Type.DONE:
            raise ProtocolError(f"{frame.type.name} as an answer to CONNECT")
        done_without_value(done_value(frame))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.connection.send_bytes(data)

    def end(self):
        self.connection.end()

    def receive(self, timeout=None):
        """What has come; b"" at the end."""
        return self.connection.receive_bytes(timeout)

    def receive_all(self):
        data = bytearray()
        while piece := self.receive():
            data += piece
        return bytes(data)

    def close(self):
        self.connection.close()


class ExecClient:
    """Opens connections to the agent of one sandbox. Requests share one of them, but for those that wait."""

    def __init__(self, path, timeout=TIMEOUT):
        self.path = path
        self.timeout = timeout
        self._requests = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the request connection. Processes, file services and tunnels have their own."""
        if self._requests is not None:
            self._requests.connection.close()
        self._requests = None

    def connect(self):
        """A bare connection, for tests that say what no client should."""
        return Connection(self.path, self.timeout)

    def requests(self):
        """A request connection of the caller's own."""
        return MachineRequests(self.connect())

    def start(self, argv, env=None, directory="/", user="", groups=(), limits=(), umask=0o022, timeout_ms=0, keep=None,
              terminal=None, channel=False, no_stdin=False, label="", create_directory=False, data=b""):
        """Starts a process, and waits until it runs.

        `env` is a mapping, or a list of NAME=VALUE; `limits` are (resource, soft, hard); `keep` is None for a process that
        dies with its connection, or how many bytes stay readable (0: the agent's default); `terminal` is (rows, columns).
        `data`, standard input, is sent without waiting for STARTED.
        """
        connection = self.connect()
        try:
            connection.send(Type.START, start_payload(
                argv, env, directory, user, groups, limits, umask, timeout_ms, keep, terminal, channel, no_stdin, label,
                create_directory))
            for at in range(0, len(data), DATA_MAX):
                connection.send(Type.STDIN, data[at:at + DATA_MAX])
            return Process(connection, Type.STARTED)
        except BaseException:
            connection.close()
            raise

    def attach(self, process, offsets=(0, 0, 0)):
        """Takes a process that was started with keep; each stream from an offset on (END: only what is new)."""
        connection = self.connect()
        try:
            connection.send(Type.ATTACH, struct.pack("<II3Q", process, 0, *offsets))
            attached = Process(connection, Type.ATTACHED)
            if attached.id != process:
                raise ProtocolError(f"ATTACHED to {attached.id} instead of {process}")
            for wanted, given in zip(offsets, attached.offsets):
                if wanted != END and given < wanted:
                    raise ProtocolError(f"ATTACHED goes on with {attached.offsets} after {offsets} was asked for")
            return attached
        except BaseException:
            connection.close()
            raise

    def _shared(self):
        if self._requests is None:
            self._requests = self.requests()
        return self._requests

    def _ask(self, name, *arguments, **named):
        """Refused leaves the connection in order, everything else does not."""
        try:
            return getattr(self._shared(), name)(*arguments, **named)
        except Refused:
            raise
        except BaseException:
            self.close()
            raise

    def ping(self, data=b"ping"):
        self._ask("ping", data)

    def signal(self, process, signal, group=False):
        self._ask("signal", process, signal, group)

    def resize(self, process, rows, columns):
        self._ask("resize", process, rows, columns)

    def list(self):
        return self._ask("list")

    def wait(self, process, timeout=None):
        """Exited of a process that was started with keep. On a connection of its own, since others would wait too."""
        with self.requests() as requests:
            return requests.wait(process, timeout)

    def forget(self, process):
        self._ask("forget", process)

    def metrics(self):
        return self._ask("metrics")

    def listeners(self):
        return self._ask("listeners")

    def set_clock(self, realtime_ns):
        self._ask("set_clock", realtime_ns)

    def add_entropy(self, data):
        self._ask("add_entropy", data)

    def set_names(self, host_name="", resolver="", hosts=""):
        self._ask("set_names", host_name, resolver, hosts)

    def files(self):
        connection = self.connect()
        try:
            return Files(connection)
        except BaseException:
            connection.close()
            raise

    def pack(self, path):
        with self.files() as files:
            return files.pack(path)

    def unpack(self, path, stream, **fields):
        with self.files() as files:
            return files.unpack(path, stream, **fields)

    def connect_tcp(self, port, data=b""):
        """A tunnel to a port of the guest's loopback; `data` is sent without waiting for DONE."""
        return self._tunnel(struct.pack("<II", 1, port), data)

    def connect_unix(self, path, data=b""):
        return self._tunnel(struct.pack("<II", 2, 0) + strings(path), data)

    def _tunnel(self, payload, data):
        connection = self.connect()
        try:
            connection.send(Type.CONNECT, payload)
            connection.send_bytes(data)
            return Tunnel(connection)
        except BaseException:
            connection.close()
            raise
