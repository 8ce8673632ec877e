//! Checks and releases for the whole cluster from one node, and those that nobody asks for.

use std::time::Duration;

use serde_json::{Value, json};

use super::store::{add, put, record, record_key, start_with, value};
use super::{Namespace, PATIENCE, ends, ends_json, findings, holders, kinds, metric};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, go_on, poll, stop};

/// The time within which a daemon that looks once a second makes its own check.
const OWN_CHECK: Duration = Duration::from_secs(90);

fn start(etcd: &Cluster, node: &str) -> Daemon {
    start_with(etcd, node, &[])
}

/// The node of each finding.
fn nodes_of(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().map(|found| found["node"].as_str().expect("a node")).collect()
}

#[test]
fn every_node_judges_and_releases_its_own() {
    let etcd = Cluster::start(1);
    let (a, b, c) = (start(&etcd, "a"), start(&etcd, "b"), start(&etcd, "c"));
    let [on_a, on_b, on_c, gone] = [(); 4].map(|()| Namespace::new());
    add(&a, "on-a", &on_a);
    add(&b, "on-b", &on_b);
    let (lost, leak) = (add(&c, "on-c", &on_c), add(&b, "gone", &gone));
    let original = record(&etcd, &lost);
    assert_eq!(ends_json(&a, &["check", "--all-nodes"], 0)["lookedAt"]["attachments"], 4);

    drop(gone);
    etcd.ctl(&["del", &record_key(&lost)]);
    // In no block of node c, and in no block at all.
    let stray = "10.60.3.7";
    let ghost = json!({ "containerId": "ghost", "addresses": [stray] });
    let mut forged = original.clone();
    forged.as_object_mut().expect("a record").extend(ghost.as_object().expect("fields").clone());
    put(&etcd, &record_key(stray), &forged);
    assert_eq!(findings(&a), Vec::<Value>::new(), "it is for nodes b and c to judge");
    let report = ends_json(&a, &["check", "--all-nodes"], 1);
    let found = report["findings"].as_array().expect("findings").clone();
    let expected = [
        ("namespaceGone", &*leak),
        ("recordWithoutAllocation", stray),
        ("allocationWithoutRecord", &*lost),
    ];
    assert_eq!((kinds(&found).as_slice(), nodes_of(&report)), (&expected[..], vec!["b", "c", "c"]));
    assert_eq!(report["unchecked"], json!([]), "{report:#}");

    let said = ends(&a, &["gc", "--all-nodes", "--dry-run"], 0);
    assert_eq!(said.matches("would be released (dry run)").count(), 3, "{said}");
    let said = ends(&a, &["gc", "--all-nodes"], 0);
    for (outcome, of) in
        [("released: ", &*leak), ("deleted: ", stray), ("record written again: ", &*lost)]
    {
        let line = |line: &str| line.starts_with(outcome) && line.contains(of);
        assert!(said.lines().any(line), "no {outcome}{of}: {said}");
    }
    assert_eq!(holders(&b), ["on-b"]);
    assert_eq!((record(&etcd, &lost), value(&etcd, &record_key(stray))), (original, None));
    ends(&a, &["check", "--all-nodes"], 0);
    for questions in ["asked/", "told/"] {
        let prefix = format!("/leasehold/v1/{questions}");
        let left = || etcd.ctl(&["get", "--prefix", "--keys-only", &prefix]);
        assert!(poll(PATIENCE, || left().trim().is_empty()), "{}", left());
    }
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    let etcd = Cluster::start(1);
    let (a, b) = (start(&etcd, "a"), start_with(&etcd, "b", &["--lease-ttl", "60s"]));
    let (here, there) = (Namespace::new(), Namespace::new());
    add(&a, "here", &here);
    add(&b, "there", &there);
    stop(b.pid());
    let report = ends_json(&a, &["check", "--all-nodes"], 1);
    let why = report["unchecked"][0].as_str().expect("a sentence");
    assert!(why.starts_with("node b: it did not answer within"), "{report:#}");
    assert_eq!(report["findings"], json!([]));
    go_on(b.pid());
    assert!(poll(PATIENCE, || {
        report_of(&a, &["check", "--all-nodes"])["clean"] == json!(true)
    }));
}

fn report_of(daemon: &Daemon, args: &[&str]) -> Value {
    let (_, stdout, _) = super::leasehold(daemon, &[args, &["-o", "json"]].concat(), "");
    serde_json::from_str(&stdout).unwrap_or_default()
}

/// The alert about duplicates must not wait for a person who makes a check.
#[test]
fn a_daemon_checks_by_itself() {
    let etcd = Cluster::start(1);
    let a = start_with(&etcd, "a", &["--sweep", "1s", "--sweep-grace", "1h"]);
    let here = Namespace::new();
    let address = add(&a, "here", &here);
    let original = record(&etcd, &address);
    let duplicates = || metric(&a, "leasehold_check_findings{kind=\"duplicate\"}");
    assert_eq!(duplicates(), 0.0);
    let mut forged = original.clone();
    forged["node"] = json!("nobody");
    put(&etcd, &record_key(&address), &forged);
    assert!(poll(OWN_CHECK, || duplicates() == 1.0), "{}", a.log_tail());
    put(&etcd, &record_key(&address), &original);
    assert!(poll(OWN_CHECK, || duplicates() == 0.0), "{}", a.log_tail());
}
