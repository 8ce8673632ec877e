//! An entry means the same on disk and in memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use redb::backends::InMemoryBackend;

use super::*;
use crate::core::address::{Address, AddressRange, BlockSize, Cidr, Family};
use crate::core::attachment::Pod;
use crate::core::ids::{Link, Sequence};
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::stage::Stage;
use crate::core::time::{BootTime, StartTime, UnixTime};
use crate::limits;

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// Few, so that they meet; some are the last ones of their family.
fn number(family: Family) -> impl Strategy<Value = Address> {
    let last = u128::MAX >> (128 - family.bits());
    prop_oneof![4 => 0u128..0x3000, 1 => last - 0x1000..=last].prop_map(Address::new)
}

fn range(family: Family) -> impl Strategy<Value = AddressRange> {
    (number(family), number(family)).prop_map(|(a, b)| AddressRange::between(a, b))
}

fn address() -> impl Strategy<Value = IpAddr> {
    family().prop_flat_map(|family| number(family).prop_map(move |n| family.address(n)))
}

fn network() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![Just("a".into()), Just("net".into())]
}

fn text(pattern: &'static str) -> impl Strategy<Value = Box<str>> {
    pattern.prop_map(Into::into)
}

fn holding() -> impl Strategy<Value = Arc<Holding>> {
    let sequence = prop_oneof![8 => 1u64..6, 2 => 4_090u64..4_100, 1 => Just(u64::MAX)]
        .prop_map(Sequence::new);
    let container = prop_oneof![text("[a-c]"), Just("0f".repeat(32).into())];
    let pod = (text("[a-z]?"), text("[a-z\"\\PC]{1,5}"));
    let place = (network(), network(), prop_oneof![Just("eth0"), Just("net1")]);
    let rest = (
        prop::option::of(any::<u64>()),
        any::<u64>(),
        prop::option::of(prop_oneof![Just(Stage::Sandbox), Just(Stage::Smallflow)]),
        prop::option::of(pod),
        (text("\\PC{0,9}"), prop_oneof![Just(0), any::<u32>()]),
    );
    let addresses = prop::collection::vec(address(), 1..3);
    (sequence, container, place, addresses, rest).prop_map(
        |(sequence, container, (network, pool, ifname), addresses, rest)| {
            let (started_at, since, stage, pod, (path, inode)) = rest;
            Arc::new(Holding {
                scope: Arc::new(Scope { network, ifname: ifname.into(), pool }),
                container_id: (&*container).into(),
                addresses: addresses.into(),
                sequence,
                started_at: started_at.map(StartTime::from_nanos),
                since: UnixTime::from_millis(since),
                stage,
                pod: pod.map(|(namespace, name)| Box::new(Pod { namespace, name })),
                netns: Netns { path, inode: std::num::NonZeroU32::new(inode) },
            })
        },
    )
}

fn set_id() -> impl Strategy<Value = SetId> {
    prop_oneof![4 => 1u32..4, 1 => Just(u32::MAX)].prop_map(SetId::new)
}

fn link() -> impl Strategy<Value = Link> {
    any::<u64>().prop_map(|number| Link::new(number).unwrap_or(Link::FIRST))
}

fn slot() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0u16..2, 1 => Just(u16::MAX)]
}

fn set() -> impl Strategy<Value = SetIdentity> {
    let ranges = |family| prop::collection::vec(range(family), 0..3);
    let rest = family().prop_flat_map(move |family| (Just(family), ranges(family)));
    (set_id(), network(), 0..=limits::BLOCK_LOG2_MAX, rest).prop_map(
        |(id, network, log2, (family, ranges))| SetIdentity {
            id,
            network,
            family,
            block_size: BlockSize::of_log2(log2),
            ranges,
        },
    )
}

fn block() -> impl Strategy<Value = (PoolFamily, Cidr)> {
    let size = prop_oneof![0..=4u8, 0..=limits::BLOCK_LOG2_MAX];
    let start = family().prop_flat_map(|family| (Just(family), number(family)));
    (network(), start, size).prop_map(|(network, (family, start), log2)| {
        (PoolFamily { network, family }, Cidr::containing(start, BlockSize::of_log2(log2)))
    })
}

fn entry() -> impl Strategy<Value = JournalEntry> {
    let cool = (set_id(), (0u128..9).prop_map(Address::new), 0u64..60);
    prop_oneof![
        4 => holding().prop_map(JournalEntry::Hold),
        3 => holding().prop_map(JournalEntry::End),
        4 => cool.prop_map(|(set, number, at)| {
            JournalEntry::Cool(set, number, BootTime::from_millis(at))
        }),
        4 => (set_id(), slot(), any::<u128>().prop_map(Address::new))
            .prop_map(|(set, slot, number)| JournalEntry::Cursor(set, slot, number)),
        2 => set().prop_map(JournalEntry::Set),
        2 => (set_id(), set_id())
            .prop_filter("two sets", |(into, from)| into != from)
            .prop_map(|(into, from)| JournalEntry::MergeSets { into, from }),
        2 => (set_id(), 0u64..90)
            .prop_map(|(set, at)| JournalEntry::ForgetSet(set, BootTime::from_millis(at))),
        5 => block().prop_map(|(pool, cidr)| JournalEntry::Block(pool, cidr)),
        3 => block().prop_map(|(pool, cidr)| JournalEntry::LostBlock(pool, cidr)),
        3 => block().prop_map(|(pool, cidr)| JournalEntry::NoBlock(pool, cidr)),
        1 => link().prop_map(JournalEntry::Chain),
        1 => link().prop_map(JournalEntry::Intent),
        1 => (holding(), any::<u64>().prop_map(StartTime::from_nanos))
            .prop_map(|(holding, at)| JournalEntry::EarlyDel(holding.id(), at)),
        1 => Just(JournalEntry::NoEarlyDels),
        1 => prop::collection::vec(block(), 0..2).prop_map(JournalEntry::WentBack),
        1 => Just(JournalEntry::Settled),
    ]
}

/// Entries as they come: what ends is mostly what was held.
fn commits() -> impl Strategy<Value = Vec<Vec<JournalEntry>>> {
    let commits =
        prop::collection::vec(prop::collection::vec((entry(), any::<bool>()), 0..8), 1..9);
    commits.prop_map(|mut commits| {
        let mut held: Vec<Arc<Holding>> = Vec::new();
        for (entry, known) in commits.iter_mut().flatten() {
            match entry {
                JournalEntry::Hold(holding) => held.push(holding.clone()),
                JournalEntry::End(holding) if *known => {
                    *holding = held.pop().unwrap_or_else(|| holding.clone());
                }
                _ => {}
            }
        }
        let entries = |commit: Vec<(JournalEntry, bool)>| {
            commit.into_iter().map(|(entry, _)| entry).collect()
        };
        commits.into_iter().map(entries).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_say_what_memory_says(
        commits in commits(),
        cooldown in prop_oneof![Just(0u64), 1..50u64].prop_map(Duration::from_millis),
        keep_holdings in any::<bool>(),
    ) {
        let storage = Storage::new(Box::new(InMemoryBackend::new()));
        let options = options(Path::new("nowhere"), cooldown);
        let (mut journal, opened) =
            Journal::open_on(storage, Path::new("journal"), &options).unwrap();
        let mut state = opened.state;
        prop_assert_eq!(&state, &JournalState::default());
        for commit in &commits {
            journal.commit(commit).unwrap();
            commit.iter().for_each(|entry| state.apply(cooldown, entry));
            prop_assert_eq!(&tables::read(&journal.db).unwrap().0, &state);
        }
        state.begin_boot(NewBoot { keep_holdings, cooldown, now: BootTime::from_millis(70) });
        tables::begin_boot(&journal.db, &state, "next", |_| Ok(())).unwrap();
        let (read, counted) = tables::read(&journal.db).unwrap();
        prop_assert_eq!(&read, &state);
        prop_assert_eq!(counted, commits.len() as u64);
    }
}
