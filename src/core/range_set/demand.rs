//! The demand for blocks: this file leases them ahead of need, and gives idle ones back.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::assign::Attempt;
use super::{AssignError, Effect, RangeSet, Stats};
use crate::core::address::{Address, Cidr};
use crate::core::block::{Block, BlockState};
use crate::core::cause::Cause;
use crate::core::leaseholder::Leased;
use crate::core::range::Ranges;
use crate::core::search::Search;
use crate::core::time::BootTime;
use crate::core::value::BlockStatus;
use crate::limits;

/// The blocks that are on their way to this node or back, and the figures that the next ones
/// depend on.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// The number of blocks to lease at once.
    batch: usize,
    /// The time at which the last lease began.
    leased_at: Option<BootTime>,
    /// The time until which no lease is tried, and the reason.
    paused: Option<(BootTime, Cause)>,
    leasing: Option<Leasing>,
    /// The blocks that are being given back, each with the state in which it was.
    giving_back: Vec<(Cidr, BlockState)>,
    /// The time of the next look for idle blocks.
    next_reclaim: BootTime,
    /// The fewest free addresses since the last look.
    low_free: u64,
}

/// The blocks of an [`Effect::Lease`].
#[derive(Clone, Debug)]
struct Leasing {
    /// Spares that are made active.
    activate: Vec<Cidr>,
    /// Cidrs that are claimed.
    claim: Vec<(Cidr, BlockStatus)>,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            batch: 1,
            leased_at: None,
            paused: None,
            leasing: None,
            giving_back: Vec::new(),
            next_reclaim: BootTime::BOOT,
            low_free: 0,
        }
    }
}

impl Demand {
    /// Returns whether blocks are on their way to this node or back.
    pub(super) fn is_moving(&self) -> bool {
        self.leasing.is_some() || self.is_giving_back()
    }

    /// Returns the spares that are being given back.
    pub(super) fn returning_spares(&self) -> impl Iterator<Item = Cidr> {
        let spares = self.giving_back.iter().filter(|(_, before)| *before == BlockState::Spare);
        spares.map(|(cidr, _)| *cidr)
    }

    /// Returns whether blocks are on their way back.
    pub(super) fn is_giving_back(&self) -> bool {
        !self.giving_back.is_empty()
    }

    /// Returns whether this block is on its way back.
    pub(super) fn gives_back(&self, cidr: Cidr) -> bool {
        self.giving_back.iter().any(|(of, _)| *of == cidr)
    }

    /// Remembers that a block on its way back is lost: if it does not go back, it stays lost.
    /// Returns whether there is one; spares on their way are dropped instead.
    pub(super) fn lost_on_its_way(&mut self, cidr: Cidr) -> bool {
        let is_it =
            |(of, before): &&mut (Cidr, BlockState)| *of == cidr && *before != BlockState::Spare;
        let found = self.giving_back.iter_mut().find(is_it);
        found.map(|(_, before)| *before = BlockState::Lost).is_some()
    }

    /// Returns whether this spare is being made active.
    pub(super) fn activates(&self, cidr: Cidr) -> bool {
        self.leasing.as_ref().is_some_and(|leasing| leasing.activate.contains(&cidr))
    }

    /// Returns the cidrs that are being claimed.
    pub(super) fn claiming(&self) -> impl Iterator<Item = Cidr> {
        self.leasing.iter().flat_map(|leasing| &leasing.claim).map(|(cidr, _)| *cidr)
    }

    /// Tries no lease for a while, because of this.
    pub(super) fn pause(&mut self, now: BootTime, cause: Cause) {
        self.paused = Some((now + limits::CLAIM_PAUSE, cause));
    }

    /// Looks for idle blocks at this time.
    pub(super) fn reclaim_from(&mut self, now: BootTime) {
        self.next_reclaim = now;
    }

    /// Remembers that so few addresses are free.
    pub(super) fn observe_free(&mut self, free: u64) {
        self.low_free = self.low_free.min(free);
    }
}

impl RangeSet {
    /// Removes the spares where a claim was carried out: the store had no block there, so a spare
    /// of which a late message told has gone with its lease.
    fn remove_dead_spares(&mut self, cidr: Cidr) {
        let there = self.inventory.blocks_in(cidr.range());
        let spares = there.filter(|block| block.state() == BlockState::Spare);
        for spare in spares.map(Block::cidr).collect::<Vec<_>>() {
            self.remove(spare);
        }
    }

    /// Returns the reason why nothing can be leased now, if there is one.
    pub(super) fn unable(&self, now: BootTime) -> Option<Cause> {
        let paused = self.demand.paused.as_ref().filter(|(until, _)| now < *until);
        self.cluster.stalled().or(paused.map(|(_, cause)| cause)).cloned()
    }

    /// Leases a block around this address for a call that needs an active one, or fails the call
    /// with the cause.
    pub(super) fn need(&mut self, now: BootTime, number: Address, allowed: &Ranges) -> Attempt {
        if let Some(cause) = self.unable(now) {
            return Attempt::Done(Err(AssignError::NoBlock(cause)));
        }
        self.lease(now, number, allowed);
        Attempt::Wait
    }

    /// Leases the next blocks before they are needed: while the addresses that are left are just
    /// enough or fewer.
    pub(super) fn look_ahead(&mut self, now: BootTime, allowed: &Ranges, cursor: Address) {
        let unable = self.demand.leasing.is_some() || self.cluster.is_draining();
        if unable || self.unable(now).is_some() {
            return;
        }
        let (alone, enough) = (self.cluster.is_alone(), u128::from(self.enough()));
        if !alone && u128::from(self.inventory.free()) > enough {
            return;
        }
        if let Some((number, before)) = self.search().next_inactive(allowed, Some(cursor))
            && (!alone || before <= enough)
        {
            self.lease(now, number, allowed);
        }
    }

    /// Returns the number of free addresses that are enough: half of what was leased last, or
    /// [`Settings::min_free`](super::Settings::min_free).
    fn enough(&self) -> u64 {
        let min_free = u64::from(self.settings.min_free).min(1 << self.block_size.log2());
        min_free.max((self.demand.batch as u64) << self.block_size.log2() >> 1)
    }

    /// Leases the block around an address, and more of them when the last lease was not long ago:
    /// spares become active, and in a burst as many new spares are claimed ahead.
    fn lease(&mut self, now: BootTime, number: Address, allowed: &Ranges) {
        if self.demand.leasing.is_some() {
            return;
        }
        let demand = &mut self.demand;
        let burst = demand.leased_at.is_some_and(|at| now.since(at) < limits::BURST);
        demand.batch = if burst { demand.batch * 2 } else { demand.batch / 2 };
        demand.batch = demand.batch.clamp(1, limits::BLOCKS_PER_CLAIM_MAX);
        demand.leased_at = Some(now);
        let wanted = if burst { demand.batch * 2 } else { 1 };
        let (mut activate, mut claim) = (Vec::new(), Vec::new());
        let (mut next, mut met) = (Some(number), BTreeSet::new());
        while let Some(number) = next
            && activate.len() + claim.len() < wanted
        {
            let block = self.inventory.block(number);
            let cidr = block.map_or_else(|| self.unclaimed_cidr(number), Block::cidr);
            if !met.insert(cidr.first()) || met.len() > limits::BLOCKS_PER_CLAIM_MAX * 3 {
                break;
            }
            let behind = activate.len() + claim.len() >= self.demand.batch;
            match block {
                Some(block) if behind || block.is_in_transfer() => {}
                Some(_) => activate.push(cidr),
                None if behind => claim.push((cidr, BlockStatus::Spare)),
                None => claim.push((cidr, BlockStatus::Active)),
            }
            // Walk on from the end of the cidr, or of its range where the cidr is longer.
            let end = allowed.find(number).map(|range| cidr.last().min(range.last()));
            next = end.and_then(|end| self.next_to_lease(allowed, end));
        }
        if activate.is_empty() && claim.is_empty() {
            return;
        }
        self.demand.leasing = Some(Leasing { activate: activate.clone(), claim: claim.clone() });
        self.effects.push_back(Effect::Lease { activate, claim });
    }

    /// Returns the next address to lease behind another one, in order.
    fn next_to_lease(&self, allowed: &Ranges, after: Address) -> Option<Address> {
        let strict = Search { shared: None, ..self.search() };
        strict.next_inactive(allowed, Some(after)).map(|(number, _)| number)
    }

    /// Returns the largest cidr of at most the usual size around an address that is in no block.
    fn unclaimed_cidr(&self, number: Address) -> Cidr {
        let sizes = self.block_size.and_smaller();
        sizes
            .map(|size| Cidr::containing(number, size))
            .find(|cidr| !self.inventory.is_claimed(cidr.range()))
            .unwrap_or(Cidr::one(number))
    }

    /// Handles the end of an [`Effect::Lease`].
    pub fn leased(&mut self, now: BootTime, leased: Leased) {
        let Some(Leasing { activate, claim }) = self.demand.leasing.take() else { return };
        self.demand.paused = None;
        match leased {
            Leased::Done => {
                for cidr in activate {
                    if self.inventory.get(cidr).is_some() {
                        self.set_state(cidr, BlockState::Active);
                    } else {
                        self.insert(cidr, BlockState::Active);
                    }
                }
                for (cidr, status) in claim {
                    self.remove_dead_spares(cidr);
                    let spare = status == BlockStatus::Spare;
                    self.insert(cidr, if spare { BlockState::Spare } else { BlockState::Active });
                }
            }
            Leased::Conflict { others, gone } => {
                for cidr in gone {
                    let block = self.inventory.get(cidr);
                    if block.is_some_and(|block| block.state() == BlockState::Spare) {
                        self.remove(cidr);
                    }
                }
                self.learn_others(&others);
            }
            Leased::Failed(cause) => self.demand.pause(now, cause),
        }
        self.serve(now);
        self.give_back_left_behind();
        self.answer_questions(now);
    }

    /// Returns the time of the next look for idle blocks; never, when there is nothing but the one
    /// block that is always kept.
    pub(super) fn reclaim_due(&self) -> Option<BootTime> {
        let Stats { spare, active, returning, lost, .. } = self.stats();
        let kept = if self.cluster.is_draining() { 0 } else { 1 };
        let any = spare + returning + lost > 0 || active > kept;
        any.then_some(self.demand.next_reclaim)
    }

    /// Gives idle blocks back if it is time to look for them.
    pub(super) fn reclaim_idle_if_due(&mut self, now: BootTime) {
        if self.demand.next_reclaim <= now {
            let draining = self.cluster.is_draining();
            let period = if draining { limits::DRAIN_RECLAIM_IDLE } else { limits::RECLAIM_IDLE };
            self.demand.next_reclaim = now + period;
            self.reclaim(false);
        }
    }

    /// Gives back the blocks that were free and untouched since the last look, except for those
    /// that are likely to be needed: alone, the blocks in which the cursors stand and those after
    /// them; else as much as was in use at once since the last look. One always stays, but on a
    /// node that is drained, and in a range set that nobody uses (`unused`).
    pub(super) fn reclaim(&mut self, unused: bool) {
        // Before the node has joined, nothing of the journal is sure (rule 25).
        if !self.cluster.may_give_back() || self.demand.is_giving_back() {
            return;
        }
        let back = self.idle_blocks(unused || self.cluster.is_draining());
        self.demand.low_free = self.inventory.free();
        self.inventory.forget_touched();
        self.give_back(back);
    }

    /// Gives empty blocks back as fast as they are leased. A node alone walks through the whole
    /// range, so it leaves empty blocks behind at any pace; one that shares the pool uses its own
    /// addresses first.
    fn give_back_left_behind(&mut self) {
        let hoards = self.cluster.is_alone() && self.inventory.empty() > limits::EMPTY_BLOCKS_MAX;
        if hoards && self.cluster.may_give_back() && !self.demand.is_giving_back() {
            self.give_back(self.left_behind());
        }
    }

    /// Returns the empty blocks to which the walk comes last.
    fn left_behind(&self) -> Vec<(Cidr, BlockState)> {
        let ahead = |cidr: Cidr| {
            let first = cidr.first().get();
            self.cursors.values().map(|cursor| first.wrapping_sub(cursor.get())).min()
        };
        let empty = self.inventory.blocks().filter(|block| {
            let cidr = block.cidr();
            let wanted = self.is_next(cidr) || self.demand.activates(cidr);
            block.state() == BlockState::Active && block.is_empty() && !wanted
        });
        let mut empty: Vec<Cidr> = empty.map(Block::cidr).collect();
        empty.sort_unstable_by_key(|&cidr| Reverse(ahead(cidr)));
        empty.truncate(limits::BLOCKS_PER_CLAIM_MAX);
        empty.into_iter().map(|cidr| (cidr, BlockState::Active)).collect()
    }

    /// Returns whether a cursor stands in these addresses, or right before them.
    fn is_next(&self, cidr: Cidr) -> bool {
        let size = self.block_size.addresses();
        let next = |&cursor: &Address| cursor <= cidr.last() && cidr.first() <= cursor.plus(size);
        self.cursors.values().any(next)
    }

    /// Gives back the lost blocks of which every address is free.
    pub(super) fn give_back_lost(&mut self) {
        if !self.cluster.may_give_back() || self.demand.is_giving_back() {
            return;
        }
        let is_lost = |block: &&Block| block.state() == BlockState::Lost && block.is_empty();
        let lost = self.inventory.blocks().filter(is_lost).take(limits::BLOCKS_PER_CLAIM_MAX);
        self.give_back(lost.map(|block| (block.cidr(), BlockState::Lost)).collect());
    }

    fn give_back(&mut self, back: Vec<(Cidr, BlockState)>) {
        if !back.is_empty() {
            back.iter().for_each(|(cidr, _)| self.set_state(*cidr, BlockState::Returning));
            self.demand.giving_back.clone_from(&back);
            let spare = |(cidr, state)| (cidr, state == BlockState::Spare);
            self.effects.push_back(Effect::GiveBack(back.into_iter().map(spare).collect()));
        }
    }

    /// Returns the blocks to give back, each with its state. `all`: none is needed any longer.
    fn idle_blocks(&self, all: bool) -> Vec<(Cidr, BlockState)> {
        let enough = self.enough();
        let (mut left, mut blocks) = (self.demand.low_free, self.stats().active);
        let alone = self.cluster.is_alone();
        let mut spared = usize::from(alone && self.cursors.is_empty());
        let mut back = Vec::new();
        for block in self.inventory.blocks() {
            let (cidr, free, state) = (block.cidr(), u64::from(block.free()), block.state());
            let idle = block.is_empty() && (all || !block.is_touched());
            if !idle || back.len() >= limits::BLOCKS_PER_CLAIM_MAX {
                continue;
            }
            let wanted = match (all, state) {
                (_, BlockState::Returning) => true,
                (_, BlockState::Lost) | (true, _) | (false, BlockState::Spare) => false,
                _ if alone => self.is_next(cidr),
                _ => blocks <= 1 || left < enough + free,
            };
            if wanted {
                continue;
            }
            if spared > 0 && !all && state == BlockState::Active {
                spared -= 1;
                continue;
            }
            if state == BlockState::Active {
                (left, blocks) = (left.saturating_sub(free), blocks - 1);
            }
            back.push((cidr, state));
        }
        back.retain(|(cidr, _)| !self.demand.activates(*cidr));
        back
    }

    /// Handles the end of an [`Effect::GiveBack`]: `done` tells whether the blocks are free now.
    pub fn given_back(&mut self, now: BootTime, done: bool) {
        for (cidr, before) in std::mem::take(&mut self.demand.giving_back) {
            let block = self.inventory.get(cidr);
            if block.is_none_or(|block| block.state() != BlockState::Returning) {
                continue; // lost meanwhile
            }
            if done {
                self.remove(cidr);
            } else {
                self.set_state(cidr, before);
                // The journal has let go of it.
                match before {
                    BlockState::Active => self.effects.push_back(Effect::JournalBlock(cidr)),
                    BlockState::Lost => self.effects.push_back(Effect::JournalLost(cidr)),
                    BlockState::Spare | BlockState::Returning => {}
                }
            }
        }
        if done {
            self.idle.look_at(now);
        }
        self.serve(now);
        if done {
            self.give_back_lost();
            self.give_back_left_behind();
        }
        self.answer_questions(now);
    }
}
