//! One range set: leases blocks ahead of demand and hands single addresses out from memory.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::leaseholder::{Claim, GiveBack, Leaseholder};
use crate::clock::boot_ms;
use crate::core::address::Run;
use crate::core::coordinator::SetRecord;
use crate::core::range::Ranges;
use crate::core::range_set::{self, AssignError, Claimed, Effect, Stats};
use crate::core::{Map, Millis};
use crate::{limits, metrics};

/// Assigns one address.
#[derive(Message)]
#[rtype(result = "Result<u128, AssignError>")]
pub struct Assign(pub range_set::Assign);

/// Takes an assignment back that nobody has seen.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Undo(pub u128);

/// Releases an address whose release is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Release(pub u128);

/// Whether an ADD from these ranges could be served now, as far as this range set knows.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Probe(pub Arc<Ranges>);

/// The figures of this range set.
#[derive(Message)]
#[rtype(result = "Description")]
pub struct Describe;

/// What [`Describe`] answers.
#[derive(Clone, MessageResponse, Debug)]
pub struct Description {
    /// Which range set this is.
    pub record: SetRecord,
    /// Its figures.
    pub stats: Stats,
}

/// Ends this actor and answers what it owned.
#[derive(Message)]
#[rtype(result = "Option<Box<range_set::RangeSet>>")]
pub struct Retire;

/// Takes over what another range set owned, and its territory.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Absorb(pub Box<range_set::RangeSet>);

/// The actor.
pub struct RangeSetActor {
    record: SetRecord,
    core: range_set::RangeSet,
    leaseholder: Addr<Leaseholder>,
    waiting: Map<u64, oneshot::Sender<Result<u128, AssignError>>>,
    timer: Option<(Millis, SpawnHandle)>,
    /// Who waits for what this actor owns, until nothing is under way in the store any more.
    retiring: Option<oneshot::Sender<Box<range_set::RangeSet>>>,
    metrics: metrics::RangeSet,
}

impl RangeSetActor {
    /// An actor around a range set.
    pub fn new(
        record: SetRecord,
        core: range_set::RangeSet,
        leaseholder: Addr<Leaseholder>,
    ) -> Self {
        let metrics = metrics::RangeSet::new(&record.network, record.family);
        let (waiting, timer, retiring) = (Map::default(), None, None);
        Self { record, core, leaseholder, waiting, timer, retiring, metrics }
    }

    /// Carries out what the core asks for, and arms the timer.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Assigned(id, result) => {
                    if let Some(waiting) = self.waiting.remove(&id) {
                        // A caller that is gone: its operation went with the whole coordinator.
                        let _ = waiting.send(result);
                    }
                }
                Effect::Claim(runs) => self.claim(runs, ctx),
                Effect::GiveBack(blocks) => self.give_back(blocks, ctx),
            }
        }
        self.metrics.show(self.core.stats());
        #[cfg(debug_assertions)]
        self.core.check_invariants();
        if !self.core.is_asking()
            && let Some(retiring) = self.retiring.take()
        {
            return self.hand_over(retiring, ctx);
        }
        self.arm(ctx);
    }

    /// Gives away what this actor owns, and ends it.
    fn hand_over(
        &mut self,
        to: oneshot::Sender<Box<range_set::RangeSet>>,
        ctx: &mut Context<Self>,
    ) {
        let empty = range_set::RangeSet::new(self.record.family, self.core.block_log2(), 0);
        let core = std::mem::replace(&mut self.core, empty);
        self.metrics.show(Stats::default());
        let _ = to.send(Box::new(core));
        ctx.stop();
    }

    /// Arms the timer for when the core has something to do.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(due) = self.core.poll_timeout() else { return };
        if self.timer.is_none_or(|(armed, _)| due < armed) {
            if let Some((_, handle)) = self.timer.take() {
                ctx.cancel_future(handle);
            }
            // Never sooner than in a moment: a burst of releases cools off together.
            let wait = due.saturating_sub(boot_ms()).max(limits::TIMER_MS_MIN);
            let handle = ctx.run_later(Duration::from_millis(wait), |actor, ctx| {
                actor.timer = None;
                actor.core.handle_timeout(boot_ms());
                actor.drive(ctx);
            });
            self.timer = Some((due, handle));
        }
    }

    fn claim(&mut self, runs: Vec<Run>, ctx: &mut Context<Self>) {
        let (network, family) = (self.record.network.clone(), self.record.family);
        let claim = self.leaseholder.send(Claim { network, family, runs });
        let then = claim.into_actor(self).map(|answer, actor, ctx| {
            let claimed = answer.unwrap_or_else(|error| Claimed::Failed(error.to_string().into()));
            match &claimed {
                Claimed::Done(_) => actor.metrics.claim_done(),
                Claimed::Conflict(_) => actor.metrics.claim_conflict(),
                Claimed::Failed(cause) => {
                    actor.metrics.claim_failed();
                    tracing::error!(network = &*actor.record.network, %cause, "no block leased");
                }
            }
            actor.core.claimed(boot_ms(), claimed);
            actor.drive(ctx);
        });
        ctx.spawn(then);
    }

    fn give_back(&mut self, blocks: Vec<(Run, u64)>, ctx: &mut Context<Self>) {
        let (network, family) = (self.record.network.clone(), self.record.family);
        let count = blocks.len();
        let give_back = self.leaseholder.send(GiveBack { network, family, blocks });
        let then = give_back.into_actor(self).map(move |answer, actor, ctx| {
            let done = answer.unwrap_or(false);
            if done {
                actor.metrics.given_back(count);
            }
            actor.core.given_back(boot_ms(), done);
            actor.drive(ctx);
        });
        ctx.spawn(then);
    }
}

impl Actor for RangeSetActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
        self.drive(ctx);
    }
}

impl Handler<Assign> for RangeSetActor {
    type Result = Response<Result<u128, AssignError>>;

    fn handle(&mut self, Assign(request): Assign, ctx: &mut Self::Context) -> Self::Result {
        let id = request.id;
        let answer = self.core.assign(boot_ms(), request);
        let response = match answer {
            Some(result) => Response::reply(result),
            None => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.insert(id, sender);
                Response::fut(async move {
                    let gone = || AssignError::NoBlock("the range set was ended".into());
                    receiver.await.unwrap_or_else(|_| Err(gone()))
                })
            }
        };
        self.drive(ctx);
        response
    }
}

impl Handler<Undo> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, Undo(number): Undo, ctx: &mut Self::Context) {
        self.core.undo(boot_ms(), number);
        self.drive(ctx);
    }
}

impl Handler<Release> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, Release(number): Release, ctx: &mut Self::Context) {
        self.core.release(boot_ms(), number);
        self.drive(ctx);
    }
}

impl Handler<Probe> for RangeSetActor {
    type Result = bool;

    fn handle(&mut self, Probe(view): Probe, _: &mut Self::Context) -> bool {
        self.core.could_assign(boot_ms(), &view)
    }
}

impl Handler<Describe> for RangeSetActor {
    type Result = Description;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Description {
        Description { record: self.record.clone(), stats: self.core.stats() }
    }
}

impl Handler<Retire> for RangeSetActor {
    type Result = ResponseFuture<Option<Box<range_set::RangeSet>>>;

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) -> Self::Result {
        let (sender, retired) = oneshot::channel();
        self.retiring = Some(sender);
        self.drive(ctx);
        Box::pin(async move { retired.await.ok() })
    }
}

impl Handler<Absorb> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, Absorb(other): Absorb, ctx: &mut Self::Context) {
        self.core.absorb(*other);
        self.drive(ctx);
    }
}
