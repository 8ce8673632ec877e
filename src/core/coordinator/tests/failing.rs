//! The traces that a failed ADD leaves behind.

use std::time::Duration;

use super::*;

/// As in host-local, the next ADD goes on behind the failed one, also after a crash.
#[test]
fn a_failed_add_is_answered_when_the_journal_knows_its_cursors() {
    let mut world = World::new(Duration::ZERO);
    let gateway = "fd00::1".parse().unwrap();
    world.call(1, add(1, 0, vec![gateway], 100));
    while !world.replies.contains_key(&1) {
        assert!(world.deliver(0));
    }
    assert!(matches!(world.replies[&1], Outcome::Failed(CallError::Assign { set: 1, .. })));
    let cursor = Address::of("10.0.0.2".parse().unwrap());
    let known =
        |entry: &JournalEntry| matches!(entry, JournalEntry::Cursor(_, 0, at) if *at == cursor);
    assert!(world.durable.iter().any(known), "{:?}", world.durable);
}
