//! Stories of silent nodes that forfeit what they have no record of (rule 34).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::node::Daemon;
use super::plan::{calm_in, subnet};
use super::stories::run_containers;
use super::world::World;

const OFFLINE_LIMIT: Duration = Duration::from_secs(20);

/// Returns a cluster of two nodes that wait for their records, with a pool of 29 addresses.
fn two_nodes(seed: u64) -> World {
    let mut plan = calm_in(subnet("10.0.0.0/27", Some(2)), 2);
    (plan.await_records, plan.offline_limit) = (true, Some(OFFLINE_LIMIT));
    plan.settings.cooldown = Duration::from_secs(1);
    let mut world = World::new(seed, plan);
    world.settle(2_000);
    world
}

/// Cuts the first node off until its session has ended and its limit has passed.
fn fall_silent(world: &mut World) {
    world.nodes[0].cut = true;
    while world.sessions() > 1 {
        world.settle_for(1_000);
    }
    world.settle_for(25_000);
}

/// Lets the first node try to hand out while it is cut off, and then reach the store again.
fn come_back(world: &mut World) {
    for _ in 0..4 {
        world.add(0, None); // panics when an address is held twice
        world.settle_for(500);
    }
    world.heal(0);
    world.settle(60_000);
    world.check_answered();
}

/// Returns how many of thirty more containers get an address on the second node.
fn served(world: &mut World) -> usize {
    let ids: Vec<u64> = (0..30)
        .map(|_| {
            let id = world.add(1, None);
            world.settle_for(500);
            id
        })
        .collect();
    ids.iter().filter(|id| world.containers.contains_key(id)).count()
}

/// A node is cut off for longer than its limit. The others get every address that it does not hold,
/// and none that it does. It comes back, and the pool fills to its last address.
#[test]
fn a_silent_node_forfeits_what_it_does_not_hold() {
    for seed in 0..20 {
        let mut world = two_nodes(seed);
        run_containers(&mut world, 0, 12);
        let ids: Vec<u64> = world.containers.keys().copied().step_by(2).collect();
        ids.into_iter().for_each(|id| world.delete(id));
        world.settle_for(5_000);
        fall_silent(&mut world);
        let all = served(&mut world);
        assert_eq!(all, 23, "of the 29 addresses of the pool, seed {seed}");
        come_back(&mut world);
        world.fill();
    }
}

/// A daemon that waited for its records starts again as one that does not, while it is cut off:
/// others may have its free addresses by now, so it hands none of them out.
#[test]
fn a_daemon_that_no_longer_waits_for_its_records_asks_first() {
    assert!(!(0..5).any(forgets_that_it_forfeits));
}

/// Returns whether two nodes hold one address.
pub(super) fn forgets_that_it_forfeits(seed: u64) -> bool {
    let mut world = two_nodes(seed);
    run_containers(&mut world, 0, 6);
    world.nodes[0].cut = true;
    world.settle_for(1_000);
    world.crash(0);
    world.nodes[0].disk.await_records = false;
    world.nodes[0].disk.offline_limit = None;
    fall_silent(&mut world);
    served(&mut world);
    world.start(0);
    catch_unwind(AssertUnwindSafe(|| come_back(&mut world))).is_err()
}

/// A daemon that did not wait for its records starts again as one that does, and dies soon after.
/// It has not said that it forfeits anything before all that it holds was recorded.
#[test]
fn a_node_forfeits_nothing_before_all_that_it_holds_is_recorded() {
    assert!(!(0..MOMENTS).any(forfeits_what_it_holds));
}

/// The moments at which the daemon dies.
pub(super) const MOMENTS: u64 = 100;

/// Returns whether two nodes hold one address.
pub(super) fn forfeits_what_it_holds(moment: u64) -> bool {
    let mut world = two_nodes(moment);
    world.nodes[0].disk.await_records = false;
    world.crash(0);
    world.start(0);
    world.settle(5_000);
    run_containers(&mut world, 0, 2);
    world.settle(5_000);
    world.nodes[0].cut = true;
    run_containers(&mut world, 0, 2); // which nobody records
    world.crash(0);
    world.nodes[0].disk.await_records = true;
    world.start(0);
    world.heal(0);
    world.quiet = false;
    let is_back = |world: &World| world.nodes[0].daemon.as_ref().is_some_and(Daemon::is_member);
    while !is_back(&world) {
        assert!(world.step());
    }
    for wait in 0..moment % 25 {
        if wait % 4 == 0 {
            world.add(0, None);
        }
        world.settle_for(1);
    }
    world.nodes[0].leaves = true; // what is on its way to the store lands, and nothing else
    world.crash(0);
    catch_unwind(AssertUnwindSafe(|| {
        fall_silent(&mut world);
        served(&mut world)
    }))
    .is_err()
}
