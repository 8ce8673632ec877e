//! The series of all metrics. Those of a network are apart from the others, and those of each
//! family in it too, so that they can go when nobody uses it any longer: networks come and go for
//! as long as a daemon lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::catalogue::METRICS;
use crate::core::time::BootTime;
use crate::{clock, limits};

/// Upper bounds of latency buckets in seconds, from 50 microseconds: an ADD takes about 100.
const LATENCY_BUCKETS: [f64; 17] = [
    50e-6, 75e-6, 100e-6, 150e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3,
    250e-3, 500e-3, 1.0, 5.0,
];

/// The series of the process.
#[derive(Clone)]
pub struct Series(Arc<Inner>);

struct Inner {
    /// The series that belong to no network.
    others: PrometheusRecorder,
    /// The figures of range sets, as they were at the last look.
    pools: Mutex<Option<PrometheusRecorder>>,
    networks: Mutex<Networks>,
    /// [`Networks::removals`].
    removals: Arc<AtomicU64>,
}

/// The series of all networks.
#[derive(Default)]
struct Networks {
    /// The series of each network, by their label `family`; empty for series without it.
    series: BTreeMap<Box<str>, BTreeMap<Box<str>, OfNetwork>>,
    /// The networks whose calls are counted under their names.
    named: BTreeSet<Box<str>>,
    /// The number of times that series were removed.
    removals: Arc<AtomicU64>,
}

/// The series of a family of a network.
struct OfNetwork {
    recorder: PrometheusRecorder,
    /// The open range sets that they are about.
    range_sets: usize,
    used: BootTime,
}

/// An empty recorder.
pub(super) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let suffix = Matcher::Suffix("_duration_seconds".to_owned());
    Ok(PrometheusBuilder::new().set_buckets_for_metric(suffix, &LATENCY_BUCKETS)?.build_recorder())
}

fn label<'a>(key: &'a Key, name: &str) -> Option<&'a str> {
    key.labels().find(|label| label.key() == name).map(metrics::Label::value)
}

impl Series {
    /// Creates an empty set of series.
    ///
    /// # Errors
    /// The buckets are wrong.
    pub fn new() -> Result<Self, BuildError> {
        let networks = Networks::default();
        let (others, removals) = (recorder()?, networks.removals.clone());
        let (pools, networks) = (Mutex::default(), Mutex::new(networks));
        Ok(Self(Arc::new(Inner { others, pools, networks, removals })))
    }

    /// Returns the number of times that series were removed: handles from before count in nothing.
    pub(super) fn removals(&self) -> u64 {
        self.0.removals.load(Ordering::Acquire)
    }

    /// Shows these figures of range sets instead of the ones before.
    pub(super) fn show_pools(&self, pools: PrometheusRecorder) {
        *self.0.pools.lock().unwrap_or_else(PoisonError::into_inner) = Some(pools);
    }

    fn networks(&self) -> MutexGuard<'_, Networks> {
        self.0.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a series where it belongs.
    fn place<R>(&self, key: &Key, register: impl Fn(&PrometheusRecorder) -> R) -> R {
        let Some(network) = label(key, "network") else { return register(&self.0.others) };
        let family = label(key, "family").unwrap_or_default();
        let mut networks = self.networks();
        if let Some(of) = networks.series.get_mut(network).and_then(|of| of.get_mut(family)) {
            of.used = clock::boot();
            return register(&of.recorder);
        }
        networks.forget_unused();
        let Ok(recorder) = recorder() else { return register(&self.0.others) };
        let registered = register(&recorder);
        let of = OfNetwork { recorder, range_sets: 0, used: clock::boot() };
        networks.series.entry(network.into()).or_default().insert(family.into(), of);
        registered
    }

    /// Remembers that a range set with these labels has opened, or that it has ended: with the last
    /// one of a family go its series, and with the last one of a network all others.
    pub(super) fn count(&self, network: &str, family: &str, opened: bool) {
        let mut networks = self.networks();
        let Some(families) = networks.series.get_mut(network) else { return };
        let Some(of) = families.get_mut(family) else { return };
        of.range_sets = if opened { of.range_sets + 1 } else { of.range_sets.saturating_sub(1) };
        if of.range_sets == 0 {
            families.remove(family);
            if families.values().all(|of| of.range_sets == 0) {
                networks.series.remove(network);
            }
            networks.removals.fetch_add(1, Ordering::Release);
            networks.forget_names();
        }
    }

    /// Returns whether calls of a network are counted under its name: all who may call the daemon
    /// can invent networks, so not more than [`limits::NETWORKS_SHOWN_MAX`] are. `begin` registers
    /// the series of a network that is new.
    pub(super) fn names(&self, network: &str, begin: impl FnOnce()) -> bool {
        let networks = self.networks();
        let known = networks.named.contains(network);
        if known || networks.named.len() >= limits::NETWORKS_SHOWN_MAX {
            return known;
        }
        drop(networks);
        begin();
        self.networks().named.insert(network.into());
        true
    }

    /// Sorts in what histograms were given, and forgets the series that nobody uses.
    pub fn upkeep(&self) {
        self.0.others.handle().run_upkeep();
        let mut networks = self.networks();
        networks.forget_unused();
        for of in networks.series.values().flat_map(BTreeMap::values) {
            of.recorder.handle().run_upkeep();
        }
    }

    /// Returns all series in the text format of Prometheus.
    pub fn render(&self) -> String {
        let handles: Vec<PrometheusHandle> = {
            let mut networks = self.networks();
            networks.forget_unused();
            let all = networks.series.values().flat_map(BTreeMap::values);
            all.map(|of| of.recorder.handle()).collect()
        };
        let pools = self.0.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = pools.as_ref().map(PrometheusRecorder::handle);
        let others = std::iter::once(self.0.others.handle()).chain(pools);
        let texts: Vec<String> = others.chain(handles).map(|of| of.render()).collect();
        together(&texts)
    }
}

impl Networks {
    /// Forgets the series of networks that have no range set and were not used for a while.
    fn forget_unused(&mut self) {
        let (now, before) = (clock::boot(), self.series.len());
        self.series.retain(|_, families| {
            let range_sets: usize = families.values().map(|of| of.range_sets).sum();
            let used = families.values().map(|of| of.used).max();
            range_sets > 0 || used.is_some_and(|used| now.since(used) < limits::SERIES_KEPT)
        });
        if self.series.len() < before {
            self.removals.fetch_add(1, Ordering::Release);
        }
        self.forget_names();
    }

    fn forget_names(&mut self) {
        self.named.retain(|network| self.series.contains_key(network));
    }
}

/// Puts several texts in Prometheus' format together: all samples of a metric come one after the
/// other, below one description.
fn together(texts: &[String]) -> String {
    let mut metrics: BTreeMap<&str, (&str, Vec<&str>)> = BTreeMap::new();
    let mut helps: BTreeMap<&str, &str> = BTreeMap::new();
    for text in texts {
        let mut name = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((of, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
                helps.insert(of, help);
            } else if let Some(of) = line.strip_prefix("# TYPE ") {
                name = of.split(' ').next().unwrap_or_default();
                metrics.entry(name).or_insert((line, Vec::new()));
            } else if let Some((_, samples)) = metrics.get_mut(name) {
                samples.push(line);
            }
        }
    }
    let mut text = String::with_capacity(texts.iter().map(String::len).sum());
    for (name, (kind, samples)) in metrics {
        let ours = || METRICS.iter().find(|metric| metric.name == name).map(|metric| metric.help);
        if let Some(help) = helps.get(name).copied().or_else(ours) {
            text.extend(["# HELP ", name, " ", help, "\n"]);
        }
        text.extend([kind, "\n"]);
        samples.into_iter().for_each(|sample| text.extend([sample, "\n"]));
        text.push('\n');
    }
    text
}

impl Recorder for Series {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.others.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.others.describe_gauge(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.others.describe_histogram(name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.place(key, |recorder| recorder.register_counter(key, metadata))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.place(key, |recorder| recorder.register_gauge(key, metadata))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.place(key, |recorder| recorder.register_histogram(key, metadata))
    }
}
