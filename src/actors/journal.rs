//! The disk of the journal: writes the groups that the journal's machine forms.

use std::cell::RefCell;
use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

use actix::prelude::*;
use tokio::sync::mpsc;

use super::host::{Deliver, Host};
use crate::core::journal::JournalFailure;
use crate::core::node::{Group, JournalMachine, ToJournal};
use crate::journal::Journal;
use crate::metrics;
use crate::points::{self, Point};

/// The place where groups are written.
enum Writer {
    /// On this thread: a commit without fsync is 30 microseconds of work in the page cache, less
    /// than it costs to wake another thread.
    Here(Box<Journal>),
    /// On a thread of its own, because a commit with fsync waits for the disk. The machine sends
    /// one group at a time.
    Beside(mpsc::UnboundedSender<Group>, JoinHandle<()>),
    Closed,
}

/// The disk. The journal's machine hears how each group ended.
pub(super) struct Disk {
    writer: RefCell<Writer>,
    machine: Addr<Host<JournalMachine>>,
    metrics: metrics::Journal,
}

impl Disk {
    /// Takes the journal over. `fsync`: commits wait for the disk.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn new(
        journal: Journal,
        fsync: bool,
        machine: Addr<Host<JournalMachine>>,
    ) -> io::Result<Self> {
        let metrics = metrics::Journal::new();
        let writer = if fsync {
            let (sender, groups) = mpsc::unbounded_channel();
            let thread = std::thread::Builder::new().name("journal".to_owned());
            let (metrics, to) = (metrics.clone(), machine.clone());
            Writer::Beside(sender, thread.spawn(move || run(journal, groups, &metrics, &to))?)
        } else {
            Writer::Here(Box::new(journal))
        };
        Ok(Self { writer: RefCell::new(writer), machine, metrics })
    }

    /// Writes a group.
    pub(super) fn write(&self, group: Group) {
        let result = match &mut *self.writer.borrow_mut() {
            Writer::Here(journal) => commit(journal, &group, &self.metrics),
            // The thread is gone only after a panic, which ends the process.
            Writer::Beside(groups, _) => return drop(groups.send(group)),
            Writer::Closed => Err(JournalFailure::Closed),
        };
        self.machine.do_send(Deliver(ToJournal::Written(result)));
    }

    /// Closes the journal's file.
    pub(super) fn close(&self) {
        if let Writer::Beside(groups, thread) = self.writer.replace(Writer::Closed) {
            drop(groups);
            // The thread ends with the last group. It logged a panic of its own already.
            let _ = thread.join();
        }
    }
}

/// Writes group after group.
fn run(
    mut journal: Journal,
    mut groups: mpsc::UnboundedReceiver<Group>,
    metrics: &metrics::Journal,
    to: &Addr<Host<JournalMachine>>,
) {
    while let Some(group) = groups.blocking_recv() {
        to.do_send(Deliver(ToJournal::Written(commit(&mut journal, &group, metrics))));
    }
}

fn commit(
    journal: &mut Journal,
    group: &Group,
    metrics: &metrics::Journal,
) -> Result<(), JournalFailure> {
    let began = Instant::now();
    points::pass(Point::BeforeCommit);
    let result = journal.commit(&group.entries);
    points::pass(Point::AfterCommit);
    metrics.commit(group.entries.len(), began.elapsed(), result.is_err());
    result
}
