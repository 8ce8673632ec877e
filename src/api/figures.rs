//! The figures of a node and of its pools: for the metrics, which are brought up to date when they
//! are read, and for commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::cluster::{Refusal, Store};
use super::lists::Whole;
use super::sets::{KnownSet, Sets, of_node};
use super::{AppState, EMBEDDED, read};
use crate::actors::Description;
use crate::core::address::{Address, AddressRange, Family};
use crate::core::keys::{ALLOCATIONS, PoolFamily, allocation_place};
use crate::core::range_set::Capacity;
use crate::core::txn::KeyValue;
use crate::core::value::Value;
use crate::{clock, limits, metrics};

/// Brings those metrics up to date that are not counted as things happen. A part of the node that
/// does not answer in time does not delay the other figures.
async fn refresh(node: &AppState) {
    let machines = async { (node.machines.figures().await, node.machines.describe_sets().await) };
    if let Ok((dealings, sets)) = tokio::time::timeout(limits::HEALTH_WAIT_MAX, machines).await {
        if let Some(figures) = dealings {
            metrics::dealings(node.standing.borrow().stalled.is_none(), &figures);
        }
        let all = all(node, &sets);
        let mut kept: BTreeMap<PoolFamily, BTreeSet<Address>> = BTreeMap::new();
        for Figured { set, .. } in &all {
            kept.entry(set.pool.clone()).or_default().insert(set.start());
        }
        node.pools.keep(&kept);
        metrics::pools(all.iter().map(|of| (of.name(), &of.figures)));
    }
    if let Some(nodes) = node.pools.nodes() {
        metrics::nodes(nodes.live, nodes.draining, nodes.gone.len());
    }
    metrics::cluster_overlaps(node.pools.overlaps());
    let _ = read::ready(node).await;
    let journal = Path::new(&node.about.state_dir).join("journal.redb");
    let size = tokio::time::timeout(limits::HEALTH_WAIT_MAX, tokio::fs::metadata(journal)).await;
    if let Ok(Ok(about)) = size {
        metrics::journal_size(about.len());
    }
    metrics::process();
}

/// Takes a sample for the trends, if it is time for one.
pub async fn sample(node: &AppState) {
    let now = clock::boot();
    if !node.outlooks.is_due(now) {
        return;
    }
    let sets = node.machines.describe_sets();
    let Ok(sets) = tokio::time::timeout(limits::HEALTH_WAIT_MAX, sets).await else { return };
    let held = |set: &Description| (set.identity.id, set.capacity.allocated);
    node.outlooks.add(now, &sets.iter().map(held).collect());
}

/// A range set of the cluster with its figures.
struct Figured<'a> {
    set: KnownSet,
    /// This node's own part; none: it does not use the range set.
    own: Option<&'a Description>,
    figures: metrics::Pool,
}

impl Figured<'_> {
    fn name(&self) -> metrics::PoolName {
        let PoolFamily { network, family } = &self.set.pool;
        metrics::PoolName { network: (&**network).into(), family: *family, start: self.set.start() }
    }

    /// True if no other node has a block, as far as the cluster's store was heard of last.
    fn is_only_here(&self, node: &AppState) -> bool {
        let KnownSet { pool, offer, .. } = &self.set;
        let elsewhere = node.pools.elsewhere(&node.about.node, pool, self.set.start(), offer);
        let others = self.figures.cluster.map(|cluster| cluster.gone + cluster.quarantined);
        others == Some(0) && elsewhere == 0
    }

    /// The addresses that an ADD can get: those in no block, those of this node, and those that no
    /// record names in blocks of other live nodes, of which so many are held. What cools goes out
    /// when nothing else is left, so it is among them; what is kept for a stage is not.
    fn available(&self, node: &AppState, held_elsewhere: Option<u64>) -> Option<u128> {
        let KnownSet { pool, offer, .. } = &self.set;
        let here = self.figures.local.unwrap_or_default();
        let here = u128::from(here.free + here.spare + here.cooling);
        let elsewhere = node.pools.elsewhere(&node.about.node, pool, self.set.start(), offer);
        let elsewhere = match held_elsewhere {
            Some(held) => elsewhere.saturating_sub(held.into()),
            None if elsewhere == 0 => 0,
            None => return None,
        };
        Some(self.figures.cluster?.unclaimed + here + elsewhere)
    }
}

/// Every range set of the cluster: those of this node, and those that only other nodes use, out of
/// what is known of the cluster's store without asking it.
fn all<'a>(node: &AppState, local: &'a [Description]) -> Vec<Figured<'a>> {
    let mut known = node.networks.sets(&node.pools.networks());
    known.truncate(limits::RANGE_SETS_MAX.saturating_sub(local.len()));
    let place = |set: &KnownSet| (set.pool.clone(), set.start());
    let own: BTreeMap<_, &Description> =
        local.iter().map(|set| (place(&of_node(set)), set)).collect();
    let figured = |set: &KnownSet| {
        let own = own.get(&place(set)).copied();
        let figures = of_set(node, set, own);
        Figured { set: set.clone(), own, figures }
    };
    Sets::new(local, known, &[]).all().iter().map(figured).collect()
}

/// The figures of one range set.
pub(super) fn of_set(node: &AppState, set: &KnownSet, own: Option<&Description>) -> metrics::Pool {
    metrics::Pool {
        exact: set.offer.is_whole(),
        size: set.offer.size(),
        kept: set.offer.kept(),
        reserved: set.offer.reserved(),
        block_size: 1 << set.block_size.log2(),
        cluster: node.pools.figures(&set.pool, set.start(), &set.offer),
        local: own.map(|own| own.capacity),
    }
}

/// A range set with its figures.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// The network.
    pub network: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The address with which its first block begins, as in the metrics.
    #[serde(default)]
    pub range_set: String,
    /// False if its gateways are not known, because this node has not used it: then they count
    /// like other addresses, and what is kept for stages is not known.
    #[serde(default)]
    pub exact: bool,
    /// First and last address of each range.
    pub ranges: Vec<String>,
    /// Addresses in a block of the usual size.
    pub block_size: u64,
    /// Addresses that can ever be handed out in the cluster.
    pub size: u128,
    /// Addresses that containers hold, on all nodes; null: what other nodes hold is not known.
    pub used: Option<u64>,
    /// The others; null: as for `used`.
    pub free: Option<u128>,
    /// Addresses that an ADD can get: the free ones without those that are kept for a stage, and
    /// without those of nodes that are gone or were removed; null: as for `used`.
    #[serde(default)]
    pub available: Option<u128>,
    /// Addresses that are kept for pods of a stage.
    pub kept: u64,
    /// Gateways, which are never handed out.
    pub reserved: u64,
    /// Addresses in no node's block; null: the cluster's store was not reached yet.
    pub unclaimed: Option<u128>,
    /// Addresses in blocks of nodes without a session; null: as for `unclaimed`.
    pub gone: Option<u128>,
    /// Addresses in blocks of removed nodes; null: as for `unclaimed`.
    pub quarantined: Option<u128>,
    /// Addresses that this node's containers set free in an hour, or below zero take; null: not
    /// known for five minutes yet.
    #[serde(default)]
    pub per_hour: Option<f64>,
    /// The number of seconds until none is available at this pace; null: they do not become fewer,
    /// or other nodes take addresses, too, and their pace is not known here.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// The reason why figures of other nodes are not known.
    #[serde(default)]
    pub cause: Option<String>,
    /// The addresses of this node's blocks.
    pub here: Here,
}

/// The addresses of a node's blocks, each in one state.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Here {
    /// Held by a container.
    pub allocated: u64,
    /// Released a short time ago.
    pub cooling: u64,
    /// On their way to another node.
    pub leaving: u64,
    /// Can be handed out now.
    pub free: u64,
    /// Can be handed out now to pods of one stage.
    pub kept: u64,
    /// In spares.
    pub spare: u64,
    /// Free in blocks that are given back or lost.
    pub withheld: u64,
    /// Never handed out.
    pub reserved: u64,
}

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/metrics", web::get().to(show_metrics)).route("/v1/pools", web::get().to(list));
}

async fn show_metrics(node: web::Data<AppState>) -> HttpResponse {
    node.lists.refreshed.get(Duration::ZERO, refresh(&node)).await;
    node.metrics.upkeep();
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(node.metrics.render())
}

async fn list(node: web::Data<AppState>) -> HttpResponse {
    let work = AppState::clone(&node);
    let rows = async move { Ok::<_, Refusal>(rows(&work).await) };
    node.lists.answer_whole(Whole::Pools, rows).await
}

/// Every range set. What other nodes hold is counted in the records of the cluster's store, which
/// are all listed: this is for people, not for scrapes. What this node holds is known here, and its
/// records may come later.
async fn rows(node: &AppState) -> Vec<PoolRow> {
    let local = node.machines.describe_sets().await;
    let all = all(node, &local);
    let counted = tokio::time::timeout(limits::MAP_COUNT_MAX, held_elsewhere(node, &local, &all));
    let (counts, cause) = match counted.await {
        Ok(Ok(counts)) => (counts.into_iter().map(Some).collect(), None),
        Ok(Err(cause)) => (vec![None; all.len()], Some(cause)),
        Err(_) => {
            let cause = "the cluster's store did not answer in time".to_owned();
            (vec![None; all.len()], Some(cause))
        }
    };
    // Where no other node has a block, nothing is missing.
    let known = |of: &Figured<'_>, count: &Option<Elsewhere>| {
        count.or_else(|| of.is_only_here(node).then(Elsewhere::default))
    };
    let rows = all.iter().zip(&counts).map(|(of, count)| row(node, of, known(of, count)));
    rows.map(|row| PoolRow { cause: cause.clone(), ..row }).collect()
}

/// The addresses of a range set that containers of other nodes hold.
#[derive(Clone, Copy, Default)]
struct Elsewhere {
    all: u64,
    /// Those of nodes with a session that are not kept for a stage.
    live: u64,
}

async fn held_elsewhere(
    node: &AppState,
    local: &[Description],
    all: &[Figured<'_>],
) -> Result<Vec<Elsewhere>, String> {
    let mut counts = vec![Elsewhere::default(); all.len()];
    if node.about.store == EMBEDDED {
        return Ok(counts);
    }
    let known = all.iter().map(|of| of.set.clone()).collect();
    let (sets, sessions) = (Sets::new(local, known, &[]), node.pools.sessions());
    let count = |key: KeyValue| {
        let Some((network, address)) = allocation_place(&key.key) else { return };
        let (family, at) = (Family::of(address), Address::of(address));
        let owner = match &key.value {
            Value::Allocation(record) => &*record.node,
            _ => "",
        };
        let set = sets.of_address(network, family, at).filter(|_| owner != node.about.node);
        let Some(set) = set else { return };
        let kept = sets.all()[set].offer.listed().binary_search(&at).is_ok();
        counts[set].all += 1;
        counts[set].live += u64::from(!kept && sessions.contains(owner));
    };
    let read = Store::new(&node.store).each(ALLOCATIONS, count).await;
    read.map_err(|error| format!("the cluster's store: {error}"))?;
    Ok(counts)
}

fn row(node: &AppState, of: &Figured<'_>, elsewhere: Option<Elsewhere>) -> PoolRow {
    let (set, figures) = (&of.set, &of.figures);
    let (family, local) = (set.pool.family, figures.local.unwrap_or_default());
    let text = |range: &AddressRange| {
        format!("{}-{}", family.address(range.first()), family.address(range.last()))
    };
    let used = elsewhere.map(|elsewhere| local.allocated + elsewhere.all);
    let available = of.available(node, elsewhere.map(|elsewhere| elsewhere.live));
    let per_hour = of.own.and_then(|own| node.outlooks.of(own.identity.id));
    let alone = node.about.store == EMBEDDED || node.pools.sessions().len() <= 1;
    let pace = per_hour.filter(|pace| *pace < 0.0 && alone);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let seconds_left = |pace: f64| available.map(|left| (left as f64 / -pace * 3600.0) as u64);
    PoolRow {
        network: set.pool.network.to_string(),
        family: family.to_string(),
        range_set: family.address(set.start()).to_string(),
        exact: figures.exact,
        ranges: set.offer.ranges().iter().map(text).collect(),
        block_size: figures.block_size,
        size: figures.size,
        used,
        free: used.map(|used| figures.size.saturating_sub(used.into())),
        available,
        kept: figures.kept,
        reserved: figures.reserved,
        unclaimed: figures.cluster.map(|cluster| cluster.unclaimed),
        gone: figures.cluster.map(|cluster| cluster.gone),
        quarantined: figures.cluster.map(|cluster| cluster.quarantined),
        per_hour,
        seconds_left: pace.and_then(seconds_left),
        cause: None,
        here: here(&local),
    }
}

fn here(local: &Capacity) -> Here {
    Here {
        allocated: local.allocated,
        cooling: local.cooling,
        leaving: local.leaving,
        free: local.free,
        kept: local.kept,
        spare: local.spare,
        withheld: local.withheld,
        reserved: local.reserved,
    }
}
