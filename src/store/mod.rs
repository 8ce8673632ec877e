//! The cluster's store: where it is written which node holds which block.

pub mod embedded;
pub mod file;
pub mod value;

use std::future::Future;
use std::pin::Pin;

use crate::core::txn::{KeyValue, Txn, TxnOutcome};

/// Why the store gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It was not carried out, and never will be.
    #[error("{0}")]
    Failed(String),
}

/// A pending answer of a store.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A strictly serialisable key-value store with transactions, in etcd's terms.
///
/// What implementers promise: a transaction is carried out as a whole, in one order with all
/// others; `revision` rises with every one that writes; once answered [`TxnOutcome::Done`], it is
/// durable beyond the death of this machine or of a minority of the store's; a read sees
/// everything that was answered before it began.
pub trait ClusterStore: Send + Sync {
    /// Carries out a transaction.
    fn txn(&self, txn: Txn) -> Answer<'_, TxnOutcome>;

    /// Every key with this prefix, in order.
    fn range(&self, prefix: String) -> Answer<'_, Vec<KeyValue>>;
}
