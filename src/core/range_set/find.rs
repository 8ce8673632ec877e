//! Addresses in the blocks of other nodes: asking for them.

use std::sync::Arc;

use super::assign::Attempt;
use super::{Assign, AssignError, Effect, RangeSet};
use crate::core::address::{Address, AddressRange, Cidr};
use crate::core::block::BlockState;
use crate::core::leaseholder::Found;
use crate::core::mutant::{Mutant, broken};
use crate::core::range::Ranges;
use crate::core::stage::Stage;
use crate::core::time::BootTime;
use crate::limits;

/// The addresses that a request could be served with.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Want {
    Address(Address),
    AnyOf(Arc<Ranges>, Option<Stage>),
}

impl Want {
    fn of(request: &Assign) -> Self {
        match request.requested {
            Some(number) => Self::Address(number),
            None => Self::AnyOf(request.allowed.clone(), request.stage),
        }
    }

    /// Returns the addresses.
    fn addresses(&self) -> Vec<AddressRange> {
        let (allowed, stage) = match self {
            Self::Address(number) => return vec![AddressRange::one(*number)],
            Self::AnyOf(allowed, stage) => (allowed, *stage),
        };
        if let Some(stage) = stage {
            let listed = allowed.iter().flat_map(|range| range.listed(stage));
            return listed.copied().map(AddressRange::one).collect();
        }
        let mut wanted = Vec::new();
        for range in allowed.iter().filter(|range| !range.reserved) {
            let gateway = Address::of(range.gateway);
            let listed = Stage::ALL.iter().flat_map(|&stage| range.listed(stage)).copied();
            let mut not: Vec<Address> = listed.chain([gateway]).collect();
            not.retain(|number| range.contains(*number) && !range.offers(*number, None));
            not.sort_unstable();
            let mut rest = Some(range.addresses());
            for number in not {
                let Some(left) = rest else { break };
                let before = number.previous();
                wanted.extend(before.and_then(|last| AddressRange::new(left.first(), last)));
                rest = number.next().and_then(|first| AddressRange::new(first, left.last()));
            }
            wanted.extend(rest);
        }
        wanted
    }
}

/// Addresses that no node had.
#[derive(Clone, Debug)]
struct Refusal {
    want: Want,
    /// Addresses that cool at other nodes would have done.
    even_cooling: bool,
    /// The time at which the search began. A request that came later may find an address that was
    /// released since.
    began: BootTime,
    /// The time until which nobody searches for the same again.
    until: BootTime,
    /// The node that might have had it, and the time since which that one is known to be gone.
    gone: Option<(Arc<str>, BootTime)>,
}

/// A search that has begun.
#[derive(Clone, Debug)]
struct Finding {
    want: Want,
    /// Addresses that cool at other nodes will do.
    even_cooling: bool,
    began: BootTime,
}

/// Searches for addresses in the blocks of other nodes.
#[derive(Clone, Default, Debug)]
pub(super) struct Finds {
    /// Some addresses are in blocks of others.
    others: bool,
    finding: Option<Finding>,
    refused: Vec<Refusal>,
}

impl Finds {
    pub(super) fn is_asking(&self) -> bool {
        self.finding.is_some()
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.others |= other.others;
        self.refused.extend(other.refused);
    }

    /// Remembers that some addresses are in blocks of others.
    pub(super) fn observe_others(&mut self) {
        self.others = true;
    }

    /// Returns whether some addresses are in blocks of others.
    pub(super) fn has_others(&self) -> bool {
        self.others
    }

    /// Forgets the searches that found nothing and may be tried again.
    pub(super) fn forget(&mut self, now: BootTime) {
        self.refused.retain(|refusal| now < refusal.until);
    }

    /// Returns the time at which something can be searched for again.
    pub(super) fn due(&self) -> Option<BootTime> {
        self.refused.iter().map(|refusal| refusal.until).min()
    }

    /// Returns whether another node may have an address of these ranges.
    pub(super) fn may_have(&self, now: BootTime, allowed: &Ranges) -> bool {
        let refused = |refusal: &Refusal| match &refusal.want {
            Want::AnyOf(of, None) => **of == *allowed && now < refusal.until,
            _ => false,
        };
        self.others && !self.refused.iter().any(refused)
    }
}

impl RangeSet {
    /// Asks other nodes, when no address is free in hand and no block can be leased. If they have
    /// none, the address that cooled longest goes.
    pub(super) fn attempt_find(
        &mut self,
        now: BootTime,
        came: BootTime,
        request: &Assign,
    ) -> Attempt {
        let want = Want::of(request);
        self.finds.forget(now);
        // The last address that cools here may have gone to a request before this one: then the
        // others are asked once more, for addresses that cool there (rule 27).
        let even_cooling = self.nothing_cools_for(request);
        let covers = |refusal: &&Refusal| {
            let covers = refusal.even_cooling || !even_cooling || broken(Mutant::RefusalShared);
            refusal.want == want && covers
        };
        let known = self.finds.refused.iter().find(covers);
        let refused = known.filter(|refusal| came <= refusal.began);
        let refused = refused.map(|refusal| refusal.gone.clone());
        let known = known.is_some();
        let unable = self.unable(now);
        // A moment ago nobody had one: another search would find the same.
        if known
            && request.requested.is_none()
            && let Some(done) = self.attempt_cooling(request)
        {
            return done;
        }
        if refused.is_none() && self.finds.others && unable.is_none() {
            if self.finds.finding.is_none() && !known {
                let wanted = want.addresses();
                self.finds.finding = Some(Finding { want, even_cooling, began: now });
                self.effects.push_back(Effect::Find { wanted, even_cooling });
            }
            return Attempt::Wait;
        }
        if request.requested.is_none()
            && let Some(done) = self.attempt_cooling(request)
        {
            return done;
        }
        if self.demand.is_giving_back() {
            return Attempt::Wait;
        }
        let allowed = request.allowed.clone();
        let error = match (refused.flatten(), unable, request.requested) {
            (Some((node, since)), ..) => {
                AssignError::Gone { allowed, node, gone_for: now.since(since) }
            }
            (None, Some(cause), _) if self.finds.others => AssignError::NoBlock(cause),
            (None, _, Some(number)) => self.taken(number, request),
            (None, _, None) => AssignError::Exhausted { allowed, stage: request.stage },
        };
        Attempt::Done(Err(error))
    }

    /// Handles the end of an [`Effect::Find`].
    pub fn found(&mut self, now: BootTime, found: Found) {
        let Some(Finding { want, even_cooling, began }) = self.finds.finding.take() else {
            return;
        };
        match found {
            Found::Given(cidrs) if broken(Mutant::WatchDecides) => {
                cidrs.into_iter().for_each(|cidr| self.insert(cidr, BlockState::Active));
            }
            Found::Given(cidrs) => return self.spares(now, &cidrs),
            Found::Taken(cidr) | Found::Forfeited { cidr, .. } => self.take_parked(now, cidr),
            Found::Gap(others) => self.relearn(&want, &others),
            Found::Nobody { others, gone } => {
                self.relearn(&want, &others);
                if self.finds.refused.len() >= limits::WANTS_REFUSED_MAX {
                    self.finds.refused.remove(0);
                }
                let many = matches!(want, Want::AnyOf(_, None));
                let until = now + if many { limits::NOBODY } else { limits::CLOCK_STEP };
                self.finds.refused.push(Refusal { want, even_cooling, began, until, gone });
            }
            Found::Failed(cause) => self.demand.pause(now, cause),
        }
        self.serve(now);
    }

    /// Forgets the claims on these addresses, and learns the blocks of others there.
    fn relearn(&mut self, want: &Want, others: &[Cidr]) {
        for range in want.addresses() {
            self.inventory.forget_claims(range);
        }
        self.demand.claiming().for_each(|cidr| self.inventory.claim(cidr));
        self.learn_others(others);
    }

    /// Remembers blocks of others.
    pub(super) fn learn_others(&mut self, others: &[Cidr]) {
        for &cidr in others {
            self.inventory.claim(cidr);
            self.finds.observe_others();
        }
    }
}
