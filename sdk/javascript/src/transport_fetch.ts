// SPDX-License-Identifier: Apache-2.0
// By fetch, as browsers have it.

import { onAbort } from "./abort.js";
import { joined } from "./bytes.js";
import { ForbiddenError, InvalidRequestError } from "./errors.js";
import { Failure, Patience } from "./failure.js";
import type { Answer, Body, Request, Transport } from "./transport.js";

/** What sends a request, as the global fetch does. */
export type Fetch = (url: string, options: RequestInit) => Promise<Response>;

// Words of Node and those like it for what happened before a request was sent. Browsers tell nothing.
const UNSENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);

// What the Fetch standard forbids ("bad port"), whatever listens there.
const BAD_PORTS = new Set([
  0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113,
  115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556,
  563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
  6668, 6669, 6679, 6697, 10080,
]);

/** Milliseconds, for a look at whether there is a server. */
const PROBE = 3000;

export function fetchTransport(fetch: Fetch = (url, options) => globalThis.fetch(url, options)): Transport {
  return { send: request => send(fetch, request), close() {} };
}

async function send(fetch: Fetch, request: Request): Promise<Answer> {
  request.signal?.throwIfAborted();
  const body = request.body && await whole(request.body, request.signal);
  const exchange = new Exchange(request);
  try {
    exchange.patience.renew();
    const response = await fetch(request.server + request.target, {
      method: request.method, headers: request.headers, body, signal: exchange.controller.signal,
      redirect: "manual", credentials: "omit", cache: "no-store",
    });
    return new FetchAnswer(response, exchange);
  } catch (error) {
    exchange.end();
    const why = exchange.failed(error, true);
    throw why instanceof Failure && why.kind === "unreachable" && !why.neverSent ? await reasonFor(why, fetch, request) : why;
  }
}

/** Of a failure of which fetch tells nothing. */
async function reasonFor(failure: Failure, fetch: Fetch, { server, signal }: Request): Promise<unknown> {
  const page = (globalThis as { location?: { origin?: string } }).location?.origin;
  if (page === undefined || page === new URL(server).origin) return failure;
  try {
    // To this the server answers whatever the page is, which cannot read the answer.
    await fetch(`${server}/v1/health`, { mode: "no-cors", credentials: "omit", cache: "no-store", signal: AbortSignal.timeout(PROBE) });
  } catch {
    return signal?.aborted ? signal.reason : failure;
  }
  if (signal?.aborted) return signal.reason;
  const hint = page === "null"
    ? "serve the page over HTTP: one from a file, or in a frame with a sandbox, has no origin that could be allowed"
    : `add it to "origins" in the server's server.json, and start the server again`;
  return new ForbiddenError(`the server ${server} does not answer pages of the origin ${page}`, { code: "forbidden", hint });
}

/** What is wrong, when it is the port. */
function refusedPort(server: string): InvalidRequestError | null {
  const { port } = new URL(server);
  if (port === "" || !BAD_PORTS.has(Number(port))) return null;
  return new InvalidRequestError(`fetch and browsers refuse port ${port} of ${server}`, {
    code: "invalid", hint: "have the server listen at another (`msb server start --port`)",
  });
}

/** Browsers send no streams over HTTP/1.1. */
async function whole(body: Body, signal: AbortSignal | undefined): Promise<BodyInit> {
  if (body instanceof Uint8Array || body instanceof Blob) return body as BodyInit;
  const pieces: Uint8Array[] = [];
  for await (const piece of body) {
    signal?.throwIfAborted();
    pieces.push(piece.slice());
  }
  return new Blob(pieces as BlobPart[]);
}

/** What may end a request before its end: its signal, and that nothing comes. */
class Exchange {
  readonly controller = new AbortController();
  readonly patience: Patience;
  #silent = false;
  readonly #forget: () => void;

  constructor(readonly request: Request) {
    this.#forget = onAbort(request.signal, () => this.controller.abort(request.signal!.reason));
    this.patience = new Patience(request.patience, () => {
      this.#silent = true;
      this.controller.abort();
    });
  }

  end(): void {
    this.patience.end();
    this.#forget();
  }

  /** What an exception of fetch is. */
  failed(error: unknown, beforeAnswer: boolean): unknown {
    const { signal } = this.request;
    if (signal?.aborted) return signal.reason;
    if (this.#silent) return this.patience.failure();
    if (!(error instanceof TypeError)) return error;  // of a fetch that was given
    const refused = refusedPort(this.request.server);
    if (refused !== null) return refused;
    const cause = error.cause as { code?: unknown; message?: unknown } | undefined;
    const code = typeof cause?.code === "string" ? cause.code : "";
    const why = String(cause?.message || code || error.message);
    if (UNSENT.has(code)) return new Failure("unreachable", why, true, error);
    return new Failure(beforeAnswer && cause === undefined ? "unreachable" : "broken", why, false, error);
  }
}

class FetchAnswer implements Answer {
  readonly status: number;
  readonly #response: Response;
  readonly #exchange: Exchange;
  #complete = false;

  constructor(response: Response, exchange: Exchange) {
    this.status = response.status;
    this.#response = response;
    this.#exchange = exchange;
  }

  header(name: string): string | null {
    return this.#response.headers.get(name);
  }

  async read(): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for await (const piece of this.pieces()) pieces.push(piece);
    return joined(pieces);
  }

  async *pieces(): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = this.#response.body?.getReader();
    try {
      for (;;) {
        this.#exchange.patience.renew();
        const piece = await reader?.read();
        this.#exchange.patience.end();  // while whoever reads does something else
        if (piece?.value === undefined) {
          this.#complete = true;
          return;
        }
        yield piece.value;
      }
    } catch (error) {
      throw this.#exchange.failed(error, false);
    } finally {
      this.close();
    }
  }

  close(): void {
    this.#exchange.end();
    if (!this.#complete) this.#exchange.controller.abort();
  }
}
