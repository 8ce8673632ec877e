//! The store of a single node: a database on its own disk, in place of etcd.
//!
//! Every commit is synced: claims are rare (one for many addresses, ahead of demand), and what is
//! configured centrally must outlive the machine.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::file::{self, Storage};
use super::{Answer, ClusterStore, StoreError};
use crate::core::txn::{Compare, KeyValue, Txn, TxnOutcome, Write};

const KEYS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("keys");
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("revision");

/// Memory for redb's pages, in bytes.
const CACHE_BYTES: usize = 1 << 20;

/// The embedded store.
#[derive(Clone, Debug)]
pub struct Embedded {
    db: Arc<Database>,
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("embedded store: {error}"))
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        failed(error)
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
    /// The storage cannot be opened, or is damaged.
    pub fn open_on(storage: Storage) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(CACHE_BYTES);
        let db = builder.create_with_backend(storage).map_err(failed)?;
        let txn = db.begin_write().map_err(failed)?;
        txn.open_table(KEYS).map_err(failed)?;
        txn.open_table(REVISION).map_err(failed)?;
        txn.commit().map_err(failed)?;
        Ok(Self { db: Arc::new(db) })
    }

    fn carry_out(&self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        let write = self.db.begin_write().map_err(failed)?;
        let revision = {
            let mut keys = write.open_table(KEYS).map_err(failed)?;
            for compare in &txn.when {
                if !holds(&keys, compare)? {
                    return Ok(TxnOutcome::Refused);
                }
            }
            let mut revisions = write.open_table(REVISION).map_err(failed)?;
            let last = revisions.get(()).map_err(failed)?.map_or(0, |value| value.value());
            revisions.insert((), last + 1).map_err(failed)?;
            for write in &txn.then {
                match write {
                    Write::Put(key, value) => {
                        keys.insert(key.as_str(), (last + 1, value.as_slice())).map_err(failed)?;
                    }
                    Write::Delete(key) => {
                        keys.remove(key.as_str()).map_err(failed)?;
                    }
                }
            }
            last + 1
        };
        write.commit().map_err(failed)?;
        Ok(TxnOutcome::Done(revision))
    }

    fn read(&self, prefix: &str) -> Result<Vec<KeyValue>, StoreError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let keys = txn.open_table(KEYS).map_err(failed)?;
        let mut found = Vec::new();
        for row in keys.range(prefix..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let (mod_revision, value) = value.value();
            let (key, value) = (key.value().to_owned(), value.to_owned());
            found.push(KeyValue { key, value, mod_revision });
        }
        Ok(found)
    }

    /// Runs blocking work beside the arbiters: a commit waits for the disk.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(failed)?
    }
}

fn holds(keys: &Table<'_, &str, (u64, &[u8])>, compare: &Compare) -> Result<bool, StoreError> {
    Ok(match compare {
        Compare::ModRevision(key, revision) => {
            let found = keys.get(key.as_str()).map_err(failed)?;
            found.map_or(0, |value| value.value().0) == *revision
        }
        Compare::NoneIn(first, past) => {
            let mut range = keys.range(first.as_str()..past.as_str()).map_err(failed)?;
            range.next().transpose().map_err(failed)?.is_none()
        }
    })
}

impl ClusterStore for Embedded {
    fn txn(&self, txn: Txn) -> Answer<'_, TxnOutcome> {
        Box::pin(self.beside(move |store| store.carry_out(&txn)))
    }

    fn range(&self, prefix: String) -> Answer<'_, Vec<KeyValue>> {
        Box::pin(self.beside(move |store| store.read(&prefix)))
    }
}
