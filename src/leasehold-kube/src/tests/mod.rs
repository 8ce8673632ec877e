//! Whole instances against an API server and a daemon that stand for the real ones.
//!
//! Times are short here. What depends on long ones is in the tests of the ledger and of the
//! election, to which the time is an argument.

mod fake_api;
mod fake_daemon;
mod scheduler;

use std::time::Duration;

use clap::Parser as _;
use tokio::task::JoinHandle;

use super::limits::{self, Timing};
use super::options::Options;
use super::run;
use super::times;
use fake_api::FakeApi;
use fake_daemon::FakeDaemon;

const TIMING: Timing = Timing {
    lease: Duration::from_secs(2),
    renew: Duration::from_millis(200),
    request: Duration::from_millis(500),
    margin: Duration::from_millis(200),
    tick: Duration::from_millis(50),
    pause: Duration::from_millis(20),
    confirm: Duration::from_millis(100),
    look: Duration::from_millis(50),
};

/// The time after which a test fails: far longer than it needs, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time in which nothing may happen: longer than the grace.
const QUIET: Duration = Duration::from_millis(1800);

/// An API server with five nodes, and a daemon.
struct Scene {
    api: FakeApi,
    daemon: FakeDaemon,
}

/// An instance that runs.
struct Instance(JoinHandle<anyhow::Result<()>>);

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Scene {
    async fn new() -> Self {
        let (api, daemon) = (FakeApi::start().await, FakeDaemon::start());
        for at in 0..5 {
            api.put_node(&format!("n{at}"), &format!("u{at}"), &format!("m{at}"), true);
        }
        Self { api, daemon }
    }

    fn options(&self, args: &[&str]) -> Options {
        let (url, socket) = (self.api.url(), self.daemon.socket());
        let socket = socket.to_str().unwrap();
        let fixed = ["leasehold-kube", "--grace", "1s", "--api", &url, "--node-socket", socket];
        Options::try_parse_from([&fixed, args].concat()).unwrap()
    }

    /// Starts an instance that ends like a killed one.
    fn instance(&self, args: &[&str]) -> Instance {
        let options = self.options(args);
        let end = std::future::pending();
        Instance(tokio::spawn(async move { run::run(&options, TIMING, end).await }))
    }

    /// Starts an instance, and waits until it watches and remembers all nodes.
    async fn watching(&self, args: &[&str]) -> Instance {
        let instance = self.instance(args);
        self.until("it watches", || self.api.watches() == 1 && self.remembered().len() == 5).await;
        instance
    }

    async fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let start = times::up();
        while !is() {
            let removals = self.daemon.removals();
            assert!(times::up() < start + PATIENCE, "not in time: {what}: {removals:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_ended(&self, node: &str, machine: &str) {
        let expected = [(node.to_owned(), machine.to_owned())];
        self.until("the node is ended", || self.daemon.removals() == expected).await;
    }

    async fn nothing_is_ended(&self) {
        tokio::time::sleep(QUIET).await;
        assert_eq!(self.daemon.removals(), []);
    }

    /// The identity that the Lease names.
    fn holder(&self) -> String {
        let lease = self.api.other("leasehold-kube").unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// The UIDs in the ConfigMap.
    fn remembered(&self) -> Vec<String> {
        let Some(memory) = self.api.other("leasehold-kube-nodes") else { return vec![] };
        let data = memory["data"].as_object().cloned().unwrap_or_default();
        data.keys().cloned().collect()
    }
}

#[tokio::test]
async fn a_deletion_is_seen_by_the_watch() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    let lists = scene.api.requests("GET /api/v1/nodes?&limit");
    scene.api.delete_node("n3");
    scene.until_ended("n3", "m3").await;
    assert_eq!(scene.api.requests("GET /api/v1/nodes?&limit"), lists, "by the watch alone");
    // Once more only after its quarantine; until then it is remembered as removed.
    let memory = scene.api.other("leasehold-kube-nodes").unwrap();
    scene.until("it is remembered", || scene.remembered().len() == 5).await;
    assert!(memory["data"]["u3"].is_string());
    tokio::time::sleep(QUIET).await;
    assert_eq!(scene.daemon.removals().len(), 1);
}

#[tokio::test]
async fn a_deletion_that_nobody_watched_is_found_at_the_start() {
    let scene = Scene::new().await;
    drop(scene.watching(&[]).await);
    scene.api.delete_node("n1");
    let _next = scene.instance(&[]);
    scene.until_ended("n1", "m1").await;
}

#[tokio::test]
async fn a_watch_that_is_gone_is_followed_by_a_list() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    scene.api.state().is_silent = true;
    scene.api.delete_node("n2");
    // First as an event, then as the answer to the next watches.
    scene.api.state().gone = 2;
    scene.api.expire_watches();
    scene.until("it watches again", || scene.api.watches() == 1).await;
    assert_eq!(scene.api.state().gone, 0);
    scene.until_ended("n2", "m2").await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    scene.api.state().is_silent = true;
    scene.api.delete_node("n2");
    scene.api.break_watches();
    scene.until_ended("n2", "m2").await;
    assert_eq!(scene.api.watches(), 1);
}

#[tokio::test]
async fn an_api_server_that_is_away_ends_nothing_and_is_found_again() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    scene.api.delete_node("n4");
    scene.api.state().is_away = true;
    scene.api.break_watches();
    // Far longer than the grace, and than the Lease.
    scene.nothing_is_ended().await;
    scene.api.state().is_away = false;
    scene.until_ended("n4", "m4").await;
}

#[tokio::test]
async fn the_next_leader_goes_on_when_the_first_is_killed() {
    let scene = Scene::new().await;
    let first = scene.watching(&["--identity", "first"]).await;
    let _second = scene.instance(&["--identity", "second"]);
    scene.api.delete_node("n1");
    scene.until_ended("n1", "m1").await;
    let ended = || {
        let memory = scene.api.other("leasehold-kube-nodes").unwrap();
        memory["data"]["u1"].as_str().is_some_and(|entry| entry.contains("forgetFrom"))
    };
    scene.until("the memory says so", ended).await;
    assert!(scene.holder().starts_with("first"));
    drop(first);
    scene.api.delete_node("n2");
    scene.until("the other one leads", || scene.holder().starts_with("second")).await;
    let both = [("n1", "m1"), ("n2", "m2")].map(|(n, m)| (n.to_owned(), m.to_owned()));
    scene.until("the second node is ended", || scene.daemon.removals() == both).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(scene.daemon.removals(), both, "nothing twice");
}

#[tokio::test]
async fn only_one_of_two_instances_works() {
    let scene = Scene::new().await;
    let _first = scene.watching(&[]).await;
    let _second = scene.instance(&[]);
    tokio::time::sleep(QUIET).await;
    assert_eq!(scene.api.watches(), 1);
}

#[tokio::test]
async fn a_leader_that_cannot_renew_its_lease_stops() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    scene.api.state().is_without_leases = true;
    scene.until("it leads no longer", || scene.api.watches() == 0).await;
    scene.api.delete_node("n1");
    scene.nothing_is_ended().await;
    scene.api.state().is_without_leases = false;
    scene.until_ended("n1", "m1").await;
}

#[tokio::test]
async fn a_leader_that_is_told_to_end_gives_the_lease_up() {
    let scene = Scene::new().await;
    let options = scene.options(&["--identity", "first"]);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let first = tokio::spawn(async move {
        run::run(&options, limits::TIMING, async { drop(ended.await) }).await
    });
    scene.until("it leads", || scene.api.watches() == 1).await;
    end.send(()).unwrap();
    first.await.unwrap().unwrap();
    let lease = scene.api.other("leasehold-kube").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
    let start = times::up();
    let _second = scene.instance(&[]);
    scene.until("the next one leads", || scene.api.watches() == 1).await;
    assert!(times::up() - start < limits::TIMING.lease / 2, "it did not wait for the Lease's end");
}

#[tokio::test]
async fn a_machine_that_registers_again_under_its_name_is_not_ended() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    scene.api.delete_node("n1");
    scene.api.put_node("n1", "u1-again", "m1", true);
    scene.nothing_is_ended().await;
    assert!(!scene.remembered().contains(&"u1".to_owned()));
}

#[tokio::test]
async fn another_machine_under_the_name_ends_the_old_one_by_its_machine() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    scene.api.delete_node("n1");
    scene.api.put_node("n1", "u1-again", "another", true);
    scene.until_ended("n1", "m1").await;
    assert!(scene.remembered().contains(&"u1-again".to_owned()));
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_not_ended() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    for name in 0..5 {
        let (node, uid, machine) = (format!("n{name}"), format!("u{name}"), format!("m{name}"));
        scene.api.put_node(&node, &uid, &machine, false);
    }
    scene.nothing_is_ended().await;
}

#[tokio::test]
async fn a_watch_that_is_wrong_about_a_node_ends_nothing() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    // Its object is there, and the deletion that the watch reports is a mistake.
    scene.api.delete_node("n1");
    scene.api.put_node_silently("n1", "u1", "m1");
    scene.nothing_is_ended().await;
    let asked = scene.api.requests("GET /api/v1/nodes/n1?");
    assert!(asked > 0, "it asked for the object");
}

#[tokio::test]
async fn a_node_that_runs_is_refused_and_stays_remembered() {
    let scene = Scene::new().await;
    scene.daemon.set_running("n1", true);
    let instance = scene.watching(&[]).await;
    scene.api.delete_node("n1");
    scene.until_ended("n1", "m1").await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(scene.daemon.removals().len(), 1, "not in a loop");
    assert!(scene.remembered().contains(&"u1".to_owned()));
    // The next instance tries again.
    scene.daemon.set_running("n1", false);
    drop(instance);
    let _next = scene.instance(&[]);
    scene.until("it is tried again", || scene.daemon.removals().len() == 2).await;
}

#[tokio::test]
async fn an_empty_list_ends_nothing() {
    let scene = Scene::new().await;
    drop(scene.watching(&[]).await);
    scene.api.state().lists_nothing = true;
    let _next = scene.instance(&[]);
    scene.nothing_is_ended().await;
    assert_eq!(scene.remembered().len(), 5);
}

#[tokio::test]
async fn many_deletions_at_once_wait_for_a_person() {
    let scene = Scene::new().await;
    let instance = scene.watching(&[]).await;
    for name in ["n0", "n1", "n2"] {
        scene.api.delete_node(name);
    }
    scene.nothing_is_ended().await;
    drop(instance);
    let _allowed = scene.instance(&["--allow-many"]);
    scene.until("all three are ended", || scene.daemon.removals().len() == 3).await;
}

#[tokio::test]
async fn a_dry_run_ends_nothing() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&["--dry-run"]).await;
    scene.api.delete_node("n1");
    scene.until("it asks", || scene.daemon.dry_runs() == 1).await;
    scene.nothing_is_ended().await;
    assert!(scene.remembered().contains(&"u1".to_owned()));
}

#[tokio::test]
async fn a_leader_without_a_daemon_makes_way_for_another_one() {
    let scene = Scene::new().await;
    drop(scene.watching(&[]).await);
    let mut options = scene.options(&["--identity", "first"]);
    options.node_socket = "/nonexistent/s".into();
    let first = tokio::spawn(async move {
        run::run(&options, TIMING, std::future::pending()).await.map_err(|error| error.to_string())
    });
    // The watch of the instance before may still be counted: only the Lease says who leads.
    scene.until("it leads", || scene.holder().starts_with("first")).await;
    let _second = scene.instance(&[]);
    scene.api.delete_node("n1");
    let error = tokio::time::timeout(PATIENCE, first).await.expect("an end").unwrap().unwrap_err();
    assert!(error.contains("daemon of this node"), "{error}");
    scene.until_ended("n1", "m1").await;
}

#[tokio::test]
async fn a_pod_that_got_no_address_has_one_event() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&["--pod-events"]).await;
    scene.until("it watches events", || scene.api.event_watches() == 1).await;
    let error = "no IP addresses available in range set: 10.9.0.1-10.9.0.2; network pods has 1 \
                 addresses: add a range, or find what is not released: leasehold check";
    scene.api.sandbox_failed("web", "try again later");
    scene.api.sandbox_failed("web", error);
    scene.api.sandbox_failed("web", error);
    scene.api.sandbox_failed("db", error);
    scene.until("both pods have one", || scene.api.events("shop").len() == 2).await;
    tokio::time::sleep(QUIET).await;
    let events = scene.api.events("shop");
    assert_eq!(events.len(), 2, "{events:?}");
    let event = &events[1];
    let of = &event["involvedObject"];
    assert_eq!((&of["kind"], &of["name"]), (&"Pod".into(), &"web".into()));
    assert_eq!((&of["uid"], &of["namespace"]), (&"uid of web".into(), &"shop".into()));
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&"LeaseholdNoAddress".into(), &"Warning".into())
    );
    let text = event["message"].as_str().unwrap();
    assert!(text.ends_with(error) && text.starts_with("Leasehold has no address"), "{text}");
}

#[tokio::test]
async fn events_are_not_asked_for_unless_that_is_wanted() {
    let scene = Scene::new().await;
    let _instance = scene.watching(&[]).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(scene.api.requests("GET /api/v1/events"), 0);
}
