// SPDX-License-Identifier: Apache-2.0
// What code and commands gave.

import { encoded, fromBase64 } from "./bytes.js";
import { flag, list, nullable, number, text, texts, UnexpectedDocument, type Members } from "./document.js";
import { CodeError, CommandError } from "./errors.js";
import { exitOf, streamOf, type Exit } from "./types.js";

/** What code wrote. */
export interface Text {
  /** What tells outputs apart. */
  readonly type: "text";
  /** Where to. */
  readonly stream: "stdout" | "stderr";
  /** As it came, in pieces of any size. */
  readonly text: string;
}

/** What code showed ("display"), or the value of its last expression ("result"). */
export class Value {
  /** @internal */
  constructor(
    /** Which of the two. */
    readonly type: "display" | "result",
    /** Representations by MIME type; what is binary in base64. What a sandbox made is a stranger's: show HTML in frames. */
    readonly data: Readonly<Record<string, string>>,
  ) {}

  /** As the interpreter would print it. */
  get text(): string {
    return this.data["text/plain"] ?? "";
  }

  /** A representation: `bytes("image/png")`; null when there is none. */
  bytes(mime: string): Uint8Array | null {
    const said = Object.hasOwn(this.data, mime) ? this.data[mime]! : null;
    if (said === null) return null;
    const isText = mime.startsWith("text/") || mime === "image/svg+xml" || mime === "application/json";
    return isText ? encoded(said) : fromBase64(said);
  }
}

/** What ended code. */
export interface CodeFailure {
  /** What tells outputs apart. */
  readonly type: "error";
  /** Of the error's type: "ValueError". */
  readonly name: string;
  /** What the error says. */
  readonly message: string;
  /** Where it came from, line by line. */
  readonly traceback: readonly string[];
}

/** One thing that code gave. */
export type CodeOutput = Text | Value | CodeFailure;

export function codeOutputOf(kind: string, from: Members): CodeOutput {
  switch (kind) {
    case "stream":
      return { type: "text", stream: streamOf(from), text: text(from, "text") };
    case "display":
    case "result":
      return new Value(kind, texts(from, "data"));
    case "error":
      return { type: "error", name: text(from, "name"), message: text(from, "message"), traceback: tracebackOf(from) };
    default:
      throw new UnexpectedDocument(`'${kind}' is no output of code`);
  }
}

function tracebackOf({ traceback }: Members): string[] {
  if (!Array.isArray(traceback)) throw new UnexpectedDocument("there is no traceback");
  return traceback.map(String);
}

/**
 * "stuck": it did not end when it was interrupted; "ended": the interpreter did, with it.
 */
export type CodeStatus = "ok" | "error" | "timeout" | "interrupted" | "stuck" | "ended";

/** What code gave. */
export class Result {
  /** @internal */
  constructor(
    /** As it was asked for. */
    readonly language: string,
    /** How it ended. */
    readonly status: CodeStatus,
    /** All that it gave, in order. */
    readonly outputs: readonly CodeOutput[],
    /** Of a shell's last command, or with which the code asked to exit. */
    readonly exitStatus: number | null,
    /** Of "stuck" and "ended". */
    readonly reason: string | null,
    /** There was more than is told. */
    readonly truncated: boolean,
  ) {}

  /** @internal */
  static of(language: string, from: Members, outputs?: readonly CodeOutput[]): Result {
    return new Result(
      language, text(from, "status") as CodeStatus,
      outputs ?? list(from, "outputs", one => codeOutputOf(text(one, "type"), one)),
      nullable(number, from, "exit_status"), nullable(text, from, "reason"), flag(from, "truncated"));
  }

  /** It ended well. */
  get ok(): boolean {
    return this.status === "ok";
  }

  /** What it wrote to standard output. */
  get stdout(): string {
    return this.#written("stdout");
  }

  /** What it wrote to standard error. */
  get stderr(): string {
    return this.#written("stderr");
  }

  #written(stream: string): string {
    return this.outputs.map(one => (one.type === "text" && one.stream === stream ? one.text : "")).join("");
  }

  /** What it showed, and the value of its last expression. */
  get values(): Value[] {
    return this.outputs.filter((one): one is Value => one instanceof Value);
  }

  /** That of the last expression. */
  get value(): Value | null {
    return this.values.filter(one => one.type === "result").at(-1) ?? null;
  }

  /** What ended it; null: nothing did. */
  get error(): CodeFailure | null {
    return this.outputs.filter((one): one is CodeFailure => one.type === "error").at(-1) ?? null;
  }

  /** All of it as a terminal would show it: what was written, values, and a traceback. */
  get text(): string {
    let said = "";
    for (const one of this.outputs) {
      if (said && !said.endsWith("\n") && one.type !== "text") said += "\n";
      said += one.type === "error" ? one.traceback.join("\n") || `${one.name}: ${one.message}` : one.text;
    }
    return said;
  }

  /** The PNGs that it showed. */
  pictures(): Uint8Array[] {
    return this.values.map(one => one.bytes("image/png")).filter((one): one is Uint8Array => one !== null);
  }

  /** Itself. Throws a CodeError when the code did not end well. */
  check(): this {
    if (this.ok) return this;
    const { error } = this;
    const why = error ? `${error.name}: ${error.message}` : this.reason ?? `its status is ${this.status}`;
    throw new CodeError(`the ${this.language} code failed: ${why}`, { code: this.status });
  }
}

/** How a command ended, and what it wrote. */
export class CommandResult implements Exit {
  readonly exitCode: number;
  readonly signal: string | null;
  readonly oomKilled: boolean;
  /** Its time was over, and it was killed. */
  readonly timedOut: boolean;
  /** Its code is 0, within its time. */
  readonly success: boolean;
  /** Bytes that are no UTF-8 are replaced by U+FFFD; a stream has them as they are. */
  readonly stdout: string;
  /** The same of standard error. */
  readonly stderr: string;
  /** There was more than 8 MiB of one of them. */
  readonly truncated: boolean;

  /** @internal */
  constructor(
    /** The program. */
    readonly command: string,
    /** Its arguments. */
    readonly args: readonly string[],
    from: Members,
  ) {
    const exit = exitOf(from);
    this.exitCode = exit.exitCode;
    this.signal = exit.signal;
    this.oomKilled = exit.oomKilled;
    this.timedOut = exit.timedOut;
    this.success = exit.success;
    this.stdout = text(from, "stdout");
    this.stderr = text(from, "stderr");
    this.truncated = flag(from, "truncated");
  }

  /** Itself. Throws a CommandError when it did not succeed. */
  check(): this {
    if (this.success) return this;
    const how = this.timedOut ? "it took too long" : this.signal ? `signal ${this.signal}` : `status ${this.exitCode}`;
    const last = this.stderr.trim().split("\n").at(-1);
    throw new CommandError(`'${this.command}' failed: ${how}${last ? `: ${last}` : ""}`, { code: "failed" });
  }
}
