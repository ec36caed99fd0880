# SPDX-License-Identifier: Apache-2.0
"""Without await: `microsandbox._async` is the same with it, and a test holds the two together."""
