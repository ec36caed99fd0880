// SPDX-License-Identifier: Apache-2.0
// `PythonSandbox` and `NodeSandbox` as microsandbox 0.2 has them, over its JSON-RPC.

import { randomWord } from "./bytes.js";
import { given, NO_END, PATIENCE, type Call, type CallOptions } from "./call.js";
import { Client } from "./client.js";
import { asyncDispose } from "./dispose.js";
import { membersOf, UnexpectedDocument, type Members } from "./document.js";
import { MicrosandboxError } from "./errors.js";
import { nodeProcess } from "./node.js";
import type { SandboxOptions, StartConfig } from "./options.js";
import { mayBeThere, newName } from "./sandbox.js";
import { Settings } from "./settings.js";

export interface OutputLine {
  stream: "stdout" | "stderr";
  text: string;
}

/** What the server tells of code, or of a command. */
export interface OutputData {
  output?: OutputLine[];
  status?: string;
  language?: string;
  success?: boolean;
  exit_code?: number;
  command?: string;
  args?: string[];
}

function written(data: OutputData | undefined, stream: string): string {
  const lines = data?.output ?? [];
  return lines.filter(line => line.stream === stream).map(line => line.text ?? "").join("\n").trimEnd();
}

/** What code gave. */
export class Execution {
  readonly #data: OutputData;

  constructor(outputData?: OutputData) {
    this.#data = outputData ?? {};
  }

  async output(): Promise<string> {
    return written(this.#data, "stdout");
  }

  async error(): Promise<string> {
    return written(this.#data, "stderr");
  }

  /** Also when it wrote to standard error only. */
  hasError(): boolean {
    return ["error", "exception"].includes(this.status)
      || (this.#data.output ?? []).some(line => line.stream === "stderr" && !!line.text);
  }

  get status(): string {
    return this.#data.status ?? "unknown";
  }

  get language(): string {
    return this.#data.language ?? "unknown";
  }
}

/** How a command ended, and what it wrote. */
export class CommandExecution {
  readonly #data: OutputData;

  constructor(outputData?: OutputData) {
    this.#data = outputData ?? {};
  }

  async output(): Promise<string> {
    return written(this.#data, "stdout");
  }

  async error(): Promise<string> {
    return written(this.#data, "stderr");
  }

  get exitCode(): number {
    return this.#data.exit_code ?? -1;
  }

  get success(): boolean {
    return this.#data.success ?? false;
  }

  get command(): string {
    return this.#data.command ?? "";
  }

  get args(): string[] {
    return this.#data.args ?? [];
  }
}

/** `sandbox.command`. */
export class LanguageCommand {
  readonly #sandbox: BaseSandbox;

  constructor(sandboxInstance: BaseSandbox) {
    this.#sandbox = sandboxInstance;
  }

  /** Runs it to its end. Throws when its time, in seconds, is over. */
  async run(command: string, args?: string[], timeout?: number, { signal }: CallOptions = {}): Promise<CommandExecution> {
    const params = { command, args: args ?? [], ...given({ timeout }) };
    const result = await this.#sandbox.ask("sandbox.command.run", params, "Failed to execute command", false, signal);
    return new CommandExecution(result);
  }
}

/** `sandbox.metrics`. */
export class LanguageMetrics {
  readonly #sandbox: BaseSandbox;

  constructor(sandboxInstance: BaseSandbox) {
    this.#sandbox = sandboxInstance;
  }

  /** As the server tells them: `name`, `namespace`, `running`, `cpu_usage`, `memory_usage`, `disk_usage`. */
  async all({ signal }: CallOptions = {}): Promise<any> {
    const result = await this.#sandbox.ask("sandbox.metrics.get", {}, "Failed to get sandbox metrics", true, signal);
    const { sandboxes } = result as { sandboxes?: unknown };
    return (Array.isArray(sandboxes) && sandboxes[0]) || {};
  }

  /** Percent of a processor. */
  async cpu(options?: CallOptions): Promise<number | undefined> {
    return (await this.all(options)).cpu_usage ?? undefined;
  }

  /** MiB. */
  async memory(options?: CallOptions): Promise<number | undefined> {
    return (await this.all(options)).memory_usage ?? undefined;
  }

  /** Bytes. */
  async disk(options?: CallOptions): Promise<number | undefined> {
    return (await this.all(options)).disk_usage ?? undefined;
  }

  async isRunning(options?: CallOptions): Promise<boolean> {
    return (await this.all(options)).running === true;
  }
}

/** A sandbox for code of one language. */
export abstract class BaseSandbox {
  readonly #options: SandboxOptions;
  readonly #settings: Settings;
  readonly #name: string;
  readonly #namespace: string;
  #isStarted = false;
  #client: Client | undefined;

  constructor(options: SandboxOptions = {}) {
    loadDotenv();
    this.#options = options;
    this.#settings = new Settings(options.serverUrl, options.apiKey);
    this.#name = options.name || newName();
    this.#namespace = options.namespace || "default";
  }

  /** What the server calls it. @internal */
  protected abstract readonly runs: string;

  abstract getDefaultImage(): Promise<string>;

  /** Of a subclass. @internal */
  static async begun<T extends BaseSandbox>(kind: new (options?: SandboxOptions) => T, options?: SandboxOptions): Promise<T> {
    const sandbox = new kind(options);
    try {
      await sandbox.start();
    } catch (error) {
      if (mayBeThere(error)) {
        sandbox.#isStarted = true;
        await sandbox.#stop().catch(() => {});  // that it failed counts more
      }
      throw error;
    }
    return sandbox;
  }

  /** Nothing to do when it is started. What is not said here is as the options of the constructor say. */
  async start(
    image?: string, memory?: number, cpus?: number, timeout?: number, more: StartConfig & CallOptions = {},
  ): Promise<void> {
    if (this.#isStarted) return;
    const options = this.#options;
    const said = { ...options, ...given({ ...more }) } as SandboxOptions;
    const config = given({
      image: image || options.image || await this.getDefaultImage(),
      memory: memory ?? options.memory ?? 512,
      cpus: Math.max(1, Math.round(cpus ?? options.cpus ?? 1)),
      volumes: said.volumes, ports: said.ports, envs: said.envs, depends_on: said.dependsOn, workdir: said.workdir,
      shell: said.shell, scripts: said.scripts, exec: said.exec,
    });
    const patience = (timeout ?? options.timeout ?? 180) + 30;
    try {
      // It may be repeated: one that runs is started already.
      await this.#send("sandbox.start", { config }, "Failed to start sandbox", true, patience, said.signal);
      this.#isStarted = true;
    } finally {
      if (!this.#isStarted) await this.#client?.close();
    }
  }

  /** Nothing to do when it is not started. */
  async stop(options: CallOptions = {}): Promise<void> {
    if (this.#isStarted) await this.#stop(options.signal);
  }

  [asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** Runs code, which finds what code before it left. */
  async run(code: string, { timeout, signal }: { timeout?: number } & CallOptions = {}): Promise<Execution> {
    const params = { language: this.runs, code, ...given({ timeout }) };
    return new Execution(await this.ask("sandbox.repl.run", params, "Failed to execute code", false, signal));
  }

  get command(): LanguageCommand {
    return new LanguageCommand(this);
  }

  get metrics(): LanguageMetrics {
    return new LanguageMetrics(this);
  }

  get isStarted(): boolean {
    return this.#isStarted;
  }

  get serverUrl(): string {
    return this.#settings.url;
  }

  get namespace(): string {
    return this.#namespace;
  }

  get name(): string {
    return this.#name;
  }

  get apiKey(): string | undefined {
    return this.#settings.key ?? undefined;
  }

  async #stop(signal?: AbortSignal): Promise<void> {
    await this.#send("sandbox.stop", {}, "Failed to stop sandbox", true, NO_END, signal);
    this.#isStarted = false;
    await this.#client?.close();
  }

  /** Of one that is started. @internal */
  async ask(method: string, params: object, what: string, repeatable: boolean, signal?: AbortSignal): Promise<OutputData> {
    if (!this.#isStarted) throw new MicrosandboxError("Sandbox is not started. Call start() first.", { code: "conflict" });
    return membersOf(await this.#send(method, params, what, repeatable, repeatable ? PATIENCE : NO_END, signal)) as OutputData;
  }

  async #send(
    method: string, params: object, what: string, repeatable: boolean, patience: number | null, signal?: AbortSignal,
  ): Promise<unknown> {
    const { url: serverUrl, key } = this.#settings;
    this.#client ??= new Client({ serverUrl, apiKey: key ?? undefined, fetch: this.#options.fetch });
    const place = { namespace: this.#namespace, sandbox: this.#name };
    const document = { jsonrpc: "2.0", method, params: { ...place, ...params }, id: randomWord(16) };
    const call: Call<unknown> = {
      method: "POST", path: "/api/v1/rpc", document, repeatable, patience, signal,
      read: reply => resultOf(membersOf(reply.document())),
    };
    try {
      return await this.#client.send(call);
    } catch (error) {
      throw error instanceof MicrosandboxError ? error.prefixed(what) : error;  // in 0.2's words for what failed
    }
  }
}

function resultOf(reply: Members): unknown {
  if (!("result" in reply)) throw new UnexpectedDocument("it has no result");
  return reply.result;
}

/** As 0.2 did: a file .env may say what the environment does not. */
function loadDotenv(): void {
  const process = nodeProcess();
  if (process?.env?.MSB_API_KEY || typeof process?.loadEnvFile !== "function") return;
  try {
    process.loadEnvFile();
  } catch {
    // There is none.
  }
}

/** Runs Python. */
export class PythonSandbox extends BaseSandbox {
  /** @internal */
  protected override readonly runs = "python";

  static create(options?: SandboxOptions): Promise<PythonSandbox> {
    return this.begun(this, options);
  }

  override async getDefaultImage(): Promise<string> {
    return "microsandbox/python";
  }
}

/** Runs JavaScript. */
export class NodeSandbox extends BaseSandbox {
  /** @internal */
  protected override readonly runs = "nodejs";

  static create(options?: SandboxOptions): Promise<NodeSandbox> {
    return this.begun(this, options);
  }

  override async getDefaultImage(): Promise<string> {
    return "microsandbox/node";
  }
}
