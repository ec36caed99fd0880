# SPDX-License-Identifier: Apache-2.0
"""The part of bench/sdk that is in Python: `sync|async compare SANDBOX ROUNDS COUNT BUSY` or `sync|async many SANDBOX CALLS`.

Prints JSON.
"""

import asyncio
import json
import os
import re
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import microsandbox
import microsandbox.sync

URL, KEY = os.environ["MSB_SERVER_URL"], os.environ["MSB_API_KEY"]
WARM = 20
WORKERS = 20


def requests_of(name):
    """By the name of the call: one request, to be sent in three ways."""
    place = f"/v1/sandboxes/{name}"
    return {"run": ("POST", f"{place}/code?namespace=default", {"language": "python", "code": "1"}),
            "command": ("POST", f"{place}/exec?namespace=default", {"command": ["true"]}),
            "metrics": ("GET", f"{place}/metrics?namespace=default", None)}


def calls_of(sandbox):
    return {"run": lambda: sandbox.run("1"), "command": lambda: sandbox.command.run("true"), "metrics": sandbox.metrics}


def spin(milliseconds):
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        pass


def raw_arguments(method, target, document):
    """What httpx is told when somebody does it by hand."""
    headers = {"Authorization": f"Bearer {KEY}"}
    if document is None:
        return {"method": method, "url": URL + target, "headers": headers}
    return {"method": method, "url": URL + target, "headers": headers, "json": document}


def document_of(answer):
    answer.raise_for_status()
    return answer.json()


def at_once(answer):
    """Has its connection, which is kept, send what is written to it: httpx writes a head and a body, and older ones have the body wait for
    the head to be acknowledged, which takes 40 ms."""
    answer.extensions["network_stream"].get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Bare:
    """Bytes that were made before, on a connection: no client can be faster."""

    def __init__(self):
        self.host = URL.removeprefix("http://")
        address, port = self.host.split(":")
        self.socket = socket.create_connection((address, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method, target, document):
        body = "" if document is None else json.dumps(document)
        return (f"{method} {target} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {KEY}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()

    def call(self, request):
        self.socket.sendall(request)
        came = b""
        while True:
            piece = self.socket.recv(1 << 16)
            came += piece
            head, _, body = came.partition(b"\r\n\r\n")
            length = re.search(rb"^Content-Length: (\d+)$", head, re.MULTILINE)
            if not piece or not came.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(f"the server answered {came!r}")
            if length and len(body) == int(length[1]):
                return


async def timed(ways, count):
    """Milliseconds of each call, one way after the other, so that whatever else happens happens to all."""
    times = {way: [] for way in ways}
    order = list(ways)
    for turn in range(count):
        for step in range(len(order)):
            way = order[(turn + step) % len(order)]
            began = time.perf_counter()
            await ways[way]()
            times[way].append((time.perf_counter() - began) * 1000)
    return times


async def compare(kind, name, rounds, count, busy):
    bare = Bare()
    found = {}
    if kind == "sync":
        client, http = microsandbox.sync.Client(), httpx.Client(trust_env=False)
        at_once(http.get(f"{URL}/v1/health"))
        sandbox = microsandbox.sync.Sandbox.connect(name, client=client)
    else:
        client, http = microsandbox.Client(), httpx.AsyncClient(trust_env=False)
        sandbox = await microsandbox.Sandbox.connect(name, client=client)
    for call, request in requests_of(name).items():
        sdk, raw, made = calls_of(sandbox)[call], raw_arguments(*request), bare.request(*request)

        async def by_sdk_sync(sdk=sdk):
            spin(busy)
            sdk()

        async def by_sdk_async(sdk=sdk):
            spin(busy)
            await sdk()

        async def by_raw_sync(raw=raw):
            document_of(http.request(**raw))

        async def by_raw_async(raw=raw):
            document_of(await http.request(**raw))

        async def by_bare(made=made):
            bare.call(made)

        ways = {"sdk": by_sdk_sync if kind == "sync" else by_sdk_async,
                "raw": by_raw_sync if kind == "sync" else by_raw_async, "bare": by_bare}
        await timed(ways, WARM)
        measured = [await timed(ways, count) for _ in range(rounds)]
        found[call] = {way: [one[way] for one in measured] for way in ways}
    return found


def descriptors():
    return len(os.listdir("/proc/self/fd")) - 1  # one of them reads the directory


def many_sync(name, calls):
    with microsandbox.sync.Sandbox.connect(name) as sandbox, ThreadPoolExecutor(WORKERS) as workers:
        def some(times):
            for _ in range(times):
                sandbox.metrics()

        for _half in range(2):
            list(workers.map(some, [calls // 2 // WORKERS] * WORKERS))
            yield descriptors()


async def many_async(name, calls):
    seen = []
    async with microsandbox.Sandbox.connect(name) as sandbox:
        async def some(times):
            for _ in range(times):
                await sandbox.metrics()

        for _half in range(2):
            await asyncio.gather(*(some(calls // 2 // WORKERS) for _ in range(WORKERS)))
            seen.append(descriptors())
    return seen


def main(kind, what, name, *numbers):
    if what == "compare":
        rounds, count, busy = numbers
        found = asyncio.run(compare(kind, name, int(rounds), int(count), float(busy)))
    else:
        calls = int(numbers[0])
        found = {"descriptors": list(many_sync(name, calls)) if kind == "sync" else asyncio.run(many_async(name, calls))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
