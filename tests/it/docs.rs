//! Goal: every command and every configuration in the documents works as it is written.
//!
//! Method: the fenced blocks of README.md and of the pages in docs/ are read. A configuration is
//! given to what reads it (a daemon, `leasehold config check`; `tests/kubernetes.py` renders the
//! YAML). A command of `leasehold` is parsed by its own definition, also one in the middle of a
//! sentence. Blocks of commands are run, as they are, in a machine of their own (`walks.rs`). What
//! cannot run here is in a list with the reason (`lists.rs`); a block that is in none of these
//! fails, and so does an entry of the list that nothing needs.

mod blocks;
mod lists;
mod parsed;
mod walks;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Call, Daemon, LEASEHOLD, Options, my_ipam};
use blocks::{Block, read_all};
use lists::{NOT_RUN, PLAIN};
use walks::WALKS;

/// The walk through a block, if there is one.
fn walk_of(block: &Block) -> Option<&'static walks::Walk> {
    WALKS.iter().find(|walk| walk.page == block.page && block.text.contains(walk.block))
}

/// The entry of the list for a command.
fn not_run(command: &str) -> Option<usize> {
    NOT_RUN.iter().position(|(start, _)| command.starts_with(start))
}

#[test]
fn every_block_is_tried_or_listed_with_its_reason() {
    let mut complaints = Vec::new();
    let (mut listed, mut plain, mut walked) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for block in read_all() {
        let here = format!("{}:{}", block.page, block.line);
        match block.language.as_str() {
            // These are tried by the tests below, and by `tests/kubernetes.py`.
            "toml" | "json" | "yaml" => {}
            "console" => {
                let walk = walk_of(&block);
                walked.extend(walk.map(|walk| walk.block));
                for command in block.commands() {
                    let entry = not_run(&command);
                    listed.extend(entry);
                    let parsed = parsed::leasehold(&command);
                    complaints.extend(
                        parsed.iter().flatten().map(|error| format!("{here}: {command}: {error}")),
                    );
                    if walk.is_none() && entry.is_none() && parsed.is_none() {
                        complaints.push(format!("{here}: nobody tries: {command}"));
                    }
                }
            }
            "text" | "" => {
                let entry = PLAIN
                    .iter()
                    .position(|(page, start, _)| *page == block.page && block.text.contains(start));
                plain.extend(entry);
                if entry.is_none() {
                    complaints.push(format!("{here}: a block that nobody tries: {}", block.text));
                }
            }
            other => complaints.push(format!("{here}: nobody knows how to try {other:?}")),
        }
    }
    for (at, (start, _)) in NOT_RUN.iter().enumerate().filter(|(at, _)| !listed.contains(at)) {
        complaints.push(format!("entry {at} of the list, {start:?}, is of no command"));
    }
    for (at, entry) in PLAIN.iter().enumerate().filter(|(at, _)| !plain.contains(at)) {
        complaints.push(format!("entry {at} of the plain blocks, {entry:?}, is of no block"));
    }
    for walk in WALKS.iter().filter(|walk| !walked.contains(walk.block)) {
        complaints.push(format!("{}: no block has {:?}", walk.page, walk.block));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Every file and test that the list of what is not run names is there.
#[test]
fn what_the_lists_name_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let reasons = NOT_RUN.iter().map(|(_, reason)| *reason);
    for reason in reasons.chain(PLAIN.iter().map(|(_, _, reason)| *reason)) {
        assert!(!reason.is_empty());
        for word in reason.split(|c: char| !(c.is_alphanumeric() || "/_.".contains(c))) {
            let name = word.trim_end_matches('.');
            if name.starts_with("tests/") {
                assert!(root.join(name).exists(), "{reason}: there is no {name}");
            }
        }
    }
}

#[test]
fn every_command_in_a_sentence_is_one() {
    let mut complaints = Vec::new();
    let mut count = 0;
    for (page, line, command) in blocks::in_sentences() {
        if let Some(wrong) = parsed::in_sentence(&command) {
            count += 1;
            let error = wrong.map(|error| format!("{page}:{line}: {command}: {error}"));
            complaints.extend(error);
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(count > 80, "only {count} were found");
}

#[test]
fn every_configuration_is_good() {
    let dir = TempDir::with_prefix("leasehold-docs-").expect("a directory");
    let mut count = 0;
    for block in read_all() {
        let here = format!("{}:{}", block.page, block.line);
        let extension = match block.language.as_str() {
            // podman's own: tests/it/runtimes/podman.rs runs podman with it.
            "toml" if block.text.starts_with("[network]") => continue,
            language @ ("toml" | "json") => language,
            _ => continue,
        };
        count += 1;
        let file = dir.path().join(format!("block.{extension}"));
        fs::write(&file, &block.text).expect("a file");
        let said = Command::new(LEASEHOLD).args(["config", "check"]).arg(&file).output();
        let said = said.expect("leasehold runs");
        let text = String::from_utf8_lossy(&said.stdout);
        // Certificates and passwords are not here: the walk of docs/etcd.md and tests/it/deploy.rs
        // run daemons with these files.
        let absent = |line: &str| line.contains("/etc/leasehold/") && line.contains("No such file");
        let wrong: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(": wrong: ") || line.contains(": unknown: "))
            .filter(|line| !absent(line))
            .collect();
        assert!(wrong.is_empty() && said.status.code() != Some(2), "{here}: {said:?}");
        if extension == "json" {
            gives_an_address(&here, &block.text);
        }
    }
    assert!(count >= 4, "only {count} were found");
}

/// A network configuration of the documents gives an address; one whose ranges are central does so
/// once they are there.
fn gives_an_address(here: &str, text: &str) {
    let config: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{here}: {e}"));
    let daemon = Daemon::start(&Options::default());
    let ipam = config["ipam"].as_object().unwrap_or_else(|| panic!("{here}: no ipam"));
    if !ipam.contains_key("ranges") && !ipam.contains_key("subnet") {
        let name = config["name"].as_str().expect("a name");
        let central = json!({ "type": "my-ipam", "subnet": "10.9.0.0/24" });
        let path = format!("/v1/networks/{name}");
        let reply = daemon.client().request("PUT", &path, &central.to_string());
        assert!(reply.status == 200 || reply.status == 201, "{here}: {}", reply.body);
    }
    let added = daemon.plugin(&Call::new("ADD", "c1", &config));
    assert!(added.succeeded(), "{here}: {added:?}");
}

/// Runs the walk of this name.
fn walk(name: &str) {
    // Now, so that nothing is built in the middle of it.
    let plugin = my_ipam();
    let walk = WALKS.iter().find(|walk| walk.name == name).expect("a walk");
    let block = read_all().into_iter().find(|block| {
        block.language == "console" && walk_of(block).is_some_and(|of| of.name == name)
    });
    let block = block.unwrap_or_else(|| panic!("{}: no block has {:?}", walk.page, walk.block));
    let commands = block.commands();
    let tried: Vec<&String> = commands.iter().filter(|of| not_run(of).is_none()).collect();
    assert!(!tried.is_empty(), "{}: nothing of {name} is run", walk.page);
    walks::run(walk, &tried, plugin);
}

#[test]
fn install_from_the_source() {
    walk("source");
}

#[test]
fn install_takes_over_from_host_local() {
    walk("host_local");
}

#[test]
fn install_takes_over_from_whereabouts() {
    walk("whereabouts");
}

#[test]
fn install_takes_over_from_a_plugin_without_a_daemon() {
    walk("etcd_cni");
}

#[test]
fn install_a_cluster() {
    walk("cluster");
}

#[test]
fn etcd_has_a_user() {
    walk("user");
}

#[test]
fn etcd_is_compacted() {
    walk("compaction");
}

#[test]
fn etcd_is_saved_and_restored() {
    walk("backup");
    walk("restore");
}

#[test]
fn the_lab() {
    walk("lab");
}

#[test]
fn a_call_by_hand() {
    walk("call");
}

#[test]
fn the_runtimes() {
    walk("containerd");
    walk("crio");
    walk("nerdctl");
    walk("podman");
    walk("nomad");
}

/// Every walk is one of the tests above.
#[test]
fn every_walk_is_walked() {
    let this = include_str!("docs.rs");
    for walk in WALKS {
        assert!(this.contains(&format!("    walk(\"{}\");", walk.name)), "{}", walk.name);
    }
}
