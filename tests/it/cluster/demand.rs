//! The cost of a warm ADD in etcd: next to nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::churn::Churn;
use super::{Book, add, add_all, containers, keys, metric, nodes, wide};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, poll};

/// The most block transactions that a burst of 10,000 may cost.
const BURST_TXNS_MAX: usize = 20;
const BURST: usize = 10_000;
const CONNECTIONS: usize = 16;

/// The transactions of all daemons, by their own counts.
fn txns(daemons: &[Daemon]) -> f64 {
    let done = ["operation=\"txn\"", "result=\"ok\""];
    daemons.iter().map(|daemon| metric(daemon, "leasehold_etcd_requests_total", &done)).sum()
}

fn await_records(daemons: &[Daemon]) {
    let waiting = |daemon| metric(daemon, "leasehold_records_waiting", &[]) > 0.0;
    assert!(poll(super::PATIENCE, || !daemons.iter().any(waiting)), "records do not end");
}

/// Waits until two counts of the same thing agree. They cannot be read at the same moment.
fn assert_agree(what: &str, counts: impl Fn() -> [f64; 2]) {
    let mut last = [0.0; 2];
    let agree = poll(super::PATIENCE, || {
        last = counts();
        last[0] == last[1]
    });
    assert!(agree, "{what}: {last:?}");
    println!("{what}: {last:?}");
}

/// A burst on one node of a cluster that has done nothing yet costs a handful of transactions:
/// by the daemon's count, and by the revisions of the blocks in etcd.
#[test]
fn a_burst_of_ten_thousand_containers_costs_a_handful_of_transactions() {
    let etcd = Cluster::start(1);
    // The count of all transactions starts where the daemons' count does: before the first one.
    let revision = keys(&etcd, "").revision;
    let daemons = nodes(&etcd, 2, &[]);
    let (config, book) = (wide(), Book::default());
    let all = containers("burst", BURST);
    let began = Instant::now();
    thread::scope(|scope| {
        for part in all.chunks(BURST / CONNECTIONS) {
            let (mut client, config, book) = (daemons[0].client(), &config, &book);
            scope.spawn(move || book.add_all(part, &add_all(&mut client, part, config)));
        }
    });
    println!("{BURST} ADDs in {:?}", began.elapsed());
    assert_eq!(book.len(), BURST);

    let leases = |result| metric(&daemons[0], "leasehold_block_leases_total", &[result]);
    // A block is written when it is claimed and when it becomes active, so every transaction
    // of blocks is the first or the last writer of some block.
    assert_agree("transactions of blocks, the daemon's count and etcd's", || {
        let blocks = keys(&etcd, "blocks/").keys;
        assert!(blocks.iter().all(|[_, _, version]| *version <= 2), "{blocks:?}");
        let revisions: BTreeSet<u64> =
            blocks.iter().flat_map(|[made, last, _]| [*made, *last]).collect();
        assert!(revisions.len() <= BURST_TXNS_MAX, "{} transactions of blocks", revisions.len());
        [leases("result=\"done\""), revisions.len() as f64]
    });
    println!("{} conflicts", leases("result=\"conflict\""));
    assert_eq!(leases("result=\"failed\""), 0.0);

    await_records(&daemons);
    book.compare(&[&daemons[0]]);
    assert_eq!(keys(&etcd, "allocations/").keys.len(), BURST);
    // The daemons' own count includes every write to etcd.
    assert_agree("all transactions, the daemons' count and etcd's revisions", || {
        [txns(&daemons), (keys(&etcd, "").revision - revision) as f64]
    });
}

/// Containers that come and go within a node's blocks cost no block transaction at all.
#[test]
fn steady_churn_touches_no_block() {
    let etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let (config, book) = (wide(), Arc::new(Book::default()));
    let churn = Churn::start(&book, &daemons, &config, 200, "steady");
    let settled = |daemon| metric(daemon, "leasehold_block_leases_total", &[]);
    // Warm: the number of addresses in use is reached, and no block was leased for a second.
    let mut last = (0.0, Instant::now());
    let warm = poll(super::PATIENCE, || {
        thread::sleep(Duration::from_millis(100));
        let leases: f64 = daemons.iter().map(settled).sum();
        if leases != last.0 {
            last = (leases, Instant::now());
        }
        leases > 0.0 && last.1.elapsed() > Duration::from_secs(1)
    });
    assert!(warm, "leases go on and on under steady churn");
    let figures = || -> (f64, Vec<[u64; 3]>) {
        let names = ["leasehold_block_leases_total", "leasehold_blocks_given_back_total"];
        let of = |daemon| names.iter().map(|name| metric(daemon, name, &[])).sum::<f64>();
        (daemons.iter().map(of).sum(), keys(&etcd, "blocks/").keys)
    };
    let before = figures();
    thread::sleep(Duration::from_secs(3));
    let after = figures();
    let (report, held) = churn.stop();
    assert_eq!(before, after, "blocks were leased or given back");
    assert!(report.added > 1_000, "only {} ADDs", report.added);
    assert_eq!(report.refused, Vec::<String>::new());
    assert_eq!(report.failed, Vec::<String>::new());
    book.compare(&daemons.iter().collect::<Vec<_>>());
    held.into_iter().for_each(super::churn::Held::end);
    book.compare(&daemons.iter().collect::<Vec<_>>());
    assert!(add(&daemons[0], "after", &config).succeeded());
}
