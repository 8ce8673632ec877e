//! The meaning that the end of a transaction has for each order in it.

use super::records::stretches;
use super::txns::behind;
use super::{Effect, Found, Leased, Leaseholder, Order, parts};
use crate::core::address::{Address, Cidr};
use crate::core::cause::Cause;
use crate::core::ids::{OrderId, Revision};
use crate::core::keys::{PoolFamily, RESTORED, network_key};
use crate::core::time::BootTime;
use crate::core::txn::{KeyValue, Span};
use crate::core::value::{BlockStatus, Value};
use crate::limits;

impl Leaseholder {
    /// Returns the keys to read to learn why an order was refused.
    pub(super) fn reads_after(&self, order: &Order) -> Vec<Span> {
        let key = |pool: &PoolFamily, cidr: Cidr| Span::key(&pool.block_key(cidr.first()));
        match order {
            Order::Lease { pool, activate, claim } => {
                let mut spans: Vec<Span> = activate.iter().map(|&cidr| key(pool, cidr)).collect();
                spans.push(Span::key(&network_key(&pool.network)));
                spans.push(Span::key(RESTORED));
                for stretch in stretches(claim.iter().map(|(cidr, _)| *cidr)) {
                    let first = pool.block_key(stretch.first());
                    let past = behind(pool, Address::LAST);
                    spans.push(Span { first, past, limit: limits::KEYS_PER_LOOK });
                }
                spans
            }
            Order::GiveBack { pool, cidrs } | Order::Park { pool, cidrs, .. } => {
                cidrs.iter().map(|&cidr| key(pool, cidr)).collect()
            }
            Order::Transfer { question, block, .. } => vec![key(&question.pool, *block)],
            _ => vec![],
        }
    }

    /// Answers an order that was refused by itself.
    pub(super) fn why_refused(
        &mut self,
        now: BootTime,
        id: Option<OrderId>,
        order: Order,
        keys: &[KeyValue],
    ) {
        match order {
            Order::Lease { pool, activate, claim } => {
                self.lease_refused(id, pool, activate, claim, keys);
            }
            Order::GiveBack { pool, cidrs } | Order::Park { pool, cidrs, .. } => {
                self.lose_changed(now, &pool, &cidrs, keys);
                self.effects.push_back(Effect::GivenBack(id, false));
            }
            Order::Transfer { question, block, .. } => {
                self.lose_changed(now, &question.pool, &[block], keys);
                self.questions.remove(&question.key);
                self.effects.push_back(Effect::Transferred(id, false));
            }
            Order::Refuse(question) => drop(self.questions.remove(&question.key)),
            Order::Trim { pool, keep, .. } => {
                keep.into_iter().for_each(|cidr| self.lose(now, &pool, cidr));
            }
            // It stays lost until the next try.
            Order::Reclaim(..) => self.reclaim_soon(now),
            Order::Records => self.records.put_back(),
            Order::Take(..) | Order::TakeForfeit(_) => self.not_taken(now, id),
            Order::Session
            | Order::Drop(..)
            | Order::Find { .. }
            | Order::AgreeBlockSize { .. } => {}
        }
    }

    fn lease_refused(
        &mut self,
        id: Option<OrderId>,
        pool: PoolFamily,
        activate: Vec<Cidr>,
        claim: Vec<(Cidr, BlockStatus)>,
        keys: &[KeyValue],
    ) {
        let revision = |cidr: &Cidr| {
            let key = pool.block_key(cidr.first());
            keys.iter().find(|found| found.key == key).map(|found| found.mod_revision)
        };
        let owned = |cidr: &Cidr| self.find_owned(&pool, *cidr).and_then(|owned| owned.revision);
        let gone = activate.iter().filter(|cidr| revision(cidr) != owned(cidr));
        let gone: Vec<Cidr> = gone.copied().collect();
        let ours = self.owned.get(&pool);
        let others = keys.iter().filter_map(|key| match &key.value {
            Value::Block(block) => Some(block.cidr),
            _ => None,
        });
        let is_ours = |cidr: &Cidr| ours.is_some_and(|ours| ours.contains_key(&cidr.first()));
        let others: Vec<Cidr> =
            others.filter(|cidr| !is_ours(cidr) && !gone.contains(cidr)).collect();
        for &cidr in &gone {
            self.forget_owned(&pool, cidr);
        }
        let network = network_key(&pool.network);
        let network = keys.iter().find(|key| key.key == network);
        let known = self.networks.get(&pool.network).and_then(|known| known.0);
        if keys.iter().any(|key| key.key == RESTORED) && gone.is_empty() {
            let awaited = self.awaited.clone().unwrap_or_default();
            let restored = Cause::Restored { awaited: awaited.into() };
            self.effects.push_back(Effect::Leased(id, Leased::Failed(restored)));
        } else if network.map(|key| key.mod_revision) != known {
            self.networks.remove(&pool.network);
            self.queue.push_front((id, Order::Lease { pool, activate, claim }));
        } else {
            self.effects.push_back(Effect::Leased(id, Leased::Conflict { others, gone }));
        }
    }

    /// Loses the blocks whose key is not as this node left it: they are no longer its own (rule
    /// 11).
    fn lose_changed(
        &mut self,
        now: BootTime,
        pool: &PoolFamily,
        cidrs: &[Cidr],
        keys: &[KeyValue],
    ) {
        for &cidr in cidrs {
            let key = pool.block_key(cidr.first());
            let found = keys.iter().find(|found| found.key == key).map(|found| found.mod_revision);
            if let Some(owned) = self.find_owned(pool, cidr)
                && (owned.revision.is_none() || found != owned.revision)
            {
                self.lose(now, pool, cidr);
            }
        }
    }

    /// Handles an order that was carried out at this revision.
    pub(super) fn done(
        &mut self,
        now: BootTime,
        id: Option<OrderId>,
        order: Order,
        revision: Option<Revision>,
    ) {
        match order {
            Order::Lease { pool, activate, claim } => {
                for cidr in activate {
                    self.keep_owned(&pool, cidr, revision, BlockStatus::Active);
                }
                for (cidr, status) in claim {
                    self.keep_owned(&pool, cidr, revision, status);
                }
                self.effects.push_back(Effect::Leased(id, Leased::Done));
            }
            Order::GiveBack { pool, cidrs } | Order::Park { pool, cidrs, .. } => {
                cidrs.into_iter().for_each(|cidr| self.forget_owned(&pool, cidr));
                self.effects.push_back(Effect::GivenBack(id, true));
            }
            Order::Transfer { question, block, give } => {
                let status = self.find_owned(&question.pool, block).map(|owned| owned.status);
                self.forget_owned(&question.pool, block);
                for part in parts::without(block, give) {
                    let status = status.unwrap_or(BlockStatus::Active);
                    self.keep_owned(&question.pool, part, revision, status);
                }
                self.questions.remove(&question.key);
                self.effects.push_back(Effect::Transferred(id, true));
            }
            Order::Refuse(question) => drop(self.questions.remove(&question.key)),
            Order::Trim { pool, keep, .. } => {
                keep.into_iter().for_each(|cidr| self.regained(now, &pool, cidr, revision));
            }
            Order::Reclaim(pool, cidr) => self.regained(now, &pool, cidr, revision),
            Order::Take(pool, cidr, before) => {
                let found = Found::Taken(cidr);
                self.taken(now, id, (&pool, cidr), revision.unwrap_or(before), found);
            }
            Order::TakeForfeit(of) => {
                let (pool, cidr, from) = (of.pool, of.part, of.block.owner);
                let found = Found::Forfeited { pool: pool.clone(), cidr, from };
                let revision = revision.unwrap_or(of.block_revision);
                self.taken(now, id, (&pool, cidr), revision, found);
            }
            Order::Records => self.records.written(now, &mut self.effects),
            Order::Session
            | Order::Drop(..)
            | Order::Find { .. }
            | Order::AgreeBlockSize { .. } => {}
        }
    }
}
