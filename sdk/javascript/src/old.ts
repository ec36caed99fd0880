// SPDX-License-Identifier: Apache-2.0
// All that the package of microsandbox 0.2 exports, by its names.

export { CommandExecution, Execution } from "./executions.js";
export { BaseSandbox, LanguageCommand as Command, LanguageMetrics as Metrics, NodeSandbox, PythonSandbox } from "./language.js";
export { SandboxOptions } from "./options.js";
