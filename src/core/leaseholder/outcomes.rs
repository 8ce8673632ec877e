//! What the end of a transaction means for each order in it.

use super::txns::{behind, stretches};
use super::{Effect, Leased, Leaseholder, Order, OrderId, parts};
use crate::core::Millis;
use crate::core::address::Run;
use crate::core::keys::{RESTORED, Space, network_key};
use crate::core::txn::{KeyValue, Span};
use crate::core::value::{BlockStatus, Value};
use crate::limits;

impl Leaseholder {
    /// What to read to learn why an order was refused.
    pub(super) fn reads_after(&self, order: &Order) -> Vec<Span> {
        let key = |space: &Space, run: Run| Span::key(&space.block_key(run.start));
        match order {
            Order::Lease { space, activate, claim } => {
                let mut spans: Vec<Span> = activate.iter().map(|&run| key(space, run)).collect();
                spans.push(Span::key(&network_key(&space.network)));
                spans.push(Span::key(RESTORED));
                for (first, _) in stretches(claim.iter().map(|(run, _)| *run)) {
                    let (first, past) = (space.block_key(first), behind(space, u128::MAX));
                    spans.push(Span { first, past, limit: limits::KEYS_PER_LOOK });
                }
                spans
            }
            Order::GiveBack { space, runs } => runs.iter().map(|&run| key(space, run)).collect(),
            Order::Give { question, block, .. } => vec![key(&question.space, *block)],
            _ => vec![],
        }
    }

    /// Answers an order that was refused by itself.
    pub(super) fn why_refused(
        &mut self,
        now: Millis,
        id: OrderId,
        order: Order,
        keys: &[KeyValue],
    ) {
        match order {
            Order::Lease { space, activate, claim } => {
                self.lease_refused(id, space, activate, claim, keys);
            }
            Order::GiveBack { space, runs } => {
                self.lose_changed(now, &space, &runs, keys);
                self.effects.push_back(Effect::GivenBack(id, false));
            }
            Order::Give { question, block, .. } => {
                self.lose_changed(now, &question.space, &[block], keys);
                self.questions.remove(&question.key);
                self.effects.push_back(Effect::Given(id, false));
            }
            Order::Refuse(question) => drop(self.questions.remove(&question.key)),
            Order::Trim { space, keep, .. } => {
                keep.into_iter().for_each(|run| self.lose(now, &space, run));
            }
            // It stays lost until the next try.
            Order::Reclaim(..) => self.reclaim_at = self.reclaim_at.min(now + limits::RECLAIM_MS),
            Order::Records => self.records.put_back(),
            Order::Session | Order::Drop(..) | Order::Find { .. } | Order::Fix { .. } => {}
        }
    }

    fn lease_refused(
        &mut self,
        id: OrderId,
        space: Space,
        activate: Vec<Run>,
        claim: Vec<(Run, BlockStatus)>,
        keys: &[KeyValue],
    ) {
        let revision = |run: &Run| {
            let key = space.block_key(run.start);
            keys.iter().find(|found| found.key == key).map(|found| found.mod_revision)
        };
        let mine = |run: &Run| self.find_mine(&space, *run).map(|mine| mine.revision);
        let gone = activate.iter().filter(|run| revision(run) != mine(run));
        let gone: Vec<Run> = gone.copied().collect();
        let ours = self.mine.get(&space);
        let others = keys.iter().filter_map(|key| match &key.value {
            Value::Block(block) => Some(block.run),
            _ => None,
        });
        let is_ours = |run: &Run| ours.is_some_and(|ours| ours.contains_key(&run.start));
        let others: Vec<Run> = others.filter(|run| !is_ours(run) && !gone.contains(run)).collect();
        for &run in &gone {
            self.forget_mine(&space, run);
        }
        let network = network_key(&space.network);
        let network = keys.iter().find(|key| key.key == network);
        let known = self.networks.get(&space.network).map_or(0, |known| known.0);
        if keys.iter().any(|key| key.key == RESTORED) && gone.is_empty() {
            let cause = "the cluster's store was restored from a backup: no block is leased until \
                         every node has said what it holds (leasehold node list; leasehold node \
                         remove those that are gone for good)";
            self.effects.push_back(Effect::Leased(id, Leased::Failed(cause.into())));
        } else if network.map_or(0, |key| key.mod_revision) != known {
            self.networks.remove(&space.network);
            self.queue.push_front((id, Order::Lease { space, activate, claim }));
        } else {
            self.effects.push_back(Effect::Leased(id, Leased::Conflict { others, gone }));
        }
    }

    /// Blocks whose key is not as this node left it are not its own any more (rule 11).
    fn lose_changed(&mut self, now: Millis, space: &Space, runs: &[Run], keys: &[KeyValue]) {
        for &run in runs {
            let key = space.block_key(run.start);
            let found = keys.iter().find(|found| found.key == key).map(|found| found.mod_revision);
            if let Some(mine) = self.find_mine(space, run)
                && found != Some(mine.revision)
            {
                self.lose(now, space, run);
            }
        }
    }

    /// An order was carried out at this revision.
    pub(super) fn done(&mut self, now: Millis, id: OrderId, order: Order, revision: u64) {
        match order {
            Order::Lease { space, activate, claim } => {
                for run in activate {
                    self.keep_mine(&space, run, revision, BlockStatus::Active);
                }
                for (run, status) in claim {
                    self.keep_mine(&space, run, revision, status);
                }
                self.effects.push_back(Effect::Leased(id, Leased::Done));
            }
            Order::GiveBack { space, runs } => {
                runs.into_iter().for_each(|run| self.forget_mine(&space, run));
                self.effects.push_back(Effect::GivenBack(id, true));
            }
            Order::Give { question, block, give } => {
                let status = self.find_mine(&question.space, block).map(|mine| mine.status);
                self.forget_mine(&question.space, block);
                for part in parts::without(block, give) {
                    let status = status.unwrap_or(BlockStatus::Active);
                    self.keep_mine(&question.space, part, revision, status);
                }
                self.questions.remove(&question.key);
                self.effects.push_back(Effect::Given(id, true));
            }
            Order::Refuse(question) => drop(self.questions.remove(&question.key)),
            Order::Trim { space, keep, .. } => {
                keep.into_iter().for_each(|run| self.regained(now, &space, run, revision));
            }
            Order::Reclaim(space, run) => self.regained(now, &space, run, revision),
            Order::Records => self.records.written(now, &mut self.effects),
            Order::Session | Order::Drop(..) | Order::Find { .. } | Order::Fix { .. } => {}
        }
    }
}
