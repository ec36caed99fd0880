# SPDX-License-Identifier: Apache-2.0
"""A shell in a guest that runs one command after the other, and the sandbox's control socket."""

import subprocess

from conftest import BASE, TIMEOUT, read_output
from control_client import Control

LOOP = 'while read -r line; do eval "$line" > /tmp/said 2>&1 </dev/null; status=$?; wc -c < /tmp/said; echo $status; cat /tmp/said; done'


class GuestShell:
    def __init__(self, vmm, control, *options, image=BASE, prefix=()):
        self.process = vmm.start("run", "--image", image, "--control", control, *options, "--", "sh", "-c", LOOP,
                                 stdin=subprocess.PIPE, prefix=prefix)
        try:
            self.control = Control(control)
            self("true")
        except BaseException:
            self.process.kill()
            raise

    def line(self):
        line = b""
        while not line.endswith(b"\n"):
            line += read_output(self.process, 1)
        return int(line)

    def __call__(self, command, status=0):
        """What the command, one line, printed; it ends with `status`, if that is not None."""
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        size, ended = self.line(), self.line()
        said = read_output(self.process, size).decode() if size else ""
        assert status is None or ended == status, (command, ended, said)
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.control.__exit__()
        self.process.stdin.close()
        try:
            self.process.wait(TIMEOUT)
        finally:
            self.process.kill()
            self.errors = self.process.stderr.read().decode()
            self.process.stdout.close()
            self.process.stderr.close()
