//! The order of the journal: what is written together, and what is let go afterwards.

use std::collections::VecDeque;

use super::message::{
    After, Commit, Message, OrderOrigin, ToCoordinator, ToLeaseholder, ToRangeSet,
};
use crate::core::journal::{JournalEntry, JournalFailure};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::limits;

/// Commits in the order in which they were asked for. [`JournalQueue::next_group`] takes what is
/// written next; [`JournalQueue::ended`] lets go what waited for it. One group is written at a
/// time. After the first failure nothing is durable any longer (rule 14): every later commit fails
/// with the same cause, without being written.
#[derive(Default, Debug)]
pub struct JournalQueue {
    waiting: VecDeque<Commit>,
    /// The number of commits in `waiting` that something waits for.
    urgent: usize,
    /// The time at which the entries that nothing waits for are due.
    due: Option<BootTime>,
    writing: Option<Vec<After>>,
    failed: Option<JournalFailure>,
    closed: bool,
}

/// Entries that are written together: all of them become durable, or none.
#[derive(Debug)]
pub struct Group {
    /// The entries, in order.
    pub entries: Vec<JournalEntry>,
}

impl JournalQueue {
    /// Adds a commit. Returns the messages of one that can no longer be written.
    pub fn push(&mut self, now: BootTime, commit: Commit) -> Vec<Message> {
        if self.closed {
            let cause = Err(JournalFailure::Closed);
            return release(std::iter::once(commit.then), &cause);
        }
        if let After::Nothing = commit.then {
            self.due.get_or_insert(now + limits::APPEND_WAIT_MAX);
        } else {
            self.urgent += 1;
        }
        self.waiting.push_back(commit);
        self.refuse()
    }

    /// Returns whether something waits for a group to be written.
    pub fn is_urgent(&self) -> bool {
        self.urgent > 0 && self.writing.is_none()
    }

    /// Returns the time at which a group must be written although nothing waits for it.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        self.due.filter(|_| self.writing.is_none())
    }

    /// Returns the next group of at most that many commits, unless one is being written. Once the
    /// journal has failed, or is closed, there is none: call [`JournalQueue::refuse`].
    pub fn next_group(&mut self, commits_max: usize) -> Option<Group> {
        if self.writing.is_some() || self.waiting.is_empty() || self.failed.is_some() {
            return None;
        }
        let count = self.waiting.len().min(commits_max);
        let mut entries = Vec::new();
        let mut then = Vec::with_capacity(count);
        for commit in self.waiting.drain(..count) {
            entries.extend(commit.entries);
            if let After::Nothing = commit.then {
                continue;
            }
            self.urgent -= 1;
            self.closed |= matches!(commit.then, After::Close);
            then.push(commit.then);
        }
        self.due = self.due.filter(|_| !self.waiting.is_empty());
        self.writing = Some(then);
        Some(Group { entries })
    }

    /// Handles the end of a group: it is durable, or the journal failed. Returns what waited for
    /// it, and after a failure all that waits.
    pub fn ended(&mut self, result: Result<(), JournalFailure>) -> Vec<Message> {
        let result = if broken(Mutant::FailedCommitIsGood) { Ok(()) } else { result };
        let written = self.writing.take().unwrap_or_default();
        if let Err(cause) = &result {
            self.failed.get_or_insert_with(|| cause.clone());
        }
        let mut messages = release(written.into_iter(), &result);
        messages.extend(self.refuse());
        messages
    }

    /// Ends all commits that wait, after a failure.
    pub fn refuse(&mut self) -> Vec<Message> {
        let Some(cause) = self.failed.clone() else { return vec![] };
        self.urgent = 0;
        self.due = None;
        let waiting = std::mem::take(&mut self.waiting);
        release(waiting.into_iter().map(|commit| commit.then), &Err(cause))
    }

    /// Returns whether the journal has been told to close and everything before that is durable.
    pub fn is_closed(&self) -> bool {
        self.closed && self.writing.is_none()
    }

    /// Returns the entries that are not durable yet, commit by commit; for simulators.
    pub fn unwritten(&self) -> impl Iterator<Item = &Vec<JournalEntry>> {
        self.waiting.iter().map(|commit| &commit.entries)
    }
}

/// Returns the messages of everything that waited for a commit with this result. Operations of the
/// coordinator come as one message: one of its own for each would cost an ADD more than its commit.
fn release(
    waited: impl Iterator<Item = After>,
    result: &Result<(), JournalFailure>,
) -> Vec<Message> {
    let mut operations = Vec::new();
    let mut messages = Vec::new();
    for after in waited {
        match (after, result) {
            (After::Operation(operation), _) => operations.push(operation),
            (After::Order(set, context, order), Ok(())) => {
                let origin = OrderOrigin::RangeSet(set, context);
                messages
                    .push(Message::Leaseholder(ToLeaseholder::SubmitOrder(Some(origin), *order)));
            }
            (After::Order(set, context, _), Err(_)) => {
                messages.push(Message::RangeSet(set, ToRangeSet::OrderFailed(context)));
            }
            (After::Intent(link), Ok(())) => {
                messages.push(Message::Leaseholder(ToLeaseholder::Intended(link)));
            }
            (After::Close, _) => {
                messages.push(Message::Coordinator(ToCoordinator::JournalClosed));
            }
            // Once the journal has failed, nothing more is changed in the store.
            (After::Nothing, _) | (After::Intent(_), Err(_)) => {}
        }
    }
    if !operations.is_empty() {
        let committed = ToCoordinator::Committed(operations, result.clone());
        messages.insert(0, Message::Coordinator(committed));
    }
    messages
}
