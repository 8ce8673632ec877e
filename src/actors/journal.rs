//! The journal writer: one commit answers everybody who waited for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::coordinator::{Committed, CoordinatorActor};
use crate::core::journal::JournalEntry;
use crate::journal::Journal;
use crate::{limits, metrics};

/// What is answered when nothing can be written any more.
const CLOSED: &str = "the journal is closed: the daemon stops";

/// Makes records durable, in the order of the messages.
#[derive(Message)]
#[rtype(result = "Result<(), Arc<str>>")]
pub struct Commit(pub Vec<JournalEntry>);

/// The same for an operation of the coordinator, which hears of it with [`Committed`]. A future for
/// each of these would cost an ADD more than its commit.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CommitOperation(pub u64, pub Vec<JournalEntry>);

/// Makes records durable that nobody waits for: in order with all others, together with the next
/// [`Commit`] or after [`limits::APPEND_WAIT_MAX`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Append(pub Vec<JournalEntry>);

/// Closes the journal's file. Whatever comes after it fails.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Close;

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

struct Waiter {
    records: Vec<JournalEntry>,
    who: Who,
}

/// Who waits for a commit.
enum Who {
    Nobody,
    Sender(oneshot::Sender<Result<(), Arc<str>>>),
    Operation(u64),
}

/// Whom commits are reported to, and counted for.
#[derive(Clone)]
struct Reports {
    coordinator: Addr<CoordinatorActor>,
    metrics: metrics::Journal,
}

/// Where commits are made.
enum Writer {
    /// On this thread: a commit without fsync is 30 microseconds of work in the page cache, less
    /// than waking another thread up would cost.
    Here(Box<Journal>),
    /// On a thread of its own, because a commit with fsync waits for the disk.
    Beside(mpsc::UnboundedSender<Waiter>, JoinHandle<()>),
    Closed,
}

/// The actor.
pub struct JournalActor {
    writer: Writer,
    waiting: Vec<Waiter>,
    /// Records that nobody waits for, which come before whatever is committed next.
    appended: Vec<JournalEntry>,
    reports: Reports,
}

impl JournalActor {
    /// Takes the journal over.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(
        journal: Journal,
        fsync: bool,
        coordinator: Addr<CoordinatorActor>,
    ) -> std::io::Result<Self> {
        let reports = Reports { coordinator, metrics: metrics::Journal::new() };
        let writer = if fsync {
            // Bounded by the calls in flight: each has at most one commit.
            let (sender, receiver) = mpsc::unbounded_channel();
            let reports = reports.clone();
            let thread = std::thread::Builder::new().name("journal".to_owned());
            Writer::Beside(sender, thread.spawn(move || run(journal, receiver, &reports))?)
        } else {
            Writer::Here(Box::new(journal))
        };
        Ok(Self { writer, waiting: Vec::new(), appended: Vec::new(), reports })
    }

    /// Writes records after whatever was appended before them.
    fn write(&mut self, mut waiter: Waiter, ctx: &mut Context<Self>) {
        if !self.appended.is_empty() {
            waiter.records.splice(..0, std::mem::take(&mut self.appended));
        }
        match &self.writer {
            Writer::Here(_) => {
                // Whatever has come in on any connection by now is read before a task that yields
                // goes on, and `Flush` comes after what that puts into the mailbox: the group.
                if self.waiting.is_empty() {
                    let yielded = tokio::task::yield_now().into_actor(self);
                    ctx.spawn(yielded.map(|(), _, ctx| ctx.notify(Flush)));
                }
                self.waiting.push(waiter);
            }
            Writer::Beside(sender, _) => {
                if let Err(mpsc::error::SendError(waiter)) = sender.send(waiter) {
                    self.refuse(waiter);
                }
            }
            Writer::Closed => self.refuse(waiter),
        }
    }

    fn refuse(&self, waiter: Waiter) {
        self.reports.tell(std::iter::once(waiter), &Err(CLOSED.into()));
    }

    /// Writes what was appended, if nothing that was committed since has taken it along.
    fn write_appended(&mut self, ctx: &mut Context<Self>) {
        if !self.appended.is_empty() {
            self.write(Waiter { records: Vec::new(), who: Who::Nobody }, ctx);
        }
    }
}

/// Commits everything that has come in, again and again.
fn run(mut journal: Journal, mut from: mpsc::UnboundedReceiver<Waiter>, to: &Reports) {
    let mut waiting = Vec::new();
    while from.blocking_recv_many(&mut waiting, limits::COMMITS_PER_GROUP_MAX) > 0 {
        commit(&mut journal, &mut waiting, to);
    }
}

fn commit(journal: &mut Journal, waiting: &mut Vec<Waiter>, reports: &Reports) {
    let began = Instant::now();
    let records = waiting.iter().flat_map(|waiter| &waiter.records);
    let count = records.clone().count();
    let result = journal.commit(records);
    reports.metrics.commit(count, began.elapsed(), result.is_err());
    reports.tell(waiting.drain(..), &result);
}

impl Reports {
    /// Tells whoever waits for records what came of them.
    fn tell(&self, waiting: impl Iterator<Item = Waiter>, result: &Result<(), Arc<str>>) {
        let mut operations = Vec::new();
        for waiter in waiting {
            match waiter.who {
                Who::Nobody => {}
                // A caller that is gone needs no answer.
                Who::Sender(sender) => drop(sender.send(result.clone())),
                Who::Operation(operation) => operations.push(operation),
            }
        }
        if !operations.is_empty() {
            self.coordinator.do_send(Committed(operations, result.clone()));
        }
    }
}

impl Actor for JournalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
    }
}

impl Handler<Commit> for JournalActor {
    type Result = ResponseFuture<Result<(), Arc<str>>>;

    fn handle(&mut self, message: Commit, ctx: &mut Self::Context) -> Self::Result {
        let (sender, answer) = oneshot::channel();
        self.write(Waiter { records: message.0, who: Who::Sender(sender) }, ctx);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(CLOSED.into())) })
    }
}

impl Handler<CommitOperation> for JournalActor {
    type Result = ();

    fn handle(&mut self, message: CommitOperation, ctx: &mut Self::Context) {
        let CommitOperation(operation, records) = message;
        self.write(Waiter { records, who: Who::Operation(operation) }, ctx);
    }
}

impl Handler<Append> for JournalActor {
    type Result = ();

    fn handle(&mut self, Append(records): Append, ctx: &mut Self::Context) {
        if self.appended.is_empty() {
            ctx.run_later(limits::APPEND_WAIT_MAX, Self::write_appended);
        }
        self.appended.extend(records);
    }
}

impl Handler<Flush> for JournalActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        if let Writer::Here(journal) = &mut self.writer {
            commit(journal, &mut self.waiting, &self.reports);
        }
    }
}

impl Handler<Close> for JournalActor {
    type Result = ();

    fn handle(&mut self, _: Close, ctx: &mut Self::Context) {
        self.write_appended(ctx);
        match std::mem::replace(&mut self.writer, Writer::Closed) {
            Writer::Here(mut journal) => {
                commit(&mut journal, &mut self.waiting, &self.reports);
            }
            Writer::Beside(sender, thread) => {
                drop(sender);
                // The thread ends with the last commit. It logged a panic of its own already.
                let _ = thread.join();
            }
            Writer::Closed => {}
        }
    }
}
