//! A node that is itself a container: it is started anew, with all that ran in it gone, and the
//! kernel's boot id is the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::config;
use crate::common::{Call, Client, LEASEHOLD, has_begun, poll};

/// The time within which a daemon must start or end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A container that is a node: its PID 1 is a shell, which starts the daemon again when it ends.
struct Node {
    dir: TempDir,
    args: Vec<String>,
    init: Option<Child>,
}

impl Node {
    fn new(args: &[&str]) -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        Self { dir, args: args.iter().map(|arg| (*arg).to_owned()).collect(), init: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it. `script` is what its PID 1 does with the command of the daemon.
    fn boot(&mut self, script: &str) {
        let log = fs::File::options().create(true).append(true).open(self.path("log"));
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script, "init"])
            .args([LEASEHOLD, "serve", "--config", "/dev/null", "--listen", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--socket")
            .arg(self.path("run/s.sock"))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log"));
        self.init = Some(command.spawn().expect("unshare, of Debian's package util-linux"));
    }

    fn serves(&self) -> bool {
        let reply = Client::new(self.path("run/s.sock")).try_request("GET", "/v1/status", "");
        reply.is_ok_and(|reply| has_begun(&reply.body))
    }

    fn boot_and_wait(&mut self) {
        self.boot("while :; do \"$@\"; done");
        assert!(poll(PATIENCE, || self.serves()), "{}", self.log());
    }

    /// Kills its PID 1, and everything ends with that.
    fn stop(&mut self) {
        if let Some(mut init) = self.init.take() {
            let _ = init.kill();
            let _ = init.wait();
            assert!(poll(PATIENCE, || !self.serves()), "it ends");
        }
    }

    /// Kills the daemon alone, and waits for the next one.
    fn restart_daemon(&self) {
        let state = self.path("state").display().to_string();
        let of_daemon = |pid: &i32| {
            let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.starts_with(LEASEHOLD) && text.contains(&state)
        };
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let pid = processes
            .filter_map(|process| process.file_name().to_str()?.parse().ok())
            .find(of_daemon)
            .expect("the daemon");
        kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).expect("SIGKILL");
        let next = poll(PATIENCE, || !of_daemon(&pid) && self.serves());
        assert!(next, "{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn add(&self, container: &str, netns: &Path) {
        let mut call = Call::new("ADD", container, &config("net", &["10.51.0.0/24"]));
        call.netns = netns.display().to_string();
        let added = Client::new(self.path("run/s.sock")).call(&call);
        assert!(added.succeeded(), "{added:?}");
    }

    fn attachments(&self) -> Value {
        Client::new(self.path("run/s.sock")).get("/v1/status")["attachments"].clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut init) = self.init.take() {
            let _ = init.kill();
            let _ = init.wait();
        }
    }
}

#[test]
fn a_new_pid_1_is_a_new_boot_if_the_operator_says_so() {
    let mut node = Node::new(&["--boot-from", "init", "--sweep", "0s"]);
    node.boot_and_wait();
    node.add("a", Path::new("/run/netns/none"));
    node.restart_daemon();
    assert_eq!(node.attachments(), 1, "a restart of the daemon is no boot");
    node.stop();
    node.boot_and_wait();
    assert_eq!(node.attachments(), 0, "{}", node.log());
    node.add("b", Path::new("/run/netns/none"));
    node.restart_daemon();
    assert_eq!(node.attachments(), 1);
    // The option is taken back: what is held in this boot stays held.
    node.stop();
    node.args.drain(..2);
    node.boot_and_wait();
    assert_eq!(node.attachments(), 1, "{}", node.log());
}

#[test]
fn without_the_option_a_new_pid_1_is_none_and_turning_it_on_is_none_either() {
    let mut node = Node::new(&["--sweep", "0s"]);
    node.boot_and_wait();
    node.add("a", Path::new("/run/netns/none"));
    node.stop();
    node.boot_and_wait();
    assert_eq!(node.attachments(), 1, "{}", node.log());
    node.stop();
    node.args.extend(["--boot-from".to_owned(), "init".to_owned()]);
    node.boot_and_wait();
    assert_eq!(node.attachments(), 1, "{}", node.log());
    node.stop();
    node.boot_and_wait();
    assert_eq!(node.attachments(), 0, "{}", node.log());
}

/// Nothing is released on that evidence alone, but the operator is told what it may mean, until the
/// daemon starts again under the same PID 1.
#[test]
fn another_pid_1_in_the_same_boot_is_told() {
    let mut node = Node::new(&["--sweep", "0s"]);
    let hints = |node: &Node| {
        let status = Client::new(node.path("run/s.sock")).get("/v1/status");
        let warnings = status["warnings"].as_array().expect("warnings").clone();
        warnings.iter().filter(|said| said.to_string().contains("PID 1 is another")).count()
    };
    node.boot_and_wait();
    node.add("a", Path::new("/run/netns/none"));
    assert_eq!((hints(&node), node.log().matches("PID 1 is another").count()), (0, 0));
    node.restart_daemon();
    assert_eq!(hints(&node), 0, "it is the same");
    node.stop();
    node.boot_and_wait();
    assert_eq!((hints(&node), node.attachments()), (1, Value::from(1)), "{}", node.log());
    assert_eq!(node.log().matches("PID 1 is another").count(), 1, "{}", node.log());
    node.restart_daemon();
    assert_eq!(hints(&node), 0, "it is the same again");
    // With the option it is a boot, and there is nothing to tell.
    node.stop();
    node.args.extend(["--boot-from".to_owned(), "init".to_owned()]);
    node.boot_and_wait();
    assert_eq!(hints(&node), 0, "{}", node.log());
}

/// A namespace that is still there is a container that outlived PID 1: the daemon is in a pod of
/// its own, say.
#[test]
fn a_container_that_outlives_pid_1_keeps_its_address() {
    let mut node = Node::new(&["--boot-from", "init"]);
    let place = PathBuf::from(format!("/run/leasehold-it-init-{}", std::process::id()));
    fs::write(&place, "").expect("a file");
    let made =
        Command::new("unshare").arg(format!("--net={}", place.display())).arg("true").status();
    assert!(made.is_ok_and(|made| made.success()), "unshare");
    node.boot_and_wait();
    node.add("a", &place);
    node.stop();
    node.boot("\"$@\" & wait");
    let refused = poll(PATIENCE, || node.log().contains("container a"));
    assert!(refused, "{}", node.log());
    assert!(node.log().contains("--boot-from kernel"), "{}", node.log());
    node.stop();
    node.args.clear();
    node.boot_and_wait();
    assert_eq!(node.attachments(), 1, "{}", node.log());
    node.stop();
    let _ = unmount(&place, UnmountFlags::DETACH);
    let _ = fs::remove_file(&place);
}

#[test]
fn a_daemon_that_is_pid_1_itself_refuses_the_option() {
    let mut node = Node::new(&["--boot-from", "init"]);
    node.boot("exec \"$@\"");
    let refused = poll(PATIENCE, || node.log().contains("this daemon is PID 1 itself"));
    assert!(refused, "{}", node.log());
}
