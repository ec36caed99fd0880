// SPDX-License-Identifier: Apache-2.0
//! What `PythonSandbox` and `NodeSandbox` are told.

use std::collections::HashMap;

use serde_json::{json, Map, Value};

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
    /// Seconds to wait for it to run.
    pub timeout: f32,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            image: None,
            memory: 512,
            cpus: 1.0,
            volumes: Vec::new(),
            ports: Vec::new(),
            envs: Vec::new(),
            depends_on: Vec::new(),
            workdir: None,
            shell: None,
            scripts: HashMap::new(),
            exec: None,
            timeout: 180.0,
        }
    }
}

impl StartOptions {
    pub(crate) fn config(&self, default_image: &str) -> Value {
        let mut config = Map::new();
        let mut set = |name: &str, value: Value| config.insert(name.into(), value);
        set("image", json!(self.image.as_deref().unwrap_or(default_image)));
        set("memory", json!(self.memory));
        set("cpus", json!((self.cpus.round() as u32).max(1)));
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

/// What `create` takes: [`SandboxOptions`], or a name alone.
///
/// Programs of 0.2 are of two kinds. Those that give options run code at once, so such a sandbox is started when it is first used, unless `start` did before;
/// those that give a name call `start` themselves.
#[derive(Clone, Debug)]
pub struct Creation {
    pub(crate) options: SandboxOptions,
    pub(crate) starts_itself: bool,
}

impl From<SandboxOptions> for Creation {
    fn from(options: SandboxOptions) -> Self {
        Self { options, starts_itself: true }
    }
}

impl From<&str> for Creation {
    fn from(name: &str) -> Self {
        Self { options: SandboxOptions::builder().name(name).build(), starts_itself: false }
    }
}

impl From<String> for Creation {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<&String> for Creation {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}
