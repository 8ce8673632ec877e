//! Blocks that come, go and are divided.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::core::address::AddressRange;
use crate::core::ids::{LeaseId, MergeCount, Revision};
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Question, without};

#[test]
fn an_idle_set_shrinks_to_the_cursor_and_what_is_next() {
    let [wide, _] = views();
    let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(2), settings(Duration::ZERO));
    set.joined();
    let mut store = Store::default();
    let mut now = BootTime::from_millis(1_000_000);
    let held: Vec<Address> = (0..20)
        .map(|n| {
            let (id, allowed) = (operation(n), wide.clone());
            let request = Assign { id, set_index: 0, allowed, requested: None, stage: None };
            assign(&mut set, &mut store, now, request).unwrap()
        })
        .collect();
    for number in held {
        set.release(now, number);
    }
    for _ in 0..3 {
        now = now + limits::RECLAIM_IDLE;
        set.handle_timeout(now);
        store.answer(&mut set, now);
    }
    assert!(set.blocks().count() <= 2, "{:?}", set.stats());
    set.check_invariants();
}

/// It gives its last block back when nothing is held, nothing cools and nobody has used it for a
/// while, and then says that it has nothing.
#[test]
fn a_set_that_nobody_uses_ends() {
    let [wide, _] = views();
    let (cooldown, forget_after) = (Duration::from_secs(100), Duration::from_secs(60));
    let settings = Settings { forget_after, ..settings(cooldown) };
    let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(2), settings);
    set.joined();
    let mut store = Store::default();
    let mut now = BootTime::from_millis(1_000_000);
    set.used(now);
    let request = any_address(OperationId::FIRST, &wide);
    let number = assign(&mut set, &mut store, now, request).unwrap();
    let mut pass = |set: &mut RangeSet, seconds: u64| {
        for _ in 0..seconds {
            now = now + Duration::from_secs(1);
            set.handle_timeout(now);
        }
        let said = effects(set);
        if let Some(Effect::GiveBack(_)) = said.first() {
            set.given_back(now, true);
        }
        (now, said)
    };
    let (now, _) = pass(&mut set, 200);
    assert_eq!(set.stats().allocated, 1);
    set.release(now, number);
    let (_, said) = pass(&mut set, 95);
    assert_eq!(said.len(), 0, "the address cools: {said:?}");
    let (_, said) = pass(&mut set, 61);
    assert!(matches!(&said[..], [Effect::GiveBack(blocks)] if blocks.len() == 2), "{said:?}");
    assert_eq!(pass(&mut set, 1).1, [Effect::Unused]);
    // The coordinator had a reason to keep it: it says so again.
    assert_eq!(pass(&mut set, 31).1, [Effect::Unused]);
}

/// A node that shares its pool keeps the blocks that it needed at once since the last look, also
/// one that it did not touch.
#[test]
fn blocks_that_were_needed_since_the_last_look_stay() {
    let [wide, _] = views();
    let first = Address::of("10.0.0.4".parse().unwrap());
    let blocks: Vec<Cidr> =
        (0..4).map(|n| Cidr::containing(first.plus(4 * n), BlockSize::of_log2(2))).collect();
    let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(2), settings(Duration::ZERO));
    set.rebuild(JournalledSet { blocks, ..JournalledSet::default() }).unwrap();
    set.alone(false);
    set.joined();
    let look = |set: &mut RangeSet, nth: u32| {
        set.handle_timeout(BootTime::BOOT + limits::RECLAIM_IDLE * nth);
        effects(set)
    };
    let now = BootTime::BOOT + limits::RECLAIM_IDLE;
    assert_eq!(look(&mut set, 1), []);
    let wanted = AddressRange::between(first, first.plus(11));
    for number in wanted.iter() {
        let (allowed, requested) = (wide.clone(), Some(number));
        let request =
            Assign { id: OperationId::FIRST, set_index: 0, allowed, requested, stage: None };
        assert_eq!(set.assign(now, request), Some(Ok(number)));
    }
    wanted.iter().for_each(|number| set.undo(now, number));
    assert_eq!(look(&mut set, 2), []);
    assert!(matches!(&look(&mut set, 3)[..], [Effect::GiveBack(blocks)] if blocks.len() == 3));
}

/// Creates a set with one block, of which the last address is on its way to another node.
fn one_in_transfer(now: BootTime) -> (RangeSet, Cidr, Cidr) {
    let [wide, _] = views();
    let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(2), settings(Duration::ZERO));
    let request = any_address(OperationId::FIRST, &wide);
    let held = assign(&mut set, &mut Store::default(), now, request).unwrap();
    let block = set.inventory.block(held).unwrap().cidr();
    let give = Cidr::one(block.last());
    let pool = PoolFamily { network: "net".into(), family: Family::V4 };
    let (from, wanted) = ("there".into(), vec![AddressRange::one(give.first())]);
    let (key, lease) = (QUESTION.to_owned(), LeaseId::new(1).unwrap());
    let even_cooling = false;
    set.asked(
        now,
        Question {
            key,
            revision: Revision::FIRST,
            from,
            lease,
            pool,
            wanted,
            even_cooling,
            merges: MergeCount::default(),
        },
    );
    assert!(
        matches!(set.poll_effect(), Some(Effect::Transfer { give: given, .. }) if given == give)
    );
    (set, block, give)
}

const QUESTION: &str = "requests/net/here/there.1";

fn effects(set: &mut RangeSet) -> Vec<Effect> {
    std::iter::from_fn(|| set.poll_effect()).collect()
}

/// The part of a block that is on its way to another node stays out of the journal, also when its
/// block is lost and regained: a restart without the store would hand it out.
#[test]
fn a_part_in_transfer_stays_out_of_the_journal() {
    let now = BootTime::from_millis(1_000_000);
    let (mut set, block, give) = one_in_transfer(now);
    let parts = without(block, give);
    set.lost(now, &[block]);
    assert_eq!(
        effects(&mut set),
        parts.iter().copied().map(Effect::JournalLost).collect::<Vec<_>>()
    );
    set.regained(now, block);
    assert_eq!(
        effects(&mut set),
        parts.iter().copied().map(Effect::JournalBlock).collect::<Vec<_>>()
    );
}

/// The store may divide the block before the transfer ends.
#[test]
fn a_part_in_transfer_leaves_or_stays_when_its_block_was_divided() {
    let now = BootTime::from_millis(1_000_000);
    let (whole, block, give) = one_in_transfer(now);
    let [low, high] = block.halves().unwrap();
    for done in [true, false] {
        let mut set = whole.clone();
        set.split(block, &[low, high]);
        set.transferred(now, QUESTION, done);
        set.check_invariants();
        assert_eq!(set.stats().in_transfer, 0);
        let state = (!done).then_some(AddressState::Free);
        assert_eq!(set.inventory.state_of(give.first()), state);
        let journal = if done { vec![] } else { vec![low, high] };
        let journal: Vec<Effect> = journal.into_iter().map(Effect::JournalBlock).collect();
        assert_eq!(effects(&mut set), journal);
    }
}

#[test]
fn a_journal_that_contradicts_itself_is_refused() {
    let block = Cidr::containing(Address::of("10.0.0.0".parse().unwrap()), BlockSize::of_log2(2));
    let [half, _] = block.halves().unwrap();
    let rebuild = |blocks: &[Cidr], lost: &[Cidr], allocated: &[Address]| {
        let (blocks, lost, allocated) = (blocks.to_vec(), lost.to_vec(), allocated.to_vec());
        let journalled = JournalledSet { blocks, lost, allocated, ..JournalledSet::default() };
        RangeSet::new(Family::V4, BlockSize::of_log2(2), settings(Duration::ZERO))
            .rebuild(journalled)
    };
    assert_eq!(rebuild(&[block], &[], &[block.first(), block.last()]), Ok(()));
    assert_eq!(rebuild(&[block], &[], &[block.first(), block.first()]), Err(block.first()));
    assert_eq!(rebuild(&[half], &[], &[block.last()]), Err(block.last()));
    assert_eq!(rebuild(&[block], &[half], &[]), Err(block.first()));
}

/// The records of the store say that an address of a spare is held. When the spare goes, the
/// address stays assigned until its DEL, and the journal has a block around it.
#[test]
fn an_address_in_a_spare_that_goes_stays_assigned() {
    let (now, block) = (
        BootTime::from_millis(1_000_000),
        Cidr::containing(Address::of("10.0.0.0".parse().unwrap()), BlockSize::of_log2(2)),
    );
    let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(2), settings(Duration::ZERO));
    set.spares(now, &[block]);
    set.recover(now, &[], &[block], &BTreeSet::from([block.first()]));
    set.spares_gone(now);
    assert_eq!(effects(&mut set), [Effect::JournalLost(block)]);
    assert_eq!((set.stats().allocated, set.stats().lost), (1, 1));
    set.release(now, block.first());
    assert_eq!(set.stats().allocated, 0);
    set.check_invariants();
}

/// Records say that an address of a parked block is held, and then the store says that the block is
/// another node's: it is lost, and goes when its last container has gone (seed 61523).
#[test]
fn a_parked_block_with_a_holding_is_lost_when_it_is_another_nodes() {
    let (now, block) = (
        BootTime::from_millis(1_000_000),
        Cidr::containing(Address::of("10.0.0.0".parse().unwrap()), BlockSize::of_log2(2)),
    );
    let mut set = RangeSet::new(Family::V4, BlockSize::of_log2(2), settings(Duration::ZERO));
    let journalled = JournalledSet { lost: vec![block], ..JournalledSet::default() };
    assert_eq!(set.rebuild(journalled), Ok(()));
    assert_eq!(set.stats().returning, 1, "nothing is held in it: it was parked");
    set.recover(now, &[], &[block], &BTreeSet::from([block.first()]));
    set.unparked(block);
    assert_eq!((set.stats().lost, set.stats().returning), (1, 0));
    set.check_invariants();
}
