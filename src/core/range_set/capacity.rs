//! The numbers of addresses by state: every address of the blocks in hand is in exactly one of the
//! figures.

use super::RangeSet;
use crate::core::address::AddressRange;
use crate::core::block::BlockState;
use crate::core::inventory::AddressState;
use crate::core::offer::Offer;

/// The addresses of the blocks in hand, each counted once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// They are held.
    pub allocated: u64,
    /// They were released a short time ago.
    pub cooling: u64,
    /// They are on their way to another node.
    pub leaving: u64,
    /// They can be handed out now, to every pod without a stage.
    pub free: u64,
    /// They can be handed out now, to pods of one stage only.
    pub kept: u64,
    /// They can be handed out as soon as their block, a spare, is active.
    pub spare: u64,
    /// They are free in a block on its way back, or in a lost one.
    pub withheld: u64,
    /// Nobody can get them: gateways, and what is outside of the ranges.
    pub reserved: u64,
}

impl Capacity {
    /// Returns the number of all addresses of the blocks in hand.
    pub fn total(&self) -> u64 {
        let can_go_out = [self.allocated, self.cooling, self.leaving, self.free, self.kept];
        can_go_out.into_iter().sum::<u64>() + self.spare + self.withheld + self.reserved
    }
}

impl RangeSet {
    /// Returns the offer of the ranges of the last calls; before the first call, that of these
    /// ranges, which are all that was ever routed to this set.
    pub fn offer(&self, ranges: &[AddressRange]) -> Offer {
        if self.allowed.is_empty() {
            return Offer::of_ranges(ranges);
        }
        Offer::of(self.allowed.values().map(|allowed| &**allowed))
    }

    /// Returns the current figures. The work grows with the blocks that reach beyond the ranges,
    /// and with the addresses that are kept for a stage.
    pub fn capacity(&self, offer: &Offer) -> Capacity {
        let stats = self.inventory.stats();
        let free_in = |state| self.inventory.free_in(state);
        let mut figures = Capacity {
            allocated: stats.allocated,
            cooling: stats.cooling,
            leaving: stats.in_transfer,
            free: free_in(BlockState::Active),
            spare: free_in(BlockState::Spare),
            withheld: free_in(BlockState::Returning) + free_in(BlockState::Lost),
            ..Capacity::default()
        };
        for gap in offer.gaps() {
            for block in self.inventory.blocks_in(gap) {
                let free = u64::from(block.free_in(gap));
                *figures.of(block.state()) -= free;
                figures.reserved += free;
            }
        }
        for &number in offer.listed() {
            let block = self.inventory.block(number);
            let is_free = |state| state == AddressState::Free;
            if block.is_some_and(|block| {
                block.state() == BlockState::Active && is_free(block.state_of(number))
            }) {
                figures.free -= 1;
                figures.kept += 1;
            }
        }
        figures
    }
}

impl Capacity {
    /// Returns the figure of the free addresses of blocks in that state.
    fn of(&mut self, state: BlockState) -> &mut u64 {
        match state {
            BlockState::Active => &mut self.free,
            BlockState::Spare => &mut self.spare,
            BlockState::Returning | BlockState::Lost => &mut self.withheld,
        }
    }
}
