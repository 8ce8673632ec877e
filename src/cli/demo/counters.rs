//! The counts of the churn, and their report.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::output;

/// The number of failures that are reported in full; the others are counted.
const PROBLEMS_MAX: usize = 5;

/// The addresses that containers hold, as far as an onlooker can know: from the exit of an ADD to
/// the start of the DEL.
#[derive(Default, Debug)]
pub(super) struct Holders(Mutex<HoldersInner>);

#[derive(Default, Debug)]
struct HoldersInner {
    holder: HashMap<String, u64>,
    held: HashMap<u64, Vec<String>>,
}

impl Holders {
    /// Remembers the addresses of a container. Returns a sentence for each that another one holds.
    pub(super) fn hold(&self, container: u64, addresses: Vec<String>) -> Vec<String> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut twice = Vec::new();
        for address in &addresses {
            match inner.holder.entry(address.clone()) {
                Entry::Vacant(free) => {
                    free.insert(container);
                }
                Entry::Occupied(mut taken) => {
                    let other = taken.insert(container);
                    twice.push(format!(
                        "{address} was given to container batch-{container} while batch-{other} \
                         held it"
                    ));
                }
            }
        }
        inner.held.insert(container, addresses);
        twice
    }

    /// Forgets the addresses of a container.
    pub(super) fn let_go(&self, container: u64) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for address in inner.held.remove(&container).unwrap_or_default() {
            if inner.holder.get(&address) == Some(&container) {
                inner.holder.remove(&address);
            }
        }
    }
}

/// The calls of one command.
#[derive(Debug)]
pub(super) struct Calls {
    /// In microseconds.
    times: Histogram<u64>,
    failures: u64,
    problems: Vec<String>,
}

impl Calls {
    fn new() -> anyhow::Result<Self> {
        // Two digits, from a microsecond to two minutes: 16 KiB.
        let times = Histogram::new_with_bounds(1, 120_000_000, 2)?;
        Ok(Self { times, failures: 0, problems: Vec::new() })
    }

    /// Adds the time of a call.
    pub(super) fn add_call(&mut self, took: Duration) {
        self.times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts the last call as failed.
    pub(super) fn failed(&mut self, why: String) {
        self.failures += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(why);
        }
    }

    fn add(&mut self, other: &Self) {
        // Cannot fail: all histograms have the same bounds.
        let _ = self.times.add(&other.times);
        self.failures += other.failures;
        self.problems.extend(other.problems.iter().cloned());
        self.problems.truncate(PROBLEMS_MAX);
    }

    /// The first failures.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The calls so far.
    pub(super) fn report(&self) -> CallsReport {
        let ms = |quantile: f64| self.times.value_at_quantile(quantile) as f64 / 1e3;
        CallsReport {
            calls: self.times.len(),
            failures: self.failures,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        }
    }
}

/// The counts of one caller, or of all callers.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) adds: Calls,
    pub(super) dels: Calls,
    /// Addresses that successful ADDs printed.
    pub(super) addresses: u64,
    duplicates: u64,
    problems: Vec<String>,
}

impl Counters {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (adds, dels) = (Calls::new()?, Calls::new()?);
        Ok(Self { adds, dels, addresses: 0, duplicates: 0, problems: Vec::new() })
    }

    /// Remembers an address that was given out twice.
    pub(super) fn duplicate(&mut self, which: String) {
        self.duplicates += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(which);
        }
    }

    /// Adds the counts of another caller.
    pub(super) fn add(&mut self, other: &Self) {
        self.adds.add(&other.adds);
        self.dels.add(&other.dels);
        self.addresses += other.addresses;
        self.duplicates += other.duplicates;
        self.problems.extend(other.problems.iter().cloned());
        self.problems.truncate(PROBLEMS_MAX);
    }
}

/// The calls of one command, for the report.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallsReport {
    /// All calls, failed ones too.
    pub(super) calls: u64,
    pub(super) failures: u64,
    /// From exec to exit.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// The result of a churn.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Churn {
    callers: u64,
    seconds: f64,
    add: CallsReport,
    del: CallsReport,
    /// Addresses that were handed out.
    addresses: u64,
    addresses_per_second: f64,
    /// Addresses that were given to a container while another one held them.
    duplicates: u64,
    /// Addresses that are still held after the last DEL.
    left_over: u64,
    /// The first failures, duplicates and left-over addresses, one sentence each.
    #[serde(rename = "told")]
    problems: Vec<String>,
}

impl Churn {
    pub(super) fn new(total: &Counters, callers: u64, took: Duration, left: Vec<String>) -> Self {
        let seconds = took.as_secs_f64();
        let left_over = left.len() as u64;
        let mut problems = total.problems.clone();
        problems.extend(total.adds.problems.iter().chain(&total.dels.problems).cloned());
        problems.extend(left.into_iter().take(PROBLEMS_MAX));
        Self {
            callers,
            seconds: (seconds * 1e3).round() / 1e3,
            add: total.adds.report(),
            del: total.dels.report(),
            addresses: total.addresses,
            addresses_per_second: (total.addresses as f64 / seconds.max(1e-3)).round(),
            duplicates: total.duplicates,
            left_over,
            problems,
        }
    }

    /// Everything that was wrong.
    pub(super) fn wrong(&self) -> Vec<String> {
        let count = |count: u64, what: &str| (count > 0).then(|| format!("{what}: {count}"));
        let counts = [
            count(self.duplicates, "addresses held twice"),
            count(self.add.failures, "ADDs that failed"),
            count(self.del.failures, "DELs that failed"),
            count(self.left_over, "addresses left over"),
        ];
        counts.into_iter().flatten().chain(self.problems.iter().cloned()).collect()
    }

    /// The result as tables for people.
    pub(super) fn table(&self) -> String {
        let row = |name: &str, calls: &CallsReport| {
            vec![
                name.to_owned(),
                calls.calls.to_string(),
                calls.failures.to_string(),
                format!("{:.1} ms", calls.p50_ms),
                format!("{:.1} ms", calls.p99_ms),
            ]
        };
        let header = ["", "CALLS", "FAILURES", "P50", "P99"];
        let calls = output::table(&header, vec![row("  ADD", &self.add), row("  DEL", &self.del)]);
        let header = ["", "ADDRESSES", "PER SECOND", "DUPLICATES", "LEFT OVER"];
        let numbers = [self.addresses, self.addresses_per_second as u64, self.duplicates];
        let mut addresses = vec![format!("  in {:.1} s", self.seconds)];
        addresses.extend(numbers.iter().chain([&self.left_over]).map(ToString::to_string));
        format!("{calls}\n{}", output::table(&header, vec![addresses]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|&address| address.to_owned()).collect()
    }

    #[test]
    fn an_address_that_is_held_twice_is_found() {
        let holders = Holders::default();
        assert_eq!(holders.hold(1, held(&["10.0.0.2/24", "fd00::2/64"])), held(&[]));
        assert_eq!(holders.hold(2, held(&["10.0.0.3/24"])), held(&[]));
        let twice = "10.0.0.3/24 was given to container batch-1 while batch-2 held it";
        assert_eq!(holders.hold(1, held(&["10.0.0.3/24"])), held(&[twice]));
    }

    #[test]
    fn an_address_that_was_let_go_may_be_held_again() {
        let holders = Holders::default();
        holders.hold(1, held(&["10.0.0.2/24"]));
        holders.let_go(1);
        assert_eq!(holders.hold(2, held(&["10.0.0.2/24"])), held(&[]));
        // The old holder's end does not end the new holding.
        holders.let_go(1);
        assert_eq!(holders.hold(3, held(&["10.0.0.2/24"])).len(), 1);
    }

    #[test]
    fn a_report_says_all_that_was_wrong() {
        let mut one = Counters::new().unwrap();
        one.adds.add_call(Duration::from_millis(2));
        one.adds.failed("ADD of batch-1: why".to_owned());
        let mut all = Counters::new().unwrap();
        all.duplicate("twice".to_owned());
        all.add(&one);
        let churn = Churn::new(&all, 1, Duration::from_secs(1), held(&["left"]));
        let wrong = [
            "addresses held twice: 1",
            "ADDs that failed: 1",
            "addresses left over: 1",
            "twice",
            "ADD of batch-1: why",
            "left",
        ];
        assert_eq!(churn.wrong(), wrong);
        let none = Churn::new(&Counters::new().unwrap(), 1, Duration::from_secs(1), vec![]);
        assert_eq!(none.wrong(), held(&[]));
    }
}
