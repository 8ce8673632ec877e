//! The store's contract, and the conditions of every change of a block's owner.
//!
//! Goal: a transaction whose condition does not hold changes nothing. Method: the machines of two
//! nodes (or of two daemons of one) on one embedded store, carried out one after the other, and the
//! keys read back.

use std::time::Duration;

use leasehold::core::address::{Address, BlockSize, Cidr, Family};
use leasehold::core::ids::{Link, OrderId, Revision};
use leasehold::core::keys::{BLOCKS, PoolFamily};
use leasehold::core::leaseholder::{Effect, Leased, Leaseholder, NodeIdentity, Order, Withheld};
use leasehold::core::time::BootTime;
use leasehold::core::time::UnixTime;
use leasehold::core::txn::{Answer, Compare, Request, Span, StoreError, Txn, TxnOutcome, Write};
use leasehold::core::value::{BlockStatus, Value};
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
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { store, runtime, _dir: dir }
    }

    fn ask(&self, request: Request) -> Result<Answer, StoreError> {
        self.runtime.block_on(self.store.ask(request))
    }

    fn txn(&self, txn: Txn) -> TxnOutcome {
        match self.ask(Request::Txn(txn)).expect("an answer") {
            Answer::Txn(outcome) => outcome,
            other => panic!("{other:?} to a transaction"),
        }
    }

    /// The revision of a transaction that must be carried out.
    fn done(&self, txn: Txn) -> Revision {
        match self.txn(txn) {
            TxnOutcome::Done(revision) => revision,
            TxnOutcome::Refused(_) => panic!("the transaction is refused"),
        }
    }

    /// Keys under a prefix, with their revisions.
    fn keys(&self, prefix: &str) -> Vec<(String, Revision)> {
        let span = Span::prefix(prefix, usize::MAX);
        match self.ask(Request::Read(vec![span])).expect("an answer") {
            Answer::Read(snapshot) => {
                let keys = snapshot.spans.into_iter().flatten();
                keys.map(|found| (found.key, found.mod_revision)).collect()
            }
            other => panic!("{other:?} to a read"),
        }
    }

    fn value(&self, key: &str) -> Value {
        match self.ask(Request::Read(vec![Span::key(key)])).expect("an answer") {
            Answer::Read(snapshot) => snapshot.spans[0][0].value.clone(),
            other => panic!("{other:?} to a read"),
        }
    }

    /// Starts a daemon of a node with the content of its journal, which joins.
    fn start(&self, node: &str, chain: Option<Link>, blocks: &[Cidr]) -> Daemon<'_> {
        let me = NodeIdentity {
            records_awaited: false,
            node: node.into(),
            machine_id: None,
            identity: None,
            boot_id: "boot".into(),
            version: "".into(),
            since: UnixTime::from_millis(0),
            ttl: Duration::from_secs(30),
            offline_limit: None,
            keeps_after_reboot: false,
            records: true,
        };
        let blocks = blocks.iter().map(|&run| (pool(), run));
        let core =
            Leaseholder::new(me, (chain, chain), blocks, Withheld::default(), UnixTime::EPOCH);
        let mut daemon = Daemon { world: self, core, now: BootTime::BOOT, chain };
        daemon.core.start(BootTime::BOOT);
        let said = daemon.drive();
        assert!(daemon.core.is_member(), "{said:?}");
        daemon
    }
}

struct Daemon<'a> {
    world: &'a World,
    core: Leaseholder,
    now: BootTime,
    /// The sequence of the chain in its journal.
    chain: Option<Link>,
}

impl Daemon<'_> {
    /// Asks the store until there are no requests left. Returns the other effects of the machine.
    fn drive(&mut self) -> Vec<Effect> {
        let mut said = Vec::new();
        while let Some(effect) = self.core.poll_effect() {
            self.now = self.now + Duration::from_millis(1);
            match effect {
                Effect::Store(id, request) => {
                    let answer = self.world.ask(request);
                    self.core.answered(self.now, id, answer);
                }
                Effect::Watch(_) | Effect::RecordsListed(..) => {}
                Effect::Intend(link) => self.core.intended(self.now, link),
                Effect::Reached(link) => self.chain = Some(link),
                effect => said.push(effect),
            }
        }
        said
    }

    fn order(&mut self, order: Order) -> Vec<Effect> {
        self.core.order(self.now, ORDER, order);
        self.drive()
    }

    fn claim(&mut self, pool: PoolFamily, cidrs: &[Cidr]) -> Vec<Effect> {
        let claim = cidrs.iter().map(|&run| (run, BlockStatus::Active)).collect();
        self.order(Order::Lease { pool, activate: vec![], claim })
    }

    fn claims(&mut self, pool: PoolFamily, cidrs: &[Cidr]) {
        let said = self.claim(pool, cidrs);
        assert_eq!(said, [Effect::Leased(ORDER, Leased::Done)], "{cidrs:?}");
    }

    fn give_back(&mut self, run: Cidr) -> Vec<Effect> {
        self.order(Order::GiveBack { pool: pool(), cidrs: vec![run] })
    }
}

/// The number of every order.
const ORDER: Option<OrderId> = Some(OrderId::FIRST);

fn pool() -> PoolFamily {
    PoolFamily { network: "net".into(), family: Family::V4 }
}

fn run(first: &str, size_log2: u8) -> Cidr {
    let first = Address::of(first.parse().expect("an address"));
    Cidr::containing(first, BlockSize::of_log2(size_log2))
}

#[test]
fn a_claim_that_overlaps_a_block_is_refused_and_changes_nothing() {
    let world = World::new();
    let (mut one, mut two) = (world.start("one", None, &[]), world.start("two", None, &[]));
    let taken = run("10.0.0.64", 4);
    one.claims(pool(), &[taken]);
    let before = world.keys(BLOCKS);
    for overlapping in [
        vec![taken],
        vec![run("10.0.0.64", 5)],
        vec![run("10.0.0.0", 7)],
        // A part of it, at any place in it.
        vec![run("10.0.0.64", 2)],
        vec![run("10.0.0.76", 2)],
        // One of several is enough, at any place.
        vec![run("10.0.1.0", 4), run("10.0.0.64", 4)],
    ] {
        let said = two.claim(pool(), &overlapping);
        let [Effect::Leased(ORDER, Leased::Conflict { others, gone })] = &said[..] else {
            panic!("{overlapping:?}: {said:?}")
        };
        assert_eq!((&others[..], &gone[..]), (&[taken][..], &[][..]), "{overlapping:?}");
        assert_eq!(world.keys(BLOCKS), before, "{overlapping:?}");
    }
    two.claims(pool(), &[run("10.0.0.48", 4), run("10.0.0.80", 4)]);
    two.claims(PoolFamily { network: "net2".into(), family: Family::V4 }, &[taken]);
    assert_eq!(world.keys(BLOCKS).len(), 4);
}

#[test]
fn a_daemon_that_is_not_the_nodes_newest_changes_nothing() {
    let (kept, other) = (run("10.0.0.0", 4), run("10.0.0.16", 4));
    let orders: [fn(&mut Daemon<'_>) -> Vec<Effect>; 2] =
        [|old| old.claim(pool(), &[run("10.0.0.16", 4)]), |old| old.give_back(run("10.0.0.0", 4))];
    for order in orders {
        let world = World::new();
        let mut old = world.start("node", None, &[]);
        old.claims(pool(), &[kept]);
        let mut new = world.start("node", old.chain, &[kept]);
        let before = (world.keys(BLOCKS), world.keys("nodes/"));
        let said = order(&mut old);
        let halted = |effect: &Effect| matches!(effect, Effect::Halted(Some(_)));
        assert!(said.iter().any(halted) && old.core.is_fenced(), "{said:?}");
        assert_eq!((world.keys(BLOCKS), world.keys("nodes/")), before);
        new.claims(pool(), &[other]);
        assert_eq!(new.give_back(kept), [Effect::GivenBack(ORDER, true)]);
        let left: Vec<String> = world.keys(BLOCKS).into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, [pool().block_key(other.first())]);
    }
}

#[test]
fn a_block_that_changed_hands_is_not_given_back() {
    let world = World::new();
    let (mut one, mut two) = (world.start("one", None, &[]), world.start("two", None, &[]));
    let block = run("10.0.0.0", 4);
    one.claims(pool(), &[block]);
    assert_eq!(one.give_back(block), [Effect::GivenBack(ORDER, true)]);
    two.claims(pool(), &[block]);
    let before = world.keys(BLOCKS);
    one.give_back(block);
    assert_eq!(world.keys(BLOCKS), before);
    // Not even by a daemon whose journal has the block as its own: it learns that it is not.
    let mut again = world.start("one", one.chain, &[block]);
    assert_eq!(again.core.lost(), 1);
    again.give_back(block);
    assert_eq!(world.keys(BLOCKS), before);
    // Nor by one that learns it only when it gives the block back: its key changed hands under it.
    let mut third = world.start("third", None, &[]);
    let taken = run("10.0.0.16", 4);
    third.claims(pool(), &[taken]);
    let key = pool().block_key(taken.first());
    let (was, node) = (world.keys(BLOCKS), world.keys("nodes/"));
    let value = world.value(&key);
    world.done(Txn { when: vec![], then: vec![Write::Put(key, value, None)] });
    let said = third.give_back(taken);
    assert!(said.contains(&Effect::Lost(pool(), vec![taken])), "{said:?}");
    assert_eq!(world.keys(BLOCKS).len(), was.len());
    assert_eq!(world.keys("nodes/"), node, "nothing was carried out");
}

#[test]
fn a_transaction_is_carried_out_whole_or_not_at_all() {
    let world = World::new();
    let put = |key: &str| {
        Write::Put(format!("drains/{key}"), Value::Flag(UnixTime::from_millis(0)), None)
    };
    let compare = |key: &str, revision| Compare::At(format!("drains/{key}"), revision);
    let absent = |key: &str| Compare::Absent(format!("drains/{key}"));
    let delete = |key: &str| Write::Delete(format!("drains/{key}"));
    let first = world.done(Txn { when: vec![absent("a")], then: vec![put("a"), put("ab")] });
    let both = vec![absent("b"), absent("a")];
    let refused = world.txn(Txn { when: both, then: vec![put("b")] });
    assert_eq!(refused, TxnOutcome::Refused(first));
    let second = world.done(Txn {
        when: vec![compare("a", first), absent("b")],
        then: vec![put("b"), delete("a"), delete("never")],
    });
    assert!(second > first);
    let left = [("drains/ab".to_owned(), first), ("drains/b".to_owned(), second)];
    assert_eq!(world.keys("drains/"), left);
}
