# SPDX-License-Identifier: Apache-2.0
"""Registries to pull from: Debian's docker-registry on loopback, what authenticates for it, and what lies in between.

Everything listens on a free port of loopback, keeps its files where it is told to, and ends with the `with` that began it, so
that any number of them can run at once.
"""
