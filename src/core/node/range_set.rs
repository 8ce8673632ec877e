//! A range set among the machines of its node.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::{
    After, Event, Machine, Message, OrderContext, OrderOrigin, Output, ToCoordinator,
    ToLeaseholder, ToRangeSet,
};
use crate::core::Map;
use crate::core::address::{Address, Cidr};
use crate::core::block::Block;
use crate::core::cause::Cause;
use crate::core::coordinator::RecoveredBlocks;
use crate::core::ids::{LeaseLosses, MessageCount, OperationId};
use crate::core::journal::JournalEntry;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{self, Leased, Order, Question, without};
use crate::core::mutant::{Mutant, broken};
use crate::core::offer::Offer;
use crate::core::range::Ranges;
use crate::core::range_set::{Capacity, Effect, GoodUntil, RangeSet, Settings, Stats};
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::time::BootTime;
use crate::core::value::BlockStatus;

/// The end of the daemon, as far as a range set has to do with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    No,
    /// Blocks are parked as soon as no order is open.
    Waits,
    /// Blocks are being parked.
    Parks,
    Done,
}

/// The machine of one range set: it leases blocks ahead of demand and hands single addresses out
/// from memory.
#[derive(Debug)]
pub struct RangeSetMachine {
    identity: SetIdentity,
    core: RangeSet,
    /// The range set that takes everything over as soon as no order is open.
    heir: Option<SetId>,
    stopping: Stopping,
    /// The number of times that the node's lease was lost since the daemon started, as far as this
    /// range set was told: its spares hang on the current lease.
    lease_losses: LeaseLosses,
    /// The number of messages of the coordinator that were handled.
    received: MessageCount,
    /// The requests that wait for a block, and since when: for the figures.
    waits: Map<OperationId, BootTime>,
    outputs: VecDeque<Output>,
}

impl RangeSetMachine {
    /// Creates the machine around a range set that is opened ([`Output::Open`]).
    pub fn new(identity: SetIdentity, core: RangeSet, lease_losses: LeaseLosses) -> Self {
        let (waits, outputs) = (Map::default(), VecDeque::new());
        let (heir, stopping) = (None, Stopping::No);
        Self {
            identity,
            core,
            heir,
            stopping,
            lease_losses,
            received: MessageCount::default(),
            waits,
            outputs,
        }
    }

    /// Returns its name, its network and its ranges as they were when it opened.
    pub fn identity(&self) -> &SetIdentity {
        &self.identity
    }

    /// Returns its figures.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Returns the addresses that it can ever hand out, and the addresses of its blocks in hand by
    /// state.
    pub fn capacity(&self) -> (Offer, Capacity) {
        let offer = self.core.offer(&self.identity.ranges);
        let figures = self.core.capacity(&offer);
        (offer, figures)
    }

    /// Returns its blocks, in order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.core.blocks()
    }

    /// Returns those that begin at this address or behind it, in order.
    pub fn blocks_from(&self, first: Address) -> impl Iterator<Item = &Block> {
        self.core.blocks_from(first)
    }

    /// Returns whether an order of it is open; for simulators.
    pub fn is_asking(&self) -> bool {
        self.core.is_asking()
    }

    /// Returns whether an ADD from these ranges could be served now, as far as this range set
    /// knows; otherwise every address is taken.
    ///
    /// # Errors
    /// The reason why this node cannot serve it.
    pub fn could_assign(&mut self, now: BootTime, allowed: &Ranges) -> Result<bool, Cause> {
        self.core.could_assign(now, allowed)
    }

    /// Checks that its indexes and figures agree; for tests and simulators.
    pub fn check_invariants(&self) {
        self.core.check_invariants();
    }

    fn pool(&self) -> PoolFamily {
        PoolFamily { network: self.identity.network.clone(), family: self.identity.family }
    }

    /// Carries out what the core asks for, in order.
    fn drive(&mut self, now: BootTime) {
        self.drain(now);
        if self.stopping == Stopping::Waits && !self.core.is_asking() {
            self.stopping = Stopping::Parks;
            self.core.park(now);
            self.drain(now);
        }
        if self.stopping == Stopping::Parks && !self.core.is_asking() {
            self.stopping = Stopping::Done;
            self.send(Message::Coordinator(ToCoordinator::Parked(self.identity.id)));
        }
        if !self.core.is_asking()
            && let Some(heir) = self.heir.take()
        {
            self.hand_over(heir);
        }
    }

    fn drain(&mut self, now: BootTime) {
        while let Some(effect) = self.core.poll_effect() {
            self.report_wait(now, &effect);
            self.carry_out(effect);
        }
    }

    /// Reports for how long a request waited, when its wait ends.
    fn report_wait(&mut self, now: BootTime, effect: &Effect) {
        if let Effect::Assigned(operation, result) = effect
            && let Some(since) = self.waits.remove(operation)
        {
            let (network, family) = (self.identity.network.clone(), self.identity.family);
            let (waited, served) = (now.since(since), result.is_ok());
            self.report(Event::Waited { network, family, waited, served });
            self.send(Message::Coordinator(ToCoordinator::Waited(*operation)));
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Assigned(operation, result) => {
                self.send(Message::Coordinator(ToCoordinator::Assigned(operation, result)));
            }
            Effect::Lease { activate, claim } => {
                let claimed = |(cidr, status): &(Cidr, BlockStatus)| {
                    (*status == BlockStatus::Active).then_some(*cidr)
                };
                let active = activate.iter().copied();
                let active = active.chain(claim.iter().filter_map(claimed)).collect();
                let claims = claim.iter().map(|(cidr, _)| *cidr);
                let blocks = activate.iter().copied().chain(claims).collect();
                let order = Order::Lease { pool: self.pool(), activate, claim };
                self.submit(OrderContext::Lease { blocks, active }, order);
            }
            Effect::GiveBack(blocks) => self.give_back(&blocks),
            Effect::Park(cidrs, ttl) => self.park(cidrs, ttl),
            Effect::JournalNone(cidr) => self.commit(JournalEntry::NoBlock, &[cidr]),
            Effect::Transfer { question, block, give, spare } => {
                self.transfer(question, block, give, spare);
            }
            Effect::JournalBlock(cidr) => self.commit(JournalEntry::Block, &[cidr]),
            Effect::JournalLost(cidr) => self.commit(JournalEntry::LostBlock, &[cidr]),
            Effect::ReleaseUnknown(cidrs) => {
                self.submit_aside(Order::GiveBack { pool: self.pool(), cidrs });
            }
            Effect::Unused => {
                let (network, set) = (self.identity.network.clone(), self.identity.id);
                let unused = ToCoordinator::Unused { network, set, received: self.received };
                self.send(Message::Coordinator(unused));
            }
            Effect::Refuse(question) => {
                let nothing = ToCoordinator::NothingFor(question, self.identity.id);
                self.send(Message::Coordinator(nothing));
            }
            Effect::Find { wanted, even_cooling } => {
                let order = Order::Find { pool: self.pool(), wanted, even_cooling };
                self.submit(OrderContext::Find, order);
            }
        }
    }

    fn send(&mut self, message: Message) {
        self.outputs.push_back(Output::Send(message));
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Output::Report(Box::new(event)));
    }

    fn submit(&mut self, context: OrderContext, order: Order) {
        let origin = OrderOrigin::RangeSet(self.identity.id, context);
        self.send(Message::Leaseholder(ToLeaseholder::SubmitOrder(Some(origin), order)));
    }

    /// Submits an order whose end nobody waits for.
    fn submit_aside(&mut self, order: Order) {
        self.send(Message::Leaseholder(ToLeaseholder::SubmitOrder(None, order)));
    }

    /// Submits an order when these entries are durable; `early`: at once, without them.
    fn submit_after(
        &mut self,
        entries: Vec<JournalEntry>,
        context: OrderContext,
        order: Order,
        early: bool,
    ) {
        if early {
            return self.submit(context, order);
        }
        let then = After::Order(self.identity.id, context, Box::new(order));
        self.outputs.push_back(Output::commit(entries, then));
    }

    /// Entries about blocks that nothing waits for. What is committed later is durable later: so a
    /// block is in the journal before the first address that is held in it (rule 15).
    fn commit(&mut self, entry: fn(PoolFamily, Cidr) -> JournalEntry, cidrs: &[Cidr]) {
        let entries: Vec<JournalEntry> =
            cidrs.iter().map(|&cidr| entry(self.pool(), cidr)).collect();
        if !entries.is_empty() {
            self.outputs.push_back(Output::commit(entries, After::Nothing));
        }
    }

    /// Gives blocks back when the journal has forgotten them (rule 9). `bool`: a spare, which the
    /// journal never had.
    fn give_back(&mut self, blocks: &[(Cidr, bool)]) {
        let cidrs: Vec<Cidr> = blocks.iter().map(|(cidr, _)| *cidr).collect();
        let durable = blocks.iter().filter(|(_, spare)| !spare);
        let forget = |(cidr, _): &(Cidr, bool)| JournalEntry::NoBlock(self.pool(), *cidr);
        let entries: Vec<JournalEntry> = durable.map(forget).collect();
        let context = OrderContext::GiveBack(cidrs.clone());
        let order = Order::GiveBack { pool: self.pool(), cidrs };
        let early = entries.is_empty() || broken(Mutant::GiveBackBeforeJournal);
        self.submit_after(entries, context, order, early);
    }

    /// Parks blocks when the journal says that nothing is handed out of them (rule 31).
    fn park(&mut self, cidrs: Vec<Cidr>, ttl: Duration) {
        let withhold = |&cidr: &Cidr| JournalEntry::LostBlock(self.pool(), cidr);
        let entries = cidrs.iter().map(withhold).collect();
        let order = Order::Park { pool: self.pool(), cidrs: cidrs.clone(), ttl };
        let early = broken(Mutant::ParkBeforeJournal);
        self.submit_after(entries, OrderContext::Park(cidrs), order, early);
    }

    /// Transfers a part of a block when the journal has forgotten that part (rule 9). `spare`: the
    /// block is one, which the journal never had.
    fn transfer(&mut self, question: Question, block: Cidr, give: Cidr, spare: bool) {
        let context = OrderContext::Transfer(question.key.clone());
        let order = Order::Transfer { question, block, give };
        let mut entries = Vec::new();
        if !spare {
            entries.push(JournalEntry::NoBlock(self.pool(), block));
            let keep = |part| JournalEntry::Block(self.pool(), part);
            entries.extend(without(block, give).into_iter().map(keep));
        }
        let early = spare || broken(Mutant::TransferBeforeJournal);
        self.submit_after(entries, context, order, early);
    }

    /// Handles the end of an order.
    fn order_ended(&mut self, now: BootTime, context: OrderContext, effect: leaseholder::Effect) {
        use leaseholder::Effect;
        let (network, family) = (self.identity.network.clone(), self.identity.family);
        match (effect, context) {
            (Effect::Leased(_, leased), OrderContext::Lease { blocks, active }) => {
                if leased == Leased::Done && !broken(Mutant::BlockNotJournalled) {
                    self.commit(JournalEntry::Block, &active);
                }
                self.report(Event::Leased(network, family, blocks, leased.clone()));
                self.core.leased(now, leased);
            }
            (Effect::GivenBack(_, done), OrderContext::GiveBack(cidrs)) => {
                self.report(Event::GivenBack(network, family, cidrs, done));
                self.core.given_back(now, done);
            }
            (Effect::GivenBack(_, done), OrderContext::Park(cidrs)) => {
                self.core.parked(&cidrs, done);
                self.report(Event::Parked(network, family, cidrs, done));
            }
            (Effect::Transferred(_, done), OrderContext::Transfer(key)) => {
                if done {
                    self.report(Event::Transferred(network, family));
                }
                self.core.transferred(now, &key, done);
            }
            (Effect::Found(_, found), OrderContext::Find) => self.core.found(now, found),
            _ => {}
        }
    }

    /// Handles an order that was not submitted: the journal failed.
    fn order_failed(&mut self, now: BootTime, context: &OrderContext) {
        match context {
            OrderContext::GiveBack(_) => self.core.given_back(now, false),
            OrderContext::Park(cidrs) => self.core.parked(cidrs, false),
            OrderContext::Transfer(key) => self.core.transferred(now, key, false),
            OrderContext::Lease { .. } | OrderContext::Find => {}
        }
    }

    /// Handles an effect of the leaseholder that answers no order.
    fn on_cluster_effect(&mut self, now: BootTime, effect: leaseholder::Effect) {
        use leaseholder::Effect;
        match effect {
            Effect::Asked(question) => self.core.asked(now, question),
            Effect::Spares(_, cidrs) => self.core.spares(now, &cidrs),
            Effect::Lost(_, cidrs) => self.core.lost(now, &cidrs),
            Effect::Regained(_, cidr) => self.core.regained(now, cidr),
            Effect::Unparked(_, cidr) => self.core.unparked(cidr),
            Effect::Split(_, block, parts) => self.core.split(block, &parts),
            Effect::SparesGone => {
                self.lease_losses = self.lease_losses.next();
                if !broken(Mutant::LostLeaseSparesKept) {
                    self.core.spares_gone(now);
                }
            }
            Effect::Stalled(cause) => self.core.stalled(now, cause),
            Effect::Halted(cause) => self.core.halted(now, cause),
            Effect::Joined { .. } => self.core.joined(),
            Effect::GoodUntil(until) => self.core.good_until(now, GoodUntil::Time(until)),
            Effect::Alone(alone) => self.core.alone(alone),
            Effect::Draining(draining) => self.core.draining(now, draining),
            _ => {}
        }
    }

    /// Gives away everything and ends.
    fn hand_over(&mut self, heir: SetId) {
        let (cooldown, forget_after) = (Duration::ZERO, Duration::MAX);
        let settings = Settings { cooldown, forget_after, min_free: 0, seed: 0 };
        let empty = RangeSet::new(self.identity.family, self.core.block_size(), settings);
        let set = Box::new(std::mem::replace(&mut self.core, empty));
        let (from, lease_losses) = (self.identity.clone(), self.lease_losses);
        self.send(Message::RangeSet(heir, ToRangeSet::Absorb { from, set, lease_losses }));
        self.outputs.push_back(Output::Close(self.identity.id));
    }

    fn absorb(
        &mut self,
        now: BootTime,
        from: SetIdentity,
        mut set: RangeSet,
        lease_losses: LeaseLosses,
    ) {
        // It ended before it was told that the lease is lost, and with it its spares (rule 18).
        if lease_losses < self.lease_losses && !broken(Mutant::LostLeaseSparesKept) {
            set.spares_gone(now);
        }
        self.core.absorb(set);
        let (network, from) = (from.network, from.id);
        self.send(Message::Coordinator(ToCoordinator::Merged { network, from }));
    }
}

impl Machine for RangeSetMachine {
    type Input = ToRangeSet;

    fn start(&mut self, now: BootTime) {
        self.drive(now);
    }

    fn handle(&mut self, now: BootTime, input: ToRangeSet) {
        // These two are not from the coordinator.
        if !matches!(input, ToRangeSet::OrderFailed(_) | ToRangeSet::Absorb { .. }) {
            self.received = self.received.next();
        }
        match input {
            ToRangeSet::Assign(request) => {
                let operation = request.id;
                if let Some(result) = self.core.assign(now, request) {
                    let assigned = ToCoordinator::Assigned(operation, result);
                    self.send(Message::Coordinator(assigned));
                } else {
                    self.waits.insert(operation, now);
                }
            }
            ToRangeSet::Undo(number) => self.core.undo(now, number),
            ToRangeSet::Release(number) => self.core.release(now, number),
            ToRangeSet::Recover(RecoveredBlocks { missing, all, held }) => {
                self.core.recover(now, &missing, &all, &held);
            }
            ToRangeSet::Cluster(effect) => self.on_cluster_effect(now, effect),
            ToRangeSet::OrderEnded(context, effect) => self.order_ended(now, context, effect),
            ToRangeSet::OrderFailed(context) => self.order_failed(now, &context),
            ToRangeSet::Crowded(crowded) => self.core.crowded(now, crowded),
            ToRangeSet::Confirm => {
                let confirmed = ToCoordinator::Confirmed(self.identity.id);
                self.send(Message::Coordinator(confirmed));
            }
            ToRangeSet::Retire(heir) => self.heir = Some(heir),
            ToRangeSet::Park if self.stopping == Stopping::No => self.stopping = Stopping::Waits,
            ToRangeSet::Park => {}
            ToRangeSet::Absorb { from, set, lease_losses } => {
                self.absorb(now, from, *set, lease_losses);
            }
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
