//! containerd: `ctr run --cni`, and pods of its CRI service.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cri::Cri;
use super::host::{Host, PLUGINS};
use super::{assert_nothing_left, assert_unique, held, on_a_bridge, rootfs};
use crate::common::{Call, Options, poll};

/// The programs that run here, each with its package.
const PROGRAMS: [(&str, &str); 4] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
];
/// Pods that start at once.
const MANY: usize = 12;
/// The time within which the daemon must see what is so.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine with containerd.
struct Containerd {
    host: Host,
    root: PathBuf,
    process: Option<Child>,
}

impl Containerd {
    /// Starts containerd on a machine with one network.
    fn start(cooldown: &'static str, config: impl FnOnce(&Host) -> Value) -> Self {
        let host = Host::start(&PROGRAMS, Options { cooldown, ..Options::default() });
        Self::start_on(host, config)
    }

    fn start_on(host: Host, config: impl FnOnce(&Host) -> Value) -> Self {
        let root = rootfs::make(&host);
        let image = rootfs::image(&host, &root);
        let config = config(&host);
        let mut containerd = Self { host, root, process: None };
        containerd.network(&config);
        containerd.configure();
        containerd.launch();
        let image = image.display().to_string();
        containerd.ctr(&["--namespace", "k8s.io", "images", "import", &image]);
        containerd
    }

    fn network(&self, config: &Value) {
        fs::write(self.host.disk("networks/net.conflist"), config.to_string()).expect("a file");
    }

    fn socket(&self) -> PathBuf {
        self.host.disk("containerd.sock")
    }

    fn configure(&self) {
        let config = format!(
            r#"
version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"#,
            root = self.host.disk("containerd").display(),
            socket = self.socket().display(),
            image = rootfs::IMAGE,
            networks = self.host.disk("networks").display(),
        );
        fs::write(self.host.disk("containerd.toml"), config).expect("a file");
    }

    /// Starts containerd and waits until its CRI service answers.
    fn launch(&mut self) -> Cri {
        // Debian's firewall plugin fails when two of it make the same chain at once.
        let chains = "for tables in iptables ip6tables; do for chain in CNI-FORWARD CNI-ADMIN; do \
                      $tables -w -N $chain; done; done";
        self.host.run(&["sh", "-c", &format!("{chains} || true")]);
        let log = File::options().create(true).append(true).open(self.host.disk("containerd.log"));
        let script = "echo $$ > /run/containerd.pid; exec containerd --config \"$0\"";
        let config = self.host.disk("containerd.toml").display().to_string();
        let mut command = self.host.service(&["sh", "-c", script, &config]);
        let process = command.stderr(log.expect("a log")).spawn().expect("containerd");
        self.reap();
        self.process = Some(process);
        Cri::connect(&self.socket())
    }

    /// Kills containerd on the spot. Its containers go on running.
    fn kill9(&mut self) {
        self.host.run(&["sh", "-c", "kill -9 $(cat /run/containerd.pid)"]);
        self.reap();
    }

    fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        let socket = self.socket().display().to_string();
        self.host.run(&[&["ctr", "--address", &socket], arguments].concat())
    }

    fn cri(&self) -> Cri {
        Cri::connect(&self.socket())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.reap();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.host.disk("containerd.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(20)..];
            eprintln!("the end of containerd's log:\n{}", tail.join("\n"));
        }
    }
}

/// A network of both families.
fn both_families(host: &Host) -> Value {
    let mut config = on_a_bridge(&host.daemon, "pods", "10.82.0.0/24");
    config["cniVersion"] = "1.0.0".into();
    let ipam = &mut config["plugins"][0]["ipam"];
    ipam["ranges"] = json!([[{"subnet": "10.82.0.0/24"}], [{"subnet": "fd00:82::/64"}]]);
    ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    config
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("web-{number}")).collect()
}

#[test]
fn ctr_gives_a_container_its_address_and_takes_it_back() {
    let containerd =
        Containerd::start("0s", |host| on_a_bridge(&host.daemon, "ctr", "10.82.0.0/24"));
    let file = containerd.host.disk("networks/net.conflist").display().to_string();
    containerd.host.run(&["cp", &file, "/etc/cni/net.d/"]);
    let (root, group) = (containerd.root.display().to_string(), containerd.host.cgroup());
    for (name, address) in [("first", "10.82.0.2/24"), ("second", "10.82.0.3/24")] {
        let group = format!("{group}/{name}");
        let options = ["run", "--rm", "--cni", "--cgroup", &group, "--rootfs", &root, name];
        let program = ["/bin/ip", "-4", "-o", "addr", "show", "eth0"];
        let text = containerd.ctr(&[options.as_slice(), &program].concat());
        assert!(text.contains(address), "{text}");
        assert_nothing_left(&containerd.host);
    }
    let options = ["run", "-d", "--cni", "--cgroup", &group, "--rootfs", &root, "stays"];
    containerd.ctr(&[options.as_slice(), &["/bin/sleep", "1000000"]].concat());
    let rows = containerd.host.daemon.allocations();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["containerId"], "default-stays", "{rows:?}");
}

#[test]
fn pods_have_addresses_of_their_own_and_leave_none_behind() {
    let mut containerd = Containerd::start("0s", both_families);
    let cri = containerd.cri();
    let (group, names) = (containerd.host.cgroup(), names(MANY));
    let pods = cri.run(&group, &names).expect("pods");
    let rows = containerd.host.daemon.allocations();
    assert_eq!(rows.len(), 2 * MANY, "{rows:?}");
    for (name, pod) in names.iter().zip(&pods) {
        let of_pod: Vec<_> = rows.iter().filter(|row| row["containerId"] == **pod).collect();
        let mut given: Vec<String> = of_pod.iter().map(|row| super::address_of(row)).collect();
        let mut told = cri.addresses(pod);
        given.sort();
        told.sort();
        assert_eq!(told, given, "{name}");
        assert_eq!(told.len(), 2, "{name}: {told:?}");
        for row in of_pod {
            assert_eq!((&row["pod"], &row["namespace"]), (&json!(name), &json!("work")), "{row}");
        }
    }
    assert_unique(&held(&containerd.host));

    let (gone, stay) = pods.split_at(MANY / 2);
    cri.stop(gone).expect("an end");
    assert_eq!(held(&containerd.host).len(), 2 * stay.len());
    // kubelet repeats itself; and containerd may die meanwhile.
    cri.stop(gone).expect("an end again");
    containerd.kill9();
    let cri = containerd.launch();
    assert_eq!(cri.list().len(), MANY);
    cri.stop(stay).expect("an end");
    cri.remove(&pods).expect("a removal");
    assert_nothing_left(&containerd.host);
}

#[test]
fn pods_end_whatever_became_of_their_configuration() {
    let containerd = Containerd::start("0s", both_families);
    let (cri, group) = (containerd.cri(), containerd.host.cgroup());
    let pods = cri.run(&group, &names(2)).expect("pods");
    assert_eq!(held(&containerd.host).len(), 4);
    // containerd makes a DEL with the file as it is now.
    let mut config = both_families(&containerd.host);
    config["plugins"][0]["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/33"}]]);
    containerd.network(&config);
    let refused = poll_until_refused(&cri, &group);
    assert!(refused.contains("invalid CIDR address: 10.99.0.0/33"), "{refused}");
    cri.stop(&pods).expect("an end in spite of the configuration");
    assert_nothing_left(&containerd.host);
    cri.remove(&cri.list()).expect("a removal");
}

/// containerd notices changes of its files with a delay: starts pods until one is refused. Returns
/// the refusal.
fn poll_until_refused(cri: &Cri, group: &str) -> String {
    let mut said = None;
    poll(Duration::from_secs(20), || {
        match cri.run(group, &["probe".to_owned()]) {
            Ok(pods) => {
                cri.stop(&pods).expect("an end");
                cri.remove(&pods).expect("a removal");
            }
            Err(status) => said = Some(status.message().to_owned()),
        }
        said.is_some()
    });
    said.expect("a refusal of the new configuration")
}

/// After a reboot containerd ends its old pods with a DEL without a namespace.
#[test]
fn pods_of_an_earlier_boot_hold_nothing_and_can_be_ended() {
    let mut containerd = Containerd::start("1h", both_families);
    let group = containerd.host.cgroup();
    let old = containerd.cri().run(&group, &names(2)).expect("pods");
    assert_eq!(held(&containerd.host).len(), 4);
    containerd.host.reboot();
    let cri = containerd.launch();
    assert_nothing_left(&containerd.host);
    let new = cri.run(&group, &["new".to_owned()]).expect("a pod");
    let addresses = cri.addresses(&new[0]);
    assert_eq!(addresses, ["10.82.0.4", "fd00:82::4"], "the others are cooling");
    cri.stop(&old).expect("an end of what ended with its boot");
    cri.remove(&old).expect("a removal");
    assert_eq!(held(&containerd.host), addresses);
    cri.stop(&new).expect("an end");
    cri.remove(&new).expect("a removal");
    assert_nothing_left(&containerd.host);
}

/// Containers that are gone without a DEL, as the sweep finds them by asking the runtime: no look
/// at namespaces would.
#[test]
fn pods_that_the_runtime_does_not_know_are_released() {
    let place = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let socket = place.path().join("runtime.sock");
    let cri = format!("unix://{}", socket.display());
    let args = ["--sweep", "1s", "--sweep-grace", "1h", "--cri", &cri, "--cri-grace", "3s"];
    let args = args.map(str::to_owned).to_vec();
    let host = Host::start(&PROGRAMS, Options { args, ..Options::default() });
    let warnings = |host: &Host| host.daemon.client().get("/v1/status")["warnings"].to_string();
    let warned = |host: &Host, of: &str| poll(PATIENCE, || warnings(host).contains(of));
    assert!(warned(&host, "the container runtime cannot be asked"), "{}", warnings(&host));
    let pods = |host: &Host| on_a_bridge(&host.daemon, "pods", "10.82.0.0/24");
    let mut config = pods(&host)["plugins"][0].clone();
    config["name"] = "pods".into();
    config["cniVersion"] = "0.4.0".into();
    let (lost, pod_args) = ("f".repeat(64), "K8S_POD_NAMESPACE=work;K8S_POD_NAME=lost");
    for (container, args) in [(&*lost, pod_args), ("no-pod", "")] {
        let add = Call { args: args.to_owned(), ..Call::new("ADD", container, &config) };
        host.daemon.plugin(&add).expect_result();
    }
    let containerd = Containerd::start_on(host, pods);
    let host = &containerd.host;
    symlink(containerd.socket(), &socket).expect("a link");
    // A runtime that knows no pod of ours may be another one.
    assert!(warned(host, "may be another runtime than theirs"), "{}", warnings(host));
    assert_eq!(held(host).len(), 2);
    let cri = containerd.cri();
    let pod = cri.run(&host.cgroup(), &names(1)).expect("a pod");
    let left = || -> BTreeSet<String> {
        let rows = host.daemon.allocations();
        rows.iter().map(|row| row["containerId"].as_str().unwrap_or_default().to_owned()).collect()
    };
    // The pod that runs stays, and so does the container that is no pod.
    let stay = BTreeSet::from([pod[0].clone(), "no-pod".to_owned()]);
    assert!(poll(PATIENCE, || left() == stay), "{:?}", left());
    assert!(!warnings(host).contains("the container runtime"), "{}", warnings(host));
    assert!(host.daemon.log().contains("the container runtime does not know its pod"));
    cri.stop(&pod).expect("an end");
    cri.remove(&pod).expect("a removal");
}
