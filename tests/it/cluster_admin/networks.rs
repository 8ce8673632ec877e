//! Networks whose configuration is kept centrally.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::common::etcd::Cluster;
use super::super::common::{Call, Daemon, Options, poll};
use super::{
    PATIENCE, address, call, config, ends, ends_json, fails, first, leasehold_with, start, texts,
};

/// The content of a node's CNI file.
pub(super) fn bare() -> Value {
    json!({ "type": "my-ipam", "socket": "/of/no/importance" })
}

fn object(subnet: &str) -> Value {
    json!({ "ranges": [[{ "subnet": subnet }]], "routes": [{ "dst": "0.0.0.0/0" }] })
}

/// A folder for files of the test.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        Self(TempDir::with_prefix("leasehold-it-").expect("a temporary directory"))
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }
}

pub(super) fn put(daemon: &Daemon, files: &Files, network: &str, object: &Value) -> String {
    let file = files.write("object.json", &object.to_string());
    let changed = ends_json(daemon, &["network", "put", network, &file], 0);
    changed["outcome"].as_str().expect("an outcome").to_owned()
}

#[test]
fn an_object_is_put_got_listed_and_deleted() {
    let daemon = Daemon::start(&Options::default());
    let files = Files::new();
    assert_eq!(ends_json(&daemon, &["network", "list"], 0), json!([]));
    for command in ["get", "delete"] {
        let said = ends(&daemon, &["network", command, "pods"], 1);
        assert!(said.contains("no central configuration"), "{said}");
    }
    assert_eq!(put(&daemon, &files, "pods", &object("10.40.0.0/24")), "created");
    // The order of fields is no difference.
    let routes_first =
        json!({ "routes": [{ "dst": "0.0.0.0/0" }], "ranges": [[{ "subnet": "10.40.0.0/24" }]] });
    assert_eq!(put(&daemon, &files, "pods", &routes_first), "unchanged");
    let got = ends(&daemon, &["network", "get", "pods"], 0);
    assert_eq!(serde_json::from_str::<Value>(&got).expect("JSON"), object("10.40.0.0/24"));
    let table = ends(&daemon, &["network", "list"], 0);
    assert!(table.contains("pods") && table.contains("10.40.0.0/24"), "{table}");
    assert_eq!(daemon.over_tcp("GET", "/v1/networks/pods", "").status, 200);
    for method in ["PUT", "DELETE"] {
        let status = daemon.over_tcp(method, "/v1/networks/pods", "{}").status;
        assert!([404, 405].contains(&status), "writes are local: {method} {status}");
    }
    // It is in use at once, and the block sizes stay when the object changes or is deleted.
    let pods = config("pods", &bare());
    let added = call(&daemon, "ADD", "c1", &pods);
    assert_eq!(first(&added), "10.40.0.2");
    assert_eq!(added.expect_result()["routes"][0]["dst"], "0.0.0.0/0");
    assert_eq!(put(&daemon, &files, "pods", &object("10.41.0.0/24")), "changed");
    assert_eq!(address(&daemon, "c2", &pods), "10.41.0.2");
    let geometry = |daemon: &Daemon| {
        let row = daemon.client().get("/v1/networks/pods");
        row["geometry"].as_array().map(Vec::len)
    };
    assert_eq!(geometry(&daemon), Some(2));
    // Outside of the present ranges, c1 keeps its address until its DEL.
    let held: Vec<Value> =
        daemon.allocations().into_iter().map(|row| row["address"].clone()).collect();
    assert_eq!(held, ["10.40.0.2", "10.41.0.2"]);
    assert!(call(&daemon, "DEL", "c1", &pods).succeeded());
    assert!(ends(&daemon, &["network", "delete", "pods", "--force"], 0).starts_with("deleted"));
    assert_eq!(geometry(&daemon), Some(2));
    let refused = call(&daemon, "ADD", "c3", &pods);
    assert_eq!(refused.code(), Some(7), "{refused:?}");
    assert!(format!("{refused:?}").contains("leasehold network put"), "{refused:?}");
    assert!(call(&daemon, "DEL", "c2", &pods).succeeded());
}

#[test]
fn what_is_wrong_is_refused_with_its_field() {
    let daemon = Daemon::start(&Options::default());
    let files = Files::new();
    for (text, word) in [
        ("", "not valid JSON"),
        ("[]", "must be an object"),
        ("{}", "no IP ranges specified"),
        (r#"{"ipam": {"subnet": "10.0.0.0/24"}}"#, "whole network configuration"),
        (r#"{"ranges": [[{"subnet": "10.0.0.1/24"}]]}"#, "ipam.ranges[0][0].subnet"),
        (r#"{"subnet": "10.0.0.0/24", "gateway": 7}"#, "ipam.gateway"),
        (r#"{"subnet": "10.0.0.0/24", "network": "x"}"#, "ipam.network"),
        (&format!("{{\"subnet\": \"{}\"}}", "x".repeat(2 << 20)), "longer than 1048576 bytes"),
    ] {
        let file = files.write("bad.json", text);
        let said = fails(&daemon, &["network", "put", "pods", &file]);
        assert!(said.contains(word), "{text:.60}: {said}");
    }
    for (args, word) in [
        (&["network", "put", "pods", "/nonexistent"][..], "/nonexistent"),
        (&["network", "put", "pods"], "FILE"),
        (&["network", "get", "a/b"], "not a valid network name"),
        (&["network", "get", ""], "NAME"),
    ] {
        let said = fails(&daemon, args);
        assert!(said.contains(word), "{args:?}: {said}");
    }
    let mut client = daemon.client();
    let large = "x".repeat(3 << 20);
    let reply = client.request("PUT", "/v1/networks/pods", &large);
    assert_eq!(reply.status, 400, "{}", reply.body);
    let good = object("10.0.0.0/24").to_string();
    let reply = client.request("PUT", "/v1/networks/pods?revision=7", &good);
    assert_eq!(reply.status, 409, "{}", reply.body);
    assert_eq!(ends_json(&daemon, &["network", "list"], 0), json!([]));
    // A reference to an object that does not exist, and a pod without a service.
    let refer = |reference: Value| call(&daemon, "ADD", "c", &config("pods", &reference));
    for (reference, word) in [
        (json!({ "network": "corp" }), "network corp has no central configuration"),
        (json!({ "networkFrom": "service" }), "no pod name"),
        (json!({ "networkFrom": "pod" }), "ipam.networkFrom must be"),
    ] {
        let refused = refer(reference);
        assert_eq!(refused.code(), Some(7), "{refused:?}");
        assert!(refused.message().contains(word), "{refused:?}");
    }
}

#[test]
fn an_editor_changes_an_object_and_loses_nothing_of_others() {
    let daemon = Daemon::start(&Options::default());
    let files = Files::new();
    let edit = |editor: &str, code: i32| {
        let variables = [("VISUAL", ""), ("EDITOR", editor)];
        let socket = daemon.socket();
        let output = leasehold_with(&socket, &["network", "edit", "pods"], &variables);
        assert_eq!(output.status.code(), Some(code), "{:?}", texts(&output));
        texts(&output)
    };
    put(&daemon, &files, "pods", &object("10.40.0.0/24"));
    assert!(edit("true", 0).0.starts_with("unchanged"));
    assert!(edit("sed -i s/10.40/10.41/", 0).0.starts_with("changed"));
    assert!(edit("false", 2).1.contains("nothing was changed"));
    assert!(edit("truncate -s 0", 2).1.contains("empty"));
    let bad = edit("sed -i s/subnet/nosub/", 2).1;
    assert!(bad.contains("ipam.ranges[0][0]") && bad.contains("your text is in"), "{bad}");
    let kept = bad.trim().rsplit(' ').next().expect("a path");
    assert!(fs::read_to_string(kept).expect("the kept text").contains("nosub"));
    fs::remove_file(kept).expect("the kept text");
    // Somebody else is faster: their object is shown, and the editor opens again.
    let theirs = files.write("theirs.json", &object("10.50.0.0/24").to_string());
    let seen = files.write("seen", "");
    let script = files.write(
        "editor",
        &format!(
            "if [ ! -s {seen} ]; then {} network put pods {theirs}; sed -i s/10.41/10.42/ $1; \
             else cat ${{1%.json}}.theirs.json >> {seen}; rm ${{1%.json}}.theirs.json; fi; \
             echo again >> {seen}",
            super::LEASEHOLD
        ),
    );
    let (done, said) = edit(&format!("sh {script}"), 0);
    assert!(done.contains("changed") && said.contains("somebody else changed"), "{done}{said}");
    let seen = fs::read_to_string(&seen).expect("what the editor saw");
    assert!(seen.contains("10.50.0.0/24") && seen.matches("again").count() == 2, "{seen}");
    assert!(ends(&daemon, &["network", "get", "pods"], 0).contains("10.42.0.0/24"));
}

#[test]
fn every_node_follows_and_a_service_has_its_own() {
    let mut etcd = Cluster::start(1);
    let (mut a, b) = (start(&etcd, "a"), start(&etcd, "b"));
    let files = Files::new();
    let pods = config("pods", &bare());
    assert_eq!(put(&a, &files, "pods", &object("10.40.0.0/24")), "created");
    let follows = poll(PATIENCE, || call(&b, "ADD", "c1", &pods).succeeded());
    assert!(follows, "{:?}", call(&b, "ADD", "c1", &pods));
    assert!(address(&b, "c1", &pods).starts_with("10.40.0."));
    put(&b, &files, "pods", &object("10.41.0.0/24"));
    assert!(address(&b, "c2", &pods).starts_with("10.41.0."));
    // By the pod's service, and by reference; other fields of the CNI file win.
    put(&a, &files, "pay", &object("10.42.0.0/24"));
    let by_service = config("pods", &json!({ "networkFrom": "service", "routes": [] }));
    let mut add = Call::new("ADD", "c3", &by_service);
    add.args = "K8S_POD_NAME=pay-10-online-84f8cc5d4b-8v4fw".to_owned();
    let added = a.client().call(&add);
    assert!(first(&added).starts_with("10.42.0."), "{added:?}");
    assert!(added.expect_result().get("routes").is_none(), "{added:?}");
    let by_name = config("pods", &json!({ "network": "pay" }));
    assert!(address(&a, "c4", &by_name).starts_with("10.42.0."));
    // Without etcd, a node that starts uses the object that it knew; the address is c4's.
    assert!(call(&a, "DEL", "c4", &by_name).succeeded());
    etcd.kill(0);
    a.kill9();
    a.restart();
    assert!(address(&a, "c5", &by_name).starts_with("10.42.0."));
    etcd.restart(0);
}
