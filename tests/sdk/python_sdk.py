# SPDX-License-Identifier: Apache-2.0
"""The Python SDK, from its sources: tests import it from here."""

import sys

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "sdk/python"
sys.path.insert(0, str(PACKAGE / "src"))

import microsandbox
import microsandbox.sync as sync
