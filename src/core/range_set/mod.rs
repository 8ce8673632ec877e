//! The addresses of one range set on this node: blocks in hand, bitmaps, cursor, cooldown.
//!
//! [`RangeSet`] is a machine. Inputs are [`RangeSet::assign`], [`RangeSet::release`],
//! [`RangeSet::undo`], what comes from the cluster ([`RangeSet::leased`] and the like) and
//! [`RangeSet::handle_timeout`]; after each one, [`RangeSet::poll_effect`] is drained and
//! [`RangeSet::poll_timeout`] says when to call `handle_timeout` next. `now` never goes backwards.
//!
//! Every call brings the ranges it may use (its *view*): runtimes may send other ranges with every
//! call, while the addresses taken stay taken.

mod books;
mod cluster;
mod demand;
#[cfg(test)]
mod tests;
mod transfer;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Millis;
use super::address::{Cidr, Family};
use super::block::{Block, BlockState};
use super::cooling::Cooling;
use super::interval::Intervals;
use super::mutant::{Mutant, broken};
use super::range::Ranges;
use super::search::{Candidate, Index};
use super::stage::Stage;
use crate::limits;

pub use types::{Assign, AssignError, Effect, RecoveredSet, Settings, Stats};

use super::value::BlockStatus;
use demand::Demand;
use transfer::Transfers;

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct RangeSet {
    family: Family,
    block_log2: u8,
    settings: Settings,
    held: BTreeMap<u128, Block>,
    open: BTreeSet<u128>,
    spares: BTreeSet<u128>,
    claimed: Intervals,
    cooling: Cooling,
    cursors: BTreeMap<u16, u128>,
    waiting: VecDeque<(Millis, Assign)>,
    effects: VecDeque<Effect>,
    demand: Demand,
    transfers: Transfers,
    /// What is being leased.
    leasing: Option<Leasing>,
    /// What is being given back, and what it was before.
    giving_back: Vec<(Cidr, BlockState)>,
    /// The node has joined: what the journal says of blocks is known to be so (rule 25).
    joined: bool,
    /// No other node is in the cluster.
    alone: bool,
    /// Why nothing can be leased now.
    stalled: Option<Arc<str>>,
    /// Why nothing may be handed out.
    halted: Option<Arc<str>>,
    /// Until when anything may be handed out; no limit, if there is none.
    good_until: Option<Millis>,
    /// An operator wants the blocks back.
    draining: bool,
    next_reclaim: Millis,
    /// The fewest free addresses since the last sweep.
    low_free: u64,
    stats: Stats,
}

/// Spares that are made active, and runs that are claimed.
type Leasing = (Vec<Cidr>, Vec<(Cidr, BlockStatus)>);

enum Attempt {
    Done(Result<u128, AssignError>),
    Wait,
}

impl RangeSet {
    /// An empty set. `block_log2` is the usual size of its blocks.
    pub fn new(family: Family, block_log2: u8, settings: Settings) -> Self {
        Self {
            family,
            block_log2,
            settings,
            held: BTreeMap::new(),
            open: BTreeSet::new(),
            spares: BTreeSet::new(),
            claimed: Intervals::default(),
            cooling: Cooling::default(),
            cursors: BTreeMap::new(),
            waiting: VecDeque::new(),
            effects: VecDeque::new(),
            demand: Demand { batch: 1, claimed_at: None, failed: None },
            transfers: Transfers::default(),
            leasing: None,
            giving_back: Vec::new(),
            joined: false,
            alone: true,
            stalled: None,
            halted: None,
            good_until: None,
            draining: false,
            next_reclaim: 0,
            low_free: 0,
            stats: Stats::default(),
        }
    }

    /// Puts back what the journal and the store know.
    ///
    /// # Errors
    /// An address that is in none of the blocks.
    pub fn restore(&mut self, restored: RecoveredSet) -> Result<(), u128> {
        for cidr in restored.blocks {
            self.hold(cidr, BlockState::Active);
        }
        for cidr in restored.lost {
            self.hold(cidr, BlockState::Lost);
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
            // Assigned again since, or cooled off and gone with its block.
            if self.block(number).is_some_and(|block| !block.is_taken(number)) {
                self.take(number);
                self.cool(released, number);
            }
        }
        self.cursors.extend(restored.cursors);
        Ok(())
    }

    /// Learns from the store what the journal forgot: blocks of this node, and addresses of them
    /// that are held. The others of them may be in use as well: they cool from now on.
    pub fn recover(&mut self, now: Millis, blocks: &[Cidr], held: &BTreeSet<u128>) {
        for &cidr in blocks {
            if self.held.range(cidr.start..=cidr.end()).next().is_none()
                && self.block(cidr.start).is_none()
            {
                self.hold(cidr, BlockState::Active);
            }
            for number in cidr.start..=cidr.end() {
                let Some(block) = self.block(number) else { continue };
                if block.is_cooling(number) {
                    self.block_mut(number).set_cooling(number, false);
                    self.cooling.take(number);
                    self.stats.cooling -= 1;
                    self.stats.allocated += 1;
                } else if !block.is_taken(number) {
                    self.take(number);
                } else {
                    continue;
                }
                if !held.contains(&number) {
                    self.cool(now, number);
                }
            }
        }
        self.expire_cooldowns(now);
    }

    /// Takes over everything that another set of the same family held.
    pub fn absorb(&mut self, other: Self) {
        debug_assert!(other.waiting.is_empty() && !other.is_asking());
        self.held.extend(other.held);
        self.open.extend(other.open);
        self.spares.extend(other.spares);
        self.transfers.absorb(other.transfers);
        for (start, end) in other.claimed.iter() {
            self.claimed.insert(start, end);
        }
        for (set_index, cursor) in other.cursors {
            self.cursors.entry(set_index).or_insert(cursor);
        }
        let mine = std::mem::take(&mut self.cooling);
        let mut cooling: Vec<_> = mine.drain().chain(other.cooling.drain()).collect();
        cooling.sort_unstable();
        for (released, number) in cooling {
            self.cooling.push(released, number);
        }
        self.stats.add(other.stats);
    }

    /// Assigns an address, or answers later with [`Effect::Assigned`] when a block must be had
    /// first. Requests are served in the order in which they came.
    pub fn assign(&mut self, now: Millis, request: Assign) -> Option<Result<u128, AssignError>> {
        self.expire_cooldowns(now);
        let behind = self.waiting.iter().any(|(_, waiting)| waiting.is_like(&request));
        if !behind && let Attempt::Done(result) = self.attempt(now, now, &request) {
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
        self.expire_cooldowns(now);
        self.serve(now);
    }

    /// Takes back an assignment that nobody has seen: no cooldown, but the cursor stays moved.
    pub fn undo(&mut self, now: Millis, number: u128) {
        self.free(number);
        self.stats.allocated -= 1;
        self.serve(now);
    }

    /// Ends waits that took too long, lets addresses cool off and gives idle blocks back.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.expire_cooldowns(now);
        while let Some((deadline, _)) = self.waiting.front()
            && *deadline <= now
            && let Some((_, request)) = self.waiting.pop_front()
        {
            let cause = "the cluster's store, or the nodes asked, did not answer in time".into();
            self.effects.push_back(Effect::Assigned(request.id, Err(AssignError::NoBlock(cause))));
        }
        if self.next_reclaim <= now {
            let period =
                if self.draining { limits::DRAIN_RECLAIM_IDLE_MS } else { limits::RECLAIM_IDLE_MS };
            self.next_reclaim = now + period;
            self.reclaim_idle();
        }
        if self.transfers.due().is_some_and(|due| due <= now) {
            self.transfers.forget(now);
            self.serve(now);
        }
    }

    /// When [`RangeSet::handle_timeout`] has something to do next; never, when nothing is cooling
    /// and nothing could be given back.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let wait = self.waiting.front().map(|(deadline, _)| *deadline);
        let search = self.transfers.due().filter(|_| wait.is_some());
        let cool = self.cooling.oldest().map(|released| released + self.settings.cooldown);
        let reclaim_idle = self.may_give_back().then_some(self.next_reclaim);
        [wait, search, cool, reclaim_idle].into_iter().flatten().min()
    }

    /// Whether there is anything but the one block that is always kept.
    fn may_give_back(&self) -> bool {
        let one = self.held.len() == 1 && self.stats.active == 1 && !self.draining;
        !self.held.is_empty() && !one
    }

    /// Whether something is under way in the cluster.
    pub fn is_asking(&self) -> bool {
        self.leasing.is_some() || !self.giving_back.is_empty() || self.transfers.is_asking()
    }

    /// The next effect, until there is none.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether an address of these ranges could be assigned now, or a block leased for one.
    pub fn could_assign(&mut self, now: Millis, allowed: &Ranges) -> bool {
        self.expire_cooldowns(now);
        if self.halted.is_some() || self.draining || self.is_overdue(now) {
            return false;
        }
        let offered = |number| allowed.find(number).is_some_and(|range| range.offers(number, None));
        match self.next(now, allowed, None, None) {
            Some(Candidate::Free(_)) => true,
            Some(Candidate::Spare(_) | Candidate::Unclaimed(_)) => self.unable(now).is_none(),
            None => {
                self.cooling.oldest_where(offered).is_some()
                    || self.transfers.may_have(now, allowed) && self.unable(now).is_none()
            }
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

    /// `came`: when the request came.
    fn attempt(&mut self, now: Millis, came: Millis, request: &Assign) -> Attempt {
        if let Some(cause) = &self.halted {
            return Attempt::Done(Err(AssignError::Halted(cause.clone())));
        }
        if self.is_overdue(now) {
            let cause = "the cluster's store was not reached for longer than offlineLimit".into();
            return Attempt::Done(Err(AssignError::Halted(cause)));
        }
        if self.draining {
            let cause = "an operator drains it (leasehold node drain)".into();
            return Attempt::Done(Err(AssignError::Halted(cause)));
        }
        if let Some(number) = request.requested {
            return self.attempt_asked(now, came, number, request);
        }
        let (allowed, cursor) = (&*request.allowed, self.cursors.get(&request.set_index).copied());
        match self.next(now, allowed, cursor, request.stage) {
            Some(Candidate::Free(number)) => {
                self.hand_out(number, request.set_index);
                self.look_ahead(now, allowed, number);
                Attempt::Done(Ok(number))
            }
            Some(Candidate::Spare(number)) if broken(Mutant::SpareIsActive) => {
                self.use_spare(number);
                self.hand_out(number, request.set_index);
                Attempt::Done(Ok(number))
            }
            Some(Candidate::Spare(number) | Candidate::Unclaimed(number)) => {
                self.need(now, number, allowed)
            }
            None => self.attempt_elsewhere(now, came, request),
        }
    }

    /// The next address; while nothing can be leased, what is in hand comes first.
    fn next(
        &self,
        now: Millis,
        allowed: &Ranges,
        cursor: Option<u128>,
        stage: Option<Stage>,
    ) -> Option<Candidate> {
        let index = self.index();
        let next = index.next(allowed, cursor, stage)?;
        match next {
            Candidate::Spare(_) | Candidate::Unclaimed(_) if self.unable(now).is_some() => {
                let shared = Some(self.settings.seed);
                Index { shared, ..index }.next(allowed, cursor, stage)
            }
            next => Some(next),
        }
    }

    /// When nothing else is left, the address that cooled longest goes.
    fn attempt_cooling(&mut self, request: &Assign) -> Option<u128> {
        let offered = |number| {
            let range = request.allowed.find(number);
            range.is_some_and(|range| range.offers(number, request.stage))
        };
        // What is being given away is not here any more; what is lost was never ours.
        let here = |number| self.block(number).is_some_and(|b| b.state == BlockState::Active);
        let number = self.cooling.oldest_where(|number| offered(number) && here(number))?;
        self.take_cooling(number, request.set_index);
        Some(number)
    }

    fn attempt_asked(
        &mut self,
        now: Millis,
        came: Millis,
        number: u128,
        request: &Assign,
    ) -> Attempt {
        let address = self.family.address(number);
        let taken = || AssignError::Taken { address, allowed: request.allowed.to_string() };
        let Some(range) = request.allowed.find(number) else {
            return Attempt::Done(Err(taken()));
        };
        if range.is_gateway(number) {
            return Attempt::Done(Err(AssignError::Gateway(address)));
        }
        if !range.offers(number, request.stage) {
            return Attempt::Done(Err(AssignError::Stage { address, stage: request.stage }));
        }
        let block = self.block(number).map(|block| (block.state, block.is_cooling(number)));
        match (self.index().look_at(number), block) {
            (Some(Candidate::Free(_)), _) => self.hand_out(number, request.set_index),
            (Some(_), _) => return self.need(now, number, &request.allowed),
            (None, Some((BlockState::Returning, _))) => return Attempt::Wait,
            // Asked for by name, an address need not have cooled off.
            (None, Some((BlockState::Active, true))) => {
                self.take_cooling(number, request.set_index);
            }
            (None, Some(_)) => return Attempt::Done(Err(taken())),
            (None, None) => return self.attempt_elsewhere(now, came, request),
        }
        Attempt::Done(Ok(number))
    }

    fn hand_out(&mut self, number: u128, set_index: u16) {
        self.take(number);
        self.cursors.insert(set_index, number);
    }

    /// Answers the requests that wait, in order, as far as possible: behind one that must wait on,
    /// everybody who wants the same waits too.
    fn serve(&mut self, now: Millis) {
        let mut still: VecDeque<(Millis, Assign)> = VecDeque::new();
        while let Some((deadline, request)) = self.waiting.pop_front() {
            let behind = still.iter().take(limits::KINDS_WAITING_MAX);
            if behind.clone().any(|(_, waiting)| waiting.is_like(&request)) {
                still.push_back((deadline, request));
                continue;
            }
            let came = deadline.saturating_sub(limits::ASSIGN_WAIT_MS_MAX);
            match self.attempt(now, came, &request) {
                Attempt::Done(result) => {
                    self.effects.push_back(Effect::Assigned(request.id, result));
                }
                Attempt::Wait => still.push_back((deadline, request)),
            }
        }
        self.waiting = still;
    }

    /// Frees the addresses that have cooled off.
    fn expire_cooldowns(&mut self, now: Millis) {
        let Some(until) = now.checked_sub(self.settings.cooldown) else { return };
        while let Some(number) = self.cooling.pop(until) {
            self.block_mut(number).set_cooling(number, false);
            self.stats.cooling -= 1;
            self.free(number);
        }
    }

    fn index(&self) -> Index<'_> {
        let Self { held, open, spares, claimed, .. } = self;
        let shared = (!self.alone).then_some(self.settings.seed);
        Index { held, open, spares, claimed, shared }
    }
}
