//! The addresses of one range set on this node: blocks in hand, bitmaps, cursor, cooldown.
//!
//! [`RangeSet`] is a machine. Inputs are [`RangeSet::assign`], [`RangeSet::release`],
//! [`RangeSet::undo`], [`RangeSet::claimed`], [`RangeSet::given_back`] and
//! [`RangeSet::handle_timeout`]; after each one, [`RangeSet::poll_effect`] is drained and
//! [`RangeSet::poll_timeout`] says when to call `handle_timeout` next. `now` never goes backwards.
//!
//! Every call brings the ranges it may use (its *view*): runtimes may send other ranges with every
//! call, while the addresses taken stay taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Millis;
use super::address::{Family, Run};
use super::block::{Block, BlockState};
use super::cooling::Cooling;
use super::interval::Intervals;
use super::range::Ranges;
use super::search::{Candidate, Index};
use super::stage::Stage;
use crate::limits;

/// Why no address was assigned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssignError {
    /// Nothing is free for this pod, not even an address that is cooling.
    #[error("no IP addresses available in range set: {view}{}", of_stage(*stage))]
    Exhausted {
        /// The ranges of the set.
        view: String,
        /// The stage whose list is used up.
        stage: Option<Stage>,
    },
    /// The address asked for is taken.
    #[error("requested IP address {address} is not available in range set {view}")]
    Taken {
        /// The address.
        address: std::net::IpAddr,
        /// The ranges of the set.
        view: String,
    },
    /// The address asked for is a gateway.
    #[error("requested ip {0} is subnet's gateway")]
    Gateway(std::net::IpAddr),
    /// The address asked for is kept for the pods of a stage that this pod is not of, or the pod
    /// is of a stage whose list lacks the address.
    #[error("requested IP address {address} is not for a pod {}", of_which(*stage))]
    Stage {
        /// The address.
        address: std::net::IpAddr,
        /// The pod's stage.
        stage: Option<Stage>,
    },
    /// The address is in no block of this node and no block could be had.
    #[error("no block of addresses could be leased: {0}")]
    NoBlock(Arc<str>),
    /// More callers wait than [`limits::ASSIGNS_WAITING_MAX`].
    #[error("{} calls wait for a block of addresses already", limits::ASSIGNS_WAITING_MAX)]
    Busy,
}

fn of_stage(stage: Option<Stage>) -> String {
    stage.map(|stage| format!(" (of the addresses listed for stage {stage})")).unwrap_or_default()
}

fn of_which(stage: Option<Stage>) -> String {
    stage.map_or("without a stage".to_owned(), |stage| format!("of stage {stage}"))
}

/// A request for one address of this set.
#[derive(Clone, Debug)]
pub struct Assign {
    /// Names the request in [`Effect::Assigned`].
    pub id: u64,
    /// The index of the range set in its configuration: cursors go by it, as in host-local.
    pub slot: u16,
    /// The ranges that the call allows.
    pub view: Arc<Ranges>,
    /// The address asked for; in the view.
    pub asked: Option<u128>,
    /// The pod's stage.
    pub stage: Option<Stage>,
}

/// What somebody must do for the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Answer a request that had to wait.
    Assigned(u64, Result<u128, AssignError>),
    /// Claim these runs, in one transaction, and call [`RangeSet::claimed`].
    Claim(Vec<Run>),
    /// Delete the keys of these blocks at these revisions and call [`RangeSet::given_back`].
    GiveBack(Vec<(Run, u64)>),
}

/// How a claim ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// The runs are ours, with the revision of each key.
    Done(Vec<(Run, u64)>),
    /// Some of them are in blocks of others: these.
    Conflict(Vec<Run>),
    /// The store could not be asked.
    Failed(Arc<str>),
}

/// Figures for gauges.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Addresses that are assigned.
    pub allocated: u64,
    /// Released addresses in their cooldown.
    pub cooling: u64,
    /// Addresses that can be handed out from blocks in hand.
    pub free: u64,
    /// Active blocks.
    pub active: u64,
    /// Draining blocks.
    pub draining: u64,
}

/// What a range set is rebuilt from after a restart.
#[derive(Clone, Default, Debug)]
pub struct Restored {
    /// The blocks that this node holds, each with the revision of its key.
    pub blocks: Vec<(Run, u64)>,
    /// The addresses that are assigned; each in one of the blocks.
    pub allocated: Vec<u128>,
    /// Cooling addresses with their time of release, oldest first; each in one of the blocks.
    pub cooling: Vec<(Millis, u128)>,
    /// The last address handed out, by slot.
    pub cursors: BTreeMap<u16, u128>,
}

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct RangeSet {
    family: Family,
    block_log2: u8,
    cooldown: Millis,
    held: BTreeMap<u128, Block>,
    open: BTreeSet<u128>,
    claimed: Intervals,
    cooling: Cooling,
    cursors: BTreeMap<u16, u128>,
    waiting: VecDeque<(Millis, Assign)>,
    effects: VecDeque<Effect>,
    demand: Demand,
    claiming: bool,
    giving_back: bool,
    next_sweep: Millis,
    stats: Stats,
}

/// How many blocks to claim at once.
#[derive(Clone, Debug)]
struct Demand {
    batch: usize,
    claimed_at: Option<Millis>,
    /// Until when no claim is tried, and why.
    failed: Option<(Millis, Arc<str>)>,
}

enum Attempt {
    Done(Result<u128, AssignError>),
    Wait,
}

impl RangeSet {
    /// An empty set. `block_log2` is the usual size of its blocks, `cooldown` in milliseconds.
    pub fn new(family: Family, block_log2: u8, cooldown: Millis) -> Self {
        Self {
            family,
            block_log2,
            cooldown,
            held: BTreeMap::new(),
            open: BTreeSet::new(),
            claimed: Intervals::default(),
            cooling: Cooling::default(),
            cursors: BTreeMap::new(),
            waiting: VecDeque::new(),
            effects: VecDeque::new(),
            demand: Demand { batch: 1, claimed_at: None, failed: None },
            claiming: false,
            giving_back: false,
            next_sweep: 0,
            stats: Stats::default(),
        }
    }

    /// Puts back what the journal and the store know.
    ///
    /// # Errors
    /// An address that is in none of the blocks.
    pub fn restore(&mut self, restored: Restored) -> Result<(), u128> {
        for (run, revision) in restored.blocks {
            self.hold(run, revision);
        }
        for number in restored.allocated {
            self.block(number).ok_or(number)?;
            self.take(number);
        }
        for (released, number) in restored.cooling {
            if self.block(number).ok_or(number)?.is_taken(number) {
                continue; // assigned again since
            }
            self.take(number);
            self.cool(released, number);
        }
        self.cursors.extend(restored.cursors);
        Ok(())
    }

    /// Takes over everything that another set of the same family held.
    pub fn absorb(&mut self, other: Self) {
        debug_assert!(other.waiting.is_empty() && !other.claiming && !other.giving_back);
        self.held.extend(other.held);
        self.open.extend(other.open);
        for (start, end) in other.claimed.iter() {
            self.claimed.insert(start, end);
        }
        for (slot, cursor) in other.cursors {
            self.cursors.entry(slot).or_insert(cursor);
        }
        let mine = std::mem::take(&mut self.cooling);
        let mut cooling: Vec<_> = mine.drain().chain(other.cooling.drain()).collect();
        cooling.sort_unstable();
        for (released, number) in cooling {
            self.cooling.push(released, number);
        }
        self.stats.allocated += other.stats.allocated;
        self.stats.cooling += other.stats.cooling;
        self.stats.free += other.stats.free;
        self.stats.active += other.stats.active;
    }

    /// Assigns an address, or answers later with [`Effect::Assigned`] when a block must be had
    /// first. Requests are served in the order in which they came.
    pub fn assign(&mut self, now: Millis, request: Assign) -> Option<Result<u128, AssignError>> {
        self.warm(now);
        if self.waiting.is_empty()
            && let Attempt::Done(result) = self.attempt(now, &request)
        {
            return Some(result);
        }
        if self.waiting.len() >= limits::ASSIGNS_WAITING_MAX {
            return Some(Err(AssignError::Busy));
        }
        self.waiting.push_back((now + limits::ASSIGN_WAIT_MS_MAX, request));
        None
    }

    /// Releases an assigned address, whose release is durable: it cools from `now` on.
    pub fn release(&mut self, now: Millis, number: u128) {
        self.cool(now, number);
        self.warm(now);
        self.serve(now);
    }

    /// Takes back an assignment that nobody has seen: no cooldown, but the cursor stays moved.
    pub fn undo(&mut self, now: Millis, number: u128) {
        self.free(number);
        self.stats.allocated -= 1;
        self.serve(now);
    }

    /// The end of an [`Effect::Claim`].
    pub fn claimed(&mut self, now: Millis, claimed: Claimed) {
        self.claiming = false;
        self.demand.failed = None;
        match claimed {
            Claimed::Done(runs) => {
                for (run, revision) in runs {
                    self.hold(run, revision);
                }
            }
            Claimed::Conflict(runs) => {
                for run in runs {
                    self.claimed.insert(run.start, run.end());
                }
            }
            Claimed::Failed(cause) => {
                self.demand.failed = Some((now + limits::CLAIM_PAUSE_MS, cause));
            }
        }
        self.serve(now);
    }

    /// The end of an [`Effect::GiveBack`]: whether the blocks are free now.
    pub fn given_back(&mut self, now: Millis, done: bool) {
        self.giving_back = false;
        let draining: Vec<u128> = (self.held.iter())
            .filter(|(_, block)| block.state == BlockState::Draining)
            .map(|(&start, _)| start)
            .collect();
        for start in draining {
            self.stats.draining -= 1;
            if done {
                let Some(block) = self.held.remove(&start) else { continue };
                self.claimed.remove(start, block.run().end());
            } else if let Some(block) = self.held.get_mut(&start) {
                block.state = BlockState::Active;
                self.stats.active += 1;
                self.stats.free += u64::from(block.free());
                self.open.insert(start);
            }
        }
        self.serve(now);
    }

    /// Ends waits that took too long, lets addresses cool off and gives idle blocks back.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.warm(now);
        while let Some((deadline, _)) = self.waiting.front()
            && *deadline <= now
            && let Some((_, request)) = self.waiting.pop_front()
        {
            let cause = "the store did not answer in time".into();
            self.effects.push_back(Effect::Assigned(request.id, Err(AssignError::NoBlock(cause))));
        }
        if self.next_sweep <= now {
            self.next_sweep = now + limits::SWEEP_MS;
            self.sweep();
        }
    }

    /// When [`RangeSet::handle_timeout`] has something to do next; never, when nothing is cooling
    /// and nothing could be given back.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let wait = self.waiting.front().map(|(deadline, _)| *deadline);
        let cool = self.cooling.oldest().map(|released| released + self.cooldown);
        let sweep = (self.held.len() > 1).then_some(self.next_sweep);
        [wait, cool, sweep].into_iter().flatten().min()
    }

    /// The next effect, until there is none.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether an address of these ranges could be assigned now, or a block leased for one.
    pub fn could_assign(&mut self, now: Millis, view: &Ranges) -> bool {
        self.warm(now);
        let offered = |number| view.find(number).is_some_and(|range| range.offers(number, None));
        match self.index().next(view, None, None) {
            Some(Candidate::Free(_)) => true,
            Some(Candidate::Unclaimed(_)) => {
                self.demand.failed.as_ref().is_none_or(|(until, _)| *until <= now)
            }
            None => self.cooling.oldest_where(offered).is_some(),
        }
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The usual size of a block, as the binary logarithm of its number of addresses.
    pub fn block_log2(&self) -> u8 {
        self.block_log2
    }

    /// The blocks in hand, in order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.held.values()
    }

    fn attempt(&mut self, now: Millis, request: &Assign) -> Attempt {
        if let Some(number) = request.asked {
            return self.attempt_asked(now, number, request);
        }
        let (view, cursor) = (&*request.view, self.cursors.get(&request.slot).copied());
        match self.index().next(view, cursor, request.stage) {
            Some(Candidate::Free(number)) => {
                self.hand_out(number, request.slot);
                self.look_ahead(now, view, number);
                Attempt::Done(Ok(number))
            }
            Some(Candidate::Unclaimed(number)) => self.need(now, number, view),
            None => self.attempt_cooling(request),
        }
    }

    /// When nothing else is left, the address that cooled longest goes.
    fn attempt_cooling(&mut self, request: &Assign) -> Attempt {
        let offered = |number| {
            let range = request.view.find(number);
            range.is_some_and(|range| range.offers(number, request.stage))
        };
        if let Some(number) = self.cooling.oldest_where(offered) {
            self.take_cooling(number, request.slot);
            return Attempt::Done(Ok(number));
        }
        if self.giving_back {
            return Attempt::Wait;
        }
        let view = request.view.to_string();
        Attempt::Done(Err(AssignError::Exhausted { view, stage: request.stage }))
    }

    fn attempt_asked(&mut self, now: Millis, number: u128, request: &Assign) -> Attempt {
        let address = self.family.address(number);
        let taken = || AssignError::Taken { address, view: request.view.to_string() };
        let Some(range) = request.view.find(number) else {
            return Attempt::Done(Err(taken()));
        };
        if range.is_gateway(number) {
            return Attempt::Done(Err(AssignError::Gateway(address)));
        }
        if !range.offers(number, request.stage) {
            return Attempt::Done(Err(AssignError::Stage { address, stage: request.stage }));
        }
        if self.block(number).is_some_and(|block| block.state == BlockState::Draining) {
            return Attempt::Wait;
        }
        match self.index().look_at(number) {
            Some(Candidate::Free(_)) => self.hand_out(number, request.slot),
            Some(Candidate::Unclaimed(_)) => return self.need(now, number, &request.view),
            // Asked for by name, an address need not have cooled off.
            None if self.block(number).is_some_and(|block| block.is_cooling(number)) => {
                self.take_cooling(number, request.slot);
            }
            None => return Attempt::Done(Err(taken())),
        }
        Attempt::Done(Ok(number))
    }

    fn hand_out(&mut self, number: u128, slot: u16) {
        self.take(number);
        self.cursors.insert(slot, number);
    }

    /// A call must have a block around this address, or fail with the cause of the last failure.
    fn need(&mut self, now: Millis, number: u128, view: &Ranges) -> Attempt {
        if let Some((until, cause)) = &self.demand.failed
            && now < *until
        {
            return Attempt::Done(Err(AssignError::NoBlock(cause.clone())));
        }
        self.claim(now, number, view);
        Attempt::Wait
    }

    /// Claims the next blocks before they are needed.
    fn look_ahead(&mut self, now: Millis, view: &Ranges, cursor: u128) {
        let failed = self.demand.failed.as_ref().is_some_and(|(until, _)| now < *until);
        if self.claiming || failed {
            return;
        }
        let enough = (self.demand.batch as u128) << self.block_log2 >> 1;
        if let Some((number, before)) = self.index().next_unclaimed(view, Some(cursor))
            && before <= enough
        {
            self.claim(now, number, view);
        }
    }

    /// Claims the block around an address, and more of them when the last claim was not long ago.
    fn claim(&mut self, now: Millis, number: u128, view: &Ranges) {
        if self.claiming {
            return;
        }
        let demand = &mut self.demand;
        let burst = demand.claimed_at.is_some_and(|at| now - at < limits::BURST_MS);
        demand.batch = if burst { demand.batch * 2 } else { demand.batch / 2 };
        demand.batch = demand.batch.clamp(1, limits::BLOCKS_PER_CLAIM_MAX);
        demand.claimed_at = Some(now);
        self.claiming = true;
        let mut runs = vec![self.unclaimed_run(number)];
        let mut last = number;
        while runs.len() < self.demand.batch {
            // Walk on from the end of the last run, or of its range where the run is longer.
            let Some(range) = view.find(last) else { break };
            let end = runs[runs.len() - 1].end().min(range.end);
            let Some((next, _)) = self.index().next_unclaimed(view, Some(end)) else { break };
            if runs.iter().any(|run| run.contains(next)) {
                break;
            }
            runs.push(self.unclaimed_run(next));
            last = next;
        }
        self.effects.push_back(Effect::Claim(runs));
    }

    /// The largest run of at most the usual size around an address that is in no block.
    fn unclaimed_run(&self, number: u128) -> Run {
        let sizes = (0..=self.block_log2).rev();
        sizes
            .map(|log2| Run::around(number, log2))
            .find(|run| !self.claimed.overlaps(run.start, run.end()))
            .unwrap_or(Run::around(number, 0))
    }

    /// Answers the requests that wait, in order, as far as possible.
    fn serve(&mut self, now: Millis) {
        while let Some((deadline, request)) = self.waiting.pop_front() {
            match self.attempt(now, &request) {
                Attempt::Done(result) => {
                    self.effects.push_back(Effect::Assigned(request.id, result));
                }
                Attempt::Wait => {
                    self.waiting.push_front((deadline, request));
                    break;
                }
            }
        }
    }

    /// Frees the addresses that have cooled off.
    fn warm(&mut self, now: Millis) {
        let Some(until) = now.checked_sub(self.cooldown) else { return };
        while let Some(number) = self.cooling.pop(until) {
            self.block_mut(number).set_cooling(number, false);
            self.stats.cooling -= 1;
            self.free(number);
        }
    }

    /// Gives back the blocks that were free and untouched since the last sweep, but for those in
    /// which the cursors stand and those after them; without cursors, but for one.
    fn sweep(&mut self) {
        let (cursors, size) = (&self.cursors, 1 << self.block_log2);
        let mut spared = usize::from(cursors.is_empty());
        let mut back = Vec::new();
        for block in self.held.values_mut() {
            let idle = block.is_empty() && !std::mem::take(&mut block.touched);
            let run = block.run();
            let ahead =
                |&cursor: &u128| cursor <= run.end() && run.start <= cursor.saturating_add(size);
            let wanted = cursors.values().any(ahead);
            if !idle || wanted || self.giving_back || back.len() >= limits::BLOCKS_PER_CLAIM_MAX {
                continue;
            }
            if spared > 0 {
                spared -= 1;
                continue;
            }
            block.state = BlockState::Draining;
            back.push((block.run(), block.revision));
        }
        if back.is_empty() {
            return;
        }
        for (run, _) in &back {
            self.open.remove(&run.start);
            self.stats.free -= 1 << run.size_log2;
        }
        self.stats.active -= back.len() as u64;
        self.stats.draining += back.len() as u64;
        self.giving_back = true;
        self.effects.push_back(Effect::GiveBack(back));
    }

    fn index(&self) -> Index<'_> {
        Index { held: &self.held, open: &self.open, claimed: &self.claimed }
    }

    fn block(&self, number: u128) -> Option<&Block> {
        let (_, block) = self.held.range(..=number).next_back()?;
        block.run().contains(number).then_some(block)
    }

    /// The held block of an address that is known to be in one: what is assigned or cooling
    /// always is.
    fn block_mut(&mut self, number: u128) -> &mut Block {
        let (_, block) = (self.held.range_mut(..=number).next_back())
            .unwrap_or_else(|| unreachable!("an address in use is in a held block"));
        block
    }

    fn hold(&mut self, run: Run, revision: u64) {
        self.held.insert(run.start, Block::new(run, revision));
        self.open.insert(run.start);
        self.claimed.insert(run.start, run.end());
        self.stats.free += 1 << run.size_log2;
        self.stats.active += 1;
    }

    fn take(&mut self, number: u128) {
        let block = self.block_mut(number);
        block.take(number);
        if block.free() == 0 {
            let start = block.run().start;
            self.open.remove(&start);
        }
        self.stats.free -= 1;
        self.stats.allocated += 1;
    }

    /// Makes an address available that was assigned or cooling.
    fn free(&mut self, number: u128) {
        let block = self.block_mut(number);
        block.put_back(number);
        if block.free() == 1 {
            let start = block.run().start;
            self.open.insert(start);
        }
        self.stats.free += 1;
    }

    fn cool(&mut self, released: Millis, number: u128) {
        self.block_mut(number).set_cooling(number, true);
        self.cooling.push(released, number);
        self.stats.allocated -= 1;
        self.stats.cooling += 1;
    }

    /// Assigns an address before it has cooled off.
    fn take_cooling(&mut self, number: u128, slot: u16) {
        self.block_mut(number).set_cooling(number, false);
        self.cooling.take(number);
        self.cursors.insert(slot, number);
        self.stats.cooling -= 1;
        self.stats.allocated += 1;
    }

    /// Checks that the indexes and figures are what the blocks say. For tests and simulators:
    /// linear in the number of blocks.
    pub fn check_invariants(&self) {
        let mut stats = Stats::default();
        for (&start, block) in &self.held {
            let active = block.state == BlockState::Active;
            assert_eq!(start, block.run().start);
            assert_eq!(self.open.contains(&start), active && block.free() > 0, "{block:?}");
            assert!(self.claimed.overlaps(start, block.run().end()));
            let taken = u64::from(block.size() - block.free());
            stats.cooling += u64::from(block.cooling());
            stats.allocated += taken - u64::from(block.cooling());
            stats.free += if active { u64::from(block.free()) } else { 0 };
            stats.active += u64::from(active);
            stats.draining += u64::from(!active);
        }
        assert_eq!(stats, self.stats);
        assert_eq!(stats.cooling, self.cooling.len() as u64);
        assert!(self.open.iter().all(|start| self.held.contains_key(start)));
        let runs: Vec<Run> = self.held.values().map(Block::run).collect();
        assert!(runs.windows(2).all(|pair| pair[0].end() < pair[1].start), "blocks overlap");
    }
}
