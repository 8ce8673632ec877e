//! The coordinator among the machines of its node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::cluster_facts::ClusterFacts;
use super::message::{After, Event, Machine, Output, ToCoordinator, ToLeaseholder, ToRangeSet};
use super::serving::{Unable, Unready};
use crate::core::Map;
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::cause::Cause;
use crate::core::coordinator::{Call, CallError, Coordinator, Crowd, Effect, Outcome};
use crate::core::ids::{CallId, MessageCount, OperationId};
use crate::core::journal::JournalFailure;
use crate::core::range::Ranges;
use crate::core::range_set::RangeSet;
use crate::core::set_identity::{SetId, SetIdentity};
use crate::core::time::BootTime;
use crate::limits;

/// The machine through which every call of a node passes, and every effect of its leaseholder.
#[derive(Debug)]
pub struct CoordinatorMachine {
    pub(super) core: Coordinator,
    pub(super) cluster: ClusterFacts,
    /// The open range sets, each with the number of messages that were sent to it.
    pub(super) sets: BTreeMap<SetId, MessageCount>,
    /// There is no room for another one.
    pub(super) crowded: bool,
    /// Range sets that are becoming part of others.
    pub(super) retiring: BTreeSet<SetId>,
    /// Range sets as they were before the daemon's start, which must be opened.
    rebuilt: Vec<(SetIdentity, RangeSet)>,
    /// Calls without an answer.
    open_calls: usize,
    /// Calls that came before the node knew what its journal forgot (rule 23).
    early_calls: VecDeque<(CallId, Call)>,
    /// The number of records that are missing, for each of these operations.
    recording: Map<OperationId, usize>,
    /// The times until which they are waited for.
    recording_until: VecDeque<(BootTime, OperationId)>,
    pub(super) overlaps: BTreeSet<(Arc<str>, Arc<str>)>,
    journal_failed: bool,
    life: Life,
    pub(super) outputs: VecDeque<Output>,
}

/// The stage of the daemon's life.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Life {
    Serving,
    /// Calls that run are finished; new ones are refused.
    Finishing,
    /// These range sets park blocks in which nothing is held; until when that is waited for.
    Parking(BTreeSet<SetId>, BootTime),
    /// The leaseholder leaves the cluster; until when that is waited for.
    Leaving(BootTime),
    /// The journal is being closed.
    Closing,
    Stopped,
}

impl CoordinatorMachine {
    /// Creates the machine. `rebuilt`: the range sets of the journal.
    pub(super) fn new(
        core: Coordinator,
        rebuilt: Vec<(SetIdentity, RangeSet)>,
        cluster: ClusterFacts,
    ) -> Self {
        Self {
            core,
            cluster,
            sets: BTreeMap::new(),
            crowded: false,
            retiring: BTreeSet::new(),
            rebuilt,
            open_calls: 0,
            early_calls: VecDeque::new(),
            recording: Map::default(),
            recording_until: VecDeque::new(),
            overlaps: BTreeSet::new(),
            journal_failed: false,
            life: Life::Serving,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the holdings.
    pub fn held(&self) -> &crate::core::coordinator::Held {
        self.core.held()
    }

    /// Pairs of networks whose addresses overlap, as far as they were used.
    pub fn overlaps(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.overlaps.iter().cloned().collect()
    }

    /// Returns whether range sets are becoming one; for simulators.
    pub fn is_merging(&self) -> bool {
        !self.retiring.is_empty()
    }

    /// Returns whether calls are taken.
    pub(super) fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    /// Returns the open range sets.
    pub fn sets(&self) -> Vec<SetId> {
        self.sets.keys().copied().collect()
    }

    /// Returns the reason why this node cannot serve every ADD now, if there is one. A full pool
    /// does not count, and neither does a journal that failed: readers know of it by themselves.
    pub fn unready(&self, now: BootTime) -> Option<Unready> {
        let cluster = &self.cluster;
        let overdue = cluster.good_until.is_over(now);
        let never = cluster.refusing().or(overdue.then_some(Cause::OfflineLimit));
        let not_joined = || (!cluster.joined).then_some(Cause::NotJoined);
        let serves_in_hand = never.is_none();
        let full = self.is_full().then_some(Cause::TooManySets);
        let cause = never.or_else(|| cluster.stalled.clone()).or_else(not_joined);
        match full {
            // It keeps out every network that is new here.
            Some(full) => Some(Unready { cause: cause.unwrap_or(full), serves_in_hand: false }),
            None => Some(Unready { cause: cause?, serves_in_hand }),
        }
    }

    /// Returns the range sets that an ADD with these ranges would use, each with its index; those
    /// that are not open yet are left out.
    ///
    /// # Errors
    /// No ADD can be served.
    pub fn sets_of(&self, pool: &str, sets: &[Arc<Ranges>]) -> Result<Vec<(usize, SetId)>, Unable> {
        if let Some(cause) = self.core.broken() {
            return Err(Unable::Journal(cause.clone()));
        }
        let mut open = Vec::new();
        for (index, allowed) in sets.iter().enumerate() {
            match (self.core.owner_of(pool, allowed), self.cluster.unable()) {
                (Some(set), _) => open.push((index, set)),
                // Its first ADD will need the cluster's store.
                (None, Some(cause)) => return Err(Unable::NewSet(index, cause)),
                (None, None) if self.is_full() => {
                    return Err(Unable::NewSet(index, Cause::TooManySets));
                }
                (None, None) => {}
            }
        }
        Ok(open)
    }

    fn call(&mut self, now: BootTime, id: CallId, call: Call) {
        let refused = if self.life != Life::Serving {
            Some(CallError::Stopping)
        } else if self.open_calls >= limits::CALLS_IN_FLIGHT_MAX {
            Some(CallError::Busy(Crowd::Node))
        } else {
            None
        };
        match refused {
            None if self.is_early(&call) => {
                self.open_calls += 1;
                self.early_calls.push_back((id, call));
            }
            Some(error) => self.outputs.push_back(Output::Reply(id, Outcome::Failed(error))),
            None => {
                self.open_calls += 1;
                self.core.call(now, id, call);
            }
        }
    }

    /// Returns whether calls are carried out: when the node has joined, so that it knows what its
    /// journal forgot, or when the store cannot be asked.
    fn may_begin(&self) -> bool {
        self.cluster.joined || self.cluster.stalled.is_some()
    }

    /// Returns whether a call waits until the node may begin: an ADD waits, and so does every later
    /// call of the same attachment. A DEL is remembered instead (rule 28).
    fn is_early(&self, call: &Call) -> bool {
        let waits = |id: &AttachmentId| {
            let waits = |(_, call): &(CallId, Call)| match call {
                Call::Add(add) => add.id == *id,
                _ => false,
            };
            self.early_calls.iter().any(waits)
        };
        !self.may_begin()
            && match call {
                Call::Add(_) => true,
                Call::Del(del) => waits(&del.id),
                Call::Gc { .. } => false,
            }
    }

    /// Returns whether calls wait until the node has joined; for simulators.
    pub fn holds_calls(&self) -> bool {
        !self.may_begin()
    }

    /// Begins the calls that came too early, if it is time.
    pub(super) fn begin_early_calls(&mut self, now: BootTime) {
        if self.may_begin() {
            for (id, call) in std::mem::take(&mut self.early_calls) {
                self.core.call(now, id, call);
            }
        }
    }

    fn open(&mut self, now: BootTime, identity: SetIdentity, mut set: RangeSet) {
        self.cluster.tell(now, &mut set);
        set.used(now);
        set.crowded(now, self.crowded);
        self.sets.insert(identity.id, MessageCount::default());
        let (set, lease_losses) = (Box::new(set), self.cluster.lease_losses);
        self.outputs.push_back(Output::Open { identity, set, lease_losses });
        self.update_crowded();
    }

    /// Carries out what the core asks for, in order.
    fn drive(&mut self, now: BootTime) {
        while let Some(effect) = self.core.poll_effect() {
            self.carry_out(now, effect);
        }
        if self.life == Life::Finishing && self.open_calls == 0 {
            self.park(now);
        }
        if matches!(&self.life, Life::Parking(sets, until) if sets.is_empty() || *until <= now) {
            self.life = Life::Leaving(now + limits::LEAVE_WAIT_MAX);
            self.send_leaseholder(ToLeaseholder::Leave);
        }
    }

    /// Has every range set park the blocks in which nothing is held. While the store cannot be
    /// asked, and in a store of this node's own, the node keeps what it has.
    fn park(&mut self, now: BootTime) {
        let cluster = &self.cluster;
        let able = cluster.joined && cluster.stalled.is_none() && cluster.halted().is_none();
        let parks = able && cluster.records && !self.journal_failed;
        let sets = if parks { self.sets.keys().copied().collect() } else { BTreeSet::new() };
        sets.iter().for_each(|&set| self.send_set(set, ToRangeSet::Park));
        self.life = Life::Parking(sets, now + limits::PARK_WAIT_MAX);
    }

    fn carry_out(&mut self, now: BootTime, effect: Effect) {
        match effect {
            Effect::Open(identity) => {
                let set = RangeSet::new(identity.family, identity.block_size, self.core.settings());
                self.open(now, identity, set);
            }
            Effect::AgreeBlockSize(network, allowed) => {
                self.send_leaseholder(ToLeaseholder::AgreeBlockSize(network, allowed));
            }
            Effect::AwaitRecord(operation, holding) => self.await_record(now, operation, holding),
            Effect::AwaitEnd(operation, holding) => self.await_end(now, operation, holding),
            Effect::Assign(set, request) => self.send_set(set, ToRangeSet::Assign(request)),
            Effect::Undo(set, number) => self.send_set(set, ToRangeSet::Undo(number)),
            Effect::Release(set, number) => self.send_set(set, ToRangeSet::Release(number)),
            Effect::Recover(set, blocks) => {
                self.send_set(set, ToRangeSet::Recover(blocks));
            }
            Effect::Forget(network, address) => {
                self.send_leaseholder(ToLeaseholder::DeleteRecord(network, address));
            }
            // Only a node that forfeits something waits for that.
            Effect::RecordsCompared if self.cluster.forfeits => {
                self.send_leaseholder(ToLeaseholder::RecordsCompared);
            }
            Effect::RecordsCompared => {}
            Effect::Merge(into, from, network) => {
                self.sets.remove(&from);
                self.retiring.insert(from);
                self.cluster.merges = self.cluster.merges.next();
                self.report(Event::Merge(network));
                self.send_set(from, ToRangeSet::Retire(into));
            }
            Effect::Commit(operation, entries) => {
                self.commit(entries, operation.map_or(After::Nothing, After::Operation));
            }
            Effect::Held(holding) => {
                self.outputs.push_back(Output::Held(holding.clone()));
                self.publish(holding, true, None);
            }
            Effect::Ended(holding) => {
                self.outputs.push_back(Output::Ended(holding.clone()));
                self.publish(holding, false, None);
            }
            Effect::Superseded(holding) => self.outputs.push_back(Output::Ended(holding)),
            Effect::Reply(call, outcome) => {
                self.open_calls -= 1;
                self.outputs.push_back(Output::Reply(call, outcome));
            }
            Effect::Overlap(a, b) => {
                let pair = if a < b { (a, b) } else { (b, a) };
                let room = self.overlaps.len() < limits::OVERLAPS_MAX;
                if room && self.overlaps.insert(pair.clone()) {
                    self.report(Event::Overlap(pair.0, pair.1, self.overlaps.len()));
                }
            }
        }
    }

    /// Has it published in the store that something is held, or is not.
    fn publish(&mut self, holding: Arc<Holding>, held: bool, waiting: Option<OperationId>) {
        if self.cluster.records {
            self.send_leaseholder(ToLeaseholder::PublishRecord { holding, held, waiting });
        }
    }

    /// Waits, but not for ever, until every address of the holding is recorded.
    fn await_record(&mut self, now: BootTime, operation: OperationId, holding: Arc<Holding>) {
        if let Some(cause) = self.cluster.stalled.clone() {
            return self.core.recorded(now, operation, Err(cause));
        }
        self.recording.insert(operation, holding.addresses.len());
        self.recording_until.push_back((now + limits::ASSIGN_WAIT_MAX, operation));
        self.publish(holding, true, Some(operation));
    }

    /// Waits, but not for ever, until no address of the holding is recorded.
    fn await_end(&mut self, now: BootTime, operation: OperationId, holding: Arc<Holding>) {
        if let Some(cause) = self.cluster.stalled.clone() {
            return self.core.recorded(now, operation, Err(cause));
        }
        self.recording.insert(operation, holding.addresses.len());
        self.recording_until.push_back((now + limits::ASSIGN_WAIT_MAX, operation));
        self.publish(holding, false, Some(operation));
    }

    /// Ends the waits for records that took too long.
    fn end_late_records(&mut self, now: BootTime) {
        while let Some(&(until, operation)) = self.recording_until.front() {
            if until > now && self.recording.contains_key(&operation) {
                return;
            }
            self.recording_until.pop_front();
            if self.recording.remove(&operation).is_some() {
                let cause = self.cluster.stalled.clone();
                let cause = cause.unwrap_or(Cause::NotRecordedInTime);
                self.core.recorded(now, operation, Err(cause));
            }
        }
    }

    /// Fails every operation that waits for a record: the store does not answer.
    pub(super) fn not_recorded(&mut self, now: BootTime, cause: &Cause) {
        let mut waiting: Vec<OperationId> = self.recording.keys().copied().collect();
        waiting.sort_unstable();
        self.recording.clear();
        for operation in waiting {
            self.core.recorded(now, operation, Err(cause.clone()));
        }
    }

    /// Remembers that one record of each of these operations is in the store.
    pub(super) fn recorded(&mut self, now: BootTime, operations: Vec<OperationId>) {
        for operation in operations {
            let Some(missing) = self.recording.get_mut(&operation) else { continue };
            *missing -= 1;
            if *missing == 0 {
                self.recording.remove(&operation);
                self.core.recorded(now, operation, Ok(()));
            }
        }
    }

    fn committed(
        &mut self,
        now: BootTime,
        operations: Vec<OperationId>,
        result: &Result<(), JournalFailure>,
    ) {
        if let Err(cause) = result
            && !self.journal_failed
        {
            self.journal_failed = true;
            self.outputs.push_back(Output::Broken(cause.clone()));
            self.report(Event::JournalFailed(cause.clone()));
        }
        for operation in operations {
            self.core.committed(now, operation, result.clone());
        }
    }

    /// Closes the journal after all that is in it: the node has left the cluster, or the cluster
    /// will find out by itself.
    fn close(&mut self) {
        if let Life::Leaving(_) = self.life {
            self.life = Life::Closing;
            self.commit(vec![], After::Close);
        }
    }
}

impl Machine for CoordinatorMachine {
    type Input = ToCoordinator;

    fn start(&mut self, now: BootTime) {
        for (identity, set) in std::mem::take(&mut self.rebuilt) {
            self.open(now, identity, set);
        }
        self.drive(now);
    }

    fn handle(&mut self, now: BootTime, input: ToCoordinator) {
        match input {
            ToCoordinator::Call(id, call) => self.call(now, id, call),
            ToCoordinator::Waited(operation) => {
                if let Some(call) = self.core.call_of(operation) {
                    self.report(Event::CallWaited(call));
                }
            }
            ToCoordinator::Assigned(operation, result) => {
                self.core.assigned(now, operation, result);
            }
            ToCoordinator::Committed(operations, result) => {
                self.committed(now, operations, &result);
            }
            ToCoordinator::Cluster(effect, origin) => {
                self.on_leaseholder_effect(now, effect, origin);
            }
            ToCoordinator::NothingFor(question, set) => self.nothing_for(now, question, set),
            ToCoordinator::Merged { network, from } => {
                self.retiring.remove(&from);
                self.tell_held_back();
                self.core.merged(now, &network);
            }
            ToCoordinator::Confirmed(set) => self.confirmed(set),
            ToCoordinator::Unused { network, set, received } => {
                self.forget_unused(now, &network, set, received);
            }
            ToCoordinator::Shutdown if self.life == Life::Serving => {
                self.life = Life::Finishing;
                for (id, _) in std::mem::take(&mut self.early_calls) {
                    self.open_calls -= 1;
                    let outcome = Outcome::Failed(CallError::Stopping);
                    self.outputs.push_back(Output::Reply(id, outcome));
                }
            }
            ToCoordinator::Shutdown => {}
            ToCoordinator::Parked(set) => {
                if let Life::Parking(sets, _) = &mut self.life {
                    sets.remove(&set);
                }
            }
            ToCoordinator::Left => self.close(),
            ToCoordinator::JournalClosed if self.life == Life::Closing => {
                self.life = Life::Stopped;
                self.outputs.push_back(Output::Stopped);
            }
            ToCoordinator::JournalClosed => {}
        }
        self.drive(now);
    }

    fn handle_timeout(&mut self, now: BootTime) {
        self.end_late_records(now);
        if let Life::Leaving(until) = self.life
            && until <= now
        {
            self.report(Event::LeaseLeft);
            self.close();
        }
        self.drive(now);
    }

    fn poll_timeout(&self) -> Option<BootTime> {
        let leaving = match self.life {
            Life::Parking(_, until) | Life::Leaving(until) => Some(until),
            _ => None,
        };
        self.recording_until.front().map(|(until, _)| *until).into_iter().chain(leaving).min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
