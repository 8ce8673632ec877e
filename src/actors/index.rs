//! What readers may know without disturbing the actors: CHECK, the admin API and the pages look
//! here.

use std::sync::{Arc, RwLock};

use crate::core::attachment::{AttachmentId, Holding};
use crate::core::coordinator::Held;

/// The read index.
#[derive(Debug)]
pub struct Index {
    held: Arc<Held>,
    broken: RwLock<Option<Arc<str>>>,
}

impl Index {
    /// Shows what a coordinator holds.
    pub fn new(held: Arc<Held>) -> Self {
        Self { held, broken: RwLock::default() }
    }

    /// What an attachment holds.
    pub fn find(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        self.held.find(id)
    }

    /// Everything that is held, in no order.
    pub fn all(&self) -> Vec<Arc<Holding>> {
        self.held.all()
    }

    /// How many attachments hold something.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Why ADD is refused on this node, if it is.
    pub fn broken(&self) -> Option<Arc<str>> {
        self.broken.read().ok()?.clone()
    }

    pub(super) fn break_down(&self, cause: &Arc<str>) {
        if let Ok(mut broken) = self.broken.write() {
            broken.get_or_insert_with(|| cause.clone());
        }
    }
}
