//! An array of calls of any length is carried out in its order.

use serde_json::Value;

use super::config;
use crate::common::{Call, Daemon, Options};

/// As many calls as an array may have.
const CALLS: usize = 1024;

fn call(command: &'static str, number: usize) -> Call {
    let config = config("array", &["10.85.0.0/16"]);
    Call::new(command, &format!("array-{number}"), &config)
}

#[test]
fn the_adds_of_an_array_get_addresses_in_its_order() {
    let daemon = Daemon::start(&Options::default());
    let calls: Vec<Call> = (0..CALLS).map(|number| call("ADD", number)).collect();
    let answers = daemon.client().try_calls(&calls).expect("an array of answers");
    let address = |number: usize| format!("10.85.{}.{}/16", (number + 2) / 256, (number + 2) % 256);
    let got = answers.iter().map(|answer| &answer.expect_result()["ips"][0]["address"]);
    let astray = got.enumerate().find(|&(number, got)| *got != address(number));
    if let Some((number, got)) = astray {
        panic!("call {number} of {CALLS} got {got}, not {}", address(number));
    }
}

/// Each answer of an array has the number of its call, and so has the line about it.
#[test]
fn the_answers_of_an_array_are_numbered_as_the_log_numbers_its_calls() {
    let env = vec![("LEASEHOLD_LOG".to_owned(), "debug".to_owned())];
    let daemon = Daemon::start(&Options { env, ..Options::default() });
    let calls: Vec<Value> = (0..3).map(|number| call("ADD", number).body()).collect();
    let reply = daemon.client().request("POST", "/v1/cni", &Value::from(calls).to_string());
    let answers: Vec<Value> = serde_json::from_str(&reply.body).expect("an array");
    let log = daemon.log();
    for (at, answer) in answers.iter().enumerate() {
        let (number, address) = (&answer["call"], &answer["body"]["ips"][0]["address"]);
        let lines = log.lines().filter(|line| line.contains(&format!("ADD call={number} ")));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 1, "{number}: {log}");
        let named = format!("container=array-{at} ");
        let has = |text: &str| lines[0].contains(text);
        assert!(has(&named) && has(address.as_str().expect("an address")), "{}", lines[0]);
        assert!(has("waited="), "whether it waited for a block: {}", lines[0]);
    }
}

#[test]
fn an_add_and_its_del_in_one_array_leave_nothing() {
    let daemon = Daemon::start(&Options::default());
    let half = CALLS / 2;
    let adds = (0..half).map(|number| call("ADD", number));
    let dels = (0..half).map(|number| call("DEL", number));
    let calls: Vec<Call> = adds.chain(dels).collect();
    let answers = daemon.client().try_calls(&calls).expect("an array of answers");
    assert!(answers.iter().all(|answer| answer.succeeded()), "{answers:?}");
    let left: Vec<Value> = daemon.allocations();
    assert!(left.is_empty(), "{} DELs came before their ADD, which came first", left.len());
}
