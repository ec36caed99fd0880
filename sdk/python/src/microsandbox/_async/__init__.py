# SPDX-License-Identifier: Apache-2.0
"""With await: `microsandbox._sync` is the same without."""
