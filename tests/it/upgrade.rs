//! Goal: a daemon takes over, in place, what every released version left behind, and this version
//! too: the state directory with its journal and its small files, a note of the plugin, the keys in
//! etcd, the embedded store.
//!
//! Method: samples that daemons of these versions wrote before they were killed. `0.1` is that
//! release; `0.2` is what the next one writes, and must be read by all after it. Journals and
//! stores are the output of `od -A x -t x1z`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{await_status, network, options};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Options};

/// The boot of the samples, and the machine of their node `a`.
const BOOT: &str = "11111111-2222-4333-8444-555555555555";
const MACHINE: &str = "0123456789abcdef0123456789abcdef";
/// The container with an address of each family, and a pod.
const POD: &str = "0f2b8a5f3c0e4f6a9d7c1b2e3f405162738495a6b7c8d9eafb0c1d2e3f405162";

/// The directory of a sample.
fn sample(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/upgrade").join(version)
}

fn text(of: &Path) -> String {
    fs::read_to_string(of).unwrap_or_else(|error| panic!("{}: {error}", of.display()))
}

/// The bytes of a dump. A line that is only a star stands for repetitions of the line before.
fn bytes_of(dump: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut repeats = false;
    for line in dump.lines() {
        if line == "*" {
            repeats = true;
            continue;
        }
        let (offset, rest) = line.split_once("  >").unwrap_or((line, "")).0.split_at(6);
        let offset = usize::from_str_radix(offset, 16).expect("an offset");
        if std::mem::take(&mut repeats) {
            let last = bytes[bytes.len() - 16..].to_vec();
            (bytes.len()..offset).step_by(16).for_each(|_| bytes.extend(&last));
        }
        assert_eq!(bytes.len(), offset, "{line}");
        let byte = |byte| u8::from_str_radix(byte, 16).expect("a byte");
        bytes.extend(rest.split_whitespace().map(byte));
    }
    bytes
}

/// Prepares a daemon over a copy of a sample's state directory, in the boot and on the machine of
/// the sample.
fn prepare(of: &Path, home: &TempDir, mut options: Options) -> Daemon {
    for (name, value) in [("boot-id", BOOT), ("machine-id", MACHINE)] {
        let file = home.path().join(name);
        fs::write(&file, value).expect("a file");
        options.args.extend([format!("--{name}-file"), file.display().to_string()]);
    }
    // The namespaces of the samples are not here.
    options.args.extend(["--sweep".to_owned(), "0s".to_owned()]);
    let daemon = Daemon::prepare(&options);
    let state = daemon.state_dir();
    fs::create_dir_all(&state).expect("a state directory");
    for file in fs::read_dir(of).expect("a sample") {
        let (path, name) = {
            let file = file.expect("a file");
            (file.path(), file.file_name().into_string().expect("a name"))
        };
        match name.as_str() {
            "journal.txt" | "cluster.txt" => {
                let store = state.join(name.replace(".txt", ".redb"));
                fs::write(store, bytes_of(&text(&path))).expect("a file");
            }
            "journal.commits.txt" => {
                let commits: u64 = text(&path).trim().parse().expect("a number");
                fs::write(state.join("journal.commits"), commits.to_le_bytes()).expect("a file");
            }
            "note.json" => {
                let notes = daemon.notes_dir();
                fs::create_dir_all(&notes).expect("a directory of notes");
                fs::copy(path, notes.join("1-1.json")).expect("a note");
            }
            "etcd.txt" => {}
            name => {
                let name = name.strip_prefix("state-").expect("a file of the state directory");
                fs::copy(&path, state.join(name)).expect("a file");
            }
        }
    }
    daemon
}

/// Every address that a daemon holds, with its container.
fn held(daemon: &Daemon) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let rows = daemon.allocations().into_iter();
    rows.map(|row| (text(&row["containerId"]), text(&row["address"]))).collect()
}

fn set(of: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn what_a_node_of_each_version_left_is_taken_over() {
    for version in ["0.1", "0.2"] {
        let (of, home) = (sample(version), TempDir::new().expect("a directory"));
        let etcd = Cluster::start(1);
        let keys = text(&of.join("etcd.txt"));
        let keys: Vec<(&str, &str)> = keys.lines().filter_map(|l| l.split_once('\t')).collect();
        assert!(keys.len() > 20, "{version}: {}", keys.len());
        for (key, value) in &keys {
            etcd.ctl(&["put", key, value]);
        }
        let mut daemon = prepare(&of, &home, options(&etcd, "a", &["--warm-addresses", "8"]));
        daemon.restart();
        await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
        // The note is a DEL of c2.
        let before = set(&[(POD, "10.9.0.117"), (POD, "fd09::89"), ("c3", "10.8.0.117")]);
        assert_eq!(held(&daemon), before, "{version}: {}", daemon.log_tail());
        assert!(fs::read_dir(daemon.notes_dir()).is_ok_and(|mut notes| notes.next().is_none()));
        let pod = daemon.allocations().into_iter().find(|row| row["containerId"] == POD);
        let pod = pod.expect("the pod");
        assert_eq!((&pod["pod"], &pod["stage"]), (&"pay-1-sandbox-a".into(), &Value::Null));

        // The central network, and the other node, whose addresses nobody gets.
        let central = daemon.client().get("/v1/networks/central");
        assert_eq!(central["ipam"]["subnet"], "10.8.0.0/24", "{version}: {central}");
        let nodes = daemon.client().get("/v1/nodes");
        assert!(nodes.to_string().contains(r#""node":"b""#), "{version}: {nodes}");
        let config = network("pods", &json!({ "subnet": "10.9.0.0/24" }));
        let added = |at: usize| {
            let added = daemon.client().call(&Call::new("ADD", &format!("new-{at}"), &config));
            let ip = added.expect_result()["ips"][0]["address"].as_str().expect("an address");
            ip.trim_end_matches("/24").to_owned()
        };
        let of_b: Vec<String> = (240..252).map(|last| format!("10.9.0.{last}")).collect();
        let new: BTreeSet<String> = (0..60).map(added).collect();
        assert_eq!(new.len(), 60, "{version}");
        assert!(
            new.iter().all(|ip| ip != "10.9.0.117" && !of_b.contains(ip)),
            "{version}: {new:?}"
        );

        // Nothing in etcd is foreign to this version, and what was held ends by its DEL.
        let check = daemon.client().get("/v1/check");
        assert!(!check.to_string().contains("unreadable"), "{version}: {check}");
        let both = json!([[{ "subnet": "10.9.0.0/24" }], [{ "subnet": "fd09::/120" }]]);
        let mut config = config.clone();
        config["ipam"]["ranges"] = both;
        assert!(daemon.client().call(&Call::new("DEL", POD, &config)).succeeded());
        assert!(!held(&daemon).iter().any(|(container, _)| container == POD));
    }
}

#[test]
fn what_a_node_without_etcd_left_is_taken_over() {
    for version in ["0.1-alone", "0.2-alone"] {
        let home = TempDir::new().expect("a directory");
        let args = vec!["--node".to_owned(), "s".to_owned()];
        let options = Options { args, ..Options::default() };
        let mut daemon = prepare(&sample(version), &home, options);
        daemon.restart();
        let before = set(&[("e1", "10.7.0.2"), ("e2", "10.7.0.3")]);
        assert_eq!(held(&daemon), before, "{version}: {}", daemon.log_tail());
        let config = network("pods", &json!({ "subnet": "10.7.0.0/24" }));
        let added = daemon.client().call(&Call::new("ADD", "e3", &config));
        let ip = &added.expect_result()["ips"][0]["address"];
        assert_eq!(ip, "10.7.0.4/24", "{version}: the walk goes on");
        daemon.restart();
        assert_eq!(held(&daemon).len(), 3, "{version}");
    }
}
