# SPDX-License-Identifier: Apache-2.0
"""The Rust SDK, built offline from what Debian packages, in build/rust."""

import fcntl
import os
import shutil
import subprocess

from conftest import REPOSITORY

SOURCE = REPOSITORY / "sdk/rust"
PLACE = REPOSITORY / "build/rust"
REGISTRY = "/usr/share/cargo/registry"  # of librust-*-dev
TOOLS = {name: f"/usr/bin/{name}" for name in ("cargo", "rustc", "rustdoc")}  # a newer toolchain may be in PATH


def missing():
    """What has to be installed first, or an empty text."""
    if not all(map(os.path.exists, TOOLS.values())):
        return "cargo and rustc of Debian are missing"
    packages = ("reqwest", "tokio", "serde_json", "futures-util", "bytes", "base64", "regex")
    there = os.listdir(REGISTRY) if os.path.isdir(REGISTRY) else []
    lacking = [name for name in packages if not any(entry.startswith(f"{name}-") for entry in there)]
    return f"librust-*-dev of {', '.join(lacking)} are missing" if lacking else ""


def environment(**more):
    """One job and no debug information: processors are scarce where tests run."""
    # Without TLS, which would be half of what there is to compile; nothing here speaks it.
    return os.environ | {
        "CARGO_HOME": str(PLACE / "home"), "CARGO_TARGET_DIR": str(PLACE / "target"), "CARGO_BUILD_JOBS": "1",
        "CARGO_INCREMENTAL": "0", "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_DEV_OPT_LEVEL": "0",
        "CARGO_PROFILE_TEST_DEBUG": "0", "RUSTC": TOOLS["rustc"], "RUSTDOC": TOOLS["rustdoc"],
        "PATH": f"/usr/bin:{os.environ['PATH']}", "CARGO_TERM_COLOR": "never"} | more


def prepare():
    """A copy of the crate, for what cargo writes beside it."""
    (PLACE / "home").mkdir(parents=True, exist_ok=True)
    (PLACE / "home/config.toml").write_text(
        f'[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "{REGISTRY}"\n[net]\noffline = true\n')
    crate = PLACE / "crate"
    for path in crate.rglob("*") if crate.exists() else ():
        if path.is_file() and path.name != "Cargo.lock" and not (SOURCE / path.relative_to(crate)).exists():
            path.unlink()
    # With their times, by which cargo knows what has changed.
    shutil.copytree(SOURCE, crate, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target", "Cargo.lock"))
    return crate


def cargo(*words, check=True, **variables):
    """Runs it on the crate; one at a time."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with open(PLACE / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run([TOOLS["cargo"], *map(str, words)], cwd=prepare(), env=environment(**variables),
                              capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def build_example(name):
    """The program."""
    cargo("build", "--offline", "--quiet", "--no-default-features", "--example", name)
    return PLACE / "target/debug/examples" / name
