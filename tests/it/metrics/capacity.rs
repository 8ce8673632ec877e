//! Capacity, to the address: every address of a pool is in exactly one figure, and the figures
//! agree with the allocations and with the blocks in etcd.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use super::super::cluster::{EXHAUSTED, PATIENCE, metric, network, nodes, values};
use super::super::common::etcd::Cluster;
use super::super::common::{Call, Daemon, LEASEHOLD, Options, poll};

/// The number of addresses that can go out of 10.50.0.0/23, without its network, gateway and
/// broadcast address, and of 32 addresses of 10.60.0.0/24, of which one is the gateway.
const SIZE: f64 = 509.0 + 31.0;

/// Ranges whose ends lie within blocks, with a gateway inside of each, and a list for a stage.
fn uneven() -> Value {
    let mut config = network("uneven", &json!({}));
    config["ipam"]["ranges"] = json!([[
        { "subnet": "10.50.0.0/23", "sandbox": ["10.50.0.77", "10.50.1.200"] },
        {
            "subnet": "10.60.0.0/24", "rangeStart": "10.60.0.100", "rangeEnd": "10.60.0.131",
            "gateway": "10.60.0.110",
        },
    ]]);
    config
}

/// The addresses of all daemons together, by state.
fn by_state(daemons: &[&Daemon]) -> BTreeMap<&'static str, f64> {
    let states =
        ["allocated", "cooling", "leaving", "free", "kept", "spare", "withheld", "reserved"];
    let of = |state: &str| {
        let labels = ["network=\"uneven\"", &format!("state=\"{state}\"")];
        daemons.iter().map(|daemon| metric(daemon, "leasehold_addresses", &labels)).sum()
    };
    states.map(|state| (state, of(state))).into()
}

fn pool(daemon: &Daemon, figure: &str) -> f64 {
    metric(daemon, &format!("leasehold_pool_{figure}addresses"), &["network=\"uneven\""])
}

/// The sizes of the blocks in etcd, by status, and those of all together.
fn in_etcd(etcd: &Cluster) -> f64 {
    let size = |block: &Value| {
        let prefix = block["prefix"].as_str().expect("a prefix");
        let length: u32 = prefix.split_once('/').expect("a prefix").1.parse().expect("a length");
        f64::from(1u32 << (32 - length))
    };
    values(etcd, "blocks/uneven/").iter().map(size).sum()
}

/// Waits until the figures agree, and returns why not if they never do.
fn await_sums(etcd: &Cluster, daemons: &[&Daemon], gone: f64) {
    let mut last = String::new();
    let agreed = poll(PATIENCE, || {
        let states = by_state(daemons);
        let in_blocks: f64 = states.values().sum();
        let can_go_out = in_blocks - states["reserved"];
        let pools: Vec<[f64; 5]> = (daemons.iter())
            .map(|of| ["", "unclaimed_", "gone_", "kept_", "reserved_"].map(|f| pool(of, f)))
            .collect();
        let whole = in_etcd(etcd);
        last = format!("{states:?}, pools {pools:?}, blocks in etcd {whole}");
        // What nodes that are gone hold includes what can never go out: all their blocks are
        // known from etcd only.
        pools.iter().all(|&[size, unclaimed, of_gone, kept, reserved]| {
            size == SIZE
                && unclaimed + of_gone + can_go_out == SIZE
                && (of_gone > 0.0) == (gone > 0.0)
                && (kept, reserved) == (2.0, 2.0)
        }) && (gone > 0.0 || in_blocks == whole)
    });
    assert!(agreed, "the figures do not agree: {last}");
}

#[test]
fn sums_agree_with_each_other_and_with_etcd() {
    let etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 3, &["--cooldown", "1h"]);
    let config = uneven();
    let mut held = 0;
    for (at, count) in [(0, 37), (1, 5), (2, 20)] {
        let mut client = daemons[at].client();
        for number in 0..count {
            let name = format!("c-{at}-{number}");
            client.call(&Call::new("ADD", &name, &config)).expect_result();
            held += 1;
            if number % 4 == 0 {
                assert!(client.call(&Call::new("DEL", &name, &config)).succeeded());
                held -= 1;
            }
        }
    }
    let all: Vec<&Daemon> = daemons.iter().collect();
    await_sums(&etcd, &all, 0.0);
    let states = by_state(&all);
    let listed: usize = daemons.iter().map(|daemon| daemon.allocations().len()).sum();
    assert_eq!((states["allocated"], listed), (f64::from(held), held as usize));
    assert_eq!(states["cooling"], 10.0 + 2.0 + 5.0);
    // The last daemon dies: its blocks are those of a node that is gone.
    let mut last = daemons.pop().expect("three daemons");
    last.kill9();
    let all: Vec<&Daemon> = daemons.iter().collect();
    await_sums(&etcd, &all, 1.0);
    assert_eq!(metric(&daemons[0], "leasehold_nodes", &["state=\"gone\""]), 1.0);
    assert_eq!(metric(&daemons[0], "leasehold_nodes", &["state=\"live\""]), 2.0);
    // It comes back, and learns from the next ADD what its gateways are.
    last.restart();
    last.client().call(&Call::new("ADD", "c-2-next", &config)).expect_result();
    let mut all = all;
    all.push(&last);
    await_sums(&etcd, &all, 0.0);
    // The pool is used up to its last address, on one node.
    let mut client = daemons[0].client();
    let mut number = 0;
    let filled = poll(PATIENCE, || {
        let added = client.call(&Call::new("ADD", &format!("more-{number}"), &config));
        number += 1;
        // Any other refusal is one of a moment.
        added.code() == Some(EXHAUSTED)
    });
    assert!(filled, "{number} ADDs, and the pool is not exhausted");
    await_sums(&etcd, &all, 0.0);
    let states = by_state(&all);
    let used = states["allocated"] + states["cooling"];
    assert_eq!(used, SIZE - 2.0, "what was not handed out is kept for a stage: {states:?}");
}

/// One address of each range set, of which the first has five.
fn two_sets() -> Value {
    let mut config = network("two", &json!({}));
    config["ipam"]["ranges"] =
        json!([[{ "subnet": "10.40.0.0/29" }], [{ "subnet": "10.41.0.0/24" }]]);
    config
}

/// The addresses of a range set of network "two" that an ADD can get, by the rules for Prometheus.
fn available(daemon: &Daemon, range_set: &str) -> f64 {
    let range_set = format!("range_set=\"{range_set}\"");
    let unclaimed = metric(daemon, "leasehold_pool_unclaimed_addresses", &[&range_set]);
    let states = ["free", "spare", "cooling"].map(|state| format!("state=\"{state}\""));
    let here = states.map(|state| metric(daemon, "leasehold_addresses", &[&range_set, &state]));
    unclaimed + here.iter().sum::<f64>()
}

#[test]
fn a_range_set_is_exhausted_by_itself_and_not_by_what_cools() {
    let options = Options { args: vec!["--cooldown=1h".to_owned()], ..Options::default() };
    let daemon = Daemon::start(&options);
    let (config, mut client) = (two_sets(), daemon.client());
    let rows = || -> BTreeMap<String, Value> {
        let Value::Array(rows) = daemon.client().get("/v1/pools") else { panic!("no rows") };
        let named = |row: Value| (row["rangeSet"].as_str().expect("a start").to_owned(), row);
        rows.into_iter().map(named).collect()
    };
    for number in 0..5 {
        client.call(&Call::new("ADD", &format!("c-{number}"), &config)).expect_result();
    }
    assert_eq!(client.call(&Call::new("ADD", "c-5", &config)).code(), Some(EXHAUSTED));
    assert_eq!((available(&daemon, "10.40.0.1"), available(&daemon, "10.41.0.0")), (0.0, 248.0));
    let full = rows();
    assert_eq!(
        (&full["10.40.0.1"]["available"], &full["10.40.0.1"]["used"]),
        (&json!(0), &json!(5))
    );
    assert_eq!(full["10.41.0.0"]["available"], 248);
    let networks = |code| {
        let mut command = Command::new(LEASEHOLD);
        command.arg("networks").env("LEASEHOLD_SOCKET", daemon.socket());
        let output = command.output().expect("leasehold runs");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    };
    networks(1);
    // Everything cools: it goes out all the same.
    for number in 0..5 {
        assert!(client.call(&Call::new("DEL", &format!("c-{number}"), &config)).succeeded());
    }
    assert_eq!(available(&daemon, "10.40.0.1"), 5.0);
    let cooling = rows();
    let row = &cooling["10.40.0.1"];
    assert_eq!((&row["available"], &row["here"]["cooling"]), (&json!(5), &json!(5)), "{row}");
    networks(0);
    client.call(&Call::new("ADD", "c-6", &config)).expect_result();
    assert_eq!(available(&daemon, "10.40.0.1"), 4.0);
}

#[test]
fn a_node_without_containers_knows_what_the_others_use() {
    let etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 3, &["--cooldown", "1h"]);
    let config = two_sets();
    for (daemon, count) in daemons.iter().zip([3, 2]) {
        for number in 0..count {
            let name = format!("c-{number}");
            daemon.client().call(&Call::new("ADD", &name, &config)).expect_result();
        }
    }
    let idle = daemons.pop().expect("three daemons");
    let of_idle = |figure: &str, range_set: &str| {
        let labels = [&format!("range_set=\"{range_set}\""), "exact=\"false\""];
        metric(&idle, &format!("leasehold_pool_{figure}addresses"), &labels)
    };
    // It does not know the gateways, and says so.
    let mut rows = Value::Null;
    let known = poll(PATIENCE, || {
        rows = idle.client().get("/v1/pools");
        rows[0]["used"] == 5 && rows[1]["used"] == 5
    });
    assert!(known, "{rows}");
    assert_eq!(rows[0]["exact"], false, "{rows}");
    let whole = of_idle("", "10.40.0.1");
    assert!((5.0..=8.0).contains(&whole) && of_idle("", "10.41.0.0") > 200.0, "{rows}");
    assert_eq!(of_idle("gone_", "10.40.0.1"), 0.0);
    // Everybody who used the network is gone.
    for daemon in &mut daemons {
        daemon.kill9();
    }
    let gone = poll(PATIENCE, || of_idle("gone_", "10.40.0.1") > 0.0);
    assert!(gone, "{}", idle.client().request("GET", "/metrics", "").body);
    assert_eq!(metric(&idle, "leasehold_nodes", &["state=\"gone\""]), 2.0);
}
