# SPDX-License-Identifier: Apache-2.0
"""One connection to the agent of a sandbox, over the sandbox's Unix socket (docs/exec-protocol.md)."""

import os
import select
import socket
import struct
import time

from exec_frames import DATA_MAX, LENGTHS, Closed, Frame, ProtocolError, Refused, Type, done_value

AGENT_PORT = 1025
TIMEOUT = 60


class Connection:
    """Frames, and bytes without frames, on one connection to the agent."""

    def __init__(self, path, timeout=TIMEOUT):
        self.timeout = timeout
        self._received = bytearray()
        self._ended = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(os.fspath(path))
            self._socket.setblocking(False)
            self.send_bytes(f"CONNECT {AGENT_PORT}\n".encode())
        except BaseException:
            self._socket.close()
            raise
        self._greeted = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()

    def end(self):
        """Half-closes."""
        self._socket.shutdown(socket.SHUT_WR)

    def fileno(self):
        return self._socket.fileno()

    def send_bytes(self, data):
        """Sends all, and takes in what comes meanwhile, so that two that only write do not wait for each other.

        An agent that closed the connection takes nothing any more. What it said before, to be received yet, tells why.
        """
        view = memoryview(data)
        deadline = time.monotonic() + self.timeout
        while len(view) > 0:
            readers = [] if self._ended else [self._socket]
            readable, writable, _ = select.select(readers, [self._socket], [], self._left(deadline))
            if readable:
                self._fill()
            if writable:
                try:
                    view = view[self._socket.send(view):]
                except BlockingIOError:
                    pass
                except (BrokenPipeError, ConnectionResetError):
                    return

    def send(self, kind, payload=b""):
        self.send_bytes(struct.pack("<II", kind, len(payload)) + payload)

    def receive(self, timeout=None):
        """The next frame. Closed when the agent closed the connection after the last one."""
        deadline = self._deadline(timeout)
        header = self._take(8, deadline)
        kind, length = struct.unpack("<II", header)
        if kind not in LENGTHS:
            raise ProtocolError(f"a frame of type {kind} with {length} bytes")
        least, most = LENGTHS[kind]
        if not least <= length <= most:
            raise ProtocolError(f"{Type(kind).name} with {length} bytes")
        return Frame(Type(kind), self._take(length, deadline, inside=True))

    def receive_bytes(self, timeout=None):
        """What has come; b"" at the end of the stream."""
        deadline = self._deadline(timeout)
        self._greet(deadline)
        while not self._received and not self._ended:
            self._wait(deadline)
        data = bytes(self._received)
        self._received.clear()
        return data

    def expect_closed(self, timeout=None):
        """The agent closes the connection and says nothing more."""
        try:
            frame = self.receive(timeout)
        except Closed:
            return
        raise ProtocolError(f"{frame.type.name} where the connection ends")

    def _deadline(self, timeout):
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    @staticmethod
    def _left(deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the agent took too long")
        return left

    def _fill(self):
        try:
            data = self._socket.recv(4 * DATA_MAX)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self._received += data
        self._ended = not data

    def _wait(self, deadline):
        if select.select([self._socket], [], [], self._left(deadline))[0]:
            self._fill()

    def _greet(self, deadline):
        """Takes the answer to the CONNECT line, which nobody need have waited for."""
        while not self._greeted:
            line, newline, rest = bytes(self._received[:64]).partition(b"\n")
            if newline:
                word, _, number = line.partition(b" ")
                if word != b"OK" or not number.isdigit():
                    raise ProtocolError(f"{line!r} instead of OK")
                del self._received[: len(line) + 1]
                self._greeted = True
            elif self._ended:
                raise Closed("before OK")
            elif len(line) == 64:
                raise ProtocolError(f"{line!r} instead of OK")
            else:
                self._wait(deadline)

    def _take(self, length, deadline, inside=False):
        self._greet(deadline)
        while len(self._received) < length:
            if self._ended:
                if inside or self._received:
                    raise ProtocolError("the connection ended inside a frame")
                raise Closed
            self._wait(deadline)
        data = bytes(self._received[:length])
        del self._received[:length]
        return data


class Requests:
    """A request connection. Requests are answered in order; they may be sent before the answers are read."""

    def __init__(self, connection):
        self.connection = connection

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def send(self, kind, payload=b""):
        self.connection.send(kind, payload)

    def answer(self, *kinds, timeout=None):
        """The next frame of the answer, of one of these types. Refused when it is that."""
        frame = self.connection.receive(timeout)
        if frame.type == Type.REFUSED:
            raise Refused(frame.payload)
        if frame.type not in kinds:
            raise ProtocolError(f"{frame.type.name} as an answer")
        return frame

    def request(self, kind, payload=b"", answer=Type.DONE, timeout=None):
        """The one frame that answers it; of DONE the value."""
        self.send(kind, payload)
        frame = self.answer(answer, timeout=timeout)
        return done_value(frame) if answer == Type.DONE else frame

    def items(self, kind, payload, item, parse):
        """Frames of type `item`, parsed, until DONE says how many there were."""
        self.send(kind, payload)
        found = []
        while True:
            frame = self.answer(item, Type.DONE)
            if frame.type == Type.DONE:
                return found, done_value(frame)
            found.append(parse(frame.payload))
