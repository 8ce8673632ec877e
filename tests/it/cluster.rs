//! Goal: the promises for a cluster hold with real daemons on a real etcd. No address is held twice
//! anywhere, a warm ADD needs no etcd, and no address is stranded, all through outages, crashes,
//! restored backups and elections.
//!
//! Method: several daemons on one machine, one etcd (or three members), and calls on their
//! sockets, mostly as arrays. A book of all answers reports at once if an address is given twice.
//!
//! All of it needs Debian's packages etcd-server and etcd-client.

pub(crate) mod certificates;
mod churn;
mod crash;
mod demand;
mod election;
mod forfeits;
mod long;
mod memory;
mod name;
mod outage;
mod overloaded;
mod reach;
mod records;
mod refused;
mod removed;
mod restored;
mod rolling;
mod stops;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::etcd::Cluster;
use crate::common::{Call, Client, Daemon, Options, Outcome, poll};

/// The time within which a cluster must form, or catch up after trouble.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The longest time that records may lag behind the allocations.
const RECORDS_MAX: Duration = Duration::from_secs(5);
/// No address is free.
pub(crate) const EXHAUSTED: u64 = 100;
/// The same call may succeed later.
const TRY_AGAIN: u64 = 11;
/// STATUS: no ADD can be served.
const NOT_AVAILABLE: u64 = 50;
/// Calls in one array.
const ARRAY: usize = 125;

/// The options of a node's daemon. Leases are short, so that nodes notice each other's end soon.
pub(crate) fn options(etcd: &Cluster, node: &str, more: &[&str]) -> Options {
    options_of(&etcd.options("").endpoints.join(","), node, more)
}

/// The same, for these endpoints.
fn options_of(endpoints: &str, node: &str, more: &[&str]) -> Options {
    let usual = ["--node", node, "--etcd", endpoints, "--lease-ttl", "5s"];
    let args = usual.iter().chain(more).map(|&arg| arg.to_owned()).collect();
    Options { args, ..Options::default() }
}

/// Starts the daemons of several nodes, each a member that knows of the others.
pub(crate) fn nodes(etcd: &Cluster, count: usize, more: &[&str]) -> Vec<Daemon> {
    let start = |at| Daemon::start(&options(etcd, &format!("node-{at}"), more));
    let daemons: Vec<Daemon> = (0..count).map(start).collect();
    for daemon in &daemons {
        await_status(daemon, "a member of the cluster", |status| {
            let cluster = &status["cluster"];
            cluster["state"] == "member" && cluster["alone"] == (count == 1)
        });
    }
    daemons
}

/// Waits until the status of a daemon is the wanted one.
pub(crate) fn await_status(daemon: &Daemon, wanted: &str, holds: impl Fn(&Value) -> bool) {
    let mut client = daemon.client();
    let mut status = Value::Null;
    let held = poll(PATIENCE, || {
        status = client.get("/v1/status");
        holds(&status)
    });
    assert!(held, "not {wanted} within {PATIENCE:?}: {status:#}\n{}", daemon.log_tail());
}

/// A network of one range.
pub(crate) fn network(name: &str, range: &Value) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": name,
        "ipam": { "type": "my-ipam", "ranges": [[range]] },
    })
}

/// A network with enough addresses for all tests: 10.0.0.0/16.
pub(crate) fn wide() -> Value {
    network("wide", &json!({ "subnet": "10.0.0.0/16" }))
}

/// The address of a result.
fn address_of(outcome: &Outcome) -> String {
    let ip = outcome.expect_result()["ips"][0]["address"].as_str().expect("an address");
    ip.split('/').next().expect("an address").to_owned()
}

/// One ADD.
pub(crate) fn add(daemon: &Daemon, container: &str, config: &Value) -> Outcome {
    daemon.client().call(&Call::new("ADD", container, config))
}

/// Makes ADDs in one array after the other.
fn add_all(client: &mut Client, containers: &[String], config: &Value) -> Vec<Outcome> {
    let arrays = containers.chunks(ARRAY).flat_map(|containers| {
        let calls: Vec<Call> = containers.iter().map(|c| Call::new("ADD", c, config)).collect();
        client.try_calls(&calls).expect("answers on the socket")
    });
    arrays.collect()
}

/// Names of containers.
fn containers(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// A figure of a daemon's metrics, added up over the series that have all these labels.
pub(crate) fn metric(daemon: &Daemon, name: &str, labels: &[&str]) -> f64 {
    let text = daemon.client().request("GET", "/metrics", "").body;
    let of = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (own, set) = series.split_once('{').unwrap_or((series, ""));
        let wanted = own == name && labels.iter().all(|label| set.contains(label));
        wanted.then(|| value.parse::<f64>().ok()).flatten()
    };
    text.lines().filter_map(of).sum()
}

/// The active blocks of a daemon: first address and size.
fn active_blocks(daemon: &Daemon) -> Vec<(u32, u32)> {
    let Value::Array(rows) = daemon.client().get("/v1/blocks") else { panic!("no list of blocks") };
    let block = |row: &Value| {
        let prefix = row["prefix"].as_str().expect("a prefix");
        let (start, length) = prefix.split_once('/').expect("a prefix");
        let length: u32 = length.parse().expect("a length");
        (row["state"] == "active").then(|| (number(start), 1 << (32 - length)))
    };
    rows.iter().filter_map(block).collect()
}

fn number(address: &str) -> u32 {
    u32::from(address.parse::<std::net::Ipv4Addr>().expect("an IPv4 address"))
}

fn address(number: u32) -> String {
    std::net::Ipv4Addr::from(number).to_string()
}

/// The keys under a prefix of etcd.
struct Keys {
    /// The revision of etcd when it was read.
    revision: u64,
    /// Revisions at which each key was made and changed last, and how often it was written.
    keys: Vec<[u64; 3]>,
}

fn keys(etcd: &Cluster, below: &str) -> Keys {
    let prefix = format!("/leasehold/v1/{below}");
    let text = etcd.ctl(&["get", &prefix, "--prefix", "--keys-only", "-w", "json"]);
    let answer: Value = serde_json::from_str(&text).expect("JSON of etcdctl");
    let revision = answer["header"]["revision"].as_u64().expect("a revision");
    let figures = |key: &Value| {
        ["create_revision", "mod_revision", "version"].map(|name| key[name].as_u64().expect(name))
    };
    let keys = answer["kvs"].as_array().map_or(&[][..], |keys| keys);
    Keys { revision, keys: keys.iter().map(figures).collect() }
}

/// The values under a prefix of etcd.
pub(crate) fn values(etcd: &Cluster, below: &str) -> Vec<Value> {
    let prefix = format!("/leasehold/v1/{below}");
    let text = etcd.ctl(&["get", &prefix, "--prefix", "--print-value-only"]);
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).expect("JSON in etcd")).collect()
}

/// The holder of each address, by the records in etcd.
fn records(etcd: &Cluster) -> BTreeMap<String, String> {
    let of = |record: &Value| {
        let text = |value: &Value| value.as_str().expect("a text in a record").to_owned();
        let addresses = record["addresses"].as_array().expect("addresses");
        assert_eq!(addresses.len(), 1, "{record}");
        (text(&addresses[0]), text(&record["containerId"]))
    };
    values(etcd, "allocations/").iter().map(of).collect()
}

/// The holder of each address, by the answers of all daemons together.
#[derive(Default)]
struct Book {
    holders: Mutex<BTreeMap<String, String>>,
}

impl Book {
    /// Remembers that an ADD was answered.
    fn added(&self, container: &str, address: &str) {
        let before =
            self.holders.lock().expect("the book").insert(address.into(), container.into());
        if let Some(other) = before {
            assert_eq!(other, container, "{address} is given to {container} and held by {other}");
        }
    }

    /// Remembers that a DEL is about to be sent: from now on another container may get the address.
    fn ending(&self, address: &str) {
        self.holders.lock().expect("the book").remove(address);
    }

    /// The number of addresses that are held.
    fn len(&self) -> usize {
        self.holders.lock().expect("the book").len()
    }

    /// Remembers answers, each of which must be a success with an address that no container holds.
    fn add_all(&self, containers: &[String], outcomes: &[Outcome]) {
        for (container, outcome) in containers.iter().zip(outcomes) {
            self.added(container, &address_of(outcome));
        }
    }

    /// Waits until the records in etcd are exactly the allocations. Returns the time that it took.
    fn await_records(&self, etcd: &Cluster, limit: Duration) -> Duration {
        let (began, mut found) = (Instant::now(), BTreeMap::new());
        let same = poll(limit, || {
            found = records(etcd);
            found == *self.holders.lock().expect("the book")
        });
        let holders = self.holders.lock().expect("the book");
        let missing: Vec<_> = holders.iter().filter(|(a, c)| found.get(*a) != Some(c)).collect();
        let more: Vec<_> = found.iter().filter(|(a, c)| holders.get(*a) != Some(c)).collect();
        assert!(
            same,
            "within {limit:?}, held and not recorded: {missing:?}, recorded and not held: {more:?}"
        );
        began.elapsed()
    }

    /// Checks that the daemons list exactly the allocations of the book.
    fn compare(&self, daemons: &[&Daemon]) {
        let mut listed = BTreeMap::new();
        for row in daemons.iter().flat_map(|daemon| daemon.allocations()) {
            let text = |name: &str| row[name].as_str().expect(name).to_owned();
            let (address, container) = (text("address"), text("containerId"));
            if let Some(other) = listed.insert(address.clone(), container.clone()) {
                panic!("{address} is listed for {container} and for {other}");
            }
        }
        let holders = self.holders.lock().expect("the book");
        let missing: Vec<_> = holders.iter().filter(|(a, c)| listed.get(*a) != Some(c)).collect();
        assert!(missing.is_empty(), "answered and not listed: {missing:?}");
        let more: Vec<_> = listed.iter().filter(|(a, _)| !holders.contains_key(*a)).collect();
        assert!(more.is_empty(), "listed and held by nobody: {more:?}");
    }
}
