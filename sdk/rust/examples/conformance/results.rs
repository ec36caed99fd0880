// SPDX-License-Identifier: Apache-2.0
//! What the SDK gives, as the suite describes it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::process::{Command, Stdio};

use microsandbox::{
    CodeResult, Error, ErrorKind, Exit, FileInfo, LogLine, Port, ProcessInfo, SandboxInfo, SandboxMetrics, SessionInfo,
};
use serde_json::{json, Value};

/// Twelve digits that nobody has used.
pub fn unique() -> String {
    format!("{:012x}", RandomState::new().build_hasher().finish() >> 16)
}

pub fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts.map(|one| one.as_str().expect("a text").to_string()).collect()
}

pub fn error_of(error: &Error) -> Value {
    let kind = match error.kind() {
        ErrorKind::Invalid => "invalid",
        ErrorKind::Authentication => "authentication",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Conflict => "conflict",
        ErrorKind::TooLarge => "too_large",
        ErrorKind::Full => "full",
        ErrorKind::SandboxFailed => "failed",
        ErrorKind::TimedOut => "timed_out",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Server => "server",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::Broken => "broken",
        ErrorKind::NotUnderstood => "not_understood",
        ErrorKind::Detached => "detached",
        ErrorKind::NotStarted => "not_started",
        ErrorKind::Code => "code",
        ErrorKind::Command => "command",
        _ => "other",
    };
    json!({
        "kind": kind, "code": error.code(), "number": error.number(), "status": error.status(), "message": error.message(),
        "request_id": error.request_id(), "hint": error.hint(), "retry_after": error.retry_after().map(|pause| pause.as_secs_f64()),
    })
}

pub fn port_of(port: &Port) -> Value {
    json!({
        "protocol": port.protocol, "address": port.address, "host_port": port.host_port, "guest_port": port.guest_port,
        "url": port.url,
    })
}

pub fn info_of(info: &SandboxInfo) -> Value {
    let exit = info.exit.as_ref().map(|exit| json!({"status": exit.status, "cause": exit.cause}));
    json!({
        "name": info.name, "namespace": info.namespace, "state": info.state.as_str(), "image": info.image, "labels": info.labels,
        "ephemeral": info.ephemeral, "ports": info.ports.iter().map(port_of).collect::<Value>(), "exit": exit,
    })
}

pub fn result_of(result: &CodeResult) -> Value {
    let kind = |is_result: bool| if is_result { "result" } else { "display" };
    let values = result.values().map(|value| json!({"kind": kind(value.is_result), "data": value.data}));
    let error =
        result.error().map(|error| json!({"name": error.name, "message": error.message, "traceback": error.traceback}));
    json!({
        "language": result.language, "status": result.status.as_str(), "ok": result.ok(), "stdout": result.stdout(),
        "stderr": result.stderr(), "text": result.text(), "value": result.value().map(|value| value.text()),
        "values": values.collect::<Value>(), "error": error, "exit_status": result.exit_status, "reason": result.reason,
        "truncated": result.truncated,
    })
}

pub fn exit_of(exit: &Exit) -> Value {
    json!({
        "exit_code": exit.exit_code, "signal": exit.signal, "oom_killed": exit.oom_killed, "timed_out": exit.timed_out,
        "success": exit.success(),
    })
}

pub fn process_of(info: &ProcessInfo) -> Value {
    json!({
        "id": info.id, "pid": info.pid, "state": if info.running { "running" } else { "ended" }, "label": info.label,
        "command": info.command, "input": info.input, "terminal": info.terminal,
    })
}

pub fn session_of(info: &SessionInfo) -> Value {
    json!({"language": info.language, "name": info.name, "state": info.state})
}

pub fn file_of(info: &FileInfo) -> Value {
    json!({
        "name": info.name, "type": info.file_type.as_str(), "size": info.size, "mode": format!("{:04o}", info.mode),
        "target": info.target,
    })
}

pub fn metrics_of(metrics: &SandboxMetrics) -> Value {
    json!({
        "name": metrics.name, "namespace": metrics.namespace, "state": metrics.state.as_str(), "cpu_percent": metrics.cpu_percent,
        "memory_bytes": metrics.memory_bytes, "memory_total": metrics.memory_total, "disk_bytes": metrics.disk_bytes,
        "processes": metrics.processes,
    })
}

pub fn line_of(line: &LogLine) -> Value {
    json!({"stream": line.stream.as_str(), "text": line.text})
}

/// Bytes by which reading is seen to be in order.
pub fn pattern(size: &Value) -> Vec<u8> {
    (0..size.as_u64().expect("a size")).map(|index| (index % 251) as u8).collect()
}

pub fn sum_of(data: &[u8]) -> Value {
    let mut program =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum runs");
    program.stdin.take().unwrap().write_all(data).unwrap();
    let said = program.wait_with_output().unwrap().stdout;
    json!({"size": data.len(), "sha256": String::from_utf8_lossy(&said[..64])})
}
