//! Reads the system's clocks; no other module does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::core::time::{BootTime, StartTime, UnixTime};
use crate::limits;

/// The present time, in nanoseconds on the boot clock (`CLOCK_BOOTTIME`).
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    secs.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default()
}

/// The present time, to be compared with the start of a plugin's process.
pub fn start() -> StartTime {
    StartTime::from_nanos(boot_ns())
}

/// The present time on the boot clock.
pub fn boot() -> BootTime {
    BootTime::from_millis(boot_ns() / 1_000_000)
}

/// The present time since 1970. It is for people only; no decision depends on it.
pub fn unix() -> UnixTime {
    UnixTime::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Formats a time as RFC 3339, in UTC.
pub fn rfc3339(time: UnixTime) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(time.as_millis());
    humantime::format_rfc3339_millis(time).to_string()
}

/// Reads a time in the form of RFC 3339.
///
/// # Errors
/// The text is no such time, or one before 1970; the error says which.
pub fn parse_rfc3339(text: &str) -> Result<UnixTime, String> {
    let time = humantime::parse_rfc3339(text).map_err(|error| error.to_string())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "before 1970")?;
    Ok(UnixTime::EPOCH + since)
}

/// Returns whether this time, as the system keeps it for a file, is of this boot. It is for files
/// of others, which have no other time.
pub fn is_of_this_boot(time: SystemTime) -> bool {
    let boot = SystemTime::now().checked_sub(Duration::from_nanos(boot_ns()));
    // The clock may have been set a little since.
    boot.is_none_or(|boot| time + limits::CLOCK_SET_MAX >= boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_written_and_read() {
        for millis in [0, 1, 1_700_000_000_123, u64::MAX] {
            let time = UnixTime::from_millis(millis);
            assert_eq!(parse_rfc3339(&rfc3339(time)), Ok(time));
        }
        let last = rfc3339(UnixTime::from_millis(u64::MAX));
        assert_eq!(last, "9999-12-31T23:59:59.999Z");
        assert!(parse_rfc3339("1969-12-31T23:59:59Z").is_err());
    }
}
