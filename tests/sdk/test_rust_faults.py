# SPDX-License-Identifier: Apache-2.0
"""The Rust SDK where things go wrong at any moment: calls that are abandoned, servers that restart, very many calls.

What is the same for all SDKs is in sdk/conformance/cases/faults.json. The programs are in sdk/rust/examples/stress.rs.
"""

import contextlib
import os
import subprocess

import pytest
import rust_sdk
from conformance import scripted
from conftest import wait_until
from server_bed import needs_root

pytestmark = [pytest.mark.skipif(bool(rust_sdk.missing()), reason=rust_sdk.missing())]

SECONDS = 120
BOX = {"json": {"name": "box", "namespace": "default", "state": "running", "image": "base", "labels": {}, "ephemeral": False,
                "created_at": "2026-01-01T00:00:00.000Z", "started_at": None, "ports": [], "config": {}, "exit": None}}
RAN = {"json": {"exit_code": 0, "signal": None, "oom_killed": False, "timed_out": False, "stdout": "", "stderr": "",
                "truncated": False}}


@contextlib.contextmanager
def started(*words, url, key):
    """The program; it is not left running."""
    with subprocess.Popen([rust_sdk.build_example("stress"), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=os.environ | {"MSB_SERVER_URL": url, "MSB_API_KEY": key}) as process:
        try:
            yield process
        finally:
            process.kill()


def succeed(process):
    """Its output."""
    out, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (out, errors)
    return out


def run(*words, url, key):
    with started(*words, url=url, key=key) as process:
        succeed(process)


def test_thousands_of_calls_take_few_connections():
    with scripted([BOX, RAN]) as (url, saw):
        run("calls", url=url, key="key")
    assert len(saw["seen"]) == 3001 and saw["connections"] <= 40 and saw["open"] == 0


@needs_root
def test_a_call_can_be_abandoned_at_any_point(server_host):
    server = server_host.serve()
    run("cancel", url=server.url, key=server.key)
    wait_until(lambda: server_host.kept() == [] and server_host.running() == [], "nothing is left")


@needs_root
def test_a_creation_that_is_abandoned_leaves_nothing(server_host):
    server = server_host.serve()
    run("create", url=server.url, key=server.key)
    wait_until(lambda: server_host.kept() == [] and server_host.running() == [], "nothing is left")


@needs_root
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_output_of_a_process_goes_on_when_the_server_is_restarted(server_host, how):
    first = server_host.serve()
    gate = server_host.directory / "gate"
    with started("follow", gate, url=first.url, key=first.key) as process:
        before = process.stdout.readline()
        getattr(first, how)()
        server_host.serve(key=False, port=first.port)
        gate.touch()
        assert before + succeed(process) == "before\nafter\n"


@needs_root
def test_a_command_breaks_off_when_the_server_is_killed_and_that_is_told(server_host):
    first = server_host.serve()
    with started("cut", url=first.url, key=first.key) as process:
        before = process.stdout.readline()
        first.kill()
        server_host.serve(key=False, port=first.port)
        assert before + succeed(process) == "ready\nbroken\nagain\n"
