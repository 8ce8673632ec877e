//! Files of host-local whose containers are gone, cannot be taken over, or appear later.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster_admin::{ends, ends_json};
use crate::common::{Call, Daemon, Options, Outcome};

fn config(data: &Path) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "pods", "ipam": {
        "type": "my-ipam", "dataDir": data, "ranges": [[{ "subnet": "10.9.0.0/24" }]]
    } })
}

fn call(daemon: &Daemon, command: &'static str, container: &str, data: &Path) -> Outcome {
    daemon.plugin(&Call::new(command, container, &config(data)))
}

/// A directory of host-local in which containers hold these addresses on network `pods`.
fn files(held: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().expect("a directory");
    fs::create_dir(dir.path().join("pods")).expect("a directory");
    for (address, container) in held {
        let file = dir.path().join("pods").join(address);
        fs::write(file, format!("{container}\r\neth0")).expect("a file");
    }
    dir
}

fn containers(daemon: &Daemon) -> Vec<String> {
    let text = |row: &Value| row["containerId"].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<String> = daemon.allocations().iter().map(text).collect();
    all.sort();
    all
}

fn importing() -> Options {
    Options { args: vec!["--import-host-local".to_owned()], ..Options::default() }
}

#[test]
fn a_del_of_a_container_that_was_not_taken_over_ends_its_file() {
    let daemon = Daemon::start(&Options::default());
    let data = files(&[("10.9.0.5", "p1"), ("10.9.0.6", "p2")]);
    assert_eq!(call(&daemon, "ADD", "new", data.path()).code(), Some(11));
    assert!(call(&daemon, "DEL", "p1", data.path()).succeeded());
    assert!(!data.path().join("pods/10.9.0.5").exists(), "host-local's DEL would remove it");
    assert!(data.path().join("pods/10.9.0.6").exists(), "of another container");
    let conf = TempDir::new().expect("a directory");
    fs::write(conf.path().join("a.conf"), config(data.path()).to_string()).expect("a file");
    let [data_text, conf_text] = [&data, &conf].map(|dir| dir.path().display().to_string());
    ends(&daemon, &["import", "host-local", &data_text, "--conf-dir", &conf_text], 0);
    assert_eq!(containers(&daemon), ["p2"]);
}

/// A directory that is mounted for reading only.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(dir: &'a Path) -> Self {
        mount_bind(dir, dir).expect("a mount");
        mount_remount(dir, MountFlags::BIND | MountFlags::RDONLY, "").expect("a read-only mount");
        Self(dir)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_file_that_stays_is_not_taken_over_again() {
    let mut daemon = Daemon::start(&importing());
    let data = files(&[("10.9.0.5", "p1"), ("10.9.0.6", "p2")]);
    let _read_only = ReadOnly::new(data.path());
    assert!(call(&daemon, "ADD", "new", data.path()).succeeded(), "{}", daemon.log_tail());
    assert_eq!(containers(&daemon), ["new", "p1", "p2"]);
    assert!(call(&daemon, "DEL", "p1", data.path()).succeeded());
    daemon.restart();
    assert!(call(&daemon, "ADD", "next", data.path()).succeeded(), "{}", daemon.log_tail());
    assert_eq!(containers(&daemon), ["new", "next", "p2"]);
    assert!(data.path().join("pods/10.9.0.5").exists());
}

#[test]
fn a_del_is_remembered_where_the_file_stays() {
    let mut daemon = Daemon::start(&Options::default());
    let data = files(&[("10.9.0.5", "p1")]);
    let _read_only = ReadOnly::new(data.path());
    assert!(call(&daemon, "DEL", "p1", data.path()).succeeded());
    daemon.set_options(importing());
    daemon.restart();
    assert!(call(&daemon, "ADD", "new", data.path()).succeeded(), "{}", daemon.log_tail());
    assert_eq!(containers(&daemon), ["new"]);
}

#[test]
fn a_file_that_comes_later_is_seen() {
    let daemon = Daemon::start(&Options::default());
    let data = files(&[]);
    let other = files(&[("10.9.0.9", "p9")]);
    assert!(call(&daemon, "ADD", "a", data.path()).succeeded());
    assert!(call(&daemon, "ADD", "b", data.path()).succeeded());
    // Another directory of the same network is another one.
    assert_eq!(call(&daemon, "ADD", "c", other.path()).code(), Some(11));
    fs::write(data.path().join("pods/10.9.0.7"), "p1\r\neth0").expect("a file");
    assert_eq!(call(&daemon, "ADD", "d", data.path()).code(), Some(11));
}

/// A dry run says what the real one does, and one conflict keeps everything as it is.
#[test]
fn a_dry_run_agrees_with_the_real_one() {
    let daemon = Daemon::start(&Options::default());
    let conf = TempDir::new().expect("a directory");
    let conf_text = conf.path().display().to_string();
    let range =
        json!({ "subnet": "10.9.0.0/24", "rangeEnd": "10.9.0.99", "sandbox": ["10.9.0.8"] });
    let other = json!({ "cniVersion": "1.0.0", "name": "other", "ipam": {} });
    for (address, ipam, words) in [
        ("10.9.0.5", json!({ "ranges": [[range]] }), ""),
        ("10.9.0.200", json!({ "ranges": [[range]] }), "failed to allocate all requested IPs"),
        ("10.10.0.5", json!({ "ranges": [[range]] }), "failed to allocate all requested IPs"),
        ("10.9.0.1", json!({ "ranges": [[range]] }), "gateway"),
        ("10.9.0.8", json!({ "ranges": [[range]] }), "is not for a pod without a stage"),
        ("10.9.0.5", json!({ "ranges": [[range]], "namespaces": ["pay"] }), "namespace pay"),
        ("10.9.0.5", json!({ "ranges": [[range]], "routes": 5 }), "ipam.routes"),
        ("10.9.0.5", json!(null), "no configuration of network pods"),
    ] {
        let data = files(&[("10.9.0.3", "good"), (address, "p1")]);
        let mut own = config(data.path());
        match ipam {
            Value::Null => own = other.clone(),
            _ => own["ipam"] = ipam,
        }
        fs::write(conf.path().join("a.conf"), own.to_string()).expect("a file");
        let data_text = data.path().display().to_string();
        let import = ["import", "host-local", &data_text, "--conf-dir", &conf_text];
        let code = i32::from(!words.is_empty());
        let dry = ends_json(&daemon, &[&import[..], &["--dry-run"]].concat(), code);
        assert!(dry.to_string().contains(words), "{words}: {dry}");
        assert_eq!(containers(&daemon), [""; 0], "a dry run: {dry}");
        let real = ends_json(&daemon, &import, code);
        if code == 0 {
            assert_eq!(containers(&daemon), ["good", "p1"]);
            for container in ["good", "p1"] {
                assert!(call(&daemon, "DEL", container, data.path()).succeeded());
            }
        } else {
            assert_eq!(real, dry);
            assert_eq!(containers(&daemon), [""; 0], "{real}");
            assert!(data.path().join("pods").join(address).exists());
        }
    }
}
