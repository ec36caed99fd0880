# SPDX-License-Identifier: Apache-2.0
"""The shell driver of interpreter sessions, run by this host's shells as the agent would run it in a guest."""

import pathlib
import shutil
import subprocess

import pytest

from interpreter_session import PATIENCE, shell


@pytest.fixture(params=["bash", "dash", "busybox"])
def any_shell(request, tmp_path):
    if not shutil.which(request.param):
        pytest.skip(f"this host has no {request.param}")
    with shell(request.param, path=tmp_path) as started:
        yield started


@pytest.fixture
def bash():
    with shell("bash") as started:
        yield started


def test_state_lives_on(any_shell):
    any_shell.run("x='a  b'; f() { echo \"f $x\"; }; cd /usr; alias hello='echo hello'; set -- 1 2")
    any_shell.run("f; pwd; hello; echo $#")
    assert any_shell.written() == "f a  b\n/usr\nhello\n2\n"


def test_code_arrives_as_it_is(any_shell):
    any_shell.run("cat <<'END'\nit's \\n 100% \"$x\" `é` \\\\0047 !!\n\ttab\nEND\n")
    assert any_shell.written() == "it's \\n 100% \"$x\" `é` \\\\0047 !!\n\ttab\n"


def test_status_is_the_result(any_shell):
    for code, status in [("true", 0), ("false", 1), ("(exit 7)", 7), ("nothing-like-this", 127), ("", 0),
                         ("sh -c 'kill -KILL $$'", 137)]:
        assert any_shell.run(code).done["status"] == status, code


def test_exit_is_reported_and_the_session_goes_on(any_shell):
    any_shell.run("x=kept")
    assert any_shell.run("echo a; exit 7; echo b").done == {"op": "done", "id": 2, "status": 7, "exit": 7}
    assert any_shell.run("f() { while :; do exit 258; done; }; f").done["exit"] == 2
    assert any_shell.run("false; exit").done["exit"] == 1
    assert any_shell.run("(exit 3); echo $x $?").done == {"op": "done", "id": 5, "status": 0}
    assert any_shell.run("y=$(echo sub; exit 4)").done["status"] == 4
    assert any_shell.run("echo $y").done["status"] == 0
    assert any_shell.written() == "a\nkept 3\nsub\n"


def test_failure_under_errexit_leaves_the_session_in_bash(bash):
    bash.run("set -e; x=kept; f() { false; echo no; }")
    assert bash.run("f; echo no").done["exit"] == 1
    assert bash.run("if false; then :; fi; false || true; (false) || echo $x").done == \
        {"op": "done", "id": 3, "status": 0}
    assert bash.run("(false); echo no").done["status"] == 1
    assert bash.run("set +e; false; echo yes").done["status"] == 0
    assert bash.written() == "kept\nyes\n"


@pytest.mark.parametrize("code, status", [
    ("if (", 2), ("echo 'open", 2), (")", 2), ("echo ${x?unset}", None), ("readonly r=1; r=2", None),
    ("set -u; echo $nowhere", None), (". /nowhere/at/all", None), ("cd /nowhere", None), ("kill -INT $$; echo no", 130),
    ("shift 100", None), ("break", None),
])
def test_error_ends_the_run_and_not_the_session(any_shell, code, status):
    any_shell.run("x_kept=kept")
    done = any_shell.run(code).done
    assert done["status"] == status if status else "status" in done
    any_shell.run("set +u; echo $x_kept")
    assert any_shell.written().endswith("kept\n") and "no" not in any_shell.written().replace("nowhere", "")


@pytest.mark.parametrize("code", [
    "while :; do :; done", "sleep 1000", "f() { while :; do sleep 1000; done; }; f", "sleep 1000 | sleep 1000",
    "y=$(sleep 1000)", "sleep 1000 & wait", "for i in 1 2 3; do sleep 1000; done", "eval 'eval \"sleep 1000\"'",
])
def test_interrupt_ends_the_run_and_keeps_the_state(any_shell, code):
    any_shell.run("x=kept")
    any_shell.start(f"echo begun; {code}; echo no")
    any_shell.wait_written("begun")
    if "sleep" in code:
        any_shell.wait_program("sleep")
    any_shell.interrupt()
    assert any_shell.finish().done["status"] == 130
    any_shell.run("echo $x")
    assert any_shell.written() == "begun\nkept\n"


def test_interrupts_around_the_end_of_runs_hit_nothing_else(any_shell):
    for number in range(60):
        any_shell.start(f"i=0; while [ $i -lt {number} ]; do i=$((i + 1)); done")
        any_shell.interrupt()
        status = any_shell.finish().done["status"]
        assert status in (0, 130)
        if status == 0 or any_shell.ready["version"]:  # bash ignores late ones always
            any_shell.interrupt()
        assert any_shell.run("(exit 5)").done["status"] == 5


def test_interrupt_spares_background_jobs(any_shell):
    any_shell.run("sleep 1000 & job=$!")
    any_shell.start("sleep 1000")
    any_shell.wait_program("sleep", 2)
    any_shell.interrupt()
    any_shell.finish()
    assert any_shell.run("kill -0 $job").done["status"] == 0
    assert any_shell.run("kill $job; wait $job").done["status"] == 143


def test_programs_have_nothing_but_their_streams(any_shell):
    any_shell.run("cat; for f in 3 8 9; do eval \"echo x >&$f\" 2>/dev/null && echo open $f; done; true")
    assert any_shell.written() == ""
    if any_shell.ready["version"]:
        any_shell.run("ls -l /proc/self/fd")
    assert "socket" not in any_shell.written()


def test_output_is_the_codes_alone(any_shell):
    any_shell.run("echo out; echo err >&2; PS1='prompt> '; true")
    any_shell.run("true")
    assert (any_shell.written("stdout"), any_shell.written("stderr")) == ("out\n", "err\n")


@pytest.mark.parametrize("code", [
    "printf() { :; }; read() { :; }; kill() { :; }; eval() { :; }; trap() { :; }", "IFS=0123456789", "set -f",
    "PS1=x; PS2=y; unset PATH", "set -x", "trap : INT; trap : TERM", "exec 8>&- 9>&-", "exec >/dev/null 2>&1",
    "alias command=false eval=false printf=false", "unalias -a", "cd /; unset HOME PWD", "umask 777",
])
def test_code_that_breaks_its_shell_leaves_a_session(any_shell, code):
    any_shell.run("kept=1")
    any_shell.run(code)
    assert any_shell.run("[ \"$kept\" = 1 ] || (exit 9)").done["status"] == 0
    any_shell.start("while :; do :; done")
    any_shell.interrupt()
    assert any_shell.finish().done["status"] == 130


def test_exec_ends_the_session_with_its_status(any_shell):
    any_shell.start("exec sh -c 'exit 6'")
    with pytest.raises(EOFError):
        any_shell.finish()
    assert any_shell.process.wait(PATIENCE) == 6


def test_end_of_the_channel_ends_the_shell(any_shell):
    any_shell.run("true")
    any_shell.socket.shutdown(1)
    assert any_shell.process.wait(PATIENCE) == 0


def test_termination_ends_the_shell(bash):
    bash.run("true")
    bash.process.terminate()
    assert bash.process.wait(PATIENCE) == 143


def test_bash_has_its_own_ways(bash):
    bash.run("declare -A m=([a]=1); arr=(1 2 3)")
    bash.run("echo ${m[a]} ${arr[2]}; [[ $- == *i* ]] && echo interactive; history | wc -l")
    assert bash.written() == "1 3\ninteractive\n0\n"


def test_drivers_are_small_enough_for_an_argument():
    folder = pathlib.Path(__file__).resolve().parents[2] / "protocol/interpreters"
    for name in ("python.py", "node.js", "shell.sh", "shell_start.sh"):
        assert (folder / name).stat().st_size < 100 << 10
    subprocess.run(["bash", "-n", folder / "shell.sh"], check=True)
