//! The output of the commands about networks, blocks and all nodes, and the files for shells and
//! `man`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::super::cluster::{self, metric};
use super::super::common::etcd::Cluster;
use super::super::common::{Call, Daemon, LEASEHOLD, Options, poll};
use super::{config, ends, ends_json, leasehold, line_with, texts};

/// The blocks of all nodes have what their containers hold, and one of them has an address of
/// another node.
fn every_node_knows_whose_block_an_address_is_in(socket: &Path) {
    let held = |rows: &Value, node: &str| -> u64 {
        let rows = rows.as_array().expect("rows").iter().filter(|row| row["node"] == node);
        rows.map(|row| row["allocated"].as_u64().unwrap_or_default()).sum()
    };
    let mut all = Value::Null;
    let counted = poll(cluster::PATIENCE, || {
        all = ends_json(socket, &["blocks", "--all-nodes"], 0);
        (held(&all, "node-0"), held(&all, "node-1")) == (7, 4)
    });
    assert!(counted, "{all}");
    let of_one = ends_json(socket, &["blocks", "--node", "node-1"], 0);
    assert_eq!((held(&of_one, "node-0"), held(&of_one, "node-1")), (0, 4), "{of_one}");
    let rows = ends_json(socket, &["allocations", "--all-nodes", "--pod", "pod-1-2"], 0);
    let address = rows[0]["address"].as_str().expect("an address");
    let table = ends(socket, &["blocks", "--address", address], 0);
    let line = line_with(&table, "node-1");
    assert!(line.contains(&"pods") && line.contains(&"live"), "{table}");
    assert_eq!(table.lines().count(), 2, "one block: {table}");
    let nowhere = ends(socket, &["blocks", "--address", "192.0.2.1"], 1);
    assert_eq!(nowhere, "no node has a block with 192.0.2.1\n");
    let nobody = ends(socket, &["blocks", "--node", "nobody"], 1);
    assert!(nobody.starts_with("no node has this name"), "{nobody}");
}

#[test]
fn networks_are_shown_as_they_are_in_the_whole_cluster() {
    let etcd = Cluster::start(1);
    let daemons = cluster::nodes(&etcd, 2, &[]);
    let config = config("pods", "10.80.0.0/24");
    for (at, count) in [(0, 7), (1, 4)] {
        for number in 0..count {
            let mut call = Call::new("ADD", &format!("c-{at}-{number}"), &config);
            call.args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pod-{at}-{number}");
            daemons[at].client().call(&call).expect_result();
        }
    }
    let sockets: Vec<_> = daemons.iter().map(Daemon::socket).collect();
    for socket in &sockets {
        let mut rows = Value::Null;
        let recorded = poll(cluster::PATIENCE, || {
            rows = ends_json(socket, &["networks"], 0);
            rows[0]["used"] == 11
        });
        assert!(recorded, "{rows}");
        assert_eq!((&rows[0]["size"], &rows[0]["free"]), (&253.into(), &242.into()), "{rows}");
        assert_eq!(
            (&rows[0]["available"], &rows[0]["exact"]),
            (&242.into(), &true.into()),
            "{rows}"
        );
        assert_eq!(rows[0]["gone"], 0);
        let table = ends(socket, &["networks"], 0);
        let line = line_with(&table, "pods");
        assert!(line.contains(&"253") && line.contains(&"11") && line.contains(&"242"), "{table}");
    }
    // Every node knows what the other one holds.
    for (args, count) in [
        (&["allocations"][..], 7),
        (&["allocations", "--all-nodes"], 11),
        (&["allocations", "--node", "node-1"], 4),
        (&["allocations", "--all-nodes", "--pod", "pod-1-2"], 1),
        (&["allocations", "--all-nodes", "--namespace", "shop"], 11),
        (&["allocations", "--all-nodes", "--namespace", "other"], 0),
        (&["allocations", "--all-nodes", "--container", "c-1"], 4),
    ] {
        let rows = ends_json(&sockets[0], args, 0);
        assert_eq!(rows.as_array().map(Vec::len), Some(count), "{args:?}: {rows}");
    }
    every_node_knows_whose_block_an_address_is_in(&sockets[0]);
    let table = ends(&sockets[0], &["allocations", "--all-nodes", "--pod", "pod-1-2"], 0);
    assert!(line_with(&table, "pod-1-2").contains(&"node-1"), "{table}");
    let blocks = ends(&sockets[0], &["blocks"], 0);
    let active = metric(&daemons[0], "leasehold_blocks", &["state=\"active\""]);
    assert_eq!(line_with(&blocks, "pods")[2], active.to_string(), "{blocks}");
}

#[test]
fn what_is_known_without_etcd_is_shown_with_a_note() {
    let etcd = Cluster::start(1);
    let daemons = cluster::nodes(&etcd, 2, &[]);
    let config = config("pods", "10.84.0.0/24");
    for (daemon, count) in daemons.iter().zip([7, 4]) {
        for number in 0..count {
            let call = Call::new("ADD", &format!("c-{number}"), &config);
            daemon.client().call(&call).expect_result();
        }
    }
    let socket = daemons[0].socket();
    let mut rows = Value::Null;
    let known = poll(cluster::PATIENCE, || {
        rows = ends_json(&socket, &["networks"], 0);
        rows[0]["used"] == 11 && rows[0]["here"]["allocated"] == 7
    });
    assert!(known, "{rows}");
    etcd.pause(0);
    let rows = ends_json(&socket, &["networks"], 0);
    let row = &rows[0];
    assert_eq!((&row["size"], &row["here"]["allocated"]), (&253.into(), &7.into()), "{rows}");
    assert!(
        row["used"].is_null() && row["available"].is_null() && row["cause"].is_string(),
        "{row}"
    );
    assert!(row["unclaimed"].as_u64() > Some(100), "{row}");
    let table = ends(&socket, &["networks"], 0);
    assert!(table.contains("note: what other nodes hold is not known: "), "{table}");
    let (stdout, stderr) = texts(&leasehold(&socket, &["history", "--container", "c-0"]));
    assert!(stdout.is_empty() && stderr.contains("--local"), "{stdout}{stderr}");
    let held = ends(&socket, &["history", "--container", "c-0", "--local"], 0);
    assert!(held.contains("c-0"), "{held}");
    etcd.resume(0);
}

#[test]
fn names_that_nobody_has_are_bad_news() {
    let etcd = Cluster::start(1);
    let daemon = cluster::nodes(&etcd, 1, &[]).remove(0);
    let socket = daemon.socket();
    assert_eq!(ends(&socket, &["networks"], 0), "no network is in use in this cluster\n");
    let config = config("pods", "10.85.0.0/24");
    daemon.client().call(&Call::new("ADD", "c", &config)).expect_result();
    let said = ends(&socket, &["networks", "--network", "typo"], 1);
    assert_eq!(said, "no network has the name typo\n");
    let said = ends(&socket, &["allocations", "--node", "nobody"], 1);
    assert!(said.starts_with("no node has this name"), "{said}");
    assert!(
        ends(&socket, &["networks", "--network", "pods"], 0).contains("10.85.0.1-"),
        "it is there"
    );
    ends(&socket, &["allocations", "--node", "node-0", "--network", "other"], 0);
    let status = ends(&socket, &["status"], 0);
    assert!(status.contains(&format!("http://{}/ (the address map)", daemon.listen())), "{status}");
}

#[test]
fn a_plan_that_does_not_fit_is_bad_news() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("net.conf");
    std::fs::write(&file, config("n", "10.81.0.0/24").to_string()).expect("a file");
    let file = file.to_str().expect("a path");
    let nowhere = dir.path().join("no.sock");
    let good = ["plan", file, "--nodes", "3", "--pods-per-node", "20"];
    let plan = ends_json(&nowhere, &good, 0);
    assert_eq!((&plan[0]["size"], &plan[0]["held"]), (&253.into(), &60.into()), "{plan}");
    let text = ends(&nowhere, &["plan", file, "--nodes", "9", "--pods-per-node", "40"], 1);
    assert!(text.contains("ADD will fail"), "{text}");
}

#[test]
fn shells_and_man_know_every_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let nowhere = dir.path().join("no.sock");
    for shell in ["bash", "zsh", "fish"] {
        let script = ends(&nowhere, &["completion", shell], 0);
        for word in ["networks", "allocations", "--all-nodes", "plan"] {
            let bare = word.trim_start_matches('-');
            assert!(script.contains(word) || script.contains(bare), "{shell}: {word}");
        }
    }
    let script = dir.path().join("completion.bash");
    std::fs::write(&script, ends(&nowhere, &["completion", "bash"], 0)).expect("a file");
    let checked = Command::new("bash").arg("-n").arg(&script).status().expect("bash");
    assert!(checked.success(), "bash reads the script");
    let pages = dir.path().join("man");
    ends(&nowhere, &["man", pages.to_str().expect("a path")], 0);
    let page = std::fs::read_to_string(pages.join("leasehold-networks.1")).expect("a page");
    assert!(page.contains(".SH OPTIONS") && page.contains("socket"), "{page}");
}

#[test]
fn the_log_has_a_line_for_each_call_and_can_be_json() {
    let env = [("LEASEHOLD_LOG", "debug"), ("LEASEHOLD_LOG_FORMAT", "json")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let daemon = Daemon::start(&Options { env, ..Options::default() });
    let config = config("logged", "10.82.0.0/24");
    let mut call = Call::new("ADD", "a-container", &config);
    call.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a-pod".to_owned();
    daemon.client().call(&call).expect_result();
    assert!(daemon.client().call(&Call::new("DEL", "a-container", &config)).succeeded());
    let log = daemon.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let of = |verb: &str| lines.iter().find(|line| line["message"] == verb);
    let add = of("ADD").unwrap_or_else(|| panic!("no ADD: {log}"));
    assert_eq!((&add["network"], &add["pod"]), (&"logged".into(), &"shop/a-pod".into()), "{add}");
    assert_eq!(
        (&add["container"], &add["addresses"]),
        (&"a-container".into(), &"10.82.0.2/24".into())
    );
    assert!(add["millis"].as_f64().is_some_and(|millis| millis > 0.0), "{add}");
    let del = of("DEL").unwrap_or_else(|| panic!("no DEL: {log}"));
    assert_eq!(
        (&del["pod"], &del["addresses"]),
        (&"shop/a-pod".into(), &"10.82.0.2".into()),
        "{del}"
    );
    assert!(add["call"].as_u64() > Some(0) && del["call"].as_u64() > add["call"].as_u64(), "{log}");
    assert!(!log.contains("\"target\":\"h2"), "debug is ours: {log}");
}

#[test]
fn a_refused_call_is_in_the_log_and_its_answer_names_its_lines() {
    let daemon = Daemon::start(&Options::default());
    let tight = config("tight", "10.83.0.0/30");
    let answer = |container: &str| {
        let body = Call::new("ADD", container, &tight).body().to_string();
        let mut stream = UnixStream::connect(daemon.socket()).expect("the socket");
        let length = body.len();
        let head = "POST /v1/cni HTTP/1.1\r\nHost: x\r\nConnection: close";
        let request = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.to_ascii_lowercase()
    };
    for (call, container, status) in [(1, "c1", "200"), (2, "c2", "503"), (3, "c3", "503")] {
        let answer = answer(container);
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
        assert!(answer.contains(&format!("\r\nleasehold-call: {call}\r\n")), "{answer}");
        let refused = answer.contains(&format!("call={call} in the log of the daemon\"\n"));
        assert_eq!(refused, status == "503", "the number of the call is printed: {answer}");
    }
    let log = daemon.log();
    // Those that are refused alike are counted, not written.
    assert_eq!(log.matches("ADD refused: ").count(), 1, "{log}");
    let line = log.lines().find(|line| line.contains("ADD refused: ")).expect("the refusal");
    for part in ["network=\"tight\"", "exhausted", "container=c2", "call=2", "pod=\"\""] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let leased = log.lines().find(|line| line.contains("leased blocks")).expect("a lease");
    assert!(leased.contains("blocks=\"1: 10.83.0."), "{leased}");
}

#[test]
fn the_version_names_both_programs() {
    let daemon = Daemon::start(&Options::default());
    let versions = ends_json(&daemon.socket(), &["version"], 0);
    assert_eq!(versions["client"], versions["daemon"], "{versions}");
    let nowhere = daemon.state_dir().join("no.sock");
    let (stdout, stderr) = texts(&leasehold(&nowhere, &["version"]));
    assert!(stdout.contains("none answers") && stderr.is_empty(), "{stdout}{stderr}");
    assert!(stdout.contains(env!("CARGO_PKG_VERSION")) && LEASEHOLD.contains("leasehold"));
}
