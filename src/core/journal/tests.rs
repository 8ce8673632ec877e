//! The meaning of each entry.

use std::time::Duration;

use super::*;
use crate::core::address::{AddressRange, BlockSize, Family};
use crate::core::attachment::{Netns, Scope};
use crate::core::time::UnixTime;

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

fn after(cooldown: Duration, entries: &[JournalEntry]) -> JournalState {
    let mut state = JournalState::default();
    entries.iter().for_each(|entry| state.apply(cooldown, entry));
    state
}

fn holding(sequence: u64, address: &str) -> Arc<Holding> {
    let scope = Scope { network: "net".into(), ifname: "eth0".into(), pool: "pool".into() };
    Arc::new(Holding {
        scope: scope.into(),
        container_id: "c".into(),
        addresses: vec![address.parse().unwrap()].into(),
        sequence: Sequence::new(sequence),
        started_at: Some(StartTime::from_nanos(5)),
        since: UnixTime::from_millis(0),
        stage: None,
        pod: None,
        netns: Netns::from(""),
    })
}

fn hold(sequence: u64) -> JournalEntry {
    JournalEntry::Hold(holding(sequence, "10.0.0.2"))
}

fn end(sequence: u64) -> JournalEntry {
    JournalEntry::End(holding(sequence, "10.0.0.2"))
}

/// The address with that number.
fn nth(number: u128) -> Address {
    Address::new(number)
}

const FIRST: SetId = SetId::new(1);
const SECOND: SetId = SetId::new(2);
const THIRD: SetId = SetId::new(3);

fn set(id: SetId, network: &str, range: (&str, &str)) -> JournalEntry {
    let [first, last] = [range.0, range.1].map(|text| Address::of(text.parse().unwrap()));
    let range = AddressRange::between(first, last);
    JournalEntry::Set(SetIdentity {
        id,
        network: network.into(),
        family: Family::V4,
        block_size: BlockSize::of_log2(6),
        ranges: vec![range],
    })
}

fn block(start: u128, log2: u8) -> (PoolFamily, Cidr) {
    (
        PoolFamily { network: "net".into(), family: Family::V4 },
        Cidr::containing(Address::new(start), BlockSize::of_log2(log2)),
    )
}

fn holds((pool, cidr): (PoolFamily, Cidr)) -> JournalEntry {
    JournalEntry::Block(pool, cidr)
}

fn loses((pool, cidr): (PoolFamily, Cidr)) -> JournalEntry {
    JournalEntry::LostBlock(pool, cidr)
}

fn holds_not((pool, cidr): (PoolFamily, Cidr)) -> JournalEntry {
    JournalEntry::NoBlock(pool, cidr)
}

#[test]
fn what_has_cooled_off_leaves_the_journal() {
    let cools: Vec<JournalEntry> =
        (0..1_000).map(|ms| JournalEntry::Cool(FIRST, nth(u128::from(ms)), at(ms))).collect();
    let state = after(Duration::from_millis(100), &cools);
    let times: Vec<BootTime> = state.cooling.iter().map(|&(at, _, _)| at).collect();
    assert!(times.len() <= 110, "{} rows for a cooldown of 100", times.len());
    assert!((900..1_000).all(|ms| times.contains(&at(ms))), "what still cools is there");
    // Many at once take no longer to go than to come.
    let burst = (0..1_000).map(|n| JournalEntry::Cool(FIRST, nth(n), at(0)));
    let later = (0..500).map(|n| JournalEntry::Cool(FIRST, nth(n), at(200)));
    assert_eq!(
        after(Duration::from_millis(100), &burst.chain(later).collect::<Vec<_>>()).cooling.len(),
        500
    );
}

/// A repeated ADD ends the holding that it renews, and everything that came after an end stays.
#[test]
fn an_end_ends_the_one_holding_that_it_names() {
    let held = |entries: &[JournalEntry]| -> Vec<u64> {
        after(Duration::ZERO, entries)
            .holdings
            .iter()
            .map(|holding| holding.sequence.get())
            .collect()
    };
    assert_eq!(held(&[hold(1)]), [1]);
    assert_eq!(held(&[hold(1), end(1), hold(2)]), [2]);
    assert_eq!(held(&[hold(2), end(1)]), [2]);
    assert_eq!(held(&[hold(2), hold(1), end(2)]), [1]);
    assert_eq!(held(&[hold(2), end(2)]), [0; 0]);
}

#[test]
fn no_sequence_number_is_given_again() {
    assert_eq!(JournalState::default().next_sequence, Sequence::FIRST);
    let entries = [hold(1), end(1)];
    let next_after = |entries: &[JournalEntry]| after(Duration::ZERO, entries).next_sequence.get();
    let next = next_after(&entries);
    assert!(next > 1);
    assert_eq!(next_after(&[hold(1), hold(next - 1)]), next, "it is reserved already");
    assert!(next_after(&[hold(1), hold(next)]) > next);
    // One that another node made up breaks nothing.
    assert_eq!(next_after(&[hold(u64::MAX)]), u64::MAX);
}

/// For all ways to part the blocks: what is given away leaves the journal, and nothing else is
/// missing.
#[test]
fn parts_of_blocks_leave_and_come_back() {
    for (before, entries, blocks, lost) in [
        // A part leaves; the rest stays.
        (
            vec![holds(block(64, 2))],
            vec![holds_not(block(66, 0))],
            vec![block(64, 1), block(67, 0)],
            vec![],
        ),
        (vec![holds(block(64, 2))], vec![holds_not(block(64, 1))], vec![block(66, 1)], vec![]),
        // A block leaves that is in parts, one of them at its start.
        (
            vec![holds(block(64, 1)), holds(block(67, 0)), holds(block(68, 0))],
            vec![holds_not(block(64, 2))],
            vec![block(68, 0)],
            vec![],
        ),
        // It comes back whole.
        (
            vec![holds(block(64, 1)), holds(block(67, 0))],
            vec![holds(block(64, 2))],
            vec![block(64, 2)],
            vec![],
        ),
        // Neighbours and what is not there are left alone.
        (
            vec![holds(block(60, 2)), holds(block(68, 2))],
            vec![holds_not(block(64, 2))],
            vec![block(60, 2), block(68, 2)],
            vec![],
        ),
        // A part is lost, then a part of that leaves, then the rest of that comes back.
        (
            vec![holds(block(64, 3)), loses(block(64, 2))],
            vec![holds_not(block(64, 0))],
            vec![block(68, 2)],
            vec![block(65, 0), block(66, 1)],
        ),
        (
            vec![holds(block(64, 3)), loses(block(64, 2))],
            vec![holds(block(66, 1))],
            vec![block(66, 1), block(68, 2)],
            vec![block(64, 1)],
        ),
        // All of it is lost.
        (
            vec![holds(block(64, 1)), holds(block(67, 0))],
            vec![loses(block(64, 2))],
            vec![],
            vec![block(64, 2)],
        ),
    ] {
        let state = after(Duration::ZERO, &[before, entries.clone()].concat());
        assert!(state.blocks.iter().eq(&blocks), "{:?} after {entries:?}", state.blocks);
        assert!(state.lost.iter().eq(&lost), "{:?} after {entries:?}", state.lost);
    }
}

/// Another set may get the id that is free.
#[test]
fn nothing_of_a_merged_set_is_lost_and_nothing_remains_under_its_id() {
    let state = after(
        Duration::from_secs(1),
        &[
            set(FIRST, "pool", ("10.0.0.0", "10.0.0.255")),
            set(SECOND, "pool", ("10.0.1.0", "10.0.1.255")),
            JournalEntry::Cursor(FIRST, 0, nth(10)),
            JournalEntry::Cursor(SECOND, 0, nth(20)),
            JournalEntry::Cursor(SECOND, 1, nth(21)),
            JournalEntry::Cool(FIRST, nth(3), at(100)),
            JournalEntry::Cool(SECOND, nth(4), at(200)),
            JournalEntry::MergeSets { into: FIRST, from: SECOND },
        ],
    );
    assert!(state.sets.into_keys().eq([FIRST]));
    assert!(state.cooling.into_iter().eq([(at(100), FIRST, nth(3)), (at(200), FIRST, nth(4))]));
    assert!(state.cursors.into_iter().eq([((FIRST, 0), nth(10)), ((FIRST, 1), nth(21))]));
}

#[test]
fn after_a_reboot_everything_cools_from_the_start() {
    let [first, second] = ["10.0.0.2", "10.0.1.2"].map(|text| Address::of(text.parse().unwrap()));
    let mut state = after(
        Duration::from_secs(1),
        &[
            // The same numbers on another network.
            set(FIRST, "other", ("10.0.0.0", "10.0.1.255")),
            set(SECOND, "pool", ("10.0.0.0", "10.0.0.255")),
            set(THIRD, "pool", ("10.0.1.0", "10.0.1.255")),
            holds(block(64, 2)),
            JournalEntry::Chain(Link::FIRST),
            JournalEntry::Cursor(SECOND, 0, first),
            JournalEntry::Hold(holding(1, "10.0.0.2")),
            JournalEntry::Hold(holding(2, "10.0.1.2")),
            JournalEntry::Cool(THIRD, nth(5), at(9_000)),
            JournalEntry::Cool(THIRD, nth(5), at(9_500)),
        ],
    );
    let before = state.clone();
    let boot = |keep_holdings, cooldown| NewBoot { keep_holdings, cooldown, now: at(40) };
    assert_eq!(state.begin_boot(boot(false, Duration::from_secs(1))), 2);
    let cooling =
        [(at(40), SECOND, first), (at(40), THIRD, nth(5)), (at(40), THIRD, second)].into();
    let (holdings, lasting) = (Holdings::default(), before.clone());
    assert_eq!(state, JournalState { holdings, cooling, ..lasting });

    let mut none_cools = before.clone();
    assert_eq!(none_cools.begin_boot(boot(false, Duration::from_millis(0))), 2);
    assert!(none_cools.cooling.is_empty() && none_cools.holdings.is_empty());

    let mut kept = before;
    assert_eq!(kept.begin_boot(boot(true, Duration::from_secs(1))), 0);
    assert!(kept.cooling.into_iter().eq([(at(40), THIRD, nth(5))]));
    let started: Vec<_> = kept.holdings.iter().map(|holding| holding.started_at).collect();
    assert_eq!(started, [None, None]);
}
