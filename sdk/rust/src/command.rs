// SPDX-License-Identifier: Apache-2.0
//! Commands of a sandbox.

use std::time::Duration;

use reqwest::Method;
use serde_json::{json, Map, Value};

use crate::call::Call;
use crate::document::small;
use crate::error::Result;
use crate::events::{event_stream, events_of, Events, Fault, Reader, Step};
use crate::process::Process;
use crate::results::{CommandResult, Exit, Output};
use crate::sandbox::Sandbox;

/// A command: [`Sandbox::command`] gives it. It is built as one of `std::process` is.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> microsandbox::Result<()> {
/// # let sandbox = microsandbox::Sandbox::create("python").await?;
/// let ran = sandbox.command("sh").args(["-c", "cat; exit 3"]).stdin("in\n").run().await?;
/// assert_eq!((ran.stdout.as_str(), ran.exit_code()), ("in\n", 3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "run(), stream() or start() runs the command"]
pub struct CommandBuilder<'a> {
    sandbox: &'a Sandbox,
    command: Vec<String>,
    envs: Vec<String>,
    words: Map<String, Value>,
    stdin: Option<(&'static str, String)>,
    background: Map<String, Value>,
}

impl<'a> CommandBuilder<'a> {
    pub(crate) fn of(sandbox: &'a Sandbox, program: String) -> Self {
        Self {
            sandbox,
            command: vec![program],
            envs: Vec::new(),
            words: Map::new(),
            stdin: None,
            background: Map::new(),
        }
    }

    fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.words.insert(name.into(), value.into());
        self
    }

    fn of_background(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.background.insert(name.into(), value.into());
        self
    }

    /// An argument.
    pub fn arg(mut self, word: impl Into<String>) -> Self {
        self.command.push(word.into());
        self
    }

    /// Arguments.
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, words: I) -> Self {
        self.command.extend(words.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment, besides the sandbox's own.
    pub fn env(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.envs.push(format!("{}={}", name.as_ref(), value.as_ref()));
        self
    }

    /// The directory in which it begins: an absolute path.
    pub fn workdir(self, path: impl Into<String>) -> Self {
        self.set("workdir", path.into())
    }

    /// Whose it is: USER or USER:GROUP, by names or numbers.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.set("user", user.into())
    }

    /// After which it is killed: its result says that it timed out then.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", timeout.as_secs_f64())
    }

    /// Its standard input, of `run` and `stream`; empty unless said.
    pub fn stdin(mut self, data: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(match std::str::from_utf8(data.as_ref()) {
            Ok(text) => ("stdin", text.into()),
            Err(_) => ("stdin_base64", base64::encode(data)),
        });
        self
    }

    /// Of `start`: [`Process::write`] writes to its standard input.
    pub fn input(self, input: bool) -> Self {
        self.of_background("input", input)
    }

    /// Of `start`: its streams are a terminal of this size.
    pub fn terminal(self, rows: u16, columns: u16) -> Self {
        self.of_background("terminal", json!({"rows": rows, "columns": columns}))
    }

    /// Of `start`: what lists call it.
    pub fn label(self, label: impl Into<String>) -> Self {
        self.of_background("label", label.into())
    }

    /// Of `start`: bytes of each output that stay readable, from 1 MiB on.
    pub fn keep(self, bytes: u64) -> Self {
        self.of_background("keep", bytes)
    }

    fn document(&mut self) -> Map<String, Value> {
        let mut document = std::mem::take(&mut self.words);
        document.insert("command".into(), json!(self.command));
        if !self.envs.is_empty() {
            document.insert("envs".into(), json!(self.envs));
        }
        document
    }

    fn execution(&mut self) -> Value {
        let mut document = self.document();
        if let Some((name, stdin)) = self.stdin.take() {
            document.insert(name.into(), stdin.into());
        }
        document.into()
    }

    /// Runs it to its end. When this is abandoned, it is killed.
    pub async fn run(mut self) -> Result<CommandResult> {
        let call = self.sandbox.call(Method::POST, &["exec"]);
        let call = call.document(self.execution()).patience(None);
        let reply = self.sandbox.client().send(call).await?;
        reply.read(|document| CommandResult::of(self.command, document))
    }

    /// The same, with what it writes while it runs. It begins with the first look.
    pub fn stream(mut self) -> CommandStream {
        let reader = Execution {
            name: self.sandbox.name().into(),
            namespace: self.sandbox.namespace().into(),
            document: self.execution(),
            started: None,
            exit: None,
        };
        CommandStream(Events::new(self.sandbox.client().clone(), reader))
    }

    /// Starts it in the background: it goes on until it ends or is removed, whoever is connected.
    pub async fn start(mut self) -> Result<Process> {
        let mut document = self.document();
        document.append(&mut self.background);
        let call = self.sandbox.call(Method::POST, &["processes"]).document(document.into());
        let reply = self.sandbox.client().send(call).await?;
        let (id, pid) = reply.read(|document| Ok((small(document, "id")?, small(document, "pid")?)))?;
        Ok(Process::of(self.sandbox, id, pid))
    }
}

pub(crate) struct Execution {
    name: String,
    namespace: String,
    document: Value,
    started: Option<(u32, u32)>,
    exit: Option<Exit>,
}

impl Reader for Execution {
    type Event = Output;

    fn call(&self) -> Call {
        let call = Call::of(Method::POST, &self.name, &["exec"]).query("namespace", &self.namespace);
        events_of(call.document(self.document.clone()))
    }

    fn event(&mut self, kind: &str, document: &Value) -> Result<Step<Output>, Fault> {
        match kind {
            "output" => return Ok(Step::Event(Output::of(document)?)),
            "started" => self.started = Some((small(document, "id")?, small(document, "pid")?)),
            "exited" => {
                self.exit = Some(Exit::of(document)?);
                return Ok(Step::End);
            }
            _ => {}
        }
        Ok(Step::Passed)
    }
}

event_stream!(
    /// What a command writes, while it runs. When this is dropped before its end, the command is killed.
    CommandStream,
    Execution,
    Output
);

impl CommandStream {
    /// How it ended, once it has.
    pub fn exit(&self) -> Option<&Exit> {
        self.0.reader.exit.as_ref()
    }

    /// What the processes' list calls it, once it runs.
    pub fn id(&self) -> Option<u32> {
        self.0.reader.started.map(|(id, _)| id)
    }

    /// As programs in the sandbox see it, once it runs.
    pub fn pid(&self) -> Option<u32> {
        self.0.reader.started.map(|(_, pid)| pid)
    }
}
