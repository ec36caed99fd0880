// SPDX-License-Identifier: Apache-2.0
// How requests and their answers travel: by fetch, or in Node by its own HTTP client, whose connections can be closed, and
// which waits for an answer for as long as it is told (its fetch gives up after five minutes without a byte).

import { fetchTransport, type Fetch } from "./transport_fetch.js";
import { isNode } from "./node.js";
import { nodeTransport } from "./transport_node.js";

export type Body = Uint8Array | Blob | AsyncIterable<Uint8Array>;

export interface Request {
  readonly method: string;
  /** Of the server, as Settings has it. */
  readonly server: string;
  /** What comes after that, with its query. */
  readonly target: string;
  readonly headers: Record<string, string>;
  readonly body?: Body;
  /** Seconds without a byte after which it has failed; null: never. */
  readonly patience: number | null;
  readonly signal?: AbortSignal;
}

/** The head of an answer. Its body is read once, or it is closed. Reading fails as send() does. */
export interface Answer {
  readonly status: number;
  header(name: string): string | null;
  read(): Promise<Uint8Array>;
  pieces(): AsyncGenerator<Uint8Array, void, undefined>;
  /** Ends it, with its connection unless all of it was read. */
  close(): void;
}

export interface Transport {
  /**
   * Fails with a Failure; or with what no other attempt changes: what the body's own iterator threw, the signal's reason, or an
   * error that says what is wrong.
   */
  send(request: Request): Promise<Answer>;
  close(): void;
}

export function transportOf(fetch: Fetch | undefined): Transport {
  return fetch === undefined && isNode() ? nodeTransport() : fetchTransport(fetch);
}
