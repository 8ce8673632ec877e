//! Mode `soak`: many clients on each daemon, round after round. Memory, open files and times must
//! stay what they were.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::calls::{WIDE, config};
use super::load::{Load, Loaded, Until, run_all};
use super::report::{Series, Spread, Target, times};
use super::{Bench, Plan, cluster, node};
use crate::cli::child::daemon::Daemon;

const MODE: &str = "soak";

/// Clients of each daemon, each with a connection that it keeps.
const CLIENTS: u64 = 200;
const CLIENTS_QUICK: u64 = 10;

/// Containers that live on each connection.
const KEEP: usize = 10;
const KEEP_QUICK: usize = 0;

/// The time of one round.
const ROUND: Duration = Duration::from_secs(60);
const ROUND_QUICK: Duration = Duration::from_millis(300);

/// The time between two looks at the daemons.
const LOOK: Duration = Duration::from_millis(250);

/// The most that memory and times may grow: the last round against the second one. The first one
/// fills the pool's cooldown and the journal's cache.
const GROWTH_MAX: f64 = 1.25;

/// The largest figures of a daemon in one round.
#[derive(Clone, Copy, Default, Debug)]
struct Peak {
    resident: u64,
    files: u64,
}

/// The number of steps of the progress bar.
pub(super) fn steps(plan: &Plan) -> u64 {
    u64::from(plan.rounds) + 1
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    bench.step("soak, daemons start")?;
    let Some((_etcd, daemons)) = cluster::start_all(bench)? else { return Ok(()) };
    let mut rounds = Vec::new();
    for number in 1..=bench.plan.rounds {
        bench.step("soak")?;
        let (loaded, peak) = round(bench.plan, &daemons)?;
        let (mib, files) = (mib(peak.resident), peak.files);
        let p99 = loaded.both()?.value_at_quantile(0.99);
        for (verb, calls) in [("ADD", &loaded.adds), ("DEL", &loaded.dels)] {
            let case = format!("{verb}, round {number}: {mib:.1} MiB, {files} files");
            let who = match daemons.len() {
                1 => "1 daemon".to_owned(),
                count => format!("{count} daemons"),
            };
            let mut series = Series::new(MODE, case, who)?;
            series.round(calls, loaded.took)?;
            bench.report.series([&series]);
        }
        rounds.push((peak, p99));
    }
    find(bench, &rounds);
    Ok(())
}

/// One round: its calls, and the largest figures of the daemons meanwhile.
fn round(plan: &Plan, daemons: &[Daemon]) -> anyhow::Result<(Loaded, Peak)> {
    let config = config("soak", WIDE, "my-ipam");
    let (connections, time, keep) =
        if plan.quick { (CLIENTS_QUICK, ROUND_QUICK, KEEP_QUICK) } else { (CLIENTS, ROUND, KEEP) };
    let loads = daemons.iter().map(|daemon| Load {
        socket: daemon.socket(),
        connections,
        until: Until::Time(time),
        keep,
        period: Duration::ZERO,
        config: &config,
    });
    let loads: Vec<_> = loads.collect();
    let over = AtomicBool::new(false);
    let (loaded, peak) = thread::scope(|scope| {
        let watched = scope.spawn(|| watch(daemons, &over));
        let loaded = run_all(&loads);
        over.store(true, Ordering::Relaxed);
        (loaded, watched.join())
    });
    let peak = peak.map_err(|_| anyhow::anyhow!("the daemons were not watched"))??;
    let mut sum = Loaded { adds: times()?, dels: times()?, took: Duration::ZERO };
    for one in loaded? {
        sum.adds.add(&one.adds)?;
        sum.dels.add(&one.dels)?;
        sum.took = sum.took.max(one.took);
    }
    Ok((sum, peak))
}

/// The largest figures of any daemon, until the round is over.
fn watch(daemons: &[Daemon], over: &AtomicBool) -> anyhow::Result<Peak> {
    let mut peak = Peak::default();
    loop {
        for daemon in daemons {
            peak.resident = peak.resident.max(node::resident(daemon.pid())?);
            peak.files = peak.files.max(node::open_files(daemon.pid())?);
        }
        if over.load(Ordering::Relaxed) {
            return Ok(peak);
        }
        thread::sleep(LOOK);
    }
}

#[allow(clippy::cast_precision_loss)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[allow(clippy::cast_precision_loss)]
fn find(bench: &mut Bench<'_>, rounds: &[(Peak, u64)]) {
    let spread = |figure: fn(&(Peak, u64)) -> f64| rounds.iter().map(figure).collect::<Spread>();
    let resident = spread(|(peak, _)| mib(peak.resident));
    let files = spread(|(peak, _)| peak.files as f64);
    let p99 = spread(|(_, p99)| *p99 as f64 / 1000.0);
    let growth = |figure: fn(&(Peak, u64)) -> f64| {
        let first =
            rounds.get(1).filter(|_| rounds.len() > 2).or(rounds.first()).map_or(f64::NAN, figure);
        rounds.last().map_or(f64::NAN, figure) / first
    };
    let target = if bench.plan.quick { Target::None } else { Target::AtMost(GROWTH_MAX) };
    let report = &mut bench.report;
    report.find(MODE, "largest daemon, resident", resident, "MiB", Target::None);
    report.find(MODE, "most open files of a daemon", files, "", Target::None);
    report.find(MODE, "p99 of ADD and DEL", p99, "us", Target::None);
    let last = [
        ("resident, last round against the second", growth(|(peak, _)| peak.resident as f64)),
        ("open files, last round against the second", growth(|(peak, _)| peak.files as f64)),
        ("p99, last round against the second", growth(|(_, p99)| *p99 as f64)),
    ];
    for (what, value) in last {
        report.find(MODE, what, value, "times", target);
    }
}
