#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes `microsandbox._sync` of `microsandbox._async`: the same words, but for these. What they cannot say is in `_runtime.py`,
which both have, by hand.

    python3 unasync.py
"""

import pathlib
import re
import sys
from typing import Dict

SOURCE = pathlib.Path(__file__).resolve().parent / "src/microsandbox/_async"
TARGET = SOURCE.parent / "_sync"
BY_HAND = {"__init__.py", "_runtime.py"}
LICENSE = "# SPDX-License-Identifier: Apache-2.0\n"

# Regular expressions, one after the other.
SUBSTITUTIONS = [
    ("with await", "without await"),  # of the first lines of modules
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b__a(enter|exit|iter)__\b", r"__\1__"),
    (r"\ba(close|read|iter_raw)\b", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bAsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync(Client|ContextManager|Generator|Iterator)\b", r"\1"),
    # Without await there is nothing to wait for between the call and what it makes.
    (r"from \._runtime import Opening\n", ""),
    (r"\bOpening\[(\w+)\]", r"\1"),
    (r"\bOpening\(make\)", "make()"),
]


def made() -> Dict[str, str]:
    """What `_sync` has to be: texts of files by name."""
    unused = [pattern for pattern, _ in SUBSTITUTIONS]
    texts = {}
    for source in sorted(SOURCE.glob("*.py")):
        if source.name in BY_HAND:
            continue
        text = source.read_text()
        for pattern, replacement in SUBSTITUTIONS:
            text, count = re.subn(pattern, replacement, text)
            if count and pattern in unused:
                unused.remove(pattern)
        note = f"# Made of _async/{source.name} by unasync.py: change that one.\n"
        texts[source.name] = text.replace(LICENSE, LICENSE + note, 1)
    if unused:
        sys.exit(f"unasync.py has substitutions that are not needed any more: {unused}")
    return texts


def main() -> None:
    for name, text in made().items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
