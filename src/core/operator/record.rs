//! Deleting a record of an allocation that does not exist.
//!
//! A record is deleted by the node that wrote it, or by any node if that one is not in the cluster
//! any longer. The transaction compares the record and, if it is another node's, that node's key.

use std::sync::Arc;

use super::{Command, Step, first};
use crate::core::ids::Revision;
use crate::core::keys::node_key;
use crate::core::time::UnixTime;
use crate::core::txn::{
    Answer, Compare, KeyValue, Request, Span, StoreError, Txn, TxnOutcome, Write,
};
use crate::core::value::Value;

/// The command to delete a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRecordCommand {
    /// Its key.
    pub key: String,
    /// The revision at which it was found without its allocation.
    pub revision: Revision,
    /// The node whose daemon carries this out.
    pub node: Arc<str>,
    /// Find out what would be done, and change nothing.
    pub dry_run: bool,
}

/// The fate of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordFate {
    /// It was deleted; in a dry run, it would have been.
    Deleted,
    /// It was written again, or deleted, since it was found.
    Changed,
    /// The same, between look and transaction.
    ChangedMeanwhile,
    /// The key is not that of a record.
    NoRecord,
    /// Its allocation is there.
    Held,
    /// Another node wrote it, which is in the cluster.
    NodeIsThere(Arc<str>),
}

/// The deletion of a record: see the module.
#[derive(Clone, Debug)]
pub struct DeleteRecord<H> {
    command: DeleteRecordCommand,
    /// Returns whether this node holds the allocation of a record that it wrote itself; none: the
    /// key is not that of a record.
    held: H,
    phase: RecordPhase,
}

#[derive(Clone, Debug)]
enum RecordPhase {
    Reading,
    /// The key of the node that wrote it is read.
    Asking(Arc<str>),
    Writing,
}

type End = Result<RecordFate, StoreError>;

impl<H: Fn(&KeyValue) -> Option<bool>> Command for DeleteRecord<H> {
    type End = End;

    fn start(&mut self, _: UnixTime) -> Step<End> {
        Step::Ask(Request::Read(vec![Span::key(&self.command.key)]))
    }

    fn answered(&mut self, answer: Result<Answer, StoreError>) -> Step<End> {
        match (self.phase.clone(), answer) {
            (RecordPhase::Reading, Ok(Answer::Read(snapshot))) => self.decide(first(&snapshot)),
            (RecordPhase::Asking(node), Ok(Answer::Read(snapshot))) => {
                self.decide_by_node(node, first(&snapshot))
            }
            (RecordPhase::Writing, Ok(Answer::Txn(outcome))) => done(match outcome {
                TxnOutcome::Done(_) => RecordFate::Deleted,
                TxnOutcome::Refused(_) => RecordFate::ChangedMeanwhile,
            }),
            (_, Err(error)) => Step::Done(Err(error)),
            (_, Ok(_)) => Step::Done(Err(StoreError::OddAnswer)),
        }
    }
}

impl<H: Fn(&KeyValue) -> Option<bool>> DeleteRecord<H> {
    /// Prepares a deletion. `held` says whether this node holds the allocation of a record; none:
    /// the key is not that of a record.
    pub fn new(command: DeleteRecordCommand, held: H) -> Self {
        Self { command, held, phase: RecordPhase::Reading }
    }

    fn decide(&mut self, key: Option<&KeyValue>) -> Step<End> {
        let Some(key) = key.filter(|key| key.mod_revision == self.command.revision) else {
            return done(RecordFate::Changed);
        };
        let (Value::Allocation(value), Some(held)) = (&key.value, (self.held)(key)) else {
            return done(RecordFate::NoRecord);
        };
        let node = value.node.clone();
        if *node != *self.command.node {
            self.phase = RecordPhase::Asking(node.clone());
            return Step::Ask(Request::Read(vec![Span::key(&node_key(&node))]));
        }
        if held { done(RecordFate::Held) } else { self.delete(None) }
    }

    fn decide_by_node(&mut self, node: Arc<str>, key: Option<&KeyValue>) -> Step<End> {
        let is_removed =
            |key: &KeyValue| matches!(&key.value, Value::Node(node) if node.removed.is_some());
        match key {
            Some(key) if !is_removed(key) => done(RecordFate::NodeIsThere(node)),
            key => {
                let revision = key.map(|key| key.mod_revision);
                self.delete(Some(Compare::unchanged(node_key(&node), revision)))
            }
        }
    }

    fn delete(&mut self, and: Option<Compare>) -> Step<End> {
        if self.command.dry_run {
            return done(RecordFate::Deleted);
        }
        let DeleteRecordCommand { key, revision, .. } = &self.command;
        let when = [Compare::At(key.clone(), *revision)].into_iter().chain(and).collect();
        let then = vec![Write::Delete(key.clone())];
        self.phase = RecordPhase::Writing;
        Step::Ask(Request::Txn(Txn { when, then }))
    }
}

fn done(fate: RecordFate) -> Step<End> {
    Step::Done(Ok(fate))
}
