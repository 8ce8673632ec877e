//! Records: the copies of allocations in the store, coalesced and rate-limited.
//!
//! They go through the chain like everything else that this node writes. So a record is written by
//! the owner of its block only, none is late, and the records of a block are up to date when the
//! block leaves.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Effect, Leaseholder, RecordChange};
use crate::core::Millis;
use crate::core::address::{Family, Run, number};
use crate::core::keys::{Space, allocation_key};
use crate::core::txn::{Txn, Write};
use crate::core::value::{AllocationValue, Value};
use crate::limits;

pub(super) type At = (Arc<str>, IpAddr);

#[derive(Clone, Debug)]
struct Change {
    value: Option<Box<AllocationValue>>,
    since: Millis,
    waiting: Vec<u64>,
}

#[derive(Default, Debug)]
pub(super) struct Records {
    dirty: BTreeMap<At, Change>,
    under_way: Vec<(At, Change)>,
    /// How many changes somebody waits for.
    urgent: usize,
    flush_at: Millis,
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
            self.under_way.push((at.clone(), change));
        }
    }

    /// Whatever waits is due now.
    pub(super) fn hurry(&mut self) {
        self.flush_at = 0;
    }

    pub(super) fn write(&self, txn: &mut Txn) {
        for ((network, address), change) in &self.under_way {
            let key = allocation_key(network, *address);
            txn.then.push(match &change.value {
                Some(value) => Write::Put(key, Value::Allocation(value.clone()), None),
                None => Write::Delete(key),
            });
        }
    }

    /// Whatever was recorded of an address has ended; what waits to be recorded counts.
    pub(super) fn end(&mut self, now: Millis, at: At) {
        if !self.dirty.contains_key(&at) {
            self.set(at, Change { value: None, since: now, waiting: vec![] });
        }
    }

    /// What was under way was not carried out; what has changed since counts.
    pub(super) fn put_back(&mut self) {
        for (at, mut change) in std::mem::take(&mut self.under_way) {
            if let Some(newer) = self.dirty.remove(&at) {
                self.urgent -= newer.waiting.len();
                change.value = newer.value;
                change.waiting.extend(newer.waiting);
            }
            self.set(at, change);
        }
    }

    pub(super) fn written(&mut self, _: Millis, effects: &mut VecDeque<Effect>) {
        let written = std::mem::take(&mut self.under_way);
        let waiting: Vec<u64> =
            written.into_iter().flat_map(|(_, change)| change.waiting).collect();
        if !waiting.is_empty() {
            effects.push_back(Effect::Recorded(waiting));
        }
    }

    /// The changes of addresses in a run.
    fn within(&self, space: &Space, run: Run) -> Vec<At> {
        let first = (space.network.clone(), space.family.address(run.start));
        let last = (space.network.clone(), space.family.address(run.end()));
        self.dirty.range(first..=last).map(|(at, _)| at.clone()).collect()
    }
}

impl Leaseholder {
    /// An allocation began or ended. With `waiting`, an [`Effect::Recorded`] with it comes when
    /// the store has it.
    pub fn record(&mut self, now: Millis, change: RecordChange, waiting: Option<u64>) {
        let RecordChange { network, address, value } = change;
        let space = Space { network: network.clone(), family: Family::of(address) };
        let inside = |(of, run): &(Space, Run)| *of == space && run.contains(number(address));
        if !self.me.records || self.lost.iter().any(inside) {
            return; // what others hold is theirs to record
        }
        let waiting: Vec<u64> = waiting.into_iter().collect();
        self.records.set((network, address), Change { value, since: now, waiting });
        self.link(now);
    }

    /// For how long the oldest change has waited, in milliseconds.
    pub fn record_lag(&self, now: Millis) -> Millis {
        let under_way = self.records.under_way.iter().map(|(_, change)| change);
        let all = self.records.dirty.values().chain(under_way);
        all.map(|change| now.saturating_sub(change.since)).max().unwrap_or_default()
    }

    /// How many changes wait.
    pub fn records_waiting(&self) -> usize {
        self.records.dirty.len() + self.records.under_way.len()
    }

    /// Moves changes into the transaction that is being made.
    pub(super) fn take_records(&mut self, now: Millis, room: usize) -> bool {
        let records = &mut self.records;
        if records.urgent > 0 || records.flush_at <= now {
            let urgent = records.urgent > 0 && records.flush_at > now;
            let wanted = |change: &Change| !urgent || !change.waiting.is_empty();
            let dirty = records.dirty.iter().filter(|(_, change)| wanted(change));
            let taken: Vec<At> = dirty.map(|(at, _)| at.clone()).take(room).collect();
            taken.iter().for_each(|at| records.take(at));
            if !urgent && !taken.is_empty() {
                let all = taken.len() < room;
                let busy = limits::RECORDS_BUSY_PERIOD_MS;
                records.flush_at = now + if all { limits::RECORDS_PERIOD_MS } else { busy };
            }
        }
        !self.records.under_way.is_empty()
    }

    /// Before a block leaves, its records must be up to date: moves what is not into the
    /// transaction that is being made, as far as there is room; whether all of it fits.
    pub(super) fn settle_records(&mut self, space: &Space, runs: &[Run], room: &mut usize) -> bool {
        for &run in runs {
            for at in self.records.within(space, run) {
                if *room == 0 {
                    return false;
                }
                self.records.take(&at);
                *room -= 1;
            }
        }
        true
    }

    pub(super) fn records_due(&self) -> Option<Millis> {
        let due = (!self.records.dirty.is_empty()).then_some(self.records.flush_at)?;
        (self.batch.is_none() && self.is_member() && self.lease.is_some())
            .then_some(due.max(self.link_after))
    }
}
