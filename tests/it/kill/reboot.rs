//! A reboot ends every container, so it releases their addresses, unless the operator turns that
//! off.

use std::fs;

use serde_json::json;

use super::machine::Machine;
use super::{addresses_of, config, listed};
use crate::common::{Call, Client, Daemon, Options, Passing};

fn call(command: &'static str, container: &str) -> Call {
    let mut config = config("net", &["10.50.0.0/24"]);
    config["ipam"]["ranges"][0][0]["rangeEnd"] = "10.50.0.7".into();
    Call::new(command, container, &config)
}

fn add(client: &mut Client, container: &str) -> String {
    addresses_of(&client.call(&call("ADD", container))).remove(0)
}

/// Holds .2 and .3, and .7 last, so that the cursor stands at the end of the pool.
fn hold_three(machine: &Machine) {
    let mut client = machine.daemon.client();
    assert_eq!(add(&mut client, "a"), "10.50.0.2");
    assert_eq!(add(&mut client, "b"), "10.50.0.3");
    let mut last = call("ADD", "c");
    last.args = "IP=10.50.0.7".to_owned();
    assert_eq!(addresses_of(&client.call(&last)), ["10.50.0.7"]);
}

#[test]
fn a_reboot_releases_and_cools_what_was_held() {
    let mut machine = Machine::start(&[]);
    hold_three(&machine);
    machine.reboot();
    assert!(listed(&machine.daemon).is_empty(), "{:?}", listed(&machine.daemon));
    let mut client = machine.daemon.client();
    let status = client.get("/v1/status");
    assert_eq!(status["attachments"], 0, "{status}");
    assert_eq!(status["rangeSets"][0]["cooling"], 3, "{status}");
    for (container, address) in [("d", 4), ("e", 5), ("f", 6)] {
        assert_eq!(add(&mut client, container), format!("10.50.0.{address}"), "others first");
    }
    let mut rest: Vec<String> = ["g", "h", "i"].map(|c| add(&mut client, c)).into();
    rest.sort();
    assert_eq!(rest, ["10.50.0.2", "10.50.0.3", "10.50.0.7"]);
    // The DEL of a container of the earlier boot may still come, and is done.
    let deleted = client.call(&call("DEL", "a"));
    assert!(deleted.succeeded(), "{deleted:?}");
    assert_eq!(listed(&machine.daemon).len(), 6);
}

#[test]
fn a_restart_in_the_same_boot_keeps_everything() {
    let mut machine = Machine::start(&[]);
    hold_three(&machine);
    let before = listed(&machine.daemon);
    assert_eq!(before.len(), 3);
    machine.daemon.kill9();
    machine.daemon.restart();
    assert_eq!(listed(&machine.daemon), before);
    machine.daemon.terminate();
    machine.daemon.restart();
    assert_eq!(listed(&machine.daemon), before);
}

/// A lost or emptied `boot-id` is damage, and no reboot: containers run.
#[test]
fn a_lost_boot_id_releases_nothing() {
    let mut machine = Machine::start(&[]);
    hold_three(&machine);
    let before = listed(&machine.daemon);
    let path = machine.daemon.state_dir().join("boot-id");
    for emptied in [true, false] {
        machine.daemon.kill9();
        if emptied {
            fs::write(&path, "").expect("an empty file");
        } else {
            fs::remove_file(&path).expect("the boot's id");
        }
        machine.daemon.restart();
        assert_eq!(listed(&machine.daemon), before);
        assert!(!fs::read_to_string(&path).expect("the boot's id").is_empty());
    }
    machine.reboot();
    assert!(listed(&machine.daemon).is_empty());
}

#[test]
fn what_a_boot_released_stays_released_in_the_next_restart() {
    let mut machine = Machine::start(&[]);
    hold_three(&machine);
    machine.reboot();
    add(&mut machine.daemon.client(), "d");
    machine.daemon.kill9();
    machine.daemon.restart();
    let holders: Vec<_> = listed(&machine.daemon).into_keys().map(|(_, holder)| holder).collect();
    assert_eq!(holders, ["d"]);
    let status = machine.daemon.client().get("/v1/status");
    assert_eq!(status["rangeSets"][0]["cooling"], 3, "{status}");
}

#[test]
fn keep_after_reboot_keeps_and_its_dels_still_release() {
    let mut machine = Machine::start(&["--fsync", "--keep-after-reboot"]);
    hold_three(&machine);
    // This machine ran for long before its reboot, so the boot clock falls behind.
    let hour_ahead = machine.add_started_ahead("long");
    let before = listed(&machine.daemon);
    assert_eq!(before.len(), 4);
    machine.reboot();
    assert_eq!(listed(&machine.daemon), before);
    assert_eq!(add(&mut machine.daemon.client(), "a"), "10.50.0.2", "the same ADD again");
    for container in ["a", "b", "c", "long"] {
        let deleted = machine.daemon.plugin(&call("DEL", container));
        assert!(deleted.succeeded(), "{deleted:?}");
    }
    let left = listed(&machine.daemon);
    assert!(left.is_empty(), "a DEL released nothing (ADD at {hour_ahead} ns): {left:?}");
}

#[test]
fn a_gc_after_a_reboot_releases_what_was_kept() {
    let mut machine = Machine::start(&["--fsync", "--keep-after-reboot"]);
    machine.add_started_ahead("long");
    machine.reboot();
    let mut gc = call("GC", "");
    gc.config["cni.dev/valid-attachments"] = json!([]);
    let collected = machine.daemon.plugin(&gc);
    assert!(collected.succeeded(), "{collected:?}");
    let left = listed(&machine.daemon);
    assert!(left.is_empty(), "a GC released nothing: {left:?}");
}

impl Machine {
    /// Makes an ADD of a plugin that started an hour from now. A plugin's time looks so if the
    /// machine had run for an hour longer before its reboot than after it.
    fn add_started_ahead(&self, container: &str) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let hour_ahead = (u64::try_from(now.tv_sec).expect("a time") + 3600) * 1_000_000_000;
        let passing = Passing::start();
        let body = json!({
            "command": "ADD", "containerId": container, "netns": passing.path(), "ifname": "eth0",
            "startedAt": hour_ahead, "config": call("ADD", container).config,
        });
        let reply = self.daemon.client().request("POST", "/v1/cni", &body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.body);
        hour_ahead
    }
}

#[test]
fn keep_after_reboot_needs_fsync() {
    let args = vec!["--keep-after-reboot".to_owned()];
    let (code, text) = Daemon::prepare(&Options { args, ..Options::default() }).refusal();
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("keepAfterReboot needs fsync"), "{text}");
}
