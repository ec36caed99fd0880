# SPDX-License-Identifier: Apache-2.0
"""Guests that go silent in the emulated host: what can be seen of them, and another machine for their tests.

Now and then a guest there stops with its processor halted and nothing pending, and where one did, others of that machine
follow. QEMU's translator is known to run stale code where kernels patch themselves (scripts/emulated-host.d/init.c). So the
machine is given up: its run ends, and scripts/test runs the silent test once more, and what is left, in a fresh one. Only
time that was up counts as silence: a wrong answer fails at once, and so does a second silence. On real KVM nothing is repeated.

MSB_TEST_PROGRESS names the file that one run hands to the next: "done TEST" and "silent TEST" lines.
"""

import os
import pathlib
import subprocess
import time

import pytest
from _pytest.runner import runtestprotocol

PROGRESS = os.environ.get("MSB_TEST_PROGRESS") if "MSB_EMULATED_HOST" in os.environ else None
MOST = 5  # silent guests, before they are failures like any other
SIGNS = ("the guest did not end in time",)  # what msb-vmm says of one

SILENT = []  # (test, what was seen), of this run


def lines(word):
    try:
        text = pathlib.Path(PROGRESS).read_text()
    except FileNotFoundError:
        return []
    return [line.removeprefix(word + " ") for line in text.splitlines() if line.startswith(word + " ")]


def note(word, item):
    with open(PROGRESS, "a", encoding="utf-8") as file:
        file.write(f"{word} {item.nodeid}\n")


def speed():
    """Seconds that a fixed amount of work takes: tells a slow machine from a silent guest."""
    started = time.perf_counter()
    for _ in range(300_000):
        pass
    return time.perf_counter() - started


SPEED = speed()


def threads():
    """{(process, thread): (name, where it waits, CPU time used in ticks)} of everything whose name begins with msb."""
    found = {}
    for task in pathlib.Path("/proc").glob("[0-9]*/task/[0-9]*"):
        try:
            name = (task / "comm").read_text().strip()
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            if name.startswith("msb"):
                found[task.parent.parent.name, task.name] = name, (task / "wchan").read_text(), int(fields[11]) + int(fields[12])
        except OSError:
            continue  # it has ended
    return found


def look():
    """A few lines on the machine and on what runs in it, over a second."""
    before = threads()
    time.sleep(1)
    seen = [f"speed: {speed():.3f} s for what took {SPEED:.3f} s at the start; load {os.getloadavg()[0]:.1f}"]
    for key, (name, place, used) in sorted(threads().items()):
        seen.append(f"{'/'.join(key)} {name}: waits in {place}, ran {used - before.get(key, (0, 0, used))[2]} ticks of 100")
    return seen


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Looks before the test's processes are ended."""
    report = (yield).get_result()
    error = call.excinfo
    if PROGRESS and error and report.failed and (
            error.errisinstance((subprocess.TimeoutExpired, TimeoutError)) or any(sign in str(error.value) for sign in SIGNS)):
        item.silence = [str(error.value)[:300], *look()]


def pytest_collection_modifyitems(items):
    if PROGRESS:
        done = set(lines("done"))
        items[:] = [item for item in items if item.nodeid not in done]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if not PROGRESS:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    silent = getattr(item, "silence", None)
    before = lines("silent")
    if silent:
        SILENT.append((item.nodeid, silent))
    if silent and item.nodeid not in before and len(before) < MOST:
        note("silent", item)
        item.session.shouldstop = "a guest went silent; the rest runs in a fresh machine"
    else:
        note("done", item)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter):
    for test, seen in SILENT:
        terminalreporter.write_line(f"a guest went silent: {test}")
        for line in seen:
            terminalreporter.write_line(f"  {line}")
