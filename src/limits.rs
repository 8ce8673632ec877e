//! Every limit and every period, by name. Past a limit there is a typed error, never a hang.

use std::time::Duration;

/// Largest request body on the socket, in bytes. A configuration is about 1 KiB, a CNI GC of a
/// full node (250 pods) about 30 KiB, an array of 64 calls about 64 KiB.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// Largest standard input that the plugin reads, in bytes: what the daemon would take, less room
/// for the envelope.
pub const STDIN_BYTES_MAX: usize = BODY_BYTES_MAX - (1 << 20);

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

/// How long the plugin waits for the daemon's answer to one call. Longer than any wait inside the
/// daemon, shorter than the minute that runtimes give to a DEL.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(50);

/// ADDs that wait for a block, per range set.
pub const ASSIGNS_WAITING_MAX: usize = 10_000;

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
pub const SWEEP_MS: u64 = 30_000;

/// Largest answer that the plugin and the commands read from the daemon, in bytes, head included.
/// A listing of 60,000 allocations at 200 bytes each is 12 MB.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Largest head (status line and headers) of an answer, in bytes. The daemon's is about 100.
pub const ANSWER_HEAD_BYTES_MAX: usize = 16 << 10;

/// Notes (DELs that no daemon took) that may wait in one directory. A node churning 20 containers
/// a second fills it in about an hour without its daemon; a note is about 2 KiB.
pub const NOTES_MAX: usize = 65_536;

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

/// Open connections on the socket; more wait in its backlog.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Open TCP connections.
pub const TCP_CONNECTIONS_MAX: usize = 1_000;

/// Threads for work that waits (files, the embedded store's disk), per listener.
pub const BLOCKING_THREADS_MAX: usize = 8;

/// How long a client may take to send the head of a request, and then its body.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long the daemon takes to stop. Less than the 30 seconds after which it would be killed.
pub const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often histograms are folded and late notes are looked for.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// How often a starting daemon tries to become its node's newest.
pub const REGISTER_TRIES_MAX: usize = 10;

/// How long an idle connection stays open.
pub const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(75);

/// Names of networks and interfaces that are kept once for all holdings, before those that are not
/// used any more are dropped.
pub const NAMES_SHARED_MAX: usize = 10_000;
