//! Outages of etcd that are longer than the nodes' leases, under churn, in a pool that is filled
//! to the last address afterwards.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::churn::{Churn, Held};
use super::{
    Book, EXHAUSTED, PATIENCE, RECORDS_MAX, TRY_AGAIN, add, add_all, address_of, await_status,
    containers, metric, network, nodes,
};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, poll};

/// Addresses of the pool.
const ADDRESSES: usize = 1_024;
/// The time within which an ADD must be refused.
const REFUSAL_MAX: Duration = Duration::from_secs(12);
/// The number of tries of an ADD: a search can miss an address that changes hands meanwhile.
const TRIES: usize = 20;

fn pool() -> Value {
    let range = json!({
        "subnet": "10.0.0.0/16", "rangeStart": "10.0.4.0", "rangeEnd": "10.0.7.255",
    });
    network("pool", &range)
}

fn spares(daemon: &Daemon) -> f64 {
    metric(daemon, "leasehold_blocks", &["state=\"spare\""])
}

/// Hands out all addresses that the node has. The error of the ADD after that must name the cause.
fn use_up(daemon: &Daemon, book: &Book, prefix: &str) -> usize {
    for (had, container) in containers(prefix, ADDRESSES).iter().enumerate() {
        let began = Instant::now();
        let outcome = add(daemon, container, &pool());
        if outcome.succeeded() {
            book.added(container, &address_of(&outcome));
            continue;
        }
        assert_eq!(outcome.code(), Some(TRY_AGAIN), "{outcome:?}");
        assert!(outcome.message().contains("etcd"), "no word of etcd: {outcome:?}");
        assert!(began.elapsed() < REFUSAL_MAX, "refused after {:?}", began.elapsed());
        return had;
    }
    panic!("the whole pool without etcd");
}

/// Makes ADDs on one node after the other until no node has an address left.
fn fill(daemons: &[Daemon], book: &Book) {
    for number in 0..ADDRESSES {
        let container = format!("fill-{number}");
        let tries =
            (0..TRIES).map(|at| add(&daemons[(number + at) % daemons.len()], &container, &pool()));
        let mut last = None;
        for outcome in tries {
            if outcome.succeeded() {
                book.added(&container, &address_of(&outcome));
                last = None;
                break;
            }
            last = Some(outcome);
        }
        if let Some(outcome) = last {
            assert_eq!(outcome.code(), Some(EXHAUSTED), "{outcome:?}");
            return;
        }
    }
}

/// The daemon's etcd lease.
fn lease(daemon: &Daemon) -> Option<String> {
    daemon.client().get("/v1/status")["cluster"]["lease"].as_str().map(str::to_owned)
}

/// Makes an outage of at least this length. With `ends`, the nodes' leases run out in it. (When
/// etcd starts, it gives all leases their whole time again.)
fn outage(
    length: Duration,
    ends: bool,
    more: &[&str],
    stop: fn(&mut Cluster),
    start: fn(&mut Cluster),
) {
    let mut etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 3, more);
    let book = Arc::new(Book::default());
    // A burst, so that there are spares.
    for (daemon, at) in daemons.iter().zip(0..) {
        let burst = containers(&format!("burst-{at}"), 50);
        book.add_all(&burst, &add_all(&mut daemon.client(), &burst, &pool()));
    }
    let churn = Churn::start(&book, &daemons, &pool(), 60, "churn");
    thread::sleep(Duration::from_secs(2));
    println!("spares: {:?}", daemons.iter().map(spares).collect::<Vec<_>>());
    assert!(daemons.iter().map(spares).sum::<f64>() > 0.0, "no node has a spare");
    let leases: Vec<String> = daemons.iter().filter_map(lease).collect();
    assert_eq!(leases.len(), daemons.len(), "a node has no lease");
    stop(&mut etcd);
    let began = Instant::now();
    while began.elapsed() < length {
        thread::sleep(Duration::from_millis(50));
    }
    let (report, held) = churn.stop();
    assert_eq!(report.refused, Vec::<String>::new(), "ADDs in the blocks in hand");
    assert_eq!(report.failed, Vec::<String>::new(), "DELs and CHECKs");
    assert_eq!(report.silent, 0, "calls without an answer");
    assert!(report.longest < Duration::from_secs(2), "an ADD took {:?}", report.longest);
    let had: Vec<usize> = daemons.iter().map(|daemon| use_up(daemon, &book, "last")).collect();
    println!("{} ADDs in the churn of {:?}, then {had:?}", report.added, began.elapsed());
    assert!(had.iter().any(|&had| had > 0), "nothing was left in hand");
    book.compare(&daemons.iter().collect::<Vec<_>>());

    start(&mut etcd);
    let back = Instant::now();
    for daemon in &daemons {
        await_status(daemon, "caught up", |status| {
            let cluster = &status["cluster"];
            cluster["state"] == "member"
                && cluster["cause"].is_null()
                && cluster["recordsWaiting"] == 0
        });
    }
    for (daemon, old) in daemons.iter().zip(&leases).filter(|_| ends) {
        // The keys on it are gone: the spares.
        let gone = poll(PATIENCE, || {
            lease(daemon).is_some_and(|new| new != *old)
                && etcd.ctl(&["lease", "timetolive", old]).contains("already expired")
        });
        assert!(gone, "lease {old} outlives the outage\n{}", daemon.log_tail());
    }
    println!("caught up after {:?}", back.elapsed());
    book.await_records(&etcd, RECORDS_MAX);
    let first = poll(PATIENCE, || add(&daemons[0], "first", &pool()).succeeded());
    assert!(first, "{:?}", add(&daemons[0], "first", &pool()));
    book.added("first", &address_of(&add(&daemons[0], "first", &pool())));
    println!("a block after {:?}", back.elapsed());
    fill(&daemons, &book);
    assert_eq!(book.len(), ADDRESSES, "the pool fills to the last address");
    book.compare(&daemons.iter().collect::<Vec<_>>());
    for daemon in &daemons {
        assert_eq!(metric(daemon, "leasehold_lost_blocks", &[]), 0.0);
    }
    held.into_iter().for_each(Held::end);
    book.compare(&daemons.iter().collect::<Vec<_>>());
    book.await_records(&etcd, RECORDS_MAX);
}

#[test]
fn a_cluster_outlives_a_minute_in_which_etcd_hangs() {
    let deadline = ["--etcd-request-deadline", "1s"];
    outage(Duration::from_secs(60), true, &deadline, |etcd| etcd.pause(0), |etcd| etcd.resume(0));
}

#[test]
fn a_cluster_outlives_etcd_that_is_dead_for_longer_than_the_leases() {
    outage(Duration::from_secs(15), false, &[], |etcd| etcd.kill(0), |etcd| etcd.restart(0));
}
