//! Measures how soon a node serves again after each kind of fault is mended.
//!
//! ```text
//! LEASEHOLD_RECOVERY=10 cargo test --release --test it chaos::recovery -- --ignored --nocapture
//! ```
//!
//! breaks each thing ten times, with the daemon's default options, and prints a table: the time
//! until an ADD that needs no block is answered, until one that needs a block is, and until the
//! node is a member for good (median, nine tenths, longest).

use std::env;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::callers::{call, post};
use super::faults::empty;
use super::history::Container;
use super::link::{Links, Way};
use crate::bad_input::disk::SmallDisk;
use crate::common::etcd::Cluster;
use crate::common::{Client, Daemon, LEASEHOLD, Options, Outcome, builds, go_on, poll, stop};

/// The times for which things stay broken: one is shorter than a lease lives, one is longer.
const BRIEF: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(40);
/// The longest time for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The time for which a node must stay a member.
const FOR_GOOD: Duration = Duration::from_secs(2);
/// The time within which everything must be well again.
const PATIENCE: Duration = Duration::from_secs(180);
/// The size of the first node's disk.
const DISK_MIB: u32 = 16;

/// A cluster of three nodes on three members of etcd. Things happen to the first node.
struct Scene {
    etcd: Cluster,
    daemons: Vec<Daemon>,
    /// The disk of the first node's state directory, and the file with the id of its boot.
    disk: SmallDisk,
    boot: NamedTempFile,
    links: Links,
    /// Members of etcd that are dead.
    dead: Vec<usize>,
    next: Container,
}

/// Breaks something and mends it. Returns the time from which the recovery counts.
type Breakage = fn(&mut Scene) -> Instant;

const BREAKAGES: [(&str, Breakage); 15] = [
    ("kill -9", |scene| {
        scene.daemons[0].kill9();
        scene.start()
    }),
    ("SIGTERM", |scene| {
        scene.daemons[0].terminate();
        scene.start()
    }),
    ("paused for 8 s", |scene| scene.pause(BRIEF)),
    ("paused for 40 s", |scene| scene.pause(LONG)),
    ("cut off from etcd for 8 s", |scene| scene.disturb(Way::Cut, BRIEF)),
    ("cut off from etcd for 40 s", |scene| scene.disturb(Way::Cut, LONG)),
    ("answers of etcd held up for 8 s", |scene| scene.disturb(Way::Mute, BRIEF)),
    ("the way to etcd flaps for 8 s", |scene| {
        for _ in 0..10 {
            scene.disturb(Way::Cut, BRIEF / 20);
            thread::sleep(BRIEF / 20);
        }
        Instant::now()
    }),
    ("etcd killed for 8 s", |scene| {
        (0..3).for_each(|at| scene.etcd.kill(at));
        thread::sleep(BRIEF);
        scene.etcd.restart_all(&[0, 1, 2]);
        Instant::now()
    }),
    ("etcd's leader killed, from then on", |scene| {
        let leader = scene.etcd.leader();
        scene.etcd.kill(leader);
        scene.dead.push(leader);
        Instant::now()
    }),
    ("removed, and started again", |scene| {
        scene.daemons[0].kill9();
        let mut remove = Command::new(LEASEHOLD);
        remove.args(["node", "remove", "node-0", "--yes", "--force", "--quarantine", "60s"]);
        let output = remove.env("LEASEHOLD_SOCKET", scene.daemons[1].socket()).output();
        let output = output.expect("leasehold runs");
        assert!(output.status.success(), "{output:?}");
        scene.start()
    }),
    ("rebooted", |scene| {
        scene.daemons[0].kill9();
        scene.next_boot();
        scene.start()
    }),
    ("the disk full for 8 s", |scene| {
        let (ballast, config) = (scene.disk.fill(0), network("warm", 40));
        let fails = poll(PATIENCE, || {
            let add = call("ADD", scene.container(), &config);
            !matches!(post(&mut scene.client(), &add), Some(Outcome::Done(_)))
        });
        assert!(fails, "the disk is not full");
        thread::sleep(BRIEF);
        fs::remove_file(ballast).expect("room on the disk");
        Instant::now()
    }),
    ("the state directory lost", |scene| {
        scene.daemons[0].kill9();
        empty(&scene.daemons[0].state_dir());
        scene.start()
    }),
    ("etcd set back to a backup", |scene| {
        let backup = scene.etcd.save();
        // Something that the backup does not have, so that its age shows.
        let since = scene.container();
        scene.served(Instant::now(), since, &network(&format!("since-{since}"), 42));
        scene.etcd.restore(&backup);
        Instant::now()
    }),
];

/// A network of this name, with room for everything.
fn network(name: &str, third: u8) -> Value {
    json!({ "cniVersion": "1.1.0", "name": name, "ipam": {
        "type": "my-ipam", "ranges": [[{ "subnet": format!("10.{third}.0.0/16") }]],
    }})
}

impl Scene {
    fn new() -> Self {
        builds();
        let etcd = Cluster::start(3);
        let targets: Vec<String> = (0..3).map(|at| etcd.endpoint(at)).collect();
        let links = Links::open(&targets);
        let (disk, boot) = (SmallDisk::of_size(DISK_MIB), NamedTempFile::new().expect("a file"));
        let daemon = |at: usize| {
            let endpoints = if at == 0 { &links.endpoints } else { &targets };
            let name = format!("node-{at}");
            let args = ["--node", &name, "--etcd", &endpoints.join(",")].map(str::to_owned);
            let file = ("LEASEHOLD_BOOT_ID_FILE".to_owned(), boot.path().display().to_string());
            let env = if at == 0 { vec![file] } else { vec![] };
            let options = Options { args: args.to_vec(), env, ..Options::default() };
            Daemon::prepare(&options)
        };
        let daemons = (0..3).map(daemon).collect();
        let mut scene = Self { etcd, daemons, disk, boot, links, dead: vec![], next: 1 };
        scene.next_boot();
        scene.disk.hold(&scene.daemons[0].state_dir());
        scene.daemons.iter_mut().for_each(Daemon::restart);
        scene
    }

    /// Has the next daemon of the first node find another boot.
    fn next_boot(&mut self) {
        let id = format!("00000000-0000-4000-8000-{:012}\n", self.container());
        fs::write(self.boot.path(), id).expect("a boot's id");
    }

    fn start(&mut self) -> Instant {
        let begun = Instant::now();
        self.daemons[0].begin();
        begun
    }

    fn pause(&mut self, time: Duration) -> Instant {
        let pid = self.daemons[0].pid();
        stop(pid);
        thread::sleep(time);
        go_on(pid);
        Instant::now()
    }

    fn disturb(&mut self, way: Way, time: Duration) -> Instant {
        self.links.set(way);
        thread::sleep(time);
        self.links.set(Way::Open);
        Instant::now()
    }

    fn container(&mut self) -> Container {
        self.next += 1;
        self.next
    }

    fn client(&self) -> Client {
        Client::with_limit(self.daemons[0].socket(), ANSWER_LIMIT)
    }

    /// The time from then until an ADD on this network is answered.
    fn served(&self, since: Instant, container: Container, network: &Value) -> Duration {
        let add = call("ADD", container, network);
        let answered = || matches!(post(&mut self.client(), &add), Some(Outcome::Done(_)));
        assert!(poll(PATIENCE, answered), "{network}\n{}", self.daemons[0].log_tail());
        since.elapsed()
    }

    /// The time from then until the node is a member for good.
    fn joined(&self, since: Instant) -> Duration {
        let is_member = || {
            let status = self.client().try_request("GET", "/v1/status", "");
            let status = status.ok().and_then(|reply| serde_json::from_str(&reply.body).ok());
            status.is_some_and(|status: Value| status["cluster"]["state"] == "member")
        };
        let mut joined = None;
        let stays = || {
            if !is_member() {
                joined = None;
                return false;
            }
            joined.get_or_insert_with(Instant::now).elapsed() >= FOR_GOOD
        };
        assert!(poll(PATIENCE, stays), "{}", self.daemons[0].log_tail());
        joined.expect("it has joined") - since
    }

    /// Breaks something, and measures: an ADD without a block, one with one, and the joining.
    fn measure(&mut self, breakage: Breakage) -> [Duration; 3] {
        let (warm, cold) = (network("warm", 40), format!("cold-{}", self.next));
        let (first, second, third) = (self.container(), self.container(), self.container());
        self.served(Instant::now(), first, &warm);
        let since = breakage(self);
        let cold = network(&cold, 41);
        let measured = thread::scope(|scope| {
            let scene = &*self;
            let warm = scope.spawn(|| scene.served(since, second, &warm));
            let cold = scope.spawn(|| scene.served(since, third, &cold));
            let joined = scope.spawn(|| scene.joined(since));
            [warm, cold, joined].map(|of| of.join().expect("a measurement"))
        });
        for at in std::mem::take(&mut self.dead) {
            self.etcd.restart(at);
        }
        measured
    }
}

fn figures(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |tenths: usize| times[(times.len() - 1) * tenths / 10].as_secs_f64();
    format!("{:.2} / {:.2} / {:.2}", at(5), at(9), at(10))
}

#[test]
#[ignore = "it takes some minutes and needs a quiet machine"]
fn a_node_serves_again_soon() {
    let times = env::var("LEASEHOLD_RECOVERY").unwrap_or_else(|_| "3".to_owned());
    let times: usize = times.parse().expect("LEASEHOLD_RECOVERY is a number");
    let mut scene = Scene::new();
    println!("| fault | ADD | ADD that needs a block | member |\n| --- | --- | --- | --- |");
    for (name, breakage) in BREAKAGES {
        let measured: Vec<_> = (0..times).map(|_| scene.measure(breakage)).collect();
        let of = |at: usize| figures(&mut measured.iter().map(|of| of[at]).collect::<Vec<_>>());
        println!("| {name} | {} | {} | {} |", of(0), of(1), of(2));
    }
}
