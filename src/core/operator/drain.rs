//! Draining a node: it gives its blocks back and refuses ADD until that is undone.
//!
//! The drain is a key of its own, which the node watches. A transaction whose answer was lost is
//! looked up by reading again.

use std::sync::Arc;

use super::{Command, Step};
use crate::core::keys::{drain_key, node_key, session_key};
use crate::core::time::UnixTime;
use crate::core::txn::{
    Answer, Compare, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Write,
};
use crate::core::value::Value;
use crate::limits;

/// The command to drain a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainNodeCommand {
    /// The node.
    pub node: Arc<str>,
    /// End the drain.
    pub undo: bool,
}

/// The result of a drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// True if the node is being drained now.
    pub draining: bool,
    /// True if that is new.
    pub changed: bool,
    /// True if the node has a session; without one it learns of the drain when it joins.
    pub live: bool,
}

/// The reason why a node is not drained, or the drain not undone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DrainError {
    /// The store has no such node.
    UnknownNode,
    /// Its drain changed between look and transaction at each of [`limits::CHANGE_TRIES_MAX`]
    /// tries.
    Busy,
    /// The store did not answer as it should; if it was asked for a change, that may have been
    /// carried out.
    Store(StoreError),
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum DrainPhase {
    #[default]
    Reading,
    Writing,
}

/// The beginning or the end of a drain: see the module.
#[derive(Clone, Debug)]
pub struct DrainNode {
    command: DrainNodeCommand,
    at: UnixTime,
    phase: DrainPhase,
    tries: u32,
    /// True if the node had a session when it was last looked at.
    live: bool,
    /// The answer to a transaction was lost.
    lost: bool,
}

type End = Result<Drained, DrainError>;

impl Command for DrainNode {
    type End = End;

    fn start(&mut self, now: UnixTime) -> Step<End> {
        self.at = now;
        self.read_node()
    }

    fn answered(&mut self, answer: Result<Answer, StoreError>) -> Step<End> {
        match (self.phase, answer) {
            (DrainPhase::Reading, Ok(Answer::Read(snapshot))) => self.decide(&snapshot),
            (DrainPhase::Writing, Ok(Answer::Txn(TxnOutcome::Done(_)))) => self.done(true),
            (DrainPhase::Writing, Ok(Answer::Txn(TxnOutcome::Refused(_)))) => self.read_node(),
            (DrainPhase::Writing, Err(StoreError::Unknown(_))) => {
                self.lost = true;
                self.read_node()
            }
            (_, Err(StoreError::Failed(why))) if self.lost => {
                Step::Done(Err(DrainError::Store(StoreError::Unknown(why))))
            }
            (_, Err(error)) => Step::Done(Err(DrainError::Store(error))),
            (_, Ok(_)) => Step::Done(Err(DrainError::Store(StoreError::OddAnswer))),
        }
    }
}

impl DrainNode {
    /// Prepares the beginning or the end of a drain.
    pub fn new(command: DrainNodeCommand) -> Self {
        let (at, phase, tries) = (UnixTime::EPOCH, DrainPhase::Reading, 0);
        Self { command, at, phase, tries, live: false, lost: false }
    }

    fn read_node(&mut self) -> Step<End> {
        if self.tries == limits::CHANGE_TRIES_MAX {
            return Step::Done(Err(DrainError::Busy));
        }
        self.tries += 1;
        self.phase = DrainPhase::Reading;
        let node = &*self.command.node;
        let keys = [node_key(node), session_key(node), drain_key(node)];
        Step::Ask(Request::Read(keys.iter().map(|key| Span::key(key)).collect()))
    }

    fn decide(&mut self, snapshot: &Snapshot) -> Step<End> {
        let first = |i: usize| snapshot.spans.get(i).and_then(|found| found.first());
        let (known, drain) = (first(0).is_some(), first(2));
        self.live = first(1).is_some();
        let draining = !self.command.undo;
        if self.lost && drain.is_some() == draining {
            return self.done(true);
        }
        // The drain of a node that was forgotten can be undone.
        if !known && (draining || drain.is_none()) {
            return Step::Done(Err(DrainError::UnknownNode));
        }
        if drain.is_some() == draining {
            return self.done(false);
        }
        self.write(drain)
    }

    fn write(&mut self, drain: Option<&KeyValue>) -> Step<End> {
        let key = drain_key(&self.command.node);
        let revision = drain.map(|drain| drain.mod_revision);
        let when = vec![Compare::unchanged(key.clone(), revision)];
        let then = vec![match self.command.undo {
            true => Write::Delete(key),
            false => Write::Put(key, Value::Flag(self.at), None),
        }];
        self.phase = DrainPhase::Writing;
        Step::Ask(Request::Txn(Txn { when, then }))
    }

    fn done(&self, changed: bool) -> Step<End> {
        let (draining, live) = (!self.command.undo, self.live);
        Step::Done(Ok(Drained { draining, changed, live }))
    }
}
