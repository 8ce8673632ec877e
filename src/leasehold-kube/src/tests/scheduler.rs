//! The scheduler's resources, and clusters that are large.

use serde_json::{Value, json};

use super::*;

const PODS: &str = "leasehold.example/pods";

/// A map in which the first of three nodes has this block, and 12 addresses are in nobody's.
fn map(usable: u64) -> Value {
    let node = |name: &str| json!({ "node": name, "live": true, "draining": false });
    json!({
        "shared": true,
        "nodes": [node("n0"), node("n1"), node("n9")],
        "sets": [{
            "network": "pods", "size": usable + 12,
            "blocks": [["10.9.0.0/26", 0, "active", 1, usable, 0]],
        }],
    })
}

#[tokio::test]
async fn each_node_says_how_many_pods_it_has_addresses_for() {
    let scene = Scene::new().await;
    scene.daemon.set_map(map(30));
    let _instance = scene.watching(&["--node-capacity"]).await;
    let shown = |node: &str| scene.api.capacity(node, PODS);
    scene.until("both say so", || shown("n0") == "34" && shown("n1") == "4").await;
    assert_eq!(shown("n2"), Value::Null, "it is no node of Leasehold");
    let written = || scene.api.requests("PATCH /api/v1/nodes/");
    let before = written();
    tokio::time::sleep(QUIET).await;
    assert_eq!(written(), before, "nothing is written that did not change");
    scene.daemon.set_map(map(60));
    scene.until("it follows", || shown("n0") == "64").await;
    assert_eq!(written(), before + 1);
    // The network is gone.
    let mut none = map(60);
    none["sets"] = json!([]);
    scene.daemon.set_map(none);
    scene.until("it is taken away", || shown("n0").is_null() && shown("n1").is_null()).await;
}

#[tokio::test]
async fn no_capacity_is_published_unless_that_is_wanted_or_known() {
    let scene = Scene::new().await;
    scene.daemon.set_map(map(30));
    let instance = scene.watching(&[]).await;
    tokio::time::sleep(QUIET).await;
    drop(instance);
    // A daemon without a map: nodes are ended all the same.
    scene.daemon.set_map(Value::Null);
    let _instance = scene.instance(&["--node-capacity"]);
    scene.api.delete_node("n3");
    scene.until_ended("n3", "m3").await;
    assert_eq!(scene.api.requests("PATCH"), 0);
}

/// A list of 5,000 nodes comes in bounded pages, and the loss of one is found in it.
#[tokio::test]
async fn a_cluster_of_5000_nodes_is_listed_in_pages() {
    const NODES: usize = 5000;
    let scene = Scene::new().await;
    scene.api.state().page_size = NODES;
    // Names and ids as long as those of a cloud.
    let name =
        |at: usize| format!("ip-10-{}-{}-12.eu-central-1.compute.internal", at / 250, at % 250);
    let uid = |at: usize| format!("{at:08x}-0000-4000-8000-{at:012x}");
    let machine = |at: usize| format!("{at:032x}");
    for at in 5..NODES {
        scene.api.put_node(&name(at), &uid(at), &machine(at), true);
    }
    let instance = scene.instance(&[]);
    scene.until("it remembers all", || scene.remembered().len() == NODES).await;
    drop(instance);
    let lists = scene.api.requests("GET /api/v1/nodes?&limit=500");
    assert_eq!(lists, NODES / 500);
    let memory = scene.api.other("leasehold-kube-nodes").unwrap();
    let bytes = memory.to_string().len();
    assert!(bytes < 1 << 20, "a ConfigMap has room for a megabyte, and this one has {bytes} bytes");
    scene.api.delete_node(&name(77));
    let _next = scene.instance(&[]);
    scene.until_ended(&name(77), &machine(77)).await;
}
