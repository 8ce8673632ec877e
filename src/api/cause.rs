//! The reason why an ADD was refused, in one word for the metrics.

use crate::core::coordinator::CallError;
use crate::core::range_set::AssignError;

/// The cause of an ADD that waits until what another plugin holds is taken over.
pub(super) const NOT_IMPORTED: &str = "not-imported";
/// The cause of an ADD that needs the cluster's store, which does not answer.
pub(super) const STORE: &str = "store";

/// The word for a cause: one of [`crate::metrics::CAUSES`].
pub(super) fn label(error: &CallError) -> &'static str {
    match error {
        CallError::Assign { error, .. } => match error {
            AssignError::Exhausted { .. } => "exhausted",
            AssignError::Taken { .. } => "taken",
            AssignError::Gateway(_) => "gateway",
            AssignError::Stage { .. } => "stage",
            AssignError::Gone { .. } => "node-gone",
            AssignError::NoBlock(_) => "no-block",
            AssignError::Halted(_) => "halted",
            AssignError::Busy => "busy",
        },
        CallError::NotAllAsked(_) => "taken",
        CallError::AlreadyHeld { .. } => "already-held",
        CallError::Overtaken(_) | CallError::TooOld(_) => "overtaken",
        CallError::BlockSize { .. } => "block-size",
        CallError::Store(_) | CallError::NotRecorded(_) | CallError::RenewalNotRecorded(_) => STORE,
        CallError::TooManySets => "range-sets",
        CallError::Journal(_) => "journal",
        CallError::Busy(_) => "busy",
        CallError::Stopping => "stopping",
    }
}
