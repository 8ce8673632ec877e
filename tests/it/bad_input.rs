//! Goal: every fault - of a configuration, a call, a client, a disk, a second daemon - ends in one
//! clear error with the right code, exit status 1, nothing allocated and nothing lost.
//!
//! Method: a daemon with one allocation in it gets bad input, through the plugin's binary or as
//! bytes on its socket. After each piece the list of allocations must be the same as before.

mod absent;
mod config;
mod del;
pub(crate) mod disk;
mod etcd;
mod files;
mod http;
mod notes;
mod start;

use std::process::Output;

use serde_json::{Value, json};

use crate::common::{Call, Client, Daemon, Options, Outcome};

/// A valid configuration with one range set.
fn config(name: &str, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": name,
        "ipam": { "type": "my-ipam", "ranges": [[{ "subnet": subnet }]] },
    })
}

/// A daemon that holds one allocation, and must go on holding that one only.
struct Held {
    daemon: Daemon,
    client: Client,
    before: Vec<Value>,
}

impl Held {
    fn new() -> Self {
        let daemon = Daemon::start(&Options::default());
        let mut client = daemon.client();
        let add = Call::new("ADD", "held", &config("held", "10.99.0.0/24"));
        client.call(&add).expect_result();
        let before = daemon.allocations();
        assert_eq!(before.len(), 1, "{before:?}");
        Self { daemon, client, before }
    }

    /// Checks that no allocation came and none went.
    fn assert_unchanged(&self, after: &str) {
        assert_eq!(self.daemon.allocations(), self.before, "after {after}");
    }

    /// Checks that the daemon still serves an ADD and its DEL.
    fn assert_serves(&mut self, after: &str) {
        let config = config("still", "10.98.0.0/24");
        let added = self.client.call(&Call::new("ADD", "still", &config));
        assert!(added.succeeded(), "after {after}: {added:?}");
        let deleted = self.client.call(&Call::new("DEL", "still", &config));
        assert!(deleted.succeeded(), "after {after}: {deleted:?}");
        self.assert_unchanged(after);
    }

    /// Runs the plugin, which must print one CNI error: this code, these words in `msg` or
    /// `details`.
    fn refused(&self, output: &Output, code: u64, words: &[&str]) {
        let outcome = refusal(output, code, words);
        self.assert_unchanged(&format!("{outcome:?}"));
    }
}

/// One CNI error object on standard output with this code and these words, exit status 1, nothing
/// on standard error.
fn refusal(output: &Output, code: u64, words: &[&str]) -> Outcome {
    let outcome = Outcome::of_process(output);
    assert_refused(&outcome, code, words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "", "standard error beside {outcome:?}");
    outcome
}

/// A CNI error object with this code and these words.
fn assert_refused(outcome: &Outcome, code: u64, words: &[&str]) {
    let Outcome::Refused(object) = outcome else {
        panic!("expected code {code} with {words:?}, got {outcome:?}")
    };
    assert_eq!(outcome.code(), Some(code), "{object:?}");
    assert!(object["cniVersion"].is_string(), "no cniVersion in {object:?}");
    let details = object.get("details").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{} {details}", outcome.message());
    for word in words {
        assert!(text.contains(word), "no {word:?} in {object:?}");
    }
}
