//! A cluster in a box: nodes, a store, everything between them, and what goes wrong there. One
//! seed decides everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use fastrand::Rng;

use super::Millis;
use super::disk::Disk;
use super::etcd::Etcd;
use super::node::{Daemon, Wish};
use super::plan::{Configuration, Fault, Plan};
use super::trace_fmt;
use crate::core::ids::{CallId, RequestId, Sequence};
use crate::core::operator::{DrainNode, RemoveNode};
use crate::core::range_set::Settings;
use crate::core::time::BootTime;
use crate::core::txn::{Answer, Request, StoreError, Watched};

pub(super) enum Event {
    Arrive {
        node: usize,
        life: u64,
        id: RequestId,
        request: Request,
        answer: bool,
    },
    Answer {
        node: usize,
        life: u64,
        id: RequestId,
        answer: Result<Answer, StoreError>,
    },
    Report {
        node: usize,
        life: u64,
        watched: Watched,
    },
    Sync {
        node: usize,
        life: u64,
    },
    /// Mail was left.
    Serve {
        node: usize,
        life: u64,
    },
    Timer {
        node: usize,
        life: u64,
    },
    Calls,
    Fault(Fault),
    Start(usize),
    /// The supervisor loses patience with a daemon that stops.
    Kill {
        node: usize,
        life: u64,
    },
    Heal(usize),
    /// The disk has room again.
    Repair {
        node: usize,
        life: u64,
    },
    EtcdUp,
    Backup,
    /// A request of an operator.
    Operate {
        id: u64,
        request: Request,
    },
    /// An operator's release of the holding that a container had when it was listed.
    Release {
        container: u64,
        sequence: Sequence,
    },
}

pub(super) struct SimNode {
    pub(super) disk: Disk,
    pub(super) daemon: Option<Daemon>,
    /// Counts the daemon's starts: what was sent to an earlier one reaches nobody.
    pub(super) life: u64,
    pub(super) paused_until: Millis,
    pub(super) cut: bool,
    pub(super) watches: BTreeSet<String>,
    /// Reports come in order.
    pub(super) last_report: Millis,
    pub(super) timer_at: Millis,
    pub(super) draining: bool,
    /// It was told to stop.
    pub(super) stopping: bool,
    /// Nobody starts it again.
    pub(super) leaves: bool,
    /// The earliest time at which its machine comes back; 0: it never was away.
    pub(super) away_until: Millis,
}

impl SimNode {
    /// Creates a node whose daemon has not started.
    pub(super) fn new(disk: Disk) -> Self {
        Self {
            disk,
            daemon: None,
            life: 0,
            paused_until: 0,
            cut: false,
            watches: BTreeSet::new(),
            last_report: 0,
            timer_at: Millis::MAX,
            draining: false,
            stopping: false,
            leaves: false,
            away_until: 0,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Adding,
    Running(Vec<IpAddr>),
    /// An ADD of it is repeated.
    Renewing(Vec<IpAddr>),
    /// The caller does not know: it will be deleted.
    Orphan,
    Deleting,
}

#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) node: usize,
    pub(super) state: State,
    pub(super) requested: Option<IpAddr>,
    /// It asked when the node had not reached the store for longer than its limit.
    pub(super) overdue: bool,
}

/// A command of an operator that is carried out.
#[derive(Debug)]
pub(super) enum Operator {
    Remove(usize, Box<RemoveNode>),
    Drain(DrainNode),
}

/// The numbers of calls by their result.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counters {
    pub(super) added: u64,
    pub(super) ended: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) went_back: u64,
    pub(super) forgotten: u64,
}

impl Counters {
    /// Returns the number of calls that had an answer.
    pub(super) fn calls(self) -> u64 {
        self.added + self.ended + self.failed
    }
}

/// The cluster.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: Millis,
    pub(super) events: BTreeMap<(Millis, u64), Event>,
    pub(super) next_event: u64,
    pub(super) etcd: Etcd,
    pub(super) etcd_down: bool,
    /// The store answers reads and refuses writes.
    pub(super) refuses: bool,
    /// Writes that it refused.
    pub(super) refused: u64,
    pub(super) backups: VecDeque<(Millis, Etcd)>,
    pub(super) nodes: Vec<SimNode>,
    pub(super) containers: BTreeMap<u64, Container>,
    pub(super) calls: BTreeMap<CallId, u64>,
    pub(super) next_call: u64,
    pub(super) operators: BTreeMap<u64, Operator>,
    /// Containers whose DELs nobody can know of now.
    pub(super) may_rise: BTreeSet<u64>,
    /// Containers whose DELs came to a node that had not joined, or knew nothing of them.
    pub(super) blind_dels: BTreeSet<u64>,
    pub(super) held: BTreeMap<IpAddr, u64>,
    pub(super) quiet: bool,
    /// Nothing goes wrong before that.
    pub(super) calm_until: Millis,
    /// The current configuration.
    pub(super) configuration: Configuration,
    pub(super) steps: u64,
    pub(super) counters: Counters,
    pub(super) last_error: String,
    pub(super) trace: VecDeque<String>,
    /// Keep a trace: for the second run of a seed that failed.
    pub(super) tracing: bool,
}

const TRACE_LINES: usize = 40_000;
const STEPS_MAX: u64 = 2_000_000;

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            now: 1_000_000,
            events: BTreeMap::new(),
            next_event: 0,
            etcd: Etcd::default(),
            etcd_down: false,
            refuses: false,
            refused: 0,
            backups: VecDeque::new(),
            nodes: Vec::new(),
            containers: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 1,
            operators: BTreeMap::new(),
            may_rise: BTreeSet::new(),
            blind_dels: BTreeSet::new(),
            held: BTreeMap::new(),
            quiet: false,
            calm_until: 0,
            configuration: {
                let mut rng = Rng::with_seed(seed);
                plan.configurations[rng.usize(0..plan.configurations.len())].clone()
            },
            steps: 0,
            counters: Counters::default(),
            last_error: String::new(),
            trace: VecDeque::new(),
            tracing: false,
            plan,
        };
        for node in 0..world.plan.nodes {
            let settings = Settings {
                seed: (node as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                ..world.plan.settings
            };
            let disk = Disk::new(format!("n{node}").into(), settings, &world.plan);
            world.nodes.push(SimNode::new(disk));
            world.after(node as u64, Event::Start(node));
        }
        world.after(100, Event::Calls);
        world.after(5_000, Event::Backup);
        for (fault, every) in world.plan.faults.clone() {
            let wait = 2_000 + world.rng.u64(0..every * 2);
            world.after(wait, Event::Fault(fault));
        }
        world
    }

    pub(super) fn after(&mut self, wait: Millis, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + wait, self.next_event), event);
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            if self.trace.len() >= TRACE_LINES {
                self.trace.pop_front();
            }
            self.trace.push_back(format!("{:>9} {}", self.now - 1_000_000, line()));
        }
    }

    pub(super) fn print_trace(&self) -> String {
        self.trace.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Things go wrong for as long as planned.
    pub(super) fn run(&mut self) {
        let until = self.now + self.plan.span;
        while self.now < until && self.step() {}
    }

    /// Stops all faults; returns when nobody waits, or after that long.
    pub(super) fn settle(&mut self, span: Millis) {
        self.quiet = true;
        self.configuration = self.plan.configurations[0].clone();
        self.etcd_down = false;
        self.end_drains();
        self.end_usurper();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            if std::mem::take(&mut self.nodes[node].disk.fails) || self.nodes[node].stopping {
                self.crash(node);
            }
            self.heal(node);
            if self.nodes[node].daemon.is_none() {
                self.start(node);
            }
        }
        self.settle_for(span);
    }

    /// Lets so many milliseconds go by.
    pub(super) fn settle_for(&mut self, span: Millis) {
        let until = self.now + span;
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    pub(super) fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "the cluster is busy for ever");
        self.now = self.now.max(at);
        self.handle(event);
        true
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive { node, life, id, request, answer } => {
                self.arrive(node, life, id, request, answer);
            }
            Event::Answer { node, life, .. }
            | Event::Report { node, life, .. }
            | Event::Sync { node, life }
            | Event::Serve { node, life }
            | Event::Timer { node, life } => self.reach(node, life, event),
            Event::Calls => self.some_calls(),
            Event::Fault(fault) => self.fault(fault),
            Event::Start(node) => self.start(node),
            Event::Kill { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].stopping {
                    self.crash(node);
                    self.after(100, Event::Start(node));
                }
            }
            Event::Repair { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].disk.fails {
                    self.repair(node);
                }
            }
            Event::Heal(node) => self.heal(node),
            Event::EtcdUp => self.etcd_up(),
            Event::Operate { id, request } => self.operate(id, request),
            Event::Release { container, sequence } => self.release_renewed(container, sequence),
            Event::Backup => {
                // A backup is older than any node's last word.
                if self.restores() && !self.etcd_down {
                    self.backups.push_back((self.now, self.etcd.clone()));
                }
                let wait = self.rng.u64(5_000..20_000);
                self.after(wait, Event::Backup);
            }
        }
    }

    /// Brings an event to the daemon it is for: later, if that sleeps, and never, if it has died.
    fn reach(&mut self, node: usize, life: u64, event: Event) {
        let of = &self.nodes[node];
        if of.life != life || of.daemon.is_none() {
            return;
        }
        if of.paused_until > self.now {
            let wait = of.paused_until - self.now;
            return self.after(wait, event);
        }
        match event {
            Event::Answer { id, answer, .. } => {
                self.say(|| format!("n{node} <- {id} {}", trace_fmt::answer(&answer)));
                self.with(node, |daemon, _| daemon.answered(id, answer));
            }
            Event::Report { watched, .. } => {
                self.with(node, |daemon, _| daemon.observed(watched));
            }
            Event::Sync { .. } => self.write(node),
            Event::Serve { .. } => self.serve(node),
            _ => {
                self.nodes[node].timer_at = Millis::MAX;
                self.with(node, |daemon, now| daemon.timeout(now));
            }
        }
    }

    /// Writes a group of a journal, or fails to.
    fn write(&mut self, node: usize) {
        let SimNode { disk, daemon, .. } = &mut self.nodes[node];
        if let Some(daemon) = daemon {
            let fails = disk.fails;
            let durable = fails && self.rng.bool();
            let failure = fails.then_some(("the disk is full", durable));
            daemon.write(disk, failure);
        }
        self.serve(node);
    }

    pub(super) fn with(&mut self, node: usize, f: impl FnOnce(&mut Daemon, BootTime)) {
        if let Some(daemon) = &mut self.nodes[node].daemon {
            f(daemon, BootTime::from_millis(self.now));
        }
        self.serve(node);
    }

    /// Serves the mailboxes of a daemon; now and then not all of them at once.
    pub(super) fn serve(&mut self, node: usize) {
        let pause = if self.quiet { 0 } else { self.plan.idle };
        if let Some(daemon) = &mut self.nodes[node].daemon {
            daemon.serve(BootTime::from_millis(self.now), &mut self.rng, pause);
        }
        self.collect(node);
    }

    /// Takes what a daemon wants, and arms its timer.
    pub(super) fn collect(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(daemon) = &mut self.nodes[node].daemon else { return };
        let wishes = std::mem::take(&mut daemon.wishes);
        let (due, has_mail) = (daemon.due().map(BootTime::as_millis), daemon.has_mail());
        if std::mem::take(&mut daemon.went_back) {
            self.counters.went_back += 1;
        }
        self.counters.lost += std::mem::take(&mut daemon.lost) as u64;
        self.counters.forgotten += std::mem::take(&mut daemon.forgotten);
        if let Some(due) = due
            && due < self.nodes[node].timer_at
        {
            self.nodes[node].timer_at = due;
            self.after(due.saturating_sub(self.now).max(1), Event::Timer { node, life });
        }
        if has_mail {
            let wait = self.rng.u64(0..3);
            self.after(wait, Event::Serve { node, life });
        }
        for wish in wishes {
            match wish {
                Wish::Store(id, request) => self.send(node, life, id, request),
                Wish::Watch(prefix) => {
                    self.nodes[node].watches.insert(prefix.clone());
                    self.list(node, &prefix);
                }
                Wish::Reply(call, outcome) => self.replied(call, outcome),
                Wish::Write => {
                    let wait = self.rng.u64(0..if self.quiet { 3 } else { self.plan.write_ms });
                    self.after(wait, Event::Sync { node, life });
                }
                Wish::Stopped => self.stopped(node),
            }
        }
    }
}
