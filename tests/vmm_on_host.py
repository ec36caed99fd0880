#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""Stands in for `msb-vmm run` where a test is about who starts sandboxes: no machine, but the real agent on this host.

Beside it lies that agent (host/agent_on_host.c). It takes the options of sandbox/launch.cpp, and does what docs/supervision.md
and docs/control.md say, as far as `msb` and `msb-server` ask for it. What a "guest" does it does on this host, and what is left
of it at the end is killed. Published ports lead to the same ports of this host's loopback.

By how its name begins a sandbox misbehaves:
  hang-   it never comes to run
  fail-   it does not boot, and says so
  crash-  its supervisor is killed before it runs
  die-    it runs, and its supervisor is killed when something is asked of its agent for the first time
"""

import contextlib
import json
import os
import pathlib
import queue
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

VALUES = {"--hostname", "--name", "--cpus", "--memory", "--processes", "--timeout", "--idle-timeout", "--net", "--policy", "--rule",
          "--publish", "--host", "--env", "--workdir", "--user", "--share", "--path", "--upper", "--log", "--record", "--events",
          "--runtime", "--rootfs", "--image"}
FLAGS = {"--background", "--detach-keys", "--tty", "--timing", "--idle", "--no-entrypoint", "--extend-command"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IMAGE_COMMAND = ["sleep", "1000000"]
GRACE = 3  # seconds, for what runs in the sandbox to end
STOPPED, TIMED_OUT, FAILED, KILLED = 143, 124, 125, 137
SHUTDOWN = 17  # a frame of the control connection, with a signal and milliseconds


def now_ms():
    return time.time_ns() // 1_000_000


class Options:
    def __init__(self, words):
        assert words[0] == "run", words
        self.values = {}
        self.flags = set()
        self.command = []
        rest = iter(words[1:])
        for word in rest:
            if word == "--":
                self.command = list(rest)
            elif word in FLAGS:
                self.flags.add(word)
            else:
                assert word in VALUES, f"msb-vmm is given {word}, which the stand-in does not know"
                self.values.setdefault(word, []).append(next(rest))

    def all(self, name):
        return self.values.get(name, [])

    def get(self, name, otherwise=None):
        return self.values[name][-1] if name in self.values else otherwise


class Port:
    """A port of this host that leads to one of its loopback."""

    def __init__(self, word):
        place, _, transport = word.partition("/")
        *address, host, guest = ["127.0.0.1", place, place] if ":" not in place else place.rsplit(":", 2)
        self.address = address[0].strip("[]") if address else "127.0.0.1"
        self.transport = transport or "tcp"
        self.guest = int(guest)
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self.server = socket.create_server((self.address, int(host)), family=family)
        self.host = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.server.accept()[0]
                try:
                    pipe_both(client, socket.create_connection(("127.0.0.1", self.guest)))
                except OSError:
                    client.close()

    def describe(self):
        return {"protocol": self.transport, "address": self.address, "host_port": self.host, "guest_port": self.guest}


def pump(source, sink, when_over):
    try:
        while data := source.recv(1 << 16):
            try:
                sink.sendall(data)
            except OSError:  # it reads no more, and may have said something before, which the other way tells
                break
        else:
            sink.shutdown(socket.SHUT_WR)
    except OSError:  # one of them was closed: the other way ends, too
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
    when_over()


def pipe_both(one, other, when_over=lambda: None):
    """Bytes both ways, until both have said that it is enough."""
    left = [2]

    def over():
        left[0] -= 1
        if left[0] == 0:
            one.close()
            other.close()
            when_over()

    threading.Thread(target=pump, args=(one, other, over), daemon=True).start()
    threading.Thread(target=pump, args=(other, one, over), daemon=True).start()


class Log:
    """A line of JSON for each line of output."""

    def __init__(self, path):
        self.file = open(path, "ab", buffering=0) if path else None
        self.parts = {"stdout": b"", "stderr": b""}

    def write(self, stream, data, ends=False):
        *lines, self.parts[stream] = (self.parts[stream] + data).split(b"\n")
        lines = [line + b"\n" for line in lines]
        if ends and self.parts[stream]:
            lines.append(self.parts[stream])
        for line in lines:
            entry = {"time_ms": now_ms(), "stream": stream, "text": line.decode(errors="replace")}
            if self.file:
                self.file.write(json.dumps(entry).encode() + b"\n")

    def end(self):
        for stream in self.parts:
            self.write(stream, b"", ends=True)


class Vmm:
    def __init__(self, options, agent):
        self.options = options
        self.name = options.get("--name", "")
        self.runtime = pathlib.Path(options.get("--runtime"))
        self.events = int(options.get("--events", -1))
        self.started_ms = now_ms()
        self.ends = queue.SimpleQueue()  # (cause, status, message): the first one counts
        self.state = "starting"
        self.process = None
        self.ports = []
        self.subscribers = []
        self.connections = 0
        self.last_used = time.monotonic()
        self.log = Log(options.get("--log"))
        self.mark = f"MSB_TEST_SANDBOX={self.runtime.name}-{os.getpid()}"
        self.environment = [f"PATH={PATH}", "HOME=/root", self.mark, *options.all("--env")]
        if bed := os.environ.get("MSB_TEST_BED"):
            self.environment.append(f"MSB_TEST_BED={bed}")
        self.directory = options.get("--workdir", "/")
        self.user = options.get("--user", "")
        ours, self.control = socket.socketpair()
        self.inner = str(self.runtime / "inner")
        self.agent = subprocess.Popen([agent, self.inner], stdin=ours, start_new_session=True)
        ours.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.end("stopped", STOPPED))
        if "--background" in options.flags:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def end(self, cause, status, message="", grace=GRACE):
        self.ends.put((cause, status, message, grace))

    def tell(self, event, **members):
        """The pipe of --events, and those who subscribed to the control socket."""
        if event in ("running", "ended") and self.events >= 0:
            with contextlib.suppress(OSError):
                os.write(self.events, json.dumps({"event": event} | members).encode() + b"\n")
        line = {"jsonrpc": "2.0", "method": "event", "params": {"event": event, "time_ms": now_ms()} | members}
        for stream in list(self.subscribers):
            with contextlib.suppress(OSError):
                stream.sendall(json.dumps(line).encode() + b"\n")

    # The control socket.

    def status(self, _):
        options = self.options
        network = {"mode": "none" if options.get("--net") == "none" else "user", "addresses": [],
                   "published": [port.describe() for port in self.ports]}
        return {"state": self.state, "uptime_ms": now_ms() - self.started_ms, "memory_mib": int(options.get("--memory", 512)),
                "cpus": int(options.get("--cpus", 1)), "disks": [], "shares": [], "network": network, "name": self.name,
                "image": options.get("--image", options.get("--rootfs", "")), "command": self.command(),
                "environment": self.environment, "directory": self.directory, "user": self.user, "entrypoint": [],
                "image_command": IMAGE_COMMAND, "process": None, "pid": os.getpid(),
                "started_ms": self.started_ms, "background": "--background" in options.flags}

    def stop(self, parameters):
        self.end("stopped", 0 if self.process is None else STOPPED, grace=parameters.get("timeout_s", GRACE))
        return {}

    def kill(self, _):
        self.end("stopped", KILLED, grace=0)
        return {}

    def hold(self, state, number, event):
        if self.state in ("running", "paused") and self.state != state:
            os.killpg(self.agent.pid, number)
            self.state = state
            self.tell(event)
        return {}

    def answer(self, stream, request):
        methods = {"status": self.status, "stop": self.stop, "kill": self.kill,
                   "counters": lambda _: {"exits": 0, "devices": [], "balloon": {}, "network": {}},
                   "pause": lambda _: self.hold("paused", signal.SIGSTOP, "paused"),
                   "resume": lambda _: self.hold("running", signal.SIGCONT, "resumed"),
                   "subscribe": lambda _: self.subscribers.append(stream) or {}}
        method = methods.get(request["method"])
        if method is None:
            return {"error": {"code": -32601, "message": f"the stand-in has no {request['method']}"}}
        return {"result": method(request.get("params", {}))}

    def serve_control(self, stream):
        with contextlib.suppress(OSError), stream.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                answer = {"jsonrpc": "2.0", "id": request.get("id")} | self.answer(stream, request)
                stream.sendall(json.dumps(answer).encode() + b"\n")
        if stream in self.subscribers:
            self.subscribers.remove(stream)
        stream.close()

    # The agent's socket.

    def serve_agent(self, stream):
        """Joins a connection to one of the agent, as the machine does."""
        if self.name.startswith("die-"):
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            if stream.recv(13, socket.MSG_WAITALL) != b"CONNECT 1025\n":
                raise OSError("the stand-in has this port alone")
            inner = socket.socket(socket.AF_UNIX)
            inner.connect(self.inner)
            self.connections += 1
            stream.sendall(f"OK {(1 << 30) + self.connections}\n".encode())
            pipe_both(stream, inner, self.on_close)
        except OSError:
            stream.close()

    def on_close(self):
        self.connections -= 1
        self.last_used = time.monotonic()

    def listen(self, name, serve):
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(self.runtime / name))
        server.listen(1024)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    # What runs in it.

    def command(self):
        if "--idle" in self.options.flags:
            return []
        return self.options.command or IMAGE_COMMAND

    def run_command(self):
        """Starts it, and ends with it."""
        os.makedirs(self.directory, exist_ok=True)
        variables = dict(word.split("=", 1) for word in self.environment)
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(self.command(), env=variables, cwd=self.directory, user=self.user or None,
                                        start_new_session=True, **streams)

        def follow(stream, pipe):
            while data := os.read(pipe.fileno(), 1 << 16):
                self.log.write(stream, data)
                self.last_used = time.monotonic()

        def wait():
            readers = [threading.Thread(target=follow, args=args, daemon=True)
                       for args in (("stdout", self.process.stdout), ("stderr", self.process.stderr))]
            for reader in readers:
                reader.start()
            status = self.process.wait()
            for reader in readers:
                reader.join(1)  # what it left behind may have them still
            self.log.end()
            self.end("exited", status if status >= 0 else 128 - status)

        threading.Thread(target=wait, daemon=True).start()

    def bring_up(self):
        for word in self.options.all("--publish"):
            try:
                self.ports.append(Port(word))
            except OSError as error:
                self.end("failed", FAILED, f"cannot publish '{word}': {error.strerror}")
                return
        while not os.path.exists(self.inner):
            time.sleep(0.001)
        if self.name.startswith("hang-"):
            return
        if self.name.startswith("crash-"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name.startswith("fail-"):
            self.end("failed", FAILED, "the guest's kernel crashed while it booted")
            return
        if self.command():
            try:
                self.run_command()
            except OSError as error:
                self.end("exited", 127, f"cannot run '{self.command()[0]}': {error.strerror}")
                return
        self.state = "running"
        self.tell("running", process=None, pid=os.getpid(), published=[port.describe() for port in self.ports])

    def watch(self):
        """Until it is to end, and why."""
        running_since = time.monotonic()
        limit, idle = self.options.get("--timeout"), self.options.get("--idle-timeout")
        bound = "--background" not in self.options.flags and self.events >= 0
        poll = select.poll()
        if bound:
            poll.register(self.events, 0)  # POLLERR: nobody reads it any more
        while True:
            with contextlib.suppress(queue.Empty):
                return self.ends.get(timeout=0.05)
            now = time.monotonic()
            if bound and poll.poll(0):
                return ("stopped", STOPPED, "", GRACE)
            if limit and now - running_since > int(limit):
                return ("timeout", TIMED_OUT, f"it ran longer than {limit} s", GRACE)
            if idle and self.connections == 0 and now - max(self.last_used, running_since) > int(idle):
                return ("idle", TIMED_OUT, f"nothing happened in it for {idle} s", GRACE)

    def shut_down(self, grace):
        """Ends what runs, and the agent."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.agent.pid, signal.SIGCONT)
        with contextlib.suppress(OSError):
            self.control.sendall(struct.pack("<IIII", SHUTDOWN, 8, signal.SIGTERM if grace > 0 else 0, int(grace * 1000)))
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.agent.wait(grace + 5)
        self.control.close()
        self.agent.kill()
        self.agent.wait()
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def write_record(self, cause, status, message):
        path = self.options.get("--record")
        if not path:
            return
        record = {"status": status, "message": message, "cause": cause, "started_ms": self.started_ms, "ended_ms": now_ms()}
        draft = pathlib.Path(path + ".new")
        draft.write_text(json.dumps(record | {"kernel": ["panic"] if cause == "failed" else []}))
        draft.rename(path)

    def run(self):
        self.listen("control", self.serve_control)
        self.listen("agent", self.serve_agent)
        self.bring_up()
        cause, status, message, grace = self.watch()
        self.state = "stopping"
        self.tell("stopping")
        self.shut_down(grace)
        for port in self.ports:
            port.server.close()
        self.write_record(cause, status, message)
        self.tell("ended", status=status, message=message)
        self.tell("stopped", exit_status=status, **({"message": message} if message else {}))
        shutil.rmtree(self.runtime, ignore_errors=True)
        os._exit(status)  # threads wait for clients still


def marked(word):
    """Processes that have this variable."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if word.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    if sys.argv[1] != "run":  # `msb exec` and others are clients of the agent
        real = pathlib.Path(__file__).resolve().parent.parent / "build/release/bin/msb-vmm"
        os.execv(real, [real, *sys.argv[1:]])
    here = pathlib.Path(sys.argv[0]).parent
    Vmm(Options(sys.argv[1:]), here / "agent_on_host").run()
