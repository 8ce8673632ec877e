//! DELs that were answered, against ADDs from before that come late.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::{Add, CallError};
use crate::core::Map;
use crate::core::attachment::AttachmentId;
use crate::core::time::StartTime;
use crate::limits;

/// The time at which each attachment (by its hash) was ended, kept for as long as an ADD from
/// before that may still be on its way.
#[derive(Debug)]
pub(super) struct Tombstones {
    latest: Map<u64, StartTime>,
    order: VecDeque<(StartTime, u64)>,
    /// The start of the daemon. ADDs from before that are refused, unless they found no daemon:
    /// another one may have answered their DEL.
    daemon_started_at: StartTime,
    /// ADDs that started before this are refused: their DEL may be forgotten. None: no DEL is.
    floor: Option<StartTime>,
}

impl Tombstones {
    /// Creates the memory of a daemon that started then, and that knows of no DEL.
    pub(super) fn new(daemon_started_at: StartTime) -> Self {
        let (latest, order) = (Map::default(), VecDeque::new());
        Self { latest, order, daemon_started_at, floor: None }
    }

    /// Remembers a DEL for [`limits::CALL_AGE_MAX`]; what is forgotten raises the floor.
    pub(super) fn insert(&mut self, id: &AttachmentId, started_at: StartTime) {
        let id = Self::hash(id);
        let latest = self.latest.entry(id).or_insert(started_at);
        *latest = started_at.max(*latest);
        self.order.push_back((started_at, id));
        while let Some(&(oldest, id)) = self.order.front()
            && (self.order.len() > limits::TOMBSTONES_MAX
                || started_at.since(oldest) > limits::CALL_AGE_MAX)
        {
            self.order.pop_front();
            self.floor = self.floor.max(Some(oldest));
            if self.latest.get(&id) == Some(&oldest) {
                self.latest.remove(&id);
            }
        }
    }

    /// Returns the error of an ADD if a DEL of the attachment that started after it came before it,
    /// or may have.
    pub(super) fn refuses(&self, add: &Add) -> Option<CallError> {
        let (started, id) = (add.started_at?, &add.id.container_id);
        let latest = self.latest.get(&Self::hash(&add.id));
        if latest.is_some_and(|latest| started < *latest) {
            return Some(CallError::Overtaken(id.clone()));
        }
        // While it waited, nobody answered a DEL: those of that time left notes, which are known.
        let found_no_daemon =
            add.waited_since.is_some_and(|since| since.since(started) <= limits::FIRST_LOOK_MAX);
        let too_old =
            Some(started) < self.floor || started < self.daemon_started_at && !found_no_daemon;
        too_old.then(|| CallError::TooOld(id.clone()))
    }

    /// Returns whether a DEL of the attachment that started after this ADD is remembered.
    pub(super) fn has_ended(&self, id: &AttachmentId, started_at: Option<StartTime>) -> bool {
        let latest = self.latest.get(&Self::hash(id));
        latest.is_some_and(|latest| started_at.is_none_or(|started| started <= *latest))
    }

    /// Returns the hash of an attachment. Two attachments of one hash cost an ADD a second try, in
    /// one of 2^64 cases.
    fn hash(id: &AttachmentId) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(id)
    }
}
