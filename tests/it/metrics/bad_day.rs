//! The expressions that return something only on a bad day: certificates that end, slow and long
//! outages, a full disk, blocks that others have.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::bad_input::disk;
use super::super::cluster::certificates::{prepare, renew};
use super::super::cluster::{add, await_status, network, nodes, wide};
use super::super::common::etcd::Cluster;
use super::super::common::{go_on, stop};
use super::live::{Prometheus, Watch, leasehold};

/// The time in which each of them must show its effect: some speak of a minute.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);

/// The alerts and panels.
pub(super) const NAMES: [&str; 7] = [
    "LeaseholdCertificateEnds",
    "Leasehold: etcd: Time until certificates end",
    "LeaseholdAddSlow",
    "LeaseholdJournalBroken",
    "LeaseholdBlocksLost",
    "LeaseholdEtcdAway",
    "LeaseholdRecordsLag",
];

/// The time for which etcd stands still while an ADD waits.
const HICCUP: Duration = Duration::from_millis(700);

/// Makes blocks of a node another node's, as only a fault could.
fn give_away_blocks(etcd: &Cluster, from: &str, to: &str) {
    let blocks = etcd.ctl(&["get", "--prefix", "/leasehold/v1/blocks/"]);
    let mut lines = blocks.lines();
    let mut count = 0;
    while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
        let mut block: Value = serde_json::from_str(value).expect("JSON in etcd");
        if block["owner"] == from {
            block["owner"] = json!(to);
            etcd.ctl(&["put", key, &block.to_string()]);
            count += 1;
        }
    }
    assert!(count > 0, "{from} has no block: {blocks}");
}

#[test]
fn what_only_a_bad_day_shows() {
    let etcd = Cluster::start(1);
    let daemons = nodes(&etcd, 2, &[]);
    let tls = Cluster::start_tls();
    renew(&tls, "ending-client", "ours");
    let mut certified = prepare(&tls, "ca", "ours", &[]);
    certified.restart();
    let small = disk::World::new(&[]);
    let all = [&daemons[0], &daemons[1], &certified, &small.daemon];
    let prometheus = Prometheus::start(&etcd.endpoint(0).replace("http://", ""));
    prometheus.scrape(&all.map(|daemon| daemon.listen().to_string()));
    let mut watch = Watch::of_a_bad_day(&prometheus);
    watch.until("a certificate that ends", &NAMES[..2], || {});

    let mut count = 0;
    let _ballast = small.disk.fill(0);
    watch.until("a full disk", &["LeaseholdJournalBroken"], || {
        add(&small.daemon, &format!("full-{count}"), &wide());
        count += 1;
    });
    drop(small);

    // Each ADD needs the first block of its network, and etcd answers late.
    count = 0;
    watch.until("a slow etcd", &["LeaseholdAddSlow"], || {
        let subnet = format!("10.44.{count}.0/24");
        let fresh = network(&format!("fresh-{count}"), &json!({ "subnet": subnet }));
        etcd.pause(0);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| add(&daemons[0], "waits", &fresh));
            std::thread::sleep(HICCUP);
            etcd.resume(0);
            waits.join().expect("an answer").expect_result();
        });
        count = (count + 1) % 256;
    });

    // A node sleeps, is removed, and its blocks are another's when it wakes.
    add(&daemons[1], "stays", &wide()).expect_result();
    stop(daemons[1].pid());
    give_away_blocks(&etcd, "node-1", "node-0");
    leasehold(&daemons[0], &["node", "remove", "node-1", "--yes", "--force"]);
    go_on(daemons[1].pid());
    watch.until("blocks of another node", &["LeaseholdBlocksLost"], || {});

    // What is handed out now is not in the records.
    add(&daemons[0], "before", &wide()).expect_result();
    etcd.pause(0);
    add(&daemons[0], "meanwhile", &wide()).expect_result();
    watch.until("a long outage", &["LeaseholdEtcdAway", "LeaseholdRecordsLag"], || {});
    etcd.resume(0);
    await_status(&daemons[0], "a member again", |status| status["cluster"]["state"] == "member");
}
