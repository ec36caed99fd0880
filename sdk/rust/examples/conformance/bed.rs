// SPDX-License-Identifier: Apache-2.0
//! Where cases run: the server, what was made there, and servers that answer as a script says.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use microsandbox::{Client, ErrorKind, Process, Sandbox};
use serde_json::{json, Value};

use crate::case::Variables;
use crate::old::Old;
use crate::operations::{builder_of, client_of};
use crate::results::unique;

/// What a variable holds.
#[derive(Clone)]
pub enum Thing {
    Value(Value),
    Sandbox(Arc<Sandbox>),
    Process(Arc<Process>),
    Client(Client),
    Old(Arc<tokio::sync::Mutex<Old>>),
}

pub struct Bed {
    pub url: String,
    pub key: String,
    pub directory: String,
    /// Namespaces and names of what was created, with the settings for it.
    names: Mutex<Vec<(Value, String, Value)>>,
    /// Sandboxes that are not to be stopped when a case is over, but removed.
    kept: Mutex<Vec<Arc<Sandbox>>>,
}

impl Bed {
    pub fn of(url: &str, key: &str, directory: &str) -> Self {
        let (names, kept) = Default::default();
        Self { url: url.into(), key: key.into(), directory: directory.into(), names, kept }
    }

    pub fn settings(&self) -> Value {
        json!({"server_url": self.url, "api_key": self.key})
    }

    /// It is removed at the end of the case.
    pub fn note(&self, namespace: &Value, name: &str, settings: &Value) {
        self.names.lock().unwrap().push((namespace.clone(), name.into(), settings.clone()));
    }

    pub fn keep(&self, sandbox: &Arc<Sandbox>) {
        self.kept.lock().unwrap().push(sandbox.clone());
    }

    /// Lets go of what is open.
    pub async fn release(&self) {
        for sandbox in self.kept.lock().unwrap().drain(..) {
            if let Ok(sandbox) = Arc::try_unwrap(sandbox) {
                sandbox.detach();
            }
        }
        microsandbox::settled().await;
        // Connections are closed by tasks of the runtime, as soon as it comes to them.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    pub async fn remove_all(&self) -> Result<(), String> {
        let names = std::mem::take(&mut *self.names.lock().unwrap());
        for (namespace, name, _) in names {
            let client = client_of(&self.settings()).map_err(|error| error.to_string())?;
            let client = match namespace.as_str() {
                Some(namespace) => client.namespace(namespace),
                None => client,
            };
            let removed = match client.connect(&name).await {
                Ok(sandbox) => sandbox.remove().await,
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if ![ErrorKind::NotFound, ErrorKind::Invalid].contains(&error.kind()) => {
                    return Err(format!("'{name}' cannot be removed: {error}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The sandboxes of a file.
    pub async fn shared(&self, wanted: &Value) -> Variables {
        let mut shared = Variables::new();
        for (variable, arguments) in wanted.as_object().into_iter().flatten() {
            let sandbox = builder_of(arguments, &self.settings()).name(format!("rust-{}", unique())).create().await;
            let sandbox = sandbox.unwrap_or_else(|error| panic!("'{variable}' cannot be made: {error}"));
            shared.insert(variable.clone(), Thing::Sandbox(Arc::new(sandbox)));
        }
        shared
    }

    pub async fn remove_shared(&self, shared: Variables) {
        for thing in shared.into_values() {
            if let Thing::Sandbox(sandbox) = thing {
                if let Err(error) = sandbox.remove().await {
                    eprintln!("{error}");
                }
            }
        }
    }
}

/// A server that answers as a script says.
pub struct Scripted {
    pub url: String,
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    script: std::path::PathBuf,
}

impl Scripted {
    pub fn start(folder: &Path, answers: &Value) -> Self {
        let script = std::env::temp_dir().join(format!("script-{}.json", unique()));
        std::fs::File::create(&script).unwrap().write_all(answers.to_string().as_bytes()).unwrap();
        let mut process = Command::new("python3")
            .arg(folder.join("scripted_server.py"))
            .arg(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the scripted server runs");
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut output = BufReader::new(output);
        let mut port = String::new();
        output.read_line(&mut port).expect("it says its port");
        Self { url: format!("http://127.0.0.1:{}", port.trim()), process, input, output, script }
    }

    /// What it saw.
    pub async fn end(self) -> Value {
        let Self { mut process, input, mut output, script, .. } = self;
        drop(input);
        let _ = std::fs::remove_file(script);
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            output.read_line(&mut line).expect("it says what it saw");
            process.wait().expect("it ends");
            line
        });
        serde_json::from_str(&line.await.unwrap()).expect("what it saw is JSON")
    }
}
