//! An etcd of three members that loses its leader.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::churn::{Churn, Held};
use super::{Book, PATIENCE, add, add_all, containers, network, nodes, wide};
use crate::common::etcd::Cluster;
use crate::common::poll;

/// No ADD within a node's blocks is affected, and blocks are leased again after the election.
#[test]
fn an_election_is_not_noticed_in_the_blocks_in_hand() {
    let mut etcd = Cluster::start(3);
    let daemons = nodes(&etcd, 2, &[]);
    let (config, book) = (wide(), Arc::new(Book::default()));
    let churn = Churn::start(&book, &daemons, &config, 60, "churn");
    thread::sleep(Duration::from_secs(2));
    let leader = etcd.leader();
    etcd.kill(leader);
    let began = Instant::now();
    let other = network("other", &json!({ "subnet": "10.9.0.0/16" }));
    for daemon in &daemons {
        let leased = poll(PATIENCE, || add(daemon, "first", &other).succeeded());
        assert!(leased, "no block without {leader}\n{}", daemon.log_tail());
    }
    println!("blocks of two members after {:?}", began.elapsed());
    for (daemon, at) in daemons.iter().zip(0..) {
        let more = containers(&format!("more-{at}"), 500);
        book.add_all(&more, &add_all(&mut daemon.client(), &more, &config));
    }
    etcd.restart(leader);
    thread::sleep(Duration::from_millis(500));
    let (report, held) = churn.stop();
    assert_eq!(report.refused, Vec::<String>::new());
    assert_eq!(report.failed, Vec::<String>::new());
    assert!(report.longest < Duration::from_secs(1), "an ADD took {:?}", report.longest);
    for daemon in &daemons {
        assert!(
            daemon.client().call(&crate::common::Call::new("DEL", "first", &other)).succeeded()
        );
    }
    book.compare(&daemons.iter().collect::<Vec<_>>());
    held.into_iter().for_each(Held::end);
    book.compare(&daemons.iter().collect::<Vec<_>>());
}
