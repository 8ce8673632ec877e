//! Metrics and status: in Prometheus's text format, and in agreement with the calls.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{add_many, config};
use crate::common::{Call, Daemon, Options};

/// Calls in the array that must share their commits.
const CALLS: usize = 64;

/// One page of `/metrics`: values by name with labels (sorted), and each name's type.
struct Metrics {
    values: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads the page as strictly as the format is written down: each sample belongs to a metric
    /// that was typed before, each name is typed once, and each series is there once.
    fn parse(text: &str) -> Self {
        let (mut values, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        assert!(text.ends_with('\n'), "the last line has an end");
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                let (name, labels) = split(series);
                let typed = ["", "_bucket", "_sum", "_count"].iter().any(|suffix| {
                    name.strip_suffix(suffix).is_some_and(|name| types.contains_key(name))
                });
                assert!(typed, "a sample without a type: {line}");
                assert!(is_name(&name), "{line}");
                let value = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
                let series = format!("{name}{{{}}}", labels.join(","));
                assert!(values.insert(series, value).is_none(), "twice: {line}");
            }
        }
        assert_eq!(types.keys().collect::<Vec<_>>(), helped.iter().collect::<Vec<_>>());
        Self { values, types }
    }

    fn of(daemon: &Daemon) -> Self {
        let reply = daemon.over_tcp("GET", "/metrics", "");
        assert_eq!(reply.status, 200);
        Self::parse(&reply.body)
    }

    /// The sum of the series of a name that have these labels.
    fn sum(&self, name: &str, labels: &[String]) -> f64 {
        let of_name = |series: &str| series.split_once('{').is_some_and(|(own, _)| own == name);
        let wanted = |series: &str| labels.iter().all(|label| series.contains(label));
        let found = self.values.iter().filter(|(series, _)| of_name(series) && wanted(series));
        found.map(|(_, value)| value).sum()
    }

    /// The value of a series, its labels in order; 0 if the series is not there.
    fn value(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or_default()
    }
}

/// A series' name and its labels in order.
fn split(series: &str) -> (String, Vec<String>) {
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), Vec::new());
    };
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{series}"));
    let mut labels: Vec<String> = labels.split(',').map(str::to_owned).collect();
    for label in &labels {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{series}"));
        assert!(is_name(name) && value.len() > 2, "{series}");
        assert!(value.starts_with('"') && value.ends_with('"'), "{series}");
    }
    labels.sort();
    (name.to_owned(), labels)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[test]
fn the_counters_agree_with_what_was_called() {
    let daemon = Daemon::start(&Options { cooldown: "1h", ..Options::default() });
    let mut client = daemon.client();
    let good = config("net", &["10.70.0.0/24", "2001:db8:70::/64"]);
    let bad = config("net", &["10.70.0.0/99"]);
    for (command, container, config, times) in [
        ("ADD", "a", &good, 1),
        ("ADD", "b", &good, 3), // the same answer again counts as a call
        ("ADD", "c", &bad, 2),
        ("DEL", "b", &good, 2),
        ("CHECK", "a", &good, 4),
        ("CHECK", "b", &good, 1),
        ("STATUS", "", &good, 5),
        ("VERSION", "", &good, 1),
    ] {
        for _ in 0..times {
            client.call(&Call::new(command, container, config));
        }
    }
    let metrics = Metrics::of(&daemon);
    let requests = |verb: &str, result: &str| {
        let labels = [format!("result=\"{result}\""), format!("verb=\"{verb}\"")];
        metrics.sum("leasehold_requests_total", &labels)
    };
    assert_eq!(requests("ADD", "ok"), 4.0);
    assert_eq!(requests("DEL", "ok"), 2.0);
    assert_eq!(requests("CHECK", "ok"), 4.0);
    assert_eq!(requests("CHECK", "check_failed"), 1.0);
    assert_eq!(requests("STATUS", "ok"), 5.0);
    assert_eq!(requests("VERSION", "ok"), 1.0);
    let refused: f64 = ["ADD", "unknown"].iter().map(|verb| requests(verb, "config")).sum();
    assert_eq!(refused, 2.0, "calls with a wrong configuration");
    let count = |verb| {
        let labels = format!("verb=\"{verb}\",waited=\"false\"");
        metrics.value(&format!("leasehold_request_duration_seconds_count{{{labels}}}"))
    };
    assert_eq!((count("DEL"), count("STATUS")), (2.0, 5.0));
    let with_verb = requests("ADD", "config");
    assert_eq!(with_verb, 2.0, "a refused ADD counts as an ADD");
}

#[test]
fn histograms_are_fine_enough_and_add_up() {
    let daemon = Daemon::start(&Options::default());
    let good = config("net", &["10.71.0.0/24"]);
    add_many(&mut daemon.client(), &good, 20);
    let metrics = Metrics::of(&daemon);
    for (name, labels) in [
        ("leasehold_request_duration_seconds", "verb=\"ADD\",waited=\"true\""),
        ("leasehold_journal_commit_duration_seconds", ""),
    ] {
        assert_eq!(metrics.types[name], "histogram");
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket =
            |le: &str| metrics.values.get(&format!("{name}_bucket{{le=\"{le}\"{comma}{labels}}}"));
        assert!(bucket("0.00005").is_some(), "{name} has no bucket of 50 microseconds");
        let count = metrics.value(&format!("{name}_count{{{labels}}}"));
        assert!(count > 0.0, "{name} counted nothing");
        assert_eq!(bucket("+Inf"), Some(&count), "{name}");
        assert!(metrics.value(&format!("{name}_sum{{{labels}}}")) > 0.0, "{name}");
        let upper: Vec<f64> = ["0.00005", "0.0001", "0.001", "0.1", "5", "+Inf"]
            .map(|le| *bucket(le).unwrap_or_else(|| panic!("{name} has no bucket {le}")))
            .into();
        assert!(upper.is_sorted(), "{name}: buckets add up: {upper:?}");
    }
}

#[test]
fn the_gauges_equal_the_status() {
    let mut daemon = Daemon::start(&Options { cooldown: "1h", ..Options::default() });
    let two = config("two", &["10.72.0.0/24", "2001:db8:72::/64"]);
    let one = config("one", &["10.73.0.0/24"]);
    add_many(&mut daemon.client(), &two, 100);
    add_many(&mut daemon.client(), &one, 30);
    for number in 0..10 {
        let del = Call::new("DEL", &format!("many-{number}"), &two);
        assert!(daemon.client().call(&del).succeeded());
    }
    for round in ["before a restart", "after a restart"] {
        let status = daemon.client().get("/v1/status");
        let metrics = Metrics::of(&daemon);
        let sets = status["rangeSets"].as_array().expect("range sets");
        assert_eq!(sets.len(), 3, "{round}: {status}");
        for set in sets {
            let text = |key: &str| set[key].as_str().expect("a text");
            let labels = format!("family=\"{}\",network=\"{}\"", text("family"), text("network"));
            for state in ["allocated", "cooling", "free", "kept"] {
                let labels = [labels.clone(), format!("state=\"{state}\"")];
                let sum = metrics.sum("leasehold_addresses", &labels);
                assert_eq!(Some(sum), set[state].as_f64(), "{round}: {labels:?}");
            }
            let blocks = ["spare", "active", "returning", "lost"].iter().map(|state| {
                metrics.value(&format!("leasehold_blocks{{{labels},state=\"{state}\"}}"))
            });
            assert_eq!(Some(blocks.sum::<f64>()), set["blocks"].as_f64(), "{round}: {labels}");
        }
        let sum = |key: &str| sets.iter().map(|set| set[key].as_u64().expect("a number")).sum();
        let (allocated, cooling): (u64, u64) = (sum("allocated"), sum("cooling"));
        assert_eq!((allocated, cooling), (90 * 2 + 30, 10 * 2), "{round}: {status}");
        assert_eq!(allocated, daemon.allocations().len() as u64, "{round}");
        assert_eq!(status["attachments"], 120, "{round}");
        daemon.restart();
    }
}

#[test]
fn an_array_of_64_calls_shares_its_commits() {
    let daemon = Daemon::start(&Options { cooldown: "1h", ..Options::default() });
    let mut client = daemon.client();
    let config = config("net", &["10.74.0.0/16"]);
    add_many(&mut client, &config, CALLS); // the range set and its first blocks are there now
    let dels: Vec<Call> =
        (0..CALLS).map(|n| Call::new("DEL", &format!("many-{n}"), &config)).collect();
    let adds: Vec<Call> =
        (0..CALLS).map(|n| Call::new("ADD", &format!("warm-{n}"), &config)).collect();
    for (what, calls) in [("DEL", &dels), ("ADD", &adds)] {
        let commits = || Metrics::of(&daemon).value("leasehold_journal_commits_total{}");
        let before = commits();
        let answers = client.try_calls(calls).expect("an array of answers");
        assert!(answers.iter().all(|answer| answer.succeeded()), "{answers:?}");
        let made = commits() - before;
        assert!((1.0..=2.0).contains(&made), "{made} commits for {CALLS} calls of {what}");
    }
}

#[test]
fn many_clients_at_once_share_commits() {
    let daemon = Daemon::start(&Options { args: vec!["--fsync".into()], ..Options::default() });
    let config = config("net", &["10.75.0.0/16"]);
    add_many(&mut daemon.client(), &config, CALLS);
    let commits = || Metrics::of(&daemon).value("leasehold_journal_commits_total{}");
    let before = commits();
    std::thread::scope(|scope| {
        for client in 0..CALLS {
            let (mut connection, config) = (daemon.client(), &config);
            scope.spawn(move || {
                for number in 0..5 {
                    let container = format!("c-{client}-{number}");
                    connection.call(&Call::new("ADD", &container, config)).expect_result();
                }
            });
        }
    });
    let (made, answers) = (commits() - before, (CALLS * 5) as f64);
    println!("{made} commits for {answers} answers to {CALLS} clients");
    assert!(made < answers / 2.0, "{made} commits for {answers} answers");
}

#[test]
fn networks_that_overlap_are_reported() {
    let mut daemon = Daemon::start(&Options::default());
    let add = |daemon: &Daemon, name: &str, subnet: &str| {
        daemon.client().call(&Call::new("ADD", "c", &config(name, &[subnet]))).expect_result();
    };
    let overlaps = |daemon: &Daemon| {
        let reported = daemon.client().get("/v1/status")["overlaps"].clone();
        let Value::Array(pairs) = &reported else { panic!("{reported} is no list") };
        let figure = Metrics::of(daemon).value("leasehold_network_overlaps{}");
        assert_eq!(figure, pairs.len() as f64, "{reported}");
        reported
    };
    add(&daemon, "left", "10.76.0.0/24");
    add(&daemon, "apart", "10.77.0.0/24");
    assert_eq!(overlaps(&daemon), json!([]));
    add(&daemon, "right", "10.76.0.0/16");
    assert_eq!(overlaps(&daemon), json!([["left", "right"]]));
    let log = daemon.log();
    assert!(log.contains("networks left and right overlap"), "{log}");
    daemon.restart();
    assert_eq!(overlaps(&daemon), json!([["left", "right"]]), "it is still so after a restart");
}
