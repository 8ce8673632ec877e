//! Goal: a rolling update of the DaemonSet makes no sandbox fail.
//!
//! Method: the pods of two nodes are replaced one after the other, again and again, by the steps of
//! `deploy/kubernetes/base/daemonset.yaml`: SIGTERM, the init container with its own arguments, the
//! next daemon. Meanwhile callers run the plugin that is installed, with the `ipam` of the conflist
//! that is shipped. A daemon comes only when every caller of its node waits for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{PATIENCE, address_of, await_status, nodes};
use crate::common::etcd::Cluster;
use crate::common::{Call, Daemon, LEASEHOLD, Outcome, my_ipam, poll, run};

const DAEMON_SET: &str = include_str!("../../../deploy/kubernetes/base/daemonset.yaml");
const CONFLIST: &str = include_str!("../../../deploy/kubernetes/base/10-leasehold.conflist");
/// The callers on each node: a kubelet starts so many pods at once, and more.
const CALLERS: usize = 8;
/// The pods that start before the first daemon is stopped.
const WARM: usize = 200;
/// The times that each pod is replaced.
const ROUNDS: usize = 6;

/// The arguments of the init container, for a root of the node that is this directory.
fn install(root: &Path) -> Vec<String> {
    let at = DAEMON_SET.find("- name: install-plugin").expect("the init container");
    let args = DAEMON_SET[at..].split("args: [").nth(1).expect("its arguments");
    let args = args.split(']').next().expect("their end").split(", ");
    args.map(|arg| arg.replace("/host", &root.display().to_string())).collect()
}

/// Everything that the callers of both nodes share.
#[derive(Default)]
struct Scene {
    /// The container of each address.
    held: Mutex<BTreeMap<String, String>>,
    failed: Mutex<Vec<String>>,
    added: AtomicUsize,
    ended: AtomicBool,
}

/// A node with its root directory, and the ADDs that run on it.
struct Node<'a> {
    scene: &'a Scene,
    socket: PathBuf,
    plugin: PathBuf,
    in_flight: AtomicUsize,
}

impl Node<'_> {
    fn call(&self, verb: &'static str, container: &str, config: &Value) -> Outcome {
        let call = Call::new(verb, container, config);
        let mut environment = call.environment().to_vec();
        environment.push(("LEASEHOLD_SOCKET", self.socket.to_str().expect("a path in UTF-8")));
        Outcome::of_process(&run(&self.plugin, &environment, &config.to_string()))
    }

    /// Makes pods come and go, until the updates are over. A kubelet sends every DEL twice.
    fn caller(&self, name: &str) {
        let conflist: Value = serde_json::from_str(CONFLIST).expect("the conflist");
        let version = &conflist["cniVersion"];
        let ipam = &conflist["plugins"][0]["ipam"];
        let config = json!({ "cniVersion": version, "name": conflist["name"], "ipam": ipam });
        for number in 0.. {
            if self.scene.ended.load(Ordering::SeqCst) {
                return;
            }
            let container = format!("{name}-{number}");
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            let added = self.call("ADD", &container, &config);
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            if !added.succeeded() {
                self.scene.failed.lock().expect("the list").push(format!("{container}: {added:?}"));
                continue;
            }
            self.scene.added.fetch_add(1, Ordering::SeqCst);
            let address = address_of(&added);
            let mut held = self.scene.held.lock().expect("the book");
            let other = held.insert(address.clone(), container.clone());
            assert_eq!(other, None, "{container} was given {address}, too");
            if number % 4 == 0 {
                continue;
            }
            held.remove(&address);
            drop(held);
            for _ in 0..2 {
                let ended = self.call("DEL", &container, &config);
                assert!(ended.succeeded(), "{container}: {ended:?}");
            }
        }
    }
}

#[test]
fn no_add_fails_while_the_daemon_set_is_updated() {
    let etcd = Cluster::start(1);
    let roots = [(); 2].map(|()| tempfile::tempdir().expect("a root"));
    let versions = two_versions(roots[0].path());
    let replace_plugin = |at: usize, version: usize| {
        let next = &versions[version % versions.len()];
        let mut init = Command::new(LEASEHOLD);
        let done = init.args(install(roots[at].path())).arg("--plugin").arg(next).output();
        let done = done.expect("the init container");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("installed"), "{done:?}");
        roots[at].path().join("opt/cni/bin/my-ipam")
    };
    let plugins = [replace_plugin(0, 0), replace_plugin(1, 0)];
    let mut daemons = nodes(&etcd, 2, &[]);
    let scene = Scene::default();
    let on = |at: usize, daemon: &Daemon| Node {
        scene: &scene,
        socket: daemon.socket(),
        plugin: plugins[at].clone(),
        in_flight: AtomicUsize::new(0),
    };
    let nodes = [on(0, &daemons[0]), on(1, &daemons[1])];
    let mut came_meanwhile = 0;
    std::thread::scope(|scope| {
        for (at, node) in nodes.iter().enumerate() {
            for caller in 0..CALLERS {
                scope.spawn(move || node.caller(&format!("pod-{at}-{caller}")));
            }
        }
        // Also if an assertion fails, so that the callers end.
        let updated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // The first ADDs wait for blocks: one that is stopped in that is to be tried again.
            let all_have_blocks = || scene.added.load(Ordering::SeqCst) >= WARM;
            assert!(poll(PATIENCE, all_have_blocks), "no pods start");
            for round in 0..ROUNDS * daemons.len() {
                let at = round % daemons.len();
                assert!(daemons[at].terminate().success(), "{}", daemons[at].log_tail());
                replace_plugin(at, 1 + round / daemons.len());
                let all_wait = || nodes[at].in_flight.load(Ordering::SeqCst) == CALLERS;
                assert!(poll(PATIENCE, all_wait), "the callers do not wait");
                came_meanwhile += CALLERS;
                daemons[at].restart();
                await_status(&daemons[at], "serving", |status| status["state"] == "serving");
            }
        }));
        scene.ended.store(true, Ordering::SeqCst);
        if let Err(why) = updated {
            std::panic::resume_unwind(why);
        }
    });
    let failed = scene.failed.into_inner().expect("the list");
    let added = scene.added.into_inner();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), added + failed.len());
    assert!(came_meanwhile >= 93 && added > came_meanwhile, "{added} of {came_meanwhile}");
    let held = scene.held.into_inner().expect("the book");
    let shown: usize = daemons.iter().map(count).sum();
    assert_eq!(shown, held.len(), "the daemons hold what was answered");
}

/// Two versions of the plugin, which differ in a byte behind the program.
fn two_versions(dir: &Path) -> [PathBuf; 2] {
    let versions = ["one", "two"].map(|name| dir.join(name));
    for (version, more) in versions.iter().zip(["", "\n"]) {
        let mut program = fs::read(my_ipam()).expect("the plugin");
        program.extend(more.bytes());
        fs::write(version, program).expect("a version");
    }
    versions
}

/// The allocations that a daemon shows.
fn count(daemon: &Daemon) -> usize {
    let status = daemon.client().get("/v1/status");
    let attachments = status["attachments"].as_u64();
    attachments.and_then(|count| count.try_into().ok()).unwrap_or_else(|| panic!("{status:#}"))
}
