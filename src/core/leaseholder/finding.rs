//! The way to an address that is in no block of this node: what is in no block at all, and else
//! the nodes that hold it (rule 10).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::examination::Examination;
use super::{Effect, Found, Leaseholder, Order, Pending, parts};
use crate::core::address::{Address, AddressRange, BlockSize, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::{OrderId, Revision};
use crate::core::keys::{PoolFamily, answer_key, question_key, session_key};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::core::txn::{Answer, KeyValue, Request, Snapshot, Span, StoreError, Txn, Write};
use crate::core::value::{BlockStatus, BlockValue, Message, MessageBody, Value};
use crate::limits;

/// A search that has begun.
#[derive(Debug)]
pub(super) struct Find {
    pub(super) pool: PoolFamily,
    pub(super) wanted: Vec<AddressRange>,
    even_cooling: bool,
    /// Blocks seen so far, in order; ours too.
    seen: Vec<SeenBlock>,
    /// Blocks whose owners were asked and had nothing to give: their first addresses, and the
    /// revisions of their keys.
    asked: BTreeSet<(Address, Revision)>,
    /// The number of times that the blocks were read.
    reads: u32,
    /// Nodes that hold some of them and have not been asked, the most promising first.
    owners: VecDeque<Arc<str>>,
    /// A node that holds some and does not live.
    gone: Option<(Arc<str>, BootTime)>,
    /// All such nodes.
    absent: BTreeSet<Arc<str>>,
    /// A look into the blocks of such nodes.
    pub(super) examination: Option<Examination>,
    /// A node that holds some, lives, and did not answer in time.
    silent: Option<Arc<str>>,
    round: usize,
    /// Nodes whose sessions are being read.
    looking: Vec<Arc<str>>,
    /// Messages without an answer and who is asked, and until when to wait for them.
    open: BTreeMap<String, Arc<str>>,
    until: Option<BootTime>,
}

/// A block as a search sees it.
#[derive(Debug)]
struct SeenBlock {
    cidr: Cidr,
    owner: Arc<str>,
    status: BlockStatus,
    revision: Revision,
}

impl Leaseholder {
    pub(super) fn find(
        &mut self,
        now: BootTime,
        id: OrderId,
        pool: PoolFamily,
        wanted: Vec<AddressRange>,
        even_cooling: bool,
    ) {
        if let Some(cause) = self.unable() {
            return self.effects.push_back(Effect::Found(id, Found::Failed(cause)));
        }
        self.watch_inbox(&pool.network);
        let find = Find {
            pool,
            wanted,
            even_cooling,
            seen: Vec::new(),
            asked: BTreeSet::new(),
            reads: 0,
            owners: VecDeque::new(),
            gone: None,
            absent: BTreeSet::new(),
            examination: None,
            silent: None,
            round: 0,
            looking: Vec::new(),
            open: BTreeMap::new(),
            until: None,
        };
        self.look_around(now, id, find);
    }

    /// Reads again who holds what is wanted.
    pub(super) fn look_around(&mut self, now: BootTime, id: OrderId, mut find: Find) {
        find.seen.clear();
        find.examination = None;
        (find.round, find.reads) = (0, find.reads + 1);
        let first = find.wanted.first().map_or(Address::FIRST, |range| range.first());
        let first = find.pool.block_key(Cidr::containing(first, BlockSize::MAX).first());
        self.read_blocks(now, id, &find, first);
        self.finds.insert(id, find);
    }

    fn read_blocks(&mut self, now: BootTime, id: OrderId, find: &Find, first: String) {
        let last = find.wanted.iter().map(|range| range.last()).max();
        let last = last.unwrap_or(Address::FIRST);
        let past = format!("{}~", find.pool.block_key(last));
        let span = Span { first, past, limit: limits::KEYS_PER_READ_MAX };
        self.request(now, Pending::Find(id), Request::Read(vec![span]));
    }

    pub(super) fn end_find(&mut self, id: OrderId, found: Found) {
        if self.finds.remove(&id).is_some() {
            self.effects.push_back(Effect::Found(id, found));
        }
    }

    pub(super) fn find_answered(
        &mut self,
        now: BootTime,
        id: OrderId,
        answer: Result<Answer, StoreError>,
    ) {
        let Some(mut find) = self.finds.remove(&id) else { return };
        match answer {
            Ok(Answer::Read(snapshot)) if find.is_examining() => {
                self.examined(now, id, find, &snapshot);
            }
            Ok(Answer::Read(snapshot)) if find.looking.is_empty() => {
                self.saw_blocks(now, id, find, snapshot);
            }
            Ok(Answer::Read(snapshot)) => self.saw_sessions(now, id, find, &snapshot),
            // The questions are on their way; whether this answer is lost does not matter.
            Ok(_) | Err(StoreError::Unknown(_)) if !find.open.is_empty() => {
                self.finds.insert(id, find);
            }
            Err(StoreError::LeaseGone) => {
                find.open.clear();
                self.finds.insert(id, find);
                self.end_find(id, Found::Failed(Cause::LeaseGone));
                self.lease_gone(now);
            }
            Ok(_) => self.finds.extend([(id, find)]),
            Err(error) => {
                let failed = Found::Failed(Cause::Store(error));
                self.effects.push_back(Effect::Found(id, failed));
            }
        }
    }

    fn saw_blocks(&mut self, now: BootTime, id: OrderId, mut find: Find, snapshot: Snapshot) {
        let revision = snapshot.revision;
        let keys: Vec<KeyValue> = snapshot.spans.into_iter().flatten().collect();
        let full = keys.len() >= limits::KEYS_PER_READ_MAX;
        let last = keys.last().map(|key| format!("{}\0", key.key));
        self.tidy_up(&find.pool, revision, &keys);
        find.seen.extend(keys.into_iter().filter_map(|key| match key.value {
            Value::Block(BlockValue { cidr, owner, status, .. }) => {
                Some(SeenBlock { cidr, owner, status, revision: key.mod_revision })
            }
            _ => None,
        }));
        if find.has_gap(full) {
            let others = find.others(&self.identity.node);
            return self.effects.push_back(Effect::Found(id, Found::Gap(others)));
        }
        if let (true, Some(next)) = (full, last) {
            self.read_blocks(now, id, &find, next);
            self.finds.insert(id, find);
            return;
        }
        find.choose_owners(&self.identity.node);
        if find.owners.is_empty() {
            let moving = find.reads > limits::FIND_READS_MAX;
            if let Some((cidr, revision)) =
                find.parked(|cidr| !self.is_withheld(&find.pool, cidr)).filter(|_| !moving)
            {
                let order = Order::Take(find.pool.clone(), cidr, revision);
                self.finds.insert(id, find);
                self.queue.push_back((Some(id), order));
                return self.link(now);
            }
            if !moving {
                let may_take = |cidr| !self.is_withheld(&find.pool, cidr);
                find.examination = Some(Examination::new(find.of_silent_nodes(may_take)));
            }
            return self.examine(now, id, find);
        }
        if find.reads > limits::FIND_READS_MAX {
            let failed = Found::Failed(Cause::BlocksMoving);
            return self.effects.push_back(Effect::Found(id, failed));
        }
        self.ask_more(now, id, find);
    }

    /// Takes in the blocks of this node of which it does not know: a spare whose message was lost
    /// is its spare now; of others nothing was handed out, and they go back.
    fn tidy_up(&mut self, pool: &PoolFamily, revision: Revision, keys: &[KeyValue]) {
        if self.batch.is_some() || !self.queue.is_empty() || Some(revision) < self.chain.revision {
            return; // or its answer is on the way
        }
        for key in keys {
            let Value::Block(BlockValue { cidr, owner, status, epoch, .. }) = &key.value else {
                continue;
            };
            let withheld = self.is_withheld(pool, *cidr);
            if *owner != self.identity.node || withheld || self.knows(pool, *cidr) {
                continue;
            }
            // Blocks that another node of this name had before are not this node's (rule 30).
            if *status != BlockStatus::Spare && *epoch < self.chain.first_epoch {
                continue;
            }
            if *status == BlockStatus::Spare && key.lease == self.lease {
                self.keep_owned(pool, *cidr, Some(key.mod_revision), BlockStatus::Spare);
                self.effects.push_back(Effect::Spares(pool.clone(), vec![*cidr]));
            } else {
                let order = Order::Drop(pool.clone(), *cidr, key.mod_revision);
                self.queue.push_back((None, order));
            }
        }
    }

    /// Returns whether the cidr overlaps a block out of which the range set hands nothing, and in
    /// which containers may hold addresses.
    pub(super) fn is_withheld(&self, pool: &PoolFamily, cidr: Cidr) -> bool {
        let mut withheld = self.lost.iter().chain(&self.parked);
        withheld.any(|(of, withheld)| of == pool && withheld.meets(cidr))
    }

    /// Returns whether some block of this node overlaps the cidr.
    fn knows(&self, pool: &PoolFamily, cidr: Cidr) -> bool {
        let blocks = self.owned.get(pool).into_iter().flat_map(BTreeMap::values);
        blocks.into_iter().any(|owned| owned.cidr.meets(cidr))
    }

    /// Asks twice as many nodes as the last time.
    fn ask_more(&mut self, now: BootTime, id: OrderId, mut find: Find) {
        let count = find.owners.len().min(1 << find.round.min(limits::ASKED_AT_ONCE_LOG2_MAX));
        find.round += 1;
        find.looking = find.owners.drain(..count).collect();
        (find.open, find.until) = (BTreeMap::new(), None);
        if find.looking.is_empty() {
            // Blocks changed hands meanwhile, maybe to a node that was not asked for them.
            return self.look_around(now, id, find);
        }
        let spans = find.looking.iter().map(|owner| Span::key(&session_key(owner))).collect();
        self.request(now, Pending::Find(id), Request::Read(spans));
        self.finds.insert(id, find);
    }

    fn saw_sessions(&mut self, now: BootTime, id: OrderId, mut find: Find, snapshot: &Snapshot) {
        let Some(lease) = self.lease else {
            let failed = Found::Failed(Cause::LeaseGone);
            return self.effects.push_back(Effect::Found(id, failed));
        };
        let mut txn = Txn::default();
        for (owner, session) in std::mem::take(&mut find.looking).into_iter().zip(&snapshot.spans) {
            if session.is_empty() {
                let since = *self.absent.entry(owner.clone()).or_insert(now);
                find.absent.insert(owner.clone());
                find.gone.get_or_insert((owner, since));
                continue;
            }
            self.absent.remove(&owner);
            let number = self.next_question;
            self.next_question = number.next();
            let wanted = find.held_by(&owner);
            let body = MessageBody::Ask { wanted, even_cooling: find.even_cooling };
            let (from, family) = (self.identity.node.clone(), find.pool.family);
            let message = Value::Message(Message { from, lease, family, body });
            let key = question_key(&find.pool.network, &owner, &self.identity.node, number);
            txn.then.push(Write::Put(key, message, Some(lease)));
            let answer = answer_key(&find.pool.network, &self.identity.node, &owner, number);
            find.open.insert(answer, owner);
        }
        if find.open.is_empty() {
            return self.ask_more(now, id, find);
        }
        find.until = Some(now + limits::ASK_WAIT);
        self.request(now, Pending::Find(id), Request::Txn(txn));
        self.finds.insert(id, find);
    }

    /// Handles an answer to a question. What is given is ours, even if nobody waits for it now.
    pub(super) fn handle_answer(&mut self, now: BootTime, key: &KeyValue, message: &Message) {
        let found = self.finds.iter().find(|(_, find)| find.open.contains_key(&key.key));
        let id = found.map(|(id, _)| *id);
        self.request(
            now,
            Pending::Aside,
            Request::Txn(Txn { when: vec![], then: vec![Write::Delete(key.key.clone())] }),
        );
        // Its deletion was lost, and it is reported again: what it gave may have gone on since, and
        // come back by another answer (rule 33).
        if !self.taken_answers.insert(key.key.clone()) && !broken(Mutant::AnswerTakenTwice) {
            return;
        }
        let pool = crate::core::keys::message_network(&key.key)
            .map(|network| PoolFamily { network: network.into(), family: message.family });
        let Some(pool) = pool else { return };
        if let MessageBody::Given(cidrs) = &message.body {
            // Told late, it may have changed hands or shape since.
            let known = cidrs.iter().any(|&cidr| self.knows(&pool, cidr));
            if known || Some(message.lease) != self.lease {
                return;
            }
            for &cidr in cidrs {
                self.keep_owned(&pool, cidr, Some(key.mod_revision), BlockStatus::Spare);
            }
            match id {
                Some(id) => self.end_find(id, Found::Given(cidrs.clone())),
                None => self.effects.push_back(Effect::Spares(pool, cidrs.clone())),
            }
            return;
        }
        let Some(id) = id else { return };
        let Some(mut find) = self.finds.remove(&id) else { return };
        find.open.remove(&key.key);
        if find.open.is_empty() {
            self.ask_more(now, id, find);
        } else {
            self.finds.insert(id, find);
        }
    }

    pub(super) fn find_due(&self) -> Option<BootTime> {
        self.finds.values().filter_map(|find| find.until).min()
    }

    /// Passes over the nodes that have not answered in time.
    pub(super) fn find_timeout(&mut self, now: BootTime) {
        let late = |find: &Find| find.until.is_some_and(|until| until <= now);
        let late: Vec<OrderId> =
            self.finds.iter().filter(|(_, find)| late(find)).map(|(id, _)| *id).collect();
        for id in late {
            let Some(mut find) = self.finds.remove(&id) else { continue };
            find.silent = std::mem::take(&mut find.open).into_values().next();
            self.ask_more(now, id, find);
        }
    }
}

impl Find {
    /// Returns whether a wanted address is in no block; `part`: only blocks up to the last one seen
    /// are known.
    fn has_gap(&self, part: bool) -> bool {
        let mut cidrs: Vec<Cidr> = self.seen.iter().map(|seen| seen.cidr).collect();
        cidrs.sort_unstable();
        let seen = || cidrs.last().map_or(Address::FIRST, |cidr| cidr.last());
        let known =
            AddressRange::between(Address::FIRST, if part { seen() } else { Address::LAST });
        let wanted = self.wanted.iter().filter_map(|range| range.common(known));
        wanted.into_iter().any(|range| !parts::uncovered(range, &cidrs).is_empty())
    }

    fn others(&self, me: &str) -> Vec<Cidr> {
        let others = self.seen.iter().filter(|seen| *seen.owner != *me);
        others.map(|seen| seen.cidr).collect()
    }

    /// Chooses the nodes to ask: those that hold something wanted, in a block of which nobody was
    /// asked as it is now.
    fn choose_owners(&mut self, me: &str) {
        let mut owners: BTreeMap<Arc<str>, (bool, u64)> = BTreeMap::new();
        for SeenBlock { cidr, owner, status, revision } in &self.seen {
            let meets = |range: &AddressRange| range.meets(cidr.range());
            let held = **owner != *me && status.is_owned();
            if held && self.wanted.iter().any(meets) && self.asked.insert((cidr.first(), *revision))
            {
                // Owners that have a spare to give come first; otherwise nobody precedes others
                // everywhere.
                let order = spread(me, owner);
                let entry = owners.entry(owner.clone()).or_insert((true, order));
                entry.0 &= *status != BlockStatus::Spare;
            }
        }
        let mut owners: Vec<_> = owners.into_iter().map(|(owner, order)| (order, owner)).collect();
        owners.sort_unstable();
        self.owners = owners.into_iter().map(|(_, owner)| owner).collect();
    }

    /// Returns a parked block with a wanted address, and the revision of its key. It is taken when
    /// nobody has anything else: addresses of it may cool, and its node may come back for it.
    fn parked(&self, may_take: impl Fn(Cidr) -> bool) -> Option<(Cidr, Revision)> {
        let meets = |cidr: Cidr| {
            let mut wanted = self.wanted.iter();
            wanted.any(|range| range.meets(cidr.range()))
        };
        let parked = self.seen.iter().filter(|seen| self.may_be_taken(seen) && may_take(seen.cidr));
        let parked = parked.filter(|seen| self.even_cooling && meets(seen.cidr));
        let spread = |seen: &&SeenBlock| spread(&seen.owner, &format!("{:?}", seen.cidr.first()));
        parked.min_by_key(spread).map(|seen| (seen.cidr, seen.revision))
    }

    fn is_examining(&self) -> bool {
        self.examination.as_ref().is_some_and(Examination::is_reading)
    }

    /// Returns the active blocks with a wanted address of the nodes that do not live, with their
    /// nodes. All addresses of what is taken cool first.
    fn of_silent_nodes(&self, may_take: impl Fn(Cidr) -> bool) -> VecDeque<(Arc<str>, Cidr)> {
        let is_gone = |seen: &&SeenBlock| {
            let meets = |range: &AddressRange| range.meets(seen.cidr.range());
            let active = seen.status == BlockStatus::Active && self.absent.contains(&seen.owner);
            active && may_take(seen.cidr) && self.wanted.iter().any(meets)
        };
        let gone = self.seen.iter().filter(|_| self.even_cooling).filter(is_gone);
        gone.map(|seen| (seen.owner.clone(), seen.cidr)).collect()
    }

    /// Returns whether a block may be taken although its node was not asked: that one has given it
    /// back. That a node has no session says nothing (rule 3).
    fn may_be_taken(&self, seen: &SeenBlock) -> bool {
        let is_silent = || self.gone.as_ref().is_some_and(|(gone, _)| *gone == seen.owner);
        let silent = broken(Mutant::SilentIsGone) && seen.status == BlockStatus::Active;
        seen.status == BlockStatus::Parked || silent && is_silent()
    }

    /// Ends a search in which everybody was asked, and nothing has changed hands since.
    pub(super) fn nobody(mut self, me: &str) -> Found {
        match self.silent.take() {
            None => Found::Nobody { others: self.others(me), gone: self.gone },
            Some(node) => Found::Failed(Cause::OwnerSilent(node)),
        }
    }

    /// Returns the ranges to ask a node for: of each wanted range the part between the first and
    /// the last of its blocks there, since it may hold any number of them.
    fn held_by(&self, owner: &str) -> Vec<AddressRange> {
        let held = self.seen.iter().filter(|seen| *seen.owner == *owner);
        let mut held: Vec<Cidr> = held.map(|seen| seen.cidr).collect();
        held.sort_unstable();
        let between = |wanted: &AddressRange| {
            let next = held.get(held.partition_point(|cidr| cidr.last() < wanted.first()))?;
            let behind = held.partition_point(|cidr| cidr.first() <= wanted.last());
            let last = held.get(behind.checked_sub(1)?)?;
            wanted.common(AddressRange::new(next.first(), last.last())?)
        };
        self.wanted.iter().filter_map(between).take(limits::RANGES_PER_MESSAGE_MAX).collect()
    }
}

/// Returns a number for a pair of nodes: so that not everybody asks the same node first.
fn spread(me: &str, owner: &str) -> u64 {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one((me, owner))
}

#[cfg(test)]
mod tests;
