# SPDX-License-Identifier: Apache-2.0
"""Where programs of microsandbox 0.2 look for `BaseSandbox`."""

from ._async.language import BaseSandbox

__all__ = ["BaseSandbox"]
