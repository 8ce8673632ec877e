//! Many containers that come and go. Every call is a plugin process. The demo itself remembers
//! which container holds which address: it believes the output of the plugins, not the daemon.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub(super) use super::counters::Churn;
use super::counters::{Counters, Holders};
use super::plugin::{Call, Plugin};
use super::screen::Screen;
use super::steps::{self, Config, MENDED, TWO_FAMILIES};

/// The largest number of callers.
pub(super) const CALLERS_MAX: u64 = 128;

/// Containers that live at the same time, at most: half of what the smaller of the two examples'
/// networks has room for, so that a full pool is never the reason for a failure.
const ALIVE_MAX: u64 = 128;

/// The longest life of a container after its ADD.
const LIFE_MS_MAX: u64 = 100;

/// The number of failed calls after which the churn gives up: more would show nothing new.
const FAILURES_MAX: u64 = 100;

/// The size of a churn.
#[derive(Debug)]
pub(super) struct Plan {
    /// The number of containers.
    pub(super) containers: u64,
    /// The number of callers at once.
    pub(super) callers: u64,
    /// The longest time, if it is limited.
    pub(super) time: Option<Duration>,
}

/// The state that the callers share.
struct Shared<'a> {
    plan: &'a Plan,
    plugin: &'a Plugin,
    bar: &'a ProgressBar,
    holders: Holders,
    next: AtomicU64,
    failures: AtomicU64,
    began: Instant,
}

/// Runs the churn and shows its result.
///
/// # Errors
/// A plugin could not be run at all, or the demo was interrupted.
pub(super) fn run(plan: Plan, plugin: &Plugin, screen: &Screen) -> anyhow::Result<Churn> {
    let how_many = match plan.time {
        Some(time) => format!("for {} s", time.as_secs()),
        None => format!("{} of them", plan.containers),
    };
    let callers = plan.callers;
    screen.text("\n")?;
    screen.title(&format!("4. short-lived containers, {how_many}, {callers} callers at once"))?;
    let bar = progress_bar(&plan);
    let shared = Shared {
        plan: &plan,
        plugin,
        bar: &bar,
        holders: Holders::default(),
        next: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        began: Instant::now(),
    };
    let all: Vec<anyhow::Result<Counters>> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..callers).map(|_| scope.spawn(|| shared.call_until_done())).collect();
        let gone = || Err(anyhow::anyhow!("a caller ended early"));
        callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| gone())).collect()
    });
    let took = shared.began.elapsed();
    bar.finish_and_clear();
    plugin.interrupt().check()?;
    let mut total = Counters::new()?;
    for counters in all {
        total.add(&counters?);
    }
    let left = steps::left(plugin)?.iter().map(steps::describe).collect();
    let churn = Churn::new(&total, callers, took, left);
    screen.text(&churn.table())?;
    Ok(churn)
}

/// Draws on stderr, and only if that is a terminal.
fn progress_bar(plan: &Plan) -> ProgressBar {
    let (length, template) = match plan.time {
        Some(_) => (None, "  {spinner} {pos} containers, {elapsed}"),
        None => (Some(plan.containers), "  {wide_bar} {pos}/{len} containers"),
    };
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// The containers that live, each with the time of its end. The earliest end comes first.
type Living = BinaryHeap<Reverse<(Instant, u64)>>;

impl Shared<'_> {
    /// One caller: starts containers and ends each when its time has come.
    fn call_until_done(&self) -> anyhow::Result<Counters> {
        let most = usize::try_from((ALIVE_MAX / self.plan.callers).max(1))?;
        let mut counters = Counters::new()?;
        let mut living = Living::new();
        loop {
            self.plugin.interrupt().check()?;
            let due = living.peek().is_some_and(|Reverse((end, _))| *end <= Instant::now());
            let started = if due || living.len() >= most { None } else { self.take() };
            if let Some(number) = started {
                self.start(number, &mut counters)?;
                living.push(Reverse((Instant::now() + life(number), number)));
            } else if let Some(Reverse((end, number))) = living.pop() {
                // Not `sleep`: a signal ends this wait too.
                self.plugin.interrupt().wait(end.saturating_duration_since(Instant::now()));
                self.end(number, &mut counters)?;
            } else {
                return Ok(counters);
            }
        }
    }

    /// The number of the next container, or `None` at the end.
    fn take(&self) -> Option<u64> {
        if self.plan.time.is_some_and(|time| self.began.elapsed() >= time)
            || self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
        {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.plan.containers).then_some(number)
    }

    fn start(&self, number: u64, counters: &mut Counters) -> anyhow::Result<()> {
        let args = format!("K8S_POD_NAMESPACE=demo;K8S_POD_NAME=batch-{number}");
        let container = container(number);
        let config = config_of(number);
        let add = Call { args: &args, ..call("ADD", &container, config) };
        let run = self.plugin.run(&add)?;
        let addresses = run.addresses();
        let sets = if number.is_multiple_of(2) { 1 } else { 2 };
        let ended = run.succeeded().and_then(|()| {
            if addresses.len() == sets {
                return Ok(());
            }
            Err(format!("{} addresses instead of {sets}: {:?}", addresses.len(), run.stdout))
        });
        counters.adds.add_call(run.took);
        match ended {
            Ok(()) => counters.addresses += addresses.len() as u64,
            Err(why) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                counters.adds.failed(format!("ADD of {container}: {why}"));
            }
        }
        // After a failed ADD too: a printed address counts as given.
        for twice in self.holders.hold(number, addresses) {
            counters.duplicate(twice);
        }
        Ok(())
    }

    fn end(&self, number: u64, counters: &mut Counters) -> anyhow::Result<()> {
        let container = container(number);
        // Before the call: during it, the address may rightly go to another container.
        self.holders.let_go(number);
        let run = self.plugin.run(&call("DEL", &container, config_of(number)))?;
        counters.dels.add_call(run.took);
        if let Err(why) = run.succeeded() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            counters.dels.failed(format!("DEL of {container}: {why}"));
        }
        self.bar.inc(1);
        Ok(())
    }
}

fn container(number: u64) -> String {
    format!("batch-{number}")
}

/// The two examples in turn.
fn config_of(number: u64) -> &'static Config {
    if number.is_multiple_of(2) { &MENDED } else { &TWO_FAMILIES }
}

fn call<'a>(command: &'static str, container: &'a str, config: &Config) -> Call<'a> {
    Call { command, container, ifname: "eth0", args: "", config: config.text }
}

/// The life of a container: from 0 to [`LIFE_MS_MAX`], the same in every run.
fn life(number: u64) -> Duration {
    // The finaliser of splitmix64: neighbours get numbers that look unrelated.
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_millis((mixed ^ (mixed >> 31)) % (LIFE_MS_MAX + 1))
}
