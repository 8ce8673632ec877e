//! Memory that a burst needed goes back to the system.
//!
//! The allocator keeps what is freed for what comes next, and by itself gives back only what is at
//! the end of its heaps: a single holding there keeps all that the others had. So it is told to
//! give back every page that is free. It stops all threads that allocate meanwhile, for some
//! milliseconds, so this is done a few times only, and when there is little else to do.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::actors::Index;
use crate::core::time::BootTime;
use crate::{clock, limits};

/// The memory of the process, as the housekeeping sees it.
#[derive(Debug)]
pub(super) struct Memory {
    rounds: Rounds,
    /// The time of the last look, and the processor time of the process by then.
    looked: BootTime,
    spent: Duration,
}

impl Memory {
    pub(super) fn new() -> Self {
        let rounds = Rounds::new(resident().unwrap_or_default());
        Self { rounds, looked: clock::boot(), spent: spent() }
    }

    /// Looks, and gives back what is free if it is time for that.
    pub(super) fn inspect(&mut self, index: &Index) {
        let Some(before) = resident() else { return };
        let (looked, spent) = (clock::boot(), spent());
        let busy =
            spent.saturating_sub(self.spent) > looked.since(self.looked) / limits::QUIET_SHARE;
        (self.looked, self.spent) = (looked, spent);
        if !self.rounds.is_due(before, busy) {
            return;
        }
        index.shrink();
        give_back();
        let after = resident().unwrap_or(before);
        self.rounds.given_back(after);
        let took = clock::boot().since(looked);
        tracing::debug!(before, after, ?took, "free memory is given back");
    }
}

/// The moments at which memory is given back. Sizes are in bytes.
#[derive(Debug)]
struct Rounds {
    /// The resident memory after it was given back last.
    rest: u64,
    /// The looks since memory has grown, if all of its looks are not over: what a burst needed is
    /// freed bit by bit, when its containers end, their addresses have cooled and their DELs are
    /// forgotten.
    since: Option<u32>,
}

impl Rounds {
    fn new(rest: u64) -> Self {
        Self { rest, since: None }
    }

    /// Returns whether memory is to be given back now. `busy`: the process has much to do, so the
    /// first looks are passed over.
    fn is_due(&mut self, resident: u64, busy: bool) -> bool {
        if resident > self.rest + limits::MEMORY_GROWN {
            (self.rest, self.since) = (resident, Some(0));
            return false;
        }
        let Some(since) = self.since.map(|since| since + 1) else { return false };
        let [.., last] = limits::MEMORY_LOOKS;
        self.since = (since < last).then_some(since);
        let is_early = busy && since < limits::MEMORY_LOOKS_BUSY;
        limits::MEMORY_LOOKS.contains(&since) && !is_early
    }

    fn given_back(&mut self, resident: u64) {
        self.rest = self.rest.min(resident);
    }
}

/// The resident memory of this process in bytes; none, if the system does not say.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// The processor time that this process has used.
fn spent() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

/// Has glibc give back all pages that are free. Other C libraries do it by themselves.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, has no conditions, and any thread may call it at any time.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The looks, of so many, at which memory is given back.
    fn due(rounds: &mut Rounds, resident: u64, busy: bool, looks: u32) -> usize {
        (0..looks).filter(|_| rounds.is_due(resident, busy)).count()
    }

    #[test]
    fn a_daemon_at_rest_leaves_its_memory_alone() {
        let mut rounds = Rounds::new(10 * MIB);
        assert_eq!(due(&mut rounds, 10 * MIB + limits::MEMORY_GROWN, false, 100), 0);
    }

    #[test]
    fn memory_is_given_back_a_few_times_after_it_has_grown() {
        let mut rounds = Rounds::new(10 * MIB);
        for grown in 2..6 {
            assert!(!rounds.is_due(grown * 10 * MIB, false), "it still grows");
        }
        assert_eq!(due(&mut rounds, 50 * MIB, false, 1_000), limits::MEMORY_LOOKS.len());
        // It comes back, and that is where the next burst begins.
        rounds.given_back(12 * MIB);
        assert!(!rounds.is_due(20 * MIB, false));
        assert!(rounds.is_due(20 * MIB, false));
    }

    #[test]
    fn a_busy_daemon_gives_back_later_but_within_a_minute() {
        let mut rounds = Rounds::new(10 * MIB);
        assert!(!rounds.is_due(50 * MIB, true));
        assert_eq!(due(&mut rounds, 50 * MIB, true, limits::MEMORY_LOOKS_BUSY - 1), 0);
        assert!(rounds.is_due(50 * MIB, true));
        assert!(limits::MEMORY_LOOKS_BUSY * limits::HOUSEKEEPING <= Duration::from_secs(60));
    }
}
