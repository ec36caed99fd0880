# SPDX-License-Identifier: Apache-2.0
"""Installed sandboxes: one word in any directory enters one."""

import subprocess

from sandboxes import Sandboxes


def typed(sandboxes: Sandboxes, *command, stdin=b""):
    return subprocess.run(command, env=sandboxes.environment, cwd=sandboxes.user, input=stdin, capture_output=True, timeout=150,
                          check=False)


def test_each_alias_keeps_its_own_state(sandboxes):
    sandboxes.done("install", "base", "one", "--env", "WHO=first", "--", "sh")
    sandboxes.done("base", "two", "--env", "WHO=second", "--", "sh", program="msi")
    assert [entry["alias"] for entry in sandboxes.json("install", "--list")] == ["one", "two"]
    first = typed(sandboxes, "one", "-c", "echo $WHO > /mark; cat /mark")
    assert first.stdout == b"first\n", first.stderr
    second = typed(sandboxes, "two", "-c", "cat /mark || echo $WHO")
    assert second.stdout == b"second\n", second.stderr
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
    once = typed(sandboxes, "gone", "-c", "echo x > /mark; cat /mark")
    assert once.stdout == b"x\n", once.stderr
    assert typed(sandboxes, "gone", "-c", "test -e /mark").returncode == 1
    sandboxes.done("uninstall", "gone")


def test_what_is_typed_behind_an_alias_follows_the_images_command(sandboxes):
    for alias, options in (("kept", ()), ("gone", ("--temp",))):
        sandboxes.done("install", *options, "python", alias)
        told = typed(sandboxes, alias, "-c", "import sys; print(sys.argv)", "x")
        assert told.stdout == b"['-c', 'x']\n", told.stderr
        sandboxes("stop", alias)
        sandboxes.done("uninstall", alias)
