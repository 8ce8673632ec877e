//! Central networks that share addresses with others, or are in use.

use serde_json::{Value, json};

use crate::cluster_admin::{config, ends, fails};
use crate::common::{Call, Daemon, Options};

fn file(daemon: &Daemon, object: &Value) -> String {
    let path = daemon.state_dir().with_file_name("object.json");
    std::fs::write(&path, object.to_string()).expect("a file");
    path.display().to_string()
}

#[test]
fn shared_addresses_and_keys_without_effect_need_a_word() {
    let daemon = Daemon::start(&Options::default());
    let red = file(&daemon, &json!({ "subnet": "10.9.0.0/24" }));
    ends(&daemon, &["network", "put", "red", &red], 0);
    let blue = file(&daemon, &json!({ "subnet": "10.9.0.128/25" }));
    let said = ends(&daemon, &["network", "put", "blue", &blue], 1);
    for word in ["10.9.0.129-10.9.0.254", "network red", "--force"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    // The same network again is no other one.
    ends(&daemon, &["network", "put", "red", &blue], 0);
    let said = ends(&daemon, &["network", "put", "blue", &blue, "--force"], 0);
    assert!(said.starts_with("created"), "{said}");
    let typing_error = file(&daemon, &json!({ "subnet": "10.7.0.0/24", "excludes": [] }));
    let said = fails(&daemon, &["network", "put", "green", &typing_error]);
    for word in ["ipam.excludes", "did you mean exclude?", "--allow-unknown"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    ends(&daemon, &["network", "put", "green", &typing_error, "--allow-unknown"], 0);
}

#[test]
fn a_network_in_use_is_deleted_by_force_only_and_leaves_the_list() {
    let daemon = Daemon::start(&Options::default());
    let object = file(&daemon, &json!({ "subnet": "10.9.0.0/24" }));
    ends(&daemon, &["network", "put", "pods", &object], 0);
    let pods = config("pods", &json!({ "type": "my-ipam" }));
    assert!(daemon.client().call(&Call::new("ADD", "c1", &pods)).succeeded());
    let said = ends(&daemon, &["network", "delete", "pods"], 1);
    assert!(said.contains("containers hold addresses") && said.contains("--force"), "{said}");
    assert!(daemon.client().call(&Call::new("DEL", "c1", &pods)).succeeded());
    ends(&daemon, &["network", "delete", "pods"], 0);
    assert_eq!(daemon.client().get("/v1/networks"), json!([]));
    assert_eq!(daemon.client().request("GET", "/v1/networks/pods", "").status, 200);
}
