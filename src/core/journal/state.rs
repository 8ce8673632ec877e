//! The journal in memory: what a file is read into, and what a simulated disk is.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::{Cooling, JournalEntry, Rows, apply};
use crate::core::address::{Address, BlockSize, Cidr, Family};
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::container_id::ContainerId;
use crate::core::ids::{Link, Sequence};
use crate::core::keys::PoolFamily;
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::time::{BootTime, StartTime};

/// Everything that the journal holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalState {
    /// The holdings of attachments.
    pub holdings: Holdings,
    /// The range sets.
    pub sets: BTreeMap<SetId, SetIdentity>,
    /// Cooling addresses, oldest first. One that was released again is there again.
    pub cooling: BTreeSet<Cooling>,
    /// The last address handed out for each slot of each range set.
    pub cursors: BTreeMap<(SetId, u16), Address>,
    /// Beyond every sequence number ever given.
    pub next_sequence: Sequence,
    /// The blocks of which addresses may be handed out.
    pub blocks: BTreeSet<(PoolFamily, Cidr)>,
    /// The blocks that the store gave to others while addresses of them were held here.
    pub lost: BTreeSet<(PoolFamily, Cidr)>,
    /// The link that the node's chain in the cluster's store has reached; none: it never joined.
    pub chain: Option<Link>,
    /// The link that it may have reached.
    pub intent: Option<Link>,
    /// The store has confirmed, in this boot, which blocks are this node's. A journal that is
    /// older than what was written to it, as after a power cut, may have others' blocks.
    pub confirmed: bool,
    /// DELs that were answered before the node had joined: when they started.
    pub early_dels: BTreeMap<AttachmentId, StartTime>,
    /// The store went back in time, and that is not settled yet: the blocks that were lost before.
    pub settling: Option<BTreeSet<(PoolFamily, Cidr)>>,
}

impl Default for JournalState {
    /// Creates an empty journal.
    fn default() -> Self {
        Self {
            holdings: Holdings::default(),
            sets: BTreeMap::new(),
            cooling: BTreeSet::new(),
            cursors: BTreeMap::new(),
            next_sequence: Sequence::FIRST,
            blocks: BTreeSet::new(),
            lost: BTreeSet::new(),
            chain: None,
            intent: None,
            confirmed: false,
            early_dels: BTreeMap::new(),
            settling: None,
        }
    }
}

/// The terms on which a boot begins.
#[derive(Clone, Copy, Debug)]
pub struct NewBoot {
    /// Holdings of the boot before are kept.
    pub keep_holdings: bool,
    /// The time for which released addresses cool.
    pub cooldown: Duration,
    /// Now, on the clock of the new boot.
    pub now: BootTime,
}

impl JournalState {
    /// Makes the change of one entry; see [`apply`].
    pub fn apply(&mut self, cooldown: Duration, entry: &JournalEntry) {
        let Ok(()) = apply(self, cooldown, entry);
    }

    /// Begins a boot, at the first start after a reboot: the containers of the earlier boot are
    /// gone, and times on its clock mean nothing. Holdings end, and their addresses cool from now
    /// on, as do those that were cooling; holdings that are kept forget when their plugin process
    /// started, so that every DEL of this boot counts as later. Returns the number of holdings that
    /// ended.
    pub fn begin_boot(&mut self, boot: NewBoot) -> usize {
        self.confirmed = false;
        self.early_dels.clear();
        let mut cooling: BTreeSet<(SetId, Address)> =
            self.cooling.iter().map(|&(_, set, number)| (set, number)).collect();
        // Rows of a range set that was forgotten have cooled off.
        cooling.retain(|(set, _)| self.sets.contains_key(set));
        let mut ended = 0;
        if boot.keep_holdings {
            for holding in &mut self.holdings.0 {
                Arc::make_mut(holding).started_at = None;
            }
        } else {
            for holding in std::mem::take(&mut self.holdings) {
                ended += 1;
                cooling.extend(self.numbers(&holding));
            }
        }
        if boot.cooldown.is_zero() {
            cooling.clear();
        }
        self.cooling = cooling.into_iter().map(|(set, number)| (boot.now, set, number)).collect();
        ended
    }

    /// Returns the range sets and numbers of the addresses of a holding.
    fn numbers(&self, holding: &Holding) -> impl Iterator<Item = (SetId, Address)> {
        holding.addresses.iter().filter_map(|&address| {
            let number = Address::of(address);
            let owns = |set: &&SetIdentity| {
                set.network == holding.scope.pool
                    && set.family == Family::of(address)
                    && set.ranges.iter().any(|range| range.contains(number))
            };
            self.sets.values().find(owns).map(|set| (set.id, number))
        })
    }
}

/// Holdings in the order of their sequence numbers and attachments, each there once. One vector:
/// a node may hold a million, and nearly every new one comes last.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Holdings(Vec<Arc<Holding>>);

fn key(holding: &Holding) -> (Sequence, &str, &ContainerId, &str) {
    let scope = &holding.scope;
    (holding.sequence, &scope.network, &holding.container_id, &scope.ifname)
}

impl Holdings {
    fn find(&self, holding: &Holding) -> Result<usize, usize> {
        if self.0.last().is_none_or(|last| key(last) < key(holding)) {
            return Err(self.0.len());
        }
        self.0.binary_search_by(|known| key(known).cmp(&key(holding)))
    }

    /// Puts a holding, in place of the one with the same sequence number and attachment.
    pub fn put(&mut self, holding: Arc<Holding>) {
        match self.find(&holding) {
            Ok(at) => self.0[at] = holding,
            Err(at) => self.0.insert(at, holding),
        }
    }

    /// Removes the holding with this one's sequence number and attachment, if it is there.
    pub fn remove(&mut self, holding: &Holding) {
        if let Ok(at) = self.find(holding) {
            self.0.remove(at);
        }
    }

    /// Returns the holdings, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Holding>> {
        self.0.iter()
    }

    /// Returns the number of holdings.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Holdings {
    type Item = Arc<Holding>;
    type IntoIter = std::vec::IntoIter<Arc<Holding>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Holdings {
    type Item = &'a Arc<Holding>;
    type IntoIter = std::slice::Iter<'a, Arc<Holding>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Rows for JournalState {
    type Error = Infallible;

    fn put_holding(&mut self, holding: &Arc<Holding>) -> Result<(), Infallible> {
        self.holdings.put(holding.clone());
        Ok(())
    }

    fn remove_holding(&mut self, holding: &Holding) -> Result<(), Infallible> {
        self.holdings.remove(holding);
        Ok(())
    }

    fn next_sequence(&self) -> Sequence {
        self.next_sequence
    }

    fn set_next_sequence(&mut self, next: Sequence) -> Result<(), Infallible> {
        self.next_sequence = next;
        Ok(())
    }

    fn put_cooling(&mut self, row: Cooling) -> Result<(), Infallible> {
        self.cooling.insert(row);
        Ok(())
    }

    fn remove_cooling(&mut self, row: Cooling) -> Result<(), Infallible> {
        self.cooling.remove(&row);
        Ok(())
    }

    fn oldest_cooling(&mut self) -> Result<Option<Cooling>, Infallible> {
        Ok(self.cooling.first().copied())
    }

    fn cooling_of(&mut self, set: SetId) -> Result<Vec<Cooling>, Infallible> {
        Ok(self.cooling.iter().filter(|row| row.1 == set).copied().collect())
    }

    fn put_cursor(&mut self, set: SetId, slot: u16, number: Address) -> Result<(), Infallible> {
        self.cursors.insert((set, slot), number);
        Ok(())
    }

    fn remove_cursor(&mut self, set: SetId, slot: u16) -> Result<(), Infallible> {
        self.cursors.remove(&(set, slot));
        Ok(())
    }

    fn cursors_of(&mut self, set: SetId) -> Result<Vec<(u16, Address)>, Infallible> {
        let cursors = self.cursors.range((set, 0)..=(set, u16::MAX));
        Ok(cursors.map(|(&(_, slot), &number)| (slot, number)).collect())
    }

    fn put_set(&mut self, set: &SetIdentity) -> Result<(), Infallible> {
        self.sets.insert(set.id, set.clone());
        Ok(())
    }

    fn remove_set(&mut self, set: SetId) -> Result<(), Infallible> {
        self.sets.remove(&set);
        Ok(())
    }

    fn put_block(&mut self, pool: &PoolFamily, cidr: Cidr, lost: bool) -> Result<(), Infallible> {
        let blocks = if lost { &mut self.lost } else { &mut self.blocks };
        blocks.insert((pool.clone(), cidr));
        Ok(())
    }

    fn remove_block(&mut self, pool: &PoolFamily, cidr: Cidr) -> Result<(), Infallible> {
        let block = (pool.clone(), cidr);
        self.blocks.remove(&block);
        self.lost.remove(&block);
        Ok(())
    }

    fn blocks_meeting(
        &mut self,
        pool: &PoolFamily,
        cidr: Cidr,
    ) -> Result<Vec<(Cidr, bool)>, Infallible> {
        let first = Cidr::one(Cidr::containing(cidr.first(), BlockSize::MAX).first());
        let mut met = Vec::new();
        for (blocks, lost) in [(&self.blocks, false), (&self.lost, true)] {
            let near = blocks.range((pool.clone(), first)..);
            let near = near.take_while(|(of, block)| of == pool && block.first() <= cidr.last());
            let meets = near.filter(|(_, block)| block.last() >= cidr.first());
            met.extend(meets.map(|&(_, block)| (block, lost)));
        }
        Ok(met)
    }

    fn set_chain(&mut self, reached: Link) -> Result<(), Infallible> {
        self.chain = Some(reached);
        Ok(())
    }

    fn set_intent(&mut self, intended: Link) -> Result<(), Infallible> {
        self.intent = Some(intended);
        Ok(())
    }

    fn set_confirmed(&mut self, confirmed: bool) -> Result<(), Infallible> {
        self.confirmed = confirmed;
        Ok(())
    }

    fn put_early_del(
        &mut self,
        id: &AttachmentId,
        started_at: StartTime,
    ) -> Result<(), Infallible> {
        self.early_dels.insert(id.clone(), started_at);
        Ok(())
    }

    fn remove_early_dels(&mut self) -> Result<(), Infallible> {
        self.early_dels.clear();
        Ok(())
    }

    fn set_settling(&mut self, lost: Option<&[(PoolFamily, Cidr)]>) -> Result<(), Infallible> {
        self.settling = lost.map(|lost| lost.iter().cloned().collect());
        Ok(())
    }
}
