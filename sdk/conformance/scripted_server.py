#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A server of HTTP/1.1 that answers as a script says, for cases about faults: README.md says how."""

import base64
import json
import select
import socket
import struct
import sys
import threading
import time
import urllib.parse


class Script:
    def __init__(self, answers):
        self.answers = answers
        self.seen = []
        self.connections = 0
        self.open = set()
        self.lock = threading.Lock()

    def next(self, request):
        with self.lock:
            self.seen.append(request)
            return self.answers[min(len(self.seen), len(self.answers)) - 1]


def read_request(stream):
    """None at the end of the connection."""
    first = stream.readline().decode("latin-1").split()
    if len(first) != 3:
        return None
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    path, _, query = first[1].partition("?")
    return {"method": first[0], "path": path, "query": dict(urllib.parse.parse_qsl(query)), "headers": headers,
            "body": body.decode(errors="replace")}


def body_of(answer):
    if "json" in answer:
        return json.dumps(answer["json"]).encode()
    return base64.b64decode(answer["base64"]) if "base64" in answer else answer.get("text", "").encode()


def is_closed(connection):
    """Whether the client has gone."""
    ready, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(ready) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


def wait_for_the_end(connection):
    while not is_closed(connection):
        time.sleep(0.01)


def give(connection, answer):
    """Whether the connection goes on."""
    if answer.get("hang") is True:
        wait_for_the_end(connection)
        return False
    time.sleep(answer.get("pause", 0))
    if answer.get("cut") == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if answer.get("cut") in ("head", "reset"):
        return False
    headers = {"X-Request-Id": "scripted"} | answer.get("headers", {})
    events = answer.get("events")
    body = b"" if events is not None else body_of(answer)
    if events is not None:
        headers |= {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
    elif answer.get("status") != 204:
        headers = {"Content-Type": "application/json" if "json" in answer else "text/plain"} | headers
        headers["Content-Length"] = str(len(body))
    head = f"HTTP/1.1 {answer.get('status', 200)} Scripted\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(head.encode() + b"\r\n")
    for event in events or []:
        time.sleep(answer.get("pause", 0))
        line = event.encode() if isinstance(event, str) else json.dumps(event).encode() + b"\n"
        connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
    if answer.get("hang") == "body":
        wait_for_the_end(connection)
        return False
    if answer.get("cut") == "body":
        connection.sendall(body[:len(body) // 2])
        return False
    connection.sendall(body if events is None else b"0\r\n\r\n")
    return True


def serve(connection, script):
    try:
        with connection, connection.makefile("rb") as stream:
            while request := read_request(stream):
                if not give(connection, script.next(request)):
                    break
    except (OSError, ValueError):  # the client has gone
        pass
    finally:
        with script.lock:
            script.open.discard(connection)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        script = Script(json.load(file))
    server = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            connection = server.accept()[0]
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with script.lock:
                script.connections += 1
                script.open.add(connection)
            threading.Thread(target=serve, args=(connection, script), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
    deadline = time.monotonic() + 2  # what was closed just now takes a moment to arrive
    while script.open and time.monotonic() < deadline:
        time.sleep(0.01)
    with script.lock:
        print(json.dumps({"seen": script.seen, "connections": script.connections, "open": len(script.open)}), flush=True)


if __name__ == "__main__":
    main()
