//! The books of a range set: every change to its blocks keeps indexes and figures in step.

use super::RangeSet;
use super::types::Stats;
use crate::core::Millis;
use crate::core::address::Run;
use crate::core::block::{Block, BlockState};

impl RangeSet {
    pub(super) fn block(&self, number: u128) -> Option<&Block> {
        let (_, block) = self.held.range(..=number).next_back()?;
        block.run().contains(number).then_some(block)
    }

    /// The held block of an address that is known to be in one: what is assigned or cooling
    /// always is.
    pub(super) fn block_mut(&mut self, number: u128) -> &mut Block {
        let (_, block) = (self.held.range_mut(..=number).next_back())
            .unwrap_or_else(|| unreachable!("an address in use is in a held block"));
        block
    }

    pub(super) fn hold(&mut self, run: Run, revision: u64) {
        self.held.insert(run.start, Block::new(run, revision));
        self.open.insert(run.start);
        self.claimed.insert(run.start, run.end());
        self.stats.free += 1 << run.size_log2;
        self.stats.active += 1;
    }

    pub(super) fn take(&mut self, number: u128) {
        let block = self.block_mut(number);
        block.take(number);
        if block.free() == 0 {
            let start = block.run().start;
            self.open.remove(&start);
        }
        self.stats.free -= 1;
        self.stats.allocated += 1;
    }

    /// Makes an address available that was assigned or cooling.
    pub(super) fn free(&mut self, number: u128) {
        let block = self.block_mut(number);
        block.put_back(number);
        if block.free() == 1 {
            let start = block.run().start;
            self.open.insert(start);
        }
        self.stats.free += 1;
    }

    pub(super) fn cool(&mut self, released: Millis, number: u128) {
        self.block_mut(number).set_cooling(number, true);
        self.cooling.push(released, number);
        self.stats.allocated -= 1;
        self.stats.cooling += 1;
    }

    /// Assigns an address before it has cooled off.
    pub(super) fn take_cooling(&mut self, number: u128, slot: u16) {
        self.block_mut(number).set_cooling(number, false);
        self.cooling.take(number);
        self.cursors.insert(slot, number);
        self.stats.cooling -= 1;
        self.stats.allocated += 1;
    }

    /// Checks that the indexes and figures are what the blocks say. For tests and simulators:
    /// linear in the number of blocks.
    pub fn check_invariants(&self) {
        let mut stats = Stats::default();
        for (&start, block) in &self.held {
            let active = block.state == BlockState::Active;
            assert_eq!(start, block.run().start);
            assert_eq!(self.open.contains(&start), active && block.free() > 0, "{block:?}");
            assert!(self.claimed.overlaps(start, block.run().end()));
            let taken = u64::from(block.size() - block.free());
            stats.cooling += u64::from(block.cooling());
            stats.allocated += taken - u64::from(block.cooling());
            stats.free += if active { u64::from(block.free()) } else { 0 };
            stats.active += u64::from(active);
            stats.draining += u64::from(!active);
        }
        assert_eq!(stats, self.stats);
        assert_eq!(stats.cooling, self.cooling.len() as u64);
        assert!(self.open.iter().all(|start| self.held.contains_key(start)));
        let runs: Vec<Run> = self.held.values().map(Block::run).collect();
        assert!(runs.windows(2).all(|pair| pair[0].end() < pair[1].start), "blocks overlap");
    }
}
