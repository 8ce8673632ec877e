//! What each order compares and writes, and what its end means.

use super::chain::Batch;
use super::records::Stretch;
use super::{Effect, Leased, Leaseholder, Order, OrderId, Question, parts};
use crate::core::Millis;
use crate::core::address::Run;
use crate::core::keys::{
    RESTORED, Space, answer_key, network_key, node_key, question_number, session_key,
};
use crate::core::mutant::{Mutant, broken};
use crate::core::txn::{Compare, KeyValue, Span, Txn, Write};
use crate::core::value::{BlockStatus, BlockValue, Message, MessageBody, SessionValue, Value};
use crate::limits;

/// Neighbouring runs as one: first and last address of each stretch.
pub(super) fn stretches(runs: impl Iterator<Item = Run>) -> Vec<(u128, u128)> {
    let mut runs: Vec<Run> = runs.collect();
    runs.sort_unstable();
    let mut stretches: Vec<(u128, u128)> = Vec::new();
    for run in runs {
        match stretches.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(run.start) => *end = run.end(),
            _ => stretches.push((run.start, run.end())),
        }
    }
    stretches
}

/// The addresses that are not this node's any more when the order is carried out. Nothing of them
/// is held.
pub(super) fn leaving(order: &Order) -> Vec<Stretch> {
    let (space, stretches) = match order {
        Order::GiveBack { space, runs } => (space, stretches(runs.iter().copied())),
        Order::Give { question, give, .. } => (&question.space, vec![(give.start, give.end())]),
        Order::Drop(space, run, _) => (space, vec![(run.start, run.end())]),
        Order::Trim { space, block, keep, .. } => {
            (space, parts::uncovered(block.start, block.end(), keep))
        }
        _ => return vec![],
    };
    let of = |(first, last)| Stretch { space: space.clone(), first, last };
    stretches.into_iter().map(of).collect()
}

/// Behind every block that begins at or before an address: '~' sorts after every digit.
pub(super) fn behind(space: &Space, last: u128) -> String {
    format!("{}~", space.block_key(last))
}

fn none_in(space: &Space, (first, last): (u128, u128)) -> Compare {
    Compare::NoneIn(space.block_key(first), behind(space, last))
}

impl Leaseholder {
    /// How many operations of a transaction an order takes.
    pub(super) fn weigh(order: &Order) -> usize {
        match order {
            Order::Lease { activate, claim, .. } => activate.len() + claim.len() + 1,
            Order::GiveBack { runs, .. } => runs.len() * 2,
            Order::Give { block, give, .. } => usize::from(block.size_log2 - give.size_log2) + 4,
            Order::Trim { keep, .. } => keep.len() * 2 + 2,
            Order::Refuse(_) | Order::Reclaim(..) | Order::Drop(..) | Order::Session => 3,
            Order::Records | Order::Find { .. } | Order::Fix { .. } => 0,
        }
    }

    /// The blocks that an order writes, by their first address.
    pub(super) fn writes(order: &Order) -> Vec<(Space, u128)> {
        let (space, runs): (&Space, Vec<Run>) = match order {
            Order::Lease { space, activate, claim } => {
                (space, activate.iter().copied().chain(claim.iter().map(|(run, _)| *run)).collect())
            }
            Order::GiveBack { space, runs } => (space, runs.clone()),
            Order::Give { question, block, give } => {
                let parts = parts::without(*block, *give).into_iter();
                (&question.space, parts.chain([*give]).collect())
            }
            Order::Trim { space, block, keep, .. } => {
                (space, keep.iter().copied().chain([*block]).collect())
            }
            Order::Reclaim(space, run) | Order::Drop(space, run, _) => (space, vec![*run]),
            Order::Refuse(_)
            | Order::Session
            | Order::Records
            | Order::Find { .. }
            | Order::Fix { .. } => return vec![],
        };
        let mut starts: Vec<u128> = runs.into_iter().map(|run| run.start).collect();
        starts.sort_unstable();
        starts.dedup();
        starts.into_iter().map(|start| (space.clone(), start)).collect()
    }

    /// Whether this node still has what the order is about; if not, it is answered.
    pub(super) fn is_possible(&mut self, id: OrderId, order: &Order) -> bool {
        match order {
            Order::Lease { space, activate, claim } => {
                let claims = |mine: &Run| {
                    claim.iter().any(|(run, _)| run.start <= mine.end() && mine.start <= run.end())
                };
                let blocks = self.mine.get(space).into_iter().flat_map(|blocks| blocks.values());
                let known = blocks.map(|mine| mine.run).filter(claims);
                let known: Vec<Run> = known.collect();
                if !known.is_empty() {
                    // The range set forgot them: as good as spares.
                    let leased = Leased::Conflict { others: vec![], gone: vec![] };
                    self.effects.push_back(Effect::Spares(space.clone(), known));
                    self.effects.push_back(Effect::Leased(id, leased));
                    return false;
                }
                let gone = activate.iter().filter(|&&run| self.find_mine(space, run).is_none());
                let gone: Vec<Run> = gone.copied().collect();
                if gone.is_empty() {
                    return true;
                }
                let leased = Leased::Conflict { others: vec![], gone };
                self.effects.push_back(Effect::Leased(id, leased));
            }
            Order::GiveBack { space, runs } => {
                if runs.iter().all(|&run| self.find_mine(space, run).is_some()) {
                    return true;
                }
                self.effects.push_back(Effect::GivenBack(id, false));
            }
            Order::Give { question, block, .. } => {
                if self.find_mine(&question.space, *block).is_some() {
                    return true;
                }
                self.questions.remove(&question.key);
                self.effects.push_back(Effect::Given(id, false));
            }
            Order::Reclaim(space, run) => {
                return self.lost.contains(&(space.clone(), *run));
            }
            _ => return true,
        }
        false
    }

    /// What must be known before the order can be carried out: the agreed block sizes, and for a
    /// claim of a part of a block what lies before it.
    pub(super) fn reads_before(&self, order: &Order) -> Vec<Span> {
        let (space, claims): (&Space, Vec<Run>) = match order {
            Order::Lease { space, claim, .. } if !claim.is_empty() => {
                (space, claim.iter().map(|(run, _)| *run).collect())
            }
            Order::Reclaim(space, run) => (space, vec![*run]),
            _ => return vec![],
        };
        let mut spans = Vec::new();
        if !self.networks.contains_key(&space.network) {
            spans.push(Span::key(&network_key(&space.network)));
        }
        for (first, _) in stretches(claims.iter().copied()) {
            if let Some(around) = self.enclosing(space, first, &claims) {
                let (first, past) = (space.block_key(around.start), space.block_key(first));
                spans.push(Span { first, past, limit: limits::KEYS_PER_READ_MAX });
            }
        }
        spans
    }

    /// The run of the agreed size around a claim of a part; nothing when whole blocks are claimed,
    /// since then whatever overlaps the claim begins in it.
    fn enclosing(&self, space: &Space, first: u128, claims: &[Run]) -> Option<Run> {
        let run = claims.iter().find(|run| run.start == first)?;
        let agreed = match self.networks.get(&space.network) {
            Some((_, network)) => (network.geometry.iter())
                .filter(|geometry| geometry.family == space.family)
                .map(|geometry| geometry.block_log2)
                .max()
                .unwrap_or(limits::BLOCK_LOG2_MAX),
            None => limits::BLOCK_LOG2_MAX,
        };
        let around = Run::around(first, agreed);
        (run.size_log2 < agreed && around.start < first).then_some(around)
    }

    /// Takes in what was read before the transaction.
    pub(super) fn guard(&mut self, keys: &[KeyValue]) {
        for key in keys {
            self.learn_network(key);
        }
        let Some(mut batch) = self.batch.take() else { return };
        let mut orders = Vec::with_capacity(batch.orders.len());
        for (id, order) in std::mem::take(&mut batch.orders) {
            let (space, claims): (&Space, Vec<Run>) = match &order {
                Order::Lease { space, claim, .. } => {
                    (space, claim.iter().map(|(run, _)| *run).collect())
                }
                Order::Reclaim(space, run) => (space, vec![*run]),
                _ => {
                    orders.push((id, order));
                    continue;
                }
            };
            let mut covered = None;
            for (first, last) in stretches(claims.iter().copied()) {
                let Some(around) = self.enclosing(space, first, &claims) else { continue };
                let before = |key: &&KeyValue| {
                    key.key >= space.block_key(around.start) && key.key < space.block_key(first)
                };
                let Some(before) = keys.iter().rfind(before) else {
                    batch.guards.push((
                        space.clone(),
                        first,
                        vec![none_in(space, (around.start, last))],
                    ));
                    continue;
                };
                match &before.value {
                    Value::Block(block) if block.run.end() < first => {
                        let past = format!("{}\0", before.key);
                        let guards = vec![
                            Compare::ModRevision(before.key.clone(), before.mod_revision),
                            Compare::NoneIn(past, behind(space, last)),
                        ];
                        batch.guards.push((space.clone(), first, guards));
                    }
                    Value::Block(block) => covered = Some(block.run),
                    _ => covered = Some(Run::around(first, 0)),
                }
            }
            match (covered, &order) {
                (None, _) => orders.push((id, order)),
                (Some(run), Order::Lease { .. }) => {
                    let leased = Leased::Conflict { others: vec![run], gone: vec![] };
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
            self.networks.insert(network.into(), (key.mod_revision, value.clone()));
        }
    }

    /// The transaction of a batch.
    pub(super) fn txn_of(&self, now: Millis, batch: &Batch) -> Txn {
        let node = node_key(&self.me.node);
        let mut txn = Txn::default();
        if !broken(Mutant::EpochNotCompared) {
            txn.when.push(Compare::ModRevision(node.clone(), self.chain.revision));
        }
        txn.then.push(Write::Put(node, Value::Node(batch.value.clone()), None));
        for (_, order) in &batch.orders {
            self.add(&mut txn, now, batch, order);
        }
        txn
    }

    fn add(&self, txn: &mut Txn, now: Millis, batch: &Batch, order: &Order) {
        if self.me.records {
            txn.then.extend(leaving(order).iter().map(Stretch::delete_records));
        }
        match order {
            Order::Lease { space, activate, claim } => {
                for &run in activate {
                    self.compare_mine(txn, space, run);
                    txn.then.push(self.put(now, batch, space, run, BlockStatus::Active));
                }
                if !claim.is_empty() {
                    self.compare_claims(txn, batch, space, claim.iter().map(|(run, _)| *run));
                    let revision = self.networks.get(&space.network).map_or(0, |known| known.0);
                    let compare = Compare::ModRevision(network_key(&space.network), revision);
                    txn.when.push(compare);
                }
                txn.when.push(Compare::ModRevision(RESTORED.to_owned(), 0));
                for &(run, status) in claim {
                    txn.then.push(self.put(now, batch, space, run, status));
                }
            }
            Order::GiveBack { space, runs } => {
                for &run in runs {
                    self.compare_mine(txn, space, run);
                    txn.then.push(Write::Delete(space.block_key(run.start)));
                }
            }
            Order::Give { question, block, give } => {
                let space = &question.space;
                let status = self.find_mine(space, *block).map(|mine| mine.status);
                self.compare_mine(txn, space, *block);
                for part in parts::without(*block, *give) {
                    let status = status.unwrap_or(BlockStatus::Active);
                    txn.then.push(self.put(now, batch, space, part, status));
                }
                self.hand_over(txn, now, batch, question, *give);
            }
            Order::Refuse(question) => self.reply(txn, question, MessageBody::Refused),
            Order::Trim { space, block, revision, keep } => {
                let key = space.block_key(block.start);
                txn.when.push(Compare::ModRevision(key, *revision));
                if !keep.iter().any(|run| run.start == block.start) {
                    txn.then.push(Write::Delete(space.block_key(block.start)));
                }
                for &run in keep {
                    txn.then.push(self.put(now, batch, space, run, BlockStatus::Active));
                }
            }
            Order::Reclaim(space, run) => {
                self.compare_claims(txn, batch, space, std::iter::once(*run));
                txn.then.push(self.put(now, batch, space, *run, BlockStatus::Active));
            }
            Order::Drop(space, run, revision) => {
                let key = space.block_key(run.start);
                txn.when.push(Compare::ModRevision(key.clone(), *revision));
                txn.then.push(Write::Delete(key));
            }
            Order::Session => {
                let lease = self.lease.unwrap_or_default();
                let session = SessionValue { epoch: batch.value.epoch, lease };
                let key = session_key(&self.me.node);
                txn.then.push(Write::Put(key, Value::Session(session), self.lease));
            }
            Order::Records => self.records.write(txn),
            Order::Find { .. } | Order::Fix { .. } => {}
        }
    }

    fn compare_mine(&self, txn: &mut Txn, space: &Space, run: Run) {
        let revision = self.find_mine(space, run).map_or(u64::MAX, |mine| mine.revision);
        if !broken(Mutant::RevisionNotCompared) {
            txn.when.push(Compare::ModRevision(space.block_key(run.start), revision));
        }
    }

    /// A claim compares that nothing overlaps it (rule 1).
    fn compare_claims(
        &self,
        txn: &mut Txn,
        batch: &Batch,
        space: &Space,
        claims: impl Iterator<Item = Run>,
    ) {
        if broken(Mutant::OverlapNotCompared) {
            return;
        }
        for stretch in stretches(claims) {
            let guard =
                batch.guards.iter().find(|(of, first, _)| of == space && *first == stretch.0);
            match guard {
                Some((_, _, guards)) => txn.when.extend(guards.iter().cloned()),
                None => txn.when.push(none_in(space, stretch)),
            }
        }
    }

    fn put(
        &self,
        now: Millis,
        batch: &Batch,
        space: &Space,
        run: Run,
        status: BlockStatus,
    ) -> Write {
        let value = BlockValue {
            run,
            family: space.family,
            owner: self.me.node.clone(),
            epoch: batch.value.epoch,
            claim: batch.value.sequence,
            status,
            since_unix_ms: self.unix_ms(now),
        };
        let durable = status != BlockStatus::Spare && !broken(Mutant::ActiveOnLease);
        let lease = if durable { None } else { self.lease };
        Write::Put(space.block_key(run.start), Value::Block(value), lease)
    }

    /// What is given is the asker's from this transaction on, as a spare on its lease (rule 10).
    fn hand_over(&self, txn: &mut Txn, now: Millis, batch: &Batch, question: &Question, give: Run) {
        let value = BlockValue {
            run: give,
            family: question.space.family,
            owner: question.from.clone(),
            epoch: 0,
            claim: batch.value.sequence,
            status: BlockStatus::Spare,
            since_unix_ms: self.unix_ms(now),
        };
        let key = question.space.block_key(give.start);
        txn.then.push(Write::Put(key, Value::Block(value), Some(question.lease)));
        self.reply(txn, question, MessageBody::Given(vec![give]));
    }

    fn reply(&self, txn: &mut Txn, question: &Question, body: MessageBody) {
        let Some(number) = question_number(&question.key) else { return };
        txn.when.push(Compare::ModRevision(question.key.clone(), question.revision));
        txn.then.push(Write::Delete(question.key.clone()));
        let (network, node) = (&question.space.network, &self.me.node);
        let key = answer_key(network, &question.from, node, number);
        let (from, lease, family) = (node.clone(), question.lease, question.space.family);
        let message = Message { from, lease, family, body };
        txn.then.push(Write::Put(key, Value::Message(message), Some(lease)));
    }
}
