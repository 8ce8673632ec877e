//! The comparisons and writes of each order, and the effect of its end.

use super::chain::Batch;
use super::records::{claimed, leaving, stretches};
use super::{Effect, Leased, Leaseholder, Order, Question, parts};
use crate::core::address::{Address, AddressRange, BlockSize, Cidr};
use crate::core::ids::{Epoch, LeaseId, Link, OrderId, Revision};
use crate::core::keys::{
    PoolFamily, RESTORED, answer_key, network_key, node_key, question_number, session_key,
};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::core::txn::{Compare, KeyValue, Span, Txn, Write};
use crate::core::value::{BlockStatus, BlockValue, Message, MessageBody, SessionValue, Value};
use crate::limits;

/// Returns a key behind every block that begins at or before an address: '~' sorts after every
/// digit.
pub(super) fn behind(pool: &PoolFamily, last: Address) -> String {
    format!("{}~", pool.block_key(last))
}

fn none_in(pool: &PoolFamily, range: AddressRange) -> Compare {
    Compare::NoneIn(pool.block_key(range.first()), behind(pool, range.last()))
}

/// Compares that no restore is being settled (rule 24).
pub(super) fn compare_not_restored(txn: &mut Txn) {
    let compare = Compare::Absent(RESTORED.to_owned());
    if !txn.when.contains(&compare) && !broken(Mutant::ClaimsWhileRestored) {
        txn.when.push(compare);
    }
}

impl Leaseholder {
    /// Returns the number of operations of a transaction that an order takes.
    pub(super) fn weigh(order: &Order) -> usize {
        match order {
            Order::Lease { activate, claim, .. } => activate.len() + claim.len() * 2 + 1,
            Order::GiveBack { cidrs, .. } | Order::Park { cidrs, .. } => cidrs.len() * 2,
            Order::Transfer { block, give, .. } => {
                usize::from(block.size().log2().saturating_sub(give.size().log2())) + 4
            }
            Order::Trim { keep, .. } => keep.len() * 2 + 2,
            Order::Refuse(_) | Order::Drop(..) | Order::Session => 3,
            Order::Reclaim(..) | Order::Take(..) => 4,
            Order::TakeForfeit(of) => {
                usize::from(of.block.cidr.size().log2().saturating_sub(of.part.size().log2())) + 6
            }
            Order::Records | Order::Find { .. } | Order::AgreeBlockSize { .. } => 0,
        }
    }

    /// Returns the blocks that an order writes, by their first address.
    pub(super) fn writes(order: &Order) -> Vec<(PoolFamily, Address)> {
        let (pool, cidrs): (&PoolFamily, Vec<Cidr>) = match order {
            Order::Lease { pool, activate, claim } => (
                pool,
                activate.iter().copied().chain(claim.iter().map(|(cidr, _)| *cidr)).collect(),
            ),
            Order::GiveBack { pool, cidrs } | Order::Park { pool, cidrs, .. } => {
                (pool, cidrs.clone())
            }
            Order::Transfer { question, block, give } => {
                let parts = parts::without(*block, *give).into_iter();
                (&question.pool, parts.chain([*give]).collect())
            }
            Order::Trim { pool, block, keep, .. } => {
                (pool, keep.iter().copied().chain([*block]).collect())
            }
            Order::TakeForfeit(of) => {
                let rest = parts::without(of.block.cidr, of.part).into_iter();
                (&of.pool, rest.chain([of.part]).collect())
            }
            Order::Reclaim(pool, cidr)
            | Order::Drop(pool, cidr, _)
            | Order::Take(pool, cidr, _) => (pool, vec![*cidr]),
            Order::Refuse(_)
            | Order::Session
            | Order::Records
            | Order::Find { .. }
            | Order::AgreeBlockSize { .. } => return vec![],
        };
        let mut starts: Vec<Address> = cidrs.into_iter().map(Cidr::first).collect();
        starts.sort_unstable();
        starts.dedup();
        starts.into_iter().map(|start| (pool.clone(), start)).collect()
    }

    /// Returns whether this node still has what the order is about; if not, answers the order.
    pub(super) fn is_possible(&mut self, id: Option<OrderId>, order: &Order) -> bool {
        match order {
            Order::Lease { pool, activate, claim } => {
                let claims = |owned: &Cidr| claim.iter().any(|(cidr, _)| cidr.meets(*owned));
                let blocks = self.owned.get(pool).into_iter().flat_map(|blocks| blocks.values());
                let known = blocks.map(|owned| owned.cidr).filter(claims);
                let known: Vec<Cidr> = known.collect();
                if !known.is_empty() {
                    // The range set forgot them: as good as spares.
                    let leased = Leased::Conflict { others: vec![], gone: vec![] };
                    self.effects.push_back(Effect::Spares(pool.clone(), known));
                    self.effects.push_back(Effect::Leased(id, leased));
                    return false;
                }
                let gone = activate.iter().filter(|&&cidr| self.find_owned(pool, cidr).is_none());
                let gone: Vec<Cidr> = gone.copied().collect();
                if gone.is_empty() {
                    return true;
                }
                let leased = Leased::Conflict { others: vec![], gone };
                self.effects.push_back(Effect::Leased(id, leased));
            }
            Order::GiveBack { pool, cidrs } | Order::Park { pool, cidrs, .. } => {
                if cidrs.iter().all(|&cidr| self.find_owned(pool, cidr).is_some()) {
                    return true;
                }
                self.effects.push_back(Effect::GivenBack(id, false));
            }
            Order::Transfer { question, block, .. } => {
                if self.find_owned(&question.pool, *block).is_some() {
                    return true;
                }
                self.questions.remove(&question.key);
                self.effects.push_back(Effect::Transferred(id, false));
            }
            Order::Reclaim(pool, cidr) => {
                return self.lost.contains(&(pool.clone(), *cidr));
            }
            _ => return true,
        }
        false
    }

    /// Returns the spans that must be known before the order can be carried out: the agreed block
    /// sizes, and for a claim of a part of a block what lies before it.
    pub(super) fn reads_before(&self, order: &Order) -> Vec<Span> {
        let (pool, claims): (&PoolFamily, Vec<Cidr>) = match order {
            Order::Lease { pool, claim, .. } if !claim.is_empty() => {
                (pool, claim.iter().map(|(cidr, _)| *cidr).collect())
            }
            Order::Reclaim(pool, cidr) => (pool, vec![*cidr]),
            _ => return vec![],
        };
        let mut spans = Vec::new();
        if !self.networks.contains_key(&pool.network) {
            spans.push(Span::key(&network_key(&pool.network)));
        }
        for stretch in stretches(claims.iter().copied()) {
            if let Some(around) = self.enclosing(pool, stretch.first(), &claims) {
                let first = pool.block_key(around.first());
                let past = pool.block_key(stretch.first());
                spans.push(Span { first, past, limit: limits::KEYS_PER_READ_MAX });
            }
        }
        spans
    }

    /// Returns the cidr of the agreed size around a claim of a part; nothing when whole blocks are
    /// claimed, since then every block that overlaps the claim begins in it.
    fn enclosing(&self, pool: &PoolFamily, first: Address, claims: &[Cidr]) -> Option<Cidr> {
        let cidr = claims.iter().find(|cidr| cidr.first() == first)?;
        let agreed = match self.networks.get(&pool.network) {
            Some((_, network)) => (network.geometry.iter())
                .filter(|geometry| geometry.family == pool.family)
                .map(|geometry| geometry.block_size)
                .max()
                .unwrap_or(BlockSize::MAX),
            None => BlockSize::MAX,
        };
        let around = Cidr::containing(first, agreed);
        (cidr.size() < agreed && around.first() < first).then_some(around)
    }

    /// Takes in what was read before the transaction.
    pub(super) fn guard(&mut self, keys: &[KeyValue]) {
        for key in keys {
            self.learn_network(key);
        }
        let Some(mut batch) = self.batch.take() else { return };
        let mut orders = Vec::with_capacity(batch.orders.len());
        for (id, order) in std::mem::take(&mut batch.orders) {
            let (pool, claims): (&PoolFamily, Vec<Cidr>) = match &order {
                Order::Lease { pool, claim, .. } => {
                    (pool, claim.iter().map(|(cidr, _)| *cidr).collect())
                }
                Order::Reclaim(pool, cidr) => (pool, vec![*cidr]),
                _ => {
                    orders.push((id, order));
                    continue;
                }
            };
            let mut covered = None;
            for stretch in stretches(claims.iter().copied()) {
                let first = stretch.first();
                let Some(around) = self.enclosing(pool, first, &claims) else { continue };
                let before = |key: &&KeyValue| {
                    key.key >= pool.block_key(around.first()) && key.key < pool.block_key(first)
                };
                let Some(before) = keys.iter().rfind(before) else {
                    batch.guards.push((
                        pool.clone(),
                        first,
                        vec![none_in(pool, AddressRange::between(around.first(), stretch.last()))],
                    ));
                    continue;
                };
                match &before.value {
                    Value::Block(block) if block.cidr.last() < first => {
                        let past = format!("{}\0", before.key);
                        let guards = vec![
                            Compare::At(before.key.clone(), before.mod_revision),
                            Compare::NoneIn(past, behind(pool, stretch.last())),
                        ];
                        batch.guards.push((pool.clone(), first, guards));
                    }
                    Value::Block(block) => covered = Some(block.cidr),
                    _ => covered = Some(Cidr::one(first)),
                }
            }
            match (covered, &order) {
                (None, _) => orders.push((id, order)),
                (Some(cidr), Order::Lease { .. }) => {
                    let leased = Leased::Conflict { others: vec![cidr], gone: vec![] };
                    self.effects.push_back(Effect::Leased(id, leased));
                }
                (Some(_), _) => {} // what is lost stays lost until the next try
            }
        }
        batch.orders = orders;
        self.batch = Some(batch);
    }

    fn learn_network(&mut self, key: &KeyValue) {
        if let (Some(network), Value::Network(value)) =
            (key.key.strip_prefix(crate::core::keys::NETWORKS), &key.value)
        {
            self.networks.insert(network.into(), (Some(key.mod_revision), value.clone()));
        }
    }

    /// Returns the transaction of a batch.
    pub(super) fn txn_of(&self, now: BootTime, batch: &Batch) -> Txn {
        let node = node_key(&self.identity.node);
        let mut txn = Txn::default();
        if !broken(Mutant::EpochNotCompared) {
            txn.when.push(Compare::unchanged(node.clone(), self.chain.revision));
        }
        txn.then.push(Write::Put(node, Value::Node(batch.value.clone()), None));
        for (_, order) in &batch.orders {
            self.add(&mut txn, now, batch, order);
        }
        txn
    }

    fn add(&self, txn: &mut Txn, now: BootTime, batch: &Batch, order: &Order) {
        if self.identity.records && !broken(Mutant::RecordsLeftBehind) {
            let without = leaving(order).into_iter().chain(claimed(order));
            txn.then.extend(without.map(|stretch| stretch.delete_records()));
        }
        match order {
            Order::Lease { pool, activate, claim } => {
                for &cidr in activate {
                    self.compare_owned(txn, pool, cidr);
                    txn.then.push(self.put(now, batch, pool, cidr, BlockStatus::Active));
                }
                if !claim.is_empty() {
                    self.compare_claims(txn, batch, pool, claim.iter().map(|(cidr, _)| *cidr));
                    let revision = self.networks.get(&pool.network).and_then(|known| known.0);
                    let compare = Compare::unchanged(network_key(&pool.network), revision);
                    txn.when.push(compare);
                }
                compare_not_restored(txn);
                for &(cidr, status) in claim {
                    txn.then.push(self.put(now, batch, pool, cidr, status));
                }
            }
            Order::GiveBack { pool, cidrs } => {
                for &cidr in cidrs {
                    self.compare_owned(txn, pool, cidr);
                    txn.then.push(Write::Delete(pool.block_key(cidr.first())));
                }
            }
            Order::Park { pool, cidrs, ttl } => {
                self.park_blocks(txn, now, batch, (pool, cidrs), *ttl);
            }
            Order::Take(pool, cidr, revision) => {
                self.take_parked(txn, now, batch, (pool, *cidr), *revision);
            }
            Order::TakeForfeit(forfeited) => self.take_forfeit(txn, now, batch, forfeited),
            Order::Transfer { question, block, give } => {
                let pool = &question.pool;
                let status = self.find_owned(pool, *block).map(|owned| owned.status);
                self.compare_owned(txn, pool, *block);
                for part in parts::without(*block, *give) {
                    let status = status.unwrap_or(BlockStatus::Active);
                    txn.then.push(self.put(now, batch, pool, part, status));
                }
                self.hand_over(txn, now, batch, question, *give);
            }
            Order::Refuse(question) => self.reply(txn, question, MessageBody::Refused),
            Order::Trim { pool, block, revision, keep } => {
                let key = pool.block_key(block.first());
                txn.when.push(Compare::At(key, *revision));
                if !keep.iter().any(|cidr| cidr.first() == block.first()) {
                    txn.then.push(Write::Delete(pool.block_key(block.first())));
                }
                for &cidr in keep {
                    txn.then.push(self.put(now, batch, pool, cidr, BlockStatus::Active));
                }
            }
            Order::Reclaim(pool, cidr) => self.reclaim(txn, now, batch, pool, *cidr),
            Order::Drop(pool, cidr, revision) => {
                let key = pool.block_key(cidr.first());
                txn.when.push(Compare::At(key.clone(), *revision));
                txn.then.push(Write::Delete(key));
            }
            Order::Session => {
                // Without a lease no transaction is sent.
                txn.then.extend(self.lease.map(|lease| self.put_session(batch, lease)));
            }
            Order::Records => self.records.write(txn),
            Order::Find { .. } | Order::AgreeBlockSize { .. } => {}
        }
    }

    fn put_session(&self, batch: &Batch, lease: LeaseId) -> Write {
        let session = SessionValue { epoch: batch.value.epoch, lease };
        let key = session_key(&self.identity.node);
        Write::Put(key, Value::Session(session), Some(lease))
    }

    /// Claims a lost block again. During a restore only its last holder does (rule 26).
    fn reclaim(&self, txn: &mut Txn, now: BootTime, batch: &Batch, pool: &PoolFamily, cidr: Cidr) {
        self.compare_claims(txn, batch, pool, std::iter::once(cidr));
        let waits = !self.is_last_holder(pool, cidr) && !broken(Mutant::RestoredTrusted);
        if waits {
            compare_not_restored(txn);
        }
        txn.then.push(self.put(now, batch, pool, cidr, BlockStatus::Active));
    }

    pub(super) fn compare_owned(&self, txn: &mut Txn, pool: &PoolFamily, cidr: Cidr) {
        let revision = self.find_owned(pool, cidr).and_then(|owned| owned.revision);
        let revision = revision.unwrap_or(Revision::NEVER);
        if !broken(Mutant::RevisionNotCompared) {
            txn.when.push(Compare::At(pool.block_key(cidr.first()), revision));
        }
    }

    /// Compares that nothing overlaps the claims (rule 1).
    fn compare_claims(
        &self,
        txn: &mut Txn,
        batch: &Batch,
        pool: &PoolFamily,
        claims: impl Iterator<Item = Cidr>,
    ) {
        if broken(Mutant::OverlapNotCompared) {
            return;
        }
        for stretch in stretches(claims) {
            let guard =
                batch.guards.iter().find(|(of, first, _)| of == pool && *first == stretch.first());
            match guard {
                Some((_, _, guards)) => txn.when.extend(guards.iter().cloned()),
                None => txn.when.push(none_in(pool, stretch)),
            }
        }
    }

    pub(super) fn put(
        &self,
        now: BootTime,
        batch: &Batch,
        pool: &PoolFamily,
        cidr: Cidr,
        status: BlockStatus,
    ) -> Write {
        let durable = status != BlockStatus::Spare && !broken(Mutant::ActiveOnLease);
        let lease = if durable { None } else { self.lease };
        self.put_on(now, (batch.value.epoch, batch.link), (pool, cidr), status, lease)
    }

    /// Puts a block of this node, on a lease or on none, in a transaction that is this link of its
    /// chain.
    pub(super) fn put_on(
        &self,
        now: BootTime,
        (epoch, link): (Epoch, Link),
        (pool, cidr): (&PoolFamily, Cidr),
        status: BlockStatus,
        lease: Option<LeaseId>,
    ) -> Write {
        let value = BlockValue {
            cidr,
            family: pool.family,
            owner: self.identity.node.clone(),
            epoch: Some(epoch),
            claim: link,
            status,
            since: self.unix_time(now),
        };
        Write::Put(pool.block_key(cidr.first()), Value::Block(value), lease)
    }

    /// Gives cidrs to the asker: they are its own from this transaction on, as a spare on its lease
    /// (rule 10).
    fn hand_over(
        &self,
        txn: &mut Txn,
        now: BootTime,
        batch: &Batch,
        question: &Question,
        give: Cidr,
    ) {
        let value = BlockValue {
            cidr: give,
            family: question.pool.family,
            owner: question.from.clone(),
            epoch: None,
            claim: batch.link,
            status: BlockStatus::Spare,
            since: self.unix_time(now),
        };
        let key = question.pool.block_key(give.first());
        txn.then.push(Write::Put(key, Value::Block(value), Some(question.lease)));
        self.reply(txn, question, MessageBody::Given(vec![give]));
    }

    fn reply(&self, txn: &mut Txn, question: &Question, body: MessageBody) {
        let Some(number) = question_number(&question.key) else { return };
        txn.when.push(Compare::At(question.key.clone(), question.revision));
        txn.then.push(Write::Delete(question.key.clone()));
        let (network, node) = (&question.pool.network, &self.identity.node);
        let key = answer_key(network, &question.from, node, number);
        let (from, lease, family) = (node.clone(), question.lease, question.pool.family);
        let message = Message { from, lease, family, body };
        txn.then.push(Write::Put(key, Value::Message(message), Some(lease)));
    }
}
