// SPDX-License-Identifier: Apache-2.0
// Connections to a server.

import { onAbort } from "./abort.js";
import { Attempts, isGood, Reply, requestOf, USUAL_RETRIES, type Call, type CallOptions, type Retries } from "./call.js";
import { membersOf, text } from "./document.js";
import { asyncDispose } from "./dispose.js";
import { Failure } from "./failure.js";
import { Settings } from "./settings.js";
import { transportOf, type Answer, type Transport } from "./transport.js";
import type { Fetch } from "./transport_fetch.js";
import { serverInfoOf, type ServerInfo } from "./types.js";

/** Where a server is, and how to talk to it. */
export interface ConnectionOptions {
  /** MSB_SERVER_URL unless said, or http://127.0.0.1:5555. */
  serverUrl?: string;
  /** MSB_API_KEY unless said. */
  apiKey?: string;
  /** Sends requests by this. In Node its HTTP client does it unless said; elsewhere it is the global fetch. */
  fetch?: Fetch;
}

/** What a client is to be. */
export interface ClientOptions extends ConnectionOptions {
  /** How often a request is sent that was not answered, where that is safe; 5 unless said. */
  attempts?: number;
}

/** A server, and the connections to it. Sandboxes may share one; those that are given none make their own. */
export class Client {
  /** @internal */
  readonly settings: Settings;
  readonly #retries: Retries;
  readonly #transport: Transport;

  constructor(options: ClientOptions = {}) {
    this.settings = new Settings(options.serverUrl, options.apiKey);
    this.#retries = { ...USUAL_RETRIES, attempts: options.attempts ?? USUAL_RETRIES.attempts };
    this.#transport = transportOf(options.fetch);
  }

  /** Where the server is. */
  get serverUrl(): string {
    return this.settings.url;
  }

  /** What the server says when it is well. Needs no key. */
  async health({ signal }: CallOptions = {}): Promise<string> {
    return this.send({
      method: "GET", path: "/v1/health", repeatable: true, signal,
      read: reply => text(membersOf(reply.document()), "message"),
    });
  }

  /** What the server and the key allow. */
  async server({ signal }: CallOptions = {}): Promise<ServerInfo> {
    return this.send({
      method: "GET", path: "/v1/server", repeatable: true, signal,
      read: reply => serverInfoOf(membersOf(reply.document())),
    });
  }

  /** Closes the connections. What is under way breaks off. */
  async close(): Promise<void> {
    this.#transport.close();
  }

  /** Closes the connections, as close() does: `await using` calls this. */
  [asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  async send<T>(call: Call<T>): Promise<T> {
    const attempts = new Attempts(call, this.settings.url, this.#retries);
    for (;;) {
      const outcome = await this.#attempt(call);
      const pause = attempts.pause(outcome);
      if (pause === null) return attempts.result(outcome);
      await sleep(pause, call.signal);
    }
  }

  /** A good answer, whose body is to be read, or which is to be closed. @internal */
  async open(call: Call<unknown>, retries = this.#retries): Promise<Answer> {
    const attempts = new Attempts(call, this.settings.url, retries);
    for (;;) {
      const outcome = await this.#begin(call);
      if (!(outcome instanceof Failure) && isGood(outcome.status)) return outcome;
      const whole = outcome instanceof Failure ? outcome : await readAll(outcome);
      const pause = attempts.pause(whole);
      if (pause === null) attempts.result(whole);
      else await sleep(pause, call.signal);
    }
  }

  async #attempt(call: Call<unknown>): Promise<Reply | Failure> {
    const outcome = await this.#begin(call);
    return outcome instanceof Failure ? outcome : readAll(outcome);
  }

  async #begin(call: Call<unknown>): Promise<Answer | Failure> {
    return orFailure(this.#transport.send(requestOf(call, this.settings)));
  }
}

async function readAll(answer: Answer): Promise<Reply | Failure> {
  const body = await orFailure(answer.read());
  return body instanceof Failure ? body : new Reply(answer.status, name => answer.header(name), body);
}

async function orFailure<T>(promise: Promise<T>): Promise<T | Failure> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
}

function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(() => {
      forget();
      resolve();
    }, seconds * 1000);
    const forget = onAbort(signal, () => {
      clearTimeout(timer);
      forget();
      reject(signal!.reason);
    });
  });
}
