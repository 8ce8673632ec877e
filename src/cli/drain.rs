//! `leasehold node drain` and `leasehold drain`: a node gives its blocks back.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::admin::{self, AdminArgs};
use super::output::{self, printable};
use crate::api::nodes::{Drain, Drained, NodeRow};
use crate::api::read::Status;

/// The time between two counts of the blocks of a node that is being drained.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The options of `leasehold node drain`.
#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    /// The node, by its name in `leasehold node list`
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    node: String,
    #[command(flatten)]
    how: HowArgs,
}

/// The options of `leasehold drain`.
#[derive(Args, Debug)]
pub(super) struct LocalArgs {
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args, Debug)]
struct HowArgs {
    /// Let the node serve again
    #[arg(long)]
    undo: bool,
    /// Wait until the node holds no blocks
    #[arg(long, conflicts_with = "undo")]
    wait: bool,
    /// The longest time to wait, such as 90s
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait",
          value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The result of the command.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    drained: Drained,
    /// Blocks that the node held at the end; null without a wait.
    blocks_left: Option<u64>,
}

const ABOUT: &str = "A drained node refuses ADD with \"try again\" and gives each block back as \
    soon as no address\nin it is held or cooling; DEL and CHECK keep working. The node notices \
    within a third of its\nlease's TTL (10 s by default). Its containers go on running, and it \
    keeps the blocks in which\nthey hold addresses.";

const NEWS: &str = "Here 1 means: there is no such node, or it still held blocks at the end.";

/// The end of the help of `leasehold node drain`.
pub(super) fn examples() -> String {
    format!(
        "{ABOUT}\n\nExamples:\n  leasehold node drain node-7 --wait --timeout 10m\n  \
         leasehold node drain node-7 --undo\n\n{}\n{NEWS}",
        super::EXIT_CODES
    )
}

/// The end of the help of `leasehold drain`.
pub(super) fn local_examples() -> String {
    format!(
        "The same as `leasehold node drain` with this node's name.\n\n{ABOUT}\n\nExamples:\n  \
         leasehold drain --wait\n  leasehold drain --undo\n\n{}\n{NEWS}",
        super::EXIT_CODES
    )
}

/// Drains a node, or undoes that.
pub(super) fn run(args: &DrainArgs) -> anyhow::Result<ExitCode> {
    drain(&args.node, &args.how)
}

/// The same for the node whose daemon is asked.
pub(super) fn run_local(args: &LocalArgs) -> anyhow::Result<ExitCode> {
    let status: Status = admin::get(&args.how.admin.socket, "/v1/status")?;
    drain(&status.about.node, &args.how)
}

fn drain(node: &str, how: &HowArgs) -> anyhow::Result<ExitCode> {
    let (socket, form) = (&how.admin.socket, how.admin.output.form);
    let path = format!("/v1/nodes/{}/drain", admin::encoded(node));
    let asked = admin::post(socket, &path, &Drain { undo: how.undo });
    let drained: Drained = match admin::news(asked)? {
        Ok(drained) => drained,
        Err(error) => return admin::bad_news(form, error),
    };
    let blocks_left = match how.wait {
        true => Some(wait(socket, node, how.timeout)?),
        false => None,
    };
    let report = Report { drained, blocks_left };
    output::show(form, &report, || show(&report))?;
    Ok(super::verdict(blocks_left.unwrap_or(0) == 0))
}

/// Waits until the node holds no blocks, but no longer than `timeout`, and not for a node that is
/// not running. Returns the number of blocks that it then holds.
fn wait(socket: &Path, node: &str, timeout: Duration) -> anyhow::Result<u64> {
    let deadline = Instant::now() + timeout;
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")?;
    let progress = ProgressBar::new_spinner().with_style(style);
    loop {
        let rows: Vec<NodeRow> = admin::get(socket, "/v1/nodes")?;
        let row = rows.iter().find(|row| row.node == node);
        let left = row.map_or(0, |row| row.spare + row.active);
        let live = row.is_some_and(|row| row.live);
        if left == 0 || !live || Instant::now() + LOOK_EVERY > deadline {
            progress.finish_and_clear();
            return Ok(left);
        }
        progress.set_message(format!("node {node} holds {left} blocks"));
        progress.tick();
        std::thread::sleep(LOOK_EVERY);
    }
}

fn show(report: &Report) -> String {
    let Drained { node, draining, changed, live } = &report.drained;
    let node = printable(node);
    let mut text = match (draining, changed) {
        (true, true) => format!("node {node} will be drained"),
        (true, false) => format!("node {node} is being drained already"),
        (false, true) => format!("node {node} will serve again as soon as it notices"),
        (false, false) => format!("node {node} was not being drained"),
    };
    match report.blocks_left {
        Some(0) => text.push_str(": it holds no blocks"),
        Some(left) => {
            let holds = format!(
                ": it still holds {left} blocks, with addresses that containers hold or held a \
                 moment ago"
            );
            text.push_str(&holds);
        }
        None => {}
    }
    if !live && *draining {
        text.push_str("; it is not running, and gives nothing back until it runs again");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said() {
        let text = |changed, live, blocks_left| {
            let drained = Drained { node: "n".to_owned(), draining: true, changed, live };
            show(&Report { drained, blocks_left })
        };
        assert_eq!(text(true, true, None), "node n will be drained\n");
        assert!(text(true, true, Some(0)).ends_with("drained: it holds no blocks\n"));
        assert!(text(true, true, Some(3)).contains("still holds 3 blocks"));
        assert!(text(false, false, None).contains("already; it is not running"));
    }
}
