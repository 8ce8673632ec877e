//! One block in hand: the state of each of its addresses.

use std::collections::BTreeMap;

use super::moves::AddressState;
use crate::core::address::{Address, AddressRange, BlockSize, Cidr};

pub use super::moves::BlockState;

/// A block in hand. Only its inventory can change it.
#[derive(Clone, Debug)]
pub struct Block {
    cidr: Cidr,
    state: BlockState,
    touched: bool,
    /// One bit per address, which is set unless the address is free. The bits behind the last
    /// address of a block of fewer than 64 are set as well.
    taken: Box<[u64]>,
    /// One bit per address, which is set if the address cools.
    cooling: Box<[u64]>,
    /// The addresses in any other state than free, allocated or cooling. They are rare.
    other: BTreeMap<Address, AddressState>,
    /// The number of addresses in each state.
    counts: [u32; AddressState::COUNT],
}

impl Block {
    /// Creates a block with all its addresses free.
    pub(super) fn new(cidr: Cidr, state: BlockState) -> Self {
        let size = 1usize << cidr.size().log2();
        let mut taken = vec![0u64; size.div_ceil(64)].into_boxed_slice();
        if size < 64 {
            taken[0] = !0 << size;
        }
        let cooling = vec![0u64; taken.len()].into_boxed_slice();
        let mut counts = [0; AddressState::COUNT];
        counts[AddressState::Free as usize] = 1 << cidr.size().log2();
        Self { cidr, state, touched: true, taken, cooling, other: BTreeMap::new(), counts }
    }

    /// Returns the part of this block that covers `cidr`, in the same state.
    pub(super) fn part(&self, cidr: Cidr) -> Self {
        let mut part = Self::new(cidr, self.state);
        for number in cidr.addresses() {
            part.change(number, AddressState::Free, self.state_of(number));
        }
        part.touched = self.touched;
        part
    }

    /// Returns whether it is a spare or on its way back, and no address of it is allocated.
    pub fn is_unused(&self) -> bool {
        let idle = matches!(self.state, BlockState::Spare | BlockState::Returning);
        idle && self.count(AddressState::Allocated) == 0
    }

    /// Returns its state.
    #[inline]
    pub fn state(&self) -> BlockState {
        self.state
    }

    /// Changes its state. The indexes of the inventory must follow.
    pub(super) fn set_state(&mut self, state: BlockState) {
        self.state = state;
    }

    /// Returns its addresses.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// Returns its size.
    #[inline]
    pub fn size(&self) -> BlockSize {
        self.cidr.size()
    }

    /// Returns the number of its addresses.
    #[inline]
    pub(super) fn addresses(&self) -> u32 {
        1 << self.size().log2()
    }

    /// Returns the number of its addresses in a state.
    pub fn count(&self, state: AddressState) -> u32 {
        self.counts[state as usize]
    }

    /// Returns the number of its addresses in each state.
    pub(super) fn counts(&self) -> &[u32; AddressState::COUNT] {
        &self.counts
    }

    /// Returns the number of free addresses.
    pub fn free(&self) -> u32 {
        self.count(AddressState::Free)
    }

    /// Returns the number of addresses that cool.
    pub fn cooling(&self) -> u32 {
        self.count(AddressState::Cooling)
    }

    /// Returns whether every address is free.
    pub fn is_empty(&self) -> bool {
        self.free() == self.addresses()
    }

    /// Returns whether a part of it is on its way to another node.
    pub fn is_in_transfer(&self) -> bool {
        self.count(AddressState::InTransfer) > 0
    }

    /// Returns whether the block or an address of it has changed since
    /// [`Inventory::forget_touched`](super::Inventory::forget_touched).
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// Remembers that it has changed, or forgets it.
    pub(super) fn touch(&mut self, touched: bool) {
        self.touched = touched;
    }

    fn bit(&self, number: Address) -> (usize, u64) {
        debug_assert!(self.cidr.contains(number));
        #[allow(clippy::cast_possible_truncation)]
        let offset = number.since(self.cidr.first()) as usize;
        (offset / 64, 1 << (offset % 64))
    }

    /// Returns whether the address is in any state but free.
    pub fn is_taken(&self, number: Address) -> bool {
        let (word, bit) = self.bit(number);
        self.taken[word] & bit != 0
    }

    /// Returns whether the address cools.
    pub fn is_cooling(&self, number: Address) -> bool {
        let (word, bit) = self.bit(number);
        self.cooling[word] & bit != 0
    }

    /// Returns the state of an address of this block.
    #[inline]
    pub fn state_of(&self, number: Address) -> AddressState {
        let (word, bit) = self.bit(number);
        if self.taken[word] & bit == 0 {
            AddressState::Free
        } else if self.cooling[word] & bit != 0 {
            AddressState::Cooling
        } else {
            self.other.get(&number).copied().unwrap_or(AddressState::Allocated)
        }
    }

    /// Changes the state of an address from the one that it has.
    #[inline]
    pub(super) fn change(&mut self, number: Address, from: AddressState, to: AddressState) {
        debug_assert_eq!(self.state_of(number), from);
        let (word, bit) = self.bit(number);
        self.taken[word] &= !bit;
        self.cooling[word] &= !bit;
        if !self.other.is_empty() {
            self.other.remove(&number);
        }
        match to {
            AddressState::Free => {}
            AddressState::Allocated => self.taken[word] |= bit,
            AddressState::Cooling => {
                self.taken[word] |= bit;
                self.cooling[word] |= bit;
            }
            other => {
                self.taken[word] |= bit;
                self.other.insert(number, other);
            }
        }
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
        self.touched = true;
    }

    /// Returns the first free address from `from` on.
    pub fn first_free(&self, from: Address) -> Option<Address> {
        #[allow(clippy::cast_possible_truncation)]
        let offset = from.since(self.cidr.first()).min(u128::from(self.addresses())) as usize;
        let mut word = offset / 64;
        let mut free = !*self.taken.get(word)? & (!0 << (offset % 64));
        while free == 0 {
            word += 1;
            free = !*self.taken.get(word)?;
        }
        let offset = (word * 64) as u128 + u128::from(free.trailing_zeros());
        Some(self.cidr.first().plus(offset))
    }

    /// Returns the number of free addresses in a range.
    pub fn free_in(&self, range: AddressRange) -> u32 {
        let Some(range) = range.common(self.cidr.range()) else { return 0 };
        let ((from, low), (to, high)) = (self.bit(range.first()), self.bit(range.last()));
        let of_word = |at: usize| {
            let above = if at == from { !(low - 1) } else { !0 };
            let below = if at == to { high | (high - 1) } else { !0 };
            (!self.taken[at] & above & below).count_ones()
        };
        (from..=to).map(of_word).sum()
    }

    /// Checks that the counts are those of the addresses.
    pub(super) fn check_invariants(&self) {
        let ones = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
        #[allow(clippy::cast_possible_truncation)]
        let padding = self.taken.len() as u32 * 64 - self.addresses();
        let mut counts = [0; AddressState::COUNT];
        for state in self.other.values() {
            counts[*state as usize] += 1;
        }
        let other: u32 = counts.iter().sum();
        let taken = ones(&self.taken) - padding;
        counts[AddressState::Free as usize] = self.addresses() - taken;
        counts[AddressState::Cooling as usize] = ones(&self.cooling);
        counts[AddressState::Allocated as usize] = taken - ones(&self.cooling) - other;
        assert_eq!(counts, self.counts, "{self:?}");
        let cools_free =
            self.taken.iter().zip(&self.cooling).any(|(taken, cool)| cool & !taken > 0);
        assert!(!cools_free, "a free address cools: {self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::BlockSize;

    #[test]
    fn the_first_free_address_is_found_in_blocks_of_every_size() {
        for log2 in 0..=12 {
            let (start, size) = (Address::new(1 << 20), BlockSize::of_log2(log2));
            let mut block = Block::new(Cidr::containing(start, size), BlockState::Active);
            let end = block.cidr().last();
            for number in block.cidr().addresses() {
                assert_eq!(block.first_free(start), Some(number));
                block.change(number, AddressState::Free, AddressState::Allocated);
            }
            assert_eq!((block.free(), block.first_free(start)), (0, None));
            block.change(end, AddressState::Allocated, AddressState::Free);
            assert_eq!(block.first_free(start), Some(end));
            assert_eq!(block.first_free(end), Some(end));
            assert_eq!(block.first_free(end.plus(1)), None);
            block.check_invariants();
        }
    }
}
