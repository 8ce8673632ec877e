//! What comes back from the cluster.

use std::sync::Arc;

use super::{Effect, RangeSet};
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::block::{Block, BlockState};
use crate::core::leaseholder::Leased;
use crate::core::mutant::{Mutant, broken};
use crate::core::range_set::AssignError;
use crate::core::value::BlockStatus;
use crate::limits;

impl RangeSet {
    /// The end of an [`Effect::Lease`].
    pub fn leased(&mut self, now: Millis, leased: Leased) {
        let Some((activate, claim)) = self.leasing.take() else { return };
        self.demand.failed = None;
        match leased {
            Leased::Done => {
                for cidr in activate {
                    if self.held.contains_key(&cidr.start) {
                        self.turn(cidr.start, BlockState::Active);
                    } else {
                        self.hold(cidr, BlockState::Active);
                    }
                }
                for (cidr, status) in claim {
                    let spare = status == BlockStatus::Spare;
                    self.hold(cidr, if spare { BlockState::Spare } else { BlockState::Active });
                }
            }
            Leased::Conflict { others, gone } => {
                for cidr in gone {
                    self.drop_spare(now, cidr);
                }
                self.others(&others);
            }
            Leased::Failed(cause) => {
                self.demand.failed = Some((now + limits::CLAIM_PAUSE_MS, cause));
            }
        }
        self.serve(now);
        self.answer_questions(now);
    }

    /// Remembers blocks of others.
    pub(super) fn others(&mut self, others: &[Cidr]) {
        for cidr in others {
            self.claimed.insert(cidr.start, cidr.end());
            self.transfers.others = true;
        }
    }

    fn drop_spare(&mut self, now: Millis, cidr: Cidr) {
        if self.held.get(&cidr.start).is_some_and(Block::is_unused) {
            self.forget_giving(now, cidr);
            self.take_out(cidr.start);
            self.claimed.remove(cidr.start, cidr.end());
        }
    }

    /// The end of an [`Effect::GiveBack`]: whether the blocks are free now.
    pub fn given_back(&mut self, now: Millis, done: bool) {
        for (cidr, before) in std::mem::take(&mut self.giving_back) {
            let draining = |state| state == BlockState::Returning;
            if !self.held.get(&cidr.start).is_some_and(|block| draining(block.state)) {
                continue; // lost meanwhile
            }
            if done {
                self.take_out(cidr.start);
                self.claimed.remove(cidr.start, cidr.end());
            } else {
                self.turn(cidr.start, before);
                if before == BlockState::Active {
                    self.effects.push_back(Effect::JournalBlock(cidr));
                }
            }
        }
        self.serve(now);
        self.answer_questions(now);
    }

    /// All spares are gone, also those that are being given back.
    pub fn spares_gone(&mut self, now: Millis) {
        let returning = self.giving_back.iter().filter(|(_, before)| *before == BlockState::Spare);
        for cidr in returning.map(|(cidr, _)| *cidr).collect::<Vec<_>>() {
            self.drop_spare(now, cidr);
        }
        for start in self.spares.clone() {
            if let Some(cidr) = self.held.get(&start).map(Block::cidr) {
                self.drop_spare(now, cidr);
            }
        }
        self.serve(now);
    }

    /// Another node gave these: spares. What overlaps blocks that this node handed out of goes
    /// back.
    pub fn spares(&mut self, now: Millis, cidrs: &[Cidr]) {
        let mut unwanted = Vec::new();
        for &cidr in cidrs {
            if self.held.get(&cidr.start).is_some_and(|held| held.cidr() == cidr) {
                continue; // told twice
            }
            let below = self.block(cidr.start).is_some();
            if below || self.held.range(cidr.start..=cidr.end()).next().is_some() {
                unwanted.push(cidr);
            } else {
                self.hold(cidr, BlockState::Spare);
            }
        }
        if !unwanted.is_empty() {
            self.effects.push_back(Effect::ReleaseUnknown(unwanted));
        }
        self.serve(now);
    }

    /// A block of this node is several in the store.
    pub fn split(&mut self, block: Cidr, parts: &[Cidr]) {
        let whole = self.held.get(&block.start).is_some_and(|held| held.cidr() == block);
        if !whole || self.giving_back.iter().any(|(cidr, _)| *cidr == block) {
            return;
        }
        if let Some(whole) = self.take_out(block.start) {
            for &part in parts.iter().filter(|part| block.contains(part.start)) {
                self.put_in(whole.part(part));
            }
        }
    }

    /// The store says that these are not this node's. What is assigned stays so until its DEL;
    /// nothing is handed out of them any more.
    pub fn lost(&mut self, now: Millis, cidrs: &[Cidr]) {
        for cidr in cidrs {
            match self.held.get(&cidr.start).filter(|held| held.cidr() == *cidr) {
                // Nothing of it is in use: it need not be claimed again.
                Some(held) if held.is_unused() => {
                    self.drop_spare(now, *cidr);
                    self.effects.push_back(Effect::ReleaseUnknown(vec![*cidr]));
                }
                Some(_) => {
                    self.turn(cidr.start, BlockState::Lost);
                    let doubt = self.staying(*cidr).into_iter().map(Effect::JournalLost);
                    self.effects.extend(doubt);
                }
                None => {}
            }
        }
        self.serve(now);
    }

    /// What was lost is this node's again; if nothing of it is held any more, as a spare, whose
    /// first change of hands makes it active or gives it back.
    pub fn regained(&mut self, now: Millis, cidr: Cidr) {
        match self.held.get(&cidr.start) {
            Some(block) if block.state == BlockState::Lost && block.cidr() == cidr => {
                self.turn(cidr.start, BlockState::Active);
                let keep = self.staying(cidr).into_iter().map(Effect::JournalBlock);
                self.effects.extend(keep);
                self.serve(now);
            }
            Some(_) => {}
            None => self.spares(now, &[cidr]),
        }
    }

    /// Nothing can be leased, because of this; or it can again. Whoever waits gets what is in hand,
    /// or learns why at once.
    pub fn stalled(&mut self, now: Millis, cause: Option<Arc<str>>) {
        self.stalled = cause;
        self.serve(now);
        if let Some(cause) = &self.stalled {
            for (_, request) in std::mem::take(&mut self.waiting) {
                let error = AssignError::NoBlock(cause.clone());
                self.effects.push_back(Effect::Assigned(request.id, Err(error)));
            }
        }
    }

    /// Nothing may be handed out, because of this; or it may again.
    pub fn halted(&mut self, now: Millis, cause: Option<Arc<str>>) {
        self.halted = cause;
        self.serve(now);
    }

    /// Addresses may be handed out until then, and not later (rule 19). The leaseholder's timer
    /// halts range sets as well, but after a pause of the process a call may come before it.
    pub fn good_until(&mut self, now: Millis, until: Millis) {
        self.good_until = Some(until);
        self.serve(now);
    }

    /// Whether the node has not reached the store for too long to hand out anything.
    pub(super) fn is_overdue(&self, now: Millis) -> bool {
        self.good_until.is_some_and(|until| until < now) && !broken(Mutant::OfflineLimitIgnored)
    }

    /// The node has joined: blocks may be given back from now on.
    pub fn joined(&mut self) {
        self.joined = true;
    }

    /// Whether this is the only node of the cluster.
    pub fn alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// Whether an operator wants the blocks back.
    pub fn draining(&mut self, now: Millis, draining: bool) {
        self.draining = draining;
        self.next_reclaim = now;
        self.serve(now);
    }
}
