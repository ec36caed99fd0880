// SPDX-License-Identifier: Apache-2.0
// The suite of sdk/conformance with the JavaScript SDK:
//
//   MSB_CONFORMANCE_URL=... MSB_CONFORMANCE_KEY=... node conformance_javascript.mjs PACKAGE [fetch]
//
// where PACKAGE is the folder of the built package; by fetch, as browsers have it, or in Node's own way. Prints a line for each case.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Case, Failed, load, match, scripted } from "./conformance_javascript_cases.mjs";

const FOLDER = join(dirname(fileURLToPath(import.meta.url)), "../../sdk/conformance");
const [packageFolder, transport] = process.argv.slice(2);
const microsandbox = await import(pathToFileURL(join(resolve(packageFolder), "dist/esm/index.js")));
const by = transport === "fetch" ? { fetch: globalThis.fetch } : {};

const KINDS = new Map(Object.entries({
  InvalidRequestError: "invalid", AuthenticationError: "authentication", ForbiddenError: "forbidden", NotFoundError: "not_found",
  ConflictError: "conflict", TooLargeError: "too_large", FullError: "full", SandboxFailedError: "failed",
  TimedOutError: "timed_out", UnavailableError: "unavailable", ServerError: "server", UnreachableError: "unreachable",
  BrokenConnectionError: "broken", NotUnderstoodError: "not_understood", DetachedError: "detached",
}).map(([name, kind]) => [microsandbox[name], kind]));

// Names of one language in the other's.
const camel = name => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
const renamed = value => Object.fromEntries(Object.entries(value).map(([name, one]) => [camel(name), one]));
const members = (thing, ...names) => Object.fromEntries(names.map(name => [name, thing[camel(name)] ?? null]));

function described(error) {
  let kind = KINDS.get(error.constructor) ?? "other";
  if (kind === "other" && error.message.includes("not started")) kind = "not_started";
  return { kind, ...members(error, "code", "number", "status", "message", "request_id", "hint", "retry_after") };
}

/** What a call gives, or a Failed. */
async function call(act) {
  try {
    return await act();
  } catch (error) {
    throw error instanceof microsandbox.MicrosandboxError ? new Failed(described(error)) : error;
  }
}

const portOf = port => members(port, "protocol", "address", "host_port", "guest_port", "url");
const exitOf = exit => exit && members(exit, "exit_code", "signal", "oom_killed", "timed_out", "success");
const fileOf = info => ({ ...members(info, "name", "type", "size", "target"), mode: info.mode.toString(8).padStart(4, "0") });
const processOf = info => members(info, "id", "pid", "state", "label", "command", "input", "terminal");
const sumOf = data => ({ size: data.length, sha256: createHash("sha256").update(data).digest("hex") });
const base64Of = data => Buffer.from(data).toString("base64");
const pattern = size => Uint8Array.from({ length: size }, (_, index) => index % 251);

function infoOf(info) {
  return {
    ...members(info, "name", "namespace", "state", "image", "labels", "ephemeral"), ports: info.ports.map(portOf),
    exit: info.exit && members(info.exit, "status", "cause"),
  };
}

function resultOf(result) {
  return {
    ...members(result, "language", "status", "ok", "stdout", "stderr", "text", "exit_status", "reason", "truncated"),
    value: result.value?.text ?? null, error: result.error && members(result.error, "name", "message", "traceback"),
    values: result.values.map(({ type: kind, data }) => ({ kind, data })),
  };
}

/** `given`, with bytes as `name` where they came as base64 by `word`. */
function decoded(given, name, word) {
  const { [word]: base64, ...rest } = given;
  return base64 === undefined ? rest : { ...rest, [name]: new Uint8Array(Buffer.from(base64, "base64")) };
}

const withMode = given => (given.mode === undefined ? given : { ...given, mode: parseInt(given.mode, 8) });

/** What a stream of a command's or process's output gives. */
async function outputOf(stream, stopAt) {
  const written = { stdout: [], stderr: [] };
  const lost = [];
  let pieces = 0;
  await call(async () => {
    for await (const one of stream) {
      if (one.type === "lost") {
        lost.push(members(one, "stream", "offset", "next"));
        continue;
      }
      written[one.stream].push(one.data);
      ++pieces;
      if (stopAt !== undefined && Buffer.concat(written.stdout).includes(stopAt)) break;
    }
  });
  const [stdout, stderr] = [Buffer.concat(written.stdout), Buffer.concat(written.stderr)];
  return {
    stdout: stdout.toString(), stderr: stderr.toString(), stdout_base64: base64Of(stdout), pieces, lost, exit: exitOf(stream.exit),
  };
}

async function inDirectory(act) {
  const directory = mkdtempSync("/tmp/conformance-");
  try {
    return await act(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

class JavaScriptSdk {
  #opened = [];
  #made = new Map();  // what was created, by namespace and name, with its settings

  async leave(thing) {
    await call(() => thing[Symbol.asyncDispose]());
  }

  async release() {
    for (const thing of this.#opened.splice(0)) await thing.close();
  }

  async removeAll(usual) {
    for (const { name, namespace, settings } of this.#made.values()) {
      try {
        const sandbox = await microsandbox.Sandbox.connect(name, { ...usual, ...settings, namespace });
        await sandbox.remove();
        if (!settings.client) await sandbox.close();
      } catch (error) {
        if (!(error instanceof microsandbox.NotFoundError)) throw error;
      }
    }
    this.#made.clear();
  }

  #note(name, namespace, settings) {
    this.#made.set(`${namespace} ${name}`, { name, namespace, settings });
  }

  // Sandboxes.

  async create(_, { image, ...given }, { settings, enter, signal }) {
    const options = { ...renamed(given), ...renamed(settings), ...by, signal };
    if (given.name) this.#note(given.name, given.namespace, renamed(settings));
    const sandbox = await call(() => microsandbox.Sandbox.create(image, options));
    this.#note(sandbox.name, sandbox.namespace, renamed(settings));
    if (!enter) this.#opened.push(sandbox);
    return [infoOf(sandbox.info), sandbox];
  }

  async connect(_, { name, namespace }, { settings, enter, signal }) {
    const sandbox = await call(() => microsandbox.Sandbox.connect(name, { namespace, ...renamed(settings), ...by, signal }));
    if (!enter) this.#opened.push(sandbox);
    return [infoOf(sandbox.info), sandbox];
  }

  async list(_, given, { settings, signal }) {
    const found = [];
    await call(async () => {
      for await (const info of microsandbox.Sandbox.list({ ...given, ...renamed(settings), ...by, signal })) found.push(infoOf(info));
    });
    return [found];
  }

  async client(_, __, { settings }) {
    const client = await call(() => new microsandbox.Client({ ...renamed(settings), ...by }));
    this.#opened.push(client);
    return [null, client];
  }

  health = async client => [await call(() => client.health())];
  server = async client => [members(await call(() => client.server()), "version", "limits", "key")];

  async #life(sandbox, act) {
    await call(act);
    return [infoOf(sandbox.info)];
  }

  refresh = sandbox => this.#life(sandbox, () => sandbox.refresh());
  start = sandbox => this.#life(sandbox, () => sandbox.start());
  stop = (sandbox, given) => this.#life(sandbox, () => sandbox.stop(renamed(given)));
  pause = sandbox => this.#life(sandbox, () => sandbox.pause());
  resume = sandbox => this.#life(sandbox, () => sandbox.resume());
  remove = async sandbox => [await call(() => sandbox.remove()) ?? null];
  close = async sandbox => [await call(() => sandbox.close()) ?? null];

  // Code.

  run = async (sandbox, { code, ...given }, { signal }) => [resultOf(await call(() => sandbox.run(code, { ...given, signal })))];

  async stream(sandbox, { code, stop_at: stopAt, ...given }, { signal }) {
    const stream = sandbox.stream(code, { ...given, signal });
    const outputs = [];
    let said = "";
    await call(async () => {
      for await (const one of stream) {
        if (one.type === "text") {
          const last = outputs.at(-1);
          if (last?.stream === one.stream) last.text += one.text;
          else outputs.push({ ...one });
          said += one.stream === "stdout" ? one.text : "";
        } else {
          outputs.push(one.type === "error" ? members(one, "type", "name", "message") : members(one, "type", "data"));
        }
        if (stopAt !== undefined && said.includes(stopAt)) break;
      }
    });
    return [{ outputs, result: stream.result && resultOf(stream.result) }];
  }

  sessions = async sandbox => [(await call(() => sandbox.sessions())).map(one => members(one, "language", "name", "state"))];
  interrupt = async (sandbox, given) => [await call(() => sandbox.interrupt(given)) ?? null];
  close_session = async (sandbox, given) => [await call(() => sandbox.closeSession(given)) ?? null];

  // Commands and processes.

  async "command.run"(sandbox, given, { signal }) {
    const { command, args, ...options } = decoded(given, "stdin", "stdin_base64");
    const ran = await call(() => sandbox.command.run(command, args, { ...options, signal }));
    return [{ ...exitOf(ran), ...members(ran, "stdout", "stderr", "truncated") }];
  }

  async "command.stream"(sandbox, given, { signal }) {
    const { command, args, stop_at: stopAt, ...options } = decoded(given, "stdin", "stdin_base64");
    return [await outputOf(sandbox.command.stream(command, args, { ...options, signal }), stopAt)];
  }

  async "command.start"(sandbox, { command, args, terminal, ...given }) {
    const size = terminal && { rows: terminal[0], columns: terminal[1] };
    const process = await call(() => sandbox.command.start(command, args, { ...given, terminal: size }));
    return [members(process, "id", "pid"), process];
  }

  async "command.attach"(sandbox, { id }) {
    const process = await call(() => sandbox.command.attach(id));
    return [members(process, "id", "pid"), process];
  }

  "command.list" = async sandbox => [(await call(() => sandbox.command.list())).map(processOf)];
  "process.info" = async process => [processOf(await call(() => process.info()))];

  async "process.output"(process, { stop_at: stopAt, ...given }, { signal }) {
    const stream = process.output({ ...given, signal });
    return [{ ...await outputOf(stream, stopAt), offsets: stream.offsets }];
  }

  async "process.write"(process, given) {
    const { data, end } = decoded(given, "data", "data_base64");
    return [await call(() => process.write(data, { end })) ?? null];
  }

  "process.close_input" = async process => [await call(() => process.closeInput()) ?? null];
  "process.wait" = async (process, given) => [exitOf(await call(() => process.wait(given)))];
  "process.signal" = async (process, { signal, group }) => [await call(() => process.signal(signal, { group })) ?? null];
  "process.kill" = async process => [await call(() => process.kill()) ?? null];
  "process.resize" = async (process, { rows, columns }) => [await call(() => process.resize(rows, columns)) ?? null];
  "process.remove" = async process => [await call(() => process.remove()) ?? null];

  // Files.

  async "files.read"(sandbox, { path, ...given }) {
    const data = await call(() => sandbox.files.read(path, given));
    return [{ ...sumOf(data), base64: base64Of(data), text: new TextDecoder().decode(data) }];
  }

  async "files.read_pieces"(sandbox, { path }) {
    const pieces = [];
    await call(async () => {
      for await (const piece of sandbox.files.readPieces(path)) pieces.push(piece);
    });
    return [sumOf(Buffer.concat(pieces))];
  }

  async "files.write"(sandbox, given) {
    const { path, text, size, content, ...options } = withMode(decoded(given, "content", "base64"));
    return [await call(() => sandbox.files.write(path, content ?? text ?? pattern(size), options))];
  }

  async "files.write_pieces"(sandbox, { path, size }) {
    const data = pattern(size);
    function* pieces() {
      for (let at = 0; at < size; at += 65536) yield data.subarray(at, at + 65536);
    }
    return [await call(() => sandbox.files.write(path, pieces()))];
  }

  "files.list" = async (sandbox, { path }) => [(await call(() => sandbox.files.list(path))).map(fileOf)];
  "files.stat" = async (sandbox, { path, ...given }) => [fileOf(await call(() => sandbox.files.stat(path, given)))];
  "files.exists" = async (sandbox, { path }) => [await call(() => sandbox.files.exists(path))];
  "files.remove" = async (sandbox, { path, ...given }) => [await call(() => sandbox.files.remove(path, given)) ?? null];

  async "files.make_directory"(sandbox, { path, ...given }) {
    return [await call(() => sandbox.files.makeDirectory(path, withMode(given))) ?? null];
  }

  "files.move" = async (sandbox, { from, to, ...given }) => [await call(() => sandbox.files.move(from, to, given)) ?? null];

  async "files.upload"(sandbox, { path, size, ...given }) {
    return inDirectory(async directory => {
      writeFileSync(join(directory, "file"), pattern(size));
      return [await call(() => sandbox.files.upload(join(directory, "file"), path, withMode(given)))];
    });
  }

  async "files.download"(sandbox, { path }) {
    return inDirectory(async directory => {
      const size = await call(() => sandbox.files.download(path, join(directory, "file")));
      assert.deepEqual(readdirSync(directory), ["file"]);
      assert.equal(statSync(join(directory, "file")).size, size);
      return [sumOf(readFileSync(join(directory, "file")))];
    });
  }

  "files.copy_tree" = async (sandbox, { from, to }) => [await call(() => sandbox.files.unpack(to, sandbox.files.pack(from)))];

  // What a sandbox shows.

  ports = async sandbox => [(await call(() => sandbox.ports())).map(portOf)];
  url = async (sandbox, { port }) => [await call(() => sandbox.url(port))];
  app_url = async (sandbox, { port }) => [sandbox.appUrl(port)];

  async metrics(sandbox) {
    const measured = await call(() => sandbox.metrics());
    return [members(measured, "name", "namespace", "state", "cpu_percent", "memory_bytes", "memory_total", "disk_bytes", "processes")];
  }

  async logs(sandbox, given) {
    const lines = [];
    await call(async () => {
      for await (const line of sandbox.logs(given)) lines.push(members(line, "stream", "text"));
    });
    return [lines];
  }

  async fetch(_, { url }) {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(10_000) });
      return [{ status: answer.status, text: await answer.text() }];
    } catch (error) {
      throw new Failed({ kind: "other", message: error.message });
    }
  }

  pause_for = async (_, { seconds }) => [await pause(seconds * 1000) ?? null];

  // The 0.2 surface.

  #kind(language) {
    return { python: microsandbox.PythonSandbox, node: microsandbox.NodeSandbox }[language];
  }

  async "old.new"(_, { language, ...given }, { settings }) {
    this.#note(given.name, given.namespace ?? "default", renamed(settings));
    return [null, await call(() => new (this.#kind(language))({ ...renamed(given), ...renamed(settings), ...by }))];
  }

  async "old.create"(_, { language, ...given }, { settings, signal }) {
    this.#note(given.name, given.namespace ?? "default", renamed(settings));
    return [null, await call(() => this.#kind(language).create({ ...renamed(given), ...renamed(settings), ...by, signal }))];
  }

  async "old.start"(sandbox, given) {
    const { image, memory, cpus, timeout, ...more } = renamed(given);
    return [await call(() => sandbox.start(image, memory, cpus, timeout, more)) ?? null];
  }

  "old.stop" = async sandbox => [await call(() => sandbox.stop()) ?? null];

  async "old.run"(sandbox, { code }) {
    const ran = await call(() => sandbox.run(code));
    return [{ ...members(ran, "status", "language"), output: await ran.output(), error: await ran.error(), has_error: ran.hasError() }];
  }

  async "old.command.run"(sandbox, { command, args, timeout }) {
    const ran = await call(() => sandbox.command.run(command, args, timeout));
    return [{ ...members(ran, "exit_code", "success", "command", "args"), output: await ran.output(), error: await ran.error() }];
  }

  async "old.metrics"(sandbox) {
    const { metrics } = sandbox;
    const result = {};
    for (const name of ["all", "cpu", "memory", "disk", "is_running"]) result[name] = await call(() => metrics[camel(name)]());
    return [result];
  }
}

// The suite.

const { MSB_CONFORMANCE_URL: url, MSB_CONFORMANCE_KEY: key, MSB_CONFORMANCE_DIR: directory = "/tmp" } = process.env;
const unmet = (process.env.MSB_CONFORMANCE_SKIP ?? "").split(",");
const usual = { serverUrl: url, apiKey: key, ...by };
const boxes = new Map();  // shared ones, by file and variable

async function shared(file, wanted) {
  const found = {};
  for (const [variable, { image, ...given }] of Object.entries(wanted)) {
    const name = `${file} ${variable}`;
    if (!boxes.has(name)) boxes.set(name, await microsandbox.Sandbox.create(image, { ...renamed(given), ...usual }));
    found[variable] = boxes.get(name);
  }
  return found;
}

async function behaves(entry) {
  const sdk = new JavaScriptSdk();
  try {
    await new Case(sdk, url, key, directory).run(entry.case, await shared(entry.file, entry.shared));
  } finally {
    await sdk.removeAll(usual);
    await sdk.release();
  }
}

async function standsFaults(entry) {
  const saw = await scripted(FOLDER, entry.case.answers, async place => {
    const sdk = new JavaScriptSdk();
    try {
      await new Case(sdk, place, "key", directory).run(entry.case, {});
    } finally {
      await sdk.release();
    }
  });
  for (const name of ["seen", "connections", "open"]) {
    // How many connections fetch makes is its own affair.
    if (name in entry.case && !(name === "connections" && by.fetch)) match(saw[name], entry.case[name], name);
  }
}

let failed = false;
for (const entry of load(FOLDER)) {
  const told = { file: entry.file, case: entry.case.name };
  const needs = (entry.case.needs ?? []).filter(need => unmet.includes(need));
  if (needs.length > 0) {
    console.log(JSON.stringify({ ...told, outcome: "skipped", why: `needs ${needs.join(", ")}` }));
    continue;
  }
  try {
    await (entry.case.answers ? standsFaults(entry) : behaves(entry));
    console.log(JSON.stringify({ ...told, outcome: "passed", why: "" }));
  } catch (error) {
    failed = true;
    console.log(JSON.stringify({ ...told, outcome: "failed", why: error.stack ?? String(error) }));
  }
}
for (const sandbox of boxes.values()) {
  await sandbox.remove();
  await sandbox.close();
}
process.exitCode = failed ? 1 : 0;
