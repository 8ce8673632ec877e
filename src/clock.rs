//! Reads the system's clocks; no other module does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::core::Millis;

/// The present time, in nanoseconds on the boot clock (`CLOCK_BOOTTIME`).
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    secs.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default()
}

/// The present time, in milliseconds on the boot clock.
pub fn boot_ms() -> Millis {
    boot_ns() / 1_000_000
}

/// The present time, in milliseconds since 1970. It is for people only; no decision depends on it.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Formats milliseconds since 1970 as RFC 3339, in UTC.
pub fn rfc3339(unix_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}
