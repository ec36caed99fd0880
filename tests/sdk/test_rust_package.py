# SPDX-License-Identifier: Apache-2.0
"""The Rust crate: its own tests, what its documentation shows, programs of 0.2, what drop does, and how it is packed."""

import os
import shutil
import subprocess
import tarfile

import pytest
import rust_sdk
from conftest import wait_until
from server_bed import needs_root

pytestmark = [pytest.mark.skipif(bool(rust_sdk.missing()), reason=rust_sdk.missing())]

FEATURES = ("--offline", "--quiet", "--no-default-features")


def where(server):
    return {"MSB_SERVER_URL": server.url, "MSB_API_KEY": server.key}


def run(program, *words, server):
    return subprocess.run([program, *words], env=os.environ | where(server), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(shutil.which("rustfmt", path="/usr/bin") is None, reason="rustfmt is missing (Debian: rustfmt)")
def test_it_is_formatted():
    roots = [rust_sdk.SOURCE / "src/lib.rs", *(rust_sdk.SOURCE / "examples").glob("*.rs")]
    checked = subprocess.run(["/usr/bin/rustfmt", "--edition", "2021", "--check", *roots], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_its_parts_work():
    rust_sdk.cargo("test", *FEATURES, "--lib")


@needs_root
def test_what_the_documentation_shows_runs(server):
    """Of the README and of the reference: each snippet is a program that sees the server."""
    done = rust_sdk.cargo("test", *FEATURES, "--doc", **where(server))
    assert "0 failed; 0 ignored" in done.stdout and "0 passed" not in done.stdout, done.stdout


SAID = """Hello Python!
true false true
true
true true
not started: Sandbox is not started. Call start() first.
[0, 1, 4, 9] true
"  kept  \\n"
failed: true
true
"old-name" true
again
3 bad true
42
no connection: true
"""


@needs_root
def test_programs_of_0_2_run_after_changing_the_address(server):
    ran = run(rust_sdk.build_example("old"), server=server)
    assert (ran.stdout, ran.stderr, ran.returncode) == (SAID, "", 0)


@needs_root
@pytest.mark.parametrize("how", ["error", "runtime"])
def test_a_sandbox_that_was_dropped_is_gone_when_the_program_has_ended(server, http, how):
    ran = run(rust_sdk.build_example("dropped"), how, server=server)
    assert ran.returncode == (1 if how == "error" else 0), ran.stderr
    name = ran.stdout.strip()
    wait_until(lambda: http.get(f"/v1/sandboxes/{name}").status == 404, f"{name} is gone")


def test_it_is_packed_with_what_users_need(tmp_path):
    rust_sdk.cargo("package", "--offline", "--quiet", "--no-verify", "--allow-dirty", "--target-dir", tmp_path)
    [crate] = (tmp_path / "package").glob("microsandbox-*.crate")
    names = {name.partition("/")[2] for name in tarfile.open(crate).getnames()}
    assert {"Cargo.toml", "README.md", "src/lib.rs"} <= names
    assert not [name for name in names if name.startswith(("examples", "target"))]
