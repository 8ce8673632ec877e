//! The search for the next address. It finds the address that host-local would find, but tries
//! none on the way.
//!
//! It starts after the last address that was handed out, goes on in the order of the ranges, wraps
//! around at their end, and takes the last address itself as the last resort.
//! Each step is a look-up in an ordered index (blocks with free addresses; cidrs that are in no
//! block), so the cost does not depend on the size of the ranges or on how much is taken.

use super::address::{Address, AddressRange};
use super::inventory::Inventory;
use super::range::{Range, Ranges};
use super::stage::Stage;

/// The next address in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Candidate {
    /// Free in an active block of this node.
    Free(Address),
    /// In a spare of this node.
    Spare(Address),
    /// In no block yet.
    Unclaimed(Address),
}

impl Candidate {
    fn number(self) -> Address {
        match self {
            Self::Free(number) | Self::Spare(number) | Self::Unclaimed(number) => number,
        }
    }
}

/// The places to look.
#[derive(Clone, Copy, Default)]
struct Kinds {
    free: bool,
    spare: bool,
    unclaimed: bool,
}

const ALL: Kinds = Kinds { free: true, spare: true, unclaimed: true };
const INACTIVE: Kinds = Kinds { free: false, spare: true, unclaimed: true };
/// The addresses in hand first, and of them those that need no transaction.
const IN_TURN: [Kinds; 3] = [
    Kinds { free: true, spare: false, unclaimed: false },
    Kinds { free: false, spare: true, unclaimed: false },
    Kinds { free: false, spare: false, unclaimed: true },
];

/// A search for the next address in an inventory.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// The blocks in hand, and the known blocks of others.
    pub inventory: &'a Inventory,
    /// A node that shares the pool uses up what it holds and begins elsewhere than others: the
    /// number that it draws its place from. A node that is alone goes strictly in order.
    pub shared: Option<u64>,
}

impl Search<'_> {
    /// Returns the next address for a pod of that stage, after `cursor`.
    pub fn next(
        self,
        allowed: &Ranges,
        cursor: Option<Address>,
        stage: Option<Stage>,
    ) -> Option<Candidate> {
        let search = |cursor, kinds| {
            segments(allowed, cursor).find_map(|segment| match stage {
                None => self.first_offered(segment, kinds),
                Some(stage) => self.first_listed(segment, stage, kinds),
            })
        };
        match self.shared {
            None => search(cursor, ALL),
            Some(seed) => {
                let cursor = cursor.or_else(|| home(allowed, seed));
                IN_TURN.into_iter().find_map(|kinds| search(cursor, kinds))
            }
        }
    }

    /// Returns the next address after `cursor` that is in no active block, spares first when the
    /// pool is shared; and how many addresses of its range lie before it.
    pub fn next_inactive(
        self,
        allowed: &Ranges,
        cursor: Option<Address>,
    ) -> Option<(Address, u128)> {
        let cursor = cursor.or_else(|| home(allowed, self.shared?));
        if self.shared.is_some()
            && let Some(found) = self.first_inactive(allowed, cursor, IN_TURN[1])
        {
            return Some(found);
        }
        self.first_inactive(allowed, cursor, INACTIVE)
    }

    fn first_inactive(
        self,
        allowed: &Ranges,
        cursor: Option<Address>,
        kinds: Kinds,
    ) -> Option<(Address, u128)> {
        let mut before = 0u128;
        for Segment { part, .. } in segments(allowed, cursor) {
            let first = self.first(part.first(), kinds).map(Candidate::number);
            match first.filter(|first| *first <= part.last()) {
                Some(first) => {
                    return Some((first, before.saturating_add(first.since(part.first()))));
                }
                None => before = before.saturating_add(part.last().since(part.first())),
            }
        }
        None
    }

    fn first(self, from: Address, kinds: Kinds) -> Option<Candidate> {
        let free = || self.inventory.first_free(from).map(Candidate::Free);
        let spare = || self.inventory.first_spare(from).map(Candidate::Spare);
        let unclaimed = || self.inventory.first_unclaimed(from).map(Candidate::Unclaimed);
        let free = kinds.free.then(free).flatten();
        let spare = kinds.spare.then(spare).flatten();
        let unclaimed = kinds.unclaimed.then(unclaimed).flatten();
        [free, spare, unclaimed].into_iter().flatten().min_by_key(|c| c.number())
    }

    fn first_offered(self, segment: Segment<'_>, kinds: Kinds) -> Option<Candidate> {
        let mut from = segment.part.first();
        loop {
            let candidate = self.first(from, kinds)?;
            if candidate.number() > segment.part.last() {
                return None;
            }
            // Only gateways and listed addresses are stepped over: a handful in any range.
            if segment.range.offers(candidate.number(), None) {
                return Some(candidate);
            }
            from = candidate.number().next()?;
        }
    }

    fn first_listed(self, segment: Segment<'_>, stage: Stage, kinds: Kinds) -> Option<Candidate> {
        let list = segment.range.listed(stage);
        let from = list.partition_point(|&number| number < segment.part.first());
        let in_segment = list[from..].iter().take_while(|&&number| number <= segment.part.last());
        in_segment.copied().find_map(|number| {
            self.look_at(number).filter(|candidate| match candidate {
                Candidate::Free(_) => kinds.free,
                Candidate::Spare(_) => kinds.spare,
                Candidate::Unclaimed(_) => kinds.unclaimed,
            })
        })
    }

    /// Looks at an address: returns it, unless it is taken or in a block that cannot hand it out.
    pub fn look_at(self, number: Address) -> Option<Candidate> {
        if self.inventory.first_free(number) == Some(number) {
            Some(Candidate::Free(number))
        } else if self.inventory.first_spare(number) == Some(number) {
            Some(Candidate::Spare(number))
        } else if self.inventory.is_claimed(AddressRange::one(number)) {
            None
        } else {
            Some(Candidate::Unclaimed(number))
        }
    }
}

/// Returns a place to begin in ranges of which other nodes use other parts: the address before it.
fn home(allowed: &Ranges, seed: u64) -> Option<Address> {
    let size = |range: &Range| range.addresses().count();
    let total = allowed.iter().map(size).fold(0u128, u128::saturating_add);
    let log2 = allowed.usual_block_size().log2();
    let mut at = ((u128::from(seed) % total) >> log2) << log2;
    for range in allowed.iter() {
        if at < size(range) {
            let before = range.first().plus(at).previous();
            return before.filter(|address| range.contains(*address));
        }
        at -= size(range);
    }
    None
}

/// A part of a range, in the order of the walk.
#[derive(Clone, Copy)]
struct Segment<'a> {
    range: &'a Range,
    part: AddressRange,
}

/// Returns the rest of the cursor's range, the ranges after it, those before it, and its range up
/// to and with the cursor. Without a cursor (or with one outside the set): all ranges in order.
fn segments(allowed: &Ranges, cursor: Option<Address>) -> impl Iterator<Item = Segment<'_>> {
    let whole = |range| Segment { range, part: range.addresses() };
    let at = cursor.and_then(|c| Some((c, allowed.iter().position(|range| range.contains(c))?)));
    let first = at.map_or(0, |(_, i)| i);
    let rest = at.and_then(|(c, i)| {
        let range = allowed.iter().nth(i)?;
        let part = AddressRange::new(c.next()?, range.last())?;
        Some(Segment { part, range })
    });
    let up_to = at.and_then(|(c, i)| {
        let range = allowed.iter().nth(i)?;
        Some(Segment { part: AddressRange::new(range.first(), c)?, range })
    });
    let after = allowed.iter().skip(first + usize::from(at.is_some())).map(whole);
    let before = allowed.iter().take(first).map(whole);
    let all = rest.into_iter().chain(after).chain(before).chain(up_to);
    // Reserved addresses go out only on request, so a search skips them.
    all.filter(|segment| !segment.range.reserved)
}
