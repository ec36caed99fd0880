// SPDX-License-Identifier: Apache-2.0
// Answers that come event by event: lines of JSON, read as they come.

import { onAbort } from "./abort.js";
import { decoded, joined } from "./bytes.js";
import { NO_END, nothing, pathOf, RESUMPTION, trouble, type Call } from "./call.js";
import type { Client } from "./client.js";
import { asyncDispose } from "./dispose.js";
import { membersOf, number, object, text, UnexpectedDocument, type Members } from "./document.js";
import {
  BrokenConnectionError, DetachedError, errorOf, MicrosandboxError, NotUnderstoodError, UnavailableError,
} from "./errors.js";
import { Failure } from "./failure.js";
import { codeOutputOf, Result, type CodeOutput } from "./results.js";
import {
  exitOf, logLineOf, lostOf, outputOf, type Exit, type LogLine, type Lost, type Output, type StreamOffsets,
} from "./types.js";

/** Bytes: more than the server makes of what a sandbox shows. */
const LONGEST_LINE = 64 * 1024 * 1024;
/** Of one stream, one after the other, without anything that came. */
const MOST_BREAKS = 5;

/** Bytes of one answer go in, in any pieces; documents come out. */
export class Lines {
  #rest: Uint8Array[] = [];
  #size = 0;

  constructor(private readonly longest = LONGEST_LINE) {}

  feed(piece: Uint8Array): string[] {
    const lines: string[] = [];
    let from = 0;
    for (let to = piece.indexOf(10); to >= 0; to = piece.indexOf(10, from)) {
      lines.push(decoded(joined([...this.#rest, piece.subarray(from, to)])));
      this.#rest = [];
      this.#size = 0;
      from = to + 1;
    }
    this.#rest.push(piece.subarray(from));
    this.#size += piece.length - from;
    if (this.#size > this.longest) {
      throw new NotUnderstoodError("a line of the stream is longer than any that a server sends", { code: "not_understood" });
    }
    return lines;
  }
}

/** Events of an answer, while they come. Leaving a loop over it closes it, as close() and `await using` do. */
export abstract class EventStream<E> implements AsyncIterable<E> {
  /** @internal */
  protected done = false;
  readonly #client: Client;
  readonly #signal: AbortSignal | undefined;
  readonly #closing = new AbortController();
  #events: AsyncGenerator<E, void, undefined> | undefined;

  /** @internal */
  constructor(client: Client, signal: AbortSignal | undefined) {
    this.#client = client;
    this.#signal = signal;
  }

  /** What asks for it, or for the rest of it. @internal */
  protected abstract call(): Call<unknown>;

  /** What is told of an event; null: nothing. Sets `done` at the last one. @internal */
  protected abstract event(kind: string, from: Members): E | null;

  /** Whether call() asks for the rest of one that this broke off. @internal */
  protected resumes(_: MicrosandboxError): boolean {
    return false;
  }

  /** Its events, once. */
  [Symbol.asyncIterator](): AsyncGenerator<E, void, undefined> {
    return this.#events ??= this.#read();
  }

  /** Ends it; what waits for its next event is told that there is none. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#events?.return();
  }

  /** Closes it: `await using` calls this. */
  [asyncDispose](): Promise<void> {
    return this.close();
  }

  async *#read(): AsyncGenerator<E, void, undefined> {
    const closing = this.#closing;
    this.#signal?.throwIfAborted();
    const forget = onAbort(this.#signal, () => closing.abort(this.#signal!.reason));
    try {
      let resumed = false;
      while (yield* this.#answer(resumed)) resumed = true;
    } catch (error) {
      if (this.#signal?.aborted) throw this.#signal.reason;
      if (!closing.signal.aborted) throw error;
    } finally {
      forget();
    }
  }

  /** Of one answer. Gives whether the rest has to be asked for. */
  async *#answer(resumed: boolean): AsyncGenerator<E, boolean, undefined> {
    const call = { ...this.call(), signal: this.#closing.signal };
    const answer = await this.#client.open(call, resumed ? RESUMPTION : undefined);
    try {
      const lines = new Lines();
      for await (const piece of answer.pieces()) {
        for (const line of lines.feed(piece)) {
          const event = this.#line(line);
          if (event !== null) yield event;
        }
      }
      if (this.done) return false;
      throw new BrokenConnectionError("the stream ended before its last event", { code: "broken" });
    } catch (thrown) {
      const error = thrown instanceof Failure ? trouble(thrown, call, this.#client.settings.url) : thrown;
      if (!(error instanceof MicrosandboxError) || !this.resumes(error)) throw error;
      this.done = false;
      return true;
    } finally {
      answer.close();
    }
  }

  #line(line: string): E | null {
    if (!line.trim() || this.done) return null;
    try {
      const document = membersOf(parsed(line));
      const kind = text(document, "event");
      if (kind !== "failed") return this.event(kind, document);
      this.done = true;
      const error = object(document, "error");
      throw errorOf(text(error, "message"), {
        code: text(error, "code"),
        number: typeof error.number === "number" ? error.number : null,
        requestId: typeof error.request_id === "string" ? error.request_id : null,
      });
    } catch (error) {
      if (!(error instanceof UnexpectedDocument)) throw error;
      throw new NotUnderstoodError(`the stream has a line that is no event: '${line.slice(0, 200)}'`,
        { code: "not_understood", cause: error });
    }
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new UnexpectedDocument("it is no JSON");
  }
}

type Options = Pick<Call<unknown>, "query" | "document" | "repeatable">;

function accepting(method: "GET" | "POST", path: string, options: Options): Call<unknown> {
  return { method, path, headers: { Accept: "application/x-ndjson" }, patience: NO_END, read: nothing, ...options };
}

/** What code gives, while it runs. When this is closed before its end, the code is interrupted. */
export class CodeStream extends EventStream<CodeOutput> {
  readonly #call: Call<unknown>;
  readonly #language: string;
  readonly #outputs: CodeOutput[] = [];
  #result: Result | null = null;

  /** @internal */
  constructor(client: Client, name: string, namespace: string, language: string, document: unknown, signal?: AbortSignal) {
    super(client, signal);
    this.#call = accepting("POST", pathOf(name, "code"), { query: { namespace }, document });
    this.#language = language;
  }

  /** Of all of it, once it has ended. */
  get result(): Result | null {
    return this.#result;
  }

  /** @internal */
  protected override call(): Call<unknown> {
    return this.#call;
  }

  /** @internal */
  protected override event(kind: string, from: Members): CodeOutput | null {
    if (kind === "done") {
      this.#result = Result.of(this.#language, from, this.#outputs);
      this.done = true;
      return null;
    }
    if (!["stream", "display", "result", "error"].includes(kind)) return null;  // of a newer server
    const output = codeOutputOf(kind, from);
    this.#outputs.push(output);
    return output;
  }
}

/** What a command writes, while it runs. When this is closed before its end, the command is killed. */
export class CommandStream extends EventStream<Output> {
  readonly #call: Call<unknown>;
  #id: number | null = null;
  #pid: number | null = null;
  #exit: Exit | null = null;

  /** @internal */
  constructor(client: Client, name: string, namespace: string, document: unknown, signal?: AbortSignal) {
    super(client, signal);
    this.#call = accepting("POST", pathOf(name, "exec"), { query: { namespace }, document });
  }

  /** What lists of processes call it, once it runs. */
  get id(): number | null {
    return this.#id;
  }

  /** As programs in the sandbox see it, once it runs. */
  get pid(): number | null {
    return this.#pid;
  }

  /** How it ended, once it has. */
  get exit(): Exit | null {
    return this.#exit;
  }

  /** @internal */
  protected override call(): Call<unknown> {
    return this.#call;
  }

  /** @internal */
  protected override event(kind: string, from: Members): Output | null {
    if (kind === "output") return outputOf(from);
    if (kind === "started") {
      this.#id = number(from, "id");
      this.#pid = number(from, "pid");
    } else if (kind === "exited") {
      this.#exit = exitOf(from);
      this.done = true;
    }
    return null;
  }
}

/** What a process writes. It goes on over broken connections; closing it changes nothing about the process. */
export class ProcessStream extends EventStream<Output | Lost> {
  readonly #path: string;
  readonly #query: { namespace: string; follow: boolean };
  #offsets: StreamOffsets;
  #breaks = 0;
  #exit: Exit | null = null;

  /** @internal */
  constructor(client: Client, name: string, namespace: string, process: number, from: StreamOffsets, follow: boolean,
    signal?: AbortSignal) {
    super(client, signal);
    this.#path = pathOf(name, "processes", process, "output");
    this.#query = { namespace, follow };
    this.#offsets = from;
  }

  /** How it ended, once it has. */
  get exit(): Exit | null {
    return this.#exit;
  }

  /** Where each stream goes on: what `Process.output()` takes. */
  get offsets(): StreamOffsets {
    return this.#offsets;
  }

  /** @internal */
  protected override call(): Call<unknown> {
    return accepting("GET", this.#path, { query: { ...this.#query, ...this.#offsets }, repeatable: true });
  }

  /** @internal */
  protected override resumes(error: MicrosandboxError): boolean {
    if (!(error instanceof BrokenConnectionError || error instanceof UnavailableError)) return false;
    return ++this.#breaks <= MOST_BREAKS;
  }

  /** @internal */
  protected override event(kind: string, from: Members): Output | Lost | null {
    switch (kind) {
      case "output":
      case "lost": {
        const event = kind === "output" ? outputOf(from) : lostOf(from);
        this.#offsets = { ...this.#offsets, [event.stream]: event.next };
        this.#breaks = 0;
        return event;
      }
      case "exited":
        this.#exit = exitOf(from);
        this.done = true;
        return null;
      case "running":
        this.done = true;
        return null;
      case "detached":
        this.done = true;
        throw new DetachedError("somebody else follows the process now", {
          code: "detached",
          hint: `its output goes on at offset ${this.#offsets.stdout} of stdout and ${this.#offsets.stderr} of stderr`,
        });
      default:
        return null;
    }
  }
}

/** Lines of a sandbox's log. */
export class LogStream extends EventStream<LogLine> {
  readonly #call: Call<unknown>;

  /** @internal */
  constructor(client: Client, name: string, namespace: string, tail: number | undefined, follow: boolean, signal?: AbortSignal) {
    super(client, signal);
    this.#call = accepting("GET", pathOf(name, "logs"), { query: { namespace, tail, follow }, repeatable: true });
  }

  /** @internal */
  protected override call(): Call<unknown> {
    return this.#call;
  }

  /** @internal */
  protected override event(kind: string, from: Members): LogLine | null {
    if (kind === "end") this.done = true;
    return kind === "log" ? logLineOf(from) : null;
  }
}
