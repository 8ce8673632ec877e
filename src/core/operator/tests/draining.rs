//! Drains.

use super::*;
use crate::core::operator::{DrainError, DrainNode, DrainNodeCommand, Drained};
use crate::core::time::UnixTime;
use crate::limits;

fn drain(node: &str, undo: bool) -> DrainNode {
    DrainNode::new(DrainNodeCommand { node: node.into(), undo })
}

fn ended(undo: bool, changed: bool, live: bool) -> Result<Drained, DrainError> {
    Ok(Drained { draining: !undo, changed, live })
}

#[test]
fn a_drain_is_set_and_undone() {
    let mut world = World::new();
    world.join("n");
    assert_eq!(world.run(drain("n", true)), ended(true, false, true));
    assert_eq!(world.run(drain("n", false)), ended(false, true, true));
    let since = world.key(&drain_key("n")).expect("a drain");
    assert_eq!((since.value, since.lease), (Value::Flag(UnixTime::from_millis(world.now)), None));
    world.dies("n");
    world.now += 1000;
    assert_eq!(world.run(drain("n", false)), ended(false, false, false));
    assert_eq!(world.revision(&drain_key("n")), Some(since.mod_revision), "it keeps its time");
    assert_eq!(world.run(drain("n", true)), ended(true, true, false));
    assert_eq!(world.key(&drain_key("n")), None);
}

#[test]
fn nobody_drains_an_unknown_node() {
    let mut world = World::new();
    assert_eq!(world.run(drain("n", false)), Err(DrainError::UnknownNode));
    assert_eq!(world.run(drain("n", true)), Err(DrainError::UnknownNode));
    // One that was forgotten may have left its drain behind.
    world
        .txn(vec![], vec![Write::Put(drain_key("n"), Value::Flag(UnixTime::from_millis(1)), None)]);
    assert_eq!(world.run(drain("n", false)), Err(DrainError::UnknownNode));
    assert_eq!(world.run(drain("n", true)), ended(true, true, false));
    assert_eq!(world.run(drain("n", true)), Err(DrainError::UnknownNode));
}

#[test]
fn a_lost_answer_is_looked_up() {
    for (fault, undo) in [
        (Fault::Dropped, false),
        (Fault::Dropped, true),
        (Fault::Unanswered, false),
        (Fault::Unanswered, true),
        (Fault::Late, false),
        (Fault::Late, true),
    ] {
        let mut world = World::new();
        world.txn(
            vec![],
            vec![Write::Put(drain_key("n"), Value::Flag(UnixTime::from_millis(1)), None)],
        );
        if !undo {
            world.txn(vec![], vec![Write::Delete(drain_key("n"))]);
            world.join("n");
        }
        let mut faults = 0;
        let end = world.run_with(drain("n", undo), |_, _, request| match is_txn(request) {
            true if faults == 0 => {
                faults += 1;
                fault
            }
            _ => Fault::None,
        });
        assert_eq!(end, ended(undo, true, !undo), "{fault:?}");
        assert_eq!(world.key(&drain_key("n")).is_none(), undo, "{fault:?}");
    }
}

#[test]
fn an_error_of_the_store_says_whether_it_may_be_done() {
    let mut world = World::new();
    world.join("n");
    let failed = StoreError::Failed("down".into());
    let end = world.run_with(drain("n", false), |_, _, _| Fault::Failed);
    assert_eq!(end, Err(DrainError::Store(failed)));
    let end = world.run_with(drain("n", false), |_, number, _| match number {
        0 => Fault::None,
        1 => Fault::Unanswered,
        _ => Fault::Failed,
    });
    assert_eq!(end, Err(DrainError::Store(StoreError::Unknown("down".into()))));
}

#[test]
fn it_gives_up_when_others_change_their_minds_all_the_time() {
    let mut world = World::new();
    world.join("n");
    let mut tries = 0;
    let end = world.run_with(drain("n", false), |world, _, request| {
        if is_txn(request) {
            tries += 1;
            world.txn(
                vec![],
                vec![Write::Put(drain_key("n"), Value::Flag(UnixTime::from_millis(tries)), None)],
            );
            world.txn(vec![], vec![Write::Delete(drain_key("n"))]);
            world.txn(
                vec![],
                vec![Write::Put(drain_key("m"), Value::Flag(UnixTime::from_millis(tries)), None)],
            );
        }
        Fault::None
    });
    // Deleted again, the key has no revision: it looks as if nothing had happened.
    assert_eq!((end, tries), (ended(false, true, true), 1));
    let mut tries = 0;
    let end = world.run_with(drain("n", true), |world, _, request| {
        if is_txn(request) {
            tries += 1;
            world.txn(
                vec![],
                vec![Write::Put(drain_key("n"), Value::Flag(UnixTime::from_millis(7)), None)],
            );
        }
        Fault::None
    });
    assert_eq!((end, tries), (Err(DrainError::Busy), limits::CHANGE_TRIES_MAX));
}
