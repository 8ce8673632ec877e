//! The last events, for the page: in words, with their times.
//!
//! The actors never wait for a reader: an event goes into a queue, and the next holder of the
//! lock takes it in, as in [`crate::actors::Index`].

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::time::UnixTime;
use crate::{clock, limits};

/// The last events. Those about blocks come often and keep none of the others out.
#[derive(Debug)]
pub struct Recent {
    new: Sender<Happening>,
    kept: Mutex<Kept>,
    /// The time since which events are kept.
    since: UnixTime,
}

/// An event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// Its kind, in one word.
    pub kind: &'static str,
    /// The node that it is about.
    pub node: Option<Arc<str>>,
    /// The network that it is about.
    pub network: Option<Arc<str>>,
    /// The sentence that says it.
    pub text: String,
    /// True if it is about a block alone.
    pub of_block: bool,
}

/// An event as it is kept.
#[derive(Clone, Debug)]
pub struct KeptEvent {
    /// Its number.
    pub number: u64,
    /// The number of the last change to any event when this one last changed.
    pub changed: u64,
    /// The time at which it happened first.
    pub first: UnixTime,
    /// The time at which it happened last.
    pub last: UnixTime,
    /// The number of times that it happened.
    pub count: u64,
    /// The event.
    pub what: Arc<Happening>,
}

#[derive(Debug)]
struct Kept {
    new: Receiver<Happening>,
    changes: u64,
    blocks: VecDeque<KeptEvent>,
    others: VecDeque<KeptEvent>,
}

impl Default for Recent {
    fn default() -> Self {
        let (sender, new) = channel();
        let (blocks, others) = (VecDeque::new(), VecDeque::new());
        let kept = Mutex::new(Kept { new, changes: 0, blocks, others });
        Self { new: sender, kept, since: clock::unix() }
    }
}

impl Recent {
    /// Keeps an event.
    pub fn add(&self, what: Happening) {
        // The receiver lives as long as this does.
        let _ = self.new.send(what);
        if let Ok(mut kept) = self.kept.try_lock() {
            kept.take_in();
        }
    }

    /// The events that are new since a change, or happened again, the oldest change first.
    pub fn changed_since(&self, change: u64) -> Vec<KeptEvent> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_in();
        let both = kept.blocks.iter().chain(&kept.others);
        let mut all: Vec<_> = both.filter(|event| event.changed > change).cloned().collect();
        drop(kept);
        all.sort_by_key(|event| event.changed);
        all
    }

    /// The time since which events are kept.
    pub fn since(&self) -> UnixTime {
        self.since
    }
}

impl Kept {
    fn take_in(&mut self) {
        while let Ok(what) = self.new.try_recv() {
            self.add(what, clock::unix());
        }
    }

    /// Adds an event. What was said a short time ago is counted there.
    fn add(&mut self, what: Happening, now: UnixTime) {
        self.changes += 1;
        let changed = self.changes;
        let (events, most) = match what.of_block {
            true => (&mut self.blocks, limits::BLOCK_EVENTS_KEPT_MAX),
            false => (&mut self.others, limits::EVENTS_KEPT_MAX),
        };
        let is_new = |event: &&mut KeptEvent| now.since(event.last) <= limits::EVENT_AGAIN;
        let mut lately = events.iter_mut().rev().filter(is_new);
        if let Some(again) = lately.find(|event| *event.what == what) {
            (again.changed, again.last, again.count) = (changed, now, again.count + 1);
            return;
        }
        let (first, last, number) = (now, now, changed);
        events.push_back(KeptEvent { number, changed, first, last, count: 1, what: what.into() });
        if events.len() > most {
            events.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(text: &str, of_block: bool) -> Happening {
        let (kind, node, network) = ("kind", None, None);
        Happening { kind, node, network, text: text.to_owned(), of_block }
    }

    fn texts(recent: &Recent, since: u64) -> Vec<(String, u64)> {
        let all = recent.changed_since(since).into_iter();
        all.map(|event| (event.what.text.clone(), event.count)).collect()
    }

    #[test]
    fn what_is_said_again_is_counted_and_shown_as_changed() {
        let recent = Recent::default();
        for text in ["a", "b", "a"] {
            recent.add(happening(text, false));
        }
        assert_eq!(texts(&recent, 0), [("b".to_owned(), 1), ("a".to_owned(), 2)]);
        assert_eq!(texts(&recent, 2), [("a".to_owned(), 2)]);
        assert_eq!(texts(&recent, 3), []);
        let mut kept = recent.kept.lock().unwrap();
        let later = UnixTime::from_millis(clock::unix().as_millis() + 3_600_000);
        kept.add(happening("a", false), later);
        assert_eq!(kept.others.len(), 3, "an hour later it is another one");
    }

    #[test]
    fn events_of_blocks_keep_no_other_out() {
        let recent = Recent::default();
        recent.add(happening("rare", false));
        for number in 0..10 * limits::BLOCK_EVENTS_KEPT_MAX {
            recent.add(happening(&number.to_string(), true));
        }
        let all = texts(&recent, 0);
        assert_eq!(all.len(), limits::BLOCK_EVENTS_KEPT_MAX + 1);
        assert_eq!(all[0].0, "rare");
        let last = (10 * limits::BLOCK_EVENTS_KEPT_MAX - 1).to_string();
        assert_eq!(all.last().unwrap().0, last);
        // A reader that has the lock holds nobody up, and loses nothing.
        let reads = recent.kept.lock().unwrap();
        recent.add(happening("meanwhile", false));
        drop(reads);
        assert!(texts(&recent, 0).iter().any(|(text, _)| text == "meanwhile"));
    }
}
