# SPDX-License-Identifier: Apache-2.0
"""The SDK without await. `unasync.py` makes it of `microsandbox._async`, all but `_runtime.py`."""
