//! The calls that the benchmarks make, as the plugin sends them.

use serde_json::{Value, json};

/// The ranges that everybody hands out of, as far as not said otherwise.
pub(super) const WIDE: &str = "10.0.0.0/8";

/// A network namespace, named as containerd names them.
const NETNS: &str = "/var/run/netns/cni-5f3c0e4f-1f0e-4b5e-9d8b-3a7c5d1e2f40";

/// A network configuration.
pub(super) fn config(network: &str, subnet: &str, plugin: &str) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": network, "type": "bridge",
        "ipam": { "type": plugin, "ranges": [[{ "subnet": subnet }]] },
    })
}

/// A container's id, as long as a runtime's: told apart by who makes it, and by a number.
pub(super) fn container(maker: u32, number: u64) -> String {
    format!("{maker:016x}{number:048x}")
}

/// One call for `POST /v1/cni`.
pub(super) fn call(command: &str, container: &str, config: &Value) -> Value {
    json!({
        "command": command, "containerId": container, "netns": NETNS,
        "ifname": "eth0", "args": "", "path": "/opt/cni/bin", "config": config,
    })
}
