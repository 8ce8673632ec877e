//! An etcd that refuses writes.

use std::process::Command;
use std::time::Duration;

use super::{add, await_status, metric, options, wide};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, poll};

/// The disk quota of etcd, in bytes.
const QUOTA: u32 = 400_000;

/// While etcd has no space, one waiting record costs few requests and few lines, and the log does
/// not say that etcd answers again. With room, it does.
#[test]
fn an_etcd_without_space_is_asked_less_and_less() {
    let etcd = Cluster::start_small(QUOTA);
    let daemon = Daemon::start(&options(&etcd, "node-0", &[]));
    add(&daemon, "before", &wide()).expect_result();
    await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
    let junk = "x".repeat(20_000);
    let put = || {
        let mut command = Command::new("etcdctl");
        command.args(["--endpoints", &etcd.endpoint(0), "put", "junk", &junk]);
        command.env("ETCDCTL_API", "3").output().expect("etcdctl runs").status.success()
    };
    let full = poll(Duration::from_secs(60), || !put());
    assert!(full, "etcd does not run full");
    add(&daemon, "without-a-record", &wide()).expect_result();
    std::thread::sleep(Duration::from_secs(4));
    let requests = || metric(&daemon, "leasehold_etcd_requests_total", &[]);
    let (asked, lines) = (requests(), daemon.log().lines().count());
    std::thread::sleep(Duration::from_secs(10));
    let (asked, lines) = (requests() - asked, daemon.log().lines().count() - lines);
    assert!(asked <= 60.0, "{asked} requests in 10 s");
    assert!(lines <= 5, "{lines} lines in 10 s\n{}", daemon.log_tail());
    assert!(!daemon.log().contains("answers again"), "{}", daemon.log_tail());
}
