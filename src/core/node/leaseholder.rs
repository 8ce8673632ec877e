//! The leaseholder among the machines of its node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::message::{
    Event, Machine, Message, OrderOrigin, Output, SearchEnd, ToCoordinator, ToLeaseholder,
};
use crate::core::Map;
use crate::core::attachment::Holding;
use crate::core::cause::Cause;
use crate::core::ids::{Epoch, LeaseId, OperationId, OrderId, RequestId};
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Effect, Found, Leaseholder, Order, RecordChange};
use crate::core::range::{Range, Ranges};
use crate::core::time::BootTime;
use crate::core::txn::Request;
use crate::core::value::AllocationValue;

/// The machine that speaks for its node to the cluster's store.
#[derive(Debug)]
pub struct LeaseholderMachine {
    core: Leaseholder,
    node: Arc<str>,
    origins: Map<OrderId, OrderOrigin>,
    next_order: OrderId,
    departure: Departure,
    standing: Standing,
    outputs: VecDeque<Output>,
}

/// The end of the node's presence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Departure {
    NotBegun,
    /// Records are written.
    Flushing,
    /// The lease is ended, by the request with this number.
    Revoking(Option<RequestId>),
    Left,
}

/// The standing of a node in the cluster.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Standing {
    /// It is a member: it can lease blocks.
    pub member: bool,
    /// Another daemon took its name: this one never becomes a member again.
    pub fenced: bool,
    /// Its epoch; none before it has joined.
    pub epoch: Option<Epoch>,
    /// Its lease.
    pub lease: Option<LeaseId>,
    /// It is the only node.
    pub alone: bool,
    /// An operator wants its blocks back.
    pub draining: bool,
    /// The reason why nothing can be leased.
    pub stalled: Option<Cause>,
    /// The reason why nothing is handed out.
    pub halted: Option<Cause>,
    /// A restore of the store is being settled, and waits for these nodes.
    pub awaited: Option<Vec<Arc<str>>>,
}

/// The figures of a node's dealings with the store.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// The time for which the store has not answered.
    pub silence: Duration,
    /// Blocks that this node handed out of and the store gave to others.
    pub lost: usize,
    /// The time for which its lease lasts if the store is not reached again.
    pub lease_left: Duration,
    /// Records that wait.
    pub records_waiting: usize,
    /// The time for which the oldest of them has waited.
    pub record_lag: Duration,
}

impl LeaseholderMachine {
    pub(super) fn new(core: Leaseholder, node: Arc<str>) -> Self {
        Self {
            core,
            node,
            origins: Map::default(),
            next_order: OrderId::FIRST,
            departure: Departure::NotBegun,
            standing: Standing::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Returns the node's standing in the cluster.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Returns the number of blocks that this node handed out of and that the store gave to others.
    pub fn lost(&self) -> usize {
        self.core.lost()
    }

    /// Returns the current figures.
    pub fn figures(&self, now: BootTime) -> Figures {
        Figures {
            silence: self.core.silence(now),
            lost: self.core.lost(),
            lease_left: self.core.lease_left(now),
            records_waiting: self.core.records_waiting(),
            record_lag: self.core.record_lag(now),
        }
    }

    /// Returns the machine itself; for simulators.
    pub fn core(&self) -> &Leaseholder {
        &self.core
    }

    /// Carries out what the core asks for, in order.
    fn drive(&mut self, now: BootTime) {
        self.drain();
        if self.departure == Departure::Flushing {
            self.go_on_leaving(now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut changed = false;
        while let Some(effect) = self.core.poll_effect() {
            changed = true;
            match effect {
                Effect::Store(id, request) => self.ask(id, request),
                Effect::Watch(prefix) => self.outputs.push_back(Output::Watch(prefix)),
                effect => self.pass_on(effect),
            }
        }
        if changed {
            let standing = &mut self.standing;
            standing.member = self.core.is_member();
            standing.fenced = self.core.is_fenced();
            standing.lease = self.core.lease();
        }
    }

    fn ask(&mut self, id: RequestId, request: Request) {
        if self.departure == Departure::Revoking(None) && matches!(request, Request::Revoke(_)) {
            self.departure = Departure::Revoking(Some(id));
        }
        self.outputs.push_back(Output::Store(id, request));
    }

    /// Passes an effect on to the coordinator, with the origin of the order that it ends.
    fn pass_on(&mut self, effect: Effect) {
        self.report(&effect);
        let origin = match &effect {
            Effect::Leased(order, _)
            | Effect::GivenBack(order, _)
            | Effect::Transferred(order, _) => order.and_then(|order| self.origins.remove(&order)),
            Effect::Found(order, _) | Effect::BlockSizeAgreed(order, _) => {
                self.origins.remove(order)
            }
            _ => None,
        };
        self.send(ToCoordinator::Cluster(effect, origin));
    }

    fn send(&mut self, message: ToCoordinator) {
        self.outputs.push_back(Output::Send(Message::Coordinator(message)));
    }

    /// Remembers and reports what people must know.
    fn report(&mut self, effect: &Effect) {
        let standing = &mut self.standing;
        let event = match effect {
            Effect::Alone(alone) => {
                standing.alone = *alone;
                return;
            }
            Effect::Draining(draining) => {
                standing.draining = *draining;
                Event::Draining(*draining)
            }
            Effect::Stalled(cause) => {
                standing.stalled.clone_from(cause);
                Event::Stalled(cause.clone())
            }
            Effect::Halted(cause) => {
                standing.halted.clone_from(cause);
                Event::Halted(cause.clone())
            }
            Effect::Joined { epoch } => {
                standing.epoch = Some(*epoch);
                Event::Joined { epoch: *epoch }
            }
            Effect::Settling(awaited) => {
                standing.awaited.clone_from(awaited);
                Event::Settling(awaited.clone())
            }
            Effect::WentBack(_) => Event::WentBack,
            Effect::Lost(pool, cidrs) => Event::Lost(pool.clone(), cidrs.clone()),
            Effect::Regained(pool, cidr) => Event::Regained(pool.clone(), *cidr),
            Effect::Found(_, found) => Event::Searched(match found {
                Found::Gap(_) => SearchEnd::Gap,
                Found::Given(_) | Found::Taken(_) => SearchEnd::Given,
                Found::Forfeited { pool, cidr, from } => {
                    let (pool, cidr, from) = (pool.clone(), *cidr, from.clone());
                    let taken = Event::TookForfeit { pool, cidr, from };
                    self.outputs.push_back(Output::Report(Box::new(taken)));
                    SearchEnd::Given
                }
                Found::Nobody { .. } => SearchEnd::Nobody,
                Found::Failed(_) => SearchEnd::Failed,
            }),
            _ => return,
        };
        self.outputs.push_back(Output::Report(Box::new(event)));
    }

    fn submit(&mut self, now: BootTime, origin: Option<OrderOrigin>, order: Order) {
        let id = origin.map(|origin| {
            let id = self.next_order;
            self.next_order = id.next();
            self.origins.insert(id, origin);
            id
        });
        self.core.order(now, id, order);
    }

    fn agree_block_size(&mut self, now: BootTime, network: Arc<str>, allowed: Arc<Ranges>) {
        let order = Order::AgreeBlockSize {
            pool: PoolFamily { network: network.clone(), family: allowed.family() },
            ranges: allowed.iter().map(Range::addresses).collect(),
            block_size: allowed.usual_block_size(),
            explicit: allowed.block_size.is_some(),
        };
        self.submit(now, Some(OrderOrigin::Coordinator(network, allowed)), order);
    }

    fn publish(
        &mut self,
        now: BootTime,
        holding: &Holding,
        held: bool,
        waiting: Option<OperationId>,
    ) {
        for &address in holding.addresses.iter() {
            let network = holding.scope.pool.clone();
            let value = held.then(|| Box::new(allocation(&self.node, holding)));
            self.core.record(now, RecordChange { network, address, value }, waiting);
        }
    }

    /// Writes the records that wait, if the store can be asked, and then ends the lease.
    fn go_on_leaving(&mut self, now: BootTime) {
        let able = self.core.is_member() && self.core.unable().is_none();
        if able && self.core.records_waiting() > 0 {
            return self.core.flush(now);
        }
        match self.core.lease() {
            Some(_) => self.departure = Departure::Revoking(None),
            None => self.left(),
        }
        self.core.leave(now);
    }

    fn left(&mut self) {
        self.departure = Departure::Left;
        self.send(ToCoordinator::Left);
    }
}

impl Machine for LeaseholderMachine {
    type Input = ToLeaseholder;

    fn start(&mut self, now: BootTime) {
        self.core.start(now);
        self.drive(now);
    }

    fn handle(&mut self, now: BootTime, input: ToLeaseholder) {
        match input {
            ToLeaseholder::SubmitOrder(origin, order) => self.submit(now, origin, order),
            ToLeaseholder::AgreeBlockSize(network, allowed) => {
                self.agree_block_size(now, network, allowed);
            }
            ToLeaseholder::PublishRecord { holding, held, waiting } => {
                self.publish(now, &holding, held, waiting);
            }
            ToLeaseholder::DeleteRecord(network, address) => {
                self.core.record(now, RecordChange { network, address, value: None }, None);
            }
            ToLeaseholder::RecordsCompared => self.core.compared(now),
            ToLeaseholder::Intended(link) => self.core.intended(now, link),
            ToLeaseholder::Answered(id, answer) => {
                self.core.answered(now, id, answer);
                if self.departure == Departure::Revoking(Some(id)) {
                    self.left();
                }
            }
            ToLeaseholder::Observed(report) => self.core.observed(now, report),
            ToLeaseholder::Leave if self.departure == Departure::NotBegun => {
                self.departure = Departure::Flushing;
            }
            ToLeaseholder::Leave => {}
        }
        self.drive(now);
    }

    fn handle_timeout(&mut self, now: BootTime) {
        self.core.handle_timeout(now);
        self.drive(now);
    }

    fn poll_timeout(&self) -> Option<BootTime> {
        self.core.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// Returns the record of a holding.
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
        since: holding.since,
        started_at: holding.started_at,
        sequence: holding.sequence,
    }
}
