//! A DEL works whatever else its configuration and its environment say: with the daemon, and when
//! a note is left for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output};

use serde_json::Value;

use super::config;
use crate::common::{Call, Daemon, Options, feed_bytes, my_ipam};

/// The faults that a configuration may have before everything that counts.
fn faults() -> Vec<(&'static str, Vec<u8>)> {
    let deep = [b"[".repeat(9_999), b"]".repeat(9_999)].concat();
    vec![
        ("nothing", b"1".to_vec()),
        ("nesting", deep),
        ("a lone surrogate", br#""\ud800""#.to_vec()),
        ("a number out of range", b"1e999999".to_vec()),
        ("bytes that are not UTF-8", b"\"\xff\xfe\"".to_vec()),
        ("a body over the limit", [&b"\""[..], &b"a".repeat(6 << 20), b"\""].concat()),
        ("an attachment list over the limit", {
            let one = br#"{"containerID":"c","ifname":"eth0"},"#;
            [&b"["[..], &one.repeat(200_000), b"1]"].concat()
        }),
    ]
}

fn good(daemon: &Daemon) -> String {
    let mut good = config("pods", "10.3.0.0/24");
    daemon.adopt(&mut good);
    good.to_string()
}

/// Runs the plugin's DEL. Nothing but the configuration names the socket.
fn del(container: &str, config: &[u8], odd: &[(&str, &[u8])]) -> Output {
    let mut command = Command::new(my_ipam());
    command
        .env_remove("LEASEHOLD_SOCKET")
        .envs([("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_PATH", "/opt/cni/bin"), ("CNI_NETNS", ""), ("CNI_ARGS", "")]);
    for (name, value) in odd {
        command.env(name, OsStr::from_bytes(value));
    }
    feed_bytes(command, config)
}

/// Deletes one container for each fault, and one for each odd variable.
fn delete_all(daemon: &Daemon) -> usize {
    let good = good(daemon);
    let mut count = 0;
    let mut check = |what: &str, output: &Output| {
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(output.stdout.is_empty(), "{what}");
        count += 1;
    };
    for (at, (what, fault)) in faults().into_iter().enumerate() {
        let config = [&b"{\"x\":"[..], &fault, b",", &good.as_bytes()[1..]].concat();
        check(what, &del(&format!("c{at}"), &config, &[]));
    }
    for (at, variable) in ["CNI_ARGS", "CNI_PATH"].into_iter().enumerate() {
        let odd = [(variable, &b"K8S_POD_NAME=\xff;=;"[..])];
        check(variable, &del(&format!("v{at}"), good.as_bytes(), &odd));
    }
    count
}

fn add_all(daemon: &Daemon) {
    let containers = (0..faults().len()).map(|at| format!("c{at}"));
    for container in containers.chain(["v0".to_owned(), "v1".to_owned()]) {
        let call = Call::new("ADD", &container, &config("pods", "10.3.0.0/24"));
        assert!(daemon.client().call(&call).succeeded());
    }
}

#[test]
fn a_del_works_whatever_else_is_said() {
    let daemon = Daemon::start(&Options::default());
    add_all(&daemon);
    let count = delete_all(&daemon);
    assert_eq!(daemon.allocations().len(), 0, "{count} deleted");
}

#[test]
fn a_note_of_such_a_del_is_acted_on() {
    let mut daemon = Daemon::start(&Options::default());
    add_all(&daemon);
    daemon.kill9();
    let count = delete_all(&daemon);
    let notes = std::fs::read_dir(daemon.notes_dir()).expect("the notes").count();
    assert_eq!(notes, count);
    daemon.restart();
    assert_eq!(daemon.allocations().len(), 0, "{}", daemon.log_tail());
}

/// Without a name nothing can be deleted: an error says so, and no note is left.
#[test]
fn a_del_that_is_too_large_and_has_no_name_is_refused() {
    let daemon = Daemon::start(&Options::default());
    let config = format!(r#"{{"x":"{}"}}"#, "a".repeat(6 << 20));
    let mut command = Command::new(my_ipam());
    command
        .env("LEASEHOLD_SOCKET", daemon.socket())
        .envs([("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_PATH", "/opt/cni/bin")]);
    let output = feed_bytes(command, config.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).expect("an error object");
    assert_eq!(said["code"], 6, "{said}");
    assert!(said["msg"].as_str().expect("msg").contains("no name that can be read"), "{said}");
    assert_eq!(std::fs::read_dir(daemon.notes_dir()).map_or(0, Iterator::count), 0);
}
