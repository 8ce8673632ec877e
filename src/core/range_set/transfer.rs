//! Addresses on their way to other nodes, which have asked for them.

use std::collections::BTreeMap;

use super::{Effect, RangeSet};
use crate::core::address::{Address, AddressRange, BlockSize, Cidr};
use crate::core::block::{Block, BlockState};
use crate::core::inventory::{AddressState, Move};
use crate::core::leaseholder::{Question, without};
use crate::core::mutant::{Mutant, broken};
use crate::core::time::BootTime;
use crate::limits;

/// A part of a block that is on its way to another node.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    block: Cidr,
    give: Cidr,
    /// It is one address, which cooled.
    cooling: bool,
}

/// The answers to other nodes.
#[derive(Clone, Default, Debug)]
pub(super) struct Transfers {
    /// By the key of the question.
    in_transfer: BTreeMap<String, Transfer>,
    /// Questions whose answer depends on the blocks that are on their way.
    unanswered: Vec<Question>,
}

impl Transfers {
    /// Returns whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.in_transfer.is_empty()
    }

    /// Returns the cidrs that are on their way.
    pub(super) fn gives(&self) -> impl Iterator<Item = Cidr> {
        self.in_transfer.values().map(|transfer| transfer.give)
    }

    /// Forgets a block that is gone, and with it the part that was on its way.
    pub(super) fn forget(&mut self, block: Cidr) {
        self.in_transfer.retain(|_, transfer| transfer.block != block);
    }
}

impl RangeSet {
    /// Handles the question of another node for an address.
    pub fn asked(&mut self, now: BootTime, question: Question) {
        self.expire_cooldowns(now);
        if self.transfers.in_transfer.contains_key(&question.key) {
            return; // it is being answered
        }
        let Some(transfer) = self.choose(&question) else {
            // A block that is on its way, here or away, may have it: a node that is refused now
            // might find that nobody has it.
            let moving = self.demand.is_moving() || !self.transfers.is_empty();
            if moving && self.transfers.unanswered.len() < limits::QUESTIONS_WAITING_MAX {
                return self.transfers.unanswered.push(question);
            }
            return self.effects.push_back(Effect::Refuse(question));
        };
        let Transfer { block, give, .. } = transfer;
        for number in give.addresses() {
            if broken(Mutant::GiveWhatIsHeld)
                && self.inventory.state_of(number) == Some(AddressState::Allocated)
            {
                self.apply(number, Move::Undo);
            }
            self.apply(number, Move::Transfer);
        }
        let block_state = self.inventory.get(block).map(|block| block.state());
        let spare = block_state == Some(BlockState::Spare);
        self.transfers.in_transfer.insert(question.key.clone(), transfer);
        self.effects.push_back(Effect::Transfer { question, block, give, spare });
    }

    /// Answers the questions that had to wait for blocks on their way.
    pub(super) fn answer_questions(&mut self, now: BootTime) {
        for question in std::mem::take(&mut self.transfers.unanswered) {
            self.asked(now, question);
        }
    }

    /// Chooses a part of a spare, or the largest free part of an active block, but at most half of
    /// the addresses that are free here. If there is none, an address that cools will do.
    fn choose(&self, question: &Question) -> Option<Transfer> {
        let half = (self.inventory.free() / 2).max(1);
        let usable =
            |block: &&Block| !block.is_in_transfer() && !self.demand.activates(block.cidr());
        let mut best: Option<(bool, Cidr, Cidr)> = None;
        for &wanted in &question.wanted {
            for block in self.inventory.blocks_in(wanted).filter(usable) {
                let whole = match block.state() {
                    BlockState::Spare => true,
                    BlockState::Active => false,
                    _ => continue,
                };
                let most = if whole { u64::MAX } else { half };
                let Some(give) = largest_free(block, wanted, most) else { continue };
                let better = best.as_ref().is_none_or(|(best_whole, _, best)| {
                    (whole, give.size()) > (*best_whole, best.size())
                });
                if better {
                    best = Some((whole, block.cidr(), give));
                }
            }
        }
        if let Some((_, block, give)) = best {
            return Some(Transfer { block, give, cooling: false });
        }
        if !question.even_cooling {
            return None;
        }
        let wanted = |number| question.wanted.iter().any(|range| range.contains(number));
        let here = |number| {
            let block = self.inventory.block(number).filter(usable);
            block.is_some_and(|block| block.state() == BlockState::Active)
        };
        let number = self.inventory.oldest_cooling(|number| wanted(number) && here(number))?;
        let block = self.inventory.block(number)?.cidr();
        Some(Transfer { block, give: Cidr::one(number), cooling: true })
    }

    /// Returns the parts of a block that are not on their way to another node. The journal has let
    /// go of the part that is.
    pub(super) fn staying(&self, block: Cidr) -> Vec<Cidr> {
        let meets = |give: &Cidr| give.meets(block);
        match self.transfers.gives().filter(meets).max_by_key(|give| give.size()) {
            None => vec![block],
            Some(give) if give.size() >= block.size() => vec![],
            Some(give) => without(block, give),
        }
    }

    /// Handles the end of an [`Effect::Transfer`]: `done` tells whether that part is the other
    /// node's now.
    pub fn transferred(&mut self, now: BootTime, key: &str, done: bool) {
        let Some(transfer) = self.transfers.in_transfer.remove(key) else { return };
        if done {
            self.part_with(transfer.give);
        } else {
            self.keep(now, transfer);
        }
        self.serve(now);
        self.answer_questions(now);
    }

    /// Drops these addresses, which are another node's now. Their block may be several by now, or
    /// gone.
    fn part_with(&mut self, give: Cidr) {
        let blocks = self.inventory.blocks_in(give.range()).map(Block::cidr);
        for block in blocks.collect::<Vec<_>>() {
            let split = self.inventory.split(block, &without(block, give));
            debug_assert!(split.is_ok(), "{split:?}");
        }
        self.finds.observe_others();
    }

    /// Keeps these addresses here: they go back into the journal. Their block may be several by
    /// now, or gone.
    fn keep(&mut self, now: BootTime, Transfer { block, give, cooling }: Transfer) {
        for number in give.addresses() {
            if self.inventory.state_of(number) == Some(AddressState::InTransfer) {
                self.apply(number, if cooling { Move::ReturnCooling(now) } else { Move::Return });
            }
        }
        let keep =
            self.inventory.blocks_in(block.range()).filter_map(|block| match block.state() {
                BlockState::Spare => None,
                BlockState::Lost => Some(Effect::JournalLost(block.cidr())),
                BlockState::Active | BlockState::Returning => {
                    Some(Effect::JournalBlock(block.cidr()))
                }
            });
        self.effects.extend(keep);
    }
}

/// Returns the largest cidr of free addresses of a block within a range that has at most that many.
fn largest_free(block: &Block, range: AddressRange, most: u64) -> Option<Cidr> {
    let range = range.common(block.cidr().range())?;
    let fits = |size: &BlockSize| size.addresses() <= u128::from(most);
    block.cidr().size().and_smaller().filter(fits).find_map(|size| {
        let mut at = Cidr::containing(range.first(), size);
        while at.last() <= range.last() {
            let free = |number: Address| !block.is_taken(number) || broken(Mutant::GiveWhatIsHeld);
            if at.first() >= range.first() && at.addresses().all(free) {
                return Some(at);
            }
            at = Cidr::containing(at.last().next()?, size);
        }
        None
    })
}
