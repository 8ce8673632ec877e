//! A store that reads but refuses writes, and a copy of a machine beside the original.

use super::Millis;
use super::node::Daemon;
use super::plan::{Fault, Plan, calm_in, plan, subnet};
use super::stories::run_containers;
use super::world::{SimNode, State, World};
use crate::core::txn::{Answer, Request, StoreError};

impl World {
    /// Asks the store. While it refuses writes, it answers them as an etcd without space does: most
    /// are not carried out, and some are.
    pub(super) fn ask_store(&mut self, request: Request) -> Result<Answer, StoreError> {
        let writes = match &request {
            Request::Txn(txn) => !txn.then.is_empty(),
            Request::Grant(_) => true,
            _ => false,
        };
        if !self.refuses || !writes {
            return self.etcd.ask(self.now, request);
        }
        self.refused += 1;
        if self.rng.u32(0..8) == 0 {
            let _ = self.etcd.ask(self.now, request);
        }
        Err(StoreError::Unknown("etcdserver: mvcc: database space exceeded".into()))
    }

    /// Starts a copy of a node's machine, with its disk, in a boot of its own. Returns its number.
    fn copy_machine(&mut self, original: usize) -> usize {
        let copy = self.nodes.len();
        let mut disk = self.nodes[original].disk.clone();
        let groups = disk.journal.len();
        disk.boot += 100;
        disk.reboot(Some(groups));
        self.nodes.push(SimNode::new(disk));
        self.start(copy);
        copy
    }
}

/// Returns a plan whose calls may fail for the store's sake.
fn with_outages(mut plan: Plan) -> Plan {
    plan.faults.push((Fault::Outage, Millis::MAX / 4));
    plan
}

/// All faults happen, and for a third of the time the store refuses writes.
#[test]
fn promises_hold_while_the_store_refuses_writes() {
    let mut refused = 0;
    for seed in 0..60 {
        let mut world = World::new(seed, with_outages(plan(seed)));
        let until = world.now + world.plan.span;
        while world.now < until && world.step() {
            world.refuses = (world.now / 10_000 + seed).is_multiple_of(3);
        }
        world.refuses = false;
        world.settle(150_000);
        world.check_answered();
        world.check_remembered();
        world.check_ended();
        world.check_recorded();
        refused += world.refused;
    }
    assert!(refused > 100, "{refused} writes were refused");
}

/// Nodes that have something to write ask a store that refuses it less and less, and catch up.
#[test]
fn a_store_that_refuses_writes_is_asked_less_and_less() {
    let pool = subnet("10.0.0.0/26", Some(2));
    let mut world = World::new(7, with_outages(calm_in(pool, 2)));
    world.settle(2_000);
    run_containers(&mut world, 0, 4);
    world.refuses = true;
    world.add(0, None);
    world.settle_for(10_000);
    let before = world.refused;
    world.settle_for(60_000);
    let refused = world.refused - before;
    assert!((1..=60).contains(&refused), "{refused} writes in a minute");
    world.refuses = false;
    world.settle(20_000);
    world.check_answered();
    world.check_recorded();
    world.fill();
}

/// A machine is copied with its disk. As long as the original lives, the copy is no member and
/// hands nothing out, also while the original's daemon is started again.
#[test]
fn a_copy_of_a_machine_hands_nothing_out_while_the_original_lives() {
    for seed in 0..40 {
        let pool = subnet("10.0.0.0/27", Some(2));
        let mut world = World::new(seed, with_outages(calm_in(pool, 2)));
        world.settle(2_000);
        run_containers(&mut world, 0, 6);
        let copy = world.copy_machine(0);
        for round in 0..8 {
            world.settle_for(5_000 + 500 * seed);
            world.add(copy, None); // panics when an address is held twice
            world.add(0, None);
            if round == 4 {
                world.crash(0);
                world.start(0);
            }
            let of_copy = world.nodes[copy].daemon.as_ref();
            assert!(!of_copy.is_some_and(Daemon::is_member), "seed {seed}: it joined");
        }
        world.settle_for(20_000);
        let runs = |node: usize| {
            let here = world.containers.values().filter(|of| of.node == node);
            here.filter(|of| matches!(of.state, State::Running(_))).count()
        };
        assert_eq!((runs(copy), runs(0) > 6), (0, true), "seed {seed}");
        world.settle(20_000);
        world.check_answered();
        world.check_recorded();
    }
}
