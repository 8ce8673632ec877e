//! What this node hands out of against what the store says it holds: at every joining.

use std::collections::BTreeMap;

use super::join::Joining;
use super::recalling::Recall;
use super::{Effect, Leaseholder, Mine, Order, parts};
use crate::core::Millis;
use crate::core::address::Run;
use crate::core::keys::Space;
use crate::core::mutant::{Mutant, broken};
use crate::core::value::BlockStatus;

/// A block of this node in the store.
#[derive(Clone, Copy)]
struct Stored {
    run: Run,
    revision: u64,
    status: BlockStatus,
}

impl Leaseholder {
    /// Makes the node's memory and the store one: what the node hands out of and the store knows
    /// is verified; what the store lost is claimed anew, and nothing is handed out of it meanwhile;
    /// what the store has and the node does not know is given back, since nothing was handed out
    /// of it (rules 9 and 11).
    pub(super) fn reconcile(&mut self, now: Millis, joining: Joining) {
        let mut stored: BTreeMap<Space, Vec<Stored>> = BTreeMap::new();
        for (key, block) in &joining.blocks {
            let Some((network, family, _)) = crate::core::keys::parse_block_key(&key.key) else {
                continue;
            };
            if block.status == BlockStatus::Spare {
                continue; // on the lease of a daemon that is gone
            }
            let space = Space { network: network.into(), family };
            let (run, revision, status) = (block.run, key.mod_revision, block.status);
            stored.entry(space).or_default().push(Stored { run, revision, status });
        }
        // Spares on the lease of now are new, and what they are.
        let mut known = std::mem::take(&mut self.mine);
        for (space, blocks) in &mut known {
            for (_, mine) in blocks.extract_if(.., |_, mine| mine.status == BlockStatus::Spare) {
                self.keep_mine(space, mine.run, mine.revision, mine.status);
            }
        }
        // What was lost may be this node's again, in part.
        let lost = std::mem::take(&mut self.lost);
        for (space, run) in &lost {
            let lost = Mine { run: *run, revision: 0, status: BlockStatus::Active };
            known.entry(space.clone()).or_default().entry(run.start).or_insert(lost);
        }
        if joining.forgot {
            remember(&mut known, &stored);
        }
        let mut strange = Vec::new();
        for (space, blocks) in &known {
            let stored = stored.get(space).map_or(&[][..], |stored| stored);
            for mine in blocks.values() {
                let was_lost = lost.contains(&(space.clone(), mine.run));
                self.verify(now, space, mine.run, stored, was_lost);
            }
        }
        for (space, stored) in stored {
            let known = known.get(&space).into_iter().flat_map(BTreeMap::values);
            let now = self.mine.get(&space).into_iter().flat_map(BTreeMap::values);
            let now: Vec<Run> = now.map(|mine| mine.run).collect();
            let mut known: Vec<Run> = known.map(|mine| mine.run).chain(now).collect();
            known.sort_unstable();
            known.dedup();
            for block in stored {
                self.trim(&space, block, &known, &mut strange);
            }
        }
        let mine = self.mine.iter().flat_map(|(space, blocks)| {
            let active = blocks.values().filter(|mine| mine.status == BlockStatus::Active);
            active.map(|mine| (space.clone(), mine.run))
        });
        self.recall = Recall::new(mine.filter(|_| self.me.records));
        // It goes back before it may be claimed again.
        for order in strange.into_iter().rev() {
            self.queue.push_front((0, order));
        }
        if !self.lost.is_empty() {
            self.reclaim_lost(now);
        }
        if joining.marked || joining.went_back {
            // So that the node's key says, in the end, that this is done.
            self.queue.push_back((0, Order::Session));
        }
    }

    /// One block that this node hands out of, or did before it was lost.
    fn verify(&mut self, now: Millis, space: &Space, run: Run, stored: &[Stored], was_lost: bool) {
        let meets = |block: &&Stored| block.run.start <= run.end() && run.start <= block.run.end();
        let meeting: Vec<Stored> = stored.iter().filter(meets).copied().collect();
        if let [block] = meeting[..]
            && block.run.start <= run.start
            && run.end() <= block.run.end()
        {
            if block.status == BlockStatus::Quarantined || was_lost && block.run != run {
                self.lose(now, space, run); // until it is taken back, or cut out
            } else {
                self.keep_back(space, run, block.revision, was_lost);
            }
            return;
        }
        if broken(Mutant::TrustMemory) {
            return self.keep_mine(space, run, 0, BlockStatus::Active);
        }
        let runs: Vec<Run> = meeting.iter().map(|block| block.run).collect();
        let bare = parts::uncovered(run.start, run.end(), &runs);
        let bare: Vec<Run> =
            bare.into_iter().flat_map(|(first, last)| parts::cover(first, last)).collect();
        let mut all: Vec<Run> = runs.iter().chain(&bare).copied().collect();
        all.sort_unstable();
        if all.len() > 1 {
            self.effects.push_back(Effect::Split(space.clone(), run, all));
        }
        for block in meeting {
            self.keep_back(space, block.run, block.revision, was_lost);
        }
        for run in bare {
            self.lose(now, space, run);
        }
    }

    fn keep_back(&mut self, space: &Space, run: Run, revision: u64, was_lost: bool) {
        self.keep_mine(space, run, revision, BlockStatus::Active);
        if was_lost {
            self.effects.push_back(Effect::Regained(space.clone(), run));
        }
    }

    /// One block in the store: what this node does not know of it goes back.
    fn trim(&mut self, space: &Space, block: Stored, known: &[Run], orders: &mut Vec<Order>) {
        let meets = |run: &&Run| run.start <= block.run.end() && block.run.start <= run.end();
        let keep: Vec<Run> = known.iter().filter(meets).copied().collect();
        let inside = |run: &Run| block.run.start <= run.start && run.end() <= block.run.end();
        let quarantined = block.status == BlockStatus::Quarantined;
        if keep.iter().any(|run| !inside(run)) || (keep == [block.run] && !quarantined) {
            return;
        }
        let (space, run, revision) = (space.clone(), block.run, block.revision);
        if keep.is_empty() {
            return orders.push(Order::Drop(space, run, revision));
        }
        for &run in &keep {
            self.forget_mine(&space, run);
        }
        orders.push(Order::Trim { space, block: run, revision, keep });
    }

    /// The blocks of this node as the store has them; for tests and simulators.
    pub fn blocks(&self) -> impl Iterator<Item = (&Space, Run, BlockStatus)> {
        let of = |(space, blocks): (_, &'_ BTreeMap<u128, Mine>)| {
            let blocks: Vec<(Run, BlockStatus)> =
                blocks.values().map(|mine| (mine.run, mine.status)).collect();
            blocks.into_iter().map(move |(run, status)| (space, run, status))
        };
        self.mine.iter().flat_map(of)
    }
}

/// A node that forgot knows again what the store knows.
fn remember(
    known: &mut BTreeMap<Space, BTreeMap<u128, Mine>>,
    stored: &BTreeMap<Space, Vec<Stored>>,
) {
    for (space, stored) in stored {
        let blocks = known.entry(space.clone()).or_default();
        for block in stored {
            let runs: Vec<Run> = blocks.values().map(|mine| mine.run).collect();
            for (first, last) in parts::uncovered(block.run.start, block.run.end(), &runs) {
                for run in parts::cover(first, last) {
                    let mine = Mine { run, revision: 0, status: BlockStatus::Active };
                    blocks.insert(run.start, mine);
                }
            }
        }
    }
}
