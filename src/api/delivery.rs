//! Observes whether answers reach their callers: an ADD whose caller is gone is undone.
//!
//! A caller that is gone before its answer is written cannot take it: writing fails. What happens
//! to an answer that was written is not known.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use tokio::net::UnixStream;

use super::AppState;
use super::watched::{Watch, Watched};
use crate::core::attachment::AttachmentId;
use crate::core::coordinator::{Call, Del, HoldingSelector, Outcome};
use crate::core::ids::Sequence;
use crate::points::{self, Point};

/// The holdings that the ADDs of one request made, with the numbers of these calls, by their
/// sequence numbers; and whether a write to their caller failed.
#[derive(Default, Debug)]
pub(super) struct Answers {
    made: RefCell<Vec<(Option<u64>, AttachmentId, Sequence)>>,
    lost: Cell<bool>,
}

impl Answers {
    /// Another request begins: the caller has what it was answered before.
    pub(super) fn begin(&self) {
        self.made.borrow_mut().clear();
    }

    /// Remembers that the ADD with this number made this holding.
    pub(super) fn add(&self, call: Option<u64>, id: AttachmentId, sequence: Sequence) {
        self.made.borrow_mut().push((call, id, sequence));
    }

    /// Undoes what was made, if its caller could not be answered. A holding that a later ADD
    /// renewed stays (rule 21).
    pub(super) async fn undo_lost(&self, node: &AppState) {
        if !self.lost.get() {
            return;
        }
        for (call, id, sequence) in self.made.take() {
            let container = id.container_id.to_string();
            let del = Del { id, selector: HoldingSelector::Sequence(sequence) };
            let outcome = node.machines.execute(Call::Del(del)).await;
            // In a span, as what is logged on behalf of other calls: each container has its line.
            tracing::info_span!("call", id = call).in_scope(|| match outcome {
                Outcome::Failed(error) => tracing::warn!(
                    container, %error,
                    "the caller of an ADD is gone, and the ADD could not be undone: its addresses \
                     are held until its DEL"
                ),
                _ => tracing::info!(container, "the caller of an ADD is gone: the ADD is undone"),
            });
        }
    }
}

/// A connection that notes failed writes.
pub(super) type Client = Watched<UnixStream, Rc<Answers>>;

impl Watch for Rc<Answers> {
    fn has_written(&self, written: &io::Result<usize>) {
        if written.is_err() {
            self.lost.set(true);
        } else if !self.made.borrow().is_empty() {
            points::pass(Point::AfterAnswer);
        }
    }
}
