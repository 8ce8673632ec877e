//! The cluster's store, which records the blocks that each node holds.

pub mod embedded;
pub mod etcd;
pub mod file;
pub mod value;

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

use crate::core::txn::{Answer, Request, StoreError, Watched};

/// A pending answer of a store.
pub type Pending = Pin<Box<dyn Future<Output = Result<Answer, StoreError>> + Send>>;

/// The keys of another program with their values, pending; none, if this store's user may not read
/// them.
pub type PendingForeign =
    Pin<Box<dyn Future<Output = Result<Option<Vec<(String, String)>>, StoreError>> + Send>>;

/// A strictly serialisable key-value store with transactions, leases and watches, in etcd's terms.
///
/// Implementers make these promises. A transaction is carried out as a whole, in one order with all
/// others. The revision rises with every transaction that writes. A transaction that was answered
/// with [`TxnOutcome::Done`](crate::core::txn::TxnOutcome::Done) survives the death of this
/// machine, or of a minority of the store's. A read sees everything that was answered before it
/// began. Every request is answered within a deadline; the answer is [`StoreError::Unknown`] if the
/// request may have been carried out, or may still be.
pub trait ClusterStore: Send + Sync {
    /// Answers a request.
    fn ask(&self, request: Request) -> Pending;

    /// Reports the keys under a prefix that ends in '/' and every change of them, until the
    /// receiver is dropped. After a broken connection or a compaction it lists the keys again, by
    /// itself. Reports of one key come in order; some in between may be missing.
    fn watch(&self, prefix: String) -> mpsc::Receiver<Watched>;

    /// Reads all keys with a prefix that ends in '/', as another program wrote them into the same
    /// store.
    fn foreign(&self, prefix: &'static str) -> PendingForeign;
}
