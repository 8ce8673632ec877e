//! A set of numbers kept as disjoint intervals: the cost of every operation is logarithmic in their
//! number and does not depend on their length.

use std::collections::BTreeMap;

/// A set of `u128` as maximal, disjoint, inclusive intervals.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Intervals {
    by_start: BTreeMap<u128, u128>,
}

impl Intervals {
    /// Adds `start..=end`.
    pub fn insert(&mut self, start: u128, end: u128) {
        let (mut start, mut end) = (start, end);
        let touches_end = end.saturating_add(1);
        while let Some((&s, &e)) = self.by_start.range(..=touches_end).next_back() {
            if e.saturating_add(1) < start {
                break;
            }
            self.by_start.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.by_start.insert(start, end);
    }

    /// Takes `start..=end` out.
    pub fn remove(&mut self, start: u128, end: u128) {
        while let Some((&s, &e)) = self.by_start.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.by_start.remove(&s);
            if e > end {
                self.by_start.insert(end + 1, e);
            }
            if s < start {
                self.by_start.insert(s, start - 1);
                break;
            }
        }
    }

    /// Returns whether any of `start..=end` is in the set.
    pub fn overlaps(&self, start: u128, end: u128) -> bool {
        self.by_start.range(..=end).next_back().is_some_and(|(_, &e)| e >= start)
    }

    /// Returns the first number from `from` on that is not in the set.
    pub fn first_gap(&self, from: u128) -> Option<u128> {
        match self.by_start.range(..=from).next_back() {
            Some((_, &e)) if e >= from => e.checked_add(1),
            _ => Some(from),
        }
    }

    /// Returns the intervals as (first, last), in order.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.by_start.iter().map(|(&s, &e)| (s, e))
    }

    /// Returns whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Random inserts and removals give the same set as a plain set of numbers, in as few
        /// intervals as possible.
        #[test]
        fn it_is_a_set(ops in prop::collection::vec((any::<bool>(), 0u128..40, 0u128..9), 0..60)) {
            let mut set = Intervals::default();
            let mut model = BTreeSet::new();
            for (insert, start, len) in ops {
                if insert {
                    set.insert(start, start + len);
                    model.extend(start..=start + len);
                } else {
                    set.remove(start, start + len);
                    model.retain(|n| !(start..=start + len).contains(n));
                }
                let members: BTreeSet<u128> = set.iter().flat_map(|(s, e)| s..=e).collect();
                prop_assert_eq!(&members, &model);
                let ends: Vec<_> = set.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                for n in 0..50 {
                    prop_assert_eq!(set.overlaps(n, n), model.contains(&n));
                    prop_assert_eq!(set.first_gap(n), (n..).find(|n| !model.contains(n)));
                }
            }
        }
    }

    #[test]
    fn the_last_number_has_no_successor() {
        let mut set = Intervals::default();
        set.insert(5, u128::MAX);
        assert_eq!(set.first_gap(7), None);
        set.remove(u128::MAX, u128::MAX);
        assert_eq!(set.first_gap(7), Some(u128::MAX));
    }
}
