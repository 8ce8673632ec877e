//! Limits of what is kept and told of the past.

use std::time::Duration;

/// The number of past holdings that a node keeps. One takes about 300 bytes of the journal's file.
pub const PAST_COUNT: u64 = 20_000;

/// The most past holdings that may be kept: 300 MB, which a start reads.
pub const PAST_COUNT_MAX: u64 = 1_000_000;

/// The most past holdings that wait until they are written together.
pub const PAST_BATCH: usize = 64;

/// The longest time for which they wait.
pub const PAST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The time for which a past holding is kept.
pub const PAST_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The shortest such time that may be set.
pub const PAST_AGE_MIN: Duration = Duration::from_secs(60);
/// The longest such time that may be set.
pub const PAST_AGE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The most rows of one node in a history. A row has at most a few hundred bytes, and the answer of
/// a node is one value in the cluster's store, which takes 1.5 MB.
pub const HISTORY_ROWS_MAX: usize = 200;

/// The longest time for which a history waits for the other nodes.
pub const HISTORY_WAIT_MAX: Duration = Duration::from_secs(4);

/// The time between two samples of how much is left of a range set.
pub const OUTLOOK_EVERY: Duration = Duration::from_secs(120);

/// The number of these samples that are kept: an hour.
pub const OUTLOOK_SAMPLES: usize = 31;

/// The shortest time that a trend is taken from: less is a burst.
pub const OUTLOOK_TIME_MIN: Duration = Duration::from_secs(5 * 60);
