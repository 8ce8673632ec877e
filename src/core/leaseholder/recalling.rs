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
use crate::core::address::Run;
use crate::core::keys::{NETWORKS, Space, allocation_address, allocation_key, parse_block_key};
use crate::core::txn::{Answer, KeyValue, Request, Snapshot, Span, StoreError};
use crate::core::value::{AllocationValue, BlockStatus, NetworkValue, Value};
use crate::limits;

/// A record, with its address; nothing when it cannot be read.
pub type Recorded = (IpAddr, Option<Box<AllocationValue>>);

/// What a node has in the store, and does not know or not for certain.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Memory {
    /// All its blocks.
    pub blocks: Vec<(Space, Run)>,
    /// The networks of these blocks.
    pub networks: Vec<(Arc<str>, NetworkValue)>,
    /// Its records in these blocks, with their networks.
    pub records: Vec<(Arc<str>, Recorded)>,
}

/// A block whose records are to be read.
type Item = (Space, Run);

/// Records that are being read.
#[derive(Default, Debug)]
pub(super) struct Recall {
    todo: VecDeque<Item>,
    asked: Vec<Item>,
}

impl Recall {
    pub(super) fn new(items: impl IntoIterator<Item = Item>) -> Self {
        Self { todo: items.into_iter().collect(), asked: Vec::new() }
    }

    pub(super) fn push(&mut self, item: Item) {
        self.todo.push_back(item);
    }

    /// The next blocks: as many as one answer should tell of.
    fn next(&mut self) -> Option<Request> {
        let mut room = limits::KEYS_PER_READ_MAX as u128;
        while let Some((_, run)) = self.todo.front()
            && (self.asked.is_empty() || run.size() <= room)
            && self.asked.len() < limits::TXN_OPERATIONS_MAX
            && let Some(item) = self.todo.pop_front()
        {
            room = room.saturating_sub(item.1.size());
            self.asked.push(item);
        }
        let span = |(space, run): &Item| {
            let key = |at| allocation_key(&space.network, space.family.address(at));
            let past = format!("{}\0", key(run.end()));
            Span { first: key(run.start), past, limit: limits::KEYS_PER_READ_MAX * 4 }
        };
        let spans: Vec<Span> = self.asked.iter().map(span).collect();
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
        std::mem::take(&mut self.asked)
            .into_iter()
            .zip(snapshot.spans.into_iter().map(records))
            .collect()
    }

    fn put_back(&mut self) {
        for item in std::mem::take(&mut self.asked).into_iter().rev() {
            self.todo.push_front(item);
        }
    }
}

impl Leaseholder {
    /// Reads the records of the next blocks, if none are being read.
    pub(super) fn recall(&mut self, now: Millis) {
        if self.recall.asked.is_empty()
            && let Some(read) = self.recall.next()
        {
            self.request(now, Pending::Recall, read);
        }
    }

    /// What records there are in some blocks.
    pub(super) fn recalled(&mut self, now: Millis, answer: Result<Answer, StoreError>) {
        let Ok(Answer::Read(snapshot)) = answer else {
            return self.recall.put_back(); // until the next heartbeat
        };
        let (mut runs, mut found) = (Vec::new(), Vec::new());
        for ((space, run), records) in self.recall.heard(snapshot) {
            found.extend(records.into_iter().map(|record| (space.network.clone(), record)));
            runs.push((space, run));
        }
        if !runs.is_empty() {
            self.effects.push_back(Effect::Recalled(runs, found));
        }
        self.recall(now);
    }

    /// The networks are read: of which this node has blocks.
    pub(super) fn mapped(&mut self, now: Millis, snapshot: Snapshot) {
        let Some(joining) = self.joining() else { return };
        joining.step = Step::Recalling;
        let blocks = joining.blocks.iter().filter(|(_, block)| block.status != BlockStatus::Spare);
        let blocks = blocks.filter_map(|(key, block)| {
            let (network, family, _) = parse_block_key(&key.key)?;
            Some((Space { network: network.into(), family }, block.run))
        });
        joining.memory = Memory { blocks: blocks.collect(), ..Memory::default() };
        let ours =
            |network: &str| joining.memory.blocks.iter().any(|(s, _)| *s.network == *network);
        let networks = snapshot.spans.into_iter().flatten().filter_map(|key| match key.value {
            Value::Network(value) => Some((key.key.strip_prefix(NETWORKS)?.into(), value)),
            _ => None,
        });
        let networks = networks.filter(|(network, _): &(Arc<str>, _)| ours(network)).collect();
        joining.memory.networks = networks;
        let items = joining.memory.blocks.iter().cloned();
        joining.recall = Recall::new(items);
        self.remember(now, None);
    }

    /// Some records of a node that forgot are read.
    pub(super) fn remember(&mut self, now: Millis, snapshot: Option<Snapshot>) {
        let Some(joining) = self.joining() else { return };
        let (mut recall, mut memory) =
            (std::mem::take(&mut joining.recall), std::mem::take(&mut joining.memory));
        let goes_on = self.recover(now, &mut recall, &mut memory, snapshot);
        let Some(joining) = self.joining() else { return };
        (joining.recall, joining.memory) = (recall, memory);
        if !goes_on {
            self.become_member(now);
        }
    }

    /// The next step of a node that forgot: reads its records, block by block, and then gives all
    /// of it back to its memory; whether it did.
    fn recover(
        &mut self,
        now: Millis,
        recall: &mut Recall,
        memory: &mut Memory,
        answer: Option<Snapshot>,
    ) -> bool {
        if let Some(snapshot) = answer {
            for ((space, ..), records) in recall.heard(snapshot) {
                let of = |(at, value): Recorded| (space.network.clone(), (at, value));
                memory.records.extend(records.into_iter().map(of));
            }
        }
        recall.put_back();
        match recall.next() {
            Some(read) => self.request(now, Pending::Join, read),
            None => self.effects.push_back(Effect::Recover(Box::new(std::mem::take(memory)))),
        }
        !recall.asked.is_empty()
    }
}
