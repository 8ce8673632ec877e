//! Staying a member: keeping the lease alive, and noticing what others did to this node.

use super::join::JoinPhase;
use super::{Effect, Leaseholder, Order, Pending};
use crate::core::ids::Link;
use crate::core::keys::{NODES, RESTORED, drain_key, node_key, session_key};
use crate::core::time::BootTime;
use crate::core::txn::{Answer, KeyValue, Request, Span, StoreError};
use crate::core::value::Value;
use crate::limits;

impl Leaseholder {
    /// Keeps the lease alive and looks whether the store still knows this node as it is.
    pub(super) fn heartbeat(&mut self, now: BootTime) {
        self.heartbeat_at = Some(now + self.ttl / 3);
        match self.lease {
            Some(lease) => self.request(now, Pending::KeepAlive, Request::KeepAlive(lease)),
            None => self.regrant(now),
        }
        let node = &*self.identity.node;
        let spans = [node_key(node), drain_key(node), session_key(node), RESTORED.to_owned()];
        let mut spans: Vec<Span> = spans.iter().map(|key| Span::key(key)).collect();
        spans.push(Span::prefix(NODES, 2));
        let idle = self.chain.sequence.filter(|_| self.batch.is_none());
        self.request(now, Pending::Heartbeat(idle), Request::Read(spans));
        self.scan(now);
    }

    pub(super) fn kept(
        &mut self,
        now: BootTime,
        sent: BootTime,
        answer: &Result<Answer, StoreError>,
    ) {
        if let Ok(Answer::Kept(Some(_))) = answer {
            self.kept_at = self.kept_at.max(sent);
        }
        let gone = matches!(answer, Ok(Answer::Kept(None)) | Err(StoreError::LeaseGone));
        if gone && self.lease.is_some() {
            self.lease_gone(now);
        }
    }

    /// Handles the store's answer to a heartbeat; `idle`: the last link when it was asked, if
    /// nothing was in progress.
    pub(super) fn beat(
        &mut self,
        now: BootTime,
        idle: Option<Link>,
        answer: Result<Answer, StoreError>,
    ) {
        let Ok(Answer::Read(snapshot)) = answer else { return };
        let first = |i: usize| snapshot.spans.get(i).and_then(|keys| keys.first());
        let others = |key: &KeyValue| key.key != node_key(&self.identity.node);
        let alone = !snapshot.spans.get(4).is_some_and(|nodes| nodes.iter().any(others));
        self.set_alone(alone);
        self.set_draining(first(1).is_some());
        let undisturbed = idle.is_some() && idle == self.chain.sequence && self.batch.is_none();
        if !undisturbed || !matches!(self.phase, JoinPhase::Member) {
            return;
        }
        let node = first(0).and_then(|key| match &key.value {
            Value::Node(node) => Some(node),
            _ => None,
        });
        let expected = self.chain.epoch.map(|epoch| self.node_value(epoch, self.chain.sequence));
        if node != expected.as_ref() {
            return self.rejoin(now, node);
        }
        let session = first(2).and_then(|key| key.lease);
        // A backup of the store that is older than this cannot pass for the store: no claim of
        // this node would be carried out on it.
        let stale = now.since(self.linked_at) >= limits::TOUCH;
        if self.lease.is_some() && (session != self.lease || stale) {
            self.renew_session();
        }
        match first(3) {
            Some(mark) => self.keep_restore_barrier(now, mark.mod_revision),
            None => {
                self.set_awaited(None);
                self.observe_settled(now);
            }
        }
    }

    pub(super) fn renew_session(&mut self) {
        if !self.queue.iter().any(|(_, order)| *order == Order::Session) {
            self.queue.push_front((None, Order::Session));
        }
    }

    pub(super) fn set_alone(&mut self, alone: bool) {
        if self.alone != Some(alone) {
            self.alone = Some(alone);
            self.effects.push_back(Effect::Alone(alone));
        }
    }

    pub(super) fn set_draining(&mut self, draining: bool) {
        if self.draining != draining {
            self.draining = draining;
            self.effects.push_back(Effect::Draining(draining));
        }
    }
}
