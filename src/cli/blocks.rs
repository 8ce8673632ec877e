//! `leasehold blocks`: the blocks of addresses that this node holds.

use std::process::ExitCode;

use clap::Args;

use super::admin::{self, AdminArgs, Form};
use super::allocations::{ROWS_PER_PAGE, list_by};
use crate::api::read::BlockRow;

/// The options of `leasehold blocks`.
#[derive(Args, Debug)]
pub(super) struct BlocksArgs {
    /// Only this network, by the `name` in its configuration [default: all]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The end of the command's help.
pub(super) fn examples() -> String {
    format!(
        "The node hands addresses out of its active blocks. A spare block is leased ahead of\n\
         need, a draining one is being given back, and a lost one belongs to another node\n\
         according to the cluster's store. JSON is an array of the rows of GET /v1/blocks.\n\n\
         Examples:\n  leasehold blocks\n  leasehold blocks --network my-net -o json\n\n{}",
        super::EXIT_CODES
    )
}

/// Lists the blocks that match. An empty list is a success too.
pub(super) fn run(args: &BlocksArgs) -> anyhow::Result<ExitCode> {
    let key = |row: &BlockRow| format!("{},{}", row.network, row.prefix);
    let rows: Vec<BlockRow> = list_by(ROWS_PER_PAGE, key, |after, limit| {
        let query = [
            ("network", args.network.clone()),
            ("after", after),
            ("limit", Some(limit.to_string())),
        ];
        admin::get(&args.admin.socket, &admin::with_query("/v1/blocks", &query))
    })?;
    match args.admin.output.form {
        Form::Json => admin::print_json(&rows)?,
        Form::Table if rows.is_empty() => admin::print("no block matches\n")?,
        Form::Table => admin::print(&table(&rows))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[BlockRow]) -> String {
    let header = ["NETWORK", "FAMILY", "PREFIX", "STATE", "ALLOCATED", "COOLING", "FREE"];
    let row = |row: &BlockRow| {
        let mut cells = vec![row.network.clone(), row.family.clone()];
        cells.extend([row.prefix.clone(), row.state.clone()]);
        cells.extend([row.allocated, row.cooling, row.free].map(|number| number.to_string()));
        cells
    };
    admin::table(&header, rows.iter().map(row).collect())
}
