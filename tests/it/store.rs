//! The store's contract, and that every change of who holds a block rests on what it compares.
//!
//! Goal: a transaction that rests on something that is no longer so changes nothing. Method: two
//! owners on one embedded store, transactions carried out one after the other, and the keys read
//! back.

use leasehold::core::address::{Family, Run, number};
use leasehold::core::claim::{BLOCKS, Owner, block_key, node_key};
use leasehold::core::txn::{Compare, Txn, TxnOutcome, Write};
use leasehold::store::ClusterStore;
use leasehold::store::embedded::Embedded;
use tempfile::TempDir;

struct World {
    store: Embedded,
    runtime: tokio::runtime::Runtime,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let store = Embedded::open(&dir.path().join("cluster.redb")).expect("a store");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { store, runtime, _dir: dir }
    }

    fn txn(&self, txn: Txn) -> TxnOutcome {
        self.runtime.block_on(self.store.txn(txn)).expect("an answer")
    }

    /// The revision of a transaction that must be carried out.
    fn done(&self, txn: Txn) -> u64 {
        match self.txn(txn) {
            TxnOutcome::Done(revision) => revision,
            TxnOutcome::Refused => panic!("the transaction is refused"),
        }
    }

    fn keys(&self, prefix: &str) -> Vec<(String, u64)> {
        let found = self.runtime.block_on(self.store.range(prefix.to_owned())).expect("an answer");
        found.into_iter().map(|found| (found.key, found.mod_revision)).collect()
    }

    /// A daemon of a node starts: it writes the node's key.
    fn register(&self, node: &str) -> Owner {
        let then = vec![Write::Put(node_key(node), b"{}".to_vec())];
        Owner { node: node.to_owned(), revision: self.done(Txn { when: vec![], then }) }
    }
}

fn run(first: &str, size_log2: u8) -> Run {
    Run::around(number(first.parse().expect("an address")), size_log2)
}

fn claim(owner: &Owner, runs: &[Run]) -> Txn {
    let runs: Vec<_> = runs.iter().map(|&run| (run, b"{}".to_vec())).collect();
    owner.claim("net", Family::V4, &runs)
}

#[test]
fn a_claim_that_overlaps_a_block_is_refused_and_changes_nothing() {
    let world = World::new();
    let (one, two) = (world.register("one"), world.register("two"));
    world.done(claim(&one, &[run("10.0.0.64", 4)]));
    let before = world.keys(BLOCKS);
    for overlapping in [
        vec![run("10.0.0.64", 4)],
        vec![run("10.0.0.64", 5)],
        vec![run("10.0.0.0", 7)],
        // One of several is enough, wherever it stands.
        vec![run("10.0.1.0", 4), run("10.0.0.64", 4)],
    ] {
        assert_eq!(world.txn(claim(&two, &overlapping)), TxnOutcome::Refused, "{overlapping:?}");
        assert_eq!(world.keys(BLOCKS), before);
    }
    world.done(claim(&two, &[run("10.0.0.48", 4), run("10.0.0.80", 4)]));
    let other = two.claim("net2", Family::V4, &[(run("10.0.0.64", 4), b"{}".to_vec())]);
    world.done(other);
    assert_eq!(world.keys(BLOCKS).len(), 4);
}

#[test]
fn a_daemon_that_is_not_the_nodes_newest_changes_nothing() {
    let world = World::new();
    let old = world.register("node");
    let (kept, run) = (run("10.0.0.0", 4), run("10.0.0.16", 4));
    let revision = world.done(claim(&old, &[kept]));
    let new = world.register("node");
    let before = world.keys(BLOCKS);
    let give_back = |owner: &Owner| owner.give_back("net", Family::V4, &[(kept, revision)]);
    assert_eq!(world.txn(claim(&old, &[run])), TxnOutcome::Refused);
    assert_eq!(world.txn(give_back(&old)), TxnOutcome::Refused);
    assert_eq!(world.keys(BLOCKS), before);
    world.done(claim(&new, &[run]));
    world.done(give_back(&new));
    let key = block_key("net", Family::V4, run.start);
    let left: Vec<String> = world.keys(BLOCKS).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [key]);
}

#[test]
fn a_block_that_changed_hands_is_not_given_back() {
    let world = World::new();
    let (one, two) = (world.register("one"), world.register("two"));
    let block = run("10.0.0.0", 4);
    let stale = world.done(claim(&one, &[block]));
    let give_back =
        |owner: &Owner, revision| owner.give_back("net", Family::V4, &[(block, revision)]);
    world.done(give_back(&one, stale));
    let fresh = world.done(claim(&two, &[block]));
    assert!(fresh > stale);
    assert_eq!(world.txn(give_back(&one, stale)), TxnOutcome::Refused);
    assert_eq!(world.keys(BLOCKS).len(), 1);
}

#[test]
fn a_transaction_is_carried_out_whole_or_not_at_all() {
    let world = World::new();
    let put = |key: &str| Write::Put(key.to_owned(), vec![]);
    let absent = |key: &str| Compare::ModRevision(key.to_owned(), 0);
    let first = world.done(Txn { when: vec![absent("a")], then: vec![put("a"), put("ab")] });
    let both = vec![absent("b"), absent("a")];
    assert_eq!(world.txn(Txn { when: both, then: vec![put("b")] }), TxnOutcome::Refused);
    let second = world.done(Txn {
        when: vec![Compare::ModRevision("a".to_owned(), first), absent("b")],
        then: vec![put("b"), Write::Delete("a".to_owned()), Write::Delete("never".to_owned())],
    });
    assert!(second > first);
    assert_eq!(world.keys(""), [("ab".to_owned(), first), ("b".to_owned(), second)]);
    assert_eq!(world.keys("a"), [("ab".to_owned(), first)]);
}
