//! Every expression of every panel, rule and alert, evaluated by Debian's Prometheus, which scrapes
//! live daemons and their etcd through calls and faults: each returns something at some time. What
//! takes long or another etcd is in `bad_day.rs`.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::cluster::{add, await_status, network, nodes, options, values, wide};
use super::super::common::etcd::Cluster;
use super::super::common::{Call, Daemon, LEASEHOLD, poll, post, reply_of};
use super::super::leaks::{Namespace, add_in};
use super::bad_day;
use super::dashboards::{DASHBOARDS, expression};
use super::rules::{ALERTS, RECORDINGS, alert_file, recording_file};

/// The time in which each phase must show its effect to Prometheus.
const PATIENCE: Duration = Duration::from_secs(60);
/// A Prometheus with the rules of the repository, which are evaluated every second.
pub(super) struct Prometheus {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Prometheus {
    pub(super) fn start(etcd: &str) -> Self {
        let dir = TempDir::with_prefix("leasehold-prometheus-").expect("a directory");
        let place = |name: &str| dir.path().join(name);
        let often = |rules: String| rules.replace("interval: 30s", "interval: 1s");
        fs::write(place("recording.yml"), often(recording_file())).expect("a file");
        fs::write(place("alerts.yml"), often(alert_file())).expect("a file");
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
            "rule_files": ["recording.yml", "alerts.yml"],
            "scrape_configs": [
                { "job_name": "leasehold", "file_sd_configs": [{ "files": ["daemons.json"] }] },
                { "job_name": "etcd", "static_configs": [{ "targets": [etcd] }] },
            ],
        });
        fs::write(place("prometheus.yml"), config.to_string()).expect("a file");
        // Nobody else takes the port in this moment: no other test asks for this very one.
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let log = fs::File::create(place("log")).expect("a log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", place("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", place("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Debian's package prometheus");
        let prometheus = Self { child, port, dir };
        let up = poll(PATIENCE, || prometheus.request("/-/ready", "").is_some());
        assert!(up, "{}", fs::read_to_string(prometheus.dir.path().join("log")).expect("a log"));
        prometheus
    }

    /// Has these daemons scraped from now on.
    pub(super) fn scrape(&self, daemons: &[String]) {
        let place = |name: &str| self.dir.path().join(name);
        fs::write(place("new.json"), json!([{ "targets": daemons }]).to_string()).expect("a file");
        fs::rename(place("new.json"), place("daemons.json")).expect("a file");
    }

    fn request(&self, path: &str, query: &str) -> Option<String> {
        use std::io::Write as _;
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = match query.is_empty() {
            true => format!("GET {path} HTTP/1.1\r\nHost: prometheus\r\n\r\n"),
            false => post("POST", &path, ""),
        };
        stream.write_all(request.as_bytes()).ok()?;
        reply_of(stream).ok().filter(|reply| reply.status == 200).map(|reply| reply.body)
    }

    /// Returns the samples of an expression now.
    fn query(&self, expr: &str) -> Vec<Value> {
        let encoded: String = expr.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.request("/api/v1/query", &format!("query={encoded}"));
        let answer = answer.unwrap_or_else(|| panic!("Prometheus refuses {expr}"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON of Prometheus");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The expressions that have returned nothing yet, each with where it is from.
pub(super) struct Watch<'a> {
    prometheus: &'a Prometheus,
    waiting: Vec<(String, String)>,
    patience: Duration,
}

impl<'a> Watch<'a> {
    fn all(prometheus: &'a Prometheus) -> Self {
        let mut waiting = Vec::new();
        for of in &DASHBOARDS {
            for panel in of.rows.iter().flat_map(|(_, panels)| *panels) {
                for (expr, _) in panel.targets {
                    let expr = expression(expr).replace("$__rate_interval", "10s");
                    let expr = ["$cluster", "$node", "$network", "$etcd"]
                        .iter()
                        .fold(expr, |e, v| e.replace(v, ".*"));
                    waiting.push((format!("{}: {}", of.title, panel.title), expr));
                }
            }
        }
        let recordings = RECORDINGS.iter().map(|rule| (rule.name.to_owned(), rule.expr.to_owned()));
        waiting.extend(recordings);
        waiting.extend(ALERTS.iter().map(|alert| (alert.name.to_owned(), alert.expr.to_owned())));
        Self { prometheus, waiting, patience: PATIENCE }
    }

    /// Those of a bad day.
    pub(super) fn of_a_bad_day(prometheus: &'a Prometheus) -> Self {
        let mut watch = Self::all(prometheus);
        watch.waiting.retain(|(name, _)| bad_day::NAMES.contains(&name.as_str()));
        assert_eq!(watch.waiting.len(), bad_day::NAMES.len(), "{:#?}", watch.waiting);
        Self { patience: bad_day::PATIENCE, ..watch }
    }

    fn look(&mut self) {
        self.waiting.retain(|(_, expr)| {
            let found = self.prometheus.query(expr);
            !found.iter().any(|sample| sample["value"][1] != "NaN")
        });
    }

    /// Looks until these have returned something, doing `meanwhile` again and again.
    pub(super) fn until(&mut self, what: &str, names: &[&str], mut meanwhile: impl FnMut()) {
        let began = Instant::now();
        loop {
            meanwhile();
            self.look();
            let left: Vec<&(String, String)> =
                self.waiting.iter().filter(|(name, _)| names.contains(&name.as_str())).collect();
            if left.is_empty() {
                return println!("{what}: {} s", began.elapsed().as_secs());
            }
            assert!(began.elapsed() < self.patience, "{what}: nothing is returned by {left:#?}");
        }
    }
}

/// Containers that come and go on every daemon; each round leaves one more.
fn churn(daemons: &[&Daemon], round: usize) {
    for (at, daemon) in daemons.iter().enumerate() {
        let mut client = daemon.client();
        let adds: Vec<Call> = (0..40)
            .map(|n| Call::new("ADD", &format!("churn-{at}-{round}-{n}"), &wide()))
            .collect();
        client.try_calls(&adds).expect("answers");
        let dels: Vec<Call> = (1..40)
            .map(|n| Call::new("DEL", &format!("churn-{at}-{round}-{n}"), &wide()))
            .collect();
        client.try_calls(&dels).expect("answers");
    }
}

pub(super) fn leasehold(daemon: &Daemon, args: &[&str]) {
    let mut command = Command::new(LEASEHOLD);
    let output = command.args(args).env("LEASEHOLD_SOCKET", daemon.socket()).output();
    let output = output.expect("leasehold runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Makes the record of an address name another node, as only a fault could.
fn forge_a_duplicate(etcd: &Cluster) {
    let key = "/leasehold/v1/allocations/small/";
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", key]);
    let key = keys.lines().find(|line| !line.is_empty()).expect("a record of the small network");
    let record = values(etcd, key.strip_prefix("/leasehold/v1/").expect("its prefix")).remove(0);
    let mut forged = record;
    forged["node"] = json!("nobody");
    etcd.ctl(&["put", key, &forged.to_string()]);
}

/// Goes through the time in which etcd stands still. Returns the daemon that was started meanwhile.
fn without_etcd(
    etcd: &Cluster,
    watch: &mut Watch<'_>,
    daemon: &Daemon,
    mut listen: Vec<String>,
) -> Daemon {
    let mut late = Daemon::prepare(&options(etcd, "node-late", &[]));
    late.begin();
    let status = || late.client().try_request("GET", "/v1/status", "");
    assert!(poll(PATIENCE, || status().is_ok_and(|reply| reply.status == 200)));
    listen.push(late.listen().to_string());
    watch.prometheus.scrape(&listen);
    let mut more = 0;
    let fresh = network("fresh", &json!({ "subnet": "10.43.0.0/24" }));
    let names = ["LeaseholdNoBlock", "LeaseholdSessionLost"];
    watch.until("no etcd", &names, || {
        for daemon in [daemon, &late] {
            add(daemon, &format!("more-{more}"), &fresh);
        }
        more += 1;
    });
    late
}

/// Calls, a network that is exhausted, one that will be, two that overlap, and leaks.
fn with_calls(watch: &mut Watch<'_>, daemons: &[Daemon]) {
    let small = network("small", &json!({ "subnet": "10.41.0.0/29" }));
    let tight = network("tight", &json!({ "subnet": "10.42.0.0/24" }));
    let over = network("over", &json!({ "subnet": "10.0.4.0/24" }));
    let all: Vec<&Daemon> = daemons.iter().collect();
    let mut round = 0;
    let overlapping = add(&daemons[0], "overlapping", &over);
    // Blocks overlap only where both networks have one.
    let taken = overlapping.expect_result()["ips"][0]["address"].as_str().expect("it").to_owned();
    let args = format!("IP={}", taken.split('/').next().expect("an address"));
    let same = Call { args, ..Call::new("ADD", "overlapped", &wide()) };
    daemons[0].client().call(&same).expect_result();
    let stays = Namespace::new();
    add_in(&daemons[0], "stays", &stays.path(), &wide());
    let names = [
        "LeaseholdNetworkExhausted",
        "LeaseholdNetworkExhaustedSoon",
        "LeaseholdAddFailing",
        "LeaseholdLeaksGrow",
        "LeaseholdNetworksOverlap",
        "LeaseholdClusterNetworksOverlap",
        "network:leasehold_exhaustion:seconds",
        "Leasehold: cluster: Time that they waited",
        "Leasehold: cluster: Time of an ADD, warm and waiting",
        "Leasehold: node: Time of an ADD, warm and waiting",
        "Leasehold: node: Time that ADDs waited for a block",
    ];
    watch.until("calls", &names, || {
        churn(&all, round);
        for n in 0..3 {
            add(&daemons[0], &format!("small-{round}-{n}"), &small);
            add(&daemons[1], &format!("tight-{round}-{n}"), &tight);
        }
        // An address that is asked for by name, far away, waits for its block.
        let far = format!("IP=10.0.{}.5", 100 + round % 100);
        let far = Call { args: far, ..Call::new("ADD", &format!("far-{round}"), &wide()) };
        daemons[0].client().call(&far);
        let leak = Namespace::new();
        add_in(&daemons[0], &format!("leak-{round}"), &leak.path(), &wide());
        drop(leak);
        daemons[0].client().get("/v1/check");
        round += 1;
    });
}

/// The rules record of three daemons the figures that each of them has of the whole cluster.
fn recorded_is_what_the_api_says(prometheus: &Prometheus, daemons: &[Daemon]) {
    let recorded = |rule: &str, more: &str| -> Option<f64> {
        let found =
            prometheus.query(&format!("network:leasehold_{rule}{{network=\"wide\"{more}}}"));
        assert!(found.len() <= 1, "{rule}: {found:?}");
        found.first()?["value"][1].as_str()?.parse().ok()
    };
    let mut last = String::new();
    let agree = poll(PATIENCE, || {
        let row = |daemon: &Daemon| {
            let Value::Array(rows) = daemon.client().get("/v1/pools") else { return None };
            rows.into_iter().find(|row| row["network"] == "wide")
        };
        let rows: Vec<Value> = daemons.iter().filter_map(row).collect();
        let held: Option<f64> = rows.iter().map(|row| row["here"]["allocated"].as_f64()).sum();
        let rules = [
            recorded("pool_addresses:max", ""),
            recorded("pool_unclaimed_addresses:max", ""),
            recorded("addresses:sum", ",state=\"allocated\""),
            recorded("available_addresses:sum", ""),
        ];
        last = format!("{rules:?} are recorded, {held:?} held, and the API says {rows:#?}");
        let of_api = |row: &Value| {
            ["size", "unclaimed", "used", "available"].map(|figure| row[figure].as_f64())
        };
        rows.len() == daemons.len()
            && rules[2] == held
            && rows.iter().all(|row| of_api(row) == rules)
    });
    assert!(agree, "{last}");
}

#[test]
fn every_expression_returns_something() {
    let mut etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 3, &["--cooldown", "2s"]);
    let listen: Vec<String> = daemons.iter().map(|daemon| daemon.listen().to_string()).collect();
    let etcd_at = etcd.endpoint(0).replace("http://", "");
    let prometheus = Prometheus::start(&etcd_at);
    prometheus.scrape(&listen);
    let mut watch = Watch::all(&prometheus);
    let expressions = watch.waiting.len();
    let backup = etcd.save();

    with_calls(&mut watch, &daemons);
    recorded_is_what_the_api_says(&prometheus, &daemons);
    forge_a_duplicate(&etcd);
    let check = || drop(daemons[0].client().get("/v1/check"));
    watch.until("a duplicate", &["LeaseholdDuplicate"], check);
    leasehold(&daemons[1], &["drain"]);
    watch.until("a drained node", &["LeaseholdNotReady"], || {});
    leasehold(&daemons[1], &["drain", "--undo"]);

    // A node dies, and is removed.
    let mut dead = daemons.pop().expect("three daemons");
    dead.kill9();
    watch.until("a dead node", &["LeaseholdDown", "LeaseholdNodeGone"], || {});
    leasehold(&daemons[0], &["node", "remove", "node-2", "--yes"]);
    watch.until("a removed node", &["LeaseholdQuarantine"], || {});

    // etcd stands still: no block, slow refusals, and a daemon that cannot join.
    etcd.pause(0);
    let late = without_etcd(&etcd, &mut watch, &daemons[0], listen);
    etcd.resume(0);
    drop(late);
    await_status(&daemons[0], "a member again", |status| status["cluster"]["state"] == "member");

    // A backup is restored.
    etcd.restore(&backup);
    watch.until("a restored backup", &["LeaseholdStoreWentBack"], || {});
    let left: Vec<&(String, String)> = (watch.waiting.iter())
        .filter(|(name, _)| !bad_day::NAMES.contains(&name.as_str()))
        .collect();
    assert!(left.is_empty(), "of {expressions} expressions these returned nothing: {left:#?}");
    println!("{expressions} expressions, {} of them of a bad day", watch.waiting.len());
}
