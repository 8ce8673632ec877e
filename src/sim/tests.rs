//! Seeds, broken rules, and figures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::world::{Plan, World};
use crate::core::mutant::{Mutant, breaks};
use crate::core::range::{Range, RangeSpec, Ranges};
use crate::core::range_set::Settings;

fn allowed(subnet: &str, block_log2: Option<u8>) -> Arc<Ranges> {
    let subnet = subnet.parse().unwrap();
    let (start, end, gateway) = (None, None, None);
    let spec = RangeSpec { subnet, start, end, gateway, sandbox: vec![], smallflow: vec![] };
    Arc::new(Ranges::new(vec![Range::new(spec).unwrap()], block_log2).unwrap())
}

/// Some of the addresses of every pool, as another configuration of it.
fn part(block_log2: Option<u8>) -> Arc<Ranges> {
    let subnet = "10.0.0.0/28".parse().unwrap();
    let (start, end) = ("10.0.0.3".parse().ok(), "10.0.0.9".parse().ok());
    let (sandbox, smallflow) = (vec![], vec![]);
    let spec = RangeSpec { subnet, start, end, gateway: None, sandbox, smallflow };
    Arc::new(Ranges::new(vec![Range::new(spec).unwrap()], block_log2).unwrap())
}

fn calm(nodes: usize) -> Plan {
    Plan {
        nodes,
        allowed: allowed("10.0.0.0/26", Some(2)),
        narrow: part(Some(2)),
        span: 60_000,
        between_calls: 50,
        containers: 30,
        settings: Settings { cooldown: 500, min_free: 4, seed: 0 },
        await_records: false,
        bad_message: 0,
        crashes: 0,
        pauses: 0,
        cuts: 0,
        outages: 0,
        reboots: 0,
        new_disks: true,
        removals: 0,
        restores: 0,
        drains: 0,
        forgets: 0,
        configures: 0,
    }
}

/// What goes wrong in a run is drawn from its seed: some of it, never all at once.
fn plan(seed: u64) -> Plan {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xA5A5);
    let mut some = |every: u64| if rng.bool() { every } else { 0 };
    let mut plan = Plan {
        span: 120_000,
        bad_message: some(30) as u32,
        crashes: some(20_000),
        pauses: some(20_000),
        cuts: some(20_000),
        outages: some(40_000),
        reboots: some(40_000),
        removals: some(60_000),
        drains: some(60_000),
        forgets: some(80_000),
        configures: some(15_000),
        ..calm(2)
    };
    plan.nodes = rng.usize(2..6);
    plan.containers = rng.usize(2..40);
    plan.await_records = rng.u32(0..8) == 0;
    plan.settings.cooldown = [0, 500, 20_000][rng.usize(0..3)];
    let (subnet, block_log2) = (["10.0.0.0/26", "10.0.0.0/28"][rng.usize(0..2)], rng.u8(0..5));
    (plan.allowed, plan.narrow) = (allowed(subnet, Some(block_log2)), part(Some(block_log2)));
    if rng.u32(0..4) == 0 {
        // What nobody can know (ARCHITECTURE.md says so): whether an answer that was lost in the
        // moment in which the store was lost too had been given; and, on a node without memory,
        // that there was anything to know.
        (plan.restores, plan.removals, plan.bad_message) = (60_000, 0, 0);
        (plan.new_disks, plan.forgets) = (false, 0);
        plan.span = 300_000;
    }
    if seed % 100 == 99 {
        (plan.nodes, plan.containers) = (50, 2);
    }
    plan
}

fn run(seed: u64, plan: &Plan, tracing: bool) -> Result<World, String> {
    let mut world = World::new(seed, plan.clone());
    world.tracing = tracing;
    let done = catch_unwind(AssertUnwindSafe(|| {
        world.run();
        world.settle(150_000);
        world.check_answered();
        world.check_remembered();
        world.check_recorded();
        if plan.forgets > 0 {
            world.collect_garbage();
            world.settle(1_000);
        }
        assert_eq!(world.sessions(), plan.nodes, "every node is a member");
        world.fill();
        world.delete_all();
        world.settle(1_000);
        assert_eq!(world.held(), 0);
    }));
    match done {
        Ok(()) => Ok(world),
        Err(cause) => {
            let text = cause.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let cause = cause.downcast_ref::<String>().cloned().or(text).unwrap_or_default();
            Err(if tracing { format!("{}{cause}", world.print_trace()) } else { cause })
        }
    }
}

/// Runs seeds until one fails.
fn first_failure(seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| Some((seed, run(seed, &plan(seed), false).err()?)))
}

/// So many seeds, or `LEASEHOLD_SEEDS` of them, or the one `LEASEHOLD_SEED`.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("LEASEHOLD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LEASEHOLD_SEEDS").unwrap_or(count),
    }
}

#[test]
fn a_calm_cluster_fills_its_pool() {
    for nodes in [1, 2, 5, 10] {
        if let Err(cause) = run(nodes as u64, &calm(nodes), true) {
            panic!("{nodes} nodes: {cause}");
        }
    }
}

#[test]
fn promises_hold_whatever_goes_wrong() {
    if let Some((seed, cause)) = first_failure(seeds(2_000), plan) {
        let trace = run(seed, &plan(seed), true).err().unwrap_or_default();
        panic!("seed {seed}: {cause}\n{:#?}\n{trace}", plan(seed));
    }
}

/// Every rule that is broken on purpose is noticed: so the simulator would notice it if it were
/// broken by mistake.
#[test]
fn a_broken_rule_is_noticed() {
    let mutants = [
        Mutant::OverlapNotCompared,
        Mutant::RevisionNotCompared,
        Mutant::EpochNotCompared,
        Mutant::SpareIsActive,
        Mutant::ActiveOnLease,
        Mutant::UnknownMeansFailed,
        Mutant::WatchDecides,
        Mutant::TrustMemory,
        Mutant::DelBeforeDurable,
        Mutant::GiveBackBeforeJournal,
        Mutant::GiveWhatIsHeld,
        Mutant::ForgetsUnnoticed,
        Mutant::RecordsUnread,
        Mutant::RecordsOfOthers,
    ];
    let mut missed = Vec::new();
    for mutant in mutants {
        breaks(Some(mutant));
        let failure = first_failure(0..300, plan);
        breaks(None);
        match failure {
            Some((seed, cause)) => println!("{mutant:?}: seed {seed}: {cause:.90}"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// One node of an idle cluster takes few transactions for a burst, and gives back when idle.
#[test]
fn a_burst_takes_few_transactions_and_idleness_gives_back() {
    let mut world = World::new(7, Plan { allowed: allowed("10.0.0.0/16", None), ..calm(2) });
    world.settle(2_000);
    let before = world.etcd.counters.block_txns;
    for _ in 0..10_000 {
        world.add(0, None);
    }
    world.settle(10_000);
    world.check_answered();
    assert_eq!(world.held(), 10_000);
    let txns = world.etcd.counters.block_txns - before;
    assert!(txns <= 20, "{txns} transactions for the blocks of 10,000 addresses");
    world.delete_all();
    world.settle(600_000);
    assert!(world.blocks(0) <= 2, "{} blocks on an idle node", world.blocks(0));
}

/// Churn inside the blocks of a node changes no block.
#[test]
fn churn_changes_no_block() {
    let mut world = World::new(3, Plan { allowed: allowed("10.0.0.0/16", None), ..calm(2) });
    world.settle(2_000);
    let mut before = 0;
    for round in 0..300 {
        // The first sweep takes back what the first moments leased too much.
        if round == 160 {
            before = world.etcd.counters.block_txns;
        }
        for _ in 0..25 {
            world.add(0, None);
        }
        world.settle(200);
        world.delete_all();
        world.settle(200);
    }
    assert_eq!(world.etcd.counters.block_txns - before, 0);
}

/// As many addresses as containers, whatever the blocks: every container gets one, in seconds.
#[test]
fn nothing_is_stranded() {
    for block_log2 in [None, Some(0), Some(6)] {
        let subnet = "10.0.0.0/22".parse().unwrap();
        let (start, end) = ("10.0.0.10".parse().ok(), "10.0.3.241".parse().ok());
        let (sandbox, smallflow) = (vec![], vec![]);
        let spec = RangeSpec { subnet, start, end, gateway: None, sandbox, smallflow };
        let allowed = Ranges::new(vec![Range::new(spec).unwrap()], block_log2).unwrap();
        let mut world = World::new(11, Plan { allowed: Arc::new(allowed), ..calm(10) });
        world.settle(2_000);
        let mut rng = fastrand::Rng::with_seed(5);
        let began = world.now;
        for _ in 0..1_000 {
            world.add(rng.usize(0..10), None);
        }
        world.settle(100);
        while world.held() < 1_000 {
            // Runtimes try again, on the same node.
            let left = 1_000 - world.held() - world.waiting();
            for _ in 0..left {
                world.add(rng.usize(0..10), None);
            }
            world.settle(100);
            let took = world.now - began;
            assert!(took < 10_000, "{} held after {took} ms, {block_log2:?}", world.held());
        }
        println!("{block_log2:?}: {} ms, {} failed", world.now - began, world.tally.failed);
    }
}

/// What a test of all orders does.
#[derive(Clone, Copy)]
enum Move {
    Add(usize),
    Del,
}

/// Every order in which requests may reach the store, for a few operations on a pool with one
/// address, which the first node holds or nobody: walks them all, each anew from the start.
fn every_order(held: bool, moves: &[Move]) -> usize {
    let plan = Plan { allowed: allowed("10.0.0.0/30", Some(0)), ..calm(2) };
    let (mut path, mut runs): (Vec<usize>, usize) = (vec![], 0);
    loop {
        let mut world = World::new(1, plan.clone());
        world.settle(500);
        let first = held.then(|| world.add(0, None));
        world.settle(3_000);
        let (mut widths, mut next) = (Vec::new(), 0);
        loop {
            let events = world.next_requests();
            let width = events.len() + usize::from(next < moves.len());
            if width == 0 {
                break;
            }
            let choice = path.get(widths.len()).copied().unwrap_or(0);
            widths.push(width);
            match events.get(choice) {
                Some(&at) => world.happen(at),
                None => {
                    match moves[next] {
                        Move::Add(node) => drop(world.add(node, None)),
                        Move::Del => first.into_iter().for_each(|first| world.delete(first)),
                    }
                    next += 1;
                }
            }
        }
        world.settle(20_000);
        world.check_answered();
        runs += 1;
        path.resize(widths.len(), 0);
        while let Some(last) = path.pop() {
            if last + 1 < widths[path.len()] {
                path.push(last + 1);
                break;
            }
        }
        if path.is_empty() {
            return runs;
        }
    }
}

#[test]
fn all_orders_of_a_few_operations_end_well() {
    for (held, moves) in [
        (false, &[Move::Add(0), Move::Add(1)][..]),
        (true, &[Move::Del, Move::Add(1)]),
        (true, &[Move::Add(1), Move::Del, Move::Add(1)]),
    ] {
        let runs = every_order(held, moves);
        println!("{runs} orders");
        assert!(runs > 20);
    }
}

/// The figures of the table of scale in ARCHITECTURE.md: 1,000 pods come and go each second, on so
/// many nodes (`LEASEHOLD_SCALE=10,100,1000,5000`), for 20 seconds after a warm-up.
#[test]
fn figures_of_scale() {
    let sizes = std::env::var("LEASEHOLD_SCALE").unwrap_or_else(|_| "10,100".to_owned());
    for nodes in sizes.split(',').map(|nodes| nodes.parse().unwrap()) {
        let mut world =
            World::new(2, Plan { allowed: allowed("10.0.0.0/12", None), ..calm(nodes) });
        let mut rng = fastrand::Rng::with_seed(1);
        world.settle(3_000);
        let (mut living, mut before) = (std::collections::VecDeque::new(), world.etcd.counters);
        for tick in 0..500 {
            if tick == 300 {
                before = world.etcd.counters;
            }
            for _ in 0..100 {
                living.push_back(world.add(rng.usize(0..nodes), None));
            }
            world.settle_for(100);
            for id in living.drain(..living.len().saturating_sub(3_000)).collect::<Vec<_>>() {
                world.delete(id);
            }
        }
        let after = world.etcd.counters;
        let rate = |a: u64, b: u64| (a - b) as f64 / 20.0;
        println!(
            "{nodes} nodes: {:.0} transactions/s (of blocks {:.2}), {:.0} reads/s, {:.0} lease \
             requests/s, {:.0} writes/s, {:.1} watch events/s, {} keys",
            rate(after.txns, before.txns),
            rate(after.block_txns, before.block_txns),
            rate(after.reads, before.reads),
            rate(after.leases, before.leases),
            rate(after.writes, before.writes),
            rate(after.events, before.events),
            world.etcd.keys(),
        );
        assert_eq!(world.tally.failed, 0);
        assert!(rate(after.block_txns, before.block_txns) <= 20.0, "churn changes blocks");
    }
}
