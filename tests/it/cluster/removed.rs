//! A dead node with more blocks than fit one transaction is removed.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Book, EXHAUSTED, RECORDS_MAX, active_blocks, add, add_all, address_of, containers, network,
    nodes, values,
};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, LEASEHOLD, poll};

/// The shortest quarantine.
const QUARANTINE: Duration = Duration::from_secs(60);
/// The longest time that etcd takes to end a lease whose time is over.
const LATE_MAX: Duration = Duration::from_secs(15);
/// Containers of the dead node: three of them fill a block.
const HELD: usize = 600;

fn remove(daemon: &Daemon) -> Value {
    let mut command = Command::new(LEASEHOLD);
    command.args(["node", "remove", "node-0", "--yes", "--quarantine", "60s", "-o", "json"]);
    let output = command.env("LEASEHOLD_SOCKET", daemon.socket()).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, wrong) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{wrong}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The number of blocks of the dead node in a state.
fn blocks(etcd: &Cluster, state: &str) -> usize {
    let of = |block: &&Value| block["owner"] == "node-0" && block["state"] == state;
    values(etcd, "blocks/").iter().filter(of).count()
}

/// All its blocks are in quarantine at once. No node gets one before it ends, and all can after it.
#[test]
fn a_dead_node_with_hundreds_of_blocks_is_removed_and_its_blocks_come_free() {
    let etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 2, &[]);
    let mut config = network("small", &json!({ "subnet": "10.4.0.0/22" }));
    config["ipam"]["blockSize"] = 30.into();
    let (theirs, mine) = (containers("theirs", HELD), containers("mine", 1_021));
    let held = Book::default();
    held.add_all(&theirs, &add_all(&mut daemons[0].client(), &theirs, &config));
    held.await_records(&etcd, RECORDS_MAX);
    let active = active_blocks(&daemons[0]).len();
    assert!(active > 120, "only {active} blocks");
    daemons[0].kill9();
    let session = || values(&etcd, "sessions/node-0").pop();
    let gone = poll(LATE_MAX, || session().is_none());
    assert!(gone, "the dead node's session stays: {:?}", session());

    let began = Instant::now();
    let removed = remove(&daemons[1]);
    assert_eq!((&removed["outcome"], &removed["quarantined"]), (&json!("removed"), &json!(active)));
    assert_eq!(removed["records"], HELD);
    assert_eq!((blocks(&etcd, "active"), blocks(&etcd, "spare")), (0, 0), "blocks left behind");
    assert_eq!(blocks(&etcd, "quarantined"), active);
    let again = remove(&daemons[1]);
    assert_eq!(again["outcome"], "alreadyRemoved", "{again}");

    // Free addresses still go out, but none of the dead node's while containers may use them.
    let mut left = mine.iter();
    let last = left.find(|container| {
        let outcome = add(&daemons[1], container, &config);
        if !outcome.succeeded() {
            assert_eq!(outcome.code(), Some(EXHAUSTED), "{outcome:?}");
            return true;
        }
        // Before the end, no node hands out an address of the dead node.
        held.added(container, &address_of(&outcome));
        false
    });
    let last = last.expect("the pool is full");
    assert!(began.elapsed() < QUARANTINE, "too slow to tell: {:?}", began.elapsed());
    assert!(held.len() > HELD, "nothing was left for the living");

    let free = poll(QUARANTINE + LATE_MAX, || blocks(&etcd, "quarantined") == 0);
    let took = began.elapsed();
    assert!(free && took >= QUARANTINE, "free: {free}, after {took:?}");
    assert_eq!(remove(&daemons[1])["outcome"], "forgotten");
    assert_eq!(values(&etcd, "nodes/").len(), 1, "the dead node's key stays");
    let book = Book::default();
    for row in daemons[1].allocations() {
        let text = |name: &str| row[name].as_str().expect(name).to_owned();
        book.added(&text("containerId"), &text("address"));
    }
    let rest: Vec<String> = std::iter::once(last).chain(left).cloned().collect();
    let had = poll(LATE_MAX, || add(&daemons[1], &rest[0], &config).succeeded());
    assert!(had, "{:?}\n{}", add(&daemons[1], &rest[0], &config), daemons[1].log_tail());
    book.add_all(&rest, &add_all(&mut daemons[1].client(), &rest, &config));
    assert_eq!(book.len(), mine.len(), "the pool fills to the last address");
    book.compare(&[&daemons[1]]);
}
