//! HTTP over the unix socket (calls and writes) and over TCP (reads only).

pub mod allocations;
pub(crate) mod answers;
mod call;
mod cause;
pub mod check;
pub mod cluster;
pub mod cni;
mod delivery;
pub mod events;
pub mod figures;
pub mod foreign;
pub mod guard;
pub mod history;
pub mod import;
pub mod inspect;
pub mod lists;
pub mod map;
pub mod netns;
pub mod network_cache;
pub mod networks;
mod news;
pub mod nodes;
pub mod notes;
pub mod older;
mod outcome;
pub mod outlook;
mod page;
pub(crate) mod peers;
pub mod pools;
pub mod probe;
pub mod read;
mod records;
pub mod release;
mod resolv_conf;
pub mod room;
mod serving;
mod sets;
mod shared;
mod shortage;
pub mod socket;
pub mod tcp;
pub mod trend;
pub mod warnings;
mod watched;
pub(crate) mod zero;

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::actors::{Index, NodeHandle};
use crate::core::ids::Epoch;
use crate::core::node::Standing;
use crate::events::Recent;
use crate::store::ClusterStore;

use self::check::Checks;
use self::check::sweep::Sweeps;
use self::foreign::Foreign;
use self::guard::Listener;
use self::history::Own;
use self::lists::Lists;
use self::map::Counts;
use self::network_cache::NetworkCache;
use self::older::Older;
use self::outlook::Outlooks;
use self::peers::Peers;
use self::pools::Pools;
use self::read::Since;
use self::trend::Trends;
use self::warnings::Warnings;

pub use crate::metrics::COMMIT;

/// Adds the routes of all reads.
pub fn reads(config: &mut web::ServiceConfig) {
    config
        .configure(read::reads)
        .configure(allocations::reads)
        .configure(check::reads)
        .configure(events::reads)
        .configure(figures::reads)
        .configure(map::reads)
        .configure(history::reads)
        .configure(nodes::reads)
        .configure(records::reads)
        .configure(networks::reads)
        .configure(page::reads)
        .configure(trend::reads);
}

/// The parts of the running node that handlers need.
#[derive(Clone)]
pub struct AppState {
    /// The machines of the node.
    pub machines: NodeHandle,
    /// The standing of this node in the cluster.
    pub standing: watch::Receiver<Standing>,
    /// The cluster's store, for what operators ask and change.
    pub store: Arc<dyn ClusterStore>,
    /// The centrally kept configurations.
    pub networks: Arc<NetworkCache>,
    /// The holders of the blocks in the cluster.
    pub pools: Arc<Pools>,
    /// The addresses that are held in them.
    pub counts: Arc<Counts>,
    /// The fill of the networks over time.
    pub trends: Arc<Trends>,
    /// The last events.
    pub recent: Arc<Recent>,
    /// The holdings of this node, past ones too.
    pub history: Own,
    /// The questions to other nodes.
    pub peers: Peers,
    /// The outlook of each range set.
    pub outlooks: Arc<Outlooks>,
    /// The time since which the node is in its state.
    pub since: Arc<Since>,
    /// Keeps checks from doing at the same time what they must not.
    pub checks: Checks,
    /// Asks the sweep for a pass.
    pub sweeps: Sweeps,
    /// The operator's decisions on how calls are answered.
    pub policy: Policy,
    /// The long answers of the listener.
    pub lists: Lists,
    /// The addresses that host-local holds, until they are taken over.
    pub foreign: Foreign,
    /// The networks of which a `my-ipam` without a daemon holds no address any longer.
    pub older: Older,
    /// The warnings about unwise configurations of calls.
    pub warnings: Warnings,
    /// The read index.
    pub index: Arc<Index>,
    /// The metrics.
    pub metrics: crate::metrics::Series,
    /// The facts about this daemon.
    pub about: Arc<About>,
    /// The listener on which a request came.
    pub listener: Listener,
    /// The phase of this daemon's life: calls are served neither before the waiting notes were
    /// acted on nor when it stops.
    pub phase: watch::Receiver<Phase>,
}

/// The operator's decisions on how calls are answered, where that is a matter of taste.
#[derive(Clone, Copy, Default, Debug)]
pub struct Policy {
    /// True if STATUS fails while every address is taken, or none is in hand without etcd.
    pub status_fails_when_full: bool,
    /// True if an ADD takes over what host-local holds instead of being refused.
    pub import_host_local: bool,
}

/// The phase of a daemon's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Joining the cluster and acting on notes; calls wait.
    Starting,
    /// Serving.
    Serving,
    /// Finishing what runs.
    Stopping,
}

/// The facts about a daemon: its node, its version, its paths and its addresses.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The node's name.
    pub node: String,
    /// The daemon's version.
    pub version: String,
    /// The commit of its source, or `unknown`.
    #[serde(default)]
    pub commit: String,
    /// Its process id.
    pub pid: u32,
    /// The number of times that a daemon of this node has joined the cluster. None (0 in JSON): it
    /// has not joined yet.
    #[serde(with = "zero")]
    pub epoch: Option<Epoch>,
    /// The directory in which it keeps its state.
    pub state_dir: String,
    /// The configuration file that it read, if any.
    #[serde(default)]
    pub config: Option<String>,
    /// The address at which reads are served over TCP.
    pub listen: String,
    /// The cluster's store: `embedded`, or `etcd` with its endpoints.
    pub store: String,
    /// The time at which it started, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// The value of [`About::store`] on a node without etcd.
pub const EMBEDDED: &str = "embedded";

/// The text that a node without etcd shows in place of its state in a cluster.
pub const ALONE: &str = "alone: no etcd is configured";

/// The meaning of [`ALONE`].
pub const ALONE_MEANS: &str = "this node shares no pool with others; if other nodes use the same \
                               ranges, give all of them the same etcd (--etcd, or [etcd] in the \
                               configuration file)";

/// An error of the admin API: one sentence that says what was wrong and what to do.
#[derive(Serialize, Deserialize, Debug)]
pub struct ApiError {
    /// The sentence.
    pub error: String,
}

fn refuse(status: actix_web::http::StatusCode, error: impl Into<String>) -> HttpResponse {
    HttpResponse::build(status).json(ApiError { error: error.into() })
}
