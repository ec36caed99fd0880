// SPDX-License-Identifier: Apache-2.0
//! Processes in the background.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::{json, Value};

use crate::call::Call;
use crate::client::Client;
use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{event_stream, events_of, Events, Fault, Reader, Step};
use crate::results::{Exit, ProcessOutput};
use crate::sandbox::Sandbox;
use crate::types::{Offsets, OutputStream, ProcessInfo};

/// A process that goes on until it ends or is removed, whoever is connected. Dropping this changes nothing about it.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> microsandbox::Result<()> {
/// # let sandbox = microsandbox::Sandbox::create("python").await?;
/// let process = sandbox.command("cat").input(true).start().await?;
/// process.write("hello\n").await?;
/// process.close_input().await?;
///
/// let again = sandbox.attach(process.id()).await?;
/// assert_eq!(again.wait().await?.exit_code, 0);
/// # Ok(())
/// # }
/// ```
pub struct Process {
    client: Client,
    name: String,
    namespace: String,
    id: u32,
    pid: u32,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process {} of the sandbox '{}'", self.id, self.name)
    }
}

/// A signal: its name ("TERM" or "SIGTERM"), or its number.
#[derive(Clone, Debug)]
pub struct Signal(Value);

impl From<&str> for Signal {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<i32> for Signal {
    fn from(number: i32) -> Self {
        Self(number.into())
    }
}

impl Process {
    pub(crate) fn of(sandbox: &Sandbox, id: u32, pid: u32) -> Self {
        Self {
            client: sandbox.client().clone(),
            name: sandbox.name().into(),
            namespace: sandbox.namespace().into(),
            id,
            pid,
        }
    }

    /// What [`Sandbox::attach`] takes.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// As programs in the sandbox see it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn call(&self, method: Method, rest: &[&str]) -> Call {
        let id = self.id.to_string();
        Call::of(method, &self.name, &[&["processes", &id], rest].concat()).query("namespace", &self.namespace)
    }

    /// How it is.
    pub async fn info(&self) -> Result<ProcessInfo> {
        self.client.send(self.call(Method::GET, &[])).await?.read(ProcessInfo::of)
    }

    /// What it wrote, from the first byte that is kept on, and what it writes until its end.
    pub fn output(&self) -> ProcessStream {
        self.output_from(Offsets::default(), true)
    }

    /// The same from these offsets on; not to `follow` it: what there is by now.
    pub fn output_from(&self, offsets: Offsets, follow: bool) -> ProcessStream {
        let reader = Following {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            id: self.id,
            follow,
            breaks: 0,
            offsets,
            given: offsets,
            exit: None,
        };
        ProcessStream(Events::new(self.client.clone(), reader))
    }

    async fn bring(&self, data: Bytes, end: bool) -> Result<()> {
        let call = self.call(Method::POST, &["stdin"]).optional("end", end.then(|| true));
        let call = call.content(Content::from(data), "application/octet-stream").patience(None);
        self.client.send(call).await.map(drop)
    }

    /// To its standard input. It waits while the process does not read.
    pub async fn write(&self, data: impl AsRef<[u8]>) -> Result<()> {
        self.bring(Bytes::copy_from_slice(data.as_ref()), false).await
    }

    /// The same, and nothing comes after it.
    pub async fn write_last(&self, data: impl AsRef<[u8]>) -> Result<()> {
        self.bring(Bytes::copy_from_slice(data.as_ref()), true).await
    }

    /// Its standard input is at its end.
    pub async fn close_input(&self) -> Result<()> {
        self.bring(Bytes::new(), true).await
    }

    async fn ended(&self, patience: Option<Duration>) -> Result<Exit> {
        let call = self.call(Method::GET, &["wait"]).patience(patience);
        self.client.send(call).await?.read(Exit::of)
    }

    /// For its end.
    pub async fn wait(&self) -> Result<Exit> {
        self.ended(None).await
    }

    /// The same; an error of [`ErrorKind::TimedOut`] when it goes on for longer.
    pub async fn wait_for(&self, time: Duration) -> Result<Exit> {
        self.ended(Some(time)).await
    }

    async fn send_signal(&self, signal: Signal, group: bool) -> Result<()> {
        let call = self.call(Method::POST, &["signal"]);
        let call = call.document(json!({"signal": signal.0, "group": group}));
        self.client.send(call).await.map(drop)
    }

    /// Sends it one: "TERM", "SIGTERM" or 15.
    pub async fn signal(&self, signal: impl Into<Signal>) -> Result<()> {
        self.send_signal(signal.into(), false).await
    }

    /// The same to its whole process group.
    pub async fn signal_group(&self, signal: impl Into<Signal>) -> Result<()> {
        self.send_signal(signal.into(), true).await
    }

    /// Kills it with its group; it stays known.
    pub async fn kill(&self) -> Result<()> {
        self.signal_group("KILL").await
    }

    /// Its terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let call = self.call(Method::POST, &["resize"]).repeatable(true);
        let call = call.document(json!({"rows": rows, "columns": columns}));
        self.client.send(call).await.map(drop)
    }

    /// Kills it, with its group, and forgets it.
    pub async fn remove(&self) -> Result<()> {
        self.client.send(self.call(Method::DELETE, &[])).await.map(drop)
    }
}

/// Breaks of a stream one after the other, without anything that came.
const MOST_BREAKS: u32 = 5;

pub(crate) struct Following {
    name: String,
    namespace: String,
    id: u32,
    follow: bool,
    breaks: u32,
    /// What has come, and what of it was given.
    offsets: Offsets,
    given: Offsets,
    exit: Option<Exit>,
}

fn advance(offsets: &mut Offsets, event: &ProcessOutput) {
    let (stream, next) = match event {
        ProcessOutput::Output(output) => (&output.stream, output.next),
        ProcessOutput::Lost { stream, next, .. } => (stream, *next),
    };
    match stream {
        OutputStream::Stdout => offsets.stdout = next,
        OutputStream::Stderr => offsets.stderr = next,
        OutputStream::Other(_) => {}
    }
}

impl Reader for Following {
    type Event = ProcessOutput;

    fn call(&self) -> Call {
        let id = self.id.to_string();
        let call = Call::of(Method::GET, &self.name, &["processes", &id, "output"])
            .query("namespace", &self.namespace)
            .query("follow", self.follow)
            .query("stdout", self.offsets.stdout)
            .query("stderr", self.offsets.stderr);
        events_of(call)
    }

    fn given(&mut self, event: &ProcessOutput) {
        advance(&mut self.given, event);
    }

    fn resumes(&mut self, error: &Error) -> bool {
        self.breaks += 1;
        matches!(error.kind(), ErrorKind::Broken | ErrorKind::Unavailable) && self.breaks <= MOST_BREAKS
    }

    fn event(&mut self, kind: &str, document: &Value) -> Result<Step<ProcessOutput>, Fault> {
        match kind {
            "output" | "lost" => {
                let event = ProcessOutput::of(kind, document)?;
                advance(&mut self.offsets, &event);
                self.breaks = 0;
                Ok(Step::Event(event))
            }
            "exited" => {
                self.exit = Some(Exit::of(document)?);
                Ok(Step::End)
            }
            "running" => Ok(Step::End),
            "detached" => {
                let Offsets { stdout, stderr } = self.offsets;
                let hint = format!("its output goes on at offset {stdout} of stdout and {stderr} of stderr");
                let error = Error::new(ErrorKind::Detached, "detached", "somebody else follows the process now");
                Err(Fault::Error(error.with_hint(hint)))
            }
            _ => Ok(Step::Passed),
        }
    }
}

event_stream!(
    /// What a process writes. It goes on over broken connections; dropping it changes nothing about the process.
    ProcessStream,
    Following,
    ProcessOutput
);

impl ProcessStream {
    /// How it ended, once it has.
    pub fn exit(&self) -> Option<&Exit> {
        self.0.reader.exit.as_ref()
    }

    /// Where each stream goes on: what [`Process::output_from`] takes.
    pub fn offsets(&self) -> Offsets {
        self.0.reader.given
    }
}
