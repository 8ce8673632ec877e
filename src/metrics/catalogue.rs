//! The list of all metrics: the only place with their names. The recorder's descriptions come from
//! it, and tests hold `docs/metrics.md`, the dashboards and the rules against it.

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only rises, until the daemon starts again.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Durations in seconds, in buckets.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels, which never have an address, a pod or a container as value.
    pub labels: &'static [&'static str],
    /// Its description.
    pub help: &'static str,
}

const RANGE_SET: &[&str] = &["network", "family", "range_set"];
const RANGE_SET_EXACT: &[&str] = &["network", "family", "range_set", "exact"];
const RANGE_SET_STATE: &[&str] = &["network", "family", "range_set", "state"];
const NETWORK: &[&str] = &["network", "family"];
const NETWORK_STATE: &[&str] = &["network", "family", "state"];
const NETWORK_RESULT: &[&str] = &["network", "family", "result"];

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(pub(super) const $constant: &str = $name;)*
        /// Every metric of this program, in the order of the documentation. Those about the
        /// process are [`PROCESS`].
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name, kind: Kind::$kind, labels: $labels, help: $help,
        }),*];
    };
}

metrics! {
    POOL_SIZE = Gauge "leasehold_pool_addresses" RANGE_SET_EXACT,
        "Addresses of a range set that can ever be handed out in the cluster, the same on every \
         node";
    POOL_UNCLAIMED = Gauge "leasehold_pool_unclaimed_addresses" RANGE_SET_EXACT,
        "Addresses of a range set that are in no node's block, the same on every node";
    POOL_GONE = Gauge "leasehold_pool_gone_addresses" RANGE_SET_EXACT,
        "Addresses of a range set in blocks of nodes without a session, the same on every node";
    POOL_QUARANTINED = Gauge "leasehold_pool_quarantined_addresses" RANGE_SET_EXACT,
        "Addresses of a range set in blocks of removed nodes until their quarantine ends, the \
         same on every node";
    POOL_KEPT = Gauge "leasehold_pool_kept_addresses" RANGE_SET_EXACT,
        "Addresses of a range set that are kept for pods of a stage, the same on every node";
    POOL_RESERVED = Gauge "leasehold_pool_reserved_addresses" RANGE_SET_EXACT,
        "Gateways between start and end of the ranges of a range set, which are never handed out, \
         the same on every node";
    BLOCK_SIZE = Gauge "leasehold_block_size_addresses" RANGE_SET,
        "Addresses in a block of the usual size of a range set";
    ADDRESSES = Gauge "leasehold_addresses" RANGE_SET_STATE,
        "Addresses of this node's blocks by state: allocated, cooling, leaving, free, kept, spare, \
         withheld, reserved";
    BLOCKS = Gauge "leasehold_blocks" NETWORK_STATE,
        "Blocks of this node by state: spare, active, returning, lost";
    NODES = Gauge "leasehold_nodes" &["state"],
        "Nodes of the cluster by state, the same on every node: live (with a session), draining \
         (told by an operator to give its blocks back), gone (with blocks and without a session)";
    READY = Gauge "leasehold_ready" &[],
        "1 while this node serves ADD";
    ALONE = Gauge "leasehold_alone" &[],
        "1 if no etcd is configured: the node shares no pool with others";
    REQUESTS = Counter "leasehold_requests_total" &["network", "verb", "result"],
        "CNI calls by network, verb, and ok or the name of the error code";
    ADD_FAILURES = Counter "leasehold_add_failures_total" &["network", "cause"],
        "ADDs that were refused, by network and cause";
    REQUEST_SECONDS = Histogram "leasehold_request_duration_seconds" &["verb", "waited"],
        "Time to answer a CNI call, by verb, and by whether it waited for a block: true, false";
    WAIT_SECONDS = Histogram "leasehold_block_wait_duration_seconds" NETWORK,
        "Time for which an ADD waited because no block of this node had a free address";
    LEASES = Counter "leasehold_block_leases_total" NETWORK_RESULT,
        "Transactions that lease blocks by result: done, conflict, failed";
    GIVEN_BACK = Counter "leasehold_blocks_given_back_total" NETWORK,
        "Blocks that this node gave back";
    GIVEN = Counter "leasehold_blocks_given_total" NETWORK,
        "Blocks, or parts of one, that this node gave to other nodes";
    FINDS = Counter "leasehold_finds_total" &["result"],
        "Searches for an address outside of this node's blocks by result: gap, given, nobody, \
         failed";
    SESSION_UP = Gauge "leasehold_session_up" &[],
        "1 while this node is a member of the cluster";
    SESSION_LEFT = Gauge "leasehold_session_remaining_seconds" &[],
        "Time until this node's lease ends unless the cluster's store is reached before";
    EPOCH = Gauge "leasehold_epoch" &[],
        "Times that a daemon of this node has joined the cluster";
    STORE_SILENCE = Gauge "leasehold_store_contact_age_seconds" &[],
        "Time since the last answered request to the cluster's store";
    STORE_ANSWERS = Gauge "leasehold_store_up" &[],
        "1 while the cluster's store answers this node";
    LOST_BLOCKS = Gauge "leasehold_lost_blocks" &[],
        "Blocks that this node held and that the cluster's store gives to others";
    WENT_BACK = Counter "leasehold_store_went_back_total" &[],
        "Times that the cluster's store went back in time";
    RECORDS_WAITING = Gauge "leasehold_records_waiting" &[],
        "Records of allocations that are not in the cluster's store yet";
    RECORD_LAG = Gauge "leasehold_record_lag_seconds" &[],
        "Age of the oldest record that is not in the cluster's store yet";
    ETCD_REQUESTS = Counter "leasehold_etcd_requests_total" &["operation", "result"],
        "Requests to etcd by operation, and by result: ok, refused (a condition did not hold, or a \
         lease is gone), failed, unknown";
    ETCD_HISTORY = Gauge "leasehold_etcd_history_revisions" &[],
        "Revisions that etcd keeps: those since its last compaction";
    CERTIFICATE_END = Gauge "leasehold_etcd_certificate_end_timestamp_seconds" &["certificate"],
        "Time at which the certificate of the authority or of this client ends, in seconds since \
         1970; 0: none is used";
    ETCD_SECONDS = Histogram "leasehold_etcd_request_duration_seconds" &["operation"],
        "Time until etcd answered, or until a request was given up";
    JOURNAL_COMMITS = Counter "leasehold_journal_commits_total" &[],
        "Group commits of the journal";
    JOURNAL_RECORDS = Counter "leasehold_journal_records_total" &[],
        "Entries in the group commits of the journal";
    JOURNAL_SECONDS = Histogram "leasehold_journal_commit_duration_seconds" &[],
        "Time of one group commit of the journal";
    JOURNAL_BYTES = Gauge "leasehold_journal_size_bytes" &[],
        "Size of the journal's file";
    JOURNAL_BROKEN = Gauge "leasehold_journal_broken" &[],
        "1 when the journal failed and ADD is refused";
    CLUSTER_OVERLAPS = Gauge "leasehold_cluster_network_overlaps" &[],
        "Pairs of networks of which blocks overlap, the same on every node";
    OVERLAPS = Gauge "leasehold_network_overlaps" &[],
        "Pairs of networks whose addresses overlap, as this node knows them";
    NOTES = Counter "leasehold_del_notes_total" &["result"],
        "DELs that a plugin left as a note, by result: ok, failed, unreadable";
    NAMESPACES = Gauge "leasehold_network_namespaces" &["state"],
        "Attachments by the state of their network namespace at the last look: there, gone, \
         doubtful";
    FINDINGS = Gauge "leasehold_check_findings" &["kind"],
        "Findings of the last check on this node, one of an operator or the daemon's own, by kind";
    SWEPT = Counter "leasehold_swept_total" &["result"],
        "Attachments that a sweep handled, by result: released, skipped, failed";
    COLLECTED = Counter "leasehold_gc_attachments_total" &["result"],
        "Attachments that a GC of the runtime did not name, by result: released, kept";
    LOG_LEFT_OUT = Counter "leasehold_log_lines_suppressed_total" &[],
        "Lines of the log that were left out because they said the same as one within the last \
         minute";
    BUILD = Gauge "leasehold_build_info" &["version", "commit"],
        "1, with the version of the daemon and the commit of its source as labels";
}

/// The metrics about the process, which have the usual names.
pub const PROCESS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
    "process_virtual_memory_max_bytes",
];
