//! A set of addresses kept as disjoint ranges: the cost of every operation is logarithmic in their
//! number and does not depend on their length.

use std::collections::BTreeMap;

use super::address::{Address, AddressRange};

/// A set of addresses as ranges that are as long as possible and disjoint.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Intervals {
    /// The last address of each range, by its first one.
    by_first: BTreeMap<Address, Address>,
}

impl Intervals {
    /// Adds the addresses of a range.
    pub fn insert(&mut self, range: AddressRange) {
        let (mut first, mut last) = (range.first(), range.last());
        let touches_last = last.plus(1);
        while let Some((&f, &l)) = self.by_first.range(..=touches_last).next_back() {
            if l.plus(1) < first {
                break;
            }
            self.by_first.remove(&f);
            first = first.min(f);
            last = last.max(l);
        }
        self.by_first.insert(first, last);
    }

    /// Takes the addresses of a range out.
    pub fn remove(&mut self, range: AddressRange) {
        while let Some((&f, &l)) = self.by_first.range(..=range.last()).next_back() {
            if l < range.first() {
                break;
            }
            self.by_first.remove(&f);
            if l > range.last()
                && let Some(next) = range.last().next()
            {
                self.by_first.insert(next, l);
            }
            if f < range.first()
                && let Some(previous) = range.first().previous()
            {
                self.by_first.insert(f, previous);
                break;
            }
        }
    }

    /// Returns whether any address of the range is in the set.
    pub fn overlaps(&self, range: AddressRange) -> bool {
        self.by_first.range(..=range.last()).next_back().is_some_and(|(_, &l)| l >= range.first())
    }

    /// Returns whether the address is in the set.
    pub fn contains(&self, address: Address) -> bool {
        self.overlaps(AddressRange::one(address))
    }

    /// Returns the first address from `from` on that is not in the set.
    pub fn first_gap(&self, from: Address) -> Option<Address> {
        match self.by_first.range(..=from).next_back() {
            Some((_, &l)) if l >= from => l.next(),
            _ => Some(from),
        }
    }

    /// Returns the ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.by_first.iter().map(|(&first, &last)| AddressRange::between(first, last))
    }

    /// Returns whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.by_first.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(first: u128, last: u128) -> AddressRange {
        AddressRange::between(Address::new(first), Address::new(last))
    }

    proptest! {
        /// Random inserts and removals give the same set as a plain set of numbers, in as few
        /// ranges as possible.
        #[test]
        fn it_is_a_set(ops in prop::collection::vec((any::<bool>(), 0u128..40, 0u128..9), 0..60)) {
            let mut set = Intervals::default();
            let mut model = BTreeSet::new();
            for (insert, start, len) in ops {
                let part = range(start, start + len);
                if insert {
                    set.insert(part);
                    model.extend(part.iter());
                } else {
                    set.remove(part);
                    model.retain(|n| !part.contains(*n));
                }
                let members: BTreeSet<Address> = set.iter().flat_map(AddressRange::iter).collect();
                prop_assert_eq!(&members, &model);
                let ends: Vec<_> = set.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].last().plus(1) < pair[1].first()));
                for n in range(0, 49).iter() {
                    prop_assert_eq!(set.contains(n), model.contains(&n));
                    let mut rest = AddressRange::between(n, Address::LAST).iter();
                    prop_assert_eq!(set.first_gap(n), rest.find(|n| !model.contains(n)));
                }
            }
        }
    }

    #[test]
    fn the_last_number_has_no_successor() {
        let mut set = Intervals::default();
        set.insert(range(5, u128::MAX));
        assert_eq!(set.first_gap(Address::new(7)), None);
        set.remove(AddressRange::one(Address::LAST));
        assert_eq!(set.first_gap(Address::new(7)), Some(Address::LAST));
    }
}
