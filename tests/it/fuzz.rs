//! Goal: no bytes on the socket, on the TCP listener, or to the plugin cause a panic, a hang,
//! growth or a leaked address.
//!
//! Method: a seed makes a batch of inputs: bytes and mutations of the calls and requests in
//! `tests/corpus`. After each batch everything that is held is ended by honest DELs, and nothing
//! must be left; an honest ADD and DEL work; the daemon's log has no panic. Some seeds are tried by
//! every run. `LEASEHOLD_FUZZ=60` goes on with others for so many seconds (one test after the
//! other: `--test-threads 1`), `LEASEHOLD_SEED=7` tries one alone. An input that found something
//! belongs into `tests/corpus`.

mod bytes;
mod calls;
mod growth;
mod hostile;
mod limits;
mod mutate;
mod plugin;
mod socket;

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::common::{Call, Client, Daemon, Options};

/// The time within which all allocations must end after a batch: the call of a connection that has
/// ended may still be in progress.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// The most characters of an input that a failure shows.
const SHOWN_CHARACTERS_MAX: usize = 3_000;

/// The files of a directory of the corpus, by name.
fn corpus(directory: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(directory);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .map(|entry| {
            let path = entry.expect("an entry of the corpus").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a file of the corpus"))
        })
        .collect();
    assert!(files.len() > 3, "only {} files in {}", files.len(), path.display());
    files.sort();
    files
}

/// Tries seeds, and names a seed that fails.
fn seeds(always: u64, mut trial: impl FnMut(&mut Rng)) {
    let variable = |name| {
        let value = env::var(name).ok()?;
        Some(value.parse::<u64>().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
    };
    let mut one = |seed: u64| {
        let trial = AssertUnwindSafe(|| trial(&mut Rng::with_seed(seed)));
        if let Err(cause) = catch_unwind(trial) {
            eprintln!("to see it again: LEASEHOLD_SEED={seed}");
            resume_unwind(cause);
        }
    };
    if let Some(seed) = variable("LEASEHOLD_SEED") {
        return one(seed);
    }
    (0..always).for_each(&mut one);
    if let Some(seconds) = variable("LEASEHOLD_FUZZ") {
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(seconds) {
            one(fastrand::u64(..));
            count += 1;
        }
        println!("{count} more seeds");
    }
}

/// An input in the form in which a failure shows it.
fn shown(input: &[u8]) -> String {
    let text: String = input.escape_ascii().map(char::from).take(SHOWN_CHARACTERS_MAX).collect();
    format!("{} bytes: {text}", input.len())
}

/// A daemon that gets bad input, and must go on.
struct World {
    daemon: Daemon,
    client: Client,
}

impl World {
    fn new() -> Self {
        let daemon = Daemon::start(&Options::default());
        let client = daemon.client();
        Self { daemon, client }
    }

    /// Ends all allocations, as their runtimes would. Nothing must be left, and the daemon must be
    /// healthy.
    fn end_all(&mut self) {
        let began = Instant::now();
        loop {
            let rows = self.daemon.allocations();
            if rows.is_empty() {
                break;
            }
            assert!(began.elapsed() < SETTLED_WITHIN, "not released by their DELs: {rows:?}");
            for row in &rows {
                let text = |field: &str| row[field].as_str().expect("a text").to_owned();
                let config = json!({ "name": text("network"), "cniVersion": "1.1.0" });
                let mut del = Call::new("DEL", &text("containerId"), &config);
                del.ifname = text("ifname");
                let outcome = self.client.call(&del);
                assert!(outcome.succeeded(), "DEL of {row}: {outcome:?}");
            }
        }
        for command in ["ADD", "DEL"] {
            // As the plugin makes it: with the time of its start.
            let reply = self.client.request("POST", "/v1/cni", &honest(command).to_string());
            assert_eq!(reply.status, 200, "an honest {command}: {}", reply.body);
        }
        let log = self.daemon.log();
        assert!(!log.contains("panick"), "{}", self.daemon.log_tail());
    }
}

/// A valid call of the plugin.
fn honest(command: &str) -> Value {
    json!({
        "command": command, "containerId": "honest", "netns": "/run/netns/honest",
        "ifname": "eth0", "startedAt": leasehold::clock::boot_ns(),
        "config": {
            "cniVersion": "1.1.0", "name": "honest",
            "ipam": { "type": "my-ipam", "ranges": [[{ "subnet": "10.77.0.0/24" }]] },
        },
    })
}

/// The fault of a CNI error object, if it has one.
fn no_error_object(text: &str) -> Option<String> {
    let object: Value = match serde_json::from_str(text) {
        Ok(object) => object,
        Err(error) => return Some(format!("{error} in {text:?}")),
    };
    let has_text = |key: &str| object[key].as_str().is_some_and(|text| !text.is_empty());
    let whole = has_text("cniVersion") && has_text("msg") && object["code"].is_u64();
    (!whole).then(|| format!("no error object of CNI: {object}"))
}

/// The fault of the answer to a command that succeeded, if it has one.
fn no_result(command: &str, text: &str) -> Option<String> {
    let object: Value = match command {
        "ADD" | "VERSION" => match serde_json::from_str(text) {
            Ok(object) => object,
            Err(error) => return Some(format!("{command}: {error} in {text:?}")),
        },
        _ => return (!text.is_empty()).then(|| format!("{command} has no result: {text:?}")),
    };
    let one_of = |keys: &[&str]| keys.iter().any(|key| object.get(key).is_some());
    let whole = match command {
        "ADD" => object["cniVersion"].is_string() && one_of(&["ips", "ip4", "ip6"]),
        _ => object["cniVersion"].is_string() && object["supportedVersions"].is_array(),
    };
    (!whole).then(|| format!("no result of {command}: {object}"))
}
