# SPDX-License-Identifier: Apache-2.0
"""What sdk/conformance/README.md says of cases, steps and matchers, whatever SDK carries the operations out."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "sdk/conformance"
SERVER_OPERATIONS = {"create", "connect", "list", "client", "old.new", "old.create"}
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict, "null": type(None)}


def load():
    """(file, case, shared) of all there are."""
    for path in sorted((FOLDER / "cases").glob("*.json")):
        document = json.loads(path.read_text())
        assert document["format"] == 1, path
        for case in document["cases"]:
            yield path.stem, case, document.get("shared", {})


class Mismatch(AssertionError):
    pass


def match(value, expected, where="the result"):
    """Raises Mismatch when the value is not as expected."""
    if not isinstance(expected, dict):
        if isinstance(expected, list) and isinstance(value, list):
            if len(value) != len(expected):
                raise Mismatch(f"{where} has {len(value)} elements instead of {len(expected)}: {value!r:.2000}")
            for index, (one, other) in enumerate(zip(value, expected)):
                match(one, other, f"{where}[{index}]")
        elif type(value) is not type(expected) and not (isinstance(value, (int, float)) and isinstance(expected, (int, float)) and
                                                        not isinstance(value, bool)) or value != expected:
            raise Mismatch(f"{where} is {value!r:.2000} instead of {expected!r:.2000}")
    elif expected and all(name.startswith("$") for name in expected):
        for operator, operand in expected.items():
            if not holds(value, operator, operand, where):
                raise Mismatch(f"{where} is {value!r:.2000}, of which {operator} {operand!r} does not hold")
    else:
        if not isinstance(value, dict):
            raise Mismatch(f"{where} is {value!r:.2000} instead of an object")
        for name, inner in expected.items():
            if name not in value:
                raise Mismatch(f"{where} has no '{name}': {value!r:.2000}")
            match(value[name], inner, f"{where}.{name}")


def matches(value, expected):
    with contextlib.suppress(Mismatch):
        match(value, expected)
        return True
    return False


def holds(value, operator, operand, where):
    if operator == "$any":
        return True
    if operator == "$type":
        return isinstance(value, TYPES[operand]) and (operand == "boolean" or not isinstance(value, bool))
    if operator in ("$contains", "$starts", "$ends", "$matches"):
        return isinstance(value, str) and {"$contains": lambda: operand in value, "$starts": lambda: value.startswith(operand),
                                           "$ends": lambda: value.endswith(operand),
                                           "$matches": lambda: re.search(operand, value) is not None}[operator]()
    if operator in ("$at_least", "$at_most"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (value >= operand if operator == "$at_least" else value <= operand)
    if operator == "$length":
        match(len(value), operand, f"the length of {where}")
        return True
    if operator == "$each":
        return isinstance(value, list) and all(matches(one, operand) for one in value)
    if operator == "$has":
        return isinstance(value, list) and any(matches(one, operand) for one in value)
    if operator == "$not":
        return not matches(value, operand)
    if operator == "$one_of":
        return any(matches(value, one) for one in operand)
    raise AssertionError(f"there is no operator {operator}")


def substitute(value, variables):
    if isinstance(value, str):
        if re.fullmatch(r"\$\w+", value) and value[1:] in variables:
            return variables[value[1:]]
        return re.sub(r"\$\{(\w+)\}", lambda found: str(variables[found[1]]) if found[1] in variables else found[0], value)
    if isinstance(value, list):
        return [substitute(one, variables) for one in value]
    if isinstance(value, dict):
        return {name: substitute(one, variables) for name, one in value.items()}
    return value


def pointed(document, pointer):
    for part in pointer.split("/")[1:]:
        document = document[int(part) if isinstance(document, list) else part.replace("~1", "/").replace("~0", "~")]
    return document


class Failed(Exception):
    """An operation failed: `error` as the README describes it."""

    def __init__(self, error):
        super().__init__(json.dumps(error))
        self.error = error


def nowhere():
    """An address where nothing listens, as long as this test has the port."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    return place, f"http://127.0.0.1:{place.getsockname()[1]}"


@contextlib.contextmanager
def environment(variables):
    names = ("MSB_SERVER_URL", "MSB_API_KEY")
    before = {name: os.environ.get(name) for name in names}
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class Case:
    """Carries the steps of a case out. `sdk` has an asynchronous method for each operation ("files.read": files_read), which gets the
    handle it is on, and its arguments; they return (result, handle). enter() and leave() are those of scopes."""

    def __init__(self, sdk, url, key, directory):
        self.sdk = sdk
        self.settings = {"server_url": url, "api_key": key}
        self.directory = directory

    @contextlib.contextmanager
    def variables(self, shared):
        place, address = nowhere()
        unique = "c" + uuid.uuid4().hex[:12]
        with contextlib.closing(place):
            yield shared | {"unique": unique, "url": self.settings["server_url"], "key": self.settings["api_key"],
                            "dir": f"{self.directory}/{unique}", "nowhere": address}

    async def run(self, case, shared):
        with self.variables(shared) as variables:
            await self.steps(case["steps"], variables)

    async def steps(self, steps, variables):
        for step in steps:
            await self.step(step, variables)

    async def step(self, step, variables):
        if "within" in step:
            await self.scope(step, variables)
        elif "together" in step:
            await asyncio.gather(*(self.steps(steps, dict(variables)) for steps in step["together"]))
        elif "repeat" in step:
            for _ in range(step["repeat"]):
                await self.steps(step["steps"], variables)
        elif "until" in step:
            await self.until(step["until"], variables, step.get("seconds", 30))
        elif "abandon" in step:
            task = asyncio.ensure_future(self.operation(step["abandon"], variables))
            try:
                await self.until(step["when"], variables, 30)
                assert not task.done(), f"what is to be abandoned has ended: {task.result()}"
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        else:
            await self.judge(step, self.operation(step, variables), variables)

    async def until(self, step, variables, seconds):
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await self.step(step, variables)
            except (Mismatch, Failed):
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def scope(self, step, variables):
        scope = {}

        async def entered():
            scope["made"] = await self.operation(step["within"], variables, enter=True)
            return scope["made"]

        await self.judge(step["within"], entered(), variables)
        if "made" in scope:
            try:
                await self.steps(step["steps"], variables)
            finally:
                await self.sdk.leave(scope["made"][1])

    async def judge(self, step, operation, variables):
        """Holds what an operation gives against what the step expects."""
        where = f"{step['do']} {json.dumps(step.get('with', {}))[:200]}"
        try:
            result, handle = await operation
        except Failed as failure:
            if "error" not in step:
                raise Failed(failure.error | {"of": where}) from failure
            match(failure.error, substitute(step["error"], variables), f"the error of {where}")
            return
        if "error" in step:
            raise Mismatch(f"{where} was to fail, and gave {result!r:.2000}")
        if "expect" in step:
            match(result, substitute(step["expect"], variables), f"the result of {where}")
        if "as" in step:
            variables[step["as"]] = handle
        for name, pointer in step.get("save", {}).items():
            variables[name] = pointed(result, pointer)

    async def operation(self, step, variables, enter=False):
        arguments = substitute(step.get("with", {}), variables)
        settings, environs = dict(self.settings), {}
        if "settings" in step:
            settings = substitute(step["settings"], variables)
            environs = settings.pop("environment", {})
        if "client" in step:
            settings = {"client": variables[step["client"]]}
        name = step["do"].replace(".", "_")
        options = {"settings": settings} if step["do"] in SERVER_OPERATIONS else {}
        if step["do"] in ("create", "connect", "old.create"):
            options["enter"] = enter
        with environment(environs):
            return await getattr(self.sdk, name)(variables.get(step.get("on")), arguments, **options)


@contextlib.contextmanager
def scripted(answers):
    """(URL, what it saw) of a server that answers so; the second is filled at the end."""
    seen = {}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as script:
        json.dump(answers, script)
        script.flush()
        with subprocess.Popen([sys.executable, FOLDER / "scripted_server.py", script.name], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as process:
            try:
                yield f"http://127.0.0.1:{process.stdout.readline().strip()}", seen
                seen |= json.loads(process.communicate(timeout=30)[0])
            finally:
                process.kill()
