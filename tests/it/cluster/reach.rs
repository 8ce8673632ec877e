//! No address is stranded: every node can get every free address.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Book, EXHAUSTED, active_blocks, add, address, address_of, containers, network, nodes};
use crate::common::Call;
use crate::common::etcd::Cluster;

const NODES: usize = 10;
const ADDRESSES: usize = 1_000;
/// Callers at the same time.
const CALLERS: usize = 20;
/// CNI's code for "try again later".
const TRY_AGAIN: u64 = 11;
/// The number of tries of a container.
const TRIES: usize = 20;
/// The time within which each container must have its address.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// A pool of exactly 1,000 addresses, with odd blocks at either end.
fn exact(name: &str, block_size: Option<u8>) -> Value {
    let range = json!({
        "subnet": "10.1.0.0/20", "rangeStart": "10.1.1.5", "rangeEnd": "10.1.4.236",
    });
    let mut config = network(name, &range);
    if let Some(length) = block_size {
        config["ipam"]["blockSize"] = length.into();
    }
    config
}

fn shuffled(mut all: Vec<String>) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(7);
    random.shuffle(&mut all);
    all
}

/// Lets as many containers as there are addresses arrive at random nodes: each gets one, and the
/// next one gets none.
fn fill(config: &Value) {
    let etcd = Cluster::start(1);
    let daemons = nodes(&etcd, NODES, &[]);
    let book = Book::default();
    let all = shuffled(containers("c", ADDRESSES));
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (all, next, book, daemons) = (&all, &next, &book, &daemons);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(caller as u64);
                let mut clients: Vec<_> = daemons.iter().map(|daemon| daemon.client()).collect();
                while let Some(container) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let node = random.usize(..NODES);
                    // A busy node may not answer in time: the ADD names that cause, and is tried
                    // again.
                    // No ADD may fail with "no addresses".
                    let mut tries = (0..TRIES)
                        .map(|_| clients[node].call(&Call::new("ADD", container, config)));
                    let outcome = tries.find(|outcome| outcome.code() != Some(TRY_AGAIN));
                    let outcome = outcome.unwrap_or_else(|| panic!("{} held", book.len()));
                    assert!(outcome.succeeded(), "{} held: node-{node}: {outcome:?}", book.len());
                    book.added(container, &address_of(&outcome));
                }
            });
        }
    });
    let took = began.elapsed();
    println!("{ADDRESSES} containers on {NODES} nodes in {took:?}");
    assert!(took < ARRIVAL_MAX, "it took {took:?}");
    assert_eq!(book.len(), ADDRESSES);
    for daemon in daemons.iter().take(2) {
        let outcome = add(daemon, "one-more", config);
        assert_eq!(outcome.code(), Some(EXHAUSTED), "{outcome:?}");
    }
    book.compare(&daemons.iter().collect::<Vec<_>>());
}

#[test]
fn a_pool_fills_to_the_last_address() {
    fill(&exact("usual", None));
}

#[test]
fn a_pool_of_few_large_blocks_fills_to_the_last_address() {
    fill(&exact("large", Some(26)));
}

/// An ADD can get a free address of another node by name, but not one that a container holds.
#[test]
fn an_address_that_another_node_holds_free_is_had_by_name() {
    let etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let config = network("named", &json!({ "subnet": "10.2.0.0/16" }));
    let first = address_of(&add(&daemons[0], "there", &config));
    let blocks = active_blocks(&daemons[0]);
    let (start, size) = *blocks.last().expect("a block of node-0");
    let wanted = address(start + size - 2);
    assert_ne!(wanted, first);

    let mut call = Call::new("ADD", "here", &config);
    call.args = format!("IP={wanted}");
    assert_eq!(address_of(&daemons[1].client().call(&call)), wanted);
    let mut call = Call::new("ADD", "too-late", &config);
    call.args = format!("IP={first}");
    let outcome = daemons[1].client().call(&call);
    assert_eq!(outcome.code(), Some(102), "held by a container there: {outcome:?}");
    // Then back again, from the node that has it now.
    let del = daemons[1].client().call(&Call::new("DEL", "here", &config));
    assert!(del.succeeded(), "{del:?}");
    let mut call = Call::new("ADD", "there-again", &config);
    call.args = format!("IP={wanted}");
    assert_eq!(address_of(&daemons[0].client().call(&call)), wanted);
    // The rest of the block stays in use.
    let outcomes = super::add_all(&mut daemons[0].client(), &containers("rest", 100), &config);
    let book = Book::default();
    book.added("there", &first);
    book.added("there-again", &wanted);
    book.add_all(&containers("rest", 100), &outcomes);
    book.compare(&[&daemons[0], &daemons[1]]);
}

/// Every node with a pod of a stage can get the addresses listed for that stage.
#[test]
fn the_addresses_of_a_stage_are_had_on_every_node() {
    let etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let listed = ["10.3.0.10", "10.3.0.11", "10.3.0.12"];
    let range = json!({ "subnet": "10.3.0.0/22", "sandbox": listed });
    let config = network("staged", &range);
    let staged = |container: &str| {
        let mut call = Call::new("ADD", container, &config);
        call.args = "STAGE=sandbox".to_owned();
        call
    };
    let mut got = Vec::new();
    for (at, node) in [0, 1, 0].into_iter().enumerate() {
        got.push(address_of(&daemons[node].client().call(&staged(&format!("s-{at}")))));
    }
    got.sort();
    assert_eq!(got, listed);
    for daemon in &daemons {
        let outcome = daemon.client().call(&staged("s-more"));
        assert_eq!(outcome.code(), Some(EXHAUSTED), "{outcome:?}");
        assert!(outcome.message().contains("sandbox"), "{outcome:?}");
        // A pod of no stage still gets an address.
        let plain = address_of(&add(daemon, "plain", &config));
        assert!(!listed.contains(&plain.as_str()), "{plain} is kept for sandbox");
    }
    let del = daemons[0].client().call(&Call::new("DEL", "s-0", &config));
    assert!(del.succeeded(), "{del:?}");
    let again = address_of(&daemons[1].client().call(&staged("s-again")));
    assert!(listed.contains(&again.as_str()), "{again}");
}

/// A free address in the last of very many blocks of a node can be had too.
#[test]
fn the_last_free_address_of_a_node_with_many_blocks_is_had() {
    let etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let mut config = network("many", &json!({ "subnet": "10.4.0.0/22" }));
    config["ipam"]["blockSize"] = 30.into();
    // 1,024 less the network's, the broadcast address and the gateway.
    let all = containers("all", 1_021);
    let outcomes = super::add_all(&mut daemons[0].client(), &all, &config);
    let of = |wanted: &str| {
        let holds = |outcome: &_| address_of(outcome) == wanted;
        let at = outcomes.iter().position(holds).expect("a container of the address");
        all[at].clone()
    };
    for wanted in ["10.4.3.254", "10.4.0.2", "10.4.2.1"] {
        let container = of(wanted);
        let del = daemons[0].client().call(&Call::new("DEL", &container, &config));
        assert!(del.succeeded(), "{del:?}");
        assert_eq!(address_of(&add(&daemons[1], &format!("for-{wanted}"), &config)), wanted);
    }
}
