// SPDX-License-Identifier: Apache-2.0
// Scenarios of test_javascript_faults.py:
//
//   node javascript_faults.mjs PACKAGE node|fetch SCENARIO [ARGUMENT...]
//
// Each prints what the test judges as JSON, and fails by an exception.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { scripted as scriptedBy } from "./conformance_javascript_cases.mjs";

const [packageFolder, transport, scenario, ...words] = process.argv.slice(2);
const module = name => import(pathToFileURL(join(resolve(packageFolder), `dist/esm/${name}.js`)));
const sdk = await module("index");
const { BrokenConnectionError, Client, MicrosandboxError, NotFoundError, PythonSandbox, Sandbox, UnreachableError } = sdk;
const by = transport === "fetch" ? { fetch: globalThis.fetch } : {};
const folder = join(dirname(fileURLToPath(import.meta.url)), "../../sdk/conformance");
const scripted = (answers, act) => scriptedBy(folder, answers, act);

const BOX = {
  json: {
    name: "box", namespace: "default", state: "running", image: "base", labels: {}, ephemeral: false,
    created_at: "2026-01-01T00:00:00.000Z", started_at: null, ports: [], config: {}, exit: null,
  },
};
const RAN = { json: { exit_code: 0, signal: null, oom_killed: false, timed_out: false, stdout: "", stderr: "", truncated: false } };
const outputs = count => Array.from({ length: count }, (_, at) => ({ event: "output", stream: "stdout", offset: at, next: at + 1, text: "x" }));
const seenBy = ({ seen, connections, open }) => ({ seen: seen.length, connections, open });

async function turns(count) {
  for (let turn = 0; turn < count; ++turn) await null;
}

/** `act` with a sandbox of a scripted server, which is closed afterwards. */
async function withBox(answers, act) {
  return seenBy(await scripted([BOX, ...answers], async serverUrl => {
    const sandbox = await Sandbox.connect("box", { serverUrl, ...by });
    try {
      await act(sandbox);
    } finally {
      await sandbox.close();
    }
  }));
}

/** Aborts `act(signal)` after ever more turns, and then milliseconds. What it throws is the reason, or one of the SDK's errors. */
async function atAnyPoint(act) {
  for (let point = 0; point < 80; ++point) {
    const controller = new AbortController();
    const reason = new Error(`at ${point}`);
    const done = act(controller.signal).then(() => {}, error => assert.ok(error === reason || error instanceof MicrosandboxError, error));
    await (point < 60 ? turns(point) : pause((point - 60) / 2));
    controller.abort(reason);
    await done;
    assert.equal(getEventListeners(controller.signal, "abort").length, 0);
  }
}

async function follow(stream) {
  let text = "";
  for await (const output of stream) text += output.text;
  return text;
}

const place = { serverUrl: process.env.MSB_SERVER_URL, apiKey: process.env.MSB_API_KEY, ...by };
const line = () => new Promise(resolve => process.stdin.once("data", resolve));

const scenarios = {
  many: () => withBox([RAN], async sandbox => {
    const { signal } = new AbortController();
    const some = async () => {
      for (let count = 0; count < 150; ++count) await sandbox.command.run("true", [], { signal });
    };
    await Promise.all(Array.from({ length: 20 }, some));
    assert.equal(getEventListeners(signal, "abort").length, 0);
  }),

  left: async () => seenBy(await scripted([BOX], async serverUrl => {
    for (let count = 0; count < 100; ++count) {
      const sandbox = await Sandbox.connect("box", { serverUrl, ...by });
      await sandbox[Symbol.asyncDispose]();
    }
  })),

  /** Nobody closes it, and the program ends all the same. */
  forgotten: () => scripted([BOX], async serverUrl => {
    await Sandbox.connect("box", { serverUrl, ...by });
  }).then(seenBy),

  aborted: kind => withBox([{
    quick: RAN, slow: { ...RAN, pause: 0.003 }, broken: { ...RAN, cut: "body" }, silent: { hang: true },
    full: { status: 429, headers: { "Retry-After": "1" }, json: {} },
  }[kind]], async sandbox => {
    await atAnyPoint(signal => sandbox.command.run("true", [], { signal }));
    if (kind === "quick") assert.ok((await sandbox.command.run("true")).success, "it goes on");
  }),

  aborted_stream: () => withBox([{ events: outputs(30), hang: "body" }], async sandbox => {
    await atAnyPoint(signal => follow(sandbox.command.stream("true", [], { signal })));
  }),

  closed_stream: () => withBox([{ events: outputs(3), hang: "body" }], async sandbox => {
    for (let point = 0; point < 40; ++point) {
      const stream = sandbox.command.stream("true");
      const followed = follow(stream);
      await (point < 30 ? turns(point) : pause(point - 30));
      await stream.close();
      assert.match(await followed, /^x{0,3}$/);
    }
    for await (const _ of sandbox.command.stream("true")) break;
  }),

  aborted_before: () => withBox([RAN], async sandbox => {
    const signal = AbortSignal.abort(new Error("before"));
    await assert.rejects(sandbox.command.run("true", [], { signal }), /^Error: before$/);
    await assert.rejects(follow(sandbox.command.stream("true", [], { signal })), /^Error: before$/);
    await assert.rejects(Sandbox.list({ ...place, serverUrl: "http://127.0.0.1:1", signal }).next(), /^Error: before$/);
  }),

  silent: () => withBox([{ status: 201, json: { id: 1, pid: 2 } }, { hang: true }], async sandbox => {
    const child = await sandbox.command.start("true");
    await assert.rejects(child.wait({ timeout: 0.3 }), { name: "TimedOutError", message: /0\.3 s/, code: "timeout" });
  }),

  slow_reader: () => withBox([{ events: [...outputs(2), { event: "exited", ...RAN.json }] }], async sandbox => {
    for await (const _ of sandbox.command.stream("true")) await pause(50);
  }),

  endless_line: async () => {
    const { Lines } = await module("streams");
    const lines = new Lines(10);
    assert.deepEqual(lines.feed(Buffer.from("ab\nc")), ["ab"]);
    assert.deepEqual(lines.feed(Buffer.from("d\n\nefghijklm")), ["cd", ""]);
    assert.throws(() => lines.feed(Buffer.from("nop")), { name: "NotUnderstoodError", message: /longer/ });
  },

  too_large: () => withBox([], async sandbox => {
    await assert.rejects(sandbox.command.run("cat", [], { stdin: "x".repeat(33 << 20) }), { name: "TooLargeError", hint: /files/ });
  }),

  /** Nothing is tried again that cannot be. */
  refused_port: async () => {
    let asked = 0;
    const counted = (...words) => (++asked, fetch(...words));
    const client = new Client({ serverUrl: "http://127.0.0.1:6000", fetch: counted });
    await assert.rejects(client.health(), { name: "InvalidRequestError", message: /refuse port 6000/, hint: /--port/ });
    assert.equal(asked, 1);
  },

  names: async () => {
    for (const name of ["", ".", "..", "\ud800"]) {
      await assert.rejects(Sandbox.connect(name, place), { name: "InvalidRequestError", message: /is no name/ });
    }
  },

  late: async () => {
    const server = createServer(socket => socket.once("data", () => {
      const body = JSON.stringify(BOX.json);
      socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    }));
    await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address();
    await new Promise(resolve => server.close(resolve));
    setTimeout(() => server.listen(port, "127.0.0.1"), 300);
    const sandbox = await Sandbox.connect("box", { serverUrl: `http://127.0.0.1:${port}`, ...by });
    await sandbox.close();
    server.close();
  },

  /** An answer that comes before all was sent says that no more is wanted. */
  refused_upload: async () => {
    const answers = [BOX.json, { error: { code: "not_found", number: 4001, message: "there is no such directory", request_id: "r" } }];
    const server = createServer(socket => socket.on("error", () => {}).on("data", data => {
      if (!/^(GET|PUT)/.test(data.toString())) return;
      const body = JSON.stringify(answers.shift());
      socket.write(`HTTP/1.1 ${answers.length ? 200 : 404} Said\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    }));
    await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
    const sandbox = await Sandbox.connect("box", { serverUrl: `http://127.0.0.1:${server.address().port}`, ...by });
    async function* endless() {
      for (;;) {
        yield new Uint8Array(65536);
        await pause(1);
      }
    }
    await assert.rejects(sandbox.files.write("/no/file", endless()), NotFoundError);
    await sandbox.close();
    server.close();
  },

  // With a real server.

  uploads: async () => {
    const sandbox = await Sandbox.create("base", place);
    const [directory] = words;
    async function* failing() {
      yield new Uint8Array(100_000);
      throw new Error("the source has failed");
    }
    async function* mistaken() {
      yield new Uint8Array(1);
      throw new TypeError("the source is mistaken");
    }
    await assert.rejects(sandbox.files.write(`${directory}/file`, mistaken()), /^TypeError: the source is mistaken$/);
    await assert.rejects(sandbox.files.write(`${directory}/no/file`, failing()), /the source has failed/);
    await assert.rejects(sandbox.files.write(`${directory}/file`, failing()), /the source has failed/);
    assert.equal(await sandbox.files.exists(`${directory}/file`), false);
    for (const content of ["é", new Uint8Array(2), new ArrayBuffer(2), new Blob(["é"]), new Blob(["é"]).stream(), [new Uint8Array(2)]]) {
      assert.equal(await sandbox.files.write(`${directory}/file`, content), 2);
    }
    await sandbox.files.write(`${directory}/file`, "\ufeffé");
    assert.equal(await sandbox.files.readText(`${directory}/file`), "\ufeffé");
    await sandbox.files.write(`${directory}/file`, new Uint8Array([0xc3]));
    await assert.rejects(sandbox.files.readText(`${directory}/file`), { name: "InvalidRequestError", message: /file' is no text/, hint: /read\(\)/ });
    await sandbox.stop();
  },

  restarted: async () => {
    const sandbox = await Sandbox.create("base", { ...place, name: "kept" });
    const [gate] = words;
    const child = await sandbox.command.start("sh", ["-c", `echo before; while [ ! -e ${gate} ]; do sleep 0.05; done; echo after`]);
    const stream = child.output();
    let text = "";
    for await (const output of stream) {
      if (text === "") console.log("ready");
      text += output.text;
    }
    await sandbox.remove();
    return { text, success: stream.exit.success, offsets: stream.offsets };
  },

  killed: async () => {
    const sandbox = await Sandbox.create("base", { ...place, name: "cut" });
    await assert.rejects(async () => {
      for await (const _ of sandbox.command.stream("sh", ["-c", "echo ready; sleep 1000"])) console.log("ready");
    }, error => error instanceof BrokenConnectionError && /broke/.test(error.message));
    await assert.rejects(sandbox.refresh(), error => error instanceof UnreachableError && /MSB_SERVER_URL/.test(error.hint));
    console.log("unreachable");
    await line();
    const { stdout } = await sandbox.command.run("echo", ["again"]);
    await sandbox.remove();
    return { stdout };
  },

  aborted_create: async () => {
    const client = new Client(place);
    for (let tick = 0; tick < 12; ++tick) {
      await Sandbox.create("base", { client, signal: AbortSignal.timeout(tick * 20) }).then(sandbox => sandbox.remove(), () => {});
    }
    for (let tick = 0; tick < 8; ++tick) {
      await PythonSandbox.create({ ...place, name: `old${tick}`, signal: AbortSignal.timeout(1 + tick * 30) }).then(old => old.stop(), () => {});
    }
    await client.close();
  },

  dies: async () => {
    const sandbox = await Sandbox.create("base", { ...place, name: "die-soon" });
    const calls = {
      run: () => sandbox.run("1", { language: "shell" }), command: () => sandbox.command.run("sleep", ["1000"]),
      stream: () => follow(sandbox.command.stream("sleep", ["1000"])), files: () => sandbox.files.list("/"),
      start: async () => (await sandbox.command.start("sleep", ["1000"])).wait(),
    };
    const error = await calls[words[0]]().catch(thrown => thrown);
    assert.ok(error instanceof MicrosandboxError && ["failed", "conflict", "not_found"].includes(error.code), error);
    assert.ok(error.requestId || error.message.includes("die-soon"));
    await sandbox.remove();
  },
};

process.on("unhandledRejection", error => {
  throw error;
});
const result = await scenarios[scenario](...words);
console.log(JSON.stringify(result ?? {}));
process.stdin.destroy();
