// SPDX-License-Identifier: Apache-2.0
// What the server tells of sandboxes, and of what is in them.

import { decoded, encoded, fromBase64 } from "./bytes.js";
import {
  flag, list, nullable, number, object, optional, text, texts, time, UnexpectedDocument, type Members,
} from "./document.js";

/** A port of a sandbox, and where it is published. */
export interface Port {
  /** Of its connections. */
  readonly protocol: "tcp" | "udp";
  /** Of the server's host. */
  readonly address: string;
  /** Of that address. */
  readonly hostPort: number;
  /** Of the sandbox. */
  readonly guestPort: number;
  /** Where that was asked for, and the port has one. */
  readonly url: string | null;
}

/** How a sandbox ended the last time. */
export interface SandboxExit {
  /** Of its command; 125 when the sandbox failed itself. */
  readonly status: number;
  /** "exited", "stopped", "timeout", "idle" or "failed". */
  readonly cause: string;
  /** Why, when it failed. */
  readonly message: string | null;
  /** When; null: that is not known. */
  readonly endedAt: Date | null;
}

/** How a sandbox is. */
export type SandboxState = "stopped" | "starting" | "running" | "paused" | "stopping";

/** A sandbox, as it was when the server was asked. */
export interface SandboxInfo {
  /** What it is called. */
  readonly name: string;
  /** Where it is. */
  readonly namespace: string;
  /** How it is. */
  readonly state: SandboxState;
  /** What it was made from. */
  readonly image: string;
  /** By which lists find it. */
  readonly labels: Readonly<Record<string, string>>;
  /** Nothing is left of it when it has ended. */
  readonly ephemeral: boolean;
  /** When it was made. */
  readonly createdAt: Date;
  /** When it was started the last time; null: it never was. */
  readonly startedAt: Date | null;
  /** Where its ports are published; none when it does not run. */
  readonly ports: readonly Port[];
  /** What it was told to be, besides its image, in the server's words. */
  readonly config: Readonly<Record<string, unknown>>;
  /** null also in lists. */
  readonly exit: SandboxExit | null;
}

/** What a sandbox uses; what only a running one can tell is null when it does not run. */
export interface SandboxMetrics {
  /** Of the sandbox. */
  readonly name: string;
  /** Where it is. */
  readonly namespace: string;
  /** How it is. */
  readonly state: SandboxState;
  /** Of one processor, since the look before. */
  readonly cpuPercent: number | null;
  /** What it uses of its memory. */
  readonly memoryBytes: number | null;
  /** Bytes that it has. */
  readonly memoryTotal: number | null;
  /** Bytes that what it has written takes. */
  readonly diskBytes: number;
  /** How many there are in it. */
  readonly processes: number | null;
  /** From the network. */
  readonly receivedBytes: number | null;
  /** To the network. */
  readonly sentBytes: number | null;
  /** Why some of it is not known. */
  readonly problem: string | null;
}

/** A line of a sandbox's log. */
export interface LogLine {
  /** When it was written. */
  readonly time: Date;
  /** Where to. */
  readonly stream: "stdout" | "stderr";
  /** With its newline, if it has one. */
  readonly text: string;
}

/** A file, a directory, or what else a path may be. */
export interface FileInfo {
  /** In a list without its directory, else the path as it was asked for. */
  readonly name: string;
  /** What it is. */
  readonly type: "file" | "directory" | "symlink" | "character_device" | "block_device" | "fifo" | "socket" | "unknown";
  /** Bytes. */
  readonly size: number;
  /** Permissions: 0o644. */
  readonly mode: number;
  /** Its owner. */
  readonly uid: number;
  /** Its group. */
  readonly gid: number;
  /** When its content changed the last time. */
  readonly modifiedAt: Date;
  /** Of a symbolic link. */
  readonly target: string | null;
}

/** How a process ended. */
export interface Exit {
  /** 128 and the signal's number when one ended it. */
  readonly exitCode: number;
  /** "KILL", for example. */
  readonly signal: string | null;
  /** Memory ran out. */
  readonly oomKilled: boolean;
  /** Its time was over, and it was killed. */
  readonly timedOut: boolean;
  /** Its code is 0, within its time. */
  readonly success: boolean;
}

/** A piece of what a process wrote, with where it is in all that it wrote to this stream. */
export class Output {
  /** What tells it apart from what is lost. */
  readonly type = "output";
  #text: string | undefined;

  /** @internal */
  constructor(
    /** Where it wrote to. */
    readonly stream: "stdout" | "stderr",
    /** As it came. */
    readonly data: Uint8Array,
    /** Of its first byte. */
    readonly offset: number,
    /** Of the first byte after it. */
    readonly next: number,
    text?: string,
  ) {
    this.#text = text;
  }

  /** What is not UTF-8 is replaced by U+FFFD. Pieces are cut between characters. */
  get text(): string {
    return this.#text ??= decoded(this.data);
  }
}

/** What a process wrote between two offsets is not kept any more. */
export interface Lost {
  /** What tells it apart from output. */
  readonly type: "lost";
  /** Where it wrote to. */
  readonly stream: "stdout" | "stderr";
  /** Of the first byte that is lost. */
  readonly offset: number;
  /** Of the first byte after it. */
  readonly next: number;
}

/** Bytes of each output of a process. */
export interface StreamOffsets {
  /** Of standard output. */
  readonly stdout: number;
  /** Of standard error. */
  readonly stderr: number;
}

/** A process that was started from outside. */
export interface ProcessInfo {
  /** What `command.attach()` takes. */
  readonly id: number;
  /** As programs in the sandbox see it. */
  readonly pid: number;
  /** Whether it goes on. */
  readonly state: "running" | "ended";
  /** What it was called when it was started. */
  readonly label: string;
  /** The first of its arguments. */
  readonly command: string;
  /** When it was started. */
  readonly startedAt: Date;
  /** Somebody follows it, or writes to it. */
  readonly attached: boolean;
  /** It was started to be kept; others end with whoever started them. */
  readonly kept: boolean;
  /** Its streams are a terminal. */
  readonly terminal: boolean;
  /** It has a standard input to write to. */
  readonly input: boolean;
  /** Bytes. */
  readonly written: StreamOffsets;
  /** The offset of the first byte that is still kept. */
  readonly oldest: StreamOffsets;
}

/** An interpreter that keeps its state. */
export interface SessionInfo {
  /** What it runs. */
  readonly language: string;
  /** What tells it apart from others of its language. */
  readonly name: string;
  /** Whether code runs in it. */
  readonly state: "free" | "in_use" | "ended";
  /** The id of its process. */
  readonly process: number;
  /** As programs in the sandbox see it. */
  readonly pid: number;
}

/** What the server allows, and the key, in the server's words. */
export interface ServerInfo {
  /** Of the server. */
  readonly version: string;
  /** What it allows. */
  readonly limits: Readonly<Record<string, unknown>>;
  /** What the key allows. */
  readonly key: Readonly<Record<string, unknown>>;
}

// From documents.

export function streamOf(from: Members): "stdout" | "stderr" {
  const stream = text(from, "stream");
  if (stream !== "stdout" && stream !== "stderr") throw new UnexpectedDocument(`'${stream}' is no stream`);
  return stream;
}

export function portOf(from: Members): Port {
  return {
    protocol: text(from, "protocol") as Port["protocol"],
    address: text(from, "address"),
    hostPort: number(from, "host_port"),
    guestPort: number(from, "guest_port"),
    url: optional(text, from, "url"),
  };
}

function sandboxExitOf(from: Members): SandboxExit {
  return {
    status: number(from, "status"),
    cause: text(from, "cause"),
    message: optional(text, from, "message"),
    endedAt: optional(time, from, "ended_at"),
  };
}

export function sandboxInfoOf(from: Members): SandboxInfo {
  return {
    name: text(from, "name"),
    namespace: text(from, "namespace"),
    state: text(from, "state") as SandboxState,
    image: text(from, "image"),
    labels: texts(from, "labels"),
    ephemeral: flag(from, "ephemeral"),
    createdAt: time(from, "created_at"),
    startedAt: nullable(time, from, "started_at"),
    ports: list(from, "ports", portOf),
    config: object(from, "config"),
    exit: optional((members, name) => sandboxExitOf(object(members, name)), from, "exit"),
  };
}

export function metricsOf(from: Members): SandboxMetrics {
  return {
    name: text(from, "name"),
    namespace: text(from, "namespace"),
    state: text(from, "state") as SandboxState,
    cpuPercent: nullable(number, from, "cpu_percent"),
    memoryBytes: nullable(number, from, "memory_bytes"),
    memoryTotal: nullable(number, from, "memory_total"),
    diskBytes: number(from, "disk_bytes"),
    processes: nullable(number, from, "processes"),
    receivedBytes: nullable(number, from, "received_bytes"),
    sentBytes: nullable(number, from, "sent_bytes"),
    problem: nullable(text, from, "problem"),
  };
}

export function logLineOf(from: Members): LogLine {
  return { time: time(from, "time"), stream: streamOf(from), text: text(from, "text") };
}

export function fileInfoOf(from: Members): FileInfo {
  return {
    name: text(from, "name"),
    type: text(from, "type") as FileInfo["type"],
    size: number(from, "size"),
    mode: parseInt(text(from, "mode"), 8),
    uid: number(from, "uid"),
    gid: number(from, "gid"),
    modifiedAt: time(from, "modified_at"),
    target: nullable(text, from, "target"),
  };
}

export function exitOf(from: Members): Exit {
  const exitCode = number(from, "exit_code");
  const timedOut = flag(from, "timed_out");
  return {
    exitCode,
    signal: nullable(text, from, "signal"),
    oomKilled: flag(from, "oom_killed"),
    timedOut,
    success: exitCode === 0 && !timedOut,
  };
}

export function outputOf(from: Members): Output {
  const written = from.text === undefined ? undefined : text(from, "text");
  const data = written === undefined ? bytesOf(text(from, "base64")) : encoded(written);
  return new Output(streamOf(from), data, number(from, "offset"), number(from, "next"), written);
}

function bytesOf(base64: string): Uint8Array {
  try {
    return fromBase64(base64);
  } catch {
    throw new UnexpectedDocument("it is no base64");
  }
}

export function lostOf(from: Members): Lost {
  return { type: "lost", stream: streamOf(from), offset: number(from, "offset"), next: number(from, "next") };
}

function offsetsOf(from: Members): StreamOffsets {
  return { stdout: number(from, "stdout"), stderr: number(from, "stderr") };
}

export function processInfoOf(from: Members): ProcessInfo {
  return {
    id: number(from, "id"),
    pid: number(from, "pid"),
    state: text(from, "state") as ProcessInfo["state"],
    label: text(from, "label"),
    command: text(from, "command"),
    startedAt: time(from, "started_at"),
    attached: flag(from, "attached"),
    kept: flag(from, "kept"),
    terminal: flag(from, "terminal"),
    input: flag(from, "input"),
    written: offsetsOf(object(from, "written")),
    oldest: offsetsOf(object(from, "oldest")),
  };
}

export function sessionInfoOf(from: Members): SessionInfo {
  return {
    language: text(from, "language"),
    name: text(from, "name"),
    state: text(from, "state") as SessionInfo["state"],
    process: number(from, "process"),
    pid: number(from, "pid"),
  };
}

export function serverInfoOf(from: Members): ServerInfo {
  return { version: text(from, "version"), limits: object(from, "limits"), key: object(from, "key") };
}
