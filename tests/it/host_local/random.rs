//! Goal: no configuration and no order of calls is known in which the two sides differ.
//!
//! Method: random configurations and random calls, made from a seed that is printed, go to both
//! sides, and every outcome is compared, then the allocations; at last everything is released.
//! A failing case is made smaller by leaving steps out, and shown whole. `TEST_SEED`
//! sets the seed. A permitted difference is either kept out of the cases or named where it occurs.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::time::Instant;

use serde_json::Value;

use super::generate::{Case, Shape, Step};
use super::{Sides, Way, agree, configuration};
use crate::common::{Call, Outcome};

/// The seed where none is given.
const SEED: u64 = 0x1ea5_e401d;
/// The most times that a failing case is run again to make it smaller.
const REDUCTION_LIMIT: usize = 300;

/// One range set of one range, of either family, with any bounds and any gateway.
#[test]
fn random_calls_on_one_range_agree() {
    run("one", &Shape { sets: 1, ranges: 1, steps: 30, crashes: false }, 60);
}

/// One range set of several ranges.
#[test]
fn random_calls_on_several_ranges_agree() {
    run("ranges", &Shape { sets: 1, ranges: 4, steps: 30, crashes: false }, 50);
}

/// Several range sets, of one or both families.
#[test]
fn random_calls_on_several_sets_agree() {
    run("sets", &Shape { sets: 3, ranges: 3, steps: 30, crashes: false }, 50);
}

/// The same, with a daemon that is killed and started again in between.
#[test]
fn random_calls_with_crashes_agree() {
    run("crashes", &Shape { sets: 2, ranges: 2, steps: 30, crashes: true }, 8);
}

/// A number generator with nothing to configure (`SplitMix64`).
pub(super) struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below the bound.
    pub(super) fn below(&mut self, bound: u128) -> u128 {
        let wide = (u128::from(self.next()) << 64) | u128::from(self.next());
        wide % bound
    }

    /// Yes, once in so many times.
    pub(super) fn one_in(&mut self, times: u128) -> bool {
        self.below(times) == 0
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u128)).expect("an index")]
    }
}

/// The counts of a test's calls.
#[derive(Debug, Default)]
struct Counters {
    calls: usize,
    given: usize,
    exhausted: usize,
    asked_and_given: usize,
    asked_and_refused: usize,
    repeated: usize,
    checks: usize,
    releases: usize,
    crashes: usize,
}

fn run(title: &str, shape: &Shape, cases: u64) {
    let seed = match env::var("TEST_SEED") {
        Ok(text) => text.parse().expect("TEST_SEED is a number"),
        Err(_) => SEED,
    };
    println!("{title}: TEST_SEED={seed}");
    let start = Instant::now();
    let mut sides = Sides::start();
    let mut counters = Counters::default();
    for number in 0..cases {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let case = Case::generate(&mut random, shape);
        let network = format!("{title}-{number}");
        if let Err(why) = replay(&case, &mut sides, &network, &mut counters) {
            let (smaller, why) = reduce(case, why, &mut sides, &network);
            panic!(
                "TEST_SEED={seed}, case {number} of {title}, made smaller:\n{}\n{why}",
                show(&smaller)
            );
        }
    }
    println!("{title}: {cases} cases, {counters:?} in {:?}", start.elapsed());
    let every =
        [counters.given, counters.exhausted, counters.asked_and_given, counters.asked_and_refused];
    let tame = every.contains(&0) || counters.repeated == 0 || counters.checks == 0;
    // A few cases with crashes need not have everything; the other tests must.
    assert!(shape.crashes || !tame, "too tame to show anything: {counters:?}");
}

/// Leaves out step after step, as long as what remains still fails.
fn reduce(mut case: Case, mut why: String, sides: &mut Sides, network: &str) -> (Case, String) {
    let mut index = case.steps.len();
    for attempt in 0..REDUCTION_LIMIT {
        let Some(next) = index.checked_sub(1) else {
            break;
        };
        index = next;
        let mut smaller = case.clone();
        smaller.steps.remove(index);
        let network = format!("{network}-smaller-{attempt}");
        if let Err(reason) = replay(&smaller, sides, &network, &mut Counters::default()) {
            (case, why) = (smaller, reason);
        }
    }
    (case, why)
}

fn show(case: &Case) -> String {
    let mut text = format!("{:#}\n", case.config);
    for (index, step) in case.steps.iter().enumerate() {
        writeln!(text, "{index:3} {step:?}").expect("text");
    }
    text
}

/// Runs a case on both sides on a new network, and releases everything at its end.
fn replay(
    case: &Case,
    sides: &mut Sides,
    network: &str,
    counters: &mut Counters,
) -> Result<(), String> {
    let config = configuration(network, &case.config);
    let mut replay = Replay { sides, config, held: BTreeMap::new(), last: None, counters };
    for (index, step) in case.steps.iter().enumerate() {
        replay.step(step).map_err(|why| format!("step {index}: {step:?}: {why}"))?;
    }
    replay.compare_holdings(network)?;
    for (container, ifname) in replay.held.keys().cloned().collect::<Vec<_>>() {
        replay.del(&container, &ifname, Way::Socket).map_err(|why| format!("at the end: {why}"))?;
    }
    replay.compare_holdings(network)
}

struct Replay<'a> {
    sides: &'a mut Sides,
    config: Value,
    /// The result that each attachment holds.
    held: BTreeMap<(String, String), Outcome>,
    /// The last result of any attachment, which serves as a stale `prevResult`.
    last: Option<Value>,
    counters: &'a mut Counters,
}

impl Replay<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Add { container, ifname, asks, way } => {
                let key = (container.clone(), ifname.clone());
                if let Some(first) = self.held.get(&key).cloned() {
                    return self.repeated_add(&key, &first, *way);
                }
                let mut call = self.call("ADD", container, ifname);
                asks.apply(&mut call);
                let (theirs, ours) = self.sides.both(&call, *way);
                agree(&theirs, &ours)?;
                match (ours.succeeded(), asks.is_empty()) {
                    (true, true) => self.counters.given += 1,
                    (true, false) => self.counters.asked_and_given += 1,
                    (false, true) => self.counters.exhausted += 1,
                    (false, false) => self.counters.asked_and_refused += 1,
                }
                if ours.succeeded() {
                    self.last = Some(ours.expect_result().clone());
                    self.held.insert(key, ours);
                }
                Ok(())
            }
            Step::Del { container, ifname, way } => self.del(container, ifname, *way),
            Step::Check { container, ifname, way } => self.check(container, ifname, *way),
            Step::Crash => {
                self.sides.daemon.kill9();
                self.sides.daemon.restart();
                self.sides.client = self.sides.daemon.client();
                self.counters.crashes += 1;
                Ok(())
            }
        }
    }

    fn call(&mut self, command: &'static str, container: &str, ifname: &str) -> Call {
        self.counters.calls += 1;
        let mut call = Call::new(command, container, &self.config);
        call.ifname = ifname.to_owned();
        call
    }

    /// `Difference::RepeatedAdd`: host-local refuses and changes nothing, ours repeats its answer.
    fn repeated_add(
        &mut self,
        (container, ifname): &(String, String),
        first: &Outcome,
        way: Way,
    ) -> Result<(), String> {
        self.counters.repeated += 1;
        let call = self.call("ADD", container, ifname);
        let (theirs, ours) = self.sides.both(&call, way);
        if theirs.message().contains("duplicate allocation is not allowed") && ours == *first {
            return Ok(());
        }
        Err(format!("repeated, after {first:?}\n    host-local: {theirs:?}\n    ours: {ours:?}"))
    }

    fn del(&mut self, container: &str, ifname: &str, way: Way) -> Result<(), String> {
        self.counters.releases += 1;
        self.held.remove(&(container.to_owned(), ifname.to_owned()));
        let call = self.call("DEL", container, ifname);
        let (theirs, ours) = self.sides.both(&call, way);
        agree(&theirs, &ours)
    }

    /// `Difference::CheckOfPreviousResult`: with a true `prevResult`, or nothing held, both agree.
    fn check(&mut self, container: &str, ifname: &str, way: Way) -> Result<(), String> {
        let version = self.config["cniVersion"].as_str().expect("a version");
        let Some(last) = self.last.clone() else {
            return Ok(());
        };
        if ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1"].contains(&version) {
            return Ok(());
        }
        self.counters.checks += 1;
        let held = self.held.get(&(container.to_owned(), ifname.to_owned())).cloned();
        let mut call = self.call("CHECK", container, ifname);
        call.config["prevResult"] = held.as_ref().map_or(last, |it| it.expect_result().clone());
        let (theirs, ours) = self.sides.both(&call, way);
        let whole = !matches!(theirs, Outcome::Broken(_)) && !matches!(ours, Outcome::Broken(_));
        if whole && theirs.succeeded() == held.is_some() && ours.succeeded() == held.is_some() {
            return Ok(());
        }
        Err(format!("held: {held:?}\n    host-local: {theirs:?}\n    my-ipam:    {ours:?}"))
    }

    fn compare_holdings(&mut self, network: &str) -> Result<(), String> {
        let theirs = self.sides.held_by_theirs(network);
        let ours = self.sides.held_by_ours(network);
        if theirs == ours {
            return Ok(());
        }
        Err(format!("held at the end:\n    host-local: {theirs:?}\n    my-ipam:    {ours:?}"))
    }
}
