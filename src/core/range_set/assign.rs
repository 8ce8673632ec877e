//! Calls: addresses are assigned, released and taken back.

use std::collections::VecDeque;

use super::{Assign, AssignError, Effect, RangeSet};
use crate::core::address::Address;
use crate::core::block::BlockState;
use crate::core::cause::Cause;
use crate::core::inventory::{AddressState, Move};
use crate::core::mutant::{Mutant, broken};
use crate::core::range::Ranges;
use crate::core::search::{Candidate, Search};
use crate::core::stage::Stage;
use crate::core::time::BootTime;
use crate::limits;

/// The end of an attempt to serve a request.
pub(super) enum Attempt {
    Done(Result<Address, AssignError>),
    /// The request must wait for something that is on its way.
    Wait,
}

/// The requests that wait, in the order in which they came, each with its time.
#[derive(Clone, Default, Debug)]
pub(super) struct Waiting(VecDeque<(BootTime, Assign)>);

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the time at which the first of them has waited for too long.
    pub(super) fn deadline(&self) -> Option<BootTime> {
        self.0.front().map(|(came, _)| *came + limits::ASSIGN_WAIT_MAX)
    }

    /// Returns whether a request must wait behind one of the first of these.
    fn blocks(&self, request: &Assign, first: usize) -> bool {
        self.0.iter().take(first).any(|(_, waiting)| waiting.is_like(request))
    }
}

impl RangeSet {
    /// Assigns an address, or answers later with [`Effect::Assigned`] when a block must be had
    /// first. Requests are served in the order in which they came.
    pub fn assign(
        &mut self,
        now: BootTime,
        request: Assign,
    ) -> Option<Result<Address, AssignError>> {
        self.expire_cooldowns(now);
        self.allowed.insert(request.set_index, request.allowed.clone());
        let behind = self.waiting.blocks(&request, usize::MAX);
        if !behind && let Attempt::Done(result) = self.attempt(now, now, &request) {
            return Some(result);
        }
        if self.waiting.0.len() >= limits::ASSIGNS_WAITING_MAX {
            return Some(Err(AssignError::Busy));
        }
        self.waiting.0.push_back((now, request));
        None
    }

    /// Releases an assigned address, whose release is durable: it cools from `now` on.
    pub fn release(&mut self, now: BootTime, number: Address) {
        self.apply(number, Move::Release(now));
        self.used(now);
        self.expire_cooldowns(now);
        self.serve(now);
    }

    /// Takes back an assignment that nobody has seen: no cooldown, but the cursor stays moved.
    pub fn undo(&mut self, now: BootTime, number: Address) {
        self.apply(number, Move::Undo);
        self.used(now);
        self.serve(now);
    }

    /// Returns whether an address of these ranges could be assigned now, or a block leased for
    /// one; otherwise every address that may be had is taken.
    ///
    /// # Errors
    /// The reason why this node can assign none, although there may be some.
    pub fn could_assign(&mut self, now: BootTime, allowed: &Ranges) -> Result<bool, Cause> {
        self.expire_cooldowns(now);
        if let Some(cause) = self.cluster.refusal(now) {
            return Err(cause);
        }
        match (self.next(now, allowed, None, None), self.unable(now)) {
            (Some(Candidate::Free(_)), _) => return Ok(true),
            (Some(Candidate::Spare(_) | Candidate::Unclaimed(_)), unable) => {
                return unable.map_or(Ok(true), Err);
            }
            (None, _) => {}
        }
        if self.inventory.oldest_cooling(|number| offers(allowed, number, None)).is_some() {
            return Ok(true);
        }
        match self.unable(now) {
            Some(cause) if self.finds.has_others() => Err(cause),
            _ => Ok(self.finds.may_have(now, allowed)),
        }
    }

    /// Answers the requests that wait, in order, as far as possible: behind one that must wait on,
    /// all requests for the same wait too.
    pub(super) fn serve(&mut self, now: BootTime) {
        if self.waiting.is_empty() {
            return;
        }
        for (came, request) in std::mem::take(&mut self.waiting.0) {
            if self.waiting.blocks(&request, limits::KINDS_WAITING_MAX) {
                self.waiting.0.push_back((came, request));
                continue;
            }
            match self.attempt(now, came, &request) {
                Attempt::Done(result) => {
                    self.effects.push_back(Effect::Assigned(request.id, result));
                }
                Attempt::Wait => self.waiting.0.push_back((came, request)),
            }
        }
    }

    /// Answers the requests that have waited for too long.
    pub(super) fn end_waits(&mut self, now: BootTime) {
        while self.waiting.deadline().is_some_and(|deadline| deadline <= now)
            && let Some((_, request)) = self.waiting.0.pop_front()
        {
            let error = AssignError::NoBlock(Cause::NoAnswerInTime);
            self.effects.push_back(Effect::Assigned(request.id, Err(error)));
        }
    }

    /// Answers every request that waits: no block can be had, because of this.
    pub(super) fn fail_waiting(&mut self, cause: &Cause) {
        for (_, request) in std::mem::take(&mut self.waiting.0) {
            let error = AssignError::NoBlock(cause.clone());
            self.effects.push_back(Effect::Assigned(request.id, Err(error)));
        }
    }

    /// Tries to serve a request that came at this time (`came`).
    fn attempt(&mut self, now: BootTime, came: BootTime, request: &Assign) -> Attempt {
        if let Some(cause) = self.cluster.refusal(now) {
            return Attempt::Done(Err(AssignError::Halted(cause)));
        }
        if let Some(number) = request.requested {
            return self.attempt_requested(now, came, number, request);
        }
        let (allowed, cursor) = (&*request.allowed, self.cursors.get(&request.set_index).copied());
        match self.next(now, allowed, cursor, request.stage) {
            Some(Candidate::Free(number)) => {
                let done = self.hand_out(number, Move::Allocate, request);
                self.look_ahead(now, allowed, number);
                done
            }
            Some(Candidate::Spare(number)) if broken(Mutant::SpareIsActive) => {
                let block = self.inventory.block(number).map(|block| block.cidr());
                block.into_iter().for_each(|cidr| self.set_state(cidr, BlockState::Active));
                self.hand_out(number, Move::Allocate, request)
            }
            Some(Candidate::Spare(number) | Candidate::Unclaimed(number)) => {
                self.need(now, number, allowed)
            }
            None => self.attempt_find(now, came, request),
        }
    }

    /// Looks for the next address; while nothing can be leased, the addresses in hand come first.
    fn next(
        &self,
        now: BootTime,
        allowed: &Ranges,
        cursor: Option<Address>,
        stage: Option<Stage>,
    ) -> Option<Candidate> {
        let search = self.search();
        let next = search.next(allowed, cursor, stage)?;
        match next {
            Candidate::Spare(_) | Candidate::Unclaimed(_) if self.unable(now).is_some() => {
                let shared = Some(self.settings.seed);
                Search { shared, ..search }.next(allowed, cursor, stage)
            }
            next => Some(next),
        }
    }

    /// Looks for an address that a call asks for by name.
    fn attempt_requested(
        &mut self,
        now: BootTime,
        came: BootTime,
        number: Address,
        request: &Assign,
    ) -> Attempt {
        let address = self.family.address(number);
        let Some(range) = request.allowed.find(number) else {
            return Attempt::Done(Err(self.taken(number, request)));
        };
        if range.is_gateway(number) {
            return Attempt::Done(Err(AssignError::Gateway(address)));
        }
        if !range.may_have(number, request.stage) {
            return Attempt::Done(Err(AssignError::Stage { address, stage: request.stage }));
        }
        let block = self.inventory.block(number);
        let block = block.map(|block| (block.state(), block.state_of(number)));
        match (self.search().look_at(number), block) {
            (Some(Candidate::Free(_)), _) => self.hand_out(number, Move::Allocate, request),
            (Some(_), _) => self.need(now, number, &request.allowed),
            (None, Some((BlockState::Returning, _))) => Attempt::Wait,
            // Asked for by name, an address need not have cooled off.
            (None, Some((BlockState::Active, AddressState::Cooling))) => {
                self.hand_out(number, Move::Reuse, request)
            }
            (None, Some(_)) => Attempt::Done(Err(self.taken(number, request))),
            (None, None) => self.attempt_find(now, came, request),
        }
    }

    /// Hands out the address that cooled longest. It goes when nothing else is left.
    pub(super) fn attempt_cooling(&mut self, request: &Assign) -> Option<Attempt> {
        // An address in transfer does not cool, and one in a lost block was never this node's.
        let here = |number| {
            self.inventory.block(number).is_some_and(|block| block.state() == BlockState::Active)
        };
        let wanted = |number| offers(&request.allowed, number, request.stage) && here(number);
        let number = self.inventory.oldest_cooling(wanted)?;
        Some(self.hand_out(number, Move::Reuse, request))
    }

    /// Returns whether no address cools that this request could have.
    pub(super) fn nothing_cools_for(&self, request: &Assign) -> bool {
        let wanted = |number| offers(&request.allowed, number, request.stage);
        request.requested.is_some() || self.inventory.oldest_cooling(wanted).is_none()
    }

    /// Hands out an address that the inventory has just offered.
    fn hand_out(&mut self, number: Address, how: Move, request: &Assign) -> Attempt {
        if !self.apply(number, how) {
            return Attempt::Done(Err(self.taken(number, request)));
        }
        self.cursors.insert(request.set_index, number);
        Attempt::Done(Ok(number))
    }

    pub(super) fn taken(&self, number: Address, request: &Assign) -> AssignError {
        let (address, allowed) = (self.family.address(number), request.allowed.clone());
        AssignError::Taken { address, allowed }
    }
}

/// Returns whether a pod of that stage may get the address without asking for it.
fn offers(allowed: &Ranges, number: Address, stage: Option<Stage>) -> bool {
    allowed.find(number).is_some_and(|range| range.offers(number, stage))
}
