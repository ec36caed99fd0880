// SPDX-License-Identifier: Apache-2.0
// Commands and processes of a sandbox.

import { encoded, toBase64 } from "./bytes.js";
import { given, NO_END, nothing, pathOf, type Call, type CallOptions } from "./call.js";
import type { Client } from "./client.js";
import { list, membersOf, number } from "./document.js";
import { InvalidRequestError } from "./errors.js";
import { CommandResult } from "./results.js";
import { CommandStream, ProcessStream } from "./streams.js";
import { exitOf, processInfoOf, type Exit, type ProcessInfo } from "./types.js";

/** NAME=VALUE, as an object or as such words. */
export type Envs = Readonly<Record<string, string>> | readonly string[];

export function envWords(envs: Envs | undefined): string[] | undefined {
  if (envs === undefined) return undefined;
  return isWords(envs) ? [...envs] : Object.entries(envs).map(([name, value]) => `${name}=${value}`);
}

const isWords = (envs: Envs): envs is readonly string[] => Array.isArray(envs);

/** How a program runs. */
export interface ExecutionOptions extends CallOptions {
  /** Besides the sandbox's own. */
  envs?: Envs;
  /** An absolute path; the sandbox's own unless said. */
  workdir?: string;
  /** USER or USER:GROUP, by names or numbers; the sandbox's own unless said. */
  user?: string;
  /** Seconds after which it is killed. */
  timeout?: number;
}

/** How a command runs to its end. */
export interface CommandOptions extends ExecutionOptions {
  /** Its standard input; empty unless said. */
  stdin?: string | Uint8Array;
}

/** How a process starts in the background. */
export interface StartOptions extends ExecutionOptions {
  /** `Process.write()` writes to it; else its standard input is empty. */
  input?: boolean;
  /** Its streams are a terminal of this size: all its output is stdout, and it has input. */
  terminal?: {
    /** Lines. */
    rows: number;
    /** Characters of a line. */
    columns: number;
  };
  /** What lists call it. */
  label?: string;
  /** Bytes of each output that stay readable; 1 MiB unless said. */
  keep?: number;
}

function execution(command: string, args: readonly string[], options: ExecutionOptions): Record<string, unknown> {
  if (typeof args === "string") {
    throw new InvalidRequestError(`the arguments are an array of words, like ["${args}"]`, { code: "invalid" });
  }
  return given({
    command: [command, ...args], envs: envWords(options.envs), workdir: options.workdir, user: options.user,
    timeout: options.timeout,
  });
}

function toItsEnd(command: string, args: readonly string[], options: CommandOptions): Record<string, unknown> {
  const { stdin } = options;
  const input = typeof stdin === "string" ? { stdin } : stdin && { stdin_base64: toBase64(stdin) };
  return { ...execution(command, args, options), ...input };
}

/** A process that goes on until it ends or is removed, whoever is connected. */
export class Process {
  readonly #client: Client;
  readonly #name: string;
  readonly #namespace: string;

  /** @internal */
  constructor(
    client: Client, name: string, namespace: string,
    /** What `command.attach()` takes. */
    readonly id: number,
    /** As programs in the sandbox see it. */
    readonly pid: number,
  ) {
    this.#client = client;
    this.#name = name;
    this.#namespace = namespace;
  }

  /** How it is. */
  async info({ signal }: CallOptions = {}): Promise<ProcessInfo> {
    return this.#send({ method: "GET", read: reply => processInfoOf(membersOf(reply.document())), repeatable: true, signal });
  }

  /** What it wrote from these offsets on, and what it writes until its end; with `follow: false` what there is by now. */
  output(options: { stdout?: number; stderr?: number; follow?: boolean } & CallOptions = {}): ProcessStream {
    const { stdout = 0, stderr = 0, follow = true, signal } = options;
    return new ProcessStream(this.#client, this.#name, this.#namespace, this.id, { stdout, stderr }, follow, signal);
  }

  /** To its standard input, which `end` closes. It waits while the process does not read. */
  async write(data: string | Uint8Array, { end, signal }: { end?: boolean } & CallOptions = {}): Promise<void> {
    const content = typeof data === "string" ? encoded(data) : data;
    const query = { end: end || undefined };
    await this.#send({ method: "POST", query, content: () => content, read: nothing, patience: NO_END, signal }, "stdin");
  }

  /** Its standard input is at its end. */
  async closeInput(options: CallOptions = {}): Promise<void> {
    await this.write("", { ...options, end: true });
  }

  /** For its end. Throws a TimedOutError when it goes on for more than `timeout` seconds. */
  async wait({ timeout, signal }: { timeout?: number } & CallOptions = {}): Promise<Exit> {
    const read: Call<Exit>["read"] = reply => exitOf(membersOf(reply.document()));
    return this.#send({ method: "GET", read, repeatable: true, patience: timeout ?? NO_END, signal }, "wait");
  }

  /** "TERM", "SIGTERM" or 15; `group`: to its whole process group. */
  async signal(word: string | number, { group, signal }: { group?: boolean } & CallOptions = {}): Promise<void> {
    await this.#send({ method: "POST", document: given({ signal: word, group }), read: nothing, signal }, "signal");
  }

  /** With its group; it stays known. */
  async kill(options: CallOptions = {}): Promise<void> {
    await this.signal("KILL", { ...options, group: true });
  }

  /** Its terminal. */
  async resize(rows: number, columns: number, { signal }: CallOptions = {}): Promise<void> {
    await this.#send({ method: "POST", document: { rows, columns }, read: nothing, repeatable: true, signal }, "resize");
  }

  /** Kills it, with its group, and forgets it. */
  async remove({ signal }: CallOptions = {}): Promise<void> {
    await this.#send({ method: "DELETE", read: nothing, repeatable: true, signal });
  }

  #send<T>(call: Omit<Call<T>, "path">, ...rest: string[]): Promise<T> {
    const query = { namespace: this.#namespace, ...call.query };
    return this.#client.send({ ...call, path: pathOf(this.#name, "processes", this.id, ...rest), query });
  }
}

/** `sandbox.command`. */
export class Command {
  readonly #client: Client;
  readonly #name: string;
  readonly #namespace: string;

  /** @internal */
  constructor(client: Client, name: string, namespace: string) {
    this.#client = client;
    this.#name = name;
    this.#namespace = namespace;
  }

  /** Runs it to its end. One whose time is over is killed: its result says `timedOut`. */
  async run(command: string, args: readonly string[] = [], options: CommandOptions = {}): Promise<CommandResult> {
    return this.#client.send({
      method: "POST", path: pathOf(this.#name, "exec"), query: { namespace: this.#namespace },
      document: toItsEnd(command, args, options), patience: NO_END, signal: options.signal,
      read: reply => new CommandResult(command, [...args], membersOf(reply.document())),
    });
  }

  /** The same, with what it writes while it runs. */
  stream(command: string, args: readonly string[] = [], options: CommandOptions = {}): CommandStream {
    const document = toItsEnd(command, args, options);
    return new CommandStream(this.#client, this.#name, this.#namespace, document, options.signal);
  }

  /** Starts it in the background. */
  async start(command: string, args: readonly string[] = [], options: StartOptions = {}): Promise<Process> {
    const { input, terminal, label, keep, signal } = options;
    return this.#client.send({
      method: "POST", path: pathOf(this.#name, "processes"), query: { namespace: this.#namespace },
      document: { ...execution(command, args, options), ...given({ input: input || undefined, terminal, label, keep }) }, signal,
      read: reply => {
        const started = membersOf(reply.document());
        return new Process(this.#client, this.#name, this.#namespace, number(started, "id"), number(started, "pid"));
      },
    });
  }

  /** Processes that were started from outside. */
  async list({ signal }: CallOptions = {}): Promise<ProcessInfo[]> {
    return this.#client.send({
      method: "GET", path: pathOf(this.#name, "processes"), query: { namespace: this.#namespace }, repeatable: true, signal,
      read: reply => list(membersOf(reply.document()), "processes", processInfoOf),
    });
  }

  /** A process that was started before, by whomever. */
  async attach(id: number, { signal }: CallOptions = {}): Promise<Process> {
    const info = await this.#client.send({
      method: "GET", path: pathOf(this.#name, "processes", id), query: { namespace: this.#namespace }, repeatable: true, signal,
      read: reply => processInfoOf(membersOf(reply.document())),
    });
    return new Process(this.#client, this.#name, this.#namespace, info.id, info.pid);
  }
}
