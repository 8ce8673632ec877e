//! The journal writer: the disk behind the queue of the journal.

use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::mpsc;

use super::host::{Deliver, Outlet};
use crate::clock;
use crate::core::journal::JournalFailure;
use crate::core::node::{Commit, Group, JournalQueue};
use crate::journal::Journal;
use crate::points::{self, Point};
use crate::{limits, metrics};

/// Write the next group.
#[derive(Message)]
#[rtype(result = "()")]
struct Write;

/// Asks for the time that the group that is being written has been with the disk, if there is one.
#[derive(Message)]
#[rtype(result = "Option<Duration>")]
pub(super) struct HowLong;

/// The end of a group that was written on the journal's own thread.
#[derive(Message)]
#[rtype(result = "()")]
struct Written(Result<(), JournalFailure>);

/// The place where commits are made.
enum Writer {
    /// On this thread: a commit without fsync is 30 microseconds of work in the page cache, less
    /// than it costs to wake another thread.
    Here(Box<Journal>),
    /// On a thread of its own, because a commit with fsync waits for the disk.
    Beside(mpsc::UnboundedSender<Group>, JoinHandle<()>),
    Closed,
}

/// The actor.
pub struct JournalActor {
    queue: JournalQueue,
    writer: Writer,
    outlet: Rc<dyn Outlet>,
    /// A [`Write`] is on its way.
    called: bool,
    timer: bool,
    /// The time since which the journal's own thread has been at work on a group.
    writing: Option<Instant>,
    metrics: metrics::Journal,
}

impl JournalActor {
    /// Takes the journal over. `own`: the address of this actor.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn new(
        journal: Journal,
        fsync: bool,
        outlet: Rc<dyn Outlet>,
        own: Addr<Self>,
    ) -> io::Result<Self> {
        let metrics = metrics::Journal::new();
        let writer = if fsync {
            // One group at a time is in it.
            let (sender, groups) = mpsc::unbounded_channel();
            let thread = std::thread::Builder::new().name("journal".to_owned());
            let metrics = metrics.clone();
            Writer::Beside(sender, thread.spawn(move || run(journal, groups, &metrics, &own))?)
        } else {
            Writer::Here(Box::new(journal))
        };
        let queue = JournalQueue::default();
        Ok(Self { queue, writer, outlet, called: false, timer: false, writing: None, metrics })
    }

    /// Has the next group written when everything that has come in by now is in the queue.
    fn call(&mut self, ctx: &mut Context<Self>) {
        if !self.called && self.queue.is_urgent() {
            self.called = true;
            // All that came in on any connection is read before a task that yields goes on, and
            // `Write` comes after what that puts into the mailbox: that is the group.
            let yielded = tokio::task::yield_now().into_actor(self);
            ctx.spawn(yielded.map(|(), _, ctx| ctx.notify(Write)));
        }
        if let (false, Some(due)) = (self.timer, self.queue.poll_timeout()) {
            self.timer = true;
            let wait = due.since(clock::boot()).max(limits::TIMER_MIN);
            ctx.run_later(wait, |actor, ctx| {
                actor.timer = false;
                actor.write(ctx);
            });
        }
    }

    fn write(&mut self, ctx: &mut Context<Self>) {
        while let Some(group) = self.queue.next_group(limits::COMMITS_PER_GROUP_MAX) {
            match &mut self.writer {
                Writer::Here(journal) => {
                    let result = commit(journal, &group, &self.metrics);
                    self.written(result);
                }
                // It is gone only after a panic, which ends the process.
                Writer::Beside(groups, _) => {
                    self.writing = Some(Instant::now());
                    drop(groups.send(group));
                }
                Writer::Closed => self.written(Err(JournalFailure::Closed)),
            }
        }
        self.call(ctx);
    }

    fn written(&mut self, result: Result<(), JournalFailure>) {
        self.writing = None;
        let messages = self.queue.ended(result);
        if self.queue.is_closed()
            && let Writer::Beside(groups, thread) =
                std::mem::replace(&mut self.writer, Writer::Closed)
        {
            drop(groups);
            // The thread ends with the last group. It logged a panic of its own already.
            let _ = thread.join();
        }
        self.outlet.deliver(messages);
    }
}

/// Commits group after group.
fn run(
    mut journal: Journal,
    mut groups: mpsc::UnboundedReceiver<Group>,
    metrics: &metrics::Journal,
    to: &Addr<JournalActor>,
) {
    while let Some(group) = groups.blocking_recv() {
        to.do_send(Written(commit(&mut journal, &group, metrics)));
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

impl Actor for JournalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
    }
}

impl Handler<Deliver<Commit>> for JournalActor {
    type Result = ();

    fn handle(&mut self, Deliver(commit): Deliver<Commit>, ctx: &mut Self::Context) {
        let messages = self.queue.push(clock::boot(), commit);
        self.outlet.deliver(messages);
        self.call(ctx);
    }
}

impl Handler<Write> for JournalActor {
    type Result = ();

    fn handle(&mut self, _: Write, ctx: &mut Self::Context) {
        self.called = false;
        self.write(ctx);
    }
}

impl Handler<HowLong> for JournalActor {
    type Result = Option<Duration>;

    fn handle(&mut self, _: HowLong, _: &mut Self::Context) -> Self::Result {
        self.writing.map(|since| since.elapsed())
    }
}

impl Handler<Written> for JournalActor {
    type Result = ();

    fn handle(&mut self, Written(result): Written, ctx: &mut Self::Context) {
        self.written(result);
        self.write(ctx);
    }
}
