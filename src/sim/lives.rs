//! Nodes that come and go: what they leave behind, and what a restart costs.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::time::Duration;

use super::disk::Disk;
use super::node::Daemon;
use super::plan::{Plan, calm_in, subnet};
use super::stories::run_containers;
use super::world::World;
use crate::core::address::Address;
use crate::core::block::{Block, BlockState};
use crate::core::keys::{ALLOCATIONS, BLOCKS};
use crate::core::mutant::{Mutant, breaks};
use crate::core::node::RangeSetMachine;
use crate::core::txn::Span;
use crate::core::value::{BlockStatus, Value};

impl World {
    /// Puts a machine that never was there in the place of one that has gone, and starts it.
    fn replace(&mut self, node: usize, name: String) {
        let settings = self.plan.settings;
        let of = &mut self.nodes[node];
        assert!(of.daemon.is_none(), "{name} comes in place of a node that runs");
        of.disk = Disk::new(name.into(), settings, &self.plan);
        of.leaves = false;
        self.start(node);
        self.join(node);
    }

    /// Waits until a node is a member.
    fn join(&mut self, node: usize) {
        while !self.nodes[node].daemon.as_ref().is_some_and(Daemon::is_member) {
            self.settle_for(10);
        }
    }

    /// Ends a daemon in order, for good.
    fn end(&mut self, node: usize) {
        self.nodes[node].leaves = true;
        self.stop(node);
        while self.nodes[node].daemon.is_some() {
            self.settle_for(10);
        }
    }

    /// Returns the blocks in the store, as owner and status.
    fn stored_blocks(&self) -> Vec<(String, BlockStatus)> {
        let keys = self.etcd.read(&Span::prefix(BLOCKS, usize::MAX)).into_iter();
        let block = |value| match value {
            Value::Block(block) => (block.owner.to_string(), block.status),
            other => panic!("{other:?} is no block"),
        };
        keys.map(|key| block(key.value)).collect()
    }

    /// Returns the first addresses of the active blocks that a node has in hand.
    fn active(&self, node: usize) -> BTreeSet<Address> {
        let sets = self.nodes[node].daemon.iter().flat_map(|daemon| daemon.sets.values());
        let active = |block: &&Block| block.state() == BlockState::Active;
        sets.flat_map(RangeSetMachine::blocks).filter(active).map(|of| of.cidr().first()).collect()
    }
}

/// Short lives: each node has a new name, runs some containers, and ends in order. Some daemons are
/// killed while they stop, and start again. `LEASEHOLD_LIVES` says how many nodes live.
#[test]
fn nodes_that_come_and_go_leave_nothing_behind() {
    let lives = std::env::var("LEASEHOLD_LIVES").ok().and_then(|text| text.parse().ok());
    let lives: u32 = lives.unwrap_or(300);
    let mut plan = calm_in(subnet("10.0.0.0/16", None), 2);
    plan.settings.cooldown = Duration::from_secs(30);
    let mut world = World::new(1, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 3);
    world.end(1);
    let (mut pods, mut kills, mut most) = (0, 0, 0);
    for life in 0..lives {
        world.steps = 0;
        world.replace(1, format!("short-{life}"));
        for _ in 0..world.rng.usize(1..4) {
            run_containers(&mut world, 1, 1);
            pods += 1;
        }
        let here: Vec<u64> =
            world.containers.iter().filter(|(_, of)| of.node == 1).map(|(id, _)| *id).collect();
        here.into_iter().for_each(|id| world.delete(id));
        world.settle_for(100);
        if life % 20 == 7 {
            world.nodes[1].leaves = true; // nobody but this test starts it
            world.stop(1);
            let moment = world.rng.u64(0..30);
            world.settle_for(moment);
            world.crash(1);
            world.nodes[1].leaves = false;
            world.start(1);
            world.join(1);
            kills += 1;
        }
        world.end(1);
        most = most.max(world.stored_blocks().len());
    }
    world.settle_for(65_000);
    let left = world.stored_blocks();
    println!("{lives} lives, {pods} pods, {kills} killed while stopping; {most} blocks at most");
    assert!(left.iter().all(|(owner, _)| owner == "n0"), "left behind: {left:?}");
    assert_eq!(world.etcd.read(&Span::prefix(ALLOCATIONS, usize::MAX)).len(), 3);
    assert_eq!(world.held(), 3);
}

/// A small pool is full of blocks whose addresses still cool, of nodes that have just ended. The
/// node that stays gets every one of them.
#[test]
fn a_node_with_nothing_else_left_takes_what_others_parked() {
    let mut plan = calm_in(subnet("10.0.0.0/24", None), 2);
    (plan.settings.cooldown, plan.settings.min_free) = (Duration::from_secs(600), 32);
    let mut world = World::new(1, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 1);
    world.end(1);
    for life in 0..30 {
        world.replace(1, format!("short-{life}"));
        run_containers(&mut world, 1, 1);
        let id = *world.containers.keys().max().expect("a container runs");
        world.delete(id);
        world.settle_for(100);
        world.end(1);
    }
    let parked = world.stored_blocks().iter().filter(|of| of.1 == BlockStatus::Parked).count();
    assert!(parked > 10, "{parked} blocks are parked");
    run_containers(&mut world, 0, 253 - 1);
    assert_eq!(world.held(), 253);
}

/// A daemon that starts again within seconds has its blocks, for no more transactions than before
/// daemons parked blocks, and while their addresses cool on.
#[test]
fn a_quick_restart_keeps_its_blocks() {
    let mut plan = calm_in(subnet("10.0.0.0/16", None), 2);
    plan.settings.cooldown = Duration::from_secs(30);
    let mut world = World::new(4, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 200);
    let ids: Vec<u64> = world.containers.keys().copied().collect();
    ids.iter().take(150).for_each(|&id| world.delete(id));
    world.settle_for(5_000);
    let (before, blocks) = (world.etcd.counters, world.active(0));
    world.end(0);
    let parked = world.stored_blocks().iter().filter(|of| of.1 == BlockStatus::Parked).count();
    world.settle_for(3_000);
    world.nodes[0].leaves = false;
    world.start(0);
    world.join(0);
    assert_eq!(world.active(0), blocks, "the restarted daemon has the blocks that it had");
    world.settle_for(30_000);
    let txns = world.etcd.counters.txns - before.txns;
    println!("{parked} of {} blocks parked; {txns} transactions", blocks.len());
    assert!(parked > 0, "nothing was parked");
    // Before, these were a registration and a session that was written again.
    assert_eq!(txns, 2, "blocks are parked, and taken back by the registration");
    assert!(world.stored_blocks().iter().all(|of| of.1 != BlockStatus::Parked));
    let changes = world.etcd.counters.block_txns;
    run_containers(&mut world, 0, 40);
    assert_eq!(world.etcd.counters.block_txns, changes, "blocks had to be leased again");
}

/// A node stops while its journal says that addresses may be handed out of what it gives back
/// (broken), another node takes that, and the first one starts while it cannot reach the store.
#[test]
fn a_parked_block_is_handed_out_by_one_node() {
    park_take_and_start();
    breaks(Some(Mutant::ParkBeforeJournal));
    let broken = catch_unwind(park_take_and_start);
    breaks(None);
    assert!(broken.is_err(), "the story ends well without the rule");
}

fn park_take_and_start() {
    let plan = Plan { containers: 0, ..calm_in(subnet("10.0.0.0/28", Some(2)), 2) };
    let mut world = World::new(3, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 6);
    world.delete_all();
    world.settle_for(2_000);
    world.end(0);
    run_containers(&mut world, 1, 13); // every address of the pool
    world.nodes[0].leaves = false;
    world.nodes[0].cut = true;
    world.start(0);
    world.settle_for(1_000);
    for _ in 0..4 {
        world.add(0, None); // panics when an address is held twice
        world.settle_for(2_000);
    }
    world.heal(0);
    world.settle_for(60_000);
    world.check_answered();
    assert_eq!(world.held(), 13);
}
