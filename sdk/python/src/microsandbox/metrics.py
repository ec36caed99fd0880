# SPDX-License-Identifier: Apache-2.0
"""Where programs of microsandbox 0.2 look for `Metrics`."""

from ._async.language import Metrics

__all__ = ["Metrics"]
