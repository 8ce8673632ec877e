//! Long answers, which a client may read slowly: a bounded number of them is in memory at once.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::web::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refuse;
use crate::limits;

/// The long answers of one listener.
#[derive(Clone, Debug)]
pub struct Lists(Arc<Semaphore>);

impl Default for Lists {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::LISTS_UNDER_WAY_MAX)))
    }
}

impl Lists {
    /// The right to make a long answer, which lasts until the client has read it; or the answer
    /// that there is none.
    pub(super) async fn begin(&self) -> Result<OwnedSemaphorePermit, HttpResponse> {
        let permit = self.0.clone().acquire_owned();
        match tokio::time::timeout(limits::LIST_WAIT_MAX, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let why = format!(
                    "{} clients read lists already and do not finish: end some of them, or ask \
                     again later",
                    limits::LISTS_UNDER_WAY_MAX
                );
                Err(refuse(StatusCode::SERVICE_UNAVAILABLE, why))
            }
        }
    }
}

/// A long answer.
pub(super) fn answer(permit: OwnedSemaphorePermit, rows: &impl Serialize) -> HttpResponse {
    match serde_json::to_vec(rows) {
        Ok(text) => {
            let pieces = Pieces { rest: text.into(), _permit: permit };
            HttpResponse::Ok().content_type("application/json").body(pieces)
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
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
