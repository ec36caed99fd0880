// SPDX-License-Identifier: Apache-2.0
// What goes wrong, by kind. All of it is a MicrosandboxError; a call that was aborted throws its signal's reason instead.

/** What is known of an error, besides its message. */
export interface ErrorDetails {
  /** The word for why. */
  code?: string;
  /** The one that microsandbox 0.2 has for it. */
  number?: number | null;
  /** That of HTTP. */
  status?: number | null;
  /** What the server's log calls the request. */
  requestId?: string | null;
  /** What can be done about it. */
  hint?: string;
  /** Seconds after which there may be room. */
  retryAfter?: number | null;
  /** The error that it comes from. */
  cause?: unknown;
}

/** Something was not done. */
export class MicrosandboxError extends Error {
  /** What can be done about errors of this kind, unless one says otherwise. */
  protected static readonly usualHint: string = "";

  /**
   * The server's word for why ("not_found", ...). "unreachable", "broken", "not_understood" and "detached" are this
   * package's own.
   */
  readonly code: string;
  /** The one that microsandbox 0.2 has for it. */
  readonly number: number | null;
  /** That of HTTP. */
  readonly status: number | null;
  /** What the server's log calls the request. */
  readonly requestId: string | null;
  /** What can be done about it; may be empty. */
  readonly hint: string;
  /** Seconds after which there may be room. */
  readonly retryAfter: number | null;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = details.code ?? "";
    this.number = details.number ?? null;
    this.status = details.status ?? null;
    this.requestId = details.requestId ?? null;
    this.hint = details.hint ?? new.target.usualHint;
    this.retryAfter = details.retryAfter ?? null;
  }

  /** The same, of what failed. @internal */
  prefixed(what: string): MicrosandboxError {
    const { code, number, status, requestId, hint, retryAfter, cause } = this;
    const kind = this.constructor as typeof MicrosandboxError;
    return new kind(`${what}: ${this.message}`, { code, number, status, requestId, hint, retryAfter, cause });
  }

  override toString(): string {
    const hint = this.hint && `; ${this.hint}`;
    const request = this.requestId ? ` (request ${this.requestId})` : "";
    return `${this.name}: ${this.message}${hint}${request}`;
  }
}

/** The request has something that cannot be. */
export class InvalidRequestError extends MicrosandboxError {}

/** There is no key, or not a valid one. */
export class AuthenticationError extends MicrosandboxError {
  protected static override readonly usualHint = "make a key with `msb server keygen`, and give it as apiKey or in MSB_API_KEY";
}

/** The key, or the server's operator, does not allow it; or the system in the sandbox does not ("denied_in_sandbox"). */
export class ForbiddenError extends MicrosandboxError {
  protected static override readonly usualHint = "use another key, or ask the server's operator to allow it in server.json";
}

/** There is no such thing. */
export class NotFoundError extends MicrosandboxError {}

/** Not in the state that things are in: a name is taken, a sandbox is stopped or paused. */
export class ConflictError extends MicrosandboxError {}

/** The request is larger than the server takes. */
export class TooLargeError extends MicrosandboxError {
  protected static override readonly usualHint = "send large contents as files, which are streamed";
}

/** As much as is allowed is there already. */
export class FullError extends MicrosandboxError {
  protected static override readonly usualHint = "try again later, or stop sandboxes that are not needed";
}

/** The sandbox failed, or what was asked of it. */
export class SandboxFailedError extends MicrosandboxError {}

/** It took longer than it may. */
export class TimedOutError extends MicrosandboxError {
  protected static override readonly usualHint = "allow more time";
}

/** The server is ending, or has no room for another connection. */
export class UnavailableError extends MicrosandboxError {
  protected static override readonly usualHint = "try again in a moment";
}

/** The server's own mistake. */
export class ServerError extends MicrosandboxError {
  protected static override readonly usualHint = "look for the request in the server's log (`msb server log`)";
}

/** No connection to the server. */
export class UnreachableError extends MicrosandboxError {
  protected static override readonly usualHint =
    "see that it runs (`msb server status`), and where serverUrl or MSB_SERVER_URL leads";
}

/** The connection ended before the answer did: whether it was done is not known. */
export class BrokenConnectionError extends MicrosandboxError {
  protected static override readonly usualHint =
    "the server may have been restarted; look at what is there before trying again";
}

/** What came is no answer of a microsandbox server. */
export class NotUnderstoodError extends MicrosandboxError {
  protected static override readonly usualHint =
    "see that serverUrl or MSB_SERVER_URL leads to a microsandbox server, with nothing between";
}

/** Somebody else follows the process now. */
export class DetachedError extends MicrosandboxError {}

/** Code ended with an error (`Result.check()`). */
export class CodeError extends MicrosandboxError {}

/** A command did not succeed (`CommandResult.check()`). */
export class CommandError extends MicrosandboxError {}

// Their names, which stay when a bundler shortens those of classes; where stacks find them.
for (const [name, kind] of Object.entries({
  MicrosandboxError, InvalidRequestError, AuthenticationError, ForbiddenError, NotFoundError, ConflictError, TooLargeError,
  FullError, SandboxFailedError, TimedOutError, UnavailableError, ServerError, UnreachableError, BrokenConnectionError,
  NotUnderstoodError, DetachedError, CodeError, CommandError,
})) {
  Object.defineProperty(kind.prototype, "name", { value: name, configurable: true, writable: true });
}

const BY_CODE: ReadonlyMap<string, typeof MicrosandboxError> = new Map<string, typeof MicrosandboxError>([
  ["invalid", InvalidRequestError],
  ["no_key", AuthenticationError],
  ["bad_key", AuthenticationError],
  ["expired_key", AuthenticationError],
  ["forbidden", ForbiddenError],
  ["denied_in_sandbox", ForbiddenError],
  ["not_found", NotFoundError],
  ["method_not_allowed", InvalidRequestError],
  ["conflict", ConflictError],
  ["too_large", TooLargeError],
  ["slow", BrokenConnectionError],
  ["full", FullError],
  ["failed", SandboxFailedError],
  ["timeout", TimedOutError],
  ["unavailable", UnavailableError],
  ["internal", ServerError],
]);

// For answers that name no code: those of JSON-RPC, and of what may stand between.
const CODE_BY_STATUS: Readonly<Record<number, string>> = {
  400: "invalid", 401: "bad_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 408: "slow",
  409: "conflict", 413: "too_large", 429: "full", 500: "internal", 502: "failed", 503: "unavailable", 504: "timeout",
};

/** The error of a server's answer. Without a `code` it is told by the number or status. */
export function errorOf(message: string, details: ErrorDetails): MicrosandboxError {
  let code = details.code;
  if (code === undefined && details.number === 1001) code = "no_key";
  if (code === undefined && details.number === 5001 && details.status === 403) code = "denied_in_sandbox";
  if (code === undefined && details.status) {
    code = CODE_BY_STATUS[details.status] ?? (details.status < 500 ? "invalid" : "internal");
  }
  const kind = BY_CODE.get(code ?? "") ?? MicrosandboxError;
  const hint = code === "denied_in_sandbox" ? "do it as a user who may in the sandbox" : details.hint;
  return new kind(message, { ...details, code, hint });
}
