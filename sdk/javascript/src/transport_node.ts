// SPDX-License-Identifier: Apache-2.0
// By the HTTP client of Node.

import { onAbort } from "./abort.js";
import { joined } from "./bytes.js";
import { CONNECTING, Failure, Patience } from "./failure.js";
import { loadHttp, type Agent, type ClientRequest, type Http, type IncomingMessage, type Socket } from "./node.js";
import type { Answer, Request, Transport } from "./transport.js";

const IDLE = 30_000;  // milliseconds; the server waits for longer, so that it does not hang up on a new request

interface Place {
  readonly http: Http;
  readonly agent: Agent;
  readonly options: object;
  readonly path: string;
  readonly connected: "connect" | "secureConnect";  // what its sockets say when they are
}

export function nodeTransport(): Transport {
  let place: Place | undefined;
  return {
    async send(request) {
      place ??= await placeOf(request.server);
      request.signal?.throwIfAborted();
      const exchange = new Exchange(request, place);
      return exchange.answer();
    },
    close() {
      place?.agent.destroy();
    },
  };
}

async function placeOf(server: string): Promise<Place> {
  const { protocol, hostname, port, pathname } = new URL(server);
  const secure = protocol === "https:";
  const http = await loadHttp(secure);
  const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 20, scheduling: "lifo", timeout: IDLE });
  const options = { protocol, hostname: hostname.replace(/^\[|\]$/g, ""), port, agent };
  return { http, agent, options, path: pathname.replace(/\/+$/, ""), connected: secure ? "secureConnect" : "connect" };
}

/** One request on its way. What ends it before its end comes here: its signal, that nothing comes, and errors. */
class Exchange {
  readonly patience: Patience;
  readonly #request: Request;
  readonly #sent: ClientRequest;
  #connected = false;
  #answered = false;
  #ended: unknown;  // why it was ended from here
  readonly #forget: () => void;
  readonly #connecting: ReturnType<typeof setTimeout>;

  constructor(request: Request, { http, options, path, connected }: Place) {
    this.#request = request;
    this.patience = new Patience(request.patience, () => this.#end(this.patience.failure()));
    const { body, method } = request;
    const headers = { ...request.headers };
    if (body instanceof Uint8Array) headers["Content-Length"] = String(body.length);
    else if (body instanceof Blob) headers["Content-Length"] = String(body.size);
    else if (body === undefined && method !== "GET") headers["Content-Length"] = "0";
    this.#sent = http.request({ ...options, method, path: path + request.target, headers });
    this.#forget = onAbort(request.signal, () => this.#end(request.signal!.reason));
    this.#connecting = setTimeout(
      () => this.#end(new Failure("unreachable", `there was no connection after ${CONNECTING} s`, true)), CONNECTING * 1000);
    this.#sent.once("socket", (socket: Socket) => {
      if (socket.connecting) socket.once(connected, () => this.#begun());
      else this.#begun();
    });
  }

  #begun(): void {
    this.#connected = true;
    clearTimeout(this.#connecting);
    if (this.#ended === undefined) this.patience.renew();
  }

  answer(): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#sent.once("response", (message: IncomingMessage) => {
        this.#answered = true;
        this.patience.end();
        message.on("error", () => {});  // is told to whoever reads it, if anybody does
        resolve(new NodeAnswer(message, this));
      });
      this.#sent.on("error", (error: Error) => {
        if (!this.#answered) this.release();
        reject(this.failed(error));
      });
      const { body } = this.#request;
      if (body === undefined || body instanceof Uint8Array) this.#sent.end(body);
      else this.#write(body).catch(error => this.#answered || this.#end(error));
    });
  }

  async #write(body: Blob | AsyncIterable<Uint8Array>): Promise<void> {
    for await (const piece of body instanceof Blob ? body.stream() : body) {
      // An answer that comes before all was sent says that no more is wanted.
      if (this.#sent.destroyed || this.#answered) return;
      if (!this.#sent.write(piece)) await this.#drained();
      if (this.#connected && !this.#answered) this.patience.renew();
    }
    this.#sent.end();
  }

  #drained(): Promise<void> {
    return new Promise(resolve => {
      const done = () => {
        for (const event of ["drain", "close", "response"]) this.#sent.off(event, done);
        resolve();
      };
      for (const event of ["drain", "close", "response"]) this.#sent.on(event, done);
    });
  }

  #end(why: unknown): void {
    this.#ended ??= why;
    this.release();
    this.#sent.destroy(new Error("it was ended"));
  }

  /** What an error of Node is. */
  failed(error: Error & { code?: string }): unknown {
    if (this.#ended !== undefined) return this.#ended;
    const why = error.message || error.code || error.name;
    return new Failure(this.#connected ? "broken" : "unreachable", why, !this.#connected, error);
  }

  /** Nothing more is waited for. */
  release(): void {
    this.patience.end();
    clearTimeout(this.#connecting);
    this.#forget();
  }

  /** All was read, or nobody wants the rest. */
  over(complete: boolean): void {
    this.release();
    if (!complete || !this.#sent.writableEnded) this.#sent.destroy();
  }
}

class NodeAnswer implements Answer {
  readonly status: number;
  readonly #message: IncomingMessage;
  readonly #exchange: Exchange;

  constructor(message: IncomingMessage, exchange: Exchange) {
    this.status = message.statusCode;
    this.#message = message;
    this.#exchange = exchange;
  }

  header(name: string): string | null {
    const value = this.#message.headers[name.toLowerCase()];
    return typeof value === "string" ? value : null;
  }

  read(): Promise<Uint8Array> {
    const message = this.#message;
    const pieces: Uint8Array[] = [];
    return new Promise((resolve, reject) => {
      this.#exchange.patience.renew();
      message.on("data", (piece: Uint8Array) => {
        pieces.push(piece);
        this.#exchange.patience.renew();
      });
      message.once("end", () => {
        this.close();
        resolve(plain(joined(pieces)));
      });
      message.once("error", (error: Error) => {
        this.close();
        reject(this.#exchange.failed(error));
      });
    });
  }

  async *pieces(): AsyncGenerator<Uint8Array, void, undefined> {
    const iterator = this.#message[Symbol.asyncIterator]();
    try {
      for (;;) {
        this.#exchange.patience.renew();
        const piece = await iterator.next();
        this.#exchange.patience.end();  // while whoever reads does something else
        if (piece.done) return;
        yield plain(piece.value);
      }
    } catch (error) {
      throw this.#exchange.failed(error as Error);
    } finally {
      this.close();
    }
  }

  close(): void {
    this.#exchange.over(this.#message.complete);
  }
}

/** Not Node's Buffer, whose slice() is another. */
function plain(data: Uint8Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.length);
}
