// SPDX-License-Identifier: Apache-2.0
//! Answers that come event by event: lines of JSON, read as they come.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use reqwest::Response;
use serde_json::Value;

use crate::call::{Call, Retries, Trouble, NDJSON, RESUMPTION};
use crate::client::Client;
use crate::document::{text, Malformed};
use crate::error::{Error, ErrorKind, Result};

/// Bytes: more than the server makes of what a sandbox shows.
const LONGEST_LINE: usize = 64 << 20;

/// What a line of a stream was.
pub(crate) enum Step<E> {
    Event(E),
    /// Nothing that is told.
    Passed,
    /// The last one.
    End,
}

pub(crate) enum Fault {
    Malformed,
    Error(Error),
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What is particular to one kind of stream.
pub(crate) trait Reader: Send + Unpin + 'static {
    type Event: Send + Unpin;

    /// What asks for it, or for the rest of it.
    fn call(&self) -> Call;

    fn event(&mut self, kind: &str, document: &Value) -> Result<Step<Self::Event>, Fault>;

    /// An event is given to whoever reads the stream.
    fn given(&mut self, _: &Self::Event) {}

    /// Whether `call` asks for the rest of one that this broke off.
    fn resumes(&mut self, _: &Error) -> bool {
        false
    }
}

pub(crate) fn events_of(call: Call) -> Call {
    call.header("Accept", NDJSON).patience(None)
}

type Opening = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;
type Pieces = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

enum State {
    Start(Option<Retries>),
    Opening(Opening),
    Reading(Pieces),
    Over,
}

/// The events of one answer. When it is dropped before its end, its connection is closed, which the server notices.
pub(crate) struct Events<R: Reader> {
    client: Client,
    pub(crate) reader: R,
    state: State,
    ready: VecDeque<R::Event>,
    failure: Option<Error>,
    rest: Vec<u8>,
    done: bool,
}

impl<R: Reader> Events<R> {
    pub(crate) fn new(client: Client, reader: R) -> Self {
        Self {
            client,
            reader,
            state: State::Start(None),
            ready: VecDeque::new(),
            failure: None,
            rest: Vec::new(),
            done: false,
        }
    }

    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<R::Event>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.reader.given(&event);
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(error) = self.failure.take() {
                self.state = State::Over;
                return Poll::Ready(Some(Err(error)));
            }
            match &mut self.state {
                State::Start(retries) => {
                    let (client, call, retries) = (self.client.clone(), self.reader.call(), retries.take());
                    self.state = State::Opening(Box::pin(async move { client.open(call, retries).await }));
                }
                State::Opening(opening) => match opening.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(response)) => self.state = State::Reading(Box::pin(response.bytes_stream())),
                    Poll::Ready(Err(error)) => self.failure = Some(error),
                },
                State::Reading(pieces) => match pieces.as_mut().poll_next(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(piece))) => {
                        if let Err(error) = self.feed(&piece) {
                            self.broke(error);
                        }
                    }
                    _ if self.done => self.state = State::Over,
                    Poll::Ready(Some(Err(error))) => {
                        let error = self.client.error_of(Trouble::Http(error), &self.reader.call());
                        self.broke(error);
                    }
                    Poll::Ready(None) => {
                        self.broke(Error::new(ErrorKind::Broken, "broken", "the stream ended before its last event"))
                    }
                },
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn broke(&mut self, error: Error) {
        self.rest.clear();
        if self.reader.resumes(&error) {
            self.state = State::Start(Some(RESUMPTION));
        } else {
            self.state = State::Over;
            self.failure = Some(error);
        }
    }

    fn feed(&mut self, piece: &[u8]) -> Result<()> {
        let mut parts = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            self.rest.extend_from_slice(part);
            if parts.peek().is_some() {
                let line = std::mem::take(&mut self.rest);
                self.line(&line)?;
            } else if self.rest.len() > LONGEST_LINE {
                return Err(not_understood("a line of the stream is longer than any that a server sends"));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        if self.done || line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        match self.told(line) {
            Ok(Step::Event(event)) => self.ready.push_back(event),
            Ok(Step::Passed) => {}
            Ok(Step::End) => self.done = true,
            Err(Fault::Error(error)) => return Err(error),
            Err(Fault::Malformed) => {
                let start = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                return Err(not_understood(format!("the stream has a line that is no event: '{start}'")));
            }
        }
        Ok(())
    }

    fn told(&mut self, line: &[u8]) -> Result<Step<R::Event>, Fault> {
        let document: Value = serde_json::from_slice(line).map_err(|_| Fault::Malformed)?;
        let kind = text(&document, "event")?;
        if kind != "failed" {
            return self.reader.event(&kind, &document);
        }
        let told = &document["error"];
        let (message, code) = (text(told, "message")?, text(told, "code")?);
        let error = Error::of_answer(message, Some(&code), told["number"].as_i64(), None);
        Err(Fault::Error(error.with_request_id(told["request_id"].as_str().map(str::to_string))))
    }
}

fn not_understood(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::NotUnderstood, "not_understood", message)
}

/// A public type that is a stream of events.
macro_rules! event_stream {
    ($(#[$attribute:meta])* $name:ident, $reader:ty, $event:ty) => {
        $(#[$attribute])*
        pub struct $name(pub(crate) crate::events::Events<$reader>);

        impl $name {
            /// The next one; None at the end. An error is the last that comes.
            pub async fn next(&mut self) -> Option<crate::Result<$event>> {
                crate::events::Next(&mut self.0).await
            }
        }

        impl futures_core::Stream for $name {
            type Item = crate::Result<$event>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.0.poll_event(context)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}
pub(crate) use event_stream;

pub(crate) struct Next<'a, R: Reader>(pub(crate) &'a mut Events<R>);

impl<R: Reader> Future for Next<'_, R> {
    type Output = Option<Result<R::Event>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_event(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use reqwest::Method;

    /// Gives the "text" of its events.
    struct Texts;

    impl Reader for Texts {
        type Event = String;

        fn call(&self) -> Call {
            Call::new(Method::GET, &["x"])
        }

        fn event(&mut self, kind: &str, document: &Value) -> Result<Step<String>, Fault> {
            Ok(match kind {
                "text" => Step::Event(text(document, "text")?),
                "end" => Step::End,
                _ => Step::Passed,
            })
        }
    }

    fn events() -> Events<Texts> {
        let settings = Settings::of(Some("http://host:1".into()), None).unwrap();
        Events::new(Client::of(settings, None, None).unwrap(), Texts)
    }

    #[test]
    fn lines_are_read_in_any_pieces() {
        let all = "{\"event\":\"text\",\"text\":\"☃\"}\n\n{\"event\":\"new\"}\n{\"event\":\"end\"}\n".as_bytes();
        for size in 1..all.len() {
            let mut events = events();
            for piece in all.chunks(size) {
                events.feed(piece).unwrap();
            }
            assert!(events.done && events.ready == ["☃"], "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_event_is_told_after_what_came_before() {
        let mut events = events();
        let error = events.feed(b"{\"event\":\"text\",\"text\":\"a\"}\n<html>\n").unwrap_err();
        assert_eq!((error.kind(), events.ready.len()), (ErrorKind::NotUnderstood, 1));
        assert!(error.message().contains("<html>"));
    }

    #[test]
    fn a_line_without_end_is_no_end_of_memory() {
        let mut events = events();
        events.rest = vec![b' '; LONGEST_LINE];
        assert_eq!(events.feed(b"x").unwrap_err().kind(), ErrorKind::NotUnderstood);
    }
}
