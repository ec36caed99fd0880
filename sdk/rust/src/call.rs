// SPDX-License-Identifier: Apache-2.0
//! Requests, as values; what their answers mean; and when one is sent again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde_json::Value;

use crate::content::Content;
use crate::document::Parsed;
use crate::error::{Error, ErrorKind, Result};

/// Without a byte, of an answer that needs no work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A start may have to pull an image: what the 0.2 line waited, and then some.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(180 + 30);
/// Bytes; files and what processes read are streamed, and have no end.
const LARGEST_DOCUMENT: usize = 32 << 20;
pub(crate) const NDJSON: &str = "application/x-ndjson";

pub(crate) enum Body {
    Empty,
    Document(Value),
    Content(Content, &'static str),
}

/// One request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
    /// Doing it twice is as doing it once.
    pub(crate) repeatable: bool,
    /// How long nothing may come; None: the answer comes when something in the sandbox has ended.
    pub(crate) patience: Option<Duration>,
}

impl Call {
    pub(crate) fn new(method: Method, path: &[&str]) -> Self {
        Self {
            repeatable: method == Method::GET || method == Method::DELETE,
            method,
            path: path.iter().map(|part| part.to_string()).collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Empty,
            patience: Some(PATIENCE),
        }
    }

    /// Of a sandbox.
    pub(crate) fn of(method: Method, sandbox: &str, rest: &[&str]) -> Self {
        Self::new(method, &[&["v1", "sandboxes", sandbox], rest].concat())
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(crate) fn optional(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn document(mut self, document: Value) -> Self {
        self.body = Body::Document(document);
        self
    }

    pub(crate) fn content(mut self, content: Content, kind: &'static str) -> Self {
        self.body = Body::Content(content, kind);
        self
    }

    pub(crate) fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    pub(crate) fn patience(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// "GET /v1/sandboxes": what errors call it.
    pub(crate) fn name(&self) -> String {
        format!("{} /{}", self.method, self.path.join("/"))
    }

    pub(crate) fn url(&self, server: &Url) -> Result<Url> {
        let mut url = server.clone();
        // A name that is empty or dots alone would lead to another path.
        if let Some(part) = self.path.iter().find(|part| part.chars().all(|c| c == '.')) {
            return Err(Error::invalid(format!("'{part}' is no name")));
        }
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(&self.path),
            Err(()) => return Err(Error::invalid(format!("'{server}' is no address of a server"))),
        };
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }

    /// The body as bytes, where it is a document.
    pub(crate) fn document_bytes(&self) -> Result<Option<Bytes>> {
        let document = match &self.body {
            Body::Document(document) => document,
            _ => return Ok(None),
        };
        let bytes = Bytes::from(document.to_string());
        if bytes.len() > LARGEST_DOCUMENT {
            // The server would hang up before it has read why.
            return Err(Error::new(
                ErrorKind::TooLarge,
                "too_large",
                format!("{} has {} bytes, more than the server takes: {LARGEST_DOCUMENT}", self.name(), bytes.len()),
            ));
        }
        Ok(Some(bytes))
    }
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// What `read` makes of its document.
    pub(crate) fn read<T>(self, read: impl FnOnce(&Value) -> Parsed<T>) -> Result<T> {
        let document: Value = match serde_json::from_slice(&self.body) {
            Ok(document) => document,
            Err(_) => return Err(self.not_understood()),
        };
        read(&document).map_err(|_| self.not_understood())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn request_id(&self) -> Option<String> {
        self.header("x-request-id").map(str::to_string)
    }

    fn start(&self) -> String {
        let start = &self.body[..self.body.len().min(200)];
        String::from_utf8_lossy(start).trim().to_string()
    }

    pub(crate) fn not_understood(&self) -> Error {
        let message =
            format!("the answer with status {} is not one of a microsandbox server: '{}'", self.status, self.start());
        Error::new(ErrorKind::NotUnderstood, "not_understood", message)
            .with_status(self.status)
            .with_request_id(self.request_id())
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds: f64 = self.header("retry-after")?.parse().ok()?; // or a date, which this server never says
        (0.0..1e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    }

    /// The error that an answer of 400 or more is.
    pub(crate) fn refusal(&self) -> Error {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let told = &document["error"];
        let error = match told["message"].as_str() {
            Some(message) => {
                // Of JSON-RPC, "code" is a number, and that of 0.2 is in its "data".
                let number = told["number"].as_i64().or_else(|| told["data"]["code"].as_i64());
                Error::of_answer(message.into(), told["code"].as_str(), number, Some(self.status))
            }
            None => {
                let said = match self.start() {
                    start if start.is_empty() => start,
                    start => format!(": {start}"),
                };
                let message = format!("the server answered {}{said}", self.status);
                Error::of_answer(message, None, None, Some(self.status))
            }
        };
        let id = told["request_id"].as_str().map(str::to_string);
        error.with_request_id(id.or_else(|| self.request_id())).with_retry_after(self.retry_after())
    }
}

/// Why there is no answer.
pub(crate) enum Trouble {
    Http(reqwest::Error),
    /// Nothing came for so long.
    Silence(Duration),
}

impl Trouble {
    /// There was no connection to send the request on.
    fn never_sent(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_connect())
    }

    pub(crate) fn into_error(self, call: &str, server: &str) -> Error {
        match self {
            Self::Silence(patience) => Error::new(
                ErrorKind::TimedOut,
                "timeout",
                format!("{call}: nothing came from the server for {} s", patience.as_secs_f64()),
            ),
            Self::Http(error) => {
                let why = innermost(&error);
                if error.is_connect() {
                    let message = format!("cannot connect to {server}: {why}");
                    Error::new(ErrorKind::Unreachable, "unreachable", message).with_source(error)
                } else {
                    let message = format!("{call}: the connection broke: {why}");
                    Error::new(ErrorKind::Broken, "broken", message).with_source(error)
                }
            }
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// When a request is sent again: at most `attempts` in all, and `longest` between two; 429 says itself how long.
#[derive(Clone, Copy)]
pub(crate) struct Retries {
    pub(crate) attempts: u32,
    pub(crate) longest: Duration,
}

/// For what was under way when the server was restarted: about half a minute.
pub(crate) const RESUMPTION: Retries = Retries { attempts: 12, longest: Duration::from_secs(5) };

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The attempts of one request.
pub(crate) struct Attempts {
    retries: Retries,
    number: u32,
    repeatable: bool,
    /// One before may have been done.
    pub(crate) answer_lost: bool,
}

impl Attempts {
    pub(crate) fn new(call: &Call, retries: Retries) -> Self {
        // Content that is gone once it was sent cannot be sent again, whatever it was.
        let again = !matches!(&call.body, Body::Content(content, _) if !content.is_repeatable());
        Self {
            retries: Retries { attempts: if again { retries.attempts } else { 1 }, ..retries },
            number: 1,
            repeatable: call.repeatable,
            answer_lost: false,
        }
    }

    /// Until the next attempt; None: this is how it is.
    pub(crate) fn pause(&mut self, outcome: &Result<Reply, Trouble>) -> Option<Duration> {
        if self.number >= self.retries.attempts || !self.may_repeat(outcome) {
            return None;
        }
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.number - 1);
        let mut pause = pause.min(self.retries.longest).mul_f64(0.5 + fraction() / 2.0);
        match outcome {
            Ok(reply) => {
                if let Some(asked) = reply.retry_after() {
                    if asked > self.retries.longest {
                        return None;
                    }
                    pause = pause.max(asked);
                }
            }
            Err(trouble) => self.answer_lost |= !trouble.never_sent(),
        }
        self.number += 1;
        Some(pause)
    }

    fn may_repeat(&self, outcome: &Result<Reply, Trouble>) -> bool {
        match outcome {
            // 429 is an answer to what was not begun; 503 may come in the middle of it.
            Ok(reply) => reply.status == 429 || reply.status == 503 && self.repeatable,
            Err(Trouble::Silence(_)) => false,
            Err(trouble) => trouble.never_sent() || self.repeatable,
        }
    }
}

/// A number that nobody can guess: the standard library seeds its hash maps with such.
pub(crate) fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u128(Instant::now().elapsed().as_nanos());
    hasher.finish()
}

fn fraction() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}

/// 32 hexadecimal digits that nobody has used.
pub(crate) fn unique() -> String {
    format!("{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &[&str]) -> Result<Url> {
        Call::new(Method::GET, path).url(&Url::parse("http://host:1/prefix").unwrap())
    }

    #[test]
    fn a_name_stays_one_part_of_the_path() {
        assert_eq!(url(&["v1", "a/b?c#d%"]).unwrap().as_str(), "http://host:1/prefix/v1/a%2Fb%3Fc%23d%25");
        for name in ["", ".", ".."] {
            assert_eq!(url(&["v1", name]).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn queries_are_escaped() {
        let call = Call::new(Method::GET, &["x"]).query("path", "/a b&c=ü").optional("no", None::<u8>);
        let url = call.url(&Url::parse("http://host:1").unwrap()).unwrap();
        assert_eq!(url.as_str(), "http://host:1/x?path=%2Fa+b%26c%3D%C3%BC");
    }

    fn full(retry_after: &'static str) -> Result<Reply, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", reqwest::header::HeaderValue::from_static(retry_after));
        Ok(Reply { status: 429, headers, body: Bytes::new() })
    }

    fn pauses(content: Content, outcome: Result<Reply, Trouble>) -> bool {
        let call = Call::new(Method::PUT, &["x"]).content(content, "text/plain");
        let retries = Retries { attempts: 2, longest: Duration::from_secs(10) };
        Attempts::new(&call, retries).pause(&outcome).is_some()
    }

    #[test]
    fn what_can_be_sent_once_only_is_not_sent_again_without_its_beginning() {
        let once = Content::stream(futures_util::stream::empty());
        assert!(pauses("all of it".into(), full("1")));
        assert!(!pauses(once, full("1")));
    }

    #[test]
    fn a_server_that_is_full_for_long_is_not_waited_for() {
        assert!(!pauses("x".into(), full("11")));
        assert!(pauses("x".into(), full("soon")));
    }

    #[test]
    fn a_document_that_no_server_takes_is_not_sent() {
        let call = Call::new(Method::POST, &["x"]).document(Value::from("x".repeat(33 << 20)));
        assert_eq!(call.document_bytes().unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
