//! The events of a run in order: the answers that clients saw, and the faults of nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::judge::{Judge, Violation};

/// The events that are kept to be shown.
const EVENTS_MAX: usize = 400_000;

/// An attachment: the number of its container. No two containers of a run have the same.
pub(super) type Container = u32;
/// A node, by its place among those of the run.
pub(super) type NodeAt = usize;
/// The addresses of an answer, one for each range set.
pub(super) type Addresses = Vec<IpAddr>;
/// The list of a node.
pub(super) type Held = BTreeMap<Container, Addresses>;

/// One thing that a client saw, or that was done to a node.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The time since the run began.
    pub(super) at: Duration,
    pub(super) what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// An ADD is sent to a node.
    Add(Container, NodeAt),
    /// It is answered.
    Added(Container, Addresses),
    /// It fails with a code.
    Refused(Container, u64),
    /// Nobody knows what came of it.
    AddLost(Container),
    /// A DEL is sent.
    Del(Container),
    /// It is answered. An answer of the plugin may mean a note, which the daemon acts on later.
    Deleted(Container, By),
    /// A node lists what it holds; `asked` is when it was asked.
    /// `last`: it is the end of the run.
    Listed { node: NodeAt, asked: Duration, held: Held, last: bool },
    /// The state directory of a node is lost, or set back to an old copy. ADDs that were answered
    /// after `adds`, and DELs after `dels`, may be undone: their records were not written yet. For
    /// DELs that were sent more than once that time is `repeated_dels`. An address that is held
    /// without a record cools for `cooldown` first.
    Forgot {
        node: NodeAt,
        adds: Duration,
        dels: Duration,
        repeated_dels: Duration,
        cooldown: Duration,
    },
    /// The node has joined since, and knows again what it holds.
    Remembered(NodeAt),
    /// All containers of a node were stopped: nobody uses their addresses, and their DELs are due.
    Stopped(NodeAt),
    /// A node has another boot: its containers are no more, and their addresses are free.
    Rebooted(NodeAt),
    /// A node that was there for a while is gone with its containers.
    Gone(NodeAt),
    /// A fault begins or ends.
    Fault(String),
}

/// The way of a DEL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    Socket,
    Plugin,
}

impl What {
    /// The container that it is about.
    pub(super) fn container(&self) -> Option<Container> {
        match self {
            Self::Add(it, _) | Self::Added(it, _) | Self::Refused(it, _) => Some(*it),
            Self::AddLost(it) | Self::Del(it) | Self::Deleted(it, _) => Some(*it),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:9.3} ", self.at.as_secs_f64())?;
        match &self.what {
            What::Listed { node, asked, held, last } => {
                let (asked, last) = (asked.as_secs_f64(), if *last { " in the end" } else { "" });
                write!(to, "node-{node}, asked at {asked:.3}{last}, lists {} of them", held.len())
            }
            What::Fault(text) => to.write_str(text),
            other => write!(to, "{other:?}"),
        }
    }
}

/// The history of a run, which is judged as it grows.
pub(super) struct History {
    began: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    judge: Judge,
    events: VecDeque<Event>,
    /// The number of times that each node lost its callers: an answer that was on its way then
    /// reaches nobody.
    eras: Vec<u32>,
    counts: Counts,
}

/// The figures of a run.
#[derive(Clone, Default, Debug)]
pub(super) struct Counts {
    pub(super) adds: u64,
    pub(super) added: u64,
    pub(super) dels: u64,
    pub(super) unanswered: u64,
    /// Refused ADDs, by code.
    pub(super) refused: BTreeMap<u64, u64>,
}

impl History {
    pub(super) fn new(nodes: usize) -> Self {
        let inner = Inner {
            judge: Judge::default(),
            events: VecDeque::new(),
            eras: vec![0; nodes],
            counts: Counts::default(),
        };
        Self { began: Instant::now(), inner: Mutex::new(inner) }
    }

    /// The time since the run began.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns the number of times that a node has lost its callers.
    pub(super) fn era(&self, node: NodeAt) -> u32 {
        self.lock().eras[node]
    }

    /// Notes something.
    pub(super) fn note(&self, what: What) {
        let mut inner = self.lock();
        let at = self.began.elapsed();
        if let What::Forgot { node, .. }
        | What::Stopped(node)
        | What::Rebooted(node)
        | What::Gone(node) = what
        {
            inner.eras[node] += 1;
        }
        inner.take(Event { at, what });
    }

    /// Notes the answer to a call that was sent in an era of the node. False if it comes too late.
    pub(super) fn answer(&self, node: NodeAt, era: u32, what: What) -> bool {
        let mut inner = self.lock();
        let at = self.began.elapsed();
        let in_time = inner.eras[node] == era;
        let what = match what {
            _ if in_time => what,
            What::Added(it, _) | What::Refused(it, _) => What::AddLost(it),
            What::Deleted(..) => return false,
            other => other,
        };
        inner.take(Event { at, what });
        in_time
    }

    /// Notes that a fault begins or ends, and says so: a run may be long.
    pub(super) fn fault(&self, text: String) {
        println!("{:9.3} {text}", self.now().as_secs_f64());
        self.note(What::Fault(text));
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        self.lock().judge.violations().to_vec()
    }

    /// True if the judge has found something.
    pub(super) fn is_violated(&self) -> bool {
        !self.lock().judge.violations().is_empty()
    }

    /// Returns the addresses that containers hold by the answers that they got.
    pub(super) fn held(&self) -> Vec<(Container, NodeAt, Addresses)> {
        self.lock().judge.held()
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Everything that concerns a violation: its containers, all that had its address, and what was
    /// done to nodes meanwhile.
    pub(super) fn story(&self, violation: &Violation) -> String {
        let inner = self.lock();
        let mut containers: BTreeSet<Container> = violation.containers.iter().copied().collect();
        for event in &inner.events {
            if let What::Added(container, addresses) = &event.what
                && violation.address.is_some_and(|address| addresses.contains(&address))
            {
                containers.insert(*container);
            }
        }
        let mut text = format!("{violation}\n");
        for Event { at, what } in &inner.events {
            let concerned = match what {
                What::Listed { held, .. } => {
                    let of: BTreeMap<_, _> =
                        held.iter().filter(|(it, _)| containers.contains(it)).collect();
                    if !of.is_empty() {
                        text.push_str(&format!("{:9.3} listed: {of:?}\n", at.as_secs_f64()));
                    }
                    false
                }
                what => what.container().is_none_or(|it| containers.contains(&it)),
            };
            if concerned {
                text.push_str(&format!("{}\n", Event { at: *at, what: what.clone() }));
            }
        }
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("the history")
    }
}

impl Inner {
    fn take(&mut self, event: Event) {
        let counts = &mut self.counts;
        match &event.what {
            What::Add(..) => counts.adds += 1,
            What::Added(..) => counts.added += 1,
            What::Refused(_, code) => *counts.refused.entry(*code).or_default() += 1,
            What::AddLost(_) => counts.unanswered += 1,
            What::Del(_) => counts.dels += 1,
            _ => {}
        }
        self.judge.hear(&event);
        self.events.push_back(event);
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }
}
