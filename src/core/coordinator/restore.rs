//! From the journal and the store back to memory, after a restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::routing::SetRecord;
use super::{Coordinator, Network, OpenSet, SetId};
use crate::core::Millis;
use crate::core::address::{Family, Run, number};
use crate::core::attachment::{ByAttachment, Holding};
use crate::core::interval::Intervals;
use crate::core::range_set::{RangeSet, Restored};

/// Everything that the journal holds.
#[derive(Clone, Default, Debug)]
pub struct JournalState {
    /// What attachments hold.
    pub holdings: Vec<Arc<Holding>>,
    /// The range sets.
    pub sets: Vec<SetRecord>,
    /// Cooling addresses with their time of release, in any order.
    pub cooling: Vec<(SetId, u128, Millis)>,
    /// The last address handed out for each slot of each range set.
    pub cursors: Vec<(SetId, u16, u128)>,
    /// Higher than every sequence number ever given.
    pub next_sequence: u64,
}

/// A block that the store says this node holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldBlock {
    /// Its network.
    pub network: Arc<str>,
    /// Its family.
    pub family: Family,
    /// What it covers.
    pub run: Run,
    /// The revision of its key.
    pub revision: u64,
}

/// Why journal and store don't make one state.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// An allocation outside every range set: the journal never writes one.
    #[error("the journal has {0} of container {1} in no range set of network {2}")]
    NoSet(IpAddr, Box<str>, Arc<str>),
    /// An allocation outside every block that the store says this node holds.
    #[error("the journal has {0} on network {1}, the store has no block of this node around it")]
    NoBlock(IpAddr, Arc<str>),
}

/// Addresses in use that no block covers, each as a run of its own: to be claimed before
/// [`restore`]. There are none unless the store lost something.
pub fn uncovered(state: &JournalState, blocks: &[HeldBlock]) -> Vec<(Arc<str>, Family, Run)> {
    let mut covered: BTreeMap<(&str, Family), Intervals> = BTreeMap::new();
    for block in blocks {
        let key = (&*block.network, block.family);
        covered.entry(key).or_default().insert(block.run.start, block.run.end());
    }
    let held = state.holdings.iter().flat_map(|holding| {
        holding.addresses.iter().map(|&address| (&holding.id.network, address))
    });
    let bare = held.filter_map(|(network, address)| {
        let (family, number) = (Family::of(address), number(address));
        let inside = covered.get(&(&**network, family));
        let inside = inside.is_some_and(|runs| runs.overlaps(number, number));
        (!inside).then(|| (network.clone(), family, Run::around(number, 0)))
    });
    bare.collect()
}

/// Blocks of this node that belong to no range set: a claim whose range set did not reach the
/// journal before the daemon died. Nothing was handed out of them.
pub fn stray<'a>(
    state: &'a JournalState,
    blocks: &'a [HeldBlock],
) -> impl Iterator<Item = &'a HeldBlock> {
    blocks.iter().filter(|block| {
        !state.sets.iter().any(|set| {
            let owns =
                |&(start, end): &(u128, u128)| start <= block.run.end() && block.run.start <= end;
            set.network == block.network
                && set.family == block.family
                && set.ranges.iter().any(owns)
        })
    })
}

/// Rebuilds the coordinator, and each range set with its name. Blocks in no range set are left
/// out.
///
/// # Errors
/// Journal and store contradict each other.
pub fn restore(
    mut coordinator: Coordinator,
    state: JournalState,
    blocks: &[HeldBlock],
) -> Result<(Coordinator, Vec<(SetRecord, RangeSet)>), RestoreError> {
    let mut parts: BTreeMap<SetId, Restored> = BTreeMap::new();
    for record in &state.sets {
        coordinator.reopen(record);
        parts.insert(record.id, Restored::default());
    }
    let owner = |networks: &BTreeMap<Arc<str>, Network>, network: &Arc<str>, family, number| {
        networks.get(network).and_then(|network| network.owner(family, number))
    };
    for block in blocks {
        let id = coordinator.adopt(block);
        if let Some(part) = id.and_then(|id| parts.get_mut(&id)) {
            part.blocks.push((block.run, block.revision));
        }
    }
    for holding in &state.holdings {
        for &address in holding.addresses.iter() {
            let (network, number) = (&holding.id.network, number(address));
            let id = owner(&coordinator.networks, network, Family::of(address), number);
            let Some(part) = id.and_then(|id| parts.get_mut(&id)) else {
                let container = holding.id.container_id.clone();
                return Err(RestoreError::NoSet(address, container, network.clone()));
            };
            part.allocated.push(number);
        }
    }
    for &(id, number, released) in &state.cooling {
        if let Some(part) = parts.get_mut(&id) {
            part.cooling.push((released, number));
        }
    }
    for &(id, slot, cursor) in &state.cursors {
        if let Some(part) = parts.get_mut(&id) {
            part.cursors.insert(slot, cursor);
        }
    }
    for network in coordinator.networks.keys().cloned().collect::<Vec<_>>() {
        coordinator.tell_overlaps(&network);
    }
    coordinator.next_sequence = state.next_sequence.max(1);
    for mut holding in state.holdings {
        let of = &holding.id;
        let (network, ifname) = (coordinator.share(&of.network), coordinator.share(&of.ifname));
        let id = &mut Arc::make_mut(&mut holding).id;
        (id.network, id.ifname) = (network, ifname);
        coordinator.held.insert(ByAttachment(holding));
    }
    let mut sets = Vec::with_capacity(state.sets.len());
    for record in state.sets {
        let part = parts.remove(&record.id).unwrap_or_default();
        let set = rebuild(&record, part, coordinator.cooldown)?;
        sets.push((record, set));
    }
    Ok((coordinator, sets))
}

fn rebuild(record: &SetRecord, part: Restored, cooldown: Millis) -> Result<RangeSet, RestoreError> {
    let mut set = RangeSet::new(record.family, record.block_log2, cooldown);
    set.restore(part).map_err(|number| {
        RestoreError::NoBlock(record.family.address(number), record.network.clone())
    })?;
    Ok(set)
}

impl Coordinator {
    /// Gives a block to the range set whose ranges it meets. It may reach beyond their rounding:
    /// that of a range set which has become part of this one, and had larger blocks.
    fn adopt(&mut self, block: &HeldBlock) -> Option<SetId> {
        let (start, end) = (block.run.start, block.run.end());
        let network = self.networks.get_mut(&block.network)?;
        let meets =
            |set: &&mut OpenSet| set.family == block.family && set.ranges.overlaps(start, end);
        let set = network.sets.iter_mut().find(meets)?;
        set.territory.insert(start, end);
        Some(set.id)
    }

    fn reopen(&mut self, record: &SetRecord) {
        let mut set = OpenSet::new(record.id, record.family, record.block_log2);
        record.ranges.iter().for_each(|&range| set.add(range));
        self.networks.entry(record.network.clone()).or_default().sets.push(set);
        self.next_set = self.next_set.max(record.id + 1);
    }
}
