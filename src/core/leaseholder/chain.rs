//! The course of one transaction of the chain: prepared, sent, and looked up when its answer was
//! lost or was no.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::records::{Stretch, claimed, leaving};
use super::{Effect, Leased, Leaseholder, Order, Pending};
use crate::core::address::{Address, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::{Link, OrderId, Revision};
use crate::core::keys::{PoolFamily, node_key};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::core::txn::{Answer, Compare, KeyValue, Request, Span, StoreError, TxnOutcome};
use crate::core::value::{NodeValue, Value};
use crate::limits;

/// Orders that are carried out together, or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) orders: Vec<(Option<OrderId>, Order)>,
    /// Its place in the chain.
    pub(super) link: Link,
    /// The value that the transaction writes to the node's key.
    pub(super) value: NodeValue,
    /// The conditions on which claims of parts rest, by the first address.
    pub(super) guards: Vec<(PoolFamily, Address, Vec<Compare>)>,
    /// Blocks that were given back since: what the transaction claims of them goes back too.
    pub(super) given_up: Vec<(PoolFamily, Cidr)>,
    step: Step,
    tries: u32,
    /// The answer to an attempt was lost: it may be carried out later than one that was sent after
    /// it.
    unsure: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Reading what claims rest on, and waiting for the journal; whether it is read.
    Preparing(bool),
    Sent,
    /// Reading what came of it, and why that is not known.
    Checking(Unclear),
    /// The store did not answer that either: until when to wait, and the same.
    Resting(BootTime, Unclear),
    /// It was not carried out for the store's sake, more than once: when it is sent again.
    Delayed(BootTime),
}

/// The reason why the node's key has to be read to know what came of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unclear {
    /// The answer was lost.
    Lost,
    /// It was refused: perhaps since an earlier attempt was carried out.
    Refused,
    /// Its lease is gone, so no attempt can be carried out now; an earlier one may have been.
    WithoutLease,
}

impl Batch {
    /// Returns the order of a batch that has only one, records aside: nothing of records is
    /// compared.
    fn only(&self) -> Option<&Order> {
        let mut orders = self.orders.iter().filter(|(_, order)| *order != Order::Records);
        orders.next().filter(|_| orders.next().is_none()).map(|(_, order)| order)
    }
}

impl Leaseholder {
    /// Starts the next transaction unless one has been started and has not ended.
    pub(super) fn link(&mut self, now: BootTime) {
        self.ask_on();
        if !self.is_member()
            || self.batch.is_some()
            || self.lease.is_none()
            || now < self.link_after
        {
            return;
        }
        let Some(epoch) = self.chain.epoch else { return };
        let orders = self.take_orders(now);
        if orders.is_empty() {
            return;
        }
        let again = broken(Mutant::LinkUsedAgain);
        let link = Link::after(self.chain.sequence.max(self.asked.filter(|_| !again)));
        let value = NodeValue {
            acknowledged: self.has_acknowledged(),
            forfeit: self.forfeit(now, &orders),
            ..self.node_value(epoch, Some(link))
        };
        let guards = vec![];
        let spans: Vec<Span> = orders.iter().flat_map(|(_, o)| self.reads_before(o)).collect();
        let step = Step::Preparing(spans.is_empty());
        self.ask_intent(link);
        let (given_up, tries, unsure) = (vec![], 0, false);
        self.batch = Some(Batch { orders, link, value, guards, given_up, step, tries, unsure });
        if !spans.is_empty() {
            self.request(now, Pending::Prepare, Request::Read(spans));
        }
        self.send_prepared(now);
    }

    /// Asks the journal to remember that this link may be on its way, unless it does.
    pub(super) fn ask_intent(&mut self, link: Link) {
        if self.intended < Some(link) {
            self.asked = self.asked.max(Some(link));
            self.effects.push_back(Effect::Intend(link));
        }
    }

    /// Sends the transaction when everything is read and the journal knows of it.
    pub(super) fn send_prepared(&mut self, now: BootTime) {
        if let Some(batch) = &self.batch
            && batch.step == Step::Preparing(true)
            && Some(batch.link) <= self.intended
        {
            self.send(now);
        }
    }

    /// Takes the orders of the next transaction from the queue: as many as fit.
    fn take_orders(&mut self, now: BootTime) -> Vec<(Option<OrderId>, Order)> {
        let mut orders = Vec::new();
        let mut room = limits::TXN_OPERATIONS_MAX - 8; // the node's key, the marker, networks
        let mut written = BTreeSet::new();
        let mut given_back = Vec::new();
        let mut silent = BTreeSet::new();
        while let Some((_, order)) = self.queue.front() {
            let weight = Self::weigh(order);
            // Orders about the same block are carried out one after the other.
            let again = Self::writes(order).into_iter().any(|at| !written.insert(at));
            // And a silent node's key is written once.
            let again = again || takes_from(order).is_some_and(|node| !silent.insert(node));
            // A spare on its way back would pass for one that the claiming range set forgot.
            let again = again || claimed(order).iter().any(|claim| claim.meets_any(&given_back));
            if (weight > room || again) && !orders.is_empty() {
                break;
            }
            let Some((id, order)) = self.queue.pop_front() else { break };
            let again = order == Order::Session && orders.iter().any(|(_, other)| *other == order);
            if again || !self.is_possible(id, &order) {
                continue;
            }
            room = room.saturating_sub(weight);
            given_back.extend(leaving(&order));
            orders.push((id, order));
            if self.singly > 0 {
                self.singly -= 1;
                break;
            }
        }
        let without = |order| leaving(order).into_iter().chain(claimed(order));
        let leaving: Vec<Stretch> = orders.iter().flat_map(|(_, order)| without(order)).collect();
        if self.take_records(now, room, &leaving) {
            orders.push((None, Order::Records));
        }
        orders
    }

    /// Handles the store's answer to the reads before the transaction.
    pub(super) fn prepared(&mut self, now: BootTime, answer: Result<Answer, StoreError>) {
        match answer {
            Ok(Answer::Read(snapshot)) => {
                let keys: Vec<KeyValue> = snapshot.spans.into_iter().flatten().collect();
                self.guard(&keys);
                self.batch = self.batch.take().filter(|batch| !batch.orders.is_empty());
                if let Some(batch) = &mut self.batch {
                    batch.step = Step::Preparing(true);
                }
                self.send_prepared(now);
            }
            Ok(_) => self.fail_batch(now, &Cause::Store(StoreError::OddAnswer)),
            Err(error) => self.fail_batch(now, &Cause::Store(error)),
        }
    }

    fn send(&mut self, now: BootTime) {
        let Some(mut batch) = self.batch.take() else { return };
        batch.step = Step::Sent;
        let txn = self.txn_of(now, &batch);
        self.batch = Some(batch);
        self.request(now, Pending::Link, Request::Txn(txn));
    }

    /// Handles the store's answer to the transaction. As long as an earlier attempt may be carried
    /// out, the failure of a later one says nothing (rule 4).
    pub(super) fn linked(&mut self, now: BootTime, answer: Result<Answer, StoreError>) {
        let Some(batch) = &mut self.batch else { return };
        let unsure = batch.unsure && !broken(Mutant::RetryEndsUnknown);
        match answer {
            Ok(Answer::Txn(TxnOutcome::Done(revision))) => self.landed(now, revision),
            Ok(Answer::Txn(TxnOutcome::Refused(_))) => self.check(now, Unclear::Refused),
            Err(StoreError::LeaseGone) if unsure => self.check(now, Unclear::WithoutLease),
            Err(StoreError::LeaseGone) => self.without_lease(now),
            Err(StoreError::Failed(_)) if unsure => self.check(now, Unclear::Lost),
            Err(error @ StoreError::Failed(_)) => self.fail_batch(now, &Cause::Store(error)),
            Err(error @ StoreError::Unknown(_)) if broken(Mutant::UnknownMeansFailed) => {
                self.fail_batch(now, &Cause::Store(error));
            }
            Ok(_) | Err(StoreError::Unknown(_) | StoreError::OddAnswer) => {
                batch.unsure = true;
                self.check(now, Unclear::Lost);
            }
        }
    }

    /// Handles the end of a lease that the transaction names: ours, or that of a node to be
    /// answered.
    fn without_lease(&mut self, now: BootTime) {
        let alone = self.batch.as_ref().is_some_and(|batch| batch.only().is_some());
        let Some(batch) = self.end_batch(None) else { return };
        if !alone {
            return self.requeue_singly(batch.orders);
        }
        for (id, order) in batch.orders {
            match order {
                Order::Records => self.records.put_back(),
                Order::Transfer { question, .. } => {
                    self.questions.remove(&question.key);
                    self.effects.push_back(Effect::Transferred(id, false));
                }
                Order::Refuse(question) => drop(self.questions.remove(&question.key)),
                Order::Park { .. } => self.effects.push_back(Effect::GivenBack(id, false)),
                order => {
                    self.queue.push_front((id, order));
                    self.lease_gone(now);
                }
            }
        }
    }

    fn requeue_singly(&mut self, orders: Vec<(Option<OrderId>, Order)>) {
        for (id, order) in orders.into_iter().rev() {
            if order == Order::Records {
                self.records.put_back();
            } else {
                self.singly += 1;
                self.queue.push_front((id, order));
            }
        }
    }

    /// Fails the orders of a transaction of which nothing was carried out, nor will be.
    fn fail_batch(&mut self, now: BootTime, cause: &Cause) {
        let Some(batch) = self.end_batch(None) else { return };
        self.link_after = now + Self::back_off(self.failed_links);
        self.failed_links += 1;
        for (id, order) in batch.orders {
            match order {
                Order::Lease { .. } => {
                    self.effects.push_back(Effect::Leased(id, Leased::Failed(cause.clone())));
                }
                // Nobody else knows of it.
                order @ Order::GiveBack { .. } if id.is_none() => {
                    self.queue.push_back((id, order));
                }
                Order::GiveBack { .. } | Order::Park { .. } => {
                    self.effects.push_back(Effect::GivenBack(id, false));
                }
                Order::Take(..) | Order::TakeForfeit(_) => self.end_take(id, cause),
                Order::Transfer { question, .. } => {
                    self.questions.remove(&question.key);
                    self.effects.push_back(Effect::Transferred(id, false));
                }
                Order::Refuse(question) => drop(self.questions.remove(&question.key)),
                Order::Reclaim(pool, cidr) => self.lose(now, &pool, cidr),
                Order::Records => self.records.put_back(),
                order @ (Order::Session | Order::Trim { .. } | Order::Drop(..)) => {
                    self.queue.push_back((id, order));
                }
                Order::Find { .. } | Order::AgreeBlockSize { .. } => {}
            }
        }
        if self.unwritable {
            self.renew_session(); // so that it shows when the store takes writes again
        }
    }

    /// Reads what came of the transaction.
    fn check(&mut self, now: BootTime, unclear: Unclear) {
        let Some(batch) = &mut self.batch else { return };
        batch.step = Step::Checking(unclear);
        batch.tries += 1;
        let mut spans = vec![Span::key(&node_key(&self.identity.node))];
        if let Some(order) = self.batch.as_ref().and_then(Batch::only) {
            spans.extend(self.reads_after(order));
        }
        self.request(now, Pending::Check, Request::Read(spans));
    }

    /// Handles the store's answer to the check of a transaction: the node's key says whether it was
    /// carried out (rule 4).
    pub(super) fn checked(&mut self, now: BootTime, answer: Result<Answer, StoreError>) {
        let Some(batch) = &mut self.batch else { return };
        let Step::Checking(unclear) = batch.step else { return };
        let Ok(Answer::Read(snapshot)) = answer else {
            batch.step = Step::Resting(now + Self::back_off(batch.tries), unclear);
            return;
        };
        let mut spans = snapshot.spans.into_iter();
        let node = spans.next().and_then(|keys| keys.into_iter().next());
        let Some(KeyValue { value: Value::Node(node), mod_revision, .. }) = node else {
            return self.displaced(now, None);
        };
        if node == batch.value {
            return self.landed(now, mod_revision);
        }
        let before = NodeValue {
            sequence: self.chain.sequence,
            acknowledged: self.chain.acknowledged,
            forfeit: self.chain.forfeit,
            ..batch.value.clone()
        };
        if node != before {
            return self.displaced(now, Some(&node));
        }
        if unclear == Unclear::WithoutLease {
            return self.without_lease(now);
        }
        if unclear == Unclear::Lost || Some(mod_revision) != self.chain.revision {
            // Sent once more it says the same, so the second of the two to arrive is refused.
            self.chain.revision = Some(mod_revision);
            return self.send_again(now);
        }
        self.refused(now, spans.flatten().collect());
    }

    /// Returns how long to wait after so many failures in a row.
    pub(super) fn back_off(failures: u32) -> Duration {
        limits::STORE_RETRY * (1 << failures.min(5))
    }

    /// Sends a transaction that was not carried out: at once the first time, since its answer may
    /// have been lost on the way, and then later and later, since the store may refuse every write.
    fn send_again(&mut self, now: BootTime) {
        let Some(batch) = &mut self.batch else { return };
        if batch.tries < 2 {
            return self.send(now);
        }
        batch.step = Step::Delayed(now + Self::back_off(batch.tries));
    }

    /// Handles a change of the node's key by another daemon or an operator, or a store that went
    /// back in time.
    fn displaced(&mut self, now: BootTime, node: Option<&NodeValue>) {
        if let Some(batch) = self.end_batch(None) {
            let unknown = batch.unsure;
            let went_back = node.is_none_or(|node| node.sequence < self.chain.sequence);
            let mut again = Vec::new();
            for (id, order) in batch.orders {
                // If the store went back, what left may have left before that: it stays away.
                let leaves = matches!(
                    order,
                    Order::Transfer { .. } | Order::GiveBack { .. } | Order::Park { .. }
                );
                if unknown && went_back && leaves {
                    self.done(now, id, order, None);
                } else {
                    again.push((id, order));
                }
            }
            // The rest is asked for again once it is clear what this node holds.
            self.requeue_singly(again);
            self.singly = 0;
        }
        self.rejoin(now, node);
    }

    fn refused(&mut self, now: BootTime, keys: Vec<KeyValue>) {
        let alone = self.batch.as_ref().is_some_and(|batch| batch.only().is_some());
        let Some(batch) = self.end_batch(None) else { return };
        if !alone {
            return self.requeue_singly(batch.orders);
        }
        for (id, order) in batch.orders {
            self.why_refused(now, id, order, &keys);
        }
    }

    fn landed(&mut self, now: BootTime, revision: Revision) {
        let Some(batch) = self.end_batch(Some(revision)) else { return };
        self.written();
        self.chain.sequence = Some(batch.link);
        self.linked_at = now;
        self.chain.revision = Some(revision);
        self.chain.acknowledged = batch.value.acknowledged;
        self.chain.forfeit = batch.value.forfeit;
        if batch.orders.iter().any(|(_, order)| !matches!(order, Order::Records)) {
            self.effects.push_back(Effect::Reached(batch.link));
        }
        for (id, order) in batch.orders {
            self.done(now, id, order, Some(revision));
        }
    }

    /// Asks again what came of a transaction, or sends it again.
    pub(super) fn check_timeout(&mut self, now: BootTime) {
        match self.batch {
            Some(Batch { step: Step::Resting(until, unclear), .. }) if until <= now => {
                self.check(now, unclear);
            }
            Some(Batch { step: Step::Delayed(until), .. }) if until <= now => self.send(now),
            _ => {}
        }
    }

    pub(super) fn check_due(&self) -> Option<BootTime> {
        match &self.batch {
            Some(Batch { step: Step::Resting(until, _) | Step::Delayed(until), .. }) => {
                Some(*until)
            }
            None if !self.queue.is_empty() && self.is_member() && self.lease.is_some() => {
                Some(self.link_after)
            }
            _ => None,
        }
    }
}

/// Returns the silent node of which an order takes something.
fn takes_from(order: &Order) -> Option<Arc<str>> {
    match order {
        Order::TakeForfeit(forfeited) => Some(forfeited.block.owner.clone()),
        _ => None,
    }
}
