//! `leasehold networks`: how large the networks are, and how full.

use std::process::ExitCode;

use clap::Args;

use super::admin::{self, AdminArgs};
use super::live::{self, WatchArgs};
use super::output::{self, printable};
use crate::api::figures::PoolRow;
use crate::limits;

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
        "One row for each range set of the networks of the cluster. SIZE: addresses that can\n\
         ever go out, in the whole cluster; ~: gateways count, because this node has not used\n\
         the network and does not know them. USED: those that containers hold, on all nodes.\n\
         AVAILABLE: those that an ADD can get, cooling ones included, which go out when no other\n\
         is left. KEPT: for pods of a stage. GONE: in blocks of nodes that are gone.\n\
         QUARANTINED: of removed nodes. COOLING and HERE (can be handed out now) are of this\n\
         node only, and TREND too: how many addresses its containers set free (+) or take (-) in\n\
         an hour, and, if no other node is live, when none is available; ? for the first\n\
         minutes. JSON has the figures of GET /v1/pools. Exit status 1: a range set has no\n\
         available address, or no network has the name.\n\n\
         Examples:\n  leasehold networks\n  leasehold networks --network my-net -o json\n\n{}",
        super::EXIT_CODES
    )
}

/// Shows the networks.
pub(super) fn run(args: &NetworksArgs) -> anyhow::Result<ExitCode> {
    let network = args.network.clone();
    let AdminArgs { socket, output } = args.admin.clone();
    live::show(&args.watch, output.form, move || {
        let mut rows: Vec<PoolRow> =
            admin::get_within(&socket, "/v1/pools", limits::MAP_COUNT_MAX)?;
        if let Some(network) = &network {
            rows.retain(|row| row.network == *network);
        }
        let text = output::text(output.form, &rows, || match (&network, rows.is_empty()) {
            (Some(network), true) => format!("no network has the name {}\n", printable(network)),
            (None, true) => "no network is in use in this cluster\n".to_owned(),
            (_, false) => table(&rows) + &unknown(&rows),
        })?;
        let good = rows.iter().all(|row| row.available != Some(0));
        Ok((text, good && (network.is_none() || !rows.is_empty())))
    })
}

/// The reason why figures are not known.
fn unknown(rows: &[PoolRow]) -> String {
    let cause = rows.iter().find_map(|row| row.cause.as_deref());
    cause.map_or_else(String::new, |cause| {
        format!("note: what other nodes hold is not known: {}\n", printable(cause))
    })
}

fn table(rows: &[PoolRow]) -> String {
    let header = [
        "NETWORK",
        "FAMILY",
        "RANGES",
        "SIZE",
        "USED",
        "AVAILABLE",
        "TREND",
        "KEPT",
        "GONE",
        "QUARANTINED",
        "COOLING",
        "HERE",
    ];
    let row = |row: &PoolRow| {
        let known = |figure: Option<u128>| figure.map_or("?".to_owned(), |n| n.to_string());
        let inexact = if row.exact { "" } else { "~" };
        vec![
            printable(&row.network),
            row.family.clone(),
            row.ranges.join(" "),
            format!("{inexact}{}", row.size),
            row.used.map_or("?".to_owned(), |used| format!("{used} ({})", percent(used, row.size))),
            format!("{inexact}{}", known(row.available)),
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

/// The trend of this node: `-120/h, 8h left`.
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
