//! Asks the cluster's store for what operators read and change, and turns its answers into theirs.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;

use super::refuse;
use crate::core::ids::Revision;
use crate::core::operator::{Command, Step};
use crate::core::txn::{Answer, KeyValue, Request, Snapshot, Span, StoreError, Txn, TxnOutcome};
use crate::store::{ClusterStore, Page};
use crate::{clock, limits};

/// The reason why an operator does not get what they asked for.
#[derive(Clone, Debug)]
pub(super) struct Refusal(StatusCode, String);

impl Refusal {
    /// The request itself is wrong.
    pub(super) fn wrong(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, why.into())
    }

    /// There is no such thing.
    pub(super) fn absent(why: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, why.into())
    }

    /// Something else asks for the same, or the daemon does not come to it.
    pub(super) fn busy(why: impl Into<String>) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, why.into())
    }

    /// The daemon is at fault.
    pub(super) fn fault(why: impl Into<String>) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, why.into())
    }

    /// Returns the reason.
    pub(super) fn into_reason(self) -> String {
        self.1
    }

    /// Says in addition what to do about it.
    pub(super) fn advising(self, advice: &str) -> Self {
        Self(self.0, format!("{}: {advice}", self.1))
    }

    /// As things stand, it must not or cannot be done.
    pub(super) fn conflict(why: impl Into<String>) -> Self {
        Self(StatusCode::CONFLICT, why.into())
    }
}

impl Refusal {
    /// The cluster's store did not answer as it should; with `doubt`, the change may have been
    /// made.
    pub(super) fn of_store(error: &StoreError, doubt: bool) -> Self {
        let doubt = match doubt {
            true => "; all or a part of the change may have been made: look, and ask again",
            false => "",
        };
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("the cluster's store: {error}{doubt}"))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::of_store(&error, matches!(error, StoreError::Unknown(_) | StoreError::OddAnswer))
    }
}

/// The answer to a request.
pub(super) fn answer(result: Result<impl Serialize, Refusal>) -> HttpResponse {
    match result {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(Refusal(status, why)) => refuse(status, why),
    }
}

/// A store whose answers have the kind of their questions.
#[derive(Clone)]
pub(super) struct Store(Arc<dyn ClusterStore>);

impl Store {
    pub(super) fn new(store: &Arc<dyn ClusterStore>) -> Self {
        Self(store.clone())
    }

    pub(super) async fn read(&self, spans: Vec<Span>) -> Result<Snapshot, StoreError> {
        match self.0.ask(Request::Read(spans)).await? {
            Answer::Read(snapshot) => Ok(snapshot),
            _ => Err(StoreError::OddAnswer),
        }
    }

    /// These keys, all at one revision.
    pub(super) async fn keys<const N: usize>(
        &self,
        keys: [&str; N],
    ) -> Result<[Option<KeyValue>; N], StoreError> {
        let mut spans = self.read(keys.map(Span::key).to_vec()).await?.spans.into_iter();
        Ok(keys.map(|_| spans.next().and_then(|found| found.into_iter().next())))
    }

    /// Everything under a prefix, page by page.
    pub(super) async fn each(
        &self,
        prefix: &str,
        take: impl FnMut(KeyValue),
    ) -> Result<(), StoreError> {
        self.each_in(Span::prefix(prefix, limits::KEYS_PER_READ_MAX), take).await
    }

    /// Everything in a span, page by page.
    pub(super) async fn each_in(
        &self,
        mut span: Span,
        mut take: impl FnMut(KeyValue),
    ) -> Result<(), StoreError> {
        loop {
            let page: Vec<KeyValue> =
                self.read(vec![span.clone()]).await?.spans.into_iter().flatten().collect();
            let rest = span.rest(&page);
            page.into_iter().for_each(&mut take);
            match rest {
                Some(rest) => span = rest,
                None => return Ok(()),
            }
        }
    }

    /// Every key under a prefix, without its value.
    pub(super) async fn each_key(
        &self,
        prefix: &str,
        mut take: impl FnMut(&str),
    ) -> Result<(), StoreError> {
        let mut span = Span::prefix(prefix, limits::KEYS_PER_READ_MAX);
        loop {
            let page = self.0.keys(span).await?;
            page.found.iter().for_each(|key| take(key));
            match page.rest {
                Some(rest) => span = rest,
                None => return Ok(()),
            }
        }
    }

    /// A page of a span, of which keys may be left out that do not have all of these texts in their
    /// values.
    pub(super) async fn with_texts(
        &self,
        span: Span,
        texts: &[String],
    ) -> Result<Page<KeyValue>, StoreError> {
        self.0.with_texts(span, texts.to_vec()).await
    }

    /// The revision at which a transaction was carried out; nothing: a condition did not hold.
    pub(super) async fn txn(&self, txn: Txn) -> Result<Option<Revision>, StoreError> {
        match self.0.ask(Request::Txn(txn)).await? {
            Answer::Txn(TxnOutcome::Done(revision)) => Ok(Some(revision)),
            Answer::Txn(TxnOutcome::Refused(_)) => Ok(None),
            _ => Err(StoreError::OddAnswer),
        }
    }

    /// Carries out a command of an operator.
    pub(super) async fn run<C: Command>(&self, mut command: C) -> C::End {
        let mut step = command.start(clock::unix());
        loop {
            match step {
                Step::Ask(request) => step = command.answered(self.0.ask(request).await),
                Step::Done(end) => return end,
            }
        }
    }
}
