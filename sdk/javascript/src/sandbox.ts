// SPDX-License-Identifier: Apache-2.0
// A sandbox of any image.

import { randomWord } from "./bytes.js";
import { given, NO_END, nothing, pathOf, type Call, type CallOptions } from "./call.js";
import { Client, type ConnectionOptions } from "./client.js";
import { Command, envWords, type Envs } from "./command.js";
import { asyncDispose } from "./dispose.js";
import { list, membersOf, nullable, text, type Members } from "./document.js";
import { MicrosandboxError, NotFoundError } from "./errors.js";
import { Files } from "./files.js";
import { Result } from "./results.js";
import { CodeStream, LogStream } from "./streams.js";
import {
  metricsOf, portOf, sandboxInfoOf, sessionInfoOf, type Port, type SandboxInfo, type SandboxMetrics, type SandboxState,
  type SessionInfo,
} from "./types.js";

const PAGE = 100;
/** Seconds. A start may have to pull an image: what the 0.2 line waited, and then some. */
const STARTING = 180 + 30;

/** Where a sandbox is: a server, or a client that is shared, which then counts. */
export interface PlaceOptions extends ConnectionOptions, CallOptions {
  /** Connections that are shared. */
  client?: Client;
  /** That of the key, or "default", unless said. */
  namespace?: string;
}

/** What a sandbox is to be. */
export interface CreateOptions extends PlaceOptions {
  /** One without is ephemeral unless said. */
  name?: string;
  /** By which lists find it. */
  labels?: Readonly<Record<string, string>>;
  /** Nothing is left of it when it has ended. */
  ephemeral?: boolean;
  /** Processors. */
  cpus?: number;
  /** MiB, or with a unit: "1G". */
  memory?: number | string;
  /** What it may write: MiB, or with a unit. */
  disk?: number | string;
  /** The most that it may have. */
  processes?: number;
  /** "HOST:GUEST". */
  volumes?: readonly string[];
  /** A number is published where there is room; or "HOST:GUEST". */
  ports?: readonly (number | string)[];
  /** Variables of its environment. */
  envs?: Envs;
  /** The directory in which programs begin: an absolute path. */
  workdir?: string;
  /** Whose they are: USER or USER:GROUP, by names or numbers. */
  user?: string;
  /** The shell of its scripts. */
  shell?: string;
  /** Scripts by their names. */
  scripts?: Readonly<Record<string, string>>;
  /** What runs in it, for its shell; or as words; or that of its image. It idles unless one of these is said. */
  exec?: string;
  /** The same as words. */
  command?: readonly string[];
  /** That of its image runs. */
  useImageCommand?: boolean;
  /** What it may reach on the network. */
  scope?: "none" | "local" | "public" | "any";
  /** Rules that decide before the scope does: "allow tcp 10.0.0.5 443", "deny tcp any 25". */
  network?: readonly string[];
  /** When the server stops it: seconds, or with a unit: "30m". */
  timeout?: number | string;
  /** The same of a time without use. */
  idleTimeout?: number | string;
  /** Seconds to wait for it to run. */
  startTimeout?: number;
}

/** Which sandboxes are listed. */
export interface ListOptions extends PlaceOptions {
  /** Only those that have all of these. */
  labels?: Readonly<Record<string, string>>;
  /** Only those that are so. */
  state?: SandboxState;
}

/** How code runs. */
export interface RunOptions extends CallOptions {
  /** "python" unless said, "javascript" or "shell". */
  language?: string;
  /** Tells several interpreters of a language apart; "main" unless said. */
  session?: string;
  /** Seconds after which it is interrupted. */
  timeout?: number;
}

/** Which interpreter is meant. */
export type SessionOptions = Pick<RunOptions, "language" | "session" | "signal">;

export function newName(): string {
  return `sandbox-${randomWord(4)}`;
}

/** Whether the server may go on with a start that ended so here: it does when its client has gone. */
export function mayBeThere(error: unknown): boolean {
  return !(error instanceof MicrosandboxError) || (error.status === null && ["broken", "timeout"].includes(error.code));
}

function configOf(image: string, options: CreateOptions): Record<string, unknown> {
  return given({
    image, cpus: options.cpus, memory: options.memory, disk: options.disk, processes: options.processes,
    volumes: options.volumes, ports: options.ports?.map(port => (typeof port === "number" ? `0:${port}` : port)),
    envs: envWords(options.envs), workdir: options.workdir, user: options.user, shell: options.shell,
    scripts: options.scripts, exec: options.exec, command: options.command, use_image_command: options.useImageCommand,
    scope: options.scope, network: options.network, timeout: options.timeout, idle_timeout: options.idleTimeout,
  });
}

/** A sandbox on a server. */
export class Sandbox {
  /** Commands and processes. */
  readonly command: Command;
  /** Its files. */
  readonly files: Files;
  readonly #client: Client;
  readonly #owned: boolean;  // it stops when its scope is left
  readonly #shared: boolean;  // the client is another's
  #info: SandboxInfo;

  private constructor(client: Client, info: SandboxInfo, owned: boolean, shared: boolean) {
    this.#client = client;
    this.#info = info;
    this.#owned = owned;
    this.#shared = shared;
    this.command = new Command(client, info.name, info.namespace);
    this.files = new Files(client, info.name, info.namespace);
  }

  /**
   * Makes a sandbox and starts it. `await using sandbox = await Sandbox.create("python")` stops it when its scope is left.
   */
  static async create(image = "python", options: CreateOptions = {}): Promise<Sandbox> {
    const { name, namespace, labels, ephemeral, startTimeout, signal } = options;
    const client = options.client ?? new Client(options);
    const called = name ?? newName();
    try {
      const info = await client.send({
        method: "POST", path: "/v1/sandboxes", query: { namespace },
        document: given({
          name: called, labels, ephemeral: ephemeral ?? name === undefined, config: configOf(image, options),
        }),
        // With a key of its own it may be repeated: the server makes one sandbox of all attempts.
        headers: { "Idempotency-Key": randomWord(16) }, repeatable: true,
        patience: startTimeout ?? STARTING, signal, read: infoFrom,
      });
      return new Sandbox(client, info, true, options.client !== undefined);
    } catch (error) {
      if (name === undefined && mayBeThere(error)) {
        await client.send(removing(called, namespace)).catch(() => {});  // that it failed counts more
      }
      if (options.client === undefined) await client.close();
      throw error;
    }
  }

  /** One that is there. It goes on when the scope of this object is left. */
  static async connect(name: string, options: PlaceOptions = {}): Promise<Sandbox> {
    const client = options.client ?? new Client(options);
    try {
      const query = { namespace: options.namespace };
      const info = await client.send(
        { method: "GET", path: pathOf(name), query, read: infoFrom, repeatable: true, signal: options.signal });
      return new Sandbox(client, info, false, options.client !== undefined);
    } catch (error) {
      if (options.client === undefined) await client.close();
      throw error;
    }
  }

  /** Those that have all these labels, and are in that state; of namespace "*": all that the key may see. */
  static async *list(options: ListOptions = {}): AsyncGenerator<SandboxInfo, void, undefined> {
    const client = options.client ?? new Client(options);
    const { namespace, state, signal } = options;
    const label = Object.entries(options.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(",") || undefined;
    try {
      let cursor: string | null = null;
      do {
        const page: Page = await client.send({
          method: "GET", path: "/v1/sandboxes", query: { namespace, label, state, limit: PAGE, cursor }, repeatable: true, signal,
          read: reply => pageOf(membersOf(reply.document())),
        });
        yield* page.sandboxes;
        ({ cursor } = page);
      } while (cursor !== null);
    } finally {
      if (options.client === undefined) await client.close();
    }
  }

  /** What it is called. */
  get name(): string {
    return this.#info.name;
  }

  /** Where it is. */
  get namespace(): string {
    return this.#info.namespace;
  }

  /** As it was when the server was asked last. */
  get info(): SandboxInfo {
    return this.#info;
  }

  /** Lets go of the connections; the sandbox goes on. */
  async close(): Promise<void> {
    if (!this.#shared) await this.#client.close();
  }

  /** `await using` calls this when its scope is left: one that was created is stopped. */
  async [asyncDispose](): Promise<void> {
    try {
      if (this.#owned) await this.stop();
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error;  // it ended by itself, and was ephemeral
    } finally {
      await this.close();
    }
  }

  // Its life.

  /** Asks the server how it is. */
  async refresh(options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#become({ method: "GET", ...options });
  }

  /** Nothing to do when it runs. */
  async start(options: CallOptions = {}): Promise<void> {
    await this.#become({ method: "POST", patience: STARTING, ...options }, "start");
  }

  /** In good order, and waits for its end; `atOnce`: kills it. */
  async stop({ atOnce = false, signal }: { atOnce?: boolean } & CallOptions = {}): Promise<void> {
    await this.#become({ method: "POST", document: { at_once: atOnce }, signal }, "stop");
  }

  /** Nothing in it goes on. */
  async pause(options: CallOptions = {}): Promise<void> {
    await this.#become({ method: "POST", ...options }, "pause");
  }

  /** After a pause. */
  async resume(options: CallOptions = {}): Promise<void> {
    await this.#become({ method: "POST", ...options }, "resume");
  }

  /** Stops it at once, and removes all that it has kept. */
  async remove({ signal }: CallOptions = {}): Promise<void> {
    await this.#client.send({ ...removing(this.name, this.namespace), signal });
  }

  // Code.

  /**
   * Runs code in an interpreter, which keeps its state. Code whose time is over is interrupted: its result has the status
   * "timeout".
   */
  async run(code: string, options: RunOptions = {}): Promise<Result> {
    const { language = "python", signal } = options;
    return this.#send({
      method: "POST", document: codeOf(code, options), patience: NO_END, signal,
      read: reply => Result.of(language, membersOf(reply.document())),
    }, "code");
  }

  /** The same, with what it gives while it runs. */
  stream(code: string, options: RunOptions = {}): CodeStream {
    const { language = "python", signal } = options;
    return new CodeStream(this.#client, this.name, this.namespace, language, codeOf(code, options), signal);
  }

  /** The interpreters that keep their state. */
  async sessions({ signal }: CallOptions = {}): Promise<SessionInfo[]> {
    const read: Call<SessionInfo[]>["read"] = reply => list(membersOf(reply.document()), "sessions", sessionInfoOf);
    return this.#send({ method: "GET", read, repeatable: true, signal }, "sessions");
  }

  /** Code that runs in a session. */
  async interrupt({ language = "python", session = "main", signal }: SessionOptions = {}): Promise<void> {
    await this.#send({ method: "POST", read: nothing, signal }, "sessions", language, session, "interrupt");
  }

  /** Ends it, with its state. */
  async closeSession({ language = "python", session = "main", signal }: SessionOptions = {}): Promise<void> {
    await this.#send({ method: "DELETE", read: nothing, repeatable: true, signal }, "sessions", language, session);
  }

  // What it has.

  /** Where its ports are published; none when it does not run. */
  async ports({ signal }: CallOptions = {}): Promise<Port[]> {
    const read: Call<Port[]>["read"] = reply => list(membersOf(reply.document()), "ports", portOf);
    return this.#send({ method: "GET", read, repeatable: true, signal }, "ports");
  }

  /** Where programs of the server's host reach a port that it publishes. */
  async url(port: number, options: CallOptions = {}): Promise<string> {
    const found = (await this.ports(options)).find(one => one.guestPort === port && one.url !== null);
    if (found?.url) return found.url;
    throw new NotFoundError(`the sandbox '${this.name}' does not publish port ${port}`, {
      code: "not_found", hint: `create it with ports: [${port}], and see that it runs`,
    });
  }

  /** Where browsers of the server's host do, as an origin of its own. */
  appUrl(port: number): string {
    return this.#client.settings.appUrl(this.name, this.namespace, port);
  }

  /** What it uses. */
  async metrics({ signal }: CallOptions = {}): Promise<SandboxMetrics> {
    const read: Call<SandboxMetrics>["read"] = reply => metricsOf(membersOf(reply.document()));
    return this.#send({ method: "GET", read, repeatable: true, signal }, "metrics");
  }

  /** What its command wrote, line by line; with `follow` until it has ended. */
  logs({ tail, follow = false, signal }: { tail?: number; follow?: boolean } & CallOptions = {}): LogStream {
    return new LogStream(this.#client, this.name, this.namespace, tail, follow, signal);
  }

  #send<T>(call: Omit<Call<T>, "path" | "query">, ...rest: string[]): Promise<T> {
    return this.#client.send({ ...call, path: pathOf(this.name, ...rest), query: { namespace: this.namespace } });
  }

  async #become(
    call: Omit<Call<SandboxInfo>, "path" | "query" | "read" | "repeatable">, ...rest: string[]
  ): Promise<SandboxInfo> {
    return this.#info = await this.#send({ ...call, read: infoFrom, repeatable: true }, ...rest);
  }
}

const infoFrom: Call<SandboxInfo>["read"] = reply => sandboxInfoOf(membersOf(reply.document()));

function removing(name: string, namespace: string | undefined): Call<void> {
  return { method: "DELETE", path: pathOf(name), query: { namespace }, read: nothing, repeatable: true };
}

function codeOf(code: string, { language = "python", session, timeout }: RunOptions): Record<string, unknown> {
  return given({ language, code, session, timeout });
}

interface Page {
  readonly sandboxes: SandboxInfo[];
  readonly cursor: string | null;
}

function pageOf(from: Members): Page {
  return { sandboxes: list(from, "sandboxes", sandboxInfoOf), cursor: nullable(text, from, "next_cursor") };
}
