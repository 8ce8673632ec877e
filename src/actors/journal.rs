//! The disk of the journal: writes the groups that the journal's machine forms.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Instant;

use actix::prelude::*;
use tokio::sync::mpsc;

use super::host::{Deliver, Host};
use crate::core::journal::JournalFailure;
use crate::core::node::{Group, JournalMachine, ToJournal};
use crate::journal::Journal;
use crate::points::{self, Point};
use crate::{limits, metrics};

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
    /// The past holdings that wait will be written in a moment.
    past_called: Cell<bool>,
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
        Ok(Self { writer: RefCell::new(writer), machine, metrics, past_called: Cell::new(false) })
    }

    /// Writes a group.
    pub(super) fn write(self: &Rc<Self>, group: Group) {
        let result = match &mut *self.writer.borrow_mut() {
            Writer::Here(journal) => {
                let result = commit(journal, &group, &self.metrics);
                if journal.past_waits() {
                    self.call_past();
                }
                result
            }
            // The thread is gone only after a panic, which ends the process.
            Writer::Beside(groups, _) => return drop(groups.send(group)),
            Writer::Closed => Err(JournalFailure::Closed),
        };
        self.machine.do_send(Deliver(ToJournal::Written(result)));
    }

    /// Has the past holdings written that wait, in case that no commit takes them along.
    fn call_past(self: &Rc<Self>) {
        if self.past_called.replace(true) {
            return;
        }
        let disk = Rc::downgrade(self);
        actix_rt::spawn(async move {
            tokio::time::sleep(limits::PAST_WAIT_MAX).await;
            let Some(disk) = disk.upgrade() else { return };
            disk.past_called.set(false);
            if let Writer::Here(journal) = &mut *disk.writer.borrow_mut() {
                // The next commit fails with the same cause.
                let _ = journal.write_past();
            }
        });
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
