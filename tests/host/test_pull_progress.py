# SPDX-License-Identifier: Apache-2.0
"""What a pull says while it goes on: lines, or bars on a terminal."""

import re

import pytest
from conftest import wait_until
from pseudo_terminal import Terminal
from registry import faults


def short(descriptor):
    return descriptor["digest"].partition(":")[2][:12]


def test_lines_tell_of_each_layer_once_when_nobody_watches(bed, msb, small):
    result = msb("pull", f"{bed.registry.address}/{small.name}")
    assert result.returncode == 0
    assert not re.search(rb"[\r\x1b]", result.stderr), "neither colours nor cursors without a terminal"
    lines = result.stderr.decode().splitlines()
    assert len(lines) < 20
    for layer in small.layers:
        assert any(short(layer) in line for line in lines)


def test_a_long_pull_says_now_and_then_that_it_goes_on_but_does_not_flood(msb, small, proxy):
    proxy.on(small.layers[1]["digest"], faults.slow(200_000))
    result = msb("pull", f"{proxy.address}/{small.name}")
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) < 30


def test_a_terminal_shows_how_far_each_layer_is_and_how_fast(msb, small, proxy):
    proxy.on(small.layers[1]["digest"], faults.slow(150_000))
    with Terminal(msb, "pull", f"{proxy.address}/{small.name}") as terminal:
        assert terminal.wait() == 0
        assert terminal.restored()
    for layer in small.layers:
        assert short(layer) in terminal.text
    assert re.search(r"\d+(\.\d+)? ?[kKM]i?B/s", terminal.text)
    assert small.digest in terminal.text
    # Whatever it hid, it shows again.
    assert terminal.text.count("\x1b[?25l") == terminal.text.count("\x1b[?25h")


@pytest.mark.parametrize("columns", [1, 20, 40, 300])
def test_a_terminal_of_any_width_is_not_written_past_its_edge(msb, small, proxy, columns):
    proxy.on(small.layers[1]["digest"], faults.slow(600_000))
    with Terminal(msb, "pull", f"{proxy.address}/{small.name}", columns=columns) as terminal:
        assert terminal.wait() == 0
    # What moves comes after the cursor went up and the screen was cleared; lines that stay may be as long as they are.
    drawn = [line for part in terminal.text.split("\x1b[J") for line in part.splitlines() if re.search(r"\[[ =]*\]|of 2 layers", line)]
    assert columns < 40 or drawn
    assert all(len(line) < columns for line in drawn)


def test_an_interrupted_pull_leaves_the_terminal_as_it_was(msb, small, proxy):
    proxy.on(small.layers[1]["digest"], faults.stall(100_000))
    with Terminal(msb, "pull", f"{proxy.address}/{small.name}") as terminal:
        terminal.wait_for(short(small.layers[1]))
        wait_until(lambda: proxy.count("GET", small.layers[1]["digest"]) == 1, "the layer is asked for")
        terminal.type("\x03")
        assert terminal.wait() != 0
        assert terminal.restored()
        assert terminal.text.count("\x1b[?25l") == terminal.text.count("\x1b[?25h")


def test_quiet_is_quiet_on_a_terminal(bed, msb, small):
    with Terminal(msb, "pull", "--quiet", f"{bed.registry.address}/{small.name}") as terminal:
        assert terminal.wait() == 0
    assert terminal.text.split() == [f"{bed.registry.address}/{small.name.partition(':')[0]}@{small.digest}"] or \
        terminal.text.strip().endswith(f"@{small.digest}") and len(terminal.text.splitlines()) == 1


def test_standard_error_that_is_closed_or_full_does_not_stop_a_pull(bed, msb, small):
    for target in ("/dev/full", "/dev/null"):
        with open(target, "wb") as errors, msb.start("pull", f"{bed.registry.address}/{small.name}", stderr=errors) as process:
            process.communicate(timeout=60)
        assert process.returncode == 0
