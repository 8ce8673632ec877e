//! The reasons why a node leases no blocks or hands out nothing. They are values: the words are in
//! `crate::words`.

use std::sync::Arc;
use std::time::Duration;

use super::txn::StoreError;

/// The reason why no block can be leased, or nothing may be handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A request to the cluster's store did not succeed.
    Store(StoreError),
    /// The value of this key in the store cannot be read.
    UnreadableValue(Arc<str>),
    /// The store, or the nodes asked, did not answer within [`crate::limits::ASSIGN_WAIT_MAX`].
    NoAnswerInTime,
    /// The store did not take a record within [`crate::limits::ASSIGN_WAIT_MAX`].
    NotRecordedInTime,
    /// The node has not joined the cluster since its daemon started.
    NotJoined,
    /// The node's lease is gone, and there is no new one yet.
    LeaseGone,
    /// The store was not reached for longer than `offlineLimit`.
    OfflineLimit,
    /// An operator drains the node.
    Draining,
    /// This is another boot, and the store has not confirmed the journal's blocks yet.
    Unconfirmed,
    /// The store was restored from a backup, and not every node has said what it holds.
    Restored {
        /// The nodes for which that waits, as far as they are known.
        awaited: Arc<[Arc<str>]>,
    },
    /// Another daemon joined the cluster as this node.
    TakenOver {
        /// The node's name.
        node: Arc<str>,
    },
    /// The node is another machine in the store.
    OtherMachine {
        /// The node's name.
        node: Arc<str>,
        /// The machine in the store.
        stored: Arc<str>,
        /// This machine.
        own: Arc<str>,
    },
    /// The node has a session, but this daemon's state directory has never joined a cluster.
    NameInUse {
        /// The node's name.
        node: Arc<str>,
        /// The lifetime of a session without its daemon.
        ttl: Duration,
    },
    /// The node in the store is another state directory's.
    OtherDirectory {
        /// The node's name.
        node: Arc<str>,
        /// The identity in the store.
        stored: Arc<str>,
        /// This one.
        own: Arc<str>,
        /// The node has a session.
        lives: bool,
    },
    /// The node has a session of another boot: this daemon may run on a copy of its disk.
    OtherBoot {
        /// The node's name.
        node: Arc<str>,
        /// The lifetime of a session without its daemon.
        ttl: Duration,
    },
    /// This live node holds some of the addresses that are left, and did not answer a question.
    OwnerSilent(Arc<str>),
    /// Blocks change hands faster than their owners can be asked.
    BlocksMoving,
    /// The node has [`crate::limits::RANGE_SETS_MAX`] range sets, and a new one is needed.
    TooManySets,
    /// Others change the network's key in the store all the time.
    NetworkChanging,
}

impl Cause {
    /// Returns whether the store may not be reached, or does not take what is asked of it.
    pub fn is_of_the_store(&self) -> bool {
        matches!(
            self,
            Self::Store(_)
                | Self::NoAnswerInTime
                | Self::NotRecordedInTime
                | Self::LeaseGone
                | Self::OfflineLimit
        )
    }
}
