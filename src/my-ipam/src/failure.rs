//! The CNI error objects that the plugin words by itself.
//!
//! A DEL's error never has "not found" or "no such file or directory" in it: containerd's go-cni
//! takes such a DEL for done, and the address would leak.

use std::path::Path;

use serde_json::Value;

use super::command::Command;
use super::note::NoteError;
use super::peek::Peek;
use crate::client::{ClientError, Response};

/// A missing or broken environment variable (code of the specification, like those below).
pub(super) const ENVIRONMENT: u32 = 4;
/// Input or output failed.
pub(super) const IO: u32 = 5;
/// The configuration cannot be decoded.
pub(super) const DECODING: u32 = 6;
/// For now only: the same call may succeed later.
pub(super) const TRY_AGAIN: u32 = 11;
/// STATUS: an ADD cannot be served now.
const UNAVAILABLE: u32 = 50;

const START_IT: &str = "start the daemon on this node (leasehold serve); if it listens on another \
                        socket, name that in ipam.socket of the network configuration or in \
                        LEASEHOLD_SOCKET";
const BE_ROOT: &str = "the plugin must run as root, like the daemon: the socket is root's alone";
const WHO_IS_IT: &str = "see which program listens on that socket (ss -xlp); it must be the \
                         leasehold daemon, of the same release as this plugin";

/// The largest part of a strange answer that is quoted, in characters.
const QUOTED_CHARACTERS_MAX: usize = 200;

/// Returns what is wrong with a configuration that is not a JSON object, in the daemon's words;
/// `None`: it is one.
pub(super) fn not_json(config: &[u8]) -> Option<Failure> {
    let msg = match serde_json::from_slice::<Value>(config) {
        Ok(Value::Object(_)) => return None,
        Ok(_) => "network configuration must be an object".to_owned(),
        Err(_) if config.trim_ascii().is_empty() => "network configuration is empty".to_owned(),
        Err(error) => {
            let at = format!(" at line {} column {}", error.line(), error.column());
            let full = error.to_string();
            let why = full.strip_suffix(&at).unwrap_or(&full);
            format!("network configuration is not valid JSON{at}: {why}")
        }
    };
    let details = "a plugin gets its configuration as JSON on standard input: mend the CNI file";
    Some(Failure::new(DECODING, msg, details))
}

/// A CNI error object: what was wrong, where, and what to do about it.
#[derive(Debug)]
pub(super) struct Failure {
    code: u32,
    msg: String,
    details: String,
}

impl Failure {
    pub(super) fn new(code: u32, msg: String, details: &str) -> Self {
        Self { code, msg, details: details.to_owned() }
    }

    /// No daemon took the call, or none answered it.
    pub(super) fn unanswered(socket: &Path, error: &ClientError, command: Command) -> Self {
        if matches!(error, ClientError::Denied(_)) {
            return Self::denied(socket, error, "");
        }
        let (code, start) = match command {
            Command::Status => (UNAVAILABLE, ""),
            _ => (TRY_AGAIN, "try again later: "),
        };
        let socket = socket.display();
        let msg = format!("{start}the Leasehold daemon does not answer on {socket}: {error}");
        Self::new(code, msg, START_IT)
    }

    /// No daemon took the DEL, and a note of it could not be left either.
    pub(super) fn unsent_note(socket: &Path, error: &ClientError, second: &NoteError) -> Self {
        let and = format!("; and a note of this DEL could not be left for it: {second}");
        if matches!(error, ClientError::Denied(_)) {
            return Self::denied(socket, error, &and);
        }
        let socket = socket.display();
        let msg = format!(
            "try again later: the Leasehold daemon does not answer on {socket}: {error}{and}"
        );
        Self::new(TRY_AGAIN, msg, START_IT)
    }

    fn denied(socket: &Path, error: &ClientError, and: &str) -> Self {
        let socket = socket.display();
        let msg = format!("no access to the Leasehold daemon's socket {socket}: {error}{and}");
        Self::new(IO, msg, BE_ROOT)
    }

    /// A call without its time could not be told from one that came before.
    pub(super) fn no_clock() -> Self {
        let msg = "the time since boot cannot be read (CLOCK_BOOTTIME)".to_owned();
        Self::new(IO, msg, "let the plugin call clock_gettime: a seccomp filter may forbid it")
    }

    /// Something answered, but not in HTTP.
    pub(super) fn not_http(socket: &Path, why: &str) -> Self {
        let socket = socket.display();
        let msg = format!("the daemon's answer is not HTTP as expected, on {socket}: {why}");
        Self::new(IO, msg, WHO_IS_IT)
    }

    /// A success without a CNI result, or an HTTP error without a CNI error object.
    pub(super) fn not_cni(socket: &Path, response: &Response, command: Command) -> Self {
        let (socket, status) = (socket.display(), response.status);
        let what = if status == 200 { "result" } else { "error object" };
        let mut msg =
            format!("the daemon's answer is not a CNI {what}, on {socket}: status {status}");
        // Others' words may have "not found" in them: see the top of this file.
        if command != Command::Del {
            let text = String::from_utf8_lossy(&response.body);
            let quoted: String = text.chars().take(QUOTED_CHARACTERS_MAX).collect();
            msg.push_str(&format!(", {quoted:?}"));
        }
        Self::new(IO, msg, WHO_IS_IT)
    }

    /// The object as it is printed: indented by four, no newline at the end, like host-local's.
    pub(super) fn to_json(&self, peek: &Peek) -> Vec<u8> {
        let version = Value::from(peek.version());
        let msg = Value::from(self.msg.as_str());
        let mut text = format!(
            "{{\n    \"cniVersion\": {version},\n    \"code\": {},\n    \"msg\": {msg}",
            self.code
        );
        if !self.details.is_empty() {
            let details = Value::from(self.details.as_str());
            text.push_str(&format!(",\n    \"details\": {details}"));
        }
        text.push_str("\n}");
        text.into_bytes()
    }
}
