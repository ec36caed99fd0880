// SPDX-License-Identifier: Apache-2.0
// What `PythonSandbox` and `NodeSandbox` give of code and commands, as microsandbox 0.2 has it.

/** A line that was written. */
export interface OutputLine {
  /** Where to. */
  stream: "stdout" | "stderr";
  /** Without its newline. */
  text: string;
}

/** What the server tells of code, or of a command. */
export interface OutputData {
  /** What was written, in order. */
  output?: OutputLine[];
  /** Of code: "success" or "error". */
  status?: string;
  /** Of code: "python" or "nodejs". */
  language?: string;
  /** Of a command: its code is 0. */
  success?: boolean;
  /** Of a command. */
  exit_code?: number;
  /** The program. */
  command?: string;
  /** Its arguments. */
  args?: string[];
}

/** What was written, line by line. */
abstract class Written {
  /** @internal */
  protected readonly data: OutputData;

  constructor(outputData?: OutputData) {
    this.data = outputData ?? {};
  }

  /** To standard output, without white space around it. */
  async output(): Promise<string> {
    return this.#text("stdout");
  }

  /** The same of standard error. */
  async error(): Promise<string> {
    return this.#text("stderr");
  }

  #text(stream: OutputLine["stream"]): string {
    const lines = (this.data.output ?? []).filter(line => line.stream === stream);
    return lines.map(line => line.text).join("\n").trim();
  }
}

/** What code gave. */
export class Execution extends Written {
  /** Also when it wrote to standard error only. */
  hasError(): boolean {
    return ["error", "exception"].includes(this.status)
      || (this.data.output ?? []).some(line => line.stream === "stderr" && !!line.text);
  }

  /** "success" or "error". */
  get status(): string {
    return this.data.status || "unknown";
  }

  /** "python" or "nodejs". */
  get language(): string {
    return this.data.language || "unknown";
  }
}

/** How a command ended, and what it wrote. */
export class CommandExecution extends Written {
  /** 128 and the signal's number when one ended it. */
  get exitCode(): number {
    return this.data.exit_code ?? -1;
  }

  /** Its code is 0. */
  get success(): boolean {
    return this.data.success ?? false;
  }

  /** The program. */
  get command(): string {
    return this.data.command ?? "";
  }

  /** Its arguments. */
  get args(): string[] {
    return this.data.args ?? [];
  }
}
