//! Deletions of records of allocations that do not exist.

use super::*;
use crate::core::operator::{DeleteRecord, DeleteRecordCommand, RecordFate};

/// Deletes the record of this address on node `n`, which holds its allocation or does not.
fn run(
    world: &mut World,
    address: u128,
    held: bool,
    dry_run: bool,
    disturb: impl FnMut(&mut World, usize, &Request) -> Fault,
) -> Result<RecordFate, StoreError> {
    let key = allocation_key("net", Family::V4.address(Address::new(address)));
    let revision = world.revision(&key).unwrap_or(Revision::FIRST);
    let command = DeleteRecordCommand { key, revision, node: "n".into(), dry_run };
    let is_record = |key: &KeyValue| matches!(key.value, Value::Allocation(_));
    let held = move |key: &KeyValue| is_record(key).then_some(held);
    world.run_with(DeleteRecord::new(command, held), disturb)
}

fn plain(world: &mut World, address: u128, held: bool) -> Result<RecordFate, StoreError> {
    run(world, address, held, false, |_, _, _| Fault::None)
}

#[test]
fn a_record_of_its_own_goes_unless_the_allocation_is_there() {
    let mut world = World::new();
    world.join("n");
    world.record("n", 1);
    assert_eq!(plain(&mut world, 1, true), Ok(RecordFate::Held));
    let dry = run(&mut world, 1, false, true, |_, _, _| Fault::None);
    assert_eq!((dry, world.records("n")), (Ok(RecordFate::Deleted), 1));
    assert_eq!(plain(&mut world, 1, false), Ok(RecordFate::Deleted));
    assert_eq!(world.records("n"), 0);
    assert_eq!(plain(&mut world, 1, false), Ok(RecordFate::Changed));
}

#[test]
fn a_record_of_another_node_goes_only_if_that_node_is_gone() {
    let mut world = World::new();
    world.join("other");
    world.record("other", 1);
    let there = Ok(RecordFate::NodeIsThere("other".into()));
    assert_eq!(plain(&mut world, 1, false), there);
    world.dies("other");
    assert_eq!(plain(&mut world, 1, false), there, "that it has no session says nothing");
    let mut gone = World::new();
    gone.record("other", 1);
    assert_eq!(plain(&mut gone, 1, false), Ok(RecordFate::Deleted));
    // It joins between look and transaction.
    gone.record("other", 1);
    let end = run(&mut gone, 1, false, false, |world, _, request| {
        if is_txn(request) {
            world.join("other");
        }
        Fault::None
    });
    assert_eq!((end, gone.records("other")), (Ok(RecordFate::ChangedMeanwhile), 1));
}

#[test]
fn a_record_that_was_written_again_stays() {
    let mut world = World::new();
    world.record("n", 1);
    let mut again = |at| {
        run(&mut world, 1, false, false, |world, number, _| {
            if number == at {
                world.record("n", 1);
            }
            Fault::None
        })
    };
    assert_eq!([again(0), again(1)], [Ok(RecordFate::Changed), Ok(RecordFate::ChangedMeanwhile)]);
    assert_eq!(world.records("n"), 1);
    let key = allocation_key("net", Family::V4.address(Address::new(2)));
    world.txn(vec![], vec![Write::Put(key, Value::Flag(UnixTime::from_millis(1)), None)]);
    assert_eq!(plain(&mut world, 2, false), Ok(RecordFate::NoRecord));
    let failed = run(&mut world, 1, false, false, |_, _, _| Fault::Failed);
    assert_eq!(failed, Err(StoreError::Failed("down".into())));
}
