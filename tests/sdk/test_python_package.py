# SPDX-License-Identifier: Apache-2.0
"""The Python package: types, its lower bound, what is made of what, how it is built, and what its README shows."""

import ast
import json
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import REPOSITORY
from python_sdk import PACKAGE, microsandbox, sync
from server_bed import needs_root

SOURCES = sorted((PACKAGE / "src").rglob("*.py"))
README = (PACKAGE / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.skipif(shutil.which("mypy") is None, reason="mypy is missing (Debian: mypy)")
def test_it_is_typed_strictly_for_its_lower_bound():
    checked = subprocess.run(["mypy", "--cache-dir", REPOSITORY / "build/mypy", "--config-file", PACKAGE / "pyproject.toml"], cwd=PACKAGE,
                             capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_its_syntax_is_that_of_its_lower_bound(source):
    ast.parse(source.read_text(), feature_version=(3, 9))


def built(directory):
    """The wheel, built as any user would."""
    source = directory / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build"))
    made = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", directory / "dist", source],
                          capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    [wheel] = (directory / "dist").glob("*.whl")
    return wheel


def test_it_installs_from_the_built_file_into_a_clean_environment(tmp_path):
    pytest.importorskip("build", reason="the build front end is missing (Debian: python3-build)")
    pytest.importorskip("pip", reason="pip is missing (Debian: python3-pip)")
    wheel = built(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert "microsandbox/py.typed" in names and any(name.endswith("/LICENSE") for name in names)
    assert not [name for name in names if "test" in name]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", tmp_path / "site", wheel],
                   check=True)
    code = "import microsandbox, microsandbox.sync, json; print(json.dumps([microsandbox.__file__, microsandbox.__version__]))"
    said = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path / "site")}, cwd="/", check=True,
                          capture_output=True, text=True)
    where, version = json.loads(said.stdout)
    assert where.startswith(str(tmp_path / "site")) and version in wheel.name


def test_what_is_without_await_is_made_of_what_is_with_it():
    unasync = runpy.run_path(str(PACKAGE / "unasync.py"))
    there = {path.name: path.read_text() for path in unasync["TARGET"].glob("*.py") if path.name not in unasync["BY_HAND"]}
    assert there == unasync["made"](), "change microsandbox/_async, then run: python3 sdk/python/unasync.py"


def test_both_have_the_same_names():
    assert set(sync.__all__) == {name for name in microsandbox.__all__
                                 if getattr(microsandbox, name).__module__.startswith("microsandbox._async")} - {"Opening"}


def result_of(*outputs, status="ok"):
    return microsandbox.Result("python", status, outputs, None, None, False)


def test_a_notebook_shows_pictures_and_runs_no_stranger_s_scripts():
    evil = "<script>alert(1)</script>"
    result = result_of(microsandbox.Text("stdout", evil), microsandbox.Value("display", {"text/plain": "p", "image/png": "aGk="}),
                       microsandbox.Value("result", {"text/plain": evil, "text/html": f'<b onclick="x">{evil}</b>'}),
                       microsandbox.Value("display", {"text/plain": "svg", "image/svg+xml": f"<svg>{evil}</svg>"}),
                       microsandbox.Failure(evil, evil, (evil,)))
    shown = result._repr_mimebundle_()
    assert "data:image/png;base64,aGk=" in shown["text/html"] and evil in shown["text/plain"]
    assert "<script" not in shown["text/html"] and "onclick=\"" not in shown["text/html"]
    assert shown["text/html"].count("<iframe sandbox ") == 2
    assert result.pictures() == [b"hi"]
    value = microsandbox.Value("display", {"text/plain": "p", "image/png": '"><script>'})
    assert "<script" not in result_of(value)._repr_mimebundle_()["text/html"]


def test_checks_raise_what_the_result_says():
    with pytest.raises(microsandbox.CodeError, match="ValueError: this way"):
        result_of(microsandbox.Failure("ValueError", "this way", ()), status="error").check()
    assert result_of().check().ok
    failed = microsandbox.CommandResult(3, None, False, False, "make", (), "", "a\nno rule\n", False)
    with pytest.raises(microsandbox.CommandError, match="'make' failed: status 3: no rule"):
        failed.check()


def test_errors_are_those_that_0_2_raised_and_can_be_pickled():
    error = microsandbox.TimedOutError("it took long", code="timeout", status=504, request_id="r1")
    assert isinstance(error, RuntimeError) and isinstance(error, TimeoutError)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "it took long; allow more time (request r1)" and again.status == 504


@needs_root
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_what_the_readme_shows_runs(server, snippet, tmp_path):
    snippet = snippet.replace("/tmp/data", f"{tmp_path}/data")  # where the stand-in has sandboxes, on this host
    ran = subprocess.run([sys.executable, "-W", "error", "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
                         env=os.environ | {"PYTHONPATH": str(PACKAGE / "src"), "MSB_SERVER_URL": server.url, "MSB_API_KEY": server.key})
    assert ran.returncode == 0 and ran.stdout and not ran.stderr, (ran.stdout, ran.stderr)
