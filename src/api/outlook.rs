//! The trend of each range set: how fast containers of this node take its addresses. What those of
//! other nodes take is in their records only, which nobody lists for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::set_identity::SetId;
use crate::core::time::BootTime;
use crate::limits;

type Samples = VecDeque<(BootTime, u64)>;

/// The samples of all range sets.
#[derive(Default, Debug)]
pub struct Outlooks(Mutex<SampleLog>);

#[derive(Default, Debug)]
struct SampleLog {
    last: Option<BootTime>,
    samples: BTreeMap<SetId, Samples>,
}

impl Outlooks {
    fn lock(&self) -> MutexGuard<'_, SampleLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if it is time for the next sample.
    pub fn is_due(&self, now: BootTime) -> bool {
        self.lock().last.is_none_or(|last| now.since(last) >= limits::OUTLOOK_EVERY)
    }

    /// Adds how many addresses of each range set this node's containers hold; others are forgotten.
    pub fn add(&self, now: BootTime, held: &BTreeMap<SetId, u64>) {
        let mut known = self.lock();
        known.last = Some(now);
        known.samples.retain(|set, _| held.contains_key(set));
        for (set, held) in held {
            let samples = known.samples.entry(*set).or_default();
            samples.truncate(limits::OUTLOOK_SAMPLES - 1);
            samples.push_front((now, *held));
        }
    }

    /// Returns how many addresses became free in an hour, or below zero were taken, at the pace of
    /// the last hour; none if the range set is not known for long enough.
    pub fn of(&self, set: SetId) -> Option<f64> {
        let known = self.lock();
        let samples = known.samples.get(&set)?;
        let ((now, held), (began, before)) = (samples.front()?, samples.back()?);
        let time = now.since(*began);
        if time < limits::OUTLOOK_TIME_MIN {
            return None;
        }
        #[allow(clippy::cast_precision_loss)]
        let (held, before) = (*held as f64, *before as f64);
        Some((before - held) / (time.as_secs_f64() / 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_that_of_the_last_hour() {
        let (outlooks, set) = (Outlooks::default(), SetId::FIRST);
        let at = |minute: u64| BootTime::from_millis(minute * 60_000);
        let add = |minute: u64, held: u64| outlooks.add(at(minute), &[(set, held)].into());
        assert!(outlooks.is_due(at(0)));
        add(0, 800);
        assert!(!outlooks.is_due(at(1)) && outlooks.is_due(at(2)));
        add(4, 900);
        assert_eq!(outlooks.of(set), None, "four minutes are a burst");
        add(6, 900);
        assert_eq!(outlooks.of(set), Some(-1000.0));
        // An hour later only the last hour counts.
        for sample in 0..31 {
            add(60 + 2 * sample, 900);
        }
        assert_eq!(outlooks.of(set), Some(0.0));
        outlooks.add(at(200), &BTreeMap::new());
        assert_eq!(outlooks.of(set), None, "it is forgotten");
    }
}
