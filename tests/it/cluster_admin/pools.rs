//! CNI networks that use the same central object share its pool: on several nodes, through
//! restarts, and if the configuration refers to another object by the time of the DEL.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::common::etcd::Cluster;
use super::super::common::{Call, Daemon, Options, Outcome, Passing, poll};
use super::networks::{Files, bare, put};
use super::{PATIENCE, address, call, config, ends, ends_json, first, start};

/// All addresses of 10.43.0.0/28 that containers can have.
const ROOM: usize = 13;

fn corp() -> Value {
    json!({ "ranges": [[{ "subnet": "10.43.0.0/28" }]] })
}

/// A CNI network that uses the object of network `corp`.
fn uses_corp(network: &str) -> Value {
    config(network, &json!({ "type": "my-ipam", "network": "corp" }))
}

/// The address that a pod of that name gets.
fn add_pod(daemon: &Daemon, container: &str, pod: &str, config: &Value) -> Outcome {
    let mut add = Call::new("ADD", container, config);
    add.args = format!("IgnoreUnknown=1;K8S_POD_NAME={pod}");
    daemon.client().call(&add)
}

/// The same in a namespace that will end.
fn add_passing(
    daemon: &Daemon,
    (container, pod): (&str, &str),
    config: &Value,
    passing: &Passing,
) -> Outcome {
    let mut add = Call::new("ADD", container, config);
    add.args = format!("IgnoreUnknown=1;K8S_POD_NAME={pod}");
    add.netns = passing.path();
    daemon.client().call(&add)
}

/// Waits until a node has the object that a configuration needs: until an ADD is answered.
fn await_object(daemon: &Daemon, config: &Value) {
    let known = poll(PATIENCE, || call(daemon, "ADD", "first", config).succeeded());
    assert!(known, "{:?}", call(daemon, "ADD", "first", config));
    assert!(call(daemon, "DEL", "first", config).succeeded());
}

#[test]
fn networks_of_one_object_have_one_pool_on_all_nodes() {
    let etcd = Cluster::start(1);
    let (a, mut b) = (start(&etcd, "a"), start(&etcd, "b"));
    let files = Files::new();
    put(&a, &files, "corp", &corp());
    let configs = ["n1", "n2"].map(uses_corp).into_iter().chain([config("corp", &bare())]);
    let configs: Vec<Value> = configs.collect();
    await_object(&b, &configs[1]);
    // The pool fills to its last address, in turn on both nodes and on all three networks; the
    // containers of one turn have one id: one pod on several networks.
    let mut held = Vec::new();
    for turn in 0..ROOM {
        let (daemon, config) = ([&a, &b][turn % 2], &configs[turn % 3]);
        let container = format!("c{}", turn / 3);
        held.push((turn, address(daemon, &container, config)));
    }
    let distinct: BTreeSet<&String> = held.iter().map(|(_, address)| address).collect();
    assert_eq!(distinct.len(), ROOM, "an address twice: {held:?}");
    for (daemon, config) in [(&a, &configs[0]), (&b, &configs[1]), (&a, &configs[2])] {
        let full = call(daemon, "ADD", "late", config);
        assert_eq!(full.code(), Some(100), "{full:?}");
    }
    // In etcd there is one pool. Its records say on which CNI network an address is.
    let blocks = etcd.ctl(&["get", "/leasehold/v1/blocks/", "--prefix", "--keys-only"]);
    let blocks: Vec<&str> = blocks.lines().filter(|line| !line.is_empty()).collect();
    assert!(!blocks.is_empty(), "no blocks");
    for block in blocks {
        assert!(block.starts_with("/leasehold/v1/blocks/corp/"), "{block}");
    }
    let records = || {
        let text = etcd.ctl(&["get", "/leasehold/v1/allocations/corp/", "--prefix"]);
        let values = text.lines().filter(|line| line.starts_with('{'));
        let network = |line: &str| serde_json::from_str::<Value>(line).expect("a record");
        values.map(network).collect::<Vec<_>>()
    };
    assert!(poll(PATIENCE, || records().len() == ROOM), "{:?}", records());
    let of = |network: Value| records().iter().filter(|row| row["network"] == network).count();
    assert_eq!((of(json!("n1")), of(json!("n2")), of(Value::Null)), (5, 4, 4));
    // Lists show both names where they differ, and can be filtered by either.
    let table = ends(&b, &["allocations"], 0);
    assert!(table.starts_with("NETWORK  POOL  ADDRESS"), "{table}");
    let rows = ends_json(&a, &["allocations", "--pool", "corp", "--network", "n1"], 0);
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().all(|row| row["pool"] == "corp" && row["network"] == "n1"), "{rows:?}");
    assert_eq!(ends_json(&a, &["allocations", "--pool", "n1"], 0), json!([]));
    // After a restart the pool is the same, and so are the answers.
    b.kill9();
    b.restart();
    let (turn, was) = &held[1];
    assert_eq!(&address(&b, &format!("c{}", turn / 3), &configs[1]), was);
    // A DEL gives the address back to the pool, although the configuration now uses another one.
    let elsewhere = config("n2", &json!({ "type": "my-ipam", "network": "gone" }));
    assert!(call(&b, "DEL", &format!("c{}", turn / 3), &elsewhere).succeeded());
    assert_eq!(&address(&a, "late", &configs[0]), was, "the only free one");
}

#[test]
fn a_gc_is_about_one_cni_network_and_a_moved_configuration_about_none() {
    let daemon = Daemon::start(&Options::default());
    let files = Files::new();
    put(&daemon, &files, "corp", &corp());
    // Two networks with the same addresses have two pools, which somebody must want.
    let twin = files.write("twin.json", &corp().to_string());
    ends(&daemon, &["network", "put", "twin", &twin, "--force"], 0);
    let (n1, n2) = (uses_corp("n1"), uses_corp("n2"));
    let (passing, on_n2) = (Passing::start(), address(&daemon, "c1", &n2));
    let add = Call { netns: passing.path(), ..Call::new("ADD", "c1", &n1) };
    let on_n1 = first(&daemon.client().call(&add));
    assert_ne!(on_n1, on_n2, "two attachments of one container");
    // The same addresses in another pool are other addresses: n1's answer does not count for them.
    let moved = config("n1", &json!({ "type": "my-ipam", "network": "twin" }));
    let refused = call(&daemon, "ADD", "c1", &moved);
    assert_eq!(refused.code(), Some(101), "{refused:?}");
    assert!(refused.message().contains("another network's pool"), "{refused:?}");
    // CHECK compares with the held addresses, even if the configuration now uses another pool.
    for config in [&n1, &moved] {
        let mut check = config.clone();
        let ips = json!([{ "address": format!("{on_n1}/28") }]);
        check["prevResult"] = json!({ "cniVersion": "1.0.0", "ips": ips });
        let checked = call(&daemon, "CHECK", "c1", &check);
        assert!(checked.succeeded(), "{checked:?}");
    }
    drop(passing);
    let mut gc = n1.clone();
    gc["cniVersion"] = json!("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([]);
    assert!(call(&daemon, "GC", "", &gc).succeeded());
    let left = daemon.allocations();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((&left[0]["network"], &left[0]["pool"]), (&json!("n2"), &json!("corp")));
    // Now n1 may move; the daemon says that the two pools overlap, and nothing of n1 and n2.
    assert!(call(&daemon, "ADD", "c1", &moved).succeeded());
    let status = ends_json(&daemon, &["status"], 0);
    assert_eq!(status["overlaps"], json!([["corp", "twin"]]));
}

#[test]
fn each_service_has_a_pool_of_its_own_on_one_cni_network() {
    let daemon = Daemon::start(&Options::default());
    let files = Files::new();
    put(&daemon, &files, "pay", &json!({ "ranges": [[{ "subnet": "10.45.0.0/28" }]] }));
    put(&daemon, &files, "shop", &json!({ "ranges": [[{ "subnet": "10.46.0.0/28" }]] }));
    let pods = config("pods", &json!({ "type": "my-ipam", "networkFrom": "service" }));
    let passing = Passing::start();
    let given = |container: &str, pod: &str| {
        first(&add_passing(&daemon, (container, pod), &pods, &passing))
    };
    assert_eq!(given("c1", "pay-10-online-84f8cc5d4b-8v4fw"), "10.45.0.2");
    assert_eq!(given("c2", "shop-3-online-84f8cc5d4b-8v4fw"), "10.46.0.2");
    assert_eq!(given("c3", "pay-11-online-84f8cc5d4b-x7k2m"), "10.45.0.3");
    let pools: Vec<Value> =
        daemon.allocations().into_iter().map(|row| row["pool"].clone()).collect();
    assert_eq!(pools, ["pay", "pay", "shop"]);
    // The DEL does not name the pod, and so not its service.
    assert!(call(&daemon, "DEL", "c2", &pods).succeeded());
    assert_eq!(given("c4", "shop-4-online-84f8cc5d4b-abcde"), "10.46.0.3");
    drop(passing);
    for (pod, word) in [
        ("mysql-0", "cannot derive a service from pod name mysql-0"),
        ("mail-1-online-x", "network mail has no central configuration"),
    ] {
        let refused = add_pod(&daemon, "c5", pod, &pods);
        assert_eq!(refused.code(), Some(7), "{refused:?}");
        assert!(refused.message().contains(word), "{refused:?}");
        let remedy = format!("{refused:?}");
        assert!(remedy.contains("ipam.network"), "{remedy}");
    }
    let mut gc = pods.clone();
    gc["cniVersion"] = json!("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": "c3", "ifname": "eth0" }]);
    assert!(call(&daemon, "GC", "", &gc).succeeded());
    let left: Vec<Value> =
        daemon.allocations().into_iter().map(|row| row["containerId"].clone()).collect();
    assert_eq!(left, ["c3"]);
}
