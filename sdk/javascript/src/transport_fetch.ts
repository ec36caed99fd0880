// SPDX-License-Identifier: Apache-2.0
// By fetch, as browsers have it.

import { onAbort } from "./abort.js";
import { joined } from "./bytes.js";
import { Failure, Patience } from "./failure.js";
import type { Answer, Body, Request, Transport } from "./transport.js";

export type Fetch = (url: string, options: RequestInit) => Promise<Response>;

// Words of Node and those like it for what happened before a request was sent. Browsers tell nothing.
const UNSENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);

export function fetchTransport(fetch: Fetch = (url, options) => globalThis.fetch(url, options)): Transport {
  return { send: request => send(fetch, request), close() {} };
}

async function send(fetch: Fetch, request: Request): Promise<Answer> {
  request.signal?.throwIfAborted();
  const exchange = new Exchange(request);
  try {
    const body = request.body && await whole(request.body);
    exchange.patience.renew();
    const response = await fetch(request.server + request.target, {
      method: request.method, headers: request.headers, body, signal: exchange.controller.signal,
      redirect: "manual", credentials: "omit", cache: "no-store",
    });
    return new FetchAnswer(response, exchange);
  } catch (error) {
    exchange.end();
    throw exchange.failed(error, true);
  }
}

/** Browsers send no streams over HTTP/1.1. */
async function whole(body: Body): Promise<BodyInit> {
  if (body instanceof Uint8Array || body instanceof Blob) return body as BodyInit;
  const pieces: Uint8Array[] = [];
  for await (const piece of body) pieces.push(piece.slice());
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
    if (!(error instanceof TypeError)) return error;  // of what makes the body
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
