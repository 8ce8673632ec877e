//! The holdings of this node, found by their attachments.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::Arc;

use crate::core::attachment::{AttachmentId, Holding};
use crate::core::by_attachment::{ByAttachment, Key};
use crate::core::container_id::ContainerId;
use crate::limits;

/// The table grows by a part at a time, so that no ADD waits for all of it to be moved.
const PARTS: usize = 8;

type Hashing = BuildHasherDefault<DefaultHasher>;

/// Holdings by their attachments.
#[derive(Debug)]
pub struct Held([HashSet<ByAttachment, Hashing>; PARTS]);

impl Held {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| HashSet::default()))
    }

    /// Returns the holding of an attachment.
    pub fn find(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        self.0[part(&id.container_id)].get(id as &dyn Key).map(|found| found.0.clone())
    }

    /// Returns all holdings, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Holding>> {
        self.0.iter().flatten().map(|held| &held.0)
    }

    /// Returns the number of attachments that hold something.
    pub fn len(&self) -> usize {
        self.0.iter().map(HashSet::len).sum()
    }

    /// Returns whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a holding, in the place of an older one of its attachment.
    pub(super) fn insert(&mut self, holding: Arc<Holding>) {
        self.0[part(&holding.container_id)].replace(ByAttachment(holding));
    }

    pub(super) fn remove(&mut self, id: &AttachmentId) {
        let part = &mut self.0[part(&id.container_id)];
        part.remove(id as &dyn Key);
        if part.capacity() > limits::ROOM_KEPT && part.len() < part.capacity() / 4 {
            part.shrink_to(part.len() * 2);
        }
    }
}

fn part(container: &ContainerId) -> usize {
    #[allow(clippy::cast_possible_truncation)]
    let hash = Hashing::default().hash_one(container) as usize;
    hash % PARTS
}
