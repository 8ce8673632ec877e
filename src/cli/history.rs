//! `leasehold history`: who held an address, or what a pod held, and when.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;

use super::admin::{self, AdminArgs};
use super::output::{self, printable};
use crate::api::history::{History, HistoryRow};
use crate::clock::rfc3339;
use crate::core::time::UnixTime;
use crate::limits;

/// The options of `leasehold history`.
#[derive(Args, Debug)]
pub(super) struct HistoryArgs {
    /// An address, a pod, or NAMESPACE/POD
    #[arg(value_name = "ADDRESS|POD", required_unless_present = "container")]
    subject: Option<String>,
    /// Only containers whose id begins like this
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// Ask this node alone
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "One row for each holding, the latest first; ENDED is empty while it is held. Each node\n\
         keeps its past holdings in its journal, {} of them for {} unless historyCount and\n\
         historyAge say otherwise. With etcd all nodes are asked, through etcd. A node that is\n\
         gone cannot tell what it knows, and is named. JSON is the answer of GET /v1/history.\n\
         Exit status 1: nothing is known, or not every node has answered.\n\n\
         Examples:\n  leasehold history 10.10.1.22\n  leasehold history shop/pay-10\n  \
         leasehold history --container 4f1c -o json\n\n{}",
        limits::PAST_COUNT,
        days(limits::PAST_AGE.as_secs()),
        super::EXIT_CODES
    )
}

/// A number of seconds as whole days, in words.
fn days(seconds: u64) -> String {
    match seconds / 86_400 {
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Shows the history.
pub(super) fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let history: History = admin::get_within(
        &args.admin.socket,
        &admin::with_query("/v1/history", &query(args)),
        limits::HISTORY_WAIT_MAX * 3,
    )?;
    output::show(args.admin.output.form, &history, || show(&history))?;
    Ok(super::verdict(!history.rows.is_empty() && history.unanswered.is_empty()))
}

fn query(args: &HistoryArgs) -> Vec<(&'static str, Option<String>)> {
    let mut query = vec![
        ("containerPrefix", args.container.clone()),
        ("local", args.local.then(|| "true".to_owned())),
    ];
    let Some(subject) = &args.subject else { return query };
    if let Ok(address) = subject.parse::<IpAddr>() {
        query.push(("address", Some(address.to_string())));
        return query;
    }
    let (namespace, pod) = match subject.split_once('/') {
        Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
        None => (None, &**subject),
    };
    query.extend([("namespace", namespace), ("pod", Some(pod.to_owned()))]);
    query
}

fn show(history: &History) -> String {
    let mut text = match history.rows.is_empty() {
        true => "nothing is known\n".to_owned(),
        false => table(&history.rows),
    };
    if history.more {
        text.push_str("there is more than a node tells at once: ask for less\n");
    }
    if !history.unanswered.is_empty() {
        let names: Vec<String> = history.unanswered.iter().map(|name| printable(name)).collect();
        let _ = writeln!(
            text,
            "no answer came from {}: what these nodes know is not here",
            names.join(", ")
        );
    }
    text
}

fn table(rows: &[HistoryRow]) -> String {
    let header =
        ["SINCE", "ENDED", "END", "NODE", "NETWORK", "ADDRESSES", "NAMESPACE", "POD", "CONTAINER"];
    let time = |millis| rfc3339(UnixTime::from_millis(millis));
    let named = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), printable);
    let row = |row: &HistoryRow| {
        let addresses: Vec<String> = row.addresses.iter().map(IpAddr::to_string).collect();
        vec![
            time(row.since_unix_ms),
            row.ended_unix_ms.map_or_else(String::new, time),
            row.end.clone(),
            printable(&row.node),
            printable(&row.network),
            addresses.join(" "),
            named(&row.namespace),
            named(&row.pod),
            printable(&row.container_id.chars().take(12).collect::<String>()),
        ]
    };
    output::table(&header, rows.iter().map(row).collect())
}
