//! The node as the cluster's store sees it: the store decides every change of who holds a block,
//! and this module asks for the changes.
//!
//! [`Leaseholder`] is a machine like `RangeSet`. Inputs are [`Leaseholder::start`],
//! [`Leaseholder::order`], [`Leaseholder::answered`], [`Leaseholder::observed`] and
//! [`Leaseholder::handle_timeout`]; after each one, [`Leaseholder::poll_effect`] is drained, in
//! order.
//!
//! **The chain.** Every transaction that changes ownership compares the revision of the node's own
//! key and writes that key again, with the next sequence number. One is open at a time, with
//! everything that waits in it. So the node's key says which transaction was carried out last; a
//! late one is refused; a daemon that was displaced can no longer change anything; and a store that
//! went back in time shows (rules 1, 2, 4, 6 and 11).

mod block_size;
mod chain;
mod examination;
mod finding;
mod forfeit;
mod heartbeat;
mod inbox;
mod join;
mod leave;
mod lost;
mod name;
mod outcomes;
mod owned;
mod parking;
mod parts;
mod rebuild;
mod reconcile;
mod record_scan;
mod records;
mod restore_barrier;
mod txns;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Map;
use super::address::{Address, Cidr};
use super::cause::Cause;
use super::ids::{Epoch, LeaseId, Link, OrderId, QuestionNumber, RequestId, Revision};
use super::keys::PoolFamily;
use super::time::{BootTime, UnixTime};
use super::txn::{Answer, Request, StoreError};
use super::value::{BlockStatus, Forfeit, NetworkValue};
use crate::limits;

pub use types::{
    BlockSizeError, Effect, Forfeited, Found, Leased, NodeIdentity, Order, Question, RecordChange,
    Recorded, StoredBlock, StoredState, Withheld,
};

pub use block_size::block_sizes_fit;
pub(in crate::core) use parking::parked_for;
pub use parts::without;
pub use restore_barrier::is_awaited;

use block_size::AgreeBlockSize;
use chain::Batch;
use finding::Find;
use join::JoinPhase;
use owned::OwnedBlock;
use parking::Parking;
use record_scan::RecordScan;
use records::Records;

/// The last transaction of the node that was carried out.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Chain {
    /// None before the node has joined.
    epoch: Option<Epoch>,
    /// The epoch in which this state directory became the node; none: it always was.
    first_epoch: Option<Epoch>,
    /// None: nothing is in the chain yet.
    sequence: Option<Link>,
    /// The revision of the node's key; none before the node has joined.
    revision: Option<Revision>,
    /// The node's key says that the node has said what it holds.
    acknowledged: bool,
    /// The node's key says that the node forfeits its free addresses.
    forfeit: Option<Forfeit>,
}

/// The request to which an answer of the store belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pending {
    Prepare,
    Link,
    Check,
    Join,
    /// The last link when it was asked, if nothing was in progress.
    Heartbeat(Option<Link>),
    KeepAlive,
    Barrier,
    /// A lease of that life for parked blocks.
    Parking(Duration),
    /// The records of some blocks, in this round of the scan.
    RecordScan(u64),
    Find(OrderId),
    AgreeBlockSize(OrderId),
    /// Nobody waits for it.
    Aside,
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Leaseholder {
    identity: NodeIdentity,
    /// The time at which the boot clock was at 0.
    booted_at: UnixTime,
    phase: JoinPhase,
    chain: Chain,
    /// The link up to which the journal knows that transactions may be on their way: if the store
    /// has seen later ones, the journal is older than the node.
    intended: Option<Link>,
    /// The last link that the journal knows or was asked to remember. No other transaction gets its
    /// number, even if its own was not carried out (rule 13).
    asked: Option<Link>,
    lease: Option<LeaseId>,
    ttl: Duration,
    /// The time at which the request was sent that last made the lease last for all of `ttl`.
    kept_at: BootTime,
    owned: BTreeMap<PoolFamily, BTreeMap<Address, OwnedBlock>>,
    /// Blocks that this node hands out of, or did, and that the store gave to nobody or others.
    lost: BTreeSet<(PoolFamily, Cidr)>,
    /// Blocks that this node parked when it stopped, and of which it does not know yet whether they
    /// are its own again.
    parked: BTreeSet<(PoolFamily, Cidr)>,
    parking: Parking,
    /// The store went back in time, and that is not settled yet: the blocks that were lost before,
    /// of which this node is not the last holder (rule 26).
    settling: Option<BTreeSet<(PoolFamily, Cidr)>>,
    /// The nodes for which a restore of the store waits, as far as this node knows.
    awaited: Option<Vec<Arc<str>>>,
    networks: BTreeMap<Arc<str>, (Option<Revision>, NetworkValue)>,
    watched: BTreeSet<String>,
    queue: VecDeque<(Option<OrderId>, Order)>,
    /// The number of orders at the head of the queue that go each in a transaction of its own.
    singly: usize,
    batch: Option<Batch>,
    /// The time at which the last transaction was carried out.
    linked_at: BootTime,
    /// The time at which the next transaction may be sent, after one that failed.
    link_after: BootTime,
    /// The number of transactions in a row that were not carried out because of the store.
    failed_links: u32,
    /// The last write failed, even if reads succeed: the store answers again when a write has
    /// landed.
    unwritable: bool,
    finds: BTreeMap<OrderId, Find>,
    agreements: BTreeMap<OrderId, AgreeBlockSize>,
    questions: BTreeMap<String, Revision>,
    /// The answers of others that were taken in, and whose keys may still be there.
    taken_answers: BTreeSet<String>,
    /// Questions that wait for the end of the current transaction.
    unasked: Vec<Question>,
    /// Nodes without a session, and when that was noticed, on the boot clock.
    absent: BTreeMap<Arc<str>, BootTime>,
    records: Records,
    scan: RecordScan,
    pending: Map<RequestId, (Pending, BootTime)>,
    next_request: RequestId,
    /// The last step of joining: answers to earlier ones come too late.
    join_request: Option<RequestId>,
    next_question: QuestionNumber,
    stalled: Option<Cause>,
    halted: Option<Cause>,
    alone: Option<bool>,
    draining: bool,
    /// The daemon ends: nothing is done but that its leases are ended.
    left: bool,
    /// The time at which the request was sent whose answer was the last good one.
    contact: BootTime,
    /// With `offline_limit`: until when range sets were told that they may hand out (rule 19).
    good_until: Option<BootTime>,
    heartbeat_at: Option<BootTime>,
    reclaim_at: Option<BootTime>,
    effects: VecDeque<Effect>,
}

impl Leaseholder {
    /// Creates a node that has not joined. `sequence`: how far its chain had come, by its journal;
    /// `intended`: how far it may have come at most; `blocks`: the active blocks that the journal
    /// holds; `withheld`: those of which it hands nothing out; `booted_at`: when the boot clock was
    /// at 0.
    pub fn new(
        identity: NodeIdentity,
        (sequence, intended): (Option<Link>, Option<Link>),
        blocks: impl IntoIterator<Item = (PoolFamily, Cidr)>,
        withheld: Withheld,
        booted_at: UnixTime,
    ) -> Self {
        let mut owned: BTreeMap<PoolFamily, BTreeMap<Address, OwnedBlock>> = BTreeMap::new();
        for (pool, cidr) in blocks {
            let block = OwnedBlock { cidr, revision: None, status: BlockStatus::Active };
            owned.entry(pool).or_default().insert(cidr.first(), block);
        }
        Self {
            ttl: identity.ttl,
            kept_at: BootTime::BOOT,
            // So that no number is used again after a restart.
            next_question: QuestionNumber::first_of(identity.since),
            identity,
            booted_at,
            phase: JoinPhase::new(),
            chain: Chain { sequence, ..Chain::default() },
            intended,
            asked: intended,
            lease: None,
            owned,
            lost: withheld.lost,
            parked: withheld.parked,
            parking: Parking::default(),
            settling: withheld.settling,
            awaited: None,
            networks: BTreeMap::new(),
            watched: BTreeSet::new(),
            queue: VecDeque::new(),
            singly: 0,
            batch: None,
            linked_at: BootTime::BOOT,
            link_after: BootTime::BOOT,
            failed_links: 0,
            unwritable: false,
            finds: BTreeMap::new(),
            agreements: BTreeMap::new(),
            questions: BTreeMap::new(),
            taken_answers: BTreeSet::new(),
            unasked: Vec::new(),
            absent: BTreeMap::new(),
            records: Records::default(),
            scan: RecordScan::default(),
            pending: Map::default(),
            next_request: RequestId::FIRST,
            join_request: None,
            stalled: None,
            halted: None,
            alone: None,
            draining: false,
            left: false,
            contact: BootTime::BOOT,
            good_until: None,
            heartbeat_at: None,
            reclaim_at: None,
            effects: VecDeque::new(),
        }
    }

    /// Begins to join the cluster.
    pub fn start(&mut self, now: BootTime) {
        self.contact = now;
        self.watch_inboxes();
        self.join(now);
    }

    /// Takes an order; the effect that answers it has this id. Without an id nobody waits.
    pub fn order(&mut self, now: BootTime, id: Option<OrderId>, order: Order) {
        match order {
            Order::Find { pool, wanted, even_cooling } => {
                if let Some(id) = id {
                    self.find(now, id, pool, wanted, even_cooling);
                }
            }
            Order::AgreeBlockSize { pool, ranges, block_size, explicit } => {
                let agreement = AgreeBlockSize::new(pool, ranges, block_size, explicit);
                if let Some(id) = id {
                    self.agree_block_size(now, id, agreement);
                }
            }
            Order::GiveBack { pool, mut cidrs } => {
                cidrs.retain(|&cidr| match id {
                    Some(_) => self.gives_back(&pool, cidr),
                    // Only spares that are no longer wanted.
                    None => self.is_spare(&pool, cidr),
                });
                if cidrs.is_empty() {
                    return self.effects.push_back(Effect::GivenBack(id, true));
                }
                self.queue.push_back((id, Order::GiveBack { pool, cidrs }));
                self.link(now);
            }
            order @ Order::Park { .. } => {
                self.park(now, id, order);
                self.link(now);
            }
            Order::Refuse(question) if self.is_answering(&question.key) => {}
            Order::Transfer { question, .. } if self.is_answering(&question.key) => {
                self.effects.push_back(Effect::Transferred(id, false));
            }
            order => {
                if let Order::Lease { pool, .. } = &order {
                    self.watch_inbox(&pool.network.clone());
                }
                // While the store cannot be asked, the range set that needs a block learns the
                // reason at once.
                if let (Order::Lease { .. }, Some(cause)) = (&order, self.unable()) {
                    return self.effects.push_back(Effect::Leased(id, Leased::Failed(cause)));
                }
                self.queue.push_back((id, order));
                self.link(now);
            }
        }
    }

    /// Returns whether an answer to this question is on its way: questions may be reported twice.
    fn is_answering(&self, key: &str) -> bool {
        let batch = self.batch.as_ref().map_or(&[][..], |batch| &batch.orders);
        self.queue.iter().chain(batch).any(|(_, order)| match order {
            Order::Transfer { question, .. } | Order::Refuse(question) => question.key == key,
            _ => false,
        })
    }

    /// Returns the reason why nothing can be leased now, if there is one.
    pub fn unable(&self) -> Option<Cause> {
        if let JoinPhase::Fenced(cause) = &self.phase {
            return Some(cause.clone());
        }
        self.stalled.clone()
    }

    /// Handles the store's answer to [`Effect::Store`].
    pub fn answered(
        &mut self,
        now: BootTime,
        request: RequestId,
        answer: Result<Answer, StoreError>,
    ) {
        let Some((pending, sent)) = self.pending.remove(&request) else { return };
        match &answer {
            Ok(_) | Err(StoreError::LeaseGone) => self.reached(sent),
            Err(error) => {
                self.unwritable |= pending == Pending::Link || self.is_registering(&pending);
                self.stall(Some(Cause::Store(error.clone())));
            }
        }
        match pending {
            Pending::Prepare => self.prepared(now, answer),
            Pending::Link => self.linked(now, answer),
            Pending::Check => self.checked(now, answer),
            Pending::Join if Some(request) == self.join_request => self.join_answered(now, answer),
            Pending::Join => self.join_outdated(now, &answer),
            Pending::Heartbeat(idle) => self.beat(now, idle, answer),
            Pending::KeepAlive => self.kept(now, sent, &answer),
            Pending::Barrier => self.barrier_answered(now, answer),
            Pending::Parking(ttl) => self.parking_answered(ttl, &answer),
            Pending::RecordScan(round) => self.records_listed(now, round, answer),
            Pending::Find(id) => self.find_answered(now, id, answer),
            Pending::AgreeBlockSize(id) => self.agreement_answered(now, id, answer),
            Pending::Aside => {}
        }
        self.link(now);
    }

    /// Remembers that the journal has the link of [`Effect::Intend`].
    pub fn intended(&mut self, now: BootTime, link: Link) {
        self.intended = self.intended.max(Some(link));
        self.register_intended(now);
        self.send_prepared(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.join_timeout(now);
        self.check_timeout(now);
        self.find_timeout(now);
        if self.heartbeat_at.is_some_and(|due| due <= now) {
            self.heartbeat(now);
        }
        if self.reclaim_at.is_some_and(|due| due <= now) {
            self.reclaim_lost(now);
        }
        if let Some(limit) = self.identity.offline_limit
            && self.silence(now) > limit
            && self.halted.is_none()
        {
            self.halt(Some(Cause::OfflineLimit));
        }
        self.link(now);
    }

    /// Returns the time at which [`Leaseholder::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let offline = (self.identity.offline_limit.filter(|_| self.halted.is_none()))
            .map(|limit| self.contact + limit + limits::CLOCK_STEP);
        let due = [self.heartbeat_at, self.reclaim_at, offline, self.join_due()];
        let due = due.into_iter().chain([self.check_due(), self.find_due(), self.records_due()]);
        due.flatten().min()
    }

    /// Returns the next effect, until there is none.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns whether the node has joined and nothing is in progress.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, JoinPhase::Member) && self.batch.is_none() && self.queue.is_empty()
    }

    /// Returns whether the node is a member of the cluster.
    pub fn is_member(&self) -> bool {
        matches!(self.phase, JoinPhase::Member)
    }

    /// Returns the current lease.
    pub fn lease(&self) -> Option<LeaseId> {
        self.lease
    }

    /// Returns the link that the node's chain has reached.
    pub fn sequence(&self) -> Option<Link> {
        self.chain.sequence
    }

    /// Returns the number of blocks that this node handed out of and that the store gave to others.
    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// Returns the time for which the store has not answered.
    pub fn silence(&self, now: BootTime) -> Duration {
        now.since(self.contact)
    }

    /// Returns the time for which the lease lasts if the store is not reached again.
    pub fn lease_left(&self, now: BootTime) -> Duration {
        self.lease.map_or(Duration::ZERO, |_| (self.kept_at + self.ttl).since(now))
    }

    /// Returns the number of orders that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn request(&mut self, now: BootTime, pending: Pending, request: Request) {
        if self.left && !matches!(request, Request::Revoke(_)) {
            return; // a session that is written now would outlive the daemon
        }
        let id = self.next_request;
        self.next_request = id.next();
        if pending == Pending::Join {
            self.join_request = Some(id);
        }
        self.pending.insert(id, (pending, now));
        self.effects.push_back(Effect::Store(id, request));
    }

    fn reached(&mut self, sent: BootTime) {
        self.contact = self.contact.max(sent);
        if let Some(limit) = self.identity.offline_limit
            && let until = self.contact + limit
            && self.good_until.is_none_or(|told| until >= told + limits::GOOD_UNTIL_STEP)
        {
            self.good_until = Some(until);
            self.effects.push_back(Effect::GoodUntil(until));
        }
        // A node whose name is another's is not well because the store answers.
        if self.is_nameless() {
            return;
        }
        if !self.unwritable {
            self.stall(None);
        }
        let fenced = matches!(self.phase, JoinPhase::Fenced(_));
        if self.halted.is_some() && !fenced {
            self.halt(None);
        }
    }

    /// Remembers that a write has landed.
    fn written(&mut self) {
        self.unwritable = false;
        self.failed_links = 0;
        self.stall(None);
    }

    fn stall(&mut self, cause: Option<Cause>) {
        if self.stalled.is_some() != cause.is_some() {
            self.stalled.clone_from(&cause);
            self.effects.push_back(Effect::Stalled(cause));
        }
    }

    fn halt(&mut self, cause: Option<Cause>) {
        self.halted.clone_from(&cause);
        self.effects.push_back(Effect::Halted(cause));
    }

    fn unix_time(&self, now: BootTime) -> UnixTime {
        self.booted_at + now.since(BootTime::BOOT)
    }
}
