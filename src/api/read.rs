//! Reads: the same on the socket and over TCP.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{About, Node, Phase, refuse};
use crate::actors::coordinator::{DescribeAll, Overlaps};
use crate::core::attachment::Holding;
use crate::limits;

/// One allocation: one address of one attachment.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct AllocationRow {
    /// The network.
    pub network: String,
    /// The address.
    pub address: String,
    /// The container.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// The pod's namespace, if the runtime named one.
    pub namespace: Option<String>,
    /// The pod's name, likewise.
    pub pod: Option<String>,
    /// The pod's stage.
    pub stage: Option<String>,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The sequence number of the holding: a release that names it cannot hit a later one.
    pub sequence: u64,
}

/// What to list.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Only this network.
    pub network: Option<String>,
    /// Only this address.
    pub address: Option<IpAddr>,
    /// Only this container.
    pub container_id: Option<String>,
    /// Only rows after this one, `network,address`: the last row of the page before.
    pub after: Option<String>,
    /// How many rows to list, at most [`limits::ROWS_PER_PAGE_MAX`].
    pub limit: Option<usize>,
}

impl Filter {
    /// Where the page begins. A network's name has no comma.
    fn after(&self) -> Option<(&str, IpAddr)> {
        let (network, address) = self.after.as_deref()?.split_once(',')?;
        Some((network, address.parse().ok()?))
    }

    /// Whether a holding has anything to list.
    pub fn wants(&self, holding: &Holding) -> bool {
        let id = &holding.id;
        self.network.as_deref().is_none_or(|network| network == &*id.network)
            && self.container_id.as_deref().is_none_or(|container| container == &*id.container_id)
            && self.address.is_none_or(|address| holding.addresses.contains(&address))
    }
}

/// One range set of the node.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct SetRow {
    /// The network.
    pub network: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Addresses in a block of the usual size.
    pub block_size: u64,
    /// Blocks in hand.
    pub blocks: u64,
    /// Addresses assigned.
    pub allocated: u64,
    /// Addresses cooling.
    pub cooling: u64,
    /// Addresses not taken in the blocks in hand, network addresses and gateways among them.
    pub free: u64,
}

/// What `leasehold status` shows.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Who and where the daemon is.
    pub about: About,
    /// `starting`, `serving`, `stopping` or `broken`.
    pub state: String,
    /// Why ADD is refused, if it is.
    pub cause: Option<String>,
    /// Attachments that hold something.
    pub attachments: usize,
    /// The range sets.
    pub range_sets: Vec<SetRow>,
    /// Pairs of networks whose addresses overlap.
    pub overlaps: Vec<(String, String)>,
}

/// Adds the routes of all reads.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/metrics", web::get().to(metrics))
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/v1/status", web::get().to(status))
        .route("/v1/allocations", web::get().to(allocations));
}

async fn metrics(node: web::Data<Node>) -> HttpResponse {
    node.metrics.run_upkeep();
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(node.metrics.render())
}

/// The daemon lives: its coordinator answers.
async fn healthz(node: web::Data<Node>) -> HttpResponse {
    let asked = node.coordinator.send(Overlaps);
    match tokio::time::timeout(limits::HEALTH_WAIT_MAX, asked).await {
        Ok(Ok(_)) => HttpResponse::Ok().content_type("text/plain").body("ok\n"),
        _ => refuse(StatusCode::SERVICE_UNAVAILABLE, "the coordinator does not answer"),
    }
}

/// The daemon serves ADD.
async fn readyz(node: web::Data<Node>) -> HttpResponse {
    let (state, cause) = state(&node);
    match state {
        "serving" => HttpResponse::Ok().content_type("text/plain").body("ok\n"),
        state => refuse(StatusCode::SERVICE_UNAVAILABLE, cause.unwrap_or(state.to_owned())),
    }
}

fn state(node: &Node) -> (&'static str, Option<String>) {
    if let Some(cause) = node.index.broken() {
        return ("broken", Some(format!("the journal failed: {cause}")));
    }
    match *node.phase.borrow() {
        Phase::Starting => ("starting", None),
        Phase::Serving => ("serving", None),
        Phase::Stopping => ("stopping", None),
    }
}

async fn status(node: web::Data<Node>) -> HttpResponse {
    let asked = (node.coordinator.send(DescribeAll), node.coordinator.send(Overlaps));
    let (Ok(sets), Ok(overlaps)) = (asked.0.await, asked.1.await) else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the coordinator does not answer");
    };
    let (state, cause) = state(&node);
    let row = |set: crate::actors::range_set::Description| SetRow {
        network: set.record.network.to_string(),
        family: set.record.family.to_string(),
        block_size: 1 << set.record.block_log2,
        blocks: set.stats.active + set.stats.draining,
        allocated: set.stats.allocated,
        cooling: set.stats.cooling,
        free: set.stats.free,
    };
    HttpResponse::Ok().json(Status {
        about: (*node.about).clone(),
        state: state.to_owned(),
        cause,
        attachments: node.index.len(),
        range_sets: sets.into_iter().map(row).collect(),
        overlaps: overlaps.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect(),
    })
}

async fn allocations(node: web::Data<Node>, filter: web::Query<Filter>) -> HttpResponse {
    if filter.after.is_some() && filter.after().is_none() {
        return refuse(StatusCode::BAD_REQUEST, "after: give the network and address of a row");
    }
    let (index, filter) = (node.index.clone(), filter.into_inner());
    // Off this thread: sorting a full node takes longer than an ADD may wait.
    match web::block(move || rows(&index.all(), &filter)).await {
        Ok(rows) => HttpResponse::Ok().json(rows),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// A page of rows, by network and address: what is released between two pages moves no other row.
fn rows(all: &[Arc<Holding>], filter: &Filter) -> Vec<AllocationRow> {
    let after = filter.after();
    let mut rows: Vec<(&Arc<Holding>, IpAddr)> = (all.iter())
        .filter(|holding| filter.wants(holding))
        .flat_map(|holding| holding.addresses.iter().map(move |&address| (holding, address)))
        .filter(|&(_, address)| filter.address.is_none_or(|wanted| wanted == address))
        .filter(|(holding, address)| after < Some((&*holding.id.network, *address)))
        .collect();
    rows.sort_unstable_by_key(|&(holding, address)| (&*holding.id.network, address));
    let limit = filter.limit.unwrap_or(usize::MAX).min(limits::ROWS_PER_PAGE_MAX);
    rows.into_iter().take(limit).map(|(holding, address)| row(holding, address)).collect()
}

fn row(holding: &Holding, address: IpAddr) -> AllocationRow {
    let pod = holding.pod.as_deref();
    let namespace = pod.map(|pod| pod.namespace.to_string());
    AllocationRow {
        network: holding.id.network.to_string(),
        address: address.to_string(),
        container_id: holding.id.container_id.to_string(),
        ifname: holding.id.ifname.to_string(),
        namespace: namespace.filter(|namespace| !namespace.is_empty()),
        pod: pod.map(|pod| pod.name.to_string()),
        stage: holding.stage.map(|stage| stage.to_string()),
        since_unix_ms: holding.since_unix_ms,
        sequence: holding.sequence,
    }
}
