# SPDX-License-Identifier: Apache-2.0
"""An agent behind a sandbox's socket whose answers a test scripts, byte by byte."""

import contextlib
import socket
import struct
import tempfile
import threading

import pytest

START, ATTACH, STDIN, STARTED, REFUSED, STDOUT, STDERR, EXITED, ATTACHED = 32, 33, 34, 48, 49, 50, 51, 52, 54
DETACHED, SIGNAL, RESIZE, LIST, FORGET, METRICS, DONE, PROCESS, MEASURED = 55, 65, 66, 67, 69, 70, 96, 98, 99
KEEP, TERMINAL, NO_STDIN = 2, 4, 16
ATTACHED_TERMINAL, ATTACHED_INPUT = 4, 8
END = 2**64 - 1
SECONDS = 60


def frame(kind, payload=b""):
    return struct.pack("<II", kind, len(payload)) + payload


def started(process=7):
    return frame(STARTED, struct.pack("<II", process, 2))


def attached(flags=ATTACHED_INPUT, process=7, out=0):
    return frame(ATTACHED, struct.pack("<II5QII", process, 2, out, 0, 0, 0, 0, flags, 0))


def exited(value=0, kind=1, flags=0, process=7, out=0, err=0):
    return frame(EXITED, struct.pack("<IIII3Q3Q", kind, value, flags, process, 1, 2, 3, out, err, 0))


def refused(stage, code, text):
    return frame(REFUSED, struct.pack("<II", stage, code) + text)


def done(value=0):
    return frame(DONE, struct.pack("<Q", value))


class Connection:
    """One connection to the agent, after its greeting."""

    def __init__(self, stream):
        self.stream = stream
        stream.settimeout(SECONDS)

    def read(self, size):
        data = b""
        while len(data) < size:
            piece = self.stream.recv(size - len(data))
            if not piece:
                return None
            data += piece
        return data

    def frame(self):
        """The next frame as (type, payload); None at the end."""
        header = self.read(8)
        if header is None:
            return None
        kind, length = struct.unpack("<II", header)
        return kind, self.read(length)

    def say(self, *frames):
        self.stream.sendall(b"".join(frames))

    def wait_for_end(self):
        while self.frame() is not None:
            pass


class Agent:
    """Serves a sandbox's socket; `script` gets each connection with its first frame."""

    def __init__(self, path, script, greeting=b"OK 1073741824\n"):
        self.path = path
        self.script = script
        self.greeting = greeting
        self.seen = []
        self.errors = []
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(path)
        self.server.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                stream = self.server.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=[stream], daemon=True).start()

    def serve(self, stream):
        try:
            with stream:
                connection = Connection(stream)
                assert connection.read(13) == b"CONNECT 1025\n"
                connection.say(self.greeting)
                first = connection.frame()
                while first is not None:
                    self.seen.append(first)
                    if self.script(self, connection, *first) is None:
                        break
                    first = connection.frame()
        except OSError:
            pass  # the program went away, which some tests have it do
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(error)

    def close(self):
        # Closing alone would not wake the thread that waits in accept().
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        assert not self.errors


def start_fields(payload):
    names = ("flags", "arguments", "variables", "groups", "limits", "umask", "timeout_ms", "keep", "rows", "columns")
    fields = dict(zip(names, struct.unpack_from("<8IHH", payload)))
    strings = payload[40 + 24 * fields["limits"]:].split(b"\0")
    assert strings.pop() == b""
    fields["limit"] = [struct.unpack_from("<IIQQ", payload, 40 + 24 * i) for i in range(fields["limits"])]
    fields["label"], fields["user"], fields["directory"] = strings[:3]
    fields["group_names"] = strings[3:3 + fields["groups"]]
    rest = strings[3 + fields["groups"]:]
    fields["command"] = rest[:fields["arguments"]]
    fields["environment"] = rest[fields["arguments"]:]
    return fields


def answering(*frames):
    """A script for one process: these frames, then whatever the program does until it closes."""
    def script(_, connection, kind, __):
        assert kind in (START, ATTACH)
        connection.say(*frames)
        connection.wait_for_end()
    return script


def running(script_of_requests, answer_to_attach=None):
    """A script: a process that writes "ready" and runs; requests go to the function."""
    state = {"process": None}

    def script(one, connection, kind, payload):
        if kind in (START, ATTACH):
            state["process"] = connection
            connection.say(started() if kind == START else answer_to_attach, frame(STDOUT, b"ready"))
            connection.wait_for_end()
            one.seen.append("closed")
            return None
        return script_of_requests(state, connection, kind, payload)

    script.state = state
    return script


@pytest.fixture
def agent():
    agents = []
    with tempfile.TemporaryDirectory(prefix="exec-") as directory:

        def make(script, **options):
            agents.append(Agent(f"{directory}/s", script, **options))
            return agents[-1]

        yield make
        for each in agents:
            each.close()
