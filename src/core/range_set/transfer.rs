//! Addresses that other nodes hold: asking for them, and being asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Attempt, Effect, RangeSet};
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::block::{Block, BlockState};
use crate::core::leaseholder::{Found, Question, without};
use crate::core::mutant::{Mutant, broken};
use crate::core::range::Ranges;
use crate::core::range_set::types::{Assign, AssignError};
use crate::core::stage::Stage;
use crate::limits;

/// What is wanted of others.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Want {
    Address(u128),
    AnyOf(Arc<Ranges>, Option<Stage>),
}

impl Want {
    fn of(request: &Assign) -> Self {
        match request.requested {
            Some(number) => Self::Address(number),
            None => Self::AnyOf(request.allowed.clone(), request.stage),
        }
    }

    /// The addresses, as first and last of each run.
    fn addresses(&self) -> Vec<(u128, u128)> {
        let (allowed, stage) = match self {
            Self::Address(number) => return vec![(*number, *number)],
            Self::AnyOf(allowed, stage) => (allowed, *stage),
        };
        if let Some(stage) = stage {
            let listed = allowed.iter().flat_map(|range| range.listed(stage));
            return listed.map(|&number| (number, number)).collect();
        }
        let mut wanted = Vec::new();
        for range in allowed.iter() {
            let gateway = crate::core::address::number(range.gateway);
            let listed = Stage::ALL.iter().flat_map(|&stage| range.listed(stage)).copied();
            let mut not: Vec<u128> = listed.chain([gateway]).collect();
            not.retain(|number| range.contains(*number) && !range.offers(*number, None));
            not.sort_unstable();
            let mut first = range.start;
            for number in not {
                if first < number {
                    wanted.push((first, number - 1));
                }
                first = number + 1;
            }
            if first <= range.end {
                wanted.push((first, range.end));
            }
        }
        wanted
    }
}

/// A part of a block that is on its way to another node.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    block: Cidr,
    give: Cidr,
    cooling: bool,
}

/// What nobody had.
#[derive(Clone, Debug)]
struct Refusal {
    want: Want,
    /// When the search began: who came later may find what was released since.
    began: Millis,
    /// Until when nobody searches for the same again.
    until: Millis,
    /// Which node might have had it, and since when that one is known to be gone.
    gone: Option<(Arc<str>, Millis)>,
}

/// What is known and under way of addresses elsewhere.
#[derive(Clone, Default, Debug)]
pub(super) struct Transfers {
    /// Some addresses are in blocks of others.
    pub(super) others: bool,
    /// What is searched for, and since when.
    finding: Option<(Want, Millis)>,
    refused: Vec<Refusal>,
    in_transfer: BTreeMap<String, Transfer>,
    /// Questions that cannot be answered before it is known what comes of the blocks on their way.
    unanswered: Vec<Question>,
}

impl Transfers {
    pub(super) fn is_asking(&self) -> bool {
        self.finding.is_some() || !self.in_transfer.is_empty()
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.others |= other.others;
        self.refused.extend(other.refused);
    }

    pub(super) fn forget(&mut self, now: Millis) {
        self.refused.retain(|refusal| now < refusal.until);
    }

    /// When something can be searched for again.
    pub(super) fn due(&self) -> Option<Millis> {
        self.refused.iter().map(|refusal| refusal.until).min()
    }

    /// Whether another node may have an address of these ranges.
    pub(super) fn may_have(&self, now: Millis, allowed: &Ranges) -> bool {
        let refused = |refusal: &Refusal| match &refusal.want {
            Want::AnyOf(of, None) => **of == *allowed && now < refusal.until,
            _ => false,
        };
        self.others && !self.refused.iter().any(refused)
    }
}

impl RangeSet {
    /// Nothing is free in hand and nothing can be leased: others may have it. After them, the
    /// address that cooled longest goes.
    pub(super) fn attempt_elsewhere(
        &mut self,
        now: Millis,
        came: Millis,
        request: &Assign,
    ) -> Attempt {
        let want = Want::of(request);
        self.transfers.forget(now);
        let known = self.transfers.refused.iter().find(|refusal| refusal.want == want);
        let refused = known.filter(|refusal| came <= refusal.began);
        let refused = refused.map(|refusal| refusal.gone.clone());
        let unable = self.unable(now);
        if refused.is_none() && self.transfers.others && unable.is_none() {
            if self.transfers.finding.is_none() && known.is_none() {
                let wanted = want.addresses();
                let even_cooling = self.nothing_cools_for(request);
                self.transfers.finding = Some((want, now));
                self.effects.push_back(Effect::Find { wanted, even_cooling });
            }
            return Attempt::Wait;
        }
        if request.requested.is_none()
            && let Some(number) = self.attempt_cooling(request)
        {
            return Attempt::Done(Ok(number));
        }
        if !self.giving_back.is_empty() {
            return Attempt::Wait;
        }
        let allowed = request.allowed.to_string();
        let error = match (refused.flatten(), unable, request.requested) {
            (Some((node, since)), ..) => {
                AssignError::Gone { allowed, node, seconds: now.saturating_sub(since) / 1000 }
            }
            (None, Some(cause), _) if self.transfers.others => AssignError::NoBlock(cause),
            (None, _, Some(number)) => {
                AssignError::Taken { address: self.family.address(number), allowed }
            }
            (None, _, None) => AssignError::Exhausted { allowed, stage: request.stage },
        };
        Attempt::Done(Err(error))
    }

    fn nothing_cools_for(&self, request: &Assign) -> bool {
        let offered = |number| {
            let range = request.allowed.find(number);
            range.is_some_and(|range| range.offers(number, request.stage))
        };
        request.requested.is_some() || self.cooling.oldest_where(offered).is_none()
    }

    /// The end of an [`Effect::Find`].
    pub fn found(&mut self, now: Millis, found: Found) {
        let Some((want, began)) = self.transfers.finding.take() else { return };
        match found {
            Found::Given(cidrs) if broken(Mutant::WatchDecides) => {
                cidrs.into_iter().for_each(|cidr| self.hold(cidr, BlockState::Active));
            }
            Found::Given(cidrs) => return self.spares(now, &cidrs),
            Found::Gap(others) => self.relearn(&want, &others),
            Found::Nobody { others, gone } => {
                self.relearn(&want, &others);
                if self.transfers.refused.len() >= limits::WANTS_REFUSED_MAX {
                    self.transfers.refused.remove(0);
                }
                let many = matches!(want, Want::AnyOf(_, None));
                let until = now + if many { limits::NOBODY_MS } else { 1 };
                self.transfers.refused.push(Refusal { want, began, until, gone });
            }
            Found::Failed(cause) => {
                self.demand.failed = Some((now + limits::CLAIM_PAUSE_MS, cause));
            }
        }
        self.serve(now);
    }

    /// What was known of these addresses is forgotten: these are the blocks of others there.
    fn relearn(&mut self, want: &Want, others: &[Cidr]) {
        for (first, last) in want.addresses() {
            self.claimed.remove(first, last);
        }
        for block in self.held.values() {
            self.claimed.insert(block.cidr().start, block.cidr().end());
        }
        if let Some((_, claim)) = &self.leasing {
            for (cidr, _) in claim {
                self.claimed.insert(cidr.start, cidr.end());
            }
        }
        self.others(others);
    }

    /// Another node asks for an address.
    pub fn asked(&mut self, now: Millis, question: Question) {
        self.expire_cooldowns(now);
        if self.transfers.in_transfer.contains_key(&question.key) {
            return; // it is being answered
        }
        let choice = self.choose(&question);
        let Some((block, give, cooling)) = choice else {
            // What is on its way, here or away, may be what is asked for: who is refused now might
            // find nobody with it.
            let moving = self.leasing.is_some()
                || !self.giving_back.is_empty()
                || !self.transfers.in_transfer.is_empty();
            if moving && self.transfers.unanswered.len() < limits::QUESTIONS_WAITING_MAX {
                return self.transfers.unanswered.push(question);
            }
            return self.effects.push_back(Effect::Refuse(question));
        };
        let spare = self.spares.contains(&block.start);
        self.reserve(block, give, cooling);
        let in_transfer = Transfer { block, give, cooling };
        self.transfers.in_transfer.insert(question.key.clone(), in_transfer);
        self.effects.push_back(Effect::Transfer { question, block, give, spare });
    }

    /// What was on its way has arrived.
    pub(super) fn answer_questions(&mut self, now: Millis) {
        for question in std::mem::take(&mut self.transfers.unanswered) {
            self.asked(now, question);
        }
    }

    /// What to give: of a spare, or the largest free part of an active block, but no more than
    /// half of what is free here; at last an address that cools.
    fn choose(&self, question: &Question) -> Option<(Cidr, Cidr, bool)> {
        let half = (self.stats.free / 2).max(1);
        let leasing = |cidr: Cidr| self.leasing.as_ref().is_some_and(|(a, _)| a.contains(&cidr));
        let usable = |block: &&Block| !block.in_transfer && !leasing(block.cidr());
        let mut best: Option<(bool, Cidr, Cidr)> = None;
        for &(first, last) in &question.wanted {
            let from = self.held.range(..=first).next_back().map_or(first, |(start, _)| *start);
            let blocks = self.held.range(from..=last).map(|(_, block)| block);
            for block in blocks.filter(usable) {
                let whole = match block.state {
                    BlockState::Spare => true,
                    BlockState::Active => false,
                    _ => continue,
                };
                let most = if whole { u64::MAX } else { half };
                let Some(give) = largest_free(block, first, last, most) else { continue };
                let better = best.as_ref().is_none_or(|(best_whole, _, best)| {
                    (whole, give.size_log2) > (*best_whole, best.size_log2)
                });
                if better {
                    best = Some((whole, block.cidr(), give));
                }
            }
        }
        if let Some((_, block, give)) = best {
            return Some((block, give, false));
        }
        if !question.even_cooling {
            return None;
        }
        let wanted = |number| question.wanted.iter().any(|&(f, l)| f <= number && number <= l);
        let here = |number| {
            let block = self.block(number).filter(usable);
            block.is_some_and(|block| block.state == BlockState::Active)
        };
        let number = self.cooling.oldest_where(|number| wanted(number) && here(number))?;
        let block = self.block(number)?;
        Some((block.cidr(), Cidr::containing(number, 0), true))
    }

    /// Keeps what is given away from being handed out.
    fn reserve(&mut self, block: Cidr, give: Cidr, cooling: bool) {
        for number in give.start..=give.end() {
            if cooling {
                self.block_mut(number).set_cooling(number, false);
                self.cooling.take(number);
                self.stats.cooling -= 1;
            } else if !self.block(number).is_some_and(|block| block.is_taken(number)) {
                self.take(number);
                self.stats.allocated -= 1;
            }
            self.stats.leaving += 1;
        }
        if let Some(block) = self.held.get_mut(&block.start) {
            block.in_transfer = true;
        }
    }

    /// A block, less what is on its way to another node: the journal has let go of that.
    pub(super) fn staying(&self, block: Cidr) -> Vec<Cidr> {
        let gives = self.transfers.in_transfer.values().map(|in_transfer| in_transfer.give);
        let give = gives.filter(|give| give.start <= block.end() && block.start <= give.end());
        match give.max_by_key(|give| give.size_log2) {
            None => vec![block],
            Some(give) if give.size_log2 >= block.size_log2 => vec![],
            Some(give) => without(block, give),
        }
    }

    /// The end of an [`Effect::Transfer`]: whether that part is the other node's now.
    pub fn transferred(&mut self, now: Millis, key: &str, done: bool) {
        let Some(Transfer { block, give, cooling }) = self.transfers.in_transfer.remove(key) else {
            return;
        };
        self.unreserve(now, give, cooling && !done);
        let whole = self.held.get_mut(&block.start).filter(|held| held.cidr() == block);
        if let Some(whole) = whole {
            whole.in_transfer = false;
            if done && let Some(whole) = self.take_out(block.start) {
                for part in without(block, give) {
                    self.put_in(whole.part(part));
                }
                self.transfers.others = true;
            }
        }
        if !done {
            // The journal let go of that part; the block may be several by now.
            let here = self.held.range(block.start..=block.end()).map(|(_, held)| held);
            let keep = here.filter_map(|held| match held.state {
                BlockState::Spare => None,
                BlockState::Lost => Some(Effect::JournalLost(held.cidr())),
                BlockState::Active | BlockState::Returning => {
                    Some(Effect::JournalBlock(held.cidr()))
                }
            });
            let keep: Vec<Effect> = keep.collect();
            self.effects.extend(keep);
        }
        self.serve(now);
        self.answer_questions(now);
    }

    fn unreserve(&mut self, now: Millis, give: Cidr, cool: bool) {
        for number in give.start..=give.end() {
            self.stats.leaving -= 1;
            self.stats.allocated += 1;
            if cool {
                self.cool(now, number);
            } else {
                self.free(number);
                self.stats.allocated -= 1;
            }
        }
    }

    /// A block goes out of the books: what was on its way out of it is not any more.
    pub(super) fn forget_giving(&mut self, now: Millis, block: Cidr) {
        let in_transfer =
            self.transfers.in_transfer.iter().find(|(_, in_transfer)| in_transfer.block == block);
        if let Some(key) = in_transfer.map(|(key, _)| key.clone())
            && let Some(Transfer { give, .. }) = self.transfers.in_transfer.remove(&key)
        {
            self.unreserve(now, give, false);
        }
    }

    /// For the simulator: what must never be done.
    pub(super) fn use_spare(&mut self, number: u128) {
        let cidr = self.block_mut(number).cidr();
        self.turn(cidr.start, BlockState::Active);
    }
}

/// The largest run of free addresses of a block within `first..=last` that has at most that many.
fn largest_free(block: &Block, first: u128, last: u128, most: u64) -> Option<Cidr> {
    let cidr = block.cidr();
    let (first, last) = (first.max(cidr.start), last.min(cidr.end()));
    let fits = |log2: &u8| 1u64 << log2 <= most;
    (0..=cidr.size_log2).rev().filter(fits).find_map(|log2| {
        let mut at = Cidr::containing(first, log2);
        while at.end() <= last {
            let free = |number| !block.is_taken(number) || broken(Mutant::GiveWhatIsHeld);
            if at.start >= first && (at.start..=at.end()).all(free) {
                return Some(at);
            }
            at = Cidr::containing(at.end().checked_add(1)?, log2);
        }
        None
    })
}
