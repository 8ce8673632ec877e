//! The figures of a node and of its pools: for the metrics, which are brought up to date when they
//! are read, and for commands.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::cluster::{Refusal, Store};
use super::lists::Whole;
use super::{AppState, EMBEDDED, read};
use crate::actors::Description;
use crate::core::address::{Address, AddressRange, Cidr, Family};
use crate::core::keys::{ALLOCATIONS, PoolFamily, allocation_place};
use crate::core::range_set::Capacity;
use crate::core::txn::{KeyValue, StoreError};
use crate::{clock, limits, metrics};

/// Brings those metrics up to date that are not counted as things happen. A part of the node that
/// does not answer in time does not delay the other figures.
async fn refresh(node: &AppState) {
    let machines = async { (node.machines.figures().await, node.machines.describe_sets().await) };
    if let Ok((dealings, sets)) = tokio::time::timeout(limits::HEALTH_WAIT_MAX, machines).await {
        if let Some(figures) = dealings {
            metrics::dealings(node.standing.borrow().stalled.is_none(), &figures);
        }
        node.pools.keep(&sets.iter().map(|set| set.identity.id).collect());
        for ((network, family), figures) in pools(node, &sets) {
            metrics::pool(&network, family, &figures);
        }
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
    // Free addresses of this node and of no node. Those of other nodes are not known here.
    let left = |set: &Description| {
        let figures = of_set(node, set);
        let here = figures.local.free + figures.local.spare + figures.local.cooling;
        let left = figures.cluster?.unclaimed.saturating_add(here.into());
        (!figures.unsure).then_some((set.identity.id, left))
    };
    node.outlooks.add(now, &sets.iter().filter_map(left).collect());
}

/// The figures of each network and family: its range sets added up.
fn pools(node: &AppState, sets: &[Description]) -> BTreeMap<(String, Family), metrics::Pool> {
    let mut all: BTreeMap<(String, Family), metrics::Pool> = BTreeMap::new();
    for set in sets {
        let key = (set.identity.network.to_string(), set.identity.family);
        let sum = all.entry(key).or_default();
        let of = of_set(node, set);
        sum.unsure |= of.unsure;
        sum.size = sum.size.saturating_add(of.size);
        sum.kept += of.kept;
        sum.reserved += of.reserved;
        sum.block_size = sum.block_size.max(of.block_size);
        sum.local = added(sum.local, of.local);
        if let Some(more) = of.cluster {
            let cluster = sum.cluster.get_or_insert_default();
            cluster.unclaimed = cluster.unclaimed.saturating_add(more.unclaimed);
            cluster.gone = cluster.gone.saturating_add(more.gone);
            cluster.quarantined = cluster.quarantined.saturating_add(more.quarantined);
        }
    }
    all
}

/// The figures of one range set.
pub(super) fn of_set(node: &AppState, set: &Description) -> metrics::Pool {
    let pool = PoolFamily { network: set.identity.network.clone(), family: set.identity.family };
    metrics::Pool {
        unsure: !set.offer.is_whole(),
        size: set.offer.size(),
        kept: set.offer.kept(),
        reserved: set.offer.reserved(),
        block_size: 1 << set.identity.block_size.log2(),
        cluster: node.pools.figures(set.identity.id, &pool, &set.offer),
        local: set.capacity,
    }
}

fn added(a: Capacity, b: Capacity) -> Capacity {
    Capacity {
        allocated: a.allocated + b.allocated,
        cooling: a.cooling + b.cooling,
        leaving: a.leaving + b.leaving,
        free: a.free + b.free,
        kept: a.kept + b.kept,
        spare: a.spare + b.spare,
        withheld: a.withheld + b.withheld,
        reserved: a.reserved + b.reserved,
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
    /// First and last address of each range.
    pub ranges: Vec<String>,
    /// Addresses in a block of the usual size.
    pub block_size: u64,
    /// Addresses that can ever be handed out in the cluster.
    pub size: u128,
    /// Addresses that containers hold, on all nodes.
    pub used: u64,
    /// The others.
    pub free: u128,
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
    /// Addresses that become free in an hour, or below zero are used up: of those that no node
    /// holds and those that are free on this node; null: not known for five minutes yet.
    #[serde(default)]
    pub per_hour: Option<f64>,
    /// The number of seconds until none of these is left; null: they do not become fewer.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// The addresses of this node's blocks.
    pub here: Here,
}

/// The addresses of a node's blocks, each in one state.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
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
    let rows = async move { rows(&work).await.map_err(Refusal::from) };
    node.lists.answer_whole(Whole::Pools, rows).await
}

/// Every range set. What other nodes hold is counted in the records of the cluster's store, which
/// are all listed: this is for people, not for scrapes.
async fn rows(node: &AppState) -> Result<Vec<PoolRow>, StoreError> {
    let sets = node.machines.describe_sets().await;
    let mut recorded = vec![0; sets.len()];
    let alone = node.about.store == EMBEDDED;
    if !alone {
        let count = |key: KeyValue| {
            let Some((pool, address)) = allocation_place(&key.key) else { return };
            let cidr = Cidr::one(Address::of(address));
            let is_of = |set: &Description| {
                *set.identity.network == *pool
                    && set.identity.family == Family::of(address)
                    && set.offer.count_in(cidr) == 1
            };
            if let Some(at) = sets.iter().position(is_of) {
                recorded[at] += 1;
            }
        };
        Store::new(&node.store).each(ALLOCATIONS, count).await?;
    }
    let row = |(set, recorded): (&Description, u64)| {
        let figures = of_set(node, set);
        let used = if alone { figures.local.allocated } else { recorded };
        let trend = node.outlooks.of(set.identity.id);
        PoolRow {
            per_hour: trend.map(|trend| trend.per_hour),
            seconds_left: trend.and_then(|trend| trend.seconds_left),
            ..row(set, &figures, used)
        }
    };
    Ok(sets.iter().zip(recorded).map(row).collect())
}

fn row(set: &Description, of: &metrics::Pool, used: u64) -> PoolRow {
    let (family, local) = (set.identity.family, of.local);
    let text = |range: &AddressRange| {
        format!("{}-{}", family.address(range.first()), family.address(range.last()))
    };
    PoolRow {
        network: set.identity.network.to_string(),
        family: family.to_string(),
        ranges: set.offer.ranges().iter().map(text).collect(),
        block_size: of.block_size,
        size: of.size,
        used,
        free: of.size.saturating_sub(u128::from(used)),
        kept: of.kept,
        reserved: of.reserved,
        unclaimed: of.cluster.map(|cluster| cluster.unclaimed),
        gone: of.cluster.map(|cluster| cluster.gone),
        quarantined: of.cluster.map(|cluster| cluster.quarantined),
        per_hour: None,
        seconds_left: None,
        here: Here {
            allocated: local.allocated,
            cooling: local.cooling,
            leaving: local.leaving,
            free: local.free,
            kept: local.kept,
            spare: local.spare,
            withheld: local.withheld,
            reserved: local.reserved,
        },
    }
}
