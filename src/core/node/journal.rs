//! The order of the journal: what is written together, and what is let go afterwards.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::{
    After, Commit, Group, Machine, Message, OrderOrigin, Output, ToCoordinator, ToJournal,
    ToLeaseholder, ToRangeSet,
};
use crate::core::journal::{JournalEntry, JournalFailure};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::limits;

/// Commits in the order in which they were asked for. One group of them is written at a time
/// ([`Output::Write`]), and its end lets go what waited for it. After the first failure nothing is
/// durable any longer (rule 14): every later commit fails with the same cause, without being
/// written.
#[derive(Debug)]
pub struct JournalMachine {
    /// The most commits in a group.
    group_max: usize,
    waiting: VecDeque<Commit>,
    /// The number of commits in `waiting` that something waits for.
    urgent: usize,
    /// The time at which the entries that nothing waits for are due.
    due: Option<BootTime>,
    /// [`ToJournal::Write`] is on its way.
    called: bool,
    writing: Option<Writing>,
    failed: Option<JournalFailure>,
    outputs: VecDeque<Output>,
}

/// A group that is being written.
#[derive(Debug)]
struct Writing {
    since: BootTime,
    /// The work that waits for it.
    then: Vec<After>,
    /// No group comes after it.
    last: bool,
}

impl JournalMachine {
    /// Creates it, for groups of so many commits at most.
    pub fn new(group_max: usize) -> Self {
        Self {
            group_max,
            waiting: VecDeque::new(),
            urgent: 0,
            due: None,
            called: false,
            writing: None,
            failed: None,
            outputs: VecDeque::new(),
        }
    }

    /// Returns how long the disk has been at work on a group, if that is longer than a disk that
    /// works ever takes.
    pub fn hangs_for(&self, now: BootTime) -> Option<Duration> {
        let time = now.since(self.writing.as_ref()?.since);
        (time > limits::JOURNAL_WAIT_MAX).then_some(time)
    }

    /// Returns the entries that wait for a group, commit by commit; for simulators.
    pub fn waiting(&self) -> impl Iterator<Item = &Vec<JournalEntry>> {
        self.waiting.iter().map(|commit| &commit.entries)
    }

    fn push(&mut self, now: BootTime, mut commit: Commit) {
        if broken(Mutant::AnsweredBeforeDurable)
            && let After::Operation(_) = commit.then
        {
            let then = std::mem::replace(&mut commit.then, After::Nothing);
            self.release(std::iter::once(then), &Ok(()));
        }
        if let After::Nothing = commit.then {
            self.due.get_or_insert(now + limits::APPEND_WAIT_MAX);
        } else {
            self.urgent += 1;
        }
        self.waiting.push_back(commit);
        self.refuse();
    }

    /// Asks to be called for the next group, if something waits for it.
    fn call(&mut self) {
        if self.urgent > 0 && self.writing.is_none() && !self.called {
            self.called = true;
            self.outputs.push_back(Output::CallJournal);
        }
    }

    /// Has the next group written, unless one is being written.
    fn write(&mut self, now: BootTime) {
        if self.writing.is_some() || self.waiting.is_empty() {
            return;
        }
        let count = self.waiting.len().min(self.group_max);
        let mut entries = Vec::new();
        let (mut then, mut last) = (Vec::with_capacity(count), false);
        for commit in self.waiting.drain(..count) {
            entries.extend(commit.entries);
            if let After::Nothing = commit.then {
                continue;
            }
            self.urgent -= 1;
            last |= matches!(commit.then, After::Close);
            then.push(commit.then);
        }
        self.due = self.due.filter(|_| !self.waiting.is_empty());
        self.writing = Some(Writing { since: now, then, last });
        self.outputs.push_back(Output::Write(Group { entries }));
    }

    /// Lets go what waited for the group that was written, and after a failure all that waits.
    fn written(&mut self, result: Result<(), JournalFailure>) {
        let result = if broken(Mutant::FailedCommitIsGood) { Ok(()) } else { result };
        let Some(Writing { then, last, .. }) = self.writing.take() else { return };
        if let Err(cause) = &result {
            self.failed.get_or_insert_with(|| cause.clone());
        }
        if last {
            self.failed.get_or_insert(JournalFailure::Closed);
            self.outputs.push_back(Output::CloseJournal);
        }
        self.release(then.into_iter(), &result);
        self.refuse();
    }

    /// Ends all commits that wait, once the journal has failed or is closed.
    fn refuse(&mut self) {
        let Some(cause) = self.failed.clone() else { return };
        self.urgent = 0;
        self.due = None;
        let waiting = std::mem::take(&mut self.waiting);
        self.release(waiting.into_iter().map(|commit| commit.then), &Err(cause));
    }

    /// Sends the messages of everything that waited for a commit with this result. Operations of
    /// the coordinator go as one message: one of its own for each would cost an ADD more than its
    /// commit.
    fn release(
        &mut self,
        waited: impl Iterator<Item = After>,
        result: &Result<(), JournalFailure>,
    ) {
        let mut operations = Vec::new();
        let mut messages = Vec::new();
        for after in waited {
            match (after, result) {
                (After::Operation(operation), _) => operations.push(operation),
                (After::Order(set, context, order), Ok(())) => {
                    let origin = OrderOrigin::RangeSet(set, context);
                    messages.push(Message::Leaseholder(ToLeaseholder::SubmitOrder(
                        Some(origin),
                        *order,
                    )));
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
            self.outputs.push_back(Output::Send(Message::Coordinator(committed)));
        }
        self.outputs.extend(messages.into_iter().map(Output::Send));
    }
}

impl Machine for JournalMachine {
    type Input = ToJournal;

    fn start(&mut self, _: BootTime) {}

    fn handle(&mut self, now: BootTime, input: ToJournal) {
        match input {
            ToJournal::Commit(commit) => self.push(now, commit),
            ToJournal::Write => {
                self.called = false;
                self.write(now);
            }
            ToJournal::Written(result) => self.written(result),
        }
        self.call();
    }

    fn handle_timeout(&mut self, now: BootTime) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.write(now);
        }
    }

    /// Returns the time at which a group must be written although nothing waits for it.
    fn poll_timeout(&self) -> Option<BootTime> {
        self.due.filter(|_| self.writing.is_none() && !self.called)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
