//! What the records say: read when the node joins, and when a lost block comes back.
//!
//! Two uses. A daemon whose journal is older than its node (the state directory was lost, or is a
//! copy from earlier) rebuilds from them what it forgot, before anything is handed out. And every
//! daemon compares them with what it holds, since some may not have been written before it died.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::join::Step;
use super::{Effect, Leaseholder, Pending};
use crate::core::Millis;
use crate::core::address::Cidr;
use crate::core::keys::{
    NETWORKS, PoolFamily, allocation_address, allocation_key, parse_block_key,
};
use crate::core::txn::{Answer, KeyValue, Request, Snapshot, Span, StoreError};
use crate::core::value::{AllocationValue, BlockStatus, NetworkValue, Value};
use crate::limits;

/// A record, with its address; nothing when it cannot be read.
pub type Recorded = (IpAddr, Option<Box<AllocationValue>>);

/// What a node has in the store, and does not know or not for certain.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct StoredState {
    /// All its blocks.
    pub blocks: Vec<(PoolFamily, Cidr)>,
    /// The networks of these blocks.
    pub networks: Vec<(Arc<str>, NetworkValue)>,
    /// Its records in these blocks, with their networks.
    pub records: Vec<(Arc<str>, Recorded)>,
}

/// A block whose records are to be read.
type Item = (PoolFamily, Cidr);

/// Records that are being read.
#[derive(Default, Debug)]
pub(super) struct RecordScan {
    todo: VecDeque<Item>,
    requested: Vec<Item>,
}

impl RecordScan {
    pub(super) fn new(items: impl IntoIterator<Item = Item>) -> Self {
        Self { todo: items.into_iter().collect(), requested: Vec::new() }
    }

    pub(super) fn push(&mut self, item: Item) {
        self.todo.push_back(item);
    }

    /// The next blocks: as many as one answer should tell of.
    fn next(&mut self) -> Option<Request> {
        let mut room = limits::KEYS_PER_READ_MAX as u128;
        while let Some((_, cidr)) = self.todo.front()
            && (self.requested.is_empty() || cidr.size() <= room)
            && self.requested.len() < limits::TXN_OPERATIONS_MAX
            && let Some(item) = self.todo.pop_front()
        {
            room = room.saturating_sub(item.1.size());
            self.requested.push(item);
        }
        let span = |(pool, cidr): &Item| {
            let key = |at| allocation_key(&pool.network, pool.family.address(at));
            let past = format!("{}\0", key(cidr.end()));
            Span { first: key(cidr.start), past, limit: limits::KEYS_PER_READ_MAX * 4 }
        };
        let spans: Vec<Span> = self.requested.iter().map(span).collect();
        (!spans.is_empty()).then_some(Request::Read(spans))
    }

    /// What an answer says of each block.
    fn heard(&mut self, snapshot: Snapshot) -> Vec<(Item, Vec<Recorded>)> {
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

    fn put_back(&mut self) {
        for item in std::mem::take(&mut self.requested).into_iter().rev() {
            self.todo.push_front(item);
        }
    }
}

impl Leaseholder {
    /// Reads the records of the next blocks, if none are being read.
    pub(super) fn scan(&mut self, now: Millis) {
        if self.scan.requested.is_empty()
            && let Some(read) = self.scan.next()
        {
            self.request(now, Pending::RecordScan, read);
        }
    }

    /// What records there are in some blocks.
    pub(super) fn records_listed(&mut self, now: Millis, answer: Result<Answer, StoreError>) {
        let Ok(Answer::Read(snapshot)) = answer else {
            return self.scan.put_back(); // until the next heartbeat
        };
        let (mut cidrs, mut found) = (Vec::new(), Vec::new());
        for ((pool, cidr), records) in self.scan.heard(snapshot) {
            found.extend(records.into_iter().map(|record| (pool.network.clone(), record)));
            cidrs.push((pool, cidr));
        }
        if !cidrs.is_empty() {
            self.effects.push_back(Effect::RecordsListed(cidrs, found));
        }
        self.scan(now);
    }

    /// The networks are read: of which this node has blocks.
    pub(super) fn mapped(&mut self, now: Millis, snapshot: Snapshot) {
        let Some(joining) = self.joining() else { return };
        joining.step = Step::ScanningRecords;
        let blocks = joining.blocks.iter().filter(|(_, block)| block.status != BlockStatus::Spare);
        let blocks = blocks.filter_map(|(key, block)| {
            let (network, family, _) = parse_block_key(&key.key)?;
            Some((PoolFamily { network: network.into(), family }, block.cidr))
        });
        joining.stored_state = StoredState { blocks: blocks.collect(), ..StoredState::default() };
        let ours =
            |network: &str| joining.stored_state.blocks.iter().any(|(s, _)| *s.network == *network);
        let networks = snapshot.spans.into_iter().flatten().filter_map(|key| match key.value {
            Value::Network(value) => Some((key.key.strip_prefix(NETWORKS)?.into(), value)),
            _ => None,
        });
        let networks = networks.filter(|(network, _): &(Arc<str>, _)| ours(network)).collect();
        joining.stored_state.networks = networks;
        let items = joining.stored_state.blocks.iter().cloned();
        joining.scan = RecordScan::new(items);
        self.rebuild(now, None);
    }

    /// Some records of a node that forgot are read.
    pub(super) fn rebuild(&mut self, now: Millis, snapshot: Option<Snapshot>) {
        let Some(joining) = self.joining() else { return };
        let (mut scan, mut stored_state) =
            (std::mem::take(&mut joining.scan), std::mem::take(&mut joining.stored_state));
        let goes_on = self.recover(now, &mut scan, &mut stored_state, snapshot);
        let Some(joining) = self.joining() else { return };
        (joining.scan, joining.stored_state) = (scan, stored_state);
        if !goes_on {
            self.become_member(now);
        }
    }

    /// The next step of a node that forgot: reads its records, block by block, and then gives all
    /// of it back to its memory; whether it did.
    fn recover(
        &mut self,
        now: Millis,
        scan: &mut RecordScan,
        stored_state: &mut StoredState,
        answer: Option<Snapshot>,
    ) -> bool {
        if let Some(snapshot) = answer {
            for ((pool, ..), records) in scan.heard(snapshot) {
                let of = |(at, value): Recorded| (pool.network.clone(), (at, value));
                stored_state.records.extend(records.into_iter().map(of));
            }
        }
        scan.put_back();
        match scan.next() {
            Some(read) => self.request(now, Pending::Join, read),
            None => self.effects.push_back(Effect::Recover(Box::new(std::mem::take(stored_state)))),
        }
        !scan.requested.is_empty()
    }
}
