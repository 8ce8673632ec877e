//! `leasehold gc`: releases the leaks that a check found.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::admin::{self, AdminArgs};
use super::check;
use super::input;
use super::output::{self, printable};
use crate::api::check::gc::{Collect, Collected, GcOutcome};
use crate::api::check::{Finding, Report};
use crate::limits;

/// The options of `leasehold gc`.
#[derive(Args, Debug)]
pub(super) struct GcArgs {
    /// Report that `leasehold check -o json` printed; `-` for standard input [default: check now]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Check all nodes now, and release what leaked on any of them
    #[arg(long, conflicts_with = "report")]
    all_nodes: bool,
    /// Also release uncertain findings, and what the runtime's GC did not name although its network
    /// namespace is there; first make sure that these containers are gone
    #[arg(long)]
    force: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "Releases the addresses of containers whose network namespace is gone, deletes records\n\
         without an allocation, and has missing records written again. With --force it also\n\
         releases what a GC of the runtime did not name. The daemon checks each\n\
         finding once more, by sequence number or revision: a container that was added again,\n\
         or whose namespace is there, is skipped. Findings about other nodes go to those nodes,\n\
         through etcd, since a node releases only addresses of its own.\n\n\
         Examples:\n  leasehold gc --dry-run\n  leasehold gc --all-nodes\n  \
         leasehold check -o json | leasehold gc --report -\n\n{}\n\
         Here 1 means: some finding of the report is left.",
        super::EXIT_CODES
    )
}

/// The outcome of one finding.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(flatten)]
    collected: Collected,
    finding: Finding,
}

/// Releases the leaks. It succeeds if no finding of the report is left.
pub(super) fn run(args: &GcArgs) -> anyhow::Result<ExitCode> {
    let socket = &args.admin.socket;
    let report = match &args.report {
        None => check::now(socket, args.all_nodes)?,
        Some(path) => read(path)?,
    };
    let mut rows = Vec::with_capacity(report.findings.len());
    for findings in report.findings.chunks(limits::FINDINGS_PER_REQUEST_MAX) {
        let (findings, force, dry_run) = (findings.to_vec(), args.force, args.dry_run);
        let collect = Collect { findings, force, dry_run };
        let collected: Vec<Collected> = admin::post(socket, "/v1/gc", &collect)?;
        anyhow::ensure!(
            collected.len() == collect.findings.len(),
            "the daemon did not answer for every finding: see its log"
        );
        let row = |(collected, finding)| Row { collected, finding };
        rows.extend(collected.into_iter().zip(collect.findings).map(row));
    }
    output::show(args.admin.output.form, &rows, || show(&rows, &report))?;
    let done = |row: &Row| {
        matches!(
            row.collected.outcome,
            GcOutcome::Released | GcOutcome::Deleted | GcOutcome::Recorded | GcOutcome::Would
        )
    };
    let whole = report.unchecked.is_empty() && report.left_off == 0;
    Ok(super::verdict(whole && rows.iter().all(done)))
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let stdin = path == Path::new("-");
    let named = || match stdin {
        true => "the report on standard input".to_owned(),
        false => format!("report {}", path.display()),
    };
    // A daemon's report is never longer.
    let text = input::read(path, limits::ANSWER_BYTES_MAX * 2)
        .with_context(|| format!("{} cannot be read", named()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("{} is not a report of `leasehold check -o json` of this version", named())
    })
}

fn show(rows: &[Row], report: &Report) -> String {
    let mut text = String::new();
    for row in rows {
        let end = match row.collected.outcome {
            GcOutcome::Released => "released",
            GcOutcome::Deleted => "deleted",
            GcOutcome::Recorded => "record written again",
            GcOutcome::Would => "would be released (dry run)",
            GcOutcome::Skipped => "skipped",
            GcOutcome::NotHere => "left",
            GcOutcome::Failed => "failed",
        };
        let _ = write!(text, "{end}: {}", check::line(&row.finding));
        if let Some(reason) = &row.collected.reason {
            let _ = write!(text, "; {}", printable(reason));
        }
        text.push('\n');
    }
    for why in &report.unchecked {
        let _ = writeln!(text, "not checked: {}", printable(why));
    }
    if rows.is_empty() {
        text.push_str("nothing to release\n");
    }
    if report.left_off > 0 {
        let _ = writeln!(text, "{} more were found: run it again", report.left_off);
    }
    text
}
