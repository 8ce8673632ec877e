//! Takes cidrs apart: what is left of a block without a part, and which cidrs cover a range.

use crate::core::address::{AddressRange, BlockSize, Cidr};

/// Returns the cidrs that together cover `block` without `part`, in order.
pub fn without(block: Cidr, part: Cidr) -> Vec<Cidr> {
    let mut left = Vec::new();
    let mut whole = block;
    while whole.size() > part.size()
        && let Some([low, high]) = whole.halves()
    {
        let (inside, outside) = if low.contains(part.first()) { (low, high) } else { (high, low) };
        left.push(outside);
        whole = inside;
    }
    left.sort_unstable();
    left
}

/// Returns the fewest cidrs that cover a range.
pub(super) fn cover(range: AddressRange) -> Vec<Cidr> {
    let mut cidrs = Vec::new();
    let mut rest = Some(range);
    while let Some(range) = rest {
        let at = range.first();
        let fits = |cidr: &Cidr| cidr.first() == at && cidr.last() <= range.last();
        let sizes = BlockSize::of_log2(127).and_smaller();
        let cidr = sizes.map(|size| Cidr::containing(at, size)).find(fits);
        let cidr = cidr.unwrap_or(Cidr::one(at));
        cidrs.push(cidr);
        rest = cidr.last().next().and_then(|next| AddressRange::new(next, range.last()));
    }
    cidrs
}

/// Returns the parts of a range that are in none of the cidrs, which are in order.
pub(super) fn uncovered(range: AddressRange, cidrs: &[Cidr]) -> Vec<AddressRange> {
    let mut bare = Vec::new();
    let mut at = range.first();
    for cidr in cidrs.iter().filter(|cidr| cidr.range().meets(range)) {
        let before = cidr.first().previous();
        bare.extend(before.and_then(|last| AddressRange::new(at, last)));
        match cidr.last().next() {
            Some(next) => at = at.max(next),
            None => return bare,
        }
    }
    bare.extend(AddressRange::new(at, range.last()));
    bare
}

/// Returns the fewest cidrs that cover what is in `block` and in none of the cidrs, which are in
/// order.
pub(super) fn missing(block: Cidr, cidrs: &[Cidr]) -> impl Iterator<Item = Cidr> {
    uncovered(block.range(), cidrs).into_iter().flat_map(cover)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Address;

    fn cidr(at: u128, log2: u8) -> Cidr {
        Cidr::containing(Address::new(at), BlockSize::of_log2(log2))
    }

    fn range(first: u128, last: u128) -> AddressRange {
        AddressRange::between(Address::new(first), Address::new(last))
    }

    #[test]
    fn a_block_without_a_part_and_the_part_are_the_block() {
        for size in 0..6u8 {
            let block = cidr(64, size);
            for part_size in 0..=size {
                for at in block.addresses() {
                    let part = Cidr::containing(at, BlockSize::of_log2(part_size));
                    let mut parts = without(block, part);
                    parts.push(part);
                    let mut all: Vec<Address> =
                        parts.into_iter().flat_map(Cidr::addresses).collect();
                    all.sort_unstable();
                    assert_eq!(all, block.addresses().collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn an_interval_is_covered_by_few_runs() {
        for first in 0..20 {
            for last in first..40 {
                let range = range(first, last);
                let cidrs = cover(range);
                let all: Vec<Address> = cidrs.iter().flat_map(|cidr| cidr.addresses()).collect();
                assert_eq!(all, range.iter().collect::<Vec<_>>());
                assert!(cidrs.len() <= 10, "{cidrs:?}");
                assert_eq!(uncovered(range, &cidrs), []);
            }
        }
        assert_eq!(cover(AddressRange::ALL).len(), 2);
        let cidrs = [cidr(4, 1), cidr(8, 0)];
        assert_eq!(uncovered(range(0, 10), &cidrs), [range(0, 3), range(6, 7), range(9, 10)]);
        let missing: Vec<Cidr> = missing(cidr(0, 3), &cidrs).collect();
        assert_eq!(missing, [cidr(0, 2), cidr(6, 1)]);
    }
}
