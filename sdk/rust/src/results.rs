// SPDX-License-Identifier: Apache-2.0
//! What code and commands gave.

use std::collections::BTreeMap;

use serde_json::Value as Document;

use crate::document::{flag, integer, list, optional, optional_text, small, text, texts, Malformed, Parsed};
use crate::error::{Error, ErrorKind, Result};
use crate::types::OutputStream;
use crate::words::words;

words! {
    /// How code ended.
    CodeStatus {
        /// Well.
        Ok = "ok",
        /// With an error.
        Error = "error",
        /// Its time was over, and it was interrupted.
        Timeout = "timeout",
        /// Somebody interrupted it.
        Interrupted = "interrupted",
        /// It did not end when it was interrupted.
        Stuck = "stuck",
        /// The interpreter did, with it.
        Ended = "ended",
    }
}

/// One thing that code gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeOutput {
    /// What it wrote.
    Text {
        /// Where to.
        stream: OutputStream,
        /// What.
        text: String,
    },
    /// What it showed, or the value of its last expression.
    Value(Shown),
    /// What ended it.
    Failure(Failure),
}

/// A value, in all representations that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shown {
    /// It is the value of the last expression.
    pub is_result: bool,
    /// By MIME type; what is binary in base64.
    pub data: BTreeMap<String, String>,
}

impl Shown {
    /// As a terminal would show it.
    pub fn text(&self) -> &str {
        self.data.get("text/plain").map_or("", String::as_str)
    }

    /// A representation: `bytes("image/png")`. None when there is none.
    pub fn bytes(&self, mime: &str) -> Option<Vec<u8>> {
        let said = self.data.get(mime)?;
        if mime.starts_with("text/") || mime == "image/svg+xml" || mime == "application/json" {
            Some(said.clone().into_bytes())
        } else {
            base64::decode(said).ok()
        }
    }
}

/// What ended code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// "ValueError".
    pub name: String,
    /// What it says.
    pub message: String,
    /// Where it came from, line by line.
    pub traceback: Vec<String>,
}

impl CodeOutput {
    pub(crate) fn of(kind: &str, document: &Document) -> Parsed<Self> {
        match kind {
            "stream" => Ok(Self::Text { stream: OutputStream::of(document, "stream")?, text: text(document, "text")? }),
            "display" | "result" => {
                Ok(Self::Value(Shown { is_result: kind == "result", data: texts(document, "data")? }))
            }
            "error" => Ok(Self::Failure(Failure {
                name: text(document, "name")?,
                message: text(document, "message")?,
                traceback: list(document, "traceback", crate::document::as_text)?,
            })),
            _ => Err(Malformed),
        }
    }
}

/// What code gave, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeResult {
    /// As it was asked for.
    pub language: String,
    /// How it ended.
    pub status: CodeStatus,
    /// All that it gave, in order.
    pub outputs: Vec<CodeOutput>,
    /// Of a shell's last command, or with which the code asked to exit.
    pub exit_status: Option<i64>,
    /// Of [`CodeStatus::Stuck`] and [`CodeStatus::Ended`].
    pub reason: Option<String>,
    /// There was more than is told.
    pub truncated: bool,
}

impl CodeResult {
    pub(crate) fn of(language: &str, document: &Document, outputs: Option<Vec<CodeOutput>>) -> Parsed<Self> {
        Ok(Self {
            language: language.into(),
            status: CodeStatus::of(document, "status")?,
            outputs: match outputs {
                Some(outputs) => outputs,
                None => list(document, "outputs", |one| CodeOutput::of(&text(one, "type")?, one))?,
            },
            exit_status: optional(document, "exit_status", |value| value.as_i64().ok_or(Malformed))?,
            reason: optional_text(document, "reason")?,
            truncated: flag(document, "truncated")?,
        })
    }

    /// It ended well.
    pub fn ok(&self) -> bool {
        self.status == CodeStatus::Ok
    }

    fn written(&self, to: &OutputStream) -> String {
        let texts = self.outputs.iter().filter_map(|one| match one {
            CodeOutput::Text { stream, text } if stream == to => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// What it wrote to standard output.
    pub fn stdout(&self) -> String {
        self.written(&OutputStream::Stdout)
    }

    /// What it wrote to standard error.
    pub fn stderr(&self) -> String {
        self.written(&OutputStream::Stderr)
    }

    /// What it showed, and the value of its last expression.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Shown> {
        self.outputs.iter().filter_map(|one| match one {
            CodeOutput::Value(value) => Some(value),
            _ => None,
        })
    }

    /// That of its last expression.
    pub fn value(&self) -> Option<&Shown> {
        self.values().rev().find(|value| value.is_result)
    }

    /// What ended it.
    pub fn error(&self) -> Option<&Failure> {
        self.outputs.iter().rev().find_map(|one| match one {
            CodeOutput::Failure(failure) => Some(failure),
            _ => None,
        })
    }

    /// The PNGs that it showed.
    pub fn pictures(&self) -> Vec<Vec<u8>> {
        self.values().filter_map(|value| value.bytes("image/png")).collect()
    }

    /// All of it as a terminal would show it: what was written, values, and a traceback.
    pub fn text(&self) -> String {
        let mut said = String::new();
        for one in &self.outputs {
            let apart = !said.is_empty() && !said.ends_with('\n');
            if apart && !matches!(one, CodeOutput::Text { .. }) {
                said.push('\n');
            }
            match one {
                CodeOutput::Text { text, .. } => said.push_str(text),
                CodeOutput::Value(value) => said.push_str(value.text()),
                CodeOutput::Failure(failure) if failure.traceback.is_empty() => {
                    said.extend([&failure.name, ": ", &failure.message]);
                }
                CodeOutput::Failure(failure) => said.push_str(&failure.traceback.join("\n")),
            }
        }
        said
    }

    /// Itself; an error of [`ErrorKind::Code`] when the code did not end well.
    pub fn check(self) -> Result<Self> {
        if self.ok() {
            return Ok(self);
        }
        let why = match (self.error(), &self.reason) {
            (Some(failure), _) => format!("{}: {}", failure.name, failure.message),
            (None, Some(reason)) => reason.clone(),
            (None, None) => format!("its status is {}", self.status),
        };
        let message = format!("the {} code failed: {why}", self.language);
        Err(Error::new(ErrorKind::Code, self.status.as_str(), message))
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// 128 and the signal's number when one ended it.
    pub exit_code: i32,
    /// "KILL".
    pub signal: Option<String>,
    /// The memory ran out.
    pub oom_killed: bool,
    /// Its time was over.
    pub timed_out: bool,
}

impl Exit {
    pub(crate) fn of(document: &Document) -> Parsed<Self> {
        Ok(Self {
            exit_code: small(document, "exit_code")?,
            signal: optional_text(document, "signal")?,
            oom_killed: flag(document, "oom_killed")?,
            timed_out: flag(document, "timed_out")?,
        })
    }

    /// Its code is 0, and it ended in time.
    pub fn success(&self) -> bool {
        self.exit_code == 0 && !self.timed_out
    }
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandResult {
    /// How it ended.
    pub exit: Exit,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Bytes that are no UTF-8 are replaced by U+FFFD; a stream has them as they are.
    pub stdout: String,
    /// The same of standard error.
    pub stderr: String,
    /// There was more than 8 MiB of one of them.
    pub truncated: bool,
}

impl CommandResult {
    pub(crate) fn of(command: Vec<String>, document: &Document) -> Parsed<Self> {
        Ok(Self {
            exit: Exit::of(document)?,
            command,
            stdout: text(document, "stdout")?,
            stderr: text(document, "stderr")?,
            truncated: flag(document, "truncated")?,
        })
    }

    /// Of the command; 128 and the signal's number when one ended it.
    pub fn exit_code(&self) -> i32 {
        self.exit.exit_code
    }

    /// Its code is 0, and it ended in time.
    pub fn success(&self) -> bool {
        self.exit.success()
    }

    /// Itself; an error of [`ErrorKind::Command`] when the command did not succeed.
    pub fn check(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        let how = match (&self.exit.signal, self.exit.timed_out) {
            (_, true) => "it took too long".to_string(),
            (Some(signal), _) => format!("signal {signal}"),
            (None, _) => format!("status {}", self.exit.exit_code),
        };
        let last = match self.stderr.trim().lines().last() {
            Some(line) => format!(": {line}"),
            None => String::new(),
        };
        let program = self.command.first().map_or("", String::as_str);
        Err(Error::new(ErrorKind::Command, "failed", format!("'{program}' failed: {how}{last}")))
    }
}

/// A piece of what a process wrote, with where it is in all that it wrote to this stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// Where to.
    pub stream: OutputStream,
    /// What.
    pub data: bytes::Bytes,
    /// Of its first byte.
    pub offset: u64,
    /// Of the first byte after it.
    pub next: u64,
}

impl Output {
    pub(crate) fn of(document: &Document) -> Parsed<Self> {
        let data = match optional_text(document, "text")? {
            Some(text) => text.into(),
            None => base64::decode(text(document, "base64")?).map_err(|_| Malformed)?.into(),
        };
        Ok(Self {
            stream: OutputStream::of(document, "stream")?,
            data,
            offset: integer(document, "offset")?,
            next: integer(document, "next")?,
        })
    }

    /// What is not UTF-8 is replaced by U+FFFD. Pieces are cut between characters.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.data)
    }
}

/// What comes of a process that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessOutput {
    /// A piece of what it wrote.
    Output(Output),
    /// What it wrote between two offsets is not kept any more.
    Lost {
        /// Where to.
        stream: OutputStream,
        /// Where it was to go on.
        offset: u64,
        /// Where it does.
        next: u64,
    },
}

impl ProcessOutput {
    pub(crate) fn of(kind: &str, document: &Document) -> Parsed<Self> {
        if kind == "output" {
            return Output::of(document).map(Self::Output);
        }
        Ok(Self::Lost {
            stream: OutputStream::of(document, "stream")?,
            offset: integer(document, "offset")?,
            next: integer(document, "next")?,
        })
    }
}
