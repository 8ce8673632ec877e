//! One block that this node holds: a bitmap over its addresses.

use super::address::Cidr;

/// What may be done with a held block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockState {
    /// Leased ahead of need: nothing is handed out of it before it is active.
    Spare,
    /// Addresses are handed out of it.
    Active,
    /// It is on its way back: nothing is handed out of it any more.
    Returning,
    /// The store says that it is not this node's: nothing is handed out of it any more.
    Lost,
}

impl BlockState {
    /// The word in keys, labels and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spare => "spare",
            Self::Active => "active",
            Self::Returning => "draining",
            Self::Lost => "lost",
        }
    }
}

/// A held block. An address in it is either free or taken; a cooling address counts as taken.
#[derive(Clone, Debug)]
pub struct Block {
    cidr: Cidr,
    /// Its state.
    pub state: BlockState,
    /// A part of it is on its way to another node.
    pub in_transfer: bool,
    /// Whether anything was taken or freed since the last look at idle blocks.
    pub touched: bool,
    taken: Box<[u64]>,
    cooling: Box<[u64]>,
    free: u32,
}

impl Block {
    /// A block with all its addresses free.
    pub fn new(cidr: Cidr, state: BlockState) -> Self {
        let size = 1usize << cidr.size_log2;
        let mut taken = vec![0u64; size.div_ceil(64)].into_boxed_slice();
        if size < 64 {
            taken[0] = !0 << size;
        }
        #[allow(clippy::cast_possible_truncation)]
        let free = size as u32;
        let cooling = vec![0u64; taken.len()].into_boxed_slice();
        Self { cidr, state, in_transfer: false, touched: true, taken, cooling, free }
    }

    /// Whether nothing was handed out of it: a spare, or one on its way back.
    pub fn is_unused(&self) -> bool {
        matches!(self.state, BlockState::Spare | BlockState::Returning)
    }

    /// The part of this block that covers a run, in the same state.
    pub fn part(&self, cidr: Cidr) -> Self {
        let mut part = Self::new(cidr, self.state);
        for number in cidr.start..=cidr.end() {
            if self.is_taken(number) {
                part.take(number);
                part.set_cooling(number, self.is_cooling(number));
            }
        }
        part.touched = self.touched;
        part
    }

    /// What it covers.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// How many addresses are free.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// How many addresses it has.
    pub fn size(&self) -> u32 {
        1 << self.cidr.size_log2
    }

    /// Whether every address is free.
    pub fn is_empty(&self) -> bool {
        self.free == self.size()
    }

    fn bit(&self, number: u128) -> (usize, u64) {
        debug_assert!(self.cidr.contains(number));
        #[allow(clippy::cast_possible_truncation)]
        let offset = (number - self.cidr.start) as usize;
        (offset / 64, 1 << (offset % 64))
    }

    /// Whether the address is taken.
    pub fn is_taken(&self, number: u128) -> bool {
        let (word, bit) = self.bit(number);
        self.taken[word] & bit != 0
    }

    /// Whether the address is taken because it cools.
    pub fn is_cooling(&self, number: u128) -> bool {
        let (word, bit) = self.bit(number);
        self.cooling[word] & bit != 0
    }

    /// Says of a taken address whether it cools.
    pub fn set_cooling(&mut self, number: u128, cooling: bool) {
        let (word, bit) = self.bit(number);
        assert!(self.taken[word] & bit != 0, "only a taken address cools");
        if cooling {
            self.cooling[word] |= bit;
        } else {
            self.cooling[word] &= !bit;
        }
        self.touched = true;
    }

    /// How many addresses cool.
    pub fn cooling(&self) -> u32 {
        self.cooling.iter().map(|word| word.count_ones()).sum()
    }

    /// Takes a free address.
    pub fn take(&mut self, number: u128) {
        let (word, bit) = self.bit(number);
        assert!(self.taken[word] & bit == 0, "an address is taken once");
        self.taken[word] |= bit;
        self.free -= 1;
        self.touched = true;
    }

    /// Frees a taken address.
    pub fn put_back(&mut self, number: u128) {
        let (word, bit) = self.bit(number);
        assert!(self.taken[word] & !self.cooling[word] & bit != 0, "an address is put back once");
        self.taken[word] &= !bit;
        self.free += 1;
        self.touched = true;
    }

    /// The first free address from `from` on.
    pub fn first_free(&self, from: u128) -> Option<u128> {
        #[allow(clippy::cast_possible_truncation)]
        let offset = from.saturating_sub(self.cidr.start).min(u128::from(self.size())) as usize;
        let mut word = offset / 64;
        let mut free = !*self.taken.get(word)? & (!0 << (offset % 64));
        while free == 0 {
            word += 1;
            free = !*self.taken.get(word)?;
        }
        Some(self.cidr.start + (word * 64) as u128 + u128::from(free.trailing_zeros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_address_is_found_in_blocks_of_every_size() {
        for size_log2 in 0..=12 {
            let mut block = Block::new(Cidr::containing(1 << 20, size_log2), BlockState::Active);
            let (start, end) = (block.cidr().start, block.cidr().end());
            for number in start..=end {
                assert_eq!(block.first_free(start), Some(number));
                block.take(number);
            }
            assert_eq!((block.free(), block.first_free(start)), (0, None));
            block.put_back(end);
            assert_eq!(block.first_free(start), Some(end));
            assert_eq!(block.first_free(end), Some(end));
            assert_eq!(block.first_free(end + 1), None);
        }
    }
}
