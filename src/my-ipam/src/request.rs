//! The body of the request, which is also the text of a note.
//!
//! Everything but the configuration is on the first line, and the configuration follows as it
//! came. So its line in an error of the daemon's parser is the body's line less one.

use std::io::Write as _;

use serde_json::Value;

use super::command::Command;
use super::environment::Environment;

/// The key of the time since which the plugin has found no daemon. Version 0.1 refuses it.
pub(super) const WAITED_SINCE: &str = "waitedSince";

/// Room for a usual first line, in bytes: it has about 300, much of it `CNI_ARGS`.
const FIRST_LINE_BYTES_USUAL: usize = 512;

/// One call, ready to be sent.
#[derive(Debug)]
pub(super) struct Request {
    environment: Environment,
    started_at_ns: u64,
    /// The first line and its newline.
    first_line: Vec<u8>,
    /// The part of the first line that is about `ipam.resolvConf`; empty without that key.
    resolv_conf: String,
    config: Vec<u8>,
}

impl Request {
    /// `resolv_conf` is a key of the request with its value: see [`resolv::read`].
    ///
    /// [`resolv::read`]: super::resolv::read
    pub(super) fn new(
        environment: Environment,
        started_at_ns: u64,
        config: Vec<u8>,
        resolv_conf: Option<(&str, String)>,
    ) -> Self {
        let resolv_conf = resolv_conf
            .map(|(key, value)| format!(",\"{key}\":{}", Value::from(value)))
            .unwrap_or_default();
        let first_line = first_line(&environment, started_at_ns, &resolv_conf);
        Self { environment, started_at_ns, first_line, resolv_conf, config }
    }

    /// The DEL that releases only what this ADD made: the same process start tells them apart.
    pub(super) fn undone(self) -> Self {
        let environment = Environment { command: Command::Del, ..self.environment };
        let first_line = first_line(&environment, self.started_at_ns, ",\"undo\":true");
        Self { environment, first_line, ..self }
    }

    /// The same call, which has found no daemon since then (nanoseconds on the boot clock); `None`:
    /// for a daemon of a version that has no word for that.
    pub(super) fn waiting(&mut self, since_ns: Option<u64>) {
        let since = since_ns.map(|since| format!(",\"{WAITED_SINCE}\":{since}"));
        let more = format!("{}{}", since.unwrap_or_default(), self.resolv_conf);
        self.first_line = first_line(&self.environment, self.started_at_ns, &more);
    }

    pub(super) const fn command(&self) -> Command {
        self.environment.command
    }

    /// The network configuration as it came.
    pub(super) fn config(&self) -> &[u8] {
        &self.config
    }

    /// The body, in pieces, so that the configuration is not copied.
    pub(super) fn parts(&self) -> [&[u8]; 3] {
        [&self.first_line, &self.config, b"\n}"]
    }

    /// No two processes of one boot share it: a process id is not given out twice in one
    /// nanosecond.
    pub(super) fn name_of_note(&self) -> String {
        format!("{}-{}.json", self.started_at_ns, std::process::id())
    }
}

fn first_line(environment: &Environment, started_at_ns: u64, more: &str) -> Vec<u8> {
    let Environment { command, container_id, netns, ifname, args, path } = environment;
    let mut line = Vec::with_capacity(FIRST_LINE_BYTES_USUAL);
    // Writing to memory cannot fail.
    let _ = write!(line, "{{\"command\":\"{}\"", command.name());
    for (key, value) in [
        ("containerId", container_id),
        ("netns", netns),
        ("ifname", ifname),
        ("args", args),
        ("path", path),
    ] {
        let _ = write!(line, ",\"{key}\":");
        let _ = serde_json::to_writer(&mut line, value);
    }
    let _ = writeln!(line, ",\"startedAt\":{started_at_ns}{more},\"config\":");
    line
}
