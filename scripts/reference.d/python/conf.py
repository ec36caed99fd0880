# SPDX-License-Identifier: Apache-2.0
"""How Sphinx makes the reference of the Python SDK from its sources: scripts/reference runs it."""

import inspect
import pathlib
import re
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "sdk/python/src"), str(pathlib.Path(__file__).parent)]

# pylint: disable=wrong-import-position
import microsandbox
import microsandbox.sync
import sphinx.pycode.parser
from sphinx.util import logging

import descriptions

project = "microsandbox for Python"
release = microsandbox.__version__
html_title = f"{project} {release}"
html_theme = "furo"
html_show_copyright = html_show_sourcelink = html_copy_source = False
extensions = ["sphinx.ext.autodoc", "myst_parser"]
smartquotes = False  # what is in quotes is what programs see
# What is in backticks is a name of Python where there is one of that name, and code where there is none.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": True, "inherited-members": "RuntimeError",
                           "exclude-members": ", ".join(descriptions.HIDDEN)}
python_use_unqualified_type_names = True
# The comment behind a field describes it; Sphinx's own pattern wants a colon in it.
sphinx.pycode.parser.comment_re = re.compile("^\\s*#:? ?(.*)\r?\n?$")

SYNC = set(microsandbox.sync.__all__)
MADE_BY_USERS = {"Client", "BaseSandbox", "PythonSandbox", "NodeSandbox"}
OLD = {"BaseSandbox", "Command", "CommandExecution", "Execution", "Metrics", "NodeSandbox", "PythonSandbox"}


def group_of(name):
    """The page of a name."""
    value = getattr(microsandbox, name)
    if inspect.isclass(value) and issubclass(value, Exception):
        return "errors"
    return "old" if name in OLD else "sandboxes" if name in SYNC or name == "Opening" else "results"


def directive_of(module, name):
    kind = "autoclass" if inspect.isclass(getattr(module, name)) else "autodata"
    return f".. {kind}:: {module.__name__}.{name}\n"


def in_order(module, names):
    """Those that programs begin with come first."""
    first = [name for name in ("Sandbox", "Files", "Process", "Client", "MicrosandboxError", "PythonSandbox", "NodeSandbox") if name in names]
    return "\n".join(directive_of(module, name) for name in dict.fromkeys([*first, *names]))


def fill(_app, _page, source):
    """`EACH GROUP` in a page stands for all names of that group, so that none can be forgotten; with SYNC: those without await."""
    def names(match):
        module = microsandbox.sync if match[2] else microsandbox
        return in_order(module, [name for name in module.__all__ if group_of(name) == match[1]])
    source[0] = re.sub(r"^EACH (\w+)( SYNC)?$", names, source[0], flags=re.MULTILINE)


def mark_code(_app, _what, _name, _object, _options, lines):
    """Indented paragraphs are code."""
    for number in range(len(lines) - 1, 0, -1):
        if lines[number].startswith("    ") and not lines[number - 1].strip():
            lines[number:number] = [".. code-block:: python", ""]


def make_sentence(_app, what, _name, _object, _options, lines):
    """Of the comment behind a field, which has neither a capital nor a full stop."""
    if what == "attribute" and lines:
        lines[0] = lines[0][:1].upper() + lines[0][1:]
        if not lines[0].endswith(".") and not any(lines[1:]):
            lines[0] += "."


def skip(_app, _what, name, value, skipped, _options):
    """Constructors of what calls give."""
    made = getattr(value, "__qualname__", "").partition(".")[0]
    return True if name == "__new__" or (name == "__init__" and made not in MADE_BY_USERS) else skipped


def say_what_is_missing(_app):
    for name in descriptions.missing():
        logging.getLogger(__name__).warning("%s has no description", name)


def setup(app):
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", mark_code)
    app.connect("autodoc-process-docstring", make_sentence)
    app.connect("autodoc-skip-member", skip)
    app.connect("builder-inited", say_what_is_missing)
