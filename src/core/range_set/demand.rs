//! When to claim blocks, how many, and when to give them back.

use std::sync::Arc;

use super::{Attempt, Effect, RangeSet};
use crate::core::Millis;
use crate::core::address::Run;
use crate::core::block::BlockState;
use crate::core::range::Ranges;
use crate::core::range_set::types::AssignError;
use crate::limits;

/// How many blocks to claim at once.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    pub(super) batch: usize,
    pub(super) claimed_at: Option<Millis>,
    /// Until when no claim is tried, and why.
    pub(super) failed: Option<(Millis, Arc<str>)>,
}

impl RangeSet {
    /// A call must have a block around this address, or fail with the cause of the last failure.
    pub(super) fn need(&mut self, now: Millis, number: u128, view: &Ranges) -> Attempt {
        if let Some((until, cause)) = &self.demand.failed
            && now < *until
        {
            return Attempt::Done(Err(AssignError::NoBlock(cause.clone())));
        }
        self.claim(now, number, view);
        Attempt::Wait
    }

    /// Claims the next blocks before they are needed.
    pub(super) fn look_ahead(&mut self, now: Millis, view: &Ranges, cursor: u128) {
        let failed = self.demand.failed.as_ref().is_some_and(|(until, _)| now < *until);
        if self.claiming || failed {
            return;
        }
        let enough = (self.demand.batch as u128) << self.block_log2 >> 1;
        if let Some((number, before)) = self.index().next_unclaimed(view, Some(cursor))
            && before <= enough
        {
            self.claim(now, number, view);
        }
    }

    /// Claims the block around an address, and more of them when the last claim was not long ago.
    fn claim(&mut self, now: Millis, number: u128, view: &Ranges) {
        if self.claiming {
            return;
        }
        let demand = &mut self.demand;
        let burst = demand.claimed_at.is_some_and(|at| now - at < limits::BURST_MS);
        demand.batch = if burst { demand.batch * 2 } else { demand.batch / 2 };
        demand.batch = demand.batch.clamp(1, limits::BLOCKS_PER_CLAIM_MAX);
        demand.claimed_at = Some(now);
        self.claiming = true;
        let mut runs = vec![self.unclaimed_run(number)];
        let mut last = number;
        while runs.len() < self.demand.batch {
            // Walk on from the end of the last run, or of its range where the run is longer.
            let Some(range) = view.find(last) else { break };
            let end = runs[runs.len() - 1].end().min(range.end);
            let Some((next, _)) = self.index().next_unclaimed(view, Some(end)) else { break };
            if runs.iter().any(|run| run.contains(next)) {
                break;
            }
            runs.push(self.unclaimed_run(next));
            last = next;
        }
        self.effects.push_back(Effect::Claim(runs));
    }

    /// The largest run of at most the usual size around an address that is in no block.
    fn unclaimed_run(&self, number: u128) -> Run {
        let sizes = (0..=self.block_log2).rev();
        sizes
            .map(|log2| Run::around(number, log2))
            .find(|run| !self.claimed.overlaps(run.start, run.end()))
            .unwrap_or(Run::around(number, 0))
    }

    /// Gives back the blocks that were free and untouched since the last sweep, but for those in
    /// which the cursors stand and those after them; without cursors, but for one.
    pub(super) fn sweep(&mut self) {
        let (cursors, size) = (&self.cursors, 1 << self.block_log2);
        let mut spared = usize::from(cursors.is_empty());
        let mut back = Vec::new();
        for block in self.held.values_mut() {
            let idle = block.is_empty() && !std::mem::take(&mut block.touched);
            let run = block.run();
            let ahead =
                |&cursor: &u128| cursor <= run.end() && run.start <= cursor.saturating_add(size);
            let wanted = cursors.values().any(ahead);
            if !idle || wanted || self.giving_back || back.len() >= limits::BLOCKS_PER_CLAIM_MAX {
                continue;
            }
            if spared > 0 {
                spared -= 1;
                continue;
            }
            block.state = BlockState::Draining;
            back.push((block.run(), block.revision));
        }
        if back.is_empty() {
            return;
        }
        for (run, _) in &back {
            self.open.remove(&run.start);
            self.stats.free -= 1 << run.size_log2;
        }
        self.stats.active -= back.len() as u64;
        self.stats.draining += back.len() as u64;
        self.giving_back = true;
        self.effects.push_back(Effect::GiveBack(back));
    }
}
