# SPDX-License-Identifier: Apache-2.0
"""A client of the API below /v1, whose every answer is held against the document that the server serves."""

import itertools
import urllib.parse

import pytest
from json_schema import NDJSON, OpenApi, parts_of
from server_clients import Answer, Http

NOT_RUN = (400, 403, 404, 409, 502)  # as errno has it: ENOENT, EACCES, ...
numbers = itertools.count()


class Api:
    """A client whose every answer is checked."""

    def __init__(self, http, document):
        self.http = http
        self.document = document

    def __call__(self, method, path, body=None, **options):
        answer = self.http(method, f"/v1{path}", body, **options)
        self.document.check(method, f"/v1{path}", answer)
        return answer

    def get(self, path, **options):
        return self("GET", path, **options)

    def post(self, path, body=None, **options):
        return self("POST", path, body, **options)

    def done(self, method, path, body=None, status=200, **options):
        """The document of an answer that is as it should be."""
        answer = self(method, path, body, **options)
        assert answer.status == status, answer
        return answer.json if answer.body else None

    def refused(self, method, path, body=None, status=400, **options):
        """The error of one that is not; where the status is a list, it is one of these."""
        answer = self(method, path, body, **options)
        assert answer.status in (status if isinstance(status, (list, tuple)) else [status]), answer
        return answer.json["error"]

    def streamed(self, method, path, body=None, kind=NDJSON, **options):
        """The events of a stream."""
        answer = self(method, path, body, headers={"Accept": kind}, **options)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind), answer
        return parts_of(kind, answer.body)

    def open(self, method, path, body=None, kind=NDJSON):
        """A stream to be read while it comes: lines of it, and what closes it."""
        response, connection = self.http.open(method, f"/v1{path}", body, {"Accept": kind})
        assert response.status == 200, Answer(response, response.read())
        return response, connection


def path_query(path, **more):
    return urllib.parse.urlencode({"path": str(path)} | more)


@pytest.fixture(scope="module")
def document(server):
    return OpenApi(Http(server.port).get("/v1/openapi.json").json)


@pytest.fixture(scope="module")
def api(server, document):
    return Api(Http(server.port, server.key), document)


@pytest.fixture(scope="module")
def box(api):
    """The path of a sandbox with Python that runs."""
    made = api.done("POST", "/sandboxes", {"name": "box", "config": {"image": "python"}}, status=201)
    return f"/sandboxes/{made['name']}"


@pytest.fixture
def new(api):
    """Makes sandboxes, and removes them."""
    made = []

    def make(name=None, status=201, headers=None, **body):
        name = name or f"n{next(numbers)}"
        made.append(name)
        answer = api.post("/sandboxes", {"name": name, "config": {"image": "base"}} | body, headers=headers)
        assert answer.status == status, answer
        return answer.json

    yield make
    for name in made:
        api("DELETE", f"/sandboxes/{name}")
