//! `leasehold config check`, on files as people write them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use crate::common::LEASEHOLD;

/// Exit status and output for one file.
fn check(name: &str, text: &str) -> (i32, String) {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join(name);
    fs::write(&file, text).expect("a file");
    let output = Command::new(LEASEHOLD).args(["config", "check"]).arg(&file).output();
    let output = output.expect("leasehold runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("an exit status"), said)
}

#[test]
fn each_kind_of_file_is_known_and_each_fault_has_its_place() {
    for (name, text, code, words) in [
        (
            "a.conf",
            r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"my-ipam","subnet":"10.9.0.0/24"}}"#,
            0,
            "a.conf: good: a network configuration",
        ),
        (
            "a.conflist",
            "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"ipam\":\
             {\"type\":\"my-ipam\",\n\
             \"ranges\":[[{\"subnet\":\"10.9.0.0/24\",\n  \"range_start\":\"10.9.0.9\"}]]}}]}",
            1,
            "a.conflist:3:3: unknown: ipam.ranges[0][0].range_start",
        ),
        ("o.json", "{\"subnet\":\n\"10.9.0.1/24\"}", 1, "o.json:1:2: wrong: invalid range set 0"),
        ("o.json", "{\"subnet\":,}", 1, "o.json:1:11: wrong: file is not valid JSON"),
        ("l.toml", "node = \"a\"\n[etcd]\nendpoint = [\"x\"]\n", 1, "l.toml:3:1: wrong: unknown"),
        ("l.toml", "node = \"a\"\nsweep = \"soon\"\n", 1, "l.toml:2:"),
        ("l.toml", "node = \"a\"\n", 0, "l.toml:1:1: unwise: no [etcd]"),
        (
            "l.toml",
            "node = \"a\"\nlog = \"loud\"\n",
            1,
            "l.toml:2:1: wrong: log: \"loud\" is neither",
        ),
        ("l.toml", "listenTokenFile = \"/nope\"\n", 1, "l.toml:1:1: wrong: listenTokenFile: /nope"),
        (
            "l.toml",
            "offlineLimit = \"1h\"\n[etcd]\nendpoints = [\"http://127.0.0.1:1\"]\n",
            0,
            "l.toml:1:1: unwise: offlineLimit: other nodes get none",
        ),
        ("l.toml", "socket = \"a.sock\"\n", 0, "unwise: socket: a.sock is looked for in"),
        (
            "l.toml",
            "[etcd]\nendpoints = [\"nope:2379\"]\n",
            1,
            "l.toml:2:1: wrong: endpoints: \"nope:2379\" is not a URL of etcd",
        ),
        ("a.conf", "", 1, "a.conf:1:0: wrong: file is not valid JSON"),
        ("a.conflist", "name = 5", 1, "wrong: file is not valid JSON"),
        ("a.json", "\u{feff}{\"subnet\":\"10.9.0.0/24\"}", 1, "byte order mark"),
        ("a", "{\"subnet\":\"10.9.0.0/24\"}", 0, "good: an ipam object"),
    ] {
        let (ended, said) = check(name, text);
        assert_eq!(ended, code, "{text}: {said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Every command that takes a file refuses this one at once, with these words.
fn refused_everywhere(file: &Path, words: &str) {
    let name = file.to_str().expect("a path");
    let root = file.with_extension("root").display().to_string();
    for args in [
        &["config", "check", name][..],
        &["serve", "--config", name],
        &["serve", "--config", "/dev/null", "--boot-id-file", name],
        &["network", "put", "n", name],
        &["gc", "--report", name],
        &["plan", name, "--nodes", "2", "--pods-per-node", "3"],
        &["import", "whereabouts", name, "--network", "n", "--containers", name],
        &["import", "etcd-cni", name, "--network", "n"],
        &["install", "--to", &root, "--only", "plugin", "--plugin", name],
        &["install", "--to", &root, "--only", "conflist", "--conflist", name],
    ] {
        let output = Command::new(LEASEHOLD).args(args).output().expect("leasehold runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

/// Nothing waits for somebody who writes into a pipe, or reads a device that never ends.
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let dir = TempDir::new().expect("a directory");
    let pipe = dir.path().join("pipe.conf");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).expect("a pipe");
    refused_everywhere(&pipe, "not a regular file");
    let endless = dir.path().join("endless.conf");
    symlink("/dev/zero", &endless).expect("a link");
    refused_everywhere(&endless, "not a regular file");
}

/// A file that is far too long is not read into memory: this one has more bytes than the machine.
#[test]
fn a_file_that_is_too_long_is_refused_at_once() {
    let dir = TempDir::new().expect("a directory");
    let long = dir.path().join("long.conf");
    fs::File::create(&long).and_then(|file| file.set_len(1 << 42)).expect("a file with a hole");
    refused_everywhere(&long, "it is longer than");
}
