# SPDX-License-Identifier: Apache-2.0
"""An HTTP server in threads of its own that remembers what it was asked."""

import dataclasses
import http.server
import re
import select
import socket
import struct
import threading
import time


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str  # with the query
    headers: dict  # names in lower case; several values of a name are joined (RFC 9110, 5.3)
    body: bytes
    when: float  # time.monotonic()
    connection: int  # which of the server's


class Cut(Exception):
    """Raised while an answer is made: the connection ends there, without a farewell of TLS."""

    def __init__(self, reset=False):
        super().__init__()
        self.reset = reset  # what was sent but not read by then may be lost to the client


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.number = self.server.owner.register(self.connection)

    def finish(self):
        try:
            super().finish()
        finally:
            self.server.owner.forget(self.number)

    def handle(self):
        try:
            super().handle()
        except (OSError, Cut):  # the client went away, or is to be left alone
            self.close_connection = True

    def handle_any(self):
        body = b"".join(self._body())
        headers = {name.lower(): ", ".join(self.headers.get_all(name)) for name in self.headers}
        request = Request(self.command, self.path, headers, body, time.monotonic(), self.number)
        self.server.owner.remember(request)
        try:
            self.server.owner.answer(request, self)
        except Cut as cut:
            if cut.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            raise

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = handle_any

    def log_message(self, *unused):
        pass

    def send(self, status, headers, pieces, reason=None):
        """`headers` as they are: who gives no length gives chunks, or closes the connection."""
        self.send_response_only(status, reason)
        names = {name.lower() for name, _ in headers}
        chunked = "content-length" not in names and self.command != "HEAD" and status not in (204, 304)
        for name, value in headers:
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pieces:
            if chunked and piece:
                self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            else:
                self.wfile.write(piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def wait_for_end(self):
        """Returns when the client went away, or the server ends."""
        while not self.server.owner.ended.is_set():
            if select.select([self.connection], [], [], 0.1)[0]:
                return


class _Listener(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    owner = None
    context = None

    def get_request(self):
        connection, address = super().get_request()
        if self.context:
            # The handshake comes with the first byte that is read, in the connection's own thread.
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request, client_address):
        pass  # clients that do not trust the certificate end the handshake


class Server:
    """Subclasses answer(request, handler), which is called from several threads at once."""

    def __init__(self, certificate=None):
        self.certificate = certificate
        self.requests = []
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._connections = {}
        self._numbers = 0

    def __enter__(self):
        self._listener = _Listener(("127.0.0.1", 0), Handler)
        self._listener.owner = self
        self._listener.daemon_threads = False  # so that server_close() waits for them
        self._listener.context = self.certificate.server_context() if self.certificate else None
        self.port = self._listener.server_address[1]
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *unused):
        self.ended.set()
        self._listener.shutdown()
        self._thread.join()
        for number in list(self._connections):
            self.close(number)
        self._listener.server_close()

    @property
    def address(self):
        return f"localhost:{self.port}"

    @property
    def url(self):
        return f"{'https' if self.certificate else 'http'}://{self.address}"

    def answer(self, request, handler):
        raise NotImplementedError

    def count(self, method, pattern=""):
        """How many requests there were of this method whose path the pattern is found in."""
        return sum(request.method == method and re.search(pattern, request.path) is not None for request in self.requests)

    def remember(self, request):
        with self._lock:
            self.requests.append(request)

    def register(self, connection):
        with self._lock:
            self._numbers += 1
            self._connections[self._numbers] = connection
            return self._numbers

    def forget(self, number):
        with self._lock:
            self._connections.pop(number, None)

    def close(self, number):
        connection = self._connections.get(number)
        if connection:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
