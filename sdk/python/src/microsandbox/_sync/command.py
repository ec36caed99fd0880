# SPDX-License-Identifier: Apache-2.0
# Made of _async/command.py by unasync.py: change that one.
"""Commands and processes of a sandbox, without await."""

from __future__ import annotations

from typing import List, Optional, Sequence, Union

from .._core import processes
from .._core.call import given
from .._core.sandboxes import Envs
from .._core.streams import CommandEvents, ProcessEvents
from ..results import CommandResult
from ..types import Exit, ProcessInfo
from .client import Client, CommandStream, ProcessStream


class Process:
    """A process that goes on until it ends or is removed, whoever is connected."""

    def __init__(self, client: Client, name: str, namespace: Optional[str], id: int, pid: int) -> None:
        self._client = client
        self._of = (name, namespace, id)
        self.id = id  # what `Command.attach()` takes
        self.pid = pid  # as programs in the sandbox see it

    def __repr__(self) -> str:
        return f"<Process {self.id} of the sandbox '{self._of[0]}'>"

    def info(self) -> ProcessInfo:
        """What the server knows of it now."""
        return self._client.send(processes.process(*self._of))

    def output(self, *, stdout: int = 0, stderr: int = 0, follow: bool = True) -> ProcessStream:
        """What it wrote from these offsets on, and what it writes until its end; without `follow` what there is by now."""
        return ProcessStream(self._client, ProcessEvents(*self._of, stdout, stderr, follow))

    def write(self, data: Union[bytes, str], *, end: bool = False) -> None:
        """To its standard input, which `end` closes. It waits while the process does not read."""
        content = data.encode() if isinstance(data, str) else data
        self._client.send(processes.write(*self._of, content, end))

    def close_input(self) -> None:
        """Of its standard input: it reads the end of it."""
        self.write(b"", end=True)

    def wait(self, timeout: Optional[float] = None) -> Exit:
        """For its end. Raises TimedOutError when it goes on for more than `timeout` seconds."""
        return self._client.send(processes.wait(*self._of, timeout))

    def signal(self, signal: Union[str, int], *, group: bool = False) -> None:
        """ "TERM", "SIGTERM" or 15; `group`: to its whole process group."""
        self._client.send(processes.signal(*self._of, signal, group))

    def kill(self) -> None:
        """With its group; it stays known."""
        self.signal("KILL", group=True)

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal."""
        self._client.send(processes.resize(*self._of, rows, columns))

    def remove(self) -> None:
        """Kills it, with its group, and forgets it."""
        self._client.send(processes.remove(*self._of))


class Command:
    """`sandbox.command`."""

    def __init__(self, client: Client, name: str, namespace: Optional[str]) -> None:
        self._client = client
        self._of = (name, namespace)

    def run(
            self, command: str, args: Optional[Sequence[str]] = None, timeout: Optional[float] = None, *,
            envs: Optional[Envs] = None, workdir: Optional[str] = None, user: Optional[str] = None,
            stdin: Union[None, str, bytes] = None) -> CommandResult:
        """Runs it to its end. One whose time is over is killed: its result says `timed_out`."""
        document = processes.execution(command, args, envs=envs, workdir=workdir, user=user, timeout=timeout, stdin=stdin)
        return self._client.send(processes.run_command(*self._of, document))

    def stream(
            self, command: str, args: Optional[Sequence[str]] = None, timeout: Optional[float] = None, *,
            envs: Optional[Envs] = None, workdir: Optional[str] = None, user: Optional[str] = None,
            stdin: Union[None, str, bytes] = None) -> CommandStream:
        """The same, with what it writes while it runs."""
        document = processes.execution(command, args, envs=envs, workdir=workdir, user=user, timeout=timeout, stdin=stdin)
        return CommandStream(self._client, CommandEvents(*self._of, document))

    def start(
            self, command: str, args: Optional[Sequence[str]] = None, timeout: Optional[float] = None, *,
            envs: Optional[Envs] = None, workdir: Optional[str] = None, user: Optional[str] = None,
            input: bool = False, terminal: Optional[Sequence[int]] = None, label: Optional[str] = None,
            keep: Optional[int] = None) -> Process:
        """Starts it in the background. `input`: it is written to by `Process.write()`; `terminal`: (rows, columns);
        `keep`: bytes of each output that stay readable."""
        size = None if terminal is None else {"rows": terminal[0], "columns": terminal[1]}
        document = processes.execution(command, args, envs=envs, workdir=workdir, user=user, timeout=timeout,
                                       **given(input=input or None, terminal=size, label=label, keep=keep))
        id, pid = self._client.send(processes.start(*self._of, document))
        return Process(self._client, *self._of, id, pid)

    def list(self) -> List[ProcessInfo]:
        """Processes that were started from outside."""
        return self._client.send(processes.processes(*self._of))

    def attach(self, id: int) -> Process:
        """A process that was started before, by whomever."""
        info = self._client.send(processes.process(*self._of, id))
        return Process(self._client, *self._of, info.id, info.pid)
