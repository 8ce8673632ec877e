//! The store's contract, and the outcome of requests when etcd is in trouble.
//!
//! Goal: in every trouble of etcd, an answer is true: the request was carried out, it was not and
//! never will be, or its outcome is unknown. Method: the same checks on the embedded store, on one
//! real etcd and on three; then members that are killed, suspended, restored and forbidden.
//!
//! All of it needs Debian's packages etcd-server and etcd-client.

mod contract;
mod failover;
mod history;
mod refusals;
mod watches;

use std::time::Duration;

use leasehold::core::ids::{Epoch, LeaseId, Revision};
use leasehold::core::time::UnixTime;
use leasehold::core::txn::{
    Answer, Compare, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome, Watched, Write,
};
use leasehold::core::value::{NodeValue, SessionValue, Value};
use leasehold::store::etcd::{Etcd, Options};
use leasehold::store::{ClusterStore, Page};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// The longest time for a report or a recovery.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store under test, and a thread to wait for its answers.
pub(crate) struct Subject {
    store: Box<dyn ClusterStore>,
    runtime: Runtime,
}

impl Subject {
    pub(crate) fn new(store: impl ClusterStore + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { store: Box::new(store), runtime: runtime.expect("a runtime") }
    }

    pub(crate) fn etcd(options: Options) -> Self {
        Self::new(Etcd::connect(options).expect("good options"))
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Answer, StoreError> {
        self.runtime.block_on(self.store.ask(request))
    }

    pub(crate) fn txn(&self, when: &[Compare], then: &[Write]) -> Result<TxnOutcome, StoreError> {
        let (when, then) = (when.to_vec(), then.to_vec());
        match self.ask(Request::Txn(Txn { when, then }))? {
            Answer::Txn(outcome) => Ok(outcome),
            other => panic!("{other:?} is no answer to a transaction"),
        }
    }

    /// The revision of a transaction that must be carried out.
    pub(crate) fn done(&self, when: &[Compare], then: &[Write]) -> Revision {
        match self.txn(when, then) {
            Ok(TxnOutcome::Done(revision)) => revision,
            other => panic!("{when:?} {then:?}: {other:?}"),
        }
    }

    /// The revision at which a transaction must be refused.
    pub(crate) fn refused(&self, when: &[Compare], then: &[Write]) -> Revision {
        match self.txn(when, then) {
            Ok(TxnOutcome::Refused(revision)) => revision,
            other => panic!("{when:?} {then:?}: {other:?}"),
        }
    }

    pub(crate) fn read(&self, spans: &[Span]) -> Snapshot {
        match self.ask(Request::Read(spans.to_vec())) {
            Ok(Answer::Read(snapshot)) => snapshot,
            other => panic!("{spans:?}: {other:?}"),
        }
    }

    /// All keys of a span, read in pages without values.
    pub(crate) fn keys(&self, span: Span) -> Vec<String> {
        let (mut all, mut rest) = (Vec::new(), Some(span));
        while let Some(span) = rest {
            let page = self.runtime.block_on(self.store.keys(span)).expect("a page");
            all.extend(page.found);
            rest = page.rest;
        }
        all
    }

    /// A page of a span for a reader who wants values with these texts.
    pub(crate) fn with_texts(&self, span: Span, texts: &[&str]) -> Page<KeyValue> {
        let texts = texts.iter().map(|&text| text.to_owned()).collect();
        self.runtime.block_on(self.store.with_texts(span, texts)).expect("a page")
    }

    pub(crate) fn key(&self, key: &str) -> Option<KeyValue> {
        self.read(&[Span::key(key)]).spans.remove(0).pop()
    }

    /// A new lease.
    pub(crate) fn grant(&self, seconds: u64) -> LeaseId {
        match self.ask(Request::Grant(Duration::from_secs(seconds))) {
            Ok(Answer::Granted(lease, granted)) if granted.as_secs() >= seconds => lease,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn kept(&self, lease: LeaseId) -> Option<u64> {
        match self.ask(Request::KeepAlive(lease)) {
            Ok(Answer::Kept(life)) => life.map(|life| life.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn left(&self, lease: LeaseId) -> Option<u64> {
        match self.ask(Request::TimeLeft(lease)) {
            Ok(Answer::Left(left)) => left.map(|left| left.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn revoke(&self, lease: LeaseId) {
        assert_eq!(self.ask(Request::Revoke(lease)), Ok(Answer::Revoked));
    }

    pub(crate) fn watch(&self, prefix: &str) -> Receiver<Watched> {
        let _inside = self.runtime.enter();
        self.store.watch(prefix.to_owned())
    }

    /// The next report of a watch.
    pub(crate) fn next(&self, watch: &mut Receiver<Watched>) -> Watched {
        let next = self.runtime.block_on(async { timeout(PATIENCE, watch.recv()).await });
        next.expect("a report in time").expect("a watch that goes on")
    }
}

/// An epoch that a number makes different from others.
fn epoch(number: u64) -> Epoch {
    Epoch::new(number + 1).expect("not 0")
}

/// A value that a number makes different from others.
pub(crate) fn value(number: u64) -> Value {
    Value::Session(SessionValue { epoch: epoch(number), lease: LeaseId::new(1).expect("a lease") })
}

/// A value of about that many bytes.
pub(crate) fn large(number: u64, bytes: usize) -> Value {
    Value::Node(NodeValue {
        forfeit: None,
        epoch: epoch(number),
        sequence: None,
        machine_id: Some("x".repeat(bytes).into()),
        identity: None,
        first_epoch: None,
        boot_id: "".into(),
        version: "".into(),
        since: UnixTime::from_millis(0),
        acknowledged: true,
        removed: None,
    })
}

pub(crate) fn put(key: &str, number: u64) -> Write {
    Write::Put(key.to_owned(), value(number), None)
}

pub(crate) fn put_with(key: &str, number: u64, lease: LeaseId) -> Write {
    Write::Put(key.to_owned(), value(number), Some(lease))
}

pub(crate) fn delete(key: &str) -> Write {
    Write::Delete(key.to_owned())
}

pub(crate) fn delete_in(first: &str, past: &str) -> Write {
    Write::DeleteIn(first.to_owned(), past.to_owned())
}

pub(crate) fn absent(key: &str) -> Compare {
    Compare::Absent(key.to_owned())
}

pub(crate) fn at(key: &str, revision: Revision) -> Compare {
    Compare::At(key.to_owned(), revision)
}

pub(crate) fn none_in(first: &str, past: &str) -> Compare {
    Compare::NoneIn(first.to_owned(), past.to_owned())
}
