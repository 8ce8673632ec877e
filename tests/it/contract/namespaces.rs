//! A pool and a stage that only the pods of some namespaces get.

use std::time::Duration;

use serde_json::{Value, json};

use super::config;
use crate::common::{Call, Daemon, Options, Outcome, poll};

/// The longest wait for the daemon to know a central object.
const PATIENCE: Duration = Duration::from_secs(20);

fn add(daemon: &Daemon, config: &Value, container: &str, args: &str) -> Outcome {
    let args = format!("IgnoreUnknown=1;{args}");
    daemon.plugin(&Call { args, ..Call::new("ADD", container, config) })
}

#[test]
fn only_pods_of_the_named_namespaces_get_an_address() {
    let daemon = Daemon::start(&Options::default());
    let mut pods = config("pods", "10.74.0.0/24");
    pods["ipam"]["namespaces"] = json!(["pay"]);
    pods["ipam"]["ranges"][0][0]["sandbox"] = json!(["10.74.0.9"]);
    pods["ipam"]["stageNamespaces"] = json!({"sandbox": ["test"]});
    for (args, words) in [
        ("K8S_POD_NAMESPACE=evil", "this pool is for pods of namespace pay, not for those of evil"),
        ("K8S_POD_NAME=a", "CNI_ARGS has no K8S_POD_NAMESPACE"),
        ("K8S_POD_NAMESPACE=pay;STAGE=sandbox", "stage sandbox is for pods of namespace test"),
    ] {
        let refused = add(&daemon, &pods, "a", args);
        assert_eq!(refused.code(), Some(105), "{refused:?}");
        assert!(refused.message().contains(words), "{refused:?}");
    }
    assert_eq!(daemon.allocations(), [Value::Null; 0]);
    assert!(add(&daemon, &pods, "a", "K8S_POD_NAMESPACE=pay").succeeded());
    // A STATUS is about no pod.
    assert!(daemon.plugin(&Call::new("STATUS", "", &pods)).succeeded());
    // The owner of a central pool says who may use it.
    let ipam = json!({"ranges": [[{"subnet": "10.75.0.0/24"}]], "namespaces": ["pay"]});
    let reply = daemon.client().request("PUT", "/v1/networks/corp", &ipam.to_string());
    assert!(reply.status < 300, "{}", reply.body);
    let own = json!({"cniVersion": "1.0.0", "name": "own",
        "ipam": {"network": "corp", "namespaces": ["evil"]}});
    let evil = || add(&daemon, &own, "b", "K8S_POD_NAMESPACE=evil");
    assert!(poll(PATIENCE, || evil().code() == Some(105)), "{:?}", evil());
    assert!(add(&daemon, &own, "b", "K8S_POD_NAMESPACE=pay").succeeded());
    // Neither check stands in the way of a DEL.
    assert!(daemon.plugin(&Call::new("DEL", "b", &own)).succeeded());
}
