//! Finds the range set to which an address belongs.
//!
//! A range set of a configuration becomes a range set of the node, with an actor of its own. The
//! ranges come with every call and may change from one to the next; so the node's range set owns a
//! *territory*, all addresses that were ever routed to it, and ranges that touch it go to it.
//! Ranges that touch two of them merge the two into one: an address has one owner on a node,
//! regardless of the configurations.

use std::sync::Arc;

use super::{CallError, Coordinator, Effect, Network, OpenSet};
use crate::core::address::{Address, AddressRange, BlockSize, Cidr, Family};
use crate::core::interval::Intervals;
use crate::core::journal::JournalEntry;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::BlockSizeError;
use crate::core::mutant::{Mutant, broken};
use crate::core::range::{Range, Ranges};
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::time::BootTime;
use crate::limits;

/// The destination of a call's ranges.
pub(super) enum Route {
    To(SetId),
    /// Range sets that must become one first.
    Merge(Vec<SetId>),
    /// The cluster must agree on the block size first.
    AgreeBlockSize,
    Refused(CallError),
}

fn intervals(allowed: &Ranges) -> impl Iterator<Item = AddressRange> {
    allowed.iter().map(Range::addresses)
}

impl OpenSet {
    pub(super) fn new(id: SetId, family: Family, block_size: BlockSize) -> Self {
        let (ranges, territory) = (Intervals::default(), Intervals::default());
        Self { id, family, block_size, ranges, territory }
    }

    pub(super) fn add(&mut self, range: AddressRange) {
        self.ranges.insert(range);
        self.territory.insert(range.whole_blocks(self.block_size));
    }

    /// Returns whether these ranges, in whole blocks, meet the territory.
    fn touches(&self, allowed: &Ranges) -> bool {
        let size = allowed.usual_block_size();
        let mut parts = intervals(allowed).map(|range| range.whole_blocks(size));
        self.family == allowed.family() && parts.any(|part| self.territory.overlaps(part))
    }

    fn covers(&self, allowed: &Ranges) -> bool {
        intervals(allowed).all(|range| {
            self.ranges.contains(range.first())
                && self.ranges.first_gap(range.first()).is_none_or(|gap| gap > range.last())
        })
    }

    /// Returns whether the two share a block.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.family == other.family
            && other.territory.iter().any(|part| self.territory.overlaps(part))
    }

    /// Returns whether the two share an address that both may hand out.
    fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.ranges.iter().any(|range| other.ranges.overlaps(range))
    }

    pub(super) fn identity(&self, network: &Arc<str>) -> SetIdentity {
        SetIdentity {
            id: self.id,
            network: network.clone(),
            family: self.family,
            block_size: self.block_size,
            ranges: self.ranges.iter().collect(),
        }
    }
}

impl Network {
    pub(super) fn owner(&self, family: Family, number: Address) -> Option<SetId> {
        let owns = |set: &&OpenSet| set.family == family && set.territory.contains(number);
        self.sets.iter().find(owns).map(|set| set.id)
    }
}

impl Coordinator {
    /// Returns the range set for these ranges; it is opened or grown if need be.
    pub(super) fn route(
        &mut self,
        now: BootTime,
        network: &Arc<str>,
        allowed: &Arc<Ranges>,
    ) -> Route {
        let entry = self.networks.entry(network.clone()).or_default();
        let mut touched = entry.sets.iter().filter(|set| set.touches(allowed));
        let (first, second) = (touched.next(), touched.next());
        if let (Some(set), None) = (first, second)
            && set.covers(allowed)
        {
            return match allowed.block_size.filter(|size| *size != set.block_size) {
                Some(configured) => {
                    let agreed = set.block_size;
                    Route::Refused(CallError::BlockSize { agreed, configured })
                }
                None => Route::To(set.id),
            };
        }
        let agreed =
            entry.agreed.iter().find(|(agreed, _, until)| agreed == allowed && now < *until);
        let block_size = match agreed.map(|(_, result, _)| result) {
            None => return Route::AgreeBlockSize,
            Some(Ok(block_size)) => *block_size,
            Some(&Err(BlockSizeError::Size { agreed, configured })) => {
                return Route::Refused(CallError::BlockSize { agreed, configured });
            }
            Some(Err(BlockSizeError::Failed(cause))) => {
                return Route::Refused(CallError::Store(cause.clone()));
            }
        };
        match (first.map(|set| set.id), second) {
            (None, _) => self.open(network, allowed, block_size),
            (Some(id), None) => {
                self.grow(network, id, allowed);
                Route::To(id)
            }
            (Some(first), Some(second)) => {
                let ids = [first, second.id].into_iter().chain(touched.map(|set| set.id));
                Route::Merge(ids.collect())
            }
        }
    }

    fn open(&mut self, network: &Arc<str>, allowed: &Ranges, block_size: BlockSize) -> Route {
        let sets: usize = self.networks.values().map(|network| network.sets.len()).sum();
        if sets >= limits::RANGE_SETS_MAX {
            return Route::Refused(CallError::TooManySets);
        }
        let id = self.next_set;
        self.next_set = id.next();
        let set = OpenSet::new(id, allowed.family(), block_size);
        self.networks.entry(network.clone()).or_default().sets.push(set);
        self.grow(network, id, allowed);
        Route::To(id)
    }

    /// Returns the range set to which a block belongs.
    pub fn owner_of_cidr(&self, pool: &PoolFamily, cidr: Cidr) -> Option<SetId> {
        let owns =
            |set: &&OpenSet| set.family == pool.family && set.territory.overlaps(cidr.range());
        self.networks.get(&pool.network)?.sets.iter().find(owns).map(|set| set.id)
    }

    /// Returns the range sets that have addresses of these ranges, each once, in the order in which
    /// they were opened.
    pub fn owners_in(&self, pool: &PoolFamily, ranges: &[AddressRange]) -> Vec<SetId> {
        let meets = |set: &&OpenSet| {
            set.family == pool.family && ranges.iter().any(|&range| set.territory.overlaps(range))
        };
        let sets = self.networks.get(&pool.network).map_or(&[][..], |network| &network.sets);
        sets.iter().filter(meets).map(|set| set.id).collect()
    }

    /// Returns a range set that has addresses of these ranges.
    pub fn owner_of(&self, network: &str, allowed: &Ranges) -> Option<SetId> {
        let entry = self.networks.get(network)?;
        entry.sets.iter().find(|set| set.touches(allowed)).map(|set| set.id)
    }

    /// Adds ranges to a range set's territory, durably before anything is assigned from them.
    fn grow(&mut self, network: &Arc<str>, id: SetId, allowed: &Ranges) {
        let Some(entry) = self.networks.get_mut(network) else { return };
        let Some(set) = entry.sets.iter_mut().find(|set| set.id == id) else { return };
        let new = set.ranges.is_empty();
        intervals(allowed).for_each(|range| set.add(range));
        let identity = set.identity(network);
        if new {
            self.effects.push_back(Effect::Open(identity.clone()));
        }
        self.commit_aside(vec![JournalEntry::Set(identity)]);
        self.tell_overlaps(network);
    }

    /// Says which other networks may hand out addresses of this one.
    pub(super) fn tell_overlaps(&mut self, network: &Arc<str>) {
        let Some(entry) = self.networks.get(network) else { return };
        for (other, others) in &self.networks {
            let overlap = |set: &OpenSet| others.sets.iter().any(|theirs| set.overlaps(theirs));
            if other != network && entry.sets.iter().any(overlap) {
                self.effects.push_back(Effect::Overlap(network.clone(), other.clone()));
            }
        }
    }

    /// Commits entries that no caller waits for. What is committed later is durable later.
    pub(super) fn commit_aside(&mut self, entries: Vec<JournalEntry>) {
        self.effects.push_back(Effect::Commit(None, entries));
    }

    /// Makes range sets one; all operations of the network wait meanwhile.
    pub(super) fn merge(&mut self, network: &Arc<str>, ids: &[SetId]) {
        let Some(entry) = self.networks.get_mut(network) else { return };
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            (entry.sets.drain(..)).partition(|set| ids[1..].contains(&set.id));
        let Some(into) = kept.iter_mut().find(|set| set.id == ids[0]) else { return };
        let mut entries = Vec::new();
        for set in gone {
            entry.merging += 1;
            set.ranges.iter().for_each(|range| into.add(range));
            // Its blocks may be of another size: what they cover is this set's from now on.
            set.territory.iter().for_each(|part| into.territory.insert(part));
            entries.push(JournalEntry::MergeSets { into: into.id, from: set.id });
            self.effects.push_back(Effect::Merge(into.id, set.id, network.clone()));
        }
        entries.push(JournalEntry::Set(into.identity(network)));
        entry.sets = kept;
        self.commit_aside(entries);
    }

    /// Forgets a range set that has nothing, unless a call of its network may need it. Returns
    /// whether it is forgotten.
    pub fn forget(&mut self, now: BootTime, network: &Arc<str>, id: SetId) -> bool {
        let Some(entry) = self.networks.get_mut(network) else { return false };
        let busy = entry.in_flight > 0
            || entry.merging > 0
            || !entry.merge_barrier.is_empty()
            || !entry.agreeing.is_empty();
        let at = entry.sets.iter().position(|set| set.id == id);
        let busy = busy && !broken(Mutant::ForgottenUnheard);
        let (false, None, Some(at)) = (busy, &self.broken, at) else { return false };
        entry.sets.remove(at);
        if entry.sets.is_empty() {
            self.networks.remove(network);
        }
        self.commit_aside(vec![JournalEntry::ForgetSet(id, now)]);
        true
    }

    /// Returns whether a network has range sets.
    pub fn is_used(&self, network: &str) -> bool {
        self.networks.get(network).is_some_and(|network| !network.sets.is_empty())
    }

    /// Handles the end of an [`Effect::Merge`].
    pub fn merged(&mut self, now: BootTime, network: &Arc<str>) {
        if let Some(entry) = self.networks.get_mut(network) {
            entry.merging -= 1;
        }
        self.open_merge_barrier(now, network);
    }
}
