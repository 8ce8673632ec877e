//! etcd set back to a backup: only the nodes know the changes since then.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Book, RECORDS_MAX, TRY_AGAIN, active_blocks, add, add_all, address_of, await_status,
    containers, metric, network, nodes, values, wide,
};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, LEASEHOLD, poll};

/// The time within which a node must notice.
const NOTICE_MAX: Duration = Duration::from_secs(10);

/// The time within which a drained node in which nothing is held has no block.
const DRAINED_MAX: Duration = Duration::from_secs(20);

/// The shortest time for which no node claims a block.
const SETTLING: Duration = Duration::from_secs(60);
/// The time after that within which nodes must notice that it is over.
const SETTLED_MAX: Duration = Duration::from_secs(15);

/// Nodes go on with their own blocks, and no address is given twice. The nodes report that the
/// store went back. No block is claimed before every node had the time to report its blocks. Then
/// all go on.
#[test]
fn a_restored_backup_gives_no_address_twice() {
    let mut etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let (config, book) = (wide(), Book::default());
    let grow = |prefix: &str, count| {
        for (daemon, at) in daemons.iter().zip(0..) {
            let more = containers(&format!("{prefix}-{at}"), count);
            book.add_all(&more, &add_all(&mut daemon.client(), &more, &config));
        }
    };
    grow("before", 100);
    let backup = etcd.save();
    grow("since", 1_000);
    etcd.kill(0);
    etcd.restore(&backup);
    let began = Instant::now();

    let noticed = |daemon: &Daemon| {
        metric(daemon, "leasehold_store_went_back_total", &[]) > 0.0
            && daemon.log().contains("as if restored from a backup")
    };
    for daemon in &daemons {
        let said = poll(NOTICE_MAX, || noticed(daemon));
        assert!(said, "it has not noticed within {NOTICE_MAX:?}\n{}", daemon.log_tail());
    }
    // Every block is claimed again, or was never lost.
    for daemon in &daemons {
        let whole = || metric(daemon, "leasehold_lost_blocks", &[]) == 0.0;
        assert!(poll(NOTICE_MAX, whole), "blocks stay lost\n{}", daemon.log_tail());
    }
    // The last blocks have free addresses, which still go out.
    grow("in-hand", 20);
    let other = network("other", &json!({ "subnet": "10.9.0.0/16" }));
    for daemon in &daemons {
        let outcome = add(daemon, "first", &other);
        assert_eq!(outcome.code(), Some(TRY_AGAIN), "a block was claimed too soon: {outcome:?}");
        let why = outcome.message();
        assert!(why.contains("restored") || why.contains("back in time"), "{outcome:?}");
    }
    book.compare(&daemons.iter().collect::<Vec<_>>());

    // The waiting ends by itself.
    let firsts = daemons.iter().map(|daemon| {
        let over = poll(SETTLING + SETTLED_MAX, || add(daemon, "first", &other).succeeded());
        assert!(over, "{:?}\n{}", add(daemon, "first", &other), daemon.log_tail());
        address_of(&add(daemon, "first", &other))
    });
    let firsts: BTreeSet<String> = firsts.collect();
    println!("blocks again after {:?}", began.elapsed());
    assert_eq!(firsts.len(), daemons.len(), "two nodes give one address: {firsts:?}");
    assert!(began.elapsed() >= SETTLING - NOTICE_MAX, "too soon: {:?}", began.elapsed());
    assert_eq!(values(&etcd, "restored"), Vec::<Value>::new(), "the mark stays");
    grow("after", 1_000);
    for daemon in &daemons {
        await_status(daemon, "well", |status| status["cluster"]["cause"].is_null());
        assert!(daemon.client().call(&Call::new("DEL", "first", &other)).succeeded());
    }
    book.compare(&daemons.iter().collect::<Vec<_>>());
    book.await_records(&etcd, RECORDS_MAX);
    // Blocks in use were claimed again, by their node.
    let stored = values(&etcd, "blocks/");
    for (daemon, at) in daemons.iter().zip(0..) {
        let prefixes = daemon.client().get("/v1/blocks");
        for row in prefixes.as_array().expect("blocks").iter().filter(|r| r["state"] == "active") {
            let mut same = stored.iter().filter(|block| block["prefix"] == row["prefix"]);
            let block = same.next().unwrap_or_else(|| panic!("{row} is not in etcd"));
            assert_eq!(block["owner"], format!("node-{at}"), "{row}: {block}");
        }
    }
}

/// An operator drains a node while a restore is being settled: the node gives its blocks back
/// within seconds, long before that is over, and the restore is settled all the same.
#[test]
fn a_node_that_is_drained_while_a_restore_is_settled_gives_its_blocks_back() {
    let mut etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let (config, drained) = (wide(), &daemons[0]);
    let all = containers("pod", 300);
    add_all(&mut drained.client(), &all[..100], &config);
    let backup = etcd.save();
    add_all(&mut drained.client(), &all[100..], &config);
    for container in &all {
        assert!(drained.client().call(&Call::new("DEL", container, &config)).succeeded());
    }
    etcd.kill(0);
    etcd.restore(&backup);
    let noticed = || metric(drained, "leasehold_store_went_back_total", &[]) > 0.0;
    assert!(poll(NOTICE_MAX, noticed), "{}", drained.log_tail());
    let began = Instant::now();
    let mut drain = Command::new(LEASEHOLD);
    let drain = drain.arg("drain").env("LEASEHOLD_SOCKET", drained.socket()).output();
    let drain = drain.expect("leasehold runs");
    assert!(drain.status.success(), "{drain:?}");
    let gone = poll(DRAINED_MAX, || active_blocks(drained).is_empty());
    println!("drained after {:?}", began.elapsed());
    assert!(gone, "{:?}\n{}", active_blocks(drained), drained.log_tail());
    assert_ne!(values(&etcd, "restored"), Vec::<Value>::new(), "too late to tell");
    let settled = poll(SETTLING + SETTLED_MAX, || values(&etcd, "restored").is_empty());
    assert!(settled, "{}", drained.log_tail());
    assert!(add(&daemons[1], "first", &config).succeeded(), "{}", daemons[1].log_tail());
}
