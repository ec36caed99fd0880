// SPDX-License-Identifier: Apache-2.0
// The files of a sandbox.

import { decodedStrictly, encoded, randomWord } from "./bytes.js";
import { given, nothing, pathOf, trouble, type Call, type CallOptions } from "./call.js";
import type { Client } from "./client.js";
import { list, membersOf, number } from "./document.js";
import { InvalidRequestError, NotFoundError } from "./errors.js";
import { Failure } from "./failure.js";
import { isNode, loadFileSystem, loadUrl, nodeProcess, type FileHandle, type FileSystem } from "./node.js";
import { fileInfoOf, type FileInfo } from "./types.js";

/** Bytes, of what is read from local files here. */
const PIECE = 256 * 1024;

/** What may be written. What comes in pieces is sent as it comes (by browsers once it is there). */
export type Content =
  | string | Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** How a file is written, or a directory made. */
export interface WriteOptions extends CallOptions {
  /** Permissions: 0o644. */
  mode?: number;
  /** Make what is missing above it. */
  parents?: boolean;
}

/** `sandbox.files`. Paths are absolute ones in the sandbox. */
export class Files {
  readonly #client: Client;
  readonly #name: string;
  readonly #namespace: string;

  /** @internal */
  constructor(client: Client, name: string, namespace: string) {
    this.#client = client;
    this.#name = name;
    this.#namespace = namespace;
  }

  /** All bytes of a file, or so many from an offset on. */
  async read(path: string, options: { offset?: number; length?: number } & CallOptions = {}): Promise<Uint8Array> {
    return this.#client.send(this.#reading(path, options));
  }

  /** A file that is text, as UTF-8. */
  async readText(path: string, options: CallOptions = {}): Promise<string> {
    const text = decodedStrictly(await this.read(path, options));
    if (text !== null) return text;
    throw new InvalidRequestError(`the file '${path}' is no text in UTF-8`, { code: "invalid", hint: "read its bytes with read()" });
  }

  /** Its bytes as they come, for files that are large. */
  readPieces(path: string, options: { offset?: number; length?: number } & CallOptions = {}): AsyncGenerator<Uint8Array> {
    return this.#pieces(this.#reading(path, options));
  }

  /** All of it or nothing; gives its length. */
  async write(path: string, content: Content, options: WriteOptions & { uid?: number; gid?: number } = {}): Promise<number> {
    return this.#write(path, bodyOf(content), options);
  }

  async #write(path: string, body: Sendable, options: WriteOptions & { uid?: number; gid?: number }): Promise<number> {
    const { mode, parents, uid, gid, signal } = options;
    const query = { path, mode: octal(mode), parents: parents || undefined, uid, gid };
    const read: Call<number>["read"] = reply => number(membersOf(reply.document()), "bytes");
    return this.#send({ method: "PUT", query, ...body, read, signal }, "content");
  }

  /** What is in a directory, by name. */
  async list(path: string, { signal }: CallOptions = {}): Promise<FileInfo[]> {
    const read: Call<FileInfo[]>["read"] = reply => list(membersOf(reply.document()), "entries", fileInfoOf);
    return this.#send({ method: "GET", query: { path }, read, repeatable: true, signal });
  }

  /** `follow`: of what a symbolic link leads to. */
  async stat(path: string, { follow, signal }: { follow?: boolean } & CallOptions = {}): Promise<FileInfo> {
    const read: Call<FileInfo>["read"] = reply => fileInfoOf(membersOf(reply.document()));
    return this.#send({ method: "GET", query: { path, follow: follow || undefined }, read, repeatable: true, signal }, "stat");
  }

  /** Whether there is something; of a symbolic link, where it leads. */
  async exists(path: string, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.stat(path, { ...options, follow: true });
      return true;
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error;
      // Which is an error, too, when it is the sandbox that is not there.
      const query = { namespace: this.#namespace };
      await this.#client.send({ method: "GET", path: pathOf(this.#name), query, read: nothing, repeatable: true, signal: options.signal });
      return false;
    }
  }

  /** Removes a file, or an empty directory; `recursive`: a directory with all that is in it. */
  async remove(path: string, { recursive, signal }: { recursive?: boolean } & CallOptions = {}): Promise<void> {
    const query = { path, recursive: recursive || undefined };
    await this.#send({ method: "DELETE", query, read: nothing, repeatable: true, signal });
  }

  /** Makes a directory; with `parents` one that is there is fine. */
  async makeDirectory(path: string, { mode, parents, signal }: WriteOptions = {}): Promise<void> {
    const document = given({ path, parents, mode: octal(mode) });
    await this.#send({ method: "POST", document, read: nothing, repeatable: parents === true, signal }, "directories");
  }

  /** `replace`: what is there may be. */
  async move(from: string, to: string, { replace, signal }: { replace?: boolean } & CallOptions = {}): Promise<void> {
    await this.#send({ method: "POST", document: given({ from, to, replace }), read: nothing, signal }, "move");
  }

  /** A file of this machine, piece by piece; gives its length. Not in browsers: there `write()` takes a File. */
  async upload(local: string | URL, remote: string, options: WriteOptions = {}): Promise<number> {
    const { open } = await localFiles("upload");
    const file = await open(local, "r");
    try {
      const mode = options.mode ?? (await file.stat()).mode & 0o777;
      const body = { content: () => piecesOf(file), repeatable: true, once: false };
      return await this.#write(remote, body, { ...options, mode });
    } finally {
      await file.close();
    }
  }

  /** Into a file of this machine, which is there when all of it has come; gives its length. Not in browsers. */
  async download(remote: string, local: string | URL, options: CallOptions = {}): Promise<number> {
    const { open, rename, rm } = await localFiles("download");
    const path = local instanceof URL ? (await loadUrl()).fileURLToPath(local) : local;
    const draft = `${path}.${nodeProcess()!.pid}-${randomWord(4)}.part`;
    let size = 0;
    try {
      const file = await open(draft, "wx");
      try {
        for await (const piece of this.readPieces(remote, options)) {
          await file.writeFile(piece);
          size += piece.length;
        }
      } finally {
        await file.close();
      }
      await rename(draft, path);
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
    return size;
  }

  /** A directory as a tar archive, piece by piece. A stranger made it: unpack it with care. */
  pack(path: string, { signal }: CallOptions = {}): AsyncGenerator<Uint8Array> {
    const query = this.#query({ path });
    return this.#pieces({ method: "GET", path: this.#path("tar"), query, read: nothing, repeatable: true, signal });
  }

  /** A tar archive into a directory; gives how many entries it has. */
  async unpack(path: string, archive: Content, { parents, signal }: { parents?: boolean } & CallOptions = {}): Promise<number> {
    const headers = { "Content-Type": "application/x-tar" };
    const read: Call<number>["read"] = reply => number(membersOf(reply.document()), "entries");
    const query = { path, parents: parents || undefined };
    return this.#send({ method: "PUT", query, headers, ...bodyOf(archive), read, signal }, "tar");
  }

  #path(...rest: string[]): string {
    return pathOf(this.#name, "files", ...rest);
  }

  #query(query: Call<unknown>["query"]): Call<unknown>["query"] {
    return { namespace: this.#namespace, ...query };
  }

  #send<T>(call: Omit<Call<T>, "path">, ...rest: string[]): Promise<T> {
    return this.#client.send({ ...call, path: this.#path(...rest), query: this.#query(call.query) });
  }

  #reading(path: string, options: { offset?: number; length?: number } & CallOptions): Call<Uint8Array> {
    const { offset, length, signal } = options;
    const query = this.#query({ path, offset, length });
    return { method: "GET", path: this.#path("content"), query, read: reply => reply.body, repeatable: true, signal };
  }

  async *#pieces(call: Call<unknown>): AsyncGenerator<Uint8Array, void, undefined> {
    const answer = await this.#client.open(call);
    try {
      yield* answer.pieces();
    } catch (error) {
      throw error instanceof Failure ? trouble(error, call, this.#client.settings.url) : error;
    } finally {
      answer.close();
    }
  }
}

function octal(mode: number | undefined): string | undefined {
  return mode?.toString(8).padStart(4, "0");
}

/** What makes a body, and whether it does so more than once. */
type Sendable = Required<Pick<Call<unknown>, "content" | "repeatable" | "once">>;

function bodyOf(content: Content): Sendable {
  if (typeof content === "string") content = encoded(content);
  if (content instanceof ArrayBuffer) content = new Uint8Array(content);
  if (content instanceof Uint8Array || content instanceof Blob) {
    const data = content;
    return { content: () => data, repeatable: true, once: false };
  }
  const pieces = content;
  return { content: () => (pieces instanceof ReadableStream ? streamed(pieces) : each(pieces)), repeatable: false, once: true };
}

async function* each(pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  yield* pieces;
}

/** Not all browsers can iterate over one. */
async function* streamed(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = stream.getReader();
  try {
    for (let piece = await reader.read(); piece.value !== undefined; piece = await reader.read()) yield piece.value;
  } finally {
    await reader.cancel();
  }
}

/** From its beginning, however often. */
async function* piecesOf(file: FileHandle): AsyncGenerator<Uint8Array, void, undefined> {
  for (let position = 0; ;) {
    const buffer = new Uint8Array(PIECE);
    const { bytesRead } = await file.read(buffer, 0, PIECE, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

async function localFiles(what: string): Promise<FileSystem> {
  if (isNode()) return loadFileSystem();
  throw new InvalidRequestError(`${what}() needs local files, which are not there`, {
    code: "invalid", hint: "use write() with a Blob, or readPieces()",
  });
}
