# SPDX-License-Identifier: Apache-2.0
"""Requests of HTTP as bytes, for tests that say what no client would, and what the server is asked about it."""

import json

from server_clients import Http

HEALTH = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def request_of(server, body, *fields, method="POST", path="/api/v1/rpc", length=True):
    """Bytes of a request with the key."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.key}", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def call(method, **params):
    """The body of a call of the 0.2 line."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()


def command_of(server, *words, **fields):
    """Bytes of a request that runs a command in the sandbox "python"."""
    return request_of(server, call("sandbox.command.run", sandbox="python", command=words[0], args=words[1:], **fields))


def is_healthy(server):
    return Http(server.port).get("/api/v1/health").status == 200


def memory(server, what="VmRSS"):
    """Bytes of it that are resident."""
    with open(f"/proc/{server.process.pid}/status") as lines:
        [line] = [line for line in lines if line.startswith(what)]
    return int(line.split()[1]) << 10


def peak_memory(server):
    """The most that ever were."""
    return memory(server, "VmHWM")
