//! The coordinator: every call of this node passes through here.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::index::Index;
use super::journal::{Close, Commit, JournalActor};
use super::leaseholder::Leaseholder;
use super::range_set::{
    Absorb, Assign, Describe, Description, Probe, RangeSetActor, Release, Retire, Undo,
};
use crate::clock::boot_ms;
use crate::core::coordinator::{self as core, Call, CallError, Effect, Outcome, SetId, SetRecord};
use crate::core::range::Ranges;
use crate::core::range_set::{AssignError, RangeSet};
use crate::core::{Map, Millis};
use crate::{limits, metrics};

/// A call.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub struct Execute(pub Call);

/// Whether an ADD from each of these range sets could be served now; if not, why not.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
pub struct CanServe {
    /// The network.
    pub network: Arc<str>,
    /// The range sets.
    pub sets: Vec<Arc<Ranges>>,
}

/// Every range set of this node.
#[derive(Message)]
#[rtype(result = "Vec<Description>")]
pub struct DescribeAll;

/// Pairs of networks whose addresses overlap.
#[derive(Message)]
#[rtype(result = "Vec<(Arc<str>, Arc<str>)>")]
pub struct Overlaps;

/// Refuse new calls, finish those under way, close the journal.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// The actor.
pub struct CoordinatorActor {
    core: core::Coordinator,
    cooldown: Millis,
    sets: Map<SetId, (SetRecord, Addr<RangeSetActor>)>,
    journal: Addr<JournalActor>,
    leaseholder: Addr<Leaseholder>,
    index: Arc<Index>,
    replies: Map<u64, oneshot::Sender<Outcome>>,
    next_call: u64,
    overlaps: BTreeSet<(Arc<str>, Arc<str>)>,
    /// New calls are refused.
    stopping: bool,
    /// Who waits for the calls under way.
    draining: Option<oneshot::Sender<()>>,
}

impl CoordinatorActor {
    /// Starts the range sets of a restored node; to be started itself on the same thread.
    pub fn new(
        core: core::Coordinator,
        cooldown: Millis,
        sets: Vec<(SetRecord, RangeSet)>,
        journal: Addr<JournalActor>,
        leaseholder: Addr<Leaseholder>,
        index: Arc<Index>,
    ) -> Self {
        for holding in core.holdings() {
            index.show(holding.clone());
        }
        let start = |(record, set): (SetRecord, RangeSet)| {
            let actor = RangeSetActor::new(record.clone(), set, leaseholder.clone());
            (record.id, (record, actor.start()))
        };
        let sets = sets.into_iter().map(start).collect();
        Self {
            core,
            cooldown,
            sets,
            journal,
            leaseholder,
            index,
            replies: Map::default(),
            next_call: 1,
            overlaps: BTreeSet::new(),
            stopping: false,
            draining: None,
        }
    }

    /// Carries out what the core asks for, in order.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(effect) = self.core.poll_effect() {
            self.carry_out(effect, ctx);
        }
        if self.core.under_way() == 0
            && let Some(drained) = self.draining.take()
        {
            let _ = drained.send(());
        }
    }

    fn carry_out(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Open(record) => {
                let set = RangeSet::new(record.family, record.block_log2, self.cooldown);
                let leaseholder = self.leaseholder.clone();
                let actor = RangeSetActor::new(record.clone(), set, leaseholder).start();
                self.sets.insert(record.id, (record, actor));
            }
            Effect::Assign(set, request) => self.assign(set, request, ctx),
            // The order of what is sent to one actor is the order of what it does; and nothing
            // sent here can be refused, since mailboxes hold more than is ever in flight.
            Effect::Undo(set, number) => {
                if let Some((_, actor)) = self.sets.get(&set) {
                    actor.do_send(Undo(number));
                }
            }
            Effect::Release(set, number) => {
                if let Some((_, actor)) = self.sets.get(&set) {
                    actor.do_send(Release(number));
                }
            }
            Effect::Merge(into, from, network) => self.merge(into, from, network, ctx),
            Effect::Commit(operation, records) => {
                let commit = self.journal.send(Commit(records)).into_actor(self);
                ctx.spawn(commit.map(move |answer, actor, ctx| {
                    let result = answer.unwrap_or_else(|error| Err(error.to_string().into()));
                    if let Err(cause) = &result {
                        if actor.index.broken().is_none() {
                            tracing::error!(%cause, "the journal failed: ADD is refused");
                        }
                        actor.index.break_down(cause);
                    }
                    actor.core.committed(boot_ms(), operation, result);
                    actor.drive(ctx);
                }));
            }
            Effect::Show(holding) => self.index.show(holding),
            Effect::Hide(holding) => self.index.hide(&holding.id),
            Effect::Reply(call, outcome) => {
                if let Some(reply) = self.replies.remove(&call) {
                    // A caller that is gone: what it was given is found by its DEL or by GC.
                    let _ = reply.send(outcome);
                }
            }
            Effect::Overlap(a, b) => {
                let pair = if a < b { (a, b) } else { (b, a) };
                if !self.overlaps.contains(&pair) {
                    tracing::warn!(
                        "networks {} and {} overlap: each may hand out the other's addresses",
                        pair.0,
                        pair.1
                    );
                    self.overlaps.insert(pair);
                    metrics::overlaps(self.overlaps.len());
                }
            }
        }
    }

    fn assign(
        &mut self,
        set: SetId,
        request: crate::core::range_set::Assign,
        ctx: &mut Context<Self>,
    ) {
        let operation = request.id;
        let Some((_, actor)) = self.sets.get(&set) else { return };
        let assign = actor.send(Assign(request)).into_actor(self);
        ctx.spawn(assign.map(move |answer, actor, ctx| {
            let lost = |error: MailboxError| AssignError::NoBlock(error.to_string().into());
            let result = answer.unwrap_or_else(|error| Err(lost(error)));
            actor.core.assigned(boot_ms(), operation, result);
            actor.drive(ctx);
        }));
    }

    fn merge(&mut self, into: SetId, from: SetId, network: Arc<str>, ctx: &mut Context<Self>) {
        let from = self.sets.remove(&from).map(|(_, actor)| actor);
        let into = self.sets.get(&into).map(|(_, actor)| actor.clone());
        let (Some(from), Some(into)) = (from, into) else { return };
        tracing::info!(network = &*network, "two range sets of the network have become one");
        let merge = async move {
            // Both actors live on this thread: only a bug could fail here, and then the addresses
            // stay taken, which is safe.
            if let Ok(Some(retired)) = from.send(Retire).await {
                let _ = into.send(Absorb(retired)).await;
            }
        };
        ctx.spawn(merge.into_actor(self).map(move |(), actor, ctx| {
            actor.core.merged(boot_ms(), &network);
            actor.drive(ctx);
        }));
    }
}

impl Actor for CoordinatorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
        self.drive(ctx);
    }
}

impl Handler<Execute> for CoordinatorActor {
    type Result = ResponseFuture<Outcome>;

    fn handle(&mut self, Execute(call): Execute, ctx: &mut Self::Context) -> Self::Result {
        let stopping = || Outcome::Failed(CallError::Stopping);
        if self.stopping {
            return Box::pin(async move { stopping() });
        }
        if self.replies.len() >= limits::CALLS_IN_FLIGHT_MAX {
            let outcome = Outcome::Failed(CallError::Busy("calls on this node"));
            return Box::pin(async move { outcome });
        }
        let (sender, receiver) = oneshot::channel();
        let id = self.next_call;
        self.next_call += 1;
        self.replies.insert(id, sender);
        self.core.call(boot_ms(), id, call);
        self.drive(ctx);
        Box::pin(async move { receiver.await.unwrap_or_else(|_| stopping()) })
    }
}

impl Handler<CanServe> for CoordinatorActor {
    type Result = ResponseFuture<Result<(), String>>;

    fn handle(&mut self, message: CanServe, _: &mut Self::Context) -> Self::Result {
        if let Some(cause) = self.core.broken() {
            let cause = format!("the journal on this node failed: {cause}");
            return Box::pin(async move { Err(cause) });
        }
        let probes: Vec<_> = message
            .sets
            .into_iter()
            .enumerate()
            .filter_map(|(i, view)| {
                let set = self.core.owner_of(&message.network, &view)?;
                let (_, actor) = self.sets.get(&set)?;
                Some((i, view.to_string(), actor.send(Probe(view))))
            })
            .collect();
        Box::pin(async move {
            for (i, view, probe) in probes {
                if !probe.await.unwrap_or(false) {
                    return Err(format!("range {i}: no IP addresses available: {view}"));
                }
            }
            Ok(())
        })
    }
}

impl Handler<DescribeAll> for CoordinatorActor {
    type Result = ResponseFuture<Vec<Description>>;

    fn handle(&mut self, _: DescribeAll, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<_> = self.sets.values().map(|(_, actor)| actor.send(Describe)).collect();
        Box::pin(async move {
            let mut all = Vec::with_capacity(asked.len());
            for description in asked {
                all.extend(description.await);
            }
            all.sort_by(|a, b| {
                (&a.record.network, a.record.family, a.record.id).cmp(&(
                    &b.record.network,
                    b.record.family,
                    b.record.id,
                ))
            });
            all
        })
    }
}

impl Handler<Overlaps> for CoordinatorActor {
    type Result = Vec<(Arc<str>, Arc<str>)>;

    fn handle(&mut self, _: Overlaps, _: &mut Self::Context) -> Self::Result {
        self.overlaps.iter().cloned().collect()
    }
}

impl Handler<Drain> for CoordinatorActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) -> Self::Result {
        let (sender, drained) = oneshot::channel();
        self.stopping = true;
        self.draining = Some(sender);
        self.drive(ctx);
        let journal = self.journal.clone();
        Box::pin(async move {
            let _ = drained.await;
            let _ = journal.send(Close).await;
        })
    }
}
