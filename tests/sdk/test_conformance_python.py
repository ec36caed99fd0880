# SPDX-License-Identifier: Apache-2.0
"""The suite of sdk/conformance with the Python SDK, with and without await, on a real server."""

import asyncio
import pathlib

import pytest
from conformance import Case, load, match, scripted
from conformance_python import PythonSdk
from conformance_target import GUESTS, UNMET, target
from python_sdk import sync
from server_bed import needs_root

CASES = list(load())


def identity(entry):
    return f"{entry[0]}: {entry[1]['name']}"


@pytest.fixture(scope="module", params=["async", "sync"])
def colour(request):
    return request.param


@pytest.fixture(scope="module")
def shared(target, colour):
    """The names of sandboxes that cases of a file share, by the file and variable; they stay until the end of the module."""
    wanted = {(file, variable): arguments for file, _, shared in CASES for variable, arguments in shared.items()}
    with sync.Client(target.url, target.key) as client:
        made = {place: sync.Sandbox.create(name=f"{place[0]}-{colour}-{place[1]}", client=client, **arguments)
                for place, arguments in wanted.items()}
        yield {place: sandbox.name for place, sandbox in made.items()}
        for sandbox in made.values():
            sandbox.remove()


@pytest.fixture
def directory(tmp_path):
    """Where sandboxes may write."""
    return pathlib.Path("/tmp") if GUESTS else tmp_path


def skip_unmet(case, colour):
    needs = set(case.get("needs", [])) & (UNMET | ({"cancellation"} if colour == "sync" else set()))
    if needs:
        pytest.skip(f"needs {', '.join(sorted(needs))}")


@needs_root
@pytest.mark.parametrize("entry", [entry for entry in CASES if "answers" not in entry[1]], ids=identity)
def test_behaves(entry, colour, target, shared, directory):
    file, case, wanted = entry
    skip_unmet(case, colour)
    names = {variable: shared[file, variable] for variable in wanted}

    async def run():
        settings = {"server_url": target.url, "api_key": target.key}
        sdk = PythonSdk(colour)
        try:
            boxes = {variable: (await sdk.connect(None, {"name": name}, settings))[1] for variable, name in names.items()}
            await Case(sdk, target.url, target.key, directory).run(case, boxes)
        finally:
            await sdk.remove_all(settings)
            await sdk.release()

    asyncio.run(run())


@pytest.mark.parametrize("entry", [entry for entry in CASES if "answers" in entry[1]], ids=identity)
def test_stands_faults(entry, colour, directory):
    _, case, _ = entry
    skip_unmet(case, colour)
    with scripted(case["answers"]) as (url, saw):
        async def run():
            sdk = PythonSdk(colour)
            try:
                await Case(sdk, url, "key", directory).run(case, {})
            finally:
                await sdk.release()

        asyncio.run(run())
    for name in ("seen", "connections", "open"):
        if name in case:
            match(saw[name], case[name], name)
