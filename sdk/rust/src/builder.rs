// SPDX-License-Identifier: Apache-2.0
//! What a sandbox is to be.

use std::time::Duration;

use reqwest::Method;
use serde_json::{json, Map, Value};

use crate::call::{random, unique, Call, START_PATIENCE};
use crate::cleanup;
use crate::client::{Client, ClientBuilder};
use crate::error::{Error, Result};
use crate::sandbox::Sandbox;
use crate::types::SandboxInfo;

/// Memory or space: a number of MiB, or text with a unit ("1G").
#[derive(Clone, Debug)]
pub struct Size(Value);

impl From<u32> for Size {
    fn from(mebibytes: u32) -> Self {
        Self(mebibytes.into())
    }
}

impl From<&str> for Size {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// What a sandbox is to be, and where: [`Sandbox::builder`] gives it.
#[derive(Clone, Default)]
#[must_use = "create() makes the sandbox"]
pub struct SandboxBuilder {
    settings: ClientBuilder,
    client: Option<Client>,
    name: Option<String>,
    namespace: Option<String>,
    labels: Map<String, Value>,
    ephemeral: Option<bool>,
    start_timeout: Option<Duration>,
    config: Map<String, Value>,
}

pub(crate) fn new_name() -> String {
    format!("sandbox-{:08x}", random() as u32)
}

impl SandboxBuilder {
    pub(crate) fn of(image: &str) -> Self {
        Self::default().set("image", image)
    }

    fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }

    fn push(mut self, name: &str, value: String) -> Self {
        if let Value::Array(list) = self.config.entry(name).or_insert_with(|| json!([])) {
            list.push(value.into());
        }
        self
    }

    /// Its name. One without is ephemeral unless said: nothing is left of it when it has ended.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where it is: that of the key, or "default", unless said.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// What [`Client::list`] finds it by.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), Value::String(value.into()));
        self
    }

    /// Whether it is removed, with all that was written in it, when it has ended.
    pub fn ephemeral(mut self, ephemeral: bool) -> Self {
        self.ephemeral = Some(ephemeral);
        self
    }

    /// Its processors.
    pub fn cpus(self, cpus: f64) -> Self {
        self.set("cpus", cpus)
    }

    /// Its memory: `.memory(512)` or `.memory("1G")`.
    pub fn memory(self, memory: impl Into<Size>) -> Self {
        self.set("memory", memory.into().0)
    }

    /// The space for what it writes.
    pub fn disk(self, disk: impl Into<Size>) -> Self {
        self.set("disk", disk.into().0)
    }

    /// How many processes it may have.
    pub fn processes(self, processes: u32) -> Self {
        self.set("processes", processes)
    }

    /// A directory of the server's host, "HOST:GUEST" or "HOST:GUEST:ro", where the operator allows it.
    pub fn volume(self, volume: impl Into<String>) -> Self {
        self.push("volumes", volume.into())
    }

    /// A port of it, published where there is room: [`Sandbox::url`] says where.
    pub fn port(self, port: u16) -> Self {
        self.push("ports", format!("0:{port}"))
    }

    /// A port of it, published where said: "8080:80".
    pub fn publish(self, port: impl Into<String>) -> Self {
        self.push("ports", port.into())
    }

    /// A variable of its environment.
    pub fn env(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.push("envs", format!("{}={}", name.as_ref(), value.as_ref()))
    }

    /// The directory in which its programs begin.
    pub fn workdir(self, path: impl Into<String>) -> Self {
        self.set("workdir", path.into())
    }

    /// Whose its programs are: USER or USER:GROUP, by names or numbers.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.set("user", user.into())
    }

    /// The shell of its scripts.
    pub fn shell(self, shell: impl Into<String>) -> Self {
        self.set("shell", shell.into())
    }

    /// A script in it; one called "start" is what runs in it.
    pub fn script(mut self, name: impl Into<String>, body: impl Into<String>) -> Self {
        if let Value::Object(scripts) = self.config.entry("scripts").or_insert_with(|| json!({})) {
            scripts.insert(name.into(), Value::String(body.into()));
        }
        self
    }

    /// What runs in it, and with whose end it ends: a line for its shell.
    pub fn exec(self, line: impl Into<String>) -> Self {
        self.set("exec", line.into())
    }

    /// The same, as a program and its arguments.
    pub fn command<I: IntoIterator<Item = S>, S: Into<String>>(self, words: I) -> Self {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        self.set("command", words)
    }

    /// The same, as its image says.
    pub fn use_image_command(self, use_it: bool) -> Self {
        self.set("use_image_command", use_it)
    }

    /// What it may reach on the network: "none", "local", "public" or "any".
    pub fn scope(self, scope: impl Into<String>) -> Self {
        self.set("scope", scope.into())
    }

    /// Rules of the network that decide before the scope does: "allow tcp 10.0.0.5 443", "deny tcp any 25".
    pub fn network<I: IntoIterator<Item = S>, S: Into<String>>(self, rules: I) -> Self {
        let rules: Vec<String> = rules.into_iter().map(Into::into).collect();
        self.set("network", rules)
    }

    /// After how long the server stops it; of whole seconds.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", whole_seconds(timeout))
    }

    /// After how long without use the server stops it; of whole seconds.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        self.set("idle_timeout", whole_seconds(timeout))
    }

    /// How long to wait for it to run; 210 s unless said: its image may have to be pulled.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }

    /// Whose server and connections are used; it makes its own unless said.
    pub fn client(mut self, client: &Client) -> Self {
        self.client = Some(client.clone());
        self
    }

    /// Where the server is, when no client is given: MSB_SERVER_URL unless said.
    pub fn server_url(mut self, url: impl Into<String>) -> Self {
        self.settings = self.settings.server_url(url);
        self
    }

    /// The key for it, when no client is given: MSB_API_KEY unless said.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.settings = self.settings.api_key(key);
        self
    }

    /// Makes the sandbox, and starts it. What this gives stops it when it is dropped ([`Sandbox`] says more).
    ///
    /// When this is abandoned, or its answer lost, a sandbox without a name is removed again in the background.
    pub async fn create(self) -> Result<Sandbox> {
        let client = match self.client {
            Some(client) => client,
            None => self.settings.build()?,
        };
        let client = match self.namespace {
            Some(namespace) => client.namespace(namespace),
            None => client,
        };
        let named = self.name.is_some();
        let name = self.name.unwrap_or_else(new_name);
        let document = json!({
            "name": name,
            "labels": self.labels,
            "ephemeral": self.ephemeral.unwrap_or(!named),
            "config": self.config,
        });
        let call = Call::new(Method::POST, &["v1", "sandboxes"])
            .optional("namespace", client.namespace_given())
            // With a key of its own it may be repeated: the server makes one sandbox of all attempts.
            .header("Idempotency-Key", unique())
            .document(document)
            .repeatable(true)
            .patience(Some(self.start_timeout.unwrap_or(START_PATIENCE)));
        let mut unfinished = Unfinished { client: &client, name: (!named).then(|| name) };
        let info = match client.send(call).await.and_then(|reply| reply.read(SandboxInfo::of)) {
            Ok(info) => info,
            Err(error) => {
                if !may_be_there(&error) {
                    unfinished.name = None;
                }
                return Err(error);
            }
        };
        unfinished.name = None;
        Ok(Sandbox::made(client.clone(), info))
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Whether the server may go on with a creation that ended so here: it does when its client has gone.
fn may_be_there(error: &Error) -> bool {
    error.status().is_none() && ["broken", "timeout"].contains(&error.code())
}

/// A creation without an answer: what it may have made is nobody's.
struct Unfinished<'a> {
    client: &'a Client,
    name: Option<String>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let call = Call::of(Method::DELETE, name, &[]).optional("namespace", self.client.namespace_given());
            cleanup::send(self.client, call, Duration::ZERO);
        }
    }
}
