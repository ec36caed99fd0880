// SPDX-License-Identifier: Apache-2.0
// A JavaScript session: runs in the guest as `node --no-force-async-hooks-checks -e THIS`, keeps what
// code defines from one run to the next, and talks with the host over descriptor 3.
// docs/interpreters.md has the messages.
//
// Runs are evaluated as DevTools evaluates its console (Runtime.evaluate with replMode of the inspector
// protocol): `await` anywhere, and const, let and class live on and may be declared anew. A second
// thread reads the channel, so that an interrupt finds its way also when this one never returns to its
// event loop; it then ends what this one executes (Runtime.terminateExecution). Node keeps a stack of
// asynchronous contexts that such an end leaves unbalanced, and would abort at it: hence the flag.
'use strict';
{
// What code of the session may hide under declarations of its own, or replace.
const { process, Buffer, Promise, Symbol, Object, JSON, Atomics, Math, Error, Number, String, BigInt, Uint8Array,
  Int32Array, SharedArrayBuffer } = globalThis;
const { Session } = require('inspector');
const { Worker } = require('worker_threads');
const { writeSync } = require('fs');
const { inspect } = require('util');
const { createRequire } = require('module');
const { pathToFileURL } = require('url');
const { resolve } = require('path');

const CHANNEL = 3;
const DATA_MAX = 24 * 1024 * 1024; // bytes of all representations of one value, as JSON
const TYPES_MAX = 64;              // representations of one value
const TYPE_MAX = 256;              // bytes of a MIME type
const ERROR_MAX = 1024 * 1024;     // characters of an error's message, and of its stack
const { parse, stringify } = JSON;
const { from: bytesOf, byteLength } = Buffer;
const endProcess = process.exit.bind(process);
const workingDirectory = process.cwd.bind(process);
const stdout = process.stdout, stderr = process.stderr;

function complain(text) {
  try {
    stderr.write(text);
  } catch {
    // code of the session has broken the stream, and what it would have said is lost with it
  }
}

// ---- Messages.

let unsent = Buffer.alloc(0); // an interrupt may stop send() anywhere; the next one goes on from here

function queue(message) {
  const body = bytesOf(stringify(message));
  const header = Buffer.alloc(4);
  header.writeUInt32LE(body.length);
  unsent = Buffer.concat([unsent, header, body]);
}

function send(message) {
  queue(message);
  while (unsent.length) {
    try {
      unsent = unsent.subarray(writeSync(CHANNEL, unsent));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(shared, NOTHING, 0, 2); // the other thread's reading made it non-blocking
    }
  }
}

// Output goes before the message that follows it; a stream that code of the session has broken, never.
const flushed = (stream) => new Promise((done) => {
  if (stream.destroyed || stream.writableEnded || !stream.writableLength) return done();
  stream.once('close', done);
  stream.write('', () => { stream.removeListener('close', done); done(); });
});

// ---- The thread that reads the channel.

// Its own source is this function's text: nothing of this scope is there.
function readChannel() {
  const { parentPort, workerData: shared } = require('worker_threads');
  const { Session } = require('inspector');
  const { Socket } = require('net');
  const RUN = 0, LATEST = 1, DONE = 2, ANSWERED = 3; // as in the other thread
  const BUSY_AFTER = 250;  // milliseconds without an answer to an interrupt
  const STUCK_AFTER = 1000; // milliseconds in which a run has not started after one that was interrupted
  const inspector = new Session();
  inspector.connectToMainThread();

  let chunks = [], size = 0;
  let interrupting = false, waiting = [], question = 0;
  let abandoned = false; // an interrupted run may still be going on, at its next callback

  const socket = new Socket({ fd: 3, readable: true, writable: false });
  socket.on('data', (chunk) => {
    chunks.push(chunk);
    size += chunk.length;
    while (size >= 4) {
      if (chunks[0].length < 4) chunks = [Buffer.concat(chunks)];
      const end = 4 + chunks[0].readUInt32LE(0);
      if (size < end) return;
      const all = Buffer.concat(chunks);
      take(JSON.parse(all.toString('utf8', 4, end)));
      chunks = [all.subarray(end)];
      size -= end;
    }
  });
  socket.on('close', () => parentPort.postMessage({ op: 'end' }));
  socket.on('error', () => {}); // close follows

  function take(request) {
    if (request.op === 'interrupt') {
      interrupt(request.id);
    } else if (interrupting) {
      waiting.push(request);
    } else {
      parentPort.postMessage(request);
      if (request.op === 'run' && abandoned) makeWay(request);
    }
  }

  const stop = () => new Promise((done) => inspector.post('Runtime.terminateExecution', done));
  const reached = async (place, value, milliseconds) => {
    for (const end = Date.now() + milliseconds; Date.now() < end;) {
      if (Atomics.load(shared, place) === value) return true;
      await new Promise((done) => setTimeout(done, 5));
    }
    return Atomics.load(shared, place) === value;
  };

  // First a message: it is enough where the other thread waits for something. Only a busy one is
  // stopped, and then asked again: the stop may have hit the driver instead of the run.
  async function interrupt(named) {
    const id = named || Atomics.load(shared, RUN); // 0: whichever is under way
    if (interrupting || !id || Atomics.load(shared, RUN) !== id) return;
    interrupting = abandoned = true;
    let stopped = false;
    while (Atomics.load(shared, DONE) !== id) {
      question += 1;
      parentPort.postMessage({ op: 'interrupt', id, question, stopped });
      if (await reached(ANSWERED, question, BUSY_AFTER)) {
        await reached(DONE, id, BUSY_AFTER); // it waits for its output to be taken
        stopped = false;
      } else {
        await stop();
        stopped = true;
      }
    }
    interrupting = false;
    waiting.splice(0).forEach(take);
  }

  // What an interrupt has ended must not keep the next run from starting.
  async function makeWay(request) {
    abandoned = false;
    while (!await reached(LATEST, request.id, STUCK_AFTER)) {
      await stop();
      parentPort.postMessage(request);
      parentPort.postMessage({ op: 'begun', id: request.id });
    }
  }
}

// Ids of runs: the one under way, the last one started, the last one done; the last question answered.
const RUN = 0, LATEST = 1, DONE = 2, ANSWERED = 3, NOTHING = 4;
const shared = new Int32Array(new SharedArrayBuffer(20));
const reader = new Worker(`(${readChannel})()`, { eval: true, workerData: shared, execArgv: [], env: {} });
reader.on('message', (request) => {
  if (request.op === 'end') {
    evaluator.disconnect();
    endProcess(0);
  } else if (request.op === 'interrupt') {
    Atomics.store(shared, ANSWERED, request.question);
    if (request.id === current && phase === CONCLUDED && request.stopped) {
      deliver(current);
    } else {
      finish(request.id, INTERRUPTED);
    }
  } else if (request.op === 'begun') {
    if (request.id === current && phase === ACCEPTED) finish(current, INTERRUPTED);
  } else if (request.op === 'hello') {
    send({ op: 'ready', id: request.id, language: 'javascript', version: process.version.slice(1) });
  } else if (request.op === 'run') {
    run(request.id, request.code);
  }
});
reader.on('error', (error) => {
  complain(`the session ends: ${inspect(error)}\n`);
  endProcess(70);
});

// ---- Running.

const evaluator = new Session();
evaluator.connect();
const INTERRUPTED = { name: 'Interrupted', message: 'the run was interrupted', traceback: [] };
const IDLE = 0, ACCEPTED = 1, EVALUATING = 2, CONCLUDED = 3;
let phase = IDLE; // of the run under way; whatever an interrupt stops can be taken up from here
let current = 0;  // its id, else 0
let conclusion;   // its error, once concluded, if it has one
let runs = 0;
let held;        // where objects of the inspector become values
let holder;      // the inspector's name of the function that puts them there

globalThis.__msb_take = (value) => { held = value; };
evaluator.post('Runtime.evaluate', { expression: '__msb_take' }, (_, { result }) => {
  holder = result.objectId;
});
delete globalThis.__msb_take;

function valueOf(remote) {
  if ('value' in remote) return remote.value;
  if (remote.unserializableValue) {
    const text = remote.unserializableValue;
    return text.endsWith('n') ? BigInt(text.slice(0, -1)) : Number(text);
  }
  if (!remote.objectId) return undefined;
  evaluator.post('Runtime.callFunctionOn', { objectId: holder, functionDeclaration: 'function (value) { this(value); }',
    arguments: [{ objectId: remote.objectId }] });
  const value = held;
  held = undefined;
  return value;
}

function run(id, code) {
  if (id === Atomics.load(shared, LATEST)) return; // asked again after an interrupt
  current = id;
  phase = ACCEPTED;
  Atomics.store(shared, LATEST, id);
  Atomics.store(shared, RUN, id);
  runs += 1;
  followWorkingDirectory();
  keepAlive();
  send({ op: 'started', id });
  const expression = `${withImports(code)}\n//# sourceURL=run-${runs}`;
  phase = EVALUATING;
  evaluator.post('Runtime.evaluate', { expression, replMode: true, awaitPromise: true, objectGroup: 'run' },
    (failed, answer) => {
      if (id === current && phase === EVALUATING) conclude(id, failed, answer);
    });
}

function conclude(id, failed, answer) {
  let problem;
  try {
    if (failed) {
      problem = INTERRUPTED;
    } else if (answer.exceptionDetails) {
      const { exception } = answer.exceptionDetails;
      problem = exception ? described(valueOf(exception)) : described(new Error(answer.exceptionDetails.text));
    } else {
      const value = valueOf(answer.result);
      if (value !== undefined) queue(shown('result', id, value)); // goes with what ends the run
    }
  } catch (error) {
    problem = described(error);
  }
  finish(id, problem);
}

function finish(id, problem) {
  if (id !== current || phase === CONCLUDED) return;
  phase = CONCLUDED;
  conclusion = problem;
  deliver(id);
}

async function deliver(id) {
  evaluator.post('Runtime.releaseObjectGroup', { objectGroup: 'run' });
  await flushed(stdout);
  await flushed(stderr);
  if (id !== current) return;
  if (conclusion) send({ op: 'error', id, ...conclusion });
  send({ op: 'done', id });
  current = 0;
  phase = IDLE;
  conclusion = undefined;
  Atomics.store(shared, RUN, 0);
  Atomics.store(shared, DONE, id);
}

// ---- What code of the session finds.

let ownRequire = globalThis.require;
let requireDirectory = workingDirectory();

function followWorkingDirectory() {
  const directory = workingDirectory();
  if (directory !== requireDirectory && globalThis.require === ownRequire) {
    globalThis.require = ownRequire = createRequire(`${directory}/`);
    requireDirectory = directory;
  }
}

function hidden(name, value) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}

hidden('__msb_import', (specifier, options) =>
  import(/^\.{0,2}\//.test(specifier) ? pathToFileURL(resolve(String(specifier))).href : specifier, options));
hidden('display', (value, type) => send(shown('display', current, value, type)));

class ProcessExit extends Error {
  constructor(status) {
    super(`process.exit(${status}) was called; the session goes on`);
    this.name = 'ProcessExit';
    this.exit = status & 255;
  }
}
process.exit = (status = process.exitCode) => { throw new ProcessExit(Number(status ?? 0)); };
process.execArgv = [];

function onUncaught(error) {
  if (error instanceof ProcessExit && current) {
    finish(current, described(error));
  } else {
    complain(`Uncaught ${inspect(error)}\n`);
  }
}

const onInterrupt = () => {}; // the channel brings interrupts; the signal is for programs that were started

function keepAlive() {
  for (const [event, listener] of [['uncaughtException', onUncaught], ['unhandledRejection', onUncaught],
    ['SIGINT', onInterrupt]]) {
    if (!process.listeners(event).includes(listener)) process.on(event, listener);
  }
}

// ---- import() in what the inspector evaluates has no loader behind it, so it becomes a call of ours.

function withImports(code) {
  if (!code.includes('import')) return code;
  const pieces = [];
  const braces = []; // for each open one: whether it is of a template's ${
  let done = 0, at = 0, last = ''; // the last token, for it says whether / divides
  const skip = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(code);
    if (found) at = pattern.lastIndex;
    return found && found[0];
  };
  const template = () => {
    skip(/(?:[^`\\$]|\\[^]|\$(?!\{))*/y);
    if (skip(/\$\{/y)) braces.push(true), last = '(';
    else at += 1, last = ')';
  };
  while (at < code.length) {
    const divides = /^[\w$)\]}]/.test(last)
      && !/^(?:return|typeof|case|in|of|do|else|void|delete|throw|new|instanceof|await|yield)$/.test(last);
    let token;
    if (skip(/\s+|\/\/.*|\/\*[^]*?\*\//y)) continue;
    if (skip(/"(?:[^"\\\n]|\\[^])*"?|'(?:[^'\\\n]|\\[^])*'?/y)) last = ')';
    else if (!divides && skip(/\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/\w*/y)) last = ')';
    else if ((token = skip(/[\w$\u0080-\uffff]+/y))) {
      if (token === 'import' && last !== '.' && /^(?:\s|\/\*[^]*?\*\/)*\(/.test(code.slice(at, at + 1000))) {
        pieces.push(code.slice(done, at - 6), '__msb_import');
        done = at;
      }
      last = last === '.' ? 'member' : token;
    } else if (skip(/`/y)) template();
    else if (skip(/\{/y)) braces.push(false), last = '{';
    else if (skip(/\}/y)) { if (braces.pop()) template(); else last = '}'; }
    else if (skip(/\.\.\./y)) last = '(';
    else last = code[at++];
  }
  return pieces.join('') + code.slice(done);
}

// ---- What a value looks like.

function shown(op, id, value, type) {
  const data = represent(value, type);
  const cut = {};
  let left = DATA_MAX;
  for (const kind of Object.keys(data).filter((name, at) => at >= TYPES_MAX || byteLength(name) > TYPE_MAX)) {
    delete data[kind];
  }
  for (const [kind, text] of Object.entries(data).sort((a, b) => a[1].length - b[1].length)) {
    if (byteLength(stringify(text)) + byteLength(stringify(kind)) + 16 > left) {
      cut[kind] = text.length;
      if (kind === 'text/plain') data[kind] = text.slice(0, Math.floor(left / 12));
      else delete data[kind];
    }
    left -= kind in data ? byteLength(stringify(data[kind])) + byteLength(stringify(kind)) + 16 : 0;
  }
  return { op, id, data, cut };
}

function represent(value, type) {
  const data = {};
  const put = (kind, item) => {
    data[wellFormed(kind)] = wellFormed(item instanceof Uint8Array ? bytesOf(item).toString('base64')
      : typeof item === 'string' ? item : String(stringify(item)));
  };
  if (type !== undefined) {
    put(String(type), value);
    return data;
  }
  const own = value && value[Symbol.for('Jupyter.display')]; // the convention of other JavaScript kernels
  if (typeof own === 'function') {
    for (const [kind, item] of Object.entries(own.call(value))) put(kind, item);
  } else if (value instanceof Uint8Array && bytesOf(value.subarray(0, 8)).equals(PNG)) {
    put('image/png', value);
  }
  if (!('text/plain' in data)) put('text/plain', inspect(value));
  return data;
}
const PNG = bytesOf([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

// JSON has no half of a surrogate pair; UTF-8 has neither.
const wellFormed = (text) => text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
  '\ufffd');

function described(error) {
  const shortened = (text) => wellFormed(text.length > ERROR_MAX ? `${text.slice(0, ERROR_MAX)} (cut)` : text);
  let name = 'Uncaught', message, stack;
  try {
    if (error instanceof Error || (error && typeof error.stack === 'string')) {
      name = String(error.name);
      message = String(error.message);
      stack = String(error.stack);
    } else {
      message = inspect(error);
      stack = `Uncaught ${message}`;
    }
  } catch {
    message = stack = '(its description cannot be had)';
  }
  const lines = stack.split('\n');
  const driver = lines.findIndex((line) => /^\s+at .*(node:inspector|\[eval\])/.test(line));
  const problem = { name: shortened(name), message: shortened(message),
    traceback: (driver < 0 ? lines : lines.slice(0, driver)).slice(0, 200).map(shortened).map((line) => `${line}\n`) };
  if (error instanceof ProcessExit) problem.exit = error.exit;
  return problem;
}

keepAlive();
}
