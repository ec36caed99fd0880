// SPDX-License-Identifier: Apache-2.0
// What the page of test_javascript_browser.py does: the scenario that its address names, with the server that it names. What it
// found is posted to where it came from.

import {
  AuthenticationError, Client, ForbiddenError, InvalidRequestError, MicrosandboxError, NodeSandbox, NotFoundError, Sandbox,
  UnreachableError,
} from "/microsandbox/index.js";

const { scenario, serverUrl, apiKey, directory } = Object.fromEntries(new URLSearchParams(location.search));
const place = { serverUrl, apiKey };

/** What was thrown, which is to be of that kind. */
async function thrown(kind, promise) {
  const error = await promise.then(() => "nothing was thrown", caught => caught);
  if (!(error instanceof kind)) throw new Error(`expected ${kind.name}: ${error}`);
  return error;
}

const scenarios = {
  async conversation() {
    const client = new Client(place);
    const sandbox = await Sandbox.create("python", { client });
    const found = { version: typeof (await client.server()).version };

    await sandbox.run("x = 40");
    found.state = (await sandbox.run("x + 2")).value.text;
    const outputs = [];
    for await (const output of sandbox.stream("for n in range(3): print(n, flush=True)")) outputs.push(output.text);
    found.stream = outputs.join("");
    const command = sandbox.command.stream("sh", ["-c", "echo out; echo bad >&2; exit 3"]);
    found.streams = {};
    for await (const { stream, text } of command) found.streams[stream] = (found.streams[stream] ?? "") + text;
    found.exit = command.exit.exitCode;

    const child = await sandbox.command.start("cat", [], { input: true });
    await child.write("in\n", { end: true });
    let said = "";
    for await (const output of child.output()) said += output.text;
    found.process = [said, (await child.wait()).success];

    const file = `${directory}/file`;
    await sandbox.files.write(file, new File(["é\n"], "é.txt"), { mode: 0o600 });
    found.text = await sandbox.files.readText(file);
    found.mode = (await sandbox.files.stat(file)).mode.toString(8);
    found.written = await sandbox.files.write(file, new Blob([new Uint8Array(300_000).fill(255)]).stream());
    let size = 0;
    for await (const piece of sandbox.files.readPieces(file)) size += piece.length;
    found.size = size;
    found.bytes = (await thrown(InvalidRequestError, sandbox.files.readText(file))).hint;
    found.upload = (await thrown(InvalidRequestError, sandbox.files.upload("x", "/x"))).hint;

    const missing = await thrown(NotFoundError, sandbox.files.read("/no/such/file"));
    found.missing = [missing.status, missing.requestId.length > 0];
    const begun = performance.now();
    const late = await thrown(DOMException, sandbox.command.run("sleep", ["1000"], { signal: AbortSignal.timeout(200) }));
    found.aborted = [late.name, performance.now() - begun < 10_000];
    for await (const _ of sandbox.command.stream("sh", ["-c", "while echo on; do sleep 0.1; done"])) break;
    // Both are killed, which takes a moment.
    const runs = ({ state, command }) => state === "running" && /\b(sleep|sh)$/.test(command);
    while ((await sandbox.command.list()).some(runs)) await new Promise(next => setTimeout(next, 20));
    found.after = (await sandbox.command.run("echo", ["it goes on"])).stdout;

    await sandbox.stop();
    await thrown(NotFoundError, Sandbox.connect(sandbox.name, { client }));
    return found;
  },

  async old() {
    const sandbox = await NodeSandbox.create({ ...place, name: "page" });
    await sandbox.run("var word = 'page'");
    const execution = await sandbox.run("console.log(`Hello ${word}!`)");
    await sandbox.stop();
    return [await execution.output(), execution.hasError(), sandbox.isStarted];
  },

  async key() {
    return (await thrown(AuthenticationError, Sandbox.create("python", { serverUrl, apiKey: "msb_no_key" }))).message;
  },

  async origin() {
    const error = await thrown(ForbiddenError, Sandbox.create("python", place));
    const old = await thrown(ForbiddenError, NodeSandbox.create(place));
    return { message: error.message, hint: error.hint, origin: location.origin, old: old.message };
  },

  async nowhere() {
    const client = new Client({ serverUrl, attempts: 1 });
    const error = await thrown(UnreachableError, client.health());
    return [error.code, error.message.includes(serverUrl)];
  },

  async port() {
    const error = await thrown(InvalidRequestError, new Client({ serverUrl: "http://127.0.0.1:6000" }).health());
    return [error.message, error.hint];
  },
};

let outcome;
try {
  outcome = { found: await scenarios[scenario]() };
} catch (error) {
  outcome = { failed: `${error instanceof MicrosandboxError ? error : error?.stack ?? error}` };
}
await fetch("/outcome", { method: "POST", body: JSON.stringify(outcome) });
