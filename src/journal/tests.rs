//! Tests of what the tables keep, and of what they do not.

mod format;
mod past;
mod same;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::core::address::{Address, BlockSize, Cidr, Family};
use crate::core::attachment::{Holding, Netns, Scope};
use crate::core::ids::{Link, Sequence};
use crate::core::keys::PoolFamily;
use crate::core::time::BootTime;
use crate::core::time::UnixTime;

fn options(dir: &Path, cooldown: Duration) -> Options {
    Options {
        dir: dir.to_owned(),
        fsync: false,
        keep_after_reboot: false,
        boot_id: "boot".to_owned(),
        cooldown,
        now: BootTime::BOOT,
        marker: None,
        still_there: None,
        history: Bounds::default(),
    }
}

fn hold(sequence: Sequence) -> JournalEntry {
    let scope = Scope { network: "net".into(), ifname: "eth0".into(), pool: "net".into() };
    let holding = Holding {
        scope: scope.into(),
        container_id: "c".into(),
        addresses: vec!["10.0.0.2".parse().unwrap()].into(),
        sequence,
        started_at: None,
        since: UnixTime::from_millis(0),
        stage: None,
        pod: None,
        netns: Netns {
            path: "/proc/7/ns/net".into(),
            inode: std::num::NonZeroU32::new(4_026_531_840),
        },
    };
    JournalEntry::Hold(Arc::new(holding))
}

#[test]
fn sequence_numbers_rise_over_restarts_also_when_nothing_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), Duration::ZERO);
    let mut last = None;
    for _ in 0..3 {
        let (mut journal, opened) = Journal::open(&options).unwrap();
        let next = opened.state.next_sequence;
        assert!(Some(next) > last, "{next} was given before");
        for count in 0..10 {
            let sequence = next.plus(count);
            let held = hold(sequence);
            let JournalEntry::Hold(holding) = &held else { panic!() };
            let end = JournalEntry::End(holding.clone());
            journal.commit(&[held.clone(), end]).unwrap();
            last = Some(sequence);
        }
    }
}

#[test]
fn the_pool_is_kept_and_a_row_without_one_means_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let pool_after = |records: &[JournalEntry]| {
        let (mut journal, _) = Journal::open(&options(dir.path(), Duration::ZERO)).unwrap();
        journal.commit(records).unwrap();
        drop(journal);
        let (_, opened) = Journal::open(&options(dir.path(), Duration::ZERO)).unwrap();
        opened.state.holdings.iter().next().unwrap().scope.pool.to_string()
    };
    let JournalEntry::Hold(holding) = hold(Sequence::FIRST) else { panic!() };
    let row = String::from_utf8(rows::holding(&holding)).unwrap();
    assert!(!row.contains("pool"), "{row}");
    assert_eq!(pool_after(&[JournalEntry::Hold(holding.clone())]), "net");
    let scope = Scope { pool: "shared".into(), ..(*holding.scope).clone() };
    let of_another = Holding { scope: scope.into(), ..(*holding).clone() };
    assert_eq!(pool_after(&[JournalEntry::Hold(Arc::new(of_another))]), "shared");
}

fn block(start: u128, log2: u8) -> (PoolFamily, Cidr) {
    (
        PoolFamily { network: "net".into(), family: Family::V4 },
        Cidr::containing(Address::new(start), BlockSize::of_log2(log2)),
    )
}

fn kept(dir: &Path, records: &[JournalEntry]) -> (Vec<(PoolFamily, Cidr)>, Option<Link>) {
    let options = options(dir, Duration::ZERO);
    let (mut journal, _) = Journal::open(&options).unwrap();
    journal.commit(records).unwrap();
    drop(journal);
    let (_, opened) = Journal::open(&options).unwrap();
    (opened.state.blocks.into_iter().collect(), opened.state.chain)
}

fn chain(reached: u64) -> JournalEntry {
    JournalEntry::Chain(Link::new(reached).unwrap())
}

fn holds((pool, cidr): (PoolFamily, Cidr)) -> JournalEntry {
    JournalEntry::Block(pool, cidr)
}

fn holds_not((pool, cidr): (PoolFamily, Cidr)) -> JournalEntry {
    JournalEntry::NoBlock(pool, cidr)
}

#[test]
fn blocks_and_the_chain_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let other = (PoolFamily { network: "net2".into(), family: Family::V6 }, block(1 << 127, 6).1);
    let records = [block(64, 6), block(128, 6), other.clone()].map(holds);
    assert_eq!(kept(dir.path(), &records).0, [block(64, 6), block(128, 6), other.clone()]);
    let (blocks, reached) = kept(dir.path(), &[holds_not(block(64, 6)), chain(7)]);
    assert_eq!((blocks, reached), (vec![block(128, 6), other], Link::new(7)));
    assert_eq!(kept(dir.path(), &[chain(9)]).1, Link::new(9));
}

#[test]
fn a_reboot_does_not_change_who_holds_which_block() {
    let dir = tempfile::tempdir().unwrap();
    kept(dir.path(), &[holds(block(64, 6)), chain(3)]);
    let options = Options { boot_id: "next".to_owned(), ..options(dir.path(), Duration::ZERO) };
    for new_boot in [true, false] {
        let (_, opened) = Journal::open(&options).unwrap();
        assert_eq!(opened.new_boot, new_boot);
        assert_eq!(
            (opened.state.blocks, opened.state.chain),
            ([block(64, 6)].into(), Link::new(3))
        );
    }
}

/// An id of the boot that is lost or damaged is no reboot: the journal knows in which boot it was
/// written. A journal of an older version does not, and is not used on a guess.
#[test]
fn a_lost_boot_id_is_no_reboot() {
    for damage in [None, Some(""), Some("boo"), Some("\0\0\0\0\0\0")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot-id");
        let damage = || match damage {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        };
        kept(dir.path(), &[holds(block(64, 6)), JournalEntry::Confirmed(true)]);
        damage();
        let (journal, opened) = Journal::open(&options(dir.path(), Duration::ZERO)).unwrap();
        assert!(!opened.new_boot && opened.state.confirmed);
        drop(journal);
        assert!(
            Journal::open(&options(dir.path(), Duration::ZERO))
                .is_ok_and(|(_, opened)| !opened.new_boot)
        );
        // Another boot is another boot.
        damage();
        let next = Options { boot_id: "next".to_owned(), ..options(dir.path(), Duration::ZERO) };
        assert!(Journal::open(&next).unwrap().1.new_boot);
        // The journal of an older version has no id in it.
        let db = Database::open(dir.path().join("journal.redb")).unwrap();
        tables::forget_boot_id(&db);
        drop(db);
        damage();
        let error = Journal::open(&next).unwrap_err();
        assert!(matches!(error, JournalError::BootUnknown { .. }), "{error}");
        fs::write(&path, "next").unwrap();
        assert!(Journal::open(&next).is_ok_and(|(_, opened)| !opened.new_boot));
    }
}

#[test]
fn a_marker_tells_a_robbed_node_from_a_new_one() {
    let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let marker = run.path().join("leasehold.boot");
    let with_marker =
        |dir: &Path| Options { marker: Some(marker.clone()), ..options(dir, Duration::ZERO) };
    let commit = |options: &Options| {
        let (mut journal, _) = Journal::open(options).unwrap();
        journal.commit(&[hold(Sequence::FIRST)]).unwrap();
    };
    commit(&with_marker(dir.path()));
    let old = fs::read(dir.path().join("journal.redb")).unwrap();
    commit(&with_marker(dir.path()));
    // Lost, replaced by an older copy, or another directory: each is not the one of this boot.
    let other = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    fs::write(copy.path().join("journal.redb"), old).unwrap();
    for (dir, commits) in [(other.path(), 0), (copy.path(), 1)] {
        for _ in 0..2 {
            let error = Journal::open(&with_marker(dir)).unwrap_err();
            let JournalError::Robbed { commits: found, made, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!((found, made), (commits, 2));
        }
    }
    // The directory is back; and in another boot, or without the marker, any will do.
    commit(&with_marker(dir.path()));
    let next = Options { boot_id: "next".to_owned(), ..with_marker(other.path()) };
    commit(&next);
    fs::remove_file(&marker).unwrap();
    commit(&with_marker(tempfile::tempdir().unwrap().path()));
}
