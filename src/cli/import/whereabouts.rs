//! `leasehold import whereabouts`: `IPPool` objects as kubectl prints them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::listed::{self, List, ListedArgs};
use crate::api::foreign::{Entry, Pod};
use crate::core::address::{Address, Family};

/// Objects of whereabouts that say nothing that the pools do not say.
const REPEATED: &str = "OverlappingRangeIPReservation";

/// The options of `leasehold import whereabouts`.
#[derive(Args, Debug)]
pub(in crate::cli) struct WhereaboutsArgs {
    /// Output of `kubectl get ippools.whereabouts.cni.cncf.io -A -o json`: a file, a directory of
    /// .json files, or - for standard input
    #[arg(value_name = "FILE|DIR")]
    from: PathBuf,
    /// File with the ids of this node's containers, one a line (`crictl pods -q`): the pools are
    /// the whole cluster's
    #[arg(long, value_name = "FILE", required_unless_present = "all")]
    containers: Option<PathBuf>,
    /// Take over what all containers hold: there is no other node
    #[arg(long, conflicts_with = "containers")]
    all: bool,
    #[command(flatten)]
    pub(super) listed: ListedArgs,
}

pub(super) fn examples() -> String {
    format!(
        "Put the configurations of Leasehold (\"type\": \"my-ipam\") into place first, and import\n\
         on every node before the first ADD on any: a node does not know what another node's\n\
         containers hold before that node has imported it. Each running container then keeps its\n\
         address, and its DEL works. Nothing is changed in Kubernetes. If another container holds\n\
         one of the addresses, nothing is changed here either.\n\n\
         Examples:\n  \
         kubectl get ippools.whereabouts.cni.cncf.io -A -o json > pools.json\n  \
         crictl pods -q > pods\n  \
         leasehold import whereabouts pools.json --network pods --containers pods --dry-run\n  \
         leasehold import whereabouts pools.json --network pods --containers pods\n\n{}",
        crate::cli::EXIT_CODES
    )
}

/// Reads the pools and the ids of this node's containers.
pub(super) fn read(args: &WhereaboutsArgs) -> anyhow::Result<List> {
    let ids = args.containers.as_deref().map(listed::read).transpose()?;
    let here: Option<BTreeSet<&str>> =
        (ids.as_ref()).map(|ids| ids.lines().map(str::trim).filter(|id| !id.is_empty()).collect());
    let mut entries = Vec::new();
    for file in files(&args.from)? {
        let json = listed::read_json(&file)?;
        let of = |pool| entries_of(pool, &args.listed.ifname);
        let all: anyhow::Result<Vec<_>> =
            pools(&json).and_then(|pools| pools.into_iter().map(of).collect());
        for entry in all.with_context(|| file.display().to_string())?.into_iter().flatten() {
            let is_here = here.as_ref().is_none_or(|here| here.contains(&*entry.container_id));
            entries.push((entry, is_here));
        }
    }
    Ok(List { from: args.from.clone(), entries })
}

/// The files to read.
fn files(from: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !from.is_dir() {
        return Ok(vec![from.to_owned()]);
    }
    let mut files = Vec::new();
    for file in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let file = file.with_context(|| from.display().to_string())?.path();
        if file.extension().is_some_and(|is| is == "json") {
            files.push(file);
        }
    }
    anyhow::ensure!(!files.is_empty(), "there is no .json file in {}", from.display());
    files.sort();
    Ok(files)
}

/// The `IPPool` objects of a list, or the one that is given.
fn pools(json: &Value) -> anyhow::Result<Vec<&Value>> {
    let all: Vec<&Value> = match &json["items"] {
        Value::Array(items) => items.iter().collect(),
        _ => vec![json],
    };
    let pools: Vec<&Value> = all.into_iter().filter(|object| object["kind"] != REPEATED).collect();
    for pool in &pools {
        anyhow::ensure!(
            pool["kind"] == "IPPool",
            "an object of kind {} is no IPPool: print them with `kubectl get \
             ippools.whereabouts.cni.cncf.io -A -o json`",
            pool["kind"]
        );
    }
    Ok(pools)
}

/// The allocations of a pool: each is named by its distance from the address in `spec.range`.
fn entries_of(pool: &Value, ifname: &str) -> anyhow::Result<Vec<Entry>> {
    let name = pool["metadata"]["name"].as_str().unwrap_or_default();
    let range = pool["spec"]["range"].as_str().unwrap_or_default();
    let net: IpNet = range
        .parse()
        .with_context(|| format!("pool {name}: spec.range {range:?} is not a prefix"))?;
    let (family, first) = (Family::of(net.addr()), Address::of(net.addr()));
    let last = Address::of(net.broadcast());
    let empty = Map::new();
    let allocations = pool["spec"]["allocations"].as_object().unwrap_or(&empty);
    let entry = |(offset, allocation): (&String, &Value)| {
        let within = offset.parse::<u128>().ok().filter(|offset| *offset <= last.since(first));
        let address: Option<IpAddr> = within.map(|offset| family.address(first.plus(offset)));
        let address = address
            .with_context(|| format!("pool {name}: allocation {offset:?} is not in {range}"))?;
        let text = |key: &str| allocation[key].as_str().filter(|text| !text.is_empty());
        let container =
            text("id").with_context(|| format!("pool {name}: allocation {offset:?} has no id"))?;
        let pod = text("podref").and_then(|of| of.split_once('/'));
        Ok(Entry {
            container_id: container.to_owned(),
            ifname: text("ifname").unwrap_or(ifname).to_owned(),
            address,
            of_this_boot: true,
            file: None,
            pod: pod
                .map(|(namespace, name)| Pod { namespace: namespace.into(), name: name.into() }),
        })
    };
    allocations.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(range: &str, allocations: Value) -> Value {
        json!({ "kind": "IPPool", "metadata": { "name": "p" },
            "spec": { "range": range, "allocations": allocations } })
    }

    fn shown(pool: &Value) -> Vec<String> {
        let all = entries_of(pool, "eth0").unwrap();
        all.iter().map(|e| format!("{} {} {}", e.container_id, e.ifname, e.address)).collect()
    }

    #[test]
    fn allocations_are_named_by_their_distance() {
        let v4 = pool(
            "10.9.0.0/24",
            json!({
                "1": { "id": "a", "podref": "ns/pod", "ifname": "net1" }, "200": { "id": "b" }
            }),
        );
        assert_eq!(shown(&v4), ["a net1 10.9.0.1", "b eth0 10.9.0.200"]);
        let pod = Pod { namespace: "ns".into(), name: "pod".into() };
        assert_eq!(entries_of(&v4, "eth0").unwrap()[0].pod, Some(pod));
        let v6 = pool("fd00::/64", json!({ "4294967296": { "id": "c" } }));
        assert_eq!(shown(&v6), ["c eth0 fd00::1:0:0"]);
        // Whereabouts counts from the address that is written there.
        assert_eq!(
            shown(&pool("10.9.0.7/24", json!({ "3": { "id": "d" } }))),
            ["d eth0 10.9.0.10"]
        );
        assert_eq!(shown(&pool("10.9.0.0/24", Value::Null)), [""; 0]);
    }

    #[test]
    fn what_is_no_pool_is_refused() {
        for (wrong, said) in [
            (pool("10.9.0.0/24", json!({ "256": { "id": "a" } })), "\"256\" is not in 10.9.0.0/24"),
            (pool("10.9.0.0/24", json!({ "x": { "id": "a" } })), "\"x\" is not in"),
            (pool("10.9.0.0/24", json!({ "1": {} })), "\"1\" has no id"),
            (pool("no", json!({})), "spec.range \"no\" is not a prefix"),
        ] {
            let error = entries_of(&wrong, "eth0").unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(pools(&json!({ "kind": "List", "items": [{ "kind": "Pod" }] })).is_err());
        assert_eq!(pools(&json!({ "kind": "List", "items": [] })).unwrap().len(), 0);
        assert_eq!(pools(&json!({ "items": [{ "kind": REPEATED }] })).unwrap().len(), 0);
    }
}
