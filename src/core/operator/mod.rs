//! The commands of an operator that change the cluster's store: removing a node and draining one,
//! changing a network's configuration, and deleting a record of an allocation that does not exist.
//!
//! Each command is a machine: it says what to ask the store next, is told the answer, and ends
//! with a result. A program drives it with [`Command::start`] and [`Command::answered`], and asks
//! the store one thing at a time. Every command may be repeated, also after it ended with an
//! error: what is done already is not done again.

mod drain;
mod network;
mod node_keys;
mod phase;
mod record;
mod remove;
#[cfg(test)]
mod tests;
pub mod txns;
mod types;

pub use self::drain::{DrainError, DrainNode, DrainNodeCommand, Drained};
pub use self::network::{
    ChangeNetwork, ChangeNetworkCommand, ChangeNetworkError, ChangedNetwork, Expected,
    NetworkChange, NetworkObject, ObjectReader,
};
pub use self::record::{DeleteRecord, DeleteRecordCommand, RecordFate};
pub use self::remove::RemoveNode;
pub use self::types::{NodeFate, RemoveError, RemoveNodeCommand, Removed};
use super::txn::{Answer, KeyValue, Request, Snapshot, StoreError};
use crate::core::time::UnixTime;

/// The next thing that a command needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step<T> {
    /// To ask the store, and to be told the answer.
    Ask(Request),
    /// Nothing: it has ended.
    Done(T),
}

/// A command that has begun.
pub trait Command {
    /// The result of the command.
    type End;

    /// Begins the command. `now`: the time of the command.
    fn start(&mut self, now: UnixTime) -> Step<Self::End>;

    /// Goes on with the answer to the last request.
    fn answered(&mut self, answer: Result<Answer, StoreError>) -> Step<Self::End>;
}

/// Returns the first key of the first span.
fn first(snapshot: &Snapshot) -> Option<&KeyValue> {
    snapshot.spans.first().and_then(|found| found.first())
}
