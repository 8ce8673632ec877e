//! What the leaseholder says, and to which range set it goes.
//!
//! Everything takes this one way, in the order in which the leaseholder said it.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::prelude::*;

use super::coordinator::CoordinatorActor;
use super::journal::{Append, Commit};
use super::leaseholder::{Asker, Intended, PlaceAside};
use super::range_set::Heard;
use crate::clock::boot_ms;
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::coordinator::SetId;
use crate::core::journal::JournalEntry;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Effect, Order, Question};
use crate::core::range_set::RangeSet;

/// An effect of the leaseholder, and whose order it answers.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Told(pub Effect, pub Option<Asker>);

/// What every range set must know of the cluster.
#[derive(Clone, Default, Debug)]
pub struct Cluster {
    /// How often the node's lease was lost.
    pub(super) lease_number: u64,
    joined: bool,
    alone: Option<bool>,
    pub(super) stalled: Option<Arc<str>>,
    halted: Option<Arc<str>>,
    draining: bool,
    /// What the journal holds is of another boot: nothing is handed out of it before the store
    /// has confirmed it.
    unconfirmed: Option<Arc<str>>,
    /// What is held is recorded in the store.
    pub(super) records: bool,
    /// What was said of single blocks while range sets become one.
    held_back: VecDeque<Effect>,
}

impl Cluster {
    /// Nothing is known yet. `unconfirmed`: why nothing is handed out before the node has joined;
    /// `records`: whether what is held is recorded in the store.
    pub fn new(unconfirmed: Option<Arc<str>>, records: bool) -> Self {
        Self { unconfirmed, records, ..Self::default() }
    }

    fn halted(&self) -> Option<Arc<str>> {
        self.halted.clone().or_else(|| self.unconfirmed.clone())
    }

    /// Why no block can be leased, if so.
    pub(super) fn unable(&self) -> Option<Arc<str>> {
        let draining = || self.draining.then(|| "an operator drains this node".into());
        self.halted().or_else(draining).or_else(|| self.stalled.clone())
    }

    /// Tells a new range set everything.
    pub(super) fn tell(&self, now: Millis, set: &mut RangeSet) {
        if self.joined {
            set.joined();
        }
        if let Some(alone) = self.alone {
            set.alone(alone);
        }
        set.stalled(now, self.stalled.clone());
        set.halted(now, self.halted());
        if self.draining {
            set.draining(now, true);
        }
    }

    /// Remembers what every range set must be told.
    fn learn(&mut self, effect: &Effect) {
        match effect {
            Effect::SparesGone => self.lease_number += 1,
            Effect::Stalled(cause) => self.stalled.clone_from(cause),
            Effect::Halted(cause) => self.halted.clone_from(cause),
            Effect::Alone(alone) => self.alone = Some(*alone),
            Effect::Draining(draining) => self.draining = *draining,
            _ => {}
        }
    }
}

impl Handler<Told> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, Told(effect, asker): Told, ctx: &mut Self::Context) {
        match (asker, effect) {
            (Some(Asker::Set(id, errand)), effect) => {
                if let Some(set) = self.sets.get(&id).or_else(|| self.retiring.get(&id)) {
                    set.do_send(Heard(effect, Some(errand)));
                }
            }
            (Some(Asker::Network(network, allowed)), Effect::BlockSizeAgreed(_, result)) => {
                self.core.block_size_agreed(boot_ms(), &network, &allowed, result);
            }
            (_, effect) => self.told(effect, ctx),
        }
        self.drive(ctx);
    }
}

impl CoordinatorActor {
    fn told(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Intend(sequence) => self.intend(sequence, ctx),
            Effect::Reached(sequence) => {
                self.others.journal.do_send(Append(vec![JournalEntry::Chain(sequence)]));
            }
            Effect::Recorded(ids) => self.recorded(ids),
            Effect::Recover(memory) => {
                let recovered = self.core.recover(boot_ms(), *memory);
                tracing::error!(
                    blocks = recovered.blocks,
                    remembered = recovered.remembered,
                    ended = recovered.ended,
                    "the state directory is older than this node, or new, and containers of this \
                     boot may run: what the cluster's store has of them is held again, and every \
                     other address of this node's blocks cools first (`leasehold check` finds what \
                     is left over)"
                );
            }
            Effect::RecordsListed(cidrs, found) => self.core.records_listed(&cidrs, found),
            Effect::Joined { .. } => {
                self.cluster.joined = true;
                self.tell_all(&effect);
                if self.cluster.unconfirmed.take().is_some() {
                    let halted = Effect::Halted(self.cluster.halted());
                    self.tell_all(&halted);
                }
            }
            Effect::Halted(_) => {
                self.cluster.learn(&effect);
                let halted = Effect::Halted(self.cluster.halted());
                self.tell_all(&halted);
            }
            Effect::SparesGone | Effect::Stalled(_) | Effect::Alone(_) | Effect::Draining(_) => {
                self.cluster.learn(&effect);
                self.tell_all(&effect);
                if let Effect::Stalled(Some(cause)) = effect {
                    self.not_recorded(&cause);
                }
            }
            // Nobody hands anything out of range sets that become one: these wait for that.
            effect if !self.retiring.is_empty() => self.cluster.held_back.push_back(effect),
            effect => self.tell_owner(effect),
        }
    }

    /// Makes it durable that a transaction may be on its way, and says so.
    fn intend(&self, sequence: u64, ctx: &mut Context<Self>) {
        let commit = self.others.journal.send(Commit(vec![JournalEntry::Intent(sequence)]));
        ctx.spawn(commit.into_actor(self).map(move |answer, actor, _| {
            // If the journal is broken, nothing more is changed in the store.
            if matches!(answer, Ok(Ok(()))) {
                actor.others.leaseholder.do_send(Intended(sequence));
            }
        }));
    }

    /// What waited until range sets had become one.
    pub(super) fn tell_held_back(&mut self) {
        if self.retiring.is_empty() {
            for effect in std::mem::take(&mut self.cluster.held_back) {
                self.tell_owner(effect);
            }
        }
    }

    fn tell_all(&self, effect: &Effect) {
        for set in self.sets.values().chain(self.retiring.values()) {
            set.do_send(Heard(effect.clone(), None));
        }
    }

    /// Tells the range set to which the blocks belong.
    fn tell_owner(&mut self, effect: Effect) {
        let owner = match &effect {
            Effect::Asked(question) => self.owner_of_question(question),
            Effect::Lost(pool, cidrs) | Effect::Spares(pool, cidrs) => {
                cidrs.first().and_then(|cidr| self.core.owner_of_cidr(pool, *cidr))
            }
            Effect::Regained(pool, cidr) | Effect::Split(pool, cidr, _) => {
                self.core.owner_of_cidr(pool, *cidr)
            }
            _ => None,
        };
        if let Some(set) = owner.and_then(|id| self.sets.get(&id)) {
            return set.do_send(Heard(effect, None));
        }
        match effect {
            Effect::Asked(question) => self.aside(Order::Refuse(question)),
            Effect::Spares(pool, cidrs) => self.aside(Order::GiveBack { pool, cidrs }),
            _ => {}
        }
    }

    fn aside(&self, order: Order) {
        self.others.leaseholder.do_send(PlaceAside(order));
    }

    fn owner_of_question(&self, question: &Question) -> Option<SetId> {
        let owner =
            |pool: &PoolFamily, first| self.core.owner_of_cidr(pool, Cidr::containing(first, 0));
        question.wanted.iter().find_map(|&(first, _)| owner(&question.pool, first))
    }
}
