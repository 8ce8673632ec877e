//! The actor around a machine: a mailbox and a timer.

use std::rc::Rc;

use actix::prelude::*;
use tokio::sync::{oneshot, watch};

use crate::clock;
use crate::core::coordinator::Outcome;
use crate::core::ids::CallId;
use crate::core::node::{
    CoordinatorMachine, JournalMachine, LeaseholderMachine, Machine, Output, RangeSetMachine,
    Standing,
};
use crate::core::time::BootTime;
use crate::{limits, metrics};

/// A message for a machine.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Deliver<I: Send>(pub(super) I);

/// Looks at a machine, or asks it something that changes nothing.
pub(super) struct Inspect<M, R>(pub(super) Box<dyn FnOnce(&mut M) -> R + Send>);

impl<M, R: 'static> Message for Inspect<M, R> {
    type Result = R;
}

/// A machine whose figures are shown after every message.
pub trait Shown: Machine {
    /// The display on which they are shown.
    type Display;

    /// Shows them.
    fn show(&self, display: &mut Self::Display);
}

/// The one who waits for the answer of a call, and is told whether the call waited for a block.
pub(super) type Reply = oneshot::Sender<(Outcome, bool)>;

/// The way out of a machine: carries out its outputs. All of it lives on the actors' thread.
pub(super) trait Outlet {
    /// Carries out one output.
    fn carry_out(&self, output: Output);

    /// The number of a new call, whose answer goes to the sender.
    fn new_call(&self, reply: Reply) -> CallId;

    /// Tells the sender when the node has stopped.
    fn when_stopped(&self, sender: oneshot::Sender<()>);
}

/// A machine behind a mailbox.
pub struct Host<M: Shown> {
    machine: M,
    outlet: Rc<dyn Outlet>,
    display: M::Display,
    timer: Option<(BootTime, SpawnHandle)>,
}

impl<M> Host<M>
where
    M: Shown + Unpin + 'static,
    M::Display: Unpin + 'static,
{
    pub(super) fn new(machine: M, outlet: Rc<dyn Outlet>, display: M::Display) -> Self {
        Self { machine, outlet, display, timer: None }
    }

    pub(super) fn outlet(&self) -> &Rc<dyn Outlet> {
        &self.outlet
    }

    /// Hands a message to the machine.
    pub(super) fn take(&mut self, input: M::Input, ctx: &mut Context<Self>) {
        self.machine.handle(clock::boot(), input);
        self.drive(ctx);
    }

    /// Carries out the machine's outputs, in order, and sets the timer.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.machine.poll_output() {
            self.outlet.carry_out(output);
        }
        self.machine.show(&mut self.display);
        self.arm(ctx);
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(due) = self.machine.poll_timeout() else { return };
        if self.timer.is_none_or(|(armed, _)| due < armed) {
            if let Some((_, handle)) = self.timer.take() {
                ctx.cancel_future(handle);
            }
            // Never sooner than in a moment: a burst of releases cools off together.
            let wait = due.since(clock::boot()).max(limits::TIMER_MIN);
            let handle = ctx.run_later(wait, |host, ctx| {
                host.timer = None;
                host.machine.handle_timeout(clock::boot());
                host.drive(ctx);
            });
            self.timer = Some((due, handle));
        }
    }
}

impl<M> Actor for Host<M>
where
    M: Shown + Unpin + 'static,
    M::Display: Unpin + 'static,
{
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
        self.machine.start(clock::boot());
        self.drive(ctx);
    }
}

impl<M> Handler<Deliver<M::Input>> for Host<M>
where
    M: Shown + Unpin + 'static,
    M::Input: Send,
    M::Display: Unpin + 'static,
{
    type Result = ();

    fn handle(&mut self, Deliver(input): Deliver<M::Input>, ctx: &mut Self::Context) {
        self.take(input, ctx);
    }
}

impl<M, R> Handler<Inspect<M, R>> for Host<M>
where
    M: Shown + Unpin + 'static,
    M::Display: Unpin + 'static,
    R: Send + 'static,
{
    type Result = MessageResult<Inspect<M, R>>;

    fn handle(&mut self, Inspect(look): Inspect<M, R>, _: &mut Self::Context) -> Self::Result {
        MessageResult(look(&mut self.machine))
    }
}

/// Ends the actor of a range set that has become part of another one.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

impl<M> Handler<Stop> for Host<M>
where
    M: Shown + Unpin + 'static,
    M::Display: Unpin + 'static,
{
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Shown for CoordinatorMachine {
    type Display = ();

    fn show(&self, (): &mut ()) {}
}

impl Shown for JournalMachine {
    type Display = ();

    fn show(&self, (): &mut ()) {}
}

impl Shown for RangeSetMachine {
    type Display = metrics::RangeSet;

    fn show(&self, display: &mut metrics::RangeSet) {
        #[cfg(debug_assertions)]
        self.check_invariants();
        display.show(self.stats());
    }
}

impl Shown for LeaseholderMachine {
    type Display = (watch::Sender<Standing>, metrics::Leaseholder);

    fn show(&self, (standing, metrics): &mut Self::Display) {
        let now = self.standing();
        standing.send_if_modified(|shown| {
            let changed = shown != now;
            if changed {
                shown.clone_from(now);
            }
            changed
        });
        metrics.show(now.member && now.lease.is_some(), now.epoch, self.lost());
    }
}
