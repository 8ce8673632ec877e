//! Points in time on the clocks that Leasehold knows, as types that cannot be mixed up: one
//! minus the other, or compared with it, does not compile. A span of time is a [`Duration`].

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::Duration;

/// A time on the boot clock (`CLOCK_BOOTTIME`), in whole milliseconds since the boot. The clock
/// runs on while the machine sleeps, and starts again with each boot. It never goes backwards
/// between two inputs to one machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BootTime(u64);

impl BootTime {
    /// The boot.
    pub const BOOT: Self = Self(0);

    /// Returns the time so many milliseconds after the boot.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the number of milliseconds since the boot.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the time since an earlier one; nothing, if that one is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time so long before this one; none, if there was no boot yet.
    pub fn before(self, span: Duration) -> Option<Self> {
        self.0.checked_sub(millis(span)).map(Self)
    }
}

/// The time so long after this one, in whole milliseconds; the last one there is, if that would be
/// later.
impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(millis(wait)))
    }
}

/// The time at which something began, in nanoseconds on the boot clock: a plugin process, by which
/// calls of one attachment are told apart, or a piece of work. A time before the boot's first
/// nanosecond counts as that one, so that `Option<StartTime>` is as small as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct StartTime(NonZeroU64);

impl StartTime {
    /// The first time there is: no process starts so early.
    pub const BOOT: Self = Self(NonZeroU64::MIN);

    /// Returns the time so many nanoseconds after the boot.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN))
    }

    /// Returns the number of nanoseconds since the boot.
    pub fn as_nanos(self) -> u64 {
        self.0.get()
    }

    /// Returns the time since an earlier one; nothing, if that one is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.as_nanos().saturating_sub(earlier.as_nanos()))
    }
}

/// The number of milliseconds from 1970 to the end of the year 9999, the last one that RFC 3339
/// can write.
const LAST_UNIX_MS: u64 = 253_402_300_799_999;

/// A time since 1970, in whole milliseconds: for people, and for what outlives a boot. It may jump.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The beginning of 1970.
    pub const EPOCH: Self = Self(0);

    /// Returns the time so many milliseconds after the beginning of 1970. Times later than the year
    /// 9999 count as its last millisecond, so that every time can be written.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(LAST_UNIX_MS))
    }

    /// Returns the number of milliseconds since the beginning of 1970.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the time so long before this one; the first one there is, if that would be earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// Returns the time since an earlier one; nothing, if that one is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The time so long after this one, in whole milliseconds; the last one there is, if that would be
/// later.
impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(wait)))
    }
}

/// Returns whole milliseconds; as many as there can be, if there are more.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_last_time() {
        let last = UnixTime::from_millis(u64::MAX);
        assert_eq!(last + Duration::MAX, last);
        assert_eq!(UnixTime::EPOCH.since(last), Duration::ZERO);
        let last = BootTime::from_millis(u64::MAX);
        assert_eq!(last + Duration::MAX, last);
    }

    #[test]
    fn a_start_is_at_least_a_nanosecond_after_the_boot() {
        let [first, later] = [0, 8].map(StartTime::from_nanos);
        assert_eq!((first.as_nanos(), later.as_nanos()), (1, 8));
        assert_eq!(
            (later.since(first), first.since(later)),
            (Duration::from_nanos(7), Duration::ZERO)
        );
        assert_eq!(size_of::<Option<StartTime>>(), size_of::<u64>());
    }

    #[test]
    fn nothing_is_before_the_boot() {
        let now = BootTime::from_millis(7);
        assert_eq!(now.before(Duration::from_millis(7)), Some(BootTime::BOOT));
        assert_eq!(now.before(Duration::from_millis(8)), None);
        assert_eq!(BootTime::BOOT.since(now), Duration::ZERO);
    }
}
