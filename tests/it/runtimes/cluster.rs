//! Two machines with podman on one wire and one etcd: macvlan, where an address that two nodes gave
//! out would be one address twice on the same link.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::podman::Podman;
use super::{assert_nothing_left, assert_unique, held};
use crate::common::etcd::Cluster;
use crate::common::{Options, poll};

/// The time within which a node must become a member.
const PATIENCE: Duration = Duration::from_secs(20);
/// Containers on each machine.
const MANY: usize = 4;

fn machine(etcd: &Cluster, node: &str) -> Podman {
    let endpoints = etcd.options("").endpoints.join(",");
    let args = ["--node", node, "--etcd", &endpoints, "--lease-ttl", "5s"];
    let args = args.map(str::to_owned).into();
    let podman = Podman::start(Options { args, ..Options::default() });
    let member = || {
        let status = podman.host.daemon.client().get("/v1/status");
        status["cluster"]["state"] == "member"
    };
    assert!(poll(PATIENCE, member), "no member: {}", podman.host.daemon.log_tail());
    let mut macvlan = json!({
        "type": "macvlan", "master": "wan0", "mode": "bridge",
        "ipam": {"subnet": "10.86.0.0/24"},
    });
    podman.host.daemon.adopt(&mut macvlan);
    podman.network(&json!({"cniVersion": "0.4.0", "name": "flat", "plugins": [macvlan]}));
    podman
}

#[test]
fn containers_of_two_machines_share_a_wire_and_no_address() {
    let etcd = Cluster::start(1);
    let machines = ["node-a", "node-b"].map(|node| machine(&etcd, node));
    let [one, two] = machines.each_ref().map(|machine| machine.host.pid());
    let pair = ["netns", &one, "type", "veth", "peer", "name", "wan0", "netns", &two];
    let wire = Command::new("ip").args(["link", "add", "wan0"]).args(pair).status();
    assert!(wire.is_ok_and(|status| status.success()), "no wire between the machines");
    for machine in &machines {
        machine.host.run(&["ip", "link", "set", "wan0", "up"]);
    }
    let names: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
    std::thread::scope(|scope| {
        for machine in &machines {
            for name in &names {
                scope.spawn(move || machine.run(name, &["--network", "flat"]));
            }
        }
    });
    let of = |machine: &Podman| -> Vec<String> {
        names.iter().map(|name| machine.address(name, "eth0")).collect()
    };
    let [ours, theirs] = machines.each_ref().map(of);
    assert_unique(&[ours.clone(), theirs.clone()].concat());
    machines[0].assert_reaches("c0", &theirs[0]);
    machines[1].assert_reaches("c1", &ours[1]);

    // An address that the other node's container holds is refused; once it is gone, it can be had.
    let ask = ["--name", "asks", "--network", "flat", "--ip", &theirs[0]];
    let refused = machines[0].try_run(&ask, &["ip", "addr"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{} is on two machines", theirs[0]);
    assert!(said.contains(&format!("requested IP address {}", theirs[0])), "{said}");
    machines[1].podman(&["rm", "-f", "-t", "0", "c0"]);
    machines[0].podman(&["rm", "-f", "asks"]);
    machines[0].run("asks", &ask[2..]);
    assert_eq!(machines[0].address("asks", "eth0"), theirs[0]);
    assert_eq!(held(&machines[0].host).len() + held(&machines[1].host).len(), 2 * MANY);
    for machine in &machines {
        machine.remove_all();
        assert_nothing_left(&machine.host);
    }
}
