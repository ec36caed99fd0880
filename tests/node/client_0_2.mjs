// SPDX-License-Identifier: Apache-2.0
// Plays the JavaScript client of microsandbox 0.2, written from the contract alone:
//
//   node client_0_2.mjs 0.2.6|later URL KEY NAME python|node
//
// starts a sandbox, runs code and a command in it, measures it and stops it; prints what it got as JSON.
import { randomUUID } from "node:crypto";

const [generation, url, key, sandbox, language] = process.argv.slice(2);
const later = generation === "later";
const place = later ? { sandbox } : { namespace: "default", sandbox };

async function post(path, request) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(request) });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  const document = await response.json();
  if (document.error) throw new Error(document.error.message);
  return document;
}

function request(method, params, id = randomUUID()) {
  return { jsonrpc: "2.0", method, params: { ...place, ...params }, id };
}

async function call(method, params, path = "/api/v1/rpc") {
  const sent = request(method, params);
  const answer = await post(path, sent);
  if (answer.jsonrpc !== "2.0" || answer.id !== sent.id) throw new Error(`no answer to ${sent.id}: ${JSON.stringify(answer)}`);
  return answer.result;
}

async function start(config) {
  if (!later) return call("sandbox.start", { config });
  const { id, ...sent } = request("sandbox.start", { config });
  return (await post("/api/v1/sandbox/start", sent)).message;
}

const code = language === "python" ? ["x = 20", "print(x + 22)"] : ["let x = 20", "console.log(x + 22)"];
const results = { started: await start({ image: `microsandbox/${language}`, memory: 512, cpus: 1 }), runs: [] };
for (const piece of code) results.runs.push(await call("sandbox.repl.run", { language, code: piece }));
const command = { command: "sh", args: ["-c", "echo out; echo err >&2; exit 3"], timeout: 30 };
results.command = await call("sandbox.command.run", command, later ? "/api/v1/sandbox/command/run" : undefined);
results.metrics = await call("sandbox.metrics.get", {});
results.stopped = await call("sandbox.stop", {}, later ? "/api/v1/sandbox/stop" : undefined);
console.log(JSON.stringify(results));
