//! The measurements and their meaning: series of calls, ratios of them, counts.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// The longest time of one call that is distinguished from longer ones, in nanoseconds: a minute.
const TOOK_NS_MAX: u64 = 60_000_000_000;

/// Times of calls, in nanoseconds.
pub(super) type Times = Histogram<u64>;

/// Room for the times of calls.
///
/// # Errors
/// Never with these bounds.
pub(super) fn times() -> anyhow::Result<Times> {
    Ok(Histogram::new_with_bounds(1, TOOK_NS_MAX, 3)?)
}

/// Adds the time of one call.
pub(super) fn add_time(times: &mut Times, took: Duration) {
    times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
}

/// The calls of one contender in one case, round by round.
#[derive(Debug)]
pub(super) struct Series {
    mode: &'static str,
    case: String,
    contender: String,
    /// The median time of a call in nanoseconds, and calls per second, of each round.
    rounds: Vec<(f64, f64)>,
    all: Times,
}

impl Series {
    pub(super) fn new(
        mode: &'static str,
        case: impl Into<String>,
        contender: impl Into<String>,
    ) -> anyhow::Result<Self> {
        let (case, contender) = (case.into(), contender.into());
        Ok(Self { mode, case, contender, rounds: Vec::new(), all: times()? })
    }

    /// Adds a round: its calls, and the time that all of them took together.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn round(&mut self, calls: &Times, took: Duration) -> anyhow::Result<()> {
        let rate = calls.len() as f64 / took.as_secs_f64();
        self.rounds.push((calls.value_at_quantile(0.5) as f64, rate));
        Ok(self.all.add(calls)?)
    }

    /// Calls per second, of each round.
    pub(super) fn per_second(&self) -> Spread {
        self.rounds.iter().map(|&(_, rate)| rate).collect()
    }

    /// The median time of a call in microseconds, of each round.
    pub(super) fn medians_us(&self) -> Spread {
        self.rounds.iter().map(|&(took, _)| took / 1000.0).collect()
    }

    /// The time of a call here divided by that of `other`, by the medians of each round.
    pub(super) fn slower_than(&self, other: &Self) -> Spread {
        self.compare(other, |(took, _)| took)
    }

    /// The calls per second here divided by those of `other`, in each round.
    pub(super) fn more_than(&self, other: &Self) -> Spread {
        self.compare(other, |(_, rate)| rate)
    }

    fn compare(&self, other: &Self, figure: impl Fn((f64, f64)) -> f64) -> Spread {
        let rounds = self.rounds.iter().zip(&other.rounds);
        rounds.map(|(&ours, &theirs)| figure(ours) / figure(theirs)).collect()
    }

    #[allow(clippy::cast_precision_loss)]
    fn measurement(&self) -> Measurement {
        let micros = |quantile| self.all.value_at_quantile(quantile) as f64 / 1000.0;
        let rates = self.per_second();
        Measurement {
            mode: self.mode,
            case: self.case.clone(),
            contender: self.contender.clone(),
            rounds: self.rounds.len(),
            calls: self.all.len(),
            per_second: rates.median,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: self.all.max() as f64 / 1000.0,
        }
    }
}

/// A figure of several rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    /// The figure multiplied by a factor.
    pub(super) fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, low: self.low * by, high: self.high * by }
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<T: IntoIterator<Item = f64>>(figures: T) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |at: usize| figures.get(at).copied().unwrap_or(f64::NAN);
        let last = figures.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { median, low: at(0), high: at(last) }
    }
}

impl From<f64> for Spread {
    fn from(figure: f64) -> Self {
        Self { median: figure, low: figure, high: figure }
    }
}

/// The value that a finding should have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// The finding has no target.
    None,
}

impl Target {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::None => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {}", short(*most)),
            Self::AtLeast(least) => write!(f, "at least {}", short(*least)),
            Self::None => Ok(()),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            _ => serializer.collect_str(self),
        }
    }
}

/// The calls of one contender in one case, all rounds together. Times are in microseconds.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measurement {
    pub(super) mode: &'static str,
    pub(super) case: String,
    pub(super) contender: String,
    rounds: usize,
    pub(super) calls: u64,
    /// The median of the rounds.
    per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    max_us: f64,
}

/// A ratio or a count, and whether it meets its target.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct Finding {
    mode: &'static str,
    what: String,
    /// The median of the rounds.
    value: f64,
    low: f64,
    high: f64,
    unit: &'static str,
    target: Target,
    met: Option<bool>,
}

/// All results of a run.
#[derive(Serialize, Default, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    version: &'static str,
    /// Processors that this program may use.
    cores: usize,
    pub(super) quick: bool,
    /// The plugin that was run, if one was.
    pub(super) plugin: Option<String>,
    pub(super) measurements: Vec<Measurement>,
    findings: Vec<Finding>,
    /// The parts that were not measured, each with the cause.
    skipped: Vec<String>,
}

impl Report {
    pub(super) fn new(quick: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self { version: env!("CARGO_PKG_VERSION"), cores, quick, ..Self::default() }
    }

    pub(super) fn series<'a>(&mut self, series: impl IntoIterator<Item = &'a Series>) {
        self.measurements.extend(series.into_iter().map(Series::measurement));
    }

    /// Adds a finding; `unit`: "times", "bytes" and the like, or nothing for a mere number.
    pub(super) fn find(
        &mut self,
        mode: &'static str,
        what: impl Into<String>,
        value: impl Into<Spread>,
        unit: &'static str,
        target: Target,
    ) {
        let Spread { median: value, low, high } = value.into();
        let met = target.is_met(value);
        self.findings.push(Finding {
            mode,
            what: what.into(),
            value,
            low,
            high,
            unit,
            target,
            met,
        });
    }

    pub(super) fn skip(&mut self, what: impl Into<String>) {
        self.skipped.push(what.into());
    }

    /// Two tables and a list.
    pub(super) fn table(&self) -> String {
        let rows = self.measurements.iter().map(Measurement::row).collect();
        let header =
            ["MODE", "CASE", "CONTENDER", "CALLS", "PER S", "P50 US", "P99", "P99.9", "MAX"];
        let mut text = crate::cli::output::table(&header, rows);
        text.push('\n');
        if let Some(plugin) = &self.plugin {
            text.push_str(&format!("plugin: {plugin}\n\n"));
        }
        let rows = self.findings.iter().map(Finding::row).collect();
        let header = ["MODE", "FINDING", "VALUE", "ROUNDS", "TARGET", "MET"];
        text.push_str(&crate::cli::output::table(&header, rows));
        for skipped in &self.skipped {
            text.push_str(&format!("\nNot measured: {skipped}\n"));
        }
        text
    }
}

impl Measurement {
    fn row(&self) -> Vec<String> {
        let figures = [self.per_second, self.p50_us, self.p99_us, self.p999_us, self.max_us];
        let mut row = vec![self.mode.to_owned(), self.case.clone(), self.contender.clone()];
        row.push(self.calls.to_string());
        row.extend(figures.map(short));
        row
    }
}

impl Finding {
    fn row(&self) -> Vec<String> {
        let rounds = if self.low < self.high {
            format!("{} to {}", short(self.low), short(self.high))
        } else {
            String::new()
        };
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let value = format!("{} {}", short(self.value), self.unit);
        let mode = self.mode.to_owned();
        vec![mode, self.what.clone(), value, rounds, self.target.to_string(), met.to_owned()]
    }
}

/// A figure with three significant digits.
fn short(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 || figure.fract() == 0.0 => format!("{figure:.0}"),
        size if size >= 9.995 => format!("{figure:.1}"),
        size if size >= 0.0995 => format!("{figure:.2}"),
        _ => format!("{figure:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds() {
        let spread: Spread = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 2.0, 3.0));
        let even: Spread = [4.0, 1.0].into_iter().collect();
        assert_eq!(even.median, 2.5);
    }

    #[test]
    fn rounds_are_compared_with_the_same_round_of_the_other() {
        let round = |series: &mut Series, nanos: u64, took: u64| {
            let mut calls = times().unwrap();
            calls.record_n(nanos, 10).unwrap();
            series.round(&calls, Duration::from_secs(took)).unwrap();
        };
        let (mut a, mut b) =
            (Series::new("m", "c", "a").unwrap(), Series::new("m", "c", "b").unwrap());
        for noise in [1, 10, 1] {
            round(&mut a, 100 * noise, noise);
            round(&mut b, 400 * noise, 2 * noise);
        }
        let spread = b.slower_than(&a);
        assert!((spread.low - 4.0).abs() < 0.02 && (spread.high - 4.0).abs() < 0.02, "{spread:?}");
        assert!((a.more_than(&b).median - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_target_is_met_or_not() {
        assert_eq!(Target::AtMost(1.25).is_met(1.25), Some(true));
        assert_eq!(Target::AtMost(1.25).is_met(1.26), Some(false));
        assert_eq!(Target::AtLeast(4.0).is_met(3.9), Some(false));
        assert_eq!(Target::None.is_met(1.0), None);
    }

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 0.000_21, 0.5, 1.254, 12.34, 456.7, 12_345.6, 4.0].map(short);
        assert_eq!(shown, ["0", "0.00021", "0.50", "1.25", "12.3", "457", "12346", "4"]);
    }
}
