//! News from the cluster that this set did not ask for.

use super::{Effect, GoodUntil, RangeSet};
use crate::core::address::Cidr;
use crate::core::block::BlockState;
use crate::core::cause::Cause;
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;

/// The standing of this node in its cluster, as far as the range set was told.
#[derive(Clone, Debug)]
pub(super) struct ClusterView {
    /// The node has joined: what the journal says of blocks is known to be so.
    joined: bool,
    /// No other node is in the cluster.
    alone: bool,
    /// The reason why nothing can be leased now.
    stalled: Option<Cause>,
    /// The reason why nothing may be handed out.
    halted: Option<Cause>,
    /// The time until which anything may be handed out.
    good_until: GoodUntil,
    /// An operator wants the blocks back.
    draining: bool,
}

impl Default for ClusterView {
    fn default() -> Self {
        Self {
            joined: false,
            alone: true,
            stalled: None,
            halted: None,
            good_until: GoodUntil::Forever,
            draining: false,
        }
    }
}

impl ClusterView {
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Returns the reason why nothing can be leased now, if there is one.
    pub(super) fn stalled(&self) -> Option<&Cause> {
        self.stalled.as_ref()
    }

    /// Returns the reason why nothing may be handed out, if there is one.
    pub(super) fn refusal(&self, now: BootTime) -> Option<Cause> {
        let overdue = || self.is_overdue(now).then_some(Cause::OfflineLimit);
        let drained = || self.draining.then_some(Cause::Draining);
        self.halted.clone().or_else(overdue).or_else(drained)
    }

    /// Returns whether the node has not reached the store for too long to hand out anything.
    fn is_overdue(&self, now: BootTime) -> bool {
        self.good_until.is_over(now) && !broken(Mutant::OfflineLimitIgnored)
    }

    /// Returns whether blocks may be given back now.
    pub(super) fn may_give_back(&self) -> bool {
        self.joined && self.stalled.is_none()
    }
}

impl RangeSet {
    /// Drops all spares, which are gone, also those that are being given back.
    pub fn spares_gone(&mut self, now: BootTime) {
        let returning = self.demand.returning_spares();
        let returning = returning.filter(|cidr| self.inventory.get(*cidr).is_some());
        let spares: Vec<Cidr> = self.inventory.spares().chain(returning).collect();
        spares.into_iter().for_each(|cidr| self.remove(cidr));
        self.serve(now);
    }

    /// Takes spares that another node gave. Those that overlap blocks in hand go back.
    pub fn spares(&mut self, now: BootTime, cidrs: &[Cidr]) {
        let mut unwanted = Vec::new();
        for &cidr in cidrs {
            if self.inventory.get(cidr).is_some() {
                continue; // told twice
            }
            if self.inventory.overlaps(cidr) {
                unwanted.push(cidr);
            } else {
                self.insert(cidr, BlockState::Spare);
            }
        }
        if !unwanted.is_empty() {
            self.effects.push_back(Effect::ReleaseUnknown(unwanted));
        }
        self.serve(now);
    }

    /// Splits a block of this node that is several in the store, which together are that block.
    pub fn split(&mut self, block: Cidr, parts: &[Cidr]) {
        if self.inventory.get(block).is_some() && !self.demand.gives_back(block) {
            let split = self.inventory.split(block, parts);
            debug_assert!(split.is_ok(), "{split:?}");
        }
    }

    /// Remembers that these are not this node's: the store says so. Addresses that are assigned
    /// stay so until their DEL; no other address is handed out of them. Those in which nothing is
    /// assigned need not be claimed again: they are given back like any other block, so that it is
    /// known what becomes of a claim that is under way.
    pub fn lost(&mut self, now: BootTime, cidrs: &[Cidr]) {
        for &cidr in cidrs {
            let block = self.inventory.get(cidr).map(|block| (block.state(), block.is_unused()));
            match block {
                // What becomes of it is known when its way back ends.
                Some((BlockState::Returning, _)) if self.demand.lost_on_its_way(cidr) => {}
                // A spare that went with its lease, or a block that is being parked.
                Some((_, true)) => self.remove(cidr),
                Some(_) => {
                    self.set_state(cidr, BlockState::Lost);
                    let lost = self.staying(cidr).into_iter().map(Effect::JournalLost);
                    self.effects.extend(lost);
                }
                None => {}
            }
        }
        self.give_back_lost();
        self.serve(now);
    }

    /// Takes back a lost or parked block that is this node's again. One that is being given back
    /// goes on its way. One that is not in hand is old news, which was held back while range sets
    /// became one: meanwhile the block was given back.
    pub fn regained(&mut self, now: BootTime, cidr: Cidr) {
        match self.inventory.block(cidr.first()).map(|block| (block.cidr(), block.state())) {
            Some((block, state)) if block == cidr && self.is_withheld(cidr, state) => {
                self.set_state(cidr, BlockState::Active);
                let keep = self.staying(cidr).into_iter().map(Effect::JournalBlock);
                self.effects.extend(keep);
                self.serve(now);
            }
            _ => {}
        }
    }

    /// Remembers that nothing can be leased, because of this; or that it can again. Requests that
    /// wait get what is in hand, or learn the cause at once.
    pub fn stalled(&mut self, now: BootTime, cause: Option<Cause>) {
        self.cluster.stalled.clone_from(&cause);
        self.give_back_lost();
        self.serve(now);
        if let Some(cause) = cause {
            self.fail_waiting(&cause);
        }
    }

    /// Remembers that nothing may be handed out, because of this; or that it may again.
    pub fn halted(&mut self, now: BootTime, cause: Option<Cause>) {
        self.cluster.halted = cause;
        self.serve(now);
    }

    /// Sets the time until which addresses may be handed out, and not later (rule 19). The
    /// leaseholder's timer halts range sets as well, but after a pause of the process a call may
    /// come before it.
    pub fn good_until(&mut self, now: BootTime, until: GoodUntil) {
        self.cluster.good_until = until;
        self.serve(now);
    }

    /// Remembers that the node has joined: blocks may be given back from now on.
    pub fn joined(&mut self) {
        self.cluster.joined = true;
        self.give_back_lost();
    }

    /// Remembers that this is the only node of the cluster, or that it is not.
    pub fn alone(&mut self, alone: bool) {
        self.cluster.alone = alone;
    }

    /// Remembers that an operator wants the blocks back, or does not.
    pub fn draining(&mut self, now: BootTime, draining: bool) {
        self.cluster.draining = draining;
        self.demand.reclaim_from(now);
        self.serve(now);
    }
}
