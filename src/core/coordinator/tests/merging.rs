//! Range sets that become one.

use std::time::Duration;

use super::*;

/// Also after a restart: the journal has it under the id of a range set that no longer exists.
#[test]
fn what_cools_in_a_range_set_cools_on_when_it_has_become_part_of_another() {
    let mut world = World::new(Duration::from_secs(1_000));
    let Outcome::Added(holding) = run(&mut world, 1, add(1, 1, vec![], 100)) else { panic!() };
    assert!(matches!(run(&mut world, 2, del(1, 200)), Outcome::Ended(1)));
    assert_eq!(world.sets.len(), 2);
    assert!(matches!(run(&mut world, 3, add(2, 2, vec![], 300)), Outcome::Added(_)));
    assert_eq!(world.sets.len(), 1);
    let cools = |set: &RangeSet, address: IpAddr| {
        let number = Address::of(address);
        set.blocks().any(|block| block.cidr().contains(number) && block.is_cooling(number))
    };
    let (_, rebuilt) = world.restart();
    for &address in holding.addresses.iter() {
        assert!(world.sets.values().any(|(_, set)| cools(set, address)), "{address}");
        assert!(rebuilt.iter().any(|(_, set)| cools(set, address)), "{address} after a restart");
    }
}
