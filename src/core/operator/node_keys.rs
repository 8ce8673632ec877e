//! The state of a node that is being removed, as the store has it.

use super::txns::{is_of, is_quarantined, is_spare};
use crate::core::ids::{LeaseId, Revision};
use crate::core::time::UnixTime;
use crate::core::txn::KeyValue;
use crate::core::value::{NodeValue, Value};

/// The keys of one node.
#[derive(Clone, Default, Debug)]
pub(super) struct NodeKeys {
    /// The node's key with its revision. It was read before the blocks: a claim that came later
    /// changed it.
    pub(super) known: Option<(NodeValue, Revision)>,
    /// True if it had a session then.
    pub(super) live: bool,
    /// Its blocks in every state.
    pub(super) blocks: Vec<KeyValue>,
    /// The records of its allocations.
    pub(super) records: Vec<KeyValue>,
}

impl NodeKeys {
    /// Takes what is the node's out of a page of blocks or of records.
    pub(super) fn add(&mut self, node: &str, page: Vec<KeyValue>) {
        for key in page.into_iter().filter(|key| is_of(node, key)) {
            match &key.value {
                Value::Block(_) => self.blocks.push(key),
                _ => self.records.push(key),
            }
        }
    }

    /// Returns whether it has this block or record.
    pub(super) fn has(&self, key: &str) -> bool {
        self.blocks.iter().chain(&self.records).any(|of| of.key == key)
    }

    /// Returns the time of the last write of the node itself. Quarantined blocks were written by
    /// somebody else.
    pub(super) fn last_write(&self) -> Option<UnixTime> {
        let since = |key: &KeyValue| match &key.value {
            Value::Block(block) if !is_quarantined(key) => Some(block.since),
            Value::Allocation(allocation) => Some(allocation.since),
            _ => None,
        };
        let keys = self.blocks.iter().chain(&self.records).filter_map(since);
        let joined = self.known.as_ref().map(|(node, _)| node.since);
        keys.chain(joined).max()
    }

    /// Returns the number of its blocks that are spare.
    pub(super) fn spares(&self) -> usize {
        self.blocks.iter().filter(|key| is_spare(key)).count()
    }

    /// Returns the leases on which its quarantined blocks hang.
    pub(super) fn quarantines(&self) -> Vec<LeaseId> {
        let quarantined = self.blocks.iter().filter(|key| is_quarantined(key));
        let mut leases: Vec<LeaseId> = quarantined.filter_map(|key| key.lease).collect();
        leases.sort_unstable();
        leases.dedup();
        leases
    }

    /// Returns the blocks that a removal has to take: those that are not in quarantine, and those
    /// whose quarantine is one of the leases in `longer`, or has no end.
    pub(super) fn to_take(&self, longer: &[LeaseId]) -> Vec<KeyValue> {
        let is_long = |key: &&KeyValue| {
            !is_quarantined(key) || key.lease.is_none_or(|lease| longer.contains(&lease))
        };
        self.blocks.iter().filter(is_long).cloned().collect()
    }
}
