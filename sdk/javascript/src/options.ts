// SPDX-License-Identifier: Apache-2.0
// How `PythonSandbox` and `NodeSandbox` are told what to be, as microsandbox 0.2 has it.

import type { CallOptions } from "./call.js";
import type { ConnectionOptions } from "./client.js";

/** What a sandbox is told besides what the arguments of `start()` say. */
export interface StartConfig {
  /** "HOST:GUEST": directories of the server's host, where its operator allows it. */
  volumes?: string[];
  /** "HOST:GUEST". */
  ports?: string[];
  /** "NAME=VALUE". */
  envs?: string[];
  /** Sandboxes that are to run. */
  dependsOn?: string[];
  /** The directory in which programs begin. */
  workdir?: string;
  /** The shell of its scripts. */
  shell?: string;
  /** Scripts by their names. */
  scripts?: Record<string, string>;
  /** What runs in it. */
  exec?: string;
}

/** What a sandbox is to be, and where. */
export interface SandboxOptions extends ConnectionOptions, StartConfig, CallOptions {
  /** "default" unless said. */
  namespace?: string;
  /** One is made up unless said. */
  name?: string;
  /** That of the language unless said. */
  image?: string;
  /** MiB; 512 unless said. */
  memory?: number;
  /** Rounded; 1 unless said. */
  cpus?: number;
  /** Seconds that a start may take; 180 unless said. */
  timeout?: number;
}

type Settable = Omit<SandboxOptions, "fetch" | "signal">;

/** Each of its methods sets one option, and gives the builder. */
export type SandboxOptionsBuilder = {
  [Name in keyof Settable]-?: (value: NonNullable<Settable[Name]>) => SandboxOptionsBuilder;
} & {
  /** What was said. */
  build(): SandboxOptions;
};

const NAMES: readonly (keyof Settable)[] = [
  "serverUrl", "namespace", "name", "apiKey", "image", "memory", "cpus", "volumes", "ports", "envs", "dependsOn", "workdir",
  "shell", "scripts", "exec", "timeout",
];

/** The same, said option by option. */
export const SandboxOptions = {
  /** With nothing said yet. */
  builder(): SandboxOptionsBuilder {
    const options: Record<string, unknown> = {};
    const builder: Record<string, unknown> = { build: () => ({ ...options }) };
    for (const name of NAMES) {
      builder[name] = (value: unknown) => {
        options[name] = value;
        return builder;
      };
    }
    return builder as SandboxOptionsBuilder;
  },
};
