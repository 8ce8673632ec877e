//! Goal: who held an address, and when, can be found out afterwards, from any node.
//!
//! Method: containers come and go on several daemons with one etcd; daemons are killed, restarted
//! and cut off; the commands must say what was, and name the nodes that could not be asked.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{PATIENCE, network, nodes};
use super::common::etcd::Cluster;
use super::common::{Call, Daemon, LEASEHOLD, Options, poll};

fn run(socket: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(LEASEHOLD);
    let output = command.args(args).env("LEASEHOLD_SOCKET", socket).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// The history as JSON, with the exit status.
fn history(socket: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let (code, text) = run(socket, &[&["history"], args, &["-o", "json"]].concat());
    let json = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{args:?}: {text}"));
    (code, json)
}

fn add(daemon: &Daemon, container: &str, pod: &str, config: &Value) -> String {
    let mut call = Call::new("ADD", container, config);
    call.args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod}");
    let outcome = daemon.client().call(&call);
    let address =
        outcome.expect_result()["ips"][0]["address"].as_str().expect("an address").to_owned();
    address.split('/').next().expect("an address").to_owned()
}

fn del(daemon: &Daemon, container: &str, config: &Value) {
    assert!(daemon.client().call(&Call::new("DEL", container, config)).succeeded());
}

fn containers(history: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let row = |row: &Value| (text(&row["node"]), text(&row["containerId"]), text(&row["end"]));
    history["rows"].as_array().expect("rows").iter().map(row).collect()
}

#[test]
fn past_holdings_survive_restarts_and_are_bounded() {
    let args = ["--history-count", "3"].map(str::to_owned).to_vec();
    let mut daemon = Daemon::start(&Options { args, ..Options::default() });
    let socket = daemon.socket();
    let config = network("past", &json!({ "subnet": "10.90.0.0/24", "rangeEnd": "10.90.0.2" }));
    let address = add(&daemon, "c0", "web-0", &config);
    let (code, held) = history(&socket, &[&address]);
    assert_eq!((code, containers(&held)[0].2.as_str()), (Some(0), "held"), "{held}");
    assert_eq!(held["rows"][0]["endedUnixMs"], Value::Null);
    del(&daemon, "c0", &config);
    for number in 1..5 {
        let name = format!("c{number}");
        assert_eq!(add(&daemon, &name, &format!("web-{number}"), &config), address);
        del(&daemon, &name, &config);
    }
    // The last ones are written after a second.
    std::thread::sleep(Duration::from_secs(3));
    daemon.kill9();
    daemon.restart();
    let (code, past) = history(&socket, &[&address]);
    let names: Vec<String> = containers(&past).into_iter().map(|(_, name, _)| name).collect();
    assert_eq!((code, names), (Some(0), ["c4", "c3", "c2"].map(str::to_owned).to_vec()), "{past}");
    for row in past["rows"].as_array().expect("rows") {
        let (since, ended) = (row["sinceUnixMs"].as_u64(), row["endedUnixMs"].as_u64());
        assert!(since.is_some() && since <= ended, "{row}");
    }
    let (_, of_pod) = history(&socket, &["shop/web-3"]);
    assert_eq!(containers(&of_pod).len(), 1, "{of_pod}");
    let (_, of_container) = history(&socket, &["--container", "c4"]);
    assert_eq!(containers(&of_container).len(), 1, "{of_container}");
    let (code, text) = run(&socket, &["history", "other/web-3"]);
    assert_eq!((code, text.as_str()), (Some(1), "nothing is known\n"));
    let (code, text) = run(&socket, &["history", "shop/web-3"]);
    assert!(code == Some(0) && text.contains("web-3") && text.contains("released"), "{text}");
}

#[test]
fn every_node_tells_what_it_knows_and_those_that_cannot_are_named() {
    let etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 3, &["--cooldown", "0s"]);
    let config = network("pods", &json!({ "subnet": "10.91.0.0/24" }));
    for (at, daemon) in daemons.iter().enumerate() {
        let name = format!("c-{at}");
        add(daemon, &name, "wanderer", &config);
        del(daemon, &name, &config);
    }
    let expected: Vec<String> = (0..3).map(|at| format!("node-{at}")).collect();
    for daemon in &daemons {
        let (code, all) = history(&daemon.socket(), &["shop/wanderer"]);
        let mut seen: Vec<String> = containers(&all).into_iter().map(|(node, ..)| node).collect();
        seen.sort();
        assert_eq!((code, &seen), (Some(0), &expected), "{all}");
        let (_, own) = history(&daemon.socket(), &["shop/wanderer", "--local"]);
        assert_eq!(containers(&own).len(), 1, "{own}");
    }
    // Nothing of it stays in etcd.
    for questions in ["asked/", "told/"] {
        let prefix = format!("/leasehold/v1/{questions}");
        let left = || etcd.ctl(&["get", "--prefix", "--keys-only", &prefix]);
        assert!(poll(PATIENCE, || left().trim().is_empty()), "{}", left());
    }
    let mut dead = daemons.pop().expect("three nodes");
    dead.kill9();
    let (code, all) = history(&daemons[0].socket(), &["shop/wanderer"]);
    assert_eq!((code, &all["unanswered"]), (Some(1), &json!(["node-2"])), "{all}");
    assert_eq!(containers(&all).len(), 2, "{all}");
    let (_, text) = run(&daemons[0].socket(), &["history", "shop/wanderer"]);
    assert!(text.contains("no answer came from node-2"), "{text}");
    // Who may not see pods, does not see those of the past.
    let refused = daemons[0].over_tcp("GET", "/v1/history?pod=wanderer", "");
    assert_eq!(refused.status, 403);
}
