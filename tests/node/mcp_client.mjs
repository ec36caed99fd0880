// SPDX-License-Identifier: Apache-2.0
// The official client of the Model Context Protocol, as a test tells it to act:
//
//   node mcp_client.mjs http URL [KEY]
//   node mcp_client.mjs stdio COMMAND ARGUMENT...
//
// Lines of JSON come in, each {"id": N, "do": "..."} and what that needs; lines of JSON go out, {"id": N, "result" or "error"}
// for each, {"id": N, "progress"} before, and {"connected"} first of all.
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

function transportOf([kind, where, ...more]) {
  if (kind === "stdio") {
    return new StdioClientTransport({ command: where, args: more, env: { ...process.env }, stderr: "inherit" });
  }
  const headers = more[0] ? { Authorization: `Bearer ${more[0]}` } : {};
  return new StreamableHTTPClientTransport(new URL(where), { requestInit: { headers } });
}

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

const transport = transportOf(process.argv.slice(2));
const client = new Client({ name: "microsandbox-tests", version: "1" });
const calls = new Map();

const actions = {
  tools: () => client.listTools(),
  prompts: () => client.listPrompts(),
  prompt: ({ name, arguments: words }) => client.getPrompt({ name, arguments: words }),
  ping: () => client.ping(),
  call: ({ id, name, arguments: words, progress }) => {
    const controller = new AbortController();
    calls.set(id, controller);
    const options = { signal: controller.signal, timeout: 120_000 };
    if (progress) options.onprogress = (told) => say({ id, progress: told });
    return client.callTool({ name, arguments: words }, undefined, options);
  },
  cancel: async ({ call }) => {
    calls.get(call).abort("the test says so");
    return {};
  },
  close: async ({ terminate }) => {
    if (terminate) await transport.terminateSession?.(); // over HTTP: a stdio server ends with its input
    await client.close();
    return {};
  },
};

await client.connect(transport);
say({
  connected: {
    server: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions(),
    revision: transport.protocolVersion,
    session: transport.sessionId,
  },
});
for await (const line of createInterface({ input: process.stdin })) {
  const wanted = JSON.parse(line);
  // Not waited for, so that others can be asked for meanwhile.
  actions[wanted.do](wanted).then(
    (result) => say({ id: wanted.id, result }),
    (error) => say({ id: wanted.id, error: error.message, code: error.code }),
  );
  if (wanted.do === "close") break;
}
process.stdin.destroy(); // it would keep this program waiting
