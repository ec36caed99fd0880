# SPDX-License-Identifier: Apache-2.0
"""The reference of the SDKs (scripts/reference): it is made without a warning, and no public name lacks a description."""

import re
import shutil
import subprocess

import pytest
import rust_sdk
from conftest import REPOSITORY
from python_sdk import microsandbox, sync

PAGES = REPOSITORY / "build/reference"
MISSING = {"python": "" if shutil.which("sphinx-build") else "Sphinx is missing (Debian: python3-sphinx, furo, python3-myst-parser)",
           "javascript": "" if shutil.which("npm") else "npm is missing, which installs TypeDoc", "rust": rust_sdk.missing()}


def made(language):
    """The folder with its pages."""
    if MISSING[language]:
        pytest.skip(MISSING[language])
    done = subprocess.run([REPOSITORY / "scripts/reference", language], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return PAGES / language


def test_python_s_has_every_name():
    said = "".join(page.read_text() for page in made("python").glob("*.html"))
    for module in (microsandbox, sync):
        for name in module.__all__:
            assert f'id="{module.__name__}.{name}"' in said, name


def test_javascript_s_has_its_classes():
    assert {"Sandbox.html", "Client.html", "PythonSandbox.html"} <= {page.name for page in (made("javascript") / "classes").iterdir()}


def test_javascript_s_interfaces_and_classes_are_described_themselves():
    """TypeDoc takes the description of what they extend where they have none."""
    sources = REPOSITORY / "sdk/javascript/src"
    exports = (sources / "index.ts").read_text()
    for module in re.findall(r'from "\./(\w+)\.js"', exports):
        text = (sources / f"{module}.ts").read_text()
        for before, name in re.findall(r"(.*)\nexport (?:abstract )?(?:interface|class) (\w+)", text):
            assert before.endswith("*/") or not re.search(rf"\b{name}\b", exports), f"{module}.ts: {name} has no description"


def test_rust_s_has_its_structs():
    pages = made("rust")
    assert (pages / "microsandbox/struct.Sandbox.html").exists() and "microsandbox/index.html" in (pages / "index.html").read_text()


@pytest.mark.skipif(bool(MISSING["python"]), reason=MISSING["python"])
@pytest.mark.parametrize("name", ["Sandbox.run", "Result.value"])
def test_a_python_name_without_a_description_is_found(monkeypatch, name):
    monkeypatch.syspath_prepend(REPOSITORY / "scripts/reference.d/python")
    import descriptions  # pylint: disable=import-error,import-outside-toplevel
    kind, _, member = name.partition(".")
    there = getattr(getattr(microsandbox, kind), member)
    if isinstance(there, property):
        monkeypatch.setattr(getattr(microsandbox, kind), member, property(lambda self: None))
    else:
        monkeypatch.setattr(there, "__doc__", None)
    assert f"microsandbox.{name}" in list(descriptions.missing())
