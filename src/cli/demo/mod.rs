//! `leasehold demo`: the main job on real input, with nothing installed.
//!
//! It plays the container runtime: it starts a daemon in a directory of its own, runs the real
//! plugin as a process for each call, and believes only the plugin's output.

mod churn;
mod cluster;
mod counters;
mod plugin;
mod screen;
mod steps;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use super::child::daemon::{self, Daemon};
use super::child::interrupt::Interrupt;
use super::child::plugin as program;
use super::output::{self, Form, OutputArgs};
use churn::{Churn, Plan};
use cluster::Cluster;
use plugin::Plugin;
use screen::Screen;
use steps::Step;

/// The most containers of one churn.
const CONTAINERS_MAX: u64 = 10_000_000;

/// The longest churn, in seconds.
const SECONDS_MAX: u64 = 24 * 3600;

/// The options of `leasehold demo`.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// End after the churn; otherwise the daemon stays up until Ctrl-C, so that you can try it
    #[arg(long)]
    once: bool,
    /// Number of containers that come and go in the churn
    #[arg(long, value_name = "NUMBER", default_value_t = 4000,
          value_parser = clap::value_parser!(u64).range(1..=CONTAINERS_MAX))]
    containers: u64,
    /// Number of callers that run the plugin at the same time, 1 to 128
    #[arg(long, value_name = "NUMBER", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=churn::CALLERS_MAX))]
    callers: u64,
    /// Churn for this many seconds instead of for a number of containers
    #[arg(long, value_name = "SECONDS", conflicts_with = "containers",
          value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: Option<u64>,
    /// Number of nodes, 1 to 9; more than one are a cluster with an etcd of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
          conflicts_with_all = ["containers", "callers", "seconds"],
          value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Program that is run as etcd, for a cluster
    #[arg(long, value_name = "PROGRAM", default_value = "etcd", requires = "nodes")]
    etcd_bin: OsString,
    #[command(flatten)]
    output: OutputArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The demo needs no privileges, touches no network interface and leaves nothing behind:\n\
         its daemon keeps everything in a temporary directory. With -o json it prints only a\n\
         report, after the churn. With --nodes it starts a small cluster with a real etcd, kills\n\
         a daemon and stops etcd while containers come and go, and shows that no address was\n\
         given twice and that no ADD waited for a block for longer than a quarter of a second.\n\n\
         Examples:\n  leasehold demo\n  leasehold demo --once --containers 20000 --callers 16\n  \
         leasehold demo --once --seconds 30 -o json\n  leasehold demo --nodes 3\n\n{}",
        super::EXIT_CODES
    )
}

/// The findings of the demo.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// True if everything was right.
    ok: bool,
    /// The plugin that was run.
    plugin: String,
    /// The calls that were shown.
    steps: Vec<Step>,
    /// The churn, if it ran.
    churn: Churn,
    /// Everything that was wrong, one sentence each.
    wrong: Vec<String>,
}

/// Runs the demo. It succeeds if everything was right.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::watch().context("cannot watch for signals")?;
    let screen = Screen::new(args.output.form != Form::Table);
    let dir = TempDir::with_prefix("leasehold-demo-").context("cannot make a directory")?;
    let end = play(args, &interrupt, &screen, dir.path());
    let removed = dir.close().context("cannot remove the demo's directory");
    let good = end?;
    removed?;
    Ok(super::verdict(good))
}

/// Everything between making the directory and removing it. The daemon ends with it.
fn play(
    args: &DemoArgs,
    interrupt: &Interrupt,
    screen: &Screen,
    dir: &Path,
) -> anyhow::Result<bool> {
    let found = program::find(interrupt)?;
    if args.nodes > 1 {
        return play_cluster(args, &found.program, interrupt, screen, dir);
    }
    let mut daemon = Daemon::start(dir, &[], interrupt)?;
    screen.title(&format!("leasehold {}: the demo's own daemon", env!("CARGO_PKG_VERSION")))?;
    screen.text(&format!("  plugin: {}\n", found.about))?;
    let shared = plugin::SHARED.map(|(name, value)| format!("{name}={value}")).join(" ");
    screen.text(&format!("  listening on http://{} and on this socket:\n", daemon.listen()))?;
    let socket = daemon.socket().display();
    screen.command(&format!("export LEASEHOLD_SOCKET={socket} {shared}"))?;
    let plugin = Plugin::new(found.program, daemon.socket().to_owned(), interrupt.clone());
    let played = rounds(args, &plugin, found.about, screen);
    // If the daemon died, that explains every other fault.
    daemon.must_run()?;
    let report = played?;
    report_end(&report, screen)?;
    if args.output.form != Form::Table {
        output::show(args.output.form, &report, String::new)?;
    }
    let mut good = report.ok;
    if !args.once && !interrupt.has_come() {
        steps::leave_some(&plugin)?;
        screen.text(&what_to_try(daemon.socket(), daemon.listen()))?;
        while !interrupt.wait(daemon::WATCH) {
            daemon.must_run()?;
        }
        screen.text("\nstopping the daemon\n")?;
    }
    if let Some(wrong) = daemon.stop()? {
        screen.wrong(&wrong)?;
        good = false;
    }
    Ok(good)
}

/// The same for a cluster.
fn play_cluster(
    args: &DemoArgs,
    program: &Path,
    interrupt: &Interrupt,
    screen: &Screen,
    dir: &Path,
) -> anyhow::Result<bool> {
    let mut cluster = Cluster::start(args.nodes.into(), &args.etcd_bin, dir, interrupt)?;
    screen.title(&format!("the address map: http://{}/", cluster.daemons[0].listen()))?;
    for (number, daemon) in cluster.daemons.iter().enumerate() {
        let socket = daemon.socket().display();
        screen.text(&format!("  node-{number}: http://{}/, {socket}\n", daemon.listen()))?;
    }
    let plugin = |daemon: &Daemon| {
        Plugin::new(program.to_owned(), daemon.socket().to_owned(), interrupt.clone())
    };
    let plugins: Vec<Plugin> = cluster.daemons.iter().map(plugin).collect();
    let report = cluster::run(&mut cluster, &plugins, screen, interrupt)?;
    for wrong in report.wrong() {
        screen.wrong(wrong)?;
    }
    let right = "everything was right: no address was held twice, and no ADD waited for a block \
                 for longer than 0.25 s";
    screen.verdict(report.ok, if report.ok { right } else { "something was wrong, see above" })?;
    if args.output.form != Form::Table {
        output::show(args.output.form, &report, String::new)?;
    }
    let mut good = report.ok;
    if !args.once && !interrupt.has_come() {
        steps::leave_some(&plugins[0])?;
        let first = &cluster.daemons[0];
        screen.text(&what_to_try(first.socket(), first.listen()))?;
        while !interrupt.wait(daemon::WATCH) {
            cluster.daemons.iter_mut().try_for_each(Daemon::must_run)?;
        }
        screen.text("\nstopping the cluster\n")?;
    }
    for daemon in &mut cluster.daemons {
        if let Some(wrong) = daemon.stop()? {
            screen.wrong(&wrong)?;
            good = false;
        }
    }
    Ok(good)
}

/// The shown calls, then the churn.
fn rounds(
    args: &DemoArgs,
    plugin: &Plugin,
    about: String,
    screen: &Screen,
) -> anyhow::Result<Report> {
    let steps = steps::show(plugin, screen)?;
    let containers = if args.seconds.is_some() { CONTAINERS_MAX } else { args.containers };
    let plan =
        Plan { containers, callers: args.callers, time: args.seconds.map(Duration::from_secs) };
    let churn = churn::run(plan, plugin, screen)?;
    let mut wrong: Vec<String> = Vec::new();
    for step in &steps {
        wrong.extend(step.wrong.iter().map(|why| format!("{}: {why}", step.title)));
    }
    wrong.extend(churn.wrong());
    Ok(Report { ok: wrong.is_empty(), plugin: about, steps, churn, wrong })
}

fn report_end(report: &Report, screen: &Screen) -> anyhow::Result<()> {
    // The faults of a shown call were printed below it.
    for wrong in report.churn.wrong() {
        screen.wrong(&wrong)?;
    }
    let right = "everything was right: no address was held twice, none was lost";
    screen.verdict(report.ok, if report.ok { right } else { "something was wrong, see above" })
}

/// The end of a demo that stays up.
fn what_to_try(socket: &Path, listen: &str) -> String {
    let this = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("leasehold"));
    let here = std::env::current_dir().ok();
    let this = here.and_then(|dir| this.strip_prefix(dir).ok()).unwrap_or(&this).display();
    let socket = socket.display();
    format!(
        "\nIt stays up; three containers hold addresses.\n  http://{listen}/metrics\n\n\
         Try, in another terminal:\n  export LEASEHOLD_SOCKET={socket}\n  {this} status\n  \
         {this} allocations\n  {this} release --container demo-2 --dry-run\n\n\
         Ctrl-C ends it and removes everything.\n"
    )
}
