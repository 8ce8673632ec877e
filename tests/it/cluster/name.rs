//! Two daemons of one name.

use std::time::Duration;

use super::{add, address_of, await_status, containers, options, wide};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, go_on, poll, stop};

/// Longer than the TTL of a node's lease and etcd's delay in ending it.
const LEASE_GONE_MAX: Duration = Duration::from_secs(20);

/// While the first daemon lives, the second one waits and says for what. When the first one has
/// been away for too long, the second one takes over, and the first one never serves again.
#[test]
fn of_two_daemons_of_one_name_the_newer_serves_once_the_older_seems_dead() {
    let etcd = Cluster::start(1);
    let config = wide();
    let older = Daemon::start(&options(&etcd, "twin", &[]));
    let held = address_of(&add(&older, "of-the-older", &config));

    let mut newer = Daemon::prepare(&options(&etcd, "twin", &[]));
    newer.try_start().expect("a daemon that waits");
    await_status(&newer, "waiting for the name", |status| {
        let cause = status["cluster"]["cause"].as_str().unwrap_or_default();
        status["cluster"]["state"] == "joining" && cause.contains("twin")
    });
    let outcome = add(&newer, "too-soon", &config);
    assert!(!outcome.succeeded(), "two daemons serve one name: {outcome:?}");
    assert!(outcome.message().contains("twin"), "{outcome:?}");
    assert!(add(&older, "still", &config).succeeded());

    stop(older.pid());
    let serves = poll(LEASE_GONE_MAX, || {
        std::thread::sleep(Duration::from_millis(100));
        add(&newer, "of-the-newer", &config).succeeded()
    });
    go_on(older.pid());
    assert!(serves, "the newer one never serves\n{}", newer.log_tail());
    // For a moment after its sleep its server's clock is behind, and every request seems too slow.
    let awake = || older.client().request("GET", "/v1/status", "").status == 200;
    assert!(poll(LEASE_GONE_MAX, awake), "the older one does not wake up");

    await_status(&older, "fenced", |status| status["cluster"]["state"] == "fenced");
    let ready = older.client().request("GET", "/readyz", "");
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(ready.body.contains("another daemon took over node twin"), "{}", ready.body);
    let outcome = add(&older, "fenced", &config);
    assert!(!outcome.succeeded(), "a fenced daemon hands out: {outcome:?}");
    assert!(outcome.message().contains("another daemon took over node twin"), "{outcome:?}");

    // Addresses that the older one handed out are not handed out again.
    let more = containers("newer", 1_000);
    for outcome in super::add_all(&mut newer.client(), &more, &config) {
        assert_ne!(address_of(&outcome), held);
    }
}
