//! Networks that use the pool of another one.

use std::time::Duration;

use super::*;

/// Returns the same ADD, out of another network's pool.
pub(super) fn from(pool: &str, call: Call) -> Call {
    let Call::Add(mut add) = call else { panic!("not an ADD") };
    add.pool = pool.into();
    Call::Add(add)
}

fn held(outcome: Outcome) -> Arc<Holding> {
    let Outcome::Added(holding) = outcome else { panic!("{outcome:?}") };
    holding
}

#[test]
fn networks_share_a_pool_and_keep_their_attachments_apart() {
    let mut world = World::new(Duration::ZERO);
    // One container on two networks, and another one on the pool's own network.
    let on = |network: &str, at| {
        let Call::Add(mut add) = from("pool", add(1, 0, vec![], at)) else { panic!() };
        add.id.network = network.into();
        Call::Add(add)
    };
    let networks = ["net", "other", "pool"];
    for (at, network) in networks.into_iter().enumerate() {
        let holding = held(run(&mut world, at as u64, on(network, 100)));
        assert_eq!((&*holding.scope.network, &*holding.scope.pool), (network, "pool"));
    }
    // `check_unique` has seen that their addresses differ; there is one range set of each family.
    let pools: Vec<&str> = world.sets.values().map(|(set, _)| &*set.network).collect();
    assert_eq!(pools, ["pool", "pool"]);
    world.check_settled();
    // A GC is about one CNI network, not about the pool.
    let gc =
        Call::Gc { network: "net".into(), valid: vec![], started_at: StartTime::from_nanos(200) };
    assert!(matches!(run(&mut world, 9, gc), Outcome::Ended(1)));
    let left: Vec<&str> = world.shown.keys().map(|id| &*id.network).collect();
    assert_eq!(left, ["other", "pool"]);
    world.check_settled();
}

#[test]
fn what_is_held_goes_back_to_its_own_pool() {
    let mut world = World::new(Duration::ZERO);
    let first = held(run(&mut world, 1, from("a", add(1, 0, vec![], 100))));
    // The configuration leads elsewhere now: the answer is another pool's, and no answer.
    let moved = run(&mut world, 2, from("b", add(1, 0, vec![], 200)));
    let Outcome::Failed(error @ CallError::AlreadyHeld { .. }) = moved else { panic!("{moved:?}") };
    assert!(error.to_string().contains("another network's pool"), "{error}");
    let other = held(run(&mut world, 3, from("b", add(2, 0, vec![], 300))));
    assert_eq!(other.addresses, first.addresses, "pools know nothing of each other");
    // A DEL does not say which pool it means. After it the address is free in `a`, not in `b`.
    assert!(matches!(run(&mut world, 4, del(1, 400)), Outcome::Ended(1)));
    let free = |world: &World, pool: &str| {
        let sets = world.sets.values().filter(|(set, _)| *set.network == *pool);
        sets.map(|(_, set)| set.stats().allocated).sum::<u64>() == 0
    };
    assert_eq!((free(&world, "a"), free(&world, "b")), (true, false));
    world.check_settled();
    assert!(world.coordinator.networks.values().all(|network| network.in_flight == 0));
}
