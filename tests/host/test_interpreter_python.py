# SPDX-License-Identifier: Apache-2.0
"""The Python driver of interpreter sessions, run by this host's interpreter as the agent would run it in
a guest: what a session keeps, what it shows, what an interrupt reaches, and what does not end it."""

import base64
import json
import os

import pytest

from interpreter_session import PATIENCE, python

# Other versions to try besides Debian's, separated by colons.
PYTHONS = [program for program in os.environ.get("MSB_TEST_PYTHONS", "").split(":") if program]


@pytest.fixture(params=["/usr/bin/python3", *PYTHONS])
def session(request):
    with python(request.param) as started:
        yield started


def test_ready_says_the_version(session):
    assert session.ready["language"] == "python"
    assert session.value("'.'.join(map(str, __import__('sys').version_info[:3]))") == \
        repr(session.ready["version"].rstrip("+"))


def test_names_live_on(session):
    assert session.run("import math\nx = 20\ndef f(n): return n + math.floor(2.5)") == []
    assert session.value("f(x)") == "22"


def test_last_expression_is_the_value(session):
    assert session.value("1\n2\n3 + 4") == "7"
    assert session.value("'é\\U0001f600'") == "'é\U0001f600'"
    assert session.run("x = 1") == []
    assert session.run("None") == []
    assert session.run("5;") == []
    assert session.run("5 ;  # silent") == []
    assert session.value("';'") == "';'"
    assert session.run("") == []
    assert session.run("# nothing") == []


def test_top_level_await_on_one_loop(session):
    code = "import asyncio\nlock = asyncio.Event()\nasync def set(): lock.set()\n" \
           "task = asyncio.create_task(set())\nawait lock.wait()"
    assert session.value(code) == "True"
    assert session.value("task.done()") == "True"
    assert session.value("async def numbers():\n  yield 1\n[n async for n in numbers()]") == "[1]"
    assert session.value("(await asyncio.sleep(0, 'slept'))") == "'slept'"
    assert session.run("async with asyncio.Lock(): pass") == []


def test_tasks_go_on_between_runs(session):
    session.run("import asyncio\nasync def later():\n  await asyncio.sleep(0.05)\n  print('later')\n"
                "async def begin(): return asyncio.create_task(later())\ntask = await begin()")
    session.wait_written("later")
    assert session.value("task.done()") == "True"


def test_asyncio_run_works(session):
    session.run("import asyncio\nawait asyncio.sleep(0)")
    assert session.value("asyncio.run(asyncio.sleep(0, 3))") == "3"


def test_future_imports_hold(session):
    session.run("from __future__ import annotations")
    session.run("def f(a: nowhere): pass")
    assert session.value("f.__annotations__") == "{'a': 'nowhere'}"


def test_output_is_written_when_the_run_is_done(session):
    session.run("import sys, ctypes\nprint('out')\nprint('err', file=sys.stderr)\n"
                "ctypes.CDLL(None).printf(b'from C\\n')")
    assert session.written("stdout").splitlines() == ["out", "from C"]
    assert session.written("stderr") == "err\n"


def test_displays_come_in_order_with_their_representations(session):
    run = session.run("class P:\n  def _repr_png_(self): return b'\\x89PNG'\n"
                      "  def _repr_html_(self): return '<b>'\n  def _repr_json_(self): return {'a': [1]}\n"
                      "  def __repr__(self): return 'P!'\n"
                      "display(1, P())\n[P()][0]")
    assert [message["op"] for message in run] == ["display", "display", "result"]
    assert run[0]["data"] == {"text/plain": "1"}
    for message in run[1:]:
        assert message["data"]["text/plain"] == "P!"
        assert message["data"]["text/html"] == "<b>"
        assert base64.b64decode(message["data"]["image/png"]) == b"\x89PNG"
        assert json.loads(message["data"]["application/json"]) == {"a": [1]}


def test_mimebundle_and_failing_representation(session):
    run = session.run("class B:\n  def _repr_mimebundle_(self, include=None, exclude=None):\n"
                      "    return {'text/x-own': 'own'}, {}\n"
                      "  def _repr_html_(self): raise ValueError('no html')\nB()")
    assert run[0]["data"]["text/x-own"] == "own"
    assert "text/html" not in run[0]["data"]
    assert "_repr_html_ of B failed: ValueError('no html')" in session.written("stderr")


def test_no_more_representations_than_the_host_takes(session):
    run = session.run("class B:\n  def _repr_mimebundle_(self):\n"
                      "    return {'k' * 300: 'long', '\\ud800': 'odd', **{f'x/{n}': '' for n in range(100)}}\nB()")
    assert len(run[0]["data"]) == 64 and max(map(len, run[0]["data"])) <= 256


def test_traceback_with_many_lines_is_cut(session):
    error = session.run("e = ValueError('v')\ne.__notes__ = ['n'] * 200000\nraise e").error
    assert len(error["traceback"]) <= 10001


def test_objects_that_answer_to_every_name_are_shown_as_text(session):
    assert list(session.run("from unittest.mock import MagicMock\nMagicMock()")[0]["data"]) == ["text/plain"]


def test_class_is_not_shown_as_its_instance(session):
    assert session.value("class H:\n  def _repr_html_(self): return 1\nH") == "<class '__main__.H'>"


def test_long_text_is_cut_and_large_image_left_out(session):
    run = session.run("'x' * (30 << 20)")
    assert run[0]["cut"] == {"text/plain": (30 << 20) + 2}
    assert run.text.startswith("'xxx") and len(run.text) > 1 << 20
    run = session.run("class I:\n  def _repr_png_(self): return bytes(30 << 20)\n"
                      "  def __repr__(self): return 'I'\nI()")
    assert run[0]["data"] == {"text/plain": "I"} and list(run[0]["cut"]) == ["image/png"]


def test_text_that_utf8_cannot_express(session):
    assert session.value("class S:\n  def __repr__(self): return 'a\\ud800\\x00b'\nS()") == "a\\ud800\0b"


def test_figures_are_shown_after_the_run(session, tmp_path):
    package = tmp_path / "matplotlib"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "figure.py").write_text(
        "class Figure:\n  def __init__(self, n): self.n = n\n  def __repr__(self): return f'Figure {self.n}'\n"
        "  def savefig(self, into, format, bbox_inches): into.write(b'\\x89PNG%d' % self.n)\n")
    (package / "pyplot.py").write_text(
        "from matplotlib.figure import Figure\nfigures = {}\n"
        "def figure(n):\n  return figures.setdefault(n, Figure(n))\n"
        "def get_fignums(): return sorted(figures)\ndef close(which): figures.clear()\n")
    session.run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    run = session.run("import matplotlib.pyplot as plt\nplt.figure(1); plt.figure(2)\ndisplay(plt.figure(3))\n"
                      "print(__import__('os').environ['MPLBACKEND'])\nplt.figure(1)")
    assert [(message["op"], message["data"]["text/plain"]) for message in run] == \
        [("display", "Figure 3"), ("result", "Figure 1"), ("display", "Figure 2")]
    assert base64.b64decode(run[2]["data"]["image/png"]) == b"\x89PNG2"
    assert session.value("plt.get_fignums()") == "[]"
    assert session.written() == "agg\n"


def test_error_shows_the_lines_of_the_code_and_nothing_of_the_driver(session):
    session.run("def f(n):\n    return 1 / n")
    error = session.run("def g():\n    f(0)\ng()").error
    assert (error["name"], error["message"]) == ("ZeroDivisionError", "division by zero")
    text = "".join(error["traceback"])
    assert "    return 1 / n\n" in text and "    f(0)\n" in text and '"<run 1>", line 2, in f' in text
    assert "<string>" not in text and text.endswith("ZeroDivisionError: division by zero\n")


def test_error_in_await_and_in_repr_shows_only_the_code(session):
    error = session.run("import asyncio\nasync def f():\n  await asyncio.sleep(0)\n  raise KeyError(1)\nawait f()").error
    assert "<string>" not in "".join(error["traceback"]) and "base_events" not in "".join(error["traceback"])
    error = session.run("class R:\n  def __repr__(self): return 1 / 0\nR()").error
    assert error["name"] == "ZeroDivisionError" and "<string>" not in "".join(error["traceback"])


def test_syntax_error_has_its_position(session):
    error = session.run("x = 1\ny = = 2").error
    assert error["name"] == "SyntaxError"
    assert '"<run 1>", line 2' in error["traceback"][0] and "y = = 2" in "".join(error["traceback"])
    assert "Traceback" not in "".join(error["traceback"])


def test_source_is_found_and_line_numbers_hold(session):
    session.run("s = 'a\x0c\u2028b'\ndef f():\n    raise OSError")
    assert "    raise OSError\n" in "".join(session.run("f()").error["traceback"])
    assert session.value("import inspect; inspect.getsource(f)") == repr("def f():\n    raise OSError")


@pytest.mark.parametrize("code, name", [
    ("raise BaseException('b')", "BaseException"),
    ("raise GeneratorExit", "GeneratorExit"),
    ("def r(): r()\nr()", "RecursionError"),
    ("raise MemoryError", "MemoryError"),
    ("bytearray(1 << 62)", "MemoryError"),
    ("class E(Exception):\n  def __str__(self): raise ValueError\nraise E", "E"),
    ("raise Exception('x' * (40 << 20))", "Exception"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("input()", "EOFError"),
    ("compile('(' * 300 + ')' * 300, 'f', 'eval')", "SyntaxError"),
    ("await undefined()", "NameError"),
    ("return", "SyntaxError"),
    ("\0", None),
])
def test_error_ends_the_run_and_not_the_session(session, code, name):
    session.run("kept = 1")
    error = session.run(code).error
    assert name is None or error["name"] == name or (name == "SyntaxError" and "nest" in error["message"])
    assert session.value("kept") == "1"


@pytest.mark.parametrize("code, status", [("exit()", 0), ("import sys; sys.exit(3)", 3),
                                          ("raise SystemExit('text')", 1), ("raise SystemExit(-1)", 255)])
def test_exit_is_reported_and_the_session_goes_on(session, code, status):
    session.run("kept = 1")
    error = session.run(code).error
    assert (error["name"], error["exit"]) == ("SystemExit", status)
    assert session.value("kept") == "1"


@pytest.mark.parametrize("code", [
    "while True: pass",
    "import time; time.sleep(1000)",
    "import asyncio; await asyncio.sleep(1000)",
    "async def f():\n  while True: pass\nawait f()",
    "import threading; threading.Event().wait()",
    "import select; select.select([], [], [])",
    "import subprocess; subprocess.run(['sleep', '1000'])",
    "while True:\n  try: time_of_nothing\n  except Exception: pass",
    "class R:\n  def __repr__(self):\n    while True: pass\nR()",
    "while True: display(1)",
    "import sys; sys.settrace(lambda *a: None)\nwhile True: pass",
])
def test_interrupt_ends_the_run_and_keeps_the_state(session, code):
    session.run("kept = 1")
    session.start("print('begun', flush=True)\n" + code)
    session.wait_written("begun")
    session.interrupt()
    run = session.finish()
    assert run.error["name"] == "KeyboardInterrupt"
    assert "<string>" not in "".join(run.error["traceback"])
    assert session.value("kept") == "1"


def test_interrupt_of_the_group_reaches_what_the_run_waits_for(session):
    session.start("import os; print(os.system('sleep 1000'))")
    session.wait_program("sleep")
    session.interrupt(group=True)
    session.finish()
    assert session.value("1") == "1"


def test_interrupt_lets_coroutines_clean_up(session):
    session.start("import asyncio\ntry:\n  print('begun', flush=True)\n  await asyncio.sleep(1000)\n"
                  "finally:\n  await asyncio.sleep(0)\n  print('clean')")
    session.wait_written("begun\n")
    session.interrupt()
    assert session.finish().error["name"] == "KeyboardInterrupt"
    assert session.written() == "begun\nclean\n"


def test_interrupts_around_the_end_of_runs_hit_nothing_else(session):
    outcomes = set()
    for number in range(300):
        session.start(f"x = {number}\nfor i in range({number * 10}): pass")
        session.interrupt()
        run = session.finish()
        assert [message["op"] for message in run] in ([], ["error"])
        outcomes.add(len(run))
        session.interrupt()  # between runs: nothing
        assert session.value("1 + 1") == "2"
    assert 1 in outcomes


def test_interrupt_handler_is_ours_again_in_the_next_run(session):
    session.run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
                "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])")
    session.start("print('begun', flush=True)\nwhile True: pass")
    session.wait_written("begun")
    session.interrupt()
    assert session.finish().error["name"] == "KeyboardInterrupt"


@pytest.mark.parametrize("code", [
    "import builtins\nfor n in list(vars(builtins)):\n  if n not in ('__build_class__',): delattr(builtins, n)",
    "del __builtins__.print, __builtins__.len, __builtins__.isinstance",
    "__builtins__ = {}",
    "import json, os, ast, traceback, linecache, signal, struct, asyncio\n"
    "for m in (json, os, ast, traceback, linecache, signal, struct, asyncio, json.encoder, json.decoder):\n"
    "  for n in list(vars(m)):\n    if not n.startswith('__'): setattr(m, n, None)",
    "import sys; sys.modules.clear()",
    "import sys; sys.stdout = sys.stderr = None",
    "import sys; sys.stdout.close(); sys.stderr.close()",
    "import os; os.close(0); os.close(1); os.close(2)",
    "import os; os.closerange(0, 256)",
    "import sys; sys.setrecursionlimit(60)",
    "import sys\ndef trace(*a): raise ValueError\nsys.settrace(trace); sys.setprofile(trace)",
    "import sys; sys.displayhook = sys.excepthook = None; sys.ps1 = 1",
    "import gc; gc.disable(); gc.freeze()",
    "import sys; sys.path[:] = []; sys.meta_path[:] = []",
    "display = print = repr = str = len = None",
    "import os\nos.chdir('/')\nos.environ.clear()",
    "__name__ = 'x'; del __name__",
    "import sys; del sys.modules['__main__']",
    "import asyncio; loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop); loop.close()",
    "import asyncio\nasync def f(): asyncio.get_running_loop().stop()\nasyncio.new_event_loop()\nawait f()",
    "import threading; threading.settrace(lambda *a: None); threading.Thread(target=print).start()",
])
def test_code_that_breaks_its_interpreter_leaves_a_session(session, code):
    session.run("kept = [1]")
    session.run(code)
    assert session.value("kept") == "[1]"
    error = session.run("[][1]").error
    assert error["name"] == "IndexError" and error["traceback"][-1].startswith("IndexError")


def test_descriptor_3_is_not_the_channel(session):
    assert session.run("import os; os.write(3, b'x')").error["name"] == "OSError"
    assert session.value("open('/dev/null').fileno()") == "3"
    code = "import subprocess\nsubprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, check=True)"
    session.run(code)
    assert "socket:" not in session.written()


def test_fork_has_no_part_in_the_conversation(session):
    run = session.run("import os\npid = os.fork()\nif pid == 0: display('child')\n"
                      "else: os.waitpid(pid, 0)\nprint('child' if pid == 0 else 'parent')\npid == 0")
    assert run.text == "False" and not run.of("display")
    assert session.written() == "child\nparent\n"


def test_fork_that_fails_ends_with_its_status(session):
    code = "import os\npid = os.fork()\nif pid == 0: raise {}\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    assert session.value(code.format("SystemExit(7)")) == "7"
    assert session.value(code.format("KeyError('in child')")) == "1"
    assert "KeyError: 'in child'" in session.written("stderr")


def test_multiprocessing_and_threads(session):
    assert session.value("import multiprocessing\ndef square(n): return n * n\n"
                         "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
                         "  squares = pool.map(square, range(4))\nsquares") == "[0, 1, 4, 9]"
    run = session.run("import threading\nthreads = [threading.Thread(target=display, args=(n,)) for n in range(20)]\n"
                      "for t in threads: t.start()\nfor t in threads: t.join()")
    assert sorted(int(message["data"]["text/plain"]) for message in run) == list(range(20))


def test_exec_of_another_program_in_a_child_leaves_the_session(session):
    session.run("import subprocess\nchild = subprocess.Popen(['sleep', '1000'])")
    assert session.value("child.poll() is None") == "True"
    session.run("child.kill(); child.wait()")


def test_much_output_is_all_there(session):
    session.run("line = 'x' * 1023\nfor _ in range(100): print('\\n'.join([line] * 1024))")
    assert len(session.written()) == 100 << 20


def test_pickle_finds_what_the_session_defined(session):
    assert session.value("import pickle\nclass C: pass\ntype(pickle.loads(pickle.dumps(C()))) is C") == "True"


def test_end_of_the_channel_ends_the_interpreter_in_order(session):
    session.run("import atexit; atexit.register(print, 'at exit')")
    session.socket.shutdown(1)
    assert session.process.wait(PATIENCE) == 0
    assert session.written() == "at exit\n"


def test_unknown_requests_are_passed_over(session):
    session.send(op="dance", id=1)
    assert session.value("1") == "1"
    assert session.hello(9)["id"] == 9
