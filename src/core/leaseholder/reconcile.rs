//! What this node hands out of against what the store says it holds: at every joining.

use std::collections::BTreeMap;

use super::join::Joining;
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
        self.lost.retain(|(space, run)| {
            known.get(space).is_none_or(|known| !known.contains_key(&run.start))
        });

        let same_boot = joining.before.as_ref().is_some_and(|b| b.boot_id == self.me.boot_id);
        if joining.fresh && same_boot && known.is_empty() && !stored.is_empty() {
            return self.recover(stored);
        }
        let mut orders = Vec::new();
        self.regain(&stored);
        let lost: Vec<(Space, Run)> = self.lost.iter().cloned().collect();
        for (space, blocks) in &known {
            let stored = stored.get(space).map_or(&[][..], |stored| stored);
            for mine in blocks.values() {
                self.verify(now, space, mine.run, stored);
            }
        }
        for (space, stored) in stored {
            let lost = lost.iter().filter(|(of, _)| *of == space).map(|(_, run)| *run);
            let known = known.get(&space).into_iter().flat_map(BTreeMap::values);
            let now = self.mine.get(&space).into_iter().flat_map(BTreeMap::values);
            let now: Vec<Run> = now.map(|mine| mine.run).collect();
            let mut known: Vec<Run> = known.map(|mine| mine.run).chain(lost).chain(now).collect();
            known.sort_unstable();
            known.dedup();
            for block in stored {
                self.trim(&space, block, &known, &mut orders);
            }
        }
        for order in orders.into_iter().rev() {
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

    /// What was lost, and is this node's in the store of now.
    fn regain(&mut self, stored: &BTreeMap<Space, Vec<Stored>>) {
        for (space, run) in self.lost.clone() {
            let stored = stored.get(&space).map_or(&[][..], |stored| stored);
            let same = |block: &&Stored| block.run == run && block.status == BlockStatus::Active;
            if let Some(block) = stored.iter().find(same) {
                self.regained(&space, run, block.revision);
            }
        }
    }

    /// One block that this node hands out of.
    fn verify(&mut self, now: Millis, space: &Space, run: Run, stored: &[Stored]) {
        let meets = |block: &&Stored| block.run.start <= run.end() && run.start <= block.run.end();
        let meeting: Vec<Stored> = stored.iter().filter(meets).copied().collect();
        if let [block] = meeting[..]
            && block.run.start <= run.start
            && run.end() <= block.run.end()
        {
            if block.status == BlockStatus::Quarantined {
                self.lose(now, space, run); // until it is taken back
            } else {
                self.keep_mine(space, run, block.revision, BlockStatus::Active);
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
            self.keep_mine(space, block.run, block.revision, BlockStatus::Active);
        }
        for run in bare {
            self.lose(now, space, run);
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

    /// The state directory was lost while containers run: what this node held is in the records.
    fn recover(&mut self, stored: BTreeMap<Space, Vec<Stored>>) {
        let mut blocks = Vec::new();
        for (space, stored) in stored {
            for block in stored {
                self.keep_mine(&space, block.run, block.revision, BlockStatus::Active);
                blocks.push((space.clone(), block.run));
            }
        }
        self.effects.push_back(Effect::Recover(blocks));
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
