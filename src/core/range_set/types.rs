//! What goes into a range set and what comes out of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::core::Millis;
use crate::core::address::Run;
use crate::core::range::Ranges;
use crate::core::stage::Stage;
use crate::limits;

/// Why no address was assigned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssignError {
    /// Nothing is free for this pod, not even an address that is cooling.
    #[error("no IP addresses available in range set: {view}{}", of_stage(*stage))]
    Exhausted {
        /// The ranges of the set.
        view: String,
        /// The stage whose list is used up.
        stage: Option<Stage>,
    },
    /// The address asked for is taken.
    #[error("requested IP address {address} is not available in range set {view}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The ranges of the set.
        view: String,
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
    pub slot: u16,
    /// The ranges that the call allows.
    pub view: Arc<Ranges>,
    /// The address asked for; in the view.
    pub asked: Option<u128>,
    /// The pod's stage.
    pub stage: Option<Stage>,
}

/// What somebody must do for the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Answer a request that had to wait.
    Assigned(u64, Result<u128, AssignError>),
    /// Claim these runs, in one transaction, and call
    /// [`RangeSet::claimed`](super::RangeSet::claimed).
    Claim(Vec<Run>),
    /// Delete the keys of these blocks at these revisions and call
    /// [`RangeSet::given_back`](super::RangeSet::given_back).
    GiveBack(Vec<(Run, u64)>),
}

/// How a claim ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// The runs are ours, with the revision of each key.
    Done(Vec<(Run, u64)>),
    /// Some of them are in blocks of others: these.
    Conflict(Vec<Run>),
    /// The store could not be asked.
    Failed(Arc<str>),
}

/// Figures for gauges.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Addresses that are assigned.
    pub allocated: u64,
    /// Released addresses in their cooldown.
    pub cooling: u64,
    /// Addresses in active blocks that are not taken; network addresses and gateways, which
    /// nobody gets, are among them.
    pub free: u64,
    /// Active blocks.
    pub active: u64,
    /// Draining blocks.
    pub draining: u64,
}

/// What a range set is rebuilt from after a restart.
#[derive(Clone, Default, Debug)]
pub struct Restored {
    /// The blocks that this node holds, each with the revision of its key.
    pub blocks: Vec<(Run, u64)>,
    /// The addresses that are assigned; each in one of the blocks.
    pub allocated: Vec<u128>,
    /// Cooling addresses with their time of release, oldest first; each in one of the blocks.
    pub cooling: Vec<(Millis, u128)>,
    /// The last address handed out, by slot.
    pub cursors: BTreeMap<u16, u128>,
}
