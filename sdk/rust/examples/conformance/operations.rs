// SPDX-License-Identifier: Apache-2.0
//! The operations of the suite with this SDK.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use microsandbox::{Client, CodeOutput, CommandBuilder, Error, Files, OutputStream, Process, Sandbox, SandboxBuilder};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bed::{Bed, Thing};
use crate::case::Outcome;
use crate::inside::Written;
use crate::old::{described, Old};
use crate::results::*;

pub struct Operation<'a> {
    pub bed: &'a Bed,
    pub on: Option<Thing>,
    pub arguments: Value,
    pub settings: Value,
    pub client: Option<Client>,
    pub entered: bool,
}

/// The error of this SDK, as the suite describes it.
pub struct Told(Value);

impl From<Error> for Told {
    fn from(error: Error) -> Self {
        Self(error_of(&error))
    }
}

pub type Done<T> = Result<T, Told>;

pub fn client_of(settings: &Value) -> microsandbox::Result<Client> {
    let mut client = Client::builder();
    for (name, value) in settings.as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        client = match name.as_str() {
            "server_url" => client.server_url(text),
            "api_key" => client.api_key(text),
            other => panic!("there is no setting {other}"),
        };
    }
    client.build()
}

pub fn seconds(value: &Value) -> Duration {
    Duration::from_secs_f64(value.as_f64().expect("seconds"))
}

pub fn builder_of(arguments: &Value, settings: &Value) -> SandboxBuilder {
    let arguments = arguments.as_object().expect("arguments are an object");
    let image = arguments.get("image").and_then(Value::as_str).unwrap_or("python");
    let mut builder = Sandbox::builder(image);
    if let Some(url) = settings["server_url"].as_str() {
        builder = builder.server_url(url);
    }
    if let Some(key) = settings["api_key"].as_str() {
        builder = builder.api_key(key);
    }
    for (name, value) in arguments {
        let text = value.as_str().unwrap_or_default();
        let pairs = || value.as_object().into_iter().flatten().map(|(name, value)| (name, value.as_str().unwrap()));
        builder = match name.as_str() {
            "image" => builder,
            "name" => builder.name(text),
            "namespace" => builder.namespace(text),
            "labels" => pairs().fold(builder, |builder, (name, value)| builder.label(name, value)),
            "envs" => pairs().fold(builder, |builder, (name, value)| builder.env(name, value)),
            "ephemeral" => builder.ephemeral(value.as_bool().unwrap()),
            "cpus" => builder.cpus(value.as_f64().unwrap()),
            "memory" => match value.as_u64() {
                Some(mebibytes) => builder.memory(mebibytes as u32),
                None => builder.memory(text),
            },
            "ports" => value.as_array().unwrap().iter().fold(builder, |builder, port| match port.as_u64() {
                Some(port) => builder.port(port as u16),
                None => builder.publish(port.as_str().unwrap()),
            }),
            "volumes" => texts(value).into_iter().fold(builder, SandboxBuilder::volume),
            "network" => builder.network(texts(value)),
            "command" => builder.command(texts(value)),
            "timeout" => builder.timeout(seconds(value)),
            "idle_timeout" => builder.idle_timeout(seconds(value)),
            "start_timeout" => builder.start_timeout(seconds(value)),
            other => panic!("the runner has no {other} of create"),
        };
    }
    builder
}

impl Operation<'_> {
    pub fn text(&self, name: &str) -> &str {
        self.arguments[name].as_str().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.arguments["port"].as_u64().expect("a port") as u16
    }

    pub fn stop_at(&self) -> Option<&str> {
        self.arguments["stop_at"].as_str()
    }

    fn sandbox(&self) -> &Sandbox {
        match &self.on {
            Some(Thing::Sandbox(sandbox)) => sandbox,
            _ => panic!("this is on a sandbox"),
        }
    }

    pub fn process(&self) -> &Process {
        match &self.on {
            Some(Thing::Process(process)) => process,
            _ => panic!("this is on a process"),
        }
    }

    pub fn files(&self) -> Files<'_> {
        self.sandbox().files()
    }

    pub async fn run(mut self, name: &str) -> Outcome {
        if let Some(rest) = name.strip_prefix("old.") {
            return self.old(rest).await;
        }
        let done = match name {
            "create" | "connect" => self.made(name).await,
            "command.start" | "command.attach" => self.begun(name).await,
            "client" => {
                client_of(&self.settings).map(|client| (Value::Null, Some(Thing::Client(client)))).map_err(Told::from)
            }
            _ if name.starts_with("files.") => self.files_operation(&name[6..]).await.map(|result| (result, None)),
            _ if name.starts_with("process.") => self.process_operation(&name[8..]).await.map(|result| (result, None)),
            _ => self.other(name).await.map(|result| (result, None)),
        };
        self.on = None; // nobody else has what is left now
        done.map_err(|told| told.0)
    }

    fn client(&self) -> Done<Client> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => client_of(&self.settings)?,
        };
        Ok(match self.arguments["namespace"].as_str() {
            Some(namespace) => client.namespace(namespace),
            None => client,
        })
    }

    async fn made(&self, name: &str) -> Done<(Value, Option<Thing>)> {
        let sandbox = if name == "connect" {
            self.client()?.connect(self.text("name")).await?
        } else {
            if let Some(name) = self.arguments["name"].as_str() {
                self.bed.note(&self.arguments["namespace"], name, &self.settings);
            }
            let mut builder = builder_of(&self.arguments, &self.settings);
            if let Some(client) = &self.client {
                builder = builder.client(client);
            }
            let sandbox = builder.create().await?;
            self.bed.note(&sandbox.namespace().into(), sandbox.name(), &self.settings);
            sandbox
        };
        let sandbox = Arc::new(sandbox);
        if !self.entered {
            self.bed.keep(&sandbox);
        }
        Ok((info_of(&sandbox.info()), Some(Thing::Sandbox(sandbox))))
    }

    async fn begun(&self, name: &str) -> Done<(Value, Option<Thing>)> {
        let process = if name == "command.attach" {
            self.sandbox().attach(self.arguments["id"].as_u64().unwrap() as u32).await?
        } else {
            self.command().start().await?
        };
        let told = json!({"id": process.id(), "pid": process.pid()});
        Ok((told, Some(Thing::Process(Arc::new(process)))))
    }

    fn command(&self) -> CommandBuilder<'_> {
        let mut command = self.sandbox().command(self.text("command"));
        for (name, value) in self.arguments.as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            command = match name.as_str() {
                "command" | "stop_at" => command,
                "args" => command.args(texts(value)),
                "timeout" => command.timeout(seconds(value)),
                "envs" => {
                    let envs = value.as_object().into_iter().flatten();
                    envs.fold(command, |command, (name, value)| command.env(name, value.as_str().unwrap()))
                }
                "workdir" => command.workdir(text),
                "user" => command.user(text),
                "stdin" => command.stdin(text),
                "stdin_base64" => command.stdin(base64::decode(text).unwrap()),
                "input" => command.input(value.as_bool().unwrap()),
                "terminal" => command.terminal(value[0].as_u64().unwrap() as u16, value[1].as_u64().unwrap() as u16),
                "label" => command.label(text),
                "keep" => command.keep(value.as_u64().unwrap()),
                other => panic!("the runner has no {other} of a command"),
            };
        }
        command
    }

    fn code(&self) -> microsandbox::CodeBuilder<'_> {
        let mut code = self.sandbox().code(self.text("code"));
        if let Some(language) = self.arguments["language"].as_str() {
            code = code.language(language);
        }
        if let Some(session) = self.arguments["session"].as_str() {
            code = code.session(session);
        }
        if !self.arguments["timeout"].is_null() {
            code = code.timeout(seconds(&self.arguments["timeout"]));
        }
        code
    }

    async fn stream(&self) -> Done<Value> {
        let mut stream = self.code().stream();
        let mut outputs: Vec<Value> = Vec::new();
        let mut said = String::new();
        while let Some(output) = stream.next().await {
            match output? {
                CodeOutput::Text { stream, text } => {
                    if stream == OutputStream::Stdout {
                        said += &text;
                    }
                    match outputs.last_mut().filter(|last| last["stream"] == stream.as_str()) {
                        Some(last) => {
                            last["text"] = (last["text"].as_str().unwrap_or_default().to_string() + &text).into()
                        }
                        None => outputs.push(json!({"type": "text", "stream": stream.as_str(), "text": text})),
                    }
                }
                CodeOutput::Value(value) => {
                    let kind = if value.is_result { "result" } else { "display" };
                    outputs.push(json!({"type": kind, "data": value.data}));
                }
                CodeOutput::Failure(failure) => {
                    outputs.push(json!({"type": "error", "name": failure.name, "message": failure.message}));
                }
                other => panic!("{other:?} is new"),
            }
            if self.stop_at().map_or(false, |word| said.contains(word)) {
                break;
            }
        }
        Ok(json!({"outputs": outputs, "result": stream.result().map(result_of)}))
    }

    async fn other(&self, name: &str) -> Done<Value> {
        let language = self.arguments["language"].as_str().unwrap_or("python");
        let session = self.arguments["session"].as_str().unwrap_or("main");
        let of_client = || match &self.on {
            Some(Thing::Client(client)) => client,
            _ => panic!("this is on a client"),
        };
        Ok(match name {
            "list" => {
                let mut list = self.client()?.list();
                for (name, value) in self.arguments["labels"].as_object().into_iter().flatten() {
                    list = list.label(name, value.as_str().unwrap());
                }
                if let Some(state) = self.arguments["state"].as_str() {
                    list = list.state(state.into());
                }
                list.all().await?.iter().map(info_of).collect()
            }
            "refresh" => info_of(&self.sandbox().refresh().await?),
            "start" => info_of(&self.sandbox().start().await?),
            "stop" if self.arguments["at_once"] == true => info_of(&self.sandbox().stop_at_once().await?),
            "stop" => info_of(&self.sandbox().stop().await?),
            "pause" => info_of(&self.sandbox().pause().await?),
            "resume" => info_of(&self.sandbox().resume().await?),
            "remove" => json!(self.sandbox().remove().await?),
            "run" => result_of(&self.code().run().await?),
            "stream" => self.stream().await?,
            "sessions" => self.sandbox().sessions().await?.iter().map(session_of).collect(),
            "interrupt" => json!(self.sandbox().interrupt(language, session).await?),
            "close_session" => json!(self.sandbox().close_session(language, session).await?),
            "command.run" => {
                let ran = self.command().run().await?;
                let mut told = exit_of(&ran.exit);
                told["stdout"] = ran.stdout.into();
                told["stderr"] = ran.stderr.into();
                told["truncated"] = ran.truncated.into();
                told
            }
            "command.stream" => {
                let mut stream = self.command().stream();
                let mut written = Written::default();
                while let Some(output) = stream.next().await {
                    if written.add(&output?, self.stop_at()) {
                        break;
                    }
                }
                written.told(stream.exit()).into()
            }
            "command.list" => self.sandbox().processes().await?.iter().map(process_of).collect(),
            "ports" => self.sandbox().ports().await?.iter().map(port_of).collect(),
            "url" => self.sandbox().url(self.port()).await?.into(),
            "app_url" => self.sandbox().app_url(self.port()).into(),
            "metrics" => metrics_of(&self.sandbox().metrics().await?),
            "logs" => {
                let mut logs = self.sandbox().logs();
                if let Some(tail) = self.arguments["tail"].as_u64() {
                    logs = logs.tail(tail as u32);
                }
                if self.arguments["follow"] == true {
                    logs = logs.follow();
                }
                // As futures' own streams are read.
                let lines: Vec<_> = logs.stream().collect().await;
                lines.into_iter().map(|line| line.map(|line| line_of(&line))).collect::<Result<Value, Error>>()?
            }
            "health" => of_client().health().await?.into(),
            "server" => {
                let server = of_client().server().await?;
                json!({"version": server.version, "limits": server.limits, "key": server.key})
            }
            "fetch" => fetch(self.text("url")).await?,
            "pause_for" => {
                tokio::time::sleep(seconds(&self.arguments["seconds"])).await;
                Value::Null
            }
            other => panic!("the runner has no {other}"),
        })
    }

    async fn old(&self, name: &str) -> Outcome {
        if name == "new" || name == "create" {
            let namespace = self.arguments.get("namespace").cloned().unwrap_or_else(|| "default".into());
            self.bed.note(&namespace, self.text("name"), &self.settings);
            let made = match name {
                "new" => Old::new(&self.arguments, &self.settings).await,
                _ => Old::create(&self.arguments, &self.settings).await,
            };
            let old = made.map_err(described)?;
            return Ok((Value::Null, Some(Thing::Old(Arc::new(tokio::sync::Mutex::new(old))))));
        }
        let mut old = match &self.on {
            Some(Thing::Old(old)) => old.lock().await,
            _ => panic!("this is on a sandbox of 0.2's surface"),
        };
        let done = match name {
            "start" => old.start(&self.arguments).await.map(|()| Value::Null),
            "stop" => old.stop().await.map(|()| Value::Null),
            "run" => old.run(self.text("code")).await,
            "command.run" => old.command(&self.arguments).await,
            "metrics" => old.metrics().await,
            other => panic!("the runner has no old.{other}"),
        };
        done.map(|result| (result, None)).map_err(described)
    }
}

/// A plain GET, not by the SDK.
async fn fetch(url: &str) -> Done<Value> {
    let told = |error: std::io::Error| Told(json!({"kind": "other", "message": error.to_string()}));
    let place = url.strip_prefix("http://").expect("an address");
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let mut stream = tokio::net::TcpStream::connect(host).await.map_err(told)?;
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(told)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&*answer, ""));
    let status: u16 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok(json!({"status": status, "text": text}))
}
