//! Where the next address comes from: host-local's walk, without walking.
//!
//! After the last address handed out, in range order, wrapping; the last one itself is tried last.
//! Each step is a look-up in an ordered index (blocks with free addresses; runs that are in no
//! block), so the cost does not depend on the size of the ranges or on how much is taken.

use std::collections::{BTreeMap, BTreeSet};

use super::block::Block;
use super::interval::Intervals;
use super::range::{Range, Ranges};
use super::stage::Stage;

/// The next address in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Candidate {
    /// Free in a block that this node holds.
    Free(u128),
    /// In no block yet.
    Unclaimed(u128),
}

impl Candidate {
    fn number(self) -> u128 {
        match self {
            Self::Free(number) | Self::Unclaimed(number) => number,
        }
    }
}

/// What is searched: the blocks in hand and what is known to be in a block, ours or not.
#[derive(Clone, Copy)]
pub struct Index<'a> {
    /// The blocks that this node holds, by their first address.
    pub held: &'a BTreeMap<u128, Block>,
    /// Those of them that are active and have a free address.
    pub open: &'a BTreeSet<u128>,
    /// Every address that is in some block.
    pub claimed: &'a Intervals,
}

impl Index<'_> {
    /// The next address for a pod of that stage, after `cursor`.
    pub fn next(
        self,
        view: &Ranges,
        cursor: Option<u128>,
        stage: Option<Stage>,
    ) -> Option<Candidate> {
        segments(view, cursor).find_map(|segment| match stage {
            None => self.first_offered(segment),
            Some(stage) => self.first_listed(segment, stage),
        })
    }

    /// The next address after `cursor` that is in no block, and how many addresses of its range
    /// lie before it.
    pub fn next_unclaimed(self, view: &Ranges, cursor: Option<u128>) -> Option<(u128, u128)> {
        let mut before = 0u128;
        for Segment { start, end, .. } in segments(view, cursor) {
            match self.claimed.first_gap(start).filter(|gap| *gap <= end) {
                Some(gap) => return Some((gap, before.saturating_add(gap - start))),
                None => before = before.saturating_add(end - start),
            }
        }
        None
    }

    fn first_offered(self, segment: Segment<'_>) -> Option<Candidate> {
        let mut from = segment.start;
        loop {
            let free = self.first_free(from).map(Candidate::Free);
            let unclaimed = self.claimed.first_gap(from).map(Candidate::Unclaimed);
            let candidate = [free, unclaimed].into_iter().flatten().min_by_key(|c| c.number())?;
            if candidate.number() > segment.end {
                return None;
            }
            // Only gateways and listed addresses are stepped over: a handful in any range.
            if segment.range.offers(candidate.number(), None) {
                return Some(candidate);
            }
            from = candidate.number().checked_add(1)?;
        }
    }

    fn first_listed(self, segment: Segment<'_>, stage: Stage) -> Option<Candidate> {
        let list = segment.range.listed(stage);
        let from = list.partition_point(|&number| number < segment.start);
        let in_segment = list[from..].iter().take_while(|&&number| number <= segment.end);
        in_segment.copied().find_map(|number| self.look_at(number))
    }

    /// The address itself, unless it is taken or in a block that cannot hand it out.
    pub fn look_at(self, number: u128) -> Option<Candidate> {
        if self.first_free(number) == Some(number) {
            Some(Candidate::Free(number))
        } else if self.claimed.overlaps(number, number) {
            None
        } else {
            Some(Candidate::Unclaimed(number))
        }
    }

    fn first_free(self, from: u128) -> Option<u128> {
        let around = self.held.range(..=from).next_back();
        let around = around.filter(|(start, _)| self.open.contains(start));
        if let Some(number) = around.and_then(|(_, block)| block.first_free(from)) {
            return Some(number);
        }
        let next = self.open.range(from..).next()?;
        self.held.get(next)?.first_free(*next)
    }
}

/// A part of a range, in the order of the walk.
#[derive(Clone, Copy)]
struct Segment<'a> {
    range: &'a Range,
    start: u128,
    end: u128,
}

/// The rest of the cursor's range, the ranges after it, those before it, and its range up to and
/// with the cursor. Without a cursor (or with one outside the set): all ranges in order.
fn segments(view: &Ranges, cursor: Option<u128>) -> impl Iterator<Item = Segment<'_>> {
    let whole = |range| Segment { range, start: range.start, end: range.end };
    let at = cursor.and_then(|c| Some((c, view.iter().position(|range| range.contains(c))?)));
    let first = at.map_or(0, |(_, i)| i);
    let rest = at.and_then(|(c, i)| {
        let range = view.iter().nth(i)?;
        (c < range.end).then(|| Segment { start: c + 1, ..whole(range) })
    });
    let up_to = at.and_then(|(c, i)| Some(Segment { end: c, ..whole(view.iter().nth(i)?) }));
    let after = view.iter().skip(first + usize::from(at.is_some())).map(whole);
    let before = view.iter().take(first).map(whole);
    rest.into_iter().chain(after).chain(before).chain(up_to)
}
