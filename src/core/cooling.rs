//! Released addresses that wait before they are handed out again, oldest first.

use std::collections::VecDeque;

use super::Map;
use super::address::Address;
use super::time::BootTime;
use crate::limits;

/// A queue of cooling addresses. An address that is taken out of turn leaves its entry behind,
/// which is dropped when it comes to the front: so nothing costs more than constant time, and the
/// entry at the front is always that of an address that cools.
#[derive(Clone, Default, Debug)]
pub struct Cooling {
    queue: VecDeque<(BootTime, Address)>,
    /// The number of entries that an address has left behind. The live one, if any, comes after
    /// them.
    stale: Map<Address, u32>,
    len: usize,
}

impl Cooling {
    /// Adds an address that is not cooling. `released` must not go backwards.
    pub fn push(&mut self, released: BootTime, number: Address) {
        debug_assert!(self.queue.back().is_none_or(|&(last, _)| last <= released));
        self.queue.push_back((released, number));
        self.len += 1;
    }

    /// Returns the number of addresses that cool.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no address cools.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the address that cools longest, and when it was released.
    pub fn oldest(&self) -> Option<(BootTime, Address)> {
        self.queue.front().copied()
    }

    /// Returns whether the next entry of this address was left behind; if so, it counts as dropped.
    fn skip(&mut self, number: Address) -> bool {
        let Some(count) = self.stale.get_mut(&number) else { return false };
        *count -= 1;
        if *count == 0 {
            self.stale.remove(&number);
        }
        true
    }

    /// Takes a given address out; it must be cooling.
    pub fn take(&mut self, number: Address) {
        self.len -= 1;
        // Usually it is the oldest: then nothing is left behind.
        if self.queue.front().is_some_and(|&(_, oldest)| oldest == number) {
            self.queue.pop_front();
        } else {
            *self.stale.entry(number).or_default() += 1;
        }
        while let Some(&(_, oldest)) = self.queue.front()
            && self.skip(oldest)
        {
            self.queue.pop_front();
        }
        let room = self.queue.capacity();
        if room > limits::ROOM_KEPT && self.queue.len() < room / 4 {
            self.queue.shrink_to(room / 2);
        }
    }

    /// Returns the address that cooled longest among those that `wanted` accepts.
    pub fn oldest_where(&self, mut wanted: impl FnMut(Address) -> bool) -> Option<Address> {
        let mut seen: Map<Address, u32> = Map::default();
        for &(_, number) in &self.queue {
            if let Some(&stale) = self.stale.get(&number) {
                let seen = seen.entry(number).or_default();
                *seen += 1;
                if *seen <= stale {
                    continue;
                }
            }
            if wanted(number) {
                return Some(number);
            }
        }
        None
    }

    /// Returns the last time at which an address that `wanted` accepts was released; of one that
    /// was released again since, also the time before.
    pub fn newest_where(&self, mut wanted: impl FnMut(Address) -> bool) -> Option<BootTime> {
        let entries = self.queue.iter().rev();
        entries.copied().find(|&(_, number)| wanted(number)).map(|(released, _)| released)
    }

    /// Returns every cooling address with its time of release, oldest first.
    pub fn drain(mut self) -> impl Iterator<Item = (BootTime, Address)> {
        std::iter::from_fn(move || {
            let oldest = self.oldest()?;
            self.take(oldest.1);
            Some(oldest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address with that number.
    fn nth(number: u128) -> Address {
        Address::new(number)
    }

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    #[test]
    fn an_address_released_twice_cools_from_its_last_release() {
        let mut cooling = Cooling::default();
        cooling.push(at(10), nth(7));
        cooling.push(at(11), nth(8));
        cooling.take(nth(7));
        cooling.push(at(20), nth(7));
        assert_eq!(cooling.len(), 2);
        assert_eq!(cooling.oldest_where(|_| true), Some(nth(8)));
        assert_eq!(cooling.oldest_where(|n| n == nth(7)), Some(nth(7)));
        assert_eq!(cooling.oldest(), Some((at(11), nth(8))));
        cooling.take(nth(8));
        assert_eq!(cooling.oldest(), Some((at(20), nth(7))));
        cooling.take(nth(7));
        assert_eq!((cooling.len(), cooling.oldest()), (0, None));
    }

    #[test]
    fn taking_the_oldest_again_and_again_leaves_nothing_behind() {
        let mut cooling = Cooling::default();
        for number in 0..10 {
            cooling.push(at(0), nth(number));
        }
        for round in 1..1000 {
            let oldest = cooling.oldest_where(|_| true).unwrap();
            cooling.take(oldest);
            cooling.push(at(round), oldest);
            assert_eq!((cooling.queue.len(), cooling.stale.len()), (10, 0));
        }
    }

    #[test]
    fn draining_gives_the_live_entries_in_order() {
        let mut cooling = Cooling::default();
        cooling.push(at(1), nth(1));
        cooling.take(nth(1));
        cooling.push(at(2), nth(2));
        cooling.push(at(3), nth(1));
        cooling.push(at(3), nth(3));
        assert_eq!(
            cooling.drain().collect::<Vec<_>>(),
            [(at(2), nth(2)), (at(3), nth(1)), (at(3), nth(3))]
        );
    }
}
