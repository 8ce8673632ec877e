//! Every limit and every period, by name. Beyond a limit there is a typed error, never a hang.

mod checks;
mod history;
mod memory;
mod readers;
mod sweep;

use std::time::Duration;

pub use checks::*;
pub use history::*;
pub use memory::*;
pub use my_ipam::limits::{
    ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX, ANSWER_WAIT_MAX, BODY_BYTES_MAX, DAEMON_WAIT_MAX,
    NOTES_MAX, RESOLV_CONF_BYTES_MAX,
};
pub use readers::*;
pub use sweep::*;

/// The longest time from the start of a plugin's process to its first look for the daemon. Up
/// to it, an ADD that found no daemon can say that no daemon has answered its DEL.
/// A process takes 1 ms to look; a runtime that gives up on an ADD ends its process before the DEL.
pub const FIRST_LOOK_MAX: Duration = Duration::from_millis(250);

/// Calls in one array.
pub const CALLS_PER_ARRAY_MAX: usize = 1024;

/// Entries of `exclude` and `reserved` in one configuration: each cuts a range in two, at the
/// same cost for any size.
pub const CUTS_MAX: usize = 1024;

/// Keys without effect that are told of in one configuration.
pub const UNKNOWN_KEYS_MAX: usize = 16;

/// Ranges in one configuration, over all its sets.
pub const RANGES_MAX: usize = 256;

/// Networks that have series of their own in the metrics; the others share one label.
pub const NETWORKS_SHOWN_MAX: usize = 256;

/// The time after its last call for which the metrics of a network without a range set are kept:
/// four scrapes of the usual 15 seconds.
pub const SERIES_KEPT: Duration = Duration::from_secs(60);

/// The time after which the series that calls count in are found anew by their labels.
pub const SERIES_FOUND_ANEW: Duration = Duration::from_secs(1);

/// Addresses listed for the stages of one range.
pub const LISTED_MAX: usize = 4096;

/// Addresses asked for by one call.
pub const REQUESTED_MAX: usize = 64;

/// Kubernetes namespaces that a configuration names for a pool or a stage.
pub const NAMESPACES_MAX: usize = 256;

/// Routes in one configuration.
pub const ROUTES_MAX: usize = 1024;

/// Longest container id, network name and node name, in bytes. The specification has none; every
/// runtime uses 64 at most, and a longer name would not fit a file or a key either.
pub const NAME_BYTES_MAX: usize = 255;

/// ADDs that wait for a block, per range set.
pub const ASSIGNS_WAITING_MAX: usize = 10_000;

/// The time by which the wall clock may have been set since a file was written, without the file
/// being taken for one of an earlier boot.
pub const CLOCK_SET_MAX: Duration = Duration::from_secs(1);

/// The smallest difference of two times that a machine is told: it counts in milliseconds.
pub const CLOCK_STEP: Duration = Duration::from_millis(1);

/// With `offlineLimit`: the smallest extension of the permission to hand out that is sent to the
/// range sets. So not every answer of the store becomes a message.
pub const GOOD_UNTIL_STEP: Duration = Duration::from_secs(1);

/// The longest time that an ADD waits for a block: far longer than a transaction
/// takes, far shorter than runtimes wait for a plugin.
pub const ASSIGN_WAIT_MAX: Duration = Duration::from_secs(10);

/// The time for which no block is claimed after the store failed. Meanwhile, ADDs
/// that need a block fail at once, with the cause.
pub const CLAIM_PAUSE: Duration = Duration::from_secs(1);

/// Two claims within this time are a burst: the second one is twice as large as the first.
pub const BURST: Duration = Duration::from_secs(1);

/// Blocks in one claim. A claim is one transaction with two comparisons and one write for each
/// block at most, and etcd takes 128 operations in one.
pub const BLOCKS_PER_CLAIM_MAX: usize = 40;

/// Empty active blocks with which a node alone does not wait for the next search before it gives
/// blocks back. It leases at most 80 at once, ahead of its cursors; and it gives back at most
/// [`BLOCKS_PER_CLAIM_MAX`] at once, so that there are as few transactions as there can be.
pub const EMPTY_BLOCKS_MAX: u64 = 4 * BLOCKS_PER_CLAIM_MAX as u64;

/// The time between two searches for idle blocks. A block goes back when it was
/// free and untouched for a whole period.
pub const RECLAIM_IDLE: Duration = Duration::from_secs(30);

/// Pairs of networks that overlap, of which the daemon tells.
pub const OVERLAPS_MAX: usize = 1_000;

/// The time after its last use for which a range set that holds nothing is kept: its place in the
/// order of addresses is forgotten with it.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

/// The shortest time that can be set for it.
pub const FORGET_AFTER_MIN: Duration = Duration::from_secs(1);

/// The longest time that can be set for it.
pub const FORGET_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Range sets of a node: each is an actor with figures of its own. A node has a few.
pub const RANGE_SETS_MAX: usize = 4_096;

/// Calls of one attachment that wait for their turn.
pub const CALLS_PER_ATTACHMENT_MAX: usize = 32;

/// Calls of one network that wait while its range sets are merged.
pub const CALLS_AT_BARRIER_MAX: usize = 10_000;

/// The time for which a DEL is remembered against ADDs that started before it. A plugin process
/// waits far shorter than this for its answer.
pub const CALL_AGE_MAX: Duration = Duration::from_secs(120);

/// DELs that are remembered. Beyond it the oldest one is forgotten, and every ADD that started
/// before it is refused.
pub const TOMBSTONES_MAX: usize = 100_000;

/// Calls in progress on a node. Beyond it a call fails at once with "try again later".
pub const CALLS_IN_FLIGHT_MAX: usize = 10_000;

/// Messages in an actor's mailbox: more than the calls in flight can cause (one to assign, one to
/// undo and one to release for each range set of each call).
pub const MAILBOX_CAPACITY: usize = 1 << 20;

/// Commits that are made durable together.
pub const COMMITS_PER_GROUP_MAX: usize = 4096;

/// The shortest wait of a range set's timer.
pub const TIMER_MIN: Duration = Duration::from_millis(50);

/// The default cooldown of a released address: longer than neighbours' caches keep its old owner.
pub const COOLDOWN: Duration = Duration::from_secs(30);

/// The longest cooldown.
pub const COOLDOWN_MAX: Duration = Duration::from_secs(24 * 3600);

/// Rows in one answer of a list.
pub const ROWS_PER_PAGE_MAX: usize = 20_000;

/// The greatest age of an answer over TCP that goes through the whole of the cluster's store.
/// Strangers who ask for it again and again cost one such walk in this time.
pub const WHOLE_AGE_MAX: Duration = Duration::from_secs(2);

/// The longest time that `/healthz` waits for the coordinator.
pub const HEALTH_WAIT_MAX: Duration = Duration::from_secs(2);

/// The longest time that one write of the journal may take before the daemon counts as dead. A disk
/// that takes this long is not slow, but gone.
pub const JOURNAL_WAIT_MAX: Duration = Duration::from_secs(10);

/// The longest time after its start for which a daemon that cannot serve an ADD lets its supervisor
/// wait. It must be shorter than the supervisor's own limit (90 s in systemd), and it must end:
/// runtimes start after the daemon, and one of their containers may be the etcd that it waits for.
pub const READY_WAIT_MAX: Duration = Duration::from_secs(60);

/// The time between two looks whether an ADD could be served, until one could.
pub const READY_LOOK: Duration = Duration::from_millis(100);

/// The time for which a stopping daemon serves those who connected before its socket's file was
/// removed.
pub const SOCKET_LINGER: Duration = Duration::from_millis(100);

/// The longest answer that is read from the daemon's own socket when it is probed, in bytes.
pub const PROBE_BYTES_MAX: u64 = 4 << 10;

/// The longest time that journal entries for which no call waits may wait for the next commit, in
/// milliseconds.
pub const APPEND_WAIT_MAX: Duration = Duration::from_secs(1);

/// The time that a starting daemon waits for the cluster's store before it serves from its journal.
pub const JOIN_WAIT_MAX: Duration = Duration::from_secs(5);

/// The time between two looks whether the disk of a journal that failed takes writes again.
pub const DISK_LOOK: Duration = Duration::from_secs(1);

/// The room on the disk, in bytes, with which a journal that failed is opened again: enough for
/// thousands of calls, so that it does not fail at once.
pub const DISK_ROOM: usize = 1 << 20;

/// The longest time that a stopping daemon takes to write its records and to end its lease, in
/// milliseconds.
pub const LEAVE_WAIT_MAX: Duration = Duration::from_secs(4);

/// The record lag beyond which the status shows the waiting records.
pub const RECORD_LAG_SHOWN: Duration = Duration::from_secs(5);

/// Open connections on the socket; more wait in its backlog.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Open TCP connections.
pub const TCP_CONNECTIONS_MAX: usize = 1_000;

/// Long answers that a listener has in memory at once. One has a few MiB, and lasts until its
/// client has read it.
pub const LISTS_IN_FLIGHT_MAX: usize = 16;

/// The longest time that a request for a long answer waits for others to end.
pub const LIST_WAIT_MAX: Duration = Duration::from_secs(3);

/// The size of the pieces in which a long answer is handed on, in bytes.
pub const LIST_PIECE_BYTES: usize = 64 << 10;

/// Open files that the daemon keeps for others than clients: journal, etcd, logs, notes.
pub const FILES_KEPT: usize = 512;

/// Connections for which there is always room, even if the system gives few open files.
pub const CONNECTIONS_MIN: usize = 64;

/// With room for fewer clients of the socket than this, the daemon warns.
pub const CONNECTIONS_FEW: usize = 1_024;

/// Threads for blocking work (files, the embedded store's disk), per listener.
pub const BLOCKING_THREADS_MAX: usize = 8;

/// The longest time for a client to send the head of a request, and then again for its body.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);

/// The longest time for a client to close its end of a connection that the daemon has closed.
pub const DISCONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// The pause after a client could not be accepted, such as for lack of a file descriptor.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The longest time that the daemon takes to stop. It would be killed after 30 seconds.
pub const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(10);

/// The time between two rounds of housekeeping: folding histograms, and looking for late notes.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Longest path of a network namespace that is kept, in bytes; runtimes use about 60. A longer one
/// is never looked for.
pub const NETNS_BYTES_MAX: usize = 255;

/// The time between two looks at the network namespaces of a daemon's attachments, unless it
/// sweeps.
pub const NAMESPACES_LOOK: Duration = Duration::from_secs(60);

/// Entries of a directory that are looked at to see whether network namespaces can be seen there.
pub const NAMESPACE_SIGNS_MAX: usize = 1_000;

/// The time that an idle connection stays open.
pub const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(75);

/// Shared scopes that are kept before those without a holding are dropped.
pub const SCOPES_SHARED_MAX: usize = 10_000;

/// The time between two writes of records, while more wait than one transaction
/// takes.
pub const RECORDS_BUSY_PERIOD: Duration = Duration::from_millis(50);

/// Operations in one transaction: what etcd takes by default.
pub const TXN_OPERATIONS_MAX: usize = 128;

/// The largest block that a configuration may ask for, as the binary logarithm of its number of
/// addresses.
pub const BLOCK_LOG2_MAX: u8 = 12;

/// Keys in one read of the store; more take several.
pub const KEYS_PER_READ_MAX: usize = 2_000;

/// Keys that are looked at from a refused claim on.
pub const KEYS_PER_LOOK: usize = 400;

/// The wait before the store is asked again after it failed. It doubles with each
/// try, up to 32 times this value.
pub const STORE_RETRY: Duration = Duration::from_millis(100);

/// The wait before a node name that another daemon has is tried again.
pub const NAME_TAKEN_RETRY: Duration = Duration::from_secs(2);

/// The longest time for another node to answer a request for an address.
pub const ASK_WAIT: Duration = Duration::from_millis(1_500);

/// Nodes that are asked at once, as a binary logarithm: each round asks twice as many as the one
/// before, up to this.
pub const ASKED_AT_ONCE_LOG2_MAX: usize = 6;

/// The number of times that one search for an address reads the owners of blocks: it reads them
/// again after it has asked all owners, for as long as blocks change hands meanwhile.
pub const FIND_READS_MAX: u32 = 20;

/// Runs of addresses in one message: as many as the lists of stages, `exclude`, `reserved` and
/// gateways can cut one configuration's ranges into.
pub const RANGES_PER_MESSAGE_MAX: usize = LISTED_MAX + CUTS_MAX + 3 * RANGES_MAX;

/// Requests of other nodes that wait in one range set for blocks that are being leased or
/// transferred.
pub const QUESTIONS_WAITING_MAX: usize = 1_000;

/// The number of times that a network's key is read again when others change it at the same time.
pub const FIX_TRIES_MAX: u32 = 20;

/// The time between two attempts to reclaim blocks that the store gave to others.
pub const RECLAIM: Duration = Duration::from_secs(10);

/// The shortest time for which no new block is claimed after the store went back in time, in
/// milliseconds. In this time the nodes report the blocks that the store does not know.
pub const RESTORE_SETTLE: Duration = Duration::from_secs(60);

/// The time between two looks at the ends of the certificates for etcd: two small files are read.
pub const CERTIFICATES_LOOK: Duration = Duration::from_secs(10);

/// The time before its end in which a certificate is warned of; that of a short life is warned of
/// when a tenth of its life is left, so that it is not warned of all the time.
pub const CERTIFICATE_END_WARNED: Duration = Duration::from_secs(14 * 24 * 3600);

/// The longest wait for the end of a quarantine, which the error of a full pool names.
pub const TIME_LEFT_WAIT_MAX: Duration = Duration::from_secs(1);

/// The time between two looks at how much history etcd keeps.
pub const HISTORY_LOOK: Duration = Duration::from_secs(600);

/// The time for which etcd may keep a revision before the daemon warns that nobody compacts.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Revisions of an etcd that was never compacted with which the daemon does not wait for that.
pub const HISTORY_REVISIONS_MAX: u64 = 10_000;

/// The longest time between two writes of a node's key: a backup of the store is
/// older.
pub const TOUCH: Duration = Duration::from_secs(60);

/// The wait after a search without a result before the next search for the same.
pub const NOBODY: Duration = Duration::from_millis(200);

/// Nodes of a cluster.
pub const NODES_MAX: usize = 100_000;

/// The time between two writes of records, when no call waits for them.
pub const RECORDS_PERIOD: Duration = Duration::from_secs(1);

/// Waiting ADDs with which the next one is compared, to find one that wants the same (ranges,
/// stage, address). Beyond it, an ADD may be tried in vain.
pub const KINDS_WAITING_MAX: usize = 64;

/// Requests that no node could fulfil, remembered for a moment.
pub const WANTS_REFUSED_MAX: usize = 64;

/// The time between two searches for blocks to give back on a drained node.
pub const DRAIN_RECLAIM_IDLE: Duration = Duration::from_secs(1);

/// Endpoints of etcd in one configuration. A cluster has three or five members.
pub const ETCD_ENDPOINTS_MAX: usize = 16;

/// The longest time for one endpoint of etcd to accept a connection, and again for the TLS
/// handshake.
pub const ETCD_CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// The default of the longest time for one endpoint of etcd to answer a request. A healthy cluster
/// answers in milliseconds, one that elects a leader in one or two seconds.
pub const ETCD_ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// The shortest wait for an answer of etcd that can be configured: a busy disk, or a member far
/// away, takes some of it.
pub const ETCD_ANSWER_WAIT_SHORTEST: Duration = Duration::from_millis(100);

/// The longest wait for an answer of etcd that can be configured.
pub const ETCD_ANSWER_WAIT_LONGEST: Duration = Duration::from_secs(60);

/// The silence on a connection with an open request after which a ping is sent. etcd ends
/// connections that ping more often than every five seconds.
pub const ETCD_PING: Duration = Duration::from_secs(7);

/// The longest time for the answer to a ping before the connection is given up.
pub const ETCD_PING_WAIT_MAX: Duration = Duration::from_secs(3);

/// Largest answer of etcd, in bytes: 100,000 allocations at about 600 bytes each.
pub const ETCD_ANSWER_BYTES_MAX: usize = 64 << 20;

/// Reports of one watch that wait for their reader. Beyond it the watch waits (etcd) or lists again
/// (embedded store).
pub const WATCH_REPORTS_MAX: usize = 1_024;

/// The shortest wait before a broken watch is made again; it doubles with each failure.
pub const WATCH_PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest wait before a broken watch is made again.
pub const WATCH_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The default life of a node's etcd lease without a sign of the node.
pub const LEASE_TTL: Duration = Duration::from_secs(30);

/// The shortest life of a node's etcd lease: etcd grants none below 1.5 election timeouts, and a
/// node must have the time for several keep-alives.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(5);

/// The longest life of a node's etcd lease: the spare blocks of a dead node are lost for this time.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(3600);

/// The number of addresses that a node keeps free in its active blocks by default.
pub const WARM_ADDRESSES: u32 = 32;

/// The largest number that it can be configured to keep free.
pub const WARM_ADDRESSES_MAX: u32 = 1 << 20;

/// The shortest `offlineLimit`: a node must not stop handing out because of an election of etcd's
/// leader.
pub const OFFLINE_LIMIT_MIN: Duration = Duration::from_secs(10);

/// The longest `offlineLimit`.
pub const OFFLINE_LIMIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The default time for which no node gets the blocks of a removed node.
pub const QUARANTINE: Duration = Duration::from_secs(300);

/// The time for which the cluster still remembers the state of a node that an operator made it
/// forget.
pub const FORGOTTEN: Duration = Duration::from_secs(90 * 24 * 3600);

/// The shortest quarantine: a live node notices within a third of its lease's TTL that it was
/// removed, and must have the time to take its blocks back.
pub const QUARANTINE_MIN: Duration = Duration::from_secs(60);

/// The longest quarantine.
pub const QUARANTINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The shortest life of the lease of a block that a stopping daemon gives back: in this time a
/// restarted daemon takes it back.
pub const PARKED_MIN: Duration = Duration::from_secs(30);

/// Nodes that a message names one by one.
pub const NODES_NAMED_MAX: usize = 10;

/// Blocks that one order of a stopping daemon gives back: three orders are one transaction.
pub const PARKED_PER_ORDER_MAX: usize = 20;

/// Parked blocks that a starting daemon takes back with its registration: each takes a comparison
/// and a write, and etcd takes 128 operations. Those beyond are taken back afterwards.
pub const PARKED_PER_TXN_MAX: usize = 100;

/// Pools in which a starting daemon looks for its parked blocks before it registers: each is a
/// read. Those of others are taken back afterwards.
pub const PARKED_POOLS_MAX: usize = 16;

/// The longest time that a stopping daemon takes to give back the blocks in which nothing is held.
pub const PARK_WAIT_MAX: Duration = Duration::from_secs(3);

/// Blocks or records of a removed node in one transaction; the node's own keys are in it too.
pub const REMOVED_PER_TXN_MAX: usize = 120;

/// The number of times that an operator's change is tried again when others change the same key at
/// the same time.
pub const CHANGE_TRIES_MAX: u32 = 20;

/// Largest centrally kept `ipam` object, in bytes: etcd takes requests of 1.5 MiB.
pub const IPAM_BYTES_MAX: usize = 1 << 20;

/// The longest time that a change of a central configuration waits until this node has seen it.
pub const SEEN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Blocks of silent nodes into which one search looks, each with a read of its records.
pub const FORFEITS_READ_MAX: usize = 64;
