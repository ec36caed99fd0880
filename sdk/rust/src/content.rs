// SPDX-License-Identifier: Apache-2.0
//! What is written: bytes, or pieces of them.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

const PIECE: usize = 256 << 10;

/// What is to be written: text, bytes, or a stream of pieces of any length.
///
/// Text and bytes can be sent again when a connection broke, a stream cannot.
pub struct Content(Source);

enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Stream(Arc<Mutex<Option<Pieces>>>),
}

impl Content {
    /// Pieces, as they come.
    pub fn stream<S>(pieces: S) -> Self
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        Self(Source::Stream(Arc::new(Mutex::new(Some(Box::pin(pieces))))))
    }

    pub(crate) fn file(path: PathBuf) -> Self {
        Self(Source::File(path))
    }

    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self.0, Source::Stream(_))
    }

    /// The body of an attempt, and how to know that it goes on.
    pub(crate) async fn body(&self) -> io::Result<(reqwest::Body, Sent)> {
        let sent = Sent::default();
        let pieces: Pieces = match &self.0 {
            Source::Bytes(bytes) => {
                // As much time as a slow line needs for what is sent in one piece.
                sent.0.store(bytes.len() as u64, Ordering::Relaxed);
                return Ok((bytes.clone().into(), sent));
            }
            Source::File(path) => Box::pin(FilePieces { file: File::open(path).await?, buffer: BytesMut::new() }),
            Source::Stream(pieces) => match pieces.lock().ok().and_then(|mut pieces| pieces.take()) {
                Some(pieces) => pieces,
                None => return Err(io::Error::new(io::ErrorKind::Other, "the content was sent already")),
            },
        };
        let counted = Counted { pieces: Mutex::new(pieces), sent: sent.clone() };
        Ok((reqwest::Body::wrap_stream(counted), sent))
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Bytes(bytes.into()))
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self(Source::Bytes(Bytes::copy_from_slice(bytes)))
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self(Source::Bytes(text.into()))
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// How much of a body was taken.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<AtomicU64>);

impl Sent {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// What those that are on their way may take, besides the patience that an answer has.
    pub(crate) fn allowance(&self) -> Duration {
        Duration::from_secs(self.bytes() / (64 << 10))
    }
}

struct Counted {
    /// For threads to share, as reqwest wants it; nobody locks it.
    pieces: Mutex<Pieces>,
    sent: Sent,
}

impl Stream for Counted {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let pieces = match self.pieces.get_mut() {
            Ok(pieces) => pieces,
            Err(poisoned) => poisoned.into_inner(),
        };
        let polled = pieces.as_mut().poll_next(context);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            self.sent.0.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        polled
    }
}

/// A file of this machine, piece by piece.
struct FilePieces {
    file: File,
    buffer: BytesMut,
}

impl Stream for FilePieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.buffer.resize(PIECE, 0);
        let mut read = ReadBuf::new(&mut this.buffer);
        match AsyncRead::poll_read(Pin::new(&mut this.file), context, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) => match read.filled().len() {
                0 => Poll::Ready(None),
                length => Poll::Ready(Some(Ok(this.buffer.split_to(length).freeze()))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_has_one_body_and_bytes_have_many() {
        let stream = Content::stream(futures_util::stream::empty());
        assert!(stream.body().await.is_ok());
        assert!(stream.body().await.is_err());
        let bytes = Content::from("text");
        assert!(bytes.body().await.is_ok() && bytes.body().await.is_ok());
    }
}
