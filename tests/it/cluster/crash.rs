//! A daemon of a cluster that is killed under load and comes back.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::churn::{Churn, Held};
use super::{Book, await_status, keys, nodes, wide};
use crate::common::etcd::Cluster;
use crate::common::poll;

/// Addresses of answered ADDs are still held, no address is held twice anywhere, and after the DELs
/// nothing is left, neither on the nodes nor in etcd's records.
#[test]
fn a_node_that_is_killed_under_churn_loses_nothing_and_leaks_nothing() {
    let etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 2, &[]);
    let (config, book) = (wide(), Arc::new(Book::default()));
    let mut silent = 0;
    let mut held: Vec<Held> = Vec::new();
    for round in 0..3 {
        let churn = Churn::start(&book, &daemons, &config, 60, &format!("round-{round}"));
        thread::sleep(Duration::from_millis(700));
        daemons[round % 2].kill9();
        // The other node goes on while this one is away.
        thread::sleep(Duration::from_millis(200));
        daemons[round % 2].restart();
        thread::sleep(Duration::from_millis(300));
        let (report, more) = churn.stop();
        assert_eq!(report.refused, Vec::<String>::new());
        assert_eq!(report.failed, Vec::<String>::new());
        assert!(report.added > 200, "only {} ADDs", report.added);
        silent += report.silent;
        held.extend(more);
    }
    assert!(silent > 0, "no caller noticed that a daemon was killed");
    assert!(book.len() > 200, "{} addresses are held", book.len());
    let both: Vec<_> = daemons.iter().collect();
    book.compare(&both);
    held.into_iter().for_each(Held::end);
    assert_eq!(book.len(), 0);
    book.compare(&both);
    for daemon in both {
        await_status(daemon, "done with its records", |status| {
            status["cluster"]["recordsWaiting"] == 0
        });
    }
    let records = || keys(&etcd, "allocations/").keys.len();
    let gone = poll(Duration::from_secs(5), || records() == 0);
    assert!(gone, "{} records are left", records());
}
