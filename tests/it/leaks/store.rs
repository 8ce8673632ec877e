//! False statements in the cluster's store.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Namespace, PATIENCE, added, config, ends, findings, holders, kinds, leasehold};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Options, poll};

/// Containers that come and go while checks run.
const CHURN: usize = 60;
/// Checks meanwhile.
const CHECKS: usize = 3;

const PREFIX: &str = "/leasehold/v1";

fn start(etcd: &Cluster, node: &str) -> Daemon {
    start_with(etcd, node, &["--lease-ttl", "5s"])
}

pub(super) fn start_with(etcd: &Cluster, node: &str, more: &[&str]) -> Daemon {
    let endpoint = etcd.endpoint(0);
    let args = ["--etcd", &endpoint, "--node", node].into_iter().chain(more.iter().copied());
    Daemon::start(&Options { args: args.map(str::to_owned).collect(), ..Options::default() })
}

pub(super) fn add(daemon: &Daemon, container: &str, namespace: &Namespace) -> String {
    added(&super::add_in(daemon, container, &namespace.path(), &config("pods")))
}

fn wide(address: &str) -> String {
    address.split('.').map(|part| format!("{part:0>3}")).collect::<Vec<_>>().join(".")
}

pub(super) fn record_key(address: &str) -> String {
    format!("{PREFIX}/allocations/pods/{}", wide(address))
}

pub(super) fn value(etcd: &Cluster, key: &str) -> Option<Value> {
    let text = etcd.ctl(&["get", "--print-value-only", key]);
    (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("JSON in etcd"))
}

pub(super) fn record(etcd: &Cluster, address: &str) -> Value {
    let mut found = None;
    let there = poll(PATIENCE, || {
        found = value(etcd, &record_key(address));
        found.is_some()
    });
    assert!(there, "{address} has no record");
    found.expect("a record")
}

pub(super) fn put(etcd: &Cluster, key: &str, value: &Value) {
    etcd.ctl(&["put", key, &value.to_string()]);
}

#[test]
fn records_and_allocations_that_do_not_go_together_are_found_and_mended() {
    let etcd = Cluster::start(1);
    let (a, b) = (start(&etcd, "a"), start(&etcd, "b"));
    let namespaces = [Namespace::new(), Namespace::new()];
    let (here, there) = (add(&a, "here", &namespaces[0]), add(&b, "there", &namespaces[1]));
    let original = record(&etcd, &here);
    assert_eq!(original["netns"], json!(namespaces[0].path()), "{original}");
    record(&etcd, &there);
    assert_eq!(findings(&a), Vec::<Value>::new());

    // A record that is lost is written again, and the allocation stays.
    etcd.ctl(&["del", &record_key(&here)]);
    assert_eq!(kinds(&findings(&a)), [("allocationWithoutRecord", &*here)]);
    assert_eq!(findings(&b), Vec::<Value>::new(), "it is node a's to find");
    assert!(ends(&a, &["gc", "--dry-run"], 0).contains("dry run"));
    assert!(ends(&a, &["gc"], 0).starts_with("record written again: "));
    assert_eq!(record(&etcd, &here), original);
    assert_eq!(findings(&a), Vec::<Value>::new());

    // Records without an allocation: of this node, and of a node that does not exist.
    let free = ["10.60.3.7", "10.60.3.8"];
    for (address, node) in free.iter().zip(["a", "nobody"]) {
        let mut ghost = original.clone();
        ghost["node"] = json!(node);
        ghost["containerId"] = json!("ghost");
        ghost["addresses"] = json!([address]);
        put(&etcd, &record_key(address), &ghost);
    }
    let found = findings(&a);
    let ghosts = free.map(|address| ("recordWithoutAllocation", address));
    assert_eq!(kinds(&found), ghosts);
    assert_eq!(kinds(&findings(&b)), ghosts[1..], "a record of node a is node a's to judge");
    // One that was written again meanwhile is left alone.
    let report = json!({
        "node": "a", "atUnixMs": 0, "clean": false, "findings": [found[0]], "leftOff": 0,
        "unchecked": [],
        "lookedAt": { "attachments": 0, "namespaces": 0, "records": 0, "blocks": 0, "nodes": 0 },
    });
    put(&etcd, &record_key(free[0]), &record(&etcd, free[0]));
    let (code, said, _) = leasehold(&a, &["gc", "--report", "-"], &report.to_string());
    assert!(code == 1 && said.contains("skipped") && said.contains("written again"), "{said}");
    let (code, said, _) = leasehold(&b, &["gc", "--report", "-"], &report.to_string());
    assert!(code == 1 && value(&etcd, &record_key(free[0])).is_some(), "{said}");
    assert_eq!(ends(&a, &["gc"], 0).matches("deleted: ").count(), 2);
    assert_eq!(free.map(|address| value(&etcd, &record_key(address))), [None, None]);
    assert_eq!(findings(&a), Vec::<Value>::new());
    assert_eq!((holders(&a), holders(&b)), (vec!["here".to_owned()], vec!["there".to_owned()]));
}

#[test]
fn duplicates_and_what_cannot_be_read_are_found() {
    let etcd = Cluster::start(1);
    let (a, b) = (start(&etcd, "a"), start(&etcd, "b"));
    let namespaces = [Namespace::new(), Namespace::new()];
    let (here, there) = (add(&a, "here", &namespaces[0]), add(&b, "there", &namespaces[1]));
    let theirs = record(&etcd, &there);
    record(&etcd, &here);
    // Two attachments for one address, by their records.
    let mut twice = theirs.clone();
    twice["addresses"] = json!([here, there]);
    put(&etcd, &record_key(&here), &twice);
    let found = findings(&a);
    assert_eq!(kinds(&found), [("duplicate", &*here)]);
    assert!(found[0]["why"].as_str().is_some_and(|why| why.contains("there of node b")));
    let said = ends(&a, &["gc"], 1);
    assert!(said.starts_with("left: duplicate"), "{said}");
    assert_eq!(holders(&a), ["here"]);
    // Both records name the same two addresses, but they are of two attachments.
    let mut other = theirs.clone();
    other["addresses"] = json!([here, there]);
    other["containerId"] = json!("else");
    put(&etcd, &record_key(&there), &other);
    assert!(kinds(&findings(&a)).len() > 1, "{:#?}", findings(&a));
    put(&etcd, &record_key(&there), &theirs);
    etcd.ctl(&["del", &record_key(&here)]);
    ends(&a, &["gc"], 0);
    record(&etcd, &here);
    assert_eq!(findings(&a), Vec::<Value>::new());

    // Blocks that overlap, and hold what this node gave out.
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", &format!("{PREFIX}/blocks/pods/ipv4")]);
    let owned = |key: &&str| value(&etcd, key).is_some_and(|block| block["owner"] == "a");
    let key = keys.lines().filter(|line| !line.is_empty()).find(owned).expect("a block of a");
    let mut block = value(&etcd, key).expect("a block");
    block["owner"] = json!("b");
    block["prefix"] = json!("10.60.0.0/22");
    block["state"] = json!("active");
    let first = format!("{PREFIX}/blocks/pods/ipv4/{}", wide("10.60.0.0"));
    let before = value(&etcd, &first);
    put(&etcd, &first, &block);
    let found = findings(&b);
    let overlap = |found: &Value| found["why"].as_str().is_some_and(|why| why.contains("overlap"));
    assert!(found.iter().any(overlap), "{found:#?}");
    match before {
        Some(before) => put(&etcd, &first, &before),
        None => drop(etcd.ctl(&["del", &first])),
    }

    etcd.ctl(&["put", &format!("{PREFIX}/allocations/pods/rubbish"), "rubbish"]);
    let found = findings(&a);
    assert!(found.iter().any(|found| found["kind"] == "unreadable"), "{found:#?}");
}

#[test]
fn blocks_of_a_dead_node_are_named_with_the_way_out() {
    let etcd = Cluster::start(1);
    let (a, mut b) = (start(&etcd, "a"), start(&etcd, "b"));
    let namespaces = [Namespace::new(), Namespace::new()];
    add(&a, "here", &namespaces[0]);
    add(&b, "there", &namespaces[1]);
    assert_eq!(findings(&a), Vec::<Value>::new());
    b.kill9();
    let session = value(&etcd, &format!("{PREFIX}/sessions/b")).expect("a session");
    etcd.ctl(&["lease", "revoke", session["lease"].as_str().expect("a lease")]);
    let found = findings(&a);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((&found[0]["kind"], &found[0]["node"]), (&json!("blocksOfDeadNode"), &json!("b")));
    assert!(found[0]["sinceUnixMs"].as_u64() > Some(1_600_000_000_000), "{found:#?}");
    let said = ends(&a, &["gc"], 1);
    assert!(said.contains("left: ") && said.contains("leasehold node remove b"), "{said}");
    ends(&a, &["node", "remove", "b", "--yes"], 0);
    assert_eq!(findings(&a), Vec::<Value>::new(), "the quarantine ends by itself");
}

#[test]
fn what_comes_and_goes_is_no_leak_and_without_etcd_namespaces_are_still_looked_for() {
    let mut etcd = Cluster::start(1);
    let a = start(&etcd, "a");
    let (gone, stays) = (Namespace::new(), Namespace::new());
    add(&a, "gone", &gone);
    add(&a, "stays", &stays);
    let done = AtomicBool::new(false);
    let netns = stays.path().to_str().expect("a path in UTF-8").to_owned();
    let call = |command, number: usize| {
        let mut call = Call::new(command, &format!("churn-{number}"), &config("pods"));
        call.netns.clone_from(&netns);
        call
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = a.client();
            while !done.load(Ordering::Relaxed) {
                for command in ["ADD", "DEL"] {
                    let calls: Vec<Call> = (0..CHURN).map(|n| call(command, n)).collect();
                    let outcomes = client.try_calls(&calls).expect("answers");
                    assert!(outcomes.iter().all(super::Outcome::succeeded), "{outcomes:?}");
                    std::thread::sleep(std::time::Duration::from_millis(70));
                }
            }
        });
        let reports: Vec<String> = (0..CHECKS).map(|_| leasehold(&a, &["check"], "").1).collect();
        done.store(true, Ordering::Relaxed);
        for report in reports {
            assert!(report.starts_with("nothing found: "), "{report}");
        }
    });
    etcd.kill(0);
    drop(gone);
    let said = ends(&a, &["check"], 1);
    assert!(said.contains("namespaceGone") && said.contains("container gone"), "{said}");
    assert!(said.contains("not checked: records and blocks: the cluster's store"), "{said}");
    // Without etcd, containers that are gone can be released; the output says that the rest was not
    // checked.
    let said = ends(&a, &["gc"], 1);
    assert!(said.starts_with("released: ") && said.contains("not checked"), "{said}");
    assert_eq!(holders(&a), ["stays"]);
}
