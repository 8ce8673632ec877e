//! Names: two daemons with one, copies, and a host whose name changes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{add, address_of, await_status, containers, options, wide};
use crate::common::etcd::Cluster;
use crate::common::{Daemon, LEASEHOLD, Options, get_tcp, go_on, poll, stop};

/// Longer than the TTL of a node's lease and etcd's delay in ending it.
const LEASE_GONE_MAX: Duration = Duration::from_secs(20);

/// Options of a machine in a boot of its own.
fn in_boot(etcd: &Cluster, node: &str, boot: &str) -> Options {
    let file =
        std::env::temp_dir().join(format!("leasehold-it-boot-{}-{boot}", std::process::id()));
    fs::write(&file, boot).expect("a file");
    let boot = ("LEASEHOLD_BOOT_ID_FILE".to_owned(), file.display().to_string());
    let mut options = options(etcd, node, &[]);
    options.env.push(boot);
    options
}

/// Waits until a daemon says why it cannot have its name.
fn await_refusal(daemon: &Daemon, why: &str) {
    await_status(daemon, "waiting for the name", |status| {
        let cause = status["cluster"]["cause"].as_str().unwrap_or_default();
        status["cluster"]["state"] == "joining" && cause.contains(why)
    });
    let outcome = add(daemon, "too-soon", &wide());
    assert!(!outcome.succeeded(), "two daemons serve one name: {outcome:?}");
    assert!(outcome.message().contains(why), "{outcome:?}");
}

/// Ends the session of a daemon without its knowing.
fn outlast(daemon: &Daemon, etcd: &Cluster) {
    stop(daemon.pid());
    let gone = || !etcd.ctl(&["get", "--prefix", "/leasehold/v1/sessions/twin"]).contains("epoch");
    assert!(poll(LEASE_GONE_MAX, gone), "the session does not end");
}

fn remove(daemon: &Daemon, node: &str) {
    let mut command = Command::new(LEASEHOLD);
    command.args(["node", "remove", node, "--force", "--yes", "--quarantine", "60s"]);
    let output = command.env("LEASEHOLD_SOCKET", daemon.socket()).output().expect("leasehold runs");
    assert!(output.status.success(), "{output:?}");
}

/// A second state directory under the name of a node inherits nothing, also if the node is cut off
/// for longer than its lease lives. Once the node is removed, it has the name and no block.
#[test]
fn a_second_daemon_under_a_name_inherits_nothing_without_a_removal() {
    let etcd = Cluster::start(1);
    let older = Daemon::start(&options(&etcd, "twin", &[]));
    let held = address_of(&add(&older, "of-the-older", &wide()));
    let mut newer = Daemon::prepare(&options(&etcd, "twin", &[]));
    newer.try_start().expect("a daemon that waits");
    await_refusal(&newer, "another state directory");
    assert!(add(&older, "still", &wide()).succeeded());

    outlast(&older, &etcd);
    std::thread::sleep(Duration::from_secs(5));
    await_refusal(&newer, "leasehold node remove twin");
    go_on(older.pid());
    let serves = || add(&older, "again", &wide()).succeeded();
    assert!(poll(LEASE_GONE_MAX, serves), "the older one does not serve\n{}", older.log_tail());

    stop(older.pid());
    remove(&newer, "twin");
    let serves = || add(&newer, "of-the-newer", &wide()).succeeded();
    assert!(poll(LEASE_GONE_MAX, serves), "the newer one never serves\n{}", newer.log_tail());
    go_on(older.pid());
    await_status(&older, "fenced", |status| status["cluster"]["state"] == "fenced");
    assert!(!add(&older, "fenced", &wide()).succeeded());
    let more = containers("newer", 1_000);
    for outcome in super::add_all(&mut newer.client(), &more, &wide()) {
        assert_ne!(address_of(&outcome), held, "a block of the older one went on");
    }
}

/// A copy of a machine waits as long as the original lives, and hands nothing out.
#[test]
fn a_copy_of_a_machine_waits_for_the_end_of_the_original() {
    let etcd = Cluster::start(1);
    let original = Daemon::start(&in_boot(&etcd, "twin", "1"));
    add(&original, "of-the-original", &wide()).expect_result();
    let mut copy = Daemon::prepare(&in_boot(&etcd, "twin", "2"));
    let mut cp = Command::new("cp");
    cp.arg("-aT").args([original.state_dir(), copy.state_dir()]);
    assert!(cp.status().expect("cp").success());
    copy.try_start().expect("a daemon that waits");
    await_refusal(&copy, "in another boot than this one");
    std::thread::sleep(Duration::from_secs(6));
    await_refusal(&copy, "in another boot than this one");
    assert!(add(&original, "still", &wide()).succeeded());
}

/// The name of a state directory stays, also if the host gets another one.
#[test]
fn a_node_keeps_the_name_of_its_state_directory() {
    let etcd = Cluster::start(1);
    let mut daemon = Daemon::start(&options(&etcd, "web-1", &[]));
    let held = address_of(&add(&daemon, "c", &wide()));
    let with = |daemon: &mut Daemon, args: &[&str]| {
        let etcd = etcd.options("").endpoints.join(",");
        let usual = ["--etcd", &etcd, "--lease-ttl", "5s"];
        let args = usual.iter().chain(args).map(|&arg| arg.to_owned()).collect();
        daemon.set_options(Options { args, ..Options::default() });
    };
    daemon.terminate();
    with(&mut daemon, &["--node", "web-1.example"]);
    let (code, text) = daemon.refusal();
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("of node web-1,") && text.contains("web-1.example"), "{text}");

    with(&mut daemon, &[]);
    daemon.restart();
    let status: Value = daemon.client().get("/v1/status");
    assert_eq!(status["about"]["node"], "web-1", "{status:#}");
    await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
    assert_eq!(address_of(&add(&daemon, "c", &wide())), held);
}

/// A state directory that goes to another machine takes no block along, also if the first one is
/// silent: it may be a copy.
#[test]
fn a_state_directory_on_another_machine_is_not_its_node() {
    let etcd = Cluster::start(1);
    let on = |machine: &str| {
        let dir = std::env::temp_dir();
        let file = dir.join(format!("leasehold-it-machine-{}-{machine}", std::process::id()));
        fs::write(&file, machine.repeat(32)).expect("a file");
        let mut options = options(&etcd, "twin", &[]);
        options.env.push(("LEASEHOLD_MACHINE_ID_FILE".to_owned(), file.display().to_string()));
        options
    };
    let mut original = Daemon::start(&on("a"));
    add(&original, "of-the-original", &wide()).expect_result();
    assert!(original.terminate().success());
    let mut copy = Daemon::prepare(&on("b"));
    let mut cp = Command::new("cp");
    cp.arg("-aT").args([original.state_dir(), copy.state_dir()]);
    assert!(cp.status().expect("cp").success());
    copy.try_start().expect("a daemon that waits");
    await_refusal(&copy, "and this is machine");
    // Other programs derive secrets from a machine's id.
    let ids = ["a", "b"].map(|machine| machine.repeat(32));
    let of_client = copy.client().request("GET", "/v1/status", "").body;
    let refused = format!("{:?}", add(&copy, "refused", &wide()));
    let shown = ["/readyz", "/v1/status", "/v1/map", "/v1/events", "/v1/nodes", "/metrics"];
    let shown = shown.map(|path| get_tcp(copy.listen(), path).body);
    for text in shown.iter().chain([&of_client, &refused, &copy.log()]) {
        assert!(!ids.iter().any(|id| text.contains(id)), "{text}");
    }
    assert!(of_client.contains("is machine "), "{of_client}");
}

/// An empty state directory beside the socket of an earlier node is another node, if it is to have
/// another name.
#[test]
fn another_name_in_an_empty_state_directory_is_another_node() {
    let etcd = Cluster::start(1);
    let mut daemon = Daemon::start(&options(&etcd, "one", &[]));
    let held = address_of(&add(&daemon, "c", &wide()));
    daemon.terminate();
    fs::remove_dir_all(daemon.state_dir()).expect("the end of the state directory");
    daemon.set_options(options(&etcd, "two", &[]));
    daemon.restart();
    let status: Value = daemon.client().get("/v1/status");
    assert_eq!(status["about"]["node"], "two", "{status:#}");
    await_status(&daemon, "a member", |status| status["cluster"]["state"] == "member");
    assert_ne!(address_of(&add(&daemon, "other", &wide())), held, "a block of the first node");
}

/// A daemon beside the socket of one that lives would get that one's identity, and so its blocks:
/// it is refused, also if the socket's file is gone and the other one does not answer.
#[test]
fn a_second_daemon_beside_the_socket_of_one_that_lives_is_refused() {
    let etcd = Cluster::start(1);
    let first = Daemon::start(&options(&etcd, "one", &[]));
    add(&first, "of-the-first", &wide()).expect_result();
    stop(first.pid());
    fs::remove_file(first.socket()).expect("the socket");
    let empty = tempfile::TempDir::new().expect("a directory");
    // It ends by itself, at once; else it is ended.
    let mut second = Command::new("timeout");
    second.args(["20", LEASEHOLD, "serve", "--config", "/dev/null", "--listen", "127.0.0.1:0"]);
    second.args(&options(&etcd, "one", &[]).args).arg("--socket").arg(first.socket());
    let output = second.arg("--state-dir").arg(empty.path().join("state")).output();
    let output = output.expect("timeout runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("another daemon has") && said.contains("--socket"), "{said}");
    go_on(first.pid());
    // It binds its socket again.
    let answers = || first.client().try_request("GET", "/v1/status", "").is_ok();
    assert!(poll(LEASE_GONE_MAX, answers), "{}", first.log_tail());
    assert!(poll(LEASE_GONE_MAX, || add(&first, "again", &wide()).succeeded()));
}

/// A daemon whose state directory was lost waits until the session of its last daemon has ended:
/// what that one asked of etcd may still be on its way.
#[test]
fn a_lost_state_directory_waits_for_the_end_of_the_last_session() {
    let etcd = Cluster::start(1);
    let endpoints = etcd.options("").endpoints.join(",");
    let args = ["--node", "one", "--etcd", &endpoints, "--lease-ttl", "20s"];
    let args = args.map(str::to_owned).to_vec();
    let mut daemon = Daemon::start(&Options { args, ..Options::default() });
    let held = address_of(&add(&daemon, "before", &wide()));
    await_status(&daemon, "written down", |status| {
        status["cluster"]["state"] == "member" && status["cluster"]["recordsWaiting"] == 0
    });
    daemon.kill9();
    fs::remove_dir_all(daemon.state_dir()).expect("the state directory");
    daemon.try_start().expect("a daemon that waits");
    await_refusal(&daemon, "the state directory of this one is new");
    let serves = || add(&daemon, "after", &wide()).succeeded();
    assert!(poll(Duration::from_secs(60), serves), "it never serves\n{}", daemon.log_tail());
    assert_eq!(address_of(&add(&daemon, "before", &wide())), held, "it was recorded");
    assert_ne!(address_of(&add(&daemon, "after", &wide())), held);
}

/// The file beside the socket speaks for the boot in which it was written only: a machine that has
/// another state directory in another boot may be another one.
#[test]
fn an_identity_beside_the_socket_ends_with_its_boot() {
    let etcd = Cluster::start(1);
    let options = in_boot(&etcd, "twin", "3");
    let boot_file = options.env[0].1.clone();
    let mut daemon = Daemon::start(&options);
    add(&daemon, "before", &wide()).expect_result();
    daemon.kill9();
    fs::remove_dir_all(daemon.state_dir()).expect("the state directory");
    fs::write(boot_file, "4").expect("another boot");
    daemon.try_start().expect("a daemon that waits");
    await_refusal(&daemon, "another state directory");
}
