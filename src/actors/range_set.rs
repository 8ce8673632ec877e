//! One range set: leases blocks ahead of demand and hands single addresses out from memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::coordinator::{Assigned, CoordinatorActor, Merged};
use super::journal::{Append, Commit, JournalActor};
use super::leaseholder::{LeaseholderActor, Place, PlaceAside};
use crate::clock::boot_ms;
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::block::{Block, BlockState};
use crate::core::coordinator::SetRecord;
use crate::core::journal::JournalEntry;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{self, Leased, Order, Question, without};
use crate::core::range::Ranges;
use crate::core::range_set::{self, Effect, Settings, Stats};
use crate::core::value::BlockStatus;
use crate::{limits, metrics};

/// Assigns one address; [`Assigned`] goes back to the coordinator.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Assign(pub range_set::Assign);

/// Takes an assignment back that nobody has seen.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Undo(pub u128);

/// Releases an address whose release is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Release(pub u128);

/// Takes over blocks of this node that its journal forgot, with the addresses that are held.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Recover(pub Vec<Cidr>, pub BTreeSet<u128>);

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

/// A block in hand.
#[derive(Clone, Copy, Debug)]
pub struct BlockFigures {
    /// What it covers.
    pub cidr: Cidr,
    /// Its state.
    pub state: BlockState,
    /// Addresses that are not taken.
    pub free: u32,
    /// Addresses that cool.
    pub cooling: u32,
}

/// The blocks of this range set.
#[derive(Message)]
#[rtype(result = "Blocks")]
pub struct ListBlocks;

/// What [`ListBlocks`] answers.
#[derive(Clone, MessageResponse, Debug)]
pub struct Blocks {
    /// Which range set this is.
    pub record: SetRecord,
    /// Its blocks in hand, in order.
    pub blocks: Vec<BlockFigures>,
}

/// What comes from the cluster, and the errand that it ends.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Heard(pub leaseholder::Effect, pub Option<Errand>);

/// What a range set must know when its order has ended.
#[derive(Debug)]
pub enum Errand {
    /// Blocks are leased; these will be active.
    Lease(Vec<Cidr>),
    /// So many blocks are given back.
    GiveBack(usize),
    /// The question with this key is answered with a part of a block.
    Transfer(String),
    /// Others are asked for addresses.
    Find,
}

/// Hands what this actor owns over to another range set, once nothing is under way in the cluster,
/// and ends.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Retire {
    /// Who takes it over.
    pub heir: Addr<RangeSetActor>,
}

/// Takes over what another range set owned.
#[derive(Message)]
#[rtype(result = "()")]
struct Absorb {
    from: SetRecord,
    core: Box<range_set::RangeSet>,
    lease_number: u64,
}

/// Whom a range set talks to.
#[derive(Clone)]
pub struct Others {
    /// The coordinator.
    pub coordinator: Addr<CoordinatorActor>,
    /// The journal.
    pub journal: Addr<JournalActor>,
    /// The leaseholder.
    pub leaseholder: Addr<LeaseholderActor>,
}

/// The actor.
pub struct RangeSetActor {
    record: SetRecord,
    core: range_set::RangeSet,
    others: Others,
    timer: Option<(Millis, SpawnHandle)>,
    /// Who takes everything over, until nothing is under way any more.
    retiring: Option<Addr<Self>>,
    /// How often the node's lease was lost since the daemon started, as far as this range set was
    /// told: its spares hang on the lease of now.
    lease_number: u64,
    metrics: metrics::RangeSet,
}

impl RangeSetActor {
    /// An actor around a range set. `lease_number`: how often the node's lease was lost.
    pub fn new(
        record: SetRecord,
        core: range_set::RangeSet,
        others: Others,
        lease_number: u64,
    ) -> Self {
        let metrics = metrics::RangeSet::new(&record.network, record.family);
        Self { record, core, others, timer: None, retiring: None, lease_number, metrics }
    }

    /// Carries out what the core asks for, and arms the timer.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Assigned(id, result) => {
                    self.others.coordinator.do_send(Assigned(id, result));
                }
                Effect::Lease { activate, claim } => {
                    let claimed = |(cidr, status): &(Cidr, BlockStatus)| {
                        (*status == BlockStatus::Active).then_some(*cidr)
                    };
                    let active = activate.iter().copied();
                    let active = active.chain(claim.iter().filter_map(claimed)).collect();
                    let order = Order::Lease { pool: self.pool(), activate, claim };
                    self.place(Errand::Lease(active), order);
                }
                Effect::GiveBack(blocks) => self.give_back(&blocks, ctx),
                Effect::Transfer { question, block, give, spare } => {
                    self.give(question, block, give, spare, ctx);
                }
                Effect::JournalBlock(cidr) => self.append_blocks(&[cidr]),
                Effect::JournalLost(cidr) => {
                    let records = self.records(JournalEntry::LostBlock, &[cidr]);
                    self.others.journal.do_send(Commit(records));
                }
                Effect::ReleaseUnknown(cidrs) => {
                    let order = Order::GiveBack { pool: self.pool(), cidrs };
                    self.others.leaseholder.do_send(PlaceAside(order));
                }
                Effect::Refuse(question) => {
                    self.others.leaseholder.do_send(PlaceAside(Order::Refuse(question)));
                }
                Effect::Find { wanted, even_cooling } => {
                    let order = Order::Find { pool: self.pool(), wanted, even_cooling };
                    self.place(Errand::Find, order);
                }
            }
        }
        self.metrics.show(self.core.stats());
        #[cfg(debug_assertions)]
        self.core.check_invariants();
        if !self.core.is_asking()
            && let Some(heir) = self.retiring.take()
        {
            return self.hand_over(&heir, ctx);
        }
        self.arm(ctx);
    }

    fn pool(&self) -> PoolFamily {
        PoolFamily { network: self.record.network.clone(), family: self.record.family }
    }

    fn place(&self, errand: Errand, order: Order) {
        self.others.leaseholder.do_send(Place { set: self.record.id, errand, order });
    }

    /// Records about blocks, in the order of the runs.
    fn records(
        &self,
        record: fn(PoolFamily, Cidr) -> JournalEntry,
        cidrs: &[Cidr],
    ) -> Vec<JournalEntry> {
        cidrs.iter().map(|&cidr| record(self.pool(), cidr)).collect()
    }

    /// Writes to the journal that nothing is handed out of these blocks any more, then has them
    /// given back. `bool`: a spare, which the journal does not have.
    fn give_back(&mut self, blocks: &[(Cidr, bool)], ctx: &mut Context<Self>) {
        let cidrs: Vec<Cidr> = blocks.iter().map(|(cidr, _)| *cidr).collect();
        let durable: Vec<Cidr> =
            blocks.iter().filter(|(_, spare)| !spare).map(|(cidr, _)| *cidr).collect();
        let order = Order::GiveBack { pool: self.pool(), cidrs };
        let records = self.records(JournalEntry::NoBlock, &durable);
        let errand = Errand::GiveBack(blocks.len());
        if records.is_empty() {
            return self.place(errand, order);
        }
        let commit = self.others.journal.send(Commit(records)).into_actor(self);
        ctx.spawn(commit.map(|answer, actor, ctx| match answer {
            Ok(Ok(())) => actor.place(errand, order),
            _ => {
                actor.core.given_back(boot_ms(), false);
                actor.drive(ctx);
            }
        }));
    }

    /// Writes to the journal that nothing is handed out of that part any more, then has it given
    /// to who asked.
    fn give(
        &mut self,
        question: Question,
        block: Cidr,
        give: Cidr,
        spare: bool,
        ctx: &mut Context<Self>,
    ) {
        let key = question.key.clone();
        let errand = Errand::Transfer(key.clone());
        let order = Order::Transfer { question, block, give };
        if spare {
            return self.place(errand, order);
        }
        let mut records = vec![JournalEntry::NoBlock(self.pool(), block)];
        records.extend(self.records(JournalEntry::Block, &without(block, give)));
        let commit = self.others.journal.send(Commit(records)).into_actor(self);
        ctx.spawn(commit.map(move |answer, actor, ctx| match answer {
            Ok(Ok(())) => actor.place(errand, order),
            _ => {
                actor.core.transferred(boot_ms(), &key, false);
                actor.drive(ctx);
            }
        }));
    }

    /// Appends to the journal that addresses of these blocks may be handed out.
    fn append_blocks(&self, cidrs: &[Cidr]) {
        if !cidrs.is_empty() {
            self.others.journal.do_send(Append(self.records(JournalEntry::Block, cidrs)));
        }
    }

    /// The end of an order.
    fn ended(&mut self, now: Millis, errand: Errand, effect: leaseholder::Effect) {
        use leaseholder::Effect;
        match (effect, errand) {
            (Effect::Leased(_, leased), Errand::Lease(active)) => {
                match &leased {
                    Leased::Done => {
                        self.metrics.lease_done();
                        self.append_blocks(&active);
                    }
                    Leased::Conflict { .. } => self.metrics.lease_conflict(),
                    Leased::Failed(cause) => {
                        self.metrics.lease_failed();
                        tracing::error!(network = &*self.record.network, %cause, "no block leased");
                    }
                }
                self.core.leased(now, leased);
            }
            (Effect::GivenBack(_, done), Errand::GiveBack(count)) => {
                if done {
                    self.metrics.given_back(count);
                } else {
                    tracing::warn!(network = &*self.record.network, "blocks not given back");
                }
                self.core.given_back(now, done);
            }
            (Effect::Transferred(_, done), Errand::Transfer(key)) => {
                if done {
                    self.metrics.given();
                }
                self.core.transferred(now, &key, done);
            }
            (Effect::Found(_, found), Errand::Find) => self.core.found(now, found),
            _ => {}
        }
    }

    /// What comes from the cluster unasked.
    fn heard(&mut self, now: Millis, effect: leaseholder::Effect) {
        use leaseholder::Effect;
        match effect {
            Effect::Asked(question) => self.core.asked(now, question),
            Effect::Spares(_, cidrs) => self.core.spares(now, &cidrs),
            Effect::Lost(_, cidrs) => self.core.lost(now, &cidrs),
            Effect::Regained(_, cidr) => self.core.regained(now, cidr),
            Effect::Split(_, block, parts) => self.core.split(block, &parts),
            Effect::SparesGone => {
                self.lease_number += 1;
                self.core.spares_gone(now);
            }
            Effect::Stalled(cause) => self.core.stalled(now, cause),
            Effect::Halted(cause) => self.core.halted(now, cause),
            Effect::Joined { .. } => self.core.joined(),
            Effect::Alone(alone) => self.core.alone(alone),
            Effect::Draining(draining) => self.core.draining(now, draining),
            _ => {}
        }
    }

    /// Gives away what this actor owns, and ends it.
    fn hand_over(&mut self, heir: &Addr<Self>, ctx: &mut Context<Self>) {
        let settings = Settings { cooldown: 0, min_free: 0, seed: 0 };
        let empty = range_set::RangeSet::new(self.record.family, self.core.block_log2(), settings);
        let core = Box::new(std::mem::replace(&mut self.core, empty));
        self.metrics.show(Stats::default());
        let (from, lease_number) = (self.record.clone(), self.lease_number);
        heir.do_send(Absorb { from, core, lease_number });
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
}

impl Actor for RangeSetActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
        self.drive(ctx);
    }
}

impl Handler<Assign> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, Assign(request): Assign, ctx: &mut Self::Context) {
        let id = request.id;
        if let Some(result) = self.core.assign(boot_ms(), request) {
            self.others.coordinator.do_send(Assigned(id, result));
        }
        self.drive(ctx);
    }
}

impl Handler<Heard> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, Heard(effect, errand): Heard, ctx: &mut Self::Context) {
        let now = boot_ms();
        match errand {
            Some(errand) => self.ended(now, errand, effect),
            None => self.heard(now, effect),
        }
        self.drive(ctx);
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

impl Handler<Recover> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, Recover(blocks, held): Recover, ctx: &mut Self::Context) {
        self.core.recover(boot_ms(), &blocks, &held);
        self.drive(ctx);
    }
}

impl Handler<Probe> for RangeSetActor {
    type Result = bool;

    fn handle(&mut self, Probe(allowed): Probe, _: &mut Self::Context) -> bool {
        self.core.could_assign(boot_ms(), &allowed)
    }
}

impl Handler<Describe> for RangeSetActor {
    type Result = Description;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Description {
        Description { record: self.record.clone(), stats: self.core.stats() }
    }
}

impl Handler<ListBlocks> for RangeSetActor {
    type Result = Blocks;

    fn handle(&mut self, _: ListBlocks, _: &mut Self::Context) -> Blocks {
        let figures = |block: &Block| BlockFigures {
            cidr: block.cidr(),
            state: block.state,
            free: block.free(),
            cooling: block.cooling(),
        };
        Blocks { record: self.record.clone(), blocks: self.core.blocks().map(figures).collect() }
    }
}

impl Handler<Retire> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, Retire { heir }: Retire, ctx: &mut Self::Context) {
        self.retiring = Some(heir);
        self.drive(ctx);
    }
}

impl Handler<Absorb> for RangeSetActor {
    type Result = ();

    fn handle(&mut self, absorb: Absorb, ctx: &mut Self::Context) {
        let Absorb { from, mut core, lease_number } = absorb;
        if lease_number < self.lease_number {
            core.spares_gone(boot_ms()); // it was told so, and ended before it heard
        }
        self.core.absorb(*core);
        self.drive(ctx);
        self.others.coordinator.do_send(Merged { network: from.network, from: from.id });
    }
}
