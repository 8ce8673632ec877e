//! The end of a holding, and the end of each commit.

use std::sync::Arc;

use super::{
    CallError, Coordinator, Del, Effect, HoldingOrigin, HoldingSelector, Operation, Outcome,
    ReplyTo,
};
use crate::core::address::{Address, Family};
use crate::core::attachment::Holding;
use crate::core::cause::Cause;
use crate::core::ids::OperationId;
use crate::core::journal::JournalEntry;
use crate::core::journal::JournalFailure;
use crate::core::mutant::{Mutant, broken};
use crate::core::set_identity::SetId;
use crate::core::time::BootTime;
use crate::limits;

impl Coordinator {
    pub(super) fn start_del(
        &mut self,
        now: BootTime,
        reply_to: ReplyTo,
        pool: &Arc<str>,
        del: &Del,
    ) {
        if let HoldingSelector::StartedBy(started_at) = del.selector {
            self.tombstones.insert(&del.id, started_at);
        }
        if let Some(cause) = self.broken.clone().filter(|_| self.unsure.contains(&del.id)) {
            let outcome = Outcome::Failed(CallError::Journal(cause));
            return self.finish(now, reply_to, (pool, &del.id), outcome);
        }
        let early = self.keep_early_del(del);
        let holding = self.held.find(&del.id);
        let Some(holding) = holding.filter(|holding| del.selector.matches(holding)) else {
            if let Some(entry) = early {
                return self.remember_del(now, reply_to, pool, del, entry);
            }
            return self.finish(now, reply_to, (pool, &del.id), Outcome::Ended(0));
        };
        if let Some(cause) = &self.broken {
            let outcome = Outcome::Failed(CallError::Journal(cause.clone()));
            return self.finish(now, reply_to, (pool, &del.id), outcome);
        }
        self.end_holding(now, reply_to, holding, None, early);
    }

    /// Remembers a DEL that comes before the node has joined: the node cannot know yet whether its
    /// journal forgot what this DEL ends (rule 28). Returns the entry for the journal.
    fn keep_early_del(&mut self, del: &Del) -> Option<JournalEntry> {
        let HoldingSelector::StartedBy(started_at) = del.selector else { return None };
        let early_dels = self.early_dels.as_mut()?;
        if early_dels.len() >= limits::TOMBSTONES_MAX && !early_dels.contains_key(&del.id) {
            return None;
        }
        let latest = early_dels.entry(del.id.clone()).or_insert(started_at);
        *latest = started_at.max(*latest);
        let entry = JournalEntry::EarlyDel(del.id.clone(), *latest);
        (!broken(Mutant::EarlyDelForgotten)).then_some(entry)
    }

    /// Answers a DEL that ended nothing when the journal knows of it.
    fn remember_del(
        &mut self,
        now: BootTime,
        reply_to: ReplyTo,
        pool: &Arc<str>,
        del: &Del,
        entry: JournalEntry,
    ) {
        if let Some(cause) = self.broken.clone() {
            // Nothing remembers it: what it ends may come back from the records.
            self.unsure.insert(del.id.clone());
            let outcome = Outcome::Failed(CallError::Journal(cause));
            return self.finish(now, reply_to, (pool, &del.id), outcome);
        }
        let (operation, pool, id) = (self.next_operation(), pool.clone(), del.id.clone());
        self.operations.insert(operation, Operation::Remembering { reply_to, pool, id });
        self.effects.push_back(Effect::Commit(Some(operation), vec![entry]));
    }

    /// Remembers that the node has joined, and has recovered what its journal forgot.
    pub fn joined(&mut self) {
        if self.early_dels.take().is_some_and(|dels| !dels.is_empty()) {
            self.commit_aside(vec![JournalEntry::NoEarlyDels]);
        }
    }

    /// Ends a holding: durably first, then its addresses cool.
    fn end_holding(
        &mut self,
        now: BootTime,
        reply_to: ReplyTo,
        holding: Arc<Holding>,
        undone: Option<CallError>,
        early: Option<JournalEntry>,
    ) {
        let network = self.networks.entry(holding.scope.pool.clone()).or_default();
        let owned = holding.addresses.iter().filter_map(|&address| {
            let number = Address::of(address);
            Some((network.owner(Family::of(address), number)?, number))
        });
        let numbers: Vec<(SetId, Address)> = owned.collect();
        let mut entries = vec![JournalEntry::End(holding.clone())];
        entries.extend(early);
        if !self.settings.cooldown.is_zero() {
            entries
                .extend(numbers.iter().map(|&(set, number)| JournalEntry::Cool(set, number, now)));
        }
        let operation = self.next_operation();
        if broken(Mutant::DelBeforeDurable) {
            for (set, number) in numbers.iter().copied() {
                self.effects.push_back(Effect::Release(set, number));
            }
        }
        self.operations.insert(operation, Operation::Ending { reply_to, holding, numbers, undone });
        self.effects.push_back(Effect::Commit(Some(operation), entries));
    }

    /// Handles the end of an [`Effect::Commit`]: the entries are durable, or nothing ever will be
    /// again.
    pub fn committed(
        &mut self,
        now: BootTime,
        operation: OperationId,
        result: Result<(), JournalFailure>,
    ) {
        if let Err(cause) = &result {
            self.broken.get_or_insert_with(|| cause.clone());
        }
        let operation = self.operations.remove(&operation);
        let failed = result.err().map(|cause| Outcome::Failed(CallError::Journal(cause)));
        match operation {
            Some(Operation::Holding { reply_to, holding, origin }) => {
                let (pool, id) = (holding.scope.pool.clone(), holding.id());
                // A holding that the journal did not confirm stays assigned in memory: after a
                // restart the journal says whether it has it.
                if failed.is_some() {
                    self.unsure.insert(id.clone());
                } else {
                    self.held.insert(holding.clone());
                    self.effects.push_back(Effect::Held(holding.clone()));
                    if self.await_records {
                        let operation = self.next_operation();
                        self.effects.push_back(Effect::AwaitRecord(operation, holding.clone()));
                        let waiting = Operation::Recording { reply_to, holding, origin };
                        self.operations.insert(operation, waiting);
                        return;
                    }
                }
                let outcome = failed.unwrap_or(Outcome::Added(holding));
                self.finish(now, reply_to, (&pool, &id), outcome);
            }
            Some(Operation::Ending { reply_to, holding, numbers, undone }) => {
                let outcome = failed.unwrap_or_else(|| {
                    self.held.remove(&holding.id());
                    self.effects.push_back(Effect::Ended(holding.clone()));
                    for (set, number) in numbers {
                        if !broken(Mutant::DelBeforeDurable) {
                            self.effects.push_back(Effect::Release(set, number));
                        }
                    }
                    undone.map_or(Outcome::Ended(1), Outcome::Failed)
                });
                // With `commit = "etcd"` the record goes before the answer (rule 29).
                let awaits = self.await_records && !broken(Mutant::EndNotAwaited);
                if awaits && matches!(outcome, Outcome::Ended(_)) {
                    let operation = self.next_operation();
                    self.effects.push_back(Effect::AwaitEnd(operation, holding.clone()));
                    self.operations.insert(operation, Operation::Unrecording { reply_to, holding });
                    return;
                }
                self.finish(now, reply_to, (&holding.scope.pool, &holding.id()), outcome);
            }
            Some(Operation::Remembering { reply_to, pool, id }) => {
                if failed.is_some() {
                    self.unsure.insert(id.clone());
                }
                let outcome = failed.unwrap_or(Outcome::Ended(0));
                self.finish(now, reply_to, (&pool, &id), outcome);
            }
            Some(Operation::Failing { reply_to, add, error }) => {
                self.finish(now, reply_to, (&add.pool, &add.id), Outcome::Failed(error));
            }
            _ => {}
        }
    }

    /// Handles the end of an [`Effect::AwaitRecord`]: the record is in the store, or why that is
    /// not known.
    pub fn recorded(&mut self, now: BootTime, operation: OperationId, result: Result<(), Cause>) {
        let (reply_to, holding, origin) = match self.operations.remove(&operation) {
            Some(Operation::Recording { reply_to, holding, origin }) => (reply_to, holding, origin),
            // A DEL does not fail because of the store.
            Some(Operation::Unrecording { reply_to, holding }) => {
                let (pool, id) = (holding.scope.pool.clone(), holding.id());
                return self.finish(now, reply_to, (&pool, &id), Outcome::Ended(1));
            }
            _ => return,
        };
        let (pool, id) = (holding.scope.pool.clone(), holding.id());
        match result {
            Ok(()) => self.finish(now, reply_to, (&pool, &id), Outcome::Added(holding)),
            Err(cause) if origin == HoldingOrigin::Renewed && !broken(Mutant::UndoEndsMore) => {
                let outcome = Outcome::Failed(CallError::RenewalNotRecorded(cause));
                self.finish(now, reply_to, (&pool, &id), outcome);
            }
            Err(cause) => {
                let undone = Some(CallError::NotRecorded(cause));
                self.end_holding(now, reply_to, holding, undone, None);
            }
        }
    }
}
