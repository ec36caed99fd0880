# SPDX-License-Identifier: Apache-2.0
"""Sandboxes: virtual machines for running code that is not trusted.

    async with Sandbox.create("python") as sandbox:
        result = await sandbox.run("6 * 7")
        print(result.text)

`microsandbox.sync` has the same without await. `PythonSandbox` and `NodeSandbox` are those of microsandbox 0.2.
"""

from ._async._runtime import Opening
from ._async.client import Client, CodeStream, CommandStream, LogStream, ProcessStream
from ._async.command import Process
from ._async.files import Files
from ._async.sandbox import Sandbox
from .base_sandbox import BaseSandbox
from .command import Command
from .command_execution import CommandExecution
from .errors import (
    AuthenticationError,
    BrokenConnectionError,
    CodeError,
    CommandError,
    ConflictError,
    DetachedError,
    ForbiddenError,
    FullError,
    InvalidRequestError,
    MicrosandboxError,
    NotFoundError,
    NotUnderstoodError,
    SandboxFailedError,
    ServerError,
    TimedOutError,
    TooLargeError,
    UnavailableError,
    UnreachableError,
)
from .execution import Execution
from .metrics import Metrics
from .node_sandbox import NodeSandbox
from .python_sandbox import PythonSandbox
from .results import CodeOutput, CommandResult, Failure, Result, Text, Value
from .types import (
    Exit,
    FileInfo,
    LogLine,
    Lost,
    Output,
    Port,
    ProcessInfo,
    SandboxExit,
    SandboxInfo,
    SandboxMetrics,
    ServerInfo,
    SessionInfo,
)

__version__ = "0.3.0"

__all__ = [
    "AuthenticationError", "BaseSandbox", "BrokenConnectionError", "Client", "CodeError", "CodeOutput", "CodeStream",
    "Command", "CommandError", "CommandExecution", "CommandResult", "CommandStream", "ConflictError", "DetachedError",
    "Execution", "Exit", "Failure", "FileInfo", "Files", "ForbiddenError", "FullError", "InvalidRequestError",
    "LogLine", "LogStream", "Lost", "Metrics", "MicrosandboxError", "NodeSandbox", "NotFoundError",
    "NotUnderstoodError", "Opening", "Output", "Port", "Process", "ProcessInfo", "ProcessStream", "PythonSandbox",
    "Result", "Sandbox", "SandboxExit", "SandboxFailedError", "SandboxInfo", "SandboxMetrics", "ServerError",
    "ServerInfo", "SessionInfo", "Text", "TimedOutError", "TooLargeError", "UnavailableError", "UnreachableError", "Value",
]
