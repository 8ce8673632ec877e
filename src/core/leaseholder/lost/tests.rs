//! A block that was lost, and what becomes of it.

use std::time::Duration;

use super::*;
use crate::core::address::{Address, BlockSize, Family};
use crate::core::ids::{Epoch, Link, OrderId};
use crate::core::leaseholder::{NodeIdentity, Withheld};
use crate::core::time::UnixTime;
use crate::core::txn::{KeyValue, Request, Span, StoreError, Txn, Write};
use crate::core::value::{BlockValue, Value};
use crate::sim::etcd::Etcd;

const ID: OrderId = OrderId::FIRST;

/// A leaseholder and its store.
struct World {
    node: Leaseholder,
    etcd: Etcd,
    now: BootTime,
    given_back: Vec<bool>,
    regained: Vec<Cidr>,
    unparked: Vec<Cidr>,
    /// The store takes no transaction.
    refuses: bool,
}

impl World {
    /// Creates a node with these blocks, and an empty store.
    fn new(withheld: Withheld) -> Self {
        let identity = NodeIdentity::named("n");
        let node = Leaseholder::new(identity, (None, None), [], withheld, UnixTime::EPOCH);
        let (etcd, now) = (Etcd::default(), BootTime::BOOT);
        let (given_back, regained, unparked) = (vec![], vec![], vec![]);
        Self { node, etcd, now, given_back, regained, unparked, refuses: false }
    }

    /// Carries out what the node asks for. Returns with a transaction that claims the block, if
    /// there is one, before it is carried out.
    fn run(&mut self, claim: &str) -> Option<(crate::core::ids::RequestId, Request)> {
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Intend(link) => self.node.intended(self.now, link),
                Effect::GivenBack(Some(ID), done) => self.given_back.push(done),
                Effect::Regained(_, cidr) => self.regained.push(cidr),
                Effect::Unparked(_, cidr) => self.unparked.push(cidr),
                Effect::Store(id, request) => {
                    let puts = |write: &Write| matches!(write, Write::Put(key, ..) if key == claim);
                    if let Request::Txn(txn) = &request
                        && txn.then.iter().any(puts)
                    {
                        return Some((id, request));
                    }
                    self.carry_out(id, request);
                }
                _ => {}
            }
        }
        None
    }

    fn carry_out(&mut self, id: crate::core::ids::RequestId, request: Request) {
        let answer = match (self.refuses, &request) {
            (true, Request::Txn(_)) => Err(StoreError::Failed("connection refused".into())),
            _ => self.etcd.ask(self.now.as_millis(), request),
        };
        self.node.answered(self.now, id, answer);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.node.handle_timeout(self.now);
    }
}

/// The range set gives a lost block back while a claim of it is under way, and the claim is carried
/// out: the block is not this node's for ever, unknown to the range set (seed 29899).
#[test]
fn a_lost_block_is_given_back_also_while_it_is_claimed() {
    let pool = PoolFamily { network: "net".into(), family: Family::V4 };
    let block = Cidr::one(Address::new(8));
    let key = pool.block_key(block.first());
    let lost = [(pool.clone(), block)].into();
    let mut world = World::new(Withheld { lost, ..Withheld::default() });
    let value = BlockValue {
        cidr: block,
        family: Family::V4,
        owner: "other".into(),
        epoch: None,
        claim: Link::FIRST,
        status: BlockStatus::Active,
        since: UnixTime::EPOCH,
    };
    let others = vec![Write::Put(key.clone(), Value::Block(value), None)];
    world.etcd.ask(0, Request::Txn(Txn { when: vec![], then: others })).unwrap();
    world.node.start(world.now);
    assert!(world.run(&key).is_some_and(|(id, claim)| {
        world.carry_out(id, claim); // it is refused
        world.run(&key).is_none()
    }));
    assert!(world.node.is_member() && world.node.lost() == 1);
    world
        .etcd
        .ask(0, Request::Txn(Txn { when: vec![], then: vec![Write::Delete(key.clone())] }))
        .unwrap();
    world.pass(limits::RECLAIM);
    let (id, claim) = world.run(&key).expect("it claims the block");
    world.node.order(world.now, Some(ID), Order::GiveBack { pool, cidrs: vec![block] });
    world.carry_out(id, claim);
    assert!(world.run(&key).is_none());
    let stored: Vec<KeyValue> = world.etcd.read(&Span::key(&key));
    assert_eq!((stored, world.given_back), (vec![], vec![true]));
    assert_eq!((world.node.blocks().count(), world.node.lost()), (0, 0));
}

/// A spare that no range set wants goes back, also if the store cannot be asked at first: nobody
/// else knows of it, and it would be this node's for as long as its lease lives (seed 61699).
#[test]
fn a_spare_that_nobody_wants_goes_back_in_the_end() {
    let pool = PoolFamily { network: "net".into(), family: Family::V4 };
    let block = Cidr::one(Address::new(8));
    let key = pool.block_key(block.first());
    let mut world = World::new(Withheld::default());
    world.node.start(world.now);
    assert!(world.run("").is_none() && world.node.is_member());
    let claim = vec![(block, BlockStatus::Spare)];
    world.node.order(world.now, None, Order::Lease { pool: pool.clone(), activate: vec![], claim });
    assert!(world.run("").is_none());
    assert_eq!(world.etcd.read(&Span::key(&key)).len(), 1);
    world.refuses = true;
    world.node.order(world.now, None, Order::GiveBack { pool, cidrs: vec![block] });
    assert!(world.run("").is_none());
    assert_eq!(world.etcd.read(&Span::key(&key)).len(), 1);
    world.refuses = false;
    world.pass(Duration::from_secs(2));
    assert!(world.run("").is_none());
    assert_eq!(world.etcd.read(&Span::key(&key)), vec![]);
}

/// A node parked a block, and leased a larger one around it later; then an old copy of its state
/// directory was put back, in which the block is parked. It is cut out of the larger one, and the
/// range set hears that it is this node's again (seed 61523).
#[test]
fn a_parked_part_of_a_block_in_hand_is_cut_out_and_handed_out_of() {
    let pool = PoolFamily { network: "net".into(), family: Family::V4 };
    let whole = Cidr::containing(Address::new(8), BlockSize::of_log2(1));
    let [_, part] = whole.halves().unwrap();
    let parked = [(pool.clone(), part)].into();
    let mut world = World::new(Withheld { parked, ..Withheld::default() });
    let value = BlockValue {
        cidr: whole,
        family: Family::V4,
        owner: "n".into(),
        epoch: Some(Epoch::FIRST),
        claim: Link::FIRST,
        status: BlockStatus::Active,
        since: UnixTime::EPOCH,
    };
    let then = vec![Write::Put(pool.block_key(whole.first()), Value::Block(value), None)];
    world.etcd.ask(0, Request::Txn(Txn { when: vec![], then })).unwrap();
    world.node.start(world.now);
    assert!(world.run("").is_none() && world.node.is_member());
    assert_eq!((world.regained, world.unparked), (vec![part], vec![]));
    let blocks: Vec<Cidr> = world.node.blocks().map(|(_, cidr, _)| cidr).collect();
    assert_eq!(blocks, [part]);
}
