// SPDX-License-Identifier: Apache-2.0
// The part of bench/sdk that is in JavaScript: `PACKAGE compare SANDBOX ROUNDS COUNT BUSY` or `PACKAGE many SANDBOX CALLS`, where
// PACKAGE is the built SDK's index.js. Prints JSON.
import { readdirSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { connect } from "node:net";

const [packagePath, what, name, ...numbers] = process.argv.slice(2);
const { Client, Sandbox } = await import(packagePath);
const { MSB_SERVER_URL: URL_OF_SERVER, MSB_API_KEY: KEY } = process.env;
const { hostname, port, host } = new URL(URL_OF_SERVER);
const WARM = 20;
const WORKERS = 20;

// One request each, to be sent in three ways.
const place = `/v1/sandboxes/${name}`;
const REQUESTS = {
  run: { method: "POST", target: `${place}/code?namespace=default`, document: { language: "python", code: "1" } },
  command: { method: "POST", target: `${place}/exec?namespace=default`, document: { command: ["true"] } },
  metrics: { method: "GET", target: `${place}/metrics?namespace=default` },
};

const callsOf = sandbox => ({
  run: () => sandbox.run("1"), command: () => sandbox.command.run("true"), metrics: () => sandbox.metrics(),
});

function spin(milliseconds) {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

const agent = new Agent({ keepAlive: true });

/** As somebody does it by hand. */
function raw({ method, target, document }) {
  return new Promise((resolve, reject) => {
    const body = document && JSON.stringify(document);
    const headers = { Authorization: `Bearer ${KEY}` };
    if (body) Object.assign(headers, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
    const sent = httpRequest({ hostname, port, method, path: target, headers, agent }, answer => {
      const pieces = [];
      answer.on("data", piece => pieces.push(piece));
      answer.on("end", () => {
        const text = Buffer.concat(pieces).toString();
        if (answer.statusCode === 200) resolve(JSON.parse(text));
        else reject(new Error(`the server answered ${answer.statusCode}: ${text}`));
      });
      answer.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

/** Bytes that were made before, on a connection: no client can be faster. */
class Bare {
  #socket = connect({ host: hostname, port: Number(port), noDelay: true });

  static request({ method, target, document }) {
    const body = document ? JSON.stringify(document) : "";
    return `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${KEY}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  }

  call(request) {
    return new Promise((resolve, reject) => {
      let came = "";
      const onData = piece => {
        came += piece.toString("latin1");
        const end = came.indexOf("\r\n\r\n");
        if (end < 0) return;
        const length = /^Content-Length: (\d+)$/m.exec(came.slice(0, end).replaceAll("\r", ""));
        if (!came.startsWith("HTTP/1.1 200 ") || !length) reject(new Error(`the server answered ${came}`));
        else if (came.length < end + 4 + Number(length[1])) return;
        this.#socket.off("data", onData);
        this.#socket.off("error", reject);
        resolve();
      };
      this.#socket.on("data", onData);
      this.#socket.on("error", reject);
      this.#socket.write(request);
    });
  }

  close() {
    this.#socket.destroy();
  }
}

/** Milliseconds of each call, one way after the other, so that whatever else happens happens to all. */
async function timed(ways, count) {
  const order = Object.keys(ways);
  const times = Object.fromEntries(order.map(way => [way, []]));
  for (let turn = 0; turn < count; ++turn) {
    for (let step = 0; step < order.length; ++step) {
      const way = order[(turn + step) % order.length];
      const began = performance.now();
      await ways[way]();
      times[way].push(performance.now() - began);
    }
  }
  return times;
}

async function compare(rounds, count, busy) {
  const client = new Client();
  const calls = callsOf(await Sandbox.connect(name, { client }));
  const bare = new Bare();
  const found = {};
  for (const [call, request] of Object.entries(REQUESTS)) {
    const made = Bare.request(request);
    const ways = {
      sdk: () => {
        spin(busy);
        return calls[call]();
      },
      raw: () => raw(request),
      bare: () => bare.call(made),
    };
    await timed(ways, WARM);
    found[call] = { sdk: [], raw: [], bare: [] };
    for (let round = 0; round < rounds; ++round) {
      for (const [way, times] of Object.entries(await timed(ways, count))) found[call][way].push(times);
    }
  }
  bare.close();
  agent.destroy();
  await client.close();
  return found;
}

const descriptors = () => readdirSync("/proc/self/fd").length - 1;  // one of them reads the directory

async function many(calls) {
  const sandbox = await Sandbox.connect(name);
  const seen = [];
  for (let half = 0; half < 2; ++half) {
    await Promise.all(Array.from({ length: WORKERS }, async () => {
      for (let count = 0; count < Math.floor(calls / 2 / WORKERS); ++count) await sandbox.metrics();
    }));
    seen.push(descriptors());
  }
  await sandbox.close();
  return { descriptors: seen };
}

console.log(JSON.stringify(what === "compare" ? await compare(...numbers.map(Number)) : await many(Number(numbers[0]))));
