//! A full node: 60,000 allocations survive a kill, and the daemon is back at once.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{addresses_of, config, listed};
use crate::common::{Call, Daemon, Options};

/// Allocations, nearly all that a /16 has.
const MANY: usize = 60_000;
/// Calls in one array.
const CALLS: usize = 1000;

fn add(number: usize) -> Call {
    Call::new("ADD", &format!("container-{number}"), &config("many", &["10.30.0.0/16"]))
}

#[test]
fn a_node_with_60000_allocations_restarts_with_all_of_them() {
    let mut daemon = Daemon::start(&Options::default());
    let mut client = daemon.client();
    let began = Instant::now();
    let mut told = BTreeSet::new();
    for first in (0..MANY).step_by(CALLS) {
        let calls: Vec<Call> = (first..first + CALLS).map(add).collect();
        let answers = client.try_calls(&calls).expect("an array of answers");
        for (number, answer) in (first..).zip(&answers) {
            told.insert((format!("container-{number}"), addresses_of(answer)));
        }
    }
    println!("{MANY} ADDs in arrays of {CALLS}: {:?}", began.elapsed());
    daemon.kill9();
    let began = Instant::now();
    daemon.restart();
    let mut client = daemon.client();
    addresses_of(&client.call(&add(MANY)));
    println!("from the start to the first answered ADD: {:?}", began.elapsed());
    let mut listed = listed(&daemon);
    listed.remove(&("many".to_owned(), format!("container-{MANY}"))).expect("the last one");
    let listed: BTreeSet<(String, Vec<String>)> =
        listed.into_iter().map(|((_, container), held)| (container, held)).collect();
    assert_eq!(listed.len(), MANY);
    assert!(listed == told, "the list after the restart differs from what was answered");
    println!("resident memory: {} KiB", daemon.memory_kib("VmRSS"));
}
