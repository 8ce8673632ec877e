//! Removing a node that will not come back, and forgetting one that was removed.
//!
//! The machine looks before it changes anything: first the node's key and session, then, page by
//! page, its blocks and records. The transaction that begins the removal compares the node's key,
//! so it is refused if the node has claimed a block since; then the machine looks again. It does
//! the same when the answer to a transaction was lost: what it finds then says what was carried
//! out. A quarantine lease that no transaction named is released in the end.

use super::node_keys::NodeKeys;
use super::phase::{Lease, RemovalPhase};
use super::txns::{Removal, delete_records, forget, is_quarantined, is_spare};
use super::types::{End, NodeFate, RemoveError, RemoveNodeCommand, Removed};
use super::{Command, Step};
use crate::core::ids::{Epoch, LeaseId, Revision};
use crate::core::keys::{ALLOCATIONS, BLOCKS, node_key, session_key};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::UnixTime;
use crate::core::txn::{Answer, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome};
use crate::core::value::{NodeValue, Value};
use crate::limits;

/// The removal of a node: see the module.
#[derive(Clone, Debug)]
pub struct RemoveNode {
    command: RemoveNodeCommand,
    /// The time of the command. The removal says so in the node's key, which tells it apart.
    at: UnixTime,
    phase: RemovalPhase,
    tries: u32,
    seen: NodeKeys,
    /// The leases of quarantines that must be shortened.
    longer: Vec<LeaseId>,
    lease: Option<Lease>,
    /// Blocks that are not taken yet.
    to_take: Vec<KeyValue>,
    /// The revision of the node's key.
    revision: Option<Revision>,
    /// The node's epoch was raised by this command.
    begun: bool,
    /// A transaction was carried out, or may have been.
    changed: bool,
    /// The keys that a transaction whose answer was lost would have deleted.
    lost: Vec<String>,
    removed: Removed,
}

impl Command for RemoveNode {
    type End = End;

    fn start(&mut self, now: UnixTime) -> Step<End> {
        self.at = now;
        let (min, max) = (limits::QUARANTINE_MIN, limits::QUARANTINE_MAX);
        if !(min..=max).contains(&self.removed.quarantine) {
            return self.end(Err(RemoveError::Quarantine(min, max)));
        }
        self.read_node()
    }

    fn answered(&mut self, answer: Result<Answer, StoreError>) -> Step<End> {
        match (std::mem::take(&mut self.phase), answer) {
            (RemovalPhase::Reading, Ok(Answer::Read(snapshot))) => self.read(snapshot),
            (RemovalPhase::Listing(span, more), Ok(Answer::Read(snapshot))) => {
                let page: Vec<KeyValue> = snapshot.spans.into_iter().flatten().collect();
                let rest = span.rest(&page);
                self.seen.add(&self.command.node, page);
                match (rest, more) {
                    (Some(rest), more) => self.list(rest, more),
                    (None, [prefix, more @ ..]) => self.list(all(prefix), more),
                    (None, []) => self.decide(),
                }
            }
            (RemovalPhase::Measuring(mut leases), Ok(Answer::Left(left))) => {
                let measured = leases.pop();
                self.longer.extend(measured.filter(|_| left > Some(self.removed.quarantine)));
                self.measure(leases)
            }
            (RemovalPhase::Leasing, Ok(Answer::Granted(id, _))) => {
                self.lease = Some(Lease { id, used: false });
                self.take()
            }
            (RemovalPhase::Leasing, Ok(Answer::Kept(Some(_)))) => self.take(),
            (RemovalPhase::Leasing, Ok(Answer::Kept(None))) => self.lease_gone(Self::lease),
            (RemovalPhase::Taking(blocks), Ok(Answer::Txn(TxnOutcome::Done(revision)))) => {
                self.taken(&blocks, revision)
            }
            (RemovalPhase::Prolonging, Ok(Answer::Kept(None))) => self.lease_gone(Self::read_node),
            // The quarantine then lasts from when its lease was granted.
            (RemovalPhase::Prolonging, _) => self.delete(),
            (RemovalPhase::Deleting(records), Ok(Answer::Txn(TxnOutcome::Done(_)))) => {
                (self.removed.records, self.changed) = (self.removed.records + records.len(), true);
                self.delete()
            }
            (RemovalPhase::Remembering, Ok(Answer::Granted(lease, _))) => self.forget(lease),
            (RemovalPhase::Forgetting(_), Ok(Answer::Txn(TxnOutcome::Done(_)))) => {
                self.end(Ok(self.removed.clone()))
            }
            (RemovalPhase::Forgetting(lease), Ok(Answer::Txn(TxnOutcome::Refused(_)))) => {
                self.release(lease, None)
            }
            // A lease that is not released ends by itself.
            (RemovalPhase::Releasing(Some(end)), _) => Step::Done(*end),
            (RemovalPhase::Releasing(None), _) => self.read_node(),
            (
                RemovalPhase::Taking(_) | RemovalPhase::Deleting(_),
                Ok(Answer::Txn(TxnOutcome::Refused(_))),
            ) => self.read_node(),
            (phase, Err(StoreError::Unknown(_))) if phase.is_txn() => self.answer_lost(phase),
            (phase, Err(StoreError::LeaseGone)) if phase.is_txn() => {
                self.lease_gone(Self::read_node)
            }
            (RemovalPhase::Forgetting(lease), Err(error)) => {
                let end = Err(RemoveError::Store { error, begun: self.changed });
                self.release(lease, Some(end))
            }
            (_, Err(error)) => self.fail(error),
            (_, Ok(_)) => self.fail(StoreError::OddAnswer),
        }
    }
}

/// Returns the span of everything under a prefix.
fn all(prefix: &str) -> Span {
    Span::prefix(prefix, limits::KEYS_PER_READ_MAX)
}

/// Takes as many keys as fit one transaction.
fn next(keys: &mut Vec<KeyValue>) -> Vec<KeyValue> {
    keys.drain(..keys.len().min(limits::REMOVED_PER_TXN_MAX)).collect()
}

/// Returns whether any of these blocks goes into quarantine when it is taken.
fn needs_lease(blocks: &[KeyValue]) -> bool {
    !blocks.iter().all(is_spare)
}

impl RemoveNode {
    /// Prepares a removal.
    pub fn new(command: RemoveNodeCommand) -> Self {
        let removed = Removed {
            fate: NodeFate::Removed,
            epoch: None,
            quarantined: 0,
            freed: 0,
            quarantine: command.quarantine.unwrap_or(limits::QUARANTINE),
            records: 0,
            was_live: false,
            last_write: None,
        };
        Self {
            command,
            at: UnixTime::EPOCH,
            phase: RemovalPhase::Ended,
            tries: 0,
            seen: NodeKeys::default(),
            longer: Vec::new(),
            lease: None,
            to_take: Vec::new(),
            revision: None,
            begun: false,
            changed: false,
            lost: Vec::new(),
            removed,
        }
    }

    fn ask(&mut self, phase: RemovalPhase, request: Request) -> Step<End> {
        self.phase = phase;
        Step::Ask(request)
    }

    fn end(&mut self, end: End) -> Step<End> {
        match self.lease.take_if(|lease| !lease.used) {
            Some(lease) => self.release(lease.id, Some(end)),
            None => Step::Done(end),
        }
    }

    fn release(&mut self, lease: LeaseId, end: Option<End>) -> Step<End> {
        self.ask(RemovalPhase::Releasing(end.map(Box::new)), Request::Revoke(lease))
    }

    fn fail(&mut self, error: StoreError) -> Step<End> {
        let begun = self.changed;
        self.end(Err(RemoveError::Store { error, begun }))
    }

    /// Looks at what the store says of the node, as if for the first time.
    fn read_node(&mut self) -> Step<End> {
        if self.tries == limits::CHANGE_TRIES_MAX {
            return self.end(Err(RemoveError::Busy));
        }
        self.tries += 1;
        self.seen = NodeKeys::default();
        let node = &*self.command.node;
        let keys = [node_key(node), session_key(node)];
        self.ask(
            RemovalPhase::Reading,
            Request::Read(keys.iter().map(|key| Span::key(key)).collect()),
        )
    }

    fn read(&mut self, snapshot: Snapshot) -> Step<End> {
        let mut keys = snapshot.spans.into_iter().map(|found| found.into_iter().next());
        let (known, session) = (keys.next().flatten(), keys.next().flatten());
        self.seen.known = match known.map(|key| (key.value, key.mod_revision)) {
            None => None,
            Some((Value::Node(node), revision)) => Some((node, revision)),
            Some(_) => return self.end(Err(RemoveError::Unreadable)),
        };
        self.seen.live = session.is_some();
        self.list(all(BLOCKS), &[ALLOCATIONS])
    }

    fn list(&mut self, span: Span, more: &'static [&'static str]) -> Step<End> {
        self.ask(RemovalPhase::Listing(span.clone(), more), Request::Read(vec![span]))
    }

    /// Decides on what was seen.
    fn decide(&mut self) -> Step<End> {
        self.count_lost();
        let known = self.seen.known.as_ref();
        self.revision = known.map(|(_, revision)| *revision);
        let removed = known.and_then(|(node, _)| node.removed);
        let last_write = self.seen.last_write();
        self.removed.last_write = self.removed.last_write.max(last_write);
        self.removed.quarantined = self.seen.blocks.len() - self.seen.spares();
        if known.is_none() && self.seen.blocks.is_empty() {
            // It was there at an earlier look: this command has forgotten it, or another one has.
            self.removed.fate = NodeFate::Forgotten;
            let was_there = self.tries > 1 || self.command.incarnation.is_some();
            let end = was_there.then(|| self.removed.clone()).ok_or(RemoveError::UnknownNode);
            return self.end(end);
        }
        let epoch = known.map(|(node, _)| node.epoch);
        // The answer to the transaction that did it may have been lost.
        self.begun |= self.changed && removed == Some(self.at);
        if self.begun && removed.is_none() {
            return self.end(Err(RemoveError::CameBack));
        }
        if self.begun {
            self.removed.epoch = epoch;
            return self.prepare();
        }
        match self.is_meant() {
            Ok(true) => {}
            Ok(false) => {
                (self.removed.fate, self.removed.epoch) = (NodeFate::Succeeded, epoch);
                return self.end(Ok(self.removed.clone()));
            }
            Err(refusal) => return self.end(Err(refusal)),
        }
        if let Err(refusal) = self.check() {
            return self.end(Err(refusal));
        }
        self.removed.was_live |= self.seen.live;
        self.removed.fate = match removed.filter(|_| !self.seen.live) {
            Some(_) if self.seen.blocks.is_empty() => NodeFate::Forgotten,
            Some(_) if self.seen.blocks.iter().all(is_quarantined) => NodeFate::AlreadyRemoved,
            _ => NodeFate::Removed,
        };
        // A node that was removed before is removed again: after the store was restored from a
        // backup, what counts is that its key is newer than that.
        self.removed.epoch = match self.removed.fate {
            NodeFate::Forgotten | NodeFate::Succeeded => epoch,
            NodeFate::Removed | NodeFate::AlreadyRemoved => {
                Some(epoch.map_or(Epoch::FIRST, Epoch::next))
            }
        };
        if self.command.dry_run {
            self.removed.freed = self.seen.spares();
            self.removed.records = self.seen.records.len();
            return self.end(Ok(self.removed.clone()));
        }
        self.longer.clear();
        match (self.removed.fate, self.command.quarantine) {
            (NodeFate::Forgotten, _) => self.delete(),
            (_, Some(_)) => self.measure(self.seen.quarantines()),
            (_, None) => self.prepare(),
        }
    }

    /// Counts what a transaction deleted whose answer was lost.
    fn count_lost(&mut self) {
        for key in std::mem::take(&mut self.lost) {
            if !self.seen.has(&key) {
                let count = match key.starts_with(BLOCKS) {
                    true => &mut self.removed.freed,
                    false => &mut self.removed.records,
                };
                *count += 1;
            }
        }
    }

    /// Returns whether the node is the machine that the caller means. The transaction that begins
    /// the removal compares the key that was read, so another machine that joins later is not hit.
    fn is_meant(&self) -> Result<bool, RemoveError> {
        let Some(meant) = &self.command.incarnation else { return Ok(true) };
        match &self.seen.known {
            Some((NodeValue { machine_id: Some(id), .. }, _)) => Ok(id == meant),
            _ => Err(RemoveError::NoIncarnation),
        }
    }

    fn check(&self) -> Result<(), RemoveError> {
        match self.command.force {
            true => Ok(()),
            false if self.command.local => Err(RemoveError::Local),
            false if self.seen.live => Err(RemoveError::Live),
            false => Ok(()),
        }
    }

    /// Finds out how long the quarantines of an earlier removal last.
    fn measure(&mut self, leases: Vec<LeaseId>) -> Step<End> {
        match leases.last() {
            Some(&lease) => self.ask(RemovalPhase::Measuring(leases), Request::TimeLeft(lease)),
            None => self.prepare(),
        }
    }

    fn prepare(&mut self) -> Step<End> {
        self.to_take = self.seen.to_take(&self.longer);
        if needs_lease(&self.to_take) { self.lease() } else { self.take() }
    }

    fn lease(&mut self) -> Step<End> {
        let request = match self.lease {
            Some(lease) => Request::KeepAlive(lease.id),
            None => Request::Grant(self.removed.quarantine),
        };
        self.ask(RemovalPhase::Leasing, request)
    }

    /// Handles the end of the quarantine's lease: if blocks were on it, the quarantine is over too.
    fn lease_gone(&mut self, then: fn(&mut Self) -> Step<End>) -> Step<End> {
        match self.lease.take() {
            Some(lease) if lease.used && self.begun => self.end(Err(RemoveError::QuarantineOver)),
            _ => then(self),
        }
    }

    /// Takes the next blocks; the first transaction raises the epoch too.
    fn take(&mut self) -> Step<End> {
        let blocks = next(&mut self.to_take);
        if self.begun && blocks.is_empty() {
            return match self.lease.filter(|lease| lease.used) {
                Some(lease) => self.ask(RemovalPhase::Prolonging, Request::KeepAlive(lease.id)),
                None => self.delete(),
            };
        }
        let removal = Removal {
            node: self.command.node.clone(),
            force: self.command.force,
            quarantine: self.lease.map(|lease| lease.id),
            now: self.at,
        };
        let txn = if self.begun {
            removal.go_on(self.revision, self.removed.epoch, &blocks)
        } else {
            let known = self.seen.known.as_ref().map(|(node, revision)| (node, *revision));
            removal.begin(known, &blocks)
        };
        self.ask(RemovalPhase::Taking(blocks), Request::Txn(txn))
    }

    fn taken(&mut self, blocks: &[KeyValue], revision: Revision) -> Step<End> {
        if !self.begun && !broken(Mutant::RemovalKeepsEpoch) {
            self.revision = Some(revision);
        }
        (self.begun, self.changed) = (true, true);
        self.removed.freed += blocks.iter().filter(|key| is_spare(key)).count();
        self.named(blocks);
        self.take()
    }

    /// Remembers that a transaction has taken these blocks, or may have.
    fn named(&mut self, blocks: &[KeyValue]) {
        if let Some(lease) = &mut self.lease {
            lease.used |= needs_lease(blocks);
        }
    }

    fn answer_lost(&mut self, phase: RemovalPhase) -> Step<End> {
        self.changed = true;
        let keys = match phase {
            RemovalPhase::Taking(mut blocks) => {
                self.named(&blocks);
                blocks.retain(is_spare);
                blocks
            }
            RemovalPhase::Deleting(records) => records,
            _ => Vec::new(),
        };
        self.lost = keys.into_iter().map(|key| key.key).collect();
        self.read_node()
    }

    /// Deletes the next records, and then, if that is what is left to do, the node's key.
    fn delete(&mut self) -> Step<End> {
        let records = next(&mut self.seen.records);
        if !records.is_empty() {
            let txn = delete_records(&self.command.node, self.revision, &records);
            return self.ask(RemovalPhase::Deleting(records), Request::Txn(txn));
        }
        match self.removed.fate {
            NodeFate::Removed | NodeFate::AlreadyRemoved | NodeFate::Succeeded => {
                self.end(Ok(self.removed.clone()))
            }
            NodeFate::Forgotten => {
                self.ask(RemovalPhase::Remembering, Request::Grant(limits::FORGOTTEN))
            }
        }
    }

    fn forget(&mut self, lease: LeaseId) -> Step<End> {
        let txn = match &self.seen.known {
            Some((node, revision)) => forget(&self.command.node, node, *revision, lease),
            None => Txn::default(),
        };
        self.ask(RemovalPhase::Forgetting(lease), Request::Txn(txn))
    }
}
