//! The addresses of one range set on this node: which address goes to whom, and when.
//!
//! [`RangeSet`] is a machine. Inputs are [`RangeSet::assign`], [`RangeSet::release`],
//! [`RangeSet::undo`], what comes from the cluster ([`RangeSet::leased`] and the like) and
//! [`RangeSet::handle_timeout`]; after each one, [`RangeSet::poll_effect`] is drained and
//! [`RangeSet::poll_timeout`] says when to call `handle_timeout` next. `now` never goes backwards.
//!
//! Every call brings the ranges that it allows: runtimes may send other ranges with every call,
//! while the addresses taken stay taken.
//!
//! The blocks in hand and the states of their addresses are an [`Inventory`]. The other files
//! decide what to do with it: `assign.rs` answers calls, `demand.rs` leases blocks and gives them
//! back, `park.rs` gives them back when the daemon stops, `find.rs` asks other nodes for addresses,
//! `transfer.rs` answers other nodes, `cluster.rs` hears news from the cluster, and `idle.rs` ends
//! a range set that nobody uses. `capacity.rs` counts.

mod assign;
mod capacity;
mod cluster;
mod demand;
mod find;
mod idle;
mod park;
#[cfg(test)]
mod tests;
mod transfer;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::address::{Address, BlockSize, Cidr, Family};
use super::block::{Block, BlockState};
use super::inventory::{AddressState, BlockError, Inventory, Move};
use super::range::Ranges;
use super::search::Search;
use super::time::BootTime;

pub use super::inventory::Stats;
pub use capacity::Capacity;
pub use types::{Assign, AssignError, Effect, GoodUntil, JournalledSet, Settings};

use assign::Waiting;
use cluster::ClusterView;
use demand::Demand;
use find::Finds;
use idle::Idle;
use park::Parks;
use transfer::Transfers;

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct RangeSet {
    family: Family,
    /// The usual size of a block.
    block_size: BlockSize,
    settings: Settings,
    inventory: Inventory,
    /// The last address handed out for each index of a range set in its configuration.
    cursors: BTreeMap<u16, Address>,
    /// The ranges that the last call allowed, for each of these indexes: the figures are about
    /// them.
    allowed: BTreeMap<u16, Arc<Ranges>>,
    waiting: Waiting,
    demand: Demand,
    finds: Finds,
    transfers: Transfers,
    parks: Parks,
    idle: Idle,
    cluster: ClusterView,
    effects: VecDeque<Effect>,
}

impl RangeSet {
    /// Creates an empty set. `block_size` is the usual size of its blocks.
    pub fn new(family: Family, block_size: BlockSize, settings: Settings) -> Self {
        Self {
            family,
            block_size,
            settings,
            inventory: Inventory::default(),
            cursors: BTreeMap::new(),
            allowed: BTreeMap::new(),
            waiting: Waiting::default(),
            demand: Demand::default(),
            finds: Finds::default(),
            transfers: Transfers::default(),
            parks: Parks::default(),
            idle: Idle::default(),
            cluster: ClusterView::default(),
            effects: VecDeque::new(),
        }
    }

    /// Puts back the blocks and addresses that the journal and the store know.
    ///
    /// # Errors
    /// An address that is in none of the blocks or assigned twice, or the first address of a block
    /// that overlaps another one or is too large.
    pub fn rebuild(&mut self, journalled: JournalledSet) -> Result<(), Address> {
        let active = journalled.blocks.into_iter().map(|cidr| (cidr, BlockState::Active));
        let lost = journalled.lost.into_iter().map(|cidr| (cidr, BlockState::Lost));
        for (cidr, state) in active.chain(lost) {
            self.inventory.insert(cidr, state).map_err(|_| cidr.first())?;
        }
        for number in journalled.allocated {
            self.inventory.apply(number, Move::Hold).map_err(|_| number)?;
        }
        self.withhold_parked();
        // An address may be there several times: it cools from its last release.
        let cooling: BTreeMap<Address, BootTime> =
            journalled.cooling.into_iter().map(|(released, number)| (number, released)).collect();
        let mut cooling: Vec<_> = cooling.into_iter().map(|(n, released)| (released, n)).collect();
        cooling.sort_unstable();
        for (released, number) in cooling {
            // Otherwise it was assigned again since, or its block has gone.
            if self.inventory.state_of(number) == Some(AddressState::Free) {
                self.apply(number, Move::Hold);
                self.apply(number, Move::Release(released));
            }
        }
        self.cursors.extend(journalled.cursors);
        Ok(())
    }

    /// Learns from the store what the journal forgot: blocks of this node, and addresses of them
    /// that are held. The others of them may be in use as well: they cool from now on.
    /// `missing`: what is not in hand of the blocks.
    pub fn recover(
        &mut self,
        now: BootTime,
        missing: &[Cidr],
        blocks: &[Cidr],
        held: &BTreeSet<Address>,
    ) {
        missing.iter().for_each(|cidr| self.insert(*cidr, BlockState::Active));
        for &cidr in blocks {
            for number in cidr.addresses() {
                let state = self.inventory.state_of(number);
                if matches!(state, Some(AddressState::Free | AddressState::Cooling)) {
                    self.apply(number, Move::Hold);
                    if !held.contains(&number) {
                        self.apply(number, Move::Release(now));
                    }
                }
            }
        }
        self.expire_cooldowns(now);
        self.used(now);
    }

    /// Takes over everything that another set of the same family held. Nothing waits there, and
    /// nothing of it is on its way.
    pub fn absorb(&mut self, other: Self) {
        debug_assert!(other.waiting.is_empty() && !other.is_asking());
        let absorbed = self.inventory.absorb(other.inventory);
        debug_assert!(absorbed.is_ok(), "range sets share no addresses: {absorbed:?}");
        self.finds.absorb(other.finds);
        self.idle.absorb(other.idle);
        for (set_index, cursor) in other.cursors {
            self.cursors.entry(set_index).or_insert(cursor);
        }
        for (set_index, allowed) in other.allowed {
            self.allowed.entry(set_index).or_insert(allowed);
        }
    }

    /// Ends waits that took too long, lets addresses cool off and gives idle blocks back.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.expire_cooldowns(now);
        self.end_waits(now);
        self.reclaim_idle_if_due(now);
        self.end_if_unused(now);
        if self.finds.due().is_some_and(|due| due <= now) {
            self.finds.forget(now);
            self.serve(now);
        }
    }

    /// Returns the time at which [`RangeSet::handle_timeout`] has something to do next; never, when
    /// addresses are held, nothing is cooling and nothing could be given back.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let wait = self.waiting.deadline();
        let find = self.finds.due().filter(|_| wait.is_some());
        let released = self.inventory.oldest_release();
        let cool = released.map(|released| released + self.settings.cooldown);
        let due = [wait, find, cool, self.reclaim_due(), self.forget_due()];
        due.into_iter().flatten().min()
    }

    /// Returns whether something is on its way in the cluster.
    pub fn is_asking(&self) -> bool {
        self.demand.is_moving()
            || self.finds.is_asking()
            || !self.transfers.is_empty()
            || self.parks.is_open()
    }

    /// Returns the next effect, until there is none.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns the figures.
    pub fn stats(&self) -> Stats {
        self.inventory.stats()
    }

    /// Returns the usual size of a block.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Returns the blocks in hand, in order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.inventory.blocks()
    }

    /// Returns the blocks that begin at this address or behind it, in order.
    pub fn blocks_from(&self, first: Address) -> impl Iterator<Item = &Block> {
        self.inventory.blocks_from(first)
    }

    /// Checks that the inventory agrees with itself, and with the transfers. For tests and
    /// simulators: linear in the number of blocks.
    ///
    /// # Panics
    /// It does not.
    pub fn check_invariants(&self) {
        self.inventory.check_invariants();
        let gives = self.transfers.gives().flat_map(Cidr::addresses);
        let in_transfer =
            |number: &Address| self.inventory.state_of(*number) == Some(AddressState::InTransfer);
        let in_transfer = gives.filter(in_transfer).count() as u64;
        assert_eq!(in_transfer, self.stats().in_transfer, "an address leaves without a transfer");
        let all: u128 = self.blocks().map(|block| block.size().addresses()).sum();
        assert_eq!(
            u128::from(self.capacity(&self.offer(&[])).total()),
            all,
            "an address is counted twice"
        );
    }

    /// Moves an address as the rules of this machine allow it, and returns whether it was moved. A
    /// refused move changes nothing: an address is rather lost to this node than handed out twice.
    fn apply(&mut self, number: Address, tried: Move) -> bool {
        let moved = self.inventory.apply(number, tried);
        debug_assert!(moved.is_ok(), "{moved:?}");
        if moved == Ok(AddressState::Free) {
            self.demand.observe_free(self.inventory.free());
        }
        moved.is_ok()
    }

    /// Takes a block in hand, which overlaps no other one. If it does, nothing changes: the blocks
    /// in hand may be in use.
    fn insert(&mut self, cidr: Cidr, state: BlockState) {
        let inserted = self.inventory.insert(cidr, state);
        debug_assert!(inserted.is_ok(), "{inserted:?}");
    }

    /// Changes the state of a block in hand.
    fn set_state(&mut self, cidr: Cidr, state: BlockState) {
        let set = self.inventory.set_state(cidr, state);
        debug_assert!(set.is_ok(), "{set:?}");
    }

    /// Drops a block that is nobody's from now on. If addresses of it are assigned, it becomes a
    /// lost one instead, which the journal must know: they stay assigned until they are released.
    fn remove(&mut self, cidr: Cidr) {
        match self.inventory.remove(cidr) {
            Ok(()) => self.transfers.forget(cidr),
            Err(BlockError::InUse(_)) => {
                self.set_state(cidr, BlockState::Lost);
                self.effects.push_back(Effect::JournalLost(cidr));
            }
            Err(error) => debug_assert!(false, "{error:?}"),
        }
    }

    /// Frees the addresses that have cooled off.
    fn expire_cooldowns(&mut self, now: BootTime) {
        if let Some(until) = now.before(self.settings.cooldown) {
            self.inventory.expire(until);
        }
    }

    /// Returns a search in the order of the walk; on a node that shares the pool, from its own
    /// place.
    fn search(&self) -> Search<'_> {
        let shared = (!self.cluster.is_alone()).then_some(self.settings.seed);
        Search { inventory: &self.inventory, shared }
    }
}
