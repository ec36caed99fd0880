# SPDX-License-Identifier: Apache-2.0
"""The README's tour, line by line: what it says is typed, and what it shows is what comes.

Commands begin with `$`, alone on their lines; what stands within a sentence is not typed.
"""

import contextlib
import re
import socket
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


def free_ports(count):
    with contextlib.ExitStack() as taken:
        return [taken.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def test_the_tour(sandboxes):
    steps = tour()
    assert len(steps) > 25
    # Ports of this test's own, as another run may have those of the README.
    ports = dict(zip(("8080", "5555"), map(str, free_ports(2))))

    def with_ports(text):
        text = re.sub("|".join(ports), lambda found: ports[found[0]], text)
        return text.replace("server start", f"server start --port {ports['5555']}")

    script = "cd ~\n"
    for command, _ in steps:
        script += with_ports("\n".join(command)) + f"\n(exit $?); status=$?; echo; echo '{MARK}'; (exit $status)\n"
    (sandboxes.directory / "tour").write_text(script)
    result = subprocess.run(["bash", sandboxes.directory / "tour"], env=sandboxes.environment, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, check=False, cwd=sandboxes.project)
    told = result.stdout.decode().split(f"{MARK}\n")
    for (command, expected), lines in zip(steps, told[:-1], strict=True):
        said = [line for line in lines.splitlines() if line]
        pattern = ["^" + re.escape(with_ports(line)).replace("…", ".*") + "$" for line in expected]
        assert len(said) == len(pattern) and all(map(re.match, pattern, said)), (command, expected, lines)
    assert sandboxes.running() == [] and sandboxes.runtime_files() == []
