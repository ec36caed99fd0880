// SPDX-License-Identifier: Apache-2.0
//! What goes wrong on the surface of microsandbox 0.2.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;

use crate::error::{Error, ErrorKind};

/// What 0.2 gives when something is not done: with a [`SandboxError`] in it. [`Error::of`] has the rest: code, request and hint.
pub type BoxedError = Box<dyn StdError + Send + Sync>;

/// What went wrong, as 0.2 tells it.
#[derive(Debug)]
pub enum SandboxError {
    /// `start` was not called.
    NotStarted,
    /// The server refused, or failed.
    RequestFailed(Message),
    /// The server said that it failed.
    ServerError(Message),
    /// Nothing came for too long.
    Timeout(Message),
    /// There was no connection, or it broke.
    HttpError(Message),
    /// What came is no answer of a microsandbox server.
    InvalidResponse(Message),
    /// Anything else.
    General(Message),
}

/// What 0.2 has as a text, and is used as one.
pub struct Message {
    text: String,
    error: Error,
}

impl Deref for Message {
    type Target = String;

    fn deref(&self) -> &String {
        &self.text
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl SandboxError {
    pub(crate) fn of(error: Error) -> Self {
        Self::told(error.to_string(), error)
    }

    /// The same, where 0.2 has words for it.
    pub(crate) fn told(text: String, error: Error) -> Self {
        let (kind, answered) = (error.kind(), error.status().is_some());
        let message = Message { text, error };
        match kind {
            ErrorKind::NotUnderstood => Self::InvalidResponse(message),
            ErrorKind::Server => Self::ServerError(message),
            _ if answered => Self::RequestFailed(message),
            ErrorKind::TimedOut => Self::Timeout(message),
            ErrorKind::Unreachable | ErrorKind::Broken => Self::HttpError(message),
            _ => Self::General(message),
        }
    }

    fn message(&self) -> Option<&Message> {
        match self {
            Self::NotStarted => None,
            Self::RequestFailed(message)
            | Self::ServerError(message)
            | Self::Timeout(message)
            | Self::HttpError(message)
            | Self::InvalidResponse(message)
            | Self::General(message) => Some(message),
        }
    }

    /// Itself, for programs that look into 0.2's box.
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        (self as &(dyn StdError + 'static)).downcast_ref()
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("Sandbox is not started. Call start() first."),
            Self::Timeout(message) => write!(f, "Timeout error: {message}"),
            Self::HttpError(message) => write!(f, "HTTP error: {message}"),
            Self::InvalidResponse(message) => write!(f, "Invalid response from server: {message}"),
            Self::RequestFailed(message) | Self::ServerError(message) | Self::General(message) => message.fmt(f),
        }
    }
}

impl StdError for SandboxError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.message().map(|message| &message.error as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_variant_holds_is_used_as_a_text() {
        let error = SandboxError::of(Error::new(ErrorKind::Broken, "broken", "it broke"));
        match &error {
            SandboxError::HttpError(text) => assert!(text.contains("broke") && !text.is_empty() && text.len() > 8),
            other => panic!("{other:?}"),
        }
        let boxed: BoxedError = error.into();
        assert!(boxed.to_string().starts_with("HTTP error: it broke"));
        assert_eq!(Error::of(boxed.as_ref()).map(Error::kind), Some(ErrorKind::Broken));
        assert!(matches!(boxed.downcast_ref(), Some(SandboxError::HttpError(_))));
    }
}
