//! Who this node is to the cluster's store: every change of who holds a block goes through here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};

use super::coordinator::{CoordinatorActor, Told};
use crate::clock::boot_ms;
use crate::core::attachment::Holding;
use crate::core::coordinator::SetId;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{self as core, Effect, Found, Order, OrderId, RecordChange};
use crate::core::range::Ranges;
use crate::core::txn::{Answer, LeaseId, Request, StoreError, Watched};
use crate::core::value::AllocationValue;
use crate::core::{Map, Millis};
use crate::store::ClusterStore;
use crate::{limits, metrics};

pub use super::range_set::Errand;

/// An order of a range set. How it ended comes to the coordinator, which knows the range set.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Place {
    /// The range set.
    pub set: SetId,
    /// What the range set must know when the order has ended.
    pub errand: Errand,
    /// The order.
    pub order: Order,
}

/// An order whose end nobody waits for.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PlaceAside(pub Order);

/// Agrees with the cluster on the block size of ranges.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AgreeBlockSize(pub Arc<str>, pub Arc<Ranges>);

/// An attachment holds its addresses, or does not any more: for the records.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Note {
    /// What it holds or held.
    pub holding: Arc<Holding>,
    /// Whether it holds it now.
    pub held: bool,
    /// Who waits for the records, if anybody does.
    pub waiting: Option<u64>,
}

/// What is recorded of an address on a network has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Forget(pub Arc<str>, pub IpAddr);

/// It is durable that a transaction with this sequence number may be on its way.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Intended(pub u64);

/// Writes the records that wait, and ends the node's lease.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Leave;

/// The figures of the node's dealings with the store.
#[derive(Message)]
#[rtype(result = "Figures")]
pub struct Describe;

/// What [`Describe`] answers.
#[derive(Clone, Copy, MessageResponse, Debug)]
pub struct Figures {
    /// For how long the store has not answered, in milliseconds.
    pub silence: Millis,
    /// Blocks that this node handed out of and the store gave to others.
    pub lost: usize,
    /// Records that wait.
    pub records_waiting: usize,
    /// For how long the oldest of them has waited, in milliseconds.
    pub record_lag: Millis,
}

/// How this node stands in the cluster.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Standing {
    /// It is a member: it can lease blocks.
    pub member: bool,
    /// Another daemon took its name: this one never becomes a member again.
    pub fenced: bool,
    /// Its epoch; 0: it has not joined yet.
    pub epoch: u64,
    /// Its lease.
    pub lease: Option<LeaseId>,
    /// It is the only node.
    pub alone: bool,
    /// An operator wants its blocks back.
    pub draining: bool,
    /// Why nothing can be leased.
    pub stalled: Option<Arc<str>>,
    /// Why nothing is handed out.
    pub halted: Option<Arc<str>>,
}

/// Whose order it is.
#[derive(Debug)]
pub enum Asker {
    /// A range set's, and what it must know.
    Set(SetId, Errand),
    /// The coordinator's, for these ranges of a network.
    Network(Arc<str>, Arc<Ranges>),
}

/// The end of the daemon.
enum Leaving {
    Not,
    /// Records are written.
    Flushing(oneshot::Sender<()>),
    /// The lease is being ended.
    Revoking(oneshot::Sender<()>),
}

/// The actor.
pub struct LeaseholderActor {
    core: core::Leaseholder,
    node: Arc<str>,
    store: Arc<dyn ClusterStore>,
    coordinator: Addr<CoordinatorActor>,
    askers: Map<OrderId, Asker>,
    next_order: OrderId,
    timer: Option<(Millis, SpawnHandle)>,
    /// When the request was sent that was answered last.
    contact: Millis,
    standing: watch::Sender<Standing>,
    leaving: Leaving,
    metrics: metrics::Leaseholder,
}

impl LeaseholderActor {
    /// An actor around the machine of a node, which has not been started yet.
    pub fn new(
        core: core::Leaseholder,
        node: Arc<str>,
        store: Arc<dyn ClusterStore>,
        coordinator: Addr<CoordinatorActor>,
        standing: watch::Sender<Standing>,
    ) -> Self {
        Self {
            core,
            node,
            store,
            coordinator,
            askers: Map::default(),
            next_order: 1,
            timer: None,
            contact: boot_ms(),
            standing,
            leaving: Leaving::Not,
            metrics: metrics::Leaseholder::new(),
        }
    }

    /// Carries out what the core asks for, in order, and arms the timer.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        self.go_on_leaving();
        let mut changed = false;
        while let Some(effect) = self.core.poll_effect() {
            changed = true;
            match effect {
                Effect::Store(id, request) => self.ask(id, request, ctx),
                Effect::Watch(prefix) => {
                    let reports = self.store.watch(prefix);
                    self.listen(reports, ctx);
                }
                effect => self.tell(effect),
            }
        }
        if changed {
            self.show();
        }
        self.arm(ctx);
    }

    /// Passes an effect on to the coordinator, with whose order it answers.
    fn tell(&mut self, effect: Effect) {
        self.say(&effect);
        let order = match &effect {
            Effect::Leased(order, _)
            | Effect::GivenBack(order, _)
            | Effect::Transferred(order, _)
            | Effect::Found(order, _)
            | Effect::BlockSizeAgreed(order, _) => self.askers.remove(order),
            _ => None,
        };
        self.coordinator.do_send(Told(effect, order));
    }

    /// What an operator must know.
    fn say(&mut self, effect: &Effect) {
        let net = |pool: &PoolFamily, cidr: &crate::core::address::Cidr| cidr.net(pool.family);
        self.standing.send_if_modified(|standing| {
            match effect {
                Effect::Alone(alone) => standing.alone = *alone,
                Effect::Draining(draining) => standing.draining = *draining,
                Effect::Stalled(cause) => standing.stalled.clone_from(cause),
                Effect::Halted(cause) => standing.halted.clone_from(cause),
                Effect::Joined { epoch } => standing.epoch = *epoch,
                _ => return false,
            }
            true
        });
        match effect {
            Effect::Joined { epoch } => tracing::info!(epoch, "joined the cluster"),
            Effect::Stalled(Some(cause)) => tracing::warn!(%cause, "nothing can be leased"),
            Effect::Stalled(None) => tracing::info!("the cluster's store answers again"),
            Effect::Halted(Some(cause)) => tracing::error!(%cause, "nothing is handed out"),
            Effect::Halted(None) => tracing::info!("addresses are handed out again"),
            Effect::Draining(true) => tracing::warn!("this node is drained: it hands out nothing"),
            Effect::Draining(false) => tracing::info!("this node is not drained any more"),
            Effect::WentBack => {
                self.metrics.went_back();
                tracing::error!(
                    "the cluster's store is older than this node's journal, as if restored from a \
                     backup: blocks are claimed anew, and nothing is handed out of what others took"
                );
            }
            Effect::Lost(pool, cidrs) => {
                for cidr in cidrs {
                    tracing::error!(
                        network = &*pool.network, block = %net(pool, cidr),
                        "the cluster's store does not have this block as this node's: nothing is \
                         handed out of it"
                    );
                }
            }
            Effect::Regained(pool, cidr) => {
                let block = net(pool, cidr);
                tracing::info!(network = &*pool.network, %block, "a lost block is back");
            }
            Effect::Found(_, found) => self.metrics.found(match found {
                Found::Gap(_) => "gap",
                Found::Given(_) => "given",
                Found::Nobody { .. } => "nobody",
                Found::Failed(_) => "failed",
            }),
            _ => {}
        }
    }

    /// Lets others see how this node stands.
    fn show(&mut self) {
        let (member, fenced) = (self.core.is_member(), self.core.is_fenced());
        let (lease, lost) = (self.core.lease(), self.core.lost());
        self.standing.send_if_modified(|standing| {
            let before = (standing.member, standing.fenced, standing.lease);
            (standing.member, standing.fenced, standing.lease) = (member, fenced, lease);
            before != (member, fenced, lease)
        });
        self.metrics.show(member && lease.is_some(), self.standing.borrow().epoch, lost);
    }

    fn ask(&mut self, id: u64, request: Request, ctx: &mut Context<Self>) {
        let (sent, revoke) = (boot_ms(), matches!(request, Request::Revoke(_)));
        let asked = self.store.ask(request).into_actor(self);
        ctx.spawn(asked.map(move |answer: Result<Answer, StoreError>, actor, ctx| {
            if matches!(answer, Ok(_) | Err(StoreError::LeaseGone)) {
                actor.contact = actor.contact.max(sent);
            }
            actor.core.answered(boot_ms(), id, answer);
            if revoke && let Leaving::Revoking(done) = take(&mut actor.leaving) {
                let _ = done.send(());
            }
            actor.drive(ctx);
        }));
    }

    /// Waits for the next report of a watch.
    fn listen(&mut self, mut from: mpsc::Receiver<Watched>, ctx: &mut Context<Self>) {
        let next = async move { (from.recv().await, from) };
        ctx.spawn(next.into_actor(self).map(|(report, from), actor, ctx| {
            if let Some(report) = report {
                actor.core.observed(boot_ms(), report);
                actor.drive(ctx);
                actor.listen(from, ctx);
            }
        }));
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(due) = self.core.poll_timeout() else { return };
        if self.timer.is_none_or(|(armed, _)| due < armed) {
            if let Some((_, handle)) = self.timer.take() {
                ctx.cancel_future(handle);
            }
            let wait = due.saturating_sub(boot_ms()).max(limits::TIMER_MS_MIN);
            let handle = ctx.run_later(Duration::from_millis(wait), |actor, ctx| {
                actor.timer = None;
                actor.core.handle_timeout(boot_ms());
                actor.drive(ctx);
            });
            self.timer = Some((due, handle));
        }
    }

    fn order(&mut self, asker: Option<Asker>, order: Order, ctx: &mut Context<Self>) {
        let id = match asker {
            Some(asker) => {
                self.askers.insert(self.next_order, asker);
                self.next_order += 1;
                self.next_order - 1
            }
            None => 0,
        };
        self.core.order(boot_ms(), id, order);
        self.drive(ctx);
    }

    /// The next step of the end, if it has begun.
    fn go_on_leaving(&mut self) {
        let Leaving::Flushing(_) = &self.leaving else { return };
        let able = self.core.is_member() && self.core.unable().is_none();
        if able && self.core.records_waiting() > 0 {
            return self.core.flush(boot_ms());
        }
        let flushed = take(&mut self.leaving);
        if let (Leaving::Flushing(done), Some(_)) = (flushed, self.core.lease()) {
            self.leaving = Leaving::Revoking(done);
        }
        self.core.leave(boot_ms());
    }
}

fn take(leaving: &mut Leaving) -> Leaving {
    std::mem::replace(leaving, Leaving::Not)
}

impl Actor for LeaseholderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
        self.core.start(boot_ms());
        self.drive(ctx);
    }
}

impl Handler<Place> for LeaseholderActor {
    type Result = ();

    fn handle(&mut self, Place { set, errand, order }: Place, ctx: &mut Self::Context) {
        self.order(Some(Asker::Set(set, errand)), order, ctx);
    }
}

impl Handler<PlaceAside> for LeaseholderActor {
    type Result = ();

    fn handle(&mut self, PlaceAside(order): PlaceAside, ctx: &mut Self::Context) {
        self.order(None, order, ctx);
    }
}

impl Handler<AgreeBlockSize> for LeaseholderActor {
    type Result = ();

    fn handle(
        &mut self,
        AgreeBlockSize(network, allowed): AgreeBlockSize,
        ctx: &mut Self::Context,
    ) {
        let order = Order::AgreeBlockSize {
            pool: PoolFamily { network: network.clone(), family: allowed.family() },
            ranges: allowed.iter().map(|range| (range.start, range.end)).collect(),
            block_log2: allowed.usual_block_log2(),
            explicit: allowed.block_log2.is_some(),
        };
        self.order(Some(Asker::Network(network, allowed)), order, ctx);
    }
}

impl Handler<Note> for LeaseholderActor {
    type Result = ();

    fn handle(&mut self, Note { holding, held, waiting }: Note, ctx: &mut Self::Context) {
        let now = boot_ms();
        for &address in holding.addresses.iter() {
            let network = holding.scope.pool.clone();
            let value = held.then(|| Box::new(allocation(&self.node, &holding)));
            self.core.record(now, RecordChange { network, address, value }, waiting);
        }
        self.drive(ctx);
    }
}

impl Handler<Forget> for LeaseholderActor {
    type Result = ();

    fn handle(&mut self, Forget(network, address): Forget, ctx: &mut Self::Context) {
        self.core.record(boot_ms(), RecordChange { network, address, value: None }, None);
        self.drive(ctx);
    }
}

impl Handler<Intended> for LeaseholderActor {
    type Result = ();

    fn handle(&mut self, Intended(sequence): Intended, ctx: &mut Self::Context) {
        self.core.intended(boot_ms(), sequence);
        self.drive(ctx);
    }
}

/// What the cluster is told of a holding.
fn allocation(node: &Arc<str>, holding: &Holding) -> AllocationValue {
    let pod = holding.pod.as_deref();
    AllocationValue {
        node: node.clone(),
        network: (holding.scope.network != holding.scope.pool)
            .then(|| holding.scope.network.clone()),
        container_id: holding.container_id.clone(),
        ifname: holding.scope.ifname.clone(),
        addresses: holding.addresses.to_vec(),
        namespace: pod.map(|pod| pod.namespace.clone()).unwrap_or_default(),
        pod: pod.map(|pod| pod.name.clone()).unwrap_or_default(),
        stage: holding.stage.map(|stage| stage.as_str().into()).unwrap_or_default(),
        netns: holding.netns.path.clone(),
        since_unix_ms: holding.since_unix_ms,
        started_at: holding.started_at(),
        sequence: holding.sequence,
    }
}

impl Handler<Leave> for LeaseholderActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) -> Self::Result {
        let (done, left) = oneshot::channel();
        self.leaving = Leaving::Flushing(done);
        self.drive(ctx);
        Box::pin(async move { drop(left.await) })
    }
}

impl Handler<Describe> for LeaseholderActor {
    type Result = Figures;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Figures {
        let now = boot_ms();
        let figures = Figures {
            silence: now.saturating_sub(self.contact),
            lost: self.core.lost(),
            records_waiting: self.core.records_waiting(),
            record_lag: self.core.record_lag(now),
        };
        self.metrics.describe(figures.silence, figures.records_waiting, figures.record_lag);
        figures
    }
}
