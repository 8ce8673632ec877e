//! `resolvConf` names a file where the runtime lives: the plugin reads it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::config;
use crate::common::{Call, Daemon, Options, Outcome, feed_bytes, my_ipam, poll};

/// The longest wait for the daemon to know a change of a central object.
const PATIENCE: Duration = Duration::from_secs(20);

/// An ADD by a plugin that runs in this directory.
fn add_in(dir: &TempDir, daemon: &Daemon, container: &str, path: &str) -> Outcome {
    let mut config = config("dns", "10.74.0.0/24");
    config["ipam"]["resolvConf"] = json!(path);
    daemon.adopt(&mut config);
    let call = Call::new("ADD", container, &config);
    let mut command = Command::new(my_ipam());
    command.env_clear().envs(call.environment()).current_dir(dir.path());
    Outcome::of_process(&feed_bytes(command, config.to_string().as_bytes()))
}

#[test]
fn a_relative_path_counts_in_the_plugins_directory() {
    let daemon = Daemon::start(&Options::default());
    let dir = TempDir::new().expect("a directory");
    fs::write(dir.path().join("resolv.conf"), "nameserver 192.0.2.53\nsearch a \"b\"\n")
        .expect("a file");
    std::os::unix::fs::symlink("resolv.conf", dir.path().join("link")).expect("a link");
    for (container, path) in [("a", "resolv.conf"), ("b", "./link")] {
        let dns = add_in(&dir, &daemon, container, path).expect_result()["dns"].clone();
        assert_eq!(dns, json!({"nameservers": ["192.0.2.53"], "search": ["a", "\"b\""]}));
    }
}

#[test]
fn what_cannot_be_read_is_refused_at_once() {
    let daemon = Daemon::start(&Options::default());
    let dir = TempDir::new().expect("a directory");
    mkfifoat(CWD, dir.path().join("pipe"), Mode::RUSR | Mode::WUSR).expect("a pipe");
    fs::write(dir.path().join("long"), vec![b'#'; (1 << 20) + 1]).expect("a file");
    fs::write(dir.path().join("full"), vec![b'#'; 1 << 20]).expect("a file");
    for (path, words) in [
        ("none", "open none: no such file or directory"),
        ("pipe", "open pipe: not a regular file"),
        (".", "open .: not a regular file"),
        ("long", "open long: larger than 1 MiB"),
    ] {
        let refused = add_in(&dir, &daemon, "a", path);
        assert_eq!((refused.code(), refused.message()), (Some(7), words), "{refused:?}");
    }
    assert_eq!(daemon.allocations(), [Value::Null; 0]);
    assert!(add_in(&dir, &daemon, "a", "full").succeeded());
}

/// The daemon opens only what the plugin cannot know: the path in a central object.
#[test]
fn the_daemon_opens_only_whole_paths() {
    let daemon = Daemon::start(&Options::default());
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("resolv.conf");
    fs::write(&file, "nameserver 192.0.2.53\n").expect("a file");
    let put = |path: Value| {
        let ipam = json!({"ranges": [[{"subnet": "10.74.0.0/24"}]], "resolvConf": path});
        let reply = daemon.client().request("PUT", "/v1/networks/central", &ipam.to_string());
        assert!(reply.status < 300, "{}", reply.body);
    };
    let config = json!({"cniVersion": "1.0.0", "name": "central", "ipam": {}});
    let add = || daemon.plugin(&Call::new("ADD", "a", &config));
    put(json!(file));
    assert!(poll(PATIENCE, || add().succeeded()), "{:?}", add());
    assert_eq!(add().expect_result()["dns"]["nameservers"], json!(["192.0.2.53"]));
    // The daemon of a test runs in a directory with such a file.
    put(json!("Cargo.toml"));
    assert!(poll(PATIENCE, || !add().succeeded()), "{:?}", add());
    let refused = add();
    assert_eq!(refused.code(), Some(7), "{refused:?}");
    assert!(refused.message().contains("begins with /"), "{refused:?}");
}
