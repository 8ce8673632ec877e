//! A cluster in a box: nodes, a store, everything between them, and what goes wrong there. One
//! seed decides everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use fastrand::Rng;

use super::brief;
use super::etcd::Etcd;
use super::node::{Daemon, Disk, Out};
use crate::core::Millis;
use crate::core::journal::JournalState;
use crate::core::range::Ranges;
use crate::core::range_set::Settings;
use crate::core::txn::{Answer, Request, Span, StoreError, Watched};

/// What may happen in a run: one in so many, 0: never.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) allowed: Arc<Ranges>,
    /// Another configuration of it.
    pub(super) narrow: Arc<Ranges>,
    /// How long things go wrong, in milliseconds.
    pub(super) span: Millis,
    /// The mean time between calls, in milliseconds.
    pub(super) between_calls: Millis,
    /// How many containers a node wants.
    pub(super) containers: usize,
    pub(super) settings: Settings,
    pub(super) await_records: bool,
    /// One in so many messages to the store is lost, or its answer, or it is late.
    pub(super) bad_message: u32,
    /// The mean time between faults of each kind, in milliseconds; 0: none.
    pub(super) crashes: Millis,
    pub(super) pauses: Millis,
    pub(super) cuts: Millis,
    pub(super) outages: Millis,
    pub(super) reboots: Millis,
    /// Some machines come back with an empty disk.
    pub(super) new_disks: bool,
    pub(super) removals: Millis,
    pub(super) restores: Millis,
    pub(super) drains: Millis,
    pub(super) forgets: Millis,
    pub(super) configures: Millis,
}

pub(super) enum Event {
    Arrive { node: usize, life: u64, id: u64, request: Request, answer: bool },
    Answer { node: usize, life: u64, id: u64, answer: Result<Answer, StoreError> },
    Report { node: usize, life: u64, prefix: String, watched: Watched },
    Sync { node: usize, life: u64 },
    Timer { node: usize, life: u64 },
    Calls,
    Fault(Fault),
    Start(usize),
    Heal(usize),
    EtcdUp,
    Backup,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Crash,
    Pause,
    Cut,
    Outage,
    Reboot,
    Remove,
    Restore,
    Drain,
    Forget,
    Configure,
}

pub(super) struct Node {
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
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Adding,
    Running(Vec<IpAddr>),
    /// The caller does not know: it will be deleted.
    Orphan,
    Deleting,
}

#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) node: usize,
    pub(super) state: State,
    pub(super) requested: Option<IpAddr>,
}

/// How calls ended.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub(super) added: u64,
    pub(super) ended: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) went_back: u64,
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
    pub(super) backups: VecDeque<(Millis, Etcd)>,
    pub(super) nodes: Vec<Node>,
    pub(super) containers: BTreeMap<u64, Container>,
    pub(super) calls: BTreeMap<u64, u64>,
    pub(super) next_call: u64,
    pub(super) held: BTreeMap<IpAddr, u64>,
    pub(super) quiet: bool,
    /// Nothing goes wrong before that.
    pub(super) calm_until: Millis,
    /// The configuration of now has only some of the pool's addresses.
    pub(super) narrow: Option<Arc<Ranges>>,
    pub(super) steps: u64,
    pub(super) tally: Tally,
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
            backups: VecDeque::new(),
            nodes: Vec::new(),
            containers: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 1,
            held: BTreeMap::new(),
            quiet: false,
            calm_until: 0,
            narrow: None,
            steps: 0,
            tally: Tally::default(),
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
            let name: Arc<str> = format!("n{node}").into();
            let (boot, await_records) = (1, world.plan.await_records);
            let (at_boot, journal) = (JournalState::default(), vec![]);
            let disk =
                Disk { name, boot, at_boot, journal, settings, await_records, forgot: false };
            world.nodes.push(Node {
                disk,
                daemon: None,
                life: 0,
                paused_until: 0,
                cut: false,
                watches: BTreeSet::new(),
                last_report: 0,
                timer_at: Millis::MAX,
                draining: false,
            });
            world.after(node as u64, Event::Start(node));
        }
        world.after(100, Event::Calls);
        world.after(5_000, Event::Backup);
        let plan = world.plan.clone();
        for (fault, every) in [
            (Fault::Crash, plan.crashes),
            (Fault::Pause, plan.pauses),
            (Fault::Cut, plan.cuts),
            (Fault::Outage, plan.outages),
            (Fault::Reboot, plan.reboots),
            (Fault::Remove, plan.removals),
            (Fault::Restore, plan.restores),
            (Fault::Drain, plan.drains),
            (Fault::Forget, plan.forgets),
            (Fault::Configure, plan.configures),
        ] {
            if every > 0 {
                let wait = 2_000 + world.rng.u64(0..every * 2);
                world.after(wait, Event::Fault(fault));
            }
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

    /// Nothing goes wrong any more; returns when nobody waits, or after that long.
    pub(super) fn settle(&mut self, span: Millis) {
        self.quiet = true;
        self.narrow = None;
        self.etcd_down = false;
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            // Also where the store forgot that it was undone.
            self.nodes[node].draining = true;
            self.drain(node);
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
            Event::Answer { node, life, id, answer } => {
                if self.defer(node, life, |life| Event::Answer {
                    node,
                    life,
                    id,
                    answer: answer.clone(),
                }) {
                    self.say(|| format!("n{node} <- {id} {}", brief::answer(&answer)));
                    self.with(node, |daemon, now| daemon.answered(now, id, answer));
                }
            }
            Event::Report { node, life, prefix, watched } => {
                let later = |life| Event::Report {
                    node,
                    life,
                    prefix: prefix.clone(),
                    watched: watched.clone(),
                };
                if self.defer(node, life, later) {
                    self.with(node, |daemon, now| daemon.observed(now, watched));
                }
            }
            Event::Sync { node, life } => {
                if self.defer(node, life, |life| Event::Sync { node, life }) {
                    let count = 1 + self.rng.usize(0..4);
                    let Node { disk, daemon, .. } = &mut self.nodes[node];
                    if let Some(daemon) = daemon {
                        daemon.commit(self.now, count, &mut disk.journal);
                    }
                    self.collect(node);
                }
            }
            Event::Timer { node, life } => {
                if self.defer(node, life, |life| Event::Timer { node, life }) {
                    self.nodes[node].timer_at = Millis::MAX;
                    self.with(node, |daemon, now| daemon.timeout(now));
                }
            }
            Event::Calls => self.some_calls(),
            Event::Fault(fault) => self.fault(fault),
            Event::Start(node) => self.start(node),
            Event::Heal(node) => self.heal(node),
            Event::EtcdUp => self.etcd_up(),
            Event::Backup => {
                // A backup is older than any node's last word.
                if self.plan.restores > 0 && !self.etcd_down {
                    self.backups.push_back((self.now, self.etcd.clone()));
                }
                let wait = self.rng.u64(5_000..20_000);
                self.after(wait, Event::Backup);
            }
        }
    }

    /// Whether the daemon it is for may have it now; if it only sleeps, it has it later.
    pub(super) fn defer(
        &mut self,
        node: usize,
        life: u64,
        later: impl FnOnce(u64) -> Event,
    ) -> bool {
        let of = &self.nodes[node];
        if of.life != life || of.daemon.is_none() {
            return false;
        }
        if of.paused_until > self.now {
            let wait = of.paused_until - self.now;
            self.after(wait, later(life));
            return false;
        }
        true
    }

    pub(super) fn with(&mut self, node: usize, f: impl FnOnce(&mut Daemon, Millis)) {
        if let Some(daemon) = &mut self.nodes[node].daemon {
            f(daemon, self.now);
        }
        self.collect(node);
    }

    /// Takes what a daemon wants, and arms its timer.
    pub(super) fn collect(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(daemon) = &mut self.nodes[node].daemon else { return };
        let out = std::mem::take(&mut daemon.out);
        let due = daemon.due();
        if std::mem::take(&mut daemon.went_back) {
            self.tally.went_back += 1;
        }
        self.tally.lost += std::mem::take(&mut daemon.lost) as u64;
        if let Some(due) = due
            && due < self.nodes[node].timer_at
        {
            self.nodes[node].timer_at = due;
            self.after(due.saturating_sub(self.now).max(1), Event::Timer { node, life });
        }
        for out in out {
            match out {
                Out::Store(id, request) => self.send(node, life, id, request),
                Out::Watch(prefix) => {
                    self.nodes[node].watches.insert(prefix.clone());
                    self.list(node, &prefix);
                }
                Out::Reply(call, outcome) => self.replied(call, outcome),
                Out::Commit => {
                    let wait = self.rng.u64(0..3);
                    self.after(wait, Event::Sync { node, life });
                }
            }
        }
    }

    pub(super) fn send(&mut self, node: usize, life: u64, id: u64, request: Request) {
        self.say(|| format!("n{node} -> {id} {}", brief::request(&request)));
        let away = self.nodes[node].cut || self.etcd_down;
        let bad =
            !self.quiet && self.plan.bad_message > 0 && self.rng.u32(0..self.plan.bad_message) == 0;
        let failed = |cause: &str| Err(StoreError::Failed(cause.into()));
        let unknown = Err(StoreError::Unknown("deadline exceeded".into()));
        if away && self.rng.bool() {
            return self
                .after(2, Event::Answer { node, life, id, answer: failed("connection refused") });
        }
        if !away && !bad {
            let wait = self.rng.u64(0..5);
            return self.after(wait, Event::Arrive { node, life, id, request, answer: true });
        }
        // The daemon gives up after its deadline; the request may get there before or after that,
        // or never.
        self.after(3_000, Event::Answer { node, life, id, answer: unknown });
        match self.rng.u32(0..3) {
            0 => {}
            1 if !away => self.after(3, Event::Arrive { node, life, id, request, answer: false }),
            _ => {
                let wait = self.rng.u64(10..20_000);
                self.after(wait, Event::Arrive { node, life, id, request, answer: false });
            }
        }
    }

    pub(super) fn arrive(
        &mut self,
        node: usize,
        life: u64,
        id: u64,
        request: Request,
        answer: bool,
    ) {
        if self.etcd_down {
            if answer {
                let answer = Err(StoreError::Unknown("connection reset".into()));
                self.after(1, Event::Answer { node, life, id, answer });
            }
            return;
        }
        let result = self.etcd.ask(self.now, request);
        self.tell_watchers();
        if answer {
            let wait = self.rng.u64(0..5);
            // An answer may come twice.
            if !self.quiet && self.plan.bad_message > 0 && self.rng.u32(0..50) == 0 {
                let answer = result.clone();
                self.after(wait + 1, Event::Answer { node, life, id, answer });
            }
            self.after(wait, Event::Answer { node, life, id, answer: result });
        }
    }

    pub(super) fn tell_watchers(&mut self) {
        for change in self.etcd.take_changes() {
            let key = match &change {
                Watched::Put(key) => key.key.clone(),
                Watched::Deleted(key) => key.clone(),
                Watched::Listed(_) => continue,
            };
            if !key.starts_with("requests/") {
                continue; // nodes watch their messages only
            }
            for node in 0..self.nodes.len() {
                let watches = &self.nodes[node].watches;
                let Some(prefix) = watches.iter().find(|prefix| key.starts_with(*prefix)) else {
                    continue;
                };
                let prefix = prefix.clone();
                self.etcd.counters.events += 1;
                if self.nodes[node].cut {
                    continue; // listed anew when the connection is back
                }
                if !self.quiet && self.plan.bad_message > 0 && self.rng.u32(0..100) == 0 {
                    self.list(node, &prefix); // compacted
                    continue;
                }
                self.report(node, prefix, change.clone());
            }
        }
    }

    pub(super) fn report(&mut self, node: usize, prefix: String, watched: Watched) {
        let slow = !self.quiet && self.rng.u32(0..20) == 0;
        let wait = if slow { self.rng.u64(0..3_000) } else { self.rng.u64(0..5) };
        let at = (self.now + wait).max(self.nodes[node].last_report);
        self.nodes[node].last_report = at;
        let life = self.nodes[node].life;
        self.after(at - self.now, Event::Report { node, life, prefix, watched });
    }

    pub(super) fn list(&mut self, node: usize, prefix: &str) {
        let keys = self.etcd.read(&Span::prefix(prefix, usize::MAX));
        self.report(node, prefix.to_owned(), Watched::Listed(keys));
    }
}
