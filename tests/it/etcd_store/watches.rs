//! Watches survive everything that breaks them.

use std::time::{Duration, Instant};

use leasehold::core::txn::{Request, Txn, Watched, Write};
use leasehold::store::etcd::Options;
use tokio::sync::mpsc::Receiver;

use super::{PATIENCE, Subject, large, put, put_with};
use crate::common::etcd::Cluster;

/// Reads reports until the prefix has exactly these keys. Returns the number of listings.
fn until(store: &Subject, watch: &mut Receiver<Watched>, keys: &[&str]) -> usize {
    let mut held = std::collections::BTreeSet::new();
    let mut listings = 0;
    loop {
        match store.next(watch) {
            Watched::Listed(all) => {
                held = all.into_iter().map(|found| found.key).collect();
                listings += 1;
            }
            Watched::Put(found) => drop(held.insert(found.key)),
            Watched::Deleted(key) => drop(held.remove(&key)),
        }
        if held.iter().eq(keys) {
            return listings;
        }
    }
}

#[test]
fn a_lease_that_nobody_keeps_alive_takes_its_keys() {
    let cluster = Cluster::start(1);
    let store = Subject::etcd(cluster.options("/test"));
    let (short, long) = (store.grant(2), store.grant(60));
    store.done(&[], &[put_with("sessions/a", 1, short), put_with("sessions/b", 1, long)]);
    let mut watch = store.watch("sessions/");
    until(&store, &mut watch, &["sessions/a", "sessions/b"]);
    assert_eq!(store.next(&mut watch), Watched::Deleted("sessions/a".to_owned()));
    assert_eq!(store.kept(short), None);
    assert!(store.kept(long).is_some());
}

#[test]
fn a_watch_outlives_a_restart_and_a_restore() {
    let mut cluster = Cluster::start(1);
    let store = Subject::etcd(cluster.options("/test"));
    let mut watch = store.watch("sessions/");
    store.done(&[], &[put("sessions/a", 1)]);
    until(&store, &mut watch, &["sessions/a"]);
    let backup = cluster.save();
    let last = store.done(&[], &[put("sessions/b", 1)]);
    assert_eq!(until(&store, &mut watch, &["sessions/b"]), 0);
    cluster.kill(0);
    cluster.restart(0);
    assert_eq!(until(&store, &mut watch, &["sessions/a", "sessions/b"]), 1);
    cluster.restore(&backup);
    assert_eq!(until(&store, &mut watch, &["sessions/a"]), 1);
    assert!(store.read(&[]).revision < last);
}

#[test]
fn a_watch_moves_to_another_member() {
    let mut cluster = Cluster::start(3);
    let (first, other) = (cluster.leader(), Subject::etcd(cluster.options("/test")));
    let mut options = cluster.options("/test");
    options.endpoints.swap(0, first);
    let store = Subject::etcd(options);
    let mut watch = store.watch("sessions/");
    until(&store, &mut watch, &[]);
    cluster.kill(first);
    let begun = Instant::now();
    while other.txn(&[], &[put("sessions/a", 1)]).is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(until(&store, &mut watch, &["sessions/a"]) >= 1);
}

#[test]
fn a_watch_notices_a_member_that_stands_still() {
    let cluster = Cluster::start(3);
    let stopped = (cluster.leader() + 1) % 3;
    let (mut options, other) = (cluster.options("/test"), cluster.options("/test"));
    options.endpoints.swap(0, stopped);
    let other =
        Subject::etcd(Options { endpoints: vec![cluster.endpoint((stopped + 1) % 3)], ..other });
    let store = Subject::etcd(options);
    let mut watch = store.watch("sessions/");
    until(&store, &mut watch, &[]);
    cluster.pause(stopped);
    other.done(&[], &[put("sessions/a", 1)]);
    assert_eq!(until(&store, &mut watch, &["sessions/a"]), 1);
    cluster.resume(stopped);
}

#[test]
fn a_listener_that_missed_what_was_compacted_gets_a_list() {
    let cluster = Cluster::start(1);
    let store = Subject::etcd(cluster.options("/test"));
    let mut watch = store.watch("nodes/");
    until(&store, &mut watch, &[]);
    // More than fits in the buffers between etcd and a listener that does not read: the watch falls
    // behind.
    let mut revision = store.read(&[]).revision;
    for round in 0..30 {
        let txn = |number| {
            let key = format!("nodes/{number:02}");
            let write = Write::Put(key, large(round, 4_000), None);
            store.store.ask(Request::Txn(Txn { when: Vec::new(), then: vec![write] }))
        };
        let asked: Vec<_> = (0..100).map(txn).collect();
        for answer in asked {
            store.runtime.block_on(answer).expect("an answer");
        }
        revision = store.read(&[]).revision;
    }
    cluster.ctl(&["compact", &revision.to_string()]);
    store.done(&[], &[put("nodes/last", 1)]);
    let begun = Instant::now();
    let mut reports = 0;
    let listed = loop {
        assert!(begun.elapsed() < PATIENCE, "no list, but {reports} reports");
        match store.next(&mut watch) {
            Watched::Listed(listed) => break listed,
            _ => reports += 1,
        }
    };
    assert_eq!(listed.len(), 101);
    assert!(reports < 3_000, "nothing was missed: {reports} reports");
}

#[test]
fn a_watch_ends_with_its_listener() {
    let cluster = Cluster::start(1);
    let store = Subject::etcd(cluster.options("/test"));
    let watchers = || cluster.metric(0, "etcd_debugging_mvcc_watcher_total");
    let mut watch = store.watch("sessions/");
    until(&store, &mut watch, &[]);
    let wait_for = |number: f64| {
        let begun = Instant::now();
        while (watchers() - number).abs() > 0.5 {
            assert!(begun.elapsed() < PATIENCE, "{} watchers, not {number}", watchers());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for(1.0);
    drop(watch);
    wait_for(0.0);
}
