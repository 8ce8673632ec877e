//! One CNI call at a time per attachment: all or nothing over the range sets, then the journal,
//! then the answer.
//!
//! [`Coordinator`] is a machine like `RangeSet`: the inputs are [`Coordinator::call`],
//! [`Coordinator::assigned`], [`Coordinator::committed`], [`Coordinator::recorded`],
//! [`Coordinator::block_size_agreed`] and [`Coordinator::merged`]; after each one,
//! [`Coordinator::poll_effect`] is drained, in order.
//!
//! **Write-ahead rule.** An ADD is answered after its journal entries are durable; a DEL is
//! answered, and its addresses begin to cool, after its journal entries are durable. Commits are
//! durable in the order in which they are asked for.

mod calls;
mod commits;
mod held;
mod rebuild;
mod recover;
mod routing;
#[cfg(test)]
mod tests;
mod tombstones;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::Map;
use super::address::{Address, BlockSize, Family};
use super::attachment::{AttachmentId, Holding, Netns, Pod, Scope};
use super::cause::Cause;
use super::container_id::ContainerId;
use super::ids::{CallId, OperationId, Sequence};
use super::interval::Intervals;
use super::journal::JournalEntry;
use super::journal::JournalFailure;
use super::leaseholder::BlockSizeError;
use super::mutant::{Mutant, broken};
use super::range::Ranges;
use super::range_set::{Assign, AssignError, Settings};
use super::set_identity::{SetId, SetIdentity};
use super::stage::Stage;
use super::time::{BootTime, StartTime};
use crate::core::time::UnixTime;
use crate::limits;

pub use held::Held;
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use recover::{Recovered, RecoveredBlocks};
use tombstones::Tombstones;

/// An ADD, its configuration parsed.
#[derive(Clone, Debug)]
pub struct Add {
    /// The attachment that asks.
    pub id: AttachmentId,
    /// The network out of whose pool the addresses come: block, record and range set are its.
    pub pool: Arc<str>,
    /// One address is assigned from each.
    pub sets: Vec<Arc<Ranges>>,
    /// Addresses asked for by name; each must be had.
    pub requested: Vec<IpAddr>,
    /// The pod's stage.
    pub stage: Option<Stage>,
    /// The pod.
    pub pod: Option<Pod>,
    /// The network namespace, kept for the search for leaks.
    pub netns: Netns,
    /// The time at which the plugin process started.
    pub started_at: Option<StartTime>,
    /// The time since which the plugin process had found no daemon, if it waited for one.
    pub waited_since: Option<StartTime>,
    /// Now.
    pub at: UnixTime,
}

/// The holding of an attachment that a [`Del`] means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldingSelector {
    /// A CNI DEL that started then: all holdings made by an ADD that started no later.
    StartedBy(StartTime),
    /// An undo: only what the ADD that started at that very moment made.
    MadeBy(StartTime),
    /// An operator's release: only the holding with this sequence number.
    Sequence(Sequence),
}

impl HoldingSelector {
    fn matches(self, holding: &Holding) -> bool {
        match self {
            Self::StartedBy(at) => holding.started_at.is_none_or(|started| started <= at),
            Self::MadeBy(at) => holding.started_at == Some(at),
            Self::Sequence(sequence) => {
                holding.sequence == sequence || broken(Mutant::SequenceIgnored)
            }
        }
    }
}

/// The end of what an attachment holds.
#[derive(Clone, Debug)]
pub struct Del {
    /// The attachment.
    pub id: AttachmentId,
    /// The holding.
    pub selector: HoldingSelector,
}

/// A request of a caller.
#[derive(Clone, Debug)]
pub enum Call {
    /// CNI ADD.
    Add(Box<Add>),
    /// CNI DEL, or a release by name.
    Del(Del),
    /// CNI GC: end everything on a network that is older than the call and not listed.
    Gc {
        /// The CNI network, with all the pools that it uses.
        network: Arc<str>,
        /// Container id and interface name of each attachment that is still valid.
        valid: Vec<(ContainerId, Arc<str>)>,
        /// The time at which the call started.
        started_at: StartTime,
    },
}

/// The end of a call.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An ADD: what the attachment holds now.
    Added(Arc<Holding>),
    /// A DEL or GC: how many holdings it ended.
    Ended(usize),
    /// Nothing was changed by this call.
    Failed(CallError),
}

/// The reason why a call failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// No address of one of the range sets.
    Assign {
        /// The index of the range set.
        set: usize,
        /// The reason why there is none.
        error: AssignError,
    },
    /// Some addresses asked for are in no range set, or two are in one.
    NotAllAsked(Vec<IpAddr>),
    /// The attachment holds addresses already, and the call cannot be answered with them.
    AlreadyHeld {
        /// The attachment.
        id: Box<AttachmentId>,
        /// The addresses that it holds.
        held: Vec<IpAddr>,
        /// The reason why that is no answer.
        why: HeldOtherwise,
    },
    /// A DEL that started after this ADD was answered before it.
    Overtaken(ContainerId),
    /// The plugin process of this ADD is older than the daemon, or than any DEL that the daemon
    /// remembers: its DEL may have been answered already.
    TooOld(ContainerId),
    /// `blockSize` differs from that of the range set, which was fixed by its first use.
    BlockSize {
        /// By the first use.
        agreed: BlockSize,
        /// By this call.
        configured: BlockSize,
    },
    /// The cluster's store could not be asked for the block size of a range set.
    Store(Cause),
    /// The allocation did not reach the cluster's store in time; it was undone.
    NotRecorded(Cause),
    /// The renewal by a repeated ADD did not reach the cluster's store in time.
    RenewalNotRecorded(Cause),
    /// The configuration needs one range set more than [`limits::RANGE_SETS_MAX`].
    TooManySets,
    /// The journal is broken: nothing can be made durable, so nothing is promised.
    Journal(JournalFailure),
    /// The daemon finishes the calls that it has begun and takes no new ones.
    Stopping,
    /// Too many calls of one attachment or network wait already.
    Busy(Crowd),
}

/// The reason why an ADD cannot be answered with the addresses that its attachment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldOtherwise {
    /// They are out of another pool than the one that the ADD names.
    OtherPool,
    /// The ADD asks for other addresses.
    OtherAddresses,
    /// One of them is in no range of the ADD's configuration.
    OutOfRanges,
    /// The ADD's configuration has more range sets than the holding has addresses.
    MoreSets,
}

/// The part of the node in which too many calls wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crowd {
    /// The whole node: [`limits::CALLS_IN_FLIGHT_MAX`].
    Node,
    /// One network: [`limits::CALLS_AT_BARRIER_MAX`].
    Network,
    /// One attachment: [`limits::CALLS_PER_ATTACHMENT_MAX`].
    Attachment,
}

/// The effects that the caller of the machine must carry out, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Start an empty range set.
    Open(SetIdentity),
    /// Agree with the cluster on the block size for these ranges, and call
    /// [`Coordinator::block_size_agreed`].
    AgreeBlockSize(Arc<str>, Arc<Ranges>),
    /// Wait until the record of the holding is in the cluster's store, and call
    /// [`Coordinator::recorded`] with this id.
    AwaitRecord(OperationId, Arc<Holding>),
    /// Wait until the record of the holding has left the cluster's store, and call
    /// [`Coordinator::recorded`] with this id.
    AwaitEnd(OperationId, Arc<Holding>),
    /// Pass a request to a range set and call [`Coordinator::assigned`] with its id.
    Assign(SetId, Assign),
    /// Take an assignment back that nobody has seen.
    Undo(SetId, Address),
    /// Release an assigned address.
    Release(SetId, Address),
    /// The store knows of blocks that the journal forgot.
    Recover(SetId, RecoveredBlocks),
    /// Move everything of the second range set into the first, end the second, and call
    /// [`Coordinator::merged`] with the network.
    Merge(SetId, SetId, Arc<str>),
    /// Make the entries durable together and call [`Coordinator::committed`] with this operation;
    /// none, if none waits for them.
    Commit(Option<OperationId>, Vec<JournalEntry>),
    /// Have it recorded that this is held.
    Held(Arc<Holding>),
    /// Have it recorded that this is no longer held.
    Ended(Arc<Holding>),
    /// This is not held: the records of its addresses are newer.
    Superseded(Arc<Holding>),
    /// Have it recorded that the recorded holding of an address on a network has ended.
    Forget(Arc<str>, IpAddr),
    /// The records that were listed have been compared: what was wrong was said before.
    RecordsCompared,
    /// Answer a call.
    Reply(CallId, Outcome),
    /// The addresses of two networks overlap: reported once for each pair.
    Overlap(Arc<str>, Arc<str>),
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    /// An ADD is answered when its record is in the cluster's store.
    await_records: bool,
    held: Held,
    /// Calls that wait for the current call of their attachment; an entry is present while there is
    /// one.
    queues: Map<AttachmentId, VecDeque<Waiting>>,
    operations: Map<OperationId, Operation>,
    /// The pools, each by the name of its network.
    networks: BTreeMap<Arc<str>, Network>,
    /// A few, which nearly all holdings share.
    scopes: BTreeSet<Arc<Scope>>,
    tombstones: Tombstones,
    next_operation: OperationId,
    next_sequence: Sequence,
    next_set: SetId,
    broken: Option<JournalFailure>,
    /// DELs that were answered before the node has joined, until it has: when they started. What
    /// the store has of these attachments has ended (rule 28).
    early_dels: Option<BTreeMap<AttachmentId, StartTime>>,
    /// ADDs that were collecting addresses when the node recovered: they start again.
    outrun: BTreeSet<OperationId>,
    /// The attachments of ADDs whose commit failed: they may be in the journal all the same, and
    /// held after a restart, so no DEL of them is answered before that.
    unsure: BTreeSet<AttachmentId>,
    effects: VecDeque<Effect>,
}

/// The reply_to that an operation answers.
#[derive(Clone, Copy, Debug)]
enum ReplyTo {
    Call(CallId),
    Gc(OperationId),
}

#[derive(Debug)]
enum Work {
    Add(Box<Add>),
    Del(Del),
}

impl Work {
    fn id(&self) -> &AttachmentId {
        match self {
            Self::Add(add) => &add.id,
            Self::Del(del) => &del.id,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    reply_to: ReplyTo,
    work: Work,
}

/// The origin of a holding: an undo ends only what its own ADD made (rule 21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HoldingOrigin {
    /// This ADD made it.
    New,
    /// An ADD before it made it, and this one renews it.
    Renewed,
}

#[derive(Debug)]
enum Operation {
    /// Collecting one address per range set.
    Adding {
        reply_to: ReplyTo,
        add: Box<Add>,
        sets: Vec<SetId>,
        got: Vec<Address>,
        unmet: Vec<IpAddr>,
    },
    /// Waiting for the journal.
    Holding { reply_to: ReplyTo, holding: Arc<Holding>, origin: HoldingOrigin },
    /// Waiting for the journal to know how far the cursors came.
    Failing { reply_to: ReplyTo, add: Box<Add>, error: CallError },
    /// Waiting for the journal to know of a DEL from before the node has joined.
    Remembering { reply_to: ReplyTo, pool: Arc<str>, id: AttachmentId },
    /// Waiting for the record to be gone; nothing fails if it is not in time.
    Unrecording { reply_to: ReplyTo, holding: Arc<Holding> },
    /// Waiting for the record.
    Recording { reply_to: ReplyTo, holding: Arc<Holding>, origin: HoldingOrigin },
    /// Waiting for the journal.
    Ending {
        reply_to: ReplyTo,
        holding: Arc<Holding>,
        numbers: Vec<(SetId, Address)>,
        /// The reason why an ADD is undone, if one is.
        undone: Option<CallError>,
    },
    /// Waiting for the DELs that it consists of.
    Collecting { call: CallId, left: usize, ended: usize, failed: Option<CallError> },
}

#[derive(Default, Debug)]
struct Network {
    sets: Vec<OpenSet>,
    /// The number of open operations; range sets are merged only when there are none.
    in_flight: usize,
    merging: usize,
    /// Calls that wait for range sets to be merged.
    merge_barrier: VecDeque<Waiting>,
    /// Calls that wait for the cluster to agree on the block size of their ranges.
    agreeing: Vec<(Arc<Ranges>, Vec<Waiting>)>,
    /// The block sizes that were agreed on, or why none was, until when.
    agreed: Vec<(Arc<Ranges>, Result<BlockSize, BlockSizeError>, BootTime)>,
}

#[derive(Debug)]
struct OpenSet {
    id: SetId,
    family: Family,
    block_size: BlockSize,
    /// The addresses of all ranges that were ever routed here.
    ranges: Intervals,
    /// The same, rounded to whole blocks.
    territory: Intervals,
}

impl Coordinator {
    /// Creates an empty node. `floor`: when this daemon became the only one. ADDs whose
    /// plugin process is older are refused, since their DEL may have been answered by an earlier
    /// daemon.
    pub fn new(settings: Settings, await_records: bool, floor: StartTime) -> Self {
        Self {
            settings,
            await_records,
            held: Held::new(),
            queues: Map::default(),
            operations: Map::default(),
            networks: BTreeMap::new(),
            scopes: BTreeSet::new(),
            tombstones: Tombstones::new(floor),
            next_operation: OperationId::FIRST,
            next_sequence: Sequence::FIRST,
            next_set: SetId::FIRST,
            broken: None,
            early_dels: Some(BTreeMap::new()),
            outrun: BTreeSet::new(),
            unsure: BTreeSet::new(),
            effects: VecDeque::new(),
        }
    }

    /// Returns the next effect, until there is none.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns the one copy of a scope.
    fn share(&mut self, scope: Scope) -> Arc<Scope> {
        if let Some(shared) = self.scopes.get(&scope) {
            return shared.clone();
        }
        // Scopes in which nothing is held are removed to make room.
        if self.scopes.len() >= limits::SCOPES_SHARED_MAX {
            self.scopes.retain(|scope| Arc::strong_count(scope) > 1);
        }
        let scope = Arc::new(scope);
        self.scopes.insert(scope.clone());
        scope
    }

    /// Returns the settings of its range sets.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Returns the holdings.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Returns the number of open operations.
    pub fn in_flight(&self) -> usize {
        self.operations.len()
    }

    /// Returns the reason why nothing can be made durable, if there is one.
    pub fn broken(&self) -> Option<&JournalFailure> {
        self.broken.as_ref()
    }
}
