// SPDX-License-Identifier: Apache-2.0
// `PythonSandbox` and `NodeSandbox` as microsandbox 0.2 has them, over its JSON-RPC.

import { randomWord } from "./bytes.js";
import { given, NO_END, PATIENCE, type Call, type CallOptions } from "./call.js";
import { Client } from "./client.js";
import { asyncDispose } from "./dispose.js";
import { membersOf, UnexpectedDocument, type Members } from "./document.js";
import { BrokenConnectionError, MicrosandboxError, TimedOutError, UnreachableError } from "./errors.js";
import { CommandExecution, Execution, type OutputData } from "./executions.js";
import { nodeProcess } from "./node.js";
import type { SandboxOptions, StartConfig } from "./options.js";
import { mayBeThere, newName } from "./sandbox.js";
import { Settings } from "./settings.js";

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

  /** Whether it runs. */
  async isRunning(options?: CallOptions): Promise<boolean> {
    return (await this.all(options)).running === true;
  }
}

/** A sandbox for code of one language. What is protected here is what 0.2's has for classes of other languages. */
export abstract class BaseSandbox {
  protected _name: string;
  protected _namespace: string;
  protected _isStarted = false;
  readonly #options: SandboxOptions;
  readonly #settings: Settings;
  #client: Client | undefined;

  constructor(options: SandboxOptions = {}) {
    loadDotenv();
    this.#options = options;
    this.#settings = new Settings(options.serverUrl, options.apiKey);
    this._name = options.name || newName();
    this._namespace = options.namespace || "default";
  }

  protected static async createBase<T extends BaseSandbox>(
    kind: new (options?: SandboxOptions) => T, options?: SandboxOptions,
  ): Promise<T> {
    const sandbox = new kind(options);
    try {
      await sandbox.start(options?.image, options?.memory, options?.cpus, options?.timeout);
    } catch (error) {
      if (mayBeThere(error)) await sandbox.#stop().catch(() => {});  // that it failed counts more
      await sandbox.#client?.close();
      throw error;
    }
    return sandbox;
  }

  /** Makes one and starts it: of a class for one language. */
  static create(_options?: SandboxOptions): Promise<BaseSandbox> {
    throw new MicrosandboxError("BaseSandbox is of no language", { code: "invalid", hint: "use PythonSandbox or NodeSandbox" });
  }

  /** What it is made from unless said. */
  abstract getDefaultImage(): Promise<string>;

  /** Runs code, which finds what code before it left. */
  abstract run(code: string, options?: { timeout?: number } & CallOptions): Promise<Execution>;

  /** Nothing to do when it is started. What is not said here is as the options of the constructor say. */
  async start(
    image?: string, memory?: number, cpus?: number, timeout?: number, more: StartConfig & CallOptions = {},
  ): Promise<void> {
    if (this._isStarted) return;
    const options = this.#options;
    const said = { ...options, ...given({ ...more }) } as SandboxOptions;
    const config = given({
      image: image || options.image || await this.getDefaultImage(),
      memory: memory ?? options.memory ?? 512,
      cpus: Math.max(1, Math.round(cpus ?? options.cpus ?? 1)),
      volumes: said.volumes, ports: said.ports, envs: said.envs, depends_on: said.dependsOn, workdir: said.workdir,
      shell: said.shell, scripts: said.scripts, exec: said.exec,
    });
    const seconds = timeout ?? options.timeout ?? 180;
    try {
      // It may be repeated: one that runs is started already.
      await this.#send("sandbox.start", { config }, true, seconds + 30, said.signal);
      this._isStarted = true;
    } catch (error) {
      if (!(error instanceof TimedOutError) || error.status !== null) throw lifeError(error, "Failed to start sandbox");
      throw error.prefixed(`Timed out waiting for sandbox to start after ${seconds} seconds`);
    } finally {
      if (!this._isStarted) await this.#client?.close();
    }
  }

  /** Nothing to do when it is not started. */
  async stop(options: CallOptions = {}): Promise<void> {
    if (this._isStarted) await this.#stop(options.signal);
  }

  /** Stops it: `await using` calls this when its scope is left. */
  [asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** For commands. */
  get command(): LanguageCommand {
    return new LanguageCommand(this);
  }

  /** What it uses. */
  get metrics(): LanguageMetrics {
    return new LanguageMetrics(this);
  }

  /** Whether it was started, and not stopped. */
  get isStarted(): boolean {
    return this._isStarted;
  }

  /** Where the server is. */
  get serverUrl(): string {
    return this.#settings.url;
  }

  protected get _serverUrl(): string {
    return this.serverUrl;
  }

  /** Where it is. */
  get namespace(): string {
    return this._namespace;
  }

  /** What it is called. */
  get name(): string {
    return this._name;
  }

  /** The key for the server. */
  get apiKey(): string | undefined {
    return this.#settings.key ?? undefined;
  }

  protected get _apiKey(): string | undefined {
    return this.apiKey;
  }

  async #stop(signal?: AbortSignal): Promise<void> {
    try {
      await this.#send("sandbox.stop", {}, true, NO_END, signal);
    } catch (error) {
      throw lifeError(error, "Failed to stop sandbox");
    }
    this._isStarted = false;
    await this.#client?.close();
  }

  /** Of one that is started. @internal */
  async ask(method: string, params: object, what: string, repeatable: boolean, signal?: AbortSignal): Promise<OutputData> {
    if (!this._isStarted) throw new MicrosandboxError("Sandbox is not started. Call start() first.", { code: "conflict" });
    try {
      return membersOf(await this.#send(method, params, repeatable, repeatable ? PATIENCE : NO_END, signal)) as OutputData;
    } catch (error) {
      throw inWords(error, what);
    }
  }

  async #send(
    method: string, params: object, repeatable: boolean, patience: number | null, signal?: AbortSignal,
  ): Promise<unknown> {
    const { url: serverUrl, key } = this.#settings;
    this.#client ??= new Client({ serverUrl, apiKey: key ?? undefined, fetch: this.#options.fetch });
    const place = { namespace: this._namespace, sandbox: this._name };
    const document = { jsonrpc: "2.0", method, params: { ...place, ...params }, id: randomWord(16) };
    const call: Call<unknown> = {
      method: "POST", path: "/api/v1/rpc", document, repeatable, patience, signal,
      read: reply => resultOf(membersOf(reply.document())),
    };
    return this.#client.send(call);
  }
}

function resultOf(reply: Members): unknown {
  if (!("result" in reply)) throw new UnexpectedDocument("it has no result");
  return reply.result;
}

/** In 0.2's words for what failed. */
function inWords(error: unknown, what: string): unknown {
  return error instanceof MicrosandboxError ? error.prefixed(what) : error;
}

/** The same of starting and stopping, for which it has others where there was no answer. */
function lifeError(error: unknown, what: string): unknown {
  const lost = error instanceof UnreachableError || error instanceof BrokenConnectionError;
  return inWords(error, lost ? "Failed to communicate with Microsandbox server" : what);
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

const IMAGES = { python: "microsandbox/python", nodejs: "microsandbox/node" };

/** Of a language that the server's JSON-RPC runs. */
abstract class LanguageSandbox extends BaseSandbox {
  readonly #language: keyof typeof IMAGES;

  constructor(language: keyof typeof IMAGES, options?: SandboxOptions) {
    super(options);
    this.#language = language;
  }

  /** What it is made from unless said. */
  override async getDefaultImage(): Promise<string> {
    return IMAGES[this.#language];
  }

  /** Runs code, which finds what code before it left. */
  override async run(code: string, { timeout, signal }: { timeout?: number } & CallOptions = {}): Promise<Execution> {
    const params = { language: this.#language, code, ...given({ timeout }) };
    return new Execution(await this.ask("sandbox.repl.run", params, "Failed to execute code", false, signal));
  }
}

/** Runs Python. */
export class PythonSandbox extends LanguageSandbox {
  constructor(options?: SandboxOptions) {
    super("python", options);
  }

  /** Makes one and starts it. */
  static override create(options?: SandboxOptions): Promise<PythonSandbox> {
    return BaseSandbox.createBase(PythonSandbox, options);
  }
}

/** Runs JavaScript. */
export class NodeSandbox extends LanguageSandbox {
  constructor(options?: SandboxOptions) {
    super("nodejs", options);
  }

  /** Makes one and starts it. */
  static override create(options?: SandboxOptions): Promise<NodeSandbox> {
    return BaseSandbox.createBase(NodeSandbox, options);
  }
}
