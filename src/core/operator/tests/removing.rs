//! Removals in which every request is answered.

use std::time::Duration;

use super::*;
use crate::core::ids::Epoch;
use crate::core::keys::{NODES, forgotten_key};
use crate::core::mutant::{Mutant, breaks};
use crate::core::operator::{NodeFate, RemoveError, Removed};
use crate::core::time::UnixTime;
use crate::limits;

impl World {
    /// Asserts that the node is removed: all blocks that it handed addresses out of are in
    /// quarantine.
    pub(super) fn assert_removed(&mut self, epoch_above: u64) {
        let node = self.node("n").expect("a key");
        assert!(node.epoch.get() > epoch_above && node.removed.is_some(), "{node:?}");
        let blocks = self.blocks("n");
        assert_eq!(blocks.len(), 130);
        for (start, status, lease) in blocks {
            let left = lease.and_then(|lease| self.left(lease));
            assert_eq!(status, BlockStatus::Quarantined, "{start}");
            assert!(left.is_some_and(|left| left >= 60), "{start}: {left:?}");
        }
        assert_eq!((self.records("n"), self.records("other")), (0, 1));
        assert_eq!(self.blocks("other"), [(0, BlockStatus::Active, None)]);
        assert_eq!(self.key("drains/n"), None);
        assert_eq!(self.key("sessions/n"), None);
    }

    /// Returns the leases on which there is nothing.
    pub(super) fn idle_leases(&mut self) -> Vec<LeaseId> {
        let all = Span { first: "a".into(), past: "z".into(), limit: usize::MAX };
        let used: Vec<_> = self.etcd.read(&all).into_iter().filter_map(|key| key.lease).collect();
        self.leases().into_iter().filter(|lease| !used.contains(lease)).collect()
    }
}

#[test]
fn a_dead_node_is_removed_and_then_forgotten() {
    let mut world = World::with_dead_node();
    let removed = world.run(removal());
    let expected = Removed {
        fate: NodeFate::Removed,
        epoch: Epoch::new(2),
        quarantined: 130,
        freed: 2,
        quarantine: Duration::from_secs(300),
        records: 3,
        was_live: false,
        last_write: Some(UnixTime::from_millis(700)),
    };
    assert_eq!(removed, Ok(expected.clone()));
    world.assert_removed(1);
    // Two transactions for the blocks, one for the records.
    assert_eq!(world.requests.iter().filter(|request| is_txn(request)).count(), 3);
    let again = Removed {
        fate: NodeFate::AlreadyRemoved,
        epoch: Epoch::new(3),
        freed: 0,
        records: 0,
        ..expected
    };
    let again = Removed { last_write: Some(UnixTime::from_millis(500)), ..again };
    assert_eq!(world.run(removal()), Ok(again.clone()));
    world.assert_removed(2);
    assert_eq!(world.idle_leases().len(), 0);

    world.now += 300_000 + 1_000;
    let forgotten = Removed { fate: NodeFate::Forgotten, quarantined: 0, ..again };
    assert_eq!(world.run(removal()), Ok(forgotten));
    assert_eq!(world.node("n"), None);
    let copy = world.key(&forgotten_key("n")).expect("a copy of its key");
    assert!(matches!(&copy.value, Value::Node(node) if node.epoch.get() == 3), "{copy:?}");
    assert_eq!(copy.lease.and_then(|lease| world.left(lease)), Some(limits::FORGOTTEN.as_secs()));
    assert_eq!(world.run(removal()), Err(RemoveError::UnknownNode));
}

#[test]
fn the_quarantine_lasts_from_when_the_last_block_is_in_it() {
    let mut world = World::with_dead_node();
    let slow = |world: &mut World, _, request: &Request| {
        world.now += if is_txn(request) { 100_000 } else { 0 };
        Fault::None
    };
    assert!(world.run_with(removal(), slow).is_ok());
    world.now -= 100_000; // the records were deleted after that
    let lease = world.blocks("n")[0].2.expect("a lease");
    assert_eq!(world.left(lease), Some(300));
    // Slower still, it is over before it has begun, and the command says so.
    let mut world = World::with_dead_node();
    let slower = |world: &mut World, _, request: &Request| {
        world.now += if is_txn(request) { 301_000 } else { 0 };
        Fault::None
    };
    assert_eq!(world.run_with(removal(), slower), Err(RemoveError::Busy));
    let stops = |world: &mut World, _, request: &Request| {
        world.now += if matches!(request, Request::KeepAlive(_)) { 301_000 } else { 0 };
        Fault::None
    };
    assert_eq!(world.run_with(removal(), stops), Err(RemoveError::QuarantineOver));
    assert_eq!(world.idle_leases().len(), 0);
}

#[test]
fn nodes_that_must_not_be_removed_are_not() {
    let dead = World::with_dead_node;
    let live = || {
        let mut world = dead();
        world.join("n");
        world
    };
    let unreadable = || {
        let mut world = dead();
        let value = Value::Unreadable("no JSON".into());
        world.txn(vec![], vec![Write::Put(node_key("n"), value, None)]);
        world
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let bounds = RemoveError::Quarantine(Duration::from_secs(60), Duration::from_secs(24 * 3600));
    let force = RemoveNodeCommand { force: true, ..command() };
    let local = RemoveNodeCommand { local: true, ..command() };
    for (mut world, command, error) in [
        (dead(), RemoveNodeCommand { node: "m".into(), ..force.clone() }, RemoveError::UnknownNode),
        (dead(), local, RemoveError::Local),
        (live(), command(), RemoveError::Live),
        (unreadable(), force.clone(), RemoveError::Unreadable),
        (dead(), RemoveNodeCommand { quarantine: seconds(59), ..force.clone() }, bounds.clone()),
        (dead(), RemoveNodeCommand { quarantine: seconds(86_401), ..force.clone() }, bounds),
    ] {
        assert_eq!(world.run(RemoveNode::new(command)), Err(error));
        assert!(world.requests.iter().all(|request| matches!(request, Request::Read(_))));
    }
    let mut live = live();
    let removed = live.run(RemoveNode::new(RemoveNodeCommand { local: true, ..force }));
    assert!(removed.is_ok_and(|removed| removed.was_live && removed.fate == NodeFate::Removed));
    live.assert_removed(2);
}

#[test]
fn a_hook_removes_the_machine_that_it_means_and_may_repeat_itself() {
    let meant =
        |machine: &str| RemoveNodeCommand { incarnation: Some(machine.into()), ..command() };
    let fate = |world: &mut World, machine: &str| {
        world.run(RemoveNode::new(meant(machine))).map(|removed| removed.fate)
    };
    let mut world = World::with_dead_node();
    assert_eq!(fate(&mut world, "other"), Ok(NodeFate::Succeeded));
    assert!(world.requests.iter().all(|request| matches!(request, Request::Read(_))));
    assert_eq!(fate(&mut world, "m"), Ok(NodeFate::Removed));
    assert_eq!(fate(&mut world, "m"), Ok(NodeFate::AlreadyRemoved));
    assert_eq!(fate(&mut world, "other"), Ok(NodeFate::Succeeded));
    world.assert_removed(2);

    // Nothing is left of a node that the cluster has forgotten: that is what the hook wants.
    assert_eq!(fate(&mut World::new(), "m"), Ok(NodeFate::Forgotten));
    assert_eq!(World::new().run(removal()), Err(RemoveError::UnknownNode));
}

#[test]
fn a_machine_that_takes_the_name_while_the_hook_looks_is_not_hit() {
    let mut world = World::with_dead_node();
    let command = RemoveNodeCommand { incarnation: Some("m".into()), force: true, ..command() };
    let end = world.run_with(RemoveNode::new(command), |world, _, request| {
        if is_txn(request)
            && world.node("n").is_some_and(|node| node.machine_id.as_deref() == Some("m"))
        {
            world.join_as("n", "new");
        }
        Fault::None
    });
    assert_eq!(end.map(|removed| removed.fate), Ok(NodeFate::Succeeded));
    assert!(world.node("n").is_some_and(|node| node.removed.is_none()));
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    for force in [false, true] {
        let mut world = World::with_dead_node();
        let dry_run = RemoveNodeCommand { dry_run: true, force, ..command() };
        let would = world.run(RemoveNode::new(dry_run));
        assert!(world.requests.iter().all(|request| matches!(request, Request::Read(_))));
        assert_eq!(would, world.run(removal()));
    }
}

#[test]
fn spares_alone_need_no_quarantine() {
    let mut world = World::new();
    world.join("n");
    world.hold("n", [8, 16], BlockStatus::Spare);
    world.dies("n");
    let removed = world.run(removal()).expect("it is removed");
    assert_eq!((removed.freed, removed.quarantined), (2, 0));
    let leased = |request: &Request| matches!(request, Request::Grant(_) | Request::KeepAlive(_));
    assert!(!world.requests.iter().any(leased), "{:?}", world.requests);
}

#[test]
fn blocks_of_a_node_without_a_key_are_taken_too() {
    let mut world = World::new();
    world.hold("n", [8], BlockStatus::Active);
    let removed = world.run(removal()).expect("it is removed");
    assert_eq!(
        (removed.fate, removed.epoch, removed.quarantined),
        (NodeFate::Removed, Some(Epoch::FIRST), 1)
    );
    assert!(matches!(world.blocks("n")[..], [(8, BlockStatus::Quarantined, Some(_))]));
}

#[test]
fn a_block_that_is_claimed_between_two_pages_is_taken_too() {
    let mut world = World::with_dead_node();
    // Enough that they are listed in two pages, with those of the node in the first.
    let others = (0..limits::KEYS_PER_READ_MAX as u128).map(|i| 100_000 + 8 * i);
    world.hold("other", others, BlockStatus::Active);
    let mut pages = 0;
    let removed = world.run_with(removal(), |world, _, request| {
        pages += usize::from(matches!(request, Request::Read(spans) if spans[0].limit > 1));
        // The session that it had when it claimed is gone again: it stays unnoticed.
        if pages == 2 && world.blocks("n").len() == 132 {
            world.claim("n", 24, BlockStatus::Active);
        }
        Fault::None
    });
    assert_eq!(removed.map(|removed| removed.quarantined), Ok(131));
    assert_eq!(pages, 6, "it looks twice");
    let taken = |(_, status, lease): &(_, BlockStatus, Option<_>)| {
        *status == BlockStatus::Quarantined && lease.is_some()
    };
    assert!(world.blocks("n").iter().all(taken), "{:?}", world.blocks("n"));
    assert_eq!(world.idle_leases().len(), 0);
}

#[test]
fn a_node_that_comes_back_in_the_middle_keeps_what_it_takes_back() {
    let mut ends = Vec::new();
    for at in 0..100 {
        let mut world = World::with_dead_node();
        let mut came = None;
        let end = world.run_with(removal(), |world, number, _| {
            if number == at {
                world.join("n");
                came = Some((world.node("n"), world.blocks("n")));
            }
            Fault::None
        });
        let Some(came) = came else { break };
        assert_eq!((world.node("n"), world.blocks("n")), came, "at {at}");
        let free = came.1.iter().filter(|(_, status, _)| *status == BlockStatus::Quarantined);
        assert_eq!(free.count(), 0, "at {at}");
        // Nothing may be left on a lease that is in use.
        let used = end != Err(RemoveError::Live);
        assert!(world.idle_leases().len() <= usize::from(used), "at {at}: {end:?}");
        ends.push(end.map(|removed| removed.fate));
    }
    // Key and session, blocks, records, lease and beginning; the rest; and at last the records.
    ends.dedup();
    let expected = [Err(RemoveError::Live), Err(RemoveError::CameBack)];
    assert_eq!(ends, expected);
}

#[test]
fn a_node_that_claims_and_claims_is_not_removed() {
    let mut world = World::with_dead_node();
    world.join("n");
    let mut next = 100_000;
    let end = world.run_with(forced(), |world, _, request| {
        if is_txn(request) {
            next += 8;
            world.claim("n", next, BlockStatus::Active);
        }
        Fault::None
    });
    assert_eq!(end, Err(RemoveError::Busy));
    let tries = usize::try_from(limits::CHANGE_TRIES_MAX).unwrap();
    assert_eq!(world.blocks("n").len(), 132 + tries);
    let kept = |(_, status, _): &(_, BlockStatus, _)| *status != BlockStatus::Quarantined;
    assert!(world.blocks("n").iter().all(kept));
    assert_eq!(world.idle_leases().len(), 0);
}

#[test]
fn a_second_removal_shortens_a_quarantine_and_never_prolongs_it() {
    let with = |seconds: Option<u64>| {
        let quarantine = seconds.map(Duration::from_secs);
        RemoveNode::new(RemoveNodeCommand { quarantine, ..command() })
    };
    for (first, second, left) in [
        (Some(3_600), Some(60), 60),
        (Some(3_600), Some(3_000), 3_000),
        (Some(3_600), Some(3_599), 3_500),
        (Some(3_600), Some(7_200), 3_500),
        (Some(3_600), None, 3_500),
        (None, Some(120), 120),
    ] {
        let mut world = World::with_dead_node();
        assert!(world.run(with(first)).is_ok());
        world.now += 100_000;
        let again = world.run(with(second)).expect("an answer");
        assert_eq!((again.fate, again.quarantined), (NodeFate::AlreadyRemoved, 130));
        let mut leases: Vec<_> = world.blocks("n").into_iter().map(|(.., lease)| lease).collect();
        leases.dedup();
        let [Some(lease)] = leases[..] else { panic!("{leases:?}") };
        assert_eq!(world.left(lease), Some(left), "{first:?} {second:?}");
        world.now += left * 1000 + 1;
        world.etcd.expire(world.now);
        assert_eq!(world.blocks("n"), []);
    }
}

#[test]
fn a_quarantined_block_without_a_lease_gets_an_end() {
    let mut world = World::with_dead_node();
    assert!(world.run(removal()).is_ok());
    world.hold("n", [800], BlockStatus::Quarantined);
    assert!(world.run(removal()).is_ok_and(|removed| removed.fate == NodeFate::AlreadyRemoved));
    world.assert_removed(2);
}

#[test]
fn broken_rules_break_what_they_say() {
    breaks(Some(Mutant::RemovalFreesBlocks));
    let mut world = World::with_dead_node();
    assert!(world.run(removal()).is_ok());
    assert_eq!((world.blocks("n"), world.node("n").map(|n| n.epoch)), (vec![], Epoch::new(2)));
    breaks(Some(Mutant::RemovalKeepsEpoch));
    let mut world = World::with_dead_node();
    let before = world.etcd.read(&Span::prefix(NODES, 10));
    assert!(world.run(removal()).is_ok());
    breaks(None);
    assert_eq!(world.etcd.read(&Span::prefix(NODES, 10)), before);
    assert_eq!(world.blocks("n").len(), 130);
}
