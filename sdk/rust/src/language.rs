// SPDX-License-Identifier: Apache-2.0
//! `PythonSandbox` and `NodeSandbox` as microsandbox 0.2 has them.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
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
use crate::execution::{CommandExecution, Execution, Usage};
use crate::options::{Creation, SandboxOptions, StartConfig, StartOptions};
use crate::sandbox_error::{BoxedError, SandboxError};
use crate::settings::Settings;
use crate::types::SandboxMetrics;

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
    fn of(
        options: SandboxOptions,
        starts_itself: bool,
        language: &'static str,
        image: &'static str,
    ) -> Result<Arc<Self>, SandboxError> {
        let known = dotenv::known();
        let settings = Settings::of(options.server_url.or(known.server_url), options.api_key.or(known.api_key));
        let client = settings.and_then(|settings| Client::of(settings, None, None));
        Ok(Arc::new(Self {
            client: client.map_err(SandboxError::of)?,
            name: options.name.unwrap_or_else(new_name),
            namespace: options.namespace.unwrap_or_else(|| "default".into()),
            language,
            image,
            stage: AtomicU8::new(if starts_itself { STARTS_ITSELF } else { NEW }),
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
    ) -> Result<Value, Error> {
        let mut params = json!({"namespace": self.namespace, "sandbox": self.name});
        if let (Value::Object(params), Value::Object(mut more)) = (&mut params, more) {
            params.append(&mut more);
        }
        let document = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": unique()});
        let call = Call::new(Method::POST, &["api", "v1", "rpc"]).document(document);
        let reply = self.client.send(settle(call.patience(None))).await;
        let result = reply.and_then(|reply| reply.read(|document| member(document, "result").map(Value::clone)));
        result.map_err(|error| error.said_of(what))
    }

    async fn start(&self, options: &StartOptions, config: &StartConfig) -> Result<(), SandboxError> {
        let _one_at_a_time = self.starting.lock().await;
        if self.stage() == STARTED {
            return Ok(());
        }
        let seconds = if options.timeout.is_finite() { options.timeout.clamp(0.0, 1e6) } else { 1e6 };
        let patience = Duration::from_secs_f32(seconds + 30.0);
        let config = json!({ "config": config.document(options, self.image) });
        // It may be repeated: one that runs is started already.
        let settle = |call: Call| call.repeatable(true).patience(Some(patience));
        match self.ask("sandbox.start", config, settle, "Failed to start sandbox").await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut && error.status().is_none() => {
                let text = format!("Timed out waiting for sandbox to start after {} seconds", options.timeout);
                return Err(SandboxError::told(text, error));
            }
            Err(error) => return Err(SandboxError::of(error)),
        }
        self.stage.store(STARTED, Ordering::Release);
        Ok(())
    }

    async fn stop(&self) -> Result<(), SandboxError> {
        if self.stage() == STARTED {
            let settle = |call: Call| call.repeatable(true);
            self.ask("sandbox.stop", json!({}), settle, "Failed to stop sandbox").await.map_err(SandboxError::of)?;
            self.stage.store(STOPPED, Ordering::Release);
        }
        Ok(())
    }

    async fn ready(&self) -> Result<(), SandboxError> {
        match self.stage() {
            STARTED => Ok(()),
            STARTS_ITSELF => self.start(&StartOptions::default(), &StartConfig::default()).await,
            _ => Err(SandboxError::NotStarted),
        }
    }

    async fn run<E>(&self, code: &str) -> Result<Execution<E>, SandboxError> {
        self.ready().await?;
        let more = json!({"language": self.language, "code": code});
        let result = self.ask("sandbox.repl.run", more, |call| call, "Failed to execute code").await;
        Ok(Execution::of(&result.map_err(SandboxError::of)?))
    }
}

/// What is given ready, or as a future: 0.2 has both `sandbox.command().run(...)` and `sandbox.command().await?.run(...)`.
macro_rules! part_of_sandbox {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub struct $name<E = BoxedError> {
            core: Arc<Core>,
            error: PhantomData<fn() -> E>,
        }

        impl<E> $name<E> {
            fn of(core: &Arc<Core>) -> Self {
                Self { core: core.clone(), error: PhantomData }
            }
        }

        impl<E> Clone for $name<E> {
            fn clone(&self) -> Self {
                Self::of(&self.core)
            }
        }

        impl<E> Future for $name<E> {
            type Output = Result<Self, E>;

            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
                Poll::Ready(Ok(self.clone()))
            }
        }

        impl<E> fmt::Debug for $name<E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} of the sandbox '{}'", stringify!($name), self.core.name)
            }
        }
    };
}

part_of_sandbox!(
    /// `sandbox.command()`; it may be awaited before it is used.
    Command
);

impl<E: From<SandboxError>> Command<E> {
    /// Runs it to its end. An error when its time, in seconds, is over.
    pub async fn run(
        &self,
        command: &str,
        args: Option<Vec<&str>>,
        timeout: Option<i32>,
    ) -> Result<CommandExecution<E>, E> {
        self.core.ready().await?;
        let mut more = json!({"command": command, "args": args.unwrap_or_default()});
        if let Some(timeout) = timeout {
            more["timeout"] = json!(timeout);
        }
        let result = self.core.ask("sandbox.command.run", more, |call| call, "Failed to execute command").await;
        Ok(CommandExecution::of(&result.map_err(SandboxError::of)?))
    }
}

part_of_sandbox!(
    /// `sandbox.metrics()`; it may be awaited before it is used.
    Metrics
);

const NO_METRICS: &str = "Failed to get sandbox metrics";

impl<E: From<SandboxError>> Metrics<E> {
    /// As the server tells them: "name", "running", "cpu_usage", "memory_usage" and "disk_usage".
    pub async fn all(&self) -> Result<Value, E> {
        self.core.ready().await?;
        let settle = |call: Call| call.repeatable(true).patience(Some(PATIENCE));
        let result = self.core.ask("sandbox.metrics.get", json!({}), settle, NO_METRICS).await;
        match list(&result.map_err(SandboxError::of)?, "sandboxes", |one| Ok(one.clone())) {
            Ok(found) => Ok(found.into_iter().next().unwrap_or_else(|| json!({}))),
            Err(Malformed) => {
                let message = format!("{NO_METRICS}: the answer has none");
                Err(SandboxError::of(Error::new(ErrorKind::NotUnderstood, "not_understood", message)).into())
            }
        }
    }

    /// All of them at once.
    pub async fn get(&self) -> Result<Usage, E> {
        self.core.ready().await?;
        let call = Call::of(Method::GET, &self.core.name, &["metrics"]).query("namespace", &self.core.namespace);
        let reply = self.core.client.send(call).await.and_then(|reply| reply.read(SandboxMetrics::of));
        Ok(Usage::of(reply.map_err(|error| SandboxError::of(error.said_of(NO_METRICS)))?))
    }

    /// Percent of a processor.
    pub async fn cpu(&self) -> Result<Option<f32>, E> {
        Ok(self.all().await?["cpu_usage"].as_f64().map(|percent| percent as f32))
    }

    /// MiB.
    pub async fn memory(&self) -> Result<Option<u64>, E> {
        Ok(self.all().await?["memory_usage"].as_u64())
    }

    /// Bytes.
    pub async fn disk(&self) -> Result<Option<u64>, E> {
        Ok(self.all().await?["disk_usage"].as_u64())
    }

    /// Whether it runs.
    pub async fn is_running(&self) -> Result<bool, E> {
        Ok(self.all().await?["running"].as_bool().unwrap_or(false))
    }
}

/// A future of [`BaseSandbox`].
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What sandboxes of all languages have, for code that takes any of them. (Each of them has the same methods itself.)
pub trait BaseSandbox: Send + Sync {
    /// What it is made from unless said.
    fn get_default_image(&self) -> BoxFuture<'_, String>;
    /// Whether it was started, and not stopped.
    fn is_started(&self) -> BoxFuture<'_, bool>;
    /// Runs code, which finds what code before it left.
    fn run<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<Execution, BoxedError>>;
    /// Nothing to do when it is started.
    fn start(&mut self, options: Option<StartOptions>) -> BoxFuture<'_, Result<(), BoxedError>>;
    /// Nothing to do when it is not started.
    fn stop(&mut self) -> BoxFuture<'_, Result<(), BoxedError>>;
    /// What it uses.
    fn metrics(&self) -> BoxFuture<'_, Result<Metrics, BoxedError>>;

    /// Runs code, and starts the sandbox before unless it was.
    fn run_or_start<'a>(&'a mut self, code: &'a str) -> BoxFuture<'a, Result<Execution, BoxedError>> {
        Box::pin(async move {
            if !self.is_started().await {
                self.start(None).await?;
            }
            self.run(code).await
        })
    }
}

macro_rules! language_sandbox {
    ($(#[$attribute:meta])* $name:ident, $language:literal, $image:literal) => {
        $(#[$attribute])*
        ///
        /// `E` is what it gives when something is not done: [`Creation`] says why there are two.
        pub struct $name<E = BoxedError> {
            core: Arc<Core>,
            error: PhantomData<fn() -> E>,
        }

        impl $name {
            /// One that is there when it was started: [`Creation`] says when that is.
            pub async fn create<C: Creation>(sandbox: C) -> Result<$name<C::Error>, C::Error> {
                let core = Core::of(sandbox.options(), C::STARTS_ITSELF, $language, $image)?;
                Ok($name { core, error: PhantomData })
            }

            /// The same; it is started by `start` alone.
            pub async fn create_with_options(options: SandboxOptions) -> Result<Self, BoxedError> {
                Ok(Self { core: Core::of(options, false, $language, $image)?, error: PhantomData })
            }
        }

        impl<E: From<SandboxError>> $name<E> {
            /// Makes the sandbox, or finds it by its name, and has it run. Nothing to do when it is started.
            pub async fn start(&mut self, options: Option<StartOptions>) -> Result<(), E> {
                self.start_with(options.unwrap_or_default(), StartConfig::default()).await
            }

            /// The same with what 0.2's `StartOptions` has not.
            pub async fn start_with(&mut self, options: StartOptions, config: StartConfig) -> Result<(), E> {
                Ok(self.core.start(&options, &config).await?)
            }

            /// Nothing to do when it is not started. (Dropping this stops nothing, as in 0.2.)
            pub async fn stop(&mut self) -> Result<(), E> {
                Ok(self.core.stop().await?)
            }

            /// Whether it was started, and not stopped.
            pub async fn is_started(&self) -> bool {
                self.core.stage() == STARTED
            }

            /// Runs code, which finds what code before it left.
            pub async fn run(&self, code: &str) -> Result<Execution<E>, E> {
                Ok(self.core.run(code).await?)
            }

            /// What it is made from unless said.
            pub async fn get_default_image(&self) -> String {
                self.core.image.into()
            }

            /// For commands.
            pub fn command(&self) -> Command<E> {
                Command::of(&self.core)
            }

            /// What it uses.
            pub fn metrics(&self) -> Metrics<E> {
                Metrics::of(&self.core)
            }
        }

        impl<E> BaseSandbox for $name<E> {
            fn get_default_image(&self) -> BoxFuture<'_, String> {
                Box::pin(std::future::ready(self.core.image.into()))
            }

            fn is_started(&self) -> BoxFuture<'_, bool> {
                Box::pin(std::future::ready(self.core.stage() == STARTED))
            }

            fn run<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<Execution, BoxedError>> {
                Box::pin(async move { Ok(self.core.run(code).await?) })
            }

            fn start(&mut self, options: Option<StartOptions>) -> BoxFuture<'_, Result<(), BoxedError>> {
                let options = options.unwrap_or_default();
                Box::pin(async move { Ok(self.core.start(&options, &StartConfig::default()).await?) })
            }

            fn stop(&mut self) -> BoxFuture<'_, Result<(), BoxedError>> {
                Box::pin(async move { Ok(self.core.stop().await?) })
            }

            fn metrics(&self) -> BoxFuture<'_, Result<Metrics, BoxedError>> {
                Box::pin(std::future::ready(Ok(Metrics::of(&self.core))))
            }
        }

        impl<E> fmt::Debug for $name<E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("name", &self.core.name).finish()
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
