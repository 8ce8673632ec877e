//! The transactions of a removal.
//!
//! A node that was removed may live after all, cut off from the store and still handing addresses
//! out. So its blocks do not become free at once: they are quarantined, on a lease that nobody
//! keeps alive. The same transaction raises the node's epoch, so that every earlier transaction of
//! the node that is still on its way is refused from then on (rule 3). A node that comes back joins
//! again and takes its quarantined blocks back.

use std::sync::Arc;

use crate::core::ids::{Epoch, LeaseId, Revision};
use crate::core::keys::{drain_key, forgotten_key, node_key, session_key};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::UnixTime;
use crate::core::txn::{Compare, KeyValue, Txn, Write};
use crate::core::value::{BlockStatus, BlockValue, NodeValue, Value};

/// One removal.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The node.
    pub node: Arc<str>,
    /// Remove it although it has a session.
    pub force: bool,
    /// The lease on which its blocks hang until the quarantine ends; none, if none of them has to.
    pub quarantine: Option<LeaseId>,
    /// The time at which the operator asked for it.
    pub now: UnixTime,
}

impl Removal {
    /// Returns the epoch that the node is raised to, from its key; a node without one never was
    /// there.
    pub fn epoch(known: Option<&NodeValue>) -> Epoch {
        known.map_or(Epoch::FIRST, |node| node.epoch.next())
    }

    /// Raises the node's epoch, ends its session and its drain, and takes these of its blocks.
    /// `known`: the node's key as read *before* the blocks were listed, with its revision, so that
    /// the transaction is refused if the node has claimed anything since.
    pub fn begin(&self, known: Option<(&NodeValue, Revision)>, blocks: &[KeyValue]) -> Txn {
        let (node, session) = (node_key(&self.node), session_key(&self.node));
        let epoch = Self::epoch(known.map(|(node, _)| node));
        let removed = Some(self.now);
        let value = match known {
            Some((known, _)) => NodeValue { epoch, removed, forfeit: None, ..known.clone() },
            None => NodeValue {
                epoch,
                sequence: None,
                machine_id: None,
                identity: None,
                first_epoch: None,
                boot_id: "".into(),
                version: "".into(),
                since: self.now,
                acknowledged: false,
                removed,
                forfeit: None,
            },
        };
        let mut txn = Txn::default();
        let revision = known.map(|(_, revision)| revision);
        txn.when.push(Compare::unchanged(node.clone(), revision));
        if !self.force {
            txn.when.push(Compare::Absent(session.clone()));
        }
        if !broken(Mutant::RemovalKeepsEpoch) {
            txn.then.push(Write::Put(node, Value::Node(value), None));
        }
        txn.then.push(Write::Delete(session));
        txn.then.push(Write::Delete(drain_key(&self.node)));
        self.take(&mut txn, Some(epoch), blocks);
        txn
    }

    /// Takes more of its blocks. `revision`: that of the key of the removed node, so that nothing
    /// is taken from one that has come back.
    pub fn go_on(
        &self,
        revision: Option<Revision>,
        epoch: Option<Epoch>,
        blocks: &[KeyValue],
    ) -> Txn {
        let mut txn = after(&self.node, revision);
        self.take(&mut txn, epoch, blocks);
        txn
    }

    fn take(&self, txn: &mut Txn, epoch: Option<Epoch>, blocks: &[KeyValue]) {
        for key in blocks {
            let Value::Block(block) = &key.value else { continue };
            txn.when.push(Compare::At(key.key.clone(), key.mod_revision));
            txn.then.push(match block.status {
                // Nothing was handed out of it, nor will be: that would need the node's epoch.
                BlockStatus::Spare => Write::Delete(key.key.clone()),
                _ if broken(Mutant::RemovalFreesBlocks) => Write::Delete(key.key.clone()),
                BlockStatus::Active | BlockStatus::Quarantined | BlockStatus::Parked => {
                    let value = BlockValue {
                        epoch,
                        status: BlockStatus::Quarantined,
                        since: self.now,
                        ..block.clone()
                    };
                    Write::Put(key.key.clone(), Value::Block(value), self.quarantine)
                }
            });
        }
    }
}

/// Begins a transaction that is refused once the node has come back.
fn after(node: &str, revision: Option<Revision>) -> Txn {
    Txn { when: vec![Compare::unchanged(node_key(node), revision)], then: vec![] }
}

/// Deletes records of a removed node's allocations, unless it has come back.
pub fn delete_records(node: &str, revision: Option<Revision>, records: &[KeyValue]) -> Txn {
    let mut txn = after(node, revision);
    for record in records {
        txn.when.push(Compare::At(record.key.clone(), record.mod_revision));
        txn.then.push(Write::Delete(record.key.clone()));
    }
    txn
}

/// Deletes the key of a removed node that has neither blocks nor a session. A copy of it stays for
/// the life of a lease: a node that comes back with its state directory must not take the store
/// for one that went back in time.
pub fn forget(node: &str, known: &NodeValue, revision: Revision, lease: LeaseId) -> Txn {
    let mut txn = after(node, Some(revision));
    txn.then.push(Write::Put(forgotten_key(node), Value::Node(known.clone()), Some(lease)));
    txn.when.push(Compare::Absent(session_key(node)));
    txn.then.push(Write::Delete(node_key(node)));
    txn.then.push(Write::Delete(drain_key(node)));
    txn
}

/// Returns whether a key is a block or a record of a node. A block that it parked is nobody's: the
/// node gave it back.
pub fn is_of(node: &str, key: &KeyValue) -> bool {
    match &key.value {
        Value::Block(block) => &*block.owner == node && block.status != BlockStatus::Parked,
        Value::Allocation(allocation) => &*allocation.node == node,
        _ => false,
    }
}

/// Returns whether a key is a quarantined block.
pub fn is_quarantined(key: &KeyValue) -> bool {
    matches!(&key.value, Value::Block(block) if block.status == BlockStatus::Quarantined)
}

/// Returns whether a key is a spare block.
pub fn is_spare(key: &KeyValue) -> bool {
    matches!(&key.value, Value::Block(block) if block.status == BlockStatus::Spare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::{Address, BlockSize, Cidr, Family};
    use crate::core::ids::Link;
    use crate::core::value::Forfeit;
    use std::time::Duration;

    fn node(epoch: u64) -> NodeValue {
        let epoch = Epoch::new(epoch).unwrap();
        NodeValue {
            epoch,
            sequence: Link::new(77),
            machine_id: Some("m".into()),
            identity: Some("i".into()),
            first_epoch: None,
            boot_id: "b".into(),
            version: "1".into(),
            since: UnixTime::from_millis(5),
            acknowledged: true,
            removed: None,
            forfeit: Some(Forfeit {
                after: Duration::from_secs(9),
                said: UnixTime::EPOCH,
                taken: 0,
            }),
        }
    }

    fn block(start: u128, status: BlockStatus, revision: u64) -> KeyValue {
        let start = Address::new(start);
        let value = BlockValue {
            cidr: Cidr::containing(start, BlockSize::of_log2(3)),
            family: Family::V4,
            owner: "n".into(),
            epoch: Epoch::new(3),
            claim: Link::new(9).unwrap(),
            status,
            since: UnixTime::from_millis(6),
        };
        let key = crate::core::keys::block_key("net", Family::V4, start);
        KeyValue { key, value: Value::Block(value), mod_revision: rev(revision), lease: None }
    }

    fn removal(force: bool) -> Removal {
        Removal {
            node: "n".into(),
            force,
            quarantine: LeaseId::new(42),
            now: UnixTime::from_millis(1000),
        }
    }

    fn rev(revision: u64) -> Revision {
        Revision::new(revision).unwrap()
    }

    fn at(key: &str, revision: u64) -> Compare {
        Compare::unchanged(key.to_owned(), Revision::new(revision))
    }

    #[test]
    fn the_epoch_is_raised_and_the_blocks_are_taken_in_one_transaction() {
        let (active, spare) =
            (block(8, BlockStatus::Active, 11), block(16, BlockStatus::Spare, 12));
        let txn = removal(false).begin(Some((&node(3), rev(10))), &[active.clone(), spare.clone()]);
        let expected =
            [at("nodes/n", 10), at("sessions/n", 0), at(&active.key, 11), at(&spare.key, 12)];
        assert_eq!(txn.when, expected);
        let removed = NodeValue {
            epoch: Epoch::new(4).unwrap(),
            removed: Some(UnixTime::from_millis(1000)),
            forfeit: None,
            ..node(3)
        };
        assert_eq!(txn.then[0], Write::Put("nodes/n".into(), Value::Node(removed), None));
        assert_eq!(txn.then[1..3], ["sessions/n", "drains/n"].map(|k| Write::Delete(k.into())));
        let Write::Put(key, Value::Block(value), Some(lease)) = &txn.then[3] else {
            panic!("{:?}", txn.then[3]);
        };
        assert_eq!(lease.get(), 42);
        assert_eq!(
            (key, value.status, value.epoch),
            (&active.key, BlockStatus::Quarantined, Epoch::new(4))
        );
        assert_eq!(
            (&*value.owner, value.claim, value.since),
            ("n", Link::new(9).unwrap(), UnixTime::from_millis(1000))
        );
        // Nothing was ever handed out of a spare.
        assert_eq!(txn.then[4], Write::Delete(spare.key));
        // A node that lives is removed by force only.
        let forced = removal(true).begin(Some((&node(3), rev(10))), &[]);
        assert_eq!(forced.when, [at("nodes/n", 10)]);
    }

    #[test]
    fn blocks_of_a_node_without_a_key_are_taken_too() {
        let txn = removal(false).begin(None, &[block(8, BlockStatus::Active, 11)]);
        assert_eq!(txn.when[0], at("nodes/n", 0));
        let Write::Put(_, Value::Node(value), None) = &txn.then[0] else {
            panic!("{:?}", txn.then[0]);
        };
        assert_eq!(
            (value.epoch, value.sequence, value.removed),
            (Epoch::FIRST, None, Some(UnixTime::from_millis(1000)))
        );
    }

    #[test]
    fn later_transactions_are_refused_once_the_node_has_come_back() {
        let blocks = [block(8, BlockStatus::Active, 11)];
        let more = removal(false).go_on(Some(rev(20)), Epoch::new(4), &blocks);
        assert_eq!(more.when, [at("nodes/n", 20), at(&blocks[0].key, 11)]);
        assert_eq!(more.then.len(), 1);
        let records = delete_records("n", Some(rev(20)), &blocks);
        assert_eq!(records.when, more.when);
        assert_eq!(records.then, [Write::Delete(blocks[0].key.clone())]);
        let forget = forget("n", &node(4), rev(20), LeaseId::new(42).unwrap());
        assert_eq!(forget.when, [at("nodes/n", 20), at("sessions/n", 0)]);
        let said = Write::Put("forgotten/n".into(), Value::Node(node(4)), LeaseId::new(42));
        assert_eq!(forget.then[0], said);
        assert_eq!(forget.then[1..], ["nodes/n", "drains/n"].map(|key| Write::Delete(key.into())));
    }

    #[test]
    fn blocks_are_told_apart_by_their_state_and_owner() {
        let is = |status| (is_spare(&block(8, status, 1)), is_quarantined(&block(8, status, 1)));
        let all = [BlockStatus::Spare, BlockStatus::Active, BlockStatus::Quarantined];
        assert_eq!(all.map(is), [(true, false), (false, false), (false, true)]);
        let active = block(8, BlockStatus::Active, 1);
        assert!(is_of("n", &active) && !is_of("m", &active));
    }
}
