//! Reads the records of this node in the cluster's store: holdings that the journal forgot are
//! remembered, and records that are wrong are written again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Coordinator, Effect, OpenSet, Operation};
use crate::core::address::{Address, Cidr, Family};
use crate::core::attachment::{AttachmentId, Holding, Pod, Scope};
use crate::core::ids::Sequence;
use crate::core::journal::JournalEntry;
use crate::core::keys::PoolFamily;
use crate::core::leaseholder::{Recorded, StoredBlock, StoredState};
use crate::core::mutant::{Mutant, broken};
use crate::core::set_identity::SetId;
use crate::core::stage::Stage;
use crate::core::time::BootTime;
use crate::core::value::{AllocationValue, NetworkValue};

/// The result of [`Coordinator::recover`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Blocks of this node.
    pub blocks: usize,
    /// Holdings that the journal did not have.
    pub remembered: usize,
    /// Holdings of the journal that ended after it was written.
    pub ended: usize,
}

/// The blocks of a range set that the store has for this node's.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RecoveredBlocks {
    /// The parts of them that it does not have in hand.
    pub missing: Vec<Cidr>,
    /// All of them.
    pub all: Vec<Cidr>,
    /// The addresses in them that are held. Any other may be in use as well: it cools.
    pub held: BTreeSet<Address>,
}

impl Coordinator {
    /// Takes over what the store knows, when the journal is older than the node (the state
    /// directory was lost, or is a copy from earlier) in the current boot. Containers may hold more
    /// than was recorded, so every other address of these blocks cools from now on.
    pub fn recover(&mut self, now: BootTime, stored: StoredState) -> Recovered {
        let StoredState { blocks, networks, records } = stored;
        let mut recovered = Recovered { blocks: blocks.len(), ..Recovered::default() };
        let mut changes: Vec<JournalEntry> = Vec::new();
        let mut sets: BTreeMap<SetId, RecoveredBlocks> = BTreeMap::new();
        let networks: BTreeMap<Arc<str>, NetworkValue> = networks.into_iter().collect();
        for StoredBlock { pool, cidr, missing } in &blocks {
            let known = networks.get(&pool.network);
            let id = self.set_of_block(pool, *cidr, known, &mut changes);
            let of_set = sets.entry(id).or_default();
            of_set.all.push(*cidr);
            // A journal that is only older may have a part of the block.
            of_set.missing.extend(missing);
            let block = |part: &Cidr| JournalEntry::Block(pool.clone(), *part);
            changes.extend(missing.iter().map(block));
        }
        let in_blocks = |network: &Arc<str>, address: IpAddr| {
            let (family, number) = (Family::of(address), Address::of(address));
            blocks.iter().any(|StoredBlock { pool, cidr, .. }| {
                pool.network == *network && pool.family == family && cidr.contains(number)
            })
        };
        self.start_anew();
        let remembered = self.remembered(records, in_blocks);
        recovered.remembered = remembered.len();
        recovered.ended = self.end_older(&remembered, in_blocks, &mut changes);
        for holding in remembered.into_values() {
            for &address in holding.addresses.iter() {
                let of = self.networks.get(&holding.scope.pool);
                let (family, number) = (Family::of(address), Address::of(address));
                if let Some(id) = of.and_then(|of| of.owner(family, number)) {
                    sets.entry(id).or_default().held.insert(number);
                }
            }
            let holding = Arc::new(holding);
            changes.push(JournalEntry::Hold(holding.clone()));
            self.held.insert(holding.clone());
            self.effects.push_back(Effect::Held(holding));
        }
        for (id, of_set) in sets {
            if !self.settings.cooldown.is_zero() {
                let numbers = of_set.all.iter().flat_map(|cidr| cidr.addresses());
                let others = numbers.filter(|number| !of_set.held.contains(number));
                changes.extend(others.map(|number| JournalEntry::Cool(id, number, now)));
            }
            self.effects.push_back(Effect::Recover(id, of_set));
        }
        self.commit_aside(changes);
        recovered
    }

    /// Makes ADDs that are collecting addresses start again when they hear of the next one: by then
    /// their attachments may hold what was forgotten.
    fn start_anew(&mut self) {
        let adding = self.operations.iter();
        let adding = adding.filter(|(_, of)| matches!(of, Operation::Adding { .. }));
        self.outrun.extend(adding.map(|(operation, _)| *operation));
    }

    /// Returns the attachments of which something is being written down: that is newer than any
    /// record.
    fn being_written(&self) -> BTreeSet<AttachmentId> {
        let id = |operation: &Operation| match operation {
            Operation::Holding { holding, .. }
            | Operation::Recording { holding, .. }
            | Operation::Unrecording { holding, .. }
            | Operation::Ending { holding, .. } => Some(holding.id()),
            _ => None,
        };
        self.operations.values().filter_map(id).collect()
    }

    /// Returns the holdings recorded in this node's blocks, except where the journal knows
    /// something newer.
    fn remembered(
        &mut self,
        records: Vec<(Arc<str>, Recorded)>,
        in_blocks: impl Fn(&Arc<str>, IpAddr) -> bool,
    ) -> BTreeMap<AttachmentId, Holding> {
        let mut newest: BTreeMap<(Arc<str>, IpAddr), Sequence> = BTreeMap::new();
        for holding in self.held.all() {
            let at = |address: &IpAddr| ((holding.scope.pool.clone(), *address), holding.sequence);
            newest.extend(holding.addresses.iter().map(at));
        }
        let being_written = self.being_written();
        let mut remembered: BTreeMap<AttachmentId, Holding> = BTreeMap::new();
        for (network, (address, value)) in records {
            let Some(value) = value.filter(|_| !broken(Mutant::RecordsUnread)) else { continue };
            let mut holding = self.holding_of(&network, *value);
            self.next_sequence = self.next_sequence.max(holding.sequence.next());
            let addresses: Vec<IpAddr> = holding.addresses.to_vec();
            let here = |address: &IpAddr| in_blocks(&network, *address);
            holding.addresses = addresses.into_iter().filter(here).collect::<Vec<_>>().into();
            // A record may be older than the journal, too.
            let is_newest = |at: &IpAddr| {
                let known = newest.get(&(network.clone(), *at));
                known.is_none_or(|known| *known < holding.sequence)
            };
            if holding.addresses.contains(&address)
                && holding.addresses.iter().all(is_newest)
                && !self.is_superseded(&holding)
                && !being_written.contains(&holding.id())
            {
                let known = remembered.get(&holding.id());
                if known.is_none_or(|known| known.sequence < holding.sequence) {
                    remembered.insert(holding.id(), holding);
                }
            }
        }
        keep_newest(remembered)
    }

    /// Returns the range set for a block that the store has; it is opened if need be.
    fn set_of_block(
        &mut self,
        pool: &PoolFamily,
        cidr: Cidr,
        known: Option<&NetworkValue>,
        changes: &mut Vec<JournalEntry>,
    ) -> SetId {
        if let Some(id) = self.owner_of_cidr(pool, cidr) {
            return id;
        }
        let id = self.next_set;
        let sets = known.into_iter().flat_map(|network| &network.geometry).map(|geometry| {
            let mut set = OpenSet::new(id, geometry.family, geometry.block_size);
            geometry.ranges.iter().for_each(|&range| set.add(range));
            set
        });
        let owns =
            |set: &OpenSet| set.family == pool.family && set.territory.overlaps(cidr.range());
        let set = sets.into_iter().find(owns).unwrap_or_else(|| {
            let mut set = OpenSet::new(id, pool.family, cidr.size());
            set.add(cidr.range());
            set
        });
        let entry = self.networks.entry(pool.network.clone()).or_default();
        // A journal that is only older knows a part of it.
        if let Some(known) = entry.sets.iter_mut().find(|known| known.meets(&set)) {
            // Only this block: the rest may be other range sets' of this node.
            known.add(cidr.range());
            changes.push(JournalEntry::Set(known.identity(&pool.network)));
            return known.id;
        }
        self.next_set = id.next();
        let identity = set.identity(&pool.network);
        entry.sets.push(set);
        self.effects.push_back(Effect::Open(identity.clone()));
        changes.push(JournalEntry::Set(identity));
        id
    }

    fn holding_of(&mut self, pool: &Arc<str>, value: AllocationValue) -> Holding {
        let network = value.network.unwrap_or_else(|| pool.clone());
        let pod = Pod { namespace: value.namespace, name: value.pod };
        Holding {
            scope: self.share(Scope { network, ifname: value.ifname, pool: pool.clone() }),
            container_id: value.container_id,
            addresses: value.addresses.into(),
            sequence: value.sequence,
            started_at: value.started_at,
            since: value.since,
            stage: Stage::parse(&value.stage),
            netns: (&*value.netns).into(),
            pod: (!pod.name.is_empty()).then(|| Box::new(pod)),
        }
    }

    /// Returns whether a recorded holding brings nothing new: the journal knows it or a newer one,
    /// or it has ended since the journal forgot it.
    fn is_superseded(&self, recorded: &Holding) -> bool {
        let newer = |held: Arc<Holding>| held.sequence >= recorded.sequence;
        self.held.find(&recorded.id()).is_some_and(newer)
            || self.early_dels.as_ref().is_some_and(|dels| {
                let del = dels.get(&recorded.id());
                del.is_some_and(|del| recorded.started_at.is_none_or(|add| add <= *del))
            })
            || self.tombstones.has_ended(&recorded.id(), recorded.started_at)
    }

    /// Ends the holdings of the journal whose addresses were given to newer ones, here or on
    /// another node: a block goes only when nothing is held in it; how many.
    fn end_older(
        &mut self,
        remembered: &BTreeMap<AttachmentId, Holding>,
        in_blocks: impl Fn(&Arc<str>, IpAddr) -> bool,
        changes: &mut Vec<JournalEntry>,
    ) -> usize {
        let newest: BTreeSet<IpAddr> =
            remembered.values().flat_map(|holding| holding.addresses.iter().copied()).collect();
        let older = self.held.all().filter(|holding| {
            let gone = |at: &IpAddr| newest.contains(at) || !in_blocks(&holding.scope.pool, *at);
            remembered.contains_key(&holding.id()) || holding.addresses.iter().any(gone)
        });
        let older: Vec<Arc<Holding>> = older.cloned().collect();
        for holding in &older {
            self.held.remove(&holding.id());
            changes.push(JournalEntry::End(holding.clone()));
            // The records of newer holdings stay as they are.
            self.effects.push_back(Effect::Superseded(holding.clone()));
            for &address in holding.addresses.iter().filter(|address| !newest.contains(address)) {
                self.effects.push_back(Effect::Forget(holding.scope.pool.clone(), address));
                let of = self.networks.get(&holding.scope.pool);
                let number = Address::of(address);
                if let Some(id) = of.and_then(|of| of.owner(Family::of(address), number)) {
                    self.effects.push_back(Effect::Release(id, number));
                }
            }
        }
        older.len()
    }

    /// Handles the list of all records in these blocks of this node: writes those that are missing
    /// or wrong again.
    pub fn records_listed(
        &mut self,
        cidrs: &[(PoolFamily, Cidr)],
        found: Vec<(Arc<str>, Recorded)>,
    ) {
        let mut found: BTreeMap<(Arc<str>, IpAddr), Option<Box<AllocationValue>>> = found
            .into_iter()
            .map(|(network, (address, value))| ((network, address), value))
            .collect();
        let mut wrong = Vec::new();
        for holding in self.held.all() {
            let same = |address: &IpAddr| {
                let record = found.remove(&(holding.scope.pool.clone(), *address));
                let Some(record) = record else {
                    let number = Address::of(*address);
                    let inside = |(pool, cidr): &(PoolFamily, Cidr)| {
                        pool.network == holding.scope.pool
                            && pool.family == Family::of(*address)
                            && cidr.contains(number)
                    };
                    return !cidrs.iter().any(inside);
                };
                record.is_some_and(|record| {
                    let network = record.network.as_ref().unwrap_or(&holding.scope.pool);
                    *network == holding.scope.network
                        && record.sequence == holding.sequence
                        && record.container_id == holding.container_id
                        && record.ifname == holding.scope.ifname
                })
            };
            let same: Vec<bool> = holding.addresses.iter().map(same).collect();
            if same.contains(&false) {
                wrong.push(holding.clone());
            }
        }
        // The records that are left are of addresses that nobody holds.
        for (network, address) in found.into_keys() {
            self.effects.push_back(Effect::Forget(network, address));
        }
        self.effects.extend(wrong.into_iter().map(Effect::Held));
        self.effects.push_back(Effect::RecordsCompared);
    }
}

/// Keeps only the newest of holdings that share an address: what an attachment holds lives and ends
/// together, so an older record of another address of it is late.
fn keep_newest(mut holdings: BTreeMap<AttachmentId, Holding>) -> BTreeMap<AttachmentId, Holding> {
    let mut newest: BTreeMap<(Arc<str>, IpAddr), Sequence> = BTreeMap::new();
    for holding in holdings.values() {
        for &address in holding.addresses.iter() {
            let key = (holding.scope.pool.clone(), address);
            let at = newest.entry(key).or_insert(holding.sequence);
            *at = (*at).max(holding.sequence);
        }
    }
    holdings.retain(|_, holding| {
        let at = |address: &IpAddr| newest.get(&(holding.scope.pool.clone(), *address));
        holding.addresses.iter().all(|address| at(address) == Some(&holding.sequence))
    });
    holdings
}
