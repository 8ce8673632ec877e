//! Goal: no address leaks for ever, and no address in use is taken for a leak. `leasehold check`
//! finds the leaks, and `leasehold gc` and the sweep release them and nothing else.
//!
//! Method: real daemons, real network namespaces (`ip netns`, processes, bind mounts), a real
//! etcd, in which keys are changed by hand.

mod cluster;
mod gc;
mod namespaces;
mod places;
mod store;
mod sweep;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Call, Daemon, LEASEHOLD, Outcome, feed};

/// The time within which another process must notice a change.
const PATIENCE: Duration = Duration::from_secs(20);

/// Names of namespaces are the machine's; tests run in parallel.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name. It goes when this is dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lh-leak-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        Self { name }
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Deletes the namespace, and makes another one of the same name.
    fn replace(&self) {
        ip(&["netns", "del", &self.name]);
        // The kernel reuses the numbers of namespaces at once: this one takes the old one's.
        let _other = Self::new();
        ip(&["netns", "add", &self.name]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("Debian's package iproute2");
    assert!(status.success(), "ip {args:?}: {status}");
}

/// A directory for namespaces, such as a runtime has.
struct Place {
    dir: TempDir,
    mounted: Vec<PathBuf>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix_in("leasehold-it-", "/run").expect("a directory in /run");
        Self { dir, mounted: Vec::new() }
    }

    /// A namespace in it that no process and no name keeps.
    fn add(&mut self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, "").expect("a place for a mount");
        mount_bind(Namespace::new().path(), &path).expect("a bind mount");
        self.mounted.push(path.clone());
        path
    }

    /// Removes a mount; the file stays.
    fn unmount(&mut self, path: &Path) {
        unmount(path, UnmountFlags::DETACH).expect("the end of a bind mount");
        self.mounted.retain(|mounted| mounted != path);
    }

    /// Removes a namespace.
    fn remove(&mut self, path: &Path) {
        self.unmount(path);
        fs::remove_file(path).expect("the end of a namespace's file");
    }
}

impl Place {
    /// Makes another directory by this name, which is empty, as a daemon in a container has it.
    fn replace(&self) {
        fs::remove_dir(self.dir.path()).expect("an empty directory");
        fs::create_dir(self.dir.path()).expect("a directory");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in &self.mounted {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}

/// A process in a network namespace of its own, like a container of Docker's. It ends with this
/// value.
struct Process(Child);

impl Process {
    /// `script` is for `sh`; it must end in an `exec`.
    fn new(script: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        Self(child.expect("Debian's package util-linux"))
    }

    fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }

    /// Waits until its namespace is not `than`.
    fn await_other(&self, than: &Path) -> PathBuf {
        let there = |path: &Path| fs::read_link(path).expect("a namespace");
        let before = there(than);
        let other = super::common::poll(PATIENCE, || there(&self.netns()) != before);
        assert!(other, "the process has no namespace of its own");
        there(&self.netns())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(network: &str) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": network,
        "ipam": { "type": "my-ipam", "ranges": [[{ "subnet": "10.60.0.0/22" }]] },
    })
}

pub(crate) fn add_in(daemon: &Daemon, container: &str, netns: &Path, config: &Value) -> Outcome {
    let mut call = Call::new("ADD", container, config);
    call.netns = netns.to_str().expect("a path in UTF-8").to_owned();
    daemon.client().call(&call)
}

/// The same through the plugin, whose process sends its start time: a repeated ADD counts as new.
fn add_again(daemon: &Daemon, container: &str, netns: &Path, config: &Value) -> Outcome {
    let mut call = Call::new("ADD", container, config);
    call.netns = netns.to_str().expect("a path in UTF-8").to_owned();
    daemon.plugin(&call)
}

/// The address of an ADD that must succeed.
fn added(outcome: &Outcome) -> String {
    let net = outcome.expect_result()["ips"][0]["address"].as_str().expect("an address");
    net.split('/').next().expect("an address").to_owned()
}

/// Runs a command with this standard input. Returns its exit status and its output.
fn leasehold(daemon: &Daemon, args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(LEASEHOLD);
    command.args(args).env("LEASEHOLD_SOCKET", daemon.socket());
    let output = feed(command, stdin);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("an exit status");
    (code, text(&output.stdout), text(&output.stderr))
}

fn ends(daemon: &Daemon, args: &[&str], code: i32) -> String {
    let (ended, stdout, stderr) = leasehold(daemon, args, "");
    assert_eq!(ended, code, "{args:?}: {stdout}{stderr}\n{}", daemon.log_tail());
    stdout
}

fn ends_json(daemon: &Daemon, args: &[&str], code: i32) -> Value {
    let stdout = ends(daemon, &[args, &["-o", "json"]].concat(), code);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"))
}

/// The findings of a check; the exit status must be 1 with findings, and 0 without.
fn findings(daemon: &Daemon) -> Vec<Value> {
    let (code, stdout, stderr) = leasehold(daemon, &["check", "-o", "json"], "");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    assert_eq!(code, i32::from(report["clean"] != true), "{report:#}");
    assert_eq!(report["leftOff"], 0);
    report["findings"].as_array().expect("findings").clone()
}

/// The kinds of findings, and the first address of each.
fn kinds(findings: &[Value]) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value| -> &'static str {
        // Tests are short, so the text may stay in memory.
        Box::leak(value.as_str().unwrap_or_default().to_owned().into_boxed_str())
    };
    findings.iter().map(|found| (text(&found["kind"]), text(&found["addresses"][0]))).collect()
}

/// The containers that hold an address.
fn holders(daemon: &Daemon) -> Vec<String> {
    let container = |row: &Value| row["containerId"].as_str().expect("a container").to_owned();
    let mut holders: Vec<String> = daemon.allocations().iter().map(container).collect();
    holders.sort();
    holders
}

/// A figure of the daemon's metrics; 0 if there is none.
fn metric(daemon: &Daemon, series: &str) -> f64 {
    let text = daemon.client().request("GET", "/metrics", "").body;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_default()
}
