//! The trend of each range set: how fast its free addresses are used up. Free addresses are those
//! that this node has or could still lease.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::set_identity::SetId;
use crate::core::time::BootTime;
use crate::limits;

type Samples = VecDeque<(BootTime, u128)>;

/// The samples of all range sets.
#[derive(Default, Debug)]
pub struct Outlooks(Mutex<SampleLog>);

#[derive(Default, Debug)]
struct SampleLog {
    last: Option<BootTime>,
    samples: BTreeMap<SetId, Samples>,
}

/// The trend of a range set.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Outlook {
    /// Addresses that become free in an hour; below zero: that are used up.
    pub per_hour: f64,
    /// The number of seconds until none is left if it goes on like this.
    pub seconds_left: Option<u64>,
}

impl Outlooks {
    fn lock(&self) -> MutexGuard<'_, SampleLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if it is time for the next sample.
    pub fn is_due(&self, now: BootTime) -> bool {
        self.lock().last.is_none_or(|last| now.since(last) >= limits::OUTLOOK_EVERY)
    }

    /// Adds how many addresses each range set has left; others are forgotten.
    pub fn add(&self, now: BootTime, left: &BTreeMap<SetId, u128>) {
        let mut known = self.lock();
        known.last = Some(now);
        known.samples.retain(|set, _| left.contains_key(set));
        for (set, left) in left {
            let samples = known.samples.entry(*set).or_default();
            samples.truncate(limits::OUTLOOK_SAMPLES - 1);
            samples.push_front((now, *left));
        }
    }

    /// Returns the outlook of the last hour; none if the range set is not known for long enough.
    pub fn of(&self, set: SetId) -> Option<Outlook> {
        let known = self.lock();
        let samples = known.samples.get(&set)?;
        let ((now, left), (began, before)) = (samples.front()?, samples.back()?);
        let time = now.since(*began);
        if time < limits::OUTLOOK_TIME_MIN {
            return None;
        }
        #[allow(clippy::cast_precision_loss)]
        let (left, before) = (*left as f64, *before as f64);
        let per_hour = (left - before) / (time.as_secs_f64() / 3600.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let seconds_left = (per_hour < 0.0).then(|| (left / -per_hour * 3600.0) as u64);
        Some(Outlook { per_hour, seconds_left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_that_of_the_last_hour() {
        let (outlooks, set) = (Outlooks::default(), SetId::FIRST);
        let at = |minute: u64| BootTime::from_millis(minute * 60_000);
        let add = |minute: u64, left: u128| outlooks.add(at(minute), &[(set, left)].into());
        assert!(outlooks.is_due(at(0)));
        add(0, 1000);
        assert!(!outlooks.is_due(at(1)) && outlooks.is_due(at(2)));
        add(4, 900);
        assert_eq!(outlooks.of(set), None, "four minutes are a burst");
        add(6, 900);
        let trend = outlooks.of(set).unwrap();
        assert_eq!((trend.per_hour, trend.seconds_left), (-1000.0, Some(3240)));
        // An hour later only the last hour counts.
        for sample in 0..31 {
            add(60 + 2 * sample, 900);
        }
        let trend = outlooks.of(set).unwrap();
        assert_eq!((trend.per_hour, trend.seconds_left), (0.0, None));
        outlooks.add(at(200), &BTreeMap::new());
        assert_eq!(outlooks.of(set), None, "it is forgotten");
    }
}
