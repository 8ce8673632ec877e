//! Notes whether answers reach their callers: an ADD whose caller is gone is undone.
//!
//! A caller that is gone before its answer is written cannot take it: writing fails. What happens
//! to an answer that was written is not known.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::AppState;
use crate::core::attachment::AttachmentId;
use crate::core::coordinator::{Call, Del, HoldingSelector, Outcome};
use crate::core::ids::Sequence;

/// The holdings that the ADDs of one request made, by their sequence numbers; and whether a write
/// to their caller failed.
#[derive(Default, Debug)]
pub(super) struct Answers {
    made: RefCell<Vec<(AttachmentId, Sequence)>>,
    lost: Cell<bool>,
}

impl Answers {
    /// Another request begins: the caller has what it was answered before.
    pub(super) fn begin(&self) {
        self.made.borrow_mut().clear();
    }

    /// Notes that an ADD made this holding.
    pub(super) fn note(&self, id: AttachmentId, sequence: Sequence) {
        self.made.borrow_mut().push((id, sequence));
    }

    /// Undoes what was made, if its caller could not be answered. A holding that a later ADD
    /// renewed stays (rule 21).
    pub(super) async fn undo_lost(&self, node: &AppState) {
        if !self.lost.get() {
            return;
        }
        for (id, sequence) in self.made.take() {
            let container = id.container_id.to_string();
            let del = Del { id, selector: HoldingSelector::Sequence(sequence) };
            match node.machines.execute(Call::Del(del)).await {
                Outcome::Failed(error) => tracing::warn!(
                    container, %error,
                    "the caller of an ADD is gone, and the ADD could not be undone: its addresses \
                     are held until its DEL"
                ),
                _ => tracing::info!(container, "the caller of an ADD is gone: the ADD is undone"),
            }
        }
    }
}

/// A connection that notes failed writes.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    pub(super) answers: Rc<Answers>,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, answers: Rc::default() }
    }

    fn noted<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = done {
            self.answers.lost.set(true);
        }
        done
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.noted(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
