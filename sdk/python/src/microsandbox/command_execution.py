# SPDX-License-Identifier: Apache-2.0
"""Where programs of microsandbox 0.2 look for `CommandExecution`."""

from ._async.language import CommandExecution

__all__ = ["CommandExecution"]
