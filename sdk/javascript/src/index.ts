// SPDX-License-Identifier: Apache-2.0
// Sandboxes: virtual machines for running code that is not trusted.
//
//     await using sandbox = await Sandbox.create("python");
//     console.log((await sandbox.run("6 * 7")).text);
//
// `PythonSandbox` and `NodeSandbox` are those of microsandbox 0.2.

export { Client, type ClientOptions, type ConnectionOptions } from "./client.js";
export type { CallOptions } from "./call.js";
export type { Command as SandboxCommand, CommandOptions, Envs, ExecutionOptions, Process, StartOptions } from "./command.js";
export { asyncDispose } from "./dispose.js";
export {
  AuthenticationError, BrokenConnectionError, CodeError, CommandError, ConflictError, DetachedError, ForbiddenError, FullError,
  InvalidRequestError, MicrosandboxError, NotFoundError, NotUnderstoodError, SandboxFailedError, ServerError, TimedOutError,
  TooLargeError, UnavailableError, UnreachableError, type ErrorDetails,
} from "./errors.js";
export type { Content, Files, WriteOptions } from "./files.js";
export type { OutputData, OutputLine } from "./executions.js";
export * from "./old.js";
export * as default from "./old.js";  // 0.2's, which is CommonJS, is imported as a whole as well
export type { SandboxOptionsBuilder, StartConfig } from "./options.js";
export type { CodeFailure, CodeOutput, CodeStatus, CommandResult, Result, Text, Value } from "./results.js";
export {
  Sandbox, type CreateOptions, type ListOptions, type PlaceOptions, type RunOptions, type SessionOptions,
} from "./sandbox.js";
export type { CodeStream, CommandStream, EventStream, LogStream, ProcessStream } from "./streams.js";
export type { Fetch } from "./transport_fetch.js";
export type {
  Exit, FileInfo, LogLine, Lost, Output, Port, ProcessInfo, SandboxExit, SandboxInfo, SandboxMetrics, SandboxState, ServerInfo,
  SessionInfo, StreamOffsets,
} from "./types.js";
