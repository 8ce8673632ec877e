//! Past holdings: what is kept of them, and for how long.

use super::*;
use crate::journal::past::End;

/// Holds, and ends, holdings with these sequence numbers.
fn live_and_end(journal: &mut Journal, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        let held = hold(Sequence::new(sequence));
        let JournalEntry::Hold(holding) = &held else { panic!() };
        journal.commit([&held]).unwrap();
        journal.commit([&JournalEntry::End(holding.clone())]).unwrap();
    }
}

fn kept(journal: &Journal, limit: usize) -> Vec<u64> {
    let found = journal.past().find(limit, |_| true).unwrap();
    found.iter().map(|past| past.holding.sequence.get()).collect()
}

#[test]
fn the_latest_are_kept_and_found_latest_first() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = |count| Bounds { count, age: Duration::from_secs(3600) };
    let with = |count| Options { history: bounds(count), ..options(dir.path(), Duration::ZERO) };
    let (mut journal, _) = Journal::open(&with(5)).unwrap();
    assert!(kept(&journal, 10).is_empty());
    live_and_end(&mut journal, 0..3);
    assert_eq!(kept(&journal, 10), [2, 1, 0]);
    live_and_end(&mut journal, 3..8);
    assert_eq!(kept(&journal, 10), [7, 6, 5, 4, 3]);
    assert_eq!(kept(&journal, 2), [7, 6]);
    let found = journal.past().find(10, |holding| holding.sequence == Sequence::new(4)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].end, End::Released);
    let past = journal.past();
    drop(journal);
    assert!(past.find(1, |_| true).is_err(), "the reader does not keep the journal open");
    // A start with narrower bounds: they hold again after a few more.
    let (mut journal, _) = Journal::open(&with(3)).unwrap();
    live_and_end(&mut journal, 8..10);
    assert_eq!(kept(&journal, 10), [9, 8, 7]);
    drop(journal);
    // Nothing is kept from now on, and what was kept goes with what ends.
    let (mut journal, _) = Journal::open(&with(0)).unwrap();
    live_and_end(&mut journal, 10..12);
    assert!(kept(&journal, 10).is_empty());
}

#[test]
fn a_past_holding_is_forgotten_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let young = Bounds { count: 100, age: Duration::from_millis(1) };
    let options = Options { history: young, ..options(dir.path(), Duration::ZERO) };
    let (mut journal, _) = Journal::open(&options).unwrap();
    live_and_end(&mut journal, 0..1);
    while !kept(&journal, 10).is_empty() {
        std::thread::yield_now();
    }
    let mut sequence = 1;
    // Each that is added takes old ones away.
    while journal.past.count() > 2 || sequence < 20 {
        live_and_end(&mut journal, sequence..sequence + 1);
        sequence += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_reboot_ends_what_was_held_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let first = options(dir.path(), Duration::ZERO);
    let (mut journal, _) = Journal::open(&first).unwrap();
    let holdings: Vec<JournalEntry> = (0..100).map(|at| hold(Sequence::new(at))).collect();
    journal.commit(&holdings).unwrap();
    drop(journal);
    let next = Options { boot_id: "next".to_owned(), ..first };
    let (journal, opened) = Journal::open(&next).unwrap();
    let ended = opened.ended_by_reboot.unwrap() as u64;
    assert_eq!((ended, journal.past.count()), (ended, ended));
    let found = journal.past().find(10, |_| true).unwrap();
    assert!(!found.is_empty() && found.iter().all(|past| past.end == End::Reboot));
}

#[test]
fn those_that_end_together_are_written_together_and_readers_see_them_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(&options(dir.path(), Duration::ZERO)).unwrap();
    live_and_end(&mut journal, 0..1);
    assert_eq!((journal.past.count(), journal.past_waits()), (1, false), "the first at once");
    live_and_end(&mut journal, 1..4);
    assert_eq!((journal.past.count(), journal.past_waits()), (1, true));
    assert_eq!(kept(&journal, 10), [3, 2, 1, 0]);
    assert_eq!(kept(&journal, 3), [3, 2, 1]);
    journal.write_past().unwrap();
    assert_eq!((journal.past.count(), journal.past_waits()), (4, false));
    assert_eq!(kept(&journal, 10), [3, 2, 1, 0]);
    live_and_end(&mut journal, 4..4 + limits::PAST_BATCH as u64);
    assert_eq!(journal.past.count(), 4 + limits::PAST_BATCH as u64, "not more than a batch waits");
    live_and_end(&mut journal, 100..102);
    drop(journal);
    let (journal, _) = Journal::open(&options(dir.path(), Duration::ZERO)).unwrap();
    assert_eq!(kept(&journal, 3), [101, 100, 67], "what waited is written at the end");
}

#[test]
fn those_that_end_while_a_reader_looks_are_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(&options(dir.path(), Duration::ZERO)).unwrap();
    let waiting = journal.past.waiting();
    let looks = waiting.lock().unwrap();
    live_and_end(&mut journal, 0..2);
    assert_eq!((journal.past.count(), journal.past_waits()), (0, true));
    drop(looks);
    assert_eq!(kept(&journal, 10), [1, 0]);
    live_and_end(&mut journal, 2..3);
    assert_eq!((journal.past.count(), kept(&journal, 10)), (2, vec![2, 1, 0]));
}
