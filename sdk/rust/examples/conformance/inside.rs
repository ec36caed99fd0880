// SPDX-License-Identifier: Apache-2.0
//! Operations on processes and files, and what comes of streams.

use bytes::Bytes;
use futures_util::stream;
use microsandbox::{Content, Exit, Offsets, Output, OutputStream, ProcessOutput, Signal, WriteOptions};
use serde_json::{json, Map, Value};

use crate::operations::{seconds, Done, Operation};
use crate::results::*;

fn mode_of(arguments: &Value) -> Option<u32> {
    arguments["mode"].as_str().map(|mode| u32::from_str_radix(mode, 8).expect("octal digits"))
}

/// What was written to both streams.
#[derive(Default)]
pub struct Written {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    pieces: u64,
    lost: Vec<Value>,
}

impl Written {
    /// Whether what is waited for has come.
    pub fn add(&mut self, output: &Output, stop_at: Option<&str>) -> bool {
        self.pieces += 1;
        let stream = if output.stream == OutputStream::Stdout { &mut self.stdout } else { &mut self.stderr };
        stream.extend_from_slice(&output.data);
        stop_at.map_or(false, |word| String::from_utf8_lossy(&self.stdout).contains(word))
    }

    pub fn told(&self, exit: Option<&Exit>) -> Map<String, Value> {
        let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
        let told = json!({
            "stdout": text(&self.stdout), "stderr": text(&self.stderr), "stdout_base64": base64::encode(&self.stdout),
            "pieces": self.pieces, "lost": self.lost, "exit": exit.map(exit_of),
        });
        told.as_object().cloned().unwrap_or_default()
    }
}

impl Operation<'_> {
    pub async fn process_operation(&self, name: &str) -> Done<Value> {
        let process = self.process();
        let data = match self.arguments["data_base64"].as_str() {
            Some(data) => base64::decode(data).unwrap(),
            None => self.text("data").into(),
        };
        let size = |name: &str| self.arguments[name].as_u64().unwrap_or(0);
        Ok(match name {
            "info" => process_of(&process.info().await?),
            "output" => {
                let offsets = Offsets { stdout: size("stdout"), stderr: size("stderr") };
                let mut stream = process.output_from(offsets, self.arguments["follow"] != false);
                let mut written = Written::default();
                while let Some(output) = stream.next().await {
                    match output? {
                        ProcessOutput::Output(output) if written.add(&output, self.stop_at()) => break,
                        ProcessOutput::Lost { stream, offset, next } => {
                            written.lost.push(json!({"stream": stream.as_str(), "offset": offset, "next": next}));
                        }
                        _ => {}
                    }
                }
                let Offsets { stdout, stderr } = stream.offsets();
                let mut told = written.told(stream.exit());
                told.insert("offsets".into(), json!({"stdout": stdout, "stderr": stderr}));
                told.into()
            }
            "write" if self.arguments["end"] == true => json!(process.write_last(data).await?),
            "write" => json!(process.write(data).await?),
            "close_input" => json!(process.close_input().await?),
            "wait" if self.arguments["timeout"].is_null() => exit_of(&process.wait().await?),
            "wait" => exit_of(&process.wait_for(seconds(&self.arguments["timeout"])).await?),
            "signal" => {
                let signal = match self.arguments["signal"].as_i64() {
                    Some(number) => Signal::from(number as i32),
                    None => Signal::from(self.text("signal")),
                };
                json!(match self.arguments["group"] == true {
                    true => process.signal_group(signal).await?,
                    false => process.signal(signal).await?,
                })
            }
            "kill" => json!(process.kill().await?),
            "resize" => json!(process.resize(size("rows") as u16, size("columns") as u16).await?),
            "remove" => json!(process.remove().await?),
            other => panic!("the runner has no process.{other}"),
        })
    }

    fn write_options(&self) -> WriteOptions {
        let options =
            if self.arguments["parents"] == true { WriteOptions::new().parents() } else { WriteOptions::new() };
        match mode_of(&self.arguments) {
            Some(mode) => options.mode(mode),
            None => options,
        }
    }

    pub async fn files_operation(&self, name: &str) -> Done<Value> {
        let (files, path) = (self.files(), self.text("path"));
        let recursive = self.arguments["recursive"] == true;
        let local = std::env::temp_dir().join(format!("conformance-{}", unique()));
        Ok(match name {
            "read" => {
                let data = match (self.arguments["offset"].as_u64(), self.arguments["length"].as_u64()) {
                    (None, None) => files.read(path).await?,
                    (offset, length) => files.read_range(path, offset.unwrap_or(0), length).await?,
                };
                let mut told = sum_of(&data);
                told["base64"] = base64::encode(&data).into();
                told["text"] = String::from_utf8_lossy(&data).into();
                told
            }
            "read_pieces" => sum_of(&files.read_pieces(path).await?.collect().await?),
            "write" => {
                let content: Content = match (self.arguments["base64"].as_str(), self.arguments["text"].as_str()) {
                    (Some(data), _) => base64::decode(data).unwrap().into(),
                    (_, Some(text)) => text.into(),
                    _ => pattern(&self.arguments["size"]).into(),
                };
                files.write_with(path, content, self.write_options()).await?.into()
            }
            "write_pieces" => {
                let data = pattern(&self.arguments["size"]);
                let pieces: Vec<_> = data.chunks(65536).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                files.write(path, Content::stream(stream::iter(pieces))).await?.into()
            }
            "list" => files.list(path).await?.iter().map(file_of).collect(),
            "stat" if self.arguments["follow"] == true => file_of(&files.stat_followed(path).await?),
            "stat" => file_of(&files.stat(path).await?),
            "exists" => files.exists(path).await?.into(),
            "remove" if recursive => json!(files.remove_all(path).await?),
            "remove" => json!(files.remove(path).await?),
            "make_directory" if self.arguments["parents"] == true => {
                json!(files.make_directories(path, mode_of(&self.arguments)).await?)
            }
            "make_directory" => json!(files.make_directory(path, mode_of(&self.arguments)).await?),
            "move" if self.arguments["replace"] == true => {
                json!(files.replace(self.text("from"), self.text("to")).await?)
            }
            "move" => json!(files.rename(self.text("from"), self.text("to")).await?),
            "upload" => {
                std::fs::write(&local, pattern(&self.arguments["size"])).unwrap();
                let sent = files.upload(&local, path, self.write_options()).await;
                std::fs::remove_file(&local).unwrap();
                sent?.into()
            }
            "download" => {
                let size = files.download(path, &local).await?;
                let data = std::fs::read(&local).unwrap();
                std::fs::remove_file(&local).unwrap();
                assert_eq!(size, data.len() as u64);
                sum_of(&data)
            }
            "copy_tree" => {
                let archive = files.pack(self.text("from")).await?.collect().await?;
                files.unpack(self.text("to"), archive, false).await?.into()
            }
            other => panic!("the runner has no files.{other}"),
        })
    }
}
