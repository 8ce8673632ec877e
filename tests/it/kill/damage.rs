//! A damaged journal. One of this boot is refused, because serving without it would be a guess. One
//! of an earlier boot is put aside, because its allocations ended with that boot.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};

use super::machine::Machine;
use super::{config, listed};
use crate::common::{Call, Daemon};

/// Holdings that fill many pages of a journal.
const MANY: usize = 500;
/// The bytes of one page of the journal's file.
const PAGE_BYTES: u64 = 4096;

impl Machine {
    /// Overwrites the journal, all but the head and the tail of the file.
    fn damage(&self) {
        let length = fs::metadata(self.journal()).expect("the journal").len();
        assert!(length > 64 << 10, "a journal of {length} bytes has no middle");
        self.overwrite(length / 16, length / 16 * 14);
    }

    fn overwrite(&self, from: u64, count: u64) {
        let mut file: File =
            OpenOptions::new().write(true).open(self.journal()).expect("the journal");
        file.seek(SeekFrom::Start(from)).expect("a place in the journal");
        let count = usize::try_from(count).expect("a length");
        file.write_all(&vec![0xA5; count]).expect("damage");
    }

    fn hold_many(&self) {
        let call = |number| {
            Call::new("ADD", &format!("many-{number}"), &config("many", &["10.51.0.0/22"]))
        };
        let calls: Vec<Call> = (0..MANY).map(call).collect();
        let answers = self.daemon.client().try_calls(&calls).expect("an array of answers");
        assert!(answers.iter().all(|answer| answer.succeeded()));
    }

    /// Damages the journal. The daemon must say so and not start, again and again.
    fn refuses_damage(&mut self) {
        self.damage();
        let damaged = fs::read(self.journal()).expect("the journal");
        for _ in 0..2 {
            let (code, text) = self.daemon.refusal();
            assert!(!text.contains("panicked"), "{text}");
            assert_eq!(code, 2, "{text}");
            let path = self.journal().display().to_string();
            for word in ["journal", &path, "damaged", "Move the file away"] {
                assert!(text.contains(word), "no {word:?} in {text}");
            }
        }
        let after = fs::read(self.journal()).expect("the journal");
        assert!(after == damaged, "a journal that is refused is left as it is");
        // The message's advice works: the daemon serves. The blocks of the lost journal cool first,
        // because containers may still use their addresses, and the log says so.
        fs::rename(self.journal(), self.journal().with_extension("aside")).expect("a rename");
        self.daemon.restart();
        assert!(listed(&self.daemon).is_empty());
        let log = self.daemon.log();
        assert!(log.contains("the state directory is older than this node"), "{log}");
        let other = Call::new("ADD", "other", &config("other", &["10.52.0.0/22"]));
        assert!(self.daemon.client().call(&other).succeeded());
        let blocks = self.daemon.client().get("/v1/blocks?network=many");
        let blocks = blocks.as_array().expect("blocks");
        let cools = |block: &serde_json::Value| block["free"] == 0 && block["allocated"] == 0;
        assert!(!blocks.is_empty() && blocks.iter().all(cools), "{blocks:?}");
        // In the next boot, the whole pool can be used again.
        self.reboot();
        assert!(listed(&self.daemon).is_empty());
        self.hold_many();
    }
}

#[test]
fn a_damaged_journal_of_this_boot_is_refused_after_a_kill() {
    let mut machine = Machine::start(&[]);
    machine.hold_many();
    machine.daemon.kill9();
    machine.refuses_damage();
}

#[test]
fn a_damaged_journal_of_this_boot_is_refused_after_a_stop() {
    let mut machine = Machine::start(&[]);
    machine.hold_many();
    machine.daemon.terminate();
    machine.refuses_damage();
}

#[test]
fn a_truncated_journal_of_this_boot_is_refused() {
    let mut machine = Machine::start(&[]);
    machine.hold_many();
    machine.daemon.kill9();
    let file = OpenOptions::new().write(true).open(machine.journal()).expect("the journal");
    file.set_len(file.metadata().expect("the length").len() / 2).expect("half a journal");
    let (code, text) = machine.daemon.refusal();
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(code, 2, "{text}");
    assert!(text.contains(&machine.journal().display().to_string()), "{text}");
}

#[test]
fn a_journal_of_an_earlier_boot_that_was_damaged_after_a_kill_is_replaced() {
    let mut machine = Machine::start(&[]);
    machine.hold_many();
    machine.daemon.kill9();
    replaces_damage(machine);
}

#[test]
fn a_journal_of_an_earlier_boot_that_was_damaged_after_a_stop_is_replaced() {
    let mut machine = Machine::start(&[]);
    machine.hold_many();
    machine.daemon.terminate();
    replaces_damage(machine);
}

/// Damages the journal and reboots the machine: the daemon starts empty, beside the old file.
fn replaces_damage(mut machine: Machine) {
    machine.damage();
    let damaged = fs::read(machine.journal()).expect("the journal");
    machine.next_boot();
    machine.daemon.restart();
    assert!(listed(&machine.daemon).is_empty());
    let aside = machine.journal().with_extension("redb.broken");
    assert!(
        fs::read(&aside).expect("the old journal") == damaged,
        "the old file is kept as it was"
    );
    let log = machine.daemon.log();
    assert!(log.contains("WARN") && log.contains(&aside.display().to_string()), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    // It serves, keeps its allocations, and the whole pool can be used again.
    machine.hold_many();
    let held = listed(&machine.daemon);
    machine.daemon.kill9();
    machine.daemon.restart();
    assert_eq!(listed(&machine.daemon), held);
}

#[test]
fn a_damaged_journal_that_was_to_be_kept_is_refused_also_after_a_reboot() {
    let mut machine = Machine::start(&["--fsync", "--keep-after-reboot"]);
    machine.hold_many();
    machine.daemon.kill9();
    machine.damage();
    machine.next_boot();
    let (code, text) = machine.daemon.refusal();
    assert_eq!(code, 2, "{text}");
    assert!(text.contains(&machine.journal().display().to_string()), "{text}");
}

/// Damages one page of the journal after the other, each time in a copy of the same state.
fn damages_each_page(mut machine: Machine, end: impl Fn(&mut Daemon)) {
    let before = listed(&machine.daemon);
    end(&mut machine.daemon);
    let state = machine.daemon.state_dir();
    let files = ["journal.redb", "cluster.redb"].map(|name| state.join(name));
    let whole = files.each_ref().map(|path| fs::read(path).expect("a file of the state"));
    let (mut refused, mut lost) = (0, Vec::new());
    let pages = whole[0].len() as u64 / PAGE_BYTES;
    for page in 0..pages {
        for (path, bytes) in files.iter().zip(&whole) {
            fs::write(path, bytes).expect("a copy of the state");
        }
        machine.overwrite(page * PAGE_BYTES + PAGE_BYTES / 4, PAGE_BYTES / 2);
        match machine.daemon.try_start() {
            Err((2, text)) if !text.contains("panicked") => refused += 1,
            Err((code, text)) => lost.push(format!("page {page}: exit code {code}: {text}")),
            Ok(()) => {
                let after = listed(&machine.daemon);
                if after != before {
                    let (was, is) = (before.len(), after.len());
                    lost.push(format!("page {page}: it serves {is} holdings of {was}"));
                }
                machine.daemon.kill9();
            }
        }
    }
    println!("{refused} of {pages} damaged pages were refused");
    assert!(lost.is_empty(), "{} of {pages} pages:\n{}", lost.len(), lost.join("\n"));
    assert!(refused > 0, "no page of {pages} counts");
}

#[test]
fn a_page_that_is_damaged_is_noticed_or_counts_for_nothing_after_a_kill() {
    let machine = Machine::start(&[]);
    machine.hold_many();
    damages_each_page(machine, Daemon::kill9);
}

#[test]
fn a_page_that_is_damaged_is_noticed_or_counts_for_nothing_after_a_stop() {
    let machine = Machine::start(&[]);
    machine.hold_many();
    damages_each_page(machine, |daemon| assert!(daemon.terminate().success()));
}
