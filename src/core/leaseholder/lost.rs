//! Blocks and spares that are no longer this node's, and what comes back of them.

use super::chain::Batch;
use super::{Effect, JoinPhase, Leaseholder, Order};
use crate::core::address::Cidr;
use crate::core::ids::Revision;
use crate::core::keys::PoolFamily;
use crate::core::time::BootTime;
use crate::core::value::BlockStatus;
use crate::limits;

impl Leaseholder {
    /// Drops the lease, which is gone, and with it every spare.
    pub(super) fn lease_gone(&mut self, now: BootTime) {
        self.lease = None;
        for blocks in self.owned.values_mut() {
            blocks.retain(|_, owned| owned.status != BlockStatus::Spare);
        }
        self.owned.retain(|_, blocks| !blocks.is_empty());
        self.effects.push_back(Effect::SparesGone);
        if matches!(self.phase, JoinPhase::Member) {
            self.regrant(now);
        }
    }

    /// Reclaims what is lost after the reclaim period at the latest.
    pub(super) fn reclaim_soon(&mut self, now: BootTime) {
        self.reclaim_at = self.reclaim_at.into_iter().chain([now + limits::RECLAIM]).min();
    }

    /// Tries again, after the reclaim period, to get back what was lost.
    pub(super) fn reclaim_lost(&mut self, now: BootTime) {
        self.reclaim_at = (!self.lost.is_empty()).then_some(now + limits::RECLAIM);
        let queued = |order: &Order, at: &(PoolFamily, Cidr)| match order {
            Order::Reclaim(pool, cidr) => *pool == at.0 && *cidr == at.1,
            Order::Trim { pool, keep, .. } => *pool == at.0 && keep.contains(&at.1),
            _ => false,
        };
        let batch = self.batch.as_ref().map_or(&[][..], |batch| &batch.orders);
        let lost =
            self.lost.iter().filter(|(pool, cidr)| !self.was_lost_before(pool, *cidr)).filter(
                |lost| !self.queue.iter().chain(batch).any(|(_, order)| queued(order, lost)),
            );
        let orders: Vec<_> = lost.map(|(pool, cidr)| Order::Reclaim(pool.clone(), *cidr)).collect();
        self.queue.extend(orders.into_iter().map(|order| (None, order)));
    }

    /// Returns whether a block must be given back. One that is lost need not: it is no longer
    /// claimed, and if a claim of it that is under way is carried out, it goes back after that.
    pub(super) fn gives_back(&mut self, pool: &PoolFamily, cidr: Cidr) -> bool {
        self.lost.remove(&(pool.clone(), cidr));
        for (_, order) in &mut self.queue {
            claims_no_longer(order, pool, cidr);
        }
        if let Some(batch) = &mut self.batch {
            batch.given_up.push((pool.clone(), cidr));
        }
        self.find_owned(pool, cidr).is_some()
    }

    /// Ends the current transaction, if there is one. What was given back meanwhile is claimed no
    /// longer; if the transaction claimed it, at this revision, it goes back.
    pub(super) fn end_batch(&mut self, landed: Option<Revision>) -> Option<Batch> {
        let mut batch = self.batch.take()?;
        for (pool, cidr) in std::mem::take(&mut batch.given_up) {
            let mut claimed = false;
            for (_, order) in &mut batch.orders {
                claimed |= claims_no_longer(order, &pool, cidr);
            }
            batch.orders.retain(|(_, order)| *order != Order::Reclaim(pool.clone(), cidr));
            if let Some(revision) = landed.filter(|_| claimed) {
                self.queue.push_back((None, Order::Drop(pool, cidr, revision)));
            }
        }
        Some(batch)
    }

    /// Takes back a block that is this node's again, if it ever was not. Nothing of what came and
    /// went meanwhile is recorded, so its records are compared.
    pub(super) fn regained(
        &mut self,
        now: BootTime,
        pool: &PoolFamily,
        cidr: Cidr,
        revision: Option<Revision>,
    ) {
        self.keep_owned(pool, cidr, revision, BlockStatus::Active);
        let block = (pool.clone(), cidr);
        if self.lost.remove(&block) | self.parked.remove(&block) {
            self.effects.push_back(Effect::Regained(pool.clone(), cidr));
        }
        if self.identity.records {
            self.scan.push((pool.clone(), cidr));
            self.scan(now);
        }
    }

    /// Drops a block that is no longer this node's. If the node handed addresses out of it, it
    /// claims the block again and again.
    pub(super) fn lose(&mut self, now: BootTime, pool: &PoolFamily, cidr: Cidr) {
        let owned = self.find_owned(pool, cidr);
        self.forget_owned(pool, cidr);
        // Nothing of it is held: it need not be claimed again.
        if self.parked.remove(&(pool.clone(), cidr)) {
            return self.effects.push_back(Effect::Unparked(pool.clone(), cidr));
        }
        if owned.is_some_and(|owned| owned.status == BlockStatus::Spare) {
            return self.effects.push_back(Effect::Lost(pool.clone(), vec![cidr]));
        }
        if self.lost.insert((pool.clone(), cidr)) {
            self.effects.push_back(Effect::Lost(pool.clone(), vec![cidr]));
        }
        self.reclaim_soon(now);
    }
}

/// Returns whether an order claims a lost block, or a part of one that is not as this node knows
/// it. That part it claims no longer.
fn claims_no_longer(order: &mut Order, pool: &PoolFamily, cidr: Cidr) -> bool {
    match order {
        Order::Reclaim(of, lost) => of == pool && *lost == cidr,
        Order::Trim { pool: of, keep, .. } if of == pool => {
            let before = keep.len();
            keep.retain(|kept| *kept != cidr);
            keep.len() < before
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
