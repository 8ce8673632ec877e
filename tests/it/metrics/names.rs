//! The names of metrics, in a live scrape and wherever the repository has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use leasehold::cni::error::Code;
use leasehold::metrics::catalogue::{Kind, METRICS, PROCESS};
use leasehold::metrics::{RESULTS, VERBS};
use serde_json::json;

use super::super::cluster::{add, metric, network, nodes};
use super::super::common::Daemon;
use super::super::common::etcd::Cluster;
use super::{generated, promtool, root};

/// The lines at the beginning and the end of the table of `docs/metrics.md`.
const TABLE: [&str; 2] = ["<!-- table of metrics -->\n", "<!-- end of the table -->\n"];
/// The files that may name metrics.
const FOLDERS: [&str; 6] = ["src", "tests", "docs", "dashboards", "deploy", "benches"];
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];

/// The types of the metrics in a scrape, by name.
fn types(scrape: &str) -> BTreeMap<String, String> {
    let typed = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let pair = |line: &str| {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        (name.to_owned(), kind.to_owned())
    };
    typed.map(pair).collect()
}

fn scrape(daemon: &Daemon) -> String {
    daemon.over_tcp("GET", "/metrics", "").body
}

#[test]
fn a_scrape_has_every_metric_and_promtool_finds_nothing_to_mend() {
    let etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let small = network("small", &json!({ "subnet": "10.40.0.0/29" }));
    let first = scrape(&daemons[0]);
    let at_first = types(&first);
    for container in 0..8 {
        add(&daemons[0], &format!("c-{container}"), &small);
    }
    let scrape = scrape(&daemons[0]);
    assert_eq!(promtool(&["check", "metrics"], &scrape), "", "{scrape}");
    let types = types(&scrape);
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let name = metric.name;
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name} in {scrape}");
        let of_networks = metric.labels.contains(&"network");
        assert!(of_networks || at_first.contains_key(name), "{name} is not there from the start");
        // A call without a network has no such label.
        let mut series = scrape.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let labels = if series.clone().next().is_some() { metric.labels } else { &[] };
        let has_all = |line: &str| labels.iter().all(|of| line.contains(&format!("{of}=\"")));
        assert!(labels.is_empty() || series.any(has_all), "{name}: {labels:?}");
    }
    let known: BTreeSet<&str> =
        METRICS.iter().map(|metric| metric.name).chain(PROCESS.iter().copied()).collect();
    let exported: BTreeSet<&str> = types.keys().map(String::as_str).collect();
    assert_eq!(exported, known, "the catalogue is what is exported");
    assert!(scrape.contains("cause=\"exhausted\"} "), "{scrape}");
    assert!(scrape.contains("cause=\"no-block\"} 0\n"), "causes begin with 0: {scrape}");
    every_result_is_begun(&first, &scrape);
    // The first ADD waits for a block.
    let adds = ["true", "false"].map(|waited| {
        let labels = ["verb=\"ADD\"", &format!("waited=\"{waited}\"")];
        metric(&daemons[0], "leasehold_request_duration_seconds_count", &labels)
    });
    assert!(adds[0] >= 1.0 && adds[1] >= 1.0 && adds[0] + adds[1] == 8.0, "{adds:?}");
}

/// The counters of calls are there before any call, and those of network "small" after its first.
fn every_result_is_begun(first: &str, later: &str) {
    let codes: BTreeSet<&str> = Code::all().map(Code::name).chain(["ok"]).collect();
    assert_eq!(RESULTS.iter().copied().collect::<BTreeSet<_>>(), codes, "every code has a name");
    let has = |scrape: &str, wanted: &[String], other: &str| {
        scrape.lines().filter(|line| line.starts_with("leasehold_requests_total{")).any(|line| {
            wanted.iter().all(|label| line.contains(label))
                && (other.is_empty() || !line.contains(other))
        })
    };
    for (verb, result) in VERBS.iter().flat_map(|verb| RESULTS.iter().map(move |of| (verb, of))) {
        let nameless = vec![format!("verb=\"{verb}\""), format!("result=\"{result}\"")];
        assert!(has(first, &nameless, "network="), "{nameless:?} before any call");
        let named = [&nameless[..], &["network=\"small\"".to_owned()]].concat();
        assert!(has(later, &named, ""), "{named:?}");
    }
}

#[test]
fn generated_the_document_has_every_metric() {
    let place = "docs/metrics.md";
    let found = fs::read_to_string(root().join(place)).expect("docs/metrics.md");
    let (before, rest) = found.split_once(TABLE[0]).expect("the beginning of the table");
    let (_, after) = rest.split_once(TABLE[1]).expect("the end of the table");
    let mut table =
        String::from("| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, help) = (format!("{:?}", metric.kind).to_lowercase(), metric.help);
        let row = format!("| `{}` | {kind} | {} | {help} |\n", metric.name, labels.join(", "));
        table.push_str(&row);
    }
    generated(place, &[before, TABLE[0], &table, TABLE[1], after].concat());
    for name in PROCESS {
        assert!(found.contains(&format!("`{name}`")), "{place} lacks {name}");
    }
}

/// Everything in a text that looks like the name of one of our metrics.
fn mentioned(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(move |c| !is_name(c)).filter(|word| word.starts_with("leasehold_"))
}

fn files_in(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_in(&path, into);
        } else if let Ok(text) = fs::read_to_string(&path) {
            into.push((path.display().to_string(), text));
        }
    }
}

#[test]
fn every_metric_that_anything_names_exists() {
    let mut files = Vec::new();
    for folder in FOLDERS {
        files_in(&root().join(folder), &mut files);
    }
    for document in DOCUMENTS {
        files.push((document.to_owned(), fs::read_to_string(root().join(document)).expect("it")));
    }
    let families: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    let units = ["_total", "_seconds", "_bytes", "_addresses", "_info"];
    let mut count = 0;
    for (path, text) in &files {
        for name in mentioned(text) {
            let histogram = ["_bucket", "_sum", "_count"].iter();
            let family = histogram.filter_map(|suffix| name.strip_suffix(suffix)).next();
            let known = families.contains(name) || family.is_some_and(|of| families.contains(of));
            // Functions of these tests begin like metrics.
            let is_code = path.ends_with(".rs") && !units.iter().any(|unit| name.ends_with(unit));
            assert!(known || is_code, "{path} names {name}, which is not exported");
            count += usize::from(known);
        }
    }
    assert!(count > 2 * METRICS.len(), "only {count} names were found in {} files", files.len());
}
