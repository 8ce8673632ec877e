//! Goal: real container runtimes run containers on networks of ours as on host-local's, and nothing
//! is left behind after they end their networks.
//!
//! Method: Debian's podman (on CNI, with runc) and containerd (`ctr`, and its CRI service, called
//! as kubelet calls it) run containers of one busybox, on a machine of the test's own: namespaces
//! for processes, mounts and the network, which end with the test, also when it fails. A reboot of
//! that machine ends everything on it but the disk.

mod cluster;
mod containerd;
mod cri;
mod host;
mod podman;
mod rootfs;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::host::Host;
use crate::common::Daemon;

/// A list of plugins: a bridge with a gateway, ports of the host, a firewall, and `tuning`.
fn on_a_bridge(daemon: &Daemon, name: &str, subnet: &str) -> Value {
    let mut bridge = json!({
        "type": "bridge", "bridge": format!("{name}0"), "isGateway": true, "ipMasq": true,
        "ipam": {"ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]},
    });
    daemon.adopt(&mut bridge);
    json!({
        "cniVersion": "0.4.0", "name": name,
        "plugins": [
            bridge,
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "firewall", "backend": "iptables"},
            {"type": "tuning"},
        ],
    })
}

/// The addresses that are held according to the daemon, in order.
fn held(host: &Host) -> Vec<String> {
    let mut held: Vec<String> = host.daemon.allocations().iter().map(address_of).collect();
    held.sort();
    held
}

fn address_of(row: &Value) -> String {
    row["address"].as_str().expect("an address").to_owned()
}

/// Fails if one address is there twice.
fn assert_unique(addresses: &[String]) {
    let different: BTreeSet<&String> = addresses.iter().collect();
    assert_eq!(different.len(), addresses.len(), "an address twice: {addresses:?}");
}

/// The number of calls that the daemon had, by verb and result, and the DELs that it did not get.
fn calls(host: &Host) -> String {
    let metrics = host.daemon.client().request("GET", "/metrics", "").body;
    let names = ["leasehold_requests_total", "leasehold_del_notes_total"];
    let calls = metrics.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let notes = std::fs::read_dir(host.daemon.notes_dir()).into_iter().flatten().flatten();
    let notes = notes.map(|note| format!("note {}", note.path().display()));
    calls.map(str::to_owned).chain(notes).collect::<Vec<_>>().join("\n")
}

/// Fails unless the daemon holds nothing, and neither interfaces of containers nor their namespaces
/// are left on the machine.
fn assert_nothing_left(host: &Host) {
    assert_eq!(host.daemon.allocations(), [Value::Null; 0], "{}", calls(host));
    let links = host.run(&["ip", "-o", "link", "show", "type", "veth"]);
    let links: Vec<&str> = links.lines().filter(|link| !link.contains(": w")).collect();
    assert_eq!(links, [""; 0], "interfaces are left");
    let namespaces = host.run(&["ls", "/run/netns"]);
    assert_eq!(namespaces, "", "namespaces are left");
}
