//! Limits of checks, and of what they have released.

use std::time::Duration;

/// Findings that one report lists; it counts those beyond.
pub const FINDINGS_MAX: usize = 2_000;

/// Findings that the check of a whole cluster lists for each other node. Their answer is one value
/// in the cluster's store, which takes 1.5 MB.
pub const FINDINGS_PER_NODE_MAX: usize = 200;

/// Records in no block of their node that the check of a whole cluster has the other nodes look at:
/// their keys are one value in the cluster's store, too.
pub const STRAYS_MAX: usize = 5_000;

/// The longest time for which the check of a whole cluster waits for the other nodes, and a release
/// of what it found.
pub const PEERS_CHECK_WAIT: Duration = Duration::from_secs(20);

/// Questions of other nodes that are answered at once.
pub const PEER_QUESTIONS_MAX: usize = 4;

/// Blocks or addresses that one finding names.
pub const NAMED_PER_FINDING_MAX: usize = 20;

/// Findings in one request to release them, so that the request fits the largest body.
pub const FINDINGS_PER_REQUEST_MAX: usize = 250;

/// Records of attachments with several addresses that a check compares with each other.
pub const RECORDS_COMPARED_MAX: usize = 1_000_000;

/// The shortest time that a check waits before it reads the cluster's store again.
pub const CHECK_PAUSE: Duration = Duration::from_millis(500);

/// The longest time that a check waits for records that lag.
pub const CHECK_LAG_MAX: Duration = Duration::from_secs(6);

/// The longest time of a check. It reads everything in the cluster's store, twice if necessary.
pub const CHECK_WAIT_MAX: Duration = Duration::from_secs(60);

/// The shortest time from the check of a whole cluster to the next one, over TCP: a client there
/// does not keep all nodes busy.
pub const CHECK_OF_ALL_REST: Duration = Duration::from_secs(10);
