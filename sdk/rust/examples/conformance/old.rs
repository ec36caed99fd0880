// SPDX-License-Identifier: Apache-2.0
//! Operations of 0.2's surface.

use microsandbox::{
    BoxedError, Command, Error, Execution, Metrics, NodeSandbox, PythonSandbox, SandboxOptions, StartConfig,
    StartOptions,
};
use serde_json::{json, Value};

use crate::results::{error_of, texts};

pub enum Old {
    Python(PythonSandbox),
    Node(NodeSandbox),
}

macro_rules! of_either {
    ($old:expr, $sandbox:ident => $call:expr) => {
        match $old {
            Old::Python($sandbox) => $call,
            Old::Node($sandbox) => $call,
        }
    };
}

pub fn described(error: BoxedError) -> Value {
    match Error::of(error.as_ref()) {
        Some(facts) => error_of(facts),
        None => json!({"kind": "not_started", "message": error.to_string()}),
    }
}

fn options_of(arguments: &Value, settings: &Value) -> SandboxOptions {
    let mut options = SandboxOptions::builder();
    for (name, value) in arguments.as_object().into_iter().chain(settings.as_object()).flatten() {
        let text = value.as_str().unwrap_or_default();
        options = match name.as_str() {
            "name" => options.name(text),
            "namespace" => options.namespace(text),
            "server_url" => options.server_url(text),
            "api_key" => options.api_key(text),
            _ => options,
        };
    }
    options.build()
}

fn start_options(arguments: &Value) -> (StartOptions, StartConfig) {
    let (mut options, mut config) = (StartOptions::default(), StartConfig::default());
    for (name, value) in arguments.as_object().into_iter().flatten() {
        let text = || value.as_str().map(str::to_string);
        match name.as_str() {
            "image" => options.image = text(),
            "memory" => options.memory = value.as_u64().unwrap() as u32,
            "cpus" => options.cpus = value.as_f64().unwrap() as f32,
            "timeout" => options.timeout = value.as_f64().unwrap() as f32,
            "volumes" => config.volumes = texts(value),
            "ports" => config.ports = texts(value),
            "envs" => config.envs = texts(value),
            "depends_on" => config.depends_on = texts(value),
            "workdir" => config.workdir = text(),
            "shell" => config.shell = text(),
            "exec" => config.exec = text(),
            "scripts" => {
                let scripts = value.as_object().into_iter().flatten();
                config.scripts = scripts.map(|(name, body)| (name.clone(), body.as_str().unwrap().into())).collect();
            }
            "language" | "name" | "namespace" => {}
            other => panic!("start has no {other}"),
        }
    }
    (options, config)
}

/// 0.2's crate leaves white space at the end, which its other SDKs do not.
fn trimmed(text: String) -> String {
    text.trim_end().into()
}

impl Old {
    pub async fn new(arguments: &Value, settings: &Value) -> Result<Self, BoxedError> {
        let options = options_of(arguments, settings);
        Ok(match arguments["language"].as_str() {
            Some("python") => Self::Python(PythonSandbox::create_with_options(options).await?),
            _ => Self::Node(NodeSandbox::create_with_options(options).await?),
        })
    }

    pub async fn create(arguments: &Value, settings: &Value) -> Result<Self, BoxedError> {
        let mut old = Self::new(arguments, settings).await?;
        old.start(arguments).await?;
        Ok(old)
    }

    pub async fn start(&mut self, arguments: &Value) -> Result<(), BoxedError> {
        let (options, config) = start_options(arguments);
        of_either!(self, sandbox => sandbox.start_with(options, config).await)
    }

    pub async fn stop(&mut self) -> Result<(), BoxedError> {
        of_either!(self, sandbox => sandbox.stop().await)
    }

    pub async fn run(&self, code: &str) -> Result<Value, BoxedError> {
        let ran: Execution = of_either!(self, sandbox => sandbox.run(code).await?);
        Ok(json!({
            "output": trimmed(ran.output().await?), "error": trimmed(ran.error().await?), "has_error": ran.has_error(),
            "status": ran.status(), "language": ran.language(),
        }))
    }

    pub async fn command(&self, arguments: &Value) -> Result<Value, BoxedError> {
        let command: Command = of_either!(self, sandbox => sandbox.command().await?);
        let args = arguments["args"].as_array().map(|args| args.iter().filter_map(Value::as_str).collect());
        let timeout = arguments["timeout"].as_i64().map(|timeout| timeout as i32);
        let ran = command.run(arguments["command"].as_str().unwrap(), args, timeout).await?;
        Ok(json!({
            "output": trimmed(ran.output().await?), "error": trimmed(ran.error().await?), "exit_code": ran.exit_code(),
            "success": ran.is_success(), "command": ran.command(), "args": ran.args(),
        }))
    }

    pub async fn metrics(&self) -> Result<Value, BoxedError> {
        let metrics: Metrics = of_either!(self, sandbox => sandbox.metrics());
        Ok(json!({
            "all": metrics.all().await?, "cpu": metrics.cpu().await?, "memory": metrics.memory().await?,
            "disk": metrics.disk().await?, "is_running": metrics.is_running().await?,
        }))
    }
}
