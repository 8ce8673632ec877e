//! `commit = "etcd"`: an answered ADD has its record in etcd.

use std::time::{Duration, Instant};

use super::{TRY_AGAIN, add, add_all, address_of, await_status, containers, keys, nodes, wide};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon};

/// The longest time that an ADD waits for its record before it fails.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// Makes an ADD that must fail soon, with an error that names etcd.
fn refused(daemon: &Daemon, container: &str) {
    let began = Instant::now();
    let outcome = add(daemon, container, &wide());
    println!("{container}: after {:?}: {outcome:?}", began.elapsed());
    assert_eq!(outcome.code(), Some(TRY_AGAIN), "{outcome:?}");
    assert!(outcome.message().contains("etcd"), "no word of etcd: {outcome:?}");
    assert!(began.elapsed() < REFUSAL_MAX, "{container}: after {:?}", began.elapsed());
}

#[test]
fn with_commit_etcd_an_answered_add_is_in_etcd_or_is_undone() {
    let mut etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &["--commit", "etcd"]);
    let config = wide();
    let address = address_of(&add(&daemons[0], "recorded", &config));
    let wide_form = |address: &str| {
        let parts = address.split('.').map(|part| format!("{:0>3}", part));
        parts.collect::<Vec<_>>().join(".")
    };
    let key = format!("/leasehold/v1/allocations/wide/{}", wide_form(&address));
    let record = etcd.ctl(&["get", &key, "--print-value-only"]);
    assert!(record.contains("\"recorded\"") && record.contains("\"node-0\""), "{key}: {record:?}");
    let all = containers("all", 300);
    for outcome in add_all(&mut daemons[1].client(), &all, &config) {
        assert!(outcome.succeeded(), "{outcome:?}");
    }
    assert_eq!(keys(&etcd, "allocations/").keys.len(), 301, "records of answered ADDs");

    // etcd hangs, and then it is dead.
    etcd.pause(0);
    refused(&daemons[0], "hangs");
    etcd.kill(0);
    refused(&daemons[0], "dead");
    refused(&daemons[0], "still-dead");
    let rows = daemons[0].allocations();
    assert_eq!(rows.len(), 1, "a failed ADD leaves something: {rows:?}");
    // A DEL needs no etcd.
    assert!(daemons[0].client().call(&Call::new("DEL", "recorded", &config)).succeeded());
    etcd.restart(0);
    await_status(&daemons[0], "caught up", |status| {
        status["cluster"]["recordsWaiting"] == 0 && status["cluster"]["cause"].is_null()
    });
    assert_eq!(keys(&etcd, "allocations/").keys.len(), 300, "only what is held is recorded");
    let again = super::poll(super::PATIENCE, || add(&daemons[0], "after", &config).succeeded());
    assert!(again, "{}", daemons[0].log_tail());
}
