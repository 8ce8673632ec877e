//! Lists of plugins, run as a runtime runs them: each ADD gets the result of the one before, and
//! DELs go the other way. The plugin that asks for addresses comes first.

use serde_json::{Value, json};

use super::{Host, Namespace, given, kernel_has_ipvlan};
use crate::common::{CNI_PLUGINS, Outcome, require_plugins};

/// The fields that a runtime adds for a port of the host.
const PORT: &str = r#"{"portMappings": [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}"#;

/// A list of plugins on a host.
struct Chain<'a> {
    host: &'a mut Host,
    name: &'static str,
    plugins: Vec<Value>,
}

impl<'a> Chain<'a> {
    fn new(host: &'a mut Host, name: &'static str, plugins: Value) -> Self {
        let Value::Array(plugins) = plugins else { panic!("no list: {plugins}") };
        for plugin in &plugins {
            require_plugins(&[plugin["type"].as_str().expect("a type")]);
        }
        Self { host, name, plugins }
    }

    /// Runs one plugin of the list.
    fn plugin(
        &self,
        command: &'static str,
        container: &Namespace,
        plugin: &Value,
        previous: Option<&Value>,
    ) -> Outcome {
        let mut config = plugin.clone();
        config["cniVersion"] = "1.0.0".into();
        config["name"] = self.name.into();
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        self.host.plugin(&self.host.call(command, container, &config))
    }

    /// Runs the list for an ADD. Returns the last result, or the first refusal.
    fn try_add(&self, container: &Namespace) -> Outcome {
        let mut previous: Option<Value> = None;
        for plugin in &self.plugins {
            let outcome = self.plugin("ADD", container, plugin, previous.as_ref());
            let Outcome::Done(Some(result)) = outcome else { return outcome };
            previous = Some(result);
        }
        Outcome::Done(previous)
    }

    fn check(&self, container: &Namespace, result: &Value) {
        // Debian's portmap looks for the rules of IPv4 among those of IPv6, and finds none.
        for plugin in self.plugins.iter().filter(|plugin| plugin["type"] != "portmap") {
            let outcome = self.plugin("CHECK", container, plugin, Some(result));
            assert_eq!(outcome, Outcome::Done(None), "CHECK of {plugin}");
        }
    }

    fn del(&self, container: &Namespace, result: Option<&Value>) {
        for plugin in self.plugins.iter().rev() {
            let outcome = self.plugin("DEL", container, plugin, result);
            assert_eq!(outcome, Outcome::Done(None), "DEL of {plugin}");
        }
    }

    /// Checks two containers: their addresses, their connectivity, and that nothing stays.
    fn comes_and_goes(&mut self, expected: [&[&str]; 2]) {
        let containers = [Namespace::new(), Namespace::new()];
        let results = containers.each_ref().map(|it| self.try_add(it).expect_result().clone());
        for (container, (result, expected)) in containers.iter().zip(results.iter().zip(expected)) {
            assert_eq!(given(result), expected, "{result}");
            assert_eq!(container.addresses("eth0"), expected);
            self.check(container, result);
        }
        let other = expected[1][0].split('/').next().expect("an address");
        assert!(containers[0].reaches(other), "{other} does not answer");
        for (container, result) in containers.iter().zip(&results) {
            for _ in 0..2 {
                self.del(container, Some(result));
                assert!(!container.has("eth0"));
                assert_eq!(self.host.held(self.name, container), [""; 0]);
            }
        }
    }

    /// The rules of a table of the host, as `iptables -S` lists them.
    fn rules(&self, table: &str) -> String {
        let output = self.host.namespace.command("iptables").args(["-t", table, "-S"]).output();
        let output = output.expect("iptables");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

#[test]
fn bridge_with_portmap_firewall_and_tuning() {
    let mut host = Host::start("bridge");
    host.namespace.forward();
    let ports: Value = serde_json::from_str(PORT).expect("JSON");
    let bridge = json!({
        "type": "bridge", "bridge": "it0", "isGateway": true, "ipMasq": true,
        "ipam": {
            "ranges": [[{"subnet": "10.84.0.0/24"}], [{"subnet": "fd00:84::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    let portmap = json!({
        "type": "portmap", "capabilities": {"portMappings": true}, "runtimeConfig": ports,
    });
    let firewall = json!({"type": "firewall", "backend": "iptables"});
    let tuning = json!({"type": "tuning", "mtu": 1400});
    let plugins = json!([bridge, portmap, firewall, tuning]);
    let chain = Chain::new(&mut host, "whole", plugins);
    let container = Namespace::new();
    let result = chain.try_add(&container).expect_result().clone();
    assert_eq!(given(&result), ["10.84.0.2/24", "fd00:84::2/64"]);
    assert!(container.ip(&["link", "show", "eth0"]).contains("mtu 1400"));
    chain.check(&container, &result);
    assert!(chain.rules("nat").contains("--to-destination 10.84.0.2:80"));
    assert!(chain.rules("filter").contains("10.84.0.2/32"));

    chain.del(&container, Some(&result));
    for table in ["nat", "filter"] {
        let rules = chain.rules(table);
        assert!(!rules.contains("10.84.0.2"), "{table}: {rules}");
    }
    assert_eq!(chain.host.held("whole", &container), [""; 0]);
}

#[test]
fn macvlan_ipvlan_and_ptp_with_others_after_them() {
    let tuning = json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}});
    let firewall = json!({"type": "firewall", "backend": "iptables"});
    let ipam = |subnet: &str| json!({"subnet": subnet, "routes": [{"dst": "0.0.0.0/0"}]});
    let on_wire = |kind: &str, mode: &str| {
        let ipam = ipam("10.85.0.0/24");
        json!({"type": kind, "master": "wire0", "mode": mode, "ipam": ipam})
    };
    let ptp = json!({"type": "ptp", "ipMasq": true, "ipam": ipam("10.85.0.0/24")});
    let mut lists =
        vec![json!([on_wire("macvlan", "bridge"), tuning]), json!([ptp, firewall, tuning])];
    if kernel_has_ipvlan() {
        lists.push(json!([on_wire("ipvlan", "l2"), tuning]));
    }
    for plugins in lists {
        let mut host = Host::start("tuning");
        host.namespace.forward();
        host.wire();
        Chain::new(&mut host, "chain", plugins)
            .comes_and_goes([&["10.85.0.2/24"], &["10.85.0.3/24"]]);
    }
}

/// When a plugin after ours fails, the runtime makes the DELs of the whole list.
#[test]
fn a_list_that_fails_after_its_address_leaves_none_behind() {
    let mut host = Host::start("bridge");
    let plugins = json!([
        {"type": "bridge", "bridge": "it0", "ipam": {"subnet": "10.84.0.0/24"}},
        {"type": "tuning", "sysctl": {"net.no.such.thing": "1"}},
    ]);
    let chain = Chain::new(&mut host, "failing", plugins);
    let container = Namespace::new();
    let refused = chain.try_add(&container);
    assert!(!refused.succeeded(), "{refused:?}");
    let held = chain.host.held("failing", &container);
    assert_eq!(held, ["10.84.0.2"], "{CNI_PLUGINS}/tuning comes after the address");
    chain.del(&container, None);
    assert_eq!(chain.host.held("failing", &container), [""; 0]);
    assert!(!container.has("eth0"));
}
