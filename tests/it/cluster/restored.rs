//! etcd set back to a backup: what happened since is known to the nodes only.

use std::time::Duration;

use super::{Book, TRY_AGAIN, add, add_all, containers, metric, network, nodes, wide};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, poll};
use serde_json::json;

/// How long until a node has noticed.
const NOTICE_MAX: Duration = Duration::from_secs(10);

/// Blocks in hand go on and nobody gets an address twice; that the store went back is said; and
/// no block is claimed before every node had the time to say what it holds.
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

    let noticed = |daemon: &Daemon| metric(daemon, "leasehold_store_went_back_total", &[]) > 0.0;
    for daemon in &daemons {
        let said = poll(NOTICE_MAX, || noticed(daemon));
        assert!(said, "it has not noticed within {NOTICE_MAX:?}\n{}", daemon.log_tail());
        assert!(daemon.log().contains("as if restored from a backup"), "{}", daemon.log_tail());
    }
    // Every block is claimed again, or was never lost.
    for daemon in &daemons {
        let whole = || metric(daemon, "leasehold_lost_blocks", &[]) == 0.0;
        assert!(poll(NOTICE_MAX, whole), "blocks stay lost\n{}", daemon.log_tail());
    }
    // The last blocks have something free: the blocks in hand go on.
    grow("in-hand", 20);
    let other = network("other", &json!({ "subnet": "10.9.0.0/16" }));
    for daemon in &daemons {
        let outcome = add(daemon, "first", &other);
        assert_eq!(outcome.code(), Some(TRY_AGAIN), "a block was claimed too soon: {outcome:?}");
        let why = outcome.message();
        assert!(why.contains("restored") || why.contains("back in time"), "{outcome:?}");
    }
    book.compare(&daemons.iter().collect::<Vec<_>>());
}
