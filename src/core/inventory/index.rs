//! The blocks with a free address, the spares, and the number of addresses in each state. All of
//! it follows from the blocks, and is kept so that nobody needs to walk through them.

use std::collections::BTreeSet;

use super::block::{Block, BlockState};
use super::moves::AddressState;
use crate::core::address::Address;

/// The figures of a range set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Addresses that are assigned.
    pub allocated: u64,
    /// Released addresses in their cooldown.
    pub cooling: u64,
    /// Free addresses in active blocks. Network addresses and gateways, which nobody gets, are
    /// among them.
    pub free: u64,
    /// Addresses on their way to another node.
    pub in_transfer: u64,
    /// Spare blocks.
    pub spare: u64,
    /// Active blocks.
    pub active: u64,
    /// Blocks on their way back.
    pub returning: u64,
    /// Lost blocks.
    pub lost: u64,
}

/// The indexes and counts that follow from the blocks in hand.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct BlockIndex {
    /// The active blocks with a free address, by their first address.
    pub(super) open: BTreeSet<Address>,
    /// The spares, by their first address.
    pub(super) spares: BTreeSet<Address>,
    /// The number of active blocks with nothing in use.
    pub(super) empty: u64,
    /// The number of blocks in each state.
    blocks: [u64; BlockState::COUNT],
    /// The number of addresses in each state, of the blocks in each state.
    addresses: [[u64; AddressState::COUNT]; BlockState::COUNT],
}

impl BlockIndex {
    /// Adds a block that comes in hand, or that has this state from now on.
    pub(super) fn add(&mut self, block: &Block) {
        let start = block.cidr().first();
        match block.state() {
            BlockState::Active if block.free() > 0 => drop(self.open.insert(start)),
            BlockState::Spare => drop(self.spares.insert(start)),
            _ => {}
        }
        self.empty += u64::from(block.state() == BlockState::Active && block.is_empty());
        self.blocks[block.state() as usize] += 1;
        let addresses = self.addresses[block.state() as usize].iter_mut();
        addresses.zip(block.counts()).for_each(|(all, of_block)| *all += u64::from(*of_block));
    }

    /// Removes a block that is no longer in hand, or that will have another state.
    pub(super) fn remove(&mut self, block: &Block) {
        let start = block.cidr().first();
        self.open.remove(&start);
        self.spares.remove(&start);
        self.empty -= u64::from(block.state() == BlockState::Active && block.is_empty());
        self.blocks[block.state() as usize] -= 1;
        let addresses = self.addresses[block.state() as usize].iter_mut();
        addresses.zip(block.counts()).for_each(|(all, of_block)| *all -= u64::from(*of_block));
    }

    /// Counts one address of the block under the state that it has now.
    #[inline]
    pub(super) fn change(&mut self, block: &Block, from: AddressState, to: AddressState) {
        let addresses = &mut self.addresses[block.state() as usize];
        addresses[from as usize] -= 1;
        addresses[to as usize] += 1;
        if block.state() == BlockState::Active {
            if from == AddressState::Free && block.free() + 1 == block.addresses() {
                self.empty -= 1;
            } else if to == AddressState::Free && block.is_empty() {
                self.empty += 1;
            }
            if from == AddressState::Free && block.free() == 0 {
                self.open.remove(&block.cidr().first());
            } else if to == AddressState::Free && block.free() == 1 {
                self.open.insert(block.cidr().first());
            }
        }
    }

    /// Returns the number of free addresses in active blocks.
    pub(super) fn free(&self) -> u64 {
        self.free_in(BlockState::Active)
    }

    /// Returns the number of free addresses in blocks of that state.
    pub(super) fn free_in(&self, state: BlockState) -> u64 {
        self.addresses[state as usize][AddressState::Free as usize]
    }

    pub(super) fn stats(&self) -> Stats {
        let blocks = |state: BlockState| self.blocks[state as usize];
        let addresses =
            |state: AddressState| self.addresses.iter().map(|of| of[state as usize]).sum();
        Stats {
            allocated: addresses(AddressState::Allocated),
            cooling: addresses(AddressState::Cooling),
            free: self.free(),
            in_transfer: addresses(AddressState::InTransfer),
            spare: blocks(BlockState::Spare),
            active: blocks(BlockState::Active),
            returning: blocks(BlockState::Returning),
            lost: blocks(BlockState::Lost),
        }
    }
}
