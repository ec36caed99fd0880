# SPDX-License-Identifier: Apache-2.0
"""Where programs of microsandbox 0.2 look for `NodeSandbox`."""

from ._async.language import NodeSandbox

__all__ = ["NodeSandbox"]
