//! What every range set must know of the cluster, also one that opens later.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::Millis;
use crate::core::leaseholder::Effect;
use crate::core::range_set::RangeSet;

/// The state of the cluster as this node knows it.
#[derive(Default, Debug)]
pub(super) struct ClusterView {
    /// How often the node's lease was lost.
    pub(super) lease_number: u64,
    pub(super) joined: bool,
    pub(super) alone: Option<bool>,
    pub(super) stalled: Option<Arc<str>>,
    pub(super) halted: Option<Arc<str>>,
    pub(super) draining: bool,
    /// With `offline_limit`: until when addresses may be handed out.
    pub(super) good_until: Option<Millis>,
    /// Why nothing is handed out before the node has joined, if so (rule 17).
    pub(super) unconfirmed: Option<Arc<str>>,
    /// What is held is published in the store.
    pub(super) records: bool,
    /// What was said of single blocks while range sets become one (rule 16).
    pub(super) held_back: VecDeque<Effect>,
}

impl ClusterView {
    /// Nothing is known yet. `unconfirmed`: why nothing is handed out before the node has joined;
    /// `limited`: nor before the store was reached, nor too long after that.
    pub(super) fn new(unconfirmed: Option<Arc<str>>, records: bool, limited: bool) -> Self {
        let good_until = limited.then_some(0);
        Self { unconfirmed, records, good_until, ..Self::default() }
    }

    /// Why nothing is handed out, if so.
    pub(super) fn halted(&self) -> Option<Arc<str>> {
        self.halted.clone().or_else(|| self.unconfirmed.clone())
    }

    /// Why no block can be leased, if so.
    pub(super) fn unable(&self) -> Option<Arc<str>> {
        let draining = || self.draining.then(|| "an operator drains this node".into());
        self.halted().or_else(draining).or_else(|| self.stalled.clone())
    }

    /// Tells a range set that opens all that the others know.
    pub(super) fn tell(&self, now: Millis, set: &mut RangeSet) {
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
        if let Some(until) = self.good_until {
            set.good_until(now, until);
        }
    }
}
