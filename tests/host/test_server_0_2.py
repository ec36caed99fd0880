# SPDX-License-Identifier: Apache-2.0
"""The server as clients of microsandbox 0.2 know it, both generations."""

import itertools
import json
import os
import subprocess
import threading

import pytest
from conftest import REPOSITORY, wait_until
from server_bed import needs_root
from server_clients import FAILED, INVALID, NOT_FOUND, Client026, ClientLater, Http, client_of

pytestmark = needs_root

FULL = os.environ.get("MSB_TEST_FULL") == "1"
numbers = itertools.count()


@pytest.fixture(params=[Client026, ClientLater], ids=["0.2.6", "later"])
def new(server, request):
    """Makes a client of one generation, for a sandbox that is not there yet."""
    def make(language="python", **options):
        return request.param(server.url, f"s{next(numbers)}", language, server.key, **options)
    return make


@pytest.fixture(scope="module")
def javascript(server):
    client = ClientLater(server.url, "javascript", "node", server.key)
    client.start()
    return client


# Its life.

def test_a_sandbox_is_started_and_stopped(new, shared_host):
    client = new()
    assert client.start(image="python", memory=256, cpus=1.4) == f"Sandbox {client.name} started successfully"
    assert client.name in shared_host.running()
    assert client.start(image="python") == f"Sandbox {client.name} started successfully", "it runs already"
    assert client.stop() == f"Sandbox {client.name} stopped successfully"
    assert client.name not in shared_host.running()
    assert client.stop() == f"Sandbox {client.name} stopped successfully", "it is stopped already"


def test_the_images_that_clients_ask_for_by_themselves_are_had_by_aliases(new):
    for language, code in (("python", "print(6 * 7)"), ("node", "console.log(6 * 7)")):
        client = new(language)
        client.start()  # microsandbox/LANGUAGE
        assert client.run(code).output() == "42"
        client.stop()


def test_one_that_was_stopped_is_started_without_a_config(http, new):
    client = new()
    client.start(image="base", envs=["KEPT=yes"])
    client.stop()
    assert http.result("sandbox.start", sandbox=client.name) == f"Sandbox {client.name} started successfully"
    assert client.command("sh", ["-c", "echo $KEPT"]).output() == "yes"
    client.stop()


def test_a_config_of_nulls_is_one_of_nothing(http):
    config = dict.fromkeys(["memory", "cpus", "volumes", "ports", "envs", "depends_on", "workdir", "shell", "scripts", "exec"])
    assert "started" in http.result("sandbox.start", sandbox="nulls", config={"image": "base"} | config)
    http.result("sandbox.stop", sandbox="nulls", namespace=None)


def test_what_a_config_says_counts(new, tmp_path):
    client = new()
    client.start(image="base", envs=["A=b", "C=d e"], workdir=str(tmp_path), ports=["0:80"], depends_on=[], volumes=[],
                 scripts={})
    assert client.command("sh", ["-c", 'echo "$A $C"; pwd']).output() == f"b d e\n{tmp_path}"
    client.stop()


def test_a_program_of_its_own_runs_in_it_and_ends_it(new, shared_host, tmp_path):
    client = new()
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nwhile [ ! -e {tmp_path}/enough ]; do sleep 0.01; done\n")
    program.chmod(0o755)
    client.start(image="base", exec=str(program))
    assert client.command("true").success
    (tmp_path / "enough").touch()
    wait_until(lambda: client.name not in shared_host.running(), "it has ended")
    wait_until(lambda: not client.metrics()["running"], "the server knows")


def test_a_start_that_fails_says_why(http, new):
    client = new()
    client.name = "fail-" + client.name
    with pytest.raises(RuntimeError, match="kernel crashed while it booted"):
        client.start(image="base")
    error, status = http.error("sandbox.start", sandbox=client.name, config={"image": "base"})
    assert (status, error["data"]["code"]) == (502, FAILED)


def test_a_start_whose_supervisor_dies_says_so(http):
    error, status = http.error("sandbox.start", sandbox="crash-it", config={"image": "base"})
    assert (status, error["data"]["code"]) == (502, FAILED) and "crash-it" in error["message"]


@pytest.mark.skipif(not FULL, reason="takes a minute: run with --full")
def test_a_start_that_takes_too_long_is_an_error_with_the_words_that_clients_look_for(server, shared_host):
    patient = Http(server.port, server.key, timeout=120)
    error, status = patient.error("sandbox.start", sandbox="hang-it", config={"image": "base"})
    assert (status, error["data"]["code"]) == (504, FAILED)
    assert "timed out waiting" in error["message"]
    assert "hang-it" not in shared_host.running()


def test_an_image_that_is_not_to_be_had_is_an_error(server, http):
    with pytest.raises(RuntimeError, match="localhost:1/nothing"):
        client_of(server, "imageless").start(image="localhost:1/nothing:1")
    error, _ = http.error("sandbox.start", sandbox="imageless")
    assert error["data"]["code"] == NOT_FOUND and "image" in error["message"]


def test_nothing_is_left_of_a_start_that_failed(http, shared_host):
    before = shared_host.kept(), len(shared_host.processes())
    http.error("sandbox.start", sandbox="fail-and-go", config={"image": "base"})
    wait_until(lambda: (shared_host.kept(), len(shared_host.processes())) == before, "all is as it was")


# Code.

def test_python_keeps_its_state_from_run_to_run(python):
    assert python.run("x = 40").output() == ""
    assert python.run("def more(y):\n    return x + y").output() == ""
    ran = python.run("print(more(2))")
    assert (ran.output(), ran.error(), ran.status, ran.language, ran.has_error()) == ("42", "", "success", "python", False)


def test_javascript_keeps_its_state_from_run_to_run(javascript):
    assert javascript.run("const x = 40; function more(y) { return x + y }").output() == ""
    ran = javascript.run("console.log(more(2))")
    assert (ran.output(), ran.status, ran.has_error()) == ("42", "success", False)


@pytest.mark.parametrize("word", ["node", "nodejs", "javascript"])
def test_javascript_has_the_names_of_the_0_2_line(http, javascript, word):
    result = http.result("sandbox.repl.run", sandbox="javascript", language=word, code="console.log(1)")
    assert result["output"] == [{"stream": "stdout", "text": "1"}] and result["language"] == word


def test_each_line_of_output_comes_by_itself_and_in_order(python):
    ran = python.run("print('a\\n\\nb  ')\nimport sys\nprint('wörld ☃', end='')")
    assert ran.result["output"] == [{"stream": "stdout", "text": text} for text in ("a", "", "b  ", "wörld ☃")]


def test_what_goes_to_standard_error_is_told_apart(python, javascript):
    ran = python.run("import sys\nprint('good')\nprint('bad', file=sys.stderr)")
    assert (ran.output(), ran.error(), ran.has_error(), ran.status) == ("good", "bad", True, "success")
    ran = javascript.run("console.log('good'); console.error('bad')")
    assert (ran.output(), ran.error()) == ("good", "bad")


def test_the_value_of_the_last_expression_is_output(python, javascript):
    assert python.run("6 * 7").output() == "42"
    assert python.run("print('first'); 'last'").output() == "first\n'last'"
    assert javascript.run("6 * 7").output() == "42"


def test_an_exception_is_in_the_output_and_the_session_goes_on(python, javascript):
    ran = python.run("kept = 1\nraise ValueError('this way')")
    assert ran.has_error() and ran.status == "error" and "ValueError: this way" in ran.error()
    assert python.run("kept").output() == "1"
    ran = javascript.run("throw new Error('that way')")
    assert ran.has_error() and "that way" in ran.error()
    assert python.run("1 +").has_error() and python.run("2").output() == "2"


def test_much_output_comes_whole(python):
    ran = python.run("for i in range(20000): print(i, 'x' * 50)")
    lines = ran.result["output"]
    assert len(lines) == 20000 and lines[19999]["text"] == "19999 " + "x" * 50
    ran = python.run("print('y' * 3_000_000)")
    assert [len(line["text"]) for line in ran.result["output"]] == [3_000_000]


def test_output_that_is_no_text_does_no_harm(python):
    ran = python.run("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe\\x00ok\\n')\nsys.stdout.flush()")
    assert "ok" in ran.output() and "�" in ran.output()


def test_more_output_than_is_kept_is_cut_and_that_is_said(python):
    ran = python.run("for _ in range(40): print('z' * 1_000_000)")
    assert ran.result["truncated"] is True and ran.status == "success"
    assert 10_000_000 < sum(len(line["text"]) for line in ran.result["output"]) < 20_000_000
    assert python.run("'goes on'").output() == "'goes on'"


def test_code_that_runs_too_long_is_interrupted_and_the_session_goes_on(http, python):
    python.run("survivor = 7")
    error, status = http.error("sandbox.repl.run", sandbox="python", language="python", code="while True: pass", timeout=0.3)
    assert (status, error["data"]["code"]) == (504, FAILED) and "0.3 s" in error["message"]
    assert python.run("survivor").output() == "7"


def test_an_unknown_language_is_refused_by_name(http, python):
    error, status = http.error("sandbox.repl.run", sandbox="python", language="pyhton", code="1")
    assert (status, error["data"]["code"]) == (400, INVALID)
    assert "pyhton" in error["message"] and "python" in error["message"]


def test_runs_of_one_session_come_one_after_the_other(server, python):
    python.run("seen = []")
    code = "import time\nseen.append('in'); time.sleep(0.05); seen.append('out')"
    threads = [threading.Thread(target=Client026(server.url, "python", "python", server.key).run, args=[code]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert python.run("seen == ['in', 'out'] * 5").output() == "True"


def test_a_session_that_ended_itself_begins_anew(python):
    ran = python.run("import os\ngone = 1\nos._exit(3)")
    assert ran.has_error()
    assert "NameError" in python.run("gone").error()


# Commands.

def test_a_command_tells_what_it_wrote_and_how_it_ended(python):
    ran = python.command("sh", ["-c", "echo out; echo 'bad news' >&2; exit 3"])
    assert (ran.command, ran.args) == ("sh", ["-c", "echo out; echo 'bad news' >&2; exit 3"])
    assert (ran.exit_code, ran.success, ran.output(), ran.error()) == (3, False, "out", "bad news")
    ran = python.command("true")
    assert (ran.exit_code, ran.success, ran.result["output"], ran.args) == (0, True, [], [])


def test_arguments_are_no_shell_s(python):
    words = ["a  b", "$HOME", "*", "", "-n", "'q'", "ü☃", "new\nline"]
    ran = python.command("sh", ["-c", 'printf "%s|" "$@"', "sh", *words])
    assert ran.output() == "|".join(words) + "|"


def test_a_command_without_args_is_one(http, python):
    for args in ({}, {"args": None}, {"args": []}):
        assert http.result("sandbox.command.run", sandbox="python", command="true", **args)["args"] == []


def test_a_command_that_a_signal_ended_has_the_status_that_shells_give_it(python):
    ran = python.command("sh", ["-c", "kill -TERM $$"])
    assert (ran.exit_code, ran.success) == (143, False)


def test_a_command_that_is_not_there_is_an_error_that_names_it(http, python):
    error, status = http.error("sandbox.command.run", sandbox="python", command="no-such-program")
    assert 400 <= status < 600 and error["data"]["code"] in (INVALID, NOT_FOUND, FAILED) and "no-such-program" in error["message"]


def test_a_command_that_runs_too_long_is_killed_with_what_it_started(http, python, shared_host):
    before = len(shared_host.processes())
    error, status = http.error("sandbox.command.run", sandbox="python", command="sh", args=["-c", "sleep 1000 & sleep 1000"],
                               timeout=0.3)
    assert (status, error["data"]["code"]) == (504, FAILED) and "0.3 s" in error["message"]
    wait_until(lambda: len(shared_host.processes()) == before, "the command has gone")


def test_the_standard_input_of_a_command_is_empty(python):
    assert python.command("cat").result["output"] == []


# Metrics.

def test_metrics_have_the_units_of_the_0_2_line(new):
    client = new()
    client.start(image="base")
    client.command("true")
    measured = client.metrics()
    assert (measured["name"], measured["namespace"], measured["running"]) == (client.name, "default", True)
    assert isinstance(measured["memory_usage"], int) and 0 < measured["memory_usage"] < 1 << 24, "MiB"
    assert isinstance(measured["cpu_usage"], (int, float)) and measured["cpu_usage"] >= 0
    assert isinstance(measured["disk_usage"], int)
    client.stop()
    measured = client.metrics()
    assert (measured["running"], measured["cpu_usage"], measured["memory_usage"]) == (False, None, None)


def test_metrics_of_all_are_those_of_a_namespace_or_of_every_one(server, http):
    for space in ("one", "two"):
        Client026(server.url, "measured", "python", server.key, namespace=space).start(image="base")
    found = http.result("sandbox.metrics.get", namespace="one")["sandboxes"]
    assert [(entry["namespace"], entry["name"]) for entry in found] == [("one", "measured")]
    found = http.result("sandbox.metrics.get", namespace="*")["sandboxes"]
    assert {("one", "measured"), ("two", "measured")} <= {(entry["namespace"], entry["name"]) for entry in found}
    assert "measured" not in [entry["name"] for entry in http.result("sandbox.metrics.get")["sandboxes"]]


# Names.

def test_namespaces_keep_names_apart(server):
    ours, theirs = (Client026(server.url, "same", "python", server.key, namespace=space) for space in ("ours", "theirs"))
    ours.start(image="base", envs=["WHOSE=ours"])
    theirs.start(image="base", envs=["WHOSE=theirs"])
    assert [client.command("sh", ["-c", "echo $WHOSE"]).output() for client in (ours, theirs)] == ["ours", "theirs"]
    ours.stop()
    assert theirs.command("true").success


def test_the_namespace_of_those_that_name_none_is_default(server):
    Client026(server.url, "shared-name", "python", server.key).start(image="base")
    assert ClientLater(server.url, "shared-name", "python", server.key).command("true").success


@pytest.mark.parametrize("name", ["", "-a", "_a", "a b", "a/b", "../a", "..", ".", "ä", "a" * 64, "a\n", "a\0b", "a.b"])
def test_names_that_cannot_be_are_refused(http, shared_host, name):
    before = shared_host.kept()
    for params in ({"sandbox": name}, {"sandbox": "fine", "namespace": name or "-"}):
        error, status = http.error("sandbox.start", config={"image": "base"}, **params)
        assert (status, error["data"]["code"]) == (400, INVALID), (params, error)
    assert shared_host.kept() == before


def test_what_is_not_there_is_not_found(http):
    calls = {"sandbox.stop": {}, "sandbox.metrics.get": {}, "sandbox.repl.run": {"language": "python", "code": "1"},
             "sandbox.command.run": {"command": "true"}}
    for method, params in calls.items():
        error, status = http.error(method, sandbox="nobody", **params)
        assert (status, error["data"]["code"]) == (404, NOT_FOUND) and "nobody" in error["message"], method


def test_what_is_stopped_is_to_be_started_first(http, new):
    client = new()
    client.start(image="base")
    client.stop()
    for method, params in (("sandbox.repl.run", {"language": "python", "code": "1"}),
                           ("sandbox.command.run", {"command": "true"})):
        error, status = http.error(method, sandbox=client.name, **params)
        assert status == 409 and "stopped" in error["message"] and "start it first" in error["message"]


# In JavaScript.

@pytest.mark.parametrize("language", ["python", "node"])
@pytest.mark.parametrize("generation", ["0.2.6", "later"])
def test_the_javascript_client_does_all_of_it(server, generation, language):
    name = f"js{next(numbers)}"
    result = subprocess.run(["node", REPOSITORY / "tests/node/client_0_2.mjs", generation, server.url, server.key, name,
                             language],
                            capture_output=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr.decode()
    told = json.loads(result.stdout)
    assert told["started"] == f"Sandbox {name} started successfully" and told["stopped"] == f"Sandbox {name} stopped successfully"
    assert [run["status"] for run in told["runs"]] == ["success", "success"]
    assert told["runs"][1]["output"] == [{"stream": "stdout", "text": "42"}]
    assert told["command"]["exit_code"] == 3 and told["command"]["success"] is False
    assert sorted((line["stream"], line["text"]) for line in told["command"]["output"]) == [("stderr", "err"), ("stdout", "out")]
    [measured] = told["metrics"]["sandboxes"]
    assert (measured["name"], measured["running"]) == (name, True)
