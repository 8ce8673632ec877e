//! Changes of a network's configuration. Here a configuration is the text `FIRST-LAST`: the machine
//! knows no JSON.

use super::*;
use crate::core::address::AddressRange;
use crate::core::keys::network_key;
use crate::core::leaseholder::BlockSizeError;
use crate::core::operator::{
    ChangeNetwork, ChangeNetworkCommand, ChangeNetworkError, ChangedNetwork, Expected,
    NetworkChange, NetworkObject, ObjectReader,
};
use crate::core::range::{Range, RangeSpec, Ranges};
use crate::core::value::{Geometry, NetworkValue};
use crate::limits;

type End = Result<ChangedNetwork, ChangeNetworkError>;

fn read(text: &str) -> Vec<(Family, AddressRange)> {
    let Some((first, last)) = text.split_once('-') else { return vec![] };
    let address = |text: &str| Address::of(text.trim().parse().expect("an address"));
    let range = AddressRange::new(address(first), address(last));
    range.map(|range| (Family::V4, range)).into_iter().collect()
}

const READER: ObjectReader =
    ObjectReader { ranges: read, same: |a, b| a.replace(' ', "") == b.replace(' ', "") };

fn range(last: u8) -> Range {
    let subnet = "10.0.0.0/24".parse().expect("a subnet");
    let (start, end, gateway) = (None, Some([10, 0, 0, last].into()), None);
    let (sandbox, smallflow) = (vec![], vec![]);
    let spec = RangeSpec { subnet, start, end, gateway, sandbox, smallflow };
    Range::new(spec).expect("a range")
}

/// The addresses from 10.0.0.1 to this one, with this block size, if it is given.
fn object(last: u8, size: Option<BlockSize>) -> NetworkObject {
    let sets = vec![Ranges::new(vec![range(last)], size).expect("a range set")];
    NetworkObject { text: format!("10.0.0.1-10.0.0.{last}").into(), sets }
}

fn command(object: Option<NetworkObject>) -> ChangeNetworkCommand {
    let (expected, force, used_here) = (Expected::Any, false, false);
    ChangeNetworkCommand { network: "net".into(), object, expected, force, used_here }
}

fn machine(command: ChangeNetworkCommand) -> ChangeNetwork {
    ChangeNetwork::new(command, READER)
}

fn put(last: u8) -> ChangeNetwork {
    machine(command(Some(object(last, None))))
}

fn delete() -> ChangeNetwork {
    machine(command(None))
}

impl World {
    fn store(&mut self, network: &str, ipam: Option<&str>, geometry: Vec<Geometry>) {
        let value = NetworkValue { ipam: ipam.map(Into::into), geometry };
        self.txn(vec![], vec![Write::Put(network_key(network), Value::Network(value), None)]);
    }

    fn network(&self) -> Option<(NetworkValue, Revision)> {
        let key = self.key(&network_key("net"))?;
        let Value::Network(value) = key.value else { panic!("{key:?}") };
        Some((value, key.mod_revision))
    }

    fn assert_change(&self, end: End, change: NetworkChange) {
        let revision = self.network().map(|(_, revision)| revision);
        assert_eq!(end, Ok(ChangedNetwork { change, revision }));
    }
}

fn geometry(size: BlockSize) -> Geometry {
    let [(family, range)] = read("10.0.0.1-10.0.0.254")[..] else { panic!("one range") };
    Geometry { family, block_size: size, ranges: vec![range] }
}

#[test]
fn a_configuration_is_created_changed_and_deleted() {
    let mut world = World::new();
    let end = world.run(put(10));
    world.assert_change(end, NetworkChange::Created);
    let end = world.run(put(20));
    world.assert_change(end, NetworkChange::Changed);
    world.store("net", Some("10.0.0.1 - 10.0.0.20"), vec![]);
    let writes = world.requests.iter().filter(|request| is_txn(request)).count();
    let end = world.run(put(20));
    world.assert_change(end, NetworkChange::Unchanged);
    assert_eq!(world.requests.iter().filter(|request| is_txn(request)).count(), writes);
    let end = world.run(delete());
    world.assert_change(end, NetworkChange::Deleted);
    assert_eq!(world.network(), None);
    assert_eq!(world.run(delete()), Err(ChangeNetworkError::Absent));
}

#[test]
fn what_nodes_agreed_on_outlives_a_configuration_and_binds_the_next() {
    let mut world = World::new();
    let (two, three) = (BlockSize::of_log2(2), BlockSize::of_log2(3));
    world.store("net", Some("10.0.0.1-10.0.0.254"), vec![geometry(two)]);
    let end = world.run(delete());
    world.assert_change(end, NetworkChange::Deleted);
    let left = NetworkValue { ipam: None, geometry: vec![geometry(two)] };
    assert_eq!(world.network().map(|(value, _)| value), Some(left));
    let end = world.run(machine(command(Some(object(20, Some(three))))));
    let size = BlockSizeError::Size { agreed: two, configured: three };
    assert_eq!(end, Err(ChangeNetworkError::BlockSize(0, size)));
    let end = world.run(machine(command(Some(object(20, Some(two))))));
    world.assert_change(end, NetworkChange::Created);
    assert_eq!(world.network().map(|(value, _)| value.geometry), Some(vec![geometry(two)]));
}

#[test]
fn addresses_of_another_network_are_refused_unless_it_is_forced() {
    let others = vec![
        (Some("10.0.0.20-10.0.0.30"), vec![]),
        // Without a configuration, what nodes have agreed on counts.
        (None, vec![geometry(BlockSize::ONE)]),
    ];
    for (ipam, geometry) in others {
        let mut world = World::new();
        // More than a page of networks that share nothing.
        for i in 0..limits::KEYS_PER_READ_MAX {
            world.store(&format!("a{i}"), Some("10.9.0.1-10.9.0.9"), vec![]);
        }
        world.store("other", ipam, geometry);
        let shared = vec![(range(20), "other".into())];
        assert_eq!(world.run(put(20)), Err(ChangeNetworkError::Overlaps(shared)));
        assert_eq!(world.network(), None);
        let forced = ChangeNetworkCommand { force: true, ..command(Some(object(20, None))) };
        let end = world.run(machine(forced));
        world.assert_change(end, NetworkChange::Created);
    }
}

#[test]
fn a_network_in_use_is_not_deleted_unless_it_is_forced() {
    let mut world = World::new();
    world.store("net", Some("10.0.0.1-10.0.0.9"), vec![]);
    let used_here = ChangeNetworkCommand { used_here: true, ..command(None) };
    assert_eq!(world.run(machine(used_here)), Err(ChangeNetworkError::InUse));
    world.record("another", 3);
    assert_eq!(world.run(delete()), Err(ChangeNetworkError::InUse));
    let forced = ChangeNetworkCommand { force: true, used_here: true, ..command(None) };
    let end = world.run(machine(forced));
    world.assert_change(end, NetworkChange::Deleted);
}

#[test]
fn a_change_that_names_a_revision_undoes_no_other_one() {
    let mut world = World::new();
    let at = |expected| {
        let command = ChangeNetworkCommand { expected, ..command(Some(object(20, None))) };
        machine(command)
    };
    world.store("net", Some("10.0.0.1-10.0.0.9"), vec![]);
    let revision = world.network().map(|(_, revision)| revision);
    let none = Expected::Exactly(None);
    assert_eq!(world.run(at(none)), Err(ChangeNetworkError::Moved(revision)));
    world.store("net", Some("10.0.0.1-10.0.0.9"), vec![]);
    let now = world.network().map(|(_, revision)| revision);
    let before = Expected::Exactly(revision);
    assert_eq!(world.run(at(before)), Err(ChangeNetworkError::Moved(now)));
    let end = world.run(at(Expected::Exactly(now)));
    world.assert_change(end, NetworkChange::Changed);
}

#[test]
fn a_change_whose_answer_is_lost_is_looked_up() {
    for fault in [Fault::Dropped, Fault::Unanswered, Fault::Late] {
        for deletes in [false, true] {
            let mut world = World::new();
            world.store("net", Some("10.0.0.1-10.0.0.9"), vec![]);
            let revision = world.network().map(|(_, revision)| revision);
            let object = (!deletes).then(|| object(20, None));
            // Its own change must not be taken for another one's.
            let expected = Expected::Exactly(revision);
            let change = machine(ChangeNetworkCommand { expected, ..command(object) });
            let mut faults = 0;
            let end = world.run_with(change, |_, _, request| match is_txn(request) {
                true if faults == 0 => {
                    faults += 1;
                    fault
                }
                _ => Fault::None,
            });
            let change = if deletes { NetworkChange::Deleted } else { NetworkChange::Changed };
            // Carried out after it was looked for, it is found in another's way.
            if fault == Fault::Late {
                assert!(end.is_ok() || matches!(end, Err(ChangeNetworkError::Moved(_))), "{end:?}");
            } else {
                world.assert_change(end, change);
            }
            assert_eq!(world.network().is_none(), deletes, "{fault:?}");
        }
    }
}

#[test]
fn it_gives_up_when_others_change_the_network_all_the_time() {
    let mut world = World::new();
    let mut tries = 0;
    let end = world.run_with(put(20), |world, _, request| {
        if is_txn(request) {
            tries += 1;
            world.store("net", Some("10.0.0.1-10.0.0.9"), vec![]);
        }
        Fault::None
    });
    assert_eq!((end, tries), (Err(ChangeNetworkError::Busy), limits::CHANGE_TRIES_MAX));
    let node = Value::Flag(UnixTime::from_millis(1));
    world.txn(vec![], vec![Write::Put(network_key("net"), node, None)]);
    assert_eq!(world.run(put(20)), Err(ChangeNetworkError::Unreadable));
    let failed = StoreError::Failed("down".into());
    let end = world.run_with(put(20), |_, _, _| Fault::Failed);
    assert_eq!(end, Err(ChangeNetworkError::Store(failed)));
}
