//! `leasehold demo --nodes 3`: a small cluster with a real etcd. Containers come and go on every
//! node while a daemon is killed and etcd is stopped; the demo notes who holds what.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::counters::{Calls, CallsReport, Counters, Holders};
use super::plugin::{Call, Plugin};
use super::screen::Screen;
use super::steps;
use crate::cli::child::daemon::Daemon;
use crate::cli::child::etcd::Etcd;
use crate::cli::child::interrupt::Interrupt;
use crate::cli::output;

/// The pool of the cluster.
const CONFIG: &str = r#"{
  "cniVersion": "1.1.0",
  "name": "demo",
  "ipam": { "type": "my-ipam", "ranges": [[{ "subnet": "10.20.0.0/16" }]] }
}"#;

/// Callers on each node; each has one container at a time.
const CALLERS: usize = 4;

/// The time for which containers live.
const LIFE: Duration = Duration::from_millis(60);

/// Released addresses cool for so long, and each node keeps that many addresses at hand.
const OPTIONS: [&str; 4] = ["--cooldown", "1s", "--warm-addresses", "128"];

/// The time in which the nodes lease their first blocks, and that of each other phase.
const WARM_UP: Duration = Duration::from_secs(3);
const PHASE: Duration = Duration::from_secs(3);

/// The longest time for which an ADD may wait for a block, in seconds: a bound of the metric. A
/// transaction that leases one takes a few milliseconds; without etcd an ADD would wait for
/// seconds.
const WAIT: &str = "0.25";

/// The remedy when there is no etcd.
const NO_ETCD: &str = "a demo with several nodes needs etcd, and there is no program `etcd`: \
                       install it (Debian and Ubuntu: apt-get install etcd-server; Fedora: dnf \
                       install etcd), or name it with --etcd-bin; `leasehold demo` alone needs \
                       nothing";

/// The events of the cluster, in order.
const PHASES: [&str; 6] = [
    "the nodes lease their first blocks",
    "nothing is wrong",
    "a daemon is killed (SIGKILL)",
    "the daemon is back",
    "etcd is stopped",
    "etcd is back",
];

/// The findings.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// True if everything was right.
    pub(super) ok: bool,
    nodes: usize,
    phases: Vec<ChurnPhase>,
    /// Addresses that were given to a container while another one held them.
    duplicates: usize,
    /// Addresses that are still held after the last DEL.
    left_over: usize,
    /// Everything that was wrong, one sentence each.
    wrong: Vec<String>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct ChurnPhase {
    title: &'static str,
    add: CallsReport,
    del: CallsReport,
    /// ADDs that waited for a block, for however short a time.
    waited: f64,
    /// Those of them that waited for longer than [`WAIT`].
    waited_long: f64,
}

/// ADDs that waited for a block: all of them, and those that waited for longer than [`WAIT`].
#[derive(Clone, Copy, Default, Debug)]
struct Waits {
    all: f64,
    long: f64,
}

/// A running cluster; it ends with this value, the daemons before etcd.
pub(super) struct Cluster {
    pub(super) daemons: Vec<Daemon>,
    etcd: Etcd,
}

impl Cluster {
    /// Starts etcd and the daemons.
    ///
    /// # Errors
    /// One of them cannot be started; if there is no etcd, the error says how to install it.
    pub(super) fn start(
        nodes: usize,
        etcd: &OsStr,
        dir: &Path,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let etcd = Etcd::start(etcd, dir, interrupt).map_err(|error| {
            let cause = error.root_cause().downcast_ref::<std::io::Error>();
            match cause.map(std::io::Error::kind) {
                Some(std::io::ErrorKind::NotFound) => anyhow::anyhow!(NO_ETCD),
                _ => error,
            }
        })?;
        let url = etcd.url();
        let mut cluster = Self { daemons: Vec::new(), etcd };
        for number in 0..nodes {
            let name = format!("node-{number}");
            let place = dir.join(&name);
            std::fs::create_dir(&place).with_context(|| place.display().to_string())?;
            let args = ["--node", &name, "--etcd", &url, "--listen-details"];
            let args: Vec<&str> = args.into_iter().chain(OPTIONS).collect();
            cluster.daemons.push(Daemon::start(&place, &args, interrupt)?);
        }
        Ok(cluster)
    }
}

/// The state that callers share.
struct Shared<'a> {
    plugins: &'a [Plugin],
    /// A node's gate is closed while its daemon is away: its runtime would wait for it.
    gates: Vec<RwLock<()>>,
    holders: Holders,
    phase: AtomicUsize,
    counters: Mutex<Vec<Counters>>,
    twice: Mutex<Vec<String>>,
    next: AtomicU64,
    over: AtomicBool,
}

/// Lets containers come and go through all phases.
///
/// # Errors
/// A program could not be run at all, or the demo was interrupted.
pub(super) fn run(
    cluster: &mut Cluster,
    plugins: &[Plugin],
    screen: &Screen,
    interrupt: &Interrupt,
) -> anyhow::Result<Report> {
    let nodes = plugins.len();
    screen.text("\n")?;
    screen.title(&format!("containers come and go on {nodes} nodes, {CALLERS} callers each"))?;
    let shared = Shared {
        plugins,
        gates: plugins.iter().map(|_| RwLock::new(())).collect(),
        holders: Holders::default(),
        phase: AtomicUsize::new(0),
        counters: Mutex::new(
            PHASES.map(|_| Counters::new()).into_iter().collect::<Result<_, _>>()?,
        ),
        twice: Mutex::default(),
        next: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let waited = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..nodes * CALLERS)
            .map(|caller| {
                let shared = &shared;
                scope.spawn(move || shared.call_until_over(caller % nodes))
            })
            .collect();
        let waited = phases(cluster, &shared, screen, interrupt);
        shared.over.store(true, Ordering::Relaxed);
        let gone = || Err(anyhow::anyhow!("a caller ended early"));
        let ends = callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| gone()));
        let ended: anyhow::Result<Vec<()>> = ends.collect();
        waited.and_then(|waited| ended.map(|_| waited))
    })?;
    interrupt.check()?;
    let mut left = 0;
    for plugin in plugins {
        left += steps::left(plugin)?.len();
    }
    let report = shared.report(&waited, left);
    screen.text(&report.table())?;
    Ok(report)
}

/// Goes through the phases. Returns the ADDs that waited for a block in each.
fn phases(
    cluster: &mut Cluster,
    shared: &Shared<'_>,
    screen: &Screen,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Waits>> {
    let mut waited = Vec::new();
    let last = cluster.daemons.len() - 1;
    let mut closed = None;
    for (at, title) in PHASES.into_iter().enumerate() {
        screen.text(&format!("  {title}\n"))?;
        let before = waits(cluster)?;
        shared.phase.store(at, Ordering::Relaxed);
        match at {
            2 => {
                closed = Some(shared.gates[last].write().unwrap_or_else(PoisonError::into_inner));
                cluster.daemons[last].kill()?;
            }
            3 => {
                cluster.daemons[last].start_again(interrupt)?;
                closed = None;
            }
            4 => cluster.etcd.stop()?,
            5 => cluster.etcd.start_again(interrupt)?,
            _ => {}
        }
        let time = if at == 0 { WARM_UP } else { PHASE };
        anyhow::ensure!(!interrupt.wait(time), "interrupted");
        let after = waits(cluster)?;
        // A daemon that was started anew counts from 0; one that is away is not asked.
        let mut more = Waits::default();
        for (before, after) in before.iter().zip(&after) {
            more.all += (after.all - before.all).max(0.0);
            more.long += (after.long - before.long).max(0.0);
        }
        waited.push(more);
    }
    drop(closed);
    Ok(waited)
}

/// The ADDs that have waited for a block so far, on each node; those of a daemon that is away are
/// 0.
fn waits(cluster: &mut Cluster) -> anyhow::Result<Vec<Waits>> {
    let name = "leasehold_block_wait_duration_seconds";
    let mut all = Vec::new();
    for daemon in &mut cluster.daemons {
        if daemon.must_run().is_err() {
            all.push(Waits::default());
            continue;
        }
        let count = daemon.metric(&format!("{name}_count"), &[])?;
        let short = daemon.metric(&format!("{name}_bucket"), &[&format!("le=\"{WAIT}\"")])?;
        all.push(Waits { all: count, long: count - short });
    }
    Ok(all)
}

impl Shared<'_> {
    /// One caller: starts a container, lets it live, ends it, and so on.
    fn call_until_over(&self, node: usize) -> anyhow::Result<()> {
        let plugin = &self.plugins[node];
        while !self.over.load(Ordering::Relaxed) && !plugin.interrupt().has_come() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let container = format!("batch-{number}");
            let args = format!("K8S_POD_NAMESPACE=demo;K8S_POD_NAME=batch-{number}");
            let add = Call { args: &args, ..call("ADD", &container) };
            let run = self.through(node, |counters| &mut counters.adds, plugin, &add)?;
            let twice = self.holders.hold(number, run);
            self.twice.lock().unwrap_or_else(PoisonError::into_inner).extend(twice);
            plugin.interrupt().wait(LIFE);
            // Before the call: during it, the address may rightly go to another container.
            self.holders.let_go(number);
            self.through(node, |counters| &mut counters.dels, plugin, &call("DEL", &container))?;
        }
        Ok(())
    }

    /// Makes a call while the node's gate is open. Returns the addresses that it printed.
    fn through(
        &self,
        node: usize,
        calls: impl Fn(&mut Counters) -> &mut Calls,
        plugin: &Plugin,
        call: &Call<'_>,
    ) -> anyhow::Result<Vec<String>> {
        let open = self.gates[node].read().unwrap_or_else(PoisonError::into_inner);
        let phase = self.phase.load(Ordering::Relaxed);
        let run = plugin.run(call)?;
        drop(open);
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls(&mut counters[phase]);
        calls.add_call(run.took);
        if let Err(why) = run.succeeded() {
            calls.failed(format!("{} of {}: {why}", call.command, call.container));
        }
        Ok(run.addresses())
    }

    fn report(&self, waited: &[Waits], left_over: usize) -> Report {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let twice = self.twice.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut phases, mut wrong) = (Vec::new(), twice.clone());
        for ((title, counters), &waited) in PHASES.into_iter().zip(&*counters).zip(waited) {
            wrong.extend(counters.adds.problems().iter().chain(counters.dels.problems()).cloned());
            let (add, del) = (counters.adds.report(), counters.dels.report());
            if add.calls == 0 {
                wrong.push(format!("{title}: no container came"));
            }
            let Waits { all: waited, long: waited_long } = waited;
            if waited_long > 0.0 && title != PHASES[0] {
                wrong.push(format!(
                    "{title}: {waited_long} ADDs waited for a block for longer than {WAIT} s"
                ));
            }
            phases.push(ChurnPhase { title, add, del, waited, waited_long });
        }
        if left_over > 0 {
            wrong.push(format!("addresses left over: {left_over}"));
        }
        let (nodes, duplicates) = (self.plugins.len(), twice.len());
        Report { ok: wrong.is_empty(), nodes, phases, duplicates, left_over, wrong }
    }
}

fn call<'a>(command: &'static str, container: &'a str) -> Call<'a> {
    Call { command, container, ifname: "eth0", args: "", config: CONFIG }
}

impl Report {
    /// Everything that was wrong.
    pub(super) fn wrong(&self) -> &[String] {
        &self.wrong
    }

    fn table(&self) -> String {
        let long = format!("> {WAIT} S");
        let header =
            ["", "ADDS", "FAILED", "WAITED", long.as_str(), "P50", "P99", "DELS", "FAILED"];
        let row = |phase: &ChurnPhase| {
            let (add, del) = (&phase.add, &phase.del);
            vec![
                format!("  {}", phase.title),
                add.calls.to_string(),
                add.failures.to_string(),
                phase.waited.to_string(),
                phase.waited_long.to_string(),
                format!("{:.1} ms", add.p50_ms),
                format!("{:.1} ms", add.p99_ms),
                del.calls.to_string(),
                del.failures.to_string(),
            ]
        };
        let table = output::table(&header, self.phases.iter().map(row).collect());
        format!(
            "\n{table}\n  WAITED: ADDs that waited for a block, however short; > {WAIT} S: those \
             that waited for longer\n  addresses held twice: {}, left over: {}\n",
            self.duplicates, self.left_over
        )
    }
}
