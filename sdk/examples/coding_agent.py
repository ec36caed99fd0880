# SPDX-License-Identifier: Apache-2.0
"""An AI coding agent: it writes a program, runs its tests in a sandbox, reads what fails, mends it, and runs them again.

The agent's loop is all that a real one needs: a model says what to do next, a sandbox does it, and the model reads what came of
it. Model here stands in for one: it has a program with a bug in mind, and mends it by what it reads. Put a call of a real
one into next().

    MSB_SERVER_URL=http://127.0.0.1:5555 MSB_API_KEY=... python3 coding_agent.py
"""

import re

from microsandbox.sync import Sandbox

TASK = "Write median(numbers), with tests, in Python."
PROGRAM = """\
def median(numbers):
    ordered = sorted(numbers)
    return ordered[len(ordered) // 2]
"""
TESTS = """\
import unittest
from median import median

class Median(unittest.TestCase):
    def test_odd(self):
        self.assertEqual(median([3, 1, 2]), 2)

    def test_even(self):
        self.assertEqual(median([4, 1, 3, 2]), 2.5)

unittest.main()
"""


class Model:
    """Stands in for a language model: from what happened last to what is to be done next."""

    def __init__(self, task):
        self.plan = [("write", "median.py", PROGRAM), ("write", "test_median.py", TESTS), ("run", "python3", "test_median.py")]

    def next(self, happened):
        if self.plan:
            return self.plan.pop(0)
        if "\nOK\n" in happened:
            return ("done", "median() works, and its tests pass.")
        failed = re.search(r"FAIL: test_(\w+).*AssertionError: (\S+) != (\S+)", happened, re.DOTALL)
        if failed and failed[1] == "even":  # there are two in the middle
            mended = PROGRAM.replace("    return ordered[len(ordered) // 2]\n",
                                     "    middle = len(ordered) // 2\n"
                                     "    return (ordered[middle] + ordered[~middle]) / 2\n")
            self.plan = [("run", "python3", "test_median.py")]
            return ("write", "median.py", mended)
        return ("done", f"I do not know what to do about this:\n{happened}")


def act(sandbox, tool, *words):
    """What came of it, as the model is to read it."""
    if tool == "write":
        path, content = words
        sandbox.files.write(f"/app/{path}", content, parents=True)
        return f"{path} was written."
    ran = sandbox.command.run(words[0], list(words[1:]), workdir="/app", timeout=60)
    return f"{ran.stdout}{ran.stderr}\nexit status {ran.exit_code}"


def main():
    model = Model(TASK)
    print(f"Task: {TASK}")
    # It can be given the network with scope="public"; this one needs none.
    with Sandbox.create("python", scope="none") as sandbox:
        happened = ""
        for _ in range(20):  # steps, at most
            tool, *words = model.next(happened)
            if tool == "done":
                print(f"Done: {words[0]}")
                return
            print(f"> {tool} {words[0] if tool == 'write' else ' '.join(words)}")
            happened = act(sandbox, tool, *words)
            for line in happened.splitlines():
                if re.match(r"FAIL|AssertionError|OK|Ran", line):
                    print(f"    {re.sub(r' in [0-9.]+s', '', line)}")
        print("It took too many steps.")


if __name__ == "__main__":
    main()
