//! ADDs that are older than the daemon, and their undoing.

use super::*;

#[test]
fn an_add_from_before_the_daemon_may_try_again() {
    let mut world = World::new(Duration::ZERO);
    world.coordinator =
        Coordinator::new(settings(Duration::ZERO), false, StartTime::from_nanos(1_000));
    let old = run(&mut world, 1, add(1, 0, vec![], 999));
    assert!(matches!(old, Outcome::Failed(CallError::TooOld(_))), "{old:?}");
    assert!(matches!(run(&mut world, 2, add(1, 0, vec![], 1_000)), Outcome::Added(_)));
}

#[test]
fn an_add_that_waited_for_the_daemon_is_served_unless_its_del_came() {
    let mut world = World::new(Duration::ZERO);
    let second = 1_000_000_000;
    world.coordinator =
        Coordinator::new(settings(Duration::ZERO), false, StartTime::from_nanos(10 * second));
    let waited = |container, since| {
        let Call::Add(add) = add(container, 0, vec![], second) else { panic!() };
        Call::Add(Box::new(Add { waited_since: Some(StartTime::from_nanos(since)), ..*add }))
    };
    let late = run(&mut world, 1, waited(1, 2 * second));
    assert!(matches!(late, Outcome::Failed(CallError::TooOld(_))), "{late:?}");
    assert!(matches!(run(&mut world, 2, waited(1, second + 1)), Outcome::Added(_)));
    // The note of a DEL from meanwhile.
    run(&mut world, 3, del(2, 5 * second));
    let ended = run(&mut world, 4, waited(2, second + 1));
    assert!(matches!(ended, Outcome::Failed(CallError::Overtaken(_))), "{ended:?}");
}

#[test]
fn an_undo_ends_only_what_its_own_add_made() {
    let mut world = World::new(Duration::ZERO);
    let undo = |at| {
        let selector = HoldingSelector::MadeBy(StartTime::from_nanos(at));
        Call::Del(Del { id: id(1), selector })
    };
    assert!(matches!(run(&mut world, 1, add(1, 0, vec![], 100)), Outcome::Added(_)));
    // The same attachment again: the answer belongs to the second caller now, also after a
    // restart, and the first one cannot take it away.
    assert!(matches!(run(&mut world, 2, add(1, 0, vec![], 200)), Outcome::Added(_)));
    assert!(matches!(run(&mut world, 3, undo(100)), Outcome::Ended(0)));
    let held = world.restart().0.held().find(&id(1)).unwrap();
    assert_eq!(held.started_at.map(StartTime::as_nanos), Some(200));
    assert!(matches!(run(&mut world, 4, undo(200)), Outcome::Ended(1)));
    world.check_settled();
}
