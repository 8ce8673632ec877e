//! `leasehold blocks`: the blocks of addresses that this node holds, or those of all nodes.

mod cluster;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::admin::{self, AdminArgs};
use super::allocations::{ROWS_PER_PAGE, list_by};
use super::live::{self, WatchArgs};
use super::output;
use crate::api::read::BlockRow;

/// The number of blocks that are listed unasked.
const ROWS_SHOWN: usize = 20;

/// The states of blocks, in the order of the columns.
const STATES: [&str; 4] = ["active", "spare", "returning", "lost"];

/// The options of `leasehold blocks`.
#[derive(Args, Debug)]
pub(super) struct BlocksArgs {
    /// Only this network, by the `name` in its configuration [default: all]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// List every block, too [default: only if there are at most 20]
    #[arg(long)]
    each: bool,
    /// List the blocks of all nodes, with their owners
    #[arg(long)]
    all_nodes: bool,
    /// Only blocks of this node; it implies --all-nodes
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only the block that has this address; it implies --all-nodes
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The first table has the totals of each network, the second one the blocks.\n\n\
         The node hands addresses out of its active blocks. A spare block is leased ahead of\n\
         need, a returning one is being given back, and a lost one belongs to another node\n\
         according to the cluster's store. JSON is an array of the rows of GET /v1/blocks.\n\n\
         With --all-nodes, a quarantined block is one of a removed node, and a parked one goes\n\
         back when the lease of its node ends. GONE: active blocks of nodes without a session.\n\
         What is allocated is counted in the records, which are a second or so late. Exit\n\
         status 1: no node has the name that --node gives, or nobody has a block with the\n\
         address.\n\n\
         Examples:\n  leasehold blocks\n  leasehold blocks --network my-net --each\n  \
         leasehold blocks --all-nodes\n  leasehold blocks --address 10.10.1.22\n\n{}",
        super::EXIT_CODES
    )
}

/// Lists the blocks that match. An empty list is a success too.
pub(super) fn run(args: &BlocksArgs) -> anyhow::Result<ExitCode> {
    let (network, each) = (args.network.clone(), args.each);
    let AdminArgs { socket, output } = args.admin.clone();
    if args.all_nodes || args.node.is_some() || args.address.is_some() {
        let (node, address) = (args.node.clone(), args.address);
        let filter = cluster::Filter { network, node, address, each };
        return live::show(&args.watch, output.form, move || {
            cluster::show(&socket, output.form, &filter)
        });
    }
    live::show(&args.watch, output.form, move || {
        let rows = list(&socket, network.as_deref())?;
        Ok((output::text(output.form, &rows, || show(&rows, each))?, true))
    })
}

fn list(socket: &Path, network: Option<&str>) -> anyhow::Result<Vec<BlockRow>> {
    let key = |row: &BlockRow| format!("{},{}", row.network, row.prefix);
    list_by(ROWS_PER_PAGE, key, |after, limit| {
        let query = [
            ("network", network.map(str::to_owned)),
            ("after", after),
            ("limit", Some(limit.to_string())),
        ];
        admin::get(socket, &admin::with_query("/v1/blocks", &query))
    })
}

/// The totals, and the blocks if they are few or wanted.
fn show(rows: &[BlockRow], each: bool) -> String {
    match rows.len() {
        0 => "no block matches\n".to_owned(),
        count if each || count <= ROWS_SHOWN => format!("{}\n{}", totals(rows), table(rows)),
        count => format!("{}\n{count} blocks: --each lists them\n", totals(rows)),
    }
}

/// One row for each network and family.
fn totals(rows: &[BlockRow]) -> String {
    let mut all: BTreeMap<(&str, &str), [u64; 7]> = BTreeMap::new();
    for row in rows {
        let sum = all.entry((&row.network, &row.family)).or_default();
        for (at, state) in STATES.iter().enumerate() {
            sum[at] += u64::from(row.state == *state);
        }
        for (at, figure) in [row.allocated, row.cooling, row.free].into_iter().enumerate() {
            sum[STATES.len() + at] += u64::from(figure);
        }
    }
    let header = [
        "NETWORK",
        "FAMILY",
        "ACTIVE",
        "SPARE",
        "RETURNING",
        "LOST",
        "ALLOCATED",
        "COOLING",
        "FREE",
    ];
    let row = |((network, family), sums): ((&str, &str), [u64; 7])| {
        let mut cells = vec![network.to_owned(), family.to_owned()];
        cells.extend(sums.map(|sum| sum.to_string()));
        cells
    };
    output::table(&header, all.into_iter().map(row).collect())
}

fn table(rows: &[BlockRow]) -> String {
    let header = ["NETWORK", "FAMILY", "PREFIX", "STATE", "ALLOCATED", "COOLING", "FREE"];
    let row = |row: &BlockRow| {
        let mut cells = vec![row.network.clone(), row.family.clone()];
        cells.extend([row.prefix.clone(), row.state.clone()]);
        cells.extend([row.allocated, row.cooling, row.free].map(|number| number.to_string()));
        cells
    };
    output::table(&header, rows.iter().map(row).collect())
}
