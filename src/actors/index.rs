//! The holdings as readers see them: CHECK, the admin API and the pages look here, and disturb no
//! actor.
//!
//! The coordinator's outputs feed it, before the caller is answered. A hash table is for calls,
//! which look up one attachment. [`Ordered`] is for lists. The system may stop a reader of a list
//! while it has the lock of that part, so the actors never wait for it: they leave their changes in
//! a queue, and the next holder of the lock takes them in.

mod ordered;

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use self::ordered::Ordered;
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::by_attachment::{ByAttachment, Key};
use crate::core::container_id::ContainerId;
use crate::core::journal::JournalFailure;
use crate::limits;

/// The table grows by a part at a time, so that no ADD waits for all of it to be moved.
const PARTS: usize = 8;

/// The read index. No guard outlives a method.
#[derive(Debug)]
pub struct Index {
    held: Held,
    changes: Sender<Change>,
    ordered: Mutex<Fed>,
    broken: RwLock<Option<JournalFailure>>,
}

type Held = DashMap<ByAttachment, (), BuildHasherDefault<DefaultHasher>>;

#[derive(Debug)]
enum Change {
    Held(Arc<Holding>),
    Ended(Arc<Holding>),
}

/// The part for lists, and the changes that it has not taken in.
#[derive(Debug)]
struct Fed {
    ordered: Ordered,
    changes: Receiver<Change>,
}

impl Fed {
    fn take_in(&mut self, most: usize) {
        for change in self.changes.try_iter().take(most) {
            match change {
                Change::Held(holding) => self.ordered.insert(holding),
                Change::Ended(holding) => self.ordered.remove(&holding),
            }
        }
    }
}

/// An address with its holding.
pub type HeldAddress = (IpAddr, Arc<Holding>);

impl Index {
    /// Shows these holdings.
    pub fn new(holdings: impl IntoIterator<Item = Arc<Holding>>) -> Self {
        let held = Held::with_hasher_and_shard_amount(BuildHasherDefault::default(), PARTS);
        let (sender, changes) = channel();
        let shown = holdings.into_iter().inspect(|holding| {
            held.insert(ByAttachment(holding.clone()), ());
        });
        let ordered = Mutex::new(Fed { ordered: shown.collect(), changes });
        Self { held, changes: sender, ordered, broken: RwLock::default() }
    }

    /// The holding of an attachment, for calls.
    pub fn find(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        self.held.get(id as &dyn Key).map(|found| found.key().0.clone())
    }

    /// The holding of an attachment, for long work on another thread, which must not keep a call
    /// waiting.
    pub fn look_up(&self, id: &AttachmentId) -> Option<Arc<Holding>> {
        self.read().ordered.find(id)
    }

    /// The addresses of a pool, or of every pool, by pool and address, in pieces of
    /// [`limits::HOLDINGS_PER_LOCK_MAX`]. `after`: only those behind this one. What changes between
    /// two pieces may be missing.
    pub fn by_address<'a>(
        &'a self,
        pool: Option<&'a str>,
        after: Option<(&str, IpAddr)>,
    ) -> impl Iterator<Item = Vec<HeldAddress>> + use<'a> {
        let mut from = after.map(|(pool, address)| (Arc::from(pool), address));
        std::iter::from_fn(move || {
            let after = from.as_ref().map(|(pool, address): &(Arc<str>, _)| (&**pool, *address));
            let piece = self.read().ordered.piece(pool, after, limits::HOLDINGS_PER_LOCK_MAX);
            let (address, holding) = piece.last()?;
            from = Some((holding.scope.pool.clone(), *address));
            Some(piece)
        })
    }

    /// The holdings of an address, one for each pool in which it is held.
    pub fn of_address(&self, address: IpAddr) -> Vec<Arc<Holding>> {
        self.read().ordered.of_address(address)
    }

    /// The holdings of the containers whose id begins like this, by container, in such pieces.
    pub fn by_container<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = Vec<Arc<Holding>>> + use<'a> {
        let mut starts = ContainerId::first_with(prefix).peekable();
        let mut from = None;
        std::iter::from_fn(move || {
            loop {
                if from.is_none() {
                    from = Some(AttachmentId::first_of(starts.next()?));
                }
                let begin = from.take()?;
                let mut piece = self.read().ordered.containers(&begin, starts.peek());
                let full = piece.len() == limits::HOLDINGS_PER_LOCK_MAX;
                piece.retain(|holding| holding.container_id.starts_with(prefix));
                if full && piece.len() == limits::HOLDINGS_PER_LOCK_MAX {
                    from = piece.last().map(|last| last.id());
                }
                if !piece.is_empty() {
                    return Some(piece);
                }
            }
        })
    }

    /// All holdings, by container. This is work for another thread than that of the calls.
    pub fn all(&self) -> Vec<Arc<Holding>> {
        self.by_container("").flatten().collect()
    }

    /// Returns whether anything is held out of this pool.
    pub fn uses_pool(&self, pool: &str) -> bool {
        !self.read().ordered.piece(Some(pool), None, 1).is_empty()
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

    /// The part for lists, as it is now.
    fn read(&self) -> MutexGuard<'_, Fed> {
        let mut fed = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        fed.take_in(usize::MAX);
        fed
    }

    /// Tells the part for lists of a change, and waits for nobody.
    fn tell(&self, change: Change) {
        // The receiver lives as long as this does.
        let _ = self.changes.send(change);
        if let Ok(mut fed) = self.ordered.try_lock() {
            fed.take_in(limits::CHANGES_PER_CALL_MAX);
        }
    }

    /// Adds a holding, in the place of an older one of its attachment.
    pub(super) fn insert(&self, holding: Arc<Holding>) {
        // `insert` would keep the holding that a repeated ADD renews.
        match self.held.entry(ByAttachment(holding.clone())) {
            Entry::Occupied(entry) => drop(entry.replace_entry(())),
            Entry::Vacant(entry) => drop(entry.insert(())),
        }
        self.tell(Change::Held(holding));
    }

    pub(super) fn remove(&self, holding: &Arc<Holding>) {
        self.held.remove(&ByAttachment(holding.clone()));
        self.tell(Change::Ended(holding.clone()));
    }

    /// Gives back the room that the table for calls needed when much more was held.
    pub fn shrink(&self) {
        let room = self.held.capacity();
        if room > limits::ROOM_KEPT * PARTS && self.held.len() < room / 4 {
            self.held.shrink_to_fit();
        }
    }

    pub(super) fn break_down(&self, cause: JournalFailure) {
        if let Ok(mut broken) = self.broken.write() {
            broken.get_or_insert(cause);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
