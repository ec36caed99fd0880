// SPDX-License-Identifier: Apache-2.0
//! What `PythonSandbox` and `NodeSandbox` are told.

use std::collections::HashMap;

use serde_json::{json, Map, Value};

use crate::sandbox_error::{BoxedError, SandboxError};

/// Where a sandbox is, and what it is called.
#[derive(Clone, Debug, Default)]
pub struct SandboxOptions {
    pub(crate) server_url: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) api_key: Option<String>,
}

/// Makes [`SandboxOptions`].
#[derive(Clone, Debug, Default)]
pub struct SandboxOptionsBuilder(SandboxOptions);

impl SandboxOptions {
    /// With nothing said yet.
    pub fn builder() -> SandboxOptionsBuilder {
        SandboxOptionsBuilder::default()
    }
}

impl SandboxOptionsBuilder {
    /// Where the server is: MSB_SERVER_URL, or else `http://127.0.0.1:5555`, unless said.
    pub fn server_url(mut self, url: impl Into<String>) -> Self {
        self.0.server_url = Some(url.into());
        self
    }

    /// Where the sandbox is; "default" unless said.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.0.namespace = Some(namespace.into());
        self
    }

    /// What it is called; made up unless said.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// The key for the server; MSB_API_KEY unless said.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.0.api_key = Some(key.into());
        self
    }

    /// What was said.
    pub fn build(self) -> SandboxOptions {
        self.0
    }
}

/// What a sandbox is started with.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// That of the language unless said.
    pub image: Option<String>,
    /// MiB.
    pub memory: u32,
    /// Processors, which are rounded.
    pub cpus: f32,
    /// Seconds to wait for it to run.
    pub timeout: f32,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self { image: None, memory: 512, cpus: 1.0, timeout: 180.0 }
    }
}

/// What else: 0.2's programs write all members of [`StartOptions`] out, so it can have no more.
#[derive(Clone, Debug, Default)]
pub struct StartConfig {
    /// "HOST:GUEST": directories of the server's host, where the operator allows it.
    pub volumes: Vec<String>,
    /// "HOST:GUEST".
    pub ports: Vec<String>,
    /// "NAME=VALUE".
    pub envs: Vec<String>,
    /// Sandboxes that are to run.
    pub depends_on: Vec<String>,
    /// The directory in which programs begin.
    pub workdir: Option<String>,
    /// The shell of its scripts.
    pub shell: Option<String>,
    /// Scripts by their names.
    pub scripts: HashMap<String, String>,
    /// What runs in it.
    pub exec: Option<String>,
}

impl StartConfig {
    pub(crate) fn document(&self, options: &StartOptions, default_image: &str) -> Value {
        let mut config = Map::new();
        let mut set = |name: &str, value: Value| config.insert(name.into(), value);
        set("image", json!(options.image.as_deref().unwrap_or(default_image)));
        set("memory", json!(options.memory));
        set("cpus", json!((options.cpus.round() as u32).max(1)));
        for (name, words) in
            [("volumes", &self.volumes), ("ports", &self.ports), ("envs", &self.envs), ("depends_on", &self.depends_on)]
        {
            if !words.is_empty() {
                set(name, json!(words));
            }
        }
        for (name, word) in [("workdir", &self.workdir), ("shell", &self.shell), ("exec", &self.exec)] {
            if let Some(word) = word {
                set(name, json!(word));
            }
        }
        if !self.scripts.is_empty() {
            set("scripts", json!(self.scripts));
        }
        config.into()
    }
}

/// What `create` takes: a name, or [`SandboxOptions`].
///
/// 0.2 is written of in two ways. Its crate takes a name, its programs call `start`, and errors come in boxes. What its README shows gives options, runs code at
/// once, and has errors that `?` makes a `Box<dyn Error>` of, which it cannot of a box: such a sandbox is started when it is first used, unless `start` did
/// before, and gives [`SandboxError`]s.
pub trait Creation {
    /// What the sandbox gives when something is not done.
    type Error: From<SandboxError>;

    /// It is started when it is first used.
    #[doc(hidden)]
    const STARTS_ITSELF: bool;

    #[doc(hidden)]
    fn options(self) -> SandboxOptions;
}

impl Creation for SandboxOptions {
    type Error = SandboxError;
    const STARTS_ITSELF: bool = true;

    fn options(self) -> SandboxOptions {
        self
    }
}

impl<S: AsRef<str> + ?Sized> Creation for &S {
    type Error = BoxedError;
    const STARTS_ITSELF: bool = false;

    fn options(self) -> SandboxOptions {
        SandboxOptions::builder().name(self.as_ref()).build()
    }
}

impl Creation for String {
    type Error = BoxedError;
    const STARTS_ITSELF: bool = false;

    fn options(self) -> SandboxOptions {
        SandboxOptions::builder().name(self).build()
    }
}
