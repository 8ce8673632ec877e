//! Long answers. Each listener makes them on one thread of its own, which gives way to every other
//! thread of the machine. A bounded number of them is in memory at once, since a client may read
//! slowly; and the work on one ends when its client goes away.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::Bytes;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use serde::Serialize;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::cluster::{Refusal, answer};
use super::refuse;
use super::shared::Shared;
use crate::limits;

/// Work that goes through the whole cluster's store: all who ask for the same share it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whole {
    Check,
    CheckOfAll,
    Map,
    Nodes,
    Pools,
}

/// The long answers of one listener.
#[derive(Clone, Debug)]
pub struct Lists {
    room: Arc<Semaphore>,
    reader: Handle,
    /// By [`Whole`].
    shared: [Shared<Result<Bytes, Refusal>>; 5],
    /// The last time that the metrics were brought up to date.
    pub(super) refreshed: Shared<()>,
    /// The greatest age of an answer of those.
    age: Duration,
    /// The reader's thread ends with the last of these.
    _alive: Arc<watch::Sender<()>>,
}

impl Lists {
    /// Starts the thread that makes them. `age`: the greatest age of an answer that goes through
    /// the whole store.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(age: Duration) -> io::Result<Self> {
        let mut runtime = Builder::new_current_thread();
        runtime.enable_time().max_blocking_threads(limits::READER_BLOCKING_THREADS_MAX);
        let runtime = runtime.build()?;
        let reader = runtime.handle().clone();
        let (alive, mut dead) = watch::channel(());
        std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            give_way();
            runtime.block_on(async { while dead.changed().await.is_ok() {} });
        })?;
        let room = Arc::new(Semaphore::new(limits::LISTS_IN_FLIGHT_MAX));
        Ok(Self {
            room,
            reader,
            shared: Default::default(),
            refreshed: Shared::default(),
            age,
            _alive: Arc::new(alive),
        })
    }

    /// Does work on the reader's thread until that ends.
    pub(super) fn keep_doing(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.reader.spawn(work);
    }

    /// Answers with what this work comes to. It is done on the reader's thread, where it has to let
    /// others have their turn, and ends when the client goes away.
    pub(super) async fn answer<T: Serialize>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> HttpResponse {
        self.answer_text(async move { text(&work.await?) }).await
    }

    /// Answers like that, once for all who wait for the same.
    pub(super) async fn answer_whole<T: Serialize>(
        &self,
        whole: Whole,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> HttpResponse {
        self.answer_whole_after(whole, Duration::ZERO, work).await
    }

    /// Answers like that, and does the work again only when it began so long ago.
    pub(super) async fn answer_whole_after<T: Serialize>(
        &self,
        whole: Whole,
        rest: Duration,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> HttpResponse {
        let (shared, age) = (self.shared[whole as usize].clone(), self.age.max(rest));
        self.answer_text(async move {
            let done = shared.get(age, async move { text(&work.await?) });
            Result::clone(&*done.await)
        })
        .await
    }

    async fn answer_text(
        &self,
        work: impl Future<Output = Result<Bytes, Refusal>> + Send + 'static,
    ) -> HttpResponse {
        let permit = match self.begin().await {
            Ok(permit) => permit,
            Err(refusal) => return refusal,
        };
        let mut working = JoinSet::new();
        working.spawn_on(work, &self.reader);
        match working.join_next().await {
            Some(Ok(Ok(text))) => {
                let pieces = Pieces { rest: text, _permit: permit };
                HttpResponse::Ok().content_type("application/json").body(pieces)
            }
            Some(Ok(Err(refusal))) => answer(Err::<(), _>(refusal)),
            Some(Err(_)) | None => {
                refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon on this node stops")
            }
        }
    }

    /// The right to make a long answer, which lasts until the client has read it; or the answer
    /// that there is none.
    async fn begin(&self) -> Result<OwnedSemaphorePermit, HttpResponse> {
        let permit = self.room.clone().acquire_owned();
        match tokio::time::timeout(limits::LIST_WAIT_MAX, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let why = format!(
                    "{} clients read lists already and do not finish: end some of them, or ask \
                     again later",
                    limits::LISTS_IN_FLIGHT_MAX
                );
                let mut refusal = refuse(StatusCode::SERVICE_UNAVAILABLE, why);
                let again = limits::LIST_WAIT_MAX.as_secs().into();
                refusal.headers_mut().insert(RETRY_AFTER, again);
                Err(refusal)
            }
        }
    }
}

/// Makes this thread one that gives way to others: it serves readers.
pub(super) fn give_way() {
    if let Err(error) = setpriority_process(Some(gettid()), limits::READER_NICE) {
        tracing::debug!(%error, "a reader's thread keeps its priority");
    }
}

fn text(rows: &impl Serialize) -> Result<Bytes, Refusal> {
    match serde_json::to_vec(rows) {
        Ok(text) => Ok(text.into()),
        Err(error) => Err(Refusal::fault(error.to_string())),
    }
}

/// A body that is handed on in pieces, so that it goes, and the permit with it, only as the client
/// reads it.
struct Pieces {
    rest: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let rest = &mut self.get_mut().rest;
        let piece = rest.split_to(rest.len().min(limits::LIST_PIECE_BYTES));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Tells when it is dropped.
    struct Ends(Arc<AtomicBool>);

    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// A client that goes away drops the future that makes its answer.
    #[tokio::test]
    async fn the_work_for_a_client_that_went_away_ends() {
        let lists = Lists::start(Duration::ZERO).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let ends = Ends(ended.clone());
        let work = lists.answer(async move {
            let _ends = ends;
            loop {
                tokio::task::yield_now().await;
            }
            #[allow(unreachable_code)]
            Ok::<(), Refusal>(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err());
        let waits = async {
            while !ended.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waits).await.expect("it goes on");
        assert_eq!(lists.room.available_permits(), limits::LISTS_IN_FLIGHT_MAX);
    }

    #[tokio::test]
    async fn a_client_too_many_is_told_when_to_come_again() {
        let lists = Lists::start(Duration::ZERO).unwrap();
        let answers: Vec<HttpResponse> = {
            let mut all = Vec::new();
            for _ in 0..limits::LISTS_IN_FLIGHT_MAX {
                all.push(lists.answer(async { Ok([1, 2, 3]) }).await);
            }
            all
        };
        let refused = lists.answer(async { Ok([1]) }).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers().get(RETRY_AFTER).unwrap(), "3");
        drop(answers);
        assert_eq!(lists.answer(async { Ok([1]) }).await.status(), StatusCode::OK);
    }
}
