//! podman with CNI and runc: bridges with ports and firewall, macvlan, twenty at once, a reboot.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use super::host::{Host, text_of};
use super::{assert_nothing_left, assert_unique, held, on_a_bridge, rootfs};
use crate::common::Options;

/// The programs that run here, each with its package.
const PROGRAMS: [(&str, &str); 4] =
    [("podman", "podman"), ("runc", "runc"), ("conmon", "conmon"), ("iptables", "iptables")];
/// Containers that start at once.
const MANY: usize = 20;

const PAGE: &str = include_str!("../../../docs/runtimes.md");

/// The lines for podman's file, as the page has them.
fn of_page() -> &'static str {
    let at = PAGE.find("```toml\n[network]\n").expect("podman's file in the page");
    PAGE[at..].trim_start_matches("```toml\n").split("```").next().expect("its end")
}

/// A machine with podman.
pub(super) struct Podman {
    pub(super) host: Host,
    root: PathBuf,
}

impl Podman {
    pub(super) fn start(options: Options) -> Self {
        let host = Host::start(&PROGRAMS, options);
        let root = rootfs::make(&host);
        let config = format!(
            "{}network_config_dir = \"{}\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n",
            of_page(),
            host.disk("networks").display()
        );
        fs::write(host.disk("containers.conf"), config).expect("a file");
        Self { host, root }
    }

    pub(super) fn network(&self, config: &Value) {
        let name = config["name"].as_str().expect("a name");
        let file = self.host.disk("networks").join(format!("{name}.conflist"));
        fs::write(file, config.to_string()).expect("a file");
    }

    fn bridge(&self, name: &str, subnet: &str) {
        self.network(&on_a_bridge(&self.host.daemon, name, subnet));
    }

    /// Runs podman. Its files on the machine's disk outlive a reboot, those under `/run` do not.
    fn try_podman(&self, arguments: &[&str]) -> Output {
        let mut command = self.host.command(&["podman", "--runtime", "runc"]);
        command.env("CONTAINERS_CONF", self.host.disk("containers.conf"));
        command.arg("--root").arg(self.host.disk("podman"));
        command.args(["--runroot", "/run/podman", "--tmpdir", "/run/libpod"]);
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command.output().expect("podman")
    }

    pub(super) fn podman(&self, arguments: &[&str]) -> String {
        text_of(arguments, &self.try_podman(arguments))
    }

    /// Runs `podman run` with options and a program.
    pub(super) fn try_run(&self, options: &[&str], program: &[&str]) -> Output {
        let (group, root) = (self.host.cgroup(), self.root.display().to_string());
        let usual = [
            "run",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--cap-add",
            "NET_RAW",
            "--cgroup-parent",
            &group,
        ];
        self.try_podman(&[&usual, options, &["--rootfs", &root], program].concat())
    }

    /// Starts a container that stays.
    pub(super) fn run(&self, name: &str, options: &[&str]) {
        let options = [&["-d", "--name", name], options].concat();
        text_of(&options, &self.try_run(&options, &["httpd", "-f", "-p", "80", "-h", "/"]));
    }

    /// The IPv4 address that a container has on an interface, as the kernel says.
    pub(super) fn address(&self, name: &str, interface: &str) -> String {
        let line = self.podman(&["exec", name, "ip", "-4", "-o", "addr", "show", interface]);
        let address = line.split_whitespace().nth(3).and_then(|it| it.split('/').next());
        address.unwrap_or_else(|| panic!("no address on {interface} of {name}: {line}")).to_owned()
    }

    fn id(&self, name: &str) -> String {
        self.podman(&["inspect", "--format", "{{.Id}}", name])
    }

    pub(super) fn assert_reaches(&self, name: &str, address: &str) {
        self.podman(&["exec", name, "ping", "-c1", "-W5", address]);
    }

    pub(super) fn remove_all(&self) {
        self.podman(&["rm", "-a", "-f", "-t", "0"]);
    }
}

#[test]
fn containers_on_a_bridge_have_an_address_each_and_leave_none_behind() {
    let podman = Podman::start(Options::default());
    podman.bridge("br", "10.80.0.0/24");
    podman.run("a", &["--network", "br", "-p", "8080:80"]);
    podman.run("b", &["--network", "br", "--ip", "10.80.0.77"]);
    podman.run("c", &["--network", "br"]);
    let addresses = ["a", "b", "c"].map(|name| podman.address(name, "eth0"));
    // A bridge with a gateway has the first address; a requested address moves the walk, as in
    // host-local.
    assert_eq!(addresses, ["10.80.0.2", "10.80.0.77", "10.80.0.78"]);
    assert_eq!(held(&podman.host), addresses);
    let row = &podman.host.daemon.allocations()[0];
    assert_eq!(row["containerId"], podman.id("a"), "{row}");
    assert_eq!((&row["pod"], &row["ifname"]), (&json!("a"), &json!("eth0")), "{row}");
    podman.assert_reaches("a", "10.80.0.77");
    podman.assert_reaches("c", "10.80.0.1");
    // The port of the host leads to the container.
    let page = ["busybox", "wget", "-q", "-O-", "http://10.80.0.1:8080/index.html"];
    assert_eq!(podman.host.run(&page), "served");

    let taken = podman.try_run(&["--name", "d", "--network", "br", "--ip", "10.80.0.77"], &["ip"]);
    let said = String::from_utf8_lossy(&taken.stderr);
    assert!(!taken.status.success(), "an address that is held was given out again");
    assert!(said.contains("requested IP address 10.80.0.77 is not available"), "{said}");
    assert_eq!(held(&podman.host), addresses, "a refused container holds something");

    podman.podman(&["stop", "-t", "0", "b"]);
    assert_eq!(held(&podman.host), ["10.80.0.2", "10.80.0.78"]);
    podman.podman(&["start", "b"]);
    assert_eq!(podman.address("b", "eth0"), "10.80.0.77");
    // A DEL, and an ADD that asks for the address it had.
    podman.podman(&["network", "reload", "c"]);
    assert_eq!(podman.address("c", "eth0"), "10.80.0.78");
    assert_eq!(held(&podman.host), addresses);
    podman.remove_all();
    assert_nothing_left(&podman.host);
}

/// The file to copy that docs/runtimes.md names.
#[test]
fn the_documented_network_works() {
    let podman = Podman::start(Options::default());
    let text = include_str!("../../../deploy/examples/runtimes/podman.conflist");
    let mut network: Value = serde_json::from_str(text).expect("JSON");
    podman.host.daemon.adopt(&mut network["plugins"][0]);
    podman.network(&network);
    podman.run("a", &["--network", "pods", "-p", "8080:80"]);
    assert_eq!(podman.address("a", "eth0"), "10.10.0.2");
    assert_eq!(held(&podman.host), ["10.10.0.2"]);
    podman.remove_all();
    assert_nothing_left(&podman.host);
}

#[test]
fn containers_on_macvlan_and_a_bridge_have_an_address_of_each() {
    let podman = Podman::start(Options::default());
    podman.bridge("br", "10.80.0.0/24");
    let mut macvlan = json!({
        "type": "macvlan", "master": "wire0", "mode": "bridge",
        "ipam": {"subnet": "10.81.0.0/24", "rangeStart": "10.81.0.100"},
    });
    podman.host.daemon.adopt(&mut macvlan);
    podman.network(&json!({"cniVersion": "0.4.0", "name": "wire", "plugins": [macvlan]}));
    podman.run("a", &["--network", "wire"]);
    podman.run("b", &["--network", "wire", "--ip", "10.81.0.200"]);
    podman.run("c", &["--network", "wire", "--network", "br"]);
    assert_eq!(podman.address("a", "eth0"), "10.81.0.100");
    assert_eq!(podman.address("b", "eth0"), "10.81.0.200");
    podman.assert_reaches("a", "10.81.0.200");
    podman.assert_reaches("b", "10.81.0.100");
    let both = [podman.address("c", "eth0"), podman.address("c", "eth1")];
    let c = podman.id("c");
    let rows = podman.host.daemon.allocations();
    let of_c = rows.iter().filter(|row| row["containerId"] == *c);
    let mut given: Vec<String> = of_c.map(super::address_of).collect();
    given.sort();
    assert_eq!(given, ["10.80.0.2", "10.81.0.201"]);
    assert!(both.iter().all(|address| given.contains(address)), "{both:?}");
    podman.podman(&["stop", "-t", "0", "c"]);
    assert_eq!(held(&podman.host), ["10.81.0.100", "10.81.0.200"]);
    podman.remove_all();
    assert_nothing_left(&podman.host);
}

#[test]
fn twenty_containers_come_and_go_at_once() {
    let podman = Podman::start(Options::default());
    podman.bridge("br", "10.80.0.0/24");
    let names: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
    let at_once = |work: &(dyn Fn(&str) + Sync)| {
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(move || work(name));
            }
        });
    };
    at_once(&|name| podman.run(name, &["--network", "br"]));
    let addresses: Vec<String> = names.iter().map(|name| podman.address(name, "eth0")).collect();
    assert_unique(&addresses);
    let mut sorted = addresses;
    sorted.sort();
    assert_eq!(held(&podman.host), sorted);
    at_once(&|name| {
        let removed = podman.try_podman(&["rm", "-f", "-t", "0", name]);
        // podman only logs a network that it could not take down.
        assert!(removed.status.success() && removed.stderr.is_empty(), "{removed:?}");
    });
    assert_nothing_left(&podman.host);
}

#[test]
fn a_reboot_ends_what_containers_held_and_they_start_again() {
    let mut podman = Podman::start(Options { cooldown: "1h", ..Options::default() });
    podman.bridge("br", "10.80.0.0/24");
    for name in ["a", "b", "c"] {
        podman.run(name, &["--network", "br"]);
    }
    let a = podman.id("a");
    assert_eq!(held(&podman.host), ["10.80.0.2", "10.80.0.3", "10.80.0.4"]);
    podman.host.reboot();
    assert_nothing_left(&podman.host);
    // podman sends no DEL for the earlier boot, and an ADD of the same id. The first start works.
    podman.podman(&["start", "a"]);
    assert_eq!(podman.id("a"), a);
    assert_eq!(podman.address("a", "eth0"), "10.80.0.5", "the others are cooling");
    assert_eq!(held(&podman.host), ["10.80.0.5"]);
    podman.podman(&["rm", "b"]);
    podman.remove_all();
    assert_nothing_left(&podman.host);
}

/// A container that ends by itself, and one that never starts, leave nothing.
#[test]
fn containers_that_end_or_fail_leave_nothing() {
    let podman = Podman::start(Options::default());
    podman.bridge("br", "10.80.0.0/24");
    let options = ["--rm", "--network", "br"];
    let text = podman.try_run(&options, &["ip", "-4", "-o", "addr", "show", "eth0"]);
    let text = text_of(&options, &text);
    assert!(text.contains("10.80.0.2/24"), "{text}");
    assert_nothing_left(&podman.host);
    let failed = podman.try_run(&options, &["/no/such/program"]);
    assert!(!failed.status.success(), "{failed:?}");
    // A port that is taken: the start fails, and its network is taken down.
    podman.run("a", &["--network", "br", "-p", "8080:80"]);
    let failed = podman.try_run(&["--rm", "--network", "br", "-p", "8080:80"], &["ip", "addr"]);
    assert!(!failed.status.success(), "a port of the host was given twice");
    assert_eq!(held(&podman.host), [podman.address("a", "eth0")]);
    podman.remove_all();
    assert_nothing_left(&podman.host);
}
