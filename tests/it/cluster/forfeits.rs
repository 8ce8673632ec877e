//! A node is cut off, or dead, and others take what it has no record of.

use serde_json::{Value, json};

use super::{
    Book, EXHAUSTED, PATIENCE, active_blocks, add, add_all, address_of, containers, network, nodes,
    values,
};
use crate::common::etcd::Cluster;
use crate::common::{go_on, poll, stop};

/// The containers of the node that falls silent.
const HELD: usize = 40;
/// The addresses of the pool, without network, gateway and broadcast.
const POOL: usize = 253;

/// A daemon sleeps for longer than its `offlineLimit`. The other one gets every address of the pool
/// that is not recorded, and no other. The first wakes up, joins again, hands out nothing of what
/// was taken, and its containers still have theirs.
#[test]
fn a_silent_node_forfeits_its_free_addresses_and_nothing_else() {
    let etcd = Cluster::start(1);
    let more = ["--commit", "etcd", "--offline-limit", "10s"];
    let mut daemons = nodes(&etcd, 2, &more);
    let mut config = network("small", &json!({ "subnet": "10.4.1.0/24" }));
    config["ipam"]["blockSize"] = 27.into();
    let theirs = containers("theirs", 2 * HELD);
    let held = Book::default();
    let outcomes = add_all(&mut daemons[0].client(), &theirs, &config);
    held.add_all(&theirs, &outcomes);
    // Every second address comes free: no block is whole.
    let (kept, ended): (Vec<_>, Vec<_>) =
        theirs.iter().cloned().enumerate().partition(|(at, _)| at % 2 == 0);
    for (at, container) in &ended {
        let outcome = &outcomes[*at];
        let call = crate::common::Call::new("DEL", container, &config);
        assert!(daemons[0].client().call(&call).succeeded());
        held.ending(&address_of(outcome));
    }
    let forfeits = || values(&etcd, "nodes/node-0").pop().expect("its key")["forfeit"].clone();
    assert!(poll(PATIENCE, || forfeits()["afterSeconds"] == 10), "{}", forfeits());
    let blocks = active_blocks(&daemons[0]).len();
    assert!(blocks >= 3, "{blocks} blocks");
    stop(daemons[0].pid());
    let gone = poll(PATIENCE, || values(&etcd, "sessions/node-0").is_empty());
    assert!(gone, "the session of a node that sleeps stays");

    let mine = containers("mine", POOL - HELD);
    for container in &mine {
        // As long as the other one's last word is not old enough, the pool is full.
        let mut outcome = add(&daemons[1], container, &config);
        let full = |code| code == Some(EXHAUSTED);
        poll(PATIENCE, || {
            if full(outcome.code()) {
                outcome = add(&daemons[1], container, &config);
            }
            !full(outcome.code())
        });
        assert!(outcome.succeeded(), "{container}: {outcome:?}\n{}", daemons[1].log_tail());
        held.added(container, &address_of(&outcome));
    }
    let more = add(&daemons[1], "one-more", &config);
    assert_eq!(more.code(), Some(EXHAUSTED), "{more:?}");
    assert!(forfeits()["taken"].as_u64() > Some(0), "{}", forfeits());
    assert!(daemons[1].log().contains("took free addresses of a node"), "the log does not say so");

    go_on(daemons[0].pid());
    let back = poll(PATIENCE, || forfeits()["taken"] == 0);
    assert!(back, "{}\n{}", forfeits(), daemons[0].log_tail());
    let again = add(&daemons[0], "one-more", &config);
    assert_eq!(again.code(), Some(EXHAUSTED), "{again:?}");
    let rows = |at: usize| -> Vec<Value> { daemons[at].allocations() };
    assert_eq!((rows(0).len(), rows(1).len()), (kept.len(), mine.len()));
    held.compare(&[&daemons[0], &daemons[1]]);
    daemons.clear();
}
