# SPDX-License-Identifier: Apache-2.0
"""A server in front of a registry that passes everything on, but for what rules say."""

import http.client
import re

from .faults import PIECE, Answer
from .web import Server

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "te", "upgrade")


class Rule:
    def __init__(self, pattern, fault, method=None, first=None, nth=None):
        self.pattern = re.compile(pattern)
        self.fault = fault
        self.method = method
        self.first = first
        self.nth = nth
        self.requests = []  # that it matched, whether or not the fault was due

    def is_due(self, request):
        if self.method not in (None, request.method) or not self.pattern.search(request.path):
            return False
        self.requests.append(request)
        seen = len(self.requests)
        return (self.first is None or seen <= self.first) and (self.nth is None or seen == self.nth)


class Exchange:
    """One request, and the way to the registry and to the client."""

    def __init__(self, proxy, request, handler):
        self.request = request
        self._proxy = proxy
        self._handler = handler

    def forward(self, without=()):
        """The registry's answer; its body is read while it is sent."""
        headers = {name: value for name, value in self.request.headers.items()
                   if name not in HOP_BY_HOP and name not in without}
        upstream = self._proxy.connect()
        self._upstream = upstream
        upstream.request(self.request.method, self.request.path, body=self.request.body or None, headers=headers)
        response = upstream.getresponse()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP]
        return Answer(response.status, kept, iter(lambda: response.read(PIECE), b""))

    def wait_for_end(self):
        self._handler.wait_for_end()

    def ended(self):
        return self._proxy.ended.is_set()

    def close(self):
        if hasattr(self, "_upstream"):
            self._upstream.close()


class FaultProxy(Server):
    """In front of `registry` (server.Registry); without one it has only what its rules say."""

    def __init__(self, registry=None, certificate=None):
        super().__init__(certificate)
        self.registry = registry
        self.rules = []

    def on(self, pattern, fault, method=None, first=None, nth=None):
        """From now on: requests whose path the pattern is found in get this fault: all, the first so many, or the nth.

        Among several rules the first one that is due decides.
        """
        self.rules.append(Rule(pattern, fault, method, first, nth))
        return self.rules[-1]

    def connect(self):
        if self.registry.authority:
            return http.client.HTTPSConnection("127.0.0.1", self.registry.port, timeout=60,
                                               context=self.registry.authority.client_context())
        return http.client.HTTPConnection("127.0.0.1", self.registry.port, timeout=60)

    def answer(self, request, handler):
        with self._lock:
            rule = next((rule for rule in self.rules if rule.is_due(request)), None)
        exchange = Exchange(self, request, handler)
        try:
            if rule:
                answer = rule.fault(exchange)
            elif self.registry:
                answer = exchange.forward()
            else:
                answer = Answer(404, [("Content-Length", "0")], [])
            handler.send(answer.status, answer.headers, answer.pieces)
        finally:
            exchange.close()
