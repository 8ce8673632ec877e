//! The course of each call.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::routing::Route;
use super::{
    Add, Call, CallError, Coordinator, Crowd, Del, Effect, HeldOtherwise, HoldingOrigin,
    HoldingSelector, Network, Operation, Outcome, ReplyTo, Waiting, Work,
};
use crate::core::address::{Address, BlockSize};
use crate::core::attachment::{AttachmentId, Holding, Scope};
use crate::core::container_id::ContainerId;
use crate::core::ids::{CallId, OperationId};
use crate::core::journal::JournalEntry;
use crate::core::leaseholder::BlockSizeError;
use crate::core::range::Ranges;
use crate::core::range_set::{Assign, AssignError};
use crate::core::set_identity::SetId;
use crate::core::time::{BootTime, StartTime};
use crate::limits;

impl Coordinator {
    /// Takes a call; the answer comes as [`Effect::Reply`] with this id.
    pub fn call(&mut self, now: BootTime, id: CallId, call: Call) {
        let reply_to = ReplyTo::Call(id);
        match call {
            Call::Add(add) => self.enter(now, Waiting { reply_to, work: Work::Add(add) }),
            Call::Del(del) => self.enter(now, Waiting { reply_to, work: Work::Del(del) }),
            Call::Gc { network, valid, started_at } => {
                self.collect(now, id, &network, &valid, started_at);
            }
        }
    }

    fn collect(
        &mut self,
        now: BootTime,
        call: CallId,
        network: &Arc<str>,
        valid: &[(ContainerId, Arc<str>)],
        started_at: StartTime,
    ) {
        let valid: std::collections::BTreeSet<(&ContainerId, &str)> =
            valid.iter().map(|(id, ifname)| (id, &**ifname)).collect();
        let stale = self.held.all().filter(|holding| {
            let scope = &holding.scope;
            scope.network == *network && !valid.contains(&(&holding.container_id, &*scope.ifname))
        });
        let mut stale: Vec<AttachmentId> = stale.map(|holding| holding.id()).collect();
        stale.sort_unstable();
        let operation = self.next_operation();
        let (left, ended, failed) = (stale.len() + 1, 0, None);
        self.operations.insert(operation, Operation::Collecting { call, left, ended, failed });
        for id in stale {
            let work = Work::Del(Del { id, selector: HoldingSelector::StartedBy(started_at) });
            self.enter(now, Waiting { reply_to: ReplyTo::Gc(operation), work });
        }
        self.answer(ReplyTo::Gc(operation), Outcome::Ended(0));
    }

    /// Lines a call up behind the others of its attachment.
    fn enter(&mut self, now: BootTime, waiting: Waiting) {
        match self.queues.get_mut(waiting.work.id()) {
            Some(queue) if queue.len() >= limits::CALLS_PER_ATTACHMENT_MAX => {
                let error = CallError::Busy(Crowd::Attachment);
                self.answer(waiting.reply_to, Outcome::Failed(error));
            }
            Some(queue) => queue.push_back(waiting),
            None => {
                self.queues.insert(waiting.work.id().clone(), VecDeque::new());
                self.start(now, waiting);
            }
        }
    }

    /// Starts a call whose turn it is, unless its pool's range sets are being merged.
    fn start(&mut self, now: BootTime, waiting: Waiting) {
        let pool = match &waiting.work {
            Work::Add(add) => add.pool.clone(),
            // Held addresses go back to the range sets that they came from, regardless of the
            // current configuration.
            Work::Del(del) => self
                .held
                .find(&del.id)
                .map_or_else(|| del.id.network.clone(), |holding| holding.scope.pool.clone()),
        };
        let entry = self.networks.entry(pool.clone()).or_default();
        if entry.merging > 0 || !entry.merge_barrier.is_empty() {
            if entry.merge_barrier.len() < limits::CALLS_AT_BARRIER_MAX {
                entry.merge_barrier.push_back(waiting);
            } else {
                let error = CallError::Busy(Crowd::Network);
                self.end(now, waiting.reply_to, waiting.work.id(), Outcome::Failed(error));
            }
            return;
        }
        entry.in_flight += 1;
        match waiting.work {
            Work::Add(add) => self.start_add(now, waiting.reply_to, add),
            Work::Del(del) => self.start_del(now, waiting.reply_to, &pool, &del),
        }
    }

    fn start_add(&mut self, now: BootTime, reply_to: ReplyTo, add: Box<Add>) {
        match self.answer_without_work(&add) {
            None => {}
            Some(Outcome::Added(holding)) if is_newer(&add, &holding) => {
                return self.renew(reply_to, holding, *add);
            }
            Some(outcome) => return self.finish(now, reply_to, (&add.pool, &add.id), outcome),
        }
        let mut sets = Vec::with_capacity(add.sets.len());
        for allowed in &add.sets {
            match self.route(now, &add.pool, allowed) {
                Route::To(set) => sets.push(set),
                Route::AgreeBlockSize => {
                    let allowed = allowed.clone();
                    return self.agree_first(now, reply_to, add, allowed);
                }
                Route::Merge(ids) => return self.merge_first(now, reply_to, add, &ids),
                Route::Refused(error) => {
                    let outcome = Outcome::Failed(error);
                    return self.finish(now, reply_to, (&add.pool, &add.id), outcome);
                }
            }
        }
        let operation = self.next_operation();
        let (unmet, got) = (add.requested.clone(), Vec::with_capacity(sets.len()));
        self.operations.insert(operation, Operation::Adding { reply_to, add, sets, got, unmet });
        self.ask_next_set(operation);
    }

    /// Makes the holding that of a repeated ADD: a late DEL, or an undo, of the ADD before it must
    /// not end the holding with which this one is answered. Nor must a release that somebody
    /// decided on before it: the sequence number is new.
    fn renew(&mut self, reply_to: ReplyTo, before: Arc<Holding>, add: Add) {
        let holding = Arc::new(Holding {
            started_at: add.started_at,
            sequence: self.next_sequence,
            netns: add.netns,
            ..(*before).clone()
        });
        self.next_sequence = self.next_sequence.next();
        let operation = self.next_operation();
        let entries = vec![JournalEntry::End(before), JournalEntry::Hold(holding.clone())];
        let origin = HoldingOrigin::Renewed;
        self.operations.insert(operation, Operation::Holding { reply_to, holding, origin });
        self.effects.push_back(Effect::Commit(Some(operation), entries));
    }

    /// Returns the answer to an ADD that must not, or need not, assign anything.
    fn answer_without_work(&self, add: &Add) -> Option<Outcome> {
        if let Some(cause) = &self.broken {
            return Some(Outcome::Failed(CallError::Journal(cause.clone())));
        }
        if let Some(error) = self.tombstones.refuses(add) {
            return Some(Outcome::Failed(error));
        }
        let holding = self.held.find(&add.id)?;
        let refuse = |why| {
            let (id, held) = (Box::new(add.id.clone()), holding.addresses.to_vec());
            Some(Outcome::Failed(CallError::AlreadyHeld { id, held, why }))
        };
        if holding.scope.pool != add.pool {
            return refuse(HeldOtherwise::OtherPool);
        }
        if !add.requested.iter().all(|asked| holding.addresses.contains(asked)) {
            return refuse(HeldOtherwise::OtherAddresses);
        }
        let configured =
            |address: &IpAddr| add.sets.iter().any(|set| set.find_address(*address).is_some());
        if !holding.addresses.iter().all(configured) {
            return refuse(HeldOtherwise::OutOfRanges);
        }
        if holding.addresses.len() < add.sets.len() {
            return refuse(HeldOtherwise::MoreSets);
        }
        Some(Outcome::Added(holding))
    }

    /// Has the cluster agree on the block size of these ranges, and then starts again.
    fn agree_first(
        &mut self,
        now: BootTime,
        reply_to: ReplyTo,
        add: Box<Add>,
        allowed: Arc<Ranges>,
    ) {
        let pool = add.pool.clone();
        let Some(entry) = self.networks.get_mut(&pool) else { return };
        let waiting: usize = entry.agreeing.iter().map(|(_, waiting)| waiting.len()).sum();
        if waiting >= limits::CALLS_AT_BARRIER_MAX {
            let outcome = Outcome::Failed(CallError::Busy(Crowd::Network));
            return self.finish(now, reply_to, (&pool, &add.id), outcome);
        }
        entry.in_flight -= 1;
        let waiting = Waiting { reply_to, work: Work::Add(add) };
        match entry.agreeing.iter_mut().find(|(agreeing, _)| *agreeing == allowed) {
            Some((_, others)) => others.push(waiting),
            None => {
                entry.agreeing.push((allowed.clone(), vec![waiting]));
                self.effects.push_back(Effect::AgreeBlockSize(pool.clone(), allowed));
            }
        }
        self.open_merge_barrier(now, &pool);
    }

    /// Handles the end of an [`Effect::AgreeBlockSize`].
    pub fn block_size_agreed(
        &mut self,
        now: BootTime,
        network: &Arc<str>,
        allowed: &Arc<Ranges>,
        result: Result<BlockSize, BlockSizeError>,
    ) {
        let Some(entry) = self.networks.get_mut(network) else { return };
        let Some(at) = entry.agreeing.iter().position(|(agreeing, _)| agreeing == allowed) else {
            return;
        };
        let (allowed, waiting) = entry.agreeing.swap_remove(at);
        entry.agreed.retain(|(_, _, until)| now < *until);
        entry.agreed.push((allowed, result, now + limits::CLAIM_PAUSE));
        for call in waiting {
            self.start(now, call);
        }
    }

    /// Merges range sets into one when no other operation of the network is open, and then starts
    /// again.
    fn merge_first(&mut self, now: BootTime, reply_to: ReplyTo, add: Box<Add>, ids: &[SetId]) {
        let pool = add.pool.clone();
        let Some(entry) = self.networks.get_mut(&pool) else { return };
        entry.in_flight -= 1;
        entry.merge_barrier.push_front(Waiting { reply_to, work: Work::Add(add) });
        if entry.in_flight == 0 {
            self.merge(&pool, ids);
        }
        self.open_merge_barrier(now, &pool);
    }

    /// Lets the calls that waited continue, once no operation is open.
    pub(super) fn open_merge_barrier(&mut self, now: BootTime, network: &Arc<str>) {
        let Some(entry) = self.networks.get_mut(network) else { return };
        if entry.in_flight == 0 && entry.merging == 0 {
            let waiting = std::mem::take(&mut entry.merge_barrier);
            for call in waiting {
                self.start(now, call);
            }
        }
    }

    /// Asks the next range set for an address, or goes on to the journal. As in host-local, each
    /// set gets the first address asked for that it contains.
    fn ask_next_set(&mut self, operation: OperationId) {
        let Some(Operation::Adding { add, sets, got, unmet, .. }) =
            self.operations.get_mut(&operation)
        else {
            return;
        };
        let set_index = got.len();
        let allowed = add.sets[set_index].clone();
        let requested =
            unmet.iter().position(|requested| allowed.find_address(*requested).is_some());
        let requested = requested.map(|i| Address::of(unmet.remove(i)));
        #[allow(clippy::cast_possible_truncation)]
        let request = Assign {
            id: operation,
            set_index: set_index as u16,
            allowed,
            requested,
            stage: add.stage,
        };
        self.effects.push_back(Effect::Assign(sets[set_index], request));
    }

    /// Returns the call whose ADD is this operation, while it collects addresses.
    pub fn call_of(&self, operation: OperationId) -> Option<CallId> {
        match self.operations.get(&operation) {
            Some(Operation::Adding { reply_to: ReplyTo::Call(call), .. }) => Some(*call),
            _ => None,
        }
    }

    /// Handles the end of an [`Effect::Assign`].
    pub fn assigned(
        &mut self,
        now: BootTime,
        operation: OperationId,
        result: Result<Address, AssignError>,
    ) {
        if self.outrun.remove(&operation) {
            return self.add_anew(now, operation, result.ok());
        }
        let Some(Operation::Adding { add, got, unmet, .. }) = self.operations.get_mut(&operation)
        else {
            return;
        };
        let error = match result {
            Ok(number) => {
                got.push(number);
                if got.len() < add.sets.len() {
                    return self.ask_next_set(operation);
                }
                if unmet.is_empty() {
                    return self.commit_add(operation);
                }
                CallError::NotAllAsked(std::mem::take(unmet))
            }
            Err(error) => CallError::Assign { set: got.len(), error },
        };
        let Some(Operation::Adding { reply_to, add, sets, got, .. }) =
            self.operations.remove(&operation)
        else {
            return;
        };
        let cursors = cursors(&sets, &got);
        for (set, number) in sets.into_iter().zip(got) {
            self.effects.push_back(Effect::Undo(set, number));
        }
        if cursors.is_empty() {
            return self.finish(now, reply_to, (&add.pool, &add.id), Outcome::Failed(error));
        }
        // As in host-local, the cursor stays where the failed ADD moved it, regardless of what
        // follows.
        self.operations.insert(operation, Operation::Failing { reply_to, add, error });
        self.effects.push_back(Effect::Commit(Some(operation), cursors));
    }

    /// Starts again an ADD that was collecting addresses when the node recovered: its attachment
    /// may hold some. The addresses that it has go back, but for those that are held since.
    fn add_anew(&mut self, now: BootTime, operation: OperationId, last: Option<Address>) {
        let Some(Operation::Adding { reply_to, add, sets, got, .. }) =
            self.operations.remove(&operation)
        else {
            return;
        };
        let family = |index: usize| add.sets.get(index).map(|set| set.family());
        for (index, (set, number)) in sets.into_iter().zip(got.into_iter().chain(last)).enumerate()
        {
            let Some(address) = family(index).map(|family| family.address(number)) else {
                continue;
            };
            let recovered = |held: &Arc<Holding>| {
                held.scope.pool == add.pool && held.addresses.contains(&address)
            };
            if !self.held.all().any(recovered) {
                self.effects.push_back(Effect::Undo(set, number));
            }
        }
        self.start_add(now, reply_to, add);
    }

    fn commit_add(&mut self, operation: OperationId) {
        let Some(Operation::Adding { reply_to, add, sets, got, .. }) =
            self.operations.remove(&operation)
        else {
            return;
        };
        let mut entries = cursors(&sets, &got);
        let addresses =
            add.sets.iter().zip(got).map(|(allowed, number)| allowed.family().address(number));
        let addresses: Vec<IpAddr> = addresses.collect();
        let AttachmentId { network, container_id, ifname } = add.id;
        let holding = Arc::new(Holding {
            scope: self.share(Scope { network, ifname, pool: add.pool }),
            container_id,
            addresses: addresses.into(),
            sequence: self.next_sequence,
            started_at: add.started_at,
            since: add.at,
            stage: add.stage,
            pod: add.pod.map(Box::new),
            netns: add.netns,
        });
        self.next_sequence = self.next_sequence.next();
        entries.push(JournalEntry::Hold(holding.clone()));
        let origin = HoldingOrigin::New;
        self.operations.insert(operation, Operation::Holding { reply_to, holding, origin });
        self.effects.push_back(Effect::Commit(Some(operation), entries));
    }

    /// Answers an open call on a pool and lets the next ones begin.
    pub(super) fn finish(
        &mut self,
        now: BootTime,
        reply_to: ReplyTo,
        (pool, id): (&Arc<str>, &AttachmentId),
        outcome: Outcome,
    ) {
        if let Some(entry) = self.networks.get_mut(pool) {
            entry.in_flight -= 1;
        }
        self.end(now, reply_to, id, outcome);
        self.open_merge_barrier(now, pool);
        let unused = |entry: &Network| {
            entry.in_flight == 0 && entry.sets.is_empty() && entry.agreeing.is_empty()
        };
        if self.networks.get(pool).is_some_and(unused) {
            self.networks.remove(pool); // a DEL on a network that nobody ever used
        }
    }

    /// Answers a call and starts the next one of its attachment.
    pub(super) fn end(
        &mut self,
        now: BootTime,
        reply_to: ReplyTo,
        id: &AttachmentId,
        outcome: Outcome,
    ) {
        self.answer(reply_to, outcome);
        match self.queues.get_mut(id).map(VecDeque::pop_front) {
            Some(Some(next)) => self.start(now, next),
            Some(None) => drop(self.queues.remove(id)),
            None => {}
        }
    }

    pub(super) fn answer(&mut self, reply_to: ReplyTo, outcome: Outcome) {
        let operation = match reply_to {
            ReplyTo::Call(call) => return self.effects.push_back(Effect::Reply(call, outcome)),
            ReplyTo::Gc(operation) => operation,
        };
        let Some(Operation::Collecting { call, left, ended, failed }) =
            self.operations.get_mut(&operation)
        else {
            return;
        };
        *left -= 1;
        match outcome {
            Outcome::Ended(count) => *ended += count,
            Outcome::Failed(error) => *failed = Some(error),
            Outcome::Added(_) => {}
        }
        if *left == 0 {
            let outcome = failed.take().map_or(Outcome::Ended(*ended), Outcome::Failed);
            self.effects.push_back(Effect::Reply(*call, outcome));
            self.operations.remove(&operation);
        }
    }

    pub(super) fn next_operation(&mut self) -> OperationId {
        let operation = self.next_operation;
        self.next_operation = operation.next();
        operation
    }
}

/// Returns whether a repeated ADD is a later one. Without start times, another namespace shows it:
/// from now on the pod in that namespace holds the addresses.
fn is_newer(add: &Add, holding: &Holding) -> bool {
    add.started_at > holding.started_at
        || add.started_at == holding.started_at && add.netns != holding.netns
}

/// Returns the entries that move the cursor of each set to its address.
fn cursors(sets: &[SetId], got: &[Address]) -> Vec<JournalEntry> {
    let cursor = |(set_index, (&set, &number)): (usize, (&SetId, &Address))| {
        #[allow(clippy::cast_possible_truncation)]
        JournalEntry::Cursor(set, set_index as u16, number)
    };
    sets.iter().zip(got).enumerate().map(cursor).collect()
}
