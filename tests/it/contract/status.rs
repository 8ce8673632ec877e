//! STATUS and ADD agree on what a configuration is good for.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::config;
use crate::common::{Call, Daemon, Options};

/// A configuration of a network of its own, with this changed.
fn changed(network: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut config = config(network, "10.74.0.0/24");
    change(&mut config);
    config
}

/// Returns whether a STATUS, and an ADD of a new container, succeed with a configuration. It must
/// be the same.
fn works(daemon: &Daemon, config: &Value) -> bool {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let container = format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let status = daemon.plugin(&Call::new("STATUS", "", config));
    let add = daemon.plugin(&Call::new("ADD", &container, config));
    assert_eq!(status.succeeded(), add.succeeded(), "{config}\n{status:?}\n{add:?}");
    if !add.succeeded() {
        assert_eq!(status.message(), add.message(), "{config}");
    }
    add.succeeded()
}

#[test]
fn a_status_fails_where_every_add_does() {
    let daemon = Daemon::start(&Options::default());
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("resolv.conf");
    fs::write(&file, "nameserver 192.0.2.53\n").expect("a file");
    for good in [
        changed("plain", |_| {}),
        changed("dns", |of| of["ipam"]["resolvConf"] = json!(file)),
        changed("routes", |of| of["ipam"]["routes"] = json!([{"dst": "10.0.0.0/8"}])),
        changed("asks", |of| of["args"] = json!({"cni": {"ips": ["10.74.0.9"]}})),
        changed("empty", |of| of["ipam"]["dataDir"] = json!(dir.path())),
    ] {
        assert!(works(&daemon, &good), "{good}");
    }
    let ipam =
        |network: &str, key: &str, value: Value| changed(network, |of| of["ipam"][key] = value);
    for bad in [
        ipam("b1", "resolvConf", json!("/nowhere/resolv.conf")),
        ipam("b2", "resolvConf", json!("nowhere")),
        ipam("b3", "resolvConf", json!(dir.path())),
        ipam("b4", "routes", json!(5)),
        ipam("b5", "routes", json!([{}])),
        ipam("b6", "routes", json!([{"dst": "x"}])),
        ipam("b7", "stageNamespaces", json!({"nope": ["a"]})),
        ipam("b8", "namespaces", json!([])),
        ipam("b9", "waitSeconds", json!(99)),
        ipam("b10", "ranges", json!([])),
        ipam("b11", "ranges", json!(null)),
        ipam("b12", "dataDir", json!(5)),
        changed("b13", |of| of["args"] = json!(5)),
        changed("b14", |of| of["runtimeConfig"] = json!({"ips": 7})),
        changed("b15", |of| of["args"] = json!({"cni": {"ips": ["10.75.0.9"]}})),
        changed("b16", |of| of["args"] = json!({"cni": {"ips": ["10.74.0.1"]}})),
        changed("b17", |of| of["ipam"] = json!({"network": "nothing"})),
    ] {
        assert!(!works(&daemon, &bad), "{bad}");
    }
}

#[test]
fn a_status_fails_for_another_block_size_than_the_pools() {
    let daemon = Daemon::start(&Options::default());
    let sized = |size: u8| changed("sized", |of| of["ipam"]["blockSize"] = json!(size));
    assert!(works(&daemon, &sized(28)));
    assert!(!works(&daemon, &sized(27)));
    assert!(works(&daemon, &sized(28)));
}

#[test]
fn a_status_fails_while_another_plugins_addresses_would_go_out() {
    let daemon = Daemon::start(&Options::default());
    let dir = TempDir::new().expect("a directory");
    let data = |network: &str| changed(network, |of| of["ipam"]["dataDir"] = json!(dir.path()));
    fs::create_dir(dir.path().join("pods")).expect("a directory");
    fs::write(dir.path().join("pods/10.74.0.7"), "c7\r\neth0").expect("a file");
    assert!(!works(&daemon, &data("pods")));
    // A directory that is none cannot be read.
    fs::write(dir.path().join("odd"), "").expect("a file");
    assert!(!works(&daemon, &data("odd")));
    fs::remove_file(dir.path().join("pods/10.74.0.7")).expect("the end of a file");
    assert!(works(&daemon, &data("pods")));
}
