# SPDX-License-Identifier: Apache-2.0
"""Runs a command and writes the bytes of memory that it had resident at most: peak_memory.py FILE COMMAND...

A program of its own, since what a process had before it became the command counts as the command's (getrusage(2), ru_maxrss):
whoever wants to know must be small.
"""

import os
import sys

if __name__ == "__main__":
    pid = os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
    _, status, usage = os.wait4(pid, 0)
    with open(sys.argv[1], "w", encoding="ascii") as file:
        file.write(str(usage.ru_maxrss << 10))
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)
