//! Becoming a member of the cluster, staying one, and what may end it.

use std::time::Duration;

use super::record_scan::RecordScan;
use super::{Chain, Effect, Leaseholder, Pending, StoredState, restore_barrier};
use crate::core::address::Cidr;
use crate::core::cause::Cause;
use crate::core::ids::{Epoch, LeaseId, Link, Revision};
use crate::core::keys::{
    BLOCKS, NETWORKS, NODES, PoolFamily, RESTORED, drain_key, forgotten_key, node_key, session_key,
};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::core::txn::{
    Answer, Compare, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Write,
};
use crate::core::value::{BlockValue, NodeValue, SessionValue, Value};
use crate::limits;

/// The progress of the node's joining.
#[derive(Debug)]
pub(super) enum JoinPhase {
    Joining(Box<Joining>),
    Member,
    /// Another daemon has the node's name: this one no longer changes anything.
    Fenced(Cause),
}

impl JoinPhase {
    pub(super) fn new() -> Self {
        Self::Joining(Box::default())
    }
}

#[derive(Default, Debug)]
pub(super) struct Joining {
    pub(super) step: Step,
    tries: u32,
    /// The value last written, or tried to be, to the node's key.
    attempt: Option<NodeValue>,
    /// The lease of the daemon before.
    old_lease: Option<LeaseId>,
    /// The store is older than this node's memory.
    pub(super) went_back: bool,
    /// Somebody has said that the store went back.
    pub(super) marked: bool,
    /// This node has said so.
    has_marked: bool,
    /// The node's name is another's at present: nothing is handed out.
    pub(super) nameless: bool,
    /// The journal is older than the node, in the boot that lasts: what the store has and the
    /// journal has not may be in use.
    pub(super) state_lost: bool,
    /// The part of it that is remembered.
    pub(super) scan: RecordScan,
    pub(super) stored_state: StoredState,
    /// Blocks that this node parked, and that are still so: the registration takes them back.
    parked: Vec<(PoolFamily, Cidr, Revision)>,
    /// Blocks of this node, as far as they are listed.
    pub(super) blocks: Vec<(KeyValue, BlockValue)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Step {
    #[default]
    Granting,
    Reading,
    /// Saying that the store went back in time.
    Marking,
    /// Waiting for the journal, to write this to the node's key, which has that revision.
    Intending(Option<Revision>),
    Registering,
    Listing,
    /// Reading what blocks the networks have that this node forgot.
    Mapping,
    /// Reading the records of a node that forgot.
    ScanningRecords,
    Resting(BootTime),
}

impl Leaseholder {
    pub(super) fn joining(&mut self) -> Option<&mut Joining> {
        match &mut self.phase {
            JoinPhase::Joining(joining) => Some(joining),
            _ => None,
        }
    }

    /// Returns whether an answer is that to a write of the joining.
    pub(super) fn is_registering(&self, pending: &Pending) -> bool {
        let step = match &self.phase {
            JoinPhase::Joining(joining) => joining.step,
            _ => return false,
        };
        *pending == Pending::Join && matches!(step, Step::Registering | Step::Marking)
    }

    fn step(&mut self, step: Step) {
        if let Some(joining) = self.joining() {
            joining.step = step;
        }
    }

    /// Takes the first step, or the first one again.
    pub(super) fn join(&mut self, now: BootTime) {
        if self.lease.is_none() {
            self.step(Step::Granting);
            return self.request(now, Pending::Join, Request::Grant(self.identity.ttl));
        }
        self.step(Step::Reading);
        let node = &*self.identity.node;
        let spans = [node_key(node), session_key(node), drain_key(node), RESTORED.to_owned()];
        let mut spans: Vec<Span> = spans.iter().map(|key| Span::key(key)).collect();
        spans.push(Span::prefix(NODES, 2));
        spans.push(Span::key(&forgotten_key(node)));
        spans.extend(self.parked_spans());
        self.request(now, Pending::Join, Request::Read(spans));
    }

    /// Asks for a new lease for a member whose lease is gone.
    pub(super) fn regrant(&mut self, now: BootTime) {
        self.request(now, Pending::Join, Request::Grant(self.identity.ttl));
    }

    /// Handles the discovery that the store has another state of this member: it joins again, or is
    /// fenced.
    pub(super) fn rejoin(&mut self, now: BootTime, node: Option<&NodeValue>) {
        if let Some(node) = node
            && Some(node.epoch) > self.chain.epoch
            && node.removed.is_none()
        {
            let cause = Cause::TakenOver { node: self.identity.node.clone() };
            self.phase = JoinPhase::Fenced(cause.clone());
            self.heartbeat_at = None;
            return self.halt(Some(cause));
        }
        if let Some(lease) = self.lease {
            self.request(now, Pending::Aside, Request::Revoke(lease));
        }
        self.phase = JoinPhase::new();
        self.lease_gone(now);
        self.join(now);
    }

    pub(super) fn join_due(&self) -> Option<BootTime> {
        match &self.phase {
            JoinPhase::Joining(joining) => match joining.step {
                Step::Resting(until) => Some(until),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn join_timeout(&mut self, now: BootTime) {
        if self.join_due().is_some_and(|until| until <= now) {
            self.join(now);
        }
    }

    fn rest(&mut self, now: BootTime, wait: Option<Duration>) {
        if let Some(joining) = self.joining() {
            joining.tries += 1;
            let wait = wait.unwrap_or(Self::back_off(joining.tries));
            joining.step = Step::Resting(now + wait);
        }
    }

    pub(super) fn join_answered(&mut self, now: BootTime, answer: Result<Answer, StoreError>) {
        if let Ok(Answer::Granted(lease, ttl)) = answer {
            return self.granted(now, lease, ttl);
        }
        let JoinPhase::Joining(joining) = &self.phase else { return };
        match (joining.step, answer) {
            (Step::Reading, Ok(Answer::Read(snapshot))) => self.looked(now, &snapshot),
            (Step::Marking, Ok(Answer::Txn(_))) => {
                // If it was refused, somebody has said so a moment before.
                self.joining().into_iter().for_each(|joining| joining.has_marked = true);
                self.join(now);
            }
            (Step::Registering, Ok(Answer::Txn(TxnOutcome::Done(revision)))) => {
                self.registered(now, Some(revision));
            }
            (Step::Listing, Ok(Answer::Read(snapshot))) => self.listed(now, &snapshot),
            (Step::Mapping, Ok(Answer::Read(snapshot))) => self.mapped(now, snapshot),
            (Step::ScanningRecords, Ok(Answer::Read(snapshot))) => {
                self.rebuild(now, Some(snapshot));
            }
            (_, answer) => {
                if answer == Err(StoreError::LeaseGone) {
                    self.lease_gone(now);
                }
                self.rest(now, None);
            }
        }
    }

    /// Handles the store's answer to a step that was taken again since.
    pub(super) fn join_outdated(&mut self, now: BootTime, answer: &Result<Answer, StoreError>) {
        if let Ok(Answer::Granted(lease, _)) = answer
            && self.lease != Some(*lease)
        {
            self.request(now, Pending::Aside, Request::Revoke(*lease));
        }
    }

    fn granted(&mut self, now: BootTime, lease: LeaseId, ttl: Duration) {
        self.kept_at = self.contact;
        match &self.phase {
            JoinPhase::Joining(_) => {
                (self.lease, self.ttl) = (Some(lease), ttl);
                self.join(now);
            }
            JoinPhase::Member if self.lease.is_none() => {
                (self.lease, self.ttl) = (Some(lease), ttl);
                self.renew_session();
            }
            _ => self.request(now, Pending::Aside, Request::Revoke(lease)),
        }
    }

    /// Decides on what the store says of this node.
    fn looked(&mut self, now: BootTime, snapshot: &Snapshot) {
        let first = |i: usize| snapshot.spans.get(i).and_then(|keys| keys.first());
        let (node, session) = (first(0), first(1));
        self.set_draining(first(2).is_some());
        let marked = first(3).is_some();
        let others = |key: &KeyValue| key.key != node_key(&self.identity.node);
        let alone = !snapshot.spans.get(4).is_some_and(|nodes| nodes.iter().any(others));
        self.set_alone(alone);
        let revision = node.map(|node| node.mod_revision);
        let value_of = |key: &KeyValue| match &key.value {
            Value::Node(node) => Some(node.clone()),
            _ => None,
        };
        // The key of a node that was removed and forgotten has moved, but it says the same.
        let node = node.and_then(value_of).or_else(|| first(5).and_then(value_of));
        let session = session.and_then(|key| match &key.value {
            Value::Session(session) if Some(session.lease) != self.lease => Some(session.clone()),
            _ => None,
        });
        if let Some(cause) = self.name_conflict(node.as_ref(), session.as_ref()) {
            self.lose_name(cause);
            return self.rest(now, Some(limits::NAME_TAKEN_RETRY));
        }
        self.regain_name();
        let known = self.chain;
        if marked && let Some(joining) = self.joining() {
            joining.marked = true;
        }
        let went_back = known.sequence > node.as_ref().and_then(|node| node.sequence);
        let Some(joining) = self.joining() else { return };
        if joining.attempt.is_some() && joining.attempt == node {
            return self.registered(now, revision); // the answer was lost
        }
        if went_back && !(joining.has_marked && marked) {
            if !std::mem::replace(&mut joining.went_back, true) {
                self.observe_restore();
            }
            self.step(Step::Marking);
            let seen = first(3).map(|mark| mark.mod_revision);
            let txn = restore_barrier::mark(self.unix_time(now), seen);
            return self.request(now, Pending::Join, Request::Txn(txn));
        }
        if !marked && !went_back {
            self.observe_settled(now);
        }
        self.notice_state_loss(node.as_ref());
        self.find_parked(snapshot, marked || went_back);
        let epoch = known.epoch.max(node.as_ref().map(|node| node.epoch));
        let epoch = epoch.map_or(Epoch::FIRST, Epoch::next);
        let reached = known.sequence.max(node.as_ref().and_then(|node| node.sequence));
        let link = Link::after(reached);
        let first_epoch = self.first_epoch(node.as_ref(), epoch);
        let value = NodeValue {
            acknowledged: false,
            forfeit: None,
            first_epoch,
            ..self.node_value(epoch, Some(link))
        };
        self.intend(value, revision, session);
        self.register_intended(now);
    }

    /// Finds the parked blocks that the registration takes back. While a restore is being settled
    /// the store's word on them is that of another time.
    fn find_parked(&mut self, snapshot: &Snapshot, restored: bool) {
        let keys = snapshot.spans.iter().skip(6).flatten().filter(|_| !restored);
        let parked = self.still_parked(keys);
        if let Some(joining) = self.joining() {
            joining.parked = parked;
        }
    }

    /// Remembers it if the store has seen transactions of this node of which its journal knows
    /// nothing: each such transaction would have waited for the journal. After a reboot it does not
    /// matter, since no container is left.
    fn notice_state_loss(&mut self, node: Option<&NodeValue>) {
        let Some(node) = node else { return };
        let same_boot = node.boot_id == self.identity.boot_id || self.identity.keeps_after_reboot;
        let older = node.sequence > self.intended.max(self.chain.sequence);
        let state_lost = same_boot && older && self.is_own(node);
        let state_lost = state_lost && !broken(Mutant::ForgetsUnnoticed);
        if let Some(joining) = self.joining() {
            joining.state_lost |= state_lost;
        }
    }

    /// Asks the journal to remember what is going to be registered. A journal that forgot remembers
    /// nothing before it has recovered: otherwise a daemon that dies in between would take it for
    /// complete.
    fn intend(&mut self, value: NodeValue, revision: Option<Revision>, old: Option<SessionValue>) {
        let reached = value.sequence;
        let Some(joining) = self.joining() else { return };
        joining.step = Step::Intending(revision);
        joining.attempt = Some(value);
        joining.old_lease = old.map(|session| session.lease);
        if let Some(link) = reached.filter(|_| !joining.state_lost) {
            self.ask_intent(link);
        }
    }

    pub(super) fn register_intended(&mut self, now: BootTime) {
        let intended = self.intended;
        let Some(joining) = self.joining() else { return };
        let Step::Intending(revision) = joining.step else { return };
        let Some(value) = joining.attempt.clone() else { return };
        if joining.state_lost || value.sequence <= intended {
            joining.step = Step::Registering;
            self.register(now, value, revision);
        }
    }

    fn register(&mut self, now: BootTime, value: NodeValue, revision: Option<Revision>) {
        let (node, session) = (node_key(&self.identity.node), session_key(&self.identity.node));
        // Without a lease the session would stay for ever.
        let Some(lease) = self.lease else { return self.join(now) };
        let epoch = value.epoch;
        let when = vec![Compare::unchanged(node.clone(), revision)];
        let then = vec![
            Write::Put(node, Value::Node(value.clone()), None),
            Write::Put(session, Value::Session(SessionValue { epoch, lease }), Some(lease)),
            Write::Delete(forgotten_key(&self.identity.node)),
        ];
        let mut txn = Txn { when, then };
        let parked = self.joining().map(|joining| std::mem::take(&mut joining.parked));
        if let (Some(link), Some(parked)) = (value.sequence, parked) {
            self.take_back(&mut txn, now, (epoch, link), &parked);
        }
        self.request(now, Pending::Join, Request::Txn(txn));
    }

    fn registered(&mut self, now: BootTime, revision: Option<Revision>) {
        let Some(joining) = self.joining() else { return };
        let Some(value) = joining.attempt.take() else { return };
        joining.step = Step::Listing;
        joining.blocks.clear();
        let old = joining.old_lease.take();
        self.written();
        self.linked_at = now;
        let NodeValue { epoch, first_epoch, sequence, .. } = value;
        let epoch = Some(epoch);
        self.chain = Chain { epoch, first_epoch, sequence, revision, ..Chain::default() };
        if let Some(lease) = old {
            self.request(now, Pending::Aside, Request::Revoke(lease));
        }
        self.list(now, BLOCKS.to_owned());
    }

    fn list(&mut self, now: BootTime, first: String) {
        let span = Span { first, ..Span::prefix(BLOCKS, limits::KEYS_PER_READ_MAX) };
        self.request(now, Pending::Join, Request::Read(vec![span]));
    }

    fn listed(&mut self, now: BootTime, snapshot: &Snapshot) {
        let (me, first_epoch) = (self.identity.node.clone(), self.chain.first_epoch);
        let Some(joining) = self.joining() else { return };
        let keys = snapshot.spans.first().map_or(&[][..], |keys| keys);
        let is_own = |block: &BlockValue| block.owner == me && block.epoch >= first_epoch;
        joining.blocks.extend(keys.iter().filter_map(|key| match &key.value {
            Value::Block(block) if is_own(block) => Some((key.clone(), block.clone())),
            _ => None,
        }));
        match keys.last() {
            Some(last) if keys.len() >= limits::KEYS_PER_READ_MAX => {
                self.list(now, format!("{}\0", last.key));
            }
            _ if joining.state_lost => {
                joining.step = Step::Mapping;
                let span = Span::prefix(NETWORKS, limits::KEYS_PER_READ_MAX);
                self.request(now, Pending::Join, Request::Read(vec![span]));
            }
            _ => self.become_member(now),
        }
    }

    pub(super) fn become_member(&mut self, now: BootTime) {
        let phase = std::mem::replace(&mut self.phase, JoinPhase::Member);
        let JoinPhase::Joining(joining) = phase else { return };
        self.reconcile(now, *joining);
        // A node that had lost its state directory learns here of which networks it has blocks.
        self.watch_inboxes();
        // Not before: a daemon that dies while it remembers must remember again.
        self.effects.extend(self.chain.sequence.map(Effect::Reached));
        self.heartbeat_at = Some(now + self.ttl / 3);
        if let Some(epoch) = self.chain.epoch {
            self.effects.push_back(Effect::Joined { epoch });
        }
        if self.lease.is_none() {
            self.regrant(now);
        }
        self.ask_on();
        self.scan(now);
    }

    pub(super) fn node_value(&self, epoch: Epoch, sequence: Option<Link>) -> NodeValue {
        NodeValue {
            epoch,
            sequence,
            machine_id: self.identity.machine_id.clone(),
            identity: self.identity.identity.clone(),
            first_epoch: self.chain.first_epoch,
            boot_id: self.identity.boot_id.clone(),
            version: self.identity.version.clone(),
            since: self.identity.since,
            acknowledged: self.chain.acknowledged,
            removed: None,
            forfeit: self.chain.forfeit,
        }
    }
}
