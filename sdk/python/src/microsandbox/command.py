# SPDX-License-Identifier: Apache-2.0
"""Where programs of microsandbox 0.2 look for `Command`."""

from ._async.language import Command

__all__ = ["Command"]
