# SPDX-License-Identifier: Apache-2.0
"""What microsandbox 0.2's clients say and hear: JSON-RPC, and the results of `PythonSandbox` and `NodeSandbox`."""

from __future__ import annotations

import contextlib
import importlib
import os
import uuid
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import BrokenConnectionError, MicrosandboxError, NotUnderstoodError, TimedOutError, UnreachableError
from .call import NO_END, PATIENCE, Call, Reply, given
from .sandboxes import Envs, config_of, words_of

# What 0.2's messages begin with.
START_FAILED = "Failed to start sandbox"
STOP_FAILED = "Failed to stop sandbox"
RUN_FAILED = "Failed to execute code"
COMMAND_FAILED = "Failed to execute command"
METRICS_FAILED = "Failed to get sandbox metrics"
NO_ANSWER = "Failed to communicate with Microsandbox server"  # to a start or stop


def load_dotenv() -> None:
    """As 0.2 did: where there is python-dotenv, a file .env may say what the environment does not."""
    if "MSB_API_KEY" not in os.environ:
        with contextlib.suppress(Exception):  # a file that cannot be read is as none
            importlib.import_module("dotenv").load_dotenv()


def identity(namespace: str, name: Optional[str], api_key: Optional[str]) -> Tuple[str, Optional[str], Optional[str]]:
    """These three, also when they were given by position as to clients later than 0.2.6, which have no namespace: the name,
    then the key. A key has dots, and a name has none."""
    if api_key is None and name is not None and name.startswith("msb_") and "." in name:
        return "default", namespace, name
    return namespace, name, api_key


def not_started() -> MicrosandboxError:
    return MicrosandboxError("Sandbox is not started. Call start() first.", code="conflict")


def _rpc(method: str, params: Dict[str, Any], *, repeatable: bool, patience: Optional[float]) -> Call[Any]:
    document = {"jsonrpc": "2.0", "method": method, "params": params, "id": str(uuid.uuid4())}

    def read(reply: Reply) -> Any:
        return reply.document()["result"]

    return Call("POST", "/api/v1/rpc", read, document=document, repeatable=repeatable, patience=patience)


class Requests:
    """Of one sandbox."""

    def __init__(self, name: str, namespace: str, language: str) -> None:
        self._of = {"namespace": namespace, "sandbox": name}
        self._language = language

    def start(self, image: str, memory: int, cpus: float, timeout: float, volumes: Optional[Sequence[str]],
              ports: Optional[Sequence[str]], envs: Optional[Envs], depends_on: Optional[Sequence[str]],
              workdir: Optional[str], shell: Optional[str], scripts: Optional[Mapping[str, str]],
              exec: Optional[str]) -> Call[str]:
        if isinstance(volumes, (int, float)):  # up to 0.2.6 the timeout was the fourth
            volumes, timeout = None, volumes
        config = config_of(image=image, memory=memory, cpus=max(1, round(cpus)), volumes=volumes, ports=ports, envs=envs,
                           depends_on=depends_on, workdir=workdir, shell=shell, scripts=scripts, exec=exec)
        # It may be repeated: one that runs is started already.
        return _rpc("sandbox.start", {**self._of, "config": config}, repeatable=True, patience=timeout + 30)

    def stop(self) -> Call[str]:
        return _rpc("sandbox.stop", self._of, repeatable=True, patience=PATIENCE)

    def run(self, code: str) -> Call[Any]:
        params = {**self._of, "language": self._language, "code": code}
        return _rpc("sandbox.repl.run", params, repeatable=False, patience=NO_END)

    def command(self, command: str, args: Optional[Sequence[str]], timeout: Optional[float]) -> Call[Any]:
        params = {**self._of, "command": command, "args": words_of(args), **given(timeout=timeout)}
        return _rpc("sandbox.command.run", params, repeatable=False, patience=NO_END)

    def metrics(self) -> Call[Any]:
        return _rpc("sandbox.metrics.get", self._of, repeatable=True, patience=PATIENCE)


def said_of(error: MicrosandboxError, what: str) -> MicrosandboxError:
    """The same, in 0.2's words for what failed."""
    if what in (START_FAILED, STOP_FAILED) and isinstance(error, (UnreachableError, BrokenConnectionError)):
        what = NO_ANSWER
    if isinstance(error, TimedOutError) and "timed out" not in error.message:  # which programs look for
        what += ": timed out"
    error.message = f"{what}: {error.message}"
    error.args = (error.message,)
    return error


def first_metrics(result: Any) -> Dict[str, Any]:
    """Of the sandbox that was asked for; nothing when it is not there."""
    try:
        found = result["sandboxes"]
        return dict(found[0]) if found else {}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise NotUnderstoodError("the answer has no metrics", code="not_understood") from error


class _Lines:
    """What was written, as lines of two streams."""

    def __init__(self, output_data: Optional[Mapping[str, Any]]) -> None:
        self._data: Mapping[str, Any] = output_data if isinstance(output_data, Mapping) else {}
        self._output_lines: List[Dict[str, str]] = list(self._data.get("output") or [])

    def _text(self, stream: str) -> str:
        return "\n".join(line.get("text", "") for line in self._output_lines if line.get("stream") == stream).rstrip()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Dict[str, str]:
        return {"text/plain": "\n".join(line.get("text", "") for line in self._output_lines)}


class ExecutionFacts(_Lines):
    """What is known of code that was run, but for its texts."""

    def __init__(self, output_data: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(output_data)
        self._status = str(self._data.get("status", "unknown"))
        self._language = str(self._data.get("language", "unknown"))
        self._has_error = self._status in ("error", "exception") or any(
            line.get("stream") == "stderr" and line.get("text") for line in self._output_lines)

    def has_error(self) -> bool:
        """Also when it wrote to standard error only."""
        return self._has_error

    @property
    def status(self) -> str:
        """The server's word for how it went: "success" or "error"."""
        return self._status

    @property
    def language(self) -> str:
        """As the server knows it: "python" or "nodejs"."""
        return self._language


class CommandFacts(_Lines):
    """What is known of a command that was run, but for its texts."""

    def __init__(self, output_data: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(output_data)
        self._command = str(self._data.get("command", ""))
        self._args: List[str] = list(self._data.get("args") or [])
        self._exit_code = int(self._data.get("exit_code", -1))
        self._success = bool(self._data.get("success", False))

    @property
    def exit_code(self) -> int:
        """128 and the signal's number when one ended it."""
        return self._exit_code

    @property
    def success(self) -> bool:
        """Whether its exit code is 0."""
        return self._success

    @property
    def command(self) -> str:
        """As it was asked for."""
        return self._command

    @property
    def args(self) -> List[str]:
        """As they were given."""
        return self._args
