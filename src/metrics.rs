//! Every metric, by name. Nothing else registers one, and none carries an address, a container or
//! a pod in a label.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

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
const CLAIMS: &str = "leasehold_block_claims_total";
const GIVEN_BACK: &str = "leasehold_blocks_given_back_total";
const JOURNAL_COMMITS: &str = "leasehold_journal_commits_total";
const JOURNAL_RECORDS: &str = "leasehold_journal_records_total";
const JOURNAL_SECONDS: &str = "leasehold_journal_commit_duration_seconds";
const JOURNAL_BROKEN: &str = "leasehold_journal_broken";
const STORE_REQUESTS: &str = "leasehold_store_requests_total";
const OVERLAPS: &str = "leasehold_network_overlaps";
const NOTES: &str = "leasehold_del_notes_total";
const BUILD: &str = "leasehold_build_info";

/// Installs the recorder of this process and describes every metric.
///
/// # Errors
/// A recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?
        .install_recorder()?;
    metrics::describe_counter!(REQUESTS, "CNI calls by verb and result");
    metrics::describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time to answer a CNI call");
    metrics::describe_gauge!(
        ADDRESSES,
        "Addresses of this node's blocks by state: allocated, cooling, free"
    );
    metrics::describe_gauge!(BLOCKS, "Blocks of this node by state: active, draining");
    metrics::describe_counter!(CLAIMS, "Claims of blocks by result: done, conflict, failed");
    metrics::describe_counter!(GIVEN_BACK, "Blocks given back");
    metrics::describe_counter!(JOURNAL_COMMITS, "Group commits of the journal");
    metrics::describe_counter!(JOURNAL_RECORDS, "Records in these commits");
    metrics::describe_histogram!(JOURNAL_SECONDS, Unit::Seconds, "Time of one group commit");
    metrics::describe_gauge!(JOURNAL_BROKEN, "1 when the journal failed and ADD is refused");
    metrics::describe_counter!(STORE_REQUESTS, "Requests to the cluster's store");
    metrics::describe_gauge!(OVERLAPS, "Pairs of networks whose addresses overlap");
    metrics::describe_counter!(NOTES, "DELs that a plugin left as a note, by result");
    metrics::describe_gauge!(BUILD, "1, with the version as label");
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    overlaps(0);
    Journal::new();
    Ok(handle)
}

/// Counts a CNI call: its verb, `ok` or the name of its error code, and how long it took.
pub fn request(verb: &'static str, result: &'static str, took: Duration) {
    metrics::counter!(REQUESTS, "verb" => verb, "result" => result).increment(1);
    metrics::histogram!(REQUEST_SECONDS, "verb" => verb).record(took);
}

/// Counts a request to the store: `txn` or `range`, and `ok`, `refused` or `error`.
pub fn store_request(operation: &'static str, result: &'static str) {
    metrics::counter!(STORE_REQUESTS, "operation" => operation, "result" => result).increment(1);
}

/// Counts an acted-on note: `ok`, `failed` or `unreadable`.
pub fn note(result: &'static str) {
    metrics::counter!(NOTES, "result" => result).increment(1);
}

/// How many pairs of networks overlap.
pub fn overlaps(pairs: usize) {
    #[allow(clippy::cast_precision_loss)]
    metrics::gauge!(OVERLAPS).set(pairs as f64);
}

/// Handles of one range set.
pub struct RangeSet {
    addresses: [Gauge; 3],
    blocks: [Gauge; 2],
    claims: [Counter; 3],
    given_back: Counter,
    shown: Stats,
}

impl RangeSet {
    /// The handles; several range sets of one network and family add up.
    pub fn new(network: &str, family: Family) -> Self {
        let labels = |name, value: &'static str| {
            let family = Label::from_static_parts("family", family.as_str());
            let network = Label::new("network", network.to_owned());
            vec![network, family, Label::from_static_parts(name, value)]
        };
        let gauge = |name, state| metrics::gauge!(name, labels("state", state));
        let claims = |result| metrics::counter!(CLAIMS, labels("result", result));
        Self {
            addresses: ["allocated", "cooling", "free"].map(|state| gauge(ADDRESSES, state)),
            blocks: ["active", "draining"].map(|state| gauge(BLOCKS, state)),
            claims: ["done", "conflict", "failed"].map(claims),
            given_back: {
                let network = Label::new("network", network.to_owned());
                let family = Label::from_static_parts("family", family.as_str());
                metrics::counter!(GIVEN_BACK, vec![network, family])
            },
            shown: Stats::default(),
        }
    }

    /// Shows the figures of this range set.
    pub fn show(&mut self, stats: Stats) {
        let was = std::mem::replace(&mut self.shown, stats);
        let [allocated, cooling, free] = &self.addresses;
        let [active, draining] = &self.blocks;
        for (gauge, now, before) in [
            (allocated, stats.allocated, was.allocated),
            (cooling, stats.cooling, was.cooling),
            (free, stats.free, was.free),
            (active, stats.active, was.active),
            (draining, stats.draining, was.draining),
        ] {
            #[allow(clippy::cast_precision_loss)]
            if now != before {
                gauge.increment(now as f64 - before as f64);
            }
        }
    }

    /// Counts a claim that was carried out.
    pub fn claim_done(&self) {
        self.claims[0].increment(1);
    }

    /// Counts a claim that met blocks of others.
    pub fn claim_conflict(&self) {
        self.claims[1].increment(1);
    }

    /// Counts a claim that the store did not answer.
    pub fn claim_failed(&self) {
        self.claims[2].increment(1);
    }

    /// Counts blocks given back.
    pub fn given_back(&self, blocks: usize) {
        self.given_back.increment(blocks as u64);
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
