//! The number of pods that each node can have by the addresses of each network, for the scheduler,
//! on request (`--node-capacity`).
//!
//! It becomes an extended resource of the Node object. A shared pool belongs to no node, and the
//! scheduler adds up what each node says; so each address counts for one node only: those of its
//! blocks for their node, and those in nobody's block in equal shares. The sum is never more than
//! the pool. As blocks change hands, the shares follow.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use my_ipam::client;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::kubernetes::{Capacities, Kubernetes};
use super::limits::{self, Timing};
use super::times;

/// The start of the names of the resources; the name of the network follows.
pub(crate) const DOMAIN: &str = "leasehold.example/";

/// The part of the daemon's address map that matters.
#[derive(Deserialize, Debug)]
struct Map {
    shared: bool,
    nodes: Vec<MapNode>,
    sets: Vec<MapSet>,
}

#[derive(Deserialize, Debug)]
struct MapNode {
    node: String,
    live: bool,
    draining: bool,
}

#[derive(Deserialize, Debug)]
struct MapSet {
    network: String,
    size: u128,
    blocks: Vec<Block>,
}

/// A block: its prefix, the place of its owner among the nodes, its state, the addresses held in
/// it, those that can be handed out, and those that cool.
#[derive(Deserialize, Debug)]
struct Block(IgnoredAny, usize, String, Option<u64>, u64, IgnoredAny);

impl Map {
    /// The addresses of each node in one range set.
    fn of_set(&self, set: &MapSet) -> Vec<u64> {
        let mut own = vec![0_u64; self.nodes.len()];
        let mut claimed = 0_u128;
        for Block(_, owner, state, held, usable, _) in &set.blocks {
            claimed += u128::from(*usable);
            let Some(node) = self.nodes.get(*owner) else { continue };
            own[*owner] += match state.as_str() {
                "spare" | "active" if node.live && !node.draining => *usable,
                // Its pods stay, and it takes no more.
                "active" => held.unwrap_or_default(),
                _ => 0,
            };
        }
        let open: Vec<usize> =
            (0..own.len()).filter(|at| self.nodes[*at].live && !self.nodes[*at].draining).collect();
        let unclaimed = set.size.saturating_sub(claimed);
        let count = open.len().max(1) as u128;
        for (place, at) in open.into_iter().enumerate() {
            // The first ones have the rest of the division.
            let share = unclaimed / count + u128::from((place as u128) < unclaimed % count);
            own[at] = own[at].saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
        }
        own
    }

    /// The resources of each node. A pod has an address of every range set of its network.
    fn capacities(&self) -> Capacities {
        let mut all: Capacities = BTreeMap::new();
        for set in self.sets.iter().filter(|set| is_name(&set.network)) {
            let resource = format!("{DOMAIN}{}", set.network);
            for (node, count) in self.nodes.iter().zip(self.of_set(set)) {
                let count = count.min(limits::CAPACITY_MAX);
                let of_node = all.entry(node.node.clone()).or_default();
                let least = of_node.entry(resource.clone()).or_insert(count);
                *least = count.min(*least);
            }
        }
        all
    }
}

/// True if Kubernetes can have a resource of this name.
fn is_name(network: &str) -> bool {
    let alone = |c: u8| c.is_ascii_alphanumeric();
    let bytes = network.as_bytes();
    bytes.len() <= 63
        && bytes.first().copied().is_some_and(alone)
        && bytes.last().copied().is_some_and(alone)
        && bytes.iter().all(|c| alone(*c) || b"-_.".contains(c))
}

/// Reads the address map.
///
/// # Errors
/// It is none.
pub(crate) fn read(map: &[u8]) -> anyhow::Result<Capacities> {
    let map: Map = serde_json::from_slice(map).context("the daemon's address map")?;
    anyhow::ensure!(map.shared, "the daemon has no etcd: its pools are its own");
    Ok(map.capacities())
}

/// A change of one Node object: its name, and its resources; none: the resource goes.
pub(crate) type Patch = (String, BTreeMap<String, Option<u64>>);

/// The changes that are to be made now: those first that take something away, because nothing may
/// be promised twice; at most so many. A node without an object has none.
pub(crate) fn patches(wanted: &Capacities, published: &Capacities, max: usize) -> Vec<Patch> {
    let mut found = Vec::new();
    for (node, known) in published {
        let none = BTreeMap::new();
        let wanted = wanted.get(node).unwrap_or(&none);
        let mut changes = BTreeMap::new();
        let mut takes = false;
        for (resource, count) in wanted {
            let before = known.get(resource);
            if before != Some(count) {
                takes |= before.is_some_and(|before| before > count);
                changes.insert(resource.clone(), Some(*count));
            }
        }
        for resource in known.keys().filter(|resource| !wanted.contains_key(*resource)) {
            takes = true;
            changes.insert(resource.clone(), None);
        }
        if !changes.is_empty() {
            found.push((!takes, node.clone(), changes));
        }
    }
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    found.into_iter().take(max).map(|(_, node, changes)| (node, changes)).collect()
}

/// The merge patch of a Node object.
pub(crate) fn merge(changes: &BTreeMap<String, Option<u64>>) -> Value {
    let quantity = |(resource, count): (&String, &Option<u64>)| {
        (resource.clone(), count.map_or(Value::Null, |count| count.to_string().into()))
    };
    let capacity: serde_json::Map<String, Value> = changes.iter().map(quantity).collect();
    // The kubelet copies it to what can be allocated.
    json!({ "status": { "capacity": capacity } })
}

/// Publishes until it is dropped.
pub(crate) async fn run(kubernetes: &Kubernetes, socket: &Path, timing: Timing) {
    let mut said = String::new();
    let mut pause = timing.look;
    loop {
        let failure = match term(kubernetes, socket, timing).await {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        };
        if failure.is_empty() {
            pause = timing.look;
        } else {
            pause = (pause * 2).min(limits::PAUSE_MAX.max(timing.look));
            if failure != said {
                tracing::warn!(error = failure, "the nodes' capacity is not published now");
            }
        }
        said = failure;
        sleep(pause).await;
    }
}

/// Publishes for as long as one list of Node objects is believed.
async fn term(kubernetes: &Kubernetes, socket: &Path, timing: Timing) -> anyhow::Result<()> {
    let began = times::up();
    // The kubelet may have set a resource to zero.
    let mut published = kubernetes.capacities(DOMAIN).await?;
    while times::up() < began + limits::CAPACITY_LIST {
        let path = socket.to_owned();
        let asked = move || {
            client::request(&path, "GET", "/v1/map", &[], times::deadline(limits::MAP_TIME_MAX))
        };
        let answer = tokio::task::spawn_blocking(asked).await?;
        let answer = answer.with_context(|| format!("socket {}", socket.display()))?;
        anyhow::ensure!(answer.status == 200, "the daemon has no address map: {}", answer.status);
        let wanted = read(&answer.body)?;
        for (node, changes) in patches(&wanted, &published, limits::CAPACITY_PATCHES_MAX) {
            kubernetes.publish(&node, &merge(&changes)).await?;
            let known = published.entry(node).or_default();
            for (resource, count) in changes {
                match count {
                    Some(count) => drop(known.insert(resource, count)),
                    None => drop(known.remove(&resource)),
                }
            }
        }
        sleep(timing.look).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: u64, blocks: &Value) -> Value {
        json!({
            "shared": true,
            "nodes": [
                { "node": "a", "live": true, "draining": false },
                { "node": "b", "live": true, "draining": false },
                { "node": "c", "live": true, "draining": true },
                { "node": "d", "live": false, "draining": false },
            ],
            "sets": [{ "network": "pods", "size": size, "blocks": blocks }],
        })
    }

    fn counts(map: &Value) -> Vec<u64> {
        let all = read(map.to_string().as_bytes()).expect("a map");
        all.values().map(|of| of["leasehold.example/pods"]).collect()
    }

    #[test]
    fn each_address_counts_for_one_node() {
        let blocks = json!([
            ["10.9.0.0/26", 0, "active", 9, 63, null],
            ["10.9.0.64/26", 1, "spare", 0, 64, null],
            ["10.9.0.128/28", 2, "active", 5, 16, null],
            ["10.9.0.144/28", 3, "active", 3, 16, null],
            ["10.9.0.160/28", 3, "quarantined", 0, 16, null],
        ]);
        // 253 - 63 - 64 - 3 * 16 = 78 in nobody's block: 39 for each of two.
        assert_eq!(counts(&map(253, &blocks)), [63 + 39, 64 + 39, 5, 3]);
        assert_eq!(counts(&map(254, &blocks)), [63 + 40, 64 + 39, 5, 3]);
        // What is left is in the blocks of others: nobody is promised it.
        assert_eq!(counts(&map(100, &blocks)), [63, 64, 5, 3]);
    }

    #[test]
    fn a_pod_needs_an_address_of_every_range_set() {
        let mut two = map(10, &json!([]));
        let other = json!({ "network": "pods", "size": 4, "blocks": [] });
        two["sets"].as_array_mut().expect("sets").push(other);
        assert_eq!(counts(&two), [2, 2, 0, 0]);
        let huge = map(u64::MAX, &json!([]));
        assert_eq!(counts(&huge)[0], limits::CAPACITY_MAX);
    }

    #[test]
    fn only_names_that_kubernetes_takes_become_resources() {
        for (name, good) in [("pods", true), ("a.b_c-1", true), ("-a", false), ("ä", false)] {
            assert_eq!(is_name(name), good, "{name}");
        }
        assert!(is_name(&"a".repeat(63)) && !is_name(&"a".repeat(64)) && !is_name(""));
        let alone = json!({ "shared": false, "nodes": [], "sets": [] });
        assert!(read(alone.to_string().as_bytes()).is_err());
    }

    #[test]
    fn what_takes_away_goes_first_and_nothing_is_written_twice() {
        let of = |rows: &[(&str, u64)]| -> Capacities {
            let row = |(node, count): &(&str, u64)| {
                ((*node).to_owned(), BTreeMap::from([("r".to_owned(), *count)]))
            };
            rows.iter().map(row).collect()
        };
        let wanted = of(&[("a", 9), ("b", 3), ("c", 7), ("without-object", 1)]);
        let mut published = of(&[("a", 5), ("b", 5), ("c", 7)]);
        published.insert("new".to_owned(), BTreeMap::new());
        published.insert("gone".to_owned(), BTreeMap::from([("r".to_owned(), 4)]));
        let all = patches(&wanted, &published, 10);
        let names: Vec<&str> = all.iter().map(|(node, _)| node.as_str()).collect();
        assert_eq!(names, ["b", "gone", "a"]);
        assert_eq!(merge(&all[1].1), json!({ "status": { "capacity": { "r": null } } }));
        assert_eq!(merge(&all[2].1), json!({ "status": { "capacity": { "r": "9" } } }));
        assert_eq!(patches(&wanted, &published, 1).len(), 1);
    }
}
