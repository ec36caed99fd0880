// SPDX-License-Identifier: Apache-2.0
// As much of Node as is used where there is one. Its modules are loaded by names that bundlers do not see, so that what
// they make for browsers does without.

export interface Process {
  readonly env: Record<string, string | undefined>;
  readonly pid: number;
  readonly versions?: { readonly node?: string };
  loadEnvFile?(): void;
}

/** That of Node, and of what is like it. */
export function nodeProcess(): Process | undefined {
  return (globalThis as { process?: Process }).process;
}

export function isNode(): boolean {
  return nodeProcess()?.versions?.node !== undefined;
}

export interface Emitter {
  on(event: string, listener: (...args: any[]) => void): this;
  once(event: string, listener: (...args: any[]) => void): this;
  off(event: string, listener: (...args: any[]) => void): this;
}

export interface Socket extends Emitter {
  readonly connecting: boolean;
}

export interface IncomingMessage extends Emitter, AsyncIterable<Uint8Array> {
  readonly statusCode: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly complete: boolean;
  destroy(error?: Error): void;
}

export interface ClientRequest extends Emitter {
  readonly destroyed: boolean;
  readonly writableEnded: boolean;
  write(chunk: Uint8Array): boolean;
  end(chunk?: Uint8Array): void;
  destroy(error?: Error): void;
}

export interface Agent {
  destroy(): void;
}

export interface Http {
  readonly Agent: new (options: object) => Agent;
  request(options: object): ClientRequest;
}

export interface FileHandle {
  stat(): Promise<{ readonly mode: number }>;
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
  writeFile(data: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export interface FileSystem {
  open(path: string | URL, flags: string): Promise<FileHandle>;
  rename(from: string, to: string | URL): Promise<void>;
  rm(path: string, options: { force: boolean }): Promise<void>;
}

const load = (name: string): Promise<unknown> => import(/* webpackIgnore: true */ /* @vite-ignore */ name);

export const loadHttp = (secure: boolean): Promise<Http> => load(secure ? "node:https" : "node:http") as Promise<Http>;
export const loadFileSystem = (): Promise<FileSystem> => load("node:fs/promises") as Promise<FileSystem>;
export const loadUrl = (): Promise<{ fileURLToPath(url: URL): string }> =>
  load("node:url") as Promise<{ fileURLToPath(url: URL): string }>;
