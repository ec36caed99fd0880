# SPDX-License-Identifier: Apache-2.0
"""Installed sandboxes: one word in any directory enters one."""

import subprocess

from msb import MSB
from sandboxes import Sandboxes


def typed(sandboxes: Sandboxes, *command, stdin=b""):
    return subprocess.run(command, env=sandboxes.environment, cwd=sandboxes.user, input=stdin, capture_output=True, timeout=150,
                          check=False)


def test_each_alias_keeps_its_own_state(sandboxes):
    sandboxes.done("install", "base", "one", "--env", "WHO=first", "--", "sh")
    sandboxes.done("base", "two", "--env", "WHO=second", "--", "sh", program=MSB.parent / "msi")
    assert [entry["alias"] for entry in sandboxes.json("install", "--list")] == ["one", "two"]
    assert typed(sandboxes, "one", "-c", "echo $WHO > /mark; cat /mark").stdout == b"first\n"
    assert typed(sandboxes, "two", "-c", "cat /mark || echo $WHO").stdout == b"second\n"
    assert typed(sandboxes, "one", "-c", "cat /mark; exit 5").returncode == 5
    sandboxes.refused("install", "base", "one", words=["exists already"])
    # Both ends of a pipe in the same sandbox.
    both = typed(sandboxes, "sh", "-c", "one -c 'echo through' | one -c cat")
    assert both.stdout == b"through\n", both.stderr
    sandboxes.done("stop", "one")
    sandboxes("stop", "two")
    sandboxes.done("uninstall", "one")
    assert not (sandboxes.bin / "one").exists() and (sandboxes.bin / "two").exists()
    sandboxes.refused("uninstall", "one", words=["not installed"])
    sandboxes.done("uninstall", "two")
    assert list((sandboxes.home / "installed").iterdir()) == []


def test_a_temporary_alias_keeps_nothing(sandboxes):
    sandboxes.done("install", "--temp", "base", "gone", "--", "sh")
    assert typed(sandboxes, "gone", "-c", "echo x > /mark; cat /mark").stdout == b"x\n"
    assert typed(sandboxes, "gone", "-c", "test -e /mark").returncode == 1
    sandboxes.done("uninstall", "gone")


def test_the_image_says_what_an_alias_runs(sandboxes):
    sandboxes.done("install", "python")
    told = typed(sandboxes, "python", stdin=b"print(6 * 7)\n")
    assert told.stdout == b"42\n", told.stderr
    sandboxes("stop", "python")
    sandboxes.done("uninstall", "python")


def test_a_file_that_is_not_ours_is_not_touched(sandboxes):
    sandboxes.bin.mkdir(parents=True)
    (sandboxes.bin / "mine").write_text("#!/bin/sh\n")
    sandboxes.refused("install", "base", "mine", words=["exists already"])
    sandboxes.refused("uninstall", "mine", words=["not made by"])
    assert (sandboxes.bin / "mine").read_text() == "#!/bin/sh\n"
    sandboxes.refused("install", "base", "a/b", words=["a/b"])
