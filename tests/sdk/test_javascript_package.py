# SPDX-License-Identifier: Apache-2.0
"""The JavaScript package: how it is packed and installed, its types, what its README shows, and programs of 0.2."""

import json
import re
import shutil
import tarfile

import pytest
from javascript_sdk import PACKAGE, SOURCES, javascript, run
from server_bed import needs_root

README = (PACKAGE / "README.md").read_text()
SNIPPETS = re.findall(r"```(javascript|typescript)\n(.*?)```", README, re.DOTALL)
LARGEST_SOURCE = 450  # lines


@pytest.fixture(scope="module")
def installed(javascript, tmp_path_factory):
    """An empty folder into which the packed file was installed, without a registry."""
    directory = tmp_path_factory.mktemp("user")
    [packed] = json.loads(javascript.npm("pack", "--json", "--pack-destination", directory, cwd=javascript.package))
    (directory / "package.json").write_text('{ "private": true }')
    javascript.npm("install", "--offline", directory / packed["filename"], cwd=directory)
    return directory


def test_what_is_packed_is_the_package_alone(installed):
    [packed] = installed.glob("*.tgz")
    names = tarfile.open(packed).getnames()
    assert {"package/README.md", "package/dist/esm/index.js", "package/dist/esm/index.d.ts", "package/dist/cjs/index.js",
            "package/dist/cjs/index.d.ts"} <= set(names)
    assert not [name for name in names if "test" in name or "node_modules" in name]
    manifest = json.loads((installed / "node_modules/microsandbox/package.json").read_text())
    assert "dependencies" not in manifest and manifest["version"] in packed.name


def test_it_is_made_from_a_checkout_as_the_readme_says(javascript, tmp_path):
    assert "npm ci && npm pack" in README
    for name in SOURCES:
        copy = shutil.copytree if (PACKAGE / name).is_dir() else shutil.copy2
        copy(PACKAGE / name, tmp_path / name)
    (tmp_path / "node_modules").symlink_to(javascript.package / "node_modules")  # what `npm ci` makes
    run("npm", "pack", "--no-update-notifier", cwd=tmp_path, env=javascript.environment)
    [packed] = re.findall(r"microsandbox-[0-9.]+\.tgz", README)
    assert "package/dist/esm/index.js" in tarfile.open(tmp_path / packed).getnames()


@pytest.mark.parametrize("source", sorted((PACKAGE / "src").glob("*.ts")), ids=lambda path: path.name)
def test_sources_are_short(source):
    assert len(source.read_text().splitlines()) <= LARGEST_SOURCE


NAMES = "Client Sandbox PythonSandbox NodeSandbox SandboxOptions MicrosandboxError NotFoundError asyncDispose".split()


def test_both_module_systems_find_it(javascript, installed):
    (installed / "one.mjs").write_text(f"import {{ {', '.join(NAMES)} }} from 'microsandbox';\n"
                                       f"console.log([{', '.join(NAMES)}].every(one => one));")
    (installed / "one.cjs").write_text(f"const {{ {', '.join(NAMES)} }} = require('microsandbox');\n"
                                       f"console.log([{', '.join(NAMES)}].every(one => one));")
    assert javascript.run("one.mjs", cwd=installed) == javascript.run("one.cjs", cwd=installed) == "true\n"
    names = "import * as esm from 'microsandbox'; import { createRequire } from 'node:module';\n" \
            "const cjs = createRequire(import.meta.url)('microsandbox');\n" \
            "console.log(Object.keys(esm).sort().join() === Object.keys(cjs).filter(name => name !== '__esModule').sort().join());"
    (installed / "both.mjs").write_text(names)
    assert javascript.run("both.mjs", cwd=installed) == "true\n"


def test_there_is_something_to_await_using_where_the_language_has_nothing(javascript, installed):
    (installed / "old.cjs").write_text("""
        const it = Object.getOwnPropertyDescriptors(Symbol);
        globalThis.Symbol = Object.assign(name => it.prototype.value.constructor(name), { for: Symbol.for, iterator: Symbol.iterator,
          asyncIterator: Symbol.asyncIterator, toStringTag: Symbol.toStringTag, toPrimitive: Symbol.toPrimitive });
        const { Client, asyncDispose } = require("microsandbox");
        console.log(Symbol.asyncDispose, asyncDispose === Symbol.for("Symbol.asyncDispose"), typeof new Client()[asyncDispose]);
    """)
    assert javascript.run("old.cjs", cwd=installed) == "undefined true function\n"


TYPED = """
import { Sandbox, PythonSandbox, SandboxOptions, Client, MicrosandboxError, type Result, type SandboxInfo } from "microsandbox";
import { BaseSandbox, Command, CommandExecution, Execution, Metrics, NodeSandbox } from "microsandbox";

/** As a program for 0.2 adds a language. */
class ShellSandbox extends BaseSandbox {
  async getDefaultImage(): Promise<string> {
    return "base";
  }

  async run(code: string): Promise<Execution> {
    const commands: Command = this.command;
    const ran: CommandExecution = await commands.run("sh", ["-c", code]);
    return new Execution({ status: ran.success ? "success" : "error", output: [{ stream: "stdout", text: await ran.output() }] });
  }

  where(): string {
    return `${this._serverUrl} ${this._namespace} ${this._name} ${this._apiKey ?? ""} ${this._isStarted}`;
  }

  static override create(options?: SandboxOptions): Promise<ShellSandbox> {
    return BaseSandbox.createBase(ShellSandbox, options);
  }
}

async function any(kind: typeof BaseSandbox): Promise<Metrics> {
  return (await kind.create({ name: "any" })).metrics;
}

export const factories: Record<string, (options?: SandboxOptions) => Promise<BaseSandbox>> = {
  shell: ShellSandbox.create, javascript: NodeSandbox.create, metrics: async () => (await any(PythonSandbox), new ShellSandbox()),
};

async function all(signal: AbortSignal): Promise<number> {
  await using client = new Client({ serverUrl: "http://127.0.0.1:1" });
  await using sandbox = await Sandbox.create("python", { client, labels: { a: "b" }, ports: [80, "0:81"], memory: "1G", signal });
  const result: Result = await sandbox.run("1", { language: "python", session: "s", timeout: 1, signal });
  for (const one of result.outputs) {
    if (one.type === "text") console.log(one.stream, one.text);
    else if (one.type === "error") console.log(one.traceback.length);
    else console.log(one.data["text/plain"], one.bytes("image/png")?.length);
  }
  for await (const info of Sandbox.list({ state: "running" })) use(info);
  const process = await sandbox.command.start("cat", [], { input: true, terminal: { rows: 1, columns: 2 } });
  for await (const output of process.output()) if (output.type === "lost") console.log(output.next); else console.log(output.data.length);
  // @ts-expect-error: it is an array
  await sandbox.command.run("sh", "-c true");
  // @ts-expect-error: there is no such state
  Sandbox.list({ state: "walking" });
  const written: number = await sandbox.files.write("/x", new Blob(["x"]), { mode: 0o600, signal });
  try {
    const old = await PythonSandbox.create(SandboxOptions.builder().name("x").memory(1024).cpus(2).build());
    const text: string = await (await old.run("1")).output();
    const cpu: number | undefined = await old.metrics.cpu();
    const ran = await old.command.run("ls", ["-la"], 10);
    console.log(text, cpu, ran.exitCode, ran.success, old.isStarted, old.apiKey, old.serverUrl, old.name);
  } catch (error) {
    if (error instanceof MicrosandboxError) console.log(error.code, error.requestId, error.retryAfter);
  }
  return written;
}

function use(info: SandboxInfo): Date {
  return info.createdAt;
}

export { all };
"""


@pytest.mark.parametrize("options", [
    ["--module", "nodenext"], ["--module", "esnext", "--moduleResolution", "bundler"],
    ["--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom,esnext.disposable"]], ids=["node", "bundler", "lowest"])
@pytest.mark.parametrize("suffix", ["mts", "cts"])
def test_it_has_types_for_strict_programs(javascript, installed, suffix, options):
    if suffix == "cts" and "bundler" in options:
        pytest.skip("CommonJS in TypeScript is of nodenext")
    (installed / f"typed.{suffix}").write_text(TYPED)
    javascript.check_types("--types", "", *options, f"typed.{suffix}", cwd=installed)


@needs_root
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_what_the_readme_shows_runs(server, javascript, installed, snippet, tmp_path):
    language, code = snippet
    code = code.replace("/tmp/data", f"{tmp_path}/data")  # where the stand-in has sandboxes, on this host
    (installed / "snippet.mts").write_text(code)
    program = "snippet.mjs"
    if language == "typescript":
        javascript.compile("snippet.mts", cwd=installed)
    else:
        (installed / program).write_text(code)
    assert javascript.run("--trace-warnings", program, cwd=installed, MSB_SERVER_URL=server.url, MSB_API_KEY=server.key)


def test_a_page_finds_all_it_needs_in_its_modules(javascript, installed):
    """Browsers resolve no names of packages, and have no process."""
    (installed / "page.mjs").write_text("""
        delete globalThis.process;
        const { Sandbox, Client, PythonSandbox } = await import("./node_modules/microsandbox/dist/esm/index.js");
        const seen = [];
        globalThis.fetch = async (url, options) => {
          seen.push(`${options.method} ${url} ${options.headers.Authorization}`);
          return Response.json({ error: { code: "full", number: 3002, message: "no", request_id: "r" } }, { status: 429, headers: { "Retry-After": "99" } });
        };
        const place = { serverUrl: "http://server:5555", apiKey: "key" };
        await Sandbox.create("python", place).catch(error => seen.push(error.name, error.retryAfter));
        await new PythonSandbox({ ...place, name: "old" }).start().catch(error => seen.push(error.message));
        globalThis.fetch = async () => { throw new TypeError("Failed to fetch"); };
        await new Client({ ...place, attempts: 1 }).health().catch(error => seen.push(error.name));
        console.log(seen.join("\\n"));
    """)
    assert javascript.run("page.mjs", cwd=installed).splitlines() == [
        "POST http://server:5555/v1/sandboxes Bearer key", "FullError", "99", "POST http://server:5555/api/v1/rpc Bearer key",
        "Failed to start sandbox: no", "UnreachableError"]


# Programs that were written for 0.2.

OLD = """
import { BaseSandbox, Execution, NodeSandbox, PythonSandbox, SandboxOptions } from "microsandbox";
import whole from "microsandbox";

async function main() {
  const sb = await PythonSandbox.create({ name: "cm" });
  try {
    await sb.run("name = 'Python'");
    const exec = await sb.run("print(f'Hello {name}!')");
    console.log(await exec.output(), exec.status, exec.language, exec.hasError());
    const listed = await sb.command.run("ls", ["/nonexistent"]);
    console.log(listed.exitCode !== 0, listed.success, (await listed.error()).includes("nonexistent"), listed.command, listed.args);
    try {
      await sb.command.run("sleep", ["10"], 1);
    } catch (error) {
      console.log(error instanceof Error, error.message.startsWith("Failed to execute command: "));
    }
    const all = await sb.metrics.all();
    console.log(await sb.metrics.isRunning(), all.name, all.running, (await sb.metrics.memory()) > 0, typeof await sb.metrics.disk());
  } finally {
    await sb.stop();
  }

  const sandbox = new PythonSandbox({ serverUrl: process.env.MSB_SERVER_URL, namespace: "default", name: "explicit", apiKey: process.env.MSB_API_KEY });
  try {
    await sandbox.metrics.cpu();
  } catch (error) {
    console.log(error.message, sandbox.isStarted);
  }
  await sandbox.start(undefined, 1024, 2.0);
  await sandbox.run("y = [i**2 for i in range(4)]");
  console.log(await (await sandbox.run("print(y)")).output(), sandbox.isStarted, sandbox.name, await sandbox.getDefaultImage());
  await sandbox.stop();
  console.log(sandbox.isStarted);

  const node = await NodeSandbox.create(SandboxOptions.builder().name("node").memory(1024).cpus(2).timeout(60).build());
  const exec = await node.run("const n = [1, 2, 3]; console.log(n.reduce((a, b) => a + b, 0)); console.error('bad')");
  console.log(await exec.output(), await exec.error(), exec.hasError());
  await node.stop();

  const creates = [PythonSandbox.create, NodeSandbox.create];
  for (const create of creates) {
    const one = await create();
    console.log(JSON.stringify(await (await one.run(one instanceof PythonSandbox ? "print('  a'); print(' b ')" : "console.log(' c ')")).output()));
    await one.stop();
  }

  class Shell extends BaseSandbox {
    getDefaultImage = async () => "base";
    run = async code => new Execution({ output: [{ stream: "stdout", text: await (await this.command.run("sh", ["-c", code])).output() }] });
    static create = options => BaseSandbox.createBase(Shell, options);
  }
  const shell = await Shell.create({ name: "shell" });
  const said = await shell.run("echo $((6 * 7))");
  console.log(await said.output(), said.status, said.language, shell._name, shell._isStarted, Object.values(shell).includes(shell.apiKey));
  await shell.stop();

  const words = [];
  for (const act of [() => BaseSandbox.create(), () => PythonSandbox.create({ serverUrl: "http://127.0.0.1:1" })]) {
    try {
      await act();
    } catch (error) {
      words.push(error.message.split(":")[0]);
    }
  }
  console.log(words.join("; "), whole.PythonSandbox === PythonSandbox);
}

main().catch(console.error);
"""

SAID = """Hello Python! success python false
true false true ls [ '/nonexistent' ]
true true
true cm true true number
Sandbox is not started. Call start() first. false
[0, 1, 4, 9] true explicit microsandbox/python
false
6 bad true
"a\\n b"
"c"
42 unknown unknown shell true false
BaseSandbox is of no language; Failed to communicate with Microsandbox server true
"""


@needs_root
@pytest.mark.parametrize("modules", ["mjs", "cjs"])
@pytest.mark.parametrize("settings", ["environment", ".env"])
def test_programs_of_0_2_run_after_changing_the_address(server, javascript, installed, tmp_path, modules, settings):
    program = OLD if modules == "mjs" else re.sub(r"import (.*) from (.*);", r"const \1 = require(\2);", OLD)
    (tmp_path / "node_modules").symlink_to(installed / "node_modules")
    (tmp_path / f"old.{modules}").write_text(program)
    environment = {"MSB_SERVER_URL": server.url, "MSB_API_KEY": server.key}
    if settings == ".env":  # which 0.2 read when there was no key in the environment
        (tmp_path / ".env").write_text(f"MSB_API_KEY='{server.key}'\n")
        del environment["MSB_API_KEY"]
        program = (tmp_path / f"old.{modules}").read_text().replace(", apiKey: process.env.MSB_API_KEY", "")
        (tmp_path / f"old.{modules}").write_text(program)
    assert javascript.run(f"old.{modules}", cwd=tmp_path, **environment) == SAID
