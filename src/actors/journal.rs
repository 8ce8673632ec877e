//! The journal writer: one commit answers everybody who waited for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};

use crate::core::coordinator::Record;
use crate::journal::Journal;
use crate::{limits, metrics};

/// Makes records durable, in the order of the messages.
#[derive(Message)]
#[rtype(result = "Result<(), Arc<str>>")]
pub struct Commit(pub Vec<Record>);

/// Makes records durable that nobody waits for: in order with all others, together with the next
/// [`Commit`] or after [`limits::APPEND_WAIT_MAX`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Append(pub Vec<Record>);

/// Closes the journal's file. Whatever comes after it fails.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Close;

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

struct Waiter {
    records: Vec<Record>,
    done: Option<oneshot::Sender<Result<(), Arc<str>>>>,
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
    appended: Vec<Record>,
    metrics: metrics::Journal,
}

impl JournalActor {
    /// Takes the journal over.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(journal: Journal, fsync: bool) -> std::io::Result<Self> {
        let metrics = metrics::Journal::new();
        let writer = if fsync {
            // Bounded by the calls in flight: each has at most one commit.
            let (sender, receiver) = mpsc::unbounded_channel();
            let metrics = metrics.clone();
            let thread = std::thread::Builder::new().name("journal".to_owned());
            Writer::Beside(sender, thread.spawn(move || run(journal, receiver, &metrics))?)
        } else {
            Writer::Here(Box::new(journal))
        };
        Ok(Self { writer, waiting: Vec::new(), appended: Vec::new(), metrics })
    }

    fn write(&mut self, waiter: Waiter, ctx: &mut Context<Self>) {
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
            Writer::Beside(sender, _) => drop(sender.send(waiter)),
            Writer::Closed => drop(waiter),
        }
    }

    /// Writes what was appended, if nothing that was committed since has taken it along.
    fn write_appended(&mut self, ctx: &mut Context<Self>) {
        let records = std::mem::take(&mut self.appended);
        if !records.is_empty() {
            self.write(Waiter { records, done: None }, ctx);
        }
    }
}

/// Commits everything that has come in, again and again.
fn run(mut journal: Journal, mut from: mpsc::UnboundedReceiver<Waiter>, to: &metrics::Journal) {
    let mut waiting = Vec::new();
    while from.blocking_recv_many(&mut waiting, limits::COMMITS_PER_GROUP_MAX) > 0 {
        commit(&mut journal, &mut waiting, to);
    }
}

fn commit(journal: &mut Journal, waiting: &mut Vec<Waiter>, metrics: &metrics::Journal) {
    let began = Instant::now();
    let records = waiting.iter().flat_map(|waiter| &waiter.records);
    let count = records.clone().count();
    let result = journal.commit(records);
    metrics.commit(count, began.elapsed(), result.is_err());
    for done in waiting.drain(..).filter_map(|waiter| waiter.done) {
        // A caller that is gone needs no answer.
        let _ = done.send(result.clone());
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
        let (done, answer) = oneshot::channel();
        let records = match std::mem::take(&mut self.appended) {
            appended if appended.is_empty() => message.0,
            appended => appended.into_iter().chain(message.0).collect(),
        };
        self.write(Waiter { records, done: Some(done) }, ctx);
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| Err("the journal is closed: the daemon stops".into()))
        })
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
            commit(journal, &mut self.waiting, &self.metrics);
        }
    }
}

impl Handler<Close> for JournalActor {
    type Result = ();

    fn handle(&mut self, _: Close, ctx: &mut Self::Context) {
        self.write_appended(ctx);
        match std::mem::replace(&mut self.writer, Writer::Closed) {
            Writer::Here(mut journal) => {
                commit(&mut journal, &mut self.waiting, &self.metrics);
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
