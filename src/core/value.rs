//! The values of the store's keys. `keys.rs` has the keys, `store/value.rs` the written form of the
//! values.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::{AddressRange, BlockSize, Cidr, Family};
use super::container_id::ContainerId;
use super::ids::{Epoch, LeaseId, Link, Sequence};
use super::time::{StartTime, UnixTime};

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Of `nodes/<node>`.
    Node(NodeValue),
    /// Of `sessions/<node>`.
    Session(SessionValue),
    /// Of `networks/<network>`.
    Network(NetworkValue),
    /// Of `blocks/<network>/<family>/<start>`.
    Block(BlockValue),
    /// Of `requests/<network>/<to>/<from>.<number>`.
    Message(Message),
    /// Of `allocations/<network>/<address>`.
    Allocation(Box<AllocationValue>),
    /// Of `drains/<node>` and `restored`: since when.
    Flag(UnixTime),
    /// Of `history/...`: JSON text, which nodes write for each other and no machine reads.
    Text(Arc<str>),
    /// It could not be read; why.
    Unreadable(Arc<str>),
}

/// A node, for as long as it is in the cluster. Every ownership transaction of the node compares
/// the revision of this key and writes it again: a chain with one writer. Others write it only to
/// end what the node has under way: `node remove`, and rule 34. So every transaction that
/// is late on its way to the store is refused, and what the last link says was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeValue {
    /// Raised at each start of the node's daemon, and by the command that removes the node.
    pub epoch: Epoch,
    /// The last link of its chain. It never goes back, not with a new epoch either.
    pub sequence: Option<Link>,
    /// `/etc/machine-id`, if the machine has one: tells two machines of one name apart.
    pub machine_id: Option<Arc<str>>,
    /// The identity of the node's state directory; none: an older version wrote this.
    pub identity: Option<Arc<str>>,
    /// The epoch in which that identity became this node; none: it always was. Blocks of earlier
    /// epochs are not its own.
    pub first_epoch: Option<Epoch>,
    /// The boot during which the daemon started.
    pub boot_id: Arc<str>,
    /// The daemon's version.
    pub version: Arc<str>,
    /// The time at which the daemon started.
    pub since: UnixTime,
    /// The node has said what it holds: its daemon has joined, and has claimed again everything
    /// that the store did not know.
    pub acknowledged: bool,
    /// The time at which an operator removed the node.
    pub removed: Option<UnixTime>,
    /// The node's word that others may have its free addresses when it has been silent for long.
    pub forfeit: Option<Forfeit>,
}

/// The terms on which others may have the free addresses of a node. Only a node gives them of which
/// everything that it ever answered is in the store (rule 34).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forfeit {
    /// The length of the silence after which they may.
    pub after: Duration,
    /// The time at which the node last wrote its key.
    pub said: UnixTime,
    /// The number of times that others have taken some since then.
    pub taken: u32,
}

/// A node's presence; hangs on its lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionValue {
    /// The epoch of its daemon.
    pub epoch: Epoch,
    /// The node's lease.
    pub lease: LeaseId,
}

/// The facts that nodes must agree on about a network, and its configuration if that is kept
/// centrally.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct NetworkValue {
    /// The `ipam` object as JSON text.
    pub ipam: Option<Arc<str>>,
    /// The block sizes of its range sets.
    pub geometry: Vec<Geometry>,
}

/// The block size of the range sets that were ever configured over some addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Their family.
    pub family: Family,
    /// The size of new blocks.
    pub block_size: BlockSize,
    /// The addresses.
    pub ranges: Vec<AddressRange>,
}

/// The status of a block in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockStatus {
    /// Leased ahead of need; hangs on the owner's lease.
    Spare,
    /// Addresses are handed out of it.
    Active,
    /// Its owner was removed: nobody has it until the quarantine ends.
    Quarantined,
    /// Its owner gave it back when its daemon stopped. Nothing of it is held, and it hangs on a
    /// lease that lasts until its addresses have cooled: then it is free. Before that its owner
    /// takes it back if it starts again, and another node if it has nothing else left.
    Parked,
}

impl BlockStatus {
    /// Returns whether the node that the block names has it.
    pub fn is_owned(self) -> bool {
        matches!(self, Self::Spare | Self::Active)
    }
}

/// A block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockValue {
    /// The addresses that it covers.
    pub cidr: Cidr,
    /// Its family.
    pub family: Family,
    /// The node that holds it.
    pub owner: Arc<str>,
    /// The owner's epoch when this was written; none, if another node wrote it.
    pub epoch: Option<Epoch>,
    /// The link of its writer's chain that wrote it.
    pub claim: Link,
    /// Its state.
    pub status: BlockStatus,
    /// The time at which this was written.
    pub since: UnixTime,
}

/// A message from node to node; hangs on the lease of the node that asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The node that sends it.
    pub from: Arc<str>,
    /// The asker's lease, on which what it is given hangs.
    pub lease: LeaseId,
    /// The family of all addresses in it.
    pub family: Family,
    /// The contents of the message.
    pub body: MessageBody,
}

/// The contents of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MessageBody {
    /// Give me an address of these.
    Ask {
        /// The addresses.
        wanted: Vec<AddressRange>,
        /// One that cools will do.
        even_cooling: bool,
    },
    /// These are your spares now; their keys were written with this message.
    Given(Vec<Cidr>),
    /// None of them can be had.
    Refused,
}

/// The copy of an allocation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocationValue {
    /// The node.
    pub node: Arc<str>,
    /// The attachment's network, where it is another one than that of the pool, which the key has.
    pub network: Option<Arc<str>>,
    /// The container.
    pub container_id: ContainerId,
    /// The interface in it.
    pub ifname: Arc<str>,
    /// Every address of the attachment.
    pub addresses: Vec<IpAddr>,
    /// The pod's namespace, or empty.
    pub namespace: Box<str>,
    /// The pod's name, or empty.
    pub pod: Box<str>,
    /// The pod's stage, or empty.
    pub stage: Box<str>,
    /// The network namespace.
    pub netns: Box<str>,
    /// The time at which the ADD was answered.
    pub since: UnixTime,
    /// The time at which the plugin process of the ADD started.
    pub started_at: Option<StartTime>,
    /// The sequence number of the holding on its node.
    pub sequence: Sequence,
}
