//! The cluster's store, which records the blocks that each node holds.

pub mod embedded;
pub mod etcd;
pub mod file;
pub mod value;

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

use crate::core::txn::{Answer, KeyValue, Request, Span, StoreError, Watched};

/// A pending answer of a store.
pub type Pending = Pin<Box<dyn Future<Output = Result<Answer, StoreError>> + Send>>;

/// The keys of another program with their values, pending; none, if this store's user may not read
/// them.
pub type PendingForeign =
    Pin<Box<dyn Future<Output = Result<Option<Vec<(String, String)>>, StoreError>> + Send>>;

/// A page of a span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// The part of the page that was asked for, in the order of the keys.
    pub found: Vec<T>,
    /// The part of the span behind this page; none: the page reached its end.
    pub rest: Option<Span>,
}

/// A pending page.
pub type PendingPage<T> = Pin<Box<dyn Future<Output = Result<Page<T>, StoreError>> + Send>>;

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

    /// Reads a page of keys without their values.
    fn keys(&self, span: Span) -> PendingPage<String> {
        let whole = page(self.ask(Request::Read(vec![span.clone()])), span);
        Box::pin(async move {
            let Page { found, rest } = whole.await?;
            Ok(Page { found: found.into_iter().map(|found| found.key).collect(), rest })
        })
    }

    /// Reads a page of keys for a reader who wants those with all of these texts in their values:
    /// others may be left out. The texts are as JSON has them.
    fn with_texts(&self, span: Span, _: Vec<String>) -> PendingPage<KeyValue> {
        page(self.ask(Request::Read(vec![span.clone()])), span)
    }
}

/// The page of a span that a read answers with.
fn page(answer: Pending, span: Span) -> PendingPage<KeyValue> {
    Box::pin(async move {
        let Answer::Read(read) = answer.await? else { return Err(StoreError::OddAnswer) };
        let found: Vec<KeyValue> = read.spans.into_iter().flatten().collect();
        let rest = span.rest(&found);
        Ok(Page { found, rest })
    })
}
