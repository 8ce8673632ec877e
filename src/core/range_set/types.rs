//! The inputs and effects of a range set.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::leaseholder::Question;
use crate::core::range::Ranges;
use crate::core::stage::Stage;
use crate::core::value::BlockStatus;
use crate::limits;

/// The reason why no address was assigned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssignError {
    /// Nothing is free for this pod, not even an address that is cooling.
    #[error("no IP addresses available in range set: {allowed}{}", of_stage(*stage))]
    Exhausted {
        /// The ranges of the set.
        allowed: String,
        /// The stage whose list is used up.
        stage: Option<Stage>,
    },
    /// The address asked for is taken.
    #[error("requested IP address {address} is not available in range set {allowed}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The ranges of the set.
        allowed: String,
    },
    /// The address asked for is a gateway.
    #[error("requested ip {0} is subnet's gateway")]
    Gateway(IpAddr),
    /// The address asked for is kept for the pods of a stage that this pod is not of, or the pod
    /// is of a stage whose list lacks the address.
    #[error("requested IP address {address} is not for a pod {}", of_which(*stage))]
    Stage {
        /// The address.
        address: IpAddr,
        /// The pod's stage.
        stage: Option<Stage>,
    },
    /// The address is in no block of this node and no block could be had.
    #[error("no block of addresses could be leased: {0}")]
    NoBlock(Arc<str>),
    /// The addresses that are left are in blocks of a node that does not live.
    #[error(
        "no IP addresses available in range set {allowed}: what is left is in blocks of node \
         {node}, which has not been alive for at least {seconds} s (leasehold node remove {node}, \
         if it is gone for good)"
    )]
    Gone {
        /// The ranges of the set.
        allowed: String,
        /// The node.
        node: Arc<str>,
        /// For how long, as far as this node knows.
        seconds: u64,
    },
    /// Nothing is handed out on this node.
    #[error("this node hands out no addresses: {0}")]
    Halted(Arc<str>),
    /// More callers wait than [`limits::ASSIGNS_WAITING_MAX`].
    #[error("{} calls wait for a block of addresses already", limits::ASSIGNS_WAITING_MAX)]
    Busy,
}

fn of_stage(stage: Option<Stage>) -> String {
    stage.map(|stage| format!(" (of the addresses listed for stage {stage})")).unwrap_or_default()
}

fn of_which(stage: Option<Stage>) -> String {
    stage.map_or("without a stage".to_owned(), |stage| format!("of stage {stage}"))
}

/// A request for one address of this set.
#[derive(Clone, Debug)]
pub struct Assign {
    /// Names the request in [`Effect::Assigned`].
    pub id: u64,
    /// The index of the range set in its configuration: cursors go by it, as in host-local.
    pub set_index: u16,
    /// The ranges that the call allows.
    pub allowed: Arc<Ranges>,
    /// The address asked for; in the view.
    pub requested: Option<u128>,
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
    Assigned(u64, Result<u128, AssignError>),
    /// Have spares made active and runs claimed, write to the journal which are active then, and
    /// call [`RangeSet::leased`](super::RangeSet::leased).
    Lease {
        /// Spares.
        activate: Vec<Cidr>,
        /// Runs to claim.
        claim: Vec<(Cidr, BlockStatus)>,
    },
    /// Write to the journal that these blocks are no longer this node's (except for spares, `true`,
    /// which it never has), then have them given back, and call
    /// [`RangeSet::given_back`](super::RangeSet::given_back).
    GiveBack(Vec<(Cidr, bool)>),
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
    /// Have a question answered with a refusal.
    Refuse(Question),
    /// Find a way to one of these addresses and call [`RangeSet::found`](super::RangeSet::found).
    Find {
        /// First and last of each run.
        wanted: Vec<(u128, u128)>,
        /// One that cools elsewhere will do.
        even_cooling: bool,
    },
}

/// The settings of a range set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The time for which a released address is not handed out again, in milliseconds.
    pub cooldown: Millis,
    /// The number of free addresses to keep in active blocks, at most a block's worth.
    pub min_free: u32,
    /// The number from which this node draws its place in a pool that it shares with others.
    pub seed: u64,
}

/// The state from which a range set is rebuilt after a restart.
#[derive(Clone, Default, Debug)]
pub struct RecoveredSet {
    /// The active blocks of this node.
    pub blocks: Vec<Cidr>,
    /// The blocks that the store gave to others while addresses of them were held here.
    pub lost: Vec<Cidr>,
    /// The addresses that are assigned; each in one of the blocks.
    pub allocated: Vec<u128>,
    /// Cooling addresses with their time of release, oldest first.
    pub cooling: Vec<(Millis, u128)>,
    /// The last address handed out, by the index of the range set in its configuration.
    pub cursors: BTreeMap<u16, u128>,
}
