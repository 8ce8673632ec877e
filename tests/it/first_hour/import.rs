//! A node whose containers run on host-local changes to Leasehold, and back.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster_admin::{ends, ends_json};
use crate::common::{CNI_PLUGINS, Call, Daemon, Options, Outcome, require_plugins, run};

fn config(kind: &str, data: &Path) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "pods", "type": "bridge", "ipam": {
        "type": kind, "dataDir": data, "ranges": [[{ "subnet": "10.9.0.0/24" }]]
    } })
}

fn host_local(command: &'static str, container: &str, data: &Path) -> Outcome {
    let call = Call::new(command, container, &config("host-local", data));
    let program = Path::new(CNI_PLUGINS).join("host-local");
    Outcome::of_process(&run(&program, &call.environment(), &call.config.to_string()))
}

fn ours(daemon: &Daemon, command: &'static str, container: &str, data: &Path) -> Outcome {
    daemon.client().call(&Call::new(command, container, &config("my-ipam", data)))
}

fn address(outcome: &Outcome) -> String {
    outcome.expect_result()["ips"][0]["address"].as_str().expect("an address").to_owned()
}

#[test]
fn a_node_that_ran_host_local_keeps_the_addresses_of_its_containers() {
    require_plugins(&["host-local"]);
    let (dir, daemon) = (TempDir::new().expect("a directory"), Daemon::start(&Options::default()));
    let (data, conf) = (dir.path().join("networks"), dir.path().join("net.d"));
    fs::create_dir_all(&conf).expect("a directory");
    let file = conf.join("10-pods.conflist");
    let list = json!({ "cniVersion": "1.0.0", "name": "pods",
        "plugins": [config("my-ipam", &data)] });
    fs::write(file, list.to_string()).expect("a file");
    let before: Vec<String> =
        ["p1", "p2", "p3"].map(|pod| address(&host_local("ADD", pod, &data))).to_vec();
    // The first ADD is refused, and names the command; a DEL of another container is not.
    let refused = ours(&daemon, "ADD", "new", &data);
    assert_eq!(refused.code(), Some(11), "{refused:?}");
    let said = format!("{refused:?}");
    let command = format!("leasehold import host-local {}", data.display());
    assert!(said.contains(&command) && said.contains("3 addresses"), "{said}");
    assert!(ours(&daemon, "DEL", "new", &data).succeeded());
    // Nor does a container that host-local knows get another address.
    assert_eq!(ours(&daemon, "ADD", "p1", &data).code(), Some(11));
    // What was asked for by the message, first without doing it.
    let (data_text, conf_text) = (data.display().to_string(), conf.display().to_string());
    let import = ["import", "host-local", &data_text, "--conf-dir", &conf_text];
    let shown = ends_json(&daemon, &[&import[..], &["--dry-run"]].concat(), 0);
    assert_eq!(shown.as_array().map(Vec::len), Some(3), "{shown}");
    assert!(daemon.allocations().is_empty());
    let done = ends_json(&daemon, &import, 0);
    assert!(done.as_array().expect("rows").iter().all(|row| row["outcome"] == "imported"));
    let held: Vec<String> = daemon
        .allocations()
        .iter()
        .map(|row| format!("{}/24", row["address"].as_str().expect("an address")))
        .collect();
    assert_eq!(held, before);
    // Nobody gets a container's address; its own DEL gives it back.
    let new = address(&ours(&daemon, "ADD", "new", &data));
    assert!(!before.contains(&new), "{new}");
    assert!(ours(&daemon, "DEL", "p1", &data).succeeded());
    assert_eq!(daemon.allocations().len(), 3);
    // Once more, there is nothing to do.
    assert_eq!(ends_json(&daemon, &import, 0), json!([]));
    // The way back.
    let export = ["export", "host-local", &data_text];
    ends(&daemon, &[&export[..], &["--dry-run"]].concat(), 0);
    assert!(!data.join("pods/10.9.0.3").exists());
    ends(&daemon, &export, 0);
    assert!(host_local("DEL", "p2", &data).succeeded());
    assert!(!data.join("pods/10.9.0.3").exists(), "host-local knows it as its own");
    let next = address(&host_local("ADD", "p4", &data));
    assert!(next != before[2] && next != new, "{next}");
}

#[test]
fn an_address_that_another_container_holds_is_not_taken_over() {
    require_plugins(&["host-local"]);
    let (dir, daemon) = (TempDir::new().expect("a directory"), Daemon::start(&Options::default()));
    let nothing = dir.path().join("nothing");
    let taken = address(&ours(&daemon, "ADD", "mine", &nothing));
    let data = dir.path().join("networks");
    assert_eq!(address(&host_local("ADD", "theirs", &data)), taken);
    let data_text = data.display().to_string();
    let conf = dir.path().join("net.d");
    fs::create_dir(&conf).expect("a directory");
    fs::write(conf.join("a.conf"), config("my-ipam", &data).to_string()).expect("a file");
    let conf_text = conf.display().to_string();
    let import = ["import", "host-local", &data_text, "--conf-dir", &conf_text];
    let said = ends(&daemon, &import, 1);
    assert!(said.contains("conflict") && said.contains("container mine holds"), "{said}");
    assert_eq!(daemon.allocations().len(), 1);
    assert!(data.join("pods/10.9.0.2").exists(), "the file stays");
}

/// Files that say nothing about a container of this boot that is not held here stand in nobody's
/// way; a directory that cannot be read does.
#[test]
fn only_what_may_be_in_use_refuses_an_add() {
    let (dir, daemon) = (TempDir::new().expect("a directory"), Daemon::start(&Options::default()));
    let data = dir.path().join("networks");
    let of_pods = data.join("pods");
    fs::create_dir_all(&of_pods).expect("a directory");
    let file = of_pods.join("10.9.0.9");
    fs::write(&file, "old\r\neth0").expect("a file");
    let refused = ours(&daemon, "ADD", "c1", &data);
    assert!(refused.message().contains("1 addresses"), "{refused:?}");
    // Its container is one of an earlier boot.
    let before = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let opened = fs::File::options().write(true).open(&file).expect("a file");
    opened.set_modified(before).expect("an old file");
    let held = address(&ours(&daemon, "ADD", "c1", &data));

    // Another daemon is to judge, which holds what the file says, and no other container does.
    let mut daemon = daemon;
    fs::remove_file(&file).expect("the end of a file");
    let name = held.split('/').next().expect("an address");
    fs::write(of_pods.join(name), "c1\r\neth0").expect("a file");
    daemon.restart();
    assert!(ours(&daemon, "ADD", "c2", &data).succeeded(), "{}", daemon.log_tail());

    fs::write(of_pods.join("10.9.0.9"), b"\xff\xfe").expect("a file");
    let refused = ours(&daemon, "ADD", "c3", &data);
    assert!(refused.message().contains("cannot see what host-local holds"), "{refused:?}");
}

/// With `importHostLocal` no command is needed: the first ADD takes over what is there.
#[test]
fn the_first_add_takes_over_what_host_local_holds_if_the_operator_wants_that() {
    require_plugins(&["host-local"]);
    let args = vec!["--import-host-local".to_owned()];
    let (dir, daemon) = (
        TempDir::new().expect("a directory"),
        Daemon::start(&Options { args, ..Options::default() }),
    );
    let data = dir.path().join("networks");
    let before: Vec<String> =
        ["p1", "p2"].map(|pod| address(&host_local("ADD", pod, &data))).to_vec();
    let new = address(&ours(&daemon, "ADD", "new", &data));
    assert!(!before.contains(&new), "{new}");
    assert_eq!(daemon.allocations().len(), 3);
    assert!(!data.join("pods/10.9.0.2").exists(), "its file is gone");
    // A repeated ADD of a container that was taken over is answered with what it has.
    assert_eq!(address(&ours(&daemon, "ADD", "p1", &data)), before[0]);
    assert!(ours(&daemon, "DEL", "p2", &data).succeeded());
    assert_eq!(daemon.allocations().len(), 2);
}

/// A file that cannot be taken over is said, and nothing is handed out.
#[test]
fn a_first_add_that_cannot_take_over_everything_is_refused() {
    let args = vec!["--import-host-local".to_owned()];
    let (dir, daemon) = (
        TempDir::new().expect("a directory"),
        Daemon::start(&Options { args, ..Options::default() }),
    );
    let data = dir.path().join("networks");
    fs::create_dir_all(data.join("pods")).expect("a directory");
    fs::write(data.join("pods/10.77.0.2"), "p1\r\neth0").expect("a file");
    let refused = ours(&daemon, "ADD", "new", &data);
    assert_eq!(refused.code(), Some(11), "{refused:?}");
    let said = format!("{refused:?}");
    assert!(said.contains("container p1") && said.contains("10.77.0.2"), "{said}");
    assert!(daemon.allocations().is_empty());
}
