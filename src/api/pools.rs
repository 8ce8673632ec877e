//! The holders of the blocks in the cluster, as this node knows them: counted as the cluster's
//! store reports changes, so that neither a scrape nor a command lists all blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::news::{self, Was, Words};
use crate::core::address::{Address, Cidr, Family};
use crate::core::ids::LeaseId;
use crate::core::keys::{BLOCKS, DRAINS, PoolFamily, SESSIONS, parse_block_key};
use crate::core::offer::Offer;
use crate::core::range::Ranges;
use crate::core::txn::{KeyValue, Watched};
use crate::core::value::{BlockStatus, Value};
use crate::events::{Happening, Recent};
use crate::limits;
use crate::metrics::PoolInCluster;
use crate::store::ClusterStore;

/// The index.
#[derive(Default, Debug)]
pub struct Pools(Mutex<PoolIndex>);

#[derive(Default, Debug)]
struct PoolIndex {
    pools: BTreeMap<PoolFamily, Pool>,
    sessions: BTreeSet<String>,
    draining: BTreeSet<String>,
    /// The blocks, the sessions and the drains were listed at least once.
    listed: [bool; 3],
    /// Pairs of networks of which blocks overlap, counted since the last change of a block.
    overlaps: Option<usize>,
}

/// The blocks of a pool.
#[derive(Default, Debug)]
struct Pool {
    blocks: BTreeMap<Address, HeldBlock>,
    /// Spare and active blocks, by their owner.
    owners: BTreeMap<Arc<str>, usize>,
    /// Blocks of removed nodes, which no node has until their quarantine ends.
    quarantined: BTreeMap<Address, HeldBlock>,
    /// The content of these blocks, counted for each known range set, by its start.
    counts: BTreeMap<Address, Count>,
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
    /// Nodes with a session.
    pub live: usize,
    /// Nodes that an operator drains.
    pub draining: usize,
    /// Nodes that hold blocks and have no session, each with the number of its blocks.
    pub gone: BTreeMap<Arc<str>, usize>,
}

/// A block with its place.
#[derive(Clone, Debug)]
pub struct PlacedBlock {
    /// The addresses of which it is a part.
    pub pool: PoolFamily,
    /// The addresses that it covers.
    pub cidr: Cidr,
    /// The node that it names.
    pub owner: Arc<str>,
    /// Its state.
    pub status: BlockStatus,
}

/// The blocks of the cluster and its nodes.
#[derive(Clone, Default, Debug)]
pub struct Everything {
    /// The blocks, by pool and address.
    pub blocks: Vec<PlacedBlock>,
    /// The nodes with a session.
    pub sessions: BTreeSet<String>,
    /// The nodes that an operator drains.
    pub draining: BTreeSet<String>,
    /// True if the blocks were listed at least once.
    pub listed: bool,
}

impl Pools {
    /// Takes in what the store reports of blocks, sessions and drains, for ever.
    pub async fn follow(self: Arc<Self>, store: Arc<dyn ClusterStore>, recent: Arc<Recent>) {
        let watch = |prefix: &str| store.watch(prefix.to_owned());
        let (blocks, sessions, drains) = (watch(BLOCKS), watch(SESSIONS), watch(DRAINS));
        let each = |mut from: mpsc::Receiver<Watched>,
                    learn: fn(&mut PoolIndex, Watched) -> News| {
            let (pools, recent) = (self.clone(), recent.clone());
            async move {
                while let Some(report) = from.recv().await {
                    let news = learn(&mut pools.lock(), report);
                    news.into_iter().for_each(|event| recent.add(event));
                }
            }
        };
        tokio::join!(
            each(blocks, PoolIndex::learn_block),
            each(sessions, PoolIndex::learn_session),
            each(drains, |known, report| {
                let first = !std::mem::replace(&mut known.listed[2], true);
                learn_name(&mut known.draining, DRAINS, report, news::DRAIN, first)
            }),
        );
    }

    fn lock(&self) -> MutexGuard<'_, PoolIndex> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the cluster's blocks say of the addresses that a range set offers; nothing
    /// before the store was reached.
    pub fn figures(&self, pool: &PoolFamily, set: Address, offer: &Offer) -> Option<PoolInCluster> {
        let mut known = self.lock();
        let PoolIndex { pools, sessions, listed, .. } = &mut *known;
        if listed[..2] != [true, true] {
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

    /// The addresses of a range set that are in blocks of nodes with a session other than `me`,
    /// without those that are kept for the pods of a stage.
    pub fn elsewhere(&self, me: &str, pool: &PoolFamily, set: Address, offer: &Offer) -> u128 {
        let mut known = self.lock();
        let PoolIndex { pools, sessions, .. } = &mut *known;
        let is_other = |owner: &str| owner != me && sessions.contains(owner);
        let of_pool = pools.entry(pool.clone()).or_default();
        let is_held = |address: &&Address| {
            let block = of_pool.blocks.range(..=**address).next_back();
            block.is_some_and(|(_, block)| {
                block.cidr.contains(**address) && block.status.is_owned() && is_other(&block.owner)
            })
        };
        let listed = offer.listed().iter().filter(is_held).count();
        let owners = of_pool.count(set, offer).by_owner.iter();
        let all: u128 = owners.filter(|(owner, _)| is_other(owner)).map(|(_, count)| count).sum();
        all.saturating_sub(listed as u128)
    }

    /// The nodes with a session.
    pub fn sessions(&self) -> BTreeSet<String> {
        self.lock().sessions.clone()
    }

    /// The networks of which somebody has blocks.
    pub fn networks(&self) -> BTreeSet<Arc<str>> {
        let known = self.lock();
        let used = known.pools.iter().filter(|(_, of)| !of.blocks.is_empty());
        used.map(|(pool, _)| pool.network.clone()).collect()
    }

    /// Everything that is known. Blocks are taken a piece at a time, so that nothing waits for
    /// long; one that changes hands meanwhile may be missing.
    pub async fn everything(&self) -> Everything {
        let mut blocks: Vec<PlacedBlock> = Vec::new();
        loop {
            let piece = self.blocks_behind(blocks.last());
            let full = piece.len() == limits::BLOCKS_PER_LOOK_MAX;
            blocks.extend(piece);
            if !full {
                break;
            }
            tokio::task::yield_now().await;
        }
        let known = self.lock();
        let (sessions, draining) = (known.sessions.clone(), known.draining.clone());
        Everything { blocks, sessions, draining, listed: known.listed[0] }
    }

    /// The blocks behind this one, [`limits::BLOCKS_PER_LOOK_MAX`] of them at most.
    fn blocks_behind(&self, last: Option<&PlacedBlock>) -> Vec<PlacedBlock> {
        let known = self.lock();
        let from = last.map_or(Bound::Unbounded, |last| Bound::Included(&last.pool));
        let pools = known.pools.range::<PoolFamily, _>((from, Bound::Unbounded));
        let of_pool = |(pool, of): (&PoolFamily, &Pool)| {
            let behind = last.filter(|last| last.pool == *pool);
            let from = behind.map_or(Bound::Unbounded, |last| Bound::Excluded(last.cidr.first()));
            let place = |block: &HeldBlock| PlacedBlock {
                pool: pool.clone(),
                cidr: block.cidr,
                owner: block.owner.clone(),
                status: block.status,
            };
            let blocks = of.blocks.range((from, Bound::Unbounded));
            blocks.take(limits::BLOCKS_PER_LOOK_MAX).map(|(_, block)| place(block)).collect()
        };
        let all = pools.flat_map::<Vec<_>, _>(of_pool);
        all.take(limits::BLOCKS_PER_LOOK_MAX).collect()
    }

    /// Forgets the counts of range sets whose starts are no longer among these, and pools without
    /// blocks.
    pub fn keep(&self, sets: &BTreeMap<PoolFamily, BTreeSet<Address>>) {
        self.lock().pools.retain(|pool, of| {
            let kept = sets.get(pool);
            of.counts.retain(|set, _| kept.is_some_and(|kept| kept.contains(set)));
            !of.counts.is_empty() || !of.blocks.is_empty()
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

    /// Returns the number of pairs of networks of which blocks overlap. It is counted anew only
    /// after blocks have changed hands.
    pub fn overlaps(&self) -> usize {
        let mut known = self.lock();
        let PoolIndex { pools, overlaps, .. } = &mut *known;
        *overlaps.get_or_insert_with(|| pairs_that_overlap(pools))
    }

    /// The nodes of the cluster; nothing before the store was reached.
    pub fn nodes(&self) -> Option<Nodes> {
        let known = self.lock();
        if known.listed[..2] != [true, true] {
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

/// Goes through the blocks of each family in order, and knows of each network how far its blocks
/// have reached by then.
fn pairs_that_overlap(pools: &BTreeMap<PoolFamily, Pool>) -> usize {
    let mut pairs = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let of_family = pools.iter().filter(|(of, _)| of.family == family);
        let mut blocks: Vec<(Address, Address, &str)> = of_family
            .flat_map(|(of, pool)| {
                let network = &*of.network;
                pool.blocks
                    .values()
                    .map(move |block| (block.cidr.first(), block.cidr.last(), network))
            })
            .collect();
        blocks.sort_unstable();
        let mut reach: BTreeMap<&str, Address> = BTreeMap::new();
        for (first, last, network) in blocks {
            reach.retain(|_, end| *end >= first);
            for other in reach.keys().filter(|other| **other != network) {
                pairs.insert((network.min(other), network.max(other)));
            }
            let end = reach.entry(network).or_insert(last);
            *end = last.max(*end);
        }
    }
    pairs.len()
}

/// The meaning of a report of the store for people.
type News = Vec<Happening>;

/// `first`: nothing was known before, so what is listed is no news.
fn learn_name(
    names: &mut BTreeSet<String>,
    prefix: &str,
    report: Watched,
    words: Words,
    first: bool,
) -> News {
    let name = |key: &str| key.strip_prefix(prefix).unwrap_or_default().to_owned();
    let mut after = names.clone();
    match report {
        Watched::Listed(keys) => after = keys.iter().map(|key| name(&key.key)).collect(),
        Watched::Put(key) => drop(after.insert(name(&key.key))),
        Watched::Deleted(key) => drop(after.remove(&name(&key))),
    }
    let news = if first { vec![] } else { news::of_names(names, &after, words) };
    *names = after;
    news
}

impl PoolIndex {
    fn learn_session(&mut self, report: Watched) -> News {
        let first = !self.listed[1];
        self.listed[1] |= matches!(report, Watched::Listed(_));
        learn_name(&mut self.sessions, SESSIONS, report, news::SESSION, first)
    }

    fn learn_block(&mut self, report: Watched) -> News {
        self.overlaps = None;
        match report {
            Watched::Listed(keys) => self.list_blocks(&keys),
            Watched::Put(key) => self.put(&key).into_iter().collect(),
            Watched::Deleted(key) => {
                let removed = place(&key).and_then(|(pool, start)| {
                    let block = self.pools.get_mut(&pool)?.remove(start)?;
                    news::of_block(&pool, Some(block.was()), None)
                });
                removed.into_iter().collect()
            }
        }
    }

    /// Takes in a list of all blocks. Changes may have been missed, and are told now.
    fn list_blocks(&mut self, keys: &[KeyValue]) -> News {
        let first = !std::mem::replace(&mut self.listed[0], true);
        let before: BTreeMap<PoolFamily, BTreeMap<Address, HeldBlock>> =
            self.pools.iter_mut().map(|(pool, of)| (pool.clone(), of.clear())).collect();
        keys.iter().for_each(|key| drop(self.put(key)));
        if first {
            return vec![];
        }
        let mut news = Vec::new();
        for (pool, now) in &self.pools {
            let none = BTreeMap::new();
            let was = before.get(pool).unwrap_or(&none);
            let starts: BTreeSet<&Address> = was.keys().chain(now.blocks.keys()).collect();
            let change = |start: &Address| {
                let [before, after] = [was.get(start), now.blocks.get(start)];
                news::of_block(pool, before.map(HeldBlock::was), after.map(HeldBlock::was))
            };
            news.extend(starts.into_iter().filter_map(change));
        }
        news
    }

    /// Takes in a block. Returns what is new about it.
    fn put(&mut self, key: &KeyValue) -> Option<Happening> {
        let (Some((pool, start)), Value::Block(block)) = (place(&key.key), &key.value) else {
            return None;
        };
        let of_pool = self.pools.entry(pool.clone()).or_default();
        let (cidr, owner, status) = (block.cidr, block.owner.clone(), block.status);
        let before = of_pool.remove(start);
        let after = HeldBlock { cidr, owner, status, lease: key.lease };
        let news = news::of_block(&pool, before.as_ref().map(HeldBlock::was), Some(after.was()));
        of_pool.insert(start, after);
        news
    }
}

impl HeldBlock {
    fn was(&self) -> Was<'_> {
        (self.cidr, &self.owner, self.status)
    }
}

fn place(key: &str) -> Option<(PoolFamily, Address)> {
    let (network, family, start) = parse_block_key(key)?;
    Some((PoolFamily { network: network.into(), family }, start))
}

impl Pool {
    /// Forgets the blocks, and returns them.
    fn clear(&mut self) -> BTreeMap<Address, HeldBlock> {
        let blocks = std::mem::take(&mut self.blocks);
        let offers = std::mem::take(&mut self.counts).into_iter();
        let begin = |(set, Count { offer, .. })| (set, Count { offer, ..Count::default() });
        *self = Self { counts: offers.map(begin).collect(), ..Self::default() };
        blocks
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

    fn remove(&mut self, start: Address) -> Option<HeldBlock> {
        let block = self.blocks.remove(&start)?;
        self.quarantined.remove(&start);
        self.counts.values_mut().for_each(|count| count.subtract(&block));
        if block.status.is_owned()
            && let Some(blocks) = self.owners.get_mut(&block.owner)
        {
            *blocks -= 1;
            if *blocks == 0 {
                self.owners.remove(&block.owner);
                self.counts.values_mut().for_each(|count| count.forget(&block.owner));
            }
        }
        Some(block)
    }

    /// The count for a range set. It counts anew for another offer: configurations change seldom.
    fn count(&mut self, set: Address, offer: &Offer) -> &Count {
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
mod tests;
