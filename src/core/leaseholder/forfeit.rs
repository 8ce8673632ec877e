//! Free addresses of a node that has been silent for longer than its `offlineLimit`.
//!
//! A node with `commit = "etcd"` answers an ADD when its record is in the store, and the record
//! lands only if the node's key is as the node left it. So another node that writes that key anew
//! ends every ADD that is not answered yet, and what has no record then is held by nobody: no clock
//! matters. A node that also has an `offlineLimit` says in its key that others may use this: it
//! forfeits its free addresses when it has been silent for that long (rule 34).

use super::chain::Batch;
use super::finding::Find;
use super::records::Stretch;
use super::txns::compare_not_restored;
use super::{Effect, Forfeited, Leaseholder, Order, Pending, parts};
use crate::core::address::{Address, AddressRange, Cidr};
use crate::core::ids::{OrderId, Revision};
use crate::core::keys::{PoolFamily, allocation_address, node_key, session_key};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::{BootTime, UnixTime};
use crate::core::txn::{Compare, KeyValue, Request, Snapshot, Span, Txn, Write};
use crate::core::value::{BlockStatus, BlockValue, Forfeit, NodeValue, Value};
use crate::limits;

impl Leaseholder {
    /// Returns the node's word that others may have its free addresses when it has been silent for
    /// long: only if all that it ever answered is in the store once this batch has landed.
    pub(super) fn forfeit(
        &self,
        now: BootTime,
        orders: &[(Option<OrderId>, Order)],
    ) -> Option<Forfeit> {
        let after = self.identity.forfeits_after()?;
        // Addresses of a block that comes back may be held without a record.
        let regains = |order: &Order| matches!(order, Order::Reclaim(..) | Order::Trim { .. });
        let complete = self.scan.is_done()
            && !self.records.has_unrecorded()
            && !orders.iter().any(|(_, order)| regains(order));
        let said = self.unix_time(now);
        (complete || broken(Mutant::ForfeitsUnrecorded)).then_some(Forfeit {
            after,
            said,
            taken: 0,
        })
    }

    /// Remembers that records of this node were compared with what is held: those that were wrong
    /// are among the changes that wait. The node's key may be due to say that it forfeits.
    pub fn compared(&mut self, now: BootTime) {
        self.scan.compared();
        let is_due = self.chain.forfeit.is_none() && self.identity.forfeits_after().is_some();
        if is_due && self.is_member() && self.scan.is_done() {
            self.records.hurry();
            self.renew_session();
        }
        self.link(now);
    }

    /// Looks into the next block of a silent node, or takes the best part that was found.
    pub(super) fn examine(&mut self, now: BootTime, id: OrderId, mut find: Find) {
        let examination = find.examination.get_or_insert_default();
        let next = examination.left.pop_front();
        let whole = |best: &Forfeited| best.part == best.block.cidr;
        let enough = examination.best.as_ref().is_some_and(whole);
        let enough = enough || examination.reads >= limits::FORFEITS_READ_MAX;
        let Some((node, cidr)) = next.filter(|_| !enough) else {
            let Some(best) = examination.best.take() else {
                let found = find.nobody(&self.identity.node);
                return self.effects.push_back(Effect::Found(id, found));
            };
            self.finds.insert(id, find);
            self.queue.push_back((Some(id), Order::TakeForfeit(Box::new(best))));
            return self.link(now);
        };
        examination.reads += 1;
        let block = Stretch { pool: find.pool.clone(), range: cidr.range() };
        let spans = vec![
            Span::key(&node_key(&node)),
            Span::key(&session_key(&node)),
            Span::key(&find.pool.block_key(cidr.first())),
            block.records(limits::KEYS_PER_READ_MAX),
        ];
        examination.reading = Some((node, cidr));
        self.finds.insert(id, find);
        self.request(now, Pending::Find(id), Request::Read(spans));
    }

    /// Takes in what was read of a block of a silent node.
    pub(super) fn examined(
        &mut self,
        now: BootTime,
        id: OrderId,
        mut find: Find,
        snapshot: &Snapshot,
    ) {
        let Some(examination) = &mut find.examination else { return };
        let Some((node, cidr)) = examination.reading.take() else { return };
        match forfeited(&find.pool, cidr, &node, &find.wanted, self.unix_time(now), snapshot) {
            Some(part) => {
                let size = examination.best.as_ref().map(|best| best.part.size());
                if size < Some(part.part.size()) {
                    examination.best = Some(part);
                }
            }
            None if !forfeits(self.unix_time(now), snapshot) => {
                examination.left.retain(|(of, _)| *of != node);
            }
            None => {}
        }
        self.examine(now, id, find);
    }

    /// Takes a free part of a silent node's block in a transaction, which writes that node's key
    /// anew: nothing that the node has sent lands after this.
    pub(super) fn take_forfeit(
        &self,
        txn: &mut Txn,
        now: BootTime,
        batch: &Batch,
        forfeited: &Forfeited,
    ) {
        let Forfeited { pool, part, block, block_revision, node, node_revision } = forfeited;
        txn.when.push(Compare::At(pool.block_key(block.cidr.first()), *block_revision));
        txn.when.push(Compare::Absent(session_key(&block.owner)));
        compare_not_restored(txn);
        if !broken(Mutant::ForfeitNotFenced) {
            let key = node_key(&block.owner);
            txn.when.push(Compare::At(key.clone(), *node_revision));
            // Another value in any case, so that the node notices.
            let next = |taken: u32| taken.checked_add(1).unwrap_or(1);
            let forfeit = node.forfeit.map(|of| Forfeit { taken: next(of.taken), ..of });
            let node = NodeValue { forfeit, ..node.clone() };
            txn.then.push(Write::Put(key, Value::Node(node), None));
        }
        for cidr in parts::without(block.cidr, *part) {
            let rest = Value::Block(BlockValue { cidr, ..block.clone() });
            txn.then.push(Write::Put(pool.block_key(cidr.first()), rest, None));
        }
        txn.then.push(self.put(now, batch, pool, *part, BlockStatus::Active));
    }
}

/// Returns the node's key in what was read of one of its blocks.
fn node_of(snapshot: &Snapshot) -> Option<(&NodeValue, Revision)> {
    match snapshot.spans.first()?.first()? {
        KeyValue { value: Value::Node(node), mod_revision, .. } => Some((node, *mod_revision)),
        _ => None,
    }
}

/// Returns whether a node forfeits what it has no record of: it has no session, and its last word
/// is old enough.
fn forfeits(now: UnixTime, snapshot: &Snapshot) -> bool {
    let absent = snapshot.spans.get(1).is_some_and(Vec::is_empty);
    let forfeit = node_of(snapshot).and_then(|(node, _)| node.forfeit);
    absent && forfeit.is_some_and(|forfeit| now >= forfeit.said + forfeit.after)
}

/// Returns the largest part of a block that has a wanted address and no record.
fn forfeited(
    pool: &PoolFamily,
    cidr: Cidr,
    owner: &str,
    wanted: &[AddressRange],
    now: UnixTime,
    snapshot: &Snapshot,
) -> Option<Forfeited> {
    let (node, node_revision) = node_of(snapshot).filter(|_| forfeits(now, snapshot))?;
    let [_, _, block, records] = &snapshot.spans[..] else { return None };
    let KeyValue { value: Value::Block(block), mod_revision, .. } = block.first()? else {
        return None;
    };
    let as_seen = block.cidr == cidr && *block.owner == *owner;
    if !as_seen || block.status != BlockStatus::Active {
        return None;
    }
    let held: Vec<Cidr> = (records.iter())
        .filter_map(|record| allocation_address(&record.key))
        .map(|address| Cidr::one(Address::of(address)))
        .collect();
    // What is behind the last record that was read may be held as well.
    let end = held.last().filter(|_| records.len() >= limits::KEYS_PER_READ_MAX);
    let known = |part: &Cidr| end.is_none_or(|end| part.last() < end.first());
    let has_wanted = |part: &Cidr| wanted.iter().any(|range| range.meets(part.range()));
    let free = parts::missing(cidr, &held).filter(known).filter(has_wanted);
    let part = free.max_by_key(|part| part.size())?;
    Some(Forfeited {
        pool: pool.clone(),
        part,
        block: block.clone(),
        block_revision: *mod_revision,
        node: node.clone(),
        node_revision,
    })
}

#[cfg(test)]
mod tests;
