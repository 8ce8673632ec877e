//! The addresses of one range set on this node: blocks in hand, bitmaps, cursor, cooldown.
//!
//! [`RangeSet`] is a machine. Inputs are [`RangeSet::assign`], [`RangeSet::release`],
//! [`RangeSet::undo`], [`RangeSet::claimed`], [`RangeSet::given_back`] and
//! [`RangeSet::handle_timeout`]; after each one, [`RangeSet::poll_effect`] is drained and
//! [`RangeSet::poll_timeout`] says when to call `handle_timeout` next. `now` never goes backwards.
//!
//! Every call brings the ranges it may use (its *view*): runtimes may send other ranges with every
//! call, while the addresses taken stay taken.

mod books;
mod demand;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Millis;
use super::address::Family;
use super::block::{Block, BlockState};
use super::cooling::Cooling;
use super::interval::Intervals;
use super::range::Ranges;
use super::search::{Candidate, Index};
use crate::limits;

pub use types::{Assign, AssignError, Claimed, Effect, Restored, Stats};

use demand::Demand;

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct RangeSet {
    family: Family,
    block_log2: u8,
    cooldown: Millis,
    held: BTreeMap<u128, Block>,
    open: BTreeSet<u128>,
    claimed: Intervals,
    cooling: Cooling,
    cursors: BTreeMap<u16, u128>,
    waiting: VecDeque<(Millis, Assign)>,
    effects: VecDeque<Effect>,
    demand: Demand,
    claiming: bool,
    giving_back: bool,
    next_sweep: Millis,
    stats: Stats,
}

enum Attempt {
    Done(Result<u128, AssignError>),
    Wait,
}

impl RangeSet {
    /// An empty set. `block_log2` is the usual size of its blocks, `cooldown` in milliseconds.
    pub fn new(family: Family, block_log2: u8, cooldown: Millis) -> Self {
        Self {
            family,
            block_log2,
            cooldown,
            held: BTreeMap::new(),
            open: BTreeSet::new(),
            claimed: Intervals::default(),
            cooling: Cooling::default(),
            cursors: BTreeMap::new(),
            waiting: VecDeque::new(),
            effects: VecDeque::new(),
            demand: Demand { batch: 1, claimed_at: None, failed: None },
            claiming: false,
            giving_back: false,
            next_sweep: 0,
            stats: Stats::default(),
        }
    }

    /// Puts back what the journal and the store know.
    ///
    /// # Errors
    /// An address that is in none of the blocks.
    pub fn restore(&mut self, restored: Restored) -> Result<(), u128> {
        for (run, revision) in restored.blocks {
            self.hold(run, revision);
        }
        for number in restored.allocated {
            self.block(number).ok_or(number)?;
            self.take(number);
        }
        // An address may be there several times: it cools from its last release.
        let cooling: BTreeMap<u128, Millis> =
            restored.cooling.into_iter().map(|(released, number)| (number, released)).collect();
        let mut cooling: Vec<_> = cooling.into_iter().map(|(n, released)| (released, n)).collect();
        cooling.sort_unstable();
        for (released, number) in cooling {
            if self.block(number).ok_or(number)?.is_taken(number) {
                continue; // assigned again since
            }
            self.take(number);
            self.cool(released, number);
        }
        self.cursors.extend(restored.cursors);
        Ok(())
    }

    /// Takes over everything that another set of the same family held.
    pub fn absorb(&mut self, other: Self) {
        debug_assert!(other.waiting.is_empty() && !other.is_asking());
        self.held.extend(other.held);
        self.open.extend(other.open);
        for (start, end) in other.claimed.iter() {
            self.claimed.insert(start, end);
        }
        for (slot, cursor) in other.cursors {
            self.cursors.entry(slot).or_insert(cursor);
        }
        let mine = std::mem::take(&mut self.cooling);
        let mut cooling: Vec<_> = mine.drain().chain(other.cooling.drain()).collect();
        cooling.sort_unstable();
        for (released, number) in cooling {
            self.cooling.push(released, number);
        }
        self.stats.allocated += other.stats.allocated;
        self.stats.cooling += other.stats.cooling;
        self.stats.free += other.stats.free;
        self.stats.active += other.stats.active;
    }

    /// Assigns an address, or answers later with [`Effect::Assigned`] when a block must be had
    /// first. Requests are served in the order in which they came.
    pub fn assign(&mut self, now: Millis, request: Assign) -> Option<Result<u128, AssignError>> {
        self.warm(now);
        if self.waiting.is_empty()
            && let Attempt::Done(result) = self.attempt(now, &request)
        {
            return Some(result);
        }
        if self.waiting.len() >= limits::ASSIGNS_WAITING_MAX {
            return Some(Err(AssignError::Busy));
        }
        self.waiting.push_back((now + limits::ASSIGN_WAIT_MS_MAX, request));
        None
    }

    /// Releases an assigned address, whose release is durable: it cools from `now` on.
    pub fn release(&mut self, now: Millis, number: u128) {
        self.cool(now, number);
        self.warm(now);
        self.serve(now);
    }

    /// Takes back an assignment that nobody has seen: no cooldown, but the cursor stays moved.
    pub fn undo(&mut self, now: Millis, number: u128) {
        self.free(number);
        self.stats.allocated -= 1;
        self.serve(now);
    }

    /// The end of an [`Effect::Claim`].
    pub fn claimed(&mut self, now: Millis, claimed: Claimed) {
        self.claiming = false;
        self.demand.failed = None;
        match claimed {
            Claimed::Done(runs) => {
                for (run, revision) in runs {
                    self.hold(run, revision);
                }
            }
            Claimed::Conflict(runs) => {
                for run in runs {
                    self.claimed.insert(run.start, run.end());
                }
            }
            Claimed::Failed(cause) => {
                self.demand.failed = Some((now + limits::CLAIM_PAUSE_MS, cause));
            }
        }
        self.serve(now);
    }

    /// The end of an [`Effect::GiveBack`]: whether the blocks are free now.
    pub fn given_back(&mut self, now: Millis, done: bool) {
        self.giving_back = false;
        let draining: Vec<u128> = (self.held.iter())
            .filter(|(_, block)| block.state == BlockState::Draining)
            .map(|(&start, _)| start)
            .collect();
        for start in draining {
            self.stats.draining -= 1;
            if done {
                let Some(block) = self.held.remove(&start) else { continue };
                self.claimed.remove(start, block.run().end());
            } else if let Some(block) = self.held.get_mut(&start) {
                block.state = BlockState::Active;
                self.stats.active += 1;
                self.stats.free += u64::from(block.free());
                self.open.insert(start);
            }
        }
        self.serve(now);
    }

    /// Ends waits that took too long, lets addresses cool off and gives idle blocks back.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.warm(now);
        while let Some((deadline, _)) = self.waiting.front()
            && *deadline <= now
            && let Some((_, request)) = self.waiting.pop_front()
        {
            let cause = "the store did not answer in time".into();
            self.effects.push_back(Effect::Assigned(request.id, Err(AssignError::NoBlock(cause))));
        }
        if self.next_sweep <= now {
            self.next_sweep = now + limits::SWEEP_MS;
            self.sweep();
        }
    }

    /// When [`RangeSet::handle_timeout`] has something to do next; never, when nothing is cooling
    /// and nothing could be given back.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let wait = self.waiting.front().map(|(deadline, _)| *deadline);
        let cool = self.cooling.oldest().map(|released| released + self.cooldown);
        let sweep = (self.held.len() > 1).then_some(self.next_sweep);
        [wait, cool, sweep].into_iter().flatten().min()
    }

    /// Whether a claim or a give-back is under way.
    pub fn is_asking(&self) -> bool {
        self.claiming || self.giving_back
    }

    /// The next effect, until there is none.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether an address of these ranges could be assigned now, or a block leased for one.
    pub fn could_assign(&mut self, now: Millis, view: &Ranges) -> bool {
        self.warm(now);
        let offered = |number| view.find(number).is_some_and(|range| range.offers(number, None));
        match self.index().next(view, None, None) {
            Some(Candidate::Free(_)) => true,
            Some(Candidate::Unclaimed(_)) => {
                self.demand.failed.as_ref().is_none_or(|(until, _)| *until <= now)
            }
            None => self.cooling.oldest_where(offered).is_some(),
        }
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The usual size of a block, as the binary logarithm of its number of addresses.
    pub fn block_log2(&self) -> u8 {
        self.block_log2
    }

    /// The blocks in hand, in order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.held.values()
    }

    fn attempt(&mut self, now: Millis, request: &Assign) -> Attempt {
        if let Some(number) = request.asked {
            return self.attempt_asked(now, number, request);
        }
        let (view, cursor) = (&*request.view, self.cursors.get(&request.slot).copied());
        match self.index().next(view, cursor, request.stage) {
            Some(Candidate::Free(number)) => {
                self.hand_out(number, request.slot);
                self.look_ahead(now, view, number);
                Attempt::Done(Ok(number))
            }
            Some(Candidate::Unclaimed(number)) => self.need(now, number, view),
            None => self.attempt_cooling(request),
        }
    }

    /// When nothing else is left, the address that cooled longest goes.
    fn attempt_cooling(&mut self, request: &Assign) -> Attempt {
        let offered = |number| {
            let range = request.view.find(number);
            range.is_some_and(|range| range.offers(number, request.stage))
        };
        if let Some(number) = self.cooling.oldest_where(offered) {
            self.take_cooling(number, request.slot);
            return Attempt::Done(Ok(number));
        }
        if self.giving_back {
            return Attempt::Wait;
        }
        let view = request.view.to_string();
        Attempt::Done(Err(AssignError::Exhausted { view, stage: request.stage }))
    }

    fn attempt_asked(&mut self, now: Millis, number: u128, request: &Assign) -> Attempt {
        let address = self.family.address(number);
        let taken = || AssignError::Taken { address, view: request.view.to_string() };
        let Some(range) = request.view.find(number) else {
            return Attempt::Done(Err(taken()));
        };
        if range.is_gateway(number) {
            return Attempt::Done(Err(AssignError::Gateway(address)));
        }
        if !range.offers(number, request.stage) {
            return Attempt::Done(Err(AssignError::Stage { address, stage: request.stage }));
        }
        if self.block(number).is_some_and(|block| block.state == BlockState::Draining) {
            return Attempt::Wait;
        }
        match self.index().look_at(number) {
            Some(Candidate::Free(_)) => self.hand_out(number, request.slot),
            Some(Candidate::Unclaimed(_)) => return self.need(now, number, &request.view),
            // Asked for by name, an address need not have cooled off.
            None if self.block(number).is_some_and(|block| block.is_cooling(number)) => {
                self.take_cooling(number, request.slot);
            }
            None => return Attempt::Done(Err(taken())),
        }
        Attempt::Done(Ok(number))
    }

    fn hand_out(&mut self, number: u128, slot: u16) {
        self.take(number);
        self.cursors.insert(slot, number);
    }

    /// Answers the requests that wait, in order, as far as possible.
    fn serve(&mut self, now: Millis) {
        while let Some((deadline, request)) = self.waiting.pop_front() {
            match self.attempt(now, &request) {
                Attempt::Done(result) => {
                    self.effects.push_back(Effect::Assigned(request.id, result));
                }
                Attempt::Wait => {
                    self.waiting.push_front((deadline, request));
                    break;
                }
            }
        }
    }

    /// Frees the addresses that have cooled off.
    fn warm(&mut self, now: Millis) {
        let Some(until) = now.checked_sub(self.cooldown) else { return };
        while let Some(number) = self.cooling.pop(until) {
            self.block_mut(number).set_cooling(number, false);
            self.stats.cooling -= 1;
            self.free(number);
        }
    }

    fn index(&self) -> Index<'_> {
        Index { held: &self.held, open: &self.open, claimed: &self.claimed }
    }
}
