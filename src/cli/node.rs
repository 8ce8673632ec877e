//! `leasehold node`: lists, drains and removes nodes of the cluster.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::admin::{self, AdminArgs};
use super::drain::{self, DrainArgs};
use super::live::{self, WatchArgs};
use super::output::{self, printable};
use crate::api::nodes::{NodeRow, RemovalOutcome, Remove, Removed};
use crate::api::zero::or_zero;
use crate::clock::{self, rfc3339};
use crate::core::time::UnixTime;
use crate::limits;

/// The commands about nodes.
#[derive(Subcommand, Debug)]
pub(super) enum NodeCommand {
    /// List every node that the cluster knows, whether it is live, and its blocks by state
    #[command(after_help = list_examples())]
    List(ListArgs),
    /// Remove a node that is gone for good: its blocks become free after a quarantine
    #[command(after_help = remove_examples())]
    Remove(RemoveArgs),
    /// Drain a node: it refuses ADD and gives its blocks back, until --undo
    #[command(after_help = drain::examples())]
    Drain(DrainArgs),
}

/// The options of `leasehold node list`.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The options of `leasehold node remove`.
#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    /// The node, by its name in `leasehold node list`
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    node: String,
    /// Time for which no node gets its blocks, such as 10m; at least 1m [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = quarantine)]
    quarantine: Option<Duration>,
    /// Remove it only if it is this machine (MACHINE in the list), so that a hook may repeat it
    #[arg(long, value_name = "MACHINE-ID", value_parser = NonEmptyStringValueParser::new())]
    incarnation: Option<String>,
    /// Remove it even if it is running, or is the node that carries out this command
    #[arg(long)]
    force: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Confirm the removal; without it, nothing is done and what would be done is shown
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

fn quarantine(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let (min, max) = (limits::QUARANTINE_MIN, limits::QUARANTINE_MAX);
    if (min..=max).contains(&time) {
        return Ok(time);
    }
    let show = humantime::format_duration;
    Err(format!("it must be from {} to {}", show(min), show(max)))
}

/// The end of the help of `leasehold node`.
pub(super) fn examples() -> String {
    format!(
        "Examples:\n  leasehold node list\n  leasehold node drain node-7 --wait\n  \
         leasehold node remove node-7 --dry-run\n\n{}",
        super::EXIT_CODES
    )
}

fn list_examples() -> String {
    format!(
        "A node is live while its daemon keeps its session in the store. SPARE, ACTIVE and\n\
         QUARANTINED count its blocks: spare blocks end with its session, active blocks stay its\n\
         own until it gives them back or is removed. JSON is the answer of GET /v1/nodes.\n\n\
         Examples:\n  leasehold node list\n  leasehold node list -o json\n\n{}",
        super::EXIT_CODES
    )
}

fn remove_examples() -> String {
    format!(
        "For a node that will not come back. Its active blocks become free for other nodes after\n\
         the quarantine, its spare blocks at once, and the records of its allocations are\n\
         deleted. The cluster cannot know whether containers on that machine still run and use\n\
         its addresses: first make sure that they do not. A node that is running is refused:\n\
         drain it instead. If the node was removed before, --quarantine can shorten the\n\
         quarantine, but never prolong it.\n\n\
         If the node comes back, it joins again and takes back the blocks that are still in\n\
         quarantine. If it stays away, remove it once more when its blocks are gone: the cluster\n\
         then forgets it.\n\n\
         Examples:\n  leasehold node remove node-7 --dry-run\n  \
         leasehold node remove node-7 --quarantine 10m --yes\n  \
         leasehold node remove node-7 --yes --incarnation 8f6f...\n\n{}\n\
         Here 1 means: there is no such node, or it must not be removed in its present state.",
        super::EXIT_CODES
    )
}

/// Runs a command about nodes.
pub(super) fn run(command: &NodeCommand) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::List(args) => list(args),
        NodeCommand::Remove(args) => remove(args),
        NodeCommand::Drain(args) => drain::run(args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let AdminArgs { socket, output } = args.admin.clone();
    live::show(&args.watch, output.form, move || {
        let rows: Vec<NodeRow> = admin::get(&socket, "/v1/nodes")?;
        let table = || format!("{}{}", table(&rows), gone(&rows));
        Ok((output::text(output.form, &rows, table)?, true))
    })
}

fn table(rows: &[NodeRow]) -> String {
    let header = [
        "NODE",
        "STATE",
        "EPOCH",
        "VERSION",
        "SPARE",
        "ACTIVE",
        "QUARANTINED",
        "PARKED",
        "HELD",
        "SINCE",
        "LAST WRITE",
        "MACHINE",
    ];
    let time = |time: Option<UnixTime>| time.map_or_else(|| "-".to_owned(), rfc3339);
    let text = |text: &str| if text.is_empty() { "-".to_owned() } else { printable(text) };
    let row = |row: &NodeRow| {
        let mut cells = vec![printable(&row.node), state(row), or_zero(row.epoch).to_string()];
        cells.push(text(&row.version));
        cells.extend(
            [row.spare, row.active, row.quarantined, row.parked].map(|count| count.to_string()),
        );
        cells.push(row.held.map_or_else(|| "-".to_owned(), |held| held.to_string()));
        let times = [time(row.since), time(row.last_write)];
        cells.extend(times);
        cells.push(text(&row.machine_id));
        cells
    };
    output::table(&header, rows.iter().map(row).collect())
}

/// Returns what to do about nodes that hold blocks and are gone.
fn gone(rows: &[NodeRow]) -> String {
    let is_gone = |row: &&NodeRow| !row.live && row.removed_unix_ms.is_none() && row.active > 0;
    let gone: Vec<String> = rows.iter().filter(is_gone).map(|row| printable(&row.node)).collect();
    let Some(first) = gone.first() else { return String::new() };
    format!(
        "\nNo other node gets the blocks of {}: start the daemon; or, once it is sure that the\n\
         containers of the node are gone, `leasehold node remove {first}`.\n",
        gone.join(", ")
    )
}

/// The state of a node without blanks, for a column of a table.
fn state(row: &NodeRow) -> String {
    let mut state = match (row.live, row.removed_unix_ms) {
        (true, _) => "live",
        (false, Some(_)) => "removed",
        (false, None) => "gone",
    }
    .to_owned();
    let more = [
        (row.draining_since_unix_ms.is_some(), "draining"),
        (row.awaited, "awaited"),
        (row.local, "local"),
        (row.unreadable.is_some(), "unreadable"),
    ];
    for (_, word) in more.iter().filter(|(is, _)| *is) {
        state.push(',');
        state.push_str(word);
    }
    state
}

fn remove(args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let (socket, form) = (&args.admin.socket, args.admin.output.form);
    let unasked = !args.yes && !args.dry_run;
    let remove = Remove {
        incarnation: args.incarnation.clone(),
        force: args.force,
        quarantine_s: args.quarantine.map(|time| time.as_secs()),
        dry_run: args.dry_run || unasked,
    };
    let path = format!("/v1/nodes/{}/remove", admin::encoded(&args.node));
    let removed: Removed = match admin::news(admin::post(socket, &path, &remove))? {
        Ok(removed) => removed,
        Err(error) => return admin::bad_news(form, error),
    };
    output::show(form, &removed, || show(&removed, clock::unix()))?;
    anyhow::ensure!(!unasked, "nothing was done: pass --yes to remove node {}", args.node);
    Ok(ExitCode::SUCCESS)
}

fn show(removed: &Removed, now: UnixTime) -> String {
    let (node, would) = (printable(&removed.node), removed.dry_run);
    let records = removed.records;
    let mut text = match removed.outcome {
        RemovalOutcome::Removed => format!(
            "{}: node {node}, epoch {}: {} blocks in quarantine for {}, {} spare blocks free at \
             once, {records} records deleted\n",
            if would { "would be removed (dry run)" } else { "removed" },
            or_zero(removed.epoch),
            removed.quarantined,
            humantime::format_duration(Duration::from_secs(removed.quarantine_s)),
            removed.freed,
        ),
        RemovalOutcome::AlreadyRemoved => format!(
            "node {node} was removed before: {} blocks are still in quarantine, {records} records \
             {}deleted\n",
            removed.quarantined,
            if would { "would be " } else { "" },
        ),
        RemovalOutcome::Forgotten => format!(
            "{}: node {node} was removed before and has no blocks; {records} records deleted\n",
            if would { "would be forgotten (dry run)" } else { "forgotten" },
        ),
        RemovalOutcome::Succeeded => format!(
            "node {node} is another machine by now (epoch {}): nothing was done\n",
            or_zero(removed.epoch),
        ),
    };
    if removed.outcome == RemovalOutcome::Removed {
        text.push_str(&unknowns(removed, now));
    }
    text
}

/// The facts that only the operator can find out.
fn unknowns(removed: &Removed, now: UnixTime) -> String {
    let mut text = String::new();
    let last = removed.last_write.unwrap_or(UnixTime::EPOCH);
    let ago = Duration::from_secs(now.since(last).as_secs());
    let ago = humantime::format_duration(ago);
    let session = match removed.was_live {
        true => "It had a session: its daemon ran a moment ago.",
        false => {
            "It had no session: its daemon is down or cannot reach the store; since when is not \
             known."
        }
    };
    let _ = writeln!(text, "{session} Its last known write is from {} ({ago} ago).", rfc3339(last));
    text.push_str(
        "Only you can find out whether containers on that machine still use these addresses. A \
         daemon with an offlineLimit stops handing out addresses once it has not reached the \
         store for that long; a daemon without one goes on handing out those that it has.\n\
         If the node comes back, it joins again and takes back the blocks that are still in \
         quarantine.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::Epoch;

    fn removed(outcome: RemovalOutcome, dry_run: bool) -> Removed {
        Removed {
            node: "n7".to_owned(),
            outcome,
            dry_run,
            epoch: Epoch::new(4),
            quarantined: 3,
            freed: 2,
            quarantine_s: 300,
            records: 12,
            was_live: false,
            last_write: Some(UnixTime::from_millis(1_000_000)),
        }
    }

    #[test]
    fn what_was_done_and_what_is_not_known_is_said() {
        let text = show(
            &removed(RemovalOutcome::Removed, false),
            UnixTime::from_millis(1_000_000 + 725_000),
        );
        for expected in [
            "removed: node n7, epoch 4: 3 blocks in quarantine for 5m, 2 spare blocks free at \
             once, 12 records deleted\n",
            "from 1970-01-01T00:16:40.000Z (12m 5s ago)",
            "It had no session",
            "whether containers on that machine still use these addresses",
            "offlineLimit",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
        let dry = show(&removed(RemovalOutcome::Removed, true), UnixTime::from_millis(1_000_000));
        assert!(dry.starts_with("would be removed (dry run): node n7"), "{dry}");
        let again =
            show(&removed(RemovalOutcome::AlreadyRemoved, false), UnixTime::from_millis(1_000_000));
        assert!(again.contains("3 blocks are still in quarantine, 12 records deleted"), "{again}");
        assert!(
            show(&removed(RemovalOutcome::Forgotten, false), UnixTime::from_millis(0))
                .starts_with("forgotten: node n7")
        );
    }

    #[test]
    fn a_quarantine_has_limits() {
        assert_eq!(quarantine("5m"), Ok(limits::QUARANTINE));
        for bad in ["59s", "25h", "soon", "-1s"] {
            assert!(quarantine(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_is_one_word_in_a_table() {
        let row: NodeRow = serde_json::from_value(serde_json::json!({
            "node": "n", "local": true, "epoch": 1, "machineId": "", "version": "1",
            "sinceUnixMs": 0, "lastWriteUnixMs": 0, "live": true, "drainingSinceUnixMs": 5,
            "removedUnixMs": null, "spare": 0, "active": 0, "quarantined": 0, "unreadable": null
        }))
        .unwrap();
        assert_eq!(state(&row), "live,draining,local");
        let gone = NodeRow { live: false, local: false, draining_since_unix_ms: None, ..row };
        assert_eq!(state(&gone), "gone");
        assert_eq!(state(&NodeRow { removed_unix_ms: Some(7), ..gone }), "removed");
    }
}
