# SPDX-License-Identifier: Apache-2.0
"""The JavaScript driver of interpreter sessions, run by this host's Node.js as the agent would run it in a guest."""

import base64
import json
import shutil

import pytest

from interpreter_session import PATIENCE, node


@pytest.fixture
def javascript():
    if not shutil.which("node"):
        pytest.skip("this host has no node")
    with node() as started:
        yield started


def test_ready_says_the_version(javascript):
    assert javascript.ready["language"] == "javascript"
    assert javascript.value("process.version.slice(1)") == repr(javascript.ready["version"])


def test_declarations_live_on_and_may_be_made_anew(javascript):
    javascript.run("const a = 1; let b = 2; class C {}; function f() { return a + b }; var d = 4")
    assert javascript.value("f() + d") == "7"
    javascript.run("const a = 10; let b = 20; class C { x = 1 }")
    assert javascript.value("[a, b, f(), new C().x]") == "[ 10, 20, 30, 1 ]"


def test_last_expression_is_the_value(javascript):
    for code, text in [("1; 2", "2"), ("'a'", "'a'"), ("({ a: [1, { b: 2 }] })", "{ a: [ 1, { b: 2 } ] }"),
                       ("10n", "10n"), ("-0", "-0"), ("NaN", "NaN"), ("null", "null"), ("Symbol('s')", "Symbol(s)"),
                       ("new Map([[1, 2]])", "Map(1) { 1 => 2 }"), ("Promise.resolve(1)", "Promise { 1 }"),
                        ("1 // comment", "1")]:
        assert javascript.value(code) == text, code
    for code in ("undefined", "const x = 1", "", "// nothing", "if (false) 1"):
        assert javascript.run(code) == [], code


def test_top_level_await(javascript):
    javascript.run("const value = await new Promise((done) => setTimeout(done, 5, 42))")
    assert javascript.value("value") == "42"
    assert javascript.value("let n = 0; for await (const x of [1, 2]) n += x; n") == "3"


def test_require_and_import_are_relative_to_the_working_directory(javascript, tmp_path):
    (tmp_path / "one.js").write_text("module.exports = 1")
    (tmp_path / "two.mjs").write_text("export default 2")
    javascript.run(f"process.chdir({json.dumps(str(tmp_path))})")
    assert javascript.value("require('./one.js')") == "1"
    assert javascript.value("(await import('./two.mjs')).default") == "2"
    assert javascript.value(f"(await import('{tmp_path}/two.mjs')).default") == "2"
    assert javascript.value("(await import('node:path')).sep") == "'/'"
    assert javascript.value("const lazy = () => import /* c */ ('fs'); typeof (await lazy()).readFileSync") == "'function'"
    assert "ERR_MODULE_NOT_FOUND" in "".join(javascript.run("await import('./three.mjs')").error["traceback"]) \
        or javascript.run("await import('./three.mjs')").error["message"].startswith("Cannot find")


def test_import_in_text_is_left_alone(javascript):
    for code, text in [("'import(1)'", "'import(1)'"), ("`import(1) ${`import(2)`}`", "'import(1) import(2)'"),
                       ("/import(a)/.source", "'import(a)'"), ("({ import(x) { return x } }).import(3)", None),
                       ("8 / 2 / /* import( */ 2", "2"), ("const o = { import: (x) => x }; o.import(3)", "3"),
                       ("/[/]import(/.test('x') // import(", None)]:
        run = javascript.run(code)
        if text:
            assert run.text == text, code


def test_console_goes_to_the_output_before_the_run_is_done(javascript):
    javascript.run("console.log('out', { a: 1 }); console.error('err')")
    assert javascript.written("stdout") == "out { a: 1 }\n"
    assert javascript.written("stderr") == "err\n"


def test_displays_come_in_order_with_their_representations(javascript):
    run = javascript.run("display({ a: 1 }); display('<b>', 'text/html');"
                         "display({ [Symbol.for('Jupyter.display')]: () => ({ 'application/json': { b: 2 } }) });"
                         "Buffer.from('89504e470d0a1a0a00', 'hex')")
    assert [message["op"] for message in run] == ["display"] * 3 + ["result"]
    assert run[0]["data"] == {"text/plain": "{ a: 1 }"}
    assert run[1]["data"] == {"text/html": "<b>"}
    assert json.loads(run[2]["data"]["application/json"]) == {"b": 2}
    assert base64.b64decode(run[3]["data"]["image/png"]).startswith(b"\x89PNG")


def test_no_more_representations_than_the_host_takes(javascript):
    run = javascript.run("display({ [Symbol.for('Jupyter.display')]: () => Object.fromEntries("
                         "[...Array(100).keys(), 'k'.repeat(300)].map((n) => [`x/${n}`, ''])) })")
    assert len(run[0]["data"]) == 64


def test_long_text_is_cut(javascript):
    run = javascript.run("display('é'.repeat(20 << 20), 'text/plain'); display('x'.repeat(30 << 20), 'text/html')")
    assert run[0]["cut"] == {"text/plain": 20 << 20} and run[0]["data"]["text/plain"].startswith("éé")
    assert run[1]["data"] == {} and run[1]["cut"] == {"text/html": 30 << 20}


def test_error_has_the_stack_of_the_code(javascript):
    error = javascript.run("function f() {\n  throw new TypeError('bad');\n}\nf()").error
    assert (error["name"], error["message"]) == ("TypeError", "bad")
    text = "".join(error["traceback"])
    assert "at f (run-1:2:9)" in text and "[eval]" not in text and "inspector" not in text


@pytest.mark.parametrize("code, name", [
    ("1 +", "SyntaxError"), ("nowhere", "ReferenceError"), ("await Promise.reject(new RangeError('r'))", "RangeError"),
    ("throw 3", "Uncaught"), ("throw undefined", "Uncaught"), ("throw { get stack() { throw 1 } }", "Uncaught"),
    ("(function f() { f() })()", "RangeError"), ("import fs from 'fs'", "SyntaxError"),
    ("({ [Symbol.for('nodejs.util.inspect.custom')]() { throw new EvalError('e') } })", "EvalError"),
])
def test_error_ends_the_run_and_not_the_session(javascript, code, name):
    javascript.run("const kept = 1")
    assert javascript.run(code).error["name"] == name
    assert javascript.value("kept") == "1"


def test_exit_is_reported_and_the_session_goes_on(javascript):
    assert javascript.run("process.exit(3)").error["exit"] == 3
    assert javascript.run("process.exitCode = 4; process.exit()").error["exit"] == 4
    run = javascript.run("setTimeout(() => process.exit(5), 1); await new Promise(() => {})")
    assert run.error["exit"] == 5
    assert javascript.value("1") == "1"


def test_failing_callbacks_are_told_on_standard_error(javascript):
    javascript.run("setTimeout(() => { throw new Error('in timer') }, 1); Promise.reject(new Error('in promise')); 0")
    javascript.wait_written("in timer", "stderr")
    javascript.wait_written("in promise", "stderr")
    javascript.run("process.removeAllListeners()")
    javascript.run("setTimeout(() => { throw new Error('later') }, 1)")
    javascript.wait_written("later", "stderr")
    assert javascript.value("1") == "1"


@pytest.mark.parametrize("code", [
    "while (true) {}",
    "for (;;) { try { for (;;) {} } catch {} finally { } }",
    "await new Promise(() => {})",
    "await 1; while (true) {}",
    "await new Promise((done) => setTimeout(done, 5)); while (true) {}",
    "setTimeout(() => { while (true) {} }, 5); await new Promise(() => {})",
    "process.nextTick(() => { while (true) {} }); await new Promise(() => {})",
    "new (require('events'))().on('x', () => { while (true) {} }).emit('x')",
    "/(a+)+b/.test('a'.repeat(60))",
    "while (true) display(1)",
    "({ [Symbol.for('nodejs.util.inspect.custom')]() { while (true) {} } })",
])
def test_interrupt_ends_the_run_and_keeps_the_state(javascript, code):
    javascript.run("const kept = 1")
    javascript.start("console.log('begun');\n" + code)
    javascript.wait_written("begun")
    javascript.interrupt()
    assert javascript.finish().error["name"] == "Interrupted"
    assert javascript.value("kept") == "1"
    assert javascript.value("await new Promise((done) => setTimeout(done, 5, 6))") == "6"


def test_interrupt_of_the_group_reaches_what_the_run_waits_for(javascript):
    javascript.start("require('child_process').spawnSync('sleep', ['1000']).signal")
    javascript.wait_program("sleep")
    javascript.interrupt()
    javascript.interrupt(group=True)
    javascript.finish()
    assert javascript.value("1") == "1"


def test_interrupts_around_the_end_of_runs_hit_nothing_else(javascript):
    for number in range(100):
        javascript.start(f"for (let i = 0; i < {number * 1000}; i++) ;")
        javascript.interrupt()
        assert [message["op"] for message in javascript.finish()] in ([], ["error"], ["result"])
        javascript.interrupt()
        javascript.interrupt(group=True)
        assert javascript.value("1 + 1") == "2"


@pytest.mark.parametrize("code", [
    "JSON.stringify = JSON.parse = null", "globalThis.process = undefined",
    "delete globalThis.console; delete globalThis.display; delete globalThis.require",
    "process.stdout.destroy(); process.stderr.end()", "process.removeAllListeners()",
    "Object.freeze(globalThis.process)", "require('fs').writeSync = null", "Promise.prototype.then = null",
    "const process = 1, Buffer = 2, Promise = 3",
])
def test_code_that_breaks_its_interpreter_leaves_a_session(javascript, code):
    if code.startswith("Promise.prototype") and int(javascript.ready["version"].lstrip("v").split(".")[0]) < 20:
        pytest.skip("Node.js before 20 itself calls the method for every run (docs/interpreters.md)")
    javascript.run("const kept = 1")
    javascript.run(code)
    assert javascript.value("kept") == "1"


def test_children_do_not_hold_the_channel(javascript):
    javascript.run("require('child_process').execSync('ls -l /proc/self/fd', { stdio: ['ignore', 1, 2] })")
    assert " 3 -> socket" not in javascript.written()


def test_end_of_the_channel_ends_the_interpreter(javascript):
    javascript.socket.shutdown(1)
    assert javascript.process.wait(PATIENCE) == 0
