//! Fixed stories: each went wrong once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Millis;
use super::node::Daemon;
use super::plan::{calm_in, part, subnet};
use super::world::{State, World};
use crate::core::mutant::{Mutant, breaks};
use crate::limits;

/// Runs so many containers on this node; every one of them gets an address.
pub(super) fn run_containers(world: &mut World, node: usize, count: usize) {
    for _ in 0..count {
        let id = world.add(node, None);
        world.answer_of(id);
        let state = world.containers.get(&id).map(|container| container.state.clone());
        assert!(matches!(state, Some(State::Running(_))), "c{id}: {state:?}");
    }
}

/// A node vanishes and is removed; after the quarantine another node has its addresses; the node
/// comes back, and then the store, as it was before all that. Two nodes say that the same block is
/// theirs, and the last holder is right (rule 26).
#[test]
fn a_restore_gives_no_block_back_that_was_lost_before() {
    return_and_restore();
    breaks(Some(Mutant::RestoredTrusted));
    let broken = catch_unwind(return_and_restore);
    breaks(None);
    assert!(broken.is_err(), "the story ends well without the rule");
}

fn return_and_restore() {
    let mut plan = calm_in(subnet("10.0.0.0/27", Some(2)), 2);
    // What was lost is remembered while addresses of it cool.
    plan.settings.cooldown = Duration::from_secs(20);
    plan.faults = vec![(super::plan::Fault::Restore, Millis::MAX / 4)];
    let mut world = World::new(5, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 6);
    world.settle(u64::try_from(limits::TOUCH.as_millis()).unwrap() + 20_000); // backups are made
    world.vanish(0);
    world.settle_for(65_000);
    run_containers(&mut world, 1, 24);
    let is_back = |world: &World| world.nodes[0].daemon.as_ref().is_some_and(Daemon::is_member);
    while !is_back(&world) {
        world.settle_for(500);
    }
    world.settle_for(1_000);
    world.restore();
    world.settle_for(20_000);
    for _ in 0..10 {
        world.add(0, None); // panics when an address is held twice
        world.settle_for(2_000);
    }
    world.settle(200_000);
    world.check_answered();
    world.fill();
}

/// All addresses cool, on three nodes; then as many containers as there are addresses ask on one
/// node at once. Every one of them gets an address (rule 27).
#[test]
fn addresses_that_cool_elsewhere_are_found_by_all_who_ask() {
    assert_eq!(served_of_60(), 60);
    breaks(Some(Mutant::RefusalShared));
    let served = served_of_60();
    breaks(None);
    assert!(served < 60, "the story ends well without the rule");
}

/// Returns how many of 60 containers get an address.
fn served_of_60() -> usize {
    let mut plan = calm_in(subnet("10.0.0.0/26", Some(1)), 3);
    plan.settings.cooldown = Duration::from_secs(600);
    let mut world = World::new(2, plan);
    world.settle(2_000);
    for node in 0..3 {
        run_containers(&mut world, node, 20);
    }
    world.delete_all();
    world.settle(2_000);
    let calls: Vec<u64> = (0..60).map(|_| world.add(1, None)).collect();
    world.settle(15_000);
    calls.iter().filter(|id| world.containers.contains_key(id)).count()
}

/// A state directory is lost while containers run; their ADDs are repeated, and some are ended,
/// before the daemon has joined, which takes the life of the old session.
#[test]
fn calls_that_come_before_a_node_has_recovered_change_nothing_of_it() {
    for deleted in [false, true] {
        let mut world = World::new(3, calm_in(subnet("10.0.0.0/26", Some(2)), 2));
        world.settle(2_000);
        let ids: Vec<u64> = (0..6).map(|_| world.add(0, None)).collect();
        world.settle(5_000);
        world.crash(0);
        world.nodes[0].disk.lose();
        (world.nodes[0].disk.forgot, world.nodes[0].disk.is_new) = (true, true);
        world.start(0);
        for &id in &ids {
            world.settle_for(10);
            if deleted { world.delete(id) } else { world.repeat(id) }
        }
        if deleted {
            world.settle_for(1_000);
            world.crash(0);
            world.start(0);
        }
        world.settle(60_000);
        for &id in &ids {
            // A caller that was told to try again does so.
            if world.containers.get(&id).is_some_and(|of| of.state == State::Orphan) {
                world.delete(id);
            }
        }
        world.settle(10_000);
        world.check_answered();
        world.check_remembered();
        world.check_ended();
        world.fill();
    }
}

/// A restore is settled when every node has said what it holds. One that is gone keeps the others
/// waiting, and they name it, until an operator removes it.
#[test]
fn a_settling_restore_names_the_nodes_for_which_it_waits() {
    let mut plan = calm_in(subnet("10.0.0.0/26", Some(2)), 3);
    plan.faults = vec![(super::plan::Fault::Restore, Millis::MAX / 4)];
    let mut world = World::new(5, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 3);
    run_containers(&mut world, 1, 3);
    world.settle_for(u64::try_from(limits::TOUCH.as_millis()).unwrap() + 60_000);
    world.nodes[2].leaves = true;
    world.crash(2);
    run_containers(&mut world, 0, 10); // which the backup does not know
    let awaited = |world: &World| {
        let daemon = world.nodes[0].daemon.as_ref().expect("it runs");
        daemon.standing().awaited.clone()
    };
    assert_eq!(awaited(&world), None);
    world.restore();
    world.settle_for(120_000);
    assert_eq!(awaited(&world), Some(vec!["n2".into()]));
    world.remove(2, 60);
    world.settle_for(40_000);
    assert_eq!(awaited(&world), None);
    run_containers(&mut world, 1, 20);
}

/// A node that is drained while a restore is being settled gives its blocks back like any other.
#[test]
fn a_node_that_is_drained_after_a_restore_gives_its_blocks_back() {
    for after in [1_000, 5_000, 15_000, 30_000, 45_000, 70_000] {
        let took = given_back_after(Some(after));
        println!(
            "drained {after} ms after a restore: {took} ms; else {} ms",
            given_back_after(None)
        );
        assert!(took < 15_000, "{took} ms");
    }
}

/// Returns how long it takes until a drained node has no block; it is drained so long after a
/// restore, or without one.
fn given_back_after(restore: Option<Millis>) -> Millis {
    let mut plan = calm_in(subnet("10.0.0.0/26", Some(2)), 3);
    plan.faults = vec![(super::plan::Fault::Restore, Millis::MAX / 4)];
    let mut world = World::new(5, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 6);
    world.settle_for(u64::try_from(limits::TOUCH.as_millis()).unwrap() + 60_000);
    run_containers(&mut world, 0, 20);
    run_containers(&mut world, 1, 20);
    let here = |world: &World| -> Vec<u64> {
        world.containers.iter().filter(|(_, of)| of.node == 0).map(|(id, _)| *id).collect()
    };
    if let Some(after) = restore {
        world.restore();
        world.settle_for(after);
    }
    here(&world).into_iter().for_each(|id| world.delete(id));
    world.settle_for(1_000);
    let began = world.now;
    world.drain(0);
    while world.blocks(0) > 0 {
        world.settle_for(100);
        assert!(world.now < began + 300_000, "{} blocks stay", world.blocks(0));
    }
    world.now - began
}

/// A node is cut off and lives. Another one takes a block of it in which nothing is recorded
/// (broken): the node that was cut off goes on handing addresses out of it.
#[test]
fn free_addresses_of_a_silent_node_are_not_free() {
    (0..SILENCES).for_each(need_what_a_silent_node_has);
    breaks(Some(Mutant::SilentIsGone));
    let broken =
        (0..SILENCES).any(|seed| catch_unwind(|| need_what_a_silent_node_has(seed)).is_err());
    breaks(None);
    assert!(broken, "the story ends well without the rule");
}

/// The number of times that the story is told, each time with other blocks.
const SILENCES: u64 = 20;

fn need_what_a_silent_node_has(seed: u64) {
    let mut world = World::new(seed, calm_in(subnet("10.0.0.0/27", Some(2)), 2));
    world.settle(2_000);
    run_containers(&mut world, 0, 10);
    world.delete_all();
    world.settle_for(5_000); // nothing is held or recorded
    world.nodes[0].cut = true;
    world.settle_for(60_000); // longer than its session lives
    for _ in 0..30 {
        world.add(1, None); // as many as there are
        world.settle_for(500);
    }
    for _ in 0..4 {
        world.add(0, None); // panics when an address is held twice
        world.settle_for(500);
    }
    world.heal(0);
    world.settle(20_000);
    world.check_answered();
}

/// A node is asked for an address while its range sets become one, and only the one that ends has
/// one to spare. The question waits until they are one, and the node that asks is served (rule 16).
#[test]
fn a_question_waits_for_range_sets_that_become_one() {
    assert!(!(0..MOMENTS).any(is_refused_meanwhile));
}

/// The moments at which range sets become one, each a seed.
pub(super) const MOMENTS: u64 = 400;

/// Returns whether the node that asks is refused.
pub(super) fn is_refused_meanwhile(seed: u64) -> bool {
    let sets = |first, last| vec![part("10.0.0.0/28", first, last, Some(0))];
    let mut plan = calm_in(sets("10.0.0.2", "10.0.0.14").remove(0), 2);
    plan.settings.cooldown = Duration::ZERO;
    plan.between_calls = Millis::MAX / 4;
    plan.idle = 2; // a pause after every second message
    let mut world = World::new(seed, plan);
    world.settle(2_000);
    world.configuration = sets("10.0.0.2", "10.0.0.7");
    run_containers(&mut world, 0, 6);
    world.configuration = sets("10.0.0.8", "10.0.0.14");
    run_containers(&mut world, 0, 7);
    let of_high = world.containers.keys().copied().skip(6).take(4);
    of_high.collect::<Vec<_>>().into_iter().for_each(|id| world.delete(id));
    world.settle_for(100);
    world.configuration = sets("10.0.0.2", "10.0.0.14");
    world.quiet = false;
    let asks = world.add(1, None);
    world.settle_for(seed % 80);
    world.add(0, None);
    world.answer_of(asks);
    // Others may say that node 0 did not answer in time.
    world.last_error.contains("no IP addresses available")
}

/// A machine comes back after its node was removed and others have its blocks. Its daemon joins,
/// dies a moment later, and starts again without the store: it hands none of them out (rule 17).
#[test]
fn a_node_that_dies_as_it_learns_what_it_lost_hands_none_of_that_out() {
    assert!(!(0..MOMENTS).any(hands_out_what_it_lost));
}

/// Returns whether two nodes hand out one address.
pub(super) fn hands_out_what_it_lost(seed: u64) -> bool {
    let mut plan = calm_in(subnet("10.0.0.0/27", Some(2)), 2);
    plan.between_calls = Millis::MAX / 4;
    plan.idle = 2; // a pause after every second message
    plan.group_max = 1;
    let mut world = World::new(seed, plan);
    world.settle(2_000);
    run_containers(&mut world, 0, 6);
    world.vanish(0);
    world.settle_for(65_000);
    run_containers(&mut world, 1, 24);
    world.quiet = false;
    let is_back = |world: &World| world.nodes[0].daemon.as_ref().is_some_and(Daemon::is_member);
    while !is_back(&world) {
        assert!(world.step());
    }
    world.settle_for(seed % 10);
    world.crash(0);
    world.nodes[0].cut = true;
    world.start(0);
    catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..8 {
            world.add(0, None); // panics when an address is held twice
            world.settle_for(500);
        }
    }))
    .is_err()
}
