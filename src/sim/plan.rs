//! The plan of a run: drawn from its seed.

use std::sync::Arc;
use std::time::Duration;

use super::Millis;
use crate::core::address::BlockSize;
use crate::core::mutant::Mutant;
use crate::core::range::{Range, RangeSpec, Ranges};
use crate::core::range_set::Settings;

/// A configuration of the network: one range set for each address of an ADD.
pub(super) type Configuration = Vec<Arc<Ranges>>;

/// The events that may happen in a run: times in milliseconds, 0 for never.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// All addresses of the pool.
    pub(super) whole: Arc<Ranges>,
    /// The configurations that come and go; the first has the whole pool.
    pub(super) configurations: Vec<Configuration>,
    /// The time for which things go wrong.
    pub(super) span: Millis,
    /// The mean time between calls.
    pub(super) between_calls: Millis,
    /// The number of containers that a node wants.
    pub(super) containers: usize,
    pub(super) settings: Settings,
    pub(super) await_records: bool,
    pub(super) offline_limit: Option<Duration>,
    /// The containers of a node go away at times, nearly all of them, and come again.
    pub(super) tides: bool,
    /// Runtimes repeat ADDs.
    pub(super) repeats: bool,
    /// One in so many messages to the store is lost, or its answer, or it is late.
    pub(super) bad_message: u32,
    /// The longest time that a write to the journal takes.
    pub(super) write_ms: Millis,
    /// One in so many messages between machines is followed by a pause.
    pub(super) idle: u32,
    /// The mean time between faults of each kind.
    pub(super) faults: Vec<(Fault, Millis)>,
    /// The quarantine of the blocks of a node that is removed while it lives, in seconds.
    pub(super) quarantine_s: u64,
    /// Some machines come back with an empty disk, or an old one.
    pub(super) bad_disks: bool,
    /// Containers outlive a reboot of their machine.
    pub(super) keep_after_reboot: bool,
    /// The most commits that a journal writes at once.
    pub(super) group_max: usize,
}

/// Something that goes wrong, or that operators do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// `kill -9`.
    Crash,
    /// SIGTERM.
    Stop,
    /// SIGSTOP for a while.
    Pause,
    /// The node does not reach the store.
    Cut,
    /// Nobody does.
    Outage,
    /// The machine starts again.
    Reboot,
    /// The journal's disk fails.
    Disk,
    /// The state directory is lost, or replaced by an old copy, while containers run.
    Forget,
    /// An operator removes the node.
    Remove,
    /// The machine seems gone for good: it is off, an operator removes its node, and it comes back
    /// after the quarantine.
    Vanish,
    /// The store is restored from a backup.
    Restore,
    /// An operator drains the node, or ends that.
    Drain,
    /// Another configuration of the network.
    Configure,
    /// A daemon starts on another state directory under the name of a node, which is cut off.
    Usurp,
}

impl Plan {
    /// Returns whether the store can always be asked, and every node too.
    pub(super) fn has_no_outages(&self) -> bool {
        use Fault::{Configure, Crash, Disk, Drain, Forget, Stop};
        let harmless = [Configure, Crash, Disk, Drain, Forget, Stop];
        self.bad_message == 0 && self.faults.iter().all(|(fault, _)| harmless.contains(fault))
    }

    /// Returns whether a machine can lose what runs on it, or all that it knew of that.
    fn loses_what_runs(&self) -> bool {
        let loses = |fault: &Fault| matches!(fault, Fault::Vanish | Fault::Forget);
        self.faults.iter().any(|(fault, _)| loses(fault))
    }

    /// Returns whether nothing goes wrong and each of these range sets has enough addresses for
    /// every container.
    pub(super) fn has_enough(&self, sets: &Configuration) -> bool {
        let offered = |range: &Range| {
            range.addresses().iter().filter(|number| range.offers(*number, None)).count()
        };
        let addresses = |set: &Arc<Ranges>| set.iter().map(offered).sum::<usize>();
        let suffices = |set| self.nodes * self.containers <= addresses(set);
        self.faults.is_empty() && self.bad_message == 0 && sets.iter().all(suffices)
    }
}

/// Returns the ranges with these first and last addresses, in subnets that contain them.
fn ranges(parts: &[(&str, Option<(&str, &str)>)], block_size: Option<u8>) -> Arc<Ranges> {
    let range = |(subnet, part): &(&str, Option<(&str, &str)>)| {
        let (start, end) = part.unzip();
        let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let spec = RangeSpec {
            subnet: subnet.parse().unwrap(),
            start: address(start),
            end: address(end),
            gateway: None,
            sandbox: vec![],
            smallflow: vec![],
        };
        Range::new(spec).unwrap()
    };
    Arc::new(
        Ranges::new(parts.iter().map(range).collect(), block_size.map(BlockSize::of_log2)).unwrap(),
    )
}

/// Returns all addresses of a subnet.
pub(super) fn subnet(subnet: &str, block_size: Option<u8>) -> Arc<Ranges> {
    ranges(&[(subnet, None)], block_size)
}

/// Returns the addresses of a subnet from the first to the last.
pub(super) fn part(subnet: &str, first: &str, last: &str, block_size: Option<u8>) -> Arc<Ranges> {
    ranges(&[(subnet, Some((first, last)))], block_size)
}

/// Configurations of a pool that shrink it, take it apart, put it together, and change its family.
fn configurations(large: bool, log2: u8) -> Vec<Configuration> {
    let (net, low, high) = if large {
        ("10.0.0.0/26", ("10.0.0.1", "10.0.0.31"), ("10.0.0.32", "10.0.0.62"))
    } else {
        ("10.0.0.0/28", ("10.0.0.1", "10.0.0.7"), ("10.0.0.8", "10.0.0.14"))
    };
    // So that both halves are whole blocks.
    let size = Some(log2.min(3));
    let whole = subnet(net, size);
    let half = |(first, last)| part(net, first, last, size);
    let v6 = subnet("fd00::/124", Some(0));
    vec![
        vec![whole.clone()],
        vec![part(net, "10.0.0.3", "10.0.0.9", size)],
        vec![half(low), half(high)],
        vec![half(high)],
        vec![ranges(&[(net, Some(low)), (net, Some(high))], size)],
        vec![v6.clone()],
        vec![whole, v6],
    ]
}

/// Returns a plan in which nothing goes wrong.
pub(super) fn calm(nodes: usize) -> Plan {
    let whole = subnet("10.0.0.0/26", Some(2));
    Plan {
        nodes,
        configurations: vec![vec![whole.clone()]],
        whole,
        span: 60_000,
        between_calls: 50,
        containers: 30,
        settings: Settings {
            cooldown: Duration::from_millis(500),
            min_free: 4,
            forget_after: Duration::from_secs(600),
            seed: 0,
        },
        await_records: false,
        offline_limit: None,
        tides: false,
        repeats: false,
        bad_message: 0,
        write_ms: 3,
        idle: 0,
        faults: vec![],
        quarantine_s: 300,
        bad_disks: false,
        keep_after_reboot: false,
        group_max: 4,
    }
}

/// Returns a plan in which nothing goes wrong in this pool.
pub(super) fn calm_in(whole: Arc<Ranges>, nodes: usize) -> Plan {
    Plan { configurations: vec![vec![whole.clone()]], whole, ..calm(nodes) }
}

/// Returns the run that a seed decides: some things go wrong, never all at once. In one of eight,
/// containers outlive reboots, if their machines lose nothing.
pub(super) fn plan(seed: u64) -> Plan {
    let mut plan = without_keeping(seed);
    plan.keep_after_reboot = seed % 8 == 1 && !plan.loses_what_runs();
    plan.bad_disks &= !plan.keep_after_reboot;
    plan
}

/// Returns the run that a seed decides, but for `keep_after_reboot`: a change of its faults may
/// take away what that needs.
fn without_keeping(seed: u64) -> Plan {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xA5A5);
    let mut faults = Vec::new();
    for (fault, every) in [
        (Fault::Crash, 20_000),
        (Fault::Stop, 40_000),
        (Fault::Pause, 20_000),
        (Fault::Cut, 20_000),
        (Fault::Outage, 40_000),
        (Fault::Reboot, 40_000),
        (Fault::Disk, 60_000),
        (Fault::Remove, 60_000),
        (Fault::Drain, 60_000),
        (Fault::Forget, 80_000),
        (Fault::Configure, 15_000),
    ] {
        if rng.bool() {
            faults.push((fault, every));
        }
    }
    let mut plan = Plan {
        span: 120_000,
        bad_message: if rng.bool() { 30 } else { 0 },
        write_ms: [3, 3, 3_000][rng.usize(0..3)],
        idle: [0, 30, 300][rng.usize(0..3)],
        faults,
        bad_disks: true,
        tides: rng.bool(),
        repeats: rng.bool(),
        ..calm(2)
    };
    plan.nodes = rng.usize(2..6);
    plan.containers = rng.usize(2..40);
    plan.await_records = rng.u32(0..8) == 0;
    plan.offline_limit = (rng.u32(0..6) == 0).then_some(Duration::from_secs(20));
    plan.await_records |= plan.offline_limit.is_some() && seed.is_multiple_of(2);
    plan.settings.cooldown = Duration::from_millis([0, 500, 20_000][rng.usize(0..3)]);
    plan.settings.forget_after = Duration::from_secs([1, 5, 20, 600][rng.usize(0..4)]);
    plan.configurations = configurations(rng.bool(), rng.u8(0..5));
    plan.whole = plan.configurations[0][0].clone();
    if rng.u32(0..4) == 0 {
        // Range sets become one again and again: on machines that come back with empty disks.
        plan.configurations.truncate(5);
        plan.configurations.remove(1);
        plan.faults.retain(|(fault, _)| !matches!(fault, Fault::Configure | Fault::Reboot));
        plan.faults.extend([(Fault::Configure, 4_000), (Fault::Reboot, 15_000)]);
        plan.between_calls = 15;
    }
    if rng.u32(0..4) == 0 {
        // What nobody can know (ARCHITECTURE.md says so): whether an answer that was lost in the
        // moment in which the store was lost too had been given; and, on a node without memory,
        // that there was anything to know.
        let unknowable = [Fault::Remove, Fault::Forget];
        plan.faults.retain(|(fault, _)| !unknowable.contains(fault));
        plan.faults.extend([(Fault::Restore, 60_000), (Fault::Vanish, 40_000)]);
        (plan.bad_message, plan.bad_disks, plan.span) = (0, false, 300_000);
    }
    let restores = plan.faults.iter().any(|(fault, _)| *fault == Fault::Restore);
    if !restores && rng.u32(0..5) == 0 {
        // After a removal the name would be free, and the first one could not come back.
        plan.faults.retain(|(fault, _)| *fault != Fault::Remove);
        plan.faults.push((Fault::Usurp, 15_000));
    }
    plan.group_max = 1 + usize::try_from(seed % 4).unwrap_or(0);
    if seed % 100 == 99 {
        (plan.nodes, plan.containers) = (50, 2);
    }
    plan
}

/// Returns a plan with hardly enough addresses for the containers, and nearly all of the addresses
/// cool: every ADD gets one.
pub(super) fn scarce() -> Plan {
    let mut plan = calm_in(subnet("10.0.0.0/28", Some(0)), 3);
    plan.settings.cooldown = Duration::from_secs(20);
    (plan.containers, plan.between_calls, plan.tides) = (4, 5, true);
    plan
}

/// Returns a run in which nodes vanish and return, and then the store goes back.
pub(super) fn restored(seed: u64) -> Plan {
    let mut plan = calm(3);
    plan.configurations = configurations(seed.is_multiple_of(2), 2);
    plan.configurations.truncate(1);
    plan.whole = plan.configurations[0][0].clone();
    plan.faults = vec![(Fault::Vanish, 40_000), (Fault::Restore, 4_000), (Fault::Crash, 90_000)];
    // What was lost is remembered while addresses of it cool.
    plan.settings.cooldown = Duration::from_secs(20);
    plan.span = 400_000;
    plan
}

/// The rules that have runs of their own ([`focused`]).
pub(super) const FOCUSED: &[Mutant] = &[
    Mutant::MergeNotHeldBack,
    Mutant::RestoredTrusted,
    Mutant::RefusalShared,
    Mutant::UndoEndsMore,
    Mutant::EarlyDelForgotten,
    Mutant::RetryEndsUnknown,
    Mutant::OfflineLimitIgnored,
    Mutant::EndNotAwaited,
    Mutant::LinkUsedAgain,
    Mutant::ForfeitNotFenced,
];

/// Returns a run in which a broken rule matters that hardly ever does: other things go wrong as in
/// [`plan`], and what it takes goes wrong often.
pub(super) fn focused(mutant: Mutant, seed: u64) -> Plan {
    match mutant {
        Mutant::MergeNotHeldBack => merging(seed),
        // A node loses its blocks for good, and the store goes back soon after it has returned.
        Mutant::RestoredTrusted | Mutant::ClaimsWhileRestored => restored(seed),
        Mutant::RefusalShared => scarce(),
        // ADDs are repeated, and wait for their records, in outages.
        Mutant::UndoEndsMore => {
            Plan { await_records: true, repeats: true, ..without_keeping(seed) }
        }
        // Nodes stop, others take what they parked, and they start while they are cut off.
        Mutant::ParkBeforeJournal => {
            let faults = vec![(Fault::Stop, 6_000), (Fault::Cut, 12_000)];
            Plan { faults, tides: true, offline_limit: None, ..without_keeping(seed) }
        }
        // State directories are lost while calls are open.
        Mutant::EarlyDelForgotten => {
            let cut = (Fault::Cut, 20_000);
            let faults = vec![(Fault::Forget, 10_000), (Fault::Crash, 10_000), cut];
            Plan { faults, repeats: true, await_records: false, ..without_keeping(seed) }
        }
        // Answers are lost, and right after that nothing can be reached.
        Mutant::RetryEndsUnknown => {
            let mut plan = Plan {
                faults: vec![(Fault::Cut, 1_500)],
                tides: true,
                await_records: false,
                bad_message: 6,
                ..without_keeping(seed)
            };
            plan.settings.cooldown = Duration::ZERO;
            plan
        }
        Mutant::AnswerTakenTwice => {
            let faults = vec![(Fault::Forget, 20_000), (Fault::Cut, 6_000)];
            let mut plan =
                Plan { faults, tides: true, await_records: false, ..without_keeping(seed) };
            plan.bad_message = 6;
            plan.settings.cooldown = Duration::ZERO;
            plan
        }
        // What a node sends is late, and meanwhile it is silent and others need its addresses.
        Mutant::ForfeitNotFenced => {
            let faults = vec![(Fault::Cut, 4_000), (Fault::Pause, 8_000)];
            let mut plan = Plan { faults, tides: true, ..without_keeping(seed) };
            (plan.await_records, plan.offline_limit) = (true, Some(Duration::from_secs(12)));
            (plan.bad_message, plan.containers, plan.nodes) = (3, 40, 3);
            plan.settings.cooldown = Duration::ZERO;
            plan.configurations.truncate(1);
            plan
        }
        Mutant::OfflineLimitIgnored => {
            let faults = vec![(Fault::Cut, 8_000), (Fault::Pause, 8_000)];
            let offline_limit = Some(Duration::from_secs(20));
            Plan { faults, offline_limit, await_records: false, ..without_keeping(seed) }
        }
        Mutant::EndNotAwaited => {
            let faults = vec![(Fault::Forget, 10_000), (Fault::Crash, 30_000)];
            Plan { faults, await_records: true, bad_message: 0, ..without_keeping(seed) }
        }
        // Transactions are refused, and old copies of state directories put back.
        Mutant::LinkUsedAgain => {
            let faults = vec![(Fault::Forget, 5_000), (Fault::Cut, 15_000)];
            Plan { faults, tides: true, await_records: false, ..without_keeping(seed) }
        }
        _ => plan(seed),
    }
}

/// Returns a run in which nodes are removed, and join again, while their range sets become one.
fn merging(seed: u64) -> Plan {
    let mut plan = without_keeping(seed);
    plan.faults = vec![
        (Fault::Remove, 8_000),
        (Fault::Configure, 3_000),
        (Fault::Reboot, 20_000),
        (Fault::Outage, 20_000),
    ];
    plan.nodes = plan.nodes.min(4);
    plan.bad_disks = true;
    plan.await_records = false;
    plan.offline_limit = None;
    // Others have what was lost soon, but not before the node has heard that it was removed.
    plan.quarantine_s = 30;
    plan.span = 120_000;
    plan.configurations = configurations(true, 2);
    plan.configurations.truncate(5);
    plan.configurations.remove(1);
    plan.whole = plan.configurations[0][0].clone();
    (plan.between_calls, plan.containers, plan.idle) = (10, 25, 20);
    plan
}
