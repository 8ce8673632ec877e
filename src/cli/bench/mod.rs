//! `leasehold bench`: the speed of a node and of a cluster, next to `host-local` and to floors that
//! no program can go below.
//!
//! Contenders take turns within a round, so that other work of the machine slows all of them.
//! Figures of one run are compared with each other and with nothing else.

mod calls;
mod cluster;
mod core;
mod echo;
mod exec;
mod load;
mod node;
mod plot;
mod plugin;
mod report;
mod soak;
mod socket;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use super::child::interrupt::Interrupt;
use super::output::{self, OutputArgs};
pub(super) use echo::{EchoArgs, serve as serve_echo};
use report::Report;

/// The most rounds, nodes, and addresses taken beforehand.
const ROUNDS_MAX: i64 = 1000;
const NODES_MAX: u64 = 64;
const TAKEN_MAX: i64 = 4_000_000;

/// The options of `leasehold bench`.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// Mode to measure; may be given several times [default: all modes but soak]
    #[arg(long, value_name = "MODE")]
    mode: Vec<Mode>,
    /// Number of rounds, in each of which every contender has its turn; in mode soak minutes
    /// [default: 5; with --quick 2]
    #[arg(long, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    rounds: Option<u32>,
    /// Only check that the benchmark works: a few seconds, and figures that mean nothing
    #[arg(long)]
    quick: bool,
    /// Addresses that are taken beforehand, in modes plugin, socket and core
    /// [default: 0,10000,60000; with --quick 0,1000]
    #[arg(long, value_name = "NUMBER,...", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(..=TAKEN_MAX))]
    taken: Vec<u32>,
    /// Daemons in modes cluster (2 or more) and soak [default: 10; with --quick 2]
    #[arg(long, value_name = "NUMBER",
          value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    nodes: Option<u64>,
    /// Use this etcd in modes cluster and soak instead of starting one; keys below
    /// /leasehold-bench are left there
    #[arg(long, value_name = "URL")]
    etcd: Option<String>,
    /// The etcd program to start in modes cluster and soak
    #[arg(long, value_name = "PROGRAM", default_value = "etcd")]
    etcd_bin: OsString,
    /// Draw the times of calls into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A part of the benchmark.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// The plugin, from exec to exit
    Plugin,
    /// The API on the daemon's socket, and the daemon's memory and wake-ups
    Socket,
    /// The allocator alone
    Core,
    /// Several daemons on a real etcd
    Cluster,
    /// 200 clients on each of several daemons for some minutes: memory, open files and times stay
    /// the same
    Soak,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The benchmark keeps everything in a temporary directory and ends every program that it\n\
         starts. It measures host-local if that is in $CNI_PATH or /usr/lib/cni. Modes cluster\n\
         and soak need the program etcd. Compare figures of one run with each other only.\n\n\
         Examples:\n  leasehold bench\n  leasehold bench --mode plugin --plot plugin.svg\n  \
         leasehold bench --mode socket --taken 0,1000000\n  \
         leasehold bench --mode soak --nodes 1 --rounds 10 --plot soak.svg\n  \
         leasehold bench --quick -o json\n\n{}",
        super::EXIT_CODES
    )
}

/// The size of the benchmark.
#[derive(Debug)]
struct Plan {
    quick: bool,
    rounds: u32,
    /// The time that a contender's turns in one case of a round take together, unless one call
    /// takes longer.
    slice: Duration,
    taken: Vec<u32>,
    nodes: u64,
    etcd: Option<String>,
    etcd_bin: OsString,
}

/// The state that every mode works with.
struct Bench<'a> {
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    bar: &'a ProgressBar,
    /// The directory of this mode.
    dir: PathBuf,
    report: &'a mut Report,
}

impl Bench<'_> {
    /// Advances the progress bar by one of the mode's steps.
    ///
    /// # Errors
    /// The benchmark was interrupted.
    fn step(&self, doing: &str) -> anyhow::Result<()> {
        self.bar.set_message(doing.to_owned());
        self.bar.inc(1);
        self.interrupt.check()
    }

    /// Makes a directory for one program.
    fn subdir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).context("cannot make a directory")?;
        Ok(dir)
    }
}

/// Runs the benchmark. It succeeds if it could measure, even if a target was missed.
pub(super) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::watch().context("cannot watch for signals")?;
    let dir = TempDir::with_prefix("leasehold-bench-").context("cannot make a directory")?;
    let measured = measure(args, &interrupt, dir.path());
    let removed = dir.close().context("cannot remove the benchmark's directory");
    let report = measured?;
    removed?;
    if let Some(file) = &args.plot {
        let failed = || format!("cannot write {}", file.display());
        fs::write(file, plot::svg(&report.measurements)).with_context(failed)?;
    }
    output::show(args.output.form, &report, || report.table())?;
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &BenchArgs, interrupt: &Interrupt, dir: &Path) -> anyhow::Result<Report> {
    let plan = plan(args);
    let all = [Mode::Core, Mode::Plugin, Mode::Socket, Mode::Cluster, Mode::Soak];
    let usual = |mode: &Mode| args.mode.is_empty() && *mode != Mode::Soak;
    let modes: Vec<Mode> =
        all.into_iter().filter(|mode| usual(mode) || args.mode.contains(mode)).collect();
    let alone = args.nodes == Some(1) && modes.contains(&Mode::Cluster);
    anyhow::ensure!(!alone, "mode cluster needs two nodes or more: --nodes");
    let steps = |mode: &Mode| match mode {
        Mode::Core => core::steps(&plan),
        Mode::Plugin => plugin::steps(&plan),
        Mode::Socket => socket::steps(&plan),
        Mode::Cluster => cluster::steps(&plan),
        Mode::Soak => soak::steps(&plan),
    };
    let bar = progress_bar(modes.iter().map(steps).sum());
    let mut report = Report::new(plan.quick);
    for mode in modes {
        let dir = dir.join(format!("{mode:?}").to_lowercase());
        fs::create_dir(&dir).context("cannot make a directory")?;
        let mut bench = Bench { plan: &plan, interrupt, bar: &bar, dir, report: &mut report };
        match mode {
            Mode::Core => core::run(&mut bench)?,
            Mode::Plugin => plugin::run(&mut bench)?,
            Mode::Socket => socket::run(&mut bench)?,
            Mode::Cluster => cluster::run(&mut bench)?,
            Mode::Soak => soak::run(&mut bench)?,
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

fn plan(args: &BenchArgs) -> Plan {
    let quick = args.quick;
    let mut taken = match args.taken.as_slice() {
        [] if quick => vec![0, 1000],
        [] => vec![0, 10_000, 60_000],
        given => given.to_vec(),
    };
    taken.sort_unstable();
    taken.dedup();
    Plan {
        quick,
        rounds: args.rounds.unwrap_or(if quick { 2 } else { 5 }),
        slice: Duration::from_millis(if quick { 20 } else { 400 }),
        taken,
        nodes: args.nodes.unwrap_or(if quick { 2 } else { 10 }),
        etcd: args.etcd.clone(),
        etcd_bin: args.etcd_bin.clone(),
    }
}

/// Draws on stderr, and only if that is a terminal.
fn progress_bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("  {wide_bar} {percent}%  {msg:36}") {
        bar.set_style(style);
    }
    bar
}
