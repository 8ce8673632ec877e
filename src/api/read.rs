//! Reads: the same on the socket and over TCP.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::guard::Listener;
use super::{About, AppState, EMBEDDED, Phase, probe, refuse, zero};
use crate::actors::{BlockFigures, Description};
use crate::core::cause::Cause;
use crate::core::node::Figures;
use crate::core::time::UnixTime;
use crate::{clock, limits};

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
    /// Blocks in hand: those that follow, added up.
    pub blocks: u64,
    /// Blocks leased ahead of need, out of which nothing is handed out yet.
    pub spare: u64,
    /// Blocks out of which addresses are handed out.
    pub active: u64,
    /// Blocks on their way back.
    pub returning: u64,
    /// Blocks that the cluster's store no longer has as this node's.
    pub lost: u64,
    /// Addresses assigned.
    pub allocated: u64,
    /// Addresses cooling.
    pub cooling: u64,
    /// Addresses that can be handed out now.
    pub free: u64,
    /// Addresses that can be handed out now to pods of one stage only.
    #[serde(default)]
    pub kept: u64,
}

/// The standing of this node in the cluster.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRow {
    /// `member`; `joining`, which it does until the store lets it; `fenced`: another daemon took
    /// its name, for good; or `alone`: no etcd is configured.
    pub state: String,
    /// The cause that keeps it from leasing blocks, if there is one.
    pub cause: Option<String>,
    /// True if that is that the store is not reached, or does not take what it is asked for. Every
    /// other cause says itself what to do.
    #[serde(default)]
    pub cause_is_store: bool,
    /// True if it is the only node that the store knows.
    pub alone: bool,
    /// Its etcd lease, in hexadecimal.
    pub lease: Option<String>,
    /// The time for which the store has not answered, in milliseconds.
    pub silence_ms: u64,
    /// Blocks that it handed out of and the store gave to others.
    pub lost_blocks: usize,
    /// While a restore of the store is being settled, the nodes for which that waits: they have not
    /// said what they hold.
    #[serde(default)]
    pub restore_waits_for: Option<Vec<String>>,
    /// Nodes that hold blocks and have no session.
    #[serde(default)]
    pub gone: Vec<GoneRow>,
    /// Records of allocations that are not in the store yet.
    pub records_waiting: usize,
    /// The time for which the oldest of them has waited, in milliseconds.
    pub record_lag_ms: u64,
}

/// A node that holds blocks and has no session.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct GoneRow {
    /// Its name.
    pub node: String,
    /// The number of blocks that nobody else gets.
    pub blocks: usize,
}

/// One block of the node.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct BlockRow {
    /// The network.
    pub network: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The prefix that it covers.
    pub prefix: String,
    /// `spare`, `active`, `returning` or `lost`.
    pub state: String,
    /// Addresses not taken.
    pub free: u32,
    /// Addresses assigned.
    pub allocated: u32,
    /// Addresses cooling.
    pub cooling: u32,
}

/// The filter that chooses the blocks of a list.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockFilter {
    /// Only this network.
    pub network: Option<String>,
    /// Only rows after this one, `network,prefix`: the last row of the page before.
    pub after: Option<String>,
    /// The number of rows to list, at most [`limits::ROWS_PER_PAGE_MAX`].
    pub limit: Option<usize>,
}

/// The answer that `leasehold status` shows.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The facts about the daemon.
    pub about: About,
    /// `starting`, `serving`, `halted`, `drained`, `stopping`, `broken`; or `unready`: the daemon
    /// answers, but no ADD could be served.
    pub state: String,
    /// The time since which it is in this state; in JSON in milliseconds since 1970, 0: not known.
    #[serde(rename = "stateSinceUnixMs", default, with = "zero")]
    pub state_since: Option<UnixTime>,
    /// The reason why ADD is refused, if it is.
    pub cause: Option<String>,
    /// The standing of this node in the cluster.
    pub cluster: ClusterRow,
    /// Attachments that hold something.
    pub attachments: usize,
    /// The range sets.
    pub range_sets: Vec<SetRow>,
    /// Pairs of networks whose addresses overlap.
    pub overlaps: Vec<(String, String)>,
    /// The warnings about unwise configurations of networks, and about what the sweep cannot see.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The state that a node was last seen in, and since when. It is looked at every few seconds.
#[derive(Default, Debug)]
pub struct Since(Mutex<Option<(&'static str, UnixTime)>>);

impl Since {
    /// Takes the state of now; returns the time since which the node is in it.
    fn update(&self, state: &'static str, now: UnixTime) -> UnixTime {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, since) = known.take_if(|(of, _)| *of == state).unwrap_or((state, now));
        *known = Some((state, since));
        since
    }
}

/// Adds the routes of what this file reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/v1/status", web::get().to(status))
        .route("/v1/blocks", web::get().to(blocks));
}

/// The daemon lives: its machines answer, its journal works, and its socket is served.
async fn healthz(node: web::Data<AppState>) -> HttpResponse {
    let refused = |why: String| refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    if let Some(cause) = node.index.broken() {
        return refused(format!("the journal failed: {cause}"));
    }
    match tokio::time::timeout(limits::HEALTH_WAIT_MAX, node.machines.alive()).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => return refused(cause),
        Err(_) => return refused("the coordinator does not answer".to_owned()),
    }
    if let Listener::Tcp(guard) = &node.listener
        && let Err(cause) = probe::socket(&guard.socket).await
    {
        return refused(cause);
    }
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// The daemon could serve an ADD.
async fn readyz(node: web::Data<AppState>) -> HttpResponse {
    let (state, cause) = state(&node).await;
    match state {
        "serving" => {
            let blind = node.sweeps.blind();
            let warnings: String = blind.iter().map(|why| format!("warning: {why}\n")).collect();
            HttpResponse::Ok().content_type("text/plain").body(format!("ok\n{warnings}"))
        }
        state => refuse(StatusCode::SERVICE_UNAVAILABLE, cause.unwrap_or(state.to_owned())),
    }
}

/// Returns whether an ADD could be served now, and shows that as a metric too.
///
/// # Errors
/// No ADD could be served; the error says why.
pub async fn ready(node: &AppState) -> Result<(), String> {
    let (state, cause) = state(node).await;
    let ready = state == "serving";
    node.since.update(state, clock::unix());
    crate::metrics::ready(ready);
    if ready { Ok(()) } else { Err(cause.unwrap_or_else(|| state.to_owned())) }
}

async fn state(node: &AppState) -> (&'static str, Option<String>) {
    if let Some(cause) = node.index.broken() {
        return ("broken", Some(format!("the journal failed: {cause}")));
    }
    match *node.phase.borrow() {
        Phase::Starting => return ("starting", None),
        Phase::Stopping => return ("stopping", None),
        Phase::Serving => {}
    }
    {
        let standing = node.standing.borrow();
        if let Some(cause) = &standing.halted {
            return ("halted", Some(cause.to_string()));
        }
        if standing.draining {
            return ("drained", Some("an operator drains this node".to_owned()));
        }
    }
    let unready = tokio::time::timeout(limits::HEALTH_WAIT_MAX, node.machines.unready());
    match unready.await {
        Ok(None) => ("serving", None),
        Ok(cause) => ("unready", cause),
        Err(_) => ("unready", Some("the coordinator does not answer".to_owned())),
    }
}

async fn status(node: web::Data<AppState>) -> HttpResponse {
    let (overlaps, figures) = (node.machines.overlaps().await, node.machines.figures().await);
    let (Some(overlaps), Some(figures)) = (overlaps, figures) else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the coordinator does not answer");
    };
    let sets = node.machines.describe_sets().await;
    let (state, cause) = state(&node).await;
    let epoch = node.standing.borrow().epoch;
    HttpResponse::Ok().json(Status {
        about: About { epoch, ..(*node.about).clone() },
        state: state.to_owned(),
        state_since: Some(node.since.update(state, clock::unix())),
        cause,
        cluster: cluster(&node, figures),
        attachments: node.index.len(),
        range_sets: sets.into_iter().map(set).collect(),
        overlaps: overlaps.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect(),
        warnings: [node.warnings.list(), node.sweeps.blind()].concat(),
    })
}

fn set(set: Description) -> SetRow {
    let stats = set.stats;
    SetRow {
        network: set.identity.network.to_string(),
        family: set.identity.family.to_string(),
        block_size: 1 << set.identity.block_size.log2(),
        blocks: stats.spare + stats.active + stats.returning + stats.lost,
        spare: stats.spare,
        active: stats.active,
        returning: stats.returning,
        lost: stats.lost,
        allocated: stats.allocated,
        cooling: stats.cooling,
        free: set.capacity.free,
        kept: set.capacity.kept,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn gone(node: &AppState) -> Vec<GoneRow> {
    let gone = node.pools.nodes().unwrap_or_default().gone.into_iter();
    gone.map(|(node, blocks)| GoneRow { node: node.to_string(), blocks }).collect()
}

fn cluster(node: &AppState, figures: Figures) -> ClusterRow {
    let standing = node.standing.borrow();
    let state = match (standing.fenced, standing.member) {
        _ if node.about.store == EMBEDDED => "alone",
        (true, _) => "fenced",
        (false, true) => "member",
        (false, false) => "joining",
    };
    let cause = standing.halted.as_ref().or(standing.stalled.as_ref());
    ClusterRow {
        state: state.to_owned(),
        cause: cause.map(ToString::to_string),
        cause_is_store: cause.is_some_and(Cause::is_of_the_store),
        alone: standing.alone,
        lease: standing.lease.map(|lease| format!("{lease:x}")),
        silence_ms: millis(figures.silence),
        lost_blocks: figures.lost,
        restore_waits_for: (standing.awaited.as_ref())
            .map(|nodes| nodes.iter().map(ToString::to_string).collect()),
        gone: gone(node),
        records_waiting: figures.records_waiting,
        record_lag_ms: millis(figures.record_lag),
    }
}

async fn blocks(node: web::Data<AppState>, filter: web::Query<BlockFilter>) -> HttpResponse {
    let after = filter.after.as_deref().map(|after| {
        let (network, prefix) = after.split_once(',')?;
        Some((network.to_owned(), prefix.parse::<IpNet>().ok()?))
    });
    let Some(after) = after.map_or(Some(None), |after| after.map(Some)) else {
        return refuse(StatusCode::BAD_REQUEST, "after: give the network and prefix of a row");
    };
    let (machines, filter) = (node.machines.clone(), filter.into_inner());
    let limit = filter.limit.unwrap_or(usize::MAX).min(limits::ROWS_PER_PAGE_MAX);
    let page = async move {
        let after = after.as_ref().map(|(network, prefix)| (&**network, *prefix));
        let page = machines.blocks(filter.network.as_deref(), after, limit).await;
        Ok(page.iter().map(block_row).collect::<Vec<BlockRow>>())
    };
    node.lists.answer(page).await
}

fn block_row(block: &BlockFigures) -> BlockRow {
    BlockRow {
        network: block.pool.network.to_string(),
        family: block.pool.family.to_string(),
        prefix: block.cidr.net(block.pool.family).to_string(),
        state: block.state.as_str().to_owned(),
        free: block.free,
        allocated: (1 << block.cidr.size().log2()) - block.free - block.cooling,
        cooling: block.cooling,
    }
}
