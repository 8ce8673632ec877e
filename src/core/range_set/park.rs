//! Parking: blocks in which nothing is held go back when the daemon stops, and come back when it
//! starts again soon.
//!
//! A parked block that the journal knows is in hand as one on its way back: no address of it is
//! handed out. The store says whether it is this node's again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Effect, RangeSet};
use crate::core::address::Cidr;
use crate::core::block::{Block, BlockState};
use crate::core::inventory::{AddressState, Move};
use crate::core::leaseholder::parked_for;
use crate::core::time::BootTime;
use crate::limits;

/// The blocks that are being parked.
#[derive(Clone, Default, Debug)]
pub(super) struct Parks(Vec<Cidr>);

impl Parks {
    /// Returns whether blocks are being parked.
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_empty()
    }
}

impl RangeSet {
    /// Begins to park every block in which nothing is held, and which is surely this node's.
    pub fn park(&mut self, now: BootTime) {
        self.expire_cooldowns(now);
        if !self.cluster.may_give_back() {
            return;
        }
        let mut by_life: BTreeMap<Duration, Vec<Cidr>> = BTreeMap::new();
        for cidr in self.unused() {
            by_life.entry(parked_for(self.cooldown_left(now, cidr))).or_default().push(cidr);
        }
        for (ttl, cidrs) in by_life {
            for cidrs in cidrs.chunks(limits::PARKED_PER_ORDER_MAX) {
                cidrs.iter().for_each(|&cidr| self.set_state(cidr, BlockState::Returning));
                self.parks.0.extend(cidrs);
                self.effects.push_back(Effect::Park(cidrs.to_vec(), ttl));
            }
        }
    }

    /// Returns for how long addresses of a block cool on.
    fn cooldown_left(&self, now: BootTime, cidr: Cidr) -> Duration {
        let cools = self.inventory.get(cidr).is_some_and(|block| block.cooling() > 0);
        let released = cools.then(|| self.inventory.last_release(cidr)).flatten();
        let left = |released: BootTime| (released + self.settings.cooldown).since(now);
        released.map(left).unwrap_or_default()
    }

    /// Returns the active blocks in which nothing is held, nor on its way.
    fn unused(&self) -> Vec<Cidr> {
        let is_unused = |block: &&Block| {
            let held = block.count(AddressState::Allocated) + block.count(AddressState::InTransfer);
            block.state() == BlockState::Active && held == 0
        };
        self.inventory.blocks().filter(is_unused).map(Block::cidr).collect()
    }

    /// Handles the end of an [`Effect::Park`]: `done` tells whether the blocks are parked. If not,
    /// they stay this node's, in the journal too.
    pub fn parked(&mut self, cidrs: &[Cidr], done: bool) {
        self.parks.0.retain(|cidr| !cidrs.contains(cidr));
        for &cidr in cidrs {
            let block = self.inventory.get(cidr);
            if !done && block.is_some_and(|block| block.state() == BlockState::Returning) {
                self.set_state(cidr, BlockState::Active);
                self.effects.push_back(Effect::JournalBlock(cidr));
            }
        }
    }

    /// Puts the blocks back that were parked: those in which nothing is held of what the journal
    /// says is not this node's.
    pub(super) fn withhold_parked(&mut self) {
        let is_parked = |block: &&Block| {
            block.state() == BlockState::Lost && block.count(AddressState::Allocated) == 0
        };
        let parked: Vec<Cidr> =
            self.inventory.blocks().filter(is_parked).map(Block::cidr).collect();
        parked.into_iter().for_each(|cidr| self.set_state(cidr, BlockState::Returning));
    }

    /// Returns whether nothing is handed out of a block because the store has not said that it is
    /// this node's again.
    pub(super) fn is_withheld(&self, cidr: Cidr, state: BlockState) -> bool {
        match state {
            BlockState::Lost => true,
            BlockState::Returning => !self.demand.gives_back(cidr) && !self.parks.0.contains(&cidr),
            BlockState::Active | BlockState::Spare => false,
        }
    }

    /// Drops a parked block that is no longer this node's. If an address of it is held, as records
    /// said, it is lost instead.
    pub fn unparked(&mut self, cidr: Cidr) {
        match self.inventory.get(cidr).map(|block| (block.state(), block.is_unused())) {
            Some((_, true)) => {
                self.remove(cidr);
                self.effects.push_back(Effect::JournalNone(cidr));
            }
            Some((BlockState::Returning, false)) => self.set_state(cidr, BlockState::Lost),
            _ => {}
        }
    }

    /// Takes an active block that another node parked. Addresses of it may cool, and this node
    /// does not know which: all of them cool from now on.
    pub(super) fn take_parked(&mut self, now: BootTime, cidr: Cidr) {
        if self.inventory.overlaps(cidr) {
            return self.effects.push_back(Effect::ReleaseUnknown(vec![cidr]));
        }
        self.insert(cidr, BlockState::Active);
        for number in cidr.range().iter() {
            self.apply(number, Move::Hold);
            self.apply(number, Move::Release(now));
        }
        self.effects.push_back(Effect::JournalBlock(cidr));
        self.expire_cooldowns(now);
    }
}
