//! The holdings as readers see them: CHECK, the admin API and the pages look here, and disturb no
//! actor.
//!
//! The coordinator's outputs feed it, before the caller is answered.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::core::attachment::{AttachmentId, Holding};
use crate::core::by_attachment::{ByAttachment, Key};
use crate::core::journal::JournalFailure;

/// The table grows by a part at a time, so that no ADD waits for all of it to be moved.
const PARTS: usize = 8;

/// The read index. No guard outlives a method, so readers and the writer never wait for each
/// other's work.
#[derive(Debug)]
pub struct Index {
    held: Held,
    broken: RwLock<Option<JournalFailure>>,
}

type Held = DashMap<ByAttachment, (), BuildHasherDefault<DefaultHasher>>;

impl Index {
    /// Shows these holdings.
    pub fn new(holdings: impl IntoIterator<Item = Arc<Holding>>) -> Self {
        let held = Held::with_hasher_and_shard_amount(BuildHasherDefault::default(), PARTS);
        let index = Self { held, broken: RwLock::default() };
        holdings.into_iter().for_each(|holding| index.insert(holding));
        index
    }

    /// The holding of an attachment.
    pub fn find(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        self.held.get(id as &dyn Key).map(|found| found.key().0.clone())
    }

    /// All holdings, in no order.
    pub fn all(&self) -> Vec<Arc<Holding>> {
        self.held.iter().map(|held| held.key().0.clone()).collect()
    }

    /// Returns the number of attachments that hold something.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Returns whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the reason why ADD is refused on this node, if it is.
    pub fn broken(&self) -> Option<JournalFailure> {
        self.broken.read().ok()?.clone()
    }

    /// Adds a holding, in the place of an older one of its attachment.
    pub(super) fn insert(&self, holding: Arc<Holding>) {
        // `insert` would keep the holding that a repeated ADD renews.
        match self.held.entry(ByAttachment(holding)) {
            Entry::Occupied(entry) => drop(entry.replace_entry(())),
            Entry::Vacant(entry) => drop(entry.insert(())),
        }
    }

    pub(super) fn remove(&self, holding: &Arc<Holding>) {
        self.held.remove(&ByAttachment(holding.clone()));
    }

    pub(super) fn break_down(&self, cause: JournalFailure) {
        if let Ok(mut broken) = self.broken.write() {
            broken.get_or_insert(cause);
        }
    }
}
