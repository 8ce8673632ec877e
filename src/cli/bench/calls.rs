//! The calls that the benchmarks make, as the plugin sends them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Value, json};

/// The subnet that the contenders hand out of, unless a case has its own.
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

/// A container's id: 64 digits in no order, like a runtime's ids. Ids in order would flatter a
/// program that keeps its data sorted by id. Each pair of maker and number has its own id.
pub(super) fn container(maker: u32, number: u64) -> String {
    let digits = |part: u64| {
        let mut hasher = DefaultHasher::new();
        (maker, number, part).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}{maker:08x}{number:024x}", digits(0), digits(1))
}

/// One call for `POST /v1/cni`.
pub(super) fn call(command: &str, container: &str, config: &Value) -> Value {
    json!({
        "command": command, "containerId": container, "netns": NETNS,
        "ifname": "eth0", "args": "", "path": "/opt/cni/bin", "config": config,
    })
}
