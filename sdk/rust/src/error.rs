// SPDX-License-Identifier: Apache-2.0
//! What goes wrong, by kind.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What is given when something is not done.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request has something that cannot be.
    Invalid,
    /// There is no key, or not a valid one.
    Authentication,
    /// The key, the server's operator, or the system in the sandbox does not allow it: `code()` says which.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Not in the state that things are in: a name is taken, a sandbox is stopped or paused.
    Conflict,
    /// The request is larger than the server takes.
    TooLarge,
    /// As much as is allowed is there already.
    Full,
    /// The sandbox failed, or what was asked of it.
    SandboxFailed,
    /// It took longer than it may.
    TimedOut,
    /// The server is ending, or has no room for another connection.
    Unavailable,
    /// The server's own mistake.
    Server,
    /// No connection to the server.
    Unreachable,
    /// The connection ended before the answer did: whether it was done is not known.
    Broken,
    /// What came is no answer of a microsandbox server.
    NotUnderstood,
    /// Somebody else follows the process now.
    Detached,
    /// `start` was not called (of [`PythonSandbox`](crate::PythonSandbox) and [`NodeSandbox`](crate::NodeSandbox)).
    NotStarted,
    /// Code ended with an error ([`CodeResult::check`](crate::CodeResult::check)).
    Code,
    /// A command did not succeed ([`CommandResult::check`](crate::CommandResult::check)).
    Command,
    /// A file of this machine could not be read or written.
    Local,
    /// Another one, of a newer server.
    Other,
}

impl ErrorKind {
    /// The kind that a server's word for it is.
    fn of_code(code: &str) -> Self {
        match code {
            "invalid" | "method_not_allowed" => Self::Invalid,
            "no_key" | "bad_key" | "expired_key" => Self::Authentication,
            "forbidden" | "denied_in_sandbox" => Self::Forbidden,
            "not_found" => Self::NotFound,
            "conflict" => Self::Conflict,
            "too_large" => Self::TooLarge,
            "slow" => Self::Broken,
            "full" => Self::Full,
            "failed" => Self::SandboxFailed,
            "timeout" => Self::TimedOut,
            "unavailable" => Self::Unavailable,
            "internal" => Self::Server,
            _ => Self::Other,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Authentication => "make a key with `msb server keygen`, and give it as api_key or in MSB_API_KEY",
            Self::Forbidden => "use another key, or ask the server's operator to allow it in server.json",
            Self::TooLarge => "send large contents as files, which are streamed",
            Self::Full => "try again later, or stop sandboxes that are not needed",
            Self::TimedOut => "allow more time",
            Self::Unavailable => "try again in a moment",
            Self::Server => "look for the request in the server's log (`msb server log`)",
            Self::Unreachable => "see that it runs (`msb server status`), and where server_url or MSB_SERVER_URL leads",
            Self::Broken => "the server may have been restarted; look at what is there before trying again",
            Self::NotUnderstood => {
                "see that server_url or MSB_SERVER_URL leads to a microsandbox server, with nothing between"
            }
            _ => "",
        }
    }
}

/// Something was not done: which [kind](Error::kind) of why, the server's [code](Error::code) for it, the
/// [request's id](Error::request_id) in its log, and a [hint](Error::hint) of what can be done.
pub struct Error(Box<Facts>);

struct Facts {
    kind: ErrorKind,
    message: String,
    code: String,
    number: Option<i64>,
    status: Option<u16>,
    request_id: Option<String>,
    hint: String,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            message: message.into(),
            code: code.into(),
            number: None,
            status: None,
            request_id: None,
            hint: kind.hint().into(),
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, "invalid", message)
    }

    pub(crate) fn local(what: impl fmt::Display, error: std::io::Error) -> Self {
        Self::new(ErrorKind::Local, "local", format!("{what}: {error}")).with_source(error)
    }

    /// The error of an answer. One that names no code (of JSON-RPC, or of what may stand between) is what its number or status says.
    pub(crate) fn of_answer(message: String, code: Option<&str>, number: Option<i64>, status: Option<u16>) -> Self {
        let code = code.unwrap_or(match (number, status) {
            (Some(1001), _) => "no_key",
            (Some(5001), Some(403)) => "denied_in_sandbox",
            (_, Some(400)) => "invalid",
            (_, Some(401)) => "bad_key",
            (_, Some(403)) => "forbidden",
            (_, Some(404)) => "not_found",
            (_, Some(405)) => "method_not_allowed",
            (_, Some(408)) => "slow",
            (_, Some(409)) => "conflict",
            (_, Some(413)) => "too_large",
            (_, Some(429)) => "full",
            (_, Some(502)) => "failed",
            (_, Some(503)) => "unavailable",
            (_, Some(504)) => "timeout",
            (_, Some(status)) if status < 500 => "invalid",
            _ => "internal",
        });
        let mut error = Self::new(ErrorKind::of_code(code), code, message);
        if code == "denied_in_sandbox" {
            error.0.hint = "do it as a user who may in the sandbox".into();
        }
        error.0.number = number;
        error.0.status = status;
        error
    }

    pub(crate) fn with_request_id(mut self, id: Option<String>) -> Self {
        self.0.request_id = id;
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }

    pub(crate) fn with_retry_after(mut self, pause: Option<Duration>) -> Self {
        self.0.retry_after = pause;
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// The same, in microsandbox 0.2's words for what failed.
    pub(crate) fn said_of(mut self, what: &str) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// The error of this crate that another one is, or comes from: what the 0.2 surface gives are boxes of any error.
    pub fn of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut current = Some(error);
        while let Some(one) = current {
            if let Some(found) = one.downcast_ref::<Self>() {
                return Some(found);
            }
            current = one.source();
        }
        None
    }

    /// What to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// One sentence: what failed, and why.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The server's word for why ("not_found", ...); "unreachable", "broken", "not_understood" and others are this crate's own.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The number that microsandbox 0.2 has for it.
    pub fn number(&self) -> Option<i64> {
        self.0.number
    }

    /// The status of HTTP, when there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// What the server's log calls the request.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// What can be done about it; may be empty.
    pub fn hint(&self) -> &str {
        &self.0.hint
    }

    /// After what time there may be room.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if !self.0.hint.is_empty() {
            write!(f, "; {}", self.0.hint)?;
        }
        match &self.0.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("status", &self.0.status)
            .field("message", &self.0.message)
            .field("hint", &self.0.hint)
            .field("request_id", &self.0.request_id)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}
