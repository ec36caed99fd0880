# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy as HTTPS_PROXY names it: CONNECT and nothing else (RFC 9110, 9.3.6)."""

import select
import socket

from .web import Cut, Server


class ConnectProxy(Server):
    """`hosts`: {"NAME:PORT": port of loopback}, the only places that it leads to."""

    def __init__(self, hosts):
        super().__init__()
        self.hosts = hosts

    def answer(self, request, handler):
        port = self.hosts.get(request.path)
        if request.method != "CONNECT" or port is None:
            handler.send(403, [("Content-Length", "0")], [])
            return
        handler.send_response_only(200)
        handler.end_headers()
        with socket.create_connection(("127.0.0.1", port)) as beyond:
            self._relay(handler.connection, beyond)
        raise Cut

    def _relay(self, one, other):
        towards = {one: other, other: one}
        while not self.ended.is_set():
            for source in select.select(list(towards), [], [], 0.1)[0]:
                piece = source.recv(64 << 10)
                if not piece:
                    return
                towards[source].sendall(piece)
