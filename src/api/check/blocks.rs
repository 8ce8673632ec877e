//! The blocks of the cluster, as a check compares them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::finding::{Finding, Kind};
use crate::core::address::{Address, Cidr};
use crate::core::keys::PoolFamily;
use crate::core::time::UnixTime;
use crate::core::value::BlockStatus;

/// A node, by its key and its session.
#[derive(Default)]
pub(super) struct NodeState {
    /// It has a key, and no operator has removed it.
    pub(super) known: bool,
    pub(super) live: bool,
    pub(super) since: Option<UnixTime>,
}

/// One block.
pub(super) struct Block {
    pub(super) cidr: Cidr,
    pub(super) owner: Arc<str>,
    pub(super) status: BlockStatus,
    /// The time since which it is its owner's, if that is known.
    pub(super) since: Option<UnixTime>,
}

/// All blocks, by their place.
#[derive(Default)]
pub(super) struct Blocks(BTreeMap<(PoolFamily, Address), Block>);

impl Blocks {
    /// Takes in a block of these addresses.
    pub(super) fn insert(&mut self, space: PoolFamily, block: Block) {
        self.0.insert((space, block.cidr.first()), block);
    }

    /// Returns the number of blocks.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the block that has an address. If several have it, the last of them.
    pub(super) fn around(&self, space: &PoolFamily, number: Address) -> Option<&Block> {
        let at = (space.clone(), number);
        let ((of, _), block) = self.0.range(..=at).next_back()?;
        (of == space && block.cidr.contains(number)).then_some(block)
    }

    /// Finds blocks with common addresses.
    pub(super) fn overlaps(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut widest: Option<(&PoolFamily, &Block)> = None;
        for ((space, _), block) in &self.0 {
            if let Some((_, before)) = widest.filter(|(of, _)| *of == space) {
                if block.cidr.first() <= before.cidr.last() {
                    let nets = [before, block].map(|b| b.cidr.net(space.family).to_string());
                    let why = format!(
                        "block {} of node {} and block {} of node {} overlap",
                        nets[0], before.owner, nets[1], block.owner
                    );
                    let remedy = "drain both nodes, so that nothing more goes out of them, and \
                                  find out who changed etcd by hand";
                    let of = Finding::new(Kind::Duplicate, &block.owner, &space.network);
                    found.push(of.names(nets.to_vec()).says(why, remedy));
                }
                if before.cidr.last() >= block.cidr.last() {
                    continue;
                }
            }
            widest = Some((space, block));
        }
        found
    }

    /// Finds the active blocks of nodes without a session: of each node and network together.
    pub(super) fn of_dead(&self, nodes: &BTreeMap<String, NodeState>) -> Vec<Finding> {
        let mut of: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        let mut last: BTreeMap<&str, Option<UnixTime>> = BTreeMap::new();
        // Spare blocks go with the session, quarantined ones when their time is over.
        let active = self.0.iter().filter(|(_, block)| block.status == BlockStatus::Active);
        for ((space, _), block) in active {
            let node = nodes.get(&*block.owner);
            if !node.is_some_and(|node| node.live) {
                let since = node.and_then(|node| node.since).max(block.since);
                let last = last.entry(&block.owner).or_default();
                *last = (*last).max(since);
                let net = block.cidr.net(space.family).to_string();
                of.entry((&block.owner, &space.network)).or_default().push(net);
            }
        }
        let finding = |((owner, network), nets): ((&str, &str), Vec<String>)| {
            let found = Finding::new(Kind::BlocksOfDeadNode, owner, network).names(nets);
            let why = format!("node {owner} has no session: its daemon is down or cut off");
            let remedy = format!(
                "start its daemon; or, once it is sure that its containers are gone, `leasehold \
                 node remove {owner}`"
            );
            let since_unix_ms = last.get(owner).copied().flatten().map(UnixTime::as_millis);
            Finding { since_unix_ms, ..found.says(why, remedy) }
        };
        of.into_iter().map(finding).collect()
    }
}
