//! The directories of network namespaces: empty ones, others of the same name, and ones that the
//! daemon has by another name.

use std::fs::{self, File};
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;

use super::sweep::{QUIET, sweeping};
use super::{Namespace, PATIENCE, Place, add_in, added, config, holders};
use crate::common::{Call, Client, LEASEHOLD, poll};

/// Nothing else is in the directory when the last container is gone, before and after a restart.
#[test]
fn the_last_container_of_a_node_is_swept() {
    let mut daemon = sweeping();
    let mut place = Place::new();
    let (first, second) = (place.add("first"), place.add("second"));
    added(&add_in(&daemon, "first", &first, &config("pods")));
    place.remove(&second);
    place.remove(&first);
    let swept = poll(PATIENCE, || holders(&daemon).is_empty());
    assert!(swept, "{:?}\n{}", holders(&daemon), daemon.log_tail());
    let last = place.add("last");
    added(&add_in(&daemon, "last", &last, &config("pods")));
    assert!(daemon.terminate().success());
    place.remove(&last);
    daemon.restart();
    let swept = poll(PATIENCE, || holders(&daemon).is_empty());
    assert!(swept, "{:?}\n{}", holders(&daemon), daemon.log_tail());
    assert!(!daemon.log().contains("nothing is swept there"), "{}", daemon.log_tail());
}

/// A daemon that has another directory by that name sees nothing, and says so everywhere.
#[test]
fn a_sweep_that_sees_nothing_releases_nothing_and_says_so() {
    let daemon = sweeping();
    let mut place = Place::new();
    let (a, b) = (place.add("a"), place.add("b"));
    added(&add_in(&daemon, "a", &a, &config("pods")));
    added(&add_in(&daemon, "b", &b, &config("pods")));
    place.remove(&a);
    place.remove(&b);
    place.replace();
    assert!(!poll(QUIET, || holders(&daemon).len() < 2), "{}", daemon.log_tail());
    let log = daemon.log();
    assert_eq!(log.matches("nothing is swept there: all 2 network").count(), 1, "{log}");
    let status = daemon.client().get("/v1/status");
    let said = status["warnings"].to_string();
    assert!(said.contains("nothing is swept there: all 2 network"), "{status:#}");
    let ready = daemon.client().request("GET", "/readyz", "");
    assert_eq!(ready.status, 200, "an ADD could be served: {ready:?}");
    assert!(ready.body.contains("warning: nothing is swept there"), "{ready:?}");
    // It sees again, so nothing is left to be said.
    let sign = place.add("sign");
    let swept = poll(PATIENCE, || holders(&daemon).is_empty());
    assert!(swept, "{:?}\n{}", holders(&daemon), daemon.log_tail());
    let silent = poll(PATIENCE, || daemon.client().get("/v1/status")["warnings"][0].is_null());
    assert!(silent, "{}", daemon.log_tail());
    place.remove(&sign);
}

/// A daemon whose `/var` is not the host's, as in a container that has `/run` alone.
struct Contained {
    dir: TempDir,
    child: Child,
}

impl Contained {
    fn start() -> Self {
        let dir = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
        let script = "mount -t tmpfs none /var && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-c", script, LEASEHOLD]);
        command.args(["serve", "--config", "/dev/null"]);
        command.args(["--listen", "127.0.0.1:0", "--sweep", "1s", "--sweep-grace", "2s"]);
        command.arg("--state-dir").arg(dir.path().join("state"));
        command.arg("--socket").arg(dir.path().join("socket"));
        let log = File::create(dir.path().join("log")).expect("a log");
        let child = command.stderr(log).spawn().expect("Debian's package util-linux");
        let contained = Self { dir, child };
        let serves = poll(Duration::from_secs(20), || contained.log().contains(" serving "));
        assert!(serves, "{}", contained.log());
        contained
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("a log")
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path().join("socket"))
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_runtime_may_say_var_run_where_the_daemon_has_run() {
    let daemon = Contained::start();
    let (gone, stays) = (Namespace::new(), Namespace::new());
    for (container, namespace) in [("gone", &gone), ("stays", &stays)] {
        let mut call = Call::new("ADD", container, &config("pods"));
        call.netns = format!("/var{}", namespace.path().display());
        assert!(daemon.client().call(&call).succeeded(), "{}", daemon.log());
    }
    let report = daemon.client().get("/v1/check");
    assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
    drop(gone);
    let held = || daemon.client().get("/v1/allocations").as_array().map_or(0, Vec::len);
    assert!(poll(PATIENCE, || held() == 1), "{}", daemon.log());
    assert!(!poll(QUIET, || held() != 1), "{}", daemon.log());
}
