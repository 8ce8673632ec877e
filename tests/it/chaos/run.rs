//! A run: daemons on an etcd, callers, faults, and the end, after which everything must be well.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::callers::Caller;
use super::history::{Addresses, Container, Counts, History, NodeAt, What};
use super::link::Links;
use super::settings::{NODES, Settings};
use super::{end, faults};
use crate::bad_input::disk::SmallDisk;
use crate::common::etcd::Cluster;
use crate::common::{Client, Daemon, builds};

/// Callers of each node, each with containers of its own.
const CALLERS: usize = 4;
/// Faults that may happen at once.
const BREAKERS: usize = 2;
/// The time within which a cluster forms.
const FORMED_WITHIN: Duration = Duration::from_secs(60);
/// The longest time for the answer to a look: a daemon may be suspended.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// The share of looks that list what is held.
const LISTED_OF: u8 = 8;
/// A node that has just joined compares its records, and does not count those that wait.
const COMPARED_AFTER: Duration = Duration::from_secs(3);
/// Longer than it takes until the figure of waiting records knows of an answer.
const FIGURE_LAG: Duration = Duration::from_millis(250);
/// The size of a node's disk, in MiB, if disks become full: enough for a run of hours.
const DISK_MIB: u32 = 64;

/// One node.
pub(super) struct Node {
    pub(super) at: NodeAt,
    pub(super) name: String,
    /// Locked while something is done to its process.
    pub(super) daemon: Mutex<Daemon>,
    pub(super) socket: PathBuf,
    pub(super) notes: PathBuf,
    pub(super) links: Links,
    /// Locked while the way to etcd is disturbed.
    pub(super) wire: Mutex<()>,
    /// The number of times that its containers were stopped.
    pub(super) stops: AtomicU32,
    /// The number of times that its machine was rebooted.
    pub(super) boots: AtomicU32,
    /// The file that says to the daemon which boot it is.
    pub(super) boot: NamedTempFile,
    /// The time until which all of its answers are recorded in etcd.
    pub(super) recorded: Mutex<Duration>,
    /// The disk of its state directory, if disks become full. It goes after the daemon.
    pub(super) disk: Option<SmallDisk>,
}

impl Node {
    fn start(at: NodeAt, etcd: &Cluster, settings: &Settings) -> Self {
        let targets: Vec<String> = (0..settings.members).map(|at| etcd.endpoint(at)).collect();
        let (name, links) = (format!("node-{at}"), Links::open(&targets));
        let boot = NamedTempFile::with_prefix("leasehold-boot-").expect("a file");
        fs::write(boot.path(), boot_id(0)).expect("a boot's id");
        let options = settings.options(&name, &links.endpoints, boot.path());
        let mut daemon = Daemon::prepare(&options);
        let disk = settings.fills_disks().then(|| SmallDisk::of_size(DISK_MIB));
        disk.iter().for_each(|disk| disk.hold(&daemon.state_dir()));
        daemon.restart();
        let (socket, notes) = (daemon.socket(), daemon.notes_dir());
        Self {
            at,
            name,
            daemon: Mutex::new(daemon),
            socket,
            notes,
            links,
            wire: Mutex::default(),
            stops: AtomicU32::new(0),
            boots: AtomicU32::new(0),
            boot,
            recorded: Mutex::default(),
            disk,
        }
    }

    /// Has the next daemon find another boot.
    pub(super) fn next_boot(&self) {
        let boots = 1 + self.boots.fetch_add(1, Ordering::SeqCst);
        fs::write(self.boot.path(), boot_id(boots)).expect("a boot's id");
    }

    /// The status, from a daemon that answers.
    pub(super) fn status(&self) -> io::Result<Value> {
        self.read("/v1/status")
    }

    fn read(&self, path: &str) -> io::Result<Value> {
        let mut client = Client::with_limit(self.socket.clone(), LOOK_LIMIT);
        let reply = client.try_request("GET", path, "")?;
        serde_json::from_str(&reply.body).map_err(io::Error::other)
    }

    /// Returns the list of the node.
    pub(super) fn listing(&self) -> io::Result<BTreeMap<Container, Addresses>> {
        let Value::Array(rows) = self.read("/v1/allocations?limit=10000")? else {
            return Err(io::Error::other("no list"));
        };
        let mut held = BTreeMap::<Container, Addresses>::new();
        for row in rows {
            let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name}: {row}"));
            let number = text("containerId").trim_start_matches('c').parse().expect("a number");
            let address: IpAddr = text("address").parse().expect("an address");
            held.entry(number).or_default().push(address);
        }
        Ok(held)
    }

    /// True if it is a member of the cluster.
    pub(super) fn is_member(&self) -> bool {
        self.status().is_ok_and(|status| status["cluster"]["state"] == "member")
    }

    /// True if it has written all its records, too. While callers call, some are always waiting.
    pub(super) fn is_settled(&self) -> bool {
        self.status().is_ok_and(|status| {
            let cluster = &status["cluster"];
            cluster["state"] == "member" && cluster["recordsWaiting"] == 0
        })
    }
}

fn boot_id(boots: u32) -> String {
    format!("00000000-0000-4000-8000-{boots:012}\n")
}

/// Everything of a run.
pub(super) struct Run {
    pub(super) settings: Settings,
    pub(super) networks: [Value; 2],
    pub(super) history: History,
    pub(super) nodes: Vec<Node>,
    /// Locked while something is done to it.
    pub(super) etcd: Mutex<Cluster>,
    /// Held by a fault that must be the only one.
    pub(super) alone: RwLock<()>,
    /// No new containers: callers end what may hold something, and half of what they hold.
    pub(super) quiet: AtomicBool,
    /// Until this time a restore of etcd may not be settled.
    pub(super) settling: Mutex<Duration>,
    /// State directories as they were once.
    pub(super) copies: Mutex<Vec<Copy>>,
    /// A backup of etcd, and when it was made.
    pub(super) backup: Mutex<Option<(Duration, PathBuf)>>,
    made: Mutex<BTreeMap<&'static str, u32>>,
    next: AtomicU32,
    /// A thread of the run has panicked.
    is_broken: AtomicBool,
}

/// Says that its thread has panicked, so that the others come to an end.
struct Alarm<'a>(&'a Run);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

/// A copy of a state directory.
pub(super) struct Copy {
    pub(super) node: NodeAt,
    pub(super) at: Duration,
    pub(super) dir: TempDir,
}

/// The findings of a run.
#[derive(Debug)]
pub(super) struct Report {
    /// The stories of what is wrong; empty if all is well.
    pub(super) stories: Vec<String>,
    pub(super) counts: Counts,
    pub(super) faults: BTreeMap<&'static str, u32>,
    pub(super) took: Duration,
}

impl Run {
    /// Runs from start to end, or until something is wrong.
    pub(super) fn go(settings: Settings) -> Report {
        builds();
        let etcd = Cluster::start(settings.members);
        let nodes: Vec<Node> = (0..NODES).map(|at| Node::start(at, &etcd, &settings)).collect();
        let run = Self {
            networks: settings.networks(),
            // One more for a second daemon under a name.
            history: History::new(NODES + 1),
            nodes,
            etcd: Mutex::new(etcd),
            alone: RwLock::default(),
            quiet: AtomicBool::new(false),
            settling: Mutex::default(),
            copies: Mutex::default(),
            backup: Mutex::default(),
            made: Mutex::default(),
            next: AtomicU32::new(1),
            is_broken: AtomicBool::new(false),
            settings,
        };
        for node in &run.nodes {
            run.await_node(node, FORMED_WITHIN, Node::is_settled);
        }
        run.work();
        if !run.history.is_violated() {
            end::check(&run);
        }
        run.report()
    }

    /// Callers call while faults happen; then all is mended and the callers come to an end.
    fn work(&self) {
        let rng = |thread: usize| {
            let thread = u64::try_from(thread).expect("a few");
            Rng::with_seed(self.settings.seed.wrapping_mul(1_000).wrapping_add(thread))
        };
        thread::scope(|scope| {
            let _alarm = Alarm(self);
            for node in &self.nodes {
                let of_watch = rng(900 + node.at);
                scope.spawn(|| {
                    let _alarm = Alarm(self);
                    self.watch(node, of_watch);
                });
                for number in 0..CALLERS {
                    let at = node.at * CALLERS + number;
                    let caller = Caller::new(self, node, rng(at), at, NODES * CALLERS);
                    scope.spawn(|| {
                        let _alarm = Alarm(self);
                        caller.go();
                    });
                }
            }
            let until = self.history.now() + self.settings.time;
            let breakers = (0..BREAKERS).map(|at| {
                let rng = rng(800 + at);
                scope.spawn(move || {
                    let _alarm = Alarm(self);
                    faults::break_things(self, rng, until);
                })
            });
            let ended: Vec<_> =
                breakers.collect::<Vec<_>>().into_iter().map(|b| b.join()).collect();
            if ended.iter().all(Result::is_ok) && !self.is_over() {
                end::mend(self);
            }
            self.quiet.store(true, Ordering::Relaxed);
            for result in ended {
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
    }

    /// Follows what a node has recorded and what it lists.
    fn watch(&self, node: &Node, mut rng: Rng) {
        let mut member: Option<(Value, Duration)> = None;
        while !self.is_quiet() {
            thread::sleep(LOOK_EVERY);
            let asked = self.history.now();
            let Ok(status) = node.status() else { continue };
            // A daemon whose disk was full starts again under the same number.
            let (cluster, epoch) = (&status["cluster"], &status["about"]["epoch"]);
            if cluster["state"] != "member" {
                member = None;
                continue;
            }
            let since = match &member {
                Some((of, since)) if of == epoch => *since,
                _ => member.insert((epoch.clone(), asked)).1,
            };
            if asked > since + COMPARED_AFTER {
                let lag = cluster["recordLagMs"].as_u64().expect("milliseconds");
                let until = asked.saturating_sub(FIGURE_LAG + Duration::from_millis(lag));
                let mut recorded = node.recorded.lock().expect("a time");
                *recorded = (*recorded).max(until);
            }
            if rng.u8(..LISTED_OF) == 0 {
                self.list(node, false);
            }
        }
    }

    /// Has the judge hear what a node lists. False if it does not answer.
    pub(super) fn list(&self, node: &Node, last: bool) -> bool {
        let (asked, era) = (self.history.now(), self.history.era(node.at));
        let Ok(held) = node.listing() else { return false };
        if self.history.era(node.at) == era {
            self.history.note(What::Listed { node: node.at, asked, held, last });
        }
        true
    }

    /// Waits until this is so of a node.
    pub(super) fn await_node(&self, node: &Node, limit: Duration, holds: fn(&Node) -> bool) {
        let settled = self.poll(limit, || holds(node));
        assert!(
            settled || self.is_over(),
            "{} is not well within {limit:?}: {:#?}\n{}",
            node.name,
            node.status(),
            node.daemon.lock().map_or_else(|_| String::new(), |daemon| daemon.log_tail())
        );
    }

    /// A container that nobody had before.
    pub(super) fn new_container(&self) -> Container {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed) || self.is_over()
    }

    /// True if something is wrong: there is nothing more to find out.
    pub(super) fn is_over(&self) -> bool {
        self.history.is_violated() || self.is_broken.load(Ordering::Relaxed)
    }

    /// Waits for a time, or until something is wrong.
    pub(super) fn sleep(&self, time: Duration) {
        self.poll(time, || false);
    }

    /// Asks again and again until the answer is yes, the time is over, or something is wrong.
    pub(super) fn poll(&self, limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < limit && !self.is_over() {
            if ready() {
                return true;
            }
            thread::sleep(Duration::from_millis(20).min(limit));
        }
        ready()
    }

    /// Counts a fault.
    pub(super) fn count(&self, fault: &'static str) {
        *self.made.lock().expect("the faults").entry(fault).or_default() += 1;
    }

    fn report(&self) -> Report {
        let violations = self.history.violations();
        Report {
            stories: violations.iter().take(3).map(|one| self.history.story(one)).collect(),
            counts: self.history.counts(),
            faults: self.made.lock().expect("the faults").clone(),
            took: self.history.now(),
        }
    }
}
