//! The store of a single node: a database on its own disk, in place of etcd.
//!
//! Every commit is synced: changes of ownership are rare (one for many addresses, ahead of
//! demand), and central configuration must survive the death of the machine.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::file::{self, Storage};
use super::value::{decode, encode};
use super::{ClusterStore, Pending, PendingForeign};
use crate::clock;
use crate::core::ids::{LeaseId, Revision};
use crate::core::time::BootTime;
use crate::core::txn::{
    Answer, Compare, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Watched, Write,
};
use crate::core::value::Value;
use crate::limits;

const KEYS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("keys");
/// The keys that hang on a lease, with that lease.
const LEASED: TableDefinition<'_, &str, i64> = TableDefinition::new("leased");
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("revision");
/// The format of all other tables: no later format may give this one another name or other types.
const WRITTEN_FORMAT: TableDefinition<'_, (), u64> = TableDefinition::new("format");

/// The format that this daemon writes. The daemon reads this format and all earlier ones.
///
/// - 0: like 1, but the file has no format number.
/// - 1: the first format with a number.
const FORMAT: u64 = 1;

/// Memory for redb's pages, in bytes.
const CACHE_BYTES: usize = 1 << 20;

/// The embedded store.
///
/// A lease that is not kept alive ends when its time is over, or a moment later. No lease outlives
/// the process that was granted it: opening the store ends the leases of an earlier process.
#[derive(Clone, Debug)]
pub struct Embedded {
    db: Arc<Database>,
    /// This process's leases. The lock is held for the whole of every change, so that changes are
    /// announced in the order in which they are carried out.
    leases: Arc<Mutex<Leases>>,
    changes: broadcast::Sender<Arc<Change>>,
}

type Leases = BTreeMap<LeaseId, Lease>;

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// The life of the lease when it is not kept alive.
    life: Duration,
    /// The end of the lease, on the boot clock.
    until: BootTime,
}

impl Lease {
    fn new(life: Duration) -> Self {
        Self { life, until: clock::boot() + life }
    }

    /// The rest of its life.
    fn left(self) -> Duration {
        self.until.since(clock::boot())
    }
}

/// The changes of one transaction.
#[derive(Debug)]
struct Change {
    revision: Revision,
    reports: Vec<Watched>,
}

fn failed(error: impl Display) -> StoreError {
    StoreError::Failed(format!("embedded store: {error}").into())
}

/// The error for a commit that failed: the disk may have it or not.
fn unknown(error: impl Display) -> StoreError {
    StoreError::Unknown(format!("embedded store: {error}").into())
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        failed(error)
    }
}

/// The format of a store; 0 also for a new store, which has no number yet.
fn format(db: &Database) -> Result<u64, StoreError> {
    let txn = db.begin_read().map_err(failed)?;
    let table = match txn.open_table(WRITTEN_FORMAT) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(0),
        table => table.map_err(failed)?,
    };
    let format = table.get(()).map_err(failed)?;
    Ok(format.map_or(0, |format| format.value()))
}

/// A revision of the file. Opening it raises the first one.
fn revision(number: u64) -> Result<Revision, StoreError> {
    Revision::new(number).ok_or_else(|| failed("the file has a revision 0"))
}

fn write_format(db: &Database) -> Result<(), StoreError> {
    let txn = db.begin_write().map_err(failed)?;
    txn.open_table(WRITTEN_FORMAT).map_err(failed)?.insert((), FORMAT).map_err(failed)?;
    txn.commit().map_err(failed)
}

/// The tables while a transaction writes.
struct Tables<'a> {
    keys: Table<'a, &'static str, (u64, &'static [u8])>,
    leased: Table<'a, &'static str, i64>,
    revisions: Table<'a, (), u64>,
    /// The revision of the last transaction.
    last: u64,
    /// True if this transaction changes something, and so has a revision of its own.
    raised: bool,
    reports: Vec<Watched>,
}

impl<'a> Tables<'a> {
    fn open(write: &'a WriteTransaction) -> Result<Self, TableError> {
        let revisions = write.open_table(REVISION)?;
        let last = revisions.get(())?.map_or(0, |value| value.value());
        let (keys, leased) = (write.open_table(KEYS)?, write.open_table(LEASED)?);
        Ok(Self { keys, leased, revisions, last, raised: false, reports: Vec::new() })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, StoreError> {
        Ok(match compare {
            Compare::At(key, revision) => {
                let found = self.keys.get(key.as_str()).map_err(failed)?;
                found.is_some_and(|value| value.value().0 == revision.get())
            }
            Compare::Absent(key) => self.keys.get(key.as_str()).map_err(failed)?.is_none(),
            Compare::NoneIn(first, past) => {
                let mut range = self.keys.range(first.as_str()..past.as_str()).map_err(failed)?;
                range.next().transpose().map_err(failed)?.is_none()
            }
        })
    }

    /// The revision of this transaction's writes.
    fn raise(&mut self) -> Result<u64, StoreError> {
        self.raised = true;
        self.revisions.insert((), self.last + 1).map_err(failed)?;
        Ok(self.last + 1)
    }

    fn put(&mut self, key: &str, value: &Value, lease: Option<LeaseId>) -> Result<(), StoreError> {
        let written = self.raise()?;
        let bytes = encode(value);
        self.keys.insert(key, (written, bytes.as_slice())).map_err(failed)?;
        match lease {
            Some(lease) => drop(self.leased.insert(key, lease.get()).map_err(failed)?),
            None => drop(self.leased.remove(key).map_err(failed)?),
        }
        let mod_revision = revision(written)?;
        let (key, value) = (key.to_owned(), decode(key, &bytes));
        self.reports.push(Watched::Put(KeyValue { key, value, mod_revision, lease }));
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), StoreError> {
        self.leased.remove(key).map_err(failed)?;
        if self.keys.remove(key).map_err(failed)?.is_some() {
            self.raise()?;
            self.reports.push(Watched::Deleted(key.to_owned()));
        }
        Ok(())
    }

    fn delete_in(&mut self, first: &str, past: &str) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        for row in self.keys.range(first..past).map_err(failed)? {
            keys.push(row.map_err(failed)?.0.value().to_owned());
        }
        keys.iter().try_for_each(|key| self.delete(key))
    }

    /// Deletes the keys of some leases.
    fn expire(&mut self, gone: impl Fn(LeaseId) -> bool) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        for row in self.leased.iter().map_err(failed)? {
            let (key, lease) = row.map_err(failed)?;
            if LeaseId::new(lease.value()).is_none_or(&gone) {
                keys.push(key.value().to_owned());
            }
        }
        keys.iter().try_for_each(|key| self.delete(key))
    }
}

impl Embedded {
    /// Opens the store in a file, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened, or is damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        file::make(path, Self::open_on)?;
        Self::open_on(file::open(path, true)?)
    }

    /// Opens the store on any storage.
    ///
    /// # Errors
    /// The storage cannot be opened, or is damaged, or a newer version wrote it; then nothing is
    /// changed.
    pub fn open_on(storage: Storage) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(CACHE_BYTES);
        // Opening repairs a file after a kill, but the file of a newer version must stay as it is.
        let held_back = storage.hold_back();
        let db = builder.create_with_backend(storage).map_err(failed)?;
        let format = format(&db)?;
        if format > FORMAT {
            return Err(failed(format_args!(
                "it has format {format}, and this daemon reads up to {FORMAT}: start the newer \
                 version of leasehold again"
            )));
        }
        held_back.release().map_err(failed)?;
        if format < FORMAT {
            write_format(&db)?;
        }
        let (changes, _) = broadcast::channel(limits::WATCH_REPORTS_MAX);
        let store = Self { db: Arc::new(db), leases: Arc::default(), changes };
        store.write(|tables, _| {
            tables.raise()?;
            tables.expire(|_| true)
        })?;
        Ok(store)
    }

    /// Carries out `work` as one transaction, and tells the watches.
    fn write<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>, &mut Leases) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let write = self.db.begin_write().map_err(failed)?;
        let (result, change) = {
            let mut tables = Tables::open(&write).map_err(failed)?;
            let result = work(&mut tables, &mut leases)?;
            let revision = revision(tables.last + 1)?;
            (result, tables.raised.then_some(Change { revision, reports: tables.reports }))
        };
        if let Some(change) = change {
            write.commit().map_err(unknown)?;
            // An error means that nobody watches, which is fine.
            let _ = self.changes.send(Arc::new(change));
        }
        Ok(result)
    }

    fn carry_out(&self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        self.write(|tables, leases| {
            for compare in &txn.when {
                if !tables.holds(compare)? {
                    return Ok(TxnOutcome::Refused(revision(tables.last)?));
                }
            }
            for write in &txn.then {
                match write {
                    Write::Put(_, _, Some(lease)) if !leases.contains_key(lease) => {
                        return Err(StoreError::LeaseGone);
                    }
                    Write::Put(key, value, lease) => tables.put(key, value, *lease)?,
                    Write::Delete(key) => tables.delete(key)?,
                    Write::DeleteIn(first, past) => tables.delete_in(first, past)?,
                }
            }
            Ok(TxnOutcome::Done(revision(tables.last + u64::from(tables.raised))?))
        })
    }

    fn read(&self, spans: &[Span]) -> Result<Snapshot, StoreError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let keys = txn.open_table(KEYS).map_err(failed)?;
        let leased = txn.open_table(LEASED).map_err(failed)?;
        let revisions = txn.open_table(REVISION).map_err(failed)?;
        let last = revisions.get(()).map_err(failed)?.map_or(0, |value| value.value());
        let mut snapshot = Snapshot { revision: revision(last)?, spans: Vec::new() };
        for span in spans {
            let mut found = Vec::new();
            let range = keys.range(span.first.as_str()..span.past.as_str()).map_err(failed)?;
            for row in range.take(span.limit) {
                let (key, value) = row.map_err(failed)?;
                let (key, (mod_revision, bytes)) = (key.value(), value.value());
                let lease =
                    leased.get(key).map_err(failed)?.and_then(|lease| LeaseId::new(lease.value()));
                let mod_revision = revision(mod_revision)?;
                let (key, value) = (key.to_owned(), decode(key, bytes));
                found.push(KeyValue { key, value, mod_revision, lease });
            }
            snapshot.spans.push(found);
        }
        Ok(snapshot)
    }

    fn answer(&self, request: Request) -> Result<Answer, StoreError> {
        match request {
            Request::Txn(txn) => self.carry_out(&txn).map(Answer::Txn),
            Request::Read(spans) => self.read(&spans).map(Answer::Read),
            // A revision never comes twice, so it can name a lease.
            Request::Grant(life) => self.write(|tables, leases| {
                let lease = i64::try_from(tables.raise()?).ok().and_then(LeaseId::new);
                let lease = lease.ok_or_else(|| StoreError::Failed("no lease is left".into()))?;
                leases.insert(lease, Lease::new(life));
                Ok(Answer::Granted(lease, life))
            }),
            Request::KeepAlive(lease) => {
                let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Answer::Kept(leases.get_mut(&lease).map(|lease| {
                    *lease = Lease::new(lease.life);
                    lease.life
                })))
            }
            Request::TimeLeft(lease) => {
                let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
                // In whole seconds, as etcd tells it.
                let whole = |lease: &Lease| Duration::from_secs(lease.left().as_secs());
                Ok(Answer::Left(leases.get(&lease).map(whole)))
            }
            Request::Revoke(lease) => self.write(|tables, leases| {
                leases.remove(&lease);
                tables.expire(|of| of == lease)?;
                Ok(Answer::Revoked)
            }),
        }
    }

    /// Ends a lease if its time is over. Otherwise returns the rest of its life, or `None` if it is
    /// gone.
    fn end_in_time(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.write(|tables, leases| {
            let left = leases.get(&lease).map(|lease| lease.left());
            if left.is_some_and(|left| left.is_zero()) {
                leases.remove(&lease);
                tables.expire(|of| of == lease)?;
                return Ok(None);
            }
            Ok(left)
        })
    }

    /// Waits for the end of a lease, without keeping the store open for that long.
    async fn await_end(
        db: Weak<Database>,
        leases: Arc<Mutex<Leases>>,
        changes: broadcast::Sender<Arc<Change>>,
        lease: LeaseId,
        mut wait: Duration,
    ) {
        loop {
            tokio::time::sleep(wait).await;
            let Some(db) = db.upgrade() else { return };
            let store = Self { db, leases: leases.clone(), changes: changes.clone() };
            match store.beside(move |store| store.end_in_time(lease)).await {
                Ok(Some(left)) => wait = left,
                Ok(None) => return,
                Err(error) => {
                    // The database takes no further writes: the lease ends with the process.
                    tracing::error!("cannot end a lease whose time is over: {error}");
                    return;
                }
            }
        }
    }

    /// Runs blocking work outside of the arbiters' threads: a commit waits for the disk.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(unknown)?
    }

    /// Lists and reports until the listener is gone.
    async fn report(self, prefix: String, to: mpsc::Sender<Watched>) {
        loop {
            let mut changes = self.changes.subscribe();
            let all = vec![Span::prefix(&prefix, usize::MAX)];
            let listed = match self.beside(move |store| store.read(&all)).await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::warn!("watching {prefix}: {error}");
                    tokio::time::sleep(limits::WATCH_PAUSE_MAX).await;
                    continue;
                }
            };
            let keys = listed.spans.into_iter().flatten().collect();
            if to.send(Watched::Listed(keys)).await.is_err() {
                return;
            }
            // The loop ends when the reader is so late that the channel dropped changes.
            while let Some(change) = tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => Some(change),
                    Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => return,
                },
                () = to.closed() => return,
            } {
                if change.revision <= listed.revision {
                    continue;
                }
                for report in &change.reports {
                    let (Watched::Put(KeyValue { key, .. }) | Watched::Deleted(key)) = report
                    else {
                        continue;
                    };
                    if key.starts_with(&prefix) && to.send(report.clone()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl ClusterStore for Embedded {
    /// The answer must be awaited in a tokio runtime with timers, and a lease ends in time only
    /// while the runtime runs in which it was granted.
    fn ask(&self, request: Request) -> Pending {
        let store = self.clone();
        Box::pin(async move {
            let answer = store.beside(move |store| store.answer(request)).await;
            if let Ok(Answer::Granted(lease, wait)) = answer {
                let db = Arc::downgrade(&store.db);
                let (leases, changes) = (store.leases, store.changes);
                tokio::spawn(Self::await_end(db, leases, changes, lease, wait));
            }
            answer
        })
    }

    /// Must be called in a tokio runtime.
    fn watch(&self, prefix: String) -> mpsc::Receiver<Watched> {
        let (to, reports) = mpsc::channel(limits::WATCH_REPORTS_MAX);
        tokio::spawn(self.clone().report(prefix, to));
        reports
    }

    /// Nobody else writes into this file.
    fn foreign(&self, _: &'static str) -> PendingForeign {
        Box::pin(async { Ok(Some(Vec::new())) })
    }
}
