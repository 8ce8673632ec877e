//! The blocks of all nodes, as the address map has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;

use super::ROWS_SHOWN;
use crate::api::map::{Map, MapBlock, MapSet};
use crate::cli::output::{self, Form, printable};
use crate::cli::{admin, allocations};
use crate::limits;

/// The states of blocks in the cluster's store, in the order of the columns.
const STATES: [&str; 4] = ["active", "spare", "parked", "quarantined"];

/// The filter that chooses the blocks of a list.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) network: Option<String>,
    pub(super) node: Option<String>,
    pub(super) address: Option<IpAddr>,
    /// True if every block is listed, however many there are.
    pub(super) each: bool,
}

/// A block of any node.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// Its owner.
    node: String,
    /// True if the owner has a session.
    live: bool,
    network: String,
    family: String,
    prefix: String,
    state: String,
    /// The addresses of it that can ever be handed out.
    size: u64,
    /// The addresses that containers hold; none: not known.
    allocated: Option<u64>,
    /// The addresses that cool; none: only its owner knows.
    cooling: Option<u64>,
}

/// The blocks that match, and whether there are any where one was asked for.
pub(super) fn show(socket: &Path, form: Form, filter: &Filter) -> anyhow::Result<(String, bool)> {
    let map: Map = admin::get_within(socket, "/v1/map", limits::MAP_COUNT_MAX)?;
    let rows = rows(&map, filter);
    let is_node = match &filter.node {
        Some(node) if rows.is_empty() => allocations::is_node(socket, node)?,
        _ => true,
    };
    let nobody = filter.address.is_some() && rows.is_empty();
    let text = output::text(form, &rows, || match filter.address {
        _ if !is_node => "no node has this name: see leasehold node list\n".to_owned(),
        Some(address) if nobody && filter.node.is_none() && filter.network.is_none() => {
            format!("no node has a block with {address}\n")
        }
        _ => tables(&rows, filter) + &unknown(&map),
    })?;
    Ok((text, is_node && !nobody))
}

fn rows(map: &Map, filter: &Filter) -> Vec<Row> {
    let has_address = |prefix: &str| {
        let net = prefix.parse::<IpNet>().ok();
        filter.address.is_none_or(|address| net.is_some_and(|net| net.contains(&address)))
    };
    let of_set = |set: &MapSet, block: &MapBlock| {
        let MapBlock(prefix, owner, state, allocated, size, cooling) = block.clone();
        let owner = map.nodes.get(owner)?;
        let node = owner.node.clone();
        let fits = filter.node.as_ref().is_none_or(|name| *name == node) && has_address(&prefix);
        let (network, family, live) = (set.network.clone(), set.family.clone(), owner.live);
        fits.then_some(Row { node, live, network, family, prefix, state, size, allocated, cooling })
    };
    let mut rows = Vec::new();
    for set in &map.sets {
        if filter.network.as_ref().is_none_or(|name| *name == set.network) {
            rows.extend(set.blocks.iter().filter_map(|block| of_set(set, block)));
        }
    }
    rows
}

/// The reason why figures are not known, or old.
fn unknown(map: &Map) -> String {
    map.cause.as_deref().map_or_else(String::new, |cause| {
        format!("note: what other nodes hold now is not known: {}\n", printable(cause))
    })
}

fn tables(rows: &[Row], filter: &Filter) -> String {
    match rows.len() {
        0 => "no block matches\n".to_owned(),
        1 if filter.address.is_some() => table(rows),
        count if filter.each || count <= ROWS_SHOWN => {
            format!("{}\n{}", totals(rows), table(rows))
        }
        count => format!("{}\n{count} blocks: --each lists them\n", totals(rows)),
    }
}

/// The totals of a network and family.
#[derive(Default)]
struct Totals<'a> {
    nodes: BTreeSet<&'a str>,
    states: [u64; STATES.len()],
    gone: u64,
    size: u64,
    /// None: not known.
    allocated: Option<u64>,
}

/// One row for each network and family.
fn totals(rows: &[Row]) -> String {
    let mut all: BTreeMap<(&str, &str), Totals<'_>> = BTreeMap::new();
    for row in rows {
        let none = || Totals { allocated: Some(0), ..Totals::default() };
        let sum = all.entry((&row.network, &row.family)).or_insert_with(none);
        sum.nodes.insert(&row.node);
        for (at, state) in STATES.iter().enumerate() {
            sum.states[at] += u64::from(row.state == *state);
        }
        sum.gone += u64::from(!row.live && row.state == STATES[0]);
        sum.size += row.size;
        sum.allocated = sum.allocated.zip(row.allocated).map(|(sum, more)| sum + more);
    }
    let header = [
        "NETWORK",
        "FAMILY",
        "NODES",
        "ACTIVE",
        "SPARE",
        "PARKED",
        "QUARANTINED",
        "GONE",
        "SIZE",
        "ALLOCATED",
    ];
    let row = |((network, family), sum): ((&str, &str), Totals<'_>)| {
        let mut cells = vec![printable(network), family.to_owned(), sum.nodes.len().to_string()];
        cells.extend(sum.states.map(|count| count.to_string()));
        cells.extend([sum.gone.to_string(), sum.size.to_string(), known(sum.allocated)]);
        cells
    };
    output::table(&header, all.into_iter().map(row).collect())
}

fn table(rows: &[Row]) -> String {
    let header = ["NODE", "NETWORK", "PREFIX", "STATE", "SESSION", "SIZE", "ALLOCATED", "COOLING"];
    let row = |row: &Row| {
        vec![
            printable(&row.node),
            printable(&row.network),
            row.prefix.clone(),
            row.state.clone(),
            if row.live { "live" } else { "gone" }.to_owned(),
            row.size.to_string(),
            known(row.allocated),
            known(row.cooling),
        ]
    };
    output::table(&header, rows.iter().map(row).collect())
}

fn known(figure: Option<u64>) -> String {
    figure.map_or_else(|| "?".to_owned(), |figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        let map = serde_json::json!({
            "node": "a", "version": "0.1.0", "shared": true, "atUnixMs": 1, "countedUnixMs": 1,
            "cause": null, "nextMs": 2000,
            "nodes": [
                { "node": "a", "live": true, "draining": false },
                { "node": "b", "live": false, "draining": false }
            ],
            "sets": [{
                "network": "pods", "family": "ipv4", "ranges": [["10.0.0.1", "10.0.0.254"]],
                "blockSize": 16, "size": 253, "exact": true, "used": 9,
                "blocks": [
                    ["10.0.0.0/28", 0, "active", 5, 14, 2],
                    ["10.0.0.16/28", 1, "active", 4, 16, null],
                    ["10.0.0.32/28", 0, "spare", 0, 16, 0]
                ]
            }]
        });
        serde_json::from_value(map).unwrap()
    }

    fn filter() -> Filter {
        Filter { network: None, node: None, address: None, each: false }
    }

    #[test]
    fn blocks_are_chosen_by_network_node_and_address() {
        let found = |filter: &Filter| -> Vec<String> {
            rows(&map(), filter).into_iter().map(|row| row.prefix).collect()
        };
        assert_eq!(found(&filter()).len(), 3);
        let of_b = Filter { node: Some("b".to_owned()), ..filter() };
        assert_eq!(found(&of_b), ["10.0.0.16/28"]);
        let at = Filter { address: Some("10.0.0.33".parse().unwrap()), ..filter() };
        assert_eq!(found(&at), ["10.0.0.32/28"]);
        let nowhere = Filter { address: Some("10.0.0.77".parse().unwrap()), ..filter() };
        assert_eq!(found(&nowhere), [""; 0]);
        let other = Filter { network: Some("other".to_owned()), ..filter() };
        assert_eq!(found(&other), [""; 0]);
    }

    #[test]
    fn totals_count_blocks_of_nodes_that_are_gone() {
        let text = totals(&rows(&map(), &filter()));
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["pods", "ipv4", "2", "2", "1", "0", "0", "1", "46", "9"], "{text}");
        let mut map = map();
        map.sets[0].blocks[1].3 = None;
        let text = totals(&rows(&map, &filter()));
        assert!(text.lines().nth(1).unwrap().ends_with('?'), "a sum is not known: {text}");
    }
}
