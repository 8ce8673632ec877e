//! `leasehold check`: the leaks that this node can see.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::admin::{self, AdminArgs};
use super::live::{self, WatchArgs};
use super::output::{self, printable};
use crate::api::check::{Finding, Kind, Report};
use crate::clock::rfc3339;
use crate::core::time::UnixTime;
use crate::limits;

/// The options of `leasehold check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Check all nodes: each judges what it holds
    #[arg(long)]
    all_nodes: bool,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "Looks for containers of this node whose network namespace is gone; for records in the\n\
         cluster's store without an allocation, and allocations without a record; for blocks of\n\
         nodes that have no session; and for addresses and blocks with two holders. It reads the\n\
         store twice, so that a record that is a moment late is not a finding. JSON is the\n\
         answer of GET /v1/check, and the input of `leasehold gc --report`.\n\n\
         A node can see the namespaces of its own containers only: with --all-nodes the others\n\
         are asked, through etcd. A node that does not answer is named.\n\n\
         Examples:\n  leasehold check\n  leasehold check --all-nodes -o json > report.json\n  \
         leasehold check --watch=60\n\n{}\n\
         Here 1 means: something was found, or something could not be checked.",
        super::EXIT_CODES
    )
}

/// Runs a check. It succeeds if everything could be checked and nothing was found.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (AdminArgs { socket, output }, all_nodes) = (args.admin.clone(), args.all_nodes);
    live::show(&args.watch, output.form, move || {
        let report = now(&socket, all_nodes)?;
        Ok((output::text(output.form, &report, || show(&report))?, report.clean))
    })
}

/// The findings at this moment, of the daemon or of all nodes.
///
/// # Errors
/// The daemon cannot be asked.
pub(super) fn now(socket: &Path, all_nodes: bool) -> anyhow::Result<Report> {
    let query = [("allNodes", all_nodes.then(|| "true".to_owned()))];
    let patience = limits::CHECK_WAIT_MAX + limits::PEERS_CHECK_WAIT;
    admin::get_within(socket, &admin::with_query("/v1/check", &query), patience)
}

fn show(report: &Report) -> String {
    let mut text = String::new();
    for found in &report.findings {
        let _ = writeln!(text, "{}", line(found));
        let _ = writeln!(text, "    {}", printable(&found.why));
        let _ = writeln!(text, "    -> {}", printable(&found.remedy));
    }
    for why in &report.unchecked {
        let _ = writeln!(text, "not checked: {}", printable(why));
    }
    let looked = report.looked_at;
    let seen = format!(
        "{} attachments with {} network namespaces, {} records, {} blocks, {} nodes",
        looked.attachments, looked.namespaces, looked.records, looked.blocks, looked.nodes
    );
    let found = report.findings.len() + report.left_off;
    let _ = match found {
        0 if report.clean => writeln!(text, "nothing found: {seen}"),
        0 => writeln!(text, "nothing found, but not everything could be checked: {seen}"),
        found => writeln!(text, "{found} found: {seen}"),
    };
    if report.left_off > 0 {
        let _ = writeln!(
            text,
            "{} more are not listed: release the listed ones first",
            report.left_off
        );
    }
    text
}

/// The subject of a finding, in one line.
pub(super) fn line(found: &Finding) -> String {
    let mut text = found.kind.as_str().to_owned();
    let mut part = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(text, ", {name} {}", printable(value));
        }
    };
    part("node", &found.node);
    part("network", &found.network);
    let names = if found.kind == Kind::BlocksOfDeadNode { "blocks" } else { "addresses" };
    part(names, &found.addresses.join(" "));
    if found.count > found.addresses.len() {
        part("and", &format!("{} more", found.count - found.addresses.len()));
    }
    for (name, value) in [
        ("container", &found.container_id),
        ("interface", &found.ifname),
        ("pod", &found.pod),
        ("namespace", &found.netns),
        ("key", &found.key),
    ] {
        part(name, value.as_deref().unwrap_or_default());
    }
    if let Some(sequence) = found.sequence {
        part("sequence", &sequence.to_string());
    }
    if let Some(since) = found.since_unix_ms {
        let word = if found.kind == Kind::BlocksOfDeadNode { "last known write" } else { "since" };
        part(word, &rfc3339(UnixTime::from_millis(since)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(clean: bool, findings: &serde_json::Value, unchecked: &[&str]) -> Report {
        serde_json::from_value(json!({
            "node": "n", "atUnixMs": 0, "clean": clean, "findings": findings, "leftOff": 0,
            "unchecked": unchecked,
            "lookedAt": { "attachments": 3, "namespaces": 2, "records": 3, "blocks": 1,
                          "nodes": 1 },
        }))
        .unwrap()
    }

    #[test]
    fn what_was_found_and_what_was_not_looked_at_is_said() {
        let clean = show(&report(true, &json!([]), &[]));
        assert_eq!(
            clean,
            "nothing found: 3 attachments with 2 network namespaces, 3 records, 1 blocks, 1 nodes\n"
        );
        let unsure = show(&report(false, &json!([]), &["records: why\u{1b}"]));
        assert!(unsure.starts_with("not checked: records: why\\u{1b}\n"), "{unsure}");
        assert!(unsure.contains("but not everything could be checked"), "{unsure}");
        let dead = json!([{
            "kind": "blocksOfDeadNode", "node": "b", "network": "pods", "pool": "pods",
            "addresses": ["10.0.0.0/26"], "count": 22, "containerId": null, "ifname": null,
            "sequence": null, "netns": null, "pod": null, "sinceUnixMs": 1000, "key": null,
            "revision": null, "certain": true, "why": "w", "remedy": "r"
        }]);
        let text = show(&report(false, &dead, &[]));
        let expected = "blocksOfDeadNode, node b, network pods, blocks 10.0.0.0/26, and 21 \
                        more, last known write 1970-01-01T00:00:01.000Z\n    w\n    -> r\n1 found";
        assert!(text.starts_with(expected), "{text}");
    }
}
