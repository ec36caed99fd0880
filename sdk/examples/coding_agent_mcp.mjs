// SPDX-License-Identifier: Apache-2.0
// The same agent by the Model Context Protocol: what it does are calls of the server's tools, by the official client. An
// agent such as Claude does this by itself, once it knows the server; what the model would say stands in steps().
//
//     npm install @modelcontextprotocol/client
//     MSB_SERVER_URL=http://127.0.0.1:5555 MSB_API_KEY=... node coding_agent_mcp.mjs
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const url = new URL("/mcp", process.env.MSB_SERVER_URL ?? "http://127.0.0.1:5555");
const headers = process.env.MSB_API_KEY ? { Authorization: `Bearer ${process.env.MSB_API_KEY}` } : {};
const client = new Client({ name: "coding-agent", version: "1" });
await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));

const sandbox = `agent-${process.pid}`;

async function call(tool, words) {
  const answer = await client.callTool({ name: tool, arguments: { sandbox, ...words } });
  const text = answer.content.map((part) => part.text ?? "").join("");
  if (answer.isError) throw new Error(`${tool}: ${text}`);
  return tool === "sandbox_run_command" ? JSON.parse(text).output.map((line) => line.text).join("\n") : text;
}

const broken = 'export const initials = (name) => name.split(" ").map((word) => word[0]).join("");\n';
const test = `import { test } from "node:test";
import assert from "node:assert";
import { initials } from "./initials.mjs";
test("capitals", () => assert.equal(initials("Ada Lovelace"), "AL"));
test("small letters", () => assert.equal(initials("alan turing"), "AT"));
`;

/** What a model would do: it gets what came of each step, and says the next one. */
async function* steps() {
  yield ["sandbox_write_file", { path: "/app/initials.mjs", content: broken }];
  yield ["sandbox_write_file", { path: "/app/test.mjs", content: test }];
  const happened = yield ["sandbox_run_command", { command: "node", args: ["/app/test.mjs"] }];
  if (/expected: 'AT'\s+actual: 'at'/.test(happened)) {
    yield ["sandbox_write_file", { path: "/app/initials.mjs", content: broken.replace("word[0]", "word[0].toUpperCase()") }];
    yield ["sandbox_run_command", { command: "node", args: ["/app/test.mjs"] }];
  }
}

console.log(`Tools: ${(await client.listTools()).tools.length}`);
try {
  await call("sandbox_start", { config: { image: "node", scope: "none" } });
  const agent = steps();
  let happened;
  for (let step = await agent.next(); !step.done; step = await agent.next(happened)) {
    const [tool, words] = step.value;
    happened = await call(tool, words);
    console.log(`> ${tool} ${words.path ?? [words.command, ...words.args].join(" ")}`);
    for (const line of happened.match(/^# (pass|fail) \d+$/gm) ?? []) console.log(`    ${line.slice(2)}`);
  }
} finally {
  await call("sandbox_remove", {});
  await client.close();
}
