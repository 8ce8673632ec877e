//! Parking: a daemon that stops gives back the blocks in which nothing is held, on a lease.
//!
//! The lease lasts for what is left of the cooldown of their addresses, and for half a minute at
//! least. So the store keeps the cooldown, and no clock of another node does. When the lease has
//! run out the blocks are free. Until then a restarted daemon takes them back, in the transaction
//! with which it registers: a restart keeps its blocks. A node that has nothing else left
//! takes one as well. Each of them compares the key of the block, so one of them gets it (rule 31).

use std::time::Duration;

use super::chain::Batch;
use super::records::Stretch;
use super::txns::{behind, compare_not_restored};
use super::{Effect, Found, Leaseholder, Order, Pending};
use crate::core::Map;
use crate::core::address::{Address, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::{Epoch, LeaseId, Link, OrderId, Revision};
use crate::core::keys::PoolFamily;
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::core::txn::{Answer, Compare, KeyValue, Request, Span, StoreError, Txn, Write};
use crate::core::value::{BlockStatus, Value};
use crate::limits;

/// The leases of blocks that are parked, and what waits for them.
#[derive(Default, Debug)]
pub(super) struct Parking {
    /// By their life; nothing while it is asked for.
    leases: Map<Duration, Option<LeaseId>>,
    /// The orders that wait for one.
    waiting: Vec<(Option<OrderId>, Order)>,
}

/// Returns how long the lease of parked blocks lives when that is left of the
/// cooldown. There are few such lives, so that few leases serve many blocks.
pub(in crate::core) fn parked_for(cooldown_left: Duration) -> Duration {
    let mut life = limits::PARKED_MIN;
    while life < cooldown_left {
        life *= 2;
    }
    life
}

impl Leaseholder {
    /// Takes an order to park blocks: it waits for its lease.
    pub(super) fn park(&mut self, now: BootTime, id: Option<OrderId>, order: Order) {
        let Order::Park { ttl, .. } = order else { return };
        if !self.is_member() || self.unable().is_some() {
            return self.effects.push_back(Effect::GivenBack(id, false));
        }
        // The last records go along.
        self.records.hurry();
        match self.parking.leases.get(&ttl) {
            Some(Some(_)) => self.queue.push_back((id, order)),
            known => {
                let asked = known.is_some();
                self.parking.waiting.push((id, order));
                if !asked {
                    self.parking.leases.insert(ttl, None);
                    self.request(now, Pending::Parking(ttl), Request::Grant(ttl));
                }
            }
        }
    }

    /// Handles the store's answer to the request for a lease of that life.
    pub(super) fn parking_answered(&mut self, ttl: Duration, answer: &Result<Answer, StoreError>) {
        let is_for = |(_, order): &mut (_, Order)| match order {
            Order::Park { ttl: of, .. } => *of == ttl,
            _ => false,
        };
        let orders: Vec<_> = self.parking.waiting.extract_if(.., is_for).collect();
        if let Ok(Answer::Granted(lease, _)) = answer {
            self.parking.leases.insert(ttl, Some(*lease));
            return self.queue.extend(orders);
        }
        self.parking.leases.remove(&ttl);
        self.effects.extend(orders.into_iter().map(|(id, _)| Effect::GivenBack(id, false)));
    }

    /// Parks blocks of this node in a transaction.
    pub(super) fn park_blocks(
        &self,
        txn: &mut Txn,
        now: BootTime,
        batch: &Batch,
        (pool, cidrs): (&PoolFamily, &[Cidr]),
        ttl: Duration,
    ) {
        let lease = self.parking.leases.get(&ttl).copied().flatten();
        let link = (batch.value.epoch, batch.link);
        for &cidr in cidrs {
            self.compare_owned(txn, pool, cidr);
            let block = (pool, cidr);
            txn.then.push(self.put_on(now, link, block, BlockStatus::Parked, lease));
        }
    }

    /// Takes a parked block in a transaction. This node or another one has parked it.
    pub(super) fn take_parked(
        &self,
        txn: &mut Txn,
        now: BootTime,
        batch: &Batch,
        (pool, cidr): (&PoolFamily, Cidr),
        revision: Revision,
    ) {
        if !broken(Mutant::RevisionNotCompared) {
            txn.when.push(Compare::At(pool.block_key(cidr.first()), revision));
        }
        compare_not_restored(txn);
        let block = Stretch { pool: pool.clone(), range: cidr.range() };
        if broken(Mutant::SilentIsGone)
            && let Write::DeleteIn(first, past) = block.delete_records()
        {
            txn.when.push(Compare::NoneIn(first, past)); // not even that is enough
        }
        txn.then.push(self.put(now, batch, pool, cidr, BlockStatus::Active));
    }

    /// Handles it that a parked or forfeited block was taken, and ends the search that wanted it.
    /// If that has ended, or the range set could not take the block in by now, it goes back:
    /// nothing was handed out of it.
    pub(super) fn taken(
        &mut self,
        now: BootTime,
        id: Option<OrderId>,
        (pool, cidr): (&PoolFamily, Cidr),
        revision: Revision,
        found: Found,
    ) {
        let withheld = self.is_withheld(pool, cidr);
        match id.filter(|id| !withheld && self.finds.remove(id).is_some()) {
            Some(id) => {
                self.keep_owned(pool, cidr, Some(revision), BlockStatus::Active);
                self.effects.push_back(Effect::Found(id, found));
            }
            None => {
                self.queue.push_back((None, Order::Drop(pool.clone(), cidr, revision)));
                self.not_taken(now, id);
            }
        }
    }

    /// Handles it that another node was faster, or the block is free by now: the search goes on.
    pub(super) fn not_taken(&mut self, now: BootTime, id: Option<OrderId>) {
        if let Some(id) = id
            && let Some(find) = self.finds.remove(&id)
        {
            self.look_around(now, id, find);
        }
    }

    /// Ends the search for which a block was to be taken: the store cannot be asked.
    pub(super) fn end_take(&mut self, id: Option<OrderId>, cause: &Cause) {
        if let Some(id) = id {
            self.end_find(id, Found::Failed(cause.clone()));
        }
    }

    /// Returns the spans of the blocks that this node parked: one for each pool, of the first ones.
    pub(super) fn parked_spans(&self) -> Vec<Span> {
        let mut spans: Vec<(&PoolFamily, Address, Address)> = Vec::new();
        for (pool, cidr) in &self.parked {
            match spans.last_mut() {
                Some((of, _, last)) if *of == pool => *last = cidr.first(),
                _ => spans.push((pool, cidr.first(), cidr.first())),
            }
        }
        let span = |(pool, first, last): (&PoolFamily, Address, Address)| Span {
            first: pool.block_key(first),
            past: behind(pool, last),
            limit: limits::KEYS_PER_READ_MAX,
        };
        spans.into_iter().take(limits::PARKED_POOLS_MAX).map(span).collect()
    }

    /// Returns which of these keys are blocks that this node parked.
    pub(super) fn still_parked<'a>(
        &self,
        keys: impl Iterator<Item = &'a KeyValue>,
    ) -> Vec<(PoolFamily, Cidr, Revision)> {
        let first_epoch = self.chain.first_epoch;
        let is_ours = |(pool, cidr): &&(PoolFamily, Cidr), key: &KeyValue| match &key.value {
            Value::Block(block) => {
                let same = key.key == pool.block_key(cidr.first()) && block.cidr == *cidr;
                let ours = block.owner == self.identity.node && block.epoch >= first_epoch;
                same && ours && block.status == BlockStatus::Parked
            }
            _ => false,
        };
        let found = keys.filter_map(|key| {
            let (pool, cidr) = self.parked.iter().find(|parked| is_ours(parked, key))?;
            Some((pool.clone(), *cidr, key.mod_revision))
        });
        found.take(limits::PARKED_PER_TXN_MAX).collect()
    }

    /// Takes back parked blocks with the registration of this node, which is this link of its
    /// chain.
    pub(super) fn take_back(
        &self,
        txn: &mut Txn,
        now: BootTime,
        link: (Epoch, Link),
        parked: &[(PoolFamily, Cidr, Revision)],
    ) {
        for (pool, cidr, revision) in parked {
            txn.when.push(Compare::At(pool.block_key(cidr.first()), *revision));
            txn.then.push(self.put_on(now, link, (pool, *cidr), BlockStatus::Active, None));
        }
    }
}
