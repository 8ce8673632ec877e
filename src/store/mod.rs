//! The cluster's store: where it is written which node holds which block.

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

/// A strictly serialisable key-value store with transactions, leases and watches, in etcd's terms.
///
/// What implementers promise: a transaction is carried out as a whole, in one order with all
/// others; the revision rises with every one that writes; once answered
/// [`TxnOutcome::Done`](crate::core::txn::TxnOutcome::Done), it is durable beyond the death of this
/// machine or of a minority of the store's; a read sees everything that was answered before it
/// began; every request is answered within a deadline, with
/// [`StoreError::Unknown`] whenever it may have been carried out or may be yet.
pub trait ClusterStore: Send + Sync {
    /// Answers a request.
    fn ask(&self, request: Request) -> Pending;

    /// Reports what is under a prefix that ends in '/' and every change of it, until the receiver
    /// is dropped. After a broken connection or a compaction it lists anew, by itself. Reports of
    /// one key come in order; some in between may be missing.
    fn watch(&self, prefix: String) -> mpsc::Receiver<Watched>;
}
