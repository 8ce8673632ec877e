//! `leasehold top`: a node at work, live.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::admin::{self, AdminArgs};
use super::live;
use super::output::{self, Form, printable};
use crate::api::read::Status;

/// The time between two looks that are made only to know rates.
const BETWEEN: Duration = Duration::from_secs(1);

/// The width of a bar, in characters.
const BAR: usize = 20;

/// The options of `leasehold top`.
#[derive(Args, Clone, Debug)]
pub(super) struct TopArgs {
    /// The time between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=3600))]
    every: u16,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The view is that of one node, q or Ctrl-C ends it. A range set is named by its first\n\
         address. TAKEN: the share of its addresses that is in blocks of nodes, in the whole\n\
         cluster, and UNCLAIMED those that are in none. The other columns count addresses of\n\
         this node. ADD times are those of the time since the last look. If stdout is no\n\
         terminal, or with -o json or yaml, it looks for a second, shows that once, and ends. It\n\
         asks only the daemon, and neither etcd nor other nodes.\n\n\
         Examples:\n  leasehold top\n  leasehold top -o json\n\n{}",
        super::EXIT_CODES
    )
}

/// One look at a node.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Top {
    node: String,
    state: String,
    cause: Option<String>,
    /// `alone`, `member`, `joining` or `fenced`.
    cluster: String,
    attachments: usize,
    /// Nodes of the cluster by state.
    nodes: BTreeMap<String, f64>,
    adds_per_second: f64,
    dels_per_second: f64,
    /// Calls that were refused.
    failures_per_second: f64,
    /// ADDs that waited for a block.
    waits_per_second: f64,
    /// Times of the ADDs since the last look; null: there were none.
    add_p50_seconds: Option<f64>,
    add_p99_seconds: Option<f64>,
    etcd_requests_per_second: f64,
    records_waiting: usize,
    networks: Vec<NetworkTop>,
}

/// One network of it.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct NetworkTop {
    network: String,
    family: String,
    /// The address with which the first block of the range set begins.
    range_set: String,
    /// Addresses that can ever go out in the cluster; null: not known yet.
    size: Option<f64>,
    /// Those in no node's block.
    unclaimed: Option<f64>,
    /// Addresses of this node's blocks.
    allocated: f64,
    cooling: f64,
    free: f64,
    spare: f64,
}

/// Shows the node, once or live.
pub(super) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let AdminArgs { socket, output } = args.admin.clone();
    let mut last = take_reading(&socket)?;
    if output.form != Form::Table || !io::stdout().is_terminal() {
        std::thread::sleep(BETWEEN);
        let top = Top::between(&last, &take_reading(&socket)?);
        output::show(output.form, &top, || show(&top))?;
        return Ok(super::verdict(top.state == "serving"));
    }
    live::view(Duration::from_secs(args.every.into()), move || {
        let now = take_reading(&socket)?;
        let top = Top::between(&last, &now);
        last = now;
        Ok((show(&top), true))
    })
}

/// The answers of a daemon at one time.
struct Reading {
    at: Instant,
    status: Status,
    metrics: Vec<Sample>,
}

/// One series of the metrics.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn take_reading(socket: &Path) -> anyhow::Result<Reading> {
    let metrics = admin::get_text(socket, "/metrics")?;
    let status = admin::get(socket, "/v1/status")?;
    Ok(Reading {
        at: Instant::now(),
        status,
        metrics: metrics.lines().filter_map(sample).collect(),
    })
}

/// A line such as `name{a="b",c="d"} 7`. Networks have no quotes in their names.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, rest) = series.split_once('{').unwrap_or((series, ""));
    let label = |text: &str| {
        let (name, value) = text.split_once("=\"")?;
        Some((name.trim_start_matches(',').to_owned(), value.to_owned()))
    };
    let labels = rest.trim_end_matches('}').split_terminator('"').collect::<Vec<_>>();
    let labels = labels.chunks(2).filter_map(|pair| label(&pair.join("\""))).collect();
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

impl Reading {
    fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            let has = |(name, value): &(&str, &str)| {
                sample.labels.get(*name).is_some_and(|of| of == value)
            };
            sample.name == name && wanted.iter().all(has)
        };
        self.metrics.iter().filter(fits).map(|sample| sample.value).sum()
    }

    /// The values of one figure, by network, family and range set.
    fn by_range_set(&self, name: &str, state: &str) -> BTreeMap<[String; 3], f64> {
        let fits = |sample: &&Sample| {
            sample.name == name && sample.labels.get("state").is_none_or(|of| of == state)
        };
        let place = |sample: &Sample| {
            let of = |label: &str| sample.labels.get(label).cloned();
            Some(([of("network")?, of("family")?, of("range_set")?], sample.value))
        };
        self.metrics.iter().filter(fits).filter_map(place).collect()
    }

    /// The number of ADDs that took at most so many seconds, for each bound.
    fn buckets(&self) -> Vec<(f64, f64)> {
        let of = |sample: &Sample| -> Option<(f64, f64)> {
            let is = sample.name == "leasehold_request_duration_seconds_bucket"
                && sample.labels.get("verb").is_some_and(|verb| verb == "ADD");
            is.then(|| Some((sample.labels.get("le")?.parse().ok()?, sample.value))).flatten()
        };
        // Those that waited for a block are a series of their own.
        let mut sums: Vec<(f64, f64)> = Vec::new();
        for (bound, count) in self.metrics.iter().filter_map(of) {
            match sums.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => sums.push((bound, count)),
            }
        }
        sums
    }
}

impl Top {
    fn between(before: &Reading, now: &Reading) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        // Counters that became smaller are those of a new daemon.
        let rate = |name: &str, labels: &[(&str, &str)]| {
            (now.sum(name, labels) - before.sum(name, labels)).max(0.0) / seconds
        };
        let requests = "leasehold_requests_total";
        let good = rate(requests, &[("result", "ok")]);
        let status = &now.status;
        let nodes = ["live", "draining", "gone"]
            .map(|state| (state.to_owned(), now.sum("leasehold_nodes", &[("state", state)])));
        Self {
            node: status.about.node.clone(),
            state: status.state.clone(),
            cause: status.cause.clone(),
            cluster: status.cluster.state.clone(),
            attachments: status.attachments,
            nodes: nodes.into(),
            adds_per_second: rate(requests, &[("verb", "ADD"), ("result", "ok")]),
            dels_per_second: rate(requests, &[("verb", "DEL"), ("result", "ok")]),
            failures_per_second: (rate(requests, &[]) - good).max(0.0),
            waits_per_second: rate("leasehold_block_wait_duration_seconds_count", &[]),
            add_p50_seconds: quantile(0.5, &before.buckets(), &now.buckets()),
            add_p99_seconds: quantile(0.99, &before.buckets(), &now.buckets()),
            etcd_requests_per_second: rate("leasehold_etcd_requests_total", &[]),
            records_waiting: status.cluster.records_waiting,
            networks: networks(now),
        }
    }
}

fn networks(now: &Reading) -> Vec<NetworkTop> {
    let size = now.by_range_set("leasehold_pool_addresses", "");
    let unclaimed = now.by_range_set("leasehold_pool_unclaimed_addresses", "");
    let states = ["allocated", "cooling", "free", "spare"];
    let [allocated, cooling, free, spare] =
        states.map(|state| now.by_range_set("leasehold_addresses", state));
    let row = |key: &[String; 3]| {
        let of = |map: &BTreeMap<_, f64>| map.get(key).copied().unwrap_or_default();
        NetworkTop {
            network: key[0].clone(),
            family: key[1].clone(),
            range_set: key[2].clone(),
            size: size.get(key).copied(),
            unclaimed: unclaimed.get(key).copied(),
            allocated: of(&allocated),
            cooling: of(&cooling),
            free: of(&free),
            spare: of(&spare),
        }
    };
    let all: BTreeSet<&[String; 3]> = size.keys().chain(allocated.keys()).collect();
    all.into_iter().map(row).collect()
}

/// The bound below which a share of what came between two looks is; the last bound is endless.
fn quantile(share: f64, before: &[(f64, f64)], now: &[(f64, f64)]) -> Option<f64> {
    let counts: Vec<(f64, f64)> = (now.iter())
        .map(|(bound, count)| {
            let was = before.iter().find(|(of, _)| of == bound).map_or(0.0, |(_, count)| *count);
            (*bound, (count - was).max(0.0))
        })
        .collect();
    let all = counts.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    let reached = |(_, count): &&(f64, f64)| all > 0.0 && *count >= share * all;
    counts.iter().find(reached).map(|(bound, _)| *bound).filter(|bound| bound.is_finite())
}

fn show(top: &Top) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "node {}: {}, {}, {} attachments",
        printable(&top.node),
        top.state,
        top.cluster,
        top.attachments
    );
    if let Some(cause) = &top.cause {
        let _ = writeln!(text, "cause: {}", printable(cause));
    }
    let nodes: Vec<String> =
        ["live", "draining", "gone"].map(|state| format!("{} {state}", top.nodes[state])).into();
    let _ = writeln!(text, "nodes: {}", nodes.join(", "));
    let time = |seconds: Option<f64>| {
        seconds.map_or_else(|| "-".to_owned(), |seconds| format!("<= {} ms", seconds * 1e3))
    };
    let _ = writeln!(
        text,
        "ADD {:.1}/s, DEL {:.1}/s, refused {:.1}/s, waited for a block {:.1}/s",
        top.adds_per_second, top.dels_per_second, top.failures_per_second, top.waits_per_second
    );
    let _ = writeln!(
        text,
        "ADD p50 {}, p99 {}; etcd {:.1} requests/s, {} records waiting\n",
        time(top.add_p50_seconds),
        time(top.add_p99_seconds),
        top.etcd_requests_per_second,
        top.records_waiting
    );
    if top.networks.is_empty() {
        text.push_str("no network is in use in this cluster\n");
        return text;
    }
    let header = [
        "NETWORK",
        "RANGE SET",
        "TAKEN",
        "SIZE",
        "UNCLAIMED",
        "ALLOCATED",
        "COOLING",
        "FREE",
        "SPARE",
    ];
    let row = |row: &NetworkTop| {
        let known = |figure: Option<f64>| match figure {
            None => "?".to_owned(),
            // More than its digits are right.
            Some(large) if large > 1e15 => format!("{large:.1e}"),
            Some(figure) => figure.to_string(),
        };
        let taken = row.size.zip(row.unclaimed).map(|(size, left)| 1.0 - left / size.max(1.0));
        let mut cells = vec![printable(&row.network), printable(&row.range_set), bar(taken)];
        cells.extend([known(row.size), known(row.unclaimed)]);
        let here = [row.allocated, row.cooling, row.free, row.spare];
        cells.extend(here.map(|figure| figure.to_string()));
        cells
    };
    text.push_str(&output::table(&header, top.networks.iter().map(row).collect()));
    text
}

/// A share as a bar that needs no colours: `[#####               ]`.
fn bar(share: Option<f64>) -> String {
    let Some(share) = share else { return "?".to_owned() };
    let share = share.clamp(0.0, 1.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let full = (share * BAR as f64).ceil() as usize;
    format!("[{}{}] {:.0}%", "#".repeat(full), ".".repeat(BAR - full), share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_read() {
        let of = |line: &str| sample(line).map(|of| (of.name, of.labels, of.value));
        let labels = [("network", "a,b=c"), ("le", "+Inf")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let line = r#"x_bucket{network="a,b=c",le="+Inf"} 7"#;
        assert_eq!(of(line), Some(("x_bucket".to_owned(), labels.into(), 7.0)));
        assert_eq!(of("x 1.5"), Some(("x".to_owned(), BTreeMap::new(), 1.5)));
        assert_eq!(of("# HELP x text"), None);
    }

    #[test]
    fn a_quantile_is_that_of_the_time_between() {
        let before = [(0.001, 10.0), (0.01, 20.0), (f64::INFINITY, 20.0)];
        let now = [(0.001, 12.0), (0.01, 30.0), (f64::INFINITY, 30.0)];
        assert_eq!(quantile(0.5, &before, &now), Some(0.01));
        assert_eq!(quantile(0.1, &before, &now), Some(0.001));
        assert_eq!(quantile(0.5, &now, &now), None, "there was no ADD");
    }

    /// The answers of a daemon at a time.
    fn reading(at: Instant, metrics: &str) -> Reading {
        let status = serde_json::json!({
            "about": {
                "node": "n1", "version": "0.1.0", "pid": 7, "epoch": 3, "stateDir": "/s",
                "listen": "127.0.0.1:9750", "store": "etcd", "sinceUnixMs": 1_000_000
            },
            "state": "serving", "attachments": 4,
            "cluster": {
                "state": "member", "alone": false, "lease": null, "silenceMs": 0, "lostBlocks": 0,
                "recordsWaiting": 2, "recordLagMs": 0
            },
            "rangeSets": [], "overlaps": []
        });
        let status = serde_json::from_value(status).unwrap();
        Reading { at, status, metrics: metrics.lines().filter_map(sample).collect() }
    }

    #[test]
    fn rates_are_those_of_the_time_between() {
        let began = Instant::now();
        let metrics = |adds: u32, dels: u32, refused: u32, waited: u32, asked: u32| {
            format!(
                "leasehold_requests_total{{network=\"a\",verb=\"ADD\",result=\"ok\"}} {adds}\n\
                 leasehold_requests_total{{network=\"b\",verb=\"ADD\",result=\"ok\"}} 5\n\
                 leasehold_requests_total{{network=\"a\",verb=\"DEL\",result=\"ok\"}} {dels}\n\
                 leasehold_requests_total{{network=\"a\",verb=\"ADD\",result=\"exhausted\"}} \
                 {refused}\n\
                 leasehold_block_wait_duration_seconds_count{{network=\"a\"}} {waited}\n\
                 leasehold_etcd_requests_total{{operation=\"read\",result=\"ok\"}} {asked}\n\
                 leasehold_nodes{{state=\"live\"}} 3\n\
                 leasehold_pool_addresses{{network=\"a\",family=\"ipv4\",range_set=\"r\"}} 90\n\
                 leasehold_addresses{{network=\"a\",family=\"ipv4\",range_set=\"r\",\
                 state=\"cooling\"}} 6\n"
            )
        };
        let before = reading(began, &metrics(100, 50, 0, 7, 20));
        let now = reading(began + Duration::from_secs(2), &metrics(120, 60, 4, 8, 26));
        let top = Top::between(&before, &now);
        let calls = (top.adds_per_second, top.dels_per_second, top.failures_per_second);
        assert_eq!(calls, (10.0, 5.0, 2.0));
        assert_eq!((top.waits_per_second, top.etcd_requests_per_second), (0.5, 3.0));
        assert_eq!((top.nodes["live"], top.records_waiting, top.attachments), (3.0, 2, 4));
        let row = &top.networks[0];
        assert_eq!((row.size, row.unclaimed, row.cooling), (Some(90.0), None, 6.0));
        // A daemon that was started anew counts from 0.
        assert_eq!(Top::between(&now, &before).adds_per_second, 0.0);
    }

    #[test]
    fn a_bar_shows_that_something_is_taken() {
        assert_eq!(bar(Some(0.0)), "[....................] 0%");
        assert_eq!(bar(Some(0.001)), "[#...................] 0%");
        assert_eq!(bar(Some(1.0)), "[####################] 100%");
        assert_eq!(bar(None), "?");
    }
}
