//! Journals of other versions of the daemon.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use redb::TableDefinition;

use super::*;
use crate::core::address::{Address, AddressRange, BlockSize};
use crate::core::attachment::Pod;
use crate::core::ids::{Link, Sequence};
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::stage::Stage;
use crate::core::time::{BootTime, StartTime, UnixTime};

/// A journal from before there were format numbers, of a daemon that was killed: the output of
/// `od -A x -t x1z`.
const FORMAT_0: &str = include_str!("format-0.txt");

const BOOT: &str = "11111111-2222-4333-8444-555555555555";

/// The bytes of a dump.
fn bytes_of(dump: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut repeats = false;
    for line in dump.lines() {
        if line == "*" {
            repeats = true;
            continue;
        }
        let (offset, rest) = line.split_once("  >").unwrap_or((line, "")).0.split_at(6);
        let offset = usize::from_str_radix(offset, 16).unwrap();
        if repeats {
            let last = bytes[bytes.len() - 16..].to_vec();
            (bytes.len()..offset).step_by(16).for_each(|_| bytes.extend(&last));
            repeats = false;
        }
        assert_eq!(bytes.len(), offset, "{line}");
        bytes.extend(rest.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    bytes
}

/// A state directory with that journal.
fn format_0() -> (tempfile::TempDir, Options) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal.redb"), bytes_of(FORMAT_0)).unwrap();
    fs::write(dir.path().join("journal.commits"), 8u64.to_le_bytes()).unwrap();
    fs::write(dir.path().join("boot-id"), BOOT).unwrap();
    let options =
        Options { boot_id: BOOT.to_owned(), ..options(dir.path(), Duration::from_secs(60)) };
    (dir, options)
}

fn at(text: &str) -> Address {
    Address::of(text.parse().unwrap())
}

fn holdings_of_format_0() -> [Holding; 2] {
    let scope = Scope { network: "net".into(), ifname: "eth0".into(), pool: "pods".into() };
    let pod = Pod { namespace: "shop".into(), name: "pay-1-sandbox-a".into() };
    let full = Holding {
        scope: scope.into(),
        container_id: "0f2b8a5f3c0e4f6a9d7c1b2e3f405162738495a6b7c8d9eafb0c1d2e3f405162".into(),
        addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()].into(),
        sequence: Sequence::new(1),
        started_at: Some(StartTime::from_nanos(123_456_789)),
        since: UnixTime::from_millis(1_700_000_000_000),
        stage: Some(Stage::Sandbox),
        pod: Some(Box::new(pod)),
        netns: Netns {
            path: "/proc/7/ns/net".into(),
            inode: std::num::NonZeroU32::new(4_026_531_840),
        },
    };
    let scope = Scope { network: "pods".into(), ifname: "net1".into(), pool: "pods".into() };
    let bare = Holding {
        scope: scope.into(),
        container_id: "c2".into(),
        addresses: vec!["10.0.0.3".parse().unwrap()].into(),
        sequence: Sequence::new(2),
        started_at: None,
        since: UnixTime::from_millis(1_700_000_000_001),
        stage: None,
        pod: None,
        netns: "".into(),
    };
    [full, bare]
}

fn state_of_format_0() -> JournalState {
    let mut state = JournalState::default();
    holdings_of_format_0().into_iter().for_each(|holding| state.holdings.put(holding.into()));
    let [first, second] = [1, 2].map(SetId::new);
    let set = |id, family, log2, ranges: &[(&str, &str)]| {
        let ranges =
            ranges.iter().map(|(first, last)| AddressRange::between(at(first), at(last))).collect();
        let block_size = BlockSize::of_log2(log2);
        (id, SetIdentity { id, network: "pods".into(), family, block_size, ranges })
    };
    let v4 = [("10.0.0.0", "10.0.0.255"), ("10.0.2.0", "10.0.2.9")];
    state.sets =
        [set(first, Family::V4, 6, &v4), set(second, Family::V6, 4, &[("fd00::", "fd00::ff")])]
            .into();
    state.cooling = [(5_000, first, at("10.0.0.4")), (6_000, second, at("fd00::3"))]
        .map(|(ms, set, number)| (BootTime::from_millis(ms), set, number))
        .into();
    state.cursors = [((first, 0), at("10.0.0.3")), ((second, 1), at("fd00::2"))].into();
    state.next_sequence = Sequence::new(4_097);
    let block = |family, start, log2| {
        (
            PoolFamily { network: "pods".into(), family },
            Cidr::containing(at(start), BlockSize::of_log2(log2)),
        )
    };
    state.blocks = [block(Family::V4, "10.0.0.0", 5), block(Family::V6, "fd00::", 4)].into();
    state.lost = [block(Family::V4, "10.0.2.0", 3)].into();
    state.chain = Link::new(6);
    state.intent = Link::new(7);
    state.confirmed = true; // as a daemon of that version would have taken it
    state
}

#[test]
fn a_journal_from_before_there_were_formats_is_read() {
    let (_dir, options) = format_0();
    for _ in 0..2 {
        let (mut journal, opened) = Journal::open(&options).unwrap();
        assert_eq!(opened.state, state_of_format_0());
        assert!(!opened.new_boot);
        assert_eq!(tables::format(&journal.db).unwrap(), u128::from(tables::FORMAT));
        journal.commit([]).unwrap();
    }
}

/// All files of a directory.
fn files(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
}

/// Writes what a newer version might: another format, rows that this one does not know.
fn make_newer(path: &Path, killed: bool) {
    const NUMBERS: TableDefinition<'_, (u8, u32, u16), u128> = TableDefinition::new("numbers");
    const HOLDINGS: TableDefinition<'_, u8, u8> = TableDefinition::new("holdings");
    let db = Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(NUMBERS).unwrap().insert((5, 0, 0), 2).unwrap();
    txn.open_table(NUMBERS).unwrap().insert((77, 0, 0), 7).unwrap();
    let holdings = TableDefinition::<(u64, &str, &str, &str), &[u8]>::new("holdings");
    txn.delete_table(holdings).unwrap();
    txn.open_table(HOLDINGS).unwrap().insert(1, 1).unwrap();
    txn.commit().unwrap();
    let bytes = fs::read(path).unwrap();
    drop(db);
    if killed {
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_newer_journal_is_refused_and_nothing_is_touched() {
    for killed in [false, true] {
        let (dir, options) = format_0();
        drop(Journal::open(&options).unwrap());
        let path = dir.path().join("journal.redb");
        make_newer(&path, killed);
        fs::remove_file(dir.path().join("journal.commits")).unwrap();
        let before = files(dir.path());
        for (boot_id, keep_after_reboot) in [(BOOT, false), ("another", false), ("another", true)] {
            let boot_id = boot_id.to_owned();
            let options = Options { boot_id, keep_after_reboot, ..options.clone() };
            let error = Journal::open(&options).map(drop).unwrap_err();
            assert!(matches!(error, JournalError::Newer { format: 2, .. }), "{error}");
            let text = error.to_string();
            let place = format!("journal {} has format 2", path.display());
            for words in [&*place, "reads up to 1", "start the newer version of leasehold again"] {
                assert!(text.contains(words), "no {words:?} in {text}");
            }
            assert!(files(dir.path()) == before, "killed {killed}, {options:?}");
        }
    }
}

/// A version from before there were formats must not misread a newer journal either. It refuses a
/// number whose key it does not know.
#[test]
fn a_format_is_a_number_that_the_oldest_version_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    drop(Journal::open(&options(dir.path(), Duration::ZERO)).unwrap());
    let numbers: TableDefinition<'_, (u8, u32, u16), u128> = TableDefinition::new("numbers");
    let db = Database::open(dir.path().join("journal.redb")).unwrap();
    let txn = redb::ReadableDatabase::begin_read(&db).unwrap();
    let format = txn.open_table(numbers).unwrap().get((5, 0, 0)).unwrap().unwrap().value();
    assert_eq!(format, u128::from(tables::FORMAT));
}
