// SPDX-License-Identifier: Apache-2.0
//! Code in interpreters that keep their state.

use std::time::Duration;

use reqwest::Method;
use serde_json::{json, Map, Value};

use crate::call::Call;
use crate::client::Client;
use crate::error::Result;
use crate::events::{event_stream, events_of, Events, Fault, Reader, Step};
use crate::results::{CodeOutput, CodeResult};
use crate::sandbox::Sandbox;

/// Code to run: [`Sandbox::code`] gives it.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> microsandbox::Result<()> {
/// # let sandbox = microsandbox::Sandbox::create("python").await?;
/// let result = sandbox.code("echo $((6 * 7))").language("shell").session("sums").run().await?;
/// assert_eq!(result.stdout(), "42\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "run() or stream() runs the code"]
pub struct CodeBuilder<'a> {
    sandbox: &'a Sandbox,
    document: Map<String, Value>,
}

impl<'a> CodeBuilder<'a> {
    pub(crate) fn of(sandbox: &'a Sandbox, code: String) -> Self {
        let builder = Self { sandbox, document: Map::new() };
        builder.set("code", code).set("language", "python")
    }

    fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.document.insert(name.into(), value.into());
        self
    }

    /// "python", "javascript" or "shell"; Python unless said.
    pub fn language(self, language: impl Into<String>) -> Self {
        self.set("language", language.into())
    }

    /// Runs in the same session find what earlier ones left; "main" unless said.
    pub fn session(self, session: impl Into<String>) -> Self {
        self.set("session", session.into())
    }

    /// After which it is interrupted: its result has the status [`Timeout`](crate::CodeStatus::Timeout) then.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", timeout.as_secs_f64())
    }

    /// Runs it to its end. What goes wrong in the code is a result. When this is abandoned, the code is interrupted.
    pub async fn run(self) -> Result<CodeResult> {
        let language = self.document["language"].as_str().unwrap_or_default().to_string();
        let call = self.sandbox.call(Method::POST, &["code"]);
        let call = call.document(self.document.into()).patience(None);
        let reply = self.sandbox.client().send(call).await?;
        reply.read(|document| CodeResult::of(&language, document, None))
    }

    /// The same, with what it gives while it runs. The code begins with the first look.
    pub fn stream(self) -> CodeStream {
        let reader = Code {
            name: self.sandbox.name().into(),
            namespace: self.sandbox.namespace().into(),
            document: self.document,
            outputs: Vec::new(),
            result: None,
        };
        let client: Client = self.sandbox.client().clone();
        CodeStream(Events::new(client, reader))
    }
}

pub(crate) async fn interrupt(sandbox: &Sandbox, language: &str, session: &str) -> Result<()> {
    let call = sandbox.call(Method::POST, &["sessions", language, session, "interrupt"]);
    sandbox.client().send(call).await.map(drop)
}

pub(crate) struct Code {
    name: String,
    namespace: String,
    document: Map<String, Value>,
    outputs: Vec<CodeOutput>,
    result: Option<CodeResult>,
}

impl Reader for Code {
    type Event = CodeOutput;

    fn call(&self) -> Call {
        let call = Call::of(Method::POST, &self.name, &["code"]).query("namespace", &self.namespace);
        events_of(call.document(json!(self.document)))
    }

    fn event(&mut self, kind: &str, document: &Value) -> Result<Step<CodeOutput>, Fault> {
        match kind {
            "done" => {
                let language = self.document["language"].as_str().unwrap_or_default();
                let outputs = std::mem::take(&mut self.outputs);
                self.result = Some(CodeResult::of(language, document, Some(outputs))?);
                Ok(Step::End)
            }
            "stream" | "display" | "result" | "error" => {
                let output = CodeOutput::of(kind, document)?;
                self.outputs.push(output.clone());
                Ok(Step::Event(output))
            }
            _ => Ok(Step::Passed),
        }
    }
}

event_stream!(
    /// What code gives, while it runs. When this is dropped before its end, the code is interrupted.
    CodeStream,
    Code,
    CodeOutput
);

impl CodeStream {
    /// Of all of it, once it has ended.
    pub fn result(&self) -> Option<&CodeResult> {
        self.0.reader.result.as_ref()
    }
}
