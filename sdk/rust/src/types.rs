// SPDX-License-Identifier: Apache-2.0
//! What the server tells of sandboxes, and of what is in them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::document::{
    as_number, as_time, flag, integer, list, member, object, optional, optional_integer, optional_text, small, text,
    texts, time, Malformed, Parsed,
};
use crate::words::words;

words! {
    /// How a sandbox is.
    SandboxState {
        /// It does not run.
        Stopped = "stopped",
        /// It is about to run.
        Starting = "starting",
        /// It runs.
        Running = "running",
        /// Nothing in it goes on, until it is resumed.
        Paused = "paused",
        /// It is about to end.
        Stopping = "stopping",
    }
}

words! {
    /// One of the two that programs write to.
    OutputStream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
    }
}

words! {
    /// What a path is.
    FileType {
        /// A regular file.
        File = "file",
        /// A directory.
        Directory = "directory",
        /// A symbolic link.
        Symlink = "symlink",
        /// A character device.
        CharacterDevice = "character_device",
        /// A block device.
        BlockDevice = "block_device",
        /// A named pipe.
        Fifo = "fifo",
        /// A socket.
        Socket = "socket",
    }
}

/// A port of a sandbox, and where it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// "tcp" or "udp".
    pub protocol: String,
    /// Of the server's host.
    pub address: String,
    /// Of the server's host.
    pub host_port: u16,
    /// Of the sandbox.
    pub guest_port: u16,
    /// Where programs of the server's host reach it; [`Sandbox::ports`](crate::Sandbox::ports) alone tells it, and there is none of UDP.
    pub url: Option<String>,
}

impl Port {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            protocol: text(document, "protocol")?,
            address: text(document, "address")?,
            host_port: small(document, "host_port")?,
            guest_port: small(document, "guest_port")?,
            url: optional_text(document, "url")?,
        })
    }
}

/// How a sandbox ended the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxExit {
    /// Of its command; 125 when the sandbox failed itself.
    pub status: u32,
    /// "exited", "stopped", "timeout", "idle" or "failed".
    pub cause: String,
    /// More about it.
    pub message: Option<String>,
    /// When.
    pub ended_at: Option<SystemTime>,
}

impl SandboxExit {
    fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            status: small(document, "status")?,
            cause: text(document, "cause")?,
            message: optional_text(document, "message")?,
            ended_at: optional(document, "ended_at", as_time)?,
        })
    }
}

/// A sandbox, as it was when the server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Its name, which belongs to its namespace.
    pub name: String,
    /// Where it is.
    pub namespace: String,
    /// How it is.
    pub state: SandboxState,
    /// What it was made from.
    pub image: String,
    /// What it was labelled with.
    pub labels: BTreeMap<String, String>,
    /// It is removed when it has ended.
    pub ephemeral: bool,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was started the last time.
    pub started_at: Option<SystemTime>,
    /// Where its ports are published.
    pub ports: Vec<Port>,
    /// What it was told to be, besides its image.
    pub config: Map<String, Value>,
    /// How it ended; None also in lists.
    pub exit: Option<SandboxExit>,
}

impl SandboxInfo {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            name: text(document, "name")?,
            namespace: text(document, "namespace")?,
            state: SandboxState::of(document, "state")?,
            image: text(document, "image")?,
            labels: texts(document, "labels")?,
            ephemeral: flag(document, "ephemeral")?,
            created_at: time(document, "created_at")?,
            started_at: optional(document, "started_at", as_time)?,
            ports: list(document, "ports", Port::of)?,
            config: object(document, "config")?,
            exit: optional(document, "exit", SandboxExit::of)?,
        })
    }
}

/// What a sandbox uses; what only a running one can tell is None when it does not run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SandboxMetrics {
    /// The sandbox.
    pub name: String,
    /// Where it is.
    pub namespace: String,
    /// How it is.
    pub state: SandboxState,
    /// Of one processor, since the look before.
    pub cpu_percent: Option<f64>,
    /// What it uses of its memory.
    pub memory_bytes: Option<u64>,
    /// What it has.
    pub memory_total: Option<u64>,
    /// That what it has written takes.
    pub disk_bytes: u64,
    /// How many there are in it.
    pub processes: Option<u64>,
    /// From the network.
    pub received_bytes: Option<u64>,
    /// To the network.
    pub sent_bytes: Option<u64>,
    /// Why some of it is not known.
    pub problem: Option<String>,
}

impl SandboxMetrics {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            name: text(document, "name")?,
            namespace: text(document, "namespace")?,
            state: SandboxState::of(document, "state")?,
            cpu_percent: optional(document, "cpu_percent", as_number)?,
            memory_bytes: optional_integer(document, "memory_bytes")?,
            memory_total: optional_integer(document, "memory_total")?,
            disk_bytes: integer(document, "disk_bytes")?,
            processes: optional_integer(document, "processes")?,
            received_bytes: optional_integer(document, "received_bytes")?,
            sent_bytes: optional_integer(document, "sent_bytes")?,
            problem: optional_text(document, "problem")?,
        })
    }
}

/// A line that a sandbox's command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// When.
    pub time: SystemTime,
    /// Where to.
    pub stream: OutputStream,
    /// With its newline, if it has one.
    pub text: String,
}

impl LogLine {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            time: time(document, "time")?,
            stream: OutputStream::of(document, "stream")?,
            text: text(document, "text")?,
        })
    }
}

/// What there is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// In a list without its directory, else the path as it was asked for.
    pub name: String,
    /// What it is.
    pub file_type: FileType,
    /// Bytes.
    pub size: u64,
    /// Permissions: 0o644.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When its content changed.
    pub modified_at: SystemTime,
    /// Of a symbolic link.
    pub target: Option<String>,
}

impl FileInfo {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            name: text(document, "name")?,
            file_type: FileType::of(document, "type")?,
            size: integer(document, "size")?,
            mode: u32::from_str_radix(&text(document, "mode")?, 8).map_err(|_| Malformed)?,
            uid: small(document, "uid")?,
            gid: small(document, "gid")?,
            modified_at: time(document, "modified_at")?,
            target: optional_text(document, "target")?,
        })
    }
}

/// Bytes of both streams of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Of its standard output.
    pub stdout: u64,
    /// Of its standard error.
    pub stderr: u64,
}

impl Offsets {
    fn of(document: &Value) -> Parsed<Self> {
        Ok(Self { stdout: integer(document, "stdout")?, stderr: integer(document, "stderr")? })
    }
}

/// A process that was started from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// What [`Sandbox::attach`](crate::Sandbox::attach) takes.
    pub id: u32,
    /// As programs in the sandbox see it.
    pub pid: u32,
    /// Whether it has not ended.
    pub running: bool,
    /// What it was labelled with.
    pub label: String,
    /// The first of its arguments.
    pub command: String,
    /// When.
    pub started_at: SystemTime,
    /// Somebody follows it, or writes to it.
    pub attached: bool,
    /// It was started to be kept; others end with whoever started them.
    pub kept: bool,
    /// Its streams are a terminal.
    pub terminal: bool,
    /// It has a standard input to write to.
    pub input: bool,
    /// What it has written so far.
    pub written: Offsets,
    /// The first bytes that are still kept.
    pub oldest: Offsets,
}

impl ProcessInfo {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            id: small(document, "id")?,
            pid: small(document, "pid")?,
            running: text(document, "state")? == "running",
            label: text(document, "label")?,
            command: text(document, "command")?,
            started_at: time(document, "started_at")?,
            attached: flag(document, "attached")?,
            kept: flag(document, "kept")?,
            terminal: flag(document, "terminal")?,
            input: flag(document, "input")?,
            written: Offsets::of(member(document, "written")?)?,
            oldest: Offsets::of(member(document, "oldest")?)?,
        })
    }
}

/// An interpreter that keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// "python", "javascript" or "shell".
    pub language: String,
    /// Its name.
    pub name: String,
    /// "free", "in_use" or "ended".
    pub state: String,
    /// Its id among the processes.
    pub process: u32,
    /// As programs in the sandbox see it.
    pub pid: u32,
}

impl SessionInfo {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            language: text(document, "language")?,
            name: text(document, "name")?,
            state: text(document, "state")?,
            process: small(document, "process")?,
            pid: small(document, "pid")?,
        })
    }
}

/// What the server and the key allow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The server's version.
    pub version: String,
    /// What all, and each, of the sandboxes may have.
    pub limits: Map<String, Value>,
    /// What the key may.
    pub key: Map<String, Value>,
}

impl ServerInfo {
    pub(crate) fn of(document: &Value) -> Parsed<Self> {
        Ok(Self {
            version: text(document, "version")?,
            limits: object(document, "limits")?,
            key: object(document, "key")?,
        })
    }
}
