//! The metrics: no other module registers one. Their names and what they say are in
//! [`catalogue`]; no label has an address, a container or a pod.

pub mod catalogue;
mod pools;
mod requests;
mod series;

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, SharedString, Unit};

use crate::core::address::Family;
use crate::core::ids::Epoch;
use crate::core::node::Figures;
use crate::core::range_set::Stats;
use crate::core::time::UnixTime;
use catalogue::*;
pub use pools::{Pool, PoolInCluster, PoolName, pools};
use requests::LastUsed;
pub use series::Series;

/// The commit of the source, or `unknown` if the build does not know it.
pub const COMMIT: &str = env!("LEASEHOLD_SOURCE_COMMIT");

/// The causes of refused ADDs that are counted.
pub const CAUSES: &[&str] = &[
    "exhausted",
    "taken",
    "gateway",
    "stage",
    "node-gone",
    "no-block",
    "halted",
    "busy",
    "already-held",
    "overtaken",
    "block-size",
    "not-imported",
    "store",
    "range-sets",
    "journal",
    "stopping",
];

/// The verbs of calls; one that cannot be read counts as `unknown`.
pub const VERBS: &[&str] = &["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];

/// The results of calls: `ok`, or the name of the error code.
pub const RESULTS: &[&str] = &[
    "ok",
    "incompatible_version",
    "environment",
    "io",
    "decode",
    "config",
    "try_again",
    "not_available",
    "exhausted",
    "already_held",
    "taken",
    "check_failed",
    "overtaken",
    "not_allowed",
    "internal",
];

/// The series of this process, once they are installed.
static SERIES: OnceLock<Series> = OnceLock::new();

/// Installs the recorder of this process, describes every metric, and begins every series whose
/// labels are known with 0: a rate needs a first value.
///
/// # Errors
/// A recorder is installed already.
pub fn install() -> anyhow::Result<Series> {
    let series = Series::new()?;
    metrics::set_global_recorder(series.clone())
        .map_err(|_| anyhow::anyhow!("a recorder is installed already"))?;
    SERIES.get_or_init(|| series.clone());
    for Metric { name, kind, help, .. } in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION"), "commit" => COMMIT).set(1.0);
    metrics_process::Collector::default().describe();
    begin();
    Ok(series)
}

/// The series that are there from the start.
fn begin() {
    let counters = |name: &'static str, label: &'static str, values: &[&'static str]| {
        values.iter().for_each(|value| drop(metrics::counter!(name, label => *value)));
    };
    counters(FINDS, "result", &["gap", "given", "nobody", "failed"]);
    counters(NOTES, "result", &["ok", "failed", "unreadable"]);
    counters(SWEPT, "result", &["released", "skipped", "failed"]);
    counters(COLLECTED, "result", &["released", "kept"]);
    for operation in ["txn", "read", "grant", "keepalive", "timetolive", "revoke", "watch"] {
        for result in ["ok", "refused", "failed", "unknown"] {
            drop(metrics::counter!(ETCD_REQUESTS, "operation" => operation, "result" => result));
        }
        drop(metrics::histogram!(ETCD_SECONDS, "operation" => operation));
    }
    for verb in VERBS {
        drop(request_seconds(verb, false));
        RESULTS.iter().for_each(|result| drop(nameless_requests(verb, result)));
    }
    drop(request_seconds("ADD", true));
    namespaces(0, 0, 0);
    overlaps(0);
    cluster_overlaps(0);
    drop(metrics::counter!(LOG_LEFT_OUT));
    nodes(0, 0, 0);
    Journal::new();
}

thread_local! {
    static LAST_USED: RefCell<LastUsed> = RefCell::default();
}

/// The time that a CNI call took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From its request to its answer.
    pub time: Duration,
    /// True if it waited for a block.
    pub waited: bool,
}

/// Counts a CNI call: its network, if that is known, its verb, `ok` or the name of its error code,
/// and the time that it took.
pub fn request(network: Option<&str>, verb: &'static str, result: &'static str, took: Took) {
    LAST_USED.with_borrow_mut(|last_used| {
        last_used.refresh(SERIES.get().map_or(0, Series::removals));
        last_used.count(network.unwrap_or_default(), verb, result, || match network {
            Some(network) => requests(shown(network), verb, result),
            None => nameless_requests(verb, result),
        });
        last_used.time(verb, took, || request_seconds(verb, took.waited));
    });
}

/// The times of calls; only an ADD can wait for a block.
fn request_seconds(verb: &'static str, waited: bool) -> Histogram {
    let waited = if waited { "true" } else { "false" };
    metrics::histogram!(REQUEST_SECONDS, "verb" => verb, "waited" => waited)
}

/// The counter of the calls of a network.
fn requests(network: impl Into<SharedString>, verb: &'static str, result: &'static str) -> Counter {
    metrics::counter!(REQUESTS, "network" => network.into(), "verb" => verb, "result" => result)
}

/// The counter of the calls that name no network, or whose network could not be read.
fn nameless_requests(verb: &'static str, result: &'static str) -> Counter {
    metrics::counter!(REQUESTS, "verb" => verb, "result" => result)
}

/// Counts an ADD that was refused for this cause.
pub fn add_failed(network: &str, cause: &'static str) {
    metrics::counter!(ADD_FAILURES, "network" => shown(network), "cause" => cause).increment(1);
}

/// The label of a network. After [`crate::limits::NETWORKS_SHOWN_MAX`] of them, the others share
/// the label `(others)`, which is no network's name.
fn shown(network: &str) -> SharedString {
    let begin = || {
        for verb in VERBS {
            RESULTS.iter().for_each(|result| drop(requests(network.to_owned(), verb, result)));
        }
        for cause in CAUSES {
            let failures = metrics::counter!(
                ADD_FAILURES, "network" => network.to_owned(), "cause" => *cause
            );
            drop(failures);
        }
    };
    match SERIES.get() {
        Some(series) if series.names(network, begin) => SharedString::from(network.to_owned()),
        _ => SharedString::from("(others)"),
    }
}

/// Counts a request to etcd, and the time that it took: `txn`, `read`, `grant`, `keepalive`,
/// `timetolive` or `revoke`, and `ok`, `refused` (a condition did not hold, or a lease is gone),
/// `failed` or `unknown`.
pub fn etcd_request(operation: &'static str, result: &'static str, took: Duration) {
    metrics::counter!(ETCD_REQUESTS, "operation" => operation, "result" => result).increment(1);
    metrics::histogram!(ETCD_SECONDS, "operation" => operation).record(took);
}

/// Counts the beginning of a watch (one listing with its stream), `ok`, or its end, `failed`.
pub fn etcd_watch(result: &'static str) {
    metrics::counter!(ETCD_REQUESTS, "operation" => "watch", "result" => result).increment(1);
}

/// Shows for how long an ADD waited for a block.
pub fn waited(network: &str, family: Family, time: Duration) {
    let labels = [("network", network.to_owned()), ("family", family.as_str().to_owned())];
    metrics::histogram!(WAIT_SECONDS, &labels).record(time);
}

/// Shows the number of nodes with a session, of those that an operator drains, and of those with
/// blocks and without a session.
#[allow(clippy::cast_precision_loss)]
pub fn nodes(live: usize, draining: usize, gone: usize) {
    for (state, count) in [("live", live), ("draining", draining), ("gone", gone)] {
        metrics::gauge!(NODES, "state" => state).set(count as f64);
    }
}

/// Shows the number of pairs of networks of which blocks overlap, in the whole cluster.
#[allow(clippy::cast_precision_loss)]
pub fn cluster_overlaps(pairs: usize) {
    metrics::gauge!(CLUSTER_OVERLAPS).set(pairs as f64);
}

/// Counts a line of the log that said the same as one before it, and was left out.
pub fn log_line_left_out() {
    metrics::counter!(LOG_LEFT_OUT).increment(1);
}

/// Shows whether this node serves ADD.
pub fn ready(ready: bool) {
    metrics::gauge!(READY).set(f64::from(u8::from(ready)));
}

/// Shows the size of the journal's file, in bytes.
#[allow(clippy::cast_precision_loss)]
pub fn journal_size(bytes: u64) {
    metrics::gauge!(JOURNAL_BYTES).set(bytes as f64);
}

/// Shows the figures of the process.
pub fn process() {
    metrics_process::Collector::default().collect();
}

/// Shows how many revisions etcd keeps.
pub fn etcd_history(revisions: u64) {
    #[allow(clippy::cast_precision_loss)]
    metrics::gauge!(ETCD_HISTORY).set(revisions as f64);
}

/// Shows when a certificate for etcd ends; none: none is used.
pub fn certificate_end(holder: &'static str, at: Option<UnixTime>) {
    #[allow(clippy::cast_precision_loss)]
    let seconds = at.map_or(0, UnixTime::as_millis) as f64 / 1e3;
    metrics::gauge!(CERTIFICATE_END, "certificate" => holder).set(seconds);
}

/// Shows whether the node is alone: no etcd is configured.
pub fn alone(is: bool) {
    metrics::gauge!(ALONE).set(f64::from(u8::from(is)));
}

/// Counts an acted-on note: `ok`, `failed` or `unreadable`.
pub fn count_note(result: &'static str) {
    metrics::counter!(NOTES, "result" => result).increment(1);
}

/// Shows the numbers of attachments whose network namespace is there, gone, or maybe gone.
#[allow(clippy::cast_precision_loss)]
pub fn namespaces(there: usize, gone: usize, doubtful: usize) {
    for (state, count) in [("there", there), ("gone", gone), ("doubtful", doubtful)] {
        metrics::gauge!(NAMESPACES, "state" => state).set(count as f64);
    }
}

/// Shows the number of findings of each kind in the last check.
#[allow(clippy::cast_precision_loss)]
pub fn findings(kinds: impl IntoIterator<Item = (&'static str, usize)>) {
    for (kind, count) in kinds {
        metrics::gauge!(FINDINGS, "kind" => kind).set(count as f64);
    }
}

/// Counts an attachment that a sweep handled: `released`, `skipped` or `failed`.
pub fn swept(result: &'static str) {
    metrics::counter!(SWEPT, "result" => result).increment(1);
}

/// Counts attachments that a GC of the runtime did not name: `released`, or `kept` because their
/// network namespace is there.
pub fn collected(result: &'static str, count: u64) {
    metrics::counter!(COLLECTED, "result" => result).increment(count);
}

/// Shows the number of pairs of networks that overlap.
pub fn overlaps(pairs: usize) {
    #[allow(clippy::cast_precision_loss)]
    metrics::gauge!(OVERLAPS).set(pairs as f64);
}

/// Handles of one range set.
pub struct RangeSet {
    blocks: [Gauge; 4],
    leases: [Counter; 3],
    given_back: Counter,
    given: Counter,
    shown: Stats,
    network: Box<str>,
    family: Family,
}

impl RangeSet {
    /// The handles; several range sets of one network and family add up.
    pub fn new(network: &str, family: Family) -> Self {
        let plain = || pool_labels(network, family);
        let labels = |name, value: &'static str| {
            let mut labels = plain();
            labels.push(Label::from_static_parts(name, value));
            labels
        };
        let gauge = |name, state| metrics::gauge!(name, labels("state", state));
        let leases = |result| metrics::counter!(LEASES, labels("result", result));
        drop(metrics::histogram!(WAIT_SECONDS, plain()));
        drop(shown(network));
        let handles = Self {
            blocks: ["spare", "active", "returning", "lost"].map(|state| gauge(BLOCKS, state)),
            leases: ["done", "conflict", "failed"].map(leases),
            given_back: metrics::counter!(GIVEN_BACK, plain()),
            given: metrics::counter!(GIVEN, plain()),
            shown: Stats::default(),
            network: network.into(),
            family,
        };
        handles.count(true);
        handles
    }

    fn count(&self, opened: bool) {
        if let Some(series) = SERIES.get() {
            series.count(&self.network, self.family.as_str(), opened);
        }
    }

    /// Shows the figures of this range set.
    pub fn show(&mut self, stats: Stats) {
        let figures = |stats: Stats| [stats.spare, stats.active, stats.returning, stats.lost];
        let (now, was) = (figures(stats), figures(std::mem::replace(&mut self.shown, stats)));
        for (gauge, (now, before)) in self.blocks.iter().zip(now.into_iter().zip(was)) {
            #[allow(clippy::cast_precision_loss)]
            if now != before {
                gauge.increment(now as f64 - before as f64);
            }
        }
    }

    /// Counts a lease that was carried out.
    pub fn lease_done(&self) {
        self.leases[0].increment(1);
    }

    /// Counts a lease that met blocks of others.
    pub fn lease_conflict(&self) {
        self.leases[1].increment(1);
    }

    /// Counts a lease that the store did not carry out.
    pub fn lease_failed(&self) {
        self.leases[2].increment(1);
    }

    /// Counts blocks given back.
    pub fn given_back(&self, blocks: usize) {
        self.given_back.increment(blocks as u64);
    }

    /// Counts a block, or a part of one, that was given to another node.
    pub fn given(&self) {
        self.given.increment(1);
    }
}

impl Drop for RangeSet {
    fn drop(&mut self) {
        self.show(Stats::default());
        self.count(false);
    }
}

fn pool_labels(network: &str, family: Family) -> Vec<Label> {
    let family = Label::from_static_parts("family", family.as_str());
    vec![Label::new("network", network.to_owned()), family]
}

/// Shows a node's dealings with the store: whether it answers, and its figures.
#[allow(clippy::cast_precision_loss)]
pub fn dealings(answers: bool, figures: &Figures) {
    metrics::gauge!(STORE_ANSWERS).set(f64::from(u8::from(answers)));
    metrics::gauge!(STORE_SILENCE).set(figures.silence.as_secs_f64());
    metrics::gauge!(SESSION_LEFT).set(figures.lease_left.as_secs_f64());
    metrics::gauge!(RECORDS_WAITING).set(figures.records_waiting as f64);
    metrics::gauge!(RECORD_LAG).set(figures.record_lag.as_secs_f64());
}

/// Handles of the node's state in the cluster.
pub struct Leaseholder {
    session_up: Gauge,
    epoch: Gauge,
    lost: Gauge,
    went_back: Counter,
}

impl Leaseholder {
    /// The handles.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            session_up: metrics::gauge!(SESSION_UP),
            epoch: metrics::gauge!(EPOCH),
            lost: metrics::gauge!(LOST_BLOCKS),
            went_back: metrics::counter!(WENT_BACK),
        }
    }

    /// Shows if this node is a member with a lease, its epoch, and the number of blocks that it
    /// lost.
    #[allow(clippy::cast_precision_loss)]
    pub fn show(&self, up: bool, epoch: Option<Epoch>, lost: usize) {
        self.session_up.set(f64::from(u8::from(up)));
        self.epoch.set(epoch.map_or(0, Epoch::get) as f64);
        self.lost.set(lost as f64);
    }

    /// Counts that the store went back in time.
    pub fn went_back(&self) {
        self.went_back.increment(1);
    }

    /// Counts a search: `gap`, `given`, `nobody` or `failed`.
    pub fn found(&self, result: &'static str) {
        metrics::counter!(FINDS, "result" => result).increment(1);
    }
}

/// Handles of the journal.
#[derive(Clone)]
pub struct Journal {
    commits: Counter,
    records: Counter,
    seconds: Histogram,
    broken: Gauge,
}

impl Journal {
    /// The handles.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let broken = metrics::gauge!(JOURNAL_BROKEN);
        broken.set(0.0);
        Self {
            commits: metrics::counter!(JOURNAL_COMMITS),
            records: metrics::counter!(JOURNAL_RECORDS),
            seconds: metrics::histogram!(JOURNAL_SECONDS),
            broken,
        }
    }

    /// Counts a commit.
    pub fn commit(&self, records: usize, took: Duration, failed: bool) {
        self.commits.increment(1);
        self.records.increment(records as u64);
        self.seconds.record(took);
        if failed {
            self.broken.set(1.0);
        }
    }
}
