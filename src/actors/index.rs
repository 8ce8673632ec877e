//! What is held, for readers: CHECK, the admin API and the pages look here, not at the actors.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::RwLock;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::core::attachment::{AttachmentId, ByAttachment, Holding};

/// The read index. Written by the coordinator only, after the journal has it and before the
/// caller is answered.
#[derive(Default, Debug)]
pub struct Index {
    /// A set: a second pointer to each holding would be a twentieth of what an allocation takes.
    held: DashMap<ByAttachment, (), BuildHasherDefault<DefaultHasher>>,
    broken: RwLock<Option<Arc<str>>>,
}

impl Index {
    /// What an attachment holds.
    pub fn find(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        // The guard is dropped here: holding one across an await could deadlock.
        self.held.get(id).map(|found| found.key().0.clone())
    }

    /// Everything that is held, in no order.
    pub fn all(&self) -> Vec<Arc<Holding>> {
        self.held.iter().map(|held| held.key().0.clone()).collect()
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

    pub(super) fn show(&self, holding: Arc<Holding>) {
        // `insert` would keep the holding that a repeated ADD renews.
        match self.held.entry(ByAttachment(holding)) {
            Entry::Occupied(entry) => drop(entry.replace_entry(())),
            Entry::Vacant(entry) => drop(entry.insert(())),
        }
    }

    pub(super) fn hide(&self, id: &AttachmentId) {
        self.held.remove(id);
    }

    pub(super) fn break_down(&self, cause: &Arc<str>) {
        if let Ok(mut broken) = self.broken.write() {
            broken.get_or_insert_with(|| cause.clone());
        }
    }
}
