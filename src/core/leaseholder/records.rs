//! Records: the copies of allocations in the store, coalesced and rate-limited.
//!
//! They go through the chain like everything else that this node writes. So a record is written by
//! the owner of its block only, and none is late; and what leaves leaves without records, since
//! nothing of it is held.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Leaseholder, Order, OwnedBlock, RecordChange, parts};
use crate::core::address::{Address, AddressRange, Cidr, Family};
use crate::core::ids::OperationId;
use crate::core::keys::{PoolFamily, allocation_key};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::core::txn::{Span, Txn, Write};
use crate::core::value::{AllocationValue, BlockStatus, Value};
use crate::limits;

pub(super) type At = (Arc<str>, IpAddr);

#[derive(Clone, Debug)]
struct Change {
    value: Option<Box<AllocationValue>>,
    since: BootTime,
    waiting: Vec<OperationId>,
}

#[derive(Debug)]
pub(super) struct Records {
    dirty: BTreeMap<At, Change>,
    in_flight: Vec<(At, Change)>,
    /// The number of changes that somebody waits for.
    urgent: usize,
    /// The time at which changes for which nobody waits are due.
    flush_at: BootTime,
}

impl Default for Records {
    fn default() -> Self {
        Self { dirty: BTreeMap::new(), in_flight: vec![], urgent: 0, flush_at: BootTime::BOOT }
    }
}

impl Records {
    fn set(&mut self, at: At, change: Change) {
        self.urgent += change.waiting.len();
        match self.dirty.get_mut(&at) {
            Some(dirty) => {
                dirty.value = change.value;
                dirty.waiting.extend(change.waiting);
            }
            None => drop(self.dirty.insert(at, change)),
        }
    }

    fn take(&mut self, at: &At) {
        if let Some(change) = self.dirty.remove(at) {
            self.urgent -= change.waiting.len();
            self.in_flight.push((at.clone(), change));
        }
    }

    /// Forgets a change that is not this node's to write. The operation that waits for the end of a
    /// record need not wait.
    fn forget(&mut self, at: &At) -> Vec<OperationId> {
        let Some(change) = self.dirty.remove(at) else { return vec![] };
        self.urgent -= change.waiting.len();
        if change.value.is_none() { change.waiting } else { vec![] }
    }

    /// Returns whether something is held whose record is not in the store, nor in the transaction
    /// that is being made, although its ADD may have been answered.
    pub(super) fn has_unrecorded(&self) -> bool {
        self.dirty.values().any(|change| change.value.is_some() && change.waiting.is_empty())
    }

    /// Makes all waiting changes due now.
    pub(super) fn hurry(&mut self) {
        self.flush_at = BootTime::BOOT;
    }

    pub(super) fn write(&self, txn: &mut Txn) {
        for ((network, address), change) in &self.in_flight {
            let key = allocation_key(network, *address);
            txn.then.push(match &change.value {
                Some(value) => Write::Put(key, Value::Allocation(value.clone()), None),
                None => Write::Delete(key),
            });
        }
    }

    /// Returns the changes of a transaction that was not carried out to those that wait; newer
    /// changes replace them.
    pub(super) fn put_back(&mut self) {
        for (at, mut change) in std::mem::take(&mut self.in_flight) {
            if let Some(newer) = self.dirty.remove(&at) {
                self.urgent -= newer.waiting.len();
                change.value = newer.value;
                change.waiting.extend(newer.waiting);
            }
            self.set(at, change);
        }
    }

    pub(super) fn written(&mut self, _: BootTime, effects: &mut VecDeque<Effect>) {
        let written = std::mem::take(&mut self.in_flight);
        let waiting: Vec<OperationId> =
            written.into_iter().flat_map(|(_, change)| change.waiting).collect();
        if !waiting.is_empty() {
            effects.push_back(Effect::Recorded(waiting));
        }
    }
}

/// A range of a pool.
pub(super) struct Stretch {
    pub(super) pool: PoolFamily,
    pub(super) range: AddressRange,
}

impl Stretch {
    fn has(&self, (network, address): &At) -> bool {
        *network == self.pool.network
            && Family::of(*address) == self.pool.family
            && self.range.contains(Address::of(*address))
    }

    /// Returns whether some of them are in one of the others.
    pub(super) fn meets_any(&self, others: &[Self]) -> bool {
        others.iter().any(|other| self.pool == other.pool && self.range.meets(other.range))
    }

    /// Returns the span of all records of them.
    pub(super) fn records(&self, limit: usize) -> Span {
        let key = |at| allocation_key(&self.pool.network, self.pool.family.address(at));
        let past = format!("{}\0", key(self.range.last()));
        Span { first: key(self.range.first()), past, limit }
    }

    /// Deletes all records of them.
    pub(super) fn delete_records(&self) -> Write {
        let Span { first, past, .. } = self.records(0);
        Write::DeleteIn(first, past)
    }
}

/// Joins neighbouring cidrs.
pub(super) fn stretches(cidrs: impl Iterator<Item = Cidr>) -> Vec<AddressRange> {
    let mut cidrs: Vec<Cidr> = cidrs.collect();
    cidrs.sort_unstable();
    let mut stretches: Vec<AddressRange> = Vec::new();
    for cidr in cidrs {
        match stretches.last_mut() {
            Some(before) if before.last().next() == Some(cidr.first()) => {
                *before = AddressRange::between(before.first(), cidr.last());
            }
            _ => stretches.push(cidr.range()),
        }
    }
    stretches
}

/// Returns the addresses that are no longer this node's when the order is carried out. None of them
/// is held.
pub(super) fn leaving(order: &Order) -> Vec<Stretch> {
    let (pool, stretches) = match order {
        Order::GiveBack { pool, cidrs } | Order::Park { pool, cidrs, .. } => {
            (pool, stretches(cidrs.iter().copied()))
        }
        Order::Transfer { question, give, .. } => (&question.pool, vec![give.range()]),
        Order::Drop(pool, cidr, _) => (pool, vec![cidr.range()]),
        Order::Trim { pool, block, keep, .. } => (pool, parts::uncovered(block.range(), keep)),
        _ => return vec![],
    };
    let of = |range| Stretch { pool: pool.clone(), range };
    stretches.into_iter().map(of).collect()
}

/// Returns the addresses that an order claims. A block is claimed without records: a store that was
/// restored from a backup may have old ones in it, which would pass for held if this node lost its
/// state.
pub(super) fn claimed(order: &Order) -> Vec<Stretch> {
    let (pool, claims) = match order {
        Order::Lease { pool, claim, .. } => (pool, stretches(claim.iter().map(|(cidr, _)| *cidr))),
        Order::Take(pool, cidr, _) => (pool, vec![cidr.range()]),
        _ => return vec![],
    };
    let of = |range| Stretch { pool: pool.clone(), range };
    claims.into_iter().map(of).collect()
}

impl Leaseholder {
    /// Takes the beginning or the end of an allocation. With `waiting`, an [`Effect::Recorded`]
    /// with it comes when the store has it.
    pub fn record(&mut self, now: BootTime, change: RecordChange, waiting: Option<OperationId>) {
        if !self.identity.records {
            return;
        }
        let RecordChange { network, address, value } = change;
        let waiting: Vec<OperationId> = waiting.into_iter().collect();
        self.records.set((network, address), Change { value, since: now, waiting });
        self.link(now);
    }

    /// Returns the time for which the oldest change has waited.
    pub fn record_lag(&self, now: BootTime) -> Duration {
        let in_flight = self.records.in_flight.iter().map(|(_, change)| change);
        let all = self.records.dirty.values().chain(in_flight);
        all.map(|change| now.since(change.since)).max().unwrap_or_default()
    }

    /// Returns the number of changes that wait.
    pub fn records_waiting(&self) -> usize {
        self.records.dirty.len() + self.records.in_flight.len()
    }

    /// Returns whether the address is this node's to record: in a block of its own.
    fn is_ours(&self, (network, address): &At) -> bool {
        let pool = PoolFamily { network: network.clone(), family: Family::of(*address) };
        let number = Address::of(*address);
        let block = self.owned.get(&pool).and_then(|blocks| blocks.range(..=number).next_back());
        let active =
            |owned: &OwnedBlock| owned.status != BlockStatus::Spare && owned.cidr.contains(number);
        block.is_some_and(|(_, owned)| active(owned)) || broken(Mutant::RecordsOfOthers)
    }

    /// Moves changes into the transaction that is being made, but for those of addresses that
    /// leave with it. What others hold is theirs to record: that is forgotten, and compared with
    /// what is held when its block comes back.
    pub(super) fn take_records(&mut self, now: BootTime, room: usize, leaving: &[Stretch]) -> bool {
        if self.records.urgent > 0 || self.records.flush_at <= now {
            let urgent = self.records.urgent > 0 && self.records.flush_at > now;
            let (mut taken, mut strange) = (Vec::new(), Vec::new());
            for (at, change) in &self.records.dirty {
                if taken.len() == room {
                    break;
                }
                if urgent && change.waiting.is_empty() || leaving.iter().any(|of| of.has(at)) {
                    continue;
                }
                if self.is_ours(at) { &mut taken } else { &mut strange }.push(at.clone());
            }
            let ended: Vec<OperationId> =
                strange.iter().flat_map(|at| self.records.forget(at)).collect();
            if !ended.is_empty() {
                self.effects.push_back(Effect::Recorded(ended));
            }
            taken.iter().for_each(|at| self.records.take(at));
            if !urgent && !taken.is_empty() {
                let all = taken.len() < room;
                let busy = limits::RECORDS_BUSY_PERIOD;
                self.records.flush_at = now + if all { limits::RECORDS_PERIOD } else { busy };
            }
        }
        !self.records.in_flight.is_empty()
    }

    pub(super) fn records_due(&self) -> Option<BootTime> {
        let due = (!self.records.dirty.is_empty()).then_some(self.records.flush_at)?;
        (self.batch.is_none() && self.is_member() && self.lease.is_some())
            .then_some(due.max(self.link_after))
    }
}
