//! Removals with lost answers, and with another operator at work.

use std::time::Duration;

use super::*;
use crate::core::ids::Epoch;
use crate::core::keys::forgotten_key;
use crate::core::operator::types::End;
use crate::core::operator::{NodeFate, RemoveError};
use crate::core::time::UnixTime;

const FAULTS: [Fault; 4] = [Fault::Failed, Fault::Dropped, Fault::Unanswered, Fault::Late];

/// Runs the command with one fault at each of its steps: `check` is given the request and the end.
fn each(start: impl Fn() -> World, mut check: impl FnMut(&mut World, Fault, &Request, bool, End)) {
    for fault in FAULTS {
        for at in 0.. {
            let mut world = start();
            let mut of = None;
            let mut begun = false;
            let end = world.run_with(removal(), |_, number, request| {
                if number < at {
                    begun |= is_txn(request);
                } else if number == at {
                    of = Some(request.clone());
                    return fault;
                }
                Fault::None
            });
            let Some(of) = of else { break };
            if let Some(late) = world.late.take() {
                let _ = world.ask(late);
            }
            check(&mut world, fault, &of, begun, end);
        }
    }
}

#[test]
fn a_removal_with_a_lost_answer_ends_well_or_can_be_repeated() {
    let mut steps = 0;
    each(World::with_dead_node, |world, fault, request, begun, end| {
        steps += 1;
        let context = format!("{fault:?}, {request:?}: {end:?}");
        match request {
            // It is looked up; and that the quarantine could not be prolonged is no error.
            Request::Txn(_) if fault != Fault::Failed => {
                let removed = end.expect(&context);
                assert_eq!(
                    (removed.fate, removed.quarantined),
                    (NodeFate::Removed, 130),
                    "{context}"
                );
                assert_eq!((removed.freed, removed.records), (2, 3), "{context}");
                assert_eq!(removed.epoch, Epoch::new(2), "{context}: it is removed once");
                world.assert_removed(1);
            }
            Request::KeepAlive(_) => assert!(end.is_ok(), "{context}"),
            _ => {
                let Err(RemoveError::Store { begun: said, .. }) = end else { panic!("{context}") };
                assert_eq!(said, begun, "{context}");
            }
        }
        // A lease stays behind only if nobody can know whether there is something on it.
        let idle = world.idle_leases().len();
        let known = fault == Fault::Failed || matches!(request, Request::Read(_));
        assert!(idle <= usize::from(!known), "{context}: {idle} leases");
        let again = world.run(removal()).expect(&context);
        assert_eq!(again.quarantined, 130, "{context}");
        world.assert_removed(1);
        assert!(world.idle_leases().len() <= idle, "{context}");
    });
    // Key and session, blocks, records, lease, two transactions, its renewal, and the records.
    assert_eq!(steps, 8 * FAULTS.len());
}

/// A lease that blocks may hang on is never released: they would be free at once.
#[test]
fn two_faults_in_a_row_end_no_quarantine() {
    let seconds = [Fault::Failed, Fault::Dropped, Fault::Unanswered];
    for (first, second) in FAULTS.into_iter().flat_map(|first| seconds.map(|s| (first, s))) {
        for (at, then) in (0..10).flat_map(|at| [(at, at + 1), (at, at + 2)]) {
            let mut world = World::with_dead_node();
            let end = world.run_with(removal(), |_, number, _| match number {
                _ if number == at => first,
                _ if number == then => second,
                _ => Fault::None,
            });
            if let Some(late) = world.late.take() {
                let _ = world.ask(late);
            }
            let context = format!("{first:?} at {at}, {second:?} at {then}: {end:?}");
            let spare = |of: &&(_, BlockStatus, _)| of.1 == BlockStatus::Spare;
            let blocks = world.blocks("n");
            let spares = blocks.iter().filter(spare).count();
            assert_eq!(blocks.len() - spares, 130, "{context}");
            assert!(world.run(removal()).is_ok(), "{context}");
            world.assert_removed(1);
        }
    }
}

#[test]
fn a_node_is_forgotten_though_an_answer_is_lost() {
    let start = || {
        let mut world = World::with_dead_node();
        assert!(world.run(removal()).is_ok());
        world.now += 301_000;
        world.record("n", 7);
        world
    };
    let mut steps = 0;
    each(start, |world, fault, request, begun, end| {
        steps += 1;
        let context = format!("{fault:?}, {request:?}: {end:?}");
        match request {
            Request::Txn(_) if fault != Fault::Failed => {
                let forgotten = end.expect(&context);
                assert_eq!(
                    (forgotten.fate, forgotten.records),
                    (NodeFate::Forgotten, 1),
                    "{context}"
                );
                assert_eq!(world.run(removal()), Err(RemoveError::UnknownNode), "{context}");
            }
            _ => {
                let Err(RemoveError::Store { begun: said, .. }) = end else { panic!("{context}") };
                assert_eq!(said, begun, "{context}");
                assert!(world.node("n").is_some(), "{context}");
                let again = world.run(removal()).expect(&context);
                assert_eq!(again.fate, NodeFate::Forgotten, "{context}");
            }
        }
        assert_eq!((world.node("n"), world.records("n")), (None, 0), "{context}");
        assert!(world.key(&forgotten_key("n")).is_some_and(|key| key.lease.is_some()), "{context}");
        let known = fault == Fault::Failed || matches!(request, Request::Read(_));
        assert!(world.idle_leases().len() <= usize::from(!known), "{context}");
    });
    // Key and session, blocks, records; the record, the lease, the key.
    assert_eq!(steps, 6 * FAULTS.len());
}

#[test]
fn a_lost_answer_is_not_asked_for_for_ever() {
    let mut world = World::with_dead_node();
    let before = world.blocks("n");
    let lost = |_: &mut World, _, request: &Request| match is_txn(request) {
        true => Fault::Dropped,
        false => Fault::None,
    };
    assert_eq!(world.run_with(removal(), lost), Err(RemoveError::Busy));
    assert_eq!(world.blocks("n"), before);
}

/// Operators take turns by chance; how each ends, in the order of their ends.
fn race(
    world: &mut World,
    mut running: Vec<(RemoveNode, Step<End>)>,
    rng: &mut fastrand::Rng,
) -> Vec<End> {
    let mut ends = Vec::new();
    while !running.is_empty() {
        let next = rng.usize(0..running.len());
        let (command, step) = &mut running[next];
        match step {
            Step::Ask(request) => {
                let answer = world.carry_out(request.clone(), Fault::None);
                *step = command.answered(answer);
            }
            Step::Done(end) => {
                ends.push(end.clone());
                running.remove(next);
            }
        }
    }
    ends
}

fn started(mut command: RemoveNode, now: UnixTime) -> (RemoveNode, Step<End>) {
    let step = command.start(now);
    (command, step)
}

#[test]
fn two_operators_at_once_do_not_disturb_each_other() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::with_dead_node();
        let quarantine = rng.bool().then_some(Duration::from_secs(60));
        let second = RemoveNode::new(RemoveNodeCommand { quarantine, ..command() });
        // Also within the same millisecond.
        let later = world.now + rng.u64(0..2);
        let running = vec![
            started(removal(), UnixTime::from_millis(world.now)),
            started(second, UnixTime::from_millis(later)),
        ];
        for end in race(&mut world, running, &mut rng) {
            assert_eq!(end.map(|removed| removed.quarantined), Ok(130), "seed {seed}");
        }
        world.assert_removed(1);
        // The blocks may have left the first lease for one that ends earlier.
        let idle = world.idle_leases().len();
        assert!(idle <= usize::from(quarantine.is_some()), "seed {seed}: {idle}");
    }
}

#[test]
fn two_operators_forget_a_node_once() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        world.join("n");
        world.hold("n", [8], BlockStatus::Spare);
        world.dies("n");
        if rng.bool() {
            assert!(world.run(removal()).is_ok());
            world.now += 1;
        }
        (0..130).for_each(|address| world.record("n", address));
        let running = [removal(), removal()]
            .map(|command| started(command, UnixTime::from_millis(world.now)));
        let ends = race(&mut world, running.to_vec(), &mut rng);
        // One that looks for the first time after the other has forgotten the node knows of none.
        let good = |end: &End| matches!(end, Ok(_) | Err(RemoveError::UnknownNode));
        assert!(ends.iter().all(good), "seed {seed}: {ends:?}");
        assert_eq!((world.blocks("n"), world.records("n")), (vec![], 0), "seed {seed}");
        assert_eq!(world.idle_leases().len(), 0, "seed {seed}");
        let forgotten = |end: &End| end.as_ref().is_ok_and(|end| end.fate == NodeFate::Forgotten);
        assert_eq!(world.node("n").is_none(), ends.iter().any(forgotten), "seed {seed}: {ends:?}");
    }
}
