//! Keys that have no effect, and those that keep addresses back.

use serde_json::{Value, json};

use crate::common::{Call, Daemon, Options, Outcome};

fn config(ipam: &Value) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "pods", "ipam": ipam })
}

fn add(daemon: &Daemon, container: &str, ipam: &Value, args: &str) -> Outcome {
    let call = Call { args: args.to_owned(), ..Call::new("ADD", container, &config(ipam)) };
    daemon.client().call(&call)
}

fn address(outcome: &Outcome) -> String {
    outcome.expect_result()["ips"][0]["address"].as_str().expect("an address").to_owned()
}

#[test]
fn excluded_addresses_never_go_out_and_reserved_ones_only_by_name() {
    let daemon = Daemon::start(&Options::default());
    let ipam = json!({ "type": "my-ipam", "ranges": [[{
        "subnet": "10.9.0.0/28", "exclude": ["10.9.0.2", "10.9.0.8/29"],
        "reserved": ["10.9.0.4/31"]
    }]] });
    for excluded in ["IP=10.9.0.2", "IP=10.9.0.9"] {
        let refused = add(&daemon, "excluded", &ipam, excluded);
        assert_eq!(refused.code(), Some(102), "{refused:?}");
    }
    let mut given: Vec<String> = Vec::new();
    for number in 0..3 {
        given.push(address(&add(&daemon, &format!("c{number}"), &ipam, "")));
    }
    given.sort();
    assert_eq!(given, ["10.9.0.3/28", "10.9.0.6/28", "10.9.0.7/28"]);
    let full = add(&daemon, "full", &ipam, "");
    assert_eq!(full.code(), Some(100), "{full:?}");
    assert_eq!(address(&add(&daemon, "named", &ipam, "IP=10.9.0.5")), "10.9.0.5/28");
}

#[test]
fn an_exclusion_of_any_size_costs_no_more() {
    let daemon = Daemon::start(&Options::default());
    let ipam = json!({ "type": "my-ipam", "ranges": [[{
        "subnet": "fd00::/16", "exclude": ["fd00::/17", "fd00:8000::/40"]
    }]] });
    assert_eq!(address(&add(&daemon, "c1", &ipam, "")), "fd00:8000:100::/16");
    let blocks = daemon.client().get("/v1/blocks");
    let blocks = blocks.as_array().expect("blocks");
    assert!(blocks.len() < 10, "no block is leased for what is excluded: {blocks:?}");
}

#[test]
fn keys_without_effect_are_told_of_once() {
    let daemon = Daemon::start(&Options::default());
    let typing_error = json!({ "type": "my-ipam", "ranges": [[
        { "subnet": "10.9.0.0/24", "range_start": "10.9.0.100" }
    ]] });
    for number in 0..3 {
        assert!(add(&daemon, &format!("c{number}"), &typing_error, "").succeeded());
    }
    let words = "ipam.ranges[0][0].range_start is not known and has no effect: did you mean \
                 rangeStart?";
    assert_eq!(daemon.log().matches(words).count(), 1, "{}", daemon.log());
    let warnings = daemon.client().get("/v1/status")["warnings"].clone();
    assert_eq!(warnings, json!([format!("network pods: {words}")]));
    // Mended, it is forgotten.
    let mended = json!({ "type": "my-ipam", "ranges": [[{ "subnet": "10.9.0.0/24" }]] });
    assert!(add(&daemon, "c9", &mended, "").succeeded());
    assert_eq!(daemon.client().get("/v1/status")["warnings"], json!([]));
}
