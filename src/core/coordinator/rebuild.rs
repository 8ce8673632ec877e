//! From the journal and the store back to memory, after a restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Coordinator, Network, OpenSet};
use crate::core::address::{Address, Cidr, Family};
use crate::core::container_id::ContainerId;
use crate::core::ids::Sequence;
use crate::core::journal::JournalState;
use crate::core::keys::PoolFamily;
use crate::core::range_set::{JournalledSet, RangeSet, Settings};
use crate::core::set_identity::{SetId, SetIdentity};

/// The reason why the entries of the journal do not make one state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RebuildError {
    /// An allocation outside every range set: the journal never writes one.
    NoSet(IpAddr, ContainerId, Arc<str>),
    /// An allocation outside every block: the journal never writes one.
    NoBlock(IpAddr, Arc<str>),
}

/// A node as it was.
#[derive(Debug)]
pub struct Rebuilt {
    /// The coordinator.
    pub coordinator: Coordinator,
    /// The range sets.
    pub sets: Vec<(SetIdentity, RangeSet)>,
    /// Blocks in no range set: nothing is handed out of them, and they may go back.
    pub stray: Vec<(PoolFamily, Cidr)>,
}

/// Rebuilds the coordinator, and each range set with its name.
///
/// # Errors
/// The journal contradicts itself.
pub fn rebuild(mut coordinator: Coordinator, state: JournalState) -> Result<Rebuilt, RebuildError> {
    let mut parts: BTreeMap<SetId, JournalledSet> = BTreeMap::new();
    for identity in state.sets.values() {
        coordinator.reopen(identity);
        parts.insert(identity.id, JournalledSet::default());
    }
    let owner = |networks: &BTreeMap<Arc<str>, Network>, network: &Arc<str>, family, number| {
        networks.get(network).and_then(|network| network.owner(family, number))
    };
    let mut stray = Vec::new();
    for (pool, cidr) in state.blocks {
        let id = coordinator.adopt(&pool, cidr);
        match id.and_then(|id| parts.get_mut(&id)) {
            Some(part) => part.blocks.push(cidr),
            None => stray.push((pool, cidr)),
        }
    }
    for (pool, cidr) in state.lost {
        let id = coordinator.adopt(&pool, cidr);
        match id.and_then(|id| parts.get_mut(&id)) {
            Some(part) => part.lost.push(cidr),
            None => stray.push((pool, cidr)),
        }
    }
    for holding in &state.holdings {
        for &address in holding.addresses.iter() {
            let (network, number) = (&holding.scope.pool, Address::of(address));
            let id = owner(&coordinator.networks, network, Family::of(address), number);
            let Some(part) = id.and_then(|id| parts.get_mut(&id)) else {
                let container = holding.container_id.clone();
                return Err(RebuildError::NoSet(address, container, network.clone()));
            };
            part.allocated.push(number);
        }
    }
    for &(released, id, number) in &state.cooling {
        // Rows of a range set that was forgotten must not become another one's.
        coordinator.next_set = coordinator.next_set.max(id.next());
        if let Some(part) = parts.get_mut(&id) {
            part.cooling.push((released, number));
        }
    }
    for (&(id, set_index), &cursor) in &state.cursors {
        if let Some(part) = parts.get_mut(&id) {
            part.cursors.insert(set_index, cursor);
        }
    }
    for network in coordinator.networks.keys().cloned().collect::<Vec<_>>() {
        coordinator.tell_overlaps(&network);
    }
    coordinator.early_dels = Some(state.early_dels);
    coordinator.next_sequence = state.next_sequence.max(Sequence::FIRST);
    for mut holding in state.holdings {
        let scope = coordinator.share((*holding.scope).clone());
        Arc::make_mut(&mut holding).scope = scope;
        coordinator.held.insert(holding);
    }
    let mut sets = Vec::with_capacity(state.sets.len());
    for identity in state.sets.into_values() {
        let part = parts.remove(&identity.id).unwrap_or_default();
        let set = rebuild_set(&identity, part, coordinator.settings)?;
        sets.push((identity, set));
    }
    Ok(Rebuilt { coordinator, sets, stray })
}

fn rebuild_set(
    identity: &SetIdentity,
    part: JournalledSet,
    settings: Settings,
) -> Result<RangeSet, RebuildError> {
    let mut set = RangeSet::new(identity.family, identity.block_size, settings);
    set.rebuild(part).map_err(|number| {
        RebuildError::NoBlock(identity.family.address(number), identity.network.clone())
    })?;
    Ok(set)
}

impl Coordinator {
    /// Gives a block to the range set whose ranges it meets, or else to the one whose rounded
    /// ranges it meets: a node that forgot learns of blocks one by one. It may reach beyond their
    /// rounding: that of a range set which has become part of this one, and had larger blocks.
    fn adopt(&mut self, pool: &PoolFamily, cidr: Cidr) -> Option<SetId> {
        let network = self.networks.get_mut(&pool.network)?;
        let of_family = |set: &OpenSet| set.family == pool.family;
        let by_ranges = |set: &OpenSet| of_family(set) && set.ranges.overlaps(cidr.range());
        let by_rounding = |set: &OpenSet| of_family(set) && set.territory.overlaps(cidr.range());
        let at = network.sets.iter().position(by_ranges);
        let at = at.or_else(|| network.sets.iter().position(by_rounding))?;
        let set = network.sets.get_mut(at)?;
        set.territory.insert(cidr.range());
        Some(set.id)
    }

    fn reopen(&mut self, identity: &SetIdentity) {
        let mut set = OpenSet::new(identity.id, identity.family, identity.block_size);
        identity.ranges.iter().for_each(|&range| set.add(range));
        self.networks.entry(identity.network.clone()).or_default().sets.push(set);
        self.next_set = self.next_set.max(identity.id.next());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::address::{AddressRange, BlockSize};
    use crate::core::attachment::Holding;
    use crate::core::time::StartTime;

    /// A node that had an old copy of its state directory learned from the store of three blocks
    /// side by side, and its range set has the addresses of the first one. A container holds an
    /// address in the second one (seed 11684).
    #[test]
    fn blocks_beside_the_ranges_of_their_range_set_are_not_stray() {
        let pool = PoolFamily { network: "net".into(), family: Family::V4 };
        let cidr = |first, log2| Cidr::containing(Address::new(first), BlockSize::of_log2(log2));
        let blocks = [cidr(16, 0), cidr(18, 1), cidr(20, 2)];
        let holding = Holding::plain("c", vec![Family::V4.address(Address::new(18))]);
        let mut state = JournalState::default();
        let set = SetIdentity {
            id: SetId::FIRST,
            network: "net".into(),
            family: Family::V4,
            block_size: BlockSize::of_log2(3),
            ranges: vec![AddressRange::one(Address::new(16))],
        };
        state.sets.insert(set.id, set);
        state.blocks.extend(blocks.map(|cidr| (pool.clone(), cidr)));
        // Another range of addresses, which no range set has.
        state.blocks.insert((pool.clone(), cidr(24, 0)));
        state.holdings.put(Arc::new(holding));
        let settings = Settings {
            cooldown: Duration::ZERO,
            min_free: 0,
            forget_after: Duration::MAX,
            seed: 0,
        };
        let rebuilt = rebuild(Coordinator::new(settings, false, StartTime::BOOT), state);
        let Rebuilt { sets, stray, .. } = rebuilt.expect("a journal that makes one state");
        assert_eq!(stray, [(pool, cidr(24, 0))]);
        let of_set: Vec<Cidr> = sets[0].1.blocks().map(|block| block.cidr()).collect();
        assert_eq!((of_set, sets[0].1.stats().allocated), (blocks.to_vec(), 1));
    }
}
