//! The inputs and effects of a range set.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::core::address::{Address, AddressRange, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::OperationId;
use crate::core::leaseholder::Question;
use crate::core::range::Ranges;
use crate::core::stage::Stage;
use crate::core::time::BootTime;
use crate::core::value::BlockStatus;

/// The reason why no address was assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AssignError {
    /// Nothing is free for this pod, not even an address that is cooling.
    Exhausted {
        /// The ranges of the set.
        allowed: Arc<Ranges>,
        /// The stage whose list is used up.
        stage: Option<Stage>,
    },
    /// The address asked for is taken.
    Taken {
        /// The address.
        address: IpAddr,
        /// The ranges of the set.
        allowed: Arc<Ranges>,
    },
    /// The address asked for is a gateway.
    Gateway(IpAddr),
    /// The address asked for is kept for the pods of a stage that this pod is not of, or the pod
    /// is of a stage whose list lacks the address.
    Stage {
        /// The address.
        address: IpAddr,
        /// The pod's stage.
        stage: Option<Stage>,
    },
    /// The address is in no block of this node and no block could be had.
    NoBlock(Cause),
    /// The addresses that are left are in blocks of a node that does not live.
    Gone {
        /// The ranges of the set.
        allowed: Arc<Ranges>,
        /// The node.
        node: Arc<str>,
        /// The time for which it is so, as far as this node knows: none, if it has looked now for
        /// the first time.
        gone_for: Duration,
    },
    /// Nothing is handed out on this node.
    Halted(Cause),
    /// More callers wait than [`crate::limits::ASSIGNS_WAITING_MAX`].
    Busy,
}

/// A request for one address of this set.
#[derive(Clone, Debug)]
pub struct Assign {
    /// Names the request in [`Effect::Assigned`].
    pub id: OperationId,
    /// The index of the range set in its configuration: cursors go by it, as in host-local.
    pub set_index: u16,
    /// The ranges that the call allows.
    pub allowed: Arc<Ranges>,
    /// The address asked for; one of the ranges has it.
    pub requested: Option<Address>,
    /// The pod's stage.
    pub stage: Option<Stage>,
}

impl Assign {
    /// Returns whether the two can only be served in the order in which they came.
    pub fn is_like(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.allowed, &other.allowed) || self.allowed == other.allowed;
        self.requested == other.requested && self.stage == other.stage && same
    }
}

/// Work that the machine needs done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Answer a request that had to wait.
    Assigned(OperationId, Result<Address, AssignError>),
    /// Have spares made active and cidrs claimed, write to the journal which are active then, and
    /// call [`RangeSet::leased`](super::RangeSet::leased).
    Lease {
        /// Spares.
        activate: Vec<Cidr>,
        /// Cidrs to claim.
        claim: Vec<(Cidr, BlockStatus)>,
    },
    /// Write to the journal that these blocks are no longer this node's (except for spares, `true`,
    /// which it never has), then have them given back, and call
    /// [`RangeSet::given_back`](super::RangeSet::given_back).
    GiveBack(Vec<(Cidr, bool)>),
    /// Write to the journal that nothing is handed out of these blocks before the store says again
    /// that they are this node's, then have them parked on a lease of that life, and call
    /// [`RangeSet::parked`](super::RangeSet::parked).
    Park(Vec<Cidr>, Duration),
    /// Write to the journal that this block is no longer this node's.
    JournalNone(Cidr),
    /// Write to the journal, before anything else, that this block is this node's after all.
    JournalBlock(Cidr),
    /// Write to the journal that the store gave this block to others.
    JournalLost(Cidr),
    /// The same for a part of a block, which answers a question; then
    /// [`RangeSet::transferred`](super::RangeSet::transferred).
    Transfer {
        /// The question.
        question: Question,
        /// The block.
        block: Cidr,
        /// The part.
        give: Cidr,
        /// The block is a spare, which the journal does not have.
        spare: bool,
    },
    /// Have these given back, of which this set knows nothing; nobody waits for it.
    ReleaseUnknown(Vec<Cidr>),
    /// Nothing is in hand, on its way or waited for, and nobody has used the set for a while. It
    /// may be forgotten, if nothing was sent to it meanwhile.
    Unused,
    /// Have a question answered with a refusal.
    Refuse(Question),
    /// Find a way to one of these addresses and call [`RangeSet::found`](super::RangeSet::found).
    Find {
        /// The addresses.
        wanted: Vec<AddressRange>,
        /// One that cools elsewhere will do.
        even_cooling: bool,
    },
}

/// The end of the time in which addresses may be handed out (rule 19).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum GoodUntil {
    /// There is none, without `offlineLimit`.
    #[default]
    Forever,
    /// The store was not reached yet: nothing is handed out.
    NotReached,
    /// This time. Nothing is handed out after it.
    Time(BootTime),
}

impl GoodUntil {
    /// Returns whether that time is over.
    pub fn is_over(self, now: BootTime) -> bool {
        match self {
            Self::Forever => false,
            Self::NotReached => true,
            Self::Time(until) => until < now,
        }
    }
}

/// The settings of a range set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The time for which a released address is not handed out again.
    pub cooldown: Duration,
    /// The number of free addresses to keep in active blocks, at most a block's worth.
    pub min_free: u32,
    /// The time for which a range set that holds nothing is kept after its last use.
    pub forget_after: Duration,
    /// The number from which this node draws its place in a pool that it shares with others.
    pub seed: u64,
}

/// The state from which a range set is rebuilt after a restart.
#[derive(Clone, Default, Debug)]
pub struct JournalledSet {
    /// The active blocks of this node.
    pub blocks: Vec<Cidr>,
    /// The blocks that the store gave to others while addresses of them were held here, and those
    /// that were parked, in which none is held.
    pub lost: Vec<Cidr>,
    /// The addresses that are assigned; each in one of the blocks.
    pub allocated: Vec<Address>,
    /// Cooling addresses with their time of release, oldest first.
    pub cooling: Vec<(BootTime, Address)>,
    /// The last address handed out, by the index of the range set in its configuration.
    pub cursors: BTreeMap<u16, Address>,
}
