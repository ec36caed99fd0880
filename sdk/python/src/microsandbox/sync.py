# SPDX-License-Identifier: Apache-2.0
"""Everything of `microsandbox`, without await:

    with Sandbox.create("python") as sandbox:
        print(sandbox.run("6 * 7").text)
"""

from ._sync.client import Client, CodeStream, CommandStream, LogStream, ProcessStream
from ._sync.command import Process
from ._sync.files import Files
from ._sync.language import BaseSandbox, Command, CommandExecution, Execution, Metrics, NodeSandbox, PythonSandbox
from ._sync.sandbox import Sandbox

__all__ = [
    "BaseSandbox", "Client", "CodeStream", "Command", "CommandExecution", "CommandStream", "Execution", "Files", "LogStream",
    "Metrics", "NodeSandbox", "Process", "ProcessStream", "PythonSandbox", "Sandbox",
]
