//! Goal: `my-ipam` is a drop-in for host-local. The same configuration and the same calls give the
//! same addresses in the same order, the same results and the same refusals.
//!
//! Method: Debian's host-local is the oracle. Every step goes to both sides, each with a state of
//! its own, and the outcomes are compared. The oracle runs during the test, so the expectations are
//! never out of date. Every allowed difference has a name in [`differences`], and a test that shows
//! it.
//!
//! - [`vectors`], [`grammar`]: host-local's own test vectors, and the corners of its grammar.
//! - [`differences`]: the permitted differences, each shown on both sides.
//! - [`random`]: thousands of random calls from a printed seed.

mod differences;
mod generate;
mod grammar;
mod random;
mod table;
mod vectors;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::common::{CNI_PLUGINS, Call, Client, Daemon, Options, Outcome, require_plugins, run};

/// The code of every refusal by host-local's own code.
const UNCLASSIFIED: u64 = 999;

/// host-local's words when asked-for addresses are left over. It lists them in no fixed order.
const LEFTOVERS: &str = "failed to allocate all requested IPs:";

/// The way to ask our side: through the plugin's process, or on the daemon's socket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Plugin,
    Socket,
}

/// Both sides: the oracle with a data directory, and a daemon. Networks keep cases apart.
struct Sides {
    data: TempDir,
    daemon: Daemon,
    client: Client,
}

impl Sides {
    fn start() -> Self {
        require_plugins(&["host-local"]);
        let daemon = Daemon::start(&Options::default());
        let client = daemon.client();
        Self { data: TempDir::with_prefix("host-local-it-").expect("a directory"), daemon, client }
    }

    /// The oracle's outcome.
    fn theirs(&self, call: &Call) -> Outcome {
        let mut call = call.clone();
        if let Some(ipam) = call.config.get_mut("ipam").and_then(Value::as_object_mut) {
            ipam.insert("type".into(), "host-local".into());
            ipam.insert("dataDir".into(), self.data.path().to_string_lossy().into());
        }
        Outcome::of_process(&run(&oracle(), &call.environment(), &call.config.to_string()))
    }

    /// Our outcome.
    fn ours(&mut self, call: &Call, way: Way) -> Outcome {
        match way {
            Way::Plugin => self.daemon.plugin(call),
            Way::Socket => {
                let mut call = call.clone();
                self.daemon.adopt(&mut call.config);
                self.client.call(&call)
            }
        }
    }

    /// Makes the same call on both sides: theirs first, then ours.
    fn both(&mut self, call: &Call, way: Way) -> (Outcome, Outcome) {
        (self.theirs(call), self.ours(call, way))
    }

    /// The oracle's allocations on a network: one line for each address.
    fn held_by_theirs(&self, network: &str) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.data.path().join(network)) else {
            return BTreeSet::new();
        };
        let mut held = BTreeSet::new();
        for entry in entries {
            let path = entry.expect("an entry of the data directory").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if name != "lock" && !name.starts_with("last_reserved_ip.") {
                let record = fs::read_to_string(&path).expect("a record");
                let (container, ifname) = record.split_once("\r\n").expect("two lines");
                held.insert(format!("{name} {container} {ifname}"));
            }
        }
        held
    }

    /// Our daemon's allocations on a network, in the same form.
    fn held_by_ours(&mut self, network: &str) -> BTreeSet<String> {
        let list = self.client.get("/v1/allocations");
        let list = list.as_array().expect("an array of allocations");
        let text = |object: &Value, key: &str| {
            object[key].as_str().unwrap_or_else(|| panic!("no {key:?} in {object}")).to_owned()
        };
        list.iter()
            .filter(|allocation| allocation["network"] == network)
            .map(|it| {
                let (address, container) = (text(it, "address"), text(it, "containerId"));
                format!("{address} {container} {}", text(it, "ifname"))
            })
            .collect()
    }
}

fn oracle() -> PathBuf {
    Path::new(CNI_PLUGINS).join("host-local")
}

/// Compares two outcomes of one call; the error says how they differ.
fn agree(theirs: &Outcome, ours: &Outcome) -> Result<(), String> {
    let same = match (theirs, ours) {
        (Outcome::Done(theirs), Outcome::Done(ours)) => {
            differences::without_empty_dns(theirs) == differences::without_empty_dns(ours)
        }
        (Outcome::Refused(_), Outcome::Refused(_)) => {
            let codes = match theirs.code() {
                Some(UNCLASSIFIED) => ours.code() != Some(UNCLASSIFIED),
                code => ours.code() == code,
            };
            codes && says_what(theirs.message(), ours.message())
        }
        _ => false,
    };
    if same {
        Ok(())
    } else {
        Err(format!("\n    host-local: {theirs:?}\n    my-ipam:    {ours:?}"))
    }
}

/// True if our message keeps the words of theirs; it may say more.
fn says_what(theirs: &str, ours: &str) -> bool {
    match (theirs.strip_prefix(LEFTOVERS), ours.split_once(LEFTOVERS)) {
        (Some(theirs), Some((_, ours))) => {
            let ours: BTreeSet<&str> = words(ours).collect();
            words(theirs).all(|address| ours.contains(address))
        }
        _ => ours.contains(theirs),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', ';']).filter(|word| !word.is_empty())
}

/// The addresses of a result of any version, each as `address/length via gateway`.
fn addresses(result: &Value) -> Vec<String> {
    let line = |address: &Value, gateway: &Value| {
        let address = address.as_str().unwrap_or("no address");
        format!("{address} via {}", gateway.as_str().unwrap_or("nothing"))
    };
    match result["ips"].as_array() {
        Some(ips) => ips.iter().map(|ip| line(&ip["address"], &ip["gateway"])).collect(),
        None => ["ip4", "ip6"]
            .into_iter()
            .filter_map(|family| result.get(family))
            .map(|ip| line(&ip["ip"], &ip["gateway"]))
            .collect(),
    }
}

/// The addresses that an ADD asks for, by the place of the request.
#[derive(Clone, Debug, Default)]
struct Asks {
    /// In `CNI_ARGS`, as `IP=`.
    environment: Option<String>,
    /// In the configuration, as `args.cni.ips`.
    args: Vec<String>,
    /// In the configuration, as `runtimeConfig.ips`.
    capability: Vec<String>,
}

impl Asks {
    fn is_empty(&self) -> bool {
        self.environment.is_none() && self.args.is_empty() && self.capability.is_empty()
    }

    /// Writes the requests into a call.
    fn apply(&self, call: &mut Call) {
        if let Some(address) = &self.environment {
            call.args = format!("IP={address}");
        }
        if !self.args.is_empty() {
            call.config["args"] = json!({"cni": {"ips": self.args}});
        }
        if !self.capability.is_empty() {
            let config = call.config.as_object_mut().expect("an object");
            let runtime = config.entry("runtimeConfig").or_insert_with(|| json!({}));
            runtime["ips"] = json!(self.capability);
        }
    }
}

/// A configuration of a network: `{"ipam": …}` with a version and a name, or an `ipam` object.
fn configuration(network: &str, given: &Value) -> Value {
    let mut config = json!({"cniVersion": "1.0.0", "name": network, "type": "any"});
    let whole = given.get("ipam").is_some() || given.get("cniVersion").is_some();
    let given = if whole { given.clone() } else { json!({"ipam": given}) };
    let fields: Map<String, Value> = given.as_object().expect("an object").clone();
    config.as_object_mut().expect("an object").extend(fields);
    config
}

/// Runs a table of vectors on both sides, and fails with the list of those that do not hold.
fn hold_on_both_sides(title: &str, text: &str) {
    let vectors = table::parse(text);
    let mut sides = Sides::start();
    let mut steps = 0;
    let mut failures = Vec::new();
    for (index, vector) in vectors.iter().enumerate() {
        let network = format!("{title}-{index}");
        match vector.run(&mut sides, &network) {
            Ok(count) => steps += count,
            Err(why) => failures.push(format!("{}\n  {why}", vector.name)),
        }
    }
    println!("{title}: {} vectors, {steps} steps on each side", vectors.len());
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// The vectors of host-local's own tests give the expected results on both sides.
#[test]
fn the_vectors_of_host_local_hold_on_both_sides() {
    hold_on_both_sides("allocator", vectors::ALLOCATOR);
    hold_on_both_sides("config", vectors::CONFIG);
    hold_on_both_sides("ranges", vectors::RANGES);
}

/// The corners of the configuration's grammar are read alike by both sides.
#[test]
fn the_corners_of_the_grammar_hold_on_both_sides() {
    hold_on_both_sides("grammar", grammar::GRAMMAR);
}

/// Two networks over the same subnet are two pools, on both sides.
#[test]
fn networks_of_other_names_are_separate_pools() {
    let mut sides = Sides::start();
    for network in ["left", "right"] {
        let config = configuration(network, &json!({"subnet": "10.0.0.0/29"}));
        let (theirs, ours) = sides.both(&Call::new("ADD", "a", &config), Way::Plugin);
        agree(&theirs, &ours).unwrap();
        assert_eq!(addresses(ours.expect_result()), ["10.0.0.2/29 via 10.0.0.1"]);
    }
}

/// The `dns` of a result comes from the file of `resolvConf`, and a missing file takes nothing.
#[test]
fn resolv_conf_is_read_alike() {
    let mut sides = Sides::start();
    let file = sides.data.path().join("resolv.conf");
    fs::write(
        &file,
        "; comment\n# comment\nnameserver\nnameserver 192.0.2.3 more\n  nameserver ::1\n\
         domain first.example\ndomain last.example\nsearch a b\nsearch c # d\n\
         options ndots:5\tedns0\noptions rotate\nNameserver 192.0.2.4\n",
    )
    .expect("a file");
    for version in ["0.2.0", "0.4.0", "1.0.0"] {
        let network = format!("dns-{version}");
        let ipam = json!({"subnet": "10.0.0.0/29", "resolvConf": file});
        let config = configuration(&network, &json!({"cniVersion": version, "ipam": ipam}));
        let (theirs, ours) = sides.both(&Call::new("ADD", "a", &config), Way::Plugin);
        agree(&theirs, &ours).unwrap();
        let dns = &ours.expect_result()["dns"];
        assert_eq!(dns["nameservers"], json!(["192.0.2.3", "::1"]));
        assert_eq!(dns["search"], json!(["a", "b", "c", "#", "d"]));
    }
    let ipam = json!({"subnet": "10.0.0.0/29", "resolvConf": "/nonexistent/resolv.conf"});
    let config = configuration("dns-missing", &ipam);
    let (theirs, ours) = sides.both(&Call::new("ADD", "a", &config), Way::Plugin);
    agree(&theirs, &ours).unwrap();
    assert_eq!(sides.held_by_ours("dns-missing"), BTreeSet::new());
}

/// Keys match in any case, and the last of two equal keys counts, as in Go's decoder.
#[test]
fn keys_are_read_as_go_reads_them() {
    let sides = Sides::start();
    let text = |directory: &str| {
        let data = sides.data.path().join(directory);
        format!(
            r#"{{"CNIVersion": "0.2.0", "cniversion": "1.0.0", "NAME": "case", "TYPE": "x",
            "IPAM": {{"datadir": {data:?}, "SUBNET": "10.9.0.0/24", "subnet": "10.8.0.0/24",
            "RangeStart": "10.8.0.9", "GATEWAY": "10.8.0.77", "unknown": [1]}}}}"#
        )
    };
    let call = Call::new("ADD", "a", &Value::Null);
    let theirs = run(&oracle(), &call.environment(), &text("theirs"));
    let ours = sides.daemon.plugin_raw(&call.environment(), &text("ours"));
    let (theirs, ours) = (Outcome::of_process(&theirs), Outcome::of_process(&ours));
    agree(&theirs, &ours).unwrap();
    assert_eq!(addresses(ours.expect_result()), ["10.8.0.9/24 via 10.8.0.77"]);
}

/// The dispatch layer refuses the same calls, with the same code and the same words.
#[test]
fn calls_that_never_reach_ipam_are_refused_alike() {
    let sides = Sides::start();
    let good = r#"{"cniVersion":"1.0.0","name":"n","ipam":{"subnet":"10.0.0.0/24"}}"#;
    let complete = Call::new("ADD", "a", &Value::Null);
    let mut failures = Vec::new();
    for (changes, stdin, code) in grammar::DISPATCH {
        let mut environment: Vec<(&str, &str)> = complete.environment().to_vec();
        for (variable, value) in *changes {
            environment.retain(|(name, _)| name != variable);
            environment.extend((!value.is_empty()).then_some((*variable, *value)));
        }
        let stdin = if stdin.is_empty() { good } else { *stdin };
        let theirs = Outcome::of_process(&run(&oracle(), &environment, stdin));
        let ours = Outcome::of_process(&sides.daemon.plugin_raw(&environment, stdin));
        if theirs.code() != Some(*code) {
            failures.push(format!("{changes:?} {stdin}: code {code} of {theirs:?}"));
        }
        if let Err(why) = agree(&theirs, &ours) {
            failures.push(format!("{changes:?} {stdin}: {why}"));
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// The walk goes on after the last address given, also when the daemon died in between.
#[test]
fn the_place_of_the_walk_survives_kill_nine() {
    let mut sides = Sides::start();
    let config = configuration("walk", &json!({"subnet": "192.168.1.0/29"}));
    let mut step = |command, container: &str, crash: bool| {
        if crash {
            sides.daemon.kill9();
            sides.daemon.restart();
        }
        let (theirs, ours) = sides.both(&Call::new(command, container, &config), Way::Plugin);
        agree(&theirs, &ours).unwrap();
        ours
    };
    assert!(step("ADD", "a", false).succeeded());
    let second = step("ADD", "b", true);
    assert_eq!(addresses(second.expect_result()), ["192.168.1.3/29 via 192.168.1.1"]);
    assert!(step("DEL", "b", false).succeeded());
    let third = step("ADD", "c", true);
    assert_eq!(addresses(third.expect_result()), ["192.168.1.4/29 via 192.168.1.1"]);
}
