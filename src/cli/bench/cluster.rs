//! Mode `cluster`: several daemons on a real etcd.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::calls::{call, config, container};
use super::load::{Connection, Load, Loaded, Until, block_on, maker, run_all};
use super::report::{Series, Target, Times, add_time, times};
use super::{Bench, Plan};
use crate::api::read::Status;
use crate::cli::admin;
use crate::cli::child::daemon::Daemon;
use crate::cli::child::etcd::Etcd;

const MODE: &str = "cluster";

/// Containers of the burst, and the connections that they come on.
const BURST: u64 = 10_000;
const BURST_CONNECTIONS: u64 = 50;

/// Containers that come each second of the churn, on all nodes; and connections to each daemon.
const CHURN_PER_SECOND: u32 = 1200;
const CHURN_PER_SECOND_QUICK: u32 = 200;
const CHURN_CONNECTIONS: u64 = 4;

/// Containers that live on each connection of the churn.
const CHURN_KEEP: usize = 5;

/// The cooldown of the daemons: after this time the churn needs no further addresses.
const COOLDOWN: &str = "1s";

/// The measured rounds begin after `WARM` rounds in a row that leased nothing, or after
/// `WARM_MAX` rounds.
const WARM: u32 = 3;
const WARM_MAX: u32 = 20;

/// The shortest round of the churn.
const CHURN_MIN: Duration = Duration::from_millis(800);

/// Addresses of 10.9.0.0/24 that containers can have: all but those of the subnet, of the gateway
/// and of the broadcasts.
const LAST_SUBNET: &str = "10.9.0.0/24";
const LAST_ADDRESSES: u64 = 253;

/// The time within which the nodes must know of each other.
const MEMBERS_WAIT_MAX: Duration = Duration::from_secs(30);

/// The error code of an ADD for which no address is free.
const EXHAUSTED: u64 = 100;

/// The number of steps of the progress bar.
pub(super) fn steps(plan: &Plan) -> u64 {
    u64::from(plan.rounds) + 4
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    bench.step("cluster, etcd and daemons start")?;
    let Some((_etcd, daemons)) = start_all(bench)? else { return Ok(()) };
    burst(bench, &daemons)?;
    churn(bench, &daemons)?;
    last_address(bench, &daemons)
}

/// Starts the daemons, and an etcd for them if none is given; nothing if there is no such program.
pub(super) fn start_all(
    bench: &mut Bench<'_>,
) -> anyhow::Result<Option<(Option<Etcd>, Vec<Daemon>)>> {
    let (etcd, url) = match &bench.plan.etcd {
        Some(url) => (None, url.clone()),
        None => match Etcd::start(&bench.plan.etcd_bin, &bench.dir, bench.interrupt) {
            Ok(etcd) => {
                let url = etcd.url();
                (Some(etcd), url)
            }
            Err(error) if is_missing(&error) => {
                bench.report.skip(format!("no etcd: {error:#}; --etcd-bin names the program"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        },
    };
    let daemons = start(bench, &url)?;
    Ok(Some((etcd, daemons)))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::NotFound)
}

fn start(bench: &Bench<'_>, url: &str) -> anyhow::Result<Vec<Daemon>> {
    let mut daemons = Vec::new();
    // Each run has its own prefix, because it leaves its keys in an etcd that it did not start.
    let prefix = format!("/leasehold-bench/{}", std::process::id());
    for number in 0..bench.plan.nodes {
        let name = format!("node-{number}");
        let dir = bench.subdir(&name)?;
        let args = ["--node", &name, "--etcd", url, "--etcd-prefix", &prefix];
        let args: Vec<&str> = args.into_iter().chain(["--cooldown", COOLDOWN]).collect();
        daemons.push(Daemon::start_with(&dir, &args, bench.interrupt)?);
    }
    let deadline = Instant::now() + MEMBERS_WAIT_MAX;
    for daemon in &daemons {
        let alone = daemons.len() == 1;
        while admin::get::<Status>(daemon.socket(), "/v1/status")?.cluster.alone != alone {
            anyhow::ensure!(Instant::now() < deadline, "the nodes do not find each other");
            anyhow::ensure!(!bench.interrupt.wait(Duration::from_millis(50)), "interrupted");
        }
    }
    Ok(daemons)
}

/// The block transactions of a network so far: those that lease, and the blocks given back.
fn of_blocks(daemons: &[Daemon], network: &str) -> anyhow::Result<f64> {
    let network = format!("network=\"{network}\"");
    let names = ["leasehold_block_leases_total", "leasehold_blocks_given_back_total"];
    let mut sum = 0.0;
    for daemon in daemons {
        for name in names {
            sum += daemon.metric(name, &[&network])?;
        }
    }
    Ok(sum)
}

/// All etcd transactions so far.
fn of_all(daemons: &[Daemon]) -> anyhow::Result<f64> {
    let txns =
        |daemon: &Daemon| daemon.metric("leasehold_etcd_requests_total", &["operation=\"txn\""]);
    daemons.iter().map(txns).sum()
}

/// Starts many containers at once on one node of a cluster that has done nothing yet.
#[allow(clippy::cast_precision_loss)]
fn burst(bench: &mut Bench<'_>, daemons: &[Daemon]) -> anyhow::Result<()> {
    bench.step("cluster, burst")?;
    let config = config("burst", "10.0.0.0/8", "my-ipam");
    let before = (of_blocks(daemons, "burst")?, of_all(daemons)?);
    let load = Load {
        socket: daemons[0].socket(),
        connections: BURST_CONNECTIONS,
        until: Until::Adds(BURST / BURST_CONNECTIONS),
        keep: usize::MAX,
        period: Duration::ZERO,
        config: &config,
    };
    let loaded = load.run()?;
    let case = format!("ADD, burst of {BURST} on one node");
    let mut series = Series::new(MODE, case, "leasehold")?;
    series.round(&loaded.adds, loaded.took)?;
    bench.report.series([&series]);
    let blocks = (of_blocks(daemons, "burst")? - before.0) / BURST as f64;
    let what = "transactions of blocks per allocation, burst";
    bench.report.find(MODE, what, blocks, "", Target::AtMost(0.002));
    // The records for people and other nodes are written later; they belong to the burst.
    let deadline = Instant::now() + MEMBERS_WAIT_MAX;
    while daemons[0].metric("leasehold_records_waiting", &[])? > 0.0 {
        anyhow::ensure!(Instant::now() < deadline, "the records are not written");
        anyhow::ensure!(!bench.interrupt.wait(Duration::from_millis(50)), "interrupted");
    }
    let all = (of_all(daemons)? - before.1) / BURST as f64;
    let what = "all transactions per allocation, burst (records too)";
    bench.report.find(MODE, what, all, "", Target::None);
    Ok(())
}

/// Lets containers come and go on all nodes.
#[allow(clippy::cast_precision_loss)]
fn churn(bench: &mut Bench<'_>, daemons: &[Daemon]) -> anyhow::Result<()> {
    let config = config("churn", "10.0.0.0/8", "my-ipam");
    let rate = if bench.plan.quick { CHURN_PER_SECOND_QUICK } else { CHURN_PER_SECOND };
    let connections = daemons.len() as u64 * CHURN_CONNECTIONS;
    let period = Duration::from_secs(connections) / rate;
    let load = |time| -> anyhow::Result<Vec<Loaded>> {
        let loads = daemons.iter().map(|daemon| Load {
            socket: daemon.socket(),
            connections: CHURN_CONNECTIONS,
            until: Until::Time(time),
            keep: CHURN_KEEP,
            period,
            config: &config,
        });
        run_all(&loads.collect::<Vec<_>>())
    };
    bench.step("cluster, churn")?;
    // Like the measured rounds: the end of each, when all is given back, is a load of its own.
    let time = (bench.plan.slice * 4).max(CHURN_MIN);
    let (mut leased, mut quiet) = (0.0, 0);
    for _ in 0..WARM_MAX {
        load(time)?;
        let before = std::mem::replace(&mut leased, of_blocks(daemons, "churn")?);
        quiet = if leased > before { 0 } else { quiet + 1 };
        if quiet == WARM {
            break;
        }
    }
    let count = daemons.len();
    let case = |verb| format!("{verb}, churn on {count} nodes");
    let mut series = [
        Series::new(MODE, case("ADD"), "leasehold")?,
        Series::new(MODE, case("DEL"), "leasehold")?,
    ];
    let before = (of_blocks(daemons, "churn")?, of_all(daemons)?, within(daemons)?);
    let mut adds = 0;
    for _ in 0..bench.plan.rounds {
        bench.step("cluster, churn")?;
        let loads = load(time)?;
        let (mut sum, mut took) = ([times()?, times()?], Duration::ZERO);
        for loaded in &loads {
            sum[0].add(&loaded.adds)?;
            sum[1].add(&loaded.dels)?;
            took = took.max(loaded.took);
        }
        adds += sum[0].len();
        series[0].round(&sum[0], took)?;
        series[1].round(&sum[1], took)?;
    }
    bench.report.series(&series);
    let after = (of_blocks(daemons, "churn")?, of_all(daemons)?, within(daemons)?);
    let target = if bench.plan.quick { Target::None } else { Target::AtLeast(1000.0) };
    let mut find = |what: &str, value, target| bench.report.find(MODE, what, value, "", target);
    find("ADDs per second of all nodes, churn", series[0].per_second(), target);
    let share = (after.2[0] - before.2[0]) / (after.2[1] - before.2[1]);
    find("share of ADDs within 1 ms at the daemon", share.into(), Target::AtLeast(0.99));
    let what = "transactions of blocks, steady churn";
    find(what, (after.0 - before.0).into(), Target::AtMost(0.0));
    let all = (after.1 - before.1) / adds as f64;
    find("all transactions per allocation, churn (records too)", all.into(), Target::None);
    Ok(())
}

/// The ADDs that daemons answered within a millisecond, and all ADDs.
fn within(daemons: &[Daemon]) -> anyhow::Result<[f64; 2]> {
    let name = "leasehold_request_duration_seconds_bucket";
    let mut sum = [0.0; 2];
    for daemon in daemons {
        for (sum, bound) in sum.iter_mut().zip(["le=\"0.001\"", "le=\"+Inf\""]) {
            *sum += daemon.metric(name, &["verb=\"ADD\"", bound])?;
        }
    }
    Ok(sum)
}

/// Has all nodes fill one small pool, to its last address.
#[allow(clippy::cast_precision_loss)]
fn last_address(bench: &mut Bench<'_>, daemons: &[Daemon]) -> anyhow::Result<()> {
    bench.step("cluster, last address")?;
    let config = config("last", LAST_SUBNET, "my-ipam");
    let (adds, took) = block_on(async {
        let began = Instant::now();
        let mut nodes = Vec::new();
        for daemon in daemons {
            let fill = fill(daemon.socket().to_owned(), config.clone());
            nodes.push(tokio::task::spawn_local(fill));
        }
        let mut sum = times()?;
        for node in nodes {
            sum.add(&node.await??)?;
        }
        Ok((sum, began.elapsed()))
    })?;
    let case = format!("ADD, {LAST_ADDRESSES} addresses for {} nodes", daemons.len());
    let mut series = Series::new(MODE, case, "leasehold")?;
    series.round(&adds, took)?;
    bench.report.series([&series]);
    let got = adds.len() as f64;
    let what = format!("addresses handed out of {LAST_ADDRESSES}");
    bench.report.find(MODE, what, got, "", Target::AtLeast(LAST_ADDRESSES as f64));
    Ok(())
}

/// Makes ADDs on one node until no address is free anywhere. Returns the times of those that gave
/// an address.
async fn fill(socket: impl AsRef<Path>, config: Value) -> anyhow::Result<Times> {
    let mut connection = Connection::open(socket.as_ref()).await?;
    let (maker, mut adds) = (maker(), times()?);
    for number in 0.. {
        let body = call("ADD", &container(maker, number), &config).to_string();
        let began = Instant::now();
        let (status, answer) = connection.ask(&body).await?;
        if status == 200 {
            add_time(&mut adds, began.elapsed());
            continue;
        }
        let error: Value = serde_json::from_slice(answer)?;
        if error["code"] == EXHAUSTED {
            break;
        }
        // Another node was faster: a runtime asks again.
        anyhow::ensure!(error["code"] == 11, "an ADD was refused: {error}");
    }
    Ok(adds)
}
