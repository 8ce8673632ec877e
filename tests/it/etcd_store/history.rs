//! The length of etcd's history, as a daemon finds it, and the warning if nobody compacts.

use leasehold::store::etcd::{Etcd, History};

use super::{PATIENCE, Subject, put};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, Options, poll};

/// Revisions of an etcd that was never compacted with which a daemon warns at once.
const MANY: u64 = 10_000;

#[test]
fn the_oldest_revision_that_etcd_keeps_is_found() {
    let cluster = Cluster::start(1);
    let etcd = Etcd::connect(cluster.options("/test")).expect("good options");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let history = |oldest| runtime.block_on(etcd.history(oldest)).expect("an answer");
    let store = Subject::etcd(cluster.options("/test"));
    let mut last = 0;
    for epoch in 1..=200 {
        last = store.done(&[], &[put("sessions/a", epoch)]).get();
    }
    assert_eq!(history(1), History { revision: last, oldest: 1 });
    for (compact, known) in [(17, 1), (99, 17), (100, 1), (last, 100)] {
        cluster.ctl(&["compact", &compact.to_string()]);
        assert_eq!(history(known), History { revision: last, oldest: compact }, "{compact}");
    }
    assert_eq!(history(last + 1_000), History { revision: last, oldest: last }, "a restored etcd");
}

#[test]
fn a_daemon_warns_of_an_etcd_that_nobody_compacts() {
    let cluster = Cluster::start(1);
    let start = || {
        let args = vec!["--etcd".to_owned(), cluster.endpoint(0)];
        Daemon::start(&Options { args, ..Options::default() })
    };
    let metric = |daemon: &Daemon| -> u64 {
        let text = daemon.over_tcp("GET", "/metrics", "").body;
        let line =
            text.lines().find_map(|line| line.strip_prefix("leasehold_etcd_history_revisions "));
        line.expect("the metric").parse::<f64>().expect("a number") as u64
    };
    let warns = |daemon: &Daemon| daemon.log().contains("it has never been compacted");
    let new = start();
    assert!(metric(&new) < 1_000, "{}", metric(&new));
    assert!(!warns(&new), "{}", new.log_tail());
    drop(new);
    // etcd raises its revision with every transaction that writes.
    let store = Subject::etcd(cluster.options("/elsewhere"));
    for epoch in 1..=MANY {
        store.done(&[], &[put("sessions/a", epoch)]);
    }
    let daemon = start();
    assert!(poll(PATIENCE, || warns(&daemon)), "{}", daemon.log_tail());
    assert!(daemon.log().contains("--auto-compaction-mode=periodic"), "{}", daemon.log_tail());
    assert!(poll(PATIENCE, || metric(&daemon) > MANY), "{}", metric(&daemon));
    drop(daemon);
    let now = store.done(&[], &[put("sessions/a", 1)]);
    cluster.ctl(&["compact", &now.get().to_string()]);
    for epoch in 1..=5 {
        store.done(&[], &[put("sessions/a", epoch)]);
    }
    let compacted = start();
    assert!(poll(PATIENCE, || (1..1_000).contains(&metric(&compacted))), "{}", metric(&compacted));
    assert!(!warns(&compacted), "{}", compacted.log_tail());
}
