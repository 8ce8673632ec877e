//! When to lease blocks, how many, and when to give them back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Attempt, Effect, RangeSet};
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::block::{Block, BlockState};
use crate::core::range::Ranges;
use crate::core::range_set::types::AssignError;
use crate::core::value::BlockStatus;
use crate::limits;

/// How many blocks to lease at once.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    pub(super) batch: usize,
    pub(super) claimed_at: Option<Millis>,
    /// Until when no lease is tried, and why.
    pub(super) failed: Option<(Millis, Arc<str>)>,
}

impl RangeSet {
    /// Why nothing can be leased now, if so.
    pub(super) fn unable(&self, now: Millis) -> Option<Arc<str>> {
        let failed = self.demand.failed.as_ref().filter(|(until, _)| now < *until);
        self.stalled.clone().or_else(|| failed.map(|(_, cause)| cause.clone()))
    }

    /// A call must have an active block around this address, or fail with the cause.
    pub(super) fn need(&mut self, now: Millis, number: u128, allowed: &Ranges) -> Attempt {
        if let Some(cause) = self.unable(now) {
            return Attempt::Done(Err(AssignError::NoBlock(cause)));
        }
        self.lease(now, number, allowed);
        Attempt::Wait
    }

    /// Leases the next blocks before they are needed: while the last half of what was leased
    /// last, or the warm addresses, are left.
    pub(super) fn look_ahead(&mut self, now: Millis, allowed: &Ranges, cursor: u128) {
        if self.leasing.is_some() || self.draining || self.unable(now).is_some() {
            return;
        }
        let warm = u128::from(self.settings.min_free).min(1 << self.block_log2);
        let enough = ((self.demand.batch as u128) << self.block_log2 >> 1).max(warm);
        if !self.alone && u128::from(self.stats.free) > enough {
            return;
        }
        if let Some((number, before)) = self.index().next_inactive(allowed, Some(cursor))
            && (!self.alone || before <= enough)
        {
            self.lease(now, number, allowed);
        }
    }

    /// Leases the block around an address, and more of them when the last lease was not long ago:
    /// spares become active, and in a burst as many new spares are claimed ahead.
    fn lease(&mut self, now: Millis, number: u128, allowed: &Ranges) {
        if self.leasing.is_some() {
            return;
        }
        let demand = &mut self.demand;
        let burst = demand.claimed_at.is_some_and(|at| now - at < limits::BURST_MS);
        demand.batch = if burst { demand.batch * 2 } else { demand.batch / 2 };
        demand.batch = demand.batch.clamp(1, limits::BLOCKS_PER_CLAIM_MAX);
        demand.claimed_at = Some(now);
        let wanted = if burst { demand.batch * 2 } else { 1 };
        let (mut activate, mut claim) = (Vec::new(), Vec::new());
        let (mut next, mut met) = (Some(number), BTreeSet::new());
        while let Some(number) = next
            && activate.len() + claim.len() < wanted
        {
            let block = self.block(number);
            let cidr = block.map_or_else(|| self.unclaimed_cidr(number), Block::cidr);
            if !met.insert(cidr.start) || met.len() > limits::BLOCKS_PER_CLAIM_MAX * 3 {
                break;
            }
            let behind = activate.len() + claim.len() >= self.demand.batch;
            match block {
                Some(block) if behind || block.in_transfer => {}
                Some(_) => activate.push(cidr),
                None if behind => claim.push((cidr, BlockStatus::Spare)),
                None => claim.push((cidr, BlockStatus::Active)),
            }
            // Walk on from the end of the run, or of its range where the run is longer.
            let end = allowed.find(number).map(|range| cidr.end().min(range.end));
            next = end.and_then(|end| self.next_to_lease(allowed, end));
        }
        if activate.is_empty() && claim.is_empty() {
            return;
        }
        self.leasing = Some((activate.clone(), claim.clone()));
        self.effects.push_back(Effect::Lease { activate, claim });
    }

    /// What to lease behind an address, in order.
    fn next_to_lease(&self, allowed: &Ranges, after: u128) -> Option<u128> {
        let index = self.index();
        let strict = super::Index { shared: None, ..index };
        strict.next_inactive(allowed, Some(after)).map(|(number, _)| number)
    }

    /// The largest run of at most the usual size around an address that is in no block.
    fn unclaimed_cidr(&self, number: u128) -> Cidr {
        let sizes = (0..=self.block_log2).rev();
        sizes
            .map(|log2| Cidr::containing(number, log2))
            .find(|cidr| !self.claimed.overlaps(cidr.start, cidr.end()))
            .unwrap_or(Cidr::containing(number, 0))
    }

    /// Gives back the blocks that were free and untouched since the last sweep, except for what
    /// is kept warm: alone, the blocks in which the cursors stand and those after them; else as
    /// much as was in use at once since the last sweep. One always stays, but on a node that is
    /// drained.
    pub(super) fn reclaim_idle(&mut self) {
        if !self.joined || !self.giving_back.is_empty() || self.stalled.is_some() {
            return;
        }
        let warm = u64::from(self.settings.min_free).min(1 << self.block_log2);
        let enough = warm.max((self.demand.batch as u64) << self.block_log2 >> 1);
        let (mut left, mut blocks) = (self.low_free, self.stats.active);
        self.low_free = self.stats.free;
        let (cursors, size) = (&self.cursors, 1 << self.block_log2);
        let mut spared = usize::from(self.alone && cursors.is_empty());
        let mut back = Vec::new();
        for block in self.held.values_mut() {
            let touched = std::mem::take(&mut block.touched) && !self.draining;
            let (cidr, free) = (block.cidr(), u64::from(block.free()));
            let free_to_go = block.is_empty() && !touched && !block.in_transfer;
            let state = block.state;
            if !free_to_go || back.len() >= limits::BLOCKS_PER_CLAIM_MAX {
                continue;
            }
            let ahead =
                |&cursor: &u128| cursor <= cidr.end() && cidr.start <= cursor.saturating_add(size);
            let wanted = match (self.draining, state) {
                (_, BlockState::Returning) => true,
                (_, BlockState::Lost) | (true, _) | (false, BlockState::Spare) => false,
                _ if self.alone => cursors.values().any(ahead),
                _ => blocks <= 1 || left < enough + free,
            };
            if wanted {
                continue;
            }
            if spared > 0 && state == BlockState::Active {
                spared -= 1;
                continue;
            }
            if state == BlockState::Active {
                (left, blocks) = (left.saturating_sub(free), blocks - 1);
            }
            back.push((cidr, state));
        }
        let leasing = self.leasing.as_ref().map(|(activate, _)| activate);
        back.retain(|(cidr, _)| leasing.is_none_or(|activate| !activate.contains(cidr)));
        if !back.is_empty() {
            back.iter().for_each(|(cidr, _)| self.turn(cidr.start, BlockState::Returning));
            self.giving_back.clone_from(&back);
            let spare = |(cidr, state)| (cidr, state == BlockState::Spare);
            self.effects.push_back(Effect::GiveBack(back.into_iter().map(spare).collect()));
        }
    }
}
