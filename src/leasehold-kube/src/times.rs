//! The only file that asks for the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A moment by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Now {
    /// Milliseconds since 1970, to be compared with what other instances wrote.
    pub(crate) unix_ms: u64,
    /// The time since the boot, which nobody can set.
    pub(crate) up: Duration,
}

/// Returns the time since the boot. The time of a suspended machine counts: its Lease ends too.
pub(crate) fn up() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Returns the present moment.
pub(crate) fn now() -> Now {
    Now { unix_ms: as_millis(unix()), up: up() }
}

/// Returns the moment after which nothing is waited for.
pub(crate) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}

/// Returns the time since 1970.
pub(crate) fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns a duration in whole milliseconds.
pub(crate) fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
