// SPDX-License-Identifier: Apache-2.0
//! What `PythonSandbox` and `NodeSandbox` give of code and commands.

use std::fmt;
use std::marker::PhantomData;

use serde_json::Value;

use crate::sandbox_error::BoxedError;
use crate::types::SandboxMetrics;

#[derive(Clone, Debug)]
struct Line {
    stream: String,
    text: String,
}

fn word(document: &Value, name: &str, otherwise: &str) -> String {
    document[name].as_str().unwrap_or(otherwise).to_string()
}

fn lines(document: &Value) -> Vec<Line> {
    let lines = document["output"].as_array().into_iter().flatten();
    lines.map(|line| Line { stream: word(line, "stream", ""), text: word(line, "text", "") }).collect()
}

/// One line after the other, as 0.2 has them here: nothing else is cut off.
fn written(lines: &[Line], stream: &str) -> String {
    let texts = lines.iter().filter(|line| line.stream == stream);
    texts.map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// What code gave.
pub struct Execution<E = BoxedError> {
    status: String,
    language: String,
    lines: Vec<Line>,
    error: PhantomData<fn() -> E>,
}

impl<E> Execution<E> {
    pub(crate) fn of(document: &Value) -> Self {
        Self {
            status: word(document, "status", "unknown"),
            language: word(document, "language", "unknown"),
            lines: lines(document),
            error: PhantomData,
        }
    }

    /// What it wrote to standard output, without its last newline.
    pub async fn output(&self) -> Result<String, E> {
        Ok(written(&self.lines, "stdout"))
    }

    /// The same of standard error.
    pub async fn error(&self) -> Result<String, E> {
        Ok(written(&self.lines, "stderr"))
    }

    /// Also when it wrote to standard error only.
    pub fn has_error(&self) -> bool {
        let wrote = |line: &Line| line.stream == "stderr" && !line.text.is_empty();
        ["error", "exception"].contains(&self.status()) || self.lines.iter().any(wrote)
    }

    /// "success" or "error".
    pub fn status(&self) -> &str {
        &self.status
    }

    /// "python" or "nodejs".
    pub fn language(&self) -> &str {
        &self.language
    }
}

// Not derived, which would ask the same of `E`.
impl<E> Clone for Execution<E> {
    fn clone(&self) -> Self {
        Self {
            status: self.status.clone(),
            language: self.language.clone(),
            lines: self.lines.clone(),
            error: PhantomData,
        }
    }
}

impl<E> fmt::Debug for Execution<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("status", &self.status)
            .field("language", &self.language)
            .field("lines", &self.lines)
            .finish()
    }
}

/// How a command ended, and what it wrote.
pub struct CommandExecution<E = BoxedError> {
    command: String,
    args: Vec<String>,
    exit_code: i32,
    success: bool,
    lines: Vec<Line>,
    error: PhantomData<fn() -> E>,
}

impl<E> CommandExecution<E> {
    pub(crate) fn of(document: &Value) -> Self {
        let args = document["args"].as_array().into_iter().flatten();
        Self {
            command: word(document, "command", ""),
            args: args.filter_map(Value::as_str).map(str::to_string).collect(),
            exit_code: document["exit_code"].as_i64().and_then(|code| code.try_into().ok()).unwrap_or(-1),
            success: document["success"].as_bool().unwrap_or(false),
            lines: lines(document),
            error: PhantomData,
        }
    }

    /// What it wrote to standard output, without its last newline.
    pub async fn output(&self) -> Result<String, E> {
        Ok(written(&self.lines, "stdout"))
    }

    /// The same of standard error.
    pub async fn error(&self) -> Result<String, E> {
        Ok(written(&self.lines, "stderr"))
    }

    /// 128 and the signal's number when one ended it.
    pub fn exit_code(&self) -> i32 {
        self.exit_code
    }

    /// Its code is 0.
    pub fn is_success(&self) -> bool {
        self.success
    }

    /// The same, as 0.2's reference calls it.
    pub fn success(&self) -> bool {
        self.success
    }

    /// The program.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Its arguments.
    pub fn args(&self) -> &[String] {
        &self.args
    }
}

impl<E> Clone for CommandExecution<E> {
    fn clone(&self) -> Self {
        Self {
            command: self.command.clone(),
            args: self.args.clone(),
            exit_code: self.exit_code,
            success: self.success,
            lines: self.lines.clone(),
            error: PhantomData,
        }
    }
}

impl<E> fmt::Debug for CommandExecution<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandExecution")
            .field("command", &self.command)
            .field("args", &self.args)
            .field("exit_code", &self.exit_code)
            .field("success", &self.success)
            .field("lines", &self.lines)
            .finish()
    }
}

/// What a sandbox uses: `metrics().get()`. What is not known is 0.
#[derive(Clone, Debug)]
pub struct Usage(SandboxMetrics);

impl Usage {
    pub(crate) fn of(metrics: SandboxMetrics) -> Self {
        Self(metrics)
    }

    /// Percent of a processor.
    pub fn cpu_usage(&self) -> f64 {
        self.0.cpu_percent.unwrap_or(0.0)
    }

    /// Bytes.
    pub fn memory_usage(&self) -> u64 {
        self.0.memory_bytes.unwrap_or(0)
    }

    /// Bytes.
    pub fn disk_usage(&self) -> u64 {
        self.0.disk_bytes
    }

    /// Bytes that it received and sent.
    pub fn network_usage(&self) -> u64 {
        self.0.received_bytes.unwrap_or(0) + self.0.sent_bytes.unwrap_or(0)
    }
}
