//! Compares what the cluster's store says with what this node holds: pure, one key after the other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::blocks::{Block, Blocks, NodeState};
use super::finding::{Finding, Kind, LookedAt};
use crate::api::pools::PlacedBlock;
use crate::core::address::{Address, Family};
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::container_id::ContainerId;
use crate::core::keys::{
    ALLOCATIONS, NODES, PoolFamily, SESSIONS, allocation_key, block_key, parse_block_key,
};
use crate::core::txn::KeyValue;
use crate::core::value::{AllocationValue, Value};
use crate::limits;

/// The network of a record's attachment; its key names the pool.
fn network_of(record: &AllocationValue, pool: &str) -> Arc<str> {
    record.network.clone().unwrap_or_else(|| pool.into())
}

/// A record of an allocation: its pool and address by its key, and what it says.
pub(super) struct Record<'a> {
    pub(super) pool: &'a str,
    pub(super) address: IpAddr,
    pub(super) value: &'a AllocationValue,
}

impl<'a> Record<'a> {
    /// The record of a key; nothing if its value is none, or is another key's.
    pub(super) fn of(key: &'a KeyValue) -> Option<Self> {
        let Value::Allocation(value) = &key.value else { return None };
        let (pool, _) = key.key.strip_prefix(ALLOCATIONS)?.rsplit_once('/')?;
        let own = |address: &&IpAddr| allocation_key(pool, **address) == key.key;
        let address = *value.addresses.iter().find(own)?;
        Some(Self { pool, address, value })
    }

    /// The attachment that it is of.
    pub(super) fn attachment(&self) -> AttachmentId {
        AttachmentId {
            network: network_of(self.value, self.pool),
            container_id: self.value.container_id.clone(),
            ifname: self.value.ifname.clone(),
        }
    }

    /// Returns whether a holding of the record's node is the one that the record is of.
    pub(super) fn is_of(&self, holding: &Holding) -> bool {
        holding.sequence == self.value.sequence
            && *holding.scope.pool == *self.pool
            && holding.addresses.contains(&self.address)
            && holding.is_of(&self.attachment())
    }

    fn finding(&self, kind: Kind, key: &KeyValue) -> Finding {
        let value = self.value;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Finding {
            network: network_of(value, self.pool).to_string(),
            container_id: Some(value.container_id.to_string()),
            ifname: Some(value.ifname.to_string()),
            sequence: Some(value.sequence.get()),
            netns: text(&value.netns),
            pod: text(&value.pod),
            since_unix_ms: Some(value.since.as_millis()),
            key: Some(key.key.clone()),
            revision: Some(key.mod_revision.get()),
            ..Finding::new(kind, &value.node, self.pool).names(vec![self.address.to_string()])
        }
    }
}

/// The holder that a record names.
#[derive(PartialEq, Eq, Debug)]
struct Holder {
    node: Arc<str>,
    container_id: ContainerId,
    ifname: Arc<str>,
}

/// The records that nobody but the nodes that they name can judge: the keys of those that are in no
/// block of their node, by node.
pub(super) type Strays = BTreeMap<String, Vec<String>>;

/// The comparison. First every block, then every record, then every node, then every session.
pub(super) struct Comparison {
    node: String,
    /// The addresses that this node held before the first record was read, less those that have
    /// their record.
    pub(super) unrecorded: BTreeMap<(Arc<str>, IpAddr), Arc<Holding>>,
    held: Vec<Arc<Holding>>,
    /// Records of attachments with several addresses: the holder of each of these.
    several: BTreeMap<(Box<str>, IpAddr), Arc<Holder>>,
    several_left_off: bool,
    /// Records of other nodes, by node: judged when the nodes are known.
    pub(super) of_others: BTreeMap<Arc<str>, (usize, Vec<Finding>)>,
    strays: Strays,
    stray_count: usize,
    blocks: Blocks,
    nodes: BTreeMap<String, NodeState>,
    findings: Vec<Finding>,
    records: usize,
}

impl Comparison {
    /// `held`: everything that this node holds now.
    pub(super) fn new(node: &str, held: Vec<Arc<Holding>>) -> Self {
        let mut new = Self {
            node: node.to_owned(),
            unrecorded: BTreeMap::new(),
            held: Vec::new(),
            several: BTreeMap::new(),
            several_left_off: false,
            of_others: BTreeMap::new(),
            strays: Strays::new(),
            stray_count: 0,
            blocks: Blocks::default(),
            nodes: BTreeMap::new(),
            findings: Vec::new(),
            records: 0,
        };
        for holding in &held {
            for &address in holding.addresses.iter() {
                let at = (holding.scope.pool.clone(), address);
                if let Some(other) = new.unrecorded.insert(at, holding.clone()) {
                    let found = Finding::of_holding(Kind::Duplicate, node, holding);
                    new.findings.push(found.says(
                        format!("{address} is held by container {} too", other.container_id),
                        "stop both containers, and report a fault of Leasehold with the journal",
                    ));
                }
            }
        }
        Self { held, ..new }
    }

    /// A key of a record. `find`: what an attachment of this node holds now.
    pub(super) fn record(
        &mut self,
        key: &KeyValue,
        find: impl Fn(&AttachmentId) -> Option<Arc<Holding>>,
    ) {
        self.records += 1;
        let Some(record) = Record::of(key) else {
            return self.unreadable(key);
        };
        self.compare_several(&record, key);
        let at = (Arc::from(record.pool), record.address);
        let ours = self.unrecorded.get(&at);
        if *record.value.node != *self.node {
            let Some(ours) = ours else { return self.of_other(&record, key) };
            let found = Finding::of_holding(Kind::Duplicate, &self.node, ours);
            let why = format!(
                "{} is recorded for container {} of node {} too",
                record.address, record.value.container_id, record.value.node
            );
            let remedy = "ask both nodes with `leasehold allocations --address`; DEL one of the \
                          containers, and see `leasehold blocks` for a lost block";
            self.findings.push(found.says(why, remedy));
            self.unrecorded.remove(&at);
            return;
        }
        match ours {
            Some(ours) if record.is_of(ours) => drop(self.unrecorded.remove(&at)),
            // The record is another one's. The finding is about what this node holds, and is made
            // at the end.
            Some(_) => {}
            None if find(&record.attachment()).is_some_and(|now| record.is_of(&now)) => {}
            None => {
                let found = record.finding(Kind::RecordWithoutAllocation, key);
                let why = "this node holds no such allocation";
                self.findings.push(found.says(why, "`leasehold gc` deletes the record"));
            }
        }
    }

    fn unreadable(&mut self, key: &KeyValue) {
        let found = Finding {
            key: Some(key.key.clone()),
            revision: Some(key.mod_revision.get()),
            ..Finding::new(Kind::Unreadable, "", "")
        };
        let why = match &key.value {
            Value::Unreadable(why) => format!("the value of {} cannot be read: {why}", key.key),
            _ => format!("the value of {} does not go with its key", key.key),
        };
        let remedy = "look at it with etcdctl: who wrote it? Delete it if nobody needs it";
        self.findings.push(found.says(why, remedy));
    }

    /// Attachments with several addresses name all of them in each record.
    fn compare_several(&mut self, record: &Record<'_>, key: &KeyValue) {
        if record.value.addresses.len() < 2 {
            return;
        }
        let value = record.value;
        let holder = Arc::new(Holder {
            node: value.node.clone(),
            container_id: value.container_id.clone(),
            ifname: value.ifname.clone(),
        });
        for &address in &value.addresses {
            let at = (record.pool.into(), address);
            match self.several.get(&at) {
                Some(other) if **other == *holder => {}
                Some(other) => {
                    let why = format!(
                        "{address} is in the records of container {} of node {} and of container \
                         {} of node {}",
                        other.container_id, other.node, holder.container_id, holder.node
                    );
                    let found = record.finding(Kind::Duplicate, key);
                    let remedy = "ask both nodes with `leasehold allocations --address`, and \
                                  check there";
                    self.findings.push(found.says(why, remedy));
                }
                None if self.several.len() >= limits::RECORDS_COMPARED_MAX => {
                    self.several_left_off = true;
                }
                None => drop(self.several.insert(at, holder.clone())),
            }
        }
    }

    /// A record of a node that may no longer be there. A node that lives judges its records itself.
    fn of_other(&mut self, record: &Record<'_>, key: &KeyValue) {
        let owner = &record.value.node;
        let space = PoolFamily { network: record.pool.into(), family: Family::of(record.address) };
        let block = self.blocks.around(&space, Address::of(record.address));
        if block.is_none_or(|block| block.owner != *owner) {
            self.stray_count += 1;
            if self.stray_count <= limits::STRAYS_MAX {
                self.strays.entry(owner.to_string()).or_default().push(key.key.clone());
            }
        }
        let (count, kept) = self.of_others.entry(owner.clone()).or_default();
        *count += 1;
        if *count <= limits::FINDINGS_MAX {
            kept.push(record.finding(Kind::RecordWithoutAllocation, key));
        }
    }

    /// Returns the records that only other nodes can judge.
    pub(super) fn strays(&self) -> Strays {
        self.strays.clone()
    }

    /// A key of a block.
    pub(super) fn block(&mut self, key: &KeyValue) {
        let Value::Block(block) = &key.value else { return self.unreadable(key) };
        let (cidr, family) = (block.cidr, block.family);
        let named = parse_block_key(&key.key);
        let Some((network, ..)) =
            named.filter(|&(network, ..)| block_key(network, family, cidr.first()) == key.key)
        else {
            return self.unreadable(key);
        };
        let space = PoolFamily { network: network.into(), family };
        let (owner, status, since) = (block.owner.clone(), block.status, Some(block.since));
        self.blocks.insert(space, Block { cidr, owner, status, since });
    }

    /// A block that is known already.
    pub(super) fn known_block(&mut self, block: PlacedBlock) {
        let PlacedBlock { pool, cidr, owner, status } = block;
        self.blocks.insert(pool, Block { cidr, owner, status, since: None });
    }

    /// A key of a node.
    pub(super) fn node(&mut self, key: &KeyValue) {
        let Some(name) = key.key.strip_prefix(NODES) else { return };
        let Value::Node(value) = &key.value else { return self.unreadable(key) };
        let known = value.removed.is_none();
        let node = NodeState { known, live: false, since: Some(value.since) };
        self.nodes.insert(name.to_owned(), node);
    }

    /// A key of a session.
    pub(super) fn session(&mut self, key: &str) {
        if let Some(name) = key.strip_prefix(SESSIONS) {
            self.live(name);
        }
    }

    /// A node with a session.
    pub(super) fn live(&mut self, name: &str) {
        self.nodes.entry(name.to_owned()).or_default().live = true;
    }

    /// Forgets what has ended since. `find`: what an attachment of this node holds now.
    pub(super) fn still_held(&mut self, find: impl Fn(&AttachmentId) -> Option<Arc<Holding>>) {
        let same = |holding: &Arc<Holding>| {
            find(&holding.id()).is_some_and(|now| now.sequence == holding.sequence)
        };
        self.unrecorded.retain(|_, holding| same(holding));
        self.held.retain(same);
    }

    /// Returns what was looked at before, with the numbers of records, blocks and nodes of this
    /// comparison.
    pub(super) fn looked_at(&self, before: LookedAt) -> LookedAt {
        let (records, blocks) = (self.records, self.blocks.len());
        LookedAt { records, blocks, nodes: self.nodes.len(), ..before }
    }

    /// Says what could not be compared, and why.
    pub(super) fn unchecked(&self) -> Option<String> {
        self.several_left_off.then(|| {
            format!(
                "more than {} addresses are recorded for attachments with several: the others \
                 were not compared with each other",
                limits::RECORDS_COMPARED_MAX
            )
        })
    }

    /// Everything that was found.
    pub(super) fn findings(mut self) -> Vec<Finding> {
        let mut found = std::mem::take(&mut self.findings);
        for ((_, address), holding) in &self.unrecorded {
            let of = Finding::of_holding(Kind::AllocationWithoutRecord, &self.node, holding);
            let remedy = "`leasehold gc` writes the record again; the allocation stays";
            let why = format!("{address} has no record of this allocation");
            found.push(of.names(vec![address.to_string()]).says(why, remedy));
        }
        for (node, (count, records)) in &mut self.of_others {
            let known = self.nodes.get(&**node).is_some_and(|node| node.known || node.live);
            if !known {
                let why = match count {
                    1 => format!("the cluster has no node {node}"),
                    _ => format!("the cluster has no node {node}, and {count} such records"),
                };
                let remedy = "`leasehold gc` deletes the record";
                let records = std::mem::take(records).into_iter();
                found.extend(records.map(|record| record.says(why.clone(), remedy)));
            }
        }
        found.extend(self.blocks.overlaps());
        found.extend(self.in_blocks_of_others());
        found.extend(self.blocks.of_dead(&self.nodes));
        found
    }

    /// Finds the addresses that this node holds in blocks that the store has as another node's.
    fn in_blocks_of_others(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for holding in &self.held {
            for &address in holding.addresses.iter() {
                let (family, number) = (Family::of(address), Address::of(address));
                let space = PoolFamily { network: holding.scope.pool.clone(), family };
                let around = self.blocks.around(&space, number);
                let Some(block) = around.filter(|block| *block.owner != *self.node) else {
                    continue;
                };
                let (net, owner) = (block.cidr.net(family), &block.owner);
                let why = format!("{address} is in block {net}, which is node {owner}'s");
                let remedy = format!(
                    "see `leasehold blocks` for lost blocks, and whether node {owner} gave \
                     {address} to somebody; DEL the container before anything else"
                );
                let of = Finding::of_holding(Kind::Duplicate, &self.node, holding);
                found.push(of.names(vec![address.to_string()]).says(why, remedy));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Cidr;
    use crate::core::ids::{Link, Revision};
    use crate::core::time::UnixTime;
    use crate::core::value::{BlockStatus, BlockValue};

    fn block(prefix: &str, owner: &str, status: BlockStatus) -> KeyValue {
        let net: ipnet::IpNet = prefix.parse().unwrap();
        let (cidr, family) = (Cidr::of(net), Family::of(net.addr()));
        let (epoch, claim, since) = (None, Link::FIRST, UnixTime::from_millis(5));
        let owner = owner.into();
        let value = BlockValue { cidr, family, owner, epoch, claim, status, since };
        let key = block_key("net", family, cidr.first());
        KeyValue { key, value: Value::Block(value), mod_revision: Revision::FIRST, lease: None }
    }

    fn found(held: &str, blocks: &[KeyValue]) -> Vec<(Kind, Vec<String>)> {
        let holding = Arc::new(Holding::plain("c", vec![held.parse().unwrap()]));
        let mut comparison = Comparison::new("a", vec![holding]);
        blocks.iter().for_each(|key| comparison.block(key));
        ["sessions/a", "sessions/b"].iter().for_each(|key| comparison.session(key));
        comparison.unrecorded.clear();
        comparison.findings().into_iter().map(|found| (found.kind, found.addresses)).collect()
    }

    #[test]
    fn blocks_overlap_only_with_common_addresses() {
        let (a, active) = ("a", BlockStatus::Active);
        let good = [block("10.0.0.0/28", a, active), block("10.0.0.16/28", "b", active)];
        assert_eq!(found("10.0.0.2", &good), []);
        // The first block overlaps the last one too, although another one lies between them.
        let bad = [
            block("10.0.0.0/27", a, active),
            block("10.0.0.4/30", a, active),
            block("10.0.0.16/28", a, active),
        ];
        let nets = |one: &str, two: &str| (Kind::Duplicate, vec![one.to_owned(), two.to_owned()]);
        assert_eq!(
            found("10.0.0.2", &bad),
            [nets("10.0.0.0/27", "10.0.0.4/30"), nets("10.0.0.0/27", "10.0.0.16/28")]
        );
    }

    #[test]
    fn what_is_held_in_a_block_of_another_node_is_told() {
        let all = [BlockStatus::Active, BlockStatus::Spare, BlockStatus::Quarantined];
        for status in all {
            let theirs = [block("10.0.0.0/28", "b", status)];
            let told = [(Kind::Duplicate, vec!["10.0.0.15".to_owned()])];
            assert_eq!(found("10.0.0.15", &theirs), told);
            assert_eq!(found("10.0.0.16", &theirs), []);
        }
    }

    #[test]
    fn only_active_blocks_of_nodes_without_a_session_are_stranded() {
        let dead = |status| found("10.1.0.1", &[block("10.0.0.0/28", "c", status)]);
        assert_eq!(dead(BlockStatus::Spare), []);
        assert_eq!(dead(BlockStatus::Quarantined), []);
        let told = vec!["10.0.0.0/28".to_owned()];
        assert_eq!(dead(BlockStatus::Active), [(Kind::BlocksOfDeadNode, told)]);
    }
}
