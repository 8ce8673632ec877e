//! The command and the result of a removal.

use std::sync::Arc;
use std::time::Duration;

use crate::core::ids::Epoch;
use crate::core::time::UnixTime;
use crate::core::txn::StoreError;

/// The command to remove a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoveNodeCommand {
    /// The node.
    pub node: Arc<str>,
    /// It is the node whose daemon carries this out.
    pub local: bool,
    /// The machine that the caller means, by its `/etc/machine-id`: another machine under the same
    /// name stays, and a node that is gone already is no error. Any machine unless given.
    pub incarnation: Option<Arc<str>>,
    /// Remove it although it has a session, or is the local one.
    pub force: bool,
    /// The time for which nobody gets its blocks, in whole seconds; unless given,
    /// [`QUARANTINE`](crate::limits::QUARANTINE). If it is given, quarantines of an earlier removal
    /// that would last longer end with this one.
    pub quarantine: Option<Duration>,
    /// Find out what would be done, and change nothing.
    pub dry_run: bool,
}

/// The effect of a removal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeFate {
    /// The node was removed.
    Removed,
    /// It was removed before; its blocks are in quarantine.
    AlreadyRemoved,
    /// It was removed before and has no blocks left: its key is deleted.
    Forgotten,
    /// The name belongs to another machine by now: nothing was done.
    Succeeded,
}

/// The changes made to a node, or those that would be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    /// The node's fate.
    pub fate: NodeFate,
    /// Its epoch now; none, if it never had one.
    pub epoch: Option<Epoch>,
    /// The number of blocks that are in quarantine now.
    pub quarantined: usize,
    /// The number of spare blocks that are free now.
    pub freed: usize,
    /// The time for which the quarantine lasts.
    pub quarantine: Duration,
    /// The number of records of its allocations that were deleted.
    pub records: usize,
    /// True if it had a session.
    pub was_live: bool,
    /// The time of the last write of the node that the store knows.
    pub last_write: Option<UnixTime>,
}

/// The reason why a node was not removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoveError {
    /// The quarantine must last so long, at least and at most.
    Quarantine(Duration, Duration),
    /// The store has neither a key nor a block of such a node.
    UnknownNode,
    /// The value of the node's key cannot be read.
    Unreadable,
    /// The store does not say which machine the node is, and the caller means a certain one.
    NoIncarnation,
    /// It is the local node, and force was not asked for.
    Local,
    /// It has a session, and force was not asked for.
    Live,
    /// It was removed, and joined again before all of its blocks and records were taken.
    CameBack,
    /// The quarantine was over before every block was in it.
    QuarantineOver,
    /// It changed between look and transaction at each of
    /// [`CHANGE_TRIES_MAX`](crate::limits::CHANGE_TRIES_MAX) tries.
    Busy,
    /// The store did not answer as it should.
    Store {
        /// Its error.
        error: StoreError,
        /// A part of the removal was carried out, or may have been.
        begun: bool,
    },
}

/// The result of a removal.
pub(super) type End = Result<Removed, RemoveError>;
