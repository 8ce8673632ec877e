//! `leasehold networks`: how large the networks are, and how full.

use std::process::ExitCode;

use clap::Args;

use super::admin::{self, AdminArgs};
use super::live::{self, WatchArgs};
use super::output::{self, printable};
use crate::api::figures::PoolRow;

/// The options of `leasehold networks`.
#[derive(Args, Debug)]
pub(super) struct NetworksArgs {
    /// Only this network, by the name of its pool [default: all]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "One row for each range set of the networks that this node has used. SIZE: addresses\n\
         that can ever go out, in the whole cluster. USED: those that containers hold, on all\n\
         nodes. FREE: the rest. TREND: how many become free or are used up in an hour, of those\n\
         that no node holds and those that are free on this node, and when none of them is\n\
         left; ? for the first minutes. The last columns say what of FREE is special.\n\
         KEPT: for pods of a stage. GONE: in blocks of nodes that are gone. QUARANTINED: of\n\
         removed nodes. COOLING and HERE (can be handed out now) are of this node only. JSON\n\
         has the figures of GET /v1/pools. Exit status 1: a network has no free address.\n\n\
         Examples:\n  leasehold networks\n  leasehold networks --network my-net -o json\n\n{}",
        super::EXIT_CODES
    )
}

/// Shows the networks.
pub(super) fn run(args: &NetworksArgs) -> anyhow::Result<ExitCode> {
    let network = args.network.clone();
    let AdminArgs { socket, output } = args.admin.clone();
    live::show(&args.watch, output.form, move || {
        let mut rows: Vec<PoolRow> = admin::get(&socket, "/v1/pools")?;
        if let Some(network) = &network {
            rows.retain(|row| row.network == *network);
        }
        let text = output::text(output.form, &rows, || match rows.is_empty() {
            true => "no such network is in use on this node yet\n".to_owned(),
            false => table(&rows),
        })?;
        Ok((text, rows.iter().all(|row| row.free > 0)))
    })
}

fn table(rows: &[PoolRow]) -> String {
    let header = [
        "NETWORK",
        "FAMILY",
        "RANGES",
        "SIZE",
        "USED",
        "FREE",
        "TREND",
        "KEPT",
        "GONE",
        "QUARANTINED",
        "COOLING",
        "HERE",
    ];
    let row = |row: &PoolRow| {
        let known = |figure: Option<u128>| figure.map_or("?".to_owned(), |n| n.to_string());
        vec![
            printable(&row.network),
            row.family.clone(),
            row.ranges.join(" "),
            row.size.to_string(),
            format!("{} ({})", row.used, percent(row.used, row.size)),
            row.free.to_string(),
            trend(row),
            row.kept.to_string(),
            known(row.gone),
            known(row.quarantined),
            row.here.cooling.to_string(),
            row.here.free.to_string(),
        ]
    };
    output::table(&header, rows.iter().map(row).collect())
}

/// The trend of the free addresses: `-120/h, 8h left`.
fn trend(row: &PoolRow) -> String {
    let Some(per_hour) = row.per_hour else { return "?".to_owned() };
    match row.seconds_left {
        _ if per_hour.abs() < 1.0 => "steady".to_owned(),
        None => format!("{per_hour:+.0}/h"),
        Some(seconds) => format!("{per_hour:+.0}/h, {} left", rough(seconds)),
    }
}

fn rough(seconds: u64) -> String {
    match seconds {
        0..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A part of a whole; what is neither none nor all never looks like it.
fn percent(part: u64, whole: u128) -> String {
    #[allow(clippy::cast_precision_loss)]
    let percent = part as f64 * 100.0 / (whole.max(1) as f64);
    match percent {
        _ if part == 0 => "0%".to_owned(),
        percent if percent < 1.0 => "<1%".to_owned(),
        percent if percent > 99.0 && u128::from(part) < whole => ">99%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_says_when_nothing_is_left() {
        for (seconds, shown) in [(59, "0m"), (7199, "119m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(rough(seconds), shown);
        }
    }

    #[test]
    fn parts_of_a_whole_are_never_rounded_to_none_or_all() {
        let cases = [
            (0, 10, "0%"),
            (5, 10, "50%"),
            (1, 1000, "<1%"),
            (999, 1000, ">99%"),
            (10, 10, "100%"),
            (3, 1 << 64, "<1%"),
            (0, 0, "0%"),
        ];
        for (part, whole, shown) in cases {
            assert_eq!(percent(part, whole), shown, "{part} of {whole}");
        }
    }
}
