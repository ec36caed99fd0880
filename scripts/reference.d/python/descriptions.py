# SPDX-License-Identifier: Apache-2.0
"""Which public names of the Python SDK have no description."""

import inspect

import microsandbox
import microsandbox.sync
from sphinx.pycode import ModuleAnalyzer

# For the package itself: what makes results of the server's documents, and what requests are sent by.
HIDDEN = {"made", "of", "open", "send", "settings"}


def is_described(kind, name):
    """A member of a class: by a docstring, by the comment behind it, or by name in what the class says."""
    member = inspect.getattr_static(kind, name, None)
    if isinstance(member, (property, classmethod, staticmethod)) or inspect.isroutine(member):
        return bool(inspect.getdoc(getattr(kind, name)))
    for one in kind.__mro__:
        if f"`{name}`" in (vars(one).get("__doc__") or ""):
            return True
        if is_ours(one) and (one.__name__, name) in ModuleAnalyzer.for_module(one.__module__).find_attr_docs():
            return True
    return False


def is_ours(kind):
    return kind.__module__.startswith("microsandbox")


def members_of(kind):
    """Public names that it and its bases have; also those of its objects alone."""
    names = {}
    for one in filter(is_ours, kind.__mro__):
        analyzer = ModuleAnalyzer.for_module(one.__module__)
        analyzer.analyze()
        names |= dict.fromkeys(tag.partition(".")[2] for tag in analyzer.tagorder if tag.startswith(f"{one.__name__}."))
    return [name for name in names if not name.startswith("_") and "." not in name and name not in HIDDEN]


def has_docstring(kind):
    text = vars(kind).get("__doc__") or ""
    return bool(text) and not text.startswith(f"{kind.__name__}(")  # which dataclasses make


def missing():
    for module in (microsandbox, microsandbox.sync):
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.isclass(value):
                continue
            if not has_docstring(value):
                yield f"{module.__name__}.{name}"
            for member in members_of(value):
                if not is_described(value, member):
                    yield f"{module.__name__}.{name}.{member}"
