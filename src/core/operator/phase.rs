//! The phases of a removal.

use super::types::End;
use crate::core::ids::LeaseId;
use crate::core::txn::{KeyValue, Span};

/// A lease that was granted for the quarantine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    /// A transaction that names it was carried out, or may be yet: blocks may hang on it.
    pub(super) used: bool,
}

/// The request that waits for its answer.
#[derive(Clone, Default, Debug)]
pub(super) enum RemovalPhase {
    #[default]
    Ended,
    /// Reading the node's key and session.
    Reading,
    /// Listing this, and then everything under these prefixes.
    Listing(Span, &'static [&'static str]),
    /// Asking how long the last of these leases lives, and then the others.
    Measuring(Vec<LeaseId>),
    /// Granting the quarantine's lease, or keeping it alive.
    Leasing,
    /// Taking these blocks.
    Taking(Vec<KeyValue>),
    /// Having the quarantine begin again, now that all blocks are in it.
    Prolonging,
    /// Deleting these records.
    Deleting(Vec<KeyValue>),
    /// Granting the lease of the copy of the node's key.
    Remembering,
    /// Deleting the node's key, with its copy on that lease.
    Forgetting(LeaseId),
    /// Releasing a lease; then it ends like this, or looks again.
    Releasing(Option<Box<End>>),
}

impl RemovalPhase {
    /// Returns whether a transaction waits for its answer.
    pub(super) fn is_txn(&self) -> bool {
        matches!(self, Self::Taking(_) | Self::Deleting(_) | Self::Forgetting(_))
    }
}
