//! Goal: the usual main plugins work with `my-ipam` as they do with host-local, alone and with
//! other plugins after them.
//!
//! Method: Debian's own `bridge`, `macvlan`, `ipvlan` and `ptp` find `my-ipam` through `CNI_PATH`
//! and run it, in a network namespace that stands for a host, for namespaces that stand for
//! containers. Then the test asks the kernel for addresses and routes, and sends packets. All
//! traffic and all interfaces stay inside of the namespaces, which go away with the test, also when
//! it fails.

mod chained;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::geteuid;
use serde_json::{Value, json};

use crate::common::{
    CNI_PLUGINS, Call, Client, Daemon, Options, Outcome, feed, my_ipam, poll, require_plugins,
};

/// The time within which packets must pass (IPv6 looks for duplicates first).
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace that exists as long as this value.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("leasehold-it-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `ip` inside of the namespace.
    fn ip(&self, arguments: &[&str]) -> String {
        let inside = ["-n", self.name.as_str()];
        ip(&[inside.as_slice(), arguments].concat())
    }

    /// The addresses of one interface, as `address/length`, without those of the link itself.
    fn addresses(&self, interface: &str) -> Vec<String> {
        let links = self.ip(&["-j", "addr", "show"]);
        let links: Value = serde_json::from_str(&links).expect("JSON of ip");
        let links = links.as_array().expect("an array of links");
        let link = links.iter().find(|link| link["ifname"] == interface);
        let Some(infos) = link.and_then(|link| link["addr_info"].as_array()) else {
            return Vec::new();
        };
        infos
            .iter()
            .filter(|info| info["scope"] != "link")
            .map(|info| {
                format!("{}/{}", info["local"].as_str().unwrap_or_default(), info["prefixlen"])
            })
            .collect()
    }

    /// True if the namespace has an interface of this name.
    fn has(&self, interface: &str) -> bool {
        let links = self.ip(&["-j", "link", "show"]);
        let links: Value = serde_json::from_str(&links).expect("JSON of ip");
        links.as_array().expect("an array").iter().any(|link| link["ifname"] == interface)
    }

    /// True if an address answers from here, in the end.
    fn reaches(&self, address: &str) -> bool {
        poll(PATIENCE, || {
            self.command("ping")
                .args(["-c1", "-W2", address])
                .output()
                .expect("ping (Debian's package iputils-ping)")
                .status
                .success()
        })
    }

    /// Lets packets pass through the namespace.
    fn forward(&self) {
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            let set = self.command("sysctl").args(["-qw", setting]).status();
            assert!(
                set.is_ok_and(|status| status.success()),
                "{setting} (Debian's package procps)"
            );
        }
    }

    /// A command that runs a program inside of the namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("the network namespace {} is left behind", self.name);
        }
    }
}

/// Runs `ip`, which must succeed.
fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run ip (Debian's package iproute2): {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {stderr}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("text of ip")
}

/// A host of the test's own: a namespace for it, and a daemon.
struct Host {
    namespace: Namespace,
    daemon: Daemon,
    client: Client,
}

impl Host {
    fn start(plugin: &str) -> Self {
        assert!(geteuid().is_root(), "network namespaces need root: run this test as root");
        require_plugins(&[plugin]);
        let daemon = Daemon::start(&Options::default());
        let client = daemon.client();
        Self { namespace: Namespace::new(), daemon, client }
    }

    /// Makes `wire0`, an interface to put others on.
    fn wire(&self) {
        self.namespace.ip(&["link", "add", "wire0", "type", "veth", "peer", "name", "wire1"]);
        self.namespace.ip(&["link", "set", "wire0", "up"]);
        self.namespace.ip(&["link", "set", "wire1", "up"]);
    }

    /// A call for the `eth0` of a container in its namespace.
    fn call(&self, command: &'static str, container: &Namespace, config: &Value) -> Call {
        let mut call = Call::new(command, &container.name, config);
        call.netns = container.path().to_string_lossy().into_owned();
        let ours = my_ipam().parent().expect("a directory").display();
        call.path = format!("{ours}:{CNI_PLUGINS}");
        self.daemon.adopt(&mut call.config);
        call
    }

    /// Runs the main plugin that the configuration names, inside of the host's namespace.
    fn plugin(&self, call: &Call) -> Outcome {
        let plugin = call.config["type"].as_str().expect("the name of a plugin");
        let program = Path::new(CNI_PLUGINS).join(plugin);
        let mut command = self.namespace.command(program.to_str().expect("a path in UTF-8"));
        command.envs(call.environment().iter().copied());
        Outcome::of_process(&feed(command, &call.config.to_string()))
    }

    fn add(&self, container: &Namespace, config: &Value) -> Value {
        let call = self.call("ADD", container, config);
        self.plugin(&call).expect_result().clone()
    }

    fn check(&self, container: &Namespace, config: &Value, result: &Value) {
        let mut call = self.call("CHECK", container, config);
        call.config["prevResult"] = result.clone();
        assert_eq!(self.plugin(&call), Outcome::Done(None), "CHECK");
    }

    /// Makes a DEL, as a runtime does that knows the result of the ADD.
    fn del(&self, container: &Namespace, config: &Value, result: &Value) {
        let mut call = self.call("DEL", container, config);
        call.config["prevResult"] = result.clone();
        assert_eq!(self.plugin(&call), Outcome::Done(None), "DEL");
    }

    /// The addresses that the daemon says a container holds on its `eth0`, in order.
    fn held(&mut self, network: &str, container: &Namespace) -> Vec<String> {
        let list = self.client.get("/v1/allocations");
        let mut held: Vec<String> = list
            .as_array()
            .expect("an array of allocations")
            .iter()
            .filter(|it| it["network"] == network && it["containerId"] == *container.name)
            .map(|it| {
                assert_eq!(it["ifname"], "eth0");
                it["address"].as_str().expect("an address").to_owned()
            })
            .collect();
        held.sort();
        held
    }
}

/// True if this kernel knows ipvlan, which not every kernel does (macvlan and bridge it must know).
fn kernel_has_ipvlan() -> bool {
    let namespace = Namespace::new();
    namespace.ip(&["link", "add", "wire0", "type", "veth", "peer", "name", "wire1"]);
    let add = ["-n", &namespace.name, "link", "add", "link", "wire0", "name", "probe"];
    let output = Command::new("ip").args(add).args(["type", "ipvlan"]).output().expect("ip");
    let unknown = String::from_utf8_lossy(&output.stderr).contains("Unknown device type");
    assert!(output.status.success() || unknown, "{output:?}");
    output.status.success()
}

/// The addresses of a main plugin's result, as `address/length`.
fn given(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().expect("an array of addresses");
    ips.iter().map(|ip| ip["address"].as_str().expect("an address").to_owned()).collect()
}

/// A bridge with gateways of both families: the container has both addresses and reaches both
/// gateways and its neighbour; CHECK agrees; after DEL nothing is left, and DEL can be repeated.
#[test]
fn bridge_gives_a_container_both_families_and_takes_them_back() {
    let mut host = Host::start("bridge");
    let config = json!({
        "cniVersion": "1.0.0", "name": "on-bridge", "type": "bridge", "bridge": "it0",
        "isGateway": true,
        "ipam": {
            "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    let (first, second) = (Namespace::new(), Namespace::new());
    let first_result = host.add(&first, &config);
    let second_result = host.add(&second, &config);
    assert_eq!(given(&first_result), ["10.77.0.2/24", "fd00:77::2/64"]);
    assert_eq!(given(&second_result), ["10.77.0.3/24", "fd00:77::3/64"]);
    assert_eq!(first.addresses("eth0"), ["10.77.0.2/24", "fd00:77::2/64"]);
    assert_eq!(host.namespace.addresses("it0"), ["10.77.0.1/24", "fd00:77::1/64"]);
    for address in ["10.77.0.1", "fd00:77::1", "10.77.0.3", "fd00:77::3"] {
        assert!(first.reaches(address), "{address} does not answer");
    }
    assert!(first.ip(&["route", "show", "default"]).contains("via 10.77.0.1"));
    assert_eq!(host.held("on-bridge", &first), ["10.77.0.2", "fd00:77::2"]);
    host.check(&first, &config, &first_result);
    host.check(&second, &config, &second_result);

    for _ in 0..2 {
        host.del(&first, &config, &first_result);
        assert!(!first.has("eth0"));
        assert_eq!(host.held("on-bridge", &first), [""; 0]);
    }
    assert_eq!(host.held("on-bridge", &second), ["10.77.0.3", "fd00:77::3"]);
    assert!(second.reaches("10.77.0.1"), "a neighbour's DEL is no reason to fall silent");
    host.del(&second, &config, &second_result);
    assert_eq!(host.held("on-bridge", &second), [""; 0]);
}

/// When `bridge` fails after it got addresses, it gives them back, and so does the runtime.
#[test]
fn bridge_that_fails_after_its_addresses_leaves_none_behind() {
    let mut host = Host::start("bridge");
    let config = json!({
        "cniVersion": "1.0.0", "name": "failing", "type": "bridge", "bridge": "it0",
        "isGateway": true,
        // The container has no way to this gateway, so the route cannot be set.
        "ipam": {"subnet": "10.77.0.0/24", "routes": [{"dst": "10.99.0.0/24", "gw": "10.98.0.1"}]},
    });
    let container = Namespace::new();
    let outcome = host.plugin(&host.call("ADD", &container, &config));
    assert!(outcome.message().contains("failed to add route"), "{outcome:?}");
    assert_eq!(host.held("failing", &container), [""; 0]);
    let del = host.plugin(&host.call("DEL", &container, &config));
    assert_eq!(del, Outcome::Done(None));
}

/// `bridge` passes a refusal of `my-ipam` on, word for word, and the container gets no interface.
#[test]
fn bridge_passes_a_refusal_on() {
    let mut host = Host::start("bridge");
    let config = json!({
        "cniVersion": "1.0.0", "name": "full", "type": "bridge", "bridge": "it0",
        "ipam": {"subnet": "10.77.0.0/30"},
    });
    let (first, second) = (Namespace::new(), Namespace::new());
    let result = host.add(&first, &config);
    let refused = host.plugin(&host.call("ADD", &second, &config));
    let words = "no IP addresses available in range set: 10.77.0.1-10.77.0.2";
    assert!(refused.message().contains(words), "{refused:?}");
    assert_eq!(host.held("full", &second), [""; 0]);
    host.del(&second, &config, &Value::Null);
    assert!(!second.has("eth0"));
    host.del(&first, &config, &result);
    assert_eq!(given(&host.add(&second, &config)), ["10.77.0.2/30"]);
}

/// Two containers on one macvlan parent reach each other, and DEL takes both away.
#[test]
fn macvlan_connects_two_containers() {
    let mut host = Host::start("macvlan");
    host.wire();
    let config = json!({
        "cniVersion": "1.0.0", "name": "on-wire", "type": "macvlan", "master": "wire0",
        "mode": "bridge",
        "ipam": {"subnet": "10.78.0.0/24", "rangeStart": "10.78.0.100"},
    });
    let (first, second) = (Namespace::new(), Namespace::new());
    let first_result = host.add(&first, &config);
    let second_result = host.add(&second, &config);
    assert_eq!(given(&first_result), ["10.78.0.100/24"]);
    assert_eq!(first.addresses("eth0"), ["10.78.0.100/24"]);
    assert_eq!(second.addresses("eth0"), ["10.78.0.101/24"]);
    assert!(first.reaches("10.78.0.101"), "the second container does not answer");
    assert!(second.reaches("10.78.0.100"), "the first container does not answer");
    host.check(&first, &config, &first_result);

    for (container, result) in [(&first, &first_result), (&second, &second_result)] {
        assert_eq!(host.held("on-wire", container).len(), 1);
        host.del(container, &config, result);
        assert!(!container.has("eth0"));
        assert_eq!(host.held("on-wire", container), [""; 0]);
        host.del(container, &config, result);
    }
}

/// Two containers on one ipvlan parent reach each other. On a kernel without ipvlan the plugin
/// fails, and must leave nothing behind.
#[test]
fn ipvlan_connects_two_containers() {
    for mode in ["l2", "l3"] {
        let mut host = Host::start("ipvlan");
        host.wire();
        let config = json!({
            "cniVersion": "1.0.0", "name": "on-wire", "type": "ipvlan", "master": "wire0",
            "mode": mode,
            "ipam": {"ranges": [[{"subnet": "10.79.0.0/24"}], [{"subnet": "fd00:79::/64"}]]},
        });
        let (first, second) = (Namespace::new(), Namespace::new());
        if !kernel_has_ipvlan() {
            let refused = host.plugin(&host.call("ADD", &first, &config));
            assert!(refused.message().contains("failed to create ipvlan"), "{refused:?}");
            assert_eq!(host.held("on-wire", &first), [""; 0]);
            host.del(&first, &config, &Value::Null);
            continue;
        }
        let results = [host.add(&first, &config), host.add(&second, &config)];
        assert_eq!(first.addresses("eth0"), ["10.79.0.2/24", "fd00:79::2/64"], "{mode}");
        assert_eq!(second.addresses("eth0"), ["10.79.0.3/24", "fd00:79::3/64"], "{mode}");
        assert!(first.reaches("10.79.0.3"), "the second container does not answer ({mode})");
        assert!(second.reaches("fd00:79::2"), "the first container does not answer ({mode})");
        host.check(&first, &config, &results[0]);
        for (container, result) in [&first, &second].into_iter().zip(&results) {
            host.del(container, &config, result);
            assert!(!container.has("eth0"), "{mode}");
            assert_eq!(host.held("on-wire", container), [""; 0], "{mode}");
            host.del(container, &config, result);
        }
    }
}

/// A container with its own pair of interfaces reaches its gateway, which is the host.
#[test]
fn ptp_gives_each_container_a_way_to_the_host() {
    let mut host = Host::start("ptp");
    let config = json!({
        "cniVersion": "1.0.0", "name": "pairs", "type": "ptp", "ipMasq": true,
        "ipam": {
            "ranges": [[{"subnet": "10.83.0.0/24"}], [{"subnet": "fd00:83::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    host.namespace.forward();
    let (first, second) = (Namespace::new(), Namespace::new());
    let results = [host.add(&first, &config), host.add(&second, &config)];
    assert_eq!(given(&results[0]), ["10.83.0.2/24", "fd00:83::2/64"]);
    assert_eq!(first.addresses("eth0"), ["10.83.0.2/24", "fd00:83::2/64"]);
    assert_eq!(second.addresses("eth0"), ["10.83.0.3/24", "fd00:83::3/64"]);
    for address in ["10.83.0.1", "fd00:83::1", "10.83.0.3"] {
        assert!(first.reaches(address), "{address} does not answer");
    }
    host.check(&first, &config, &results[0]);
    for (container, result) in [&first, &second].into_iter().zip(&results) {
        host.del(container, &config, result);
        assert!(!container.has("eth0"));
        assert_eq!(host.held("pairs", container), [""; 0]);
        host.del(container, &config, result);
    }
    assert!(!host.namespace.ip(&["-o", "link"]).contains("veth"), "a pair is left behind");
}
