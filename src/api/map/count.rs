//! The number of addresses that are held in each block.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::actors::Description;
use crate::api::cluster::Store;
use crate::api::pools::PlacedBlock;
use crate::api::sets::{KnownSet, Sets};
use crate::api::{AppState, EMBEDDED};
use crate::core::address::{Address, Cidr, Family};
use crate::core::keys::{ALLOCATIONS, PoolFamily, allocation_place};
use crate::core::time::UnixTime;
use crate::core::txn::StoreError;
use crate::{clock, limits};

/// The last count, for the time in which the next one is not due or cannot be made.
#[derive(Default, Debug)]
pub struct Counts(Mutex<Last>);

#[derive(Clone, Default, Debug)]
struct Last {
    counted: Arc<Counted>,
    /// The time that reading and counting took.
    took: Duration,
}

/// A count.
#[derive(Clone, Default, Debug)]
pub(super) struct Counted {
    /// The time at which it was made; none: there is none yet.
    pub(super) at: Option<UnixTime>,
    /// The reason why there is no newer one.
    pub(super) cause: Option<String>,
    /// The addresses that are held in each range set, in their order; none: not known.
    pub(super) used: Vec<Option<u64>>,
    /// The addresses that are held in a block, by its start.
    held: Held,
    /// This node's own blocks.
    own: Own,
}

impl Counts {
    /// The time for which the next count should wait after the last one began.
    pub(super) fn rest(&self) -> Duration {
        self.last().took.saturating_mul(limits::MAP_REST)
    }

    /// The addresses that are held in each network and family, on all nodes, if they were counted
    /// since then.
    pub(in crate::api) fn used_since(&self, since: UnixTime) -> Option<BTreeMap<PoolFamily, u64>> {
        let counted = self.last().counted;
        counted.at.filter(|at| *at >= since)?;
        let sum = |(pool, blocks): (&PoolFamily, &BTreeMap<Address, u64>)| {
            (pool.clone(), blocks.values().sum())
        };
        Some(counted.held.iter().map(sum).collect())
    }

    fn last(&self) -> Last {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, last: Last) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

impl Counted {
    /// The addresses that are held in a block, and those that cool, as far as they are known.
    pub(super) fn of(&self, block: &PlacedBlock) -> (Option<u64>, Option<u64>) {
        let start = block.cidr.first();
        let held = self.held.get(&block.pool).and_then(|held| held.get(&start)).copied();
        let own = self.own.get(&(block.pool.clone(), start)).copied();
        match (self.at, own) {
            (None, own) => (own.map(|(held, _)| held), own.map(|(_, cooling)| cooling)),
            (Some(_), own) => (Some(held.unwrap_or(0)), own.map(|(_, cooling)| cooling)),
        }
    }
}

/// The numbers of addresses that are held and that cool in each block of this node, by pool and
/// start.
pub(super) type Own = BTreeMap<(PoolFamily, Address), (u64, u64)>;

/// The range sets of the cluster, and what is held in them and in these blocks. If the store does
/// not answer, the last count is shown, with the reason.
pub(super) async fn count(
    node: &AppState,
    local: &[Description],
    own: Own,
    blocks: &[PlacedBlock],
) -> (Sets, Counted) {
    let used = blocks.iter().map(|block| block.pool.network.clone()).collect();
    let sets = Sets::new(local, node.networks.sets(&used), blocks);
    if node.about.store == EMBEDDED {
        let counted = of_own(&sets, local, own);
        node.counts.keep(Last { counted: counted.clone().into(), ..Last::default() });
        return (sets, counted);
    }
    let began = clock::start();
    let store = Store::new(&node.store);
    let read = async {
        let mut counts = RecordCounts::new(&sets, blocks);
        store.each_key(ALLOCATIONS, |key| counts.add(key)).await?;
        Ok::<_, StoreError>(counts.ended())
    };
    let cause = match tokio::time::timeout(limits::MAP_COUNT_MAX, read).await {
        Ok(Ok((held, used))) => {
            let took = clock::start().since(began);
            let (at, used) = (Some(clock::unix()), used.into_iter().map(Some).collect());
            let counted = Counted { at, cause: None, used, held, own };
            let kept = Arc::new(counted.clone());
            node.counts.keep(Last { counted: kept, took });
            return (sets, counted);
        }
        Ok(Err(error)) => format!("the cluster's store: {error}"),
        Err(_) => "the cluster's store did not answer in time".to_owned(),
    };
    let last = node.counts.last();
    let (at, held) = (last.counted.at, last.counted.held.clone());
    let used = at.map_or_else(|| vec![None; sets.all().len()], |_| sums(&sets, &held, blocks));
    (sets, Counted { at, cause: Some(cause), used, held, own })
}

type Held = BTreeMap<PoolFamily, BTreeMap<Address, u64>>;

/// The addresses that were held in the blocks of each range set.
fn sums(sets: &Sets, held: &Held, blocks: &[PlacedBlock]) -> Vec<Option<u64>> {
    let mut sums = vec![Some(0); sets.all().len()];
    for block in blocks {
        let of_block = held.get(&block.pool).and_then(|held| held.get(&block.cidr.first()));
        if let (Some(at), Some(count)) = (sets.of_block(block), of_block) {
            sums[at] = sums[at].map(|sum: u64| sum + count);
        }
    }
    sums
}

/// The count of a node that is alone.
fn of_own(sets: &Sets, local: &[Description], own: Own) -> Counted {
    let mut held = Held::new();
    for ((pool, start), (count, _)) in &own {
        held.entry(pool.clone()).or_default().insert(*start, *count);
    }
    let used = |set: &KnownSet| {
        let same = |of: &&Description| {
            *of.identity.network == *set.pool.network
                && of.identity.family == set.pool.family
                && of.offer == set.offer
        };
        Some(local.iter().find(same).map_or(0, |of| of.capacity.allocated))
    };
    let used = sets.all().iter().map(used).collect();
    Counted { at: Some(clock::unix()), cause: None, used, held, own }
}

/// The records, by block and by range set.
struct RecordCounts<'a> {
    sets: &'a Sets,
    /// The place of each network and family in `blocks`.
    pools: BTreeMap<(&'a str, Family), usize>,
    /// The blocks of each, by address, with what is held in them.
    blocks: Vec<Vec<(Cidr, u64)>>,
    used: Vec<u64>,
}

impl<'a> RecordCounts<'a> {
    fn new(sets: &'a Sets, all: &'a [PlacedBlock]) -> Self {
        let (mut pools, mut blocks) = (BTreeMap::new(), Vec::new());
        for block in all {
            let pool = (&*block.pool.network, block.pool.family);
            let at = *pools.entry(pool).or_insert(blocks.len());
            if at == blocks.len() {
                blocks.push(Vec::new());
            }
            blocks[at].push((block.cidr, 0));
        }
        blocks.iter_mut().for_each(|blocks| blocks.sort_unstable());
        Self { sets, pools, blocks, used: vec![0; sets.all().len()] }
    }

    /// Counts the record with this key.
    fn add(&mut self, key: &str) {
        let Some((network, address)) = allocation_place(key) else { return };
        let (family, at) = (Family::of(address), Address::of(address));
        if let Some(set) = self.sets.of_address(network, family, at) {
            self.used[set] += 1;
        }
        let Some(&pool) = self.pools.get(&(network, family)) else { return };
        let blocks = &mut self.blocks[pool];
        let behind = blocks.partition_point(|(cidr, _)| cidr.first() <= at);
        if let Some((_, held)) = blocks[..behind].last_mut().filter(|(cidr, _)| cidr.contains(at)) {
            *held += 1;
        }
    }

    /// Ends the count: held addresses by block, and by range set.
    fn ended(self) -> (Held, Vec<u64>) {
        let mut all = Held::new();
        for ((network, family), pool) in self.pools {
            let held = self.blocks[pool].iter().filter(|(_, held)| *held > 0);
            let held: BTreeMap<_, _> = held.map(|(cidr, held)| (cidr.first(), *held)).collect();
            if !held.is_empty() {
                all.insert(PoolFamily { network: network.into(), family }, held);
            }
        }
        (all, self.used)
    }
}
