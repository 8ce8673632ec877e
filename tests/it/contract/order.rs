//! The order of calls: late ones, repeated ones, lost ones, and many at once.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{config, held, spawn, tell};
use crate::common::{Call, Daemon, Options, Outcome, go_on, poll, stop};

/// The time within which a process must reach the awaited state.
const PATIENCE: Duration = Duration::from_secs(20);
/// Rounds of a race that may end either way.
const ROUNDS: usize = 20;

fn add(container: &str) -> Call {
    Call::new("ADD", container, &config("net", "10.70.0.0/24"))
}

fn del(container: &str) -> Call {
    Call { command: "DEL", ..add(container) }
}

/// The one address of a result.
fn address(outcome: &Outcome) -> &str {
    outcome.expect_result()["ips"][0]["address"].as_str().expect("an address")
}

/// True if a process waits in a call of this name, as the kernel says.
fn waits_in(pid: u32, call: &str) -> bool {
    let wchan = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    wchan.contains(call)
}

/// A runtime kills its main plugin; the orphan below it comes late, after the runtime's DEL.
#[test]
fn an_add_whose_del_came_first_is_refused_and_a_later_one_works() {
    let daemon = Daemon::start(&Options::default());
    let mut orphan = spawn(&daemon, &add("a"));
    assert!(poll(PATIENCE, || waits_in(orphan.id(), "pipe")), "the plugin does not run");
    assert!(daemon.plugin(&del("a")).succeeded());
    tell(&daemon, &mut orphan, &add("a"));
    let late = Outcome::of_process(&orphan.wait_with_output().expect("the end of the orphan"));
    assert_eq!(late.code(), Some(104), "{late:?}");
    assert_eq!(held(&daemon, "a"), [""; 0]);
    assert_eq!(address(&daemon.plugin(&add("a"))), "10.70.0.2/24");
    // In the other order they are an ADD and its DEL.
    let mut early = spawn(&daemon, &add("b"));
    tell(&daemon, &mut early, &add("b"));
    assert!(early.wait().expect("the end of the plugin").success());
    assert!(daemon.plugin(&del("b")).succeeded());
    assert_eq!(held(&daemon, "b"), [""; 0]);
    assert_eq!(held(&daemon, "a"), ["10.70.0.2"]);
}

/// A late DEL, of a process that began before the ADD, does not release the ADD's address.
#[test]
fn a_del_that_comes_late_does_not_end_a_newer_add() {
    let daemon = Daemon::start(&Options::default());
    let mut late = spawn(&daemon, &del("a"));
    assert!(poll(PATIENCE, || waits_in(late.id(), "pipe")), "the plugin does not run");
    assert_eq!(address(&daemon.plugin(&add("a"))), "10.70.0.2/24");
    tell(&daemon, &mut late, &del("a"));
    assert!(late.wait().expect("the end of the plugin").success(), "a DEL succeeds all the same");
    assert_eq!(held(&daemon, "a"), ["10.70.0.2"]);
}

/// The plugin is killed while the daemon works on its ADD: after its DEL nothing is left.
#[test]
fn a_plugin_that_is_killed_in_mid_add_leaves_nothing_after_its_del() {
    let daemon = Daemon::start(&Options::default());
    for round in 0..ROUNDS {
        let container = format!("a-{round}");
        stop(daemon.pid());
        let mut plugin = spawn(&daemon, &add(&container));
        tell(&daemon, &mut plugin, &add(&container));
        // Once it waits for the answer, it has sent its call.
        let sent = poll(PATIENCE, || waits_in(plugin.id(), "unix_stream"));
        plugin.kill().expect("SIGKILL to the plugin");
        plugin.wait().expect("the end of the plugin");
        go_on(daemon.pid());
        assert!(sent, "the plugin did not get to its answer");
        assert!(daemon.plugin(&del(&container)).succeeded());
        assert_eq!(held(&daemon, &container), [""; 0], "round {round}");
    }
    assert_eq!(daemon.allocations(), [Value::Null; 0]);
}

/// No process reads the answer: the plugin fails, and releases its addresses.
#[test]
fn an_add_whose_answer_nobody_reads_is_undone() {
    let daemon = Daemon::start(&Options::default());
    let mut plugin = spawn(&daemon, &add("a"));
    drop(plugin.stdout.take());
    tell(&daemon, &mut plugin, &add("a"));
    let output = plugin.wait_with_output().expect("the end of the plugin");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the ADD was undone"), "{stderr}");
    assert_eq!(held(&daemon, "a"), [""; 0]);
    // The undo of a repeated ADD does not release the addresses of the first one.
    daemon.plugin(&add("b")).expect_result();
    let before = held(&daemon, "b");
    assert!(daemon.plugin(&add("b")).succeeded());
    assert_eq!(held(&daemon, "b"), before);
}

#[test]
fn the_same_add_twice_at_once_is_one_add() {
    let daemon = Daemon::start(&Options::default());
    for round in 0..ROUNDS {
        let container = format!("a-{round}");
        let (one, two) = std::thread::scope(|scope| {
            let calls = [(); 2].map(|()| scope.spawn(|| daemon.plugin(&add(&container))));
            let [one, two] = calls.map(|call| call.join().expect("a call"));
            (one, two)
        });
        assert_eq!(one.expect_result(), two.expect_result(), "round {round}");
        assert_eq!(held(&daemon, &container).len(), 1, "round {round}");
    }
    assert_eq!(daemon.allocations().len(), ROUNDS);
}

/// containerd makes the ADDs of a pod's networks at once, and its DELs.
#[test]
fn the_networks_of_a_pod_come_and_go_at_once() {
    let daemon = Daemon::start(&Options::default());
    let networks: Vec<Value> = (0..8)
        .map(|number| {
            let mut config = config(&format!("net-{number}"), &format!("10.7{number}.0.0/24"));
            let ranges = config["ipam"]["ranges"].as_array_mut().expect("an array");
            ranges.push(json!([{"subnet": format!("fd00:7{number}::/64")}]));
            config
        })
        .collect();
    let at_once = |command: &'static str| -> Vec<Outcome> {
        std::thread::scope(|scope| {
            let call = |(number, config): (usize, &Value)| {
                let mut call = Call::new(command, "pod", config);
                // Two networks share an interface name: the name of the network tells them apart.
                call.ifname = format!("net{}", number / 2);
                scope.spawn(|| daemon.plugin(&{ call }))
            };
            let calls: Vec<_> = networks.iter().enumerate().map(call).collect();
            calls.into_iter().map(|call| call.join().expect("a call")).collect()
        })
    };
    for _ in 0..ROUNDS {
        for outcome in at_once("ADD") {
            assert_eq!(outcome.expect_result()["ips"].as_array().map(Vec::len), Some(2));
        }
        assert_eq!(held(&daemon, "pod").len(), 16);
        assert!(at_once("DEL").iter().all(Outcome::succeeded));
        assert_eq!(held(&daemon, "pod"), [""; 0]);
    }
}
