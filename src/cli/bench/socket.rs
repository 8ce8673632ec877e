//! Mode `socket`: the API without the plugin, and the daemon's memory and wake-ups.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::calls::{WIDE, config};
use super::echo::Echo;
use super::load::{Connection, Load, Loaded, Until, block_on, in_arrays, maker};
use super::report::{Series, Spread, Target};
use super::{Bench, Plan, node};
use crate::cli::child::daemon::Daemon;

const MODE: &str = "socket";

/// Connections at once.
const CONNECTIONS: [u64; 4] = [1, 4, 16, 64];

/// The case whose rate is compared with the echo's.
const CONNECTIONS_COMPARED: u64 = 16;

/// Calls in one array.
const ARRAY: u64 = 64;

/// The number of turns of each contender within a round.
const TURNS: u32 = 4;

/// The time that a daemon at rest is watched.
const REST: Duration = Duration::from_secs(10);
const REST_QUICK: Duration = Duration::from_secs(1);

/// A daemon with a number of addresses taken.
struct Level {
    taken: u32,
    dir: PathBuf,
    daemon: Daemon,
}

/// The number of steps of the progress bar.
pub(super) fn steps(plan: &Plan) -> u64 {
    let rounds = CONNECTIONS.len() + 1;
    u64::from(plan.rounds) * rounds as u64 + 2 * plan.taken.len() as u64 + 1
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let config = config("bench", WIDE, "my-ipam");
    let echo = Echo::start(&bench.dir, bench.interrupt)?;
    let mut levels = Vec::new();
    for taken in bench.plan.taken.clone() {
        bench.step(&format!("socket, {taken} are taken"))?;
        let dir = bench.subdir(&format!("taken-{taken}"))?;
        let daemon = Daemon::start_with(&dir, &[], bench.interrupt)?;
        let level = Level { taken, dir, daemon };
        if levels.is_empty() {
            rest(bench, &level.daemon)?;
        }
        fill(bench, &level, &config)?;
        levels.push(level);
    }
    for connections in CONNECTIONS {
        let every = [1, CONNECTIONS_COMPARED].contains(&connections);
        let compared = if every { levels.as_slice() } else { &levels[..1] };
        calls(bench, connections, compared, &echo, &config)?;
        if connections == 1 {
            arrays(bench, &levels[0], &config)?;
        }
    }
    for level in &mut levels {
        restart(bench, level, &config)?;
    }
    Ok(())
}

/// Measures a daemon that gets no calls.
fn rest(bench: &mut Bench<'_>, daemon: &Daemon) -> anyhow::Result<()> {
    bench.step("socket, at rest")?;
    let time = if bench.plan.quick { REST_QUICK } else { REST };
    let before = node::wakeups(daemon.pid())?;
    anyhow::ensure!(!bench.interrupt.wait(time), "interrupted");
    let woken = node::wakeups(daemon.pid())? - before;
    #[allow(clippy::cast_precision_loss)]
    let (resident, woken) = (
        node::resident(daemon.pid())? as f64 / f64::from(1 << 20),
        woken as f64 / time.as_secs_f64(),
    );
    bench.report.find(MODE, "resident at rest", resident, "MiB", Target::AtMost(20.0));
    bench.report.find(MODE, "wake-ups per second at rest", woken, "", Target::None);
    Ok(())
}

/// Takes the addresses of a level, and measures the memory that one of them needs.
fn fill(bench: &mut Bench<'_>, level: &Level, config: &Value) -> anyhow::Result<()> {
    let (socket, taken) = (level.daemon.socket(), u64::from(level.taken));
    // The memory that the first calls need stays, and is not the cost of an allocation.
    let warm = Until::Time(bench.plan.slice);
    load(socket, 16, warm, config).run()?;
    let before = node::resident(level.daemon.pid())?;
    block_on(async {
        let mut connection = Connection::open(socket).await?;
        in_arrays(&mut connection, "ADD", (maker(), 0..taken), ARRAY, config).await
    })?;
    let after = node::resident(level.daemon.pid())?;
    if taken > 0 {
        #[allow(clippy::cast_precision_loss)]
        let each = after.saturating_sub(before) as f64 / taken as f64;
        let what = format!("memory of an allocation, {taken} taken");
        bench.report.find(MODE, what, each, "bytes", Target::AtMost(300.0));
    }
    Ok(())
}

fn load<'a>(
    socket: &'a std::path::Path,
    connections: u64,
    until: Until,
    config: &'a Value,
) -> Load<'a> {
    Load { socket, connections, until, keep: 0, period: Duration::ZERO, config }
}

/// Measures ADD and DEL in turn on a number of connections: daemons, and the echo.
fn calls(
    bench: &mut Bench<'_>,
    connections: u64,
    levels: &[Level],
    echo: &Echo,
    config: &Value,
) -> anyhow::Result<()> {
    let verbs = ["ADD", "DEL", "ADD and DEL"];
    let plural = if connections == 1 { "" } else { "s" };
    let series = |name: String| -> anyhow::Result<Vec<Series>> {
        let case = |verb| format!("{verb}, {connections} connection{plural}");
        verbs.iter().map(|verb| Series::new(MODE, case(verb), name.clone())).collect()
    };
    let mut contenders = Vec::new();
    for level in levels {
        let name = format!("leasehold, {} taken", level.taken);
        contenders.push((level.daemon.socket(), series(name)?));
    }
    contenders.push((&echo.socket, series("echo".into())?));
    let commits = || levels[0].daemon.metric("leasehold_journal_commits_total", &[]);
    let (before, mut answers) = (commits()?, 0);
    for _ in 0..bench.plan.rounds {
        bench.step(&format!("socket, {connections} connection{plural}"))?;
        let mut sums: Vec<Option<Loaded>> = contenders.iter().map(|_| None).collect();
        for _ in 0..TURNS {
            for ((socket, _), sum) in contenders.iter().zip(&mut sums) {
                let until = Until::Time(bench.plan.slice / TURNS);
                let loaded = load(socket, connections, until, config).run()?;
                match sum {
                    Some(sum) => sum.add(&loaded)?,
                    None => *sum = Some(loaded),
                }
            }
        }
        answers += sums[0].as_ref().map_or(0, |sum| sum.adds.len() + sum.dels.len());
        for ((_, series), sum) in contenders.iter_mut().zip(sums.iter().flatten()) {
            let all = [sum.adds.clone(), sum.dels.clone(), sum.both()?];
            for (series, calls) in series.iter_mut().zip(&all) {
                series.round(calls, sum.took)?;
            }
        }
    }
    #[allow(clippy::cast_precision_loss)]
    let commits = (commits()? - before) / answers as f64;
    let all: Vec<&[Series]> = contenders.iter().map(|(_, series)| series.as_slice()).collect();
    bench.report.series(all.iter().flat_map(|series| series.iter()));
    findings(bench, connections, levels, &all, commits);
    Ok(())
}

fn findings(
    bench: &mut Bench<'_>,
    connections: u64,
    levels: &[Level],
    all: &[&[Series]],
    commits: f64,
) {
    let (ours, echo) = (all[0], all[all.len() - 1]);
    let mut find = |what: String, value: Spread, unit, target| {
        bench.report.find(MODE, what, value, unit, target);
    };
    let with = format!("{connections} connections");
    if connections == CONNECTIONS_COMPARED {
        let share = ours[2].more_than(&echo[2]);
        find(format!("rate against the echo's, {with}"), share, "times", Target::AtLeast(0.5));
        let what = format!("journal commits per answer, {with}");
        find(what, commits.into(), "", Target::AtMost(1.0));
    }
    for (level, series) in levels.iter().zip(all).skip(1) {
        let taken = format!("{} taken against {}", level.taken, levels[0].taken);
        if connections == 1 {
            let slower = series[0].slower_than(&ours[0]);
            find(format!("ADD with {taken}"), slower, "times", Target::AtMost(1.2));
        } else {
            let share = series[2].more_than(&ours[2]);
            find(format!("rate with {taken}, {with}"), share, "times", Target::None);
        }
    }
}

/// Measures arrays of calls against calls one by one.
fn arrays(bench: &mut Bench<'_>, level: &Level, config: &Value) -> anyhow::Result<()> {
    let socket = level.daemon.socket();
    let slice = bench.plan.slice / TURNS;
    let mut single = Series::new(MODE, "ADD and DEL, one by one", "leasehold")?;
    let mut arrays = Series::new(MODE, format!("arrays of {ARRAY} calls"), "leasehold")?;
    for _ in 0..bench.plan.rounds {
        bench.step("socket, arrays of calls")?;
        for _ in 0..TURNS {
            let loaded = load(socket, 1, Until::Time(slice), config).run()?;
            single.round(&loaded.both()?, loaded.took)?;
            let (each, took) = block_on(async {
                let mut connection = Connection::open(socket).await?;
                let (mut all, mut sum) = (super::report::times()?, Duration::ZERO);
                while sum < slice {
                    let numbers = (maker(), 0..ARRAY);
                    for command in ["ADD", "DEL"] {
                        let done =
                            in_arrays(&mut connection, command, numbers.clone(), ARRAY, config);
                        let (each, took) = done.await?;
                        all.add(each)?;
                        sum += took;
                    }
                }
                Ok((all, sum))
            })?;
            arrays.round(&each, took)?;
        }
    }
    bench.report.series([&single, &arrays]);
    #[allow(clippy::cast_precision_loss)]
    let times = arrays.more_than(&single).scaled(ARRAY as f64);
    let what = format!("rate in arrays of {ARRAY} against one by one");
    bench.report.find(MODE, what, times, "times", Target::AtLeast(5.0));
    Ok(())
}

/// Measures the time without answers when a daemon is killed and started again.
fn restart(bench: &mut Bench<'_>, level: &mut Level, config: &Value) -> anyhow::Result<()> {
    let taken = level.taken;
    bench.step(&format!("socket, restart with {taken} taken"))?;
    level.daemon.kill()?;
    let began = Instant::now();
    level.daemon = Daemon::start_with(&level.dir, &[], bench.interrupt)?;
    load(level.daemon.socket(), 1, Until::Adds(1), config).run()?;
    let took = began.elapsed().as_secs_f64();
    let what = format!("kill -9 to the first answered ADD, {taken} taken");
    let target = if taken <= 60_000 { Target::AtMost(1.0) } else { Target::None };
    bench.report.find(MODE, what, took, "s", target);
    Ok(())
}
