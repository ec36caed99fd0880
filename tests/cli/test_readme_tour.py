# SPDX-License-Identifier: Apache-2.0
"""The README's tour, line by line: what it says is typed, and what it shows is what comes."""

import re
import subprocess

from conftest import REPOSITORY

MARK = "-- end of a command --"


def tour():
    """Commands, and the lines that are shown below each."""
    text = (REPOSITORY / "README.md").read_text()
    text = text[text.index("## A tour"):text.index("## Status")]
    steps = []
    for line in text.splitlines():
        if line.startswith("    $ "):
            steps.append(([line[6:]], []))
        elif line.startswith("    > "):
            steps[-1][0].append(line[6:])
        elif line.startswith("    "):
            steps[-1][1].append(line[4:])
    return steps


def test_the_tour(sandboxes):
    steps = tour()
    assert len(steps) > 20
    # A port of this test's own, as another run may have that of the README.
    port = subprocess.run(["python3", "-c", "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])"],
                          capture_output=True, check=True).stdout.decode().strip()
    script = "cd ~\n"
    for command, _ in steps:
        script += "\n".join(command).replace("8080", port) + f"\n(exit $?); status=$?; echo; echo '{MARK}'; (exit $status)\n"
    (sandboxes.directory / "tour").write_text(script)
    result = subprocess.run(["bash", sandboxes.directory / "tour"], env=sandboxes.environment, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, check=False, cwd=sandboxes.project)
    told = result.stdout.decode().split(f"{MARK}\n")
    for (command, expected), lines in zip(steps, told[:-1], strict=True):
        said = [line for line in lines.splitlines() if line]
        pattern = ["^" + re.escape(line).replace("8080", port).replace("…", ".*") + "$" for line in expected]
        assert len(said) == len(pattern) and all(map(re.match, pattern, said)), (command, expected, lines)
    assert sandboxes.running() == [] and sandboxes.runtime_files() == []
