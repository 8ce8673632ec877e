//! With etcd gone, a node serves from its own blocks, and names the cause when they are used up.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::churn::{Churn, Held};
use super::{
    Book, NOT_AVAILABLE, TRY_AGAIN, add, add_all, await_status, containers, metric, network, nodes,
    options, wide,
};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Outcome, poll};
use serde_json::{Value, json};

/// The time within which an ADD must be refused.
const REFUSAL_MAX: Duration = Duration::from_secs(12);
/// The time within which blocks can be leased again.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

/// Hands out all free addresses of the node's blocks. The first ADD after that must be refused, in
/// time, with a cause that names the store.
fn use_up(daemon: &Daemon, book: &Book, prefix: &str) -> Vec<String> {
    let mut got = Vec::new();
    let mut client = daemon.client();
    for container in containers(prefix, 20_000) {
        let began = Instant::now();
        let outcome = client.call(&Call::new("ADD", &container, &wide()));
        if outcome.succeeded() {
            book.added(&container, &super::address_of(&outcome));
            got.push(container);
            continue;
        }
        assert_eq!(outcome.code(), Some(TRY_AGAIN), "{outcome:?}");
        assert!(outcome.message().contains("etcd"), "no word of etcd: {outcome:?}");
        assert!(began.elapsed() < REFUSAL_MAX, "refused after {:?}", began.elapsed());
        return got;
    }
    panic!("20,000 addresses without etcd");
}

fn status_of(daemon: &Daemon) -> Outcome {
    status_with(daemon, &wide())
}

fn status_with(daemon: &Daemon, config: &Value) -> Outcome {
    daemon.client().call(&Call::new("STATUS", "", config))
}

/// Runs a churn through an outage that `stop` begins and `start` ends.
fn outage(more: &[&str], stop: impl Fn(&mut Cluster), start: impl Fn(&mut Cluster)) {
    let mut etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, more);
    let (config, book) = (wide(), Arc::new(Book::default()));
    let churn = Churn::start(&book, &daemons, &config, 60, "churn");
    thread::sleep(Duration::from_secs(2));
    stop(&mut etcd);
    let stopped = Instant::now();
    thread::sleep(Duration::from_secs(2));
    assert!(status_of(&daemons[0]).succeeded(), "STATUS with addresses in hand");
    assert_eq!(daemons[0].client().request("GET", "/readyz", "").status, 200);
    let (report, held) = churn.stop();
    assert_eq!(report.refused, Vec::<String>::new(), "ADDs in the blocks in hand");
    assert_eq!(report.failed, Vec::<String>::new(), "DELs and CHECKs");
    assert!(report.longest < Duration::from_secs(1), "an ADD took {:?}", report.longest);

    let got: Vec<_> = daemons.iter().map(|daemon| use_up(daemon, &book, "last")).collect();
    assert!(
        got.iter().all(|got| got.len() >= 30),
        "warm addresses: {:?}",
        got.iter().map(Vec::len)
    );
    // A runtime would take every node out of service, and what runs there with it.
    assert!(status_of(&daemons[0]).succeeded(), "STATUS without addresses in hand");
    // A released address can be handed out again.
    held.into_iter().for_each(Held::end);
    assert!(status_of(&daemons[0]).succeeded(), "STATUS after DELs");
    let outcome = add(&daemons[0], "between", &config);
    book.added("between", &super::address_of(&outcome));

    println!("outage of {:?}", stopped.elapsed());
    start(&mut etcd);
    let began = Instant::now();
    let other = network("other", &json!({ "subnet": "10.9.0.0/16" }));
    for daemon in &daemons {
        // A network without a block on this node needs one.
        let back = poll(RECOVERY_MAX, || add(daemon, "first", &other).succeeded());
        assert!(back, "no block within {RECOVERY_MAX:?}\n{}", daemon.log_tail());
    }
    println!("blocks again after {:?}", began.elapsed());
    for (daemon, at) in daemons.iter().zip(0..) {
        let more = containers(&format!("more-{at}"), 500);
        book.add_all(&more, &add_all(&mut daemon.client(), &more, &config));
        await_status(daemon, "caught up", |status| {
            status["cluster"]["state"] == "member" && status["cluster"]["recordsWaiting"] == 0
        });
        assert_eq!(metric(daemon, "leasehold_lost_blocks", &[]), 0.0);
        assert!(add(daemon, "first", &other).succeeded());
        assert!(daemon.client().call(&Call::new("DEL", "first", &other)).succeeded());
    }
    book.compare(&daemons.iter().collect::<Vec<_>>());
}

/// etcd stops where it stands, its connections open: every request runs into its deadline. It
/// stops for longer than the nodes' leases.
#[test]
fn a_cluster_lives_on_while_etcd_hangs() {
    outage(&["--etcd-request-deadline", "1s"], |etcd| etcd.pause(0), |etcd| etcd.resume(0));
}

#[test]
fn a_cluster_lives_on_while_etcd_is_dead() {
    outage(&[], |etcd| etcd.kill(0), |etcd| etcd.restart(0));
}

/// STATUS fails for reasons of this node. That etcd is away is none, on a node that has been in
/// service: one with containers, or a member. The operator may want it to be one.
#[test]
fn a_status_without_etcd_fails_only_on_a_node_that_was_never_in_service() {
    let mut etcd = Cluster::start(1);
    let strict = ["--status-fails-when-full"];
    let mut strict = Daemon::start(&options(&etcd, "strict", &strict));
    let mut usual = Daemon::start(&options(&etcd, "usual", &[]));
    for daemon in [&strict, &usual] {
        await_status(daemon, "a member", |status| status["cluster"]["state"] == "member");
        add(daemon, "c", &wide()).expect_result();
    }
    etcd.kill(0);
    // No node has a block of it in hand.
    let other = network("other", &json!({ "subnet": "10.9.0.0/16" }));
    for round in ["members", "started again"] {
        for daemon in [&strict, &usual] {
            let added = add(daemon, "d", &other);
            assert_eq!(added.code(), Some(TRY_AGAIN), "{round}: {added:?}");
            assert!(added.message().contains("etcd"), "{round}: {added:?}");
        }
        let failed = status_with(&strict, &other);
        assert_eq!(failed.code(), Some(NOT_AVAILABLE), "{round}: {failed:?}");
        assert!(failed.message().contains("etcd"), "{round}: {failed:?}");
        let served = status_with(&usual, &other);
        assert!(served.succeeded(), "{round}: {served:?}");
        // A reason of the configuration stays one.
        let wrong = network("wrong", &json!({ "subnet": "10.9.0.0/33" }));
        assert!(!status_with(&usual, &wrong).succeeded(), "{round}");
        strict.restart();
        usual.restart();
    }
    let mut fresh = Daemon::prepare(&options(&etcd, "fresh", &[]));
    fresh.try_start().expect("a daemon that waits");
    let failed = status_with(&fresh, &other);
    assert_eq!(failed.code(), Some(NOT_AVAILABLE), "{failed:?}");
}
