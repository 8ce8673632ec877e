//! `leasehold allocations`: the addresses that containers of this node hold.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::admin::{self, AdminArgs};
use super::live::{self, WatchArgs};
use super::output::{self, printable};
use crate::api::allocations::{AllocationRow, Filter};
use crate::api::nodes::NodeRow;
use crate::clock::rfc3339;
use crate::core::time::UnixTime;
use crate::limits::{ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX, ROWS_PER_PAGE_MAX};

/// The longest row in JSON: node, network, pool and container id of 255 bytes each, pod and
/// namespace too but of any text (six bytes for an escaped one), the rest 400.
const ROW_BYTES_MAX: usize = 4864;

/// The number of rows in one request, so small that the client accepts every answer.
pub(super) const ROWS_PER_PAGE: usize = {
    let fitting = (ANSWER_BYTES_MAX - ANSWER_HEAD_BYTES_MAX) / ROW_BYTES_MAX;
    if fitting < ROWS_PER_PAGE_MAX { fitting } else { ROWS_PER_PAGE_MAX }
};

/// The paths of what this node holds, and of what all nodes hold.
const HOLDINGS: &str = "/v1/allocations";
const RECORDS: &str = "/v1/records";

/// The number of characters of a container id that the table shows, as in other tools.
const CONTAINER_CHARS: usize = 12;

/// The options of `leasehold allocations`.
#[derive(Args, Debug)]
pub(super) struct AllocationsArgs {
    /// Only this network, by the `name` in its configuration [default: all]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only addresses out of the pool of this network; networks that use its central
    /// configuration share its pool [default: all]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only this address, IPv4 or IPv6, without a prefix length [default: all]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Only containers whose id begins like this [default: all]
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// Only pods of this namespace [default: all]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only this pod [default: all]
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// List those of all nodes, by the records in the cluster's store, a second or so late
    #[arg(long)]
    all_nodes: bool,
    /// Only this node; it implies --all-nodes
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The table shortens container ids to {CONTAINER_CHARS} characters. JSON is an array of\n\
         the rows of GET /v1/allocations (of all nodes: GET /v1/records), with full ids.\n\
         Beyond {ROWS_PER_PAGE} allocations the\n\
         list is read in pieces, and an allocation that changes meanwhile may be missing. Exit\n\
         status 1: no node has the name that --node gives.\n\n\
         Examples:\n  leasehold allocations --network my-net\n  \
         leasehold allocations --all-nodes --address 10.10.1.22 -o json\n\n{}",
        super::EXIT_CODES
    )
}

/// Lists the allocations that match. An empty list is a success too, but not of a node that is not
/// there.
pub(super) fn run(args: &AllocationsArgs) -> anyhow::Result<ExitCode> {
    let filter = Filter {
        network: args.network.clone(),
        pool: args.pool.clone(),
        address: args.address,
        container_prefix: args.container.clone(),
        node: args.node.clone(),
        namespace: args.namespace.clone(),
        pod: args.pod.clone(),
        ..Filter::default()
    };
    let all_nodes = args.all_nodes || args.node.is_some();
    let resource = if all_nodes { RECORDS } else { HOLDINGS };
    let AdminArgs { socket, output } = args.admin.clone();
    live::show(&args.watch, output.form, move || {
        let rows = list_of(resource, &socket, &filter)?;
        let unknown = match &filter.node {
            Some(node) if rows.is_empty() => !is_node(&socket, node)?,
            _ => false,
        };
        let text = output::text(output.form, &rows, || match (unknown, rows.is_empty()) {
            (true, _) => "no node has this name: see leasehold node list\n".to_owned(),
            (false, true) if all_nodes => "no allocation matches\n".to_owned(),
            (false, true) => {
                "no allocation of this node matches (--all-nodes looks at the others, too)\n"
                    .to_owned()
            }
            (false, false) => table(&rows, all_nodes),
        })?;
        Ok((text, !unknown))
    })
}

/// Returns whether the cluster has a node of this name.
///
/// # Errors
/// The daemon cannot be asked.
pub(super) fn is_node(socket: &Path, name: &str) -> anyhow::Result<bool> {
    let nodes: Vec<NodeRow> = admin::get(socket, "/v1/nodes")?;
    Ok(nodes.iter().any(|node| node.node == name))
}

/// All allocations of the daemon's node that match, page by page.
///
/// # Errors
/// The daemon cannot be asked.
pub(super) fn list(socket: &Path, filter: &Filter) -> anyhow::Result<Vec<AllocationRow>> {
    list_of(HOLDINGS, socket, filter)
}

fn list_of(resource: &str, socket: &Path, filter: &Filter) -> anyhow::Result<Vec<AllocationRow>> {
    list_by(ROWS_PER_PAGE, key, |after, limit| {
        let query = [
            ("network", filter.network.clone()),
            ("pool", filter.pool.clone()),
            ("address", filter.address.map(|address| address.to_string())),
            ("containerId", filter.container_id.clone()),
            ("containerPrefix", filter.container_prefix.clone()),
            ("node", filter.node.clone()),
            ("namespace", filter.namespace.clone()),
            ("pod", filter.pod.clone()),
            ("after", after),
            ("limit", Some(limit.to_string())),
        ];
        admin::get(socket, &admin::with_query(resource, &query))
    })
}

fn key(row: &AllocationRow) -> String {
    format!("{},{}", row.pool, row.address)
}

/// All rows, page by page: `page` reads the rows after a key, and `key` gives the key of a row.
///
/// # Errors
/// A page cannot be read, or the daemon sends the same page again.
pub(super) fn list_by<T>(
    limit: usize,
    key: impl Fn(&T) -> String,
    mut page: impl FnMut(Option<String>, usize) -> anyhow::Result<Vec<T>>,
) -> anyhow::Result<Vec<T>> {
    let mut rows: Vec<T> = Vec::new();
    loop {
        let after = rows.last().map(&key);
        let page = page(after.clone(), limit)?;
        let stuck = after.is_some() && page.last().map(&key) == after;
        anyhow::ensure!(!stuck, "the daemon lists the same rows again and again");
        let last = page.len() < limit;
        rows.extend(page);
        if last {
            return Ok(rows);
        }
    }
}

/// The rows for people, with their nodes or without. The pools are shown if any row's pool is not
/// its network's own.
pub(super) fn table(rows: &[AllocationRow], nodes: bool) -> String {
    let pools = rows.iter().any(|row| row.pool != row.network);
    let mut header = Vec::new();
    header.extend(nodes.then_some("NODE"));
    header.push("NETWORK");
    header.extend(pools.then_some("POOL"));
    header.extend([
        "ADDRESS",
        "CONTAINER",
        "IFNAME",
        "NAMESPACE",
        "POD",
        "STAGE",
        "SINCE",
        "SEQUENCE",
    ]);
    let row = |row: &AllocationRow| {
        let shown = |text: &Option<String>| match text.as_deref() {
            None | Some("") => "-".to_owned(),
            Some(text) => printable(text),
        };
        let mut cells = Vec::new();
        cells.extend(nodes.then(|| printable(&row.node)));
        cells.push(row.network.clone());
        cells.extend(pools.then(|| row.pool.clone()));
        cells.extend([
            row.address.clone(),
            short(&row.container_id),
            printable(&row.ifname),
            shown(&row.namespace),
            shown(&row.pod),
            shown(&row.stage),
            rfc3339(UnixTime::from_millis(row.since_unix_ms)),
            row.sequence.to_string(),
        ]);
        cells
    };
    output::table(&header, rows.iter().map(row).collect())
}

fn short(container: &str) -> String {
    printable(&container.chars().take(CONTAINER_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sequence: u64) -> AllocationRow {
        AllocationRow {
            node: "n".repeat(255),
            network: "n".repeat(255),
            pool: "n".repeat(255),
            address: "2001:db8:1111:2222:3333:4444:5555:6666".to_owned(),
            container_id: "c".repeat(255),
            ifname: "\u{1}".repeat(15),
            namespace: Some("\u{1}".repeat(255)),
            pod: Some("\u{1}".repeat(255)),
            stage: Some("smallflow".to_owned()),
            since_unix_ms: u64::MAX,
            sequence,
        }
    }

    #[test]
    fn a_page_of_the_longest_rows_fits_an_answer() {
        let longest = serde_json::to_vec(&row(u64::MAX)).unwrap().len() + 1;
        assert!(longest <= ROW_BYTES_MAX, "{longest}");
        const { assert!(ROWS_PER_PAGE > 1000) };
    }

    #[test]
    fn every_page_is_read_from_where_the_last_one_ended() {
        let row = |n: u64| AllocationRow { address: format!("10.0.0.{n}"), ..row(n) };
        let pages = [vec![row(1), row(2)], vec![row(3), row(4)], vec![]];
        let mut asked = Vec::new();
        let rows = list_by(2, key, |after, limit| {
            assert_eq!(limit, 2);
            asked.push(after);
            Ok(pages[asked.len() - 1].clone())
        });
        let rows = rows.unwrap();
        let end = |row: &AllocationRow| Some(format!("{},{}", row.pool, row.address));
        assert_eq!(asked, [None, end(&rows[1]), end(&rows[3])]);
        let sequences: Vec<u64> = rows.iter().map(|row| row.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4]);
    }

    #[test]
    fn a_daemon_that_repeats_itself_is_not_asked_for_ever() {
        let again = list_by(1, key, |_, _| Ok(vec![row(1)]));
        assert!(again.unwrap_err().to_string().contains("again and again"));
    }
}
