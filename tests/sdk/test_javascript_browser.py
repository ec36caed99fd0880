# SPDX-License-Identifier: Apache-2.0
"""The JavaScript package in a browser: pages that are served with its ES modules talk to a real server, by its rules for origins."""

import contextlib
import http.server
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse

import pytest
from conformance import nowhere
from conftest import clean_environment, wait_until
from javascript_sdk import TESTS, javascript
from server_bed import needs_root

SECONDS = 90  # for a page, with the start of its browser
CHROMIUM = shutil.which("chromium")
# Nothing that goes elsewhere, or stays; a browser of root's has no sandbox of its own, and what it loads here is ours.
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
           "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server")

pytestmark = [needs_root,
              pytest.mark.skipif(CHROMIUM is None, reason="there is no browser (Debian: chromium)")]


class Pages(http.server.ThreadingHTTPServer):
    """Serves the page, and the package as bundlers would; `outcomes` is what pages posted."""

    daemon_threads = True

    def __init__(self, package):
        super().__init__(("127.0.0.1", 0), Handler)
        self.package = package
        self.outcomes = queue.Queue()

    def origin(self, name="127.0.0.1"):
        return f"http://{name}:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/":
            self.answer("text/html", b'<!doctype html><meta charset="utf-8"><script type="module" src="/page.mjs"></script>')
        elif path == "/page.mjs":
            self.answer("text/javascript", (TESTS / "javascript_page.mjs").read_bytes())
        elif path.startswith("/microsandbox/"):
            self.answer("text/javascript", (self.server.package / "dist/esm" / os.path.basename(path)).read_bytes())
        else:
            self.send_error(404)

    def do_POST(self):
        self.server.outcomes.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer("text/plain", b"")

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def pages(javascript):
    with Pages(javascript.package) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def allowing(shared_host, pages):
    """A server that the origin 127.0.0.1 of the pages may use."""
    shared_host.settle(origins=[pages.origin()])
    return shared_host.serve()


class Browser:
    """One with this page; nothing of it is left."""

    def __init__(self, url):
        self.url = url

    def __enter__(self):
        # pytest's own directories have names that are too long for its sockets.
        self.directory = tempfile.TemporaryDirectory(prefix="browser-")
        place = pathlib.Path(self.directory.name)
        self.log_path = place / "log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [CHROMIUM, *OPTIONS, f"--user-data-dir={place}/profile", self.url], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_environment(HOME=str(place), TMPDIR=str(place)), start_new_session=True)
        return self

    def __exit__(self, *_):
        self.kill()
        self.process.wait()
        wait_until(lambda: not self.kill(), "the browser has ended")
        self.directory.cleanup()

    def kill(self):
        """Whether there was anything of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
            return True
        return False

    def wait_for(self, outcomes):
        """What the page posts."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                return outcomes.get(timeout=0.5)
        raise AssertionError(f"the page told nothing: {self.log_path.read_text()[-2000:]}")


@pytest.fixture
def page(pages):
    """What a scenario found."""
    def of(scenario, server_url, api_key="", name="127.0.0.1", directory=""):
        query = urllib.parse.urlencode(
            {"scenario": scenario, "serverUrl": server_url, "apiKey": api_key, "directory": directory})
        with Browser(f"{pages.origin(name)}/?{query}") as browser:
            outcome = browser.wait_for(pages.outcomes)
        assert "found" in outcome, outcome
        return outcome["found"]
    return of


def test_a_conversation(allowing, page, tmp_path):
    tmp_path.chmod(0o755)
    assert page("conversation", allowing.url, allowing.key, directory=tmp_path) == {
        "version": "string", "state": "42", "stream": "0\n1\n2\n", "streams": {"stdout": "out\n", "stderr": "bad\n"}, "exit": 3,
        "process": ["in\n", True], "text": "é\n", "mode": "600", "written": 300_000, "size": 300_000,
        "bytes": "read its bytes with read()", "upload": "use write() with a Blob, or readPieces()", "missing": [404, True],
        "aborted": ["TimeoutError", True], "after": "it goes on\n"}


def test_a_program_of_0_2(allowing, page):
    assert page("old", allowing.url, allowing.key) == ["Hello page!", False, False]


def test_a_key_that_is_none_is_told_as_such(allowing, page):
    assert "key" in page("key", allowing.url)


def test_an_origin_that_is_not_allowed_is_told_as_such(allowing, page, pages):
    told = page("origin", allowing.url, allowing.key, name="localhost")
    assert told["origin"] == pages.origin("localhost")
    assert told["message"] == f"the server {allowing.url} does not answer pages of the origin {told['origin']}"
    assert '"origins"' in told["hint"] and "server.json" in told["hint"]
    assert told["old"] == f"Failed to start sandbox: {told['message']}"


def test_no_server_is_told_as_such(page):
    place, address = nowhere()
    with contextlib.closing(place):
        assert page("nowhere", address) == ["unreachable", True]


def test_a_port_that_browsers_refuse_is_told_as_such(page):
    message, hint = page("port", "")
    assert "refuse port 6000 of http://127.0.0.1:6000" in message and "--port" in hint
