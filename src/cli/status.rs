//! `leasehold status`: the daemon's identity, whether it serves, and how full its pools are.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::admin::{self, AdminArgs};
use super::live::{self, WatchArgs};
use super::output;
use crate::api::read::{ClusterRow, SetRow, Status};
use crate::api::zero::or_zero;
use crate::api::{ALONE, About};
use crate::clock;
use crate::clock::rfc3339;
use crate::core::cause::Cause;
use crate::core::time::UnixTime;
use crate::limits;

/// The silence of the cluster's store from which on it is shown, in milliseconds: longer than the
/// time between two heartbeats.
const SILENCE_MS_SHOWN: u64 = 15_000;

/// The options of `leasehold status`.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The table has one row per range set: its blocks on this node, and the addresses that are\n\
         assigned (ALLOCATED), that were released a moment ago (COOLING), and that are free in\n\
         active blocks (FREE). JSON is the answer of GET /v1/status. Exit status 1: the daemon\n\
         does not serve.\n\n\
         Examples:\n  leasehold status\n  leasehold status -o json --socket /run/lh.sock\n  \
         leasehold status --watch\n\n{}",
        super::EXIT_CODES
    )
}

/// Shows the daemon's status. It succeeds while the daemon serves.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let AdminArgs { socket, output } = args.admin.clone();
    live::show(&args.watch, output.form, move || {
        let status: Status = admin::get(&socket, "/v1/status")?;
        let table = || show(&status, &socket.display().to_string(), clock::unix());
        Ok((output::text(output.form, &status, table)?, status.state == "serving"))
    })
}

fn show(status: &Status, socket: &str, now: UnixTime) -> String {
    let about = &status.about;
    let since = UnixTime::from_millis(about.since_unix_ms);
    let up = Duration::from_secs(now.since(since).as_secs());
    let mut lines = vec![
        ("node", about.node.clone()),
        ("daemon", daemon(about)),
        ("state", state(status, now)),
    ];
    if let Some(cause) = &status.cause {
        lines.push(("cause", cause.clone()));
    }
    lines.extend(remedy(status).map(|remedy| ("to do", remedy.to_owned())));
    lines.extend([
        ("up", format!("{} (since {})", humantime::format_duration(up), rfc3339(since))),
        ("socket", socket.to_owned()),
        ("listen", format!("http://{}/ (the address map)", about.listen)),
        ("config", about.config.clone().unwrap_or_else(|| "no file".to_owned())),
        ("store", format!("{}, state in {}", about.store, about.state_dir)),
    ]);
    lines.push(if status.cluster.state == "alone" {
        ("etcd", ALONE.to_owned())
    } else {
        ("cluster", cluster(&status.cluster))
    });
    if let Some(cause) = status.cluster.cause.as_ref().filter(|_| status.cause.is_none()) {
        lines.push(("", cause.clone()));
    }
    if let Some(awaited) = &status.cluster.restore_waits_for {
        let awaited: Vec<Arc<str>> = awaited.iter().map(|node| node.as_str().into()).collect();
        let cause = Cause::Restored { awaited: awaited.into() };
        lines.push(("restore", cause.to_string()));
    }
    lines.push(("attachments", status.attachments.to_string()));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<13}{}", output::printable(&value));
    }
    text.push('\n');
    if status.range_sets.is_empty() {
        text.push_str("no network is in use on this node yet\n");
    } else {
        text.push_str(&sets(&status.range_sets));
    }
    for (one, other) in &status.overlaps {
        let _ = writeln!(
            text,
            "warning: networks {one} and {other} overlap: each has its own pool, so the same \
             address can be given out in both"
        );
    }
    for row in status.cluster.gone.iter().take(limits::NODES_NAMED_MAX) {
        let node = output::printable(&row.node);
        let _ = writeln!(
            text,
            "warning: node {node} has no session and holds {} blocks, which no other node gets: \
             start its daemon; or, once it is sure that its containers are gone, `leasehold node \
             remove {node}`",
            row.blocks
        );
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "warning: {}", output::printable(warning));
    }
    text
}

/// The node's state, and for how long it has been in it if that is not the ordinary one.
fn state(status: &Status, now: UnixTime) -> String {
    let Some(since) = status.state_since.filter(|_| status.state != "serving") else {
        return status.state.clone();
    };
    let time = Duration::from_secs(now.since(since).as_secs());
    format!("{} for {}", status.state, humantime::format_duration(time))
}

/// The daemon, in one line.
fn daemon(about: &About) -> String {
    let commit = match &*about.commit {
        "" | "unknown" => String::new(),
        commit => format!(" (commit {commit})"),
    };
    format!("{}{commit}, pid {}, epoch {}", about.version, about.pid, or_zero(about.epoch))
}

/// Returns the remedy for a node that does not serve, or is no member of the cluster.
fn remedy(status: &Status) -> Option<&'static str> {
    match (&*status.state, &*status.cluster.state) {
        (_, "fenced") => Some(
            "another daemon runs under this node's name: give one of them another name (--node) \
             and an empty state directory",
        ),
        ("broken", _) => Some(
            "free or mend the disk of the state directory: the daemon starts again by itself when \
             it takes writes, and what was answered is in the journal",
        ),
        ("drained", _) => Some("`leasehold drain --undo`, when the node is to serve again"),
        ("starting", _) => Some("wait a moment, or see the daemon's log"),
        ("stopping", _) => Some("start the daemon again when it has ended"),
        _ if status.cluster.cause.is_some() && !status.cluster.cause_is_store => None,
        (_, "member") if is_away(&status.cluster) => Some(
            "see whether the endpoints in --etcd answer (etcdctl endpoint status); meanwhile the \
             node hands out what it has in its blocks",
        ),
        (_, "joining") => Some(
            "see whether the endpoints in --etcd answer (etcdctl endpoint status); meanwhile the \
             node hands out what it has",
        ),
        ("unready", _) => Some(
            "see whether the endpoints in --etcd answer (etcdctl endpoint status), and the user, \
             its password and the certificates are right",
        ),
        ("halted", _) => Some("see whether the cluster's store answers"),
        _ => None,
    }
}

/// Returns whether the cluster's store has been silent for longer than a heartbeat may take.
fn is_away(row: &ClusterRow) -> bool {
    row.cause_is_store && row.silence_ms > SILENCE_MS_SHOWN
}

/// The node's state in the cluster, in one line.
fn cluster(row: &ClusterRow) -> String {
    let mut line = row.state.clone();
    line.push_str(if row.alone { ", the only node" } else { "" });
    if let Some(lease) = &row.lease {
        let _ = write!(line, ", lease {lease}");
    }
    if row.lost_blocks > 0 {
        let _ = write!(line, ", {} blocks lost", row.lost_blocks);
    }
    if row.silence_ms > SILENCE_MS_SHOWN {
        let _ = write!(line, ", no answer of the store for {} s", row.silence_ms / 1000);
    }
    if Duration::from_millis(row.record_lag_ms) > limits::RECORD_LAG_SHOWN {
        let _ = write!(line, ", {} records waiting", row.records_waiting);
    }
    line
}

fn sets(sets: &[SetRow]) -> String {
    let header = ["NETWORK", "FAMILY", "BLOCKS", "BLOCK SIZE", "ALLOCATED", "COOLING", "FREE"];
    let row = |set: &SetRow| {
        let numbers = [set.blocks, set.block_size, set.allocated, set.cooling, set.free];
        let mut row = vec![set.network.clone(), set.family.clone()];
        row.extend(numbers.map(|number| number.to_string()));
        row
    };
    output::table(&header, sets.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let status = serde_json::json!({
            "about": {
                "node": "n1", "version": "0.1.0", "pid": 7, "epoch": 3, "stateDir": "/s",
                "listen": "127.0.0.1:9750", "store": "embedded", "sinceUnixMs": 1_000_000
            },
            "state": "broken", "cause": "the journal failed: disk full", "attachments": 0,
            "cluster": {
                "state": "joining", "cause": "etcd: refused", "alone": false, "lease": null,
                "silenceMs": 62_000, "lostBlocks": 2, "recordsWaiting": 5, "recordLagMs": 9_000
            },
            "rangeSets": [], "overlaps": [["a", "b"]]
        });
        let status: Status = serde_json::from_value(status).unwrap();
        let text = show(&status, "/x.sock", UnixTime::from_millis(3_725_000 + 1_000_000));
        for expected in [
            "node         n1\n",
            "daemon       0.1.0, pid 7, epoch 3\n",
            "state        broken\n",
            "cause        the journal failed: disk full\n",
            "up           1h 2m 5s (since 1970-01-01T00:16:40.000Z)\n",
            "listen       http://127.0.0.1:9750/ (the address map)\n",
            "cluster      joining, 2 blocks lost, no answer of the store for 62 s, 5 records \
             waiting\n",
            "no network is in use on this node yet\n",
            "warning: networks a and b overlap: ",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
    }

    /// A node that serves on without etcd is well, and yet there is something to do.
    #[test]
    fn a_store_that_is_away_has_a_remedy() {
        let text = |silence_ms: u64| {
            let status = serde_json::json!({
                "about": {
                    "node": "n1", "version": "0.1.0", "pid": 7, "epoch": 3, "stateDir": "/s",
                    "listen": "127.0.0.1:9750", "store": "etcd", "sinceUnixMs": 1_000_000
                },
                "state": "serving", "attachments": 0,
                "cluster": {
                    "state": "member", "cause": "etcd: cut off", "causeIsStore": true,
                    "alone": false, "lease": null, "silenceMs": silence_ms, "lostBlocks": 0,
                    "recordsWaiting": 0, "recordLagMs": 0
                },
                "rangeSets": [], "overlaps": []
            });
            let status: Status = serde_json::from_value(status).unwrap();
            show(&status, "/x.sock", UnixTime::from_millis(3_000_000))
        };
        let away = text(34_000);
        assert!(away.contains("to do        see whether the endpoints in --etcd"), "{away}");
        assert!(away.contains("no answer of the store for 34 s\n             etcd: cut off"));
        assert!(!text(3_000).contains("to do"), "a slow answer is nothing to mend");
    }

    /// A node of which another daemon has the name is told nothing about etcd.
    #[test]
    fn the_remedy_fits_the_cause() {
        let remedy = |state: &str, cause_is_store: bool| {
            let status = serde_json::json!({
                "about": {
                    "node": "n1", "version": "0.1.0", "pid": 7, "epoch": 3, "stateDir": "/s",
                    "listen": "127.0.0.1:9750", "store": "etcd", "sinceUnixMs": 1_000_000
                },
                "state": state, "cause": "said there", "attachments": 0,
                "cluster": {
                    "state": "joining", "cause": "said there", "causeIsStore": cause_is_store,
                    "alone": false, "lease": null, "silenceMs": 0, "lostBlocks": 0,
                    "recordsWaiting": 0, "recordLagMs": 0
                },
                "rangeSets": [], "overlaps": []
            });
            remedy(&serde_json::from_value(status).unwrap())
        };
        assert!(remedy("unready", true).is_some_and(|remedy| remedy.contains("--etcd")));
        assert_eq!(remedy("halted", false), None);
        assert!(remedy("broken", false).is_some_and(|remedy| remedy.contains("by itself")));
    }
}
