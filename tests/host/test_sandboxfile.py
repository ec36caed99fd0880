# SPDX-License-Identifier: Apache-2.0
"""What `msb` does and refuses before any guest has to be started."""

import json
import os
import re
import subprocess

import pytest


def test_the_sandboxfile_is_edited_with_its_comments(sandboxes):
    assert sandboxes.done("init").startswith("Made Sandboxfile")
    assert (sandboxes.project / "Sandboxfile").read_text() == "# Sandbox configurations\nsandboxes:\n"
    assert (sandboxes.project / ".gitignore").read_text() == "menv/\n"
    sandboxes.refused("init", words=["exists already"])
    sandboxes.done("add", "web", "--image", "base", "--memory", "256", "-p", "0:80", "--start", "echo started; exec sleep 1000")
    sandboxes.done("add", "--image", "base", "--env", "A=b: c", "db", "cache")
    text = (sandboxes.project / "Sandboxfile").read_text()
    (sandboxes.project / "Sandboxfile").write_text(text.replace("  db:", "  # the data\n  db:"))
    assert sandboxes.done("list").split() == ["web", "db", "cache"]
    sandboxes.refused("add", "web", "--image", "base", words=["web"])
    sandboxes.refused("add", "bad/name", "--image", "base", words=["bad/name"])
    sandboxes.done("remove", "cache")
    text = (sandboxes.project / "Sandboxfile").read_text()
    assert "# the data\n  db:" in text and "cache" not in text
    sandboxes.refused("remove", "wbe", words=['did you mean "web"?'])
    sandboxes.refused("run", "wbe", words=['did you mean "web"?'])


def test_a_broken_sandboxfile_is_told_with_its_place(sandboxes):
    cases = {
        "": "Sandboxfile declares no sandbox",
        "just words": "Sandboxfile:1:1",
        "sandboxes: [": "Sandboxfile:1",
        "sandboxes:\n  a: {image: base, memmory: 1}\n": 'Sandboxfile:2:20: .*did you mean "memory"',
        "sandboxes:\n  a: {image: base}\n  a: {image: base}\n": "Sandboxfile:3:3",
        "sandboxes:\n  a: {image: base, depends_on: [b]}\n  b: {image: base, depends_on: [a]}\n": "a -> b -> a",
        "sandboxes:\n  a: {memory: 512}\n": "Sandboxfile:2:3: .*image",
        "sandboxes:\n  a: {image: base, memory: 99999999999G}\n": "Sandboxfile:2:28",
        "builds: {}\nsandboxes:\n": "Sandboxfile:1:1: .*builds",
        "sandboxes:\n  'a b': {image: base}\n": "Sandboxfile:2:3",
        "sandboxes:\n  ../a: {image: base}\n": "Sandboxfile:2:3",
    }
    for text, expected in cases.items():
        sandboxes.write(text)
        assert re.search(expected, sandboxes.refused("up")), (text, sandboxes("up").stderr)
    sandboxes.write("sandboxes:\n  a: {image: base, volumes: ['./nowhere:/x']}\n")
    sandboxes.refused("up", words=["Sandboxfile:2:30: ", "nowhere", "make it first"])
    sandboxes.write("sandboxes:\n  a:\n    image: base\n    env_files: ./none\n")
    sandboxes.refused("up", words=["Sandboxfile:4:16: ", "none"])
    sandboxes.write("sandboxes:\n  a:\n    image: 'localhost:1/none'\n")
    sandboxes.refused("up", words=["Sandboxfile:3:12: ", "localhost:1"])
    assert sandboxes.runtime_files() == []


def test_those_who_change_a_sandboxfile_at_once_lose_nothing(sandboxes):
    sandboxes.done("init")
    both = [sandboxes.start("add", f"s{number}", "--image", "base") for number in range(12)]
    for process in both:
        assert process.communicate(timeout=60)[1] == b"" and process.returncode == 0
    assert sorted(sandboxes.done("list").split()) == sorted(f"s{number}" for number in range(12))


def test_a_quotation_mark_that_is_not_closed_loses_nothing(sandboxes):
    text = "sandboxes:\n  a:\n    image: base\n    scripts:\n      start: \"echo hi\n  b:\n    image: python\n"
    sandboxes.write(text)
    sandboxes.refused("remove", "a", words=["Sandboxfile:5:14: ", "never closed"])
    assert (sandboxes.project / "Sandboxfile").read_text() == text


def test_a_project_directory_that_cannot_be_written(sandboxes):
    sandboxes.write("sandboxes:\n  a: {image: base, shell: sh}\n")
    (sandboxes.project / "menv").write_text("a file")
    sandboxes.refused("run", "a", words=["menv"])
    (sandboxes.project / "menv").unlink()
    (sandboxes.project / "menv").symlink_to(sandboxes.user)
    sandboxes.refused("run", "a", words=["menv"])
    sandboxes.refused("clean", "--force", words=["menv"])
    assert list(sandboxes.user.iterdir()) == []


def test_a_project_directory_that_is_read_only(sandboxes):
    if os.geteuid() != 0:
        pytest.skip("skipped: only root mounts file systems")
    subprocess.run(["mount", "-t", "tmpfs", "none", sandboxes.project], check=True)
    try:
        sandboxes.write("sandboxes:\n  a: {image: base}\n")
        subprocess.run(["mount", "-o", "remount,ro", sandboxes.project], check=True)
        sandboxes.refused("run", "a", words=["menv", "Read-only"])
        sandboxes.refused("up", words=["menv", "Read-only"])
        sandboxes.refused("add", "b", "--image", "base", words=["Sandboxfile", "Read-only"])
        assert sandboxes.done("list") == "a\n"
        assert not sandboxes.json("status")[0]["running"]
    finally:
        subprocess.run(["umount", sandboxes.project], check=True)


def test_the_state_of_the_old_line_is_said_to_be_unused(sandboxes):
    (sandboxes.project / ".menv").mkdir()
    sandboxes.write("sandboxes:\n  a: {image: base}\n")
    assert b".menv" in sandboxes("list").stderr


def test_nothing_outside_the_project_is_used_without_consent(sandboxes):
    outside = sandboxes.user / "secret"
    outside.mkdir()
    (outside / "key").write_text("private")
    (sandboxes.project / "link").symlink_to(outside)
    for volume in (f"{outside}:/s", "./link:/s", "../user/secret:/s"):
        sandboxes.write(f"sandboxes:\n  box: {{image: base, volumes: ['{volume}'], command: [cat, /s/key]}}\n")
        sandboxes.refused("run", "box", words=[str(outside), "--yes"])
    sandboxes.write(f"sandboxes:\n  box: {{image: '{outside}', command: [cat, /key]}}\n")
    sandboxes.refused("run", "box", words=[str(outside)])
    sandboxes.write("sandboxes:\n  box: {image: base, env_files: ['../user/secret/key'], command: [env]}\n")
    sandboxes.refused("run", "box", words=["secret/key"])
    sandboxes.write("sandboxes:\n  box: {image: base, ports: ['0.0.0.0:0:80'], command: ['true']}\n")
    sandboxes.refused("run", "box", words=["0.0.0.0"])


def test_one_that_failed_is_shown_with_its_kernels_words(sandboxes):
    sandboxes.write("sandboxes:\n  box: {image: base}\n")
    state = sandboxes.project / "menv/box"
    state.mkdir(parents=True)
    (state / "exit.json").write_text(json.dumps({"status": 125, "cause": "failed", "message": "the guest crashed", "started_ms": 1, "ended_ms": 2,
                                                 "kernel": ["Kernel panic - not syncing", "\x1b[31mred"]}))
    told = sandboxes.done("status")
    assert "box failed: the guest crashed\n  Kernel panic - not syncing\n" in told and "\x1b" not in told
    [entry] = sandboxes.json("status")
    assert entry["exit"]["kernel"][0] == "Kernel panic - not syncing"


def test_what_is_left_of_a_project_without_its_sandboxfile_can_be_cleaned(sandboxes):
    for text in (None, "sandboxes: ["):
        state = sandboxes.project / "menv/box"
        state.mkdir(parents=True)
        (state / "sandbox.json").write_text("{}")
        if text:
            sandboxes.write(text)
        sandboxes.refused("clean", words=["menv", "--force"])
        sandboxes.done("clean", "box")
        assert [path.name for path in (sandboxes.project / "menv").iterdir()] == []
        sandboxes.done("clean", "--force")
        assert not (sandboxes.project / "menv").exists()
    (sandboxes.project / "Sandboxfile").unlink()
    sandboxes.refused("clean", "--force", words=["msb init"])


def test_an_interrupted_removal_goes_with_the_next(sandboxes):
    sandboxes.write("sandboxes:\n  box: {image: base}\n")
    remainder = sandboxes.project / "menv/.removed-box-77"
    for command in (("clean", "--force"), ("clean", "box")):
        remainder.mkdir(parents=True)
        (remainder / "disk.ext4").write_text("half")
        state = sandboxes.project / "menv/box"
        state.mkdir()
        (state / "lock").touch()
        sandboxes.done(*command)
        assert not remainder.exists() and not state.exists()


def test_what_cannot_be_run_is_said_in_a_sentence(sandboxes):
    sandboxes.refused("exe", "./nothing", "--", "true", words=["./nothing"])
    sandboxes.refused("exe", "--cpus", "0", "base", words=["--cpus"])
    sandboxes.refused("exe", "--memory", "lots", "base", words=["--memory", "lots"])
    sandboxes.refused("exe", "--disk", "99999999T", "base", words=["--disk"])
    sandboxes.refused("exe", "-v", "/nowhere/at/all:/x", "base", words=["/nowhere/at/all"])
    sandboxes.refused("exe", "--name", "a b", "base", words=["a b"])
    sandboxes.refused("exe", "--name", "x" * 300, "base", words=["63"])
    sandboxes.refused("exe", "base~tset", words=["tset"])
    sandboxes.refused("ex", "base", status=2, words=['did you mean "exe"?'])
    sandboxes.refused("exe", "--memroy", "1", "base", status=2, words=['did you mean "--memory"?'])
