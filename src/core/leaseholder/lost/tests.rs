//! A block that was lost, and what becomes of it.

use std::time::Duration;

use super::*;
use crate::core::address::{Address, Family};
use crate::core::ids::{Link, OrderId};
use crate::core::leaseholder::{NodeIdentity, Withheld};
use crate::core::time::UnixTime;
use crate::core::txn::{KeyValue, Request, Span, Txn, Write};
use crate::core::value::{BlockValue, Value};
use crate::sim::etcd::Etcd;

const ID: OrderId = OrderId::FIRST;

/// A leaseholder and its store.
struct World {
    node: Leaseholder,
    etcd: Etcd,
    now: BootTime,
    given_back: Vec<bool>,
}

impl World {
    /// Carries out what the node asks for. Returns with a transaction that claims the block, if
    /// there is one, before it is carried out.
    fn run(&mut self, claim: &str) -> Option<(crate::core::ids::RequestId, Request)> {
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Intend(link) => self.node.intended(self.now, link),
                Effect::GivenBack(Some(ID), done) => self.given_back.push(done),
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
        let answer = self.etcd.ask(self.now.as_millis(), request);
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
    let identity = NodeIdentity {
        node: "n".into(),
        machine_id: None,
        identity: None,
        boot_id: "boot".into(),
        version: "test".into(),
        since: UnixTime::EPOCH,
        ttl: Duration::from_secs(30),
        offline_limit: None,
        keeps_after_reboot: false,
        records: true,
    };
    let withheld = Withheld { lost: [(pool.clone(), block)].into(), ..Withheld::default() };
    let node = Leaseholder::new(identity, (None, None), [], withheld, UnixTime::EPOCH);
    let (etcd, now) = (Etcd::default(), BootTime::BOOT);
    let mut world = World { node, etcd, now, given_back: vec![] };
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
