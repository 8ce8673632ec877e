//! HTTP over the unix socket (calls and writes) and over TCP (reads only).

mod call;
mod cause;
pub mod check;
pub mod cluster;
pub mod cni;
mod delivery;
pub mod figures;
pub mod foreign;
pub mod inspect;
pub mod lists;
mod netns;
pub mod network_cache;
pub mod networks;
pub mod nodes;
pub mod notes;
pub mod pools;
pub mod probe;
pub mod read;
mod records;
pub mod release;
pub mod server;
pub mod socket;
pub mod warnings;

use std::path::Path;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::actors::{Index, NodeHandle};
use crate::core::node::Standing;
use crate::store::ClusterStore;

use self::check::Checks;
use self::check::sweep::Sweeps;
use self::foreign::Foreign;
use self::lists::Lists;
use self::network_cache::NetworkCache;
use self::pools::Pools;
use self::warnings::Warnings;

pub use crate::metrics::COMMIT;

/// Adds the routes of all reads.
pub fn reads(config: &mut web::ServiceConfig) {
    config
        .configure(read::reads)
        .configure(check::reads)
        .configure(figures::reads)
        .configure(nodes::reads)
        .configure(records::reads)
        .configure(networks::reads);
}

/// What handlers need of the running node.
#[derive(Clone)]
pub struct AppState {
    /// The machines of the node.
    pub machines: NodeHandle,
    /// How this node stands in the cluster.
    pub standing: watch::Receiver<Standing>,
    /// The cluster's store, for what operators ask and change.
    pub store: Arc<dyn ClusterStore>,
    /// The centrally kept configurations.
    pub networks: Arc<NetworkCache>,
    /// Who holds which block in the cluster.
    pub pools: Arc<Pools>,
    /// What checks must not do at the same time.
    pub checks: Checks,
    /// Asks the sweep for a pass.
    pub sweeps: Sweeps,
    /// What an operator decided on how calls are answered.
    pub policy: Policy,
    /// The long answers of the listener.
    pub lists: Lists,
    /// What host-local holds, until it is taken over.
    pub foreign: Foreign,
    /// What is unwise in the configurations of calls.
    pub warnings: Warnings,
    /// The read index.
    pub index: Arc<Index>,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Who and where this daemon is.
    pub about: Arc<About>,
    /// The socket that `/healthz` probes; none where the request came on it.
    pub probed: Option<Arc<Path>>,
    /// Whether calls are served: not before the waiting notes were acted on, nor when stopping.
    pub phase: watch::Receiver<Phase>,
}

/// How calls are answered where it is a matter of taste.
#[derive(Clone, Copy, Default, Debug)]
pub struct Policy {
    /// STATUS fails while every address is taken.
    pub status_fails_when_full: bool,
}

/// Where a daemon is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Joining the cluster and acting on notes; calls wait.
    Starting,
    /// Serving.
    Serving,
    /// Finishing what runs.
    Stopping,
}

/// Who and where a daemon is.
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
    /// How often a daemon of this node has joined the cluster; 0: it has not joined yet.
    pub epoch: u64,
    /// Where it keeps its state.
    pub state_dir: String,
    /// The configuration file that it read, if any.
    #[serde(default)]
    pub config: Option<String>,
    /// Where reads are served over TCP.
    pub listen: String,
    /// The cluster's store: `embedded`, or `etcd` with its endpoints.
    pub store: String,
    /// When it started, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// What [`About::store`] says of a node without etcd.
pub const EMBEDDED: &str = "embedded";

/// What a node without etcd says of itself, in place of its state in a cluster.
pub const ALONE: &str = "alone: no etcd is configured";

/// What that means.
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
