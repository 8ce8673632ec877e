//! The books of a range set: every change to its blocks keeps indexes and figures in step.

use super::RangeSet;
use super::types::Stats;
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::block::{Block, BlockState};

impl RangeSet {
    pub(super) fn block(&self, number: u128) -> Option<&Block> {
        let (_, block) = self.held.range(..=number).next_back()?;
        block.cidr().contains(number).then_some(block)
    }

    /// The held block of an address that is known to be in one: what is assigned or cooling
    /// always is.
    pub(super) fn block_mut(&mut self, number: u128) -> &mut Block {
        let (_, block) = (self.held.range_mut(..=number).next_back())
            .unwrap_or_else(|| unreachable!("an address in use is in a held block"));
        block
    }

    pub(super) fn hold(&mut self, cidr: Cidr, state: BlockState) {
        self.put_in(Block::new(cidr, state));
    }

    /// Adds a block to the books.
    pub(super) fn put_in(&mut self, block: Block) {
        let cidr = block.cidr();
        match block.state {
            BlockState::Active if block.free() > 0 => drop(self.open.insert(cidr.start)),
            BlockState::Spare => drop(self.spares.insert(cidr.start)),
            _ => {}
        }
        self.claimed.insert(cidr.start, cidr.end());
        self.count(&block, 1);
        self.held.insert(cidr.start, block);
    }

    /// Takes a block out of the books; its addresses stay known as claimed.
    pub(super) fn take_out(&mut self, start: u128) -> Option<Block> {
        let block = self.held.remove(&start)?;
        self.open.remove(&start);
        self.spares.remove(&start);
        self.count(&block, -1);
        Some(block)
    }

    /// Changes the state of a block.
    pub(super) fn turn(&mut self, start: u128, state: BlockState) {
        if let Some(mut block) = self.take_out(start) {
            block.state = state;
            block.touched = true;
            self.put_in(block);
        }
    }

    /// Adds a block's figures, except for those of its taken addresses.
    fn count(&mut self, block: &Block, sign: i64) {
        let stats = &mut self.stats;
        let state = match block.state {
            BlockState::Spare => &mut stats.spare,
            BlockState::Active => &mut stats.active,
            BlockState::Returning => &mut stats.draining,
            BlockState::Lost => &mut stats.lost,
        };
        *state = state.saturating_add_signed(sign);
        if block.state == BlockState::Active {
            stats.free = stats.free.saturating_add_signed(sign * i64::from(block.free()));
        }
    }

    pub(super) fn take(&mut self, number: u128) {
        let block = self.block_mut(number);
        let active = block.state == BlockState::Active;
        block.take(number);
        if block.free() == 0 {
            let start = block.cidr().start;
            self.open.remove(&start);
        }
        self.stats.free -= u64::from(active);
        self.low_free = self.low_free.min(self.stats.free);
        self.stats.allocated += 1;
    }

    /// Makes an address available that was assigned or cooling.
    pub(super) fn free(&mut self, number: u128) {
        let block = self.block_mut(number);
        block.put_back(number);
        if block.state == BlockState::Active {
            let start = block.cidr().start;
            self.open.insert(start);
            self.stats.free += 1;
        }
    }

    pub(super) fn cool(&mut self, released: Millis, number: u128) {
        self.block_mut(number).set_cooling(number, true);
        self.cooling.push(released, number);
        self.stats.allocated -= 1;
        self.stats.cooling += 1;
    }

    /// Assigns an address before it has cooled off.
    pub(super) fn take_cooling(&mut self, number: u128, set_index: u16) {
        self.block_mut(number).set_cooling(number, false);
        self.cooling.take(number);
        self.cursors.insert(set_index, number);
        self.stats.cooling -= 1;
        self.stats.allocated += 1;
    }

    /// Checks that the indexes and figures are what the blocks say. For tests and simulators:
    /// linear in the number of blocks.
    pub fn check_invariants(&self) {
        let mut stats = Stats { leaving: self.stats.leaving, ..Stats::default() };
        let mut taken = 0;
        for (&start, block) in &self.held {
            let active = block.state == BlockState::Active;
            assert_eq!(start, block.cidr().start);
            assert_eq!(self.open.contains(&start), active && block.free() > 0, "{block:?}");
            assert_eq!(self.spares.contains(&start), block.state == BlockState::Spare);
            let gap = self.claimed.first_gap(start);
            assert!(gap.is_none_or(|gap| gap > block.cidr().end()), "{block:?} is not claimed");
            stats.cooling += u64::from(block.cooling());
            taken += u64::from(block.size() - block.free());
            stats.free += if active { u64::from(block.free()) } else { 0 };
            stats.spare += u64::from(block.state == BlockState::Spare);
            stats.active += u64::from(active);
            stats.draining += u64::from(block.state == BlockState::Returning);
            stats.lost += u64::from(block.state == BlockState::Lost);
        }
        stats.allocated = taken - stats.cooling - stats.leaving;
        assert_eq!(stats, self.stats);
        assert_eq!(stats.cooling, self.cooling.len() as u64);
        assert!(self.open.iter().chain(&self.spares).all(|start| self.held.contains_key(start)));
        let cidrs: Vec<Cidr> = self.held.values().map(Block::cidr).collect();
        assert!(cidrs.windows(2).all(|pair| pair[0].end() < pair[1].start), "blocks overlap");
    }
}
