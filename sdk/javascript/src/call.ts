// SPDX-License-Identifier: Apache-2.0
// Requests, as values; what their answers mean; and when one is sent again.

import { decoded, encoded } from "./bytes.js";
import { membersOf, UnexpectedDocument } from "./document.js";
import {
  BrokenConnectionError, errorOf, InvalidRequestError, MicrosandboxError, NotUnderstoodError, TimedOutError, TooLargeError,
  UnreachableError,
} from "./errors.js";
import { Failure } from "./failure.js";
import type { Settings } from "./settings.js";
import type { Body, Request } from "./transport.js";

/** Seconds without a byte, of an answer that needs no work. */
export const PATIENCE = 60;
/** The answer comes when something in the sandbox has ended. */
export const NO_END = null;
/** Bytes; files and what processes read are streamed, and have no end. */
const LARGEST_DOCUMENT = 32 * 1024 * 1024;

/** What every call takes. */
export interface CallOptions {
  /** Abandons the call when it is aborted, which throws its reason. */
  signal?: AbortSignal;
}

/** An answer, all of it. */
export class Reply {
  constructor(readonly status: number, readonly header: (name: string) => string | null, readonly body: Uint8Array) {}

  document(): unknown {
    try {
      return JSON.parse(decoded(this.body));
    } catch {
      throw new UnexpectedDocument("it is no JSON");
    }
  }

  get requestId(): string | null {
    return this.header("X-Request-Id");
  }
}

/** One request. */
export interface Call<T> {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly query?: Readonly<Record<string, Word>>;
  /** The body, as JSON. */
  readonly document?: unknown;
  /** Or as bytes: makes them for each attempt. */
  readonly content?: () => Body;
  readonly headers?: Readonly<Record<string, string>>;
  /** Doing it twice is as doing it once. */
  readonly repeatable?: boolean;
  /** `content` is there one time only. */
  readonly once?: boolean;
  /** PATIENCE unless said. */
  readonly patience?: number | null;
  readonly signal?: AbortSignal;
  /** Makes the result from the answer of a request that was done. */
  read(reply: Reply): T;
}

type Word = string | number | boolean | null | undefined;

/** The result of what has none. */
export function nothing(): void {}

/** A part of a path. No name is empty or dots alone, which would lead to another path. */
function segment(word: string | number): string {
  const name = String(word);
  if (/^\.*$/.test(name)) throw new InvalidRequestError(`'${name}' is no name`, { code: "invalid" });
  try {
    return encodeURIComponent(name);
  } catch {  // half a character of UTF-16
    throw new InvalidRequestError(`'${name}' is no name`, { code: "invalid" });
  }
}

export function pathOf(name: string, ...rest: (string | number)[]): string {
  return ["/v1/sandboxes", ...[name, ...rest].map(segment)].join("/");
}

/** Those that are not undefined or null. */
export function given(members: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined && value !== null));
}

export function requestOf(call: Call<unknown>, settings: Settings): Request {
  const headers: Record<string, string> = { ...call.headers };
  if (settings.key !== null) headers.Authorization = `Bearer ${settings.key}`;
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(call.query ?? {})) {
    if (value !== undefined && value !== null) words.append(name, String(value));
  }
  const query = words.toString();
  let body: Body | undefined;
  if (call.document !== undefined) {
    headers["Content-Type"] = "application/json";
    body = encoded(JSON.stringify(call.document));
    if (body.length > LARGEST_DOCUMENT) {  // the server would hang up before it has said why
      throw new TooLargeError(
        `${call.method} ${call.path} has ${body.length} bytes, more than the server takes: ${LARGEST_DOCUMENT}`,
        { code: "too_large" });
    }
  } else if (call.content !== undefined) {
    headers["Content-Type"] ??= "application/octet-stream";
    body = call.content();
  }
  const patience = call.patience === undefined ? PATIENCE : call.patience;
  const target = query ? `${call.path}?${query}` : call.path;
  return { method: call.method, server: settings.url, target, headers, body, patience, signal: call.signal };
}

// What an answer means.

/** It was done. This server sends nobody elsewhere: a redirection (which browsers tell as 0) is another's. */
export function isGood(status: number): boolean {
  return status >= 200 && status < 300;
}

function retryAfter(reply: Reply): number | null {
  const said = reply.header("Retry-After");
  return said !== null && /^\d+$/.test(said) ? Number(said) : null;  // a date this server never says
}

function notUnderstood(reply: Reply, cause?: unknown): NotUnderstoodError {
  const start = decoded(reply.body.subarray(0, 200));
  return new NotUnderstoodError(`the answer with status ${reply.status} is not one of a microsandbox server: '${start}'`,
    { code: "not_understood", status: reply.status, requestId: reply.requestId, cause });
}

/** The error that an answer of 400 or more is. */
export function refusal(reply: Reply): MicrosandboxError {
  const known = { status: reply.status, requestId: reply.requestId, retryAfter: retryAfter(reply) };
  try {
    const { code, number, message, request_id, data } = membersOf(membersOf(reply.document()).error, "error");
    if (typeof message !== "string") throw new UnexpectedDocument("it has no message");
    const rpc = typeof data === "object" && data !== null ? (data as { code?: unknown }).code : undefined;
    const told = number ?? rpc;
    return errorOf(message, {
      ...known,
      code: typeof code === "string" ? code : undefined,  // that of JSON-RPC is a number
      number: typeof told === "number" ? told : null,
      requestId: typeof request_id === "string" ? request_id : known.requestId,
    });
  } catch (error) {
    if (!(error instanceof UnexpectedDocument)) throw error;
    // Of what stands between, then.
    const said = decoded(reply.body.subarray(0, 200)).trim();
    return errorOf(`the server answered ${reply.status}${said && `: ${said}`}`, known);
  }
}

/** The error that a Failure of the transport is. */
export function trouble(failure: Failure, call: Call<unknown>, url: string): MicrosandboxError {
  const what = `${call.method} ${call.path}`;
  const cause = failure.cause;
  switch (failure.kind) {
    case "unreachable":
      return new UnreachableError(`cannot connect to ${url}: ${failure.message}`, { code: "unreachable", cause });
    case "silent":
      return new TimedOutError(`${what}: ${failure.message}`, { code: "timeout", cause });
    case "broken":
      return new BrokenConnectionError(`${what}: the connection broke: ${failure.message}`, { code: "broken", cause });
  }
}

// When a request is sent again.

/** At most `attempts` in all, and `longest` seconds between two; 429 says itself how long. */
export interface Retries {
  readonly attempts: number;
  readonly first: number;
  readonly longest: number;
}

export const USUAL_RETRIES: Retries = { attempts: 5, first: 0.1, longest: 10 };
/** For what was under way when the server was restarted: about half a minute. */
export const RESUMPTION: Retries = { attempts: 12, first: 0.1, longest: 5 };

/** Of one request. */
export class Attempts<T> {
  #number = 1;
  #answerLost = false;

  constructor(private readonly call: Call<T>, private readonly url: string, private readonly retries: Retries) {}

  /** Seconds until the next attempt; null: this is how it is. */
  pause(outcome: Reply | Failure): number | null {
    if (this.#number >= this.retries.attempts || !this.#mayRepeat(outcome)) return null;
    let wait = Math.min(this.retries.longest, this.retries.first * 2 ** (this.#number - 1)) * (0.5 + Math.random() / 2);
    if (outcome instanceof Reply) {
      const asked = retryAfter(outcome);
      if (asked !== null && asked > this.retries.longest) return null;
      wait = Math.max(wait, asked ?? 0);
    } else if (!outcome.neverSent) {
      this.#answerLost = true;
    }
    ++this.#number;
    return wait;
  }

  #mayRepeat(outcome: Reply | Failure): boolean {
    if (this.call.once) return false;  // a part of it may be gone, even where nothing was sent
    const repeatable = this.call.repeatable === true;
    // 429 is an answer to what was not begun; 503 may come in the middle of it.
    if (outcome instanceof Reply) return outcome.status === 429 || (outcome.status === 503 && repeatable);
    return outcome.neverSent || (repeatable && outcome.kind !== "silent");
  }

  /** Of the request, or throws why there is none. */
  result(outcome: Reply | Failure): T {
    if (outcome instanceof Failure) throw trouble(outcome, this.call, this.url);
    const gone = outcome.status === 404 && this.#answerLost && this.call.method === "DELETE";  // an attempt before has done it
    if (outcome.status >= 400 && !gone) throw refusal(outcome);
    if (!isGood(outcome.status) && !gone) throw notUnderstood(outcome);
    try {
      return this.call.read(outcome);
    } catch (error) {
      throw error instanceof UnexpectedDocument ? notUnderstood(outcome, error) : error;
    }
  }
}
