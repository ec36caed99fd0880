# SPDX-License-Identifier: Apache-2.0
"""What microsandbox 0.2's clients say and hear: JSON-RPC, and the results of `PythonSandbox` and `NodeSandbox`."""

from __future__ import annotations

import contextlib
import importlib
import os
import uuid
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..errors import MicrosandboxError, NotUnderstoodError, TimedOutError
from .call import NO_END, Call, Reply, given
from .sandboxes import Envs, config_of, words_of

NOT_STARTED = "Sandbox is not started. Call start() first."


def load_dotenv() -> None:
    """As 0.2 did: where there is python-dotenv, a file .env may say what the environment does not."""
    if "MSB_API_KEY" not in os.environ:
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("dotenv").load_dotenv()


def not_started() -> MicrosandboxError:
    return MicrosandboxError(NOT_STARTED, code="conflict")


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
        config = config_of(image=image, memory=memory, cpus=max(1, round(cpus)), volumes=volumes, ports=ports, envs=envs,
                           depends_on=depends_on, workdir=workdir, shell=shell, scripts=scripts, exec=exec)
        # It may be repeated: one that runs is started already.
        return _rpc("sandbox.start", {**self._of, "config": config}, repeatable=True, patience=timeout + 30)

    def stop(self) -> Call[str]:
        return _rpc("sandbox.stop", self._of, repeatable=True, patience=NO_END)

    def run(self, code: str) -> Call[Any]:
        params = {**self._of, "language": self._language, "code": code}
        return _rpc("sandbox.repl.run", params, repeatable=False, patience=NO_END)

    def command(self, command: str, args: Optional[Sequence[str]], timeout: Optional[float]) -> Call[Any]:
        params = {**self._of, "command": command, "args": words_of(args), **given(timeout=timeout)}
        return _rpc("sandbox.command.run", params, repeatable=False, patience=NO_END)

    def metrics(self) -> Call[Any]:
        return _rpc("sandbox.metrics.get", self._of, repeatable=True, patience=60.0)


def said_of(error: MicrosandboxError, what: str) -> MicrosandboxError:
    """The same, in 0.2's words for what failed."""
    if isinstance(error, TimedOutError) and error.status is None:  # nothing came
        return TimedOutError(f"{what}: {error.message}", code=error.code)
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

    def has_error(self) -> bool:
        """Also when it wrote to standard error only."""
        return self.status in ("error", "exception") or any(
            line.get("stream") == "stderr" and line.get("text") for line in self._output_lines)

    @property
    def status(self) -> str:
        return str(self._data.get("status", "unknown"))

    @property
    def language(self) -> str:
        return str(self._data.get("language", "unknown"))


class CommandFacts(_Lines):
    """What is known of a command that was run, but for its texts."""

    @property
    def exit_code(self) -> int:
        return int(self._data.get("exit_code", -1))

    @property
    def success(self) -> bool:
        return bool(self._data.get("success", False))

    @property
    def command(self) -> str:
        return str(self._data.get("command", ""))

    @property
    def args(self) -> List[str]:
        return list(self._data.get("args") or [])
