//! The coordinator forgets range sets that nobody uses.

use std::sync::Arc;

use super::coordinator::CoordinatorMachine;
use super::message::{Event, Output, ToRangeSet};
use crate::core::ids::MessageCount;
use crate::core::mutant::{Mutant, broken};
use crate::core::set_identity::SetId;
use crate::core::time::BootTime;
use crate::limits;

impl CoordinatorMachine {
    /// Forgets a range set that says that it has nothing. It must have handled all that was sent to
    /// it: a message that is on its way may give it something (rule 32).
    pub(super) fn forget_unused(
        &mut self,
        now: BootTime,
        network: &Arc<str>,
        set: SetId,
        received: MessageCount,
    ) {
        let all = self.sets.get(&set) == Some(&received) || broken(Mutant::ForgottenUnheard);
        if !all || !self.is_serving() || !self.core.forget(now, network, set) {
            return;
        }
        self.sets.remove(&set);
        self.outputs.push_back(Output::Close(set));
        if !self.core.is_used(network) {
            self.overlaps.retain(|(a, b)| a != network && b != network);
        }
        let overlaps = self.overlaps.len();
        self.report(Event::Forgotten { network: network.clone(), overlaps });
        self.update_crowded();
    }

    /// Returns whether no range set can be added.
    pub(super) fn is_full(&self) -> bool {
        self.sets.len() >= limits::RANGE_SETS_MAX
    }

    /// Tells the range sets when there is no room for another one, and when there is some again.
    pub(super) fn update_crowded(&mut self) {
        let roomy = self.sets.len() <= limits::RANGE_SETS_MAX - limits::RANGE_SETS_MAX / 8;
        let crowded = self.is_full() || self.crowded && !roomy;
        if self.crowded != crowded {
            self.crowded = crowded;
            for set in self.sets() {
                self.send_set(set, ToRangeSet::Crowded(crowded));
            }
        }
    }
}
