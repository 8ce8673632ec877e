//! A running node as the API sees it: to call it, to ask it for figures, to stop it.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use actix::prelude::*;
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::host::{Deliver, Host, Inspect, Reply};
use crate::clock;
use crate::core::address::{Address, Cidr, Family};
use crate::core::attachment::Holding;
use crate::core::block::{Block, BlockState};
use crate::core::coordinator::{Call, CallError, Outcome};
use crate::core::keys::PoolFamily;
use crate::core::node::{
    CoordinatorMachine, Figures, JournalMachine, LeaseholderMachine, RangeSetMachine,
    ToCoordinator, ToLeaseholder, ToRangeSet, Unable, first_full,
};
use crate::core::offer::Offer;
use crate::core::range::Ranges;
use crate::core::range_set::{Capacity, Stats};
use crate::core::set_identity::{SetId, SetIdentity};
use crate::limits;

/// The reason that is given when the coordinator has ended.
const NO_ANSWER: &str = "the coordinator does not answer";

type Sets = BTreeMap<SetId, Opened>;

/// The actor of a range set, and what lists sort it by.
#[derive(Clone)]
struct Opened {
    pool: PoolFamily,
    actor: Addr<Host<RangeSetMachine>>,
}

/// The addresses of a node's actors.
#[derive(Clone)]
pub struct NodeHandle {
    coordinator: Addr<Host<CoordinatorMachine>>,
    leaseholder: Addr<Host<LeaseholderMachine>>,
    journal: Addr<Host<JournalMachine>>,
    sets: Arc<RwLock<Sets>>,
}

/// A range set with its figures.
#[derive(Clone, Debug)]
pub struct Description {
    /// The range set.
    pub identity: SetIdentity,
    /// Its figures.
    pub stats: Stats,
    /// The addresses that it can ever hand out.
    pub offer: Offer,
    /// The addresses of its blocks by state.
    pub capacity: Capacity,
}

/// A block in hand.
#[derive(Clone, Debug)]
pub struct BlockFigures {
    /// The pool that it is of.
    pub pool: PoolFamily,
    /// The addresses that it covers.
    pub cidr: Cidr,
    /// Its state.
    pub state: BlockState,
    /// Addresses that are not taken.
    pub free: u32,
    /// Addresses that cool.
    pub cooling: u32,
}

tokio::task_local! {
    /// Becomes true when a call that the task makes had to wait for a block.
    pub static WAITED: Cell<bool>;
}

/// A call, and the one who waits for its answer.
#[derive(Message)]
#[rtype(result = "()")]
struct Execute(Call, Reply);

/// The end of the node, and the one who waits for it.
#[derive(Message)]
#[rtype(result = "()")]
struct Shutdown(oneshot::Sender<()>);

impl Handler<Execute> for Host<CoordinatorMachine> {
    type Result = ();

    fn handle(&mut self, Execute(call, reply): Execute, ctx: &mut Self::Context) {
        let id = self.outlet().new_call(reply);
        self.take(ToCoordinator::Call(id, call), ctx);
    }
}

impl Handler<Shutdown> for Host<CoordinatorMachine> {
    type Result = ();

    fn handle(&mut self, Shutdown(sender): Shutdown, ctx: &mut Self::Context) {
        self.outlet().when_stopped(sender);
        self.take(ToCoordinator::Shutdown, ctx);
    }
}

impl NodeHandle {
    pub(super) fn new(
        coordinator: Addr<Host<CoordinatorMachine>>,
        leaseholder: Addr<Host<LeaseholderMachine>>,
        journal: Addr<Host<JournalMachine>>,
    ) -> Self {
        Self { coordinator, leaseholder, journal, sets: Arc::default() }
    }

    pub(super) fn coordinator(&self) -> &Addr<Host<CoordinatorMachine>> {
        &self.coordinator
    }

    pub(super) fn leaseholder(&self) -> &Addr<Host<LeaseholderMachine>> {
        &self.leaseholder
    }

    pub(super) fn journal(&self) -> &Addr<Host<JournalMachine>> {
        &self.journal
    }

    fn set(&self, id: SetId) -> Option<Addr<Host<RangeSetMachine>>> {
        Some(self.sets.read().ok()?.get(&id)?.actor.clone())
    }

    /// Sends a message to a range set, if it is open. A copy of its address, which needs memory,
    /// would cost more than the message.
    pub(super) fn send_set(&self, id: SetId, input: ToRangeSet) {
        if let Some(set) = self.sets.read().ok().as_ref().and_then(|sets| sets.get(&id)) {
            set.actor.do_send(Deliver(input));
        }
    }

    pub(super) fn open(&self, id: SetId, pool: PoolFamily, actor: Addr<Host<RangeSetMachine>>) {
        if let Ok(mut sets) = self.sets.write() {
            sets.insert(id, Opened { pool, actor });
        }
    }

    pub(super) fn close(&self, id: SetId) -> Option<Addr<Host<RangeSetMachine>>> {
        Some(self.sets.write().ok()?.remove(&id)?.actor)
    }

    fn all_sets(&self) -> Vec<Addr<Host<RangeSetMachine>>> {
        let actors = |sets: &Sets| sets.values().map(|set| set.actor.clone()).collect();
        self.sets.read().map_or_else(|_| vec![], |sets| actors(&sets))
    }

    /// Sends a call: it is in the coordinator's mailbox when this returns, and its end comes later.
    pub fn execute(&self, call: Call) -> impl Future<Output = Outcome> + use<> {
        let (reply, outcome) = oneshot::channel();
        self.coordinator.do_send(Execute(call, reply));
        // Without an answer the daemon is about to end.
        async move {
            let stopping = (Outcome::Failed(CallError::Stopping), false);
            let (outcome, waited) = outcome.await.unwrap_or(stopping);
            if waited {
                // Who does not ask is not told.
                let _ = WAITED.try_with(|is| is.set(true));
            }
            outcome
        }
    }

    /// Stops the node in order: calls that run are finished, records that wait are written, the
    /// lease is ended, the journal is closed.
    pub async fn shutdown(&self) {
        let (sender, stopped) = oneshot::channel();
        self.coordinator.do_send(Shutdown(sender));
        let _ = stopped.await;
    }

    /// Has a holding published in the cluster's store again.
    pub fn publish(&self, holding: Arc<Holding>) {
        let publish = ToLeaseholder::PublishRecord { holding, held: true, waiting: None };
        self.leaseholder.do_send(Deliver(publish));
    }

    /// Pairs of networks whose addresses overlap; nothing, if the coordinator does not answer.
    pub async fn overlaps(&self) -> Option<Vec<(Arc<str>, Arc<str>)>> {
        inspect(&self.coordinator, |machine| machine.overlaps()).await
    }

    /// Returns the reason why no ADD could be served now, if there is one. A full pool is no such
    /// reason.
    pub async fn unready(&self) -> Option<String> {
        let unready = inspect(&self.coordinator, |machine| machine.unready(clock::boot())).await;
        let Some(unready) = unready else { return Some(NO_ANSWER.to_owned()) };
        let unready = unready?;
        let mut free = Vec::new();
        for set in self.all_sets() {
            free.extend(inspect(&set, |machine| machine.stats().free).await);
        }
        unready.unless_free(free).map(|cause| cause.to_string())
    }

    /// Checks that the machines that every call needs do their work.
    ///
    /// # Errors
    /// One of them does not; the error says which.
    pub async fn alive(&self) -> Result<(), String> {
        self.overlaps().await.ok_or(NO_ANSWER)?;
        let hangs = inspect(&self.journal, |machine| machine.hangs_for(clock::boot())).await;
        hangs.ok_or("the journal has ended")?.map_or(Ok(()), |time| {
            let seconds = time.as_secs();
            Err(format!("the journal has been writing for {seconds} s: the disk does not answer"))
        })
    }

    /// The figures of the node's dealings with the store; nothing, if nobody answers.
    pub async fn figures(&self) -> Option<Figures> {
        inspect(&self.leaseholder, |machine| machine.figures(clock::boot())).await
    }

    /// Every range set with its figures, by network, family and name.
    pub async fn describe_sets(&self) -> Vec<Description> {
        let mut all = Vec::new();
        for set in self.all_sets() {
            let describe = |machine: &mut RangeSetMachine| {
                let (offer, capacity) = machine.capacity();
                let (identity, stats) = (machine.identity().clone(), machine.stats());
                Description { identity, stats, offer, capacity }
            };
            all.extend(inspect(&set, describe).await);
        }
        all.sort_by(|a, b| {
            let key = |of: &Description| {
                (of.identity.network.clone(), of.identity.family, of.identity.id)
            };
            key(a).cmp(&key(b))
        });
        all
    }

    /// A page of the blocks in hand, by network, family and address; `after`: only those behind
    /// this one. A range set is asked for a piece at a time, so that calls come in between.
    pub async fn blocks(
        &self,
        network: Option<&str>,
        after: Option<(&str, IpNet)>,
        limit: usize,
    ) -> Vec<BlockFigures> {
        let mut sets: Vec<Opened> =
            self.sets.read().map_or_else(|_| vec![], |sets| sets.values().cloned().collect());
        sets.retain(|set| network.is_none_or(|network| network == &*set.pool.network));
        sets.sort_by(|a, b| a.pool.cmp(&b.pool));
        let mut all = Vec::new();
        for of_pool in sets.chunk_by(|a, b| a.pool == b.pool) {
            let pool = &of_pool[0].pool;
            let Some(from) = first_behind(pool, after) else { continue };
            let begun = all.len();
            for set in of_pool {
                blocks_of(set, from, limit - begun, &mut all).await;
            }
            all[begun..].sort_unstable_by_key(|block: &BlockFigures| block.cidr.first());
            all.truncate(limit);
            if all.len() == limit {
                break;
            }
        }
        all
    }

    /// Returns the index of ranges of which every address is taken, or nothing if an ADD from each
    /// of these range sets could be served now.
    ///
    /// # Errors
    /// This node could not serve it.
    pub async fn can_serve(
        &self,
        pool: Arc<str>,
        sets: &[Arc<Ranges>],
    ) -> Result<Option<usize>, Unable> {
        let of = sets.to_vec();
        let plan = move |machine: &mut CoordinatorMachine| machine.sets_of(&pool, &of);
        let open = inspect(&self.coordinator, plan).await.ok_or(Unable::Stopping)??;
        let mut answers = Vec::new();
        for (index, id) in open {
            let allowed = sets[index].clone();
            let probe =
                move |machine: &mut RangeSetMachine| machine.could_assign(clock::boot(), &allowed);
            let answer = match self.set(id) {
                Some(set) => Some(inspect(&set, probe).await.ok_or(Unable::Stopping)?),
                None => None,
            };
            answers.push((index, answer));
        }
        first_full(answers)
    }
}

/// The first number of a pool's addresses that may be behind a block; nothing if none is.
fn first_behind(pool: &PoolFamily, after: Option<(&str, IpNet)>) -> Option<Address> {
    let Some((network, prefix)) = after else { return Some(Address::new(0)) };
    let place = (network, Family::of(prefix.addr()));
    match (&*pool.network, pool.family).cmp(&place) {
        Ordering::Less => None,
        Ordering::Equal => Address::of(prefix.addr()).next(),
        Ordering::Greater => Some(Address::new(0)),
    }
}

/// Adds so many blocks at most of a range set from a number on, piece by piece.
async fn blocks_of(set: &Opened, from: Address, limit: usize, all: &mut Vec<BlockFigures>) {
    let (end, mut from) = (all.len().saturating_add(limit), Some(from));
    while let Some(first) = from.take().filter(|_| all.len() < end) {
        let most = limits::BLOCKS_PER_LOOK_MAX.min(end - all.len());
        let pool = set.pool.clone();
        let figures = move |block: &Block| BlockFigures {
            pool: pool.clone(),
            cidr: block.cidr(),
            state: block.state(),
            free: block.free(),
            cooling: block.cooling(),
        };
        let look = move |machine: &mut RangeSetMachine| {
            machine.blocks_from(first).take(most).map(figures).collect::<Vec<_>>()
        };
        let piece = inspect(&set.actor, look).await.unwrap_or_default();
        if piece.len() == most {
            from = piece.last().and_then(|last| last.cidr.last().next());
        }
        all.extend(piece);
    }
}

/// Looks at the machine of an actor; nothing, if the actor has ended.
async fn inspect<M, R>(
    host: &Addr<Host<M>>,
    look: impl FnOnce(&mut M) -> R + Send + 'static,
) -> Option<R>
where
    Host<M>: Handler<Inspect<M, R>> + Actor<Context = Context<Host<M>>>,
    M: super::host::Shown + 'static,
    R: Send + 'static,
{
    host.send(Inspect(Box::new(look))).await.ok()
}
