//! Nodes: listed, drained, removed, and back again.

use serde_json::{Value, json};

use super::super::common::etcd::Cluster;
use super::super::common::{Call, Daemon, poll};
use super::{PATIENCE, address, call, config, ends, ends_json, fails, start};

fn pods() -> Value {
    config("pods", &json!({ "ranges": [[{ "subnet": "10.30.0.0/22" }]] }))
}

/// The row of a node in `leasehold node list`.
fn row(daemon: &Daemon, node: &str) -> Value {
    let rows = ends_json(daemon, &["node", "list"], 0);
    let rows = rows.as_array().expect("rows");
    rows.iter().find(|row| row["node"] == node).cloned().unwrap_or(Value::Null)
}

fn await_row(daemon: &Daemon, node: &str, what: &str, good: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let became = poll(PATIENCE, || {
        last = row(daemon, node);
        good(&last)
    });
    assert!(became, "node {node} is not {what}: {last}");
}

/// The values under a prefix in etcd.
fn stored(etcd: &Cluster, prefix: &str) -> Vec<Value> {
    let key = format!("/leasehold/v1/{prefix}");
    let text = etcd.ctl(&["get", "--prefix", "--print-value-only", &key]);
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).expect("JSON in etcd")).collect()
}

/// Ends a node at once: its process, and then its lease as if its time were over.
fn end(etcd: &Cluster, daemon: &mut Daemon, node: &str) {
    daemon.kill9();
    let session = stored(etcd, &format!("sessions/{node}")).pop().expect("a session");
    etcd.ctl(&["lease", "revoke", session["lease"].as_str().expect("a lease")]);
}

#[test]
fn a_node_is_removed_comes_back_and_is_forgotten() {
    let etcd = Cluster::start(1);
    let (a, mut b) = (start(&etcd, "a"), start(&etcd, "b"));
    address(&a, "c1", &pods());
    let held = address(&b, "c2", &pods());
    await_row(&a, "b", "live with a block", |row| row["live"] == true && row["active"] != 0);
    assert_eq!((&row(&a, "a")["local"], &row(&a, "b")["local"]), (&json!(true), &json!(false)));
    let table = ends(&a, &["node", "list"], 0);
    assert!(table.contains("live,local") && table.contains("QUARANTINED"), "{table}");
    assert_eq!(a.over_tcp("GET", "/v1/nodes", "").status, 200);
    assert_eq!(a.over_tcp("POST", "/v1/nodes/b/remove", "{}").status, 404, "writes are local");
    // A node that must not be removed is not, and the error names the way out.
    for (args, word) in [
        (&["node", "remove", "b"][..], "leasehold node drain b"),
        (&["node", "remove", "a"], "leasehold drain"),
        (&["node", "remove", "nobody"], "no node nobody"),
        (&["node", "drain", "nobody"], "no node nobody"),
    ] {
        let said = ends(&a, args, 1);
        assert!(said.contains(word), "{args:?}: {said}");
    }
    for (args, word) in [
        (&["node", "remove", "b", "--quarantine", "10s"][..], "from 1m to 1day"),
        (&["node", "remove", "b/c"], "cannot be the name of a node"),
        (&["node", "drain", "b", "--timeout", "5s"], "--wait"),
        (&["node", "remove"], "NAME"),
    ] {
        let said = fails(&a, args);
        assert!(said.contains(word), "{args:?}: {said}");
    }
    let recorded = poll(PATIENCE, || stored(&etcd, "allocations/").len() == 2);
    assert!(recorded, "{:?}", stored(&etcd, "allocations/"));

    end(&etcd, &mut b, "b");
    let active = row(&a, "b")["active"].clone();
    let epoch = row(&a, "b")["epoch"].as_u64().expect("an epoch");
    let dry = ends_json(&a, &["node", "remove", "b", "--dry-run"], 0);
    assert_eq!((&dry["outcome"], &dry["dryRun"]), (&json!("removed"), &json!(true)));
    assert_eq!((&row(&a, "b")["active"], &row(&a, "b")["epoch"]), (&active, &json!(epoch)));
    let removed = ends_json(&a, &["node", "remove", "b", "--yes", "--quarantine", "1m"], 0);
    assert_eq!(removed["outcome"], "removed");
    assert_eq!((&removed["quarantined"], &removed["records"]), (&active, &json!(1)));
    assert_eq!(removed["epoch"], epoch + 1);
    let blocks = stored(&etcd, "blocks/").into_iter().filter(|block| block["owner"] == "b");
    let states: Vec<Value> = blocks.map(|block| block["state"].clone()).collect();
    assert!(!states.is_empty() && states.iter().all(|state| state == "quarantined"), "{states:?}");
    assert_eq!(stored(&etcd, "allocations/").len(), 1);
    let gone = row(&a, "b");
    assert_eq!((&gone["quarantined"], &gone["active"]), (&active, &json!(0)));
    assert!(gone["removedUnixMs"].is_u64() && gone["live"] == false, "{gone}");
    let again = ends_json(&a, &["node", "remove", "b", "--yes"], 0);
    assert_eq!((&again["outcome"], &again["epoch"]), (&json!("alreadyRemoved"), &json!(epoch + 2)));

    // It is alive after all, and gets its blocks back.
    b.restart();
    await_row(&a, "b", "back", |row| row["live"] == true && row["quarantined"] == 0);
    let back = row(&a, "b");
    assert_eq!(back["removedUnixMs"], Value::Null);
    assert!(back["epoch"].as_u64() > Some(epoch + 2), "{back}");
    assert_eq!(address(&b, "c2", &pods()), held);

    end(&etcd, &mut b, "b");
    let said = ends(&a, &["node", "remove", "b", "--yes"], 0);
    assert!(said.contains("whether containers on that machine still use"), "{said}");
    end_quarantine(&etcd);
    let forgotten = ends_json(&a, &["node", "remove", "b", "--yes"], 0);
    assert_eq!(forgotten["outcome"], "forgotten");
    assert_eq!(row(&a, "b"), Value::Null);
    assert_eq!(stored(&etcd, "nodes/").len(), 1);
}

/// Ends the leases of quarantined blocks, as if their time were over.
fn end_quarantine(etcd: &Cluster) {
    let leases = etcd.ctl(&["lease", "list"]);
    for lease in leases.lines().filter(|line| !line.contains(' ')) {
        let keys = etcd.ctl(&["lease", "timetolive", lease, "--keys"]);
        if keys.contains("/blocks/") && keys.contains("TTL(300s)") {
            etcd.ctl(&["lease", "revoke", lease]);
        }
    }
    let left = stored(etcd, "blocks/").into_iter().filter(|b| b["state"] == "quarantined").count();
    assert_eq!(left, 0);
}

#[test]
fn a_live_node_that_is_removed_by_force_joins_anew_by_itself() {
    let etcd = Cluster::start(1);
    let (a, b) = (start(&etcd, "a"), start(&etcd, "b"));
    let held = address(&b, "c1", &pods());
    let removed = ends_json(&a, &["node", "remove", "b", "--yes", "--force"], 0);
    assert_eq!((&removed["outcome"], &removed["wasLive"]), (&json!("removed"), &json!(true)));
    let epoch = removed["epoch"].as_u64();
    await_row(&a, "b", "back", |row| row["epoch"].as_u64() > epoch && row["quarantined"] == 0);
    assert_eq!(address(&b, "c1", &pods()), held);
    await_row(&a, "b", "live", |row| row["live"] == true && row["active"] != 0);
}

#[test]
fn a_drained_node_refuses_add_and_gives_its_blocks_back() {
    let etcd = Cluster::start(1);
    let (a, b) = (start(&etcd, "a"), start(&etcd, "b"));
    address(&b, "c1", &pods());
    let said = ends(&a, &["node", "drain", "b"], 0);
    assert_eq!(said, "node b will be drained\n");
    assert!(ends(&a, &["node", "drain", "b"], 0).contains("already"));
    await_row(&a, "b", "draining", |row| row["drainingSinceUnixMs"].is_u64());
    let mut client = b.client();
    let drained = poll(PATIENCE, || client.request("GET", "/readyz", "").status == 503);
    assert!(drained, "node b does not notice that it is drained");
    let refused = call(&b, "ADD", "c2", &pods());
    assert_eq!(refused.code(), Some(11), "{refused:?}");
    // The block of c1 stays as long as c1 holds an address.
    let waited = ends_json(&a, &["node", "drain", "b", "--wait", "--timeout", "600ms"], 1);
    assert_ne!(waited["blocksLeft"], 0, "{waited}");
    assert!(call(&b, "DEL", "c1", &pods()).succeeded());
    let waited = ends(&a, &["node", "drain", "b", "--wait", "--timeout", "20s"], 0);
    assert!(waited.contains("holds no blocks"), "{waited}");
    assert_eq!(ends(&a, &["node", "drain", "b", "--undo"], 0).lines().count(), 1);
    let serves = poll(PATIENCE, || call(&b, "ADD", "c2", &pods()).succeeded());
    assert!(serves, "a node that is not drained any more serves again");
    // The short form is about the node that is asked.
    let local = ends_json(&b, &["drain"], 0);
    assert_eq!((&local["node"], &local["draining"]), (&json!("b"), &json!(true)));
    assert_eq!(ends_json(&b, &["drain", "--undo"], 0)["draining"], false);
    assert!(ends(&b, &["drain", "--undo"], 0).contains("was not being drained"));
}

/// A reader of the error of a full pool learns that a quarantine is why, and when it ends.
#[test]
fn a_pool_whose_addresses_are_in_quarantine_says_so() {
    let etcd = Cluster::start(1);
    let (a, mut b) = (start(&etcd, "a"), start(&etcd, "b"));
    let mut config = pods();
    config["ipam"]["ranges"] = json!([[{ "subnet": "10.33.0.0/29" }]]);
    let add = |daemon: &Daemon, container: &str| {
        daemon.client().call(&Call::new("ADD", container, &config))
    };
    for container in ["c1", "c2", "c3", "c4", "c5"] {
        assert!(add(&b, container).succeeded());
    }
    end(&etcd, &mut b, "b");
    // Also where nobody can be asked.
    let unconfirmed = fails(&a, &["node", "remove", "b"]);
    assert!(unconfirmed.contains("nothing was done: pass --yes"), "{unconfirmed}");
    assert_eq!(row(&a, "b")["removedUnixMs"], Value::Null);
    ends(&a, &["node", "remove", "b", "--yes"], 0);
    let said = || format!("{:?}", add(&a, "c6"));
    let told = poll(PATIENCE, || said().contains("in quarantine until "));
    let said = said();
    assert!(
        told && said.contains("5 of them") && said.contains("since node b was removed"),
        "{said}"
    );
    assert!(said.contains("leasehold node remove b --yes --quarantine 1m"), "{said}");
    assert!(!said.contains("add a range"), "{said}");
}
