//! `leasehold plan`: whether a configuration fits a cluster, before there is one. It asks nobody.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::input;
use super::output::{self, OutputArgs};
use crate::cni::central;
use crate::core::offer::Offer;
use crate::core::range::Ranges;
use crate::limits;

/// The largest number of hours that is shown: a hundred years.
const HOURS_SHOWN_MAX: f64 = 100.0 * 365.0 * 24.0;

/// The options of `leasehold plan`.
#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    /// CNI configuration (conf or conflist) or ipam object
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Nodes of the cluster
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// Containers on each node, at most
    #[arg(long, value_name = "NUMBER")]
    pods_per_node: u32,
    /// Containers that end in the whole cluster, per second
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, value_parser = churn)]
    churn: f64,
    /// Containers that the whole cluster has more, per hour
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, value_parser = churn)]
    growth: f64,
    /// Time for which a released address is not handed out again
    #[arg(long, value_name = "TIME", default_value = "30s",
          value_parser = humantime::parse_duration)]
    cooldown: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

fn churn(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "give a number, such as 2.5".to_owned())?;
    let sane = rate.is_finite() && (0.0..=1e6).contains(&rate);
    sane.then_some(rate).ok_or("give a number from 0 to 1000000".to_owned())
}

/// The plan for one range set.
#[derive(Serialize, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
struct Plan {
    ranges: String,
    /// Addresses that can ever be handed out.
    size: u128,
    block_size: u64,
    /// Whole blocks of the usual size that fit in.
    blocks: u128,
    /// Addresses that containers hold, on all nodes.
    held: u128,
    /// Addresses that cool, on all nodes, in the middle.
    cooling: u128,
    /// Addresses in the blocks that each node keeps.
    per_node: u64,
    /// Those of all nodes.
    wanted: u128,
    /// Blocks that the nodes lease ahead of need, one each.
    spares: u64,
    /// Containers that can hold an address while others cool.
    held_max: u128,
    /// The number of hours until there are so many; null: there do not come more.
    hours_left: Option<f64>,
    /// Nodes of this kind that the range set has room for.
    nodes_max: u128,
    warnings: Vec<String>,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "A node keeps blocks for the containers that it runs, for the addresses that cool, for\n\
         {} more that need no etcd, and one block ahead. JSON has the same figures. Exit status\n\
         1: containers would not get an address.\n\n\
         Examples:\n  leasehold plan my-net.conflist --nodes 50 --pods-per-node 100\n  \
         leasehold plan ipam.json --nodes 20 --pods-per-node 30 --churn 200 --cooldown 1m\n\n{}",
        limits::WARM_ADDRESSES,
        super::EXIT_CODES
    )
}

/// Shows the plan.
pub(super) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let plans: Vec<Plan> = sets(&args.file)?.iter().map(|set| plan(args, set)).collect();
    output::show(args.output.form, &plans, || {
        plans.iter().map(show).collect::<Vec<_>>().join("\n")
    })?;
    Ok(super::verdict(plans.iter().all(|plan| plan.held + plan.cooling <= plan.size)))
}

/// The range sets of a configuration.
fn sets(file: &Path) -> anyhow::Result<Vec<Ranges>> {
    let name = file.display().to_string();
    let text = input::read(file, limits::BODY_BYTES_MAX)?;
    let config: Value = serde_json::from_slice(&text).with_context(|| name.clone())?;
    let plugins = config["plugins"].as_array().map_or(&[][..], |plugins| plugins);
    let ipam = plugins.iter().chain([&config]).find_map(|plugin| plugin.get("ipam"));
    let object = serde_json::to_vec(ipam.unwrap_or(&config))?;
    let sets = central::check(&object).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    anyhow::ensure!(!sets.is_empty(), "{name}: there are no ranges: name the ipam object that has");
    Ok(sets)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn plan(args: &PlanArgs, set: &Ranges) -> Plan {
    let size = Offer::of([set].into_iter()).size();
    let (nodes, pods) = (u64::from(args.nodes), u64::from(args.pods_per_node));
    let block_size = 1 << set.usual_block_size().log2();
    let cooling_in_all = (args.churn * args.cooldown.as_secs_f64()).ceil() as u64;
    let cooling = cooling_in_all.div_ceil(nodes);
    let used = pods + cooling + block_size.min(u64::from(limits::WARM_ADDRESSES));
    let per_node = (used.div_ceil(block_size) + 1).saturating_mul(block_size);
    let (held, cooling) = (u128::from(nodes * pods), u128::from(cooling_in_all));
    let held_max = size.saturating_sub(cooling);
    #[allow(clippy::cast_precision_loss)]
    let hours = held_max.saturating_sub(held) as f64 / args.growth;
    let mut plan = Plan {
        spares: nodes,
        held_max,
        hours_left: (args.growth > 0.0).then_some(hours),
        ranges: set.to_string(),
        size,
        block_size,
        blocks: size / u128::from(block_size),
        held,
        cooling,
        per_node,
        wanted: u128::from(nodes) * u128::from(per_node),
        nodes_max: size / u128::from(per_node),
        warnings: vec![],
    };
    plan.warnings = warnings(&plan, nodes);
    plan
}

fn warnings(plan: &Plan, nodes: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    if plan.held > plan.size {
        warnings.push(format!(
            "{} containers and {} addresses: ADD will fail. Add a range",
            plan.held, plan.size
        ));
    } else if plan.held + plan.cooling > plan.size {
        warnings.push(
            "addresses will go out again before their cooldown is over: add a range, or shorten \
             the cooldown"
                .to_owned(),
        );
    } else if plan.wanted > plan.size {
        warnings.push(
            "nodes cannot keep blocks ahead of need: ADDs will wait while nodes ask each other. \
             Add a range, or set a smaller blockSize"
                .to_owned(),
        );
    }
    if plan.blocks < u128::from(nodes) {
        warnings.push(format!(
            "{nodes} nodes and {} blocks: some nodes will have none of the usual size. Set a \
             smaller blockSize",
            plan.blocks
        ));
    }
    if plan.cooling * 4 > plan.size {
        warnings
            .push("more than a quarter of the addresses cools: shorten the cooldown".to_owned());
    }
    warnings
}

fn show(plan: &Plan) -> String {
    let percent = |part: u128| part * 100 / plan.size.max(1);
    let lines = [
        ("ranges", plan.ranges.clone()),
        ("size", format!("{} addresses, {} blocks of {}", plan.size, plan.blocks, plan.block_size)),
        ("containers", format!("{} ({}%)", plan.held, percent(plan.held))),
        ("cooling", format!("{} ({}%)", plan.cooling, percent(plan.cooling))),
        (
            "nodes want",
            format!("{} each, {} in all ({}%)", plan.per_node, plan.wanted, percent(plan.wanted)),
        ),
        ("spares", format!("{} blocks, one for each node", plan.spares)),
        ("room for", format!("{} such nodes", plan.nodes_max)),
        (
            "can hold",
            format!("{} containers ({}%), the rest cools", plan.held_max, percent(plan.held_max)),
        ),
        (
            "runs out",
            match plan.hours_left {
                _ if plan.held > plan.size => "at once: it has no room for all".to_owned(),
                None => "never: no --growth is given".to_owned(),
                // More than its digits are right, and more than anybody plans for.
                Some(far) if far > HOURS_SHOWN_MAX => "in more than a hundred years".to_owned(),
                Some(hours) => format!("in {hours:.0} hours ({:.0} days)", hours / 24.0),
            },
        ),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<12}{value}");
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(nodes: u32, pods_per_node: u32, churn: f64) -> Plan {
        let output = OutputArgs { form: output::Form::Json };
        let cooldown = Duration::from_secs(30);
        let file = PathBuf::new();
        let growth = 10.0;
        let args = PlanArgs { file, nodes, pods_per_node, churn, growth, cooldown, output };
        let object = br#"{ "type": "my-ipam", "ranges": [[{ "subnet": "10.0.0.0/22" }]] }"#;
        plan(&args, &central::check(object).unwrap()[0])
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let good = planned(5, 60, 1.0);
        assert_eq!((good.size, good.block_size, good.blocks), (1021, 16, 63));
        assert_eq!((good.held, good.cooling, good.per_node), (300, 30, 112));
        assert_eq!((good.nodes_max, good.warnings.len()), (9, 0));
        assert_eq!((good.spares, good.held_max, good.hours_left), (5, 991, Some(69.1)));
        assert!(show(&good).contains("in 69 hours (3 days)"), "{}", show(&good));
        let far = Plan { hours_left: Some(1.8e20), ..planned(5, 60, 1.0) };
        assert!(show(&far).contains("in more than a hundred years"), "{}", show(&far));
        for (plan, words) in [
            (planned(20, 60, 0.0), "ADD will fail"),
            (planned(20, 60, 0.0), "runs out    at once"),
            (planned(10, 90, 10.0), "before their cooldown"),
            (planned(10, 90, 0.0), "nodes ask each other"),
            (planned(80, 1, 0.0), "some nodes will have none"),
            (planned(5, 60, 20.0), "more than a quarter"),
        ] {
            let text = show(&plan);
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
