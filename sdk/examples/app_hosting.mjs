// SPDX-License-Identifier: Apache-2.0
// Instant app hosting: an app is written into a sandbox, started, and fetched from this host; when it stops nothing is left.
//
//     npm install PATH/TO/sdk/javascript
//     MSB_SERVER_URL=http://127.0.0.1:5555 MSB_API_KEY=... node app_hosting.mjs
import { Sandbox } from "microsandbox";

const apps = {
  python: {
    image: "python",
    file: "/app/app.py",
    command: "python3",
    source: `
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import html, platform, urllib.parse

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        name = html.escape(query.get("name", ["stranger"])[0])
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(f"<h1>Hello {name}</h1><p>from Python {platform.python_version()}</p>".encode())

    def log_message(self, *words):
        pass

ThreadingHTTPServer(("", 8000), App).serve_forever()
`,
  },
  node: {
    image: "node",
    file: "/app/app.mjs",
    command: "node",
    source: `
import { createServer } from "node:http";
let visits = 0;
createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ visits: ++visits, path: request.url, node: process.version.split(".")[0] }));
}).listen(8000);
`,
  },
};

/** Asks until the app listens: it takes a moment to start. */
async function fetchOnceUp(url) {
  for (const until = Date.now() + 60_000; ; ) {
    try {
      const answer = await fetch(url);
      if (answer.ok) return await answer.text();
      if (Date.now() > until) throw new Error(`${url} answers ${answer.status}`);
    } catch (error) {
      if (Date.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function host(name, { image, file, command, source }) {
  const sandbox = await Sandbox.create(image, { ports: [8000], scope: "none" });
  let address;
  try {
    await sandbox.files.write(file, source, { parents: true });
    await sandbox.command.start(command, [file]);
    address = await sandbox.url(8000);
    console.log(`${name} at ${address}`);
    console.log(`  ${await fetchOnceUp(`${address}/?name=Ada`)}`);
    console.log(`  ${await fetchOnceUp(`${address}/again?name=Grace`)}`);
  } finally {
    await sandbox.stop();
    await sandbox.close();
  }
  console.log(`  afterwards: ${await fetch(address).then(() => "still there", (error) => error.cause.code)}`);
}

for (const [name, app] of Object.entries(apps)) await host(name, app);
