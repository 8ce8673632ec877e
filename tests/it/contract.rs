//! Goal: the CNI contract holds between the real plugin and the real daemon: for calls in any
//! order, for callers that vanish, and for each version of the specification.
//!
//! Method: the plugin's program is run as a runtime runs it, and killed at the points where
//! runtimes kill it: before it has read its configuration, while it waits, and before its answer is
//! read. The comparison with host-local is in `host_local`, the tests with real runtimes are in
//! `runtimes`.

mod namespaces;
mod order;
mod resolv;
mod shapes;
mod status;
mod upkeep;

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::common::{Call, Daemon, my_ipam};

/// A configuration of the newest version, with one range set.
fn config(name: &str, subnet: &str) -> Value {
    json!({"cniVersion": "1.1.0", "name": name, "ipam": {"ranges": [[{"subnet": subnet}]]}})
}

/// The addresses that an attachment of `eth0` holds on all networks, in order.
fn held(daemon: &Daemon, container: &str) -> Vec<String> {
    let rows = daemon.allocations();
    let of_container = rows.iter().filter(|row| row["containerId"] == container);
    let address = |row: &Value| row["address"].as_str().expect("an address").to_owned();
    let mut held: Vec<String> = of_container.map(address).collect();
    held.sort();
    held
}

/// Starts a plugin process, which waits for its configuration.
fn spawn(daemon: &Daemon, call: &Call) -> Child {
    let mut command = Command::new(my_ipam());
    command.env_clear().envs(call.environment()).env("LEASEHOLD_SOCKET", daemon.socket());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("cannot run the plugin: {error}"))
}

/// Gives a plugin process its whole configuration.
fn tell(daemon: &Daemon, plugin: &mut Child, call: &Call) {
    let mut config = call.config.clone();
    daemon.adopt(&mut config);
    let mut stdin = plugin.stdin.take().expect("a pipe");
    stdin.write_all(config.to_string().as_bytes()).expect("a plugin that reads");
}
