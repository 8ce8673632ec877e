//! The coordinator: every call of this node passes through here.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::index::Index;
use super::journal::{Close, CommitOperation};
use super::leaseholder::{AgreeBlockSize, Forget, Leave, Note};
use super::range_set::{
    Assign, Blocks, Describe, Description, ListBlocks, Others, Probe, RangeSetActor, Recover,
    Release, Retire, Undo,
};
use crate::clock::boot_ms;
use crate::core::attachment::Holding;
use crate::core::coordinator::{self as core, Call, CallError, Effect, Outcome, SetId, SetRecord};
use crate::core::range::Ranges;
use crate::core::range_set::{AssignError, RangeSet, Settings};
use crate::core::{Map, Millis};
use crate::{limits, metrics};

pub use super::cluster::Told;

/// A call, and whom to tell how it ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Execute(Call, oneshot::Sender<Outcome>);

/// Sends a call to the coordinator: it is in the mailbox when this returns, and how it ends comes
/// later.
pub fn execute(
    coordinator: &Addr<CoordinatorActor>,
    call: Call,
) -> impl Future<Output = Outcome> + use<> {
    let (reply, outcome) = oneshot::channel();
    coordinator.do_send(Execute(call, reply));
    // Nobody answers any more: the daemon is about to end.
    async move { outcome.await.unwrap_or(Outcome::Failed(CallError::Stopping)) }
}

/// Whether an ADD from each of these range sets could be served now; if not, why not.
#[derive(Message)]
#[rtype(result = "Result<(), String>")]
pub struct CanServe {
    /// The network of the pool.
    pub pool: Arc<str>,
    /// The range sets.
    pub sets: Vec<Arc<Ranges>>,
}

/// Every range set of this node.
#[derive(Message)]
#[rtype(result = "Vec<Description>")]
pub struct DescribeAll;

/// Every block of this node.
#[derive(Message)]
#[rtype(result = "Vec<Blocks>")]
pub struct ListAllBlocks;

/// The end of an [`Assign`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Assigned(pub u64, pub Result<u128, AssignError>);

/// The end of a [`CommitOperation`] of each of these operations.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Committed(pub Vec<u64>, pub Result<(), Arc<str>>);

/// A range set has become part of another one.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Merged {
    /// Its network.
    pub network: Arc<str>,
    /// Which one.
    pub from: SetId,
}

/// Pairs of networks whose addresses overlap.
#[derive(Message)]
#[rtype(result = "Vec<(Arc<str>, Arc<str>)>")]
pub struct Overlaps;

/// Refuse new calls, finish those under way, write the records that wait, end the node's lease and
/// close the journal.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// The actor.
pub struct CoordinatorActor {
    pub(super) core: core::Coordinator,
    pub(super) sets: Map<SetId, Addr<RangeSetActor>>,
    /// Range sets that are becoming part of others.
    pub(super) retiring: Map<SetId, Addr<RangeSetActor>>,
    pub(super) others: Others,
    pub(super) cluster: Cluster,
    settings: Settings,
    index: Arc<Index>,
    replies: Map<u64, oneshot::Sender<Outcome>>,
    next_call: u64,
    /// Whose records are waited for: until when, and how many are missing.
    recording: Map<u64, usize>,
    recording_until: VecDeque<(Millis, u64)>,
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
        settings: Settings,
        sets: Vec<(SetRecord, RangeSet)>,
        cluster: Cluster,
        others: Others,
        index: Arc<Index>,
    ) -> Self {
        let mut actor = Self {
            core,
            sets: Map::default(),
            retiring: Map::default(),
            others,
            cluster,
            settings,
            index,
            replies: Map::default(),
            next_call: 1,
            recording: Map::default(),
            recording_until: VecDeque::new(),
            overlaps: BTreeSet::new(),
            stopping: false,
            draining: None,
        };
        for (record, set) in sets {
            actor.open(record, set);
        }
        actor
    }

    fn open(&mut self, record: SetRecord, mut set: RangeSet) {
        self.cluster.tell(boot_ms(), &mut set);
        let (id, lease_number) = (record.id, self.cluster.lease_number);
        let actor = RangeSetActor::new(record, set, self.others.clone(), lease_number);
        self.sets.insert(id, actor.start());
    }

    /// Carries out what the core asks for, in order.
    pub(super) fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(effect) = self.core.poll_effect() {
            self.carry_out(effect, ctx);
        }
        if self.core.under_way() == 0
            && let Some(drained) = self.draining.take()
        {
            let _ = drained.send(());
        }
    }

    // The order of what is sent to one actor is the order of what it does; and nothing sent here
    // can be refused, since mailboxes hold more than is ever in flight.
    fn carry_out(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Open(record) => {
                let set = RangeSet::new(record.family, record.block_log2, self.settings);
                self.open(record, set);
            }
            Effect::AgreeBlockSize(network, allowed) => {
                self.others.leaseholder.do_send(AgreeBlockSize(network, allowed));
            }
            Effect::AwaitRecord(id, holding) => self.await_record(id, holding, ctx),
            Effect::Assign(set, request) => self.send(set, Assign(request)),
            Effect::Undo(set, number) => self.send(set, Undo(number)),
            Effect::Release(set, number) => self.send(set, Release(number)),
            Effect::Recover(set, cidrs, held) => self.send(set, Recover(cidrs, held)),
            Effect::Forget(network, address) => {
                self.others.leaseholder.do_send(Forget(network, address));
            }
            Effect::Merge(into, from, network) => self.merge(into, from, &network),
            Effect::Commit(operation, records) => {
                self.others.journal.do_send(CommitOperation(operation, records));
            }
            Effect::Held(holding) => self.note(holding, true),
            Effect::Ended(holding) => self.note(holding, false),
            Effect::Reply(call, outcome) => {
                if let Some(reply) = self.replies.remove(&call) {
                    // A caller that is gone: what it was given is found by its DEL or by GC.
                    let _ = reply.send(outcome);
                }
            }
            Effect::Overlap(a, b) => self.overlap(a, b),
        }
    }

    /// Has it recorded in the cluster's store that something is held, or no longer.
    fn note(&self, holding: Arc<Holding>, held: bool) {
        if self.cluster.records {
            self.others.leaseholder.do_send(Note { holding, held, waiting: None });
        }
    }

    fn send<M>(&self, set: SetId, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        RangeSetActor: Handler<M>,
    {
        if let Some(actor) = self.sets.get(&set) {
            actor.do_send(message);
        }
    }

    fn overlap(&mut self, a: Arc<str>, b: Arc<str>) {
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

    fn merge(&mut self, into: SetId, from: SetId, network: &Arc<str>) {
        let (Some(retiring), Some(heir)) = (self.sets.remove(&from), self.sets.get(&into)) else {
            return;
        };
        tracing::info!(network = &**network, "two range sets of the network have become one");
        retiring.do_send(Retire { heir: heir.clone() });
        self.retiring.insert(from, retiring);
    }

    /// Waits, but not for ever, until every address of the holding is recorded.
    fn await_record(&mut self, id: u64, holding: Arc<Holding>, ctx: &mut Context<Self>) {
        if let Some(cause) = self.cluster.stalled.clone() {
            return self.core.recorded(boot_ms(), id, Err(cause));
        }
        self.recording.insert(id, holding.addresses.len());
        self.recording_until.push_back((boot_ms() + limits::ASSIGN_WAIT_MS_MAX, id));
        if self.recording_until.len() == 1 {
            self.look_at_records(ctx);
        }
        self.others.leaseholder.do_send(Note { holding, held: true, waiting: Some(id) });
    }

    /// Ends the waits that took too long, and looks again when the next one may have.
    fn look_at_records(&mut self, ctx: &mut Context<Self>) {
        let now = boot_ms();
        while let Some(&(until, id)) = self.recording_until.front() {
            let missing = self.recording.contains_key(&id);
            if missing && until > now {
                let wait = (until - now).max(limits::TIMER_MS_MIN);
                ctx.run_later(Duration::from_millis(wait), Self::look_at_records_and_drive);
                return;
            }
            self.recording_until.pop_front();
            if self.recording.remove(&id).is_some() {
                let cause = self.cluster.stalled.clone();
                let cause =
                    cause.unwrap_or_else(|| "the cluster's store did not take it in time".into());
                self.core.recorded(now, id, Err(cause));
            }
        }
    }

    fn look_at_records_and_drive(&mut self, ctx: &mut Context<Self>) {
        self.look_at_records(ctx);
        self.drive(ctx);
    }

    /// Whoever waits for a record fails: the store does not answer.
    pub(super) fn not_recorded(&mut self, cause: &Arc<str>) {
        for id in std::mem::take(&mut self.recording).into_keys() {
            self.core.recorded(boot_ms(), id, Err(cause.clone()));
        }
    }

    /// One record each of these is in the store.
    pub(super) fn recorded(&mut self, ids: Vec<u64>) {
        for id in ids {
            let Some(missing) = self.recording.get_mut(&id) else { continue };
            *missing -= 1;
            if *missing == 0 {
                self.recording.remove(&id);
                self.core.recorded(boot_ms(), id, Ok(()));
            }
        }
    }
}

impl Actor for CoordinatorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
        self.drive(ctx);
    }
}

impl Handler<Assigned> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, Assigned(operation, result): Assigned, ctx: &mut Self::Context) {
        self.core.assigned(boot_ms(), operation, result);
        self.drive(ctx);
    }
}

impl Handler<Committed> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, Committed(operations, result): Committed, ctx: &mut Self::Context) {
        if let Err(cause) = &result {
            if self.index.broken().is_none() {
                tracing::error!(%cause, "the journal failed: ADD is refused");
            }
            self.index.break_down(cause);
        }
        let now = boot_ms();
        for operation in operations {
            self.core.committed(now, operation, result.clone());
        }
        self.drive(ctx);
    }
}

impl Handler<Merged> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, Merged { network, from }: Merged, ctx: &mut Self::Context) {
        self.retiring.remove(&from);
        self.tell_held_back();
        self.core.merged(boot_ms(), &network);
        self.drive(ctx);
    }
}

impl Handler<Execute> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, Execute(call, reply): Execute, ctx: &mut Self::Context) {
        let refused = if self.stopping {
            Some(CallError::Stopping)
        } else if self.replies.len() >= limits::CALLS_IN_FLIGHT_MAX {
            Some(CallError::Busy("calls on this node"))
        } else {
            None
        };
        if let Some(error) = refused {
            return drop(reply.send(Outcome::Failed(error)));
        }
        let id = self.next_call;
        self.next_call += 1;
        self.replies.insert(id, reply);
        self.core.call(boot_ms(), id, call);
        self.drive(ctx);
    }
}

impl Handler<CanServe> for CoordinatorActor {
    type Result = ResponseFuture<Result<(), String>>;

    fn handle(&mut self, message: CanServe, _: &mut Self::Context) -> Self::Result {
        if let Some(cause) = self.core.broken() {
            let cause = format!("the journal on this node failed: {cause}");
            return Box::pin(async move { Err(cause) });
        }
        let unable = self.cluster.unable();
        let mut probes = Vec::new();
        for (i, allowed) in message.sets.into_iter().enumerate() {
            let owner = self.core.owner_of(&message.pool, &allowed);
            match (owner.and_then(|set| self.sets.get(&set)), &unable) {
                (Some(actor), _) => {
                    probes.push((i, allowed.to_string(), actor.send(Probe(allowed))));
                }
                // Its first ADD will need the cluster's store.
                (None, Some(cause)) => {
                    let cause = format!("range {i}: {cause}");
                    return Box::pin(async move { Err(cause) });
                }
                (None, None) => {}
            }
        }
        Box::pin(async move {
            for (i, allowed, probe) in probes {
                if !probe.await.unwrap_or(false) {
                    let why = unable.unwrap_or_else(|| "no IP addresses available".into());
                    return Err(format!("range {i}: {why}: {allowed}"));
                }
            }
            Ok(())
        })
    }
}

impl Handler<DescribeAll> for CoordinatorActor {
    type Result = ResponseFuture<Vec<Description>>;

    fn handle(&mut self, _: DescribeAll, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<_> = self.sets.values().map(|actor| actor.send(Describe)).collect();
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

impl Handler<ListAllBlocks> for CoordinatorActor {
    type Result = ResponseFuture<Vec<Blocks>>;

    fn handle(&mut self, _: ListAllBlocks, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<_> = self.sets.values().map(|actor| actor.send(ListBlocks)).collect();
        Box::pin(async move {
            let mut all = Vec::with_capacity(asked.len());
            for blocks in asked {
                all.extend(blocks.await);
            }
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
        let Others { journal, leaseholder, .. } = self.others.clone();
        Box::pin(async move {
            let _ = drained.await;
            let left = tokio::time::timeout(limits::LEAVE_WAIT_MAX, leaseholder.send(Leave));
            if left.await.is_err() {
                tracing::warn!("the cluster's store does not answer: the lease runs out by itself");
            }
            let _ = journal.send(Close).await;
        })
    }
}
