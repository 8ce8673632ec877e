//! Mode `plugin`: the time that a container runtime waits, from exec to exit.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::calls::{WIDE, config, container};
use super::echo::Echo;
use super::exec::Program;
use super::load::{ARRAY_MAX, Connection, block_on, in_arrays, maker};
use super::report::{Series, Spread, Target, Times, add_time, times};
use super::{Bench, Plan};
use crate::cli::child;
use crate::cli::child::daemon::Daemon;
use crate::cli::child::plugin::Found;

const MODE: &str = "plugin";

/// The directory of the plugins in Debian's package.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// The plugin itself when it asks no daemon (VERSION), and when it asks the echo.
const EXEC_ALONE: &str = "exec alone";
const ECHO: &str = "echo";

/// Callers at once, after the cases with one.
const CALLERS: [u32; 2] = [8, 32];

/// The fewest turns of each contender in a round.
const TURNS_MIN: u64 = 2;

/// Turns before the first round.
const TURNS_WARM: u32 = 2;

/// A contender with one caller, and its series of ADDs and DELs.
struct Contender {
    name: &'static str,
    program: Program,
    adds: Series,
    dels: Series,
}

/// One round of a contender.
struct Round {
    adds: Times,
    dels: Times,
    took: [Duration; 2],
    turns: u64,
}

/// The number of steps of the progress bar.
pub(super) fn steps(plan: &Plan) -> u64 {
    let cases = plan.taken.len() + CALLERS.len();
    u64::from(plan.rounds) * cases as u64
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let Found { program: plugin, about } = child::plugin::find(bench.interrupt)?;
    bench.report.plugin = Some(about);
    let size = fs::metadata(&plugin)?.len();
    #[allow(clippy::cast_precision_loss)]
    let mebibytes = size as f64 / f64::from(1 << 20);
    bench.report.find(MODE, "size of the plugin", mebibytes, "MiB", Target::AtMost(1.2));
    let echo = Echo::start(&bench.dir, bench.interrupt)?;
    let host_local = find_host_local();
    if host_local.is_none() {
        bench.report.skip("host-local: it is neither in $CNI_PATH nor in /usr/lib/cni");
    }
    for taken in bench.plan.taken.clone() {
        let dir = bench.subdir(&format!("taken-{taken}"))?;
        let daemon = Daemon::start_with(&dir, &[], bench.interrupt)?;
        fill(daemon.socket(), taken)?;
        let mut programs = vec![("leasehold", ours(&plugin, daemon.socket()))];
        if let Some(path) = &host_local {
            programs.push(("host-local", theirs(path, &dir, taken)?));
        }
        if taken == bench.plan.taken[0] {
            let floor = Program { gives_addresses: false, ..ours(&plugin, &echo.socket) };
            let alone = Program { instead: Some("VERSION"), ..floor.clone() };
            programs.extend([(ECHO, floor), (EXEC_ALONE, alone)]);
        }
        one_caller(bench, taken, &programs)?;
        if taken == bench.plan.taken[0] {
            programs.retain(|(name, _)| *name != EXEC_ALONE);
            for callers in CALLERS {
                many_callers(bench, callers, &programs)?;
            }
        }
    }
    Ok(())
}

fn ours(plugin: &Path, socket: &Path) -> Program {
    Program {
        path: plugin.to_owned(),
        socket: socket.into(),
        config: config("bench", WIDE, "my-ipam").to_string(),
        instead: None,
        gives_addresses: true,
    }
}

fn find_host_local() -> Option<PathBuf> {
    let given = env::var_os("CNI_PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&given).collect();
    places.push(CNI_PLUGINS.into());
    places.into_iter().map(|dir| dir.join("host-local")).find(|path| path.is_file())
}

/// host-local with a number of addresses taken, as it keeps them itself: a file each.
fn theirs(path: &Path, dir: &Path, taken: u32) -> anyhow::Result<Program> {
    let data = dir.join("host-local");
    let store = data.join("bench");
    fs::create_dir_all(&store)?;
    // 10.0.0.1 is the gateway.
    let address = |number: u32| std::net::Ipv4Addr::from(0x0a00_0001 + number).to_string();
    for number in 1..=taken {
        let holder = format!("{}\r\neth0", container(0, number.into()));
        fs::write(store.join(address(number)), holder).context("cannot fill host-local's store")?;
    }
    if taken > 0 {
        fs::write(store.join("last_reserved_ip.0"), address(taken))?;
    }
    let mut config = config("bench", WIDE, "host-local");
    config["ipam"]["dataDir"] = data.to_string_lossy().into();
    let config = config.to_string();
    let path = path.to_owned();
    Ok(Program { path, socket: "".into(), config, instead: None, gives_addresses: true })
}

/// Takes a number of addresses on a daemon.
fn fill(socket: &Path, taken: u32) -> anyhow::Result<()> {
    let config = config("bench", WIDE, "my-ipam");
    block_on(async {
        let mut connection = Connection::open(socket).await?;
        let numbers = (maker(), 0..u64::from(taken));
        in_arrays(&mut connection, "ADD", numbers, ARRAY_MAX, &config).await
    })?;
    Ok(())
}

/// Measures ADD and DEL in turn, contender by contender.
fn one_caller(
    bench: &mut Bench<'_>,
    taken: u32,
    programs: &[(&'static str, Program)],
) -> anyhow::Result<()> {
    let mut contenders = Vec::new();
    for (name, program) in programs {
        let case = |verb| format!("{verb}, {taken} taken");
        let adds = Series::new(MODE, case("ADD"), *name)?;
        let dels = Series::new(MODE, case("DEL"), *name)?;
        contenders.push(Contender { name, program: program.clone(), adds, dels });
    }
    let maker = maker();
    let mut number = 0;
    for contender in &contenders {
        for _ in 0..if taken > 0 { 1 } else { TURNS_WARM } {
            number += 1;
            turn(&contender.program, &container(maker, number), None)?;
        }
    }
    for _ in 0..bench.plan.rounds {
        bench.step(&format!("plugin, {taken} taken"))?;
        let mut rounds = Vec::new();
        for _ in &contenders {
            let took = [Duration::ZERO; 2];
            rounds.push(Round { adds: times()?, dels: times()?, took, turns: 0 });
        }
        let mut busy = true;
        while busy {
            busy = false;
            bench.interrupt.check()?;
            for (contender, round) in contenders.iter().zip(&mut rounds) {
                let spent: Duration = round.took.iter().sum();
                if spent < bench.plan.slice || round.turns < TURNS_MIN {
                    number += 1;
                    turn(&contender.program, &container(maker, number), Some(round))?;
                    busy = true;
                }
            }
        }
        for (contender, round) in contenders.iter_mut().zip(&rounds) {
            contender.adds.round(&round.adds, round.took[0])?;
            contender.dels.round(&round.dels, round.took[1])?;
        }
    }
    bench.report.series(contenders.iter().flat_map(|one| [&one.adds, &one.dels]));
    compare(bench, taken, &contenders);
    Ok(())
}

/// Runs ADD and DEL of one container.
fn turn(program: &Program, container: &str, round: Option<&mut Round>) -> anyhow::Result<()> {
    let (add, del) = (program.run("ADD", container)?, program.run("DEL", container)?);
    if let Some(round) = round {
        add_time(&mut round.adds, add);
        add_time(&mut round.dels, del);
        round.took[0] += add;
        round.took[1] += del;
        round.turns += 1;
    }
    Ok(())
}

fn compare(bench: &mut Bench<'_>, taken: u32, contenders: &[Contender]) {
    let of = |name| contenders.iter().find(|contender| contender.name == name);
    let Some(ours) = of("leasehold") else { return };
    let mut find = |what: String, value: Spread, target| {
        bench.report.find(MODE, what, value, "times", target);
    };
    if let Some(echo) = of(ECHO) {
        let slower = ours.adds.slower_than(&echo.adds);
        find("ADD takes longer than an echo".into(), slower, Target::AtMost(1.25));
    }
    if let Some(alone) = of(EXEC_ALONE) {
        let slower = ours.adds.slower_than(&alone.adds);
        find("ADD takes longer than exec and exit".into(), slower, Target::None);
    }
    if let Some(theirs) = of("host-local") {
        let target = match taken {
            60_000.. => Target::AtLeast(800.0),
            10_000.. => Target::AtLeast(150.0),
            0 => Target::AtLeast(4.0),
            _ => Target::None,
        };
        let faster = theirs.adds.slower_than(&ours.adds);
        find(format!("ADD faster than host-local, {taken} taken"), faster, target);
        let faster = theirs.dels.slower_than(&ours.dels);
        find(format!("DEL faster than host-local, {taken} taken"), faster, target);
    }
}

/// Measures the calls that a number of callers get done.
fn many_callers(
    bench: &mut Bench<'_>,
    callers: u32,
    programs: &[(&'static str, Program)],
) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for (name, _) in programs {
        all.push(Series::new(MODE, format!("ADD and DEL, {callers} callers"), *name)?);
    }
    for _ in 0..bench.plan.rounds {
        bench.step(&format!("plugin, {callers} callers"))?;
        for (series, (_, program)) in all.iter_mut().zip(programs) {
            let began = Instant::now();
            let calls = at_once(bench, callers, program)?;
            series.round(&calls, began.elapsed())?;
        }
    }
    bench.report.series(&all);
    let of = |wanted| {
        let at = programs.iter().position(|(name, _)| *name == wanted)?;
        all.get(at)
    };
    if let (Some(ours), Some(theirs)) = (of("leasehold"), of("host-local")) {
        let mut what = String::from("calls per second against host-local");
        write!(what, ", {callers} callers")?;
        let more = ours.more_than(theirs);
        bench.report.find(MODE, what, more, "times", Target::AtLeast(4.0));
    }
    Ok(())
}

/// The calls of callers that run the plugin until the slice is over.
fn at_once(bench: &Bench<'_>, callers: u32, program: &Program) -> anyhow::Result<Times> {
    let until = Instant::now() + bench.plan.slice;
    let interrupt = bench.interrupt;
    let call = |maker| -> anyhow::Result<Times> {
        let mut calls = times()?;
        for number in 0.. {
            if Instant::now() >= until {
                break;
            }
            interrupt.check()?;
            let container = container(maker, number);
            add_time(&mut calls, program.run("ADD", &container)?);
            add_time(&mut calls, program.run("DEL", &container)?);
        }
        Ok(calls)
    };
    let parts: Vec<anyhow::Result<Times>> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..callers).map(|_| maker()).map(|maker| scope.spawn(move || call(maker))).collect();
        let gone = || Err(anyhow::anyhow!("a caller ended early"));
        callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| gone())).collect()
    });
    let mut sum = times()?;
    for part in parts {
        sum.add(&part?)?;
    }
    Ok(sum)
}
