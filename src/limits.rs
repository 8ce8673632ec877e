//! Every limit and every period, by name. Past a limit there is a typed error, never a hang.

use std::time::Duration;

pub use my_ipam::limits::{
    ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX, ANSWER_WAIT_MAX, BODY_BYTES_MAX, NOTES_MAX,
};

/// Calls in one array.
pub const CALLS_PER_ARRAY_MAX: usize = 1024;

/// Ranges in one configuration, over all its sets.
pub const RANGES_MAX: usize = 256;

/// Addresses listed for the stages of one range.
pub const LISTED_MAX: usize = 4096;

/// Addresses asked for by one call.
pub const ASKED_MAX: usize = 64;

/// Routes in one configuration.
pub const ROUTES_MAX: usize = 1024;

/// Longest container id, network name and node name, in bytes. The specification has none; every
/// runtime uses 64 at most, and a longer name would not fit a file or a key either.
pub const NAME_BYTES_MAX: usize = 255;

/// Largest `resolv.conf`, in bytes.
pub const RESOLV_CONF_BYTES_MAX: u64 = 1 << 20;

/// ADDs that wait for a block, per range set.
pub const ASSIGNS_WAITING_MAX: usize = 10_000;

/// With `offlineLimit`: how much later range sets must be allowed to hand out before they are told,
/// in milliseconds, so that not every answer of the store becomes a message.
pub const GOOD_UNTIL_STEP_MS: u64 = 1_000;

/// How long an ADD waits for a block, in milliseconds: far longer than a transaction takes, far
/// shorter than what runtimes wait for a plugin.
pub const ASSIGN_WAIT_MS_MAX: u64 = 10_000;

/// How long no block is claimed after the store failed, in milliseconds. ADDs that need one fail
/// meanwhile at once, with the cause.
pub const CLAIM_PAUSE_MS: u64 = 1_000;

/// Two claims closer together than this, in milliseconds, are a burst: the next one is twice as
/// large.
pub const BURST_MS: u64 = 1_000;

/// Blocks in one claim. A claim is one transaction with two comparisons and one write for each
/// block at most, and etcd takes 128 operations in one.
pub const BLOCKS_PER_CLAIM_MAX: usize = 40;

/// How often idle blocks are looked for, in milliseconds. A block goes back when it was free and
/// untouched for a whole period.
pub const RECLAIM_IDLE_MS: u64 = 30_000;

/// Range sets of a node: each is an actor with figures of its own. A node has a few.
pub const RANGE_SETS_MAX: usize = 4_096;

/// Calls of one attachment that wait for their turn.
pub const CALLS_PER_ATTACHMENT_MAX: usize = 32;

/// Calls of one network that wait while its range sets are merged.
pub const CALLS_AT_GATE_MAX: usize = 10_000;

/// How long a DEL is remembered against ADDs that started before it, in nanoseconds on the boot
/// clock. A plugin process waits for its answer far shorter than this.
pub const CALL_AGE_NS_MAX: u64 = 120_000_000_000;

/// DELs that are remembered. Beyond it the oldest one is forgotten, and every ADD that started
/// before it is refused.
pub const ENDED_MAX: usize = 100_000;

/// Calls that are under way on a node. Beyond it a call fails at once with "try again later".
pub const CALLS_IN_FLIGHT_MAX: usize = 10_000;

/// Messages in an actor's mailbox: more than the calls in flight can cause (one to assign, one to
/// undo and one to release for each range set of each call).
pub const MAILBOX_CAPACITY: usize = 1 << 20;

/// Commits that are made durable together.
pub const COMMITS_PER_GROUP_MAX: usize = 4096;

/// The shortest wait of a range set's timer, in milliseconds.
pub const TIMER_MS_MIN: u64 = 50;

/// The default cooldown of a released address: longer than neighbours' caches keep its old owner.
pub const COOLDOWN: Duration = Duration::from_secs(30);

/// The longest cooldown.
pub const COOLDOWN_MAX: Duration = Duration::from_secs(24 * 3600);

/// Rows in one answer of a list.
pub const ROWS_PER_PAGE_MAX: usize = 20_000;

/// How long `/healthz` waits for the coordinator.
pub const HEALTH_WAIT_MAX: Duration = Duration::from_secs(2);

/// For how long entries of the journal that nothing waits for may wait for the next commit, in
/// milliseconds.
pub const APPEND_WAIT_MS_MAX: u64 = 1_000;

/// How long a starting daemon waits for the cluster's store before it serves from what its journal
/// holds.
pub const JOIN_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a stopping daemon takes to write its records and to end its lease, in milliseconds.
pub const LEAVE_WAIT_MS_MAX: u64 = 4_000;

/// A record that has waited longer than this, in milliseconds, is told of in the status.
pub const RECORD_LAG_MS_SHOWN: u64 = 5_000;

/// Open connections on the socket; more wait in its backlog.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Open TCP connections.
pub const TCP_CONNECTIONS_MAX: usize = 1_000;

/// Long answers that a listener has in memory at once. One has a few MiB, and lasts until its
/// client has read it.
pub const LISTS_UNDER_WAY_MAX: usize = 16;

/// How long a request for a long answer waits for the end of others.
pub const LIST_WAIT_MAX: Duration = Duration::from_secs(3);

/// How much of a long answer is handed on at once, in bytes.
pub const LIST_PIECE_BYTES: usize = 64 << 10;

/// Open files that the daemon keeps for others than clients: journal, etcd, logs, notes.
pub const FILES_KEPT: usize = 512;

/// Connections for which there is always room, however few files the system gives.
pub const CONNECTIONS_MIN: usize = 64;

/// With room for fewer clients of the socket than this, the daemon warns.
pub const CONNECTIONS_FEW: usize = 1_024;

/// Threads for work that waits (files, the embedded store's disk), per listener.
pub const BLOCKING_THREADS_MAX: usize = 8;

/// How long a client may take to send the head of a request, and then its body.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a client may take to close its end of a connection that the daemon has closed.
pub const DISCONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// How long no client is accepted after one could not be, such as for want of a file.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How long the daemon takes to stop. Less than the 30 seconds after which it would be killed.
pub const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often histograms are folded and late notes are looked for.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Longest path of a network namespace that is kept, in bytes; runtimes use about 60. A longer one
/// is never looked for.
pub const NETNS_BYTES_MAX: usize = 255;

/// How often a daemon looks whether the network namespaces of its attachments are there, unless
/// it sweeps.
pub const NAMESPACES_LOOK: Duration = Duration::from_secs(60);

/// The shortest interval of a sweep, and the shortest grace time.
pub const SWEEP_MIN: Duration = Duration::from_secs(1);

/// The longest of both.
pub const SWEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// For how long a network namespace must have been gone before a sweep releases its addresses. A
/// runtime that ends a container may take its namespace away a moment before its DEL.
pub const SWEEP_GRACE: Duration = Duration::from_secs(60);

/// Attachments that one pass of a sweep releases.
pub const SWEPT_PER_PASS_MAX: usize = 1_000;

/// Entries of a directory that are looked at to see whether network namespaces can be seen there.
pub const NAMESPACE_SIGNS_MAX: usize = 1_000;

/// Findings that one report lists; how many more there are is said.
pub const FINDINGS_MAX: usize = 2_000;

/// Blocks or addresses that one finding names.
pub const NAMED_PER_FINDING_MAX: usize = 20;

/// Findings in one request to release them: fits the body that is taken.
pub const FINDINGS_PER_REQUEST_MAX: usize = 250;

/// Records of attachments with several addresses that a check compares with each other.
pub const RECORDS_COMPARED_MAX: usize = 1_000_000;

/// How long a check waits before it looks at the cluster's store again, at least.
pub const CHECK_PAUSE: Duration = Duration::from_millis(500);

/// How long a check waits for records that lag.
pub const CHECK_SETTLE_MAX: Duration = Duration::from_secs(6);

/// How long a check may take. It reads everything in the cluster's store, twice if need be.
pub const CHECK_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a starting daemon tries to become its node's newest.
pub const REGISTER_TRIES_MAX: usize = 10;

/// How long an idle connection stays open.
pub const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(75);

/// Scopes that are kept once for all holdings, before those in which nothing is held are dropped.
pub const SCOPES_SHARED_MAX: usize = 10_000;

/// How often records are written, in milliseconds, while more wait than one transaction takes.
pub const RECORDS_BUSY_PERIOD_MS: u64 = 50;

/// Operations in one transaction: what etcd takes by default.
pub const TXN_OPERATIONS_MAX: usize = 128;

/// Largest block, as the binary logarithm of its number of addresses.
pub const BLOCK_LOG2_MAX: u8 = 12;

/// Keys in one read of the store; more take several.
pub const KEYS_PER_READ_MAX: usize = 2_000;

/// Keys that are looked at from a refused claim on.
pub const KEYS_PER_LOOK: usize = 400;

/// How long to wait before the store is asked again after it failed, in milliseconds; doubled with
/// each try, up to 32 times.
pub const STORE_RETRY_MS: u64 = 100;

/// How long to wait before a name that somebody else has is tried again, in milliseconds.
pub const NAME_TAKEN_RETRY_MS: u64 = 2_000;

/// How long a node that is asked for an address may take, in milliseconds.
pub const ASK_WAIT_MS: u64 = 1_500;

/// Nodes that are asked at once, as a binary logarithm: each round asks twice as many as the one
/// before, up to this.
pub const ASKED_AT_ONCE_LOG2_MAX: usize = 6;

/// How often one search for an address reads who holds what: again after all owners were asked,
/// for as long as blocks change hands meanwhile.
pub const FIND_READS_MAX: u32 = 20;

/// Runs of addresses in one message: as many as the lists of stages can cut one configuration's
/// ranges into.
pub const RUNS_PER_MESSAGE_MAX: usize = LISTED_MAX + 2 * RANGES_MAX;

/// Questions of other nodes that wait in one range set for blocks on their way.
pub const QUESTIONS_WAITING_MAX: usize = 1_000;

/// How often a network's key is read again when others change it at the same time.
pub const FIX_TRIES_MAX: u32 = 20;

/// How often blocks are claimed again that the store gave to others, in milliseconds.
pub const RECLAIM_MS: u64 = 10_000;

/// For how long no new block is claimed at least after the store went back in time, in
/// milliseconds: so long have nodes to say what they hold of which the store knows nothing.
pub const RESTORE_SETTLE_MS: u64 = 60_000;

/// How often a node writes its key at least, in milliseconds: a backup of the store is older.
pub const TOUCH_MS: u64 = 60_000;

/// How long after a search that found nothing the next one for the same begins, in milliseconds.
pub const NOBODY_MS: u64 = 200;

/// Nodes of a cluster.
pub const NODES_MAX: usize = 100_000;

/// How often records are written, in milliseconds, when nobody waits for them.
pub const RECORDS_PERIOD_MS: u64 = 1_000;

/// Different wishes (ranges, stage, address) of ADDs that wait, looked through for one like the
/// next: beyond it, one may be tried in vain.
pub const KINDS_WAITING_MAX: usize = 64;

/// What no node had, remembered for a moment.
pub const WANTS_REFUSED_MAX: usize = 64;

/// How often a node that is drained looks for blocks to give back, in milliseconds.
pub const DRAIN_RECLAIM_IDLE_MS: u64 = 1_000;

/// Endpoints of etcd in one configuration. A cluster has three or five members.
pub const ETCD_ENDPOINTS_MAX: usize = 16;

/// How long one endpoint of etcd may take to accept a connection, and again for the TLS handshake.
pub const ETCD_CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// How long one endpoint of etcd may take to answer a request, unless configured otherwise. A
/// healthy cluster answers in milliseconds, one that elects a leader in one or two seconds.
pub const ETCD_ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// The shortest wait for an answer of etcd that can be configured: a disk that is busy, or a member
/// far away, takes some of it.
pub const ETCD_ANSWER_WAIT_SHORTEST: Duration = Duration::from_millis(100);

/// The longest wait for an answer of etcd that can be configured.
pub const ETCD_ANSWER_WAIT_LONGEST: Duration = Duration::from_secs(60);

/// How long a connection on which something is awaited may be silent before it is asked for a sign
/// of life. etcd ends connections that ask more often than every five seconds.
pub const ETCD_PING: Duration = Duration::from_secs(7);

/// How long that sign may take before the connection is given up.
pub const ETCD_PING_WAIT_MAX: Duration = Duration::from_secs(3);

/// Largest answer of etcd, in bytes: 100,000 allocations at about 600 bytes each.
pub const ETCD_ANSWER_BYTES_MAX: usize = 64 << 20;

/// Reports of one watch that wait for their reader. Beyond it the watch waits (etcd) or lists anew
/// (embedded store).
pub const WATCH_REPORTS_MAX: usize = 1_024;

/// The shortest wait before a watch that broke is made anew; it doubles with each failure.
pub const WATCH_PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest wait before a watch that broke is made anew.
pub const WATCH_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The default life of a node's etcd lease without a sign of the node.
pub const LEASE_TTL: Duration = Duration::from_secs(30);

/// The shortest life of a node's etcd lease: etcd grants none below 1.5 election timeouts, and a
/// node must have the time for several keep-alives.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(5);

/// The longest life of a node's etcd lease: for so long a dead node's spare blocks are lost.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(3600);

/// How many addresses a node keeps free in its active blocks by default.
pub const WARM_ADDRESSES: u32 = 32;

/// How many it may be told to keep free.
pub const WARM_ADDRESSES_MAX: u32 = 1 << 20;

/// The shortest time without etcd after which a node can be told to stop handing out: it must not
/// stop because of an election of etcd's leader.
pub const OFFLINE_LIMIT_MIN: Duration = Duration::from_secs(10);

/// The longest.
pub const OFFLINE_LIMIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// For how long nobody gets the blocks of a node that was removed, unless an operator says
/// otherwise.
pub const QUARANTINE: Duration = Duration::from_secs(300);

/// For how long it is remembered what a node was that an operator made the cluster forget.
pub const FORGOTTEN: Duration = Duration::from_secs(90 * 24 * 3600);

/// The shortest quarantine: a node that lives notices within a third of its lease's life that it
/// was removed, and must have the time to take its blocks back.
pub const QUARANTINE_MIN: Duration = Duration::from_secs(60);

/// The longest.
pub const QUARANTINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Blocks or records of a removed node in one transaction; the node's own keys are in it too.
pub const REMOVED_PER_TXN_MAX: usize = 120;

/// How often an operator's change is tried again when others change the same at the same time.
pub const CHANGE_TRIES_MAX: u32 = 20;

/// Largest centrally kept `ipam` object, in bytes: etcd takes requests of 1.5 MiB.
pub const IPAM_BYTES_MAX: usize = 1 << 20;

/// How long a change of a central configuration waits until this node has seen it itself.
pub const SEEN_WAIT_MAX: Duration = Duration::from_secs(2);
