//! The facts about the cluster that every range set must know, also one that is opened later.

use std::collections::{BTreeSet, VecDeque};

use crate::core::cause::Cause;
use crate::core::ids::{LeaseLosses, MergeCount};
use crate::core::leaseholder::{Effect, NodeIdentity};
use crate::core::mutant::{Mutant, broken};
use crate::core::range_set::{GoodUntil, RangeSet};
use crate::core::set_identity::SetId;
use crate::core::time::BootTime;

/// The state of the cluster as this node knows it.
#[derive(Default, Debug)]
pub(super) struct ClusterFacts {
    /// The number of times that the node's lease was lost.
    pub(super) lease_losses: LeaseLosses,
    pub(super) joined: bool,
    pub(super) alone: Option<bool>,
    pub(super) stalled: Option<Cause>,
    pub(super) halted: Option<Cause>,
    pub(super) draining: bool,
    /// The time until which addresses may be handed out.
    pub(super) good_until: GoodUntil,
    /// Nothing is handed out before the node has joined: its journal is not confirmed (rule 17).
    pub(super) unconfirmed: bool,
    /// The range sets that have not handled yet what the store confirmed.
    pub(super) confirming: BTreeSet<SetId>,
    /// The store says, or may soon, that others may have what this node has no record of.
    pub(super) forfeits: bool,
    /// Holdings are published in the store.
    pub(super) records: bool,
    /// The number of range sets that have become part of others, or are about to.
    pub(super) merges: MergeCount,
    /// Messages about single blocks, held back while range sets become one (rule 16).
    pub(super) held_back: VecDeque<Effect>,
}

impl ClusterFacts {
    /// Creates the facts of a node that knows nothing of the cluster yet. `unconfirmed`: nothing is
    /// handed out before the node has joined.
    pub(super) fn new(identity: &NodeIdentity, unconfirmed: bool) -> Self {
        let limited = identity.offline_limit.is_some();
        Self {
            unconfirmed,
            forfeits: forfeits(identity),
            records: identity.records,
            good_until: if limited { GoodUntil::NotReached } else { GoodUntil::Forever },
            ..Self::default()
        }
    }

    /// Returns the reason why nothing is handed out, if there is one.
    pub(super) fn halted(&self) -> Option<Cause> {
        self.halted.clone().or(self.unconfirmed.then_some(Cause::Unconfirmed))
    }

    /// Returns the reason why no block can be leased, if there is one.
    pub(super) fn unable(&self) -> Option<Cause> {
        self.refusing().or_else(|| self.stalled.clone())
    }

    /// Returns the reason why every ADD is refused, if there is one.
    pub(super) fn refusing(&self) -> Option<Cause> {
        let draining = || self.draining.then_some(Cause::Draining);
        self.halted().or_else(draining)
    }

    /// Forgets the spares that are held back: the lease on which they hung is gone (rule 18).
    pub(super) fn drop_spares(&mut self) {
        if !broken(Mutant::LostLeaseSparesKept) {
            self.held_back.retain(|effect| !matches!(effect, Effect::Spares(..)));
        }
    }

    /// Tells a range set that has just been opened what the other range sets know already.
    pub(super) fn tell(&self, now: BootTime, set: &mut RangeSet) {
        if self.joined {
            set.joined();
        }
        if let Some(alone) = self.alone {
            set.alone(alone);
        }
        set.stalled(now, self.stalled.clone());
        set.halted(now, self.halted());
        if self.draining {
            set.draining(now, true);
        }
        set.good_until(now, self.good_until);
    }
}

/// Returns whether the store may say of this node that others may have what it has no record of
/// (rule 34).
pub(super) fn forfeits(identity: &NodeIdentity) -> bool {
    identity.forfeits_after().is_some() && !broken(Mutant::ForfeitForgotten)
}
