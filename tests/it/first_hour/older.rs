//! A cluster changes to Leasehold while containers of a `my-ipam` without a daemon run, whose keys
//! are in the same etcd.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{PATIENCE, nodes, options};
use crate::cluster_admin::ends;
use crate::common::etcd::{Cluster, PASSWORD};
use crate::common::{Call, Daemon, Outcome, poll};

fn config(name: &str, subnet: &str) -> Value {
    json!({ "cniVersion": "1.0.0", "name": name, "type": "macvlan", "ipam": {
        "type": "my-ipam", "ranges": [[{ "subnet": subnet }]]
    } })
}

fn add(daemon: &Daemon, container: &str, config: &Value) -> Outcome {
    daemon.client().call(&Call::new("ADD", container, config))
}

/// Writes the keys that the older plugin had for a container on each of two hosts.
fn endpoints(etcd: &Cluster) {
    etcd.ctl(&["put", "/neutron/endpoints/pay/10.9.0.2", "node-0:c0:pay-10-online-84f8cc5d4b-x"]);
    etcd.ctl(&["put", "/ipam-etcd-cni/endpoints/web/10.9.0.3", "node-1:c1:web-2-online-5d4b-y"]);
    etcd.ctl(&["put", "/neutron/lastreserved/pay/0", "10.9.0.3"]);
}

/// Takes over what is held for containers of a host.
fn import(etcd: &Cluster, daemon: &Daemon, host: &str) {
    let dir = TempDir::new().expect("a directory");
    let conf = config("pods", "10.9.0.0/24").to_string();
    fs::write(dir.path().join("10-pods.conf"), conf).expect("a file");
    let list = ["/neutron/endpoints/", "/ipam-etcd-cni/endpoints/"]
        .map(|place| etcd.ctl(&["get", "--prefix", place]))
        .concat();
    let (file, conf) = (dir.path().join("endpoints"), dir.path().display().to_string());
    fs::write(&file, list).expect("a file");
    let file = file.display().to_string();
    let import = ["import", "etcd-cni", &file, "--network", "pods", "--conf-dir", &conf];
    ends(daemon, &[&import[..], &["--host", host]].concat(), 0);
}

#[test]
fn no_address_goes_out_before_every_node_has_taken_over_its_own() {
    let etcd = Cluster::start(1);
    endpoints(&etcd);
    let mut daemons = nodes(&etcd, 2, &[]);
    let pods = config("pods", "10.9.0.0/24");
    let refused = add(&daemons[0], "new", &pods);
    assert_eq!(refused.code(), Some(11), "{refused:?}");
    let said = format!("{refused:?}");
    for words in ["2 addresses of network pods", "leasehold import etcd-cni", " on node-"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Other networks are served, and so is a DEL.
    assert!(add(&daemons[0], "other", &config("other", "10.8.0.0/24")).succeeded());
    assert!(daemons[0].client().call(&Call::new("DEL", "new", &pods)).succeeded());
    // The other node has not taken over its own yet.
    import(&etcd, &daemons[0], "node-0");
    let refused = add(&daemons[0], "new", &pods);
    assert!(refused.message().contains("1 addresses"), "{refused:?}");
    assert!(refused.message().contains("10.9.0.3 for container c1 on node-1"), "{refused:?}");
    import(&etcd, &daemons[1], "node-1");
    // Its record comes a moment later.
    let mut added = Vec::new();
    for (daemon, container) in daemons.iter().zip(["new-0", "new-1"]) {
        let mut outcome = Outcome::Done(None);
        let served = poll(PATIENCE, || {
            outcome = add(daemon, container, &pods);
            outcome.succeeded()
        });
        assert!(served, "{outcome:?}");
        added.push(outcome.expect_result()["ips"][0]["address"].clone());
    }
    assert!(!added.contains(&json!("10.9.0.2/24")) && !added.contains(&json!("10.9.0.3/24")));
    // The containers end, and nobody deletes their keys: they count no longer.
    for (daemon, container) in daemons.iter().zip(["c0", "c1"]) {
        assert!(daemon.client().call(&Call::new("DEL", container, &pods)).succeeded());
    }
    let records = || etcd.ctl(&["get", "--prefix", "/leasehold/v1/allocations/pods/"]);
    let ended = poll(PATIENCE, || !records().contains("\"c0\"") && !records().contains("\"c1\""));
    assert!(ended, "{}", records());
    daemons[0].restart();
    let again = poll(PATIENCE, || add(&daemons[0], "again", &pods).succeeded());
    assert!(again, "{}", daemons[0].log_tail());
}

/// A user of etcd that may read Leasehold's keys alone cannot see others: the log says so.
#[test]
fn a_daemon_that_may_not_look_says_so_and_serves() {
    let mut etcd = Cluster::start(1);
    endpoints(&etcd);
    etcd.authenticate(&[("leasehold", "/leasehold/v1/")]);
    let password = etcd.password_file(PASSWORD).display().to_string();
    let user = ["--etcd-user", "leasehold", "--etcd-password-file", &password];
    let daemon = Daemon::start(&options(&etcd, "node-0", &user));
    let pods = config("pods", "10.9.0.0/24");
    let served = poll(PATIENCE, || add(&daemon, "new", &pods).succeeded());
    assert!(served, "{}", daemon.log_tail());
    assert!(daemon.log().contains("may not see whether a my-ipam"), "{}", daemon.log_tail());
}

/// Without an answer of etcd a new network waits; one that is in use goes on.
#[test]
fn a_network_that_is_in_use_needs_no_look() {
    let etcd = Cluster::start(1);
    let mut daemons = nodes(&etcd, 1, &[]);
    let daemon = &mut daemons[0];
    let used = config("used", "10.9.0.0/24");
    assert!(add(daemon, "before", &used).succeeded());
    daemon.kill9();
    // As an older version left it.
    fs::remove_file(daemon.state_dir().join("admitted")).expect("the networks that are admitted");
    etcd.pause(0);
    daemon.restart();
    assert!(add(daemon, "after", &used).succeeded(), "{}", daemon.log_tail());
    let refused = add(daemon, "new", &config("new", "10.7.0.0/24"));
    assert!(refused.message().contains("cannot see whether a my-ipam"), "{refused:?}");
}
