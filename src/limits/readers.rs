//! Limits of readers of lists, and of files that are read.

use std::time::Duration;

/// Holdings that a reader takes over while it has the lock of the lists: a few microseconds' work.
pub const HOLDINGS_PER_LOCK_MAX: usize = 256;

/// The nice value of the threads that make long answers, and of the one that serves TCP. They give
/// way to others, and beside a busy program they still have a quarter of a processor, so that lists
/// come.
pub const READER_NICE: i32 = 5;

/// Threads for what that thread has to wait for, such as a look at network namespaces.
pub const READER_BLOCKING_THREADS_MAX: usize = 2;

/// Blocks that a list takes from a range set at a time, while its calls wait.
pub const BLOCKS_PER_LOOK_MAX: usize = 256;

/// Changes that a call takes over into the lists, beside its own, after readers kept it from doing
/// so.
pub const CHANGES_PER_CALL_MAX: usize = 8;

/// The token of the TCP listener, in bytes: long enough not to be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;

/// The longest file with that token, in bytes.
pub const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// The longest file with the id of a boot, in bytes.
pub const BOOT_ID_BYTES_MAX: u64 = 256;

/// The longest file with the central configurations, in bytes.
pub const NETWORKS_FILE_BYTES_MAX: u64 = 256 << 20;

/// The longest file with a certificate, a key or a password, in bytes.
pub const PEM_BYTES_MAX: u64 = 4 << 20;

/// The largest list of what another plugin holds, in bytes: a pool of 100,000 containers has 20 MB.
pub const IMPORT_BYTES_MAX: usize = 64 << 20;

/// The longest configuration file of the daemon, in bytes. A usual one has less than 2 KiB.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The longest program that is installed, in bytes: far more than any of ours has.
pub const PROGRAM_BYTES_MAX: usize = 256 << 20;

/// Containers that one request takes over from another plugin: each with its whole configuration.
pub const IMPORTED_PER_REQUEST_MAX: usize = 256;

/// Files in host-local's directory of one network.
pub const FOREIGN_FILES_MAX: usize = 100_000;

/// The longest file of host-local that is read, in bytes: a container and an interface.
pub const FOREIGN_FILE_BYTES_MAX: u64 = 1024;

/// The age from which a directory of host-local counts as unchanged if its time is: more than the
/// resolution of that time on any file system.
pub const FOREIGN_FRESH: Duration = Duration::from_secs(2);

/// Files of host-local that could not be removed, and count no longer.
pub const SETTLED_MAX: usize = 10_000;

/// The longest file with these, in bytes: a path has a network's name and an address.
pub const SETTLED_FILE_BYTES_MAX: u64 = 10_000 * 1024;

/// The longest file with the networks that are admitted, in bytes: as many names as there can be.
pub const ADMITTED_FILE_BYTES_MAX: u64 = 2 << 20;

/// Directories of network namespaces that are known. A node has one for each of its runtimes.
pub const PLACES_MAX: usize = 64;

/// The longest file with these directories, in bytes.
pub const PLACES_FILE_BYTES_MAX: u64 = 512 << 10;

/// Networks whose keys without effect are remembered, so that each is told of once.
pub const WARNED_NETWORKS_MAX: usize = 4096;

/// The time between two counts of what all nodes hold, for the address map, as a multiple of the
/// time that the last one took: however large the cluster, looking at it takes a twentieth of a
/// reader's time.
pub const MAP_REST: u32 = 20;

/// The longest time for such a count, beyond which the last one is shown.
pub const MAP_COUNT_MAX: Duration = Duration::from_secs(15);

/// The longest text that allocations are searched for, in bytes: as long as a container's id in
/// full, and a pod's name with its namespace.
pub const SEARCH_BYTES_MAX: usize = 512;

/// Events about blocks that are kept for the page, in memory.
pub const BLOCK_EVENTS_KEPT_MAX: usize = 200;

/// Other events that are kept.
pub const EVENTS_KEPT_MAX: usize = 200;

/// The time within which the same event again is counted instead of kept.
pub const EVENT_AGAIN: Duration = Duration::from_secs(60);

/// The time between two points of the curve of fill.
pub const TREND_EVERY: Duration = Duration::from_secs(10);

/// Points of a curve: an hour.
pub const TREND_POINTS_MAX: usize = 360;

/// Networks with a curve. A point takes 64 bytes.
pub const TREND_POOLS_MAX: usize = 64;

/// Blocks that a line of the log names one by one.
pub const BLOCKS_NAMED_MAX: usize = 20;
