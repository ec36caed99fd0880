# SPDX-License-Identifier: Apache-2.0
"""Where programs of microsandbox 0.2 look for `PythonSandbox`."""

from ._async.language import PythonSandbox

__all__ = ["PythonSandbox"]
