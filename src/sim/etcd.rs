//! A model of etcd: keys with revisions, transactions, leases, watches; and its restoring from a
//! backup.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Millis;
use crate::core::ids::{LeaseId, Revision};
use crate::core::keys::BLOCKS;
use crate::core::txn::{
    Answer, Compare, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Watched, Write,
};
use crate::core::value::Value;

#[derive(Clone, Debug)]
struct Stored {
    value: Value,
    mod_revision: Revision,
    lease: Option<LeaseId>,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl: Millis,
    until: Millis,
}

/// The counts of requests to etcd: the counters of the table of scale.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counters {
    pub(crate) txns: u64,
    pub(crate) reads: u64,
    pub(crate) leases: u64,
    pub(crate) writes: u64,
    /// Transactions that changed blocks.
    pub(crate) block_txns: u64,
    pub(crate) events: u64,
}

/// The store of all nodes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Etcd {
    keys: BTreeMap<String, Stored>,
    leases: BTreeMap<LeaseId, Lease>,
    /// The number of transactions that have written.
    written: u64,
    last_lease: i64,
    /// Changes that no watcher was told yet.
    changes: Vec<Watched>,
    pub(crate) counters: Counters,
}

impl Etcd {
    pub(crate) fn ask(&mut self, now: Millis, request: Request) -> Result<Answer, StoreError> {
        self.expire(now);
        match request {
            Request::Txn(txn) => {
                self.counters.txns += 1;
                self.txn(txn).map(Answer::Txn)
            }
            Request::Read(spans) => {
                self.counters.reads += 1;
                let spans = spans.iter().map(|span| self.read(span)).collect();
                Ok(Answer::Read(Snapshot { revision: self.revision(), spans }))
            }
            Request::Grant(life) => {
                self.counters.leases += 1;
                self.last_lease += 1;
                let ttl = life.as_secs() * 1000;
                let lease = LeaseId::new(self.last_lease).expect("leases count from 1");
                self.leases.insert(lease, Lease { ttl, until: now + ttl });
                Ok(Answer::Granted(lease, life))
            }
            Request::KeepAlive(lease) => {
                self.counters.leases += 1;
                Ok(Answer::Kept(self.leases.get_mut(&lease).map(|lease| {
                    lease.until = now + lease.ttl;
                    Duration::from_millis(lease.ttl)
                })))
            }
            Request::TimeLeft(lease) => {
                self.counters.leases += 1;
                let left =
                    |lease: &Lease| Duration::from_secs(lease.until.saturating_sub(now) / 1000);
                Ok(Answer::Left(self.leases.get(&lease).map(left)))
            }
            Request::Revoke(lease) => {
                self.counters.leases += 1;
                self.end_lease(lease);
                Ok(Answer::Revoked)
            }
        }
    }

    /// Returns the revision; that of an empty store is the first one, as in etcd.
    fn revision(&self) -> Revision {
        Revision::new(self.written + 1).expect("it counts from 1")
    }

    fn txn(&mut self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        assert!(txn.when.len() <= 128 && txn.then.len() <= 128, "too many operations");
        // As etcd has it: a key is put once, and not also deleted; to delete it twice is no error.
        let (puts, deletes): (Vec<&Write>, Vec<&Write>) =
            txn.then.iter().partition(|write| matches!(write, Write::Put(..)));
        let mut put: Vec<&String> = puts.into_iter().map(Write::key).collect();
        put.sort_unstable();
        assert!(put.windows(2).all(|pair| pair[0] != pair[1]), "a key is put twice");
        let deleted = |key: &&String| deletes.iter().any(|delete| delete.key() == *key);
        assert!(!put.iter().any(deleted), "a key is put and deleted");
        let deleted = |key: &String| {
            txn.then.iter().any(
                |write| matches!(write, Write::DeleteIn(first, past) if first <= key && key < past),
            )
        };
        let put = |write: &Write| matches!(write, Write::Put(key, ..) if deleted(key));
        assert!(!txn.then.iter().any(put), "a key is put and deleted");
        if !txn.when.iter().all(|compare| self.holds(compare)) {
            return Ok(TxnOutcome::Refused(self.revision()));
        }
        let gone = |write: &Write| match write {
            Write::Put(_, _, Some(lease)) => !self.leases.contains_key(lease),
            _ => false,
        };
        if txn.then.iter().any(gone) {
            return Err(StoreError::LeaseGone);
        }
        if !txn.then.is_empty() {
            self.written += 1;
        }
        let of_block = |write: &Write| write.key().starts_with(BLOCKS);
        self.counters.block_txns += u64::from(txn.then.iter().any(of_block));
        for write in txn.then {
            self.counters.writes += 1;
            match write {
                Write::Put(key, value, lease) => {
                    let stored = Stored { value, mod_revision: self.revision(), lease };
                    self.changes.push(Watched::Put(key_value(&key, &stored)));
                    self.keys.insert(key, stored);
                }
                Write::Delete(key) => {
                    if self.keys.remove(&key).is_some() {
                        self.changes.push(Watched::Deleted(key));
                    }
                }
                Write::DeleteIn(first, past) => {
                    for (key, _) in self.keys.extract_if(first..past, |_, _| true) {
                        self.changes.push(Watched::Deleted(key));
                    }
                }
            }
        }
        Ok(TxnOutcome::Done(self.revision()))
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::At(key, revision) => {
                self.keys.get(key).is_some_and(|stored| stored.mod_revision == *revision)
            }
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::NoneIn(first, past) => {
                assert!(first < past, "an empty range");
                self.keys.range(first.clone()..past.clone()).next().is_none()
            }
        }
    }

    /// Returns the number of keys.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn read(&self, span: &Span) -> Vec<KeyValue> {
        let found = self.keys.range(span.first.clone()..span.past.clone());
        found.take(span.limit).map(|(key, stored)| key_value(key, stored)).collect()
    }

    /// Ends the leases whose time is over.
    pub(crate) fn expire(&mut self, now: Millis) {
        let over = self.leases.iter().filter(|(_, lease)| lease.until < now);
        for lease in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end_lease(lease);
        }
    }

    fn end_lease(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        let on_it = self.keys.iter().filter(|(_, stored)| stored.lease == Some(lease));
        let gone: Vec<String> = on_it.map(|(key, _)| key.clone()).collect();
        if !gone.is_empty() {
            self.written += 1;
        }
        for key in gone {
            self.keys.remove(&key);
            self.changes.push(Watched::Deleted(key));
        }
    }

    pub(crate) fn take_changes(&mut self) -> Vec<Watched> {
        std::mem::take(&mut self.changes)
    }

    /// Becomes what it was, as from a backup. Leases have their full time again, and never the
    /// names of later ones.
    pub(crate) fn restore(&mut self, now: Millis, backup: &Self) {
        let (last_lease, counters) = (self.last_lease + 1000, self.counters);
        *self = Self { last_lease, counters, changes: Vec::new(), ..backup.clone() };
        for lease in self.leases.values_mut() {
            lease.until = now + lease.ttl;
        }
    }
}

fn key_value(key: &str, stored: &Stored) -> KeyValue {
    let Stored { value, mod_revision, lease } = stored.clone();
    KeyValue { key: key.to_owned(), value, mod_revision, lease }
}

impl Write {
    /// Returns the (first) key that is written.
    pub(crate) fn key(&self) -> &String {
        match self {
            Self::Put(key, ..) | Self::Delete(key) | Self::DeleteIn(key, _) => key,
        }
    }
}
