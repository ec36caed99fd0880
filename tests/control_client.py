# SPDX-License-Identifier: Apache-2.0
"""A client of the control socket, written from docs/control.md."""

import json
import socket
import time


class ControlError(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]


class Control:
    def __init__(self, path, seconds=60):
        """Waits for the socket, which is there before the guest boots, and for its server."""
        deadline = time.monotonic() + seconds
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(seconds)
            try:
                self.socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                self.socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.lines = self.socket.makefile("rb")
        self.events = []
        self.number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def read(self):
        line = self.lines.readline()
        if not line:
            raise EOFError("the control socket was closed")
        return json.loads(line)

    def __call__(self, method, **parameters):
        self.number += 1
        request = {"jsonrpc": "2.0", "id": self.number, "method": method}
        if parameters:
            request["params"] = parameters
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self.read()
            if answer.get("method") == "event":
                self.events.append(answer["params"])
            elif "error" in answer:
                raise ControlError(answer["error"])
            else:
                assert answer["id"] == self.number
                return answer["result"]

    def event(self, name):
        """The next event of this name; those before it are dropped."""
        while True:
            event = self.events.pop(0) if self.events else self.read()["params"]
            if event["event"] == name:
                return event

    def device(self, name):
        """A device's counters."""
        [found] = [device for device in self("counters")["devices"] if device["name"] == name]
        return found
