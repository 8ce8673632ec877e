//! The holders of the blocks in the cluster, as this node knows them: counted as the cluster's
//! store reports changes, so that neither a scrape nor a command lists all blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::core::address::{Address, Cidr};
use crate::core::ids::LeaseId;
use crate::core::keys::{BLOCKS, DRAINS, PoolFamily, SESSIONS, parse_block_key};
use crate::core::offer::Offer;
use crate::core::range::Ranges;
use crate::core::set_record::SetId;
use crate::core::txn::{KeyValue, Watched};
use crate::core::value::{BlockStatus, Value};
use crate::metrics::PoolInCluster;
use crate::store::ClusterStore;

/// The index.
#[derive(Default, Debug)]
pub struct Pools(Mutex<Known>);

#[derive(Default, Debug)]
struct Known {
    pools: BTreeMap<PoolFamily, Pool>,
    sessions: BTreeSet<String>,
    draining: BTreeSet<String>,
    /// The blocks, and the sessions, were listed at least once.
    listed: [bool; 2],
}

/// The blocks of a pool.
#[derive(Default, Debug)]
struct Pool {
    blocks: BTreeMap<Address, HeldBlock>,
    /// Spare and active blocks, by their owner.
    owners: BTreeMap<Arc<str>, usize>,
    /// Those of removed nodes, which nobody has until their quarantine ends.
    quarantined: BTreeMap<Address, HeldBlock>,
    /// The content of these blocks, counted for each range set of this node.
    counts: BTreeMap<SetId, Count>,
}

/// The addresses of an offer that are in blocks.
#[derive(Clone, Default, Debug)]
struct Count {
    offer: Offer,
    /// In spare and active blocks, by their owner.
    by_owner: BTreeMap<Arc<str>, u128>,
    /// In quarantined blocks.
    quarantined: u128,
    /// In parked blocks, which every node can have that has nothing else left.
    parked: u128,
}

#[derive(Clone, Debug)]
struct HeldBlock {
    cidr: Cidr,
    owner: Arc<str>,
    status: BlockStatus,
    /// The lease with which it ends, if it hangs on one.
    lease: Option<LeaseId>,
}

/// Addresses of a pool that nobody has until a quarantine ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantined {
    /// Their number.
    pub addresses: u128,
    /// The node that was removed; of several, the first by name.
    pub node: Arc<str>,
    /// The lease with which its quarantine ends.
    pub lease: Option<LeaseId>,
}

/// The nodes of the cluster, by name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Nodes {
    /// Those with a session.
    pub live: usize,
    /// Those that an operator drains.
    pub draining: usize,
    /// Those that hold blocks and have no session, each with the number of its blocks.
    pub gone: BTreeMap<Arc<str>, usize>,
}

impl Pools {
    /// Takes in what the store reports of blocks, sessions and drains, for ever.
    pub async fn follow(self: Arc<Self>, store: Arc<dyn ClusterStore>) {
        let watch = |prefix: &str| store.watch(prefix.to_owned());
        let (blocks, sessions, drains) = (watch(BLOCKS), watch(SESSIONS), watch(DRAINS));
        let each = |mut from: mpsc::Receiver<Watched>, learn: fn(&mut Known, Watched)| {
            let pools = self.clone();
            async move {
                while let Some(report) = from.recv().await {
                    learn(&mut pools.lock(), report);
                }
            }
        };
        tokio::join!(
            each(blocks, Known::learn_block),
            each(sessions, |known, report| {
                known.listed[1] |= matches!(report, Watched::Listed(_));
                learn_name(&mut known.sessions, SESSIONS, report);
            }),
            each(drains, |known, report| learn_name(&mut known.draining, DRAINS, report)),
        );
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the cluster's blocks say of the addresses that a range set offers; nothing
    /// before the store was reached.
    pub fn figures(&self, set: SetId, pool: &PoolFamily, offer: &Offer) -> Option<PoolInCluster> {
        let mut known = self.lock();
        let Known { pools, sessions, listed, .. } = &mut *known;
        if *listed != [true, true] {
            return None;
        }
        let count = pools.entry(pool.clone()).or_default().count(set, offer);
        let held: u128 = count.by_owner.values().sum();
        let gone = count.by_owner.iter().filter(|(owner, _)| !sessions.contains(&***owner));
        Some(PoolInCluster {
            unclaimed: offer.size().saturating_sub(held).saturating_sub(count.quarantined),
            gone: gone.map(|(_, addresses)| addresses).sum(),
            quarantined: count.quarantined,
        })
    }

    /// Forgets the counts of range sets that are no longer among these, and pools without blocks.
    pub fn keep(&self, sets: &BTreeSet<SetId>) {
        self.lock().pools.retain(|_, pool| {
            pool.counts.retain(|set, _| sets.contains(set));
            !pool.counts.is_empty() || !pool.blocks.is_empty()
        });
    }

    /// Counts the addresses of these ranges that are in quarantine, if any are.
    pub fn quarantined(&self, network: &Arc<str>, ranges: &Ranges) -> Option<Quarantined> {
        let known = self.lock();
        let pool = PoolFamily { network: network.clone(), family: ranges.family() };
        let mut all: Option<Quarantined> = None;
        for block in known.pools.get(&pool)?.quarantined.values() {
            let cidr = block.cidr.range();
            let addresses: u128 = ranges.iter().map(|range| range.count_in(cidr)).sum();
            if addresses == 0 {
                continue;
            }
            let (node, lease) = (block.owner.clone(), block.lease);
            let all = all.get_or_insert(Quarantined { addresses: 0, node: node.clone(), lease });
            all.addresses += addresses;
            if node < all.node {
                (all.node, all.lease) = (node, lease);
            }
        }
        all
    }

    /// The nodes of the cluster; nothing before the store was reached.
    pub fn nodes(&self) -> Option<Nodes> {
        let known = self.lock();
        if known.listed != [true, true] {
            return None;
        }
        let owners = known.pools.values().flat_map(|pool| &pool.owners);
        let mut gone: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (owner, blocks) in owners.filter(|(owner, _)| !known.sessions.contains(&***owner)) {
            *gone.entry(owner.clone()).or_default() += blocks;
        }
        Some(Nodes { live: known.sessions.len(), draining: known.draining.len(), gone })
    }
}

fn learn_name(names: &mut BTreeSet<String>, prefix: &str, report: Watched) {
    let name = |key: &str| key.strip_prefix(prefix).unwrap_or_default().to_owned();
    match report {
        Watched::Listed(keys) => *names = keys.iter().map(|key| name(&key.key)).collect(),
        Watched::Put(key) => drop(names.insert(name(&key.key))),
        Watched::Deleted(key) => drop(names.remove(&name(&key))),
    }
}

impl Known {
    fn learn_block(&mut self, report: Watched) {
        match report {
            Watched::Listed(keys) => {
                self.listed[0] = true;
                self.pools.values_mut().for_each(Pool::clear);
                keys.iter().for_each(|key| self.put(key));
            }
            Watched::Put(key) => self.put(&key),
            Watched::Deleted(key) => {
                if let Some((pool, start)) = place(&key)
                    && let Some(pool) = self.pools.get_mut(&pool)
                {
                    pool.remove(start);
                }
            }
        }
    }

    fn put(&mut self, key: &KeyValue) {
        let (Some((pool, start)), Value::Block(block)) = (place(&key.key), &key.value) else {
            return;
        };
        let pool = self.pools.entry(pool).or_default();
        let (cidr, owner, status) = (block.cidr, block.owner.clone(), block.status);
        pool.remove(start);
        pool.insert(start, HeldBlock { cidr, owner, status, lease: key.lease });
    }
}

fn place(key: &str) -> Option<(PoolFamily, Address)> {
    let (network, family, start) = parse_block_key(key)?;
    Some((PoolFamily { network: network.into(), family }, start))
}

impl Pool {
    fn clear(&mut self) {
        let offers = std::mem::take(&mut self.counts).into_iter();
        let begin = |(set, Count { offer, .. })| (set, Count { offer, ..Count::default() });
        *self = Self { counts: offers.map(begin).collect(), ..Self::default() };
    }

    fn insert(&mut self, start: Address, block: HeldBlock) {
        self.counts.values_mut().for_each(|count| count.add(&block));
        if block.status.is_owned() {
            *self.owners.entry(block.owner.clone()).or_default() += 1;
        }
        if block.status == BlockStatus::Quarantined {
            self.quarantined.insert(start, block.clone());
        }
        self.blocks.insert(start, block);
    }

    fn remove(&mut self, start: Address) {
        let Some(block) = self.blocks.remove(&start) else { return };
        self.quarantined.remove(&start);
        self.counts.values_mut().for_each(|count| count.subtract(&block));
        if !block.status.is_owned() {
            return;
        }
        if let Some(blocks) = self.owners.get_mut(&block.owner) {
            *blocks -= 1;
            if *blocks == 0 {
                self.owners.remove(&block.owner);
                self.counts.values_mut().for_each(|count| count.forget(&block.owner));
            }
        }
    }

    /// The count for a range set. It counts anew for another offer: configurations change seldom.
    fn count(&mut self, set: SetId, offer: &Offer) -> &Count {
        let Self { blocks, counts, .. } = self;
        let count = counts.entry(set).or_default();
        if count.offer != *offer {
            *count = Count { offer: offer.clone(), ..Count::default() };
            blocks.values().for_each(|block| count.add(block));
        }
        count
    }
}

impl Count {
    fn of(&mut self, block: &HeldBlock) -> &mut u128 {
        match block.status {
            BlockStatus::Quarantined => &mut self.quarantined,
            BlockStatus::Parked => &mut self.parked,
            BlockStatus::Spare | BlockStatus::Active => {
                self.by_owner.entry(block.owner.clone()).or_default()
            }
        }
    }

    fn add(&mut self, block: &HeldBlock) {
        *self.of(block) += self.offer.count_in(block.cidr);
    }

    fn subtract(&mut self, block: &HeldBlock) {
        *self.of(block) -= self.offer.count_in(block.cidr);
    }

    fn forget(&mut self, owner: &str) {
        self.by_owner.remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::{AddressRange, Family};
    use crate::core::ids::{Epoch, Link, Revision};
    use crate::core::keys::block_key;
    use crate::core::range::{Range, RangeSpec};
    use crate::core::time::UnixTime;
    use crate::core::value::{BlockValue, SessionValue};

    fn block(net: &str, owner: &str, status: BlockStatus) -> KeyValue {
        let (net, family): (ipnet::IpNet, _) = (net.parse().unwrap(), Family::V4);
        let cidr = Cidr::of(net);
        let (owner, epoch, claim, since) = (owner.into(), None, Link::FIRST, UnixTime::EPOCH);
        let value = BlockValue { cidr, family, owner, epoch, claim, status, since };
        let key = block_key("net", family, cidr.first());
        KeyValue { key, value: Value::Block(value), mod_revision: Revision::FIRST, lease: None }
    }

    fn session(node: &str) -> KeyValue {
        let value = SessionValue { epoch: Epoch::FIRST, lease: LeaseId::new(7).unwrap() };
        let (key, value) = (format!("{SESSIONS}{node}"), Value::Session(value));
        KeyValue { key, value, mod_revision: Revision::FIRST, lease: None }
    }

    fn range(subnet: &str) -> Range {
        let (start, end, gateway) = (None, None, None);
        let (subnet, sandbox, smallflow) = (subnet.parse().unwrap(), vec![], vec![]);
        Range::new(RangeSpec { subnet, start, end, gateway, sandbox, smallflow }).unwrap()
    }

    #[test]
    fn figures_follow_every_report() {
        let pools = Pools::default();
        let at = |text: &str| Address::of(text.parse().unwrap());
        let run = |first, last| AddressRange::between(at(first), at(last));
        let offer = Offer::of_runs(&[run("10.0.0.2", "10.0.0.254")]);
        let pool = PoolFamily { network: "net".into(), family: Family::V4 };
        let figures = || {
            let now = pools.figures(SetId::FIRST, &pool, &offer);
            now.map(|now| (now.unclaimed, now.gone, now.quarantined))
        };
        let nodes = || {
            let now = pools.nodes().unwrap();
            (now.live, now.gone.keys().map(ToString::to_string).collect::<Vec<_>>())
        };
        let learn = |report| pools.lock().learn_block(report);
        let sessions = |report| {
            let mut known = pools.lock();
            known.listed[1] = true;
            learn_name(&mut known.sessions, SESSIONS, report);
        };
        assert_eq!(figures(), None);
        learn(Watched::Listed(vec![block("10.0.0.0/28", "a", BlockStatus::Active)]));
        assert_eq!(figures(), None, "sessions are not known yet");
        sessions(Watched::Listed(vec![session("a")]));
        assert_eq!(figures(), Some((253 - 14, 0, 0)));
        learn(Watched::Put(block("10.0.0.240/28", "b", BlockStatus::Spare)));
        assert_eq!((figures(), nodes()), (Some((253 - 29, 15, 0)), (1, vec!["b".to_owned()])));
        sessions(Watched::Put(session("b")));
        assert_eq!((figures(), nodes()), (Some((253 - 29, 0, 0)), (2, vec![])));
        // The state of a block changes, a block is divided, a node is removed.
        learn(Watched::Put(block("10.0.0.240/28", "b", BlockStatus::Active)));
        learn(Watched::Put(block("10.0.0.0/29", "a", BlockStatus::Active)));
        assert_eq!(figures(), Some((253 - 21, 0, 0)));
        sessions(Watched::Deleted(format!("{SESSIONS}b")));
        assert_eq!(figures(), Some((253 - 21, 15, 0)));
        learn(Watched::Put(block("10.0.0.240/28", "b", BlockStatus::Quarantined)));
        assert_eq!((figures(), nodes()), (Some((253 - 21, 0, 15)), (1, vec![])));
        let ranges = Ranges::new(vec![range("10.0.0.0/24")], None).unwrap();
        let quarantined = || pools.quarantined(&"net".into(), &ranges);
        let expected = Quarantined { addresses: 15, node: "b".into(), lease: None };
        assert_eq!(quarantined(), Some(expected));
        let gone = block("10.0.0.240/28", "b", BlockStatus::Quarantined).key;
        learn(Watched::Deleted(gone));
        assert_eq!(quarantined(), None);
        assert_eq!(figures(), Some((253 - 6, 0, 0)));
        // Another offer, then a new list.
        let narrow = Offer::of_runs(&[run("10.0.0.6", "10.0.0.9")]);
        assert_eq!(pools.figures(SetId::FIRST, &pool, &narrow).unwrap().unclaimed, 2);
        assert_eq!(figures(), Some((253 - 6, 0, 0)));
        learn(Watched::Listed(vec![]));
        assert_eq!(figures(), Some((253, 0, 0)));
    }
}
