# SPDX-License-Identifier: Apache-2.0
"""Clients of the server, written from the contract of microsandbox 0.2 alone: they share nothing with the product.

`Client026` and `ClientLater` behave as the Python packages of the two generations did, but that they wait for an answer
instead of awaiting it; `Http` is what they ask with.
"""

import http.client
import json
import socket
import uuid

# Reasons of errors: `data.code` in the 0.2 line, `number` in /v1 (docs/server.md).
NO_KEY, BAD_KEY, EXPIRED, INVALID, FORBIDDEN, NO_ROOM, NOT_FOUND, FAILED = 1001, 1004, 1005, 2001, 3001, 3002, 4001, 5001


class Answer:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:2000]!r}>"


class Http:
    """One request a connection, unless it is kept."""

    def __init__(self, port, key=None, host="127.0.0.1", timeout=60):
        self.port = port
        self.key = key
        self.host = host
        self.timeout = timeout

    def headers(self, headers):
        """Those of every request; a value of None takes one away."""
        wanted = {"Authorization": f"Bearer {self.key}" if self.key else None} | (headers or {})
        return {name: value for name, value in wanted.items() if value is not None}

    def open(self, method, path, body=None, headers=None):
        """A response whose body is to be read, and its connection, to be closed."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} | (headers or {})
        try:
            connection.request(method, path, body=body, headers=self.headers(headers))
            return connection.getresponse(), connection
        except BaseException:
            connection.close()
            raise

    def __call__(self, method, path, body=None, headers=None):
        response, connection = self.open(method, path, body, headers)
        try:
            return Answer(response, response.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self("GET", path, **options)

    def post(self, path, body=None, **options):
        return self("POST", path, body, **options)

    def rpc(self, method, params=None, **members):
        """The answer to one call of the 0.2 line."""
        request = {"jsonrpc": "2.0", "method": method, "params": {} if params is None else params, "id": 1} | members
        return self.post("/api/v1/rpc", request)

    def result(self, method, **params):
        """The result of a call that is to succeed."""
        answer = self.rpc(method, params)
        assert answer.status == 200 and "error" not in answer.json, answer
        return answer.json["result"]

    def error(self, method, **params):
        """The error of a call that is to fail, and the status of HTTP."""
        answer = self.rpc(method, params)
        assert answer.status >= 400 and "result" not in answer.json, answer
        return answer.json["error"], answer.status


class Raw:
    """A connection on which a test says what no client would."""

    def __init__(self, port, data=b"", timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.received = b""
        self.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """Some more bytes; none at the end."""
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def read_all(self):
        while piece := self.receive():
            self.received += piece
        return self.received

    def head(self):
        """The next answer's status and fields, in lower case; what follows them stays in `received`."""
        while b"\r\n\r\n" not in self.received:
            piece = self.receive()
            assert piece, f"only {self.received!r}, then the end"
            self.received += piece
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), fields

    def answer(self, bodiless=False):
        """The next answer whole: status, fields, body."""
        status, fields = self.head()
        if bodiless or status < 200 or status == 204:
            return status, fields, b""
        length = int(fields["content-length"])
        while len(self.received) < length:
            piece = self.receive()
            assert piece, f"only {self.received!r} of {length} bytes, then the end"
            self.received += piece
        body, self.received = self.received[:length], self.received[length:]
        return status, fields, body

    def closed(self):
        """Whether the server has closed it, with nothing more to say."""
        return self.received == b"" and self.receive() == b""


class Execution:
    """What `run` gave."""

    def __init__(self, result):
        self.result = result
        self.status = result.get("status", "unknown")
        self.language = result.get("language", "unknown")

    def _text(self, stream):
        return "\n".join(line["text"] for line in self.result.get("output", []) if line["stream"] == stream).rstrip()

    def output(self):
        return self._text("stdout")

    def error(self):
        return self._text("stderr")

    def has_error(self):
        return self.status in ("error", "exception") or any(line["stream"] == "stderr" and line["text"]
                                                            for line in self.result.get("output", []))


class CommandExecution(Execution):
    def __init__(self, result):
        super().__init__(result)
        self.command = result["command"]
        self.args = result["args"]
        self.exit_code = result["exit_code"]
        self.success = result["success"]


class TimedOut(RuntimeError):
    """A start said "timed out waiting", of which clients only warned."""


class Client026:
    """Everything goes to /api/v1/rpc, with a namespace and a UUID as id."""

    def __init__(self, url, name, language="python", key=None, namespace="default"):
        self.address = url.removeprefix("http://")
        self.name = name
        self.language = language
        self.key = key
        self.namespace = namespace

    def _post(self, path, request, timeout=60):
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        try:
            connection.request("POST", path, json.dumps(request), headers)
            response = connection.getresponse()
            body = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"the request failed with {response.status}: {body}")
        document = json.loads(body)
        if "error" in document:
            raise RuntimeError(document["error"]["message"])
        return document

    def _params(self, params):
        return {"namespace": self.namespace, "sandbox": self.name} | params

    def _call(self, method, params=None, timeout=60):
        request = {"jsonrpc": "2.0", "method": method, "params": self._params(params or {}), "id": str(uuid.uuid4())}
        document = self._post("/api/v1/rpc", request, timeout)
        assert document["jsonrpc"] == "2.0" and document["id"] == request["id"], document
        return document["result"]

    def _config(self, image, memory, cpus, config):
        return {"config": {"image": image or f"microsandbox/{self.language}", "memory": memory, "cpus": round(cpus)} | config}

    def start(self, image=None, memory=512, cpus=1.0, timeout=180.0, **config):
        said = self._call("sandbox.start", self._config(image, memory, cpus, config), timeout + 30)
        if isinstance(said, str) and "timed out waiting" in said:
            raise TimedOut(said)
        return said

    def stop(self):
        return self._call("sandbox.stop")

    def run(self, code):
        return Execution(self._call("sandbox.repl.run", {"language": self.language, "code": code}))

    def command(self, command, args=None, timeout=None):
        params = {"command": command, "args": args or []} | ({} if timeout is None else {"timeout": timeout})
        return CommandExecution(self._call("sandbox.command.run", params))

    def metrics(self):
        """Of this one, as `metrics.all()` gave them."""
        [found] = self._call("sandbox.metrics.get")["sandboxes"]
        return found


class ClientLater(Client026):
    """No namespace; start and stop have paths of their own, and a start no id."""

    def _params(self, params):
        return {"sandbox": self.name} | params

    def start(self, image=None, memory=512, cpus=1.0, timeout=180.0, **config):
        request = {"jsonrpc": "2.0", "method": "sandbox.start",
                   "params": self._params(self._config(image, memory, cpus, config))}
        said = self._post("/api/v1/sandbox/start", request, timeout + 30)["message"]
        if "timed out waiting" in said:
            raise TimedOut(said)
        return said

    def stop(self):
        request = {"jsonrpc": "2.0", "method": "sandbox.stop", "params": self._params({}), "id": str(uuid.uuid4())}
        return self._post("/api/v1/sandbox/stop", request)["result"]


def client_of(server, name, **options):
    return Client026(server.url, name, "python", server.key, **options)


def http_of(server):
    return Http(server.port, server.key)


def refusal(answer):
    """The status of HTTP, the reason and the sentence of an error."""
    error = answer.json["error"]
    return answer.status, error["data"]["code"] if "data" in error else error["number"], error["message"]
