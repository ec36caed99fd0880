# SPDX-License-Identifier: Apache-2.0
"""What is the same with and without await: which requests there are, what their answers mean, when one is repeated.

Nothing in here does I/O. `microsandbox._async` and `microsandbox._sync` do, each in its way, and nothing else.
"""
