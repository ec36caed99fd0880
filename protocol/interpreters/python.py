# SPDX-License-Identifier: Apache-2.0
# A Python session: runs in the guest as `python3 -u -c THIS`, keeps the names that code defines from
# one run to the next, and talks with the host over descriptor 3. docs/interpreters.md has the messages.
#
# Code of a session may do anything to its interpreter. So that it does not break what serves it:
# everything that is needed later is bound here, before any of it runs; the functions below find their
# built-ins in a copy; and what goes wrong while a run is reported ends that run, not the session.

import builtins

__builtins__ = dict(vars(builtins))  # what the functions below see as built-ins

import binascii  # noqa: E402
import fcntl  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import linecache  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
import types  # noqa: E402
import _ast  # noqa: E402
import _signal  # noqa: E402
import _thread  # noqa: E402

MESSAGE_MAX = 32 << 20  # bytes of a message; the host ends a session that sends a longer one
DATA_MAX = 24 << 20     # bytes of all representations of one value, as JSON
TYPES_MAX = 64          # representations of one value
TYPE_MAX = 256          # bytes of a MIME type
ERROR_MAX = 1 << 20     # bytes of an error's message, and of its traceback
LINES_MAX = 10000       # of a traceback
SOURCES_MAX = 512       # runs whose lines tracebacks still show
RECURSION_MIN = 500     # what reporting a run needs, whatever limit the run has set

PARSE = 0x400           # PyCF_ONLY_AST
AWAIT = 0x2000          # PyCF_ALLOW_TOP_LEVEL_AWAIT
COROUTINE = 0x80        # CO_COROUTINE
FUTURES = 0x1fe0000     # CO_FUTURE_*: `from __future__` holds for the runs that follow

read, write, close, getpid, leave = os.read, os.write, os.close, os.getpid, os._exit
compile, eval = compile, eval  # also found here when the frame that asks is not one of ours
quote = json.encoder.encode_basestring
scan = json.decoder.JSONDecoder().scan_once
encode_json = json.JSONEncoder(ensure_ascii=False).encode
encode_base64 = binascii.b2a_base64
TracebackException = traceback.TracebackException
BytesIO = io.BytesIO
set_handler, set_mask = _signal.signal, _signal.pthread_sigmask
SIGINT, UNBLOCK = _signal.SIGINT, _signal.SIG_UNBLOCK
get_trace, set_trace, get_profile, set_profile = sys.gettrace, sys.settrace, sys.getprofile, sys.setprofile
get_recursion, set_recursion = sys.getrecursionlimit, sys.setrecursionlimit
Expr, Expression = _ast.Expr, _ast.Expression
thread_of_caller = _thread.get_ident

try:
    import ctypes
    flush_c = ctypes.CDLL(None).fflush  # of libc: what extensions printed
except (ImportError, OSError, AttributeError):
    flush_c = None  # built without ctypes

# Beyond the descriptors that programs use by number, and not inherited. On 3 it would be written to
# by accident.
channel = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 500)
close(3)


class Session:
    pid = getpid()
    id = 0             # of the run that is under way, else 0
    runs = 0
    flags = 0          # of compile(): futures
    loop = None        # the event loop, once one was needed
    shown = ()         # figures that were displayed in this run
    interrupted = False  # before the code of this run began
    deferred = False     # while a message was being written
    held = b""           # a result: goes with the message that follows it
    trace = profile = None
    main = types.ModuleType("__main__")


session = Session()


# ---- Messages.

lock = _thread.RLock()
outgoing = []


def after_fork_in_child():
    close(channel)


os.register_at_fork(after_in_child=after_fork_in_child)


def read_exactly(size):
    content = bytearray()
    while len(content) < size:
        piece = read(channel, min(size - len(content), 1 << 20))
        if not piece:
            return None
        content += piece
    return bytes(content)


def receive():
    header = read_exactly(4)
    body = header and read_exactly(int.from_bytes(header, "little"))
    return scan(body.decode("utf-8"), 0)[0] if body else None


def clean(text):
    """Of a str, or a subclass of it that may have its own mind, a str that UTF-8 can express."""
    return str.__str__(text).encode("utf-8", "backslashreplace").decode("utf-8")


def encoded(value):
    if isinstance(value, str):
        return quote(clean(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return "%d" % value
    if isinstance(value, dict):
        return "{%s}" % ",".join([encoded(key) + ":" + encoded(item) for key, item in value.items()])
    return "[%s]" % ",".join([encoded(item) for item in value])


def framed(message):
    body = encoded(message).encode("utf-8")
    return len(body).to_bytes(4, "little") + body


def send(**message):
    """Sends a message, after all output that was written before it."""
    if getpid() != session.pid:
        return  # a child has no part in the conversation
    flush_output()
    transmit(framed(message))


def transmit(content):
    """on_interrupt() lets this function finish, for half a message would end the session."""
    with lock:
        outgoing.append(session.held + content)
        session.held = b""
        if len(outgoing) > 1:
            return  # called from a finalizer inside this function: the outer call sends it
        try:
            while outgoing:
                content = memoryview(outgoing[0])
                while content:
                    content = content[write(channel, content):]
                outgoing.pop(0)
        finally:
            outgoing.clear()
    if session.deferred and thread_of_caller() == main_thread:
        session.deferred = False
        raise KeyboardInterrupt


def flush_output():
    for stream in (getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
        try:
            stream.flush()
        except Exception:
            pass  # closed, or not a stream: the code that did so has lost that output
    if flush_c:
        flush_c(None)


# ---- Interrupts.

main_thread = thread_of_caller()


def call(function, *arguments):
    """The only way into code of the session. An interrupt is raised only below this frame, so it
    always comes out where call() was called and nowhere else."""
    set_trace(session.trace)
    set_profile(session.profile)
    try:
        if session.interrupted:
            raise KeyboardInterrupt
        return function(*arguments)
    finally:
        session.trace, session.profile = get_trace(), get_profile()
        set_trace(None)  # a session's own debugger or profiler has no business in the driver
        set_profile(None)


def on_interrupt(_, frame):
    inside = transmitting = False
    while frame:
        transmitting = transmitting or frame.f_code is transmit.__code__
        inside = inside or frame.f_code is call.__code__
        frame = frame.f_back
    if not inside:
        session.interrupted = True
    elif transmitting:
        session.deferred = True
    elif session.id:
        raise KeyboardInterrupt


def arm():
    """For every run anew: the code of an earlier one may have changed it."""
    set_handler(SIGINT, on_interrupt)
    set_mask(UNBLOCK, [SIGINT])
    session.interrupted = session.deferred = False


# ---- What a value looks like.

TEXTS = {"_repr_html_": "text/html", "_repr_markdown_": "text/markdown", "_repr_svg_": "image/svg+xml",
         "_repr_latex_": "text/latex", "_repr_javascript_": "application/javascript",
         "_repr_png_": "image/png", "_repr_jpeg_": "image/jpeg", "_repr_pdf_": "application/pdf",
         "_repr_json_": "application/json"}


def representation_methods(value):
    # Those of the class: an instance may answer to any name (mocks, proxies).
    return [] if isinstance(value, type) else [name for name in TEXTS if hasattr(type(value), name)]


def represent(value):
    """All representations of a value by MIME type, as str or bytes."""
    data = {}
    if not isinstance(value, type) and hasattr(type(value), "_repr_mimebundle_"):
        bundle = optional(value, "_repr_mimebundle_")
        if isinstance(bundle, tuple) and bundle:
            bundle = bundle[0]
        if isinstance(bundle, dict):
            data.update({kind: item for kind, item in bundle.items() if isinstance(kind, str)})
    for name in representation_methods(value):
        if TEXTS[name] not in data:
            found = optional(value, name)
            if isinstance(found, tuple) and found:  # with metadata
                found = found[0]
            if found is not None:
                data[TEXTS[name]] = found
    if is_figure(value) and "image/png" not in data:
        data["image/png"] = figure_png(value)
    if "text/plain" not in data:
        data["text/plain"] = repr(value)
    return {clean(kind): as_text(kind, item) for kind, item in data.items()}


def optional(value, name):
    try:
        return getattr(value, name)()
    except Exception as error:
        sys.stderr.write("%s of %s failed: %r\n" % (name, type(value).__name__, error))
        return None


def as_text(kind, item):
    if isinstance(item, (bytes, bytearray, memoryview)):
        return encode_base64(item, newline=False).decode("ascii")
    if isinstance(item, str):
        return clean(item)
    return clean(encode_json(item)) if kind.endswith("json") else clean(str(item))


def fit(data):
    """Cuts plain text and leaves out the rest where a message would become too long. Returns what
    fits, and by MIME type the length in characters of what was cut."""
    fitting, cut, left = {}, {}, DATA_MAX
    kinds = [kind for kind in data if len(kind.encode("utf-8")) <= TYPE_MAX][:TYPES_MAX]
    for kind in sorted(kinds, key=lambda kind: len(data[kind])):
        text = data[kind]
        if len(text) * 6 > left and len(quote(text).encode("utf-8")) + len(kind) * 6 > left:
            cut[kind] = len(text)
            if kind != "text/plain":
                continue
            text = text[:left // 12]  # one character takes 6 bytes at most; leave room for others
        fitting[kind] = text
        left -= len(quote(text).encode("utf-8")) + len(quote(kind).encode("utf-8")) + 16
    return fitting, cut


def shown(operation, id, value):
    data, cut = fit(represent(value))
    return {"op": operation, "id": id, "data": data, "cut": cut}


def display(*values):
    """Shows values with all their representations: text, HTML, images."""
    for value in values:
        if is_figure(value):
            session.shown += (value,)
        send(**shown("display", session.id, value))


# ---- Figures of matplotlib.

def is_figure(value):
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return isinstance(figure, type) and isinstance(value, figure)


def figure_png(figure):
    into = BytesIO()
    figure.savefig(into, format="png", bbox_inches="tight")
    return into.getvalue()


def show_figures():
    """Those that pyplot holds are shown at the end of a run, and let go."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not hasattr(pyplot, "get_fignums"):
        return
    numbers = pyplot.get_fignums()
    try:
        for number in numbers:
            figure = pyplot.figure(number)
            if not any(figure is other for other in session.shown):
                send(**shown("display", session.id, figure))
    finally:
        if numbers:
            pyplot.close("all")


# ---- Running.

sources = {}


def compiled(source, name):
    """The code of all statements and, when the last one is an expression whose value is wanted, the
    code of that one apart."""
    tree = compile(source, name, "exec", PARSE | AWAIT | session.flags, True)
    value = None
    if tree.body and isinstance(tree.body[-1], Expr):
        last = tree.body.pop()
        line = source.encode("utf-8").splitlines()[last.end_lineno - 1]
        silent = line[last.end_col_offset:].lstrip().startswith(b";")
        if silent:
            tree.body.append(last)
        else:
            value = Expression(last.value)
    code = compile(tree, name, "exec", AWAIT | session.flags, True)
    session.flags |= code.co_flags & FUTURES
    return code, value and compile(value, name, "eval", AWAIT | session.flags, True)


def evaluate(code, value):
    """The value, after the statements. With one `await` anywhere all runs on the event loop."""
    names = vars(session.main)
    if (code.co_flags | (value.co_flags if value else 0)) & COROUTINE:
        return finish(evaluate_on_loop(code, value, names))
    eval(code, names)
    return eval(value, names) if value else None


async def evaluate_on_loop(*codes_and_names):
    *codes, names = codes_and_names
    result = None
    for code in codes:
        result = eval(code, names) if code else None
        if code and code.co_flags & COROUTINE:
            result = await result
    return result


def finish(coroutine):
    loop = event_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():  # interrupted: its `finally` parts run, unless interrupted once more
            task.cancel()
            try:
                loop.run_until_complete(task)
            except sys.modules["asyncio"].CancelledError:
                pass
        raise


def event_loop():
    if session.loop is None or session.loop.is_closed():
        import asyncio  # now, for it takes longer to load than all the rest
        session.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(session.loop)
    return session.loop


def run(id, source):
    source = clean(source)
    session.runs += 1
    name = "<run %d>" % session.runs
    remember(name, source)
    session.id, session.shown = id, ()
    arm()
    send(op="started", id=id)
    error = None
    try:
        call(run_statements, id, source, name)
    except BaseException as raised:
        error = raised
    if getpid() != session.pid:
        end_child(error)
    if get_recursion() < RECURSION_MIN:
        set_recursion(RECURSION_MIN)
    if error is not None:
        send(op="error", id=id, **described(error))
        error = None  # with it go the frames, and what they hold
    session.interrupted = session.deferred = False  # too late for this run's code
    try:
        call(show_figures)
    except BaseException as raised:
        send(op="error", id=id, **described(raised))
    session.id, session.shown = 0, ()
    send(op="done", id=id)


def run_statements(id, source, name):
    value = evaluate(*compiled(source, name))
    if getpid() == session.pid and value is not None:
        if is_figure(value):
            session.shown += (value,)
        session.held = framed(shown("result", id, value))


def remember(name, source):
    """Tracebacks and inspect.getsource() find the lines here; None: not a file that may change."""
    lines = [line.decode("utf-8") for line in source.encode("utf-8").splitlines(True)]
    sources[name] = (len(source), None, lines, name)
    old = "<run %d>" % (session.runs - SOURCES_MAX)
    sources.pop(old, None)
    try:
        linecache.cache[name] = sources[name]
        linecache.cache.pop(old, None)
    except (AttributeError, TypeError):
        pass  # it is the session's to break


def end_child(error):
    """A process that code of the session forked, at the end of that code."""
    try:
        if error is not None and exit_status(error) is None:
            sys.stderr.write("".join(described(error)["traceback"]))
        elif error is not None and not isinstance(error.code, (int, type(None))):
            sys.stderr.write("%s\n" % (error.code,))
        flush_output()
    finally:
        leave(0 if error is None else (1 if exit_status(error) is None else exit_status(error)) & 255)


# ---- Errors.

def exit_status(error):
    """Of SystemExit, as the interpreter would end; None of other exceptions."""
    if not isinstance(error, SystemExit):
        return None
    code = error.code
    return 0 if code is None else int(code) if isinstance(code, int) else 1


def described(error):
    kind = type.__dict__["__name__"].__get__(type(error))
    first = users_traceback(error.__traceback__)
    try:
        text = clean(str(error))
    except BaseException:
        text = "(its message cannot be had)"
    try:
        linecache.cache.update(sources)
        lines = list(TracebackException(type(error), error, first).format())
        lines = [clean(line) for line in lines]
    except BaseException:  # it depends on much that the session can change
        lines = plain_traceback(first) + ["%s: %s\n" % (kind, text)]
    result = {"name": clean(kind), "message": shortened(text), "traceback": shortened_lines(lines)}
    if exit_status(error) is not None:
        result["exit"] = exit_status(error) & 255
    return result


def users_traceback(first):
    """Without the frames of this driver, and of the event loop under an `await`."""
    entries = []
    while first:
        if first.tb_frame.f_globals is not globals():
            entries.append(first)
        first = first.tb_next
    for entry, following in zip(entries, entries[1:] + [None]):
        entry.tb_next = following
    for entry in entries:
        if entry.tb_frame.f_code.co_filename.startswith("<run "):
            return entry
    return entries[0] if entries else None


def plain_traceback(entry):
    lines = ["Traceback (most recent call last):\n"]
    while entry and len(lines) < 100:
        code = entry.tb_frame.f_code
        lines.append('  File "%s", line %d, in %s\n' % (code.co_filename, entry.tb_lineno or 0, code.co_name))
        entry = entry.tb_next
    return lines


def shortened(text):
    return text if len(text) * 6 <= ERROR_MAX else text[:ERROR_MAX // 6 - 16] + " (cut)"


def shortened_lines(lines):
    """The end is what says what happened."""
    kept, left = [], ERROR_MAX // 6
    for line in reversed(lines):
        line = shortened(line)
        left -= len(line)
        if kept and (left < 0 or len(kept) == LINES_MAX):
            kept.append("(cut)\n")
            break
        kept.append(line)
    return kept[::-1]


# ---- The conversation.

def wait_for_request():
    """Tasks that code of the session left on the event loop go on meanwhile."""
    loop = session.loop
    if loop is None or loop.is_closed():
        return
    session.interrupted = session.deferred = False
    loop.add_reader(channel, loop.stop)
    try:
        call(loop.run_forever)
    finally:
        loop.remove_reader(channel)


def serve():
    while True:
        try:
            wait_for_request()
        except BaseException as error:  # SystemExit, KeyboardInterrupt of a task
            sys.stderr.write("".join(described(error)["traceback"]))
        if getpid() != session.pid:
            leave(0)
        request = receive()
        if request is None:
            return
        id = request.get("id", 0)
        try:
            if request.get("op") == "hello":
                send(op="ready", id=id, language="python", version=sys.version.split()[0])
            elif request.get("op") == "run":
                run(id, request["code"])
        except BaseException as error:  # memory ran out while reporting, or the like
            session.id = 0
            send(op="error", id=id, name=type(error).__name__, message="the run could not be reported",
                 traceback=[])
            send(op="done", id=id)
            del error


def begin():
    session.main.__dict__.update(__builtins__=builtins, display=display)
    session.driver = sys.modules["__main__"]  # lives as long as its functions are needed
    sys.modules["__main__"] = session.main
    os.environ.setdefault("MPLBACKEND", "agg")  # nobody looks at a window here
    arm()


# From a frame with other globals: until Python 3.10, one with the same passes its built-ins on.
eval("begin() or serve()", {"begin": begin, "serve": serve})
