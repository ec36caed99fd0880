# SPDX-License-Identifier: Apache-2.0
"""`msb`, or another program, on a terminal of its own, whose keys a test presses and whose text it reads."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from msb import MSB

SECONDS = 30


class Terminal:
    def __init__(self, msb, *arguments, columns=100, program=MSB, pass_fds=()):
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("<HHHH", 30, columns, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        self.text = ""
        self.process = subprocess.Popen([program, *arguments], stdin=self.theirs, stdout=self.theirs, stderr=self.theirs,
                                        env=msb.environment | {"TERM": "xterm"}, start_new_session=True, pass_fds=pass_fds,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def _read(self, seconds):
        if select.select([self.ours], [], [], seconds)[0]:
            self.text += os.read(self.ours, 65536).decode(errors="replace")
            return True
        return False

    def type(self, text):
        os.write(self.ours, text.encode())

    def wait_for(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.text:
            assert time.monotonic() < deadline and (self._read(0.1) or self.process.poll() is None), \
                f"{text!r} within {SECONDS} s; there was {self.text!r}"

    def wait_without_echo(self):
        deadline = time.monotonic() + SECONDS
        while termios.tcgetattr(self.theirs)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "the terminal shows what is typed"
            time.sleep(0.01)

    def restored(self):
        return termios.tcgetattr(self.theirs) == self.before

    def wait(self):
        """Its exit status; all it wrote is in `text` then."""
        deadline = time.monotonic() + SECONDS
        while self._read(0.05) or self.process.poll() is None:
            assert time.monotonic() < deadline, f"the end within {SECONDS} s; there was {self.text!r}"
        while self._read(0):
            pass
        return self.process.returncode
