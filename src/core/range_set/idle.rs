//! The end of a range set that nobody uses: it gives back all its blocks, and says that it has
//! nothing. Then the coordinator may forget it.

use super::{Effect, RangeSet, Stats};
use crate::core::time::BootTime;
use crate::limits;

/// The use of a range set.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Idle {
    /// The last time at which an address was handed out, released or taken back, if there was one
    /// since the daemon started.
    used_at: Option<BootTime>,
    /// The time of the next look, if it is not as soon as the range set is unused for long enough.
    next_look: Option<BootTime>,
    /// The node has no room for another range set: what holds nothing is forgotten at once.
    crowded: bool,
}

impl Idle {
    /// Takes over the use of another range set.
    pub(super) fn absorb(&mut self, other: Self) {
        self.used_at = self.used_at.max(other.used_at);
    }

    /// Looks again at this time.
    pub(super) fn look_at(&mut self, now: BootTime) {
        self.next_look = Some(now);
    }
}

impl RangeSet {
    /// Remembers that the range set is used.
    pub fn used(&mut self, now: BootTime) {
        self.idle.used_at = Some(now);
    }

    /// Remembers that the node has no room for another range set, or that it has.
    pub fn crowded(&mut self, now: BootTime, crowded: bool) {
        self.idle.crowded = crowded;
        self.idle.look_at(now);
    }

    /// Returns whether no address is held, cools or is on its way to another node, and nobody waits
    /// for one.
    fn holds_nothing(&self) -> bool {
        let Stats { allocated, cooling, in_transfer, .. } = self.stats();
        allocated + cooling + in_transfer == 0 && self.waiting.is_empty()
    }

    /// Returns the time of the next look at a range set that holds nothing.
    pub(super) fn forget_due(&self) -> Option<BootTime> {
        let Idle { used_at, next_look, crowded } = self.idle;
        // One that was not used by this daemon was used at the boot, as far as is known.
        let used_at = used_at.unwrap_or(BootTime::BOOT);
        let until = if crowded { used_at } else { used_at + self.settings.forget_after };
        self.holds_nothing().then(|| next_look.map_or(until, |look| until.max(look)))
    }

    /// Gives everything back, and then says that nothing is left, if it is time.
    pub(super) fn end_if_unused(&mut self, now: BootTime) {
        if self.forget_due().is_none_or(|due| due > now) {
            return;
        }
        self.idle.next_look = Some(now + limits::RECLAIM_IDLE);
        if self.inventory.blocks().next().is_some() {
            self.reclaim(true);
        } else if !self.is_asking() {
            self.effects.push_back(Effect::Unused);
        }
    }
}
