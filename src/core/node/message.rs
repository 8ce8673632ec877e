//! The messages between the machines of a node, and what the machines want done.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::core::address::{Address, Cidr, Family};
use crate::core::attachment::Holding;
use crate::core::cause::Cause;
use crate::core::coordinator::{Call, Outcome, Recovered, RecoveredBlocks};
use crate::core::ids::{CallId, Epoch, LeaseLosses, Link, MessageCount, OperationId, RequestId};
use crate::core::journal::JournalEntry;
use crate::core::journal::JournalFailure;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Effect, Leased, Order, Question};
use crate::core::range::Ranges;
use crate::core::range_set::{Assign, AssignError, RangeSet};
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::time::BootTime;
use crate::core::txn::{Answer, Request, StoreError, Watched};

/// A machine behind a mailbox. After each input the outputs are polled and carried out, in order,
/// and the timer is set to [`Machine::poll_timeout`].
pub trait Machine {
    /// The inputs that its mailbox takes.
    type Input;

    /// Starts when the mailbox is open: called once, before the first input.
    fn start(&mut self, now: BootTime);

    /// Takes one message.
    fn handle(&mut self, now: BootTime, input: Self::Input);

    /// Does what is due.
    fn handle_timeout(&mut self, now: BootTime);

    /// Returns the time at which [`Machine::handle_timeout`] has something to do, on the boot
    /// clock.
    fn poll_timeout(&self) -> Option<BootTime>;

    /// Returns the next output, until there is none.
    fn poll_output(&mut self) -> Option<Output>;
}

/// A message between the machines of a node.
#[derive(Debug)]
pub enum Message {
    /// To the coordinator.
    Coordinator(ToCoordinator),
    /// To a range set. One that has ended takes no messages: they are dropped.
    RangeSet(SetId, ToRangeSet),
    /// To the leaseholder.
    Leaseholder(ToLeaseholder),
    /// To the journal.
    Journal(ToJournal),
}

/// The messages that the coordinator takes.
#[derive(Debug)]
pub enum ToCoordinator {
    /// A call, and the number under which it is answered ([`Output::Reply`]).
    Call(CallId, Call),
    /// An ADD's address had to wait for a block; the end of its [`ToRangeSet::Assign`] follows.
    Waited(OperationId),
    /// The end of a [`ToRangeSet::Assign`].
    Assigned(OperationId, Result<Address, AssignError>),
    /// The commits of these operations are durable, or the journal failed.
    Committed(Vec<OperationId>, Result<(), JournalFailure>),
    /// The leaseholder says this; with the origin of the order that it ends, if it ends one.
    Cluster(Effect, Option<OrderOrigin>),
    /// A range set has nothing to give to the node that asks: another one may.
    NothingFor(Question, SetId),
    /// A range set has become part of another one.
    Merged {
        /// Their network.
        network: Arc<str>,
        /// The one that has ended.
        from: SetId,
    },
    /// A range set has nothing and is not used.
    Unused {
        /// Its network.
        network: Arc<str>,
        /// The range set.
        set: SetId,
        /// The number of messages of the coordinator that it had handled when it said so.
        received: MessageCount,
    },
    /// Take no new calls, finish those that run, park blocks, leave the cluster, close the journal.
    Shutdown,
    /// A range set has handled all that came before its [`ToRangeSet::Confirm`].
    Confirmed(SetId),
    /// A range set has parked what it could.
    Parked(SetId),
    /// The leaseholder has left the cluster.
    Left,
    /// The journal is closed.
    JournalClosed,
}

/// The messages that a range set takes.
#[derive(Debug)]
pub enum ToRangeSet {
    /// Assign an address; [`ToCoordinator::Assigned`] answers.
    Assign(Assign),
    /// Take back an assignment that nobody has seen.
    Undo(Address),
    /// Release an address; it is durable that it is not held.
    Release(Address),
    /// The store knows of blocks that the journal forgot.
    Recover(RecoveredBlocks),
    /// The leaseholder says this of all range sets, or of a block of this one.
    Cluster(Effect),
    /// The end of an order of this range set.
    OrderEnded(OrderContext, Effect),
    /// An order was not submitted, because the journal failed.
    OrderFailed(OrderContext),
    /// The node has no room for another range set (forget at once what holds nothing), or it has.
    Crowded(bool),
    /// Say [`ToCoordinator::Confirmed`].
    Confirm,
    /// Become part of that range set as soon as no order is open.
    Retire(SetId),
    /// Park every block in which nothing is held as soon as no order is open, because the daemon
    /// stops; then say [`ToCoordinator::Parked`].
    Park,
    /// Take over all that another range set has.
    Absorb {
        /// The other one.
        from: SetIdentity,
        /// Its state.
        set: Box<RangeSet>,
        /// The number of times that the node's lease was lost before it ended.
        lease_losses: LeaseLosses,
    },
}

/// The messages that the leaseholder takes.
#[derive(Debug)]
pub enum ToLeaseholder {
    /// An order, and who must hear of its end; nobody, if there is no origin.
    SubmitOrder(Option<OrderOrigin>, Order),
    /// Agree with the cluster on the block size of these ranges of a network.
    AgreeBlockSize(Arc<str>, Arc<Ranges>),
    /// Publish in the store that this is held, or is not.
    PublishRecord {
        /// The holding.
        holding: Arc<Holding>,
        /// True if it is held.
        held: bool,
        /// The operation that waits for the records, if one does.
        waiting: Option<OperationId>,
    },
    /// Delete the record of an address on a network.
    DeleteRecord(Arc<str>, IpAddr),
    /// The records of an [`Effect::RecordsListed`] were compared with what is held.
    RecordsCompared,
    /// It is durable that this link of the chain may be sent.
    Intended(Link),
    /// The store's answer to the request with this number.
    Answered(RequestId, Result<Answer, StoreError>),
    /// A watch's report.
    Observed(Watched),
    /// Write the records that wait, end the node's lease, then say [`ToCoordinator::Left`].
    Leave,
}

/// The messages that the journal takes.
#[derive(Debug)]
pub enum ToJournal {
    /// Make these entries durable.
    Commit(Commit),
    /// Write the next group; [`Output::CallJournal`] asked for it.
    Write,
    /// The end of the [`Output::Write`] that was asked for last.
    Written(Result<(), JournalFailure>),
}

/// The one who waits for an order.
#[derive(Debug)]
pub enum OrderOrigin {
    /// A range set, and what it must know when the order ends.
    RangeSet(SetId, OrderContext),
    /// The coordinator, for these ranges of a network.
    Coordinator(Arc<str>, Arc<Ranges>),
}

/// The context that a range set must know when its order ends.
#[derive(Clone, Debug)]
pub enum OrderContext {
    /// Blocks are leased.
    Lease {
        /// All of them.
        blocks: Vec<Cidr>,
        /// Those that will be active.
        active: Vec<Cidr>,
    },
    /// These blocks are given back.
    GiveBack(Vec<Cidr>),
    /// These blocks are parked.
    Park(Vec<Cidr>),
    /// A part of a block is transferred to the node that asked with this key.
    Transfer(String),
    /// Other nodes are asked for addresses.
    Find,
}

/// Entries for the journal, and what waits for them.
#[derive(Debug)]
pub struct Commit {
    /// All of them become durable, or none.
    pub entries: Vec<JournalEntry>,
    /// The work that waits for them.
    pub then: After,
}

/// Entries that are written together: all of them become durable, or none.
#[derive(Clone, Debug)]
pub struct Group {
    /// The entries, in order.
    pub entries: Vec<JournalEntry>,
}

/// The work that waits for a commit.
#[derive(Debug)]
pub enum After {
    /// Nothing: the entries may wait for the next commit, which takes them along.
    Nothing,
    /// An operation of the coordinator.
    Operation(OperationId),
    /// A link of the leaseholder's chain.
    Intent(Link),
    /// An order of a range set.
    Order(SetId, OrderContext, Box<Order>),
    /// The end of the journal: no commit comes after it.
    Close,
}

/// Something that a machine wants done outside of itself.
#[derive(Debug)]
pub enum Output {
    /// Deliver a message.
    Send(Message),
    /// Send [`ToJournal::Write`] when all that has come in by now has been handled: that is the
    /// group.
    CallJournal,
    /// Write a group to the disk, and bring the result as [`ToJournal::Written`].
    Write(Group),
    /// Close the disk: no group comes after the last one.
    CloseJournal,
    /// Ask the store, and bring the answer as [`ToLeaseholder::Answered`] with this number.
    Store(RequestId, Request),
    /// Watch a prefix, and bring reports as [`ToLeaseholder::Observed`].
    Watch(String),
    /// Answer a call.
    Reply(CallId, Outcome),
    /// Show readers that this is held.
    Held(Arc<Holding>),
    /// Show readers that this is no longer held.
    Ended(Arc<Holding>),
    /// Show readers that the journal failed: what is held is not known to be durable any longer.
    Broken(JournalFailure),
    /// Open a mailbox for a range set.
    Open {
        /// The range set.
        identity: SetIdentity,
        /// Its state.
        set: Box<RangeSet>,
        /// The number of times that the node's lease was lost.
        lease_losses: LeaseLosses,
    },
    /// Close the mailbox of a range set.
    Close(SetId),
    /// Tell people.
    Report(Box<Event>),
    /// The node has stopped: nothing follows.
    Stopped,
}

impl Output {
    /// Makes these entries durable, and lets go then what waits for them.
    pub(super) fn commit(entries: Vec<JournalEntry>, then: After) -> Self {
        Self::Send(Message::Journal(ToJournal::Commit(Commit { entries, then })))
    }
}

/// Something that people must know: for the log and for counters.
#[derive(Clone, Debug)]
pub enum Event {
    /// The addresses of two networks overlap; how many such pairs there are by now.
    Overlap(Arc<str>, Arc<str>, usize),
    /// A range set that was not used is forgotten.
    Forgotten {
        /// Its network.
        network: Arc<str>,
        /// The number of pairs of networks that overlap now.
        overlaps: usize,
    },
    /// Two range sets of a network become one.
    Merge(Arc<str>),
    /// The state directory was lost or is old, and the node took over what the store has of it.
    StateRecovered(Recovered),
    /// The journal failed.
    JournalFailed(JournalFailure),
    /// These blocks were leased or activated for a range set, or not.
    Leased(Arc<str>, Family, Vec<Cidr>, Leased),
    /// A request for an address no longer waits for a block.
    Waited {
        /// Its network.
        network: Arc<str>,
        /// The family of the range set.
        family: Family,
        /// The time for which it waited.
        waited: Duration,
        /// It has an address.
        served: bool,
    },
    /// This call waited for a block; its answer comes later.
    CallWaited(CallId),
    /// These blocks of a range set were parked (true), or not.
    Parked(Arc<str>, Family, Vec<Cidr>, bool),
    /// These blocks of a range set were given back (true), or not.
    GivenBack(Arc<str>, Family, Vec<Cidr>, bool),
    /// A part of a block went to another node.
    Transferred(Arc<str>, Family),
    /// The node joined the cluster.
    Joined {
        /// Its epoch.
        epoch: Epoch,
    },
    /// Nothing can be leased, because of this; or it can again.
    Stalled(Option<Cause>),
    /// Nothing is handed out, because of this; or it is again.
    Halted(Option<Cause>),
    /// An operator drains this node, or no longer does.
    Draining(bool),
    /// The store is older than this node.
    WentBack,
    /// A restore of the store is being settled, and waits for these nodes; or none is any longer.
    Settling(Option<Vec<Arc<str>>>),
    /// These blocks are not this node's in the store.
    Lost(PoolFamily, Vec<Cidr>),
    /// A lost block is this node's again.
    Regained(PoolFamily, Cidr),
    /// This node took a free part of a block of another node, which has been silent for long.
    TookForfeit {
        /// The pool.
        pool: PoolFamily,
        /// The part.
        cidr: Cidr,
        /// The other node.
        from: Arc<str>,
    },
    /// A search of other nodes has ended.
    Searched(SearchEnd),
    /// The lease is left to run out: the store did not answer in time.
    LeaseLeft,
}

/// The result of a search of other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SearchEnd {
    /// An address is in no block.
    Gap,
    /// Another node gave some.
    Given,
    /// No live node has one.
    Nobody,
    /// The store could not be asked.
    Failed,
}
