//! Reads the records when the node joins, and when a lost block comes back.
//!
//! Two uses. A daemon whose journal is older than its node (the state directory was lost, or is a
//! copy from earlier) rebuilds from them what it forgot, before anything is handed out. And every
//! daemon compares them with what it holds, since some may not have been written before it died.

use std::collections::VecDeque;

use super::{Effect, Leaseholder, Pending, Recorded};
use crate::core::address::Cidr;
use crate::core::keys::{PoolFamily, allocation_address, allocation_key};
use crate::core::time::BootTime;
use crate::core::txn::{Answer, KeyValue, Request, Snapshot, Span, StoreError};
use crate::core::value::Value;
use crate::limits;

/// A block whose records are to be read.
type Item = (PoolFamily, Cidr);

/// Records that are being read.
#[derive(Default, Debug)]
pub(super) struct RecordScan {
    todo: VecDeque<Item>,
    pub(super) requested: Vec<Item>,
    /// The number of answers that the coordinator has not compared with what is held.
    comparing: usize,
    /// Raised when reading begins anew: an answer to an earlier request says what was so then.
    round: u64,
}

impl RecordScan {
    pub(super) fn new(items: impl IntoIterator<Item = Item>) -> Self {
        Self { todo: items.into_iter().collect(), ..Self::default() }
    }

    /// Begins anew, with these blocks.
    pub(super) fn restart(&mut self, items: impl IntoIterator<Item = Item>) {
        let (comparing, round) = (self.comparing, self.round + 1);
        *self = Self { comparing, round, ..Self::new(items) };
    }

    pub(super) fn push(&mut self, item: Item) {
        self.todo.push_back(item);
    }

    /// Requests the next blocks: as many as one answer should tell of.
    pub(super) fn next(&mut self) -> Option<Request> {
        let mut room = limits::KEYS_PER_READ_MAX as u128;
        while let Some((_, cidr)) = self.todo.front()
            && (self.requested.is_empty() || cidr.size().addresses() <= room)
            && self.requested.len() < limits::TXN_OPERATIONS_MAX
            && let Some(item) = self.todo.pop_front()
        {
            room = room.saturating_sub(item.1.size().addresses());
            self.requested.push(item);
        }
        let span = |(pool, cidr): &Item| {
            let key = |at| allocation_key(&pool.network, pool.family.address(at));
            let past = format!("{}\0", key(cidr.last()));
            Span { first: key(cidr.first()), past, limit: limits::KEYS_PER_READ_MAX * 4 }
        };
        let spans: Vec<Span> = self.requested.iter().map(span).collect();
        (!spans.is_empty()).then_some(Request::Read(spans))
    }

    /// Returns the records of each block in an answer.
    pub(super) fn take_answer(&mut self, snapshot: Snapshot) -> Vec<(Item, Vec<Recorded>)> {
        let records = |keys: Vec<KeyValue>| {
            let record = |key: KeyValue| {
                let value = match key.value {
                    Value::Allocation(value) => Some(value),
                    _ => None,
                };
                Some((allocation_address(&key.key)?, value))
            };
            keys.into_iter().filter_map(record).collect()
        };
        std::mem::take(&mut self.requested)
            .into_iter()
            .zip(snapshot.spans.into_iter().map(records))
            .collect()
    }

    /// Returns whether all records were read and compared with what is held.
    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty() && self.requested.is_empty() && self.comparing == 0
    }

    pub(super) fn compared(&mut self) {
        self.comparing = self.comparing.saturating_sub(1);
    }

    pub(super) fn put_back(&mut self) {
        for item in std::mem::take(&mut self.requested).into_iter().rev() {
            self.todo.push_front(item);
        }
    }
}

impl Leaseholder {
    /// Reads the records of the next blocks, if none are being read.
    pub(super) fn scan(&mut self, now: BootTime) {
        if self.scan.requested.is_empty()
            && let Some(read) = self.scan.next()
        {
            self.request(now, Pending::RecordScan(self.scan.round), read);
        }
    }

    /// Handles the store's answer with the records in some blocks.
    pub(super) fn records_listed(
        &mut self,
        now: BootTime,
        round: u64,
        answer: Result<Answer, StoreError>,
    ) {
        if round != self.scan.round {
            return;
        }
        let Ok(Answer::Read(snapshot)) = answer else {
            return self.scan.put_back(); // until the next heartbeat
        };
        let (mut cidrs, mut found) = (Vec::new(), Vec::new());
        for ((pool, cidr), records) in self.scan.take_answer(snapshot) {
            found.extend(records.into_iter().map(|record| (pool.network.clone(), record)));
            cidrs.push((pool, cidr));
        }
        if !cidrs.is_empty() {
            self.scan.comparing += 1;
            self.effects.push_back(Effect::RecordsListed(cidrs, found));
        }
        self.scan(now);
    }
}
