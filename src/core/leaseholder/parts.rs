//! Runs taken apart: what is left of a block, and what interval is which runs.

use crate::core::address::Cidr;

/// Returns the runs that together cover `block` without `part`, in order.
pub fn without(block: Cidr, part: Cidr) -> Vec<Cidr> {
    let mut left = Vec::new();
    let mut whole = block;
    while whole.size_log2 > part.size_log2 {
        let half = whole.size_log2 - 1;
        let low = Cidr { start: whole.start, size_log2: half };
        let high = Cidr { start: low.end() + 1, size_log2: half };
        let (inside, outside) = if low.contains(part.start) { (low, high) } else { (high, low) };
        left.push(outside);
        whole = inside;
    }
    left.sort_unstable();
    left
}

/// Returns the fewest runs that cover `first..=last`.
pub(super) fn cover(first: u128, last: u128) -> Vec<Cidr> {
    let mut cidrs = Vec::new();
    let mut at = first;
    loop {
        let fits = |log2: &u8| {
            let cidr = Cidr::containing(at, *log2);
            cidr.start == at && cidr.end() <= last
        };
        let cidr = Cidr::containing(at, (0..=127).rev().find(fits).unwrap_or(0));
        cidrs.push(cidr);
        match cidr.end().checked_add(1) {
            Some(next) if next <= last => at = next,
            _ => return cidrs,
        }
    }
}

/// Returns the parts of `first..=last` that are in none of the runs, which are in order.
pub(super) fn uncovered(first: u128, last: u128, cidrs: &[Cidr]) -> Vec<(u128, u128)> {
    let mut bare = Vec::new();
    let mut at = first;
    for cidr in cidrs.iter().filter(|cidr| cidr.start <= last && cidr.end() >= first) {
        if cidr.start > at {
            bare.push((at, cidr.start - 1));
        }
        match cidr.end().checked_add(1) {
            Some(next) => at = at.max(next),
            None => return bare,
        }
    }
    if at <= last {
        bare.push((at, last));
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_a_part_and_the_part_are_the_block() {
        for size in 0..6u8 {
            let block = Cidr::containing(64, size);
            for part_size in 0..=size {
                for at in block.start..=block.end() {
                    let part = Cidr::containing(at, part_size);
                    let mut parts = without(block, part);
                    parts.push(part);
                    let mut all: Vec<u128> = parts.iter().flat_map(|r| r.start..=r.end()).collect();
                    all.sort_unstable();
                    assert_eq!(all, (block.start..=block.end()).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn an_interval_is_covered_by_few_runs() {
        for first in 0..20 {
            for last in first..40 {
                let cidrs = cover(first, last);
                let all: Vec<u128> = cidrs.iter().flat_map(|r| r.start..=r.end()).collect();
                assert_eq!(all, (first..=last).collect::<Vec<_>>());
                assert!(cidrs.len() <= 10, "{cidrs:?}");
                assert_eq!(uncovered(first, last, &cidrs), []);
            }
        }
        assert_eq!(cover(0, u128::MAX).len(), 2);
        let cidrs = [Cidr::containing(4, 1), Cidr::containing(8, 0)];
        assert_eq!(uncovered(0, 10, &cidrs), [(0, 3), (6, 7), (9, 10)]);
    }
}
