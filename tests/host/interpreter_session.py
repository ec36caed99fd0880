# SPDX-License-Identifier: Apache-2.0
"""A session of an interpreter's driver as the agent starts it: descriptor 3 is one end of a stream
socket pair, standard input is /dev/null. The other end speaks docs/interpreters.md."""

import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

DRIVERS = pathlib.Path(__file__).resolve().parents[2] / "protocol/interpreters"
PATIENCE = 60  # seconds for anything to happen


class Run(list):
    """The messages of one run, without `started` and `done`."""

    done = None

    def of(self, operation):
        return [message for message in self if message["op"] == operation]

    @property
    def error(self):
        [error] = self.of("error")
        return error

    @property
    def text(self):
        [result] = self.of("result")
        return result["data"]["text/plain"]


class Session:
    def __init__(self, arguments, greeting=b"", directory="/tmp", environment=None):
        self.socket, theirs = socket.socketpair()
        self.output = {"stdout": tempfile.TemporaryFile(), "stderr": tempfile.TemporaryFile()}
        # As the agent does: nothing but descriptors 0 to 3, a process group of its own.
        passed = fcntl.fcntl(theirs, fcntl.F_DUPFD, 200)
        command = ["/bin/bash", "-c", f'exec "$@" 3<&{passed} {passed}<&-', "-", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output["stdout"],
                                        stderr=self.output["stderr"], pass_fds=[passed], cwd=directory,
                                        start_new_session=True, env=environment)
        os.close(passed)
        theirs.close()
        self.id = 0
        self.socket.sendall(greeting)
        self.ready = self.hello(7)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE)
        self.socket.close()
        for file in self.output.values():
            file.close()

    def read_exactly(self, size, deadline):
        content = b""
        while len(content) < size:
            assert select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[0], \
                f"nothing came; stderr: {self.written('stderr')[-2000:]}"
            piece = self.socket.recv(size - len(content))
            if not piece:
                raise EOFError(self.written("stderr"))
            content += piece
        return content

    def receive(self):
        deadline = time.monotonic() + PATIENCE
        [size] = struct.unpack("<I", self.read_exactly(4, deadline))
        assert 0 < size <= 32 << 20
        return json.loads(self.read_exactly(size, deadline).decode("utf-8"))

    def send(self, **message):
        body = json.dumps(message).encode()
        self.socket.sendall(struct.pack("<I", len(body)) + body)

    def hello(self, id):
        self.send(op="hello", id=id)
        answer = self.receive()
        assert (answer["op"], answer["id"]) == ("ready", id)
        return answer

    def send_run(self, code):
        self.id += 1
        self.send(op="run", id=self.id, code=code)

    def start(self, code):
        self.send_run(code)
        message = self.receive()
        while 0 < message["id"] < self.id:
            message = self.receive()  # a driver that was stopped in the middle of it may say it twice
        assert message == {"op": "started", "id": self.id}

    def finish(self):
        result = Run()
        while True:
            message = self.receive()
            if message["op"] == "done" and message["id"] == self.id:
                result.done = message
                return result
            result.append(message)

    def run(self, code):
        self.start(code)
        return self.finish()

    def value(self, code):
        """What a run shows as its value; the run must not fail."""
        run = self.run(code)
        assert not run.of("error"), run
        return run.text

    def interrupt(self, group=False):
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGINT)

    def wait_program(self, name, count=1):
        """Until so many processes of the session's group execute that program: before, a shell that is
        about to start one may take the signal for it, and dash then loses it (vforked in onsig())."""
        deadline = time.monotonic() + PATIENCE
        while True:
            listed = subprocess.run(["ps", "-o", "args=", "-g", str(self.process.pid)], capture_output=True,
                                    text=True, check=False).stdout.splitlines()
            if sum(line.startswith(f"{name} ") for line in listed) >= count:
                return
            assert time.monotonic() < deadline, f"{name} among {listed}"
            time.sleep(0.01)

    def written(self, stream="stdout"):
        size = os.fstat(self.output[stream].fileno()).st_size
        return os.pread(self.output[stream].fileno(), size, 0).decode(errors="replace")

    def wait_written(self, text, stream="stdout"):
        deadline = time.monotonic() + PATIENCE
        while text not in self.written(stream):
            assert time.monotonic() < deadline, f"{text!r} on {stream}"
            time.sleep(0.01)


def python(program="/usr/bin/python3", **options):
    return Session([program, "-u", "-c", (DRIVERS / "python.py").read_text()], **options)


class NodeSession(Session):
    def interrupt(self, group=False):
        if group:
            super().interrupt(group)
        else:
            self.send(op="interrupt", id=self.id)


def node(**options):
    return NodeSession(["node", "--no-force-async-hooks-checks", "-e", (DRIVERS / "node.js").read_text()], **options)


class ShellSession(Session):
    def send(self, op, id):
        assert op == "hello"
        self.socket.sendall(f"__msb_hello {id}\n".encode())

    def send_run(self, code):
        self.id += 1
        code = code.replace("\\", "\\\\").replace("\n", "\\n").replace("'", "\\0047")
        self.socket.sendall(f"__msb_begin {self.id} '{code}'; \\command eval \"$__msb_code\" </dev/null "
                            ">&8 2>&9 8>&- 9>&-; __msb_end \"$?\"\n".encode())

    def interrupt(self, group=True):
        super().interrupt(group)


def shell(kind="bash", directory="/tmp", path=None):
    """kind: bash, dash or busybox; `path` gets a directory in which only that shell is found."""
    start, driver = ((DRIVERS / name).read_text() for name in ("shell_start.sh", "shell.sh"))
    environment = dict(os.environ)
    if kind != "bash":
        (path / "sh").symlink_to(shutil.which(kind))
        for name in ("sleep", "cat", "seq", "env", "kill"):
            (path / name).symlink_to(shutil.which(name))
        environment["PATH"] = str(path)
    return ShellSession(["sh", "-c", start, "sh", driver], b'eval "$MSB_DRIVER"\n', directory, environment)
