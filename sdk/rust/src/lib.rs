// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod builder;
mod call;
mod cleanup;
mod client;
mod code;
mod command;
mod content;
mod document;
mod dotenv;
mod error;
mod events;
mod execution;
mod files;
mod language;
mod list;
mod options;
mod process;
mod results;
mod sandbox;
mod sandbox_error;
mod settings;
mod types;
mod words;

pub use builder::{SandboxBuilder, Size};
pub use cleanup::settled;
pub use client::{Client, ClientBuilder};
pub use code::{CodeBuilder, CodeStream};
pub use command::{CommandBuilder, CommandStream};
pub use content::Content;
pub use error::{Error, ErrorKind, Result};
pub use execution::{CommandExecution, Execution, Usage};
pub use files::{Files, Pieces, WriteOptions};
pub use language::{BaseSandbox, BoxFuture, Command, Metrics, NodeSandbox, PythonSandbox};
pub use list::List;
pub use options::{Creation, SandboxOptions, SandboxOptionsBuilder, StartConfig, StartOptions};
pub use process::{Process, ProcessStream, Signal};
pub use results::{CodeOutput, CodeResult, CodeStatus, CommandResult, Exit, Failure, Output, ProcessOutput, Shown};
pub use sandbox::{LogStream, LogsBuilder, Sandbox};
pub use sandbox_error::{BoxedError, Message, SandboxError};
pub use types::{
    FileInfo, FileType, LogLine, Offsets, OutputStream, Port, ProcessInfo, SandboxExit, SandboxInfo, SandboxMetrics,
    SandboxState, ServerInfo, SessionInfo,
};
