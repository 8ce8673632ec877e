//! The commands that operators run about the cluster, against real daemons: with an etcd of the
//! test's own, or with the embedded store.

mod live;
mod networks;
mod nodes;
mod pools;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use super::common::etcd::Cluster;
use super::common::{Call, Daemon, LEASEHOLD, Options, Outcome};

/// The time within which another process must notice a change.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon of that name on an etcd cluster, not started yet. Leases are short, so that it notices
/// commands about its node soon.
fn prepare(etcd: &Cluster, node: &str) -> Daemon {
    let args = ["--etcd", &etcd.endpoint(0), "--node", node, "--lease-ttl", "5s"];
    Daemon::prepare(&Options { args: args.map(str::to_owned).to_vec(), ..Options::default() })
}

fn start(etcd: &Cluster, node: &str) -> Daemon {
    let mut daemon = prepare(etcd, node);
    daemon.restart();
    daemon
}

fn leasehold(daemon: &Daemon, args: &[&str]) -> Output {
    leasehold_with(&daemon.socket(), args, &[])
}

fn leasehold_with(socket: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(LEASEHOLD);
    command.args(args).env("LEASEHOLD_SOCKET", socket).envs(variables.iter().copied());
    command.output().expect("leasehold runs")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Runs a command that must end with that exit status. Returns its output.
pub(crate) fn ends(daemon: &Daemon, args: &[&str], code: i32) -> String {
    let output = leasehold(daemon, args);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    assert_eq!(stderr, "", "{args:?}: an answer goes to stdout");
    stdout
}

pub(crate) fn ends_json(daemon: &Daemon, args: &[&str], code: i32) -> Value {
    let stdout = ends(daemon, &[args, &["-o", "json"]].concat(), code);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"))
}

/// Runs a command that cannot do its work. Returns its one line on standard error.
pub(crate) fn fails(daemon: &Daemon, args: &[&str]) -> String {
    let output = leasehold(daemon, args);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stdout}{stderr}");
    stderr
}

pub(crate) fn config(network: &str, ipam: &Value) -> Value {
    json!({ "cniVersion": "1.0.0", "name": network, "ipam": ipam })
}

fn call(daemon: &Daemon, command: &'static str, container: &str, config: &Value) -> Outcome {
    daemon.client().call(&Call::new(command, container, config))
}

/// The first address of an ADD that must succeed, without its prefix length.
fn address(daemon: &Daemon, container: &str, config: &Value) -> String {
    first(&call(daemon, "ADD", container, config))
}

fn first(outcome: &Outcome) -> String {
    let net = outcome.expect_result()["ips"][0]["address"].as_str().expect("an address");
    net.split('/').next().expect("an address").to_owned()
}

#[test]
fn every_help_has_an_example_and_the_exit_status() {
    for command in [
        &["node"][..],
        &["node", "list"],
        &["node", "remove"],
        &["node", "drain"],
        &["drain"],
        &["network"],
        &["network", "list"],
        &["network", "get"],
        &["network", "put"],
        &["network", "edit"],
        &["network", "delete"],
    ] {
        let help = leasehold_with(Path::new("/nonexistent"), &[command, &["--help"]].concat(), &[]);
        let (help, _) = texts(&help);
        let example = format!("\n  leasehold {}", command.join(" "));
        for part in [&*example, "Exit status: 0 success"] {
            assert!(help.contains(part), "{part:?} in the help of {command:?}: {help}");
        }
        let wide = help.lines().find(|line| line.chars().count() > 100);
        assert!(command.len() == 1 || wide.is_none(), "{wide:?}");
    }
}
