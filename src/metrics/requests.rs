//! The counters of calls. To find a series by its labels takes a tenth of the time of a call, so
//! each thread keeps those that it used last.

use std::collections::BTreeMap;

use metrics::{Counter, Histogram};

use super::Took;
use crate::core::time::BootTime;
use crate::{clock, limits};

/// The series that a thread used last.
#[derive(Default)]
pub(super) struct LastUsed {
    /// The number of times that series were removed before these were found.
    removals: u64,
    /// The time from which they are found anew: those of a network that is used must not look
    /// unused.
    until: Option<BootTime>,
    /// By network and verb, with the result that each counts. Calls without a network have an empty
    /// name.
    requests: BTreeMap<Box<str>, Vec<(&'static str, &'static str, Counter)>>,
    /// By verb, and by whether the call waited for a block.
    seconds: Vec<((&'static str, bool), Histogram)>,
}

impl LastUsed {
    /// Forgets series that may be gone. `removals`: how often any was removed.
    pub(super) fn refresh(&mut self, removals: u64) {
        let now = clock::boot();
        if removals != self.removals || self.until.is_none_or(|until| until <= now) {
            self.requests.clear();
            (self.removals, self.until) = (removals, Some(now + limits::SERIES_FOUND_ANEW));
        }
    }

    /// Counts a call; `find` finds the counter by its labels.
    pub(super) fn count(
        &mut self,
        network: &str,
        verb: &'static str,
        result: &'static str,
        find: impl FnOnce() -> Counter,
    ) {
        let found = self.requests.get(network).into_iter().flatten();
        let mut fitting = found.filter(|of| (of.0, of.1) == (verb, result));
        if let Some((_, _, counter)) = fitting.next() {
            return counter.increment(1);
        }
        let counter = find();
        counter.increment(1);
        // All who may call the daemon can invent networks.
        if self.requests.len() < limits::NETWORKS_SHOWN_MAX {
            self.requests.entry(network.into()).or_default().push((verb, result, counter));
        }
    }

    /// Records the time of a call; `find` finds the histogram by its labels.
    pub(super) fn time(
        &mut self,
        verb: &'static str,
        took: Took,
        find: impl FnOnce() -> Histogram,
    ) {
        let place = (verb, took.waited);
        if let Some((_, histogram)) = self.seconds.iter().find(|of| of.0 == place) {
            return histogram.record(took.time);
        }
        let histogram = find();
        histogram.record(took.time);
        self.seconds.push((place, histogram));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_was_removed_is_found_anew() {
        let mut last_used = LastUsed::default();
        let mut found = 0;
        let mut count = |last_used: &mut LastUsed, removals, network: &str| {
            last_used.refresh(removals);
            last_used.count(network, "ADD", "ok", || {
                found += 1;
                Counter::noop()
            });
            found
        };
        assert_eq!(count(&mut last_used, 0, "pods"), 1);
        assert_eq!(count(&mut last_used, 0, "other"), 2);
        assert_eq!(count(&mut last_used, 1, "pods"), 3, "one was removed");
        assert_eq!(count(&mut last_used, 1, "pods"), 3, "and none since");
    }
}
