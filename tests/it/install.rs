//! The path that docs/install.md describes, as it is written: the unit of `deploy` with its
//! configuration file, each node in a root directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::etcd::{Cluster, PASSWORD};
use super::common::{Call, Client, LEASEHOLD, copy_program, poll};

const UNIT: &str = include_str!("../../deploy/leasehold.service");
const INSTALL: &str = include_str!("../../docs/install.md");
/// The time within which a node must serve and know of the other one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The only value of a key of the unit.
fn of_unit(key: &str) -> &'static str {
    let mut values = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {key} in the unit"));
    assert_eq!(values.next(), None, "a second {key} in the unit");
    value
}

/// the page's configuration file.
fn file_of_page() -> &'static str {
    let file = INSTALL.split("```toml\n# /etc/leasehold.toml\n").nth(1).expect("the file");
    file.split("```").next().expect("its end")
}

/// A machine with nothing but what the page has one install: the programs are static.
struct Machine {
    root: TempDir,
    child: Option<Child>,
}

impl Machine {
    fn new() -> Self {
        let root = TempDir::with_prefix("leasehold-root-").expect("a root directory");
        let machine = Self { root, child: None };
        for dir in ["proc", "dev", "etc/leasehold", "usr/local/bin", "var/lib", "run"] {
            fs::create_dir_all(machine.path(dir)).expect("a directory");
        }
        // systemd makes these.
        fs::create_dir(machine.path("var/lib").join(of_unit("StateDirectory"))).expect("state");
        fs::create_dir(machine.path("run").join(of_unit("RuntimeDirectory"))).expect("runtime");
        let program = machine.path(of_unit("ExecStart").split(' ').next().expect("a program"));
        copy_program(Path::new(LEASEHOLD), &program);
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(path), private).expect("its mode");
    }

    /// Runs exactly what the unit says, in this root.
    fn start(&mut self) {
        let log = fs::File::create(self.path("log")).expect("a log");
        let root = self.root.path().display();
        let script = format!(
            "mount --rbind /proc {root}/proc && mount --rbind /dev {root}/dev && \
             exec chroot {root} {}",
            of_unit("ExecStart")
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("unshare runs"));
        let mut client = self.client();
        let ready = || client.try_request("GET", "/readyz", "").is_ok_and(|r| r.status == 200);
        assert!(poll(PATIENCE, ready), "not ready: {}", self.log());
    }

    fn client(&self) -> Client {
        Client::new(self.path("run/leasehold/leasehold.sock"))
    }

    fn get(&self, path: &str) -> String {
        let reply = self.client().request("GET", path, "");
        assert_eq!(reply.status, 200, "{path}");
        reply.body
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/v1/status")).expect("JSON")
    }

    /// Returns the text that the command prints for a person.
    fn leasehold(&self, args: &[&str]) -> String {
        let mut command = Command::new(LEASEHOLD);
        command.args(args).env("LEASEHOLD_SOCKET", self.path("run/leasehold/leasehold.sock"));
        let output = command.output().expect("leasehold runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn add(&self, container: &str) -> String {
        let config = json!({ "cniVersion": "1.0.0", "name": "pods",
            "ipam": { "type": "my-ipam", "subnet": "10.9.0.0/24" } });
        let outcome = self.client().call(&Call::new("ADD", container, &config));
        outcome.expect_result()["ips"][0]["address"].as_str().expect("an address").to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Puts the page's file on a machine, with the cluster's own endpoints, and this node's name.
fn configure(machine: &Machine, node: &str, etcd: &Cluster) {
    let mut text = "listen = \"127.0.0.1:0\"\n".to_owned();
    for line in file_of_page().lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        let line = match key {
            "node" => format!("node = \"{node}\""),
            "endpoints" => format!("endpoints = [\"{}\"]", etcd.endpoint(0)),
            "serverName" => "serverName = \"etcd.example\"".to_owned(),
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    machine.write("/etc/leasehold.toml", &text);
    let copy = |from: &str, key: &str| {
        let to = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        let to = to.unwrap_or_else(|| panic!("no {key} in the page's file")).trim_matches('"');
        machine.write(to, fs::read(Path::new(from)).expect("a certificate"));
    };
    let file = |name: &str| etcd.path(name).display().to_string();
    copy(&file("ca.pem"), "caFile");
    copy(&file("client.pem"), "certFile");
    copy(&file("client.key"), "keyFile");
    copy(&etcd.password_file(PASSWORD).display().to_string(), "passwordFile");
}

#[test]
fn unit_and_file_as_written_make_one_cluster() {
    let mut etcd = Cluster::start_tls();
    etcd.authenticate(&[("leasehold", "/leasehold/v1")]);
    let mut machines = [Machine::new(), Machine::new()];
    for (machine, node) in machines.iter_mut().zip(["node-a", "node-b"]) {
        configure(machine, node, &etcd);
        machine.start();
    }
    for machine in &machines {
        let knows = || {
            let status = machine.status();
            status["cluster"]["state"] == "member" && status["cluster"]["alone"] == false
        };
        assert!(poll(PATIENCE, knows), "{}\n{}", machine.status(), machine.log());
        assert_eq!(machine.status()["about"]["config"], "/etc/leasehold.toml");
        let nodes = machine.leasehold(&["node", "list"]);
        assert!(nodes.contains("node-a") && nodes.contains("node-b"), "{nodes}");
        assert!(machine.get("/metrics").contains("\nleasehold_alone 0\n"));
        let shown = machine.leasehold(&["status"]);
        assert!(shown.contains("\ncluster      member, lease"), "{shown}");
    }
    let mut addresses: Vec<String> =
        (0..20).map(|n| machines[n % 2].add(&format!("c{n}"))).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
}

#[test]
fn a_node_without_etcd_says_that_it_is_alone() {
    let mut machine = Machine::new();
    machine.write("/etc/leasehold.toml", "listen = \"127.0.0.1:0\"\n");
    machine.start();
    let alone = "alone: no etcd is configured";
    let shown = machine.leasehold(&["status"]);
    assert!(shown.contains(&format!("\netcd         {alone}\n")), "{shown}");
    assert!(!shown.contains("cluster"), "{shown}");
    assert_eq!(machine.status()["cluster"]["state"], "alone");
    assert!(machine.log().contains(alone), "{}", machine.log());
    assert!(machine.get("/metrics").contains("\nleasehold_alone 1\n"));
    machine.add("c1");
}

#[test]
fn a_default_file_that_is_wrong_is_not_passed_over() {
    let mut machine = Machine::new();
    machine.write("/etc/leasehold.toml", "[etcd]\nendpoint = [\"http://127.0.0.1:1\"]\n");
    let script = format!("exec chroot {} {}", machine.root.path().display(), of_unit("ExecStart"));
    let mut command = Command::new("sh");
    let output = command.args(["-c", &script]).output().expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in ["/etc/leasehold.toml", "line 2", "endpoint"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    machine.child = None;
}
