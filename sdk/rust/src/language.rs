// SPDX-License-Identifier: Apache-2.0
//! `PythonSandbox` and `NodeSandbox` as microsandbox 0.2 has them.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::Method;
use serde_json::{json, Value};

use crate::builder::new_name;
use crate::call::{unique, Call, PATIENCE};
use crate::client::Client;
use crate::document::{list, member, Malformed};
use crate::dotenv;
use crate::error::{Error, ErrorKind};
use crate::execution::{CommandExecution, Execution};
use crate::options::{Creation, SandboxOptions, StartOptions};
use crate::settings::Settings;

/// What went wrong, as 0.2 tells it. [`Error::of`] has the rest: code, request and hint.
///
/// 0.2 gave it in a box. As it is here, `?` makes any kind of box of errors of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum SandboxError {
    /// `start` was not called.
    NotStarted,
    /// The server refused, or failed.
    RequestFailed(Error),
    /// The server said that it failed.
    ServerError(Error),
    /// Nothing came for too long.
    Timeout(Error),
    /// There was no connection, or it broke.
    HttpError(Error),
    /// What came is no answer of a microsandbox server.
    InvalidResponse(Error),
    /// Anything else.
    General(Error),
}

impl SandboxError {
    fn facts(&self) -> Option<&Error> {
        match self {
            Self::NotStarted => None,
            Self::RequestFailed(error)
            | Self::ServerError(error)
            | Self::Timeout(error)
            | Self::HttpError(error)
            | Self::InvalidResponse(error)
            | Self::General(error) => Some(error),
        }
    }

    fn from_facts(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotUnderstood => Self::InvalidResponse(error),
            ErrorKind::Server => Self::ServerError(error),
            _ if error.status().is_some() => Self::RequestFailed(error),
            ErrorKind::TimedOut => Self::Timeout(error),
            ErrorKind::Unreachable | ErrorKind::Broken => Self::HttpError(error),
            _ => Self::General(error),
        }
    }

    /// Itself, for programs that look into 0.2's box.
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        (self as &(dyn StdError + 'static)).downcast_ref()
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.facts() {
            None => f.write_str("Sandbox is not started. Call start() first."),
            Some(error) => error.fmt(f),
        }
    }
}

impl StdError for SandboxError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.facts().map(|error| error as &(dyn StdError + 'static))
    }
}

const NEW: u8 = 0;
const STARTS_ITSELF: u8 = 1;
const STARTED: u8 = 2;
const STOPPED: u8 = 3;

/// One of a language.
struct Core {
    client: Client,
    name: String,
    namespace: String,
    language: &'static str,
    image: &'static str,
    stage: AtomicU8,
    starting: tokio::sync::Mutex<()>,
}

impl Core {
    fn of(creation: Creation, language: &'static str, image: &'static str) -> Result<Arc<Self>, SandboxError> {
        let options = creation.options;
        let known = dotenv::known();
        let settings = Settings::of(options.server_url.or(known.server_url), options.api_key.or(known.api_key));
        let client = settings.and_then(|settings| Client::of(settings, None, None));
        Ok(Arc::new(Self {
            client: client.map_err(SandboxError::from_facts)?,
            name: options.name.unwrap_or_else(new_name),
            namespace: options.namespace.unwrap_or_else(|| "default".into()),
            language,
            image,
            stage: AtomicU8::new(if creation.starts_itself { STARTS_ITSELF } else { NEW }),
            starting: tokio::sync::Mutex::new(()),
        }))
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }

    async fn ask(
        &self,
        method: &str,
        more: Value,
        settle: impl FnOnce(Call) -> Call,
        what: &str,
    ) -> Result<Value, SandboxError> {
        let mut params = json!({"namespace": self.namespace, "sandbox": self.name});
        if let (Value::Object(params), Value::Object(mut more)) = (&mut params, more) {
            params.append(&mut more);
        }
        let document = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": unique()});
        let call = Call::new(Method::POST, &["api", "v1", "rpc"]).document(document);
        let reply = self.client.send(settle(call.patience(None))).await;
        let result = reply.and_then(|reply| reply.read(|document| member(document, "result").map(Value::clone)));
        result.map_err(|error| SandboxError::from_facts(error.said_of(what)))
    }

    async fn start(&self, options: &StartOptions) -> Result<(), SandboxError> {
        let _one_at_a_time = self.starting.lock().await;
        if self.stage() == STARTED {
            return Ok(());
        }
        let seconds = if options.timeout.is_finite() { options.timeout.clamp(0.0, 1e6) } else { 1e6 };
        let patience = Duration::from_secs_f32(seconds + 30.0);
        let config = json!({"config": options.config(self.image)});
        // It may be repeated: one that runs is started already.
        let settle = |call: Call| call.repeatable(true).patience(Some(patience));
        self.ask("sandbox.start", config, settle, "Failed to start sandbox").await?;
        self.stage.store(STARTED, Ordering::Release);
        Ok(())
    }

    async fn stop(&self) -> Result<(), SandboxError> {
        if self.stage() == STARTED {
            let settle = |call: Call| call.repeatable(true);
            self.ask("sandbox.stop", json!({}), settle, "Failed to stop sandbox").await?;
            self.stage.store(STOPPED, Ordering::Release);
        }
        Ok(())
    }

    async fn ready(&self) -> Result<(), SandboxError> {
        match self.stage() {
            STARTED => Ok(()),
            STARTS_ITSELF => self.start(&StartOptions::default()).await,
            _ => Err(SandboxError::NotStarted),
        }
    }

    async fn run(&self, code: &str) -> Result<Execution, SandboxError> {
        self.ready().await?;
        let more = json!({"language": self.language, "code": code});
        let result = self.ask("sandbox.repl.run", more, |call| call, "Failed to execute code").await?;
        Ok(Execution::of(&result))
    }
}

/// What is given ready, or as a future: 0.2 has both `sandbox.command().run(...)` and `sandbox.command().await?.run(...)`.
macro_rules! part_of_sandbox {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[derive(Clone)]
        pub struct $name(Arc<Core>);

        impl Future for $name {
            type Output = Result<Self, SandboxError>;

            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
                Poll::Ready(Ok(self.clone()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} of the sandbox '{}'", stringify!($name), self.0.name)
            }
        }
    };
}

part_of_sandbox!(
    /// `sandbox.command()`; it may be awaited before it is used.
    Command
);

impl Command {
    /// Runs it to its end. An error when its time, in seconds, is over.
    pub async fn run(
        &self,
        command: &str,
        args: Option<Vec<&str>>,
        timeout: Option<i32>,
    ) -> Result<CommandExecution, SandboxError> {
        self.0.ready().await?;
        let mut more = json!({"command": command, "args": args.unwrap_or_default()});
        if let Some(timeout) = timeout {
            more["timeout"] = json!(timeout);
        }
        let what = "Failed to execute command";
        let result = self.0.ask("sandbox.command.run", more, |call| call, what).await?;
        Ok(CommandExecution::of(&result))
    }
}

part_of_sandbox!(
    /// `sandbox.metrics()`; it may be awaited before it is used.
    Metrics
);

impl Metrics {
    /// As the server tells them: "name", "running", "cpu_usage", "memory_usage" and "disk_usage".
    pub async fn all(&self) -> Result<Value, SandboxError> {
        self.0.ready().await?;
        let what = "Failed to get sandbox metrics";
        let settle = |call: Call| call.repeatable(true).patience(Some(PATIENCE));
        let result = self.0.ask("sandbox.metrics.get", json!({}), settle, what).await?;
        match list(&result, "sandboxes", |one| Ok(one.clone())) {
            Ok(found) => Ok(found.into_iter().next().unwrap_or_else(|| json!({}))),
            Err(Malformed) => {
                let message = format!("{what}: the answer has no metrics");
                Err(SandboxError::from_facts(Error::new(ErrorKind::NotUnderstood, "not_understood", message)))
            }
        }
    }

    /// Percent of a processor.
    pub async fn cpu(&self) -> Result<Option<f32>, SandboxError> {
        Ok(self.all().await?["cpu_usage"].as_f64().map(|percent| percent as f32))
    }

    /// MiB.
    pub async fn memory(&self) -> Result<Option<u64>, SandboxError> {
        Ok(self.all().await?["memory_usage"].as_u64())
    }

    /// Bytes.
    pub async fn disk(&self) -> Result<Option<u64>, SandboxError> {
        Ok(self.all().await?["disk_usage"].as_u64())
    }

    /// Whether it runs.
    pub async fn is_running(&self) -> Result<bool, SandboxError> {
        Ok(self.all().await?["running"].as_bool().unwrap_or(false))
    }
}

/// A future of [`BaseSandbox`].
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What sandboxes of all languages have, for code that takes any of them. (Each of them has the same methods itself.)
pub trait BaseSandbox {
    /// What it is made from unless said.
    fn get_default_image(&self) -> BoxFuture<'_, String>;
    /// Whether it was started, and not stopped.
    fn is_started(&self) -> BoxFuture<'_, bool>;
    /// Runs code, which finds what code before it left.
    fn run<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<Execution, SandboxError>>;
    /// Nothing to do when it is started.
    fn start(&mut self, options: Option<StartOptions>) -> BoxFuture<'_, Result<(), SandboxError>>;
    /// Nothing to do when it is not started.
    fn stop(&mut self) -> BoxFuture<'_, Result<(), SandboxError>>;
    /// What it uses.
    fn metrics(&self) -> BoxFuture<'_, Result<Metrics, SandboxError>>;
}

macro_rules! language_sandbox {
    ($(#[$attribute:meta])* $name:ident, $language:literal, $image:literal) => {
        $(#[$attribute])*
        pub struct $name(Arc<Core>);

        impl $name {
            /// One that is there when it was started: [`Creation`] says when that is.
            pub async fn create(sandbox: impl Into<Creation>) -> Result<Self, SandboxError> {
                Core::of(sandbox.into(), $language, $image).map(Self)
            }

            /// The same; it is started by `start` alone.
            pub async fn create_with_options(options: SandboxOptions) -> Result<Self, SandboxError> {
                let creation = Creation { options, starts_itself: false };
                Core::of(creation, $language, $image).map(Self)
            }

            /// Makes the sandbox, or finds it by its name, and has it run. Nothing to do when it is started.
            pub async fn start(&mut self, options: Option<StartOptions>) -> Result<(), SandboxError> {
                self.0.start(&options.unwrap_or_default()).await
            }

            /// Nothing to do when it is not started. (Dropping this stops nothing, as in 0.2.)
            pub async fn stop(&mut self) -> Result<(), SandboxError> {
                self.0.stop().await
            }

            /// Whether it was started, and not stopped.
            pub async fn is_started(&self) -> bool {
                self.0.stage() == STARTED
            }

            /// Runs code, which finds what code before it left.
            pub async fn run(&self, code: &str) -> Result<Execution, SandboxError> {
                self.0.run(code).await
            }

            /// What it is made from unless said.
            pub async fn get_default_image(&self) -> String {
                self.0.image.into()
            }

            /// For commands.
            pub fn command(&self) -> Command {
                Command(self.0.clone())
            }

            /// What it uses.
            pub fn metrics(&self) -> Metrics {
                Metrics(self.0.clone())
            }
        }

        impl BaseSandbox for $name {
            fn get_default_image(&self) -> BoxFuture<'_, String> {
                Box::pin(self.get_default_image())
            }

            fn is_started(&self) -> BoxFuture<'_, bool> {
                Box::pin(self.is_started())
            }

            fn run<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<Execution, SandboxError>> {
                Box::pin(self.run(code))
            }

            fn start(&mut self, options: Option<StartOptions>) -> BoxFuture<'_, Result<(), SandboxError>> {
                Box::pin(self.start(options))
            }

            fn stop(&mut self) -> BoxFuture<'_, Result<(), SandboxError>> {
                Box::pin(self.stop())
            }

            fn metrics(&self) -> BoxFuture<'_, Result<Metrics, SandboxError>> {
                Box::pin(std::future::ready(Ok(self.metrics())))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("name", &self.0.name).finish()
            }
        }
    };
}

language_sandbox!(
    /// Runs Python.
    PythonSandbox,
    "python",
    "microsandbox/python"
);
language_sandbox!(
    /// Runs JavaScript.
    NodeSandbox,
    "nodejs",
    "microsandbox/node"
);
