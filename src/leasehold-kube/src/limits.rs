//! Every limit and period, each with its reason.

use std::time::Duration;

/// The times that tests make shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// The time for which nobody else takes the Lease.
    pub(crate) lease: Duration,
    /// The time between two renewals, and the longest time for one.
    pub(crate) renew: Duration,
    /// The longest time for an answer of the daemon.
    pub(crate) request: Duration,
    /// The time before the end of the Lease at which the leader stops to act.
    pub(crate) margin: Duration,
    /// The time between two looks at what is due.
    pub(crate) tick: Duration,
    /// The shortest pause between two lists, and before the next one after a failure.
    pub(crate) pause: Duration,
    /// The time for which this instance itself must have missed a node: clocks of instances differ.
    pub(crate) confirm: Duration,
    /// The time between two looks at what each node can still have.
    pub(crate) look: Duration,
}

/// The times of a cluster.
pub(crate) const TIMING: Timing = Timing {
    // The same as the components of Kubernetes itself.
    lease: Duration::from_secs(15),
    // Two renewals may fail before another instance takes over.
    renew: Duration::from_secs(5),
    // An answer takes longer if many records of a node are deleted; the next try goes on then.
    request: Duration::from_secs(6),
    // Two clocks of one length run apart by far less in 15 s.
    margin: Duration::from_secs(1),
    // Deletions are known at once, so this is only the precision of the grace.
    tick: Duration::from_secs(5),
    // An API server that is away is not asked in a loop.
    pause: Duration::from_secs(1),
    confirm: Duration::from_secs(30),
    // The scheduler sees shares that are as old as this.
    look: Duration::from_secs(10),
};

/// The longest pause between two lists if the API server does not answer.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The longest time for one answer of the API server: a page of 500 nodes is a few megabytes.
pub(crate) const API_TIME_MAX: Duration = Duration::from_secs(30);

/// The time after which the API server ends a watch: the nodes are then listed anew, so that no
/// mistake about them lasts longer. kube allows up to 294 s.
pub(crate) const WATCH_SECONDS: u32 = 290;

/// A watch that was silent for this long has lost its connection: it should have ended by itself.
pub(crate) const WATCH_SILENCE_MAX: Duration = Duration::from_secs(300);

/// Nodes per page of a list.
pub(crate) const NODES_PER_PAGE: u32 = 500;

/// The shortest and the longest grace that can be given: a node that is replaced under its name
/// needs some time to register, and a week is as good as never.
pub(crate) const GRACE: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(7 * 24 * 3600));

/// The pause before a node is tried again of which a daemon did not say that it is removed; it
/// doubles with each try.
pub(crate) const RETRY_MIN: Duration = Duration::from_secs(30);
/// The longest such pause.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(600);

/// The time after the end of a removed node's quarantine at which the cluster is told to forget it.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(60);

/// With at least this many missing at once, and more than half of those remembered, something else
/// is wrong than the nodes.
pub(crate) const MANY_MIN: usize = 3;

/// The longest duration that another instance's Lease is taken to have: one that says more was not
/// written by this program.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(120);

/// The time after which a second event may be written about a pod.
pub(crate) const REPORT_AGAIN: Duration = Duration::from_secs(600);

/// Pods of which an event is written in that time: events are the API server's memory.
pub(crate) const REPORTS_MAX: usize = 500;

/// The longest text of the plugin in an event; the API server allows 1,024 bytes in all.
pub(crate) const REPORT_CHARS_MAX: usize = 450;

/// Characters of a pod's name that go into the name of an event, before the number.
pub(crate) const EVENT_NAME_CHARS_MAX: usize = 200;

/// The largest number of pods that a node is said to have addresses for: a network of IPv6 has more
/// than anybody counts.
pub(crate) const CAPACITY_MAX: u64 = 1_000_000;

/// Node objects that are written after one look: the API server has other work. A change of all of
/// 5,000 nodes takes ten minutes.
pub(crate) const CAPACITY_PATCHES_MAX: usize = 100;

/// The time for which a list of what was published is believed.
pub(crate) const CAPACITY_LIST: Duration = Duration::from_secs(300);

/// The longest time for the daemon's address map, which it may have to count the records for.
pub(crate) const MAP_TIME_MAX: Duration = Duration::from_secs(60);
