//! The blocks that this node has in hand, and the state of each of their addresses.
//!
//! [`Inventory::apply`] is the only function that changes the state of an address, and `moves.rs`
//! has the table of the changes that exist. Blocks come, go, change their state and are divided in
//! this file only. Every index and every count follows from these few functions, so that a new
//! state of an address is a new [`AddressState`] and its rows in the table.
//!
//! A change that is refused changes nothing, and the caller learns the reason as a [`MoveError`]
//! or a [`BlockError`].

pub mod block;
mod index;
mod moves;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::address::{Address, AddressRange, BlockSize, Cidr};
use super::cooling::Cooling;
use super::interval::Intervals;
use super::time::BootTime;
use block::{Block, BlockState};
use index::BlockIndex;

pub use index::Stats;
pub use moves::{AddressState, Move, MoveError};

/// A change of the blocks in hand that was refused; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// The block overlaps one in hand.
    Overlaps(Cidr),
    /// The block is larger than [`BlockSize::MAX`].
    TooLarge(Cidr),
    /// Exactly this block is not in hand.
    NotInHand(Cidr),
    /// Addresses of the block are allocated.
    InUse(Cidr),
    /// The parts of the block overlap, reach beyond it, or leave addresses over that are not on
    /// their way to another node.
    Parts(Cidr),
}

/// The blocks in hand. See the module's documentation.
#[derive(Clone, Default, Debug)]
pub struct Inventory {
    /// The blocks, by their first address. They do not overlap.
    blocks: BTreeMap<Address, Block>,
    index: BlockIndex,
    /// Every address that is known to be in somebody's block, this node's or another's.
    claimed: Intervals,
    /// The addresses that cool, oldest first.
    cooling: Cooling,
}

impl Inventory {
    /// Returns the block around an address.
    pub fn block(&self, number: Address) -> Option<&Block> {
        let (_, block) = self.blocks.range(..=number).next_back()?;
        block.cidr().contains(number).then_some(block)
    }

    /// Returns the block that has exactly these addresses.
    pub fn get(&self, cidr: Cidr) -> Option<&Block> {
        self.blocks.get(&cidr.first()).filter(|block| block.cidr() == cidr)
    }

    /// Returns the blocks, in order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.values()
    }

    /// Returns the blocks with an address in the range, in order.
    pub fn blocks_in(&self, range: AddressRange) -> impl Iterator<Item = &Block> {
        let from = self.block(range.first()).map_or(range.first(), |block| block.cidr().first());
        self.blocks.range(from..=range.last()).map(|(_, block)| block)
    }

    /// Returns the number of active blocks with nothing in use.
    pub fn empty(&self) -> u64 {
        self.index.empty
    }

    /// Returns the blocks that begin at this address or behind it, in order.
    pub fn blocks_from(&self, first: Address) -> impl Iterator<Item = &Block> {
        self.blocks.range(first..).map(|(_, block)| block)
    }

    /// Returns whether a block in hand has an address in common with these.
    pub fn overlaps(&self, cidr: Cidr) -> bool {
        self.blocks_in(cidr.range()).next().is_some()
    }

    /// Returns the spares, in order.
    pub fn spares(&self) -> impl Iterator<Item = Cidr> {
        self.index.spares.iter().filter_map(|start| self.blocks.get(start)).map(Block::cidr)
    }

    /// Returns the state of an address in a block in hand.
    pub fn state_of(&self, number: Address) -> Option<AddressState> {
        Some(self.block(number)?.state_of(number))
    }

    /// Returns the number of blocks and of addresses in each state.
    pub fn stats(&self) -> Stats {
        self.index.stats()
    }

    /// Returns the number of free addresses in active blocks.
    pub fn free(&self) -> u64 {
        self.index.free()
    }

    /// Returns the number of free addresses in blocks of that state.
    pub fn free_in(&self, state: BlockState) -> u64 {
        self.index.free_in(state)
    }

    /// Returns the first free address of an active block from `from` on.
    pub fn first_free(&self, from: Address) -> Option<Address> {
        let around = self.blocks.range(..=from).next_back();
        let around = around.filter(|(start, _)| self.index.open.contains(start));
        if let Some(number) = around.and_then(|(_, block)| block.first_free(from)) {
            return Some(number);
        }
        let next = self.index.open.range(from..).next()?;
        self.blocks.get(next)?.first_free(*next)
    }

    /// Returns the first address of a spare from `from` on.
    pub fn first_spare(&self, from: Address) -> Option<Address> {
        let around = self.blocks.range(..=from).next_back();
        let around = around.filter(|(start, _)| self.index.spares.contains(start));
        if around.is_some_and(|(_, block)| block.cidr().contains(from)) {
            return Some(from);
        }
        self.index.spares.range(from..).next().copied()
    }

    /// Returns the first address from `from` on that is in nobody's block, as far as is known.
    pub fn first_unclaimed(&self, from: Address) -> Option<Address> {
        self.claimed.first_gap(from)
    }

    /// Returns whether an address of the range is known to be in somebody's block.
    pub fn is_claimed(&self, range: AddressRange) -> bool {
        self.claimed.overlaps(range)
    }

    /// Returns the time at which the address that cools longest was released.
    pub fn oldest_release(&self) -> Option<BootTime> {
        self.cooling.oldest().map(|(released, _)| released)
    }

    /// Returns the time at which the address of these was released that was released last, of those
    /// that cool. The work grows with the addresses that cool.
    pub fn last_release(&self, cidr: Cidr) -> Option<BootTime> {
        self.cooling.newest_where(|number| cidr.contains(number))
    }

    /// Returns the address that cools longest among those that `wanted` accepts.
    pub fn oldest_cooling(&self, wanted: impl FnMut(Address) -> bool) -> Option<Address> {
        self.cooling.oldest_where(wanted)
    }

    /// Moves an address to another state, and returns the state in which it was.
    ///
    /// # Errors
    /// The address is in no block in hand, or the table of moves has no such move.
    pub fn apply(&mut self, number: Address, tried: Move) -> Result<AddressState, MoveError> {
        let (_, block) = (self.blocks.range_mut(..=number).next_back())
            .filter(|(_, block)| block.cidr().contains(number))
            .ok_or(MoveError::NoBlock(number))?;
        let state = block.state_of(number);
        let Some(target) = tried.target(state).filter(|_| tried.is_for(block.state())) else {
            return Err(MoveError::NoMove { number, state, block: block.state(), tried });
        };
        block.change(number, state, target);
        self.index.change(block, state, target);
        if state == AddressState::Cooling {
            self.cooling.take(number);
        }
        if let Some(released) = tried.cools_from() {
            self.cooling.push(released, number);
        }
        Ok(state)
    }

    /// Frees the addresses that were released at or before `until`.
    pub fn expire(&mut self, until: BootTime) {
        while let Some((released, number)) = self.cooling.oldest()
            && released <= until
        {
            if let Err(error) = self.apply(number, Move::Expire) {
                unreachable!("every address in the queue cools: {error:?}");
            }
        }
    }

    /// Takes a block in hand, with all its addresses free.
    ///
    /// # Errors
    /// It overlaps a block in hand, or is too large.
    pub fn insert(&mut self, cidr: Cidr, state: BlockState) -> Result<(), BlockError> {
        if cidr.size() > BlockSize::MAX {
            return Err(BlockError::TooLarge(cidr));
        }
        if self.overlaps(cidr) {
            return Err(BlockError::Overlaps(cidr));
        }
        self.put(Block::new(cidr, state));
        Ok(())
    }

    /// Drops a block, which is nobody's from now on.
    ///
    /// # Errors
    /// It is not in hand, or addresses of it are allocated.
    pub fn remove(&mut self, cidr: Cidr) -> Result<(), BlockError> {
        let block = self.get(cidr).ok_or(BlockError::NotInHand(cidr))?;
        if block.count(AddressState::Allocated) > 0 {
            return Err(BlockError::InUse(cidr));
        }
        self.take(cidr);
        self.claimed.remove(cidr.range());
        Ok(())
    }

    /// Changes the state of a block.
    ///
    /// # Errors
    /// It is not in hand.
    pub fn set_state(&mut self, cidr: Cidr, state: BlockState) -> Result<(), BlockError> {
        let block = self.blocks.get_mut(&cidr.first()).filter(|block| block.cidr() == cidr);
        let block = block.ok_or(BlockError::NotInHand(cidr))?;
        self.index.remove(block);
        block.set_state(state);
        block.touch(true);
        self.index.add(block);
        Ok(())
    }

    /// Divides a block. Its addresses that are in none of the parts leave this node: all of them
    /// must be on their way to another one, and they stay known as somebody's.
    ///
    /// # Errors
    /// It is not in hand, or does not consist of these parts.
    pub fn split(&mut self, cidr: Cidr, parts: &[Cidr]) -> Result<(), BlockError> {
        let block = self.get(cidr).ok_or(BlockError::NotInHand(cidr))?;
        let is_part = |part: &Cidr| cidr.covers(*part);
        let mut sorted = parts.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().all(is_part) || sorted.windows(2).any(|w| w[0].last() >= w[1].first()) {
            return Err(BlockError::Parts(cidr));
        }
        let parts: Vec<Block> = sorted.into_iter().map(|part| block.part(part)).collect();
        let of_parts = |count: fn(&Block) -> u32| parts.iter().map(count).sum::<u32>();
        let leaving = block.addresses() - of_parts(Block::addresses);
        let in_transfer = |block: &Block| block.count(AddressState::InTransfer);
        if leaving != in_transfer(block) - of_parts(in_transfer) {
            return Err(BlockError::Parts(cidr));
        }
        if let Some(block) = self.blocks.remove(&cidr.first()) {
            self.index.remove(&block);
        }
        parts.into_iter().for_each(|part| self.put(part));
        Ok(())
    }

    /// Takes over every block of another inventory, and its knowledge of others' blocks.
    ///
    /// # Errors
    /// A block of the other inventory overlaps one in hand.
    pub fn absorb(&mut self, other: Self) -> Result<(), BlockError> {
        if let Some(block) = other.blocks.values().find(|block| self.overlaps(block.cidr())) {
            return Err(BlockError::Overlaps(block.cidr()));
        }
        other.blocks.into_values().for_each(|block| self.put(block));
        other.claimed.iter().for_each(|range| self.claimed.insert(range));
        let mine = std::mem::take(&mut self.cooling);
        let mut cooling: Vec<_> = mine.drain().chain(other.cooling.drain()).collect();
        cooling.sort_unstable();
        for (released, number) in cooling {
            self.cooling.push(released, number);
        }
        Ok(())
    }

    /// Remembers that a block is somebody's.
    pub fn claim(&mut self, cidr: Cidr) {
        self.claimed.insert(cidr.range());
    }

    /// Forgets that the addresses of the range are somebody's, except for those in hand.
    pub fn forget_claims(&mut self, range: AddressRange) {
        self.claimed.remove(range);
        let mine: Vec<Cidr> = self.blocks_in(range).map(Block::cidr).collect();
        mine.into_iter().for_each(|cidr| self.claim(cidr));
    }

    /// Forgets which blocks have changed: see [`Block::is_touched`].
    pub fn forget_touched(&mut self) {
        self.blocks.values_mut().for_each(|block| block.touch(false));
    }

    fn put(&mut self, block: Block) {
        self.claim(block.cidr());
        self.index.add(&block);
        self.blocks.insert(block.cidr().first(), block);
    }

    /// Takes a block that is in hand out of it.
    fn take(&mut self, cidr: Cidr) {
        let Some(block) = self.blocks.remove(&cidr.first()) else { return };
        self.index.remove(&block);
        if block.cooling() > 0 {
            let cooling = |number: &Address| block.is_cooling(*number);
            cidr.addresses().filter(cooling).for_each(|number| self.cooling.take(number));
        }
    }

    /// Checks that the indexes and counts are what the blocks say. For tests and simulators:
    /// linear in the number of blocks.
    ///
    /// # Panics
    /// They are not.
    pub fn check_invariants(&self) {
        let mut index = BlockIndex::default();
        for (&start, block) in &self.blocks {
            block.check_invariants();
            index.add(block);
            let cidr = block.cidr();
            assert_eq!(start, cidr.first());
            let gap = self.claimed.first_gap(start);
            assert!(gap.is_none_or(|gap| gap > cidr.last()), "{block:?} is not claimed");
        }
        assert_eq!(index, self.index);
        assert_eq!(self.stats().cooling, self.cooling.len() as u64);
        let cidrs: Vec<Cidr> = self.blocks().map(Block::cidr).collect();
        assert!(cidrs.windows(2).all(|pair| pair[0].last() < pair[1].first()), "blocks overlap");
    }
}
