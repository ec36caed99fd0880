# SPDX-License-Identifier: Apache-2.0
"""Where programs of microsandbox 0.2 look for `Execution`."""

from ._async.language import Execution

__all__ = ["Execution"]
