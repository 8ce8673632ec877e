//! Every metric, by name. No other module registers one, and no label has an address, a container
//! or a pod.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::core::Millis;
use crate::core::address::Family;
use crate::core::range_set::Stats;

/// Upper bounds of latency buckets in seconds, from 50 microseconds: a warm ADD takes about 100.
const LATENCY_BUCKETS: [f64; 17] = [
    50e-6, 75e-6, 100e-6, 150e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3,
    250e-3, 500e-3, 1.0, 5.0,
];

const REQUESTS: &str = "leasehold_requests_total";
const REQUEST_SECONDS: &str = "leasehold_request_duration_seconds";
const ADDRESSES: &str = "leasehold_addresses";
const BLOCKS: &str = "leasehold_blocks";
const LEASES: &str = "leasehold_block_leases_total";
const GIVEN_BACK: &str = "leasehold_blocks_given_back_total";
const GIVEN: &str = "leasehold_blocks_given_total";
const FINDS: &str = "leasehold_finds_total";
const SESSION_UP: &str = "leasehold_session_up";
const EPOCH: &str = "leasehold_epoch";
const STORE_SILENCE: &str = "leasehold_store_contact_age_seconds";
const LOST_BLOCKS: &str = "leasehold_lost_blocks";
const WENT_BACK: &str = "leasehold_store_went_back_total";
const RECORDS_WAITING: &str = "leasehold_records_waiting";
const RECORD_LAG: &str = "leasehold_record_lag_seconds";
const JOURNAL_COMMITS: &str = "leasehold_journal_commits_total";
const JOURNAL_RECORDS: &str = "leasehold_journal_records_total";
const JOURNAL_SECONDS: &str = "leasehold_journal_commit_duration_seconds";
const JOURNAL_BROKEN: &str = "leasehold_journal_broken";
const ETCD_REQUESTS: &str = "leasehold_etcd_requests_total";
const OVERLAPS: &str = "leasehold_network_overlaps";
const NOTES: &str = "leasehold_del_notes_total";
const NAMESPACES: &str = "leasehold_network_namespaces";
const FINDINGS: &str = "leasehold_check_findings";
const SWEPT: &str = "leasehold_swept_total";
const BUILD: &str = "leasehold_build_info";

/// Installs the recorder of this process and describes every metric.
///
/// # Errors
/// A recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &LATENCY_BUCKETS)?
        .install_recorder()?;
    metrics::describe_counter!(REQUESTS, "CNI calls by verb and result");
    metrics::describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time to answer a CNI call");
    describe_blocks();
    metrics::describe_counter!(JOURNAL_COMMITS, "Group commits of the journal");
    metrics::describe_counter!(JOURNAL_RECORDS, "Records in these commits");
    metrics::describe_histogram!(JOURNAL_SECONDS, Unit::Seconds, "Time of one group commit");
    metrics::describe_gauge!(JOURNAL_BROKEN, "1 when the journal failed and ADD is refused");
    metrics::describe_counter!(ETCD_REQUESTS, "Requests to etcd by operation and result");
    metrics::describe_gauge!(OVERLAPS, "Pairs of networks whose addresses overlap");
    metrics::describe_counter!(NOTES, "DELs that a plugin left as a note, by result");
    metrics::describe_gauge!(
        NAMESPACES,
        "Attachments by the state of their network namespace: there, gone, doubtful"
    );
    metrics::describe_gauge!(FINDINGS, "Findings of the last check, by kind");
    metrics::describe_counter!(SWEPT, "Attachments that a sweep handled, by result");
    metrics::describe_gauge!(BUILD, "1, with the version as label");
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    overlaps(0);
    Journal::new();
    Ok(handle)
}

fn describe_blocks() {
    metrics::describe_gauge!(
        ADDRESSES,
        "Addresses of this node's blocks by state: allocated, cooling, free, leaving"
    );
    metrics::describe_gauge!(BLOCKS, "Blocks of this node by state: spare, active, draining, lost");
    metrics::describe_counter!(
        LEASES,
        "Transactions that lease blocks by result: done, conflict, failed"
    );
    metrics::describe_counter!(GIVEN_BACK, "Blocks given back");
    metrics::describe_counter!(GIVEN, "Blocks, or parts of one, given to other nodes");
    metrics::describe_counter!(
        FINDS,
        "Searches for an address outside of this node's blocks by result: \
         gap, given, nobody, failed"
    );
    metrics::describe_gauge!(SESSION_UP, "1 while this node is a member of the cluster");
    metrics::describe_gauge!(EPOCH, "Times that a daemon of this node has joined the cluster");
    metrics::describe_gauge!(
        STORE_SILENCE,
        Unit::Seconds,
        "Time since the last answered request to the cluster's store"
    );
    metrics::describe_gauge!(
        LOST_BLOCKS,
        "Blocks that this node held and that the cluster's store gives to others"
    );
    metrics::describe_counter!(WENT_BACK, "Times that the cluster's store went back in time");
    metrics::describe_gauge!(RECORDS_WAITING, "Records of allocations not in the store yet");
    metrics::describe_gauge!(
        RECORD_LAG,
        Unit::Seconds,
        "Age of the oldest record that is not in the store yet"
    );
}

/// Counts a CNI call: its verb, `ok` or the name of its error code, and the time that it took.
pub fn request(verb: &'static str, result: &'static str, took: Duration) {
    metrics::counter!(REQUESTS, "verb" => verb, "result" => result).increment(1);
    metrics::histogram!(REQUEST_SECONDS, "verb" => verb).record(took);
}

/// Counts a request to etcd: `txn`, `read`, `grant`, `keepalive`, `revoke` or `watch` (one listing
/// with its stream), and `ok`, `refused` (a condition did not hold, or a lease is gone), `failed`
/// or `unknown`.
pub fn etcd_request(operation: &'static str, result: &'static str) {
    metrics::counter!(ETCD_REQUESTS, "operation" => operation, "result" => result).increment(1);
}

/// Counts an acted-on note: `ok`, `failed` or `unreadable`.
pub fn note(result: &'static str) {
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
pub fn findings<const N: usize>(kinds: [(&'static str, usize); N]) {
    for (kind, count) in kinds {
        metrics::gauge!(FINDINGS, "kind" => kind).set(count as f64);
    }
}

/// Counts an attachment that a sweep handled: `released`, `skipped` or `failed`.
pub fn swept(result: &'static str) {
    metrics::counter!(SWEPT, "result" => result).increment(1);
}

/// Shows the number of pairs of networks that overlap.
pub fn overlaps(pairs: usize) {
    #[allow(clippy::cast_precision_loss)]
    metrics::gauge!(OVERLAPS).set(pairs as f64);
}

/// Handles of one range set.
pub struct RangeSet {
    addresses: [Gauge; 4],
    blocks: [Gauge; 4],
    leases: [Counter; 3],
    given_back: Counter,
    given: Counter,
    shown: Stats,
}

impl RangeSet {
    /// The handles; several range sets of one network and family add up.
    pub fn new(network: &str, family: Family) -> Self {
        let plain = || {
            let family = Label::from_static_parts("family", family.as_str());
            vec![Label::new("network", network.to_owned()), family]
        };
        let labels = |name, value: &'static str| {
            let mut labels = plain();
            labels.push(Label::from_static_parts(name, value));
            labels
        };
        let gauge = |name, state| metrics::gauge!(name, labels("state", state));
        let leases = |result| metrics::counter!(LEASES, labels("result", result));
        let addresses = ["allocated", "cooling", "free", "leaving"];
        Self {
            addresses: addresses.map(|state| gauge(ADDRESSES, state)),
            blocks: ["spare", "active", "draining", "lost"].map(|state| gauge(BLOCKS, state)),
            leases: ["done", "conflict", "failed"].map(leases),
            given_back: metrics::counter!(GIVEN_BACK, plain()),
            given: metrics::counter!(GIVEN, plain()),
            shown: Stats::default(),
        }
    }

    /// Shows the figures of this range set.
    pub fn show(&mut self, stats: Stats) {
        let figures = |stats: Stats| {
            let addresses = [stats.allocated, stats.cooling, stats.free, stats.in_transfer];
            (addresses, [stats.spare, stats.active, stats.returning, stats.lost])
        };
        let (now, was) = (figures(stats), figures(std::mem::replace(&mut self.shown, stats)));
        let addresses = self.addresses.iter().zip(now.0.into_iter().zip(was.0));
        let blocks = self.blocks.iter().zip(now.1.into_iter().zip(was.1));
        for (gauge, (now, before)) in addresses.chain(blocks) {
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

/// Shows the time since the store's last answer and the age of the oldest waiting record, both in
/// milliseconds, and the number of records that wait.
#[allow(clippy::cast_precision_loss)]
pub fn dealings(silence: Millis, waiting: usize, lag: Millis) {
    metrics::gauge!(STORE_SILENCE).set(silence as f64 / 1000.0);
    metrics::gauge!(RECORDS_WAITING).set(waiting as f64);
    metrics::gauge!(RECORD_LAG).set(lag as f64 / 1000.0);
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
    pub fn show(&self, up: bool, epoch: u64, lost: usize) {
        self.session_up.set(f64::from(u8::from(up)));
        self.epoch.set(epoch as f64);
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
