// SPDX-License-Identifier: Apache-2.0
//! What `PythonSandbox` and `NodeSandbox` give of code and commands.

use serde_json::Value;

use crate::language::SandboxError;

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

fn written(lines: &[Line], stream: &str) -> String {
    let texts = lines.iter().filter(|line| line.stream == stream);
    let texts: Vec<&str> = texts.map(|line| line.text.as_str()).collect();
    texts.join("\n").trim_end().to_string()
}

/// What code gave.
#[derive(Clone, Debug)]
pub struct Execution {
    status: String,
    language: String,
    lines: Vec<Line>,
}

impl Execution {
    pub(crate) fn of(document: &Value) -> Self {
        Self {
            status: word(document, "status", "unknown"),
            language: word(document, "language", "unknown"),
            lines: lines(document),
        }
    }

    /// What it wrote to standard output, without white space at its end.
    pub async fn output(&self) -> Result<String, SandboxError> {
        Ok(written(&self.lines, "stdout"))
    }

    /// The same of standard error.
    pub async fn error(&self) -> Result<String, SandboxError> {
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

/// How a command ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct CommandExecution {
    command: String,
    args: Vec<String>,
    exit_code: i32,
    success: bool,
    lines: Vec<Line>,
}

impl CommandExecution {
    pub(crate) fn of(document: &Value) -> Self {
        let args = document["args"].as_array().into_iter().flatten();
        Self {
            command: word(document, "command", ""),
            args: args.filter_map(Value::as_str).map(str::to_string).collect(),
            exit_code: document["exit_code"].as_i64().and_then(|code| code.try_into().ok()).unwrap_or(-1),
            success: document["success"].as_bool().unwrap_or(false),
            lines: lines(document),
        }
    }

    /// What it wrote to standard output, without white space at its end.
    pub async fn output(&self) -> Result<String, SandboxError> {
        Ok(written(&self.lines, "stdout"))
    }

    /// The same of standard error.
    pub async fn error(&self) -> Result<String, SandboxError> {
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

    /// The program.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Its arguments.
    pub fn args(&self) -> &[String] {
        &self.args
    }
}
