//! Compares the blocks that this node hands out of with those that the store says it holds, at
//! every joining.

use std::collections::{BTreeMap, BTreeSet};

use super::join::Joining;
use super::{Effect, Leaseholder, Order, OwnedBlock, parts};
use crate::core::address::{Address, Cidr};
use crate::core::ids::Revision;
use crate::core::keys::PoolFamily;
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::core::value::BlockStatus;

/// A block of this node in the store.
#[derive(Clone, Copy)]
struct Stored {
    cidr: Cidr,
    revision: Revision,
    status: BlockStatus,
}

impl Leaseholder {
    /// Makes the node's memory and the store one: what the node hands out of and the store knows is
    /// verified; what the store lost is claimed again, and nothing is handed out of it meanwhile;
    /// what the store has and the node does not know is given back, since nothing was handed out of
    /// it (rules 9 and 11).
    pub(super) fn reconcile(&mut self, now: BootTime, joining: Joining) {
        self.forget_earlier_findings();
        let mut stored: BTreeMap<PoolFamily, Vec<Stored>> = BTreeMap::new();
        for (key, block) in &joining.blocks {
            let Some((network, family, _)) = crate::core::keys::parse_block_key(&key.key) else {
                continue;
            };
            if block.status == BlockStatus::Spare {
                continue; // on the lease of a daemon that is gone
            }
            let pool = PoolFamily { network: network.into(), family };
            let (cidr, revision, status) = (block.cidr, key.mod_revision, block.status);
            stored.entry(pool).or_default().push(Stored { cidr, revision, status });
        }
        // Spares on the current lease are new, and what they are.
        let mut known = std::mem::take(&mut self.owned);
        for (pool, blocks) in &mut known {
            for (_, owned) in blocks.extract_if(.., |_, owned| owned.status == BlockStatus::Spare) {
                self.keep_owned(pool, owned.cidr, owned.revision, owned.status);
            }
        }
        // Parts of lost blocks may be this node's again, and so may parts of parked ones.
        let lost = std::mem::take(&mut self.lost);
        for (pool, cidr) in lost.iter().chain(&self.parked) {
            let lost = OwnedBlock { cidr: *cidr, revision: None, status: BlockStatus::Active };
            known.entry(pool.clone()).or_default().entry(cidr.first()).or_insert(lost);
        }
        if joining.state_lost {
            rebuild(&mut known, &stored);
        }
        self.leave_to_last_holders(now, &mut known, &lost);
        let mut strange = Vec::new();
        for (pool, blocks) in &known {
            let stored = stored.get(pool).map_or(&[][..], |stored| stored);
            for owned in blocks.values() {
                let block = (pool.clone(), owned.cidr);
                let was_lost = lost.contains(&block) || self.parked.contains(&block);
                self.verify(now, pool, owned.cidr, stored, was_lost);
            }
        }
        for (pool, stored) in stored {
            let known = known.get(&pool).into_iter().flat_map(BTreeMap::values);
            let now = self.owned.get(&pool).into_iter().flat_map(BTreeMap::values);
            let now: Vec<Cidr> = now.map(|owned| owned.cidr).collect();
            let mut known: Vec<Cidr> = known.map(|owned| owned.cidr).chain(now).collect();
            known.sort_unstable();
            known.dedup();
            for block in stored {
                self.trim(&pool, block, &known, &mut strange);
            }
        }
        let owned = self.owned.iter().flat_map(|(pool, blocks)| {
            let active = blocks.values().filter(|owned| owned.status == BlockStatus::Active);
            active.map(|owned| (pool.clone(), owned.cidr))
        });
        let owned: Vec<_> = owned.filter(|_| self.identity.records).collect();
        self.scan.restart(owned);
        // It goes back before it may be claimed again.
        for order in strange.into_iter().rev() {
            self.queue.push_front((None, order));
        }
        if !self.lost.is_empty() {
            self.reclaim_lost(now);
        }
        if joining.marked || joining.went_back {
            // So that the node's key says, in the end, that this is done.
            self.queue.push_back((None, Order::Session));
        }
    }

    /// Forgets the findings of an earlier joining, which are made again if they still hold:
    /// otherwise its orders would be refused, and blocks of this node's be taken for lost. The
    /// blocks that it was about to say are this node's are known as such.
    fn forget_earlier_findings(&mut self) {
        for (id, order) in std::mem::take(&mut self.queue) {
            match order {
                Order::Trim { pool, keep, .. } => {
                    for cidr in keep {
                        self.keep_owned(&pool, cidr, None, BlockStatus::Active);
                    }
                }
                Order::Drop(..) | Order::Reclaim(..) => {}
                order => self.queue.push_back((id, order)),
            }
        }
    }

    /// Keeps lost the blocks that were lost before a restore that is being settled: the store says
    /// what was so before the loss (rule 26).
    fn leave_to_last_holders(
        &mut self,
        now: BootTime,
        known: &mut BTreeMap<PoolFamily, BTreeMap<Address, OwnedBlock>>,
        lost: &BTreeSet<(PoolFamily, Cidr)>,
    ) {
        for (pool, blocks) in known {
            let others = blocks.extract_if(.., |_, of| self.was_lost_before(pool, of.cidr));
            for (_, OwnedBlock { cidr, .. }) in others.collect::<Vec<_>>() {
                if lost.contains(&(pool.clone(), cidr)) {
                    self.lost.insert((pool.clone(), cidr));
                } else {
                    self.lose(now, pool, cidr);
                }
            }
        }
    }

    /// Verifies one block that this node hands out of, or did before it was lost.
    fn verify(
        &mut self,
        now: BootTime,
        pool: &PoolFamily,
        cidr: Cidr,
        stored: &[Stored],
        was_lost: bool,
    ) {
        let meets = |block: &&Stored| block.cidr.meets(cidr);
        let meeting: Vec<Stored> = stored.iter().filter(meets).copied().collect();
        if let [block] = meeting[..]
            && block.cidr.covers(cidr)
        {
            let withheld = !block.status.is_owned();
            let parked = self.parked.contains(&(pool.clone(), cidr));
            if parked && (withheld || block.cidr != cidr) {
                // It stays so until it is taken back, or cut out.
            } else if withheld || was_lost && block.cidr != cidr {
                self.lose(now, pool, cidr); // until it is taken back, or cut out
            } else {
                self.keep_back(pool, cidr, block.revision, was_lost);
            }
            return;
        }
        if broken(Mutant::TrustMemory) {
            return self.keep_owned(pool, cidr, None, BlockStatus::Active);
        }
        let cidrs: Vec<Cidr> = meeting.iter().map(|block| block.cidr).collect();
        let bare: Vec<Cidr> = parts::missing(cidr, &cidrs).collect();
        let mut all: Vec<Cidr> = cidrs.iter().chain(&bare).copied().collect();
        all.sort_unstable();
        if all.len() > 1 {
            self.effects.push_back(Effect::Split(pool.clone(), cidr, all));
        }
        for block in meeting {
            if block.status.is_owned() {
                self.keep_back(pool, block.cidr, block.revision, was_lost);
            } else {
                self.lose(now, pool, block.cidr); // until it is taken back
            }
        }
        for cidr in bare {
            self.lose(now, pool, cidr);
        }
    }

    fn keep_back(&mut self, pool: &PoolFamily, cidr: Cidr, revision: Revision, was_lost: bool) {
        self.keep_owned(pool, cidr, Some(revision), BlockStatus::Active);
        self.parked.remove(&(pool.clone(), cidr));
        if was_lost {
            self.effects.push_back(Effect::Regained(pool.clone(), cidr));
        }
    }

    /// Trims one block in the store: what this node does not know of it goes back.
    fn trim(&mut self, pool: &PoolFamily, block: Stored, known: &[Cidr], orders: &mut Vec<Order>) {
        let meets = |cidr: &&Cidr| cidr.meets(block.cidr);
        let keep: Vec<Cidr> = known.iter().filter(meets).copied().collect();
        let inside = |cidr: &Cidr| block.cidr.covers(*cidr);
        let withheld = !block.status.is_owned();
        if keep.iter().any(|cidr| !inside(cidr)) || (keep == [block.cidr] && !withheld) {
            return;
        }
        let (pool, cidr, revision) = (pool.clone(), block.cidr, block.revision);
        if keep.is_empty() {
            return orders.push(Order::Drop(pool, cidr, revision));
        }
        for &cidr in &keep {
            self.forget_owned(&pool, cidr);
        }
        orders.push(Order::Trim { pool, block: cidr, revision, keep });
    }

    /// Returns the blocks of this node as the store has them; for tests and simulators.
    pub fn blocks(&self) -> impl Iterator<Item = (&PoolFamily, Cidr, BlockStatus)> {
        let of = |(pool, blocks): (_, &'_ BTreeMap<Address, OwnedBlock>)| {
            let blocks: Vec<(Cidr, BlockStatus)> =
                blocks.values().map(|owned| (owned.cidr, owned.status)).collect();
            blocks.into_iter().map(move |(cidr, status)| (pool, cidr, status))
        };
        self.owned.iter().flat_map(of)
    }
}

/// Adds to the blocks of a node that forgot those that the store has.
fn rebuild(
    known: &mut BTreeMap<PoolFamily, BTreeMap<Address, OwnedBlock>>,
    stored: &BTreeMap<PoolFamily, Vec<Stored>>,
) {
    for (pool, stored) in stored {
        let blocks = known.entry(pool.clone()).or_default();
        for block in stored {
            let cidrs: Vec<Cidr> = blocks.values().map(|owned| owned.cidr).collect();
            for cidr in parts::missing(block.cidr, &cidrs) {
                let owned = OwnedBlock { cidr, revision: None, status: BlockStatus::Active };
                blocks.insert(cidr.first(), owned);
            }
        }
    }
}
