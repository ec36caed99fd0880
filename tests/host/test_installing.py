# SPDX-License-Identifier: Apache-2.0
"""`msb install` and what removes it, as far as that needs no guest."""

import re


def test_all_that_is_installed_is_removed_with_its_home(sandboxes):
    for alias in ("one", "two"):
        sandboxes.done("install", "base", alias)
    sandboxes.bin.joinpath("mine").write_text("#!/bin/sh\n")
    sandboxes.refused("clean", "--user", words=["--force"])
    sandboxes.done("clean", "--user", "--force")
    assert [path.name for path in sandboxes.bin.iterdir()] == ["mine"]
    assert not (sandboxes.home / "images.db").exists() and not (sandboxes.home / "installed").exists()


def test_places_are_where_xdg_says(sandboxes):
    data, commands = sandboxes.directory / "data", sandboxes.directory / "commands"
    data.mkdir()
    sandboxes.home.rename(data / "microsandbox")
    del sandboxes.environment["MSB_HOME"]
    sandboxes.environment |= {"XDG_DATA_HOME": str(data), "XDG_BIN_HOME": str(commands)}
    sandboxes.done("i", "base", "one")
    assert (commands / "one").exists() and (data / "microsandbox/installed/one/installed.json").exists()
    assert list(sandboxes.user.iterdir()) == []
    script = (commands / "one").read_text()
    assert f"MSB_HOME={data}/microsandbox exec " in script, "it is found from everywhere"
    sandboxes.done("uninstall", "one")
    assert list(commands.iterdir()) == []
    sandboxes.environment["MSB_HOME"] = "relative"
    sandboxes.refused("install", "--list", words=["MSB_HOME", "absolute"])


def test_an_image_names_its_command(sandboxes):
    sandboxes.done("install", "base")
    assert (sandboxes.bin / "base").exists()
    sandboxes.refused("install", "-v", "./nowhere:/x", "base", "two", words=["./nowhere"])
    assert [entry["alias"] for entry in sandboxes.json("install", "--list")] == ["base"]


def test_of_two_who_install_the_same_alias_at_once_one_does(sandboxes):
    both = [sandboxes.start("install", "base", "one", "--env", f"WHO={who}") for who in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], errors
    assert [entry["alias"] for entry in sandboxes.json("install", "--list")] == ["one"]
    [loser] = [number for number, process in enumerate(both) if process.returncode == 1]
    assert re.search(rb"being installed, or installed already|'one' is installed already|exists already", errors[loser])
    [kept] = sandboxes.json("install", "--list")
    assert kept["spec"]["envs"] == [f"WHO={1 - loser}"]


def test_a_file_that_is_not_ours_is_not_touched(sandboxes):
    sandboxes.bin.mkdir(parents=True)
    (sandboxes.bin / "mine").write_text("#!/bin/sh\n")
    sandboxes.refused("install", "base", "mine", words=["exists already"])
    sandboxes.refused("uninstall", "mine", words=["not made by"])
    assert (sandboxes.bin / "mine").read_text() == "#!/bin/sh\n"
    sandboxes.refused("install", "base", "a/b", words=["a/b"])
