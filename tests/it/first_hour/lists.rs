//! A node changes to Leasehold from a plugin that keeps the addresses of all nodes in one store.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster_admin::{ends, ends_json, fails};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, Options};

fn config() -> Value {
    json!({ "cniVersion": "1.0.0", "name": "pods", "type": "macvlan", "ipam": {
        "type": "my-ipam", "ranges": [[{ "subnet": "10.9.0.0/24" }]]
    } })
}

/// Returns the output of `kubectl get ippools.whereabouts.cni.cncf.io -A -o json`.
fn pools() -> Value {
    let pool = |name: &str, range: &str, allocations: Value| {
        json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "IPPool",
            "metadata": { "name": name, "namespace": "kube-system", "resourceVersion": "7" },
            "spec": { "range": range, "allocations": allocations }
        })
    };
    let ours = json!({
        "2": { "id": "here-1", "podref": "default/web-0", "ifname": "net1" },
        "9": { "id": "here-2", "podref": "default/web-1", "ifname": "net1" },
        "10": { "id": "elsewhere", "podref": "default/web-2", "ifname": "net1" },
    });
    let other = json!({ "2": { "id": "here-1", "podref": "default/web-0", "ifname": "net2" } });
    json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": [
        pool("10.9.0.0-24", "10.9.0.0/24", ours), pool("10.7.0.0-24", "10.7.0.0/24", other),
    ] })
}

#[test]
fn a_node_that_ran_whereabouts_keeps_the_addresses_of_its_containers() {
    let (dir, daemon) = (TempDir::new().expect("a directory"), Daemon::start(&Options::default()));
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    file("10-pods.conf", &config().to_string());
    let (pools, here) =
        (file("pools.json_", &pools().to_string()), file("here", "here-1\nhere-2\n"));
    let conf = dir.path().display().to_string();
    let import = ["import", "whereabouts", &pools, "--network", "pods", "--conf-dir", &conf];
    let said = fails(&daemon, &import);
    assert!(said.contains("--containers"), "{said}");
    let import = [&import[..], &["--containers", &here]].concat();
    let shown = ends_json(&daemon, &[&import[..], &["--dry-run"]].concat(), 0);
    assert_eq!(shown.as_array().map(Vec::len), Some(2), "{shown}");
    assert!(daemon.allocations().is_empty());
    let done = ends_json(&daemon, &import, 0);
    assert!(
        done.as_array().expect("rows").iter().all(|row| row["outcome"] == "imported"),
        "{done}"
    );
    let mut held: Vec<String> = (daemon.allocations().iter())
        .map(|row| format!("{} {} {}", row["containerId"], row["ifname"], row["address"]))
        .collect();
    held.sort();
    let wanted =
        [r#""here-1" "net1" "10.9.0.2""#.to_owned(), r#""here-2" "net1" "10.9.0.9""#.to_owned()];
    assert_eq!(held, wanted);
    let pods = ends(&daemon, &["allocations"], 0);
    assert!(pods.contains("web-0") && pods.contains("web-1"), "{pods}");
    // Again there is nothing to do; another container's address is a conflict, and nothing is done.
    let again = ends_json(&daemon, &import, 0);
    assert!(again.as_array().expect("rows").iter().all(|row| row["outcome"] == "held"), "{again}");
    let thief = json!({ "kind": "IPPool", "metadata": { "name": "p" }, "spec": {
        "range": "10.9.0.0/24", "allocations": { "9": { "id": "thief" }, "11": { "id": "new" } }
    } });
    let thief = file("thief.json_", &thief.to_string());
    let all = ["import", "whereabouts", &thief, "--network", "pods", "--conf-dir", &conf, "--all"];
    let said = ends(&daemon, &all, 1);
    assert!(said.contains("conflict") && said.contains("container here-2 holds"), "{said}");
    assert_eq!(daemon.allocations().len(), 2);
    // The container's own DEL gives its address back.
    let mut del = Call::new("DEL", "here-1", &config());
    del.ifname = "net1".to_owned();
    assert!(daemon.client().call(&del).succeeded());
    assert_eq!(daemon.allocations().len(), 1);
}

#[test]
fn a_file_that_is_no_list_of_pools_is_refused() {
    let (dir, daemon) = (TempDir::new().expect("a directory"), Daemon::start(&Options::default()));
    let conf = dir.path().display().to_string();
    fs::write(dir.path().join("10-pods.conf"), config().to_string()).expect("a file");
    let path = dir.path().join("pods.json_");
    for (text, word) in [
        (r#"{"kind":"List","items":[{"kind":"Pod"}]}"#, "no IPPool"),
        ("kind: IPPool", "is not JSON"),
        (r#"{"kind":"List","items":[]}"#, "--network"),
    ] {
        fs::write(&path, text).expect("a file");
        let file = path.display().to_string();
        let import = ["import", "whereabouts", &file, "--network", "pods", "--all"];
        let said = fails(&daemon, &[&import[..], &["--conf-dir", &conf]].concat());
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// The keys are written by etcdctl as that plugin wrote them; the names of the pods have its form.
#[test]
fn a_node_that_ran_a_plugin_with_keys_in_etcd_keeps_the_addresses_of_its_containers() {
    let (dir, daemon) = (TempDir::new().expect("a directory"), Daemon::start(&Options::default()));
    let etcd = Cluster::start(1);
    let put = |key: &str, value: &str| drop(etcd.ctl(&["put", key, value]));
    put("/neutron/endpoints/pay/10.9.0.5", "node-a:c1:pay-10-online-84f8cc5d4b-8v4fw");
    put("/neutron/endpoints/pay/10.9.0.6", "node-b:c2:pay-10-online-84f8cc5d4b-xkbcd");
    put("/neutron/endpoints/web/10.9.0.7", "node-a:c3:web-2-sandbox-5d4b9-kq7rz");
    put("/neutron/lastreserved/pay/0", "10.9.0.7");
    let endpoints = dir.path().join("endpoints");
    let listed = etcd.ctl(&["get", "--prefix", "/neutron/endpoints/"]);
    fs::write(&endpoints, listed).expect("a file");
    let mut ours = config();
    ours["ipam"]["ranges"][0][0]["sandbox"] = json!(["10.9.0.7"]);
    fs::write(dir.path().join("10-pods.conf"), ours.to_string()).expect("a file");
    let (endpoints, conf) = (endpoints.display().to_string(), dir.path().display().to_string());
    let import = ["import", "etcd-cni", &endpoints, "--network", "pods", "--conf-dir", &conf];
    let import = [&import[..], &["--host", "node-a"]].concat();
    let shown = ends_json(&daemon, &[&import[..], &["--dry-run"]].concat(), 0);
    assert_eq!(shown.as_array().map(Vec::len), Some(2), "{shown}");
    assert!(daemon.allocations().is_empty());
    ends(&daemon, &import, 0);
    let held: Vec<(String, String)> = (daemon.allocations().iter())
        .map(|row| (row["containerId"].to_string(), row["address"].to_string()))
        .collect();
    let of =
        |container: &str, address: &str| (json!(container).to_string(), json!(address).to_string());
    assert_eq!(held, [of("c1", "10.9.0.5"), of("c3", "10.9.0.7")]);
    let again = ends_json(&daemon, &import, 0);
    assert!(again.as_array().expect("rows").iter().all(|row| row["outcome"] == "held"), "{again}");
    // An ADD gets none of them, and the container's own DEL gives its address back.
    for at in 0..3 {
        let added = daemon.client().call(&Call::new("ADD", &format!("n{at}"), &ours));
        let address = added.expect_result()["ips"][0]["address"].clone();
        assert!(address != "10.9.0.5/24" && address != "10.9.0.7/24", "{address}");
    }
    assert!(daemon.client().call(&Call::new("DEL", "c1", &ours)).succeeded());
    assert_eq!(daemon.allocations().len(), 4);
}

/// Ranges that are kept centrally are asked of the daemon.
#[test]
fn pools_are_taken_over_into_a_central_network() {
    let (dir, daemon) = (TempDir::new().expect("a directory"), Daemon::start(&Options::default()));
    let file = |name: &str, json: &Value| {
        let path = dir.path().join(name);
        fs::write(&path, json.to_string()).expect("a file");
        path.display().to_string()
    };
    let central = file("central", &json!({ "ranges": [[{ "subnet": "10.9.0.0/24" }]] }));
    ends(&daemon, &["network", "put", "pods", &central], 0);
    file(
        "10-pods.conf",
        &json!({ "cniVersion": "1.0.0", "name": "pods", "type": "macvlan",
        "ipam": { "type": "my-ipam" } }),
    );
    let (pools, conf) = (file("pools", &pools()), dir.path().display().to_string());
    let import = ["import", "whereabouts", &pools, "--network", "pods", "--conf-dir", &conf];
    let done = ends_json(&daemon, &[&import[..], &["--all"]].concat(), 0);
    assert_eq!(done.as_array().map(Vec::len), Some(3), "the other pool is passed over: {done}");
    assert_eq!(daemon.allocations().len(), 3);
}
