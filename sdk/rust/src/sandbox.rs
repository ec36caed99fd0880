// SPDX-License-Identifier: Apache-2.0
//! A sandbox of any image.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use reqwest::Method;
use serde_json::{json, Value};

use crate::builder::SandboxBuilder;
use crate::call::{Call, START_PATIENCE};
use crate::cleanup;
use crate::client::Client;
use crate::code::{interrupt, CodeBuilder};
use crate::command::CommandBuilder;
use crate::document::{list, Parsed};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{event_stream, events_of, Events, Fault, Reader, Step};
use crate::files::Files;
use crate::process::Process;
use crate::results::CodeResult;
use crate::types::{LogLine, Port, ProcessInfo, SandboxInfo, SandboxMetrics, SandboxState, SessionInfo};

/// What `drop` waits for an answer.
const FAREWELL: Duration = Duration::from_millis(500);

/// A sandbox on a server.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> microsandbox::Result<()> {
/// use microsandbox::Sandbox;
///
/// let sandbox = Sandbox::builder("python").memory("512M").env("WORD", "here").create().await?;
/// let result = sandbox.run("import os; os.environ['WORD']").await?;
/// assert_eq!(result.value().unwrap().text(), "'here'");
/// sandbox.stop().await?;
/// # Ok(())
/// # }
/// ```
///
/// # When it is dropped
///
/// A sandbox that was *created* is stopped, in good order, when this is dropped, unless it was stopped or removed before; one without a name is gone then.
/// The stop is sent by a thread of this crate's own, so it does not matter how the runtime is, and whether the drop comes from an error or a panic.
/// `drop` waits for its end for half a second at most; [`settled`](crate::settled) waits for all of it, and [`stop`](Sandbox::stop) tells how it went.
/// [`detach`](Sandbox::detach) lets go of a sandbox that is to go on.
///
/// One that was *connected to* goes on.
pub struct Sandbox {
    client: Client,
    name: String,
    namespace: String,
    info: Mutex<SandboxInfo>,
    /// It is to be stopped when this is dropped.
    stops: bool,
    /// It was stopped or removed by this.
    ended: AtomicBool,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("name", &self.name).field("namespace", &self.namespace).finish()
    }
}

impl Sandbox {
    /// A sandbox of this image, once [`create`](SandboxBuilder::create) is called.
    pub fn builder(image: impl AsRef<str>) -> SandboxBuilder {
        SandboxBuilder::of(image.as_ref())
    }

    /// A sandbox of this image, as usual, without a name.
    pub async fn create(image: impl AsRef<str>) -> Result<Self> {
        Self::builder(image).create().await
    }

    /// One that is there, on the server that the environment says. ([`Client::connect`] is for others.)
    pub async fn connect(name: &str) -> Result<Self> {
        Client::new()?.connect(name).await
    }

    pub(crate) fn made(client: Client, info: SandboxInfo) -> Self {
        Self::of(client, info, true)
    }

    fn of(client: Client, info: SandboxInfo, stops: bool) -> Self {
        Self {
            client: client.namespace(&info.namespace),
            name: info.name.clone(),
            namespace: info.namespace.clone(),
            info: Mutex::new(info),
            stops,
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) async fn found(client: Client, name: &str) -> Result<Self> {
        let call = Call::of(Method::GET, name, &[]).optional("namespace", client.namespace_given());
        let info = client.send(call).await?.read(SandboxInfo::of)?;
        Ok(Self::of(client, info, false))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The server, and the connections to it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// As it was when the server was asked last.
    pub fn info(&self) -> SandboxInfo {
        self.known().clone()
    }

    fn known(&self) -> MutexGuard<'_, SandboxInfo> {
        match self.info.lock() {
            Ok(info) => info,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Lets go of it: it goes on.
    pub fn detach(mut self) {
        self.stops = false;
    }

    pub(crate) fn call(&self, method: Method, rest: &[&str]) -> Call {
        Call::of(method, &self.name, rest).query("namespace", &self.namespace)
    }

    pub(crate) async fn get<T>(&self, rest: &[&str], read: impl FnOnce(&Value) -> Parsed<T>) -> Result<T> {
        self.client.send(self.call(Method::GET, rest)).await?.read(read)
    }

    async fn life(&self, call: Call) -> Result<SandboxInfo> {
        let info = self.client.send(call).await?.read(SandboxInfo::of)?;
        self.ended.store(info.state == SandboxState::Stopped, Ordering::Relaxed);
        *self.known() = info.clone();
        Ok(info)
    }

    // Its life.

    /// Asks the server how it is.
    pub async fn refresh(&self) -> Result<SandboxInfo> {
        let info = self.get(&[], SandboxInfo::of).await?;
        *self.known() = info.clone();
        Ok(info)
    }

    /// Nothing to do when it runs.
    pub async fn start(&self) -> Result<SandboxInfo> {
        let call = self.call(Method::POST, &["start"]).repeatable(true);
        self.life(call.patience(Some(START_PATIENCE))).await
    }

    /// In good order, and waits for its end.
    pub async fn stop(&self) -> Result<SandboxInfo> {
        self.life(self.stopping(false)).await
    }

    /// Kills it.
    pub async fn stop_at_once(&self) -> Result<SandboxInfo> {
        self.life(self.stopping(true)).await
    }

    fn stopping(&self, at_once: bool) -> Call {
        self.call(Method::POST, &["stop"]).document(json!({ "at_once": at_once })).repeatable(true)
    }

    /// Nothing in it goes on.
    pub async fn pause(&self) -> Result<SandboxInfo> {
        self.life(self.call(Method::POST, &["pause"]).repeatable(true)).await
    }

    /// After a pause.
    pub async fn resume(&self) -> Result<SandboxInfo> {
        self.life(self.call(Method::POST, &["resume"]).repeatable(true)).await
    }

    /// Stops it at once, and removes all that it has kept.
    pub async fn remove(&self) -> Result<()> {
        self.client.send(self.call(Method::DELETE, &[])).await?;
        self.ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    // Code.

    /// Runs Python in an interpreter that keeps its state. What goes wrong in the code is a result. When this is abandoned, the code is interrupted.
    pub async fn run(&self, code: impl Into<String>) -> Result<CodeResult> {
        self.code(code).run().await
    }

    /// The same with other languages, sessions and time-outs, and with what it gives while it runs.
    pub fn code(&self, code: impl Into<String>) -> CodeBuilder<'_> {
        CodeBuilder::of(self, code.into())
    }

    /// The interpreters that keep their state.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        self.get(&["sessions"], |document| list(document, "sessions", SessionInfo::of)).await
    }

    /// Interrupts code that runs in a session; one that was not named is "main".
    pub async fn interrupt(&self, language: &str, session: &str) -> Result<()> {
        interrupt(self, language, session).await
    }

    /// Ends a session, with its state.
    pub async fn close_session(&self, language: &str, session: &str) -> Result<()> {
        let call = self.call(Method::DELETE, &["sessions", language, session]);
        self.client.send(call).await.map(drop)
    }

    // Commands and files.

    /// A program, looked for along PATH when it has no slash; its arguments are no shell's.
    pub fn command(&self, program: impl Into<String>) -> CommandBuilder<'_> {
        CommandBuilder::of(self, program.into())
    }

    /// Processes that were started from outside.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        self.get(&["processes"], |document| list(document, "processes", ProcessInfo::of)).await
    }

    /// A process that was started before, by whomever.
    pub async fn attach(&self, id: u32) -> Result<Process> {
        let info = self.get(&["processes", &id.to_string()], ProcessInfo::of).await?;
        Ok(Process::of(self, info.id, info.pid))
    }

    /// Its files.
    pub fn files(&self) -> Files<'_> {
        Files::of(self)
    }

    // What it shows.

    /// Where its ports are published; none when it does not run.
    pub async fn ports(&self) -> Result<Vec<Port>> {
        self.get(&["ports"], |document| list(document, "ports", Port::of)).await
    }

    /// Where programs of the server's host reach a port that it publishes.
    pub async fn url(&self, port: u16) -> Result<String> {
        let mut ports = self.ports().await?.into_iter();
        let url = ports.find_map(|one| if one.guest_port == port { one.url } else { None });
        url.ok_or_else(|| {
            let message = format!("the sandbox '{}' does not publish port {port}", self.name);
            Error::new(ErrorKind::NotFound, "not_found", message)
                .with_hint(format!("create it with port({port}), and see that it runs"))
        })
    }

    /// Where browsers of the server's host do, as an origin of its own.
    pub fn app_url(&self, port: u16) -> String {
        self.client.settings().app_url(&self.name, &self.namespace, port)
    }

    /// What it uses.
    pub async fn metrics(&self) -> Result<SandboxMetrics> {
        self.get(&["metrics"], SandboxMetrics::of).await
    }

    /// What its command wrote, line by line.
    pub fn logs(&self) -> LogsBuilder<'_> {
        LogsBuilder { sandbox: self, tail: None, follow: false }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.stops && !self.ended.load(Ordering::Relaxed) {
            cleanup::send(&self.client, self.stopping(false), FAREWELL);
        }
    }
}

/// Which lines of a log are wanted: [`Sandbox::logs`] gives it.
#[derive(Debug)]
#[must_use = "stream() asks for the lines"]
pub struct LogsBuilder<'a> {
    sandbox: &'a Sandbox,
    tail: Option<u32>,
    follow: bool,
}

impl LogsBuilder<'_> {
    /// Begin with the last so many.
    pub fn tail(mut self, lines: u32) -> Self {
        self.tail = Some(lines);
        self
    }

    /// Go on until the sandbox has ended.
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// The lines, as they come.
    pub fn stream(self) -> LogStream {
        let reader = Logs {
            name: self.sandbox.name.clone(),
            namespace: self.sandbox.namespace.clone(),
            tail: self.tail,
            follow: self.follow,
        };
        LogStream(Events::new(self.sandbox.client.clone(), reader))
    }
}

pub(crate) struct Logs {
    name: String,
    namespace: String,
    tail: Option<u32>,
    follow: bool,
}

impl Reader for Logs {
    type Event = LogLine;

    fn call(&self) -> Call {
        let call = Call::of(Method::GET, &self.name, &["logs"]).query("namespace", &self.namespace);
        events_of(call.optional("tail", self.tail).query("follow", self.follow))
    }

    fn event(&mut self, kind: &str, document: &Value) -> Result<Step<LogLine>, Fault> {
        Ok(match kind {
            "log" => Step::Event(LogLine::of(document)?),
            "end" => Step::End,
            _ => Step::Passed,
        })
    }
}

event_stream!(
    /// Lines of a sandbox's log, as they come.
    LogStream,
    Logs,
    LogLine
);
