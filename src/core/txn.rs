//! The requests to the cluster's store, in etcd's terms: keys with revisions, compared and written
//! in one step; leases on which keys hang; prefixes that are watched.

use std::sync::Arc;
use std::time::Duration;

use super::ids::{LeaseId, Revision};
use super::value::Value;

/// A condition on the store. A transaction is carried out only if all of its conditions hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key was last written at this revision.
    At(String, Revision),
    /// The key does not exist.
    Absent(String),
    /// No key from the first (included) to the second (excluded) exists.
    NoneIn(String, String),
}

impl Compare {
    /// Returns the condition that a key is as it was read: at its revision, or absent.
    pub fn unchanged(key: String, read: Option<Revision>) -> Self {
        match read {
            Some(revision) => Self::At(key, revision),
            None => Self::Absent(key),
        }
    }
}

/// A write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Sets a key to a value; with a lease, the key goes when the lease goes.
    Put(String, Value, Option<LeaseId>),
    /// Deletes a key; that it does not exist is no error.
    Delete(String),
    /// Deletes every key from the first (included) to the second (excluded). None of them may be
    /// put in the same transaction.
    DeleteIn(String, String),
}

/// Conditions and what to write if they hold.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Txn {
    /// All must hold.
    pub when: Vec<Compare>,
    /// Carried out together, or not at all.
    pub then: Vec<Write>,
}

/// The result of a transaction that the store answered. Both carry the store's revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxnOutcome {
    /// All conditions held; everything was written at this revision.
    Done(Revision),
    /// A condition did not hold; nothing was written.
    Refused(Revision),
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The revision of the key's last write.
    pub mod_revision: Revision,
    /// The lease on which it hangs.
    pub lease: Option<LeaseId>,
}

/// Keys from `first` (included) to `past` (excluded), at most `limit` of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first key.
    pub first: String,
    /// Behind the last key.
    pub past: String,
    /// The largest number of keys, which are read in order.
    pub limit: usize,
}

impl Span {
    /// Returns the span of one key.
    pub fn key(key: &str) -> Self {
        Self { first: key.to_owned(), past: format!("{key}\0"), limit: 1 }
    }

    /// Returns the span of every key with a prefix that ends in '/'.
    pub fn prefix(prefix: &str, limit: usize) -> Self {
        debug_assert!(prefix.ends_with('/'));
        // '0' comes right after '/'.
        let past = format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix));
        Self { first: prefix.to_owned(), past, limit }
    }

    /// Returns the part of this span that lies behind what a read of it has found; nothing if the
    /// read has found everything.
    pub fn rest(&self, found: &[KeyValue]) -> Option<Self> {
        let last = found.last().filter(|_| found.len() >= self.limit)?;
        Some(Self { first: format!("{}\0", last.key), ..self.clone() })
    }
}

/// The contents of spans, all at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The store's revision.
    pub revision: Revision,
    /// The keys of each span, in order.
    pub spans: Vec<Vec<KeyValue>>,
}

/// A request to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Carry out a transaction.
    Txn(Txn),
    /// Read spans, all at one revision, and see everything answered before.
    Read(Vec<Span>),
    /// Make a lease that lives for that many whole seconds without being kept alive.
    Grant(Duration),
    /// Make a lease live on.
    KeepAlive(LeaseId),
    /// Read how long a lease lives on if it is not kept alive.
    TimeLeft(LeaseId),
    /// End a lease, and with it its keys.
    Revoke(LeaseId),
}

/// An answer of the store, of the request's kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To a transaction.
    Txn(TxnOutcome),
    /// To a read.
    Read(Snapshot),
    /// A lease, and the life that it was granted: not always the one that was asked for.
    Granted(LeaseId, Duration),
    /// The time for which the lease lives on; nothing: it is gone.
    Kept(Option<Duration>),
    /// The time that is left of the lease; nothing: it is gone.
    Left(Option<Duration>),
    /// The lease is gone.
    Revoked,
}

/// The reason why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// It was not carried out, and never will be.
    Failed(Arc<str>),
    /// It was not carried out, and never will be: a lease that it names is gone.
    LeaseGone,
    /// It may have been carried out, or may be yet.
    Unknown(Arc<str>),
    /// The answer does not fit the request, so it says nothing.
    OddAnswer,
}

/// A report of a watch on a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    /// Everything under the prefix now: at first, and after each time that changes may have been
    /// missed.
    Listed(Vec<KeyValue>),
    /// A key was written.
    Put(KeyValue),
    /// A key was deleted, or went with its lease.
    Deleted(String),
}
