//! The inputs and outputs of the leaseholder.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::core::address::{AddressRange, BlockSize, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::{
    Epoch, LeaseId, Link, MergeCount, OperationId, OrderId, RequestId, Revision,
};
use crate::core::keys::PoolFamily;
use crate::core::time::BootTime;
use crate::core::time::UnixTime;
use crate::core::txn::Request;
use crate::core::value::{AllocationValue, BlockStatus, BlockValue, NetworkValue, NodeValue};

/// The identity of this node, for as long as its daemon runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeIdentity {
    /// The node's name.
    pub node: Arc<str>,
    /// `/etc/machine-id`, if the machine has one.
    pub machine_id: Option<Arc<str>>,
    /// The identity of the state directory: the blocks are this identity's, not the name's. None
    /// in a store that is part of the state directory.
    pub identity: Option<Arc<str>>,
    /// The boot id.
    pub boot_id: Arc<str>,
    /// The daemon's version.
    pub version: Arc<str>,
    /// The time at which the daemon started.
    pub since: UnixTime,
    /// The life of the node's lease as asked for, in whole seconds.
    pub ttl: Duration,
    /// Stop handing out after this long without the store.
    pub offline_limit: Option<Duration>,
    /// An ADD is answered when its record is in the cluster's store.
    pub records_awaited: bool,
    /// Holdings from before a reboot are kept: their containers are there again after it.
    pub keeps_after_reboot: bool,
    /// Allocations are recorded in the store, for other nodes and for people. In a store that only
    /// this node sees they would be written twice.
    pub records: bool,
}

impl NodeIdentity {
    /// Returns the length of the silence after which others may have this node's free addresses:
    /// none, unless everything that it answers is in the store before that (rule 34).
    pub fn forfeits_after(&self) -> Option<Duration> {
        let limit = self.offline_limit.filter(|_| self.records && self.records_awaited)?;
        // In whole seconds, as it is written in the store.
        Some(Duration::from_secs(limit.as_secs() + u64::from(limit.subsec_nanos() > 0)))
    }
}

#[cfg(test)]
impl NodeIdentity {
    /// Returns a node of this name, with nothing special about it.
    pub(crate) fn named(node: &str) -> Self {
        Self {
            node: node.into(),
            machine_id: None,
            identity: None,
            boot_id: "boot".into(),
            version: "test".into(),
            since: UnixTime::EPOCH,
            ttl: Duration::from_secs(30),
            offline_limit: None,
            records_awaited: false,
            keeps_after_reboot: false,
            records: true,
        }
    }
}

/// The blocks of a journal out of which nothing is handed out.
#[derive(Clone, Default, Debug)]
pub struct Withheld {
    /// The store gave them to others, and addresses of them are held.
    pub lost: BTreeSet<(PoolFamily, Cidr)>,
    /// The node gave them back when it stopped.
    pub parked: BTreeSet<(PoolFamily, Cidr)>,
    /// While a restore of the store is being settled, those that were lost before it.
    pub settling: Option<BTreeSet<(PoolFamily, Cidr)>>,
}

/// A record, with its address; nothing when it cannot be read.
pub type Recorded = (IpAddr, Option<Box<AllocationValue>>);

/// The state that a node has in the store, and does not know or not for certain.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct StoredState {
    /// All its blocks.
    pub blocks: Vec<StoredBlock>,
    /// The networks of these blocks.
    pub networks: Vec<(Arc<str>, NetworkValue)>,
    /// Its records in these blocks, with their networks.
    pub records: Vec<(Arc<str>, Recorded)>,
}

/// A block of a node that forgot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredBlock {
    /// Its network and family.
    pub pool: PoolFamily,
    /// Its addresses.
    pub cidr: Cidr,
    /// The parts of it that the node does not have in hand.
    pub missing: Vec<Cidr>,
}

/// A question of another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Its key.
    pub key: String,
    /// The revision of the key.
    pub revision: Revision,
    /// The node that asks.
    pub from: Arc<str>,
    /// The asker's lease, on which what it is given hangs.
    pub lease: LeaseId,
    /// The addresses that it asks about.
    pub pool: PoolFamily,
    /// Any one of these.
    pub wanted: Vec<AddressRange>,
    /// One that cools will do.
    pub even_cooling: bool,
    /// The number of range sets of this node that had become part of others when it was passed on
    /// to the first one (rule 16).
    pub merges: MergeCount,
}

/// A free part of a block of a silent node, and the keys on which it rests, as they were read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forfeited {
    /// The pool.
    pub pool: PoolFamily,
    /// The part.
    pub part: Cidr,
    /// The block.
    pub block: BlockValue,
    /// The revision of the block's key.
    pub block_revision: Revision,
    /// The value of the node's key.
    pub node: NodeValue,
    /// The revision of the node's key.
    pub node_revision: Revision,
}

/// The orders of range sets, the coordinator and the recorder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Make spares active and claim cidrs, as spare or active, all or nothing.
    /// Answered by [`Effect::Leased`].
    Lease {
        /// The pool.
        pool: PoolFamily,
        /// Spares.
        activate: Vec<Cidr>,
        /// Cidrs that are in no block as far as is known.
        claim: Vec<(Cidr, BlockStatus)>,
    },
    /// Give whole blocks back; it is durable that nothing is handed out of them from now on.
    /// Answered by [`Effect::GivenBack`].
    GiveBack {
        /// The pool.
        pool: PoolFamily,
        /// The blocks.
        cidrs: Vec<Cidr>,
    },
    /// Give whole blocks back because the daemon stops: they become free when a lease of that life
    /// has run out, unless this node takes them back before that. Nothing of them is held,
    /// and it is durable that nothing is handed out of them from now on. Answered by
    /// [`Effect::GivenBack`].
    Park {
        /// The pool.
        pool: PoolFamily,
        /// The blocks.
        cidrs: Vec<Cidr>,
        /// The life of the lease, in whole seconds.
        ttl: Duration,
    },
    /// Take a parked block of another node, whose key has this revision. Answered by
    /// [`Effect::Found`].
    Take(PoolFamily, Cidr, Revision),
    /// Take a free part of a block of a node that has been silent for long. Answered by
    /// [`Effect::Found`].
    TakeForfeit(Box<Forfeited>),
    /// Answer a question with a part of a block (or all of it); it is durable that nothing is
    /// handed out of that part from now on. Answered by [`Effect::Transferred`].
    Transfer {
        /// The question.
        question: Question,
        /// The block.
        block: Cidr,
        /// The part.
        give: Cidr,
    },
    /// Answer a question with a refusal.
    Refuse(Question),
    /// Find a way to one of these addresses, which are in no block of this node.
    /// Answered by [`Effect::Found`].
    Find {
        /// The pool.
        pool: PoolFamily,
        /// The addresses.
        wanted: Vec<AddressRange>,
        /// One that cools at its owner's will do.
        even_cooling: bool,
    },
    /// Agree with the cluster on the block size of a range set. Answered by
    /// [`Effect::BlockSizeAgreed`].
    AgreeBlockSize {
        /// The pool.
        pool: PoolFamily,
        /// The addresses of the range set.
        ranges: Vec<AddressRange>,
        /// The block size that its configuration says or implies.
        block_size: BlockSize,
        /// The configuration says it.
        explicit: bool,
    },
    /// Claim again what this node hands out of although the store lost it.
    Reclaim(PoolFamily, Cidr),
    /// Give back a block with a key of this revision that the store has for this node's, and of
    /// which this node knows nothing.
    Drop(PoolFamily, Cidr, Revision),
    /// Say of a block that the store has for this node's, maybe quarantined, which parts of it are
    /// this node's: it knows of no other parts.
    Trim {
        /// The pool.
        pool: PoolFamily,
        /// The block in the store.
        block: Cidr,
        /// The revision of its key.
        revision: Revision,
        /// The parts.
        keep: Vec<Cidr>,
    },
    /// Write the session again, on the current lease.
    Session,
    /// Write records.
    Records,
}

/// The result of an [`Order::Lease`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Leased {
    /// Done.
    Done,
    /// Nothing was changed: these cidrs are in blocks of others, and these spares are gone.
    Conflict {
        /// Blocks of others.
        others: Vec<Cidr>,
        /// Spares that this node no longer has.
        gone: Vec<Cidr>,
    },
    /// The store could not be asked.
    Failed(Cause),
}

/// The result of an [`Order::Find`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Some wanted address is in no block: these are the blocks of others.
    Gap(Vec<Cidr>),
    /// These are spares of this node now.
    Given(Vec<Cidr>),
    /// This is an active block of this node now. Another node parked it, and addresses of it may
    /// cool.
    Taken(Cidr),
    /// This is an active block of this node now. It was a free part of a block of that node, which
    /// has been silent for long.
    Forfeited {
        /// The pool.
        pool: PoolFamily,
        /// The block.
        cidr: Cidr,
        /// The node.
        from: Arc<str>,
    },
    /// No live node has one to give.
    Nobody {
        /// Blocks of others.
        others: Vec<Cidr>,
        /// A node that holds some of them and does not live, and since when that is known, on the
        /// boot clock.
        gone: Option<(Arc<str>, BootTime)>,
    },
    /// The store could not be asked.
    Failed(Cause),
}

/// The reason why there is no agreement on a block size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BlockSizeError {
    /// The cluster has another one.
    Size {
        /// The cluster's.
        agreed: BlockSize,
        /// The configuration's.
        configured: BlockSize,
    },
    /// The store could not be asked.
    Failed(Cause),
}

/// The effects that the caller of the machine must carry out, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Ask the store and call `answered` with this id.
    Store(RequestId, Request),
    /// Watch a prefix and call `observed` with what it reports.
    Watch(String),
    /// The end of an [`Order::Lease`].
    Leased(Option<OrderId>, Leased),
    /// The end of an [`Order::GiveBack`] or [`Order::Park`]: whether they are given back.
    GivenBack(Option<OrderId>, bool),
    /// The end of an [`Order::Transfer`]: whether it is given.
    Transferred(Option<OrderId>, bool),
    /// The end of an [`Order::Find`].
    Found(OrderId, Found),
    /// The end of an [`Order::AgreeBlockSize`]: the block size.
    BlockSizeAgreed(OrderId, Result<BlockSize, BlockSizeError>),
    /// Another node asks; it must be answered by [`Order::Transfer`] or [`Order::Refuse`].
    Asked(Question),
    /// Blocks that another node gave without being waited for: spares.
    Spares(PoolFamily, Vec<Cidr>),
    /// All spares are gone: the lease ran out.
    SparesGone,
    /// This node may no longer hand out of these: the store says that others hold them.
    Lost(PoolFamily, Vec<Cidr>),
    /// The store has this block in these parts.
    Split(PoolFamily, Cidr, Vec<Cidr>),
    /// A block that was lost, or parked, is this node's again.
    Regained(PoolFamily, Cidr),
    /// A block that this node parked when it stopped is no longer its own.
    Unparked(PoolFamily, Cidr),
    /// Nothing can be leased at the moment, because of this; or it can again.
    Stalled(Option<Cause>),
    /// Nothing may be handed out at all, because of this; or it may again.
    Halted(Option<Cause>),
    /// With `offline_limit`: until when addresses may be handed out, on the boot clock.
    GoodUntil(BootTime),
    /// True if this is the only node that the cluster knows.
    Alone(bool),
    /// True if an operator wants this node to give its blocks back.
    Draining(bool),
    /// Make it durable that this link may be on its way to the store, and then call `intended`
    /// with it.
    Intend(Link),
    /// Remember the link that the node's chain has reached.
    Reached(Link),
    /// The node joined, or joined again.
    Joined {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The store went back in time; these blocks were lost before that. This must be made durable
    /// before the next effect is handled.
    WentBack(Vec<(PoolFamily, Cidr)>),
    /// The restore of the store is settled.
    Settled,
    /// A restore of the store is being settled, and waits for these nodes to say what they hold
    /// (for none: until it has lasted long enough); or none is being settled.
    Settling(Option<Vec<Arc<str>>>),
    /// The journal is older than the node: this is what the store knows. It must be made durable
    /// before the next effect is handled.
    Recover(Box<StoredState>),
    /// These are all the records in these blocks of this node, with their networks: everything that
    /// is held otherwise must be recorded again.
    RecordsListed(Vec<(PoolFamily, Cidr)>, Vec<(Arc<str>, Recorded)>),
    /// The records that these operations wait for are in the store.
    Recorded(Vec<OperationId>),
}

/// A change to the records: an allocation or its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordChange {
    /// The network.
    pub network: Arc<str>,
    /// The address.
    pub address: IpAddr,
    /// The allocation; nothing when it ended.
    pub value: Option<Box<AllocationValue>>,
}
