# SPDX-License-Identifier: Apache-2.0
"""The SDK with await. `unasync.py` makes `microsandbox._sync` of what is here, all but `_runtime.py`."""
