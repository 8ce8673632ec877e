//! What is held on this node: the coordinator's own table, into which readers look too.
//!
//! One table for both, since each costs a holding 20 bytes and an ADD its insertion. Only the
//! coordinator writes it, when the journal has a change and before the caller is answered.

use std::borrow::Borrow;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::core::attachment::{AttachmentId, Holding};
use crate::core::container_id::ContainerId;

/// The table grows by a part at a time, so that no ADD waits for all of it to be moved.
const PARTS: usize = 8;

/// Holdings by their attachments. No guard outlives a method, so readers and the writer never wait
/// for each other's work.
#[derive(Debug)]
pub struct Held(DashMap<ByAttachment, (), BuildHasherDefault<DefaultHasher>>);

impl Held {
    pub(super) fn new() -> Self {
        Self(DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), PARTS))
    }

    /// What an attachment holds.
    pub fn find(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        self.0.get(id as &dyn Key).map(|found| found.key().0.clone())
    }

    /// Everything that is held, in no order.
    pub fn all(&self) -> Vec<Arc<Holding>> {
        self.all_where(|_| true)
    }

    /// Everything that is held and `wanted`, in no order. `wanted` must not look into the table.
    pub fn all_where(&self, wanted: impl Fn(&Holding) -> bool) -> Vec<Arc<Holding>> {
        let held = self.0.iter();
        held.filter(|held| wanted(&held.key().0)).map(|held| held.key().0.clone()).collect()
    }

    /// How many attachments hold something.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a holding, in the place of an older one of its attachment.
    pub(super) fn insert(&self, holding: Arc<Holding>) {
        // `insert` would keep the holding that a repeated ADD renews.
        match self.0.entry(ByAttachment(holding)) {
            Entry::Occupied(entry) => drop(entry.replace_entry(())),
            Entry::Vacant(entry) => drop(entry.insert(())),
        }
    }

    pub(super) fn remove(&self, id: &AttachmentId) {
        self.0.remove(id as &dyn Key);
    }
}

/// A holding, hashed, compared and found by its attachment.
#[derive(Debug)]
struct ByAttachment(Arc<Holding>);

/// What tells attachments apart, wherever it is.
trait Key {
    fn parts(&self) -> (&str, &ContainerId, &str);
}

impl Key for ByAttachment {
    fn parts(&self) -> (&str, &ContainerId, &str) {
        (&self.0.scope.network, &self.0.container_id, &self.0.scope.ifname)
    }
}

impl Key for AttachmentId {
    fn parts(&self) -> (&str, &ContainerId, &str) {
        (&self.network, &self.container_id, &self.ifname)
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Key + '_ {}

impl Hash for dyn Key + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for ByAttachment {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ByAttachment {}

impl Hash for ByAttachment {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl<'k> Borrow<dyn Key + 'k> for ByAttachment {
    fn borrow(&self) -> &(dyn Key + 'k) {
        self
    }
}
