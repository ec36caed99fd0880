// SPDX-License-Identifier: Apache-2.0
//! The part of bench/sdk that is in Rust: `compare SANDBOX ROUNDS COUNT BUSY` or `many SANDBOX CALLS`. Prints JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use microsandbox::{Client, Sandbox};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::Method;
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Done<T = ()> = Result<T, Box<dyn Error>>;

const WARM: usize = 20;
const WORKERS: usize = 20;

/// One request, to be sent in three ways.
struct Request {
    method: Method,
    target: String,
    document: Option<Value>,
}

impl Request {
    fn of(call: &str, sandbox: &str) -> Self {
        let (method, part, document) = match call {
            "run" => (Method::POST, "code", Some(json!({ "language": "python", "code": "1" }))),
            "command" => (Method::POST, "exec", Some(json!({ "command": ["true"] }))),
            _ => (Method::GET, "metrics", None),
        };
        Self { method, target: format!("/v1/sandboxes/{sandbox}/{part}?namespace=default"), document }
    }

    fn body(&self) -> String {
        self.document.as_ref().map_or_else(String::new, Value::to_string)
    }
}

async fn by_sdk(sandbox: &Sandbox, call: &str, busy: Duration) -> Done {
    let begin = Instant::now();
    while begin.elapsed() < busy {}
    match call {
        "run" => drop(sandbox.run("1").await?),
        "command" => drop(sandbox.command("true").run().await?),
        _ => drop(sandbox.metrics().await?),
    }
    Ok(())
}

/// The same by reqwest.
struct Raw {
    client: reqwest::Client,
    server: String,
    authorization: String,
}

impl Raw {
    async fn call(&self, request: &Request) -> Done {
        let url = format!("{}{}", self.server, request.target);
        let mut sent = self.client.request(request.method.clone(), url).header(AUTHORIZATION, &self.authorization);
        if request.document.is_some() {
            sent = sent.header(CONTENT_TYPE, "application/json").body(request.body());
        }
        let body = sent.send().await?.error_for_status()?.bytes().await?;
        serde_json::from_slice::<Value>(&body)?;
        Ok(())
    }
}

/// The same by bytes that were made before, on a connection: no client can be faster.
struct Bare {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Bare {
    async fn to(host: &str) -> Done<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, came: vec![0; 1 << 16] })
    }

    async fn call(&mut self, request: &[u8]) -> Done {
        self.stream.write_all(request).await?;
        let mut size = 0;
        while !is_whole(&self.came[..size])? {
            match self.stream.read(&mut self.came[size..]).await? {
                0 => return Err("the server closed the connection".into()),
                more => size += more,
            }
        }
        Ok(())
    }
}

fn is_whole(came: &[u8]) -> Done<bool> {
    let end = match came.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(end) => end + 4,
        None => return Ok(false),
    };
    let head = std::str::from_utf8(&came[..end])?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(head.into());
    }
    let length =
        head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).ok_or("the answer has no length")?;
    Ok(came.len() >= end + length.parse::<usize>()?)
}

async fn compare(name: &str, rounds: usize, count: usize, busy: Duration) -> Done<Value> {
    let client = Client::new()?;
    let sandbox = client.connect(name).await?;
    let server = std::env::var("MSB_SERVER_URL")?;
    let host = server.trim_start_matches("http://").to_string();
    let authorization = format!("Bearer {}", std::env::var("MSB_API_KEY")?);
    let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
    let raw = Raw { client: http, server: server.clone(), authorization: authorization.clone() };
    let mut bare = Bare::to(&host).await?;

    let mut found = BTreeMap::new();
    for call in ["run", "command", "metrics"] {
        let request = Request::of(call, name);
        let body = request.body();
        let bytes = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            request.method,
            request.target,
            body.len()
        );
        let mut times: BTreeMap<&str, Vec<Vec<f64>>> = BTreeMap::new();
        for round in 0..=rounds {
            // The first one warms up.
            let turns = if round == 0 { WARM } else { count };
            let mut now: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for turn in 0..turns {
                for step in 0..3 {
                    let kind = ["sdk", "raw", "bare"][(turn + step) % 3];
                    let begin = Instant::now();
                    match kind {
                        "sdk" => by_sdk(&sandbox, call, busy).await?,
                        "raw" => raw.call(&request).await?,
                        _ => bare.call(bytes.as_bytes()).await?,
                    }
                    now.entry(kind).or_default().push(begin.elapsed().as_secs_f64() * 1e3);
                }
            }
            if round > 0 {
                for (kind, one) in now {
                    times.entry(kind).or_default().push(one);
                }
            }
        }
        found.insert(call, times);
    }
    Ok(json!(found))
}

fn descriptors() -> Done<usize> {
    // One of them reads the directory.
    Ok(std::fs::read_dir("/proc/self/fd")?.count() - 1)
}

async fn many(name: &str, calls: usize) -> Done<Value> {
    let sandbox = Client::new()?.connect(name).await?;
    let mut seen = Vec::new();
    for _half in 0..2 {
        try_join_all((0..WORKERS).map(|_| async {
            for _ in 0..calls / 2 / WORKERS {
                sandbox.metrics().await?;
            }
            Ok::<(), microsandbox::Error>(())
        }))
        .await?;
        seen.push(descriptors()?);
    }
    Ok(json!({ "descriptors": seen }))
}

#[tokio::main]
async fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let found = match words[..] {
        ["compare", name, rounds, count, busy] => {
            compare(name, rounds.parse()?, count.parse()?, Duration::from_secs_f64(busy.parse::<f64>()? / 1e3)).await?
        }
        ["many", name, calls] => many(name, calls.parse()?).await?,
        _ => return Err("compare SANDBOX ROUNDS COUNT BUSY, or many SANDBOX CALLS".into()),
    };
    println!("{found}");
    Ok(())
}
