// SPDX-License-Identifier: Apache-2.0
// The official client of the Model Context Protocol, as a test tells it to act:
//
//   node mcp_client.mjs [--era MODE] http URL [KEY]
//   node mcp_client.mjs [--era MODE] stdio COMMAND ARGUMENT...
//
// With a MODE it is the one that knows the revision 2026-07-28: "pin" speaks that alone, "auto" asks the server first, and
// "legacy" begins with initialize. Without, it is the one from before.
//
// Lines of JSON come in, each {"id": N, "do": "..."} and what that needs; lines of JSON go out, {"id": N, "result" or "error"}
// for each, {"id": N, "progress"} before, and {"connected"} first of all.
import { createInterface } from "node:readline";

async function importSdk(mode) {
  if (mode) {
    return { ...(await import("@modelcontextprotocol/client")), ...(await import("@modelcontextprotocol/client/stdio")) };
  }
  return {
    ...(await import("@modelcontextprotocol/sdk/client/index.js")),
    ...(await import("@modelcontextprotocol/sdk/client/stdio.js")),
    ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
  };
}

function transportOf([kind, where, ...more]) {
  if (kind === "stdio") {
    return new sdk.StdioClientTransport({ command: where, args: more, env: { ...process.env }, stderr: "inherit" });
  }
  const headers = more[0] ? { Authorization: `Bearer ${more[0]}` } : {};
  return new sdk.StreamableHTTPClientTransport(new URL(where), { requestInit: { headers } });
}

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

const words = process.argv.slice(2);
const mode = words[0] === "--era" ? words.splice(0, 2)[1] : undefined;
const sdk = await importSdk(mode);
const transport = transportOf(words);
const negotiation = { mode: mode === "pin" ? { pin: "2026-07-28" } : mode };
const client = new sdk.Client({ name: "microsandbox-tests", version: "1" }, mode ? { versionNegotiation: negotiation } : {});
const calls = new Map();

const actions = {
  tools: () => client.listTools(),
  prompts: () => client.listPrompts(),
  prompt: ({ name, arguments: given }) => client.getPrompt({ name, arguments: given }),
  ping: () => client.ping(),
  call: ({ id, name, arguments: given, progress }) => {
    const controller = new AbortController();
    calls.set(id, controller);
    const options = { signal: controller.signal, timeout: 120_000 };
    if (progress) options.onprogress = (told) => say({ id, progress: told });
    // The one from before takes a schema of the result in between.
    return client.callTool({ name, arguments: given }, ...(mode ? [options] : [undefined, options]));
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
    era: client.getProtocolEra?.(),
    revision: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion,
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
