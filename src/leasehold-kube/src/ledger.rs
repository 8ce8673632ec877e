//! The decisions about nodes, without a clock and without IO.
//!
//! The ledger has one entry for each Node object that was seen, by its UID. An entry whose object
//! is not in a complete list is *missing*; after the grace it is *due*: its node is ended. The
//! ready condition of a Node object is not even read. The ledger is in doubt, and nothing is due,
//! while the list is empty or while many entries are missing at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits;
use super::times::{Now, as_millis};

/// The part of a Node object that matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NodeObject {
    /// The UID of the object: an object that is made again under its name has another one.
    pub(crate) uid: String,
    /// Its name, which is the name of the node in Leasehold.
    pub(crate) name: String,
    /// The machine's id, from `/etc/machine-id`; empty if the object does not say it.
    pub(crate) machine: String,
}

/// The memory of one Node object, as it is kept in the ConfigMap.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// The id of its machine.
    #[serde(rename = "machineId")]
    pub(crate) machine: String,
    /// The time at which the object was first found missing, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) missing_since_unix_ms: Option<u64>,
    /// If its node is removed: the time from which the cluster is told to forget it, in
    /// milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forget_from_unix_ms: Option<u64>,
}

/// The rules that the operator chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The time for which an object must have been missing.
    pub(crate) grace: Duration,
    /// The part of that for which this instance itself must have missed it.
    pub(crate) confirm: Duration,
    /// True if any number of nodes may be ended at once.
    pub(crate) allow_many: bool,
}

/// A node that is to be ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    /// The UID of its object.
    pub(crate) uid: String,
    /// Its name.
    pub(crate) name: String,
    /// The id of its machine, never empty.
    pub(crate) machine: String,
}

/// The outcome of a try to end a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The cluster does not know the node, or has another machine under its name: all is done.
    Gone,
    /// The node is removed. Once its quarantine is over, the cluster is told to forget it.
    Removed {
        /// The time for which its blocks are in quarantine.
        quarantine: Duration,
    },
    /// Nothing was done, for this reason.
    Later(String),
}

/// A change that the log tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// The object of this node is missing.
    Missing(String),
    /// The object of this node is there again.
    Back(String),
    /// The machine of this node registered again under its name, with another object.
    Registered(String),
    /// The object of this node is missing, and it never said which machine the node is.
    Nameless(String),
}

/// The reason why nothing is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// There is no list yet, or no Node object in it.
    Empty,
    /// Too many of those remembered are missing.
    Many {
        /// The number of entries that are missing.
        missing: usize,
        /// The number of all entries.
        remembered: usize,
    },
}

/// The part of a missing entry that only this instance knows; it is not kept.
#[derive(Clone, Copy, Debug)]
struct Absence {
    since: Duration,
    next_try: Duration,
    tries: u32,
}

/// The memory of all Node objects.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    rules: Rules,
    entries: BTreeMap<String, Entry>,
    present: BTreeMap<String, NodeObject>,
    absences: BTreeMap<String, Absence>,
}

impl Ledger {
    /// A ledger with the entries of before. Nothing is due until there is a list.
    pub(crate) fn new(rules: Rules, entries: BTreeMap<String, Entry>) -> Self {
        Self { rules, entries, present: BTreeMap::new(), absences: BTreeMap::new() }
    }

    /// Everything that has to be kept.
    pub(crate) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Takes a complete list.
    pub(crate) fn list(&mut self, nodes: Vec<NodeObject>, now: Now) -> Vec<News> {
        self.present = nodes.into_iter().map(|node| (node.uid.clone(), node)).collect();
        self.compare(now)
    }

    /// Takes one object that is there.
    pub(crate) fn appear(&mut self, node: NodeObject, now: Now) -> Vec<News> {
        // Most changes are those of a heartbeat.
        if self.present.get(&node.uid) == Some(&node) {
            return vec![];
        }
        self.present.insert(node.uid.clone(), node);
        self.compare(now)
    }

    /// An object is deleted.
    pub(crate) fn disappear(&mut self, uid: &str, now: Now) -> Vec<News> {
        self.present.remove(uid);
        self.compare(now)
    }

    /// Compares what is there with what is remembered.
    fn compare(&mut self, now: Now) -> Vec<News> {
        // No cluster that this program runs in is without a node.
        if self.present.is_empty() {
            return vec![];
        }
        let mut news = Vec::new();
        for node in self.present.values() {
            let entry = self.entries.entry(node.uid.clone()).or_insert_with(|| Entry {
                name: node.name.clone(),
                machine: String::new(),
                missing_since_unix_ms: None,
                forget_from_unix_ms: None,
            });
            if !node.machine.is_empty() {
                entry.machine.clone_from(&node.machine);
            }
            entry.forget_from_unix_ms = None;
            if entry.missing_since_unix_ms.take().is_some() {
                news.push(News::Back(entry.name.clone()));
            }
        }
        let (present, absences) = (&self.present, &mut self.absences);
        absences.retain(|uid, _| !present.contains_key(uid));
        self.entries.retain(|uid, entry| {
            if present.contains_key(uid) {
                return true;
            }
            if entry.machine.is_empty() {
                // Without the id, another machine under the name could be hit.
                news.push(News::Nameless(entry.name.clone()));
                return false;
            }
            if present.values().any(|node| is_again(entry, node)) {
                absences.remove(uid);
                news.push(News::Registered(entry.name.clone()));
                return false;
            }
            let Now { unix_ms, up } = now;
            if entry.missing_since_unix_ms.is_none() {
                news.push(News::Missing(entry.name.clone()));
            }
            // Another instance's clock may be ahead of this one.
            let since = entry.missing_since_unix_ms.map_or(unix_ms, |since| since.min(unix_ms));
            entry.missing_since_unix_ms = Some(since);
            let absence = Absence { since: up, next_try: up, tries: 0 };
            absences.entry(uid.clone()).or_insert(absence);
            true
        });
        news
    }

    /// The reason why nothing is due, if there is one.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        if self.present.is_empty() {
            return Some(Doubt::Empty);
        }
        // Those that are removed stay only until the cluster forgets them.
        let remembered = self.entries.values().filter(|entry| entry.forget_from_unix_ms.is_none());
        let (mut missing, mut all) = (0, 0);
        for entry in remembered {
            all += 1;
            missing += usize::from(entry.missing_since_unix_ms.is_some());
        }
        let is_many = missing >= limits::MANY_MIN && missing * 2 > all && !self.rules.allow_many;
        is_many.then_some(Doubt::Many { missing, remembered: all })
    }

    /// The nodes that are to be ended now.
    pub(crate) fn due(&self, now: Now) -> Vec<Due> {
        if self.doubt().is_some() {
            return vec![];
        }
        let due = |(uid, entry): (&String, &Entry)| {
            self.is_ripe(uid, entry, now).then(|| Due {
                uid: uid.clone(),
                name: entry.name.clone(),
                machine: entry.machine.clone(),
            })
        };
        self.entries.iter().filter_map(due).collect()
    }

    /// True if this node is to be ended now.
    pub(crate) fn is_due(&self, uid: &str, now: Now) -> bool {
        let entry = self.entries.get(uid);
        self.doubt().is_none() && entry.is_some_and(|entry| self.is_ripe(uid, entry, now))
    }

    fn is_ripe(&self, uid: &str, entry: &Entry, now: Now) -> bool {
        let (Some(since), Some(absence)) = (entry.missing_since_unix_ms, self.absences.get(uid))
        else {
            return false;
        };
        let Rules { grace, confirm, .. } = self.rules;
        now.unix_ms.saturating_sub(since) >= as_millis(grace)
            && now.up >= absence.since + confirm.min(grace)
            && now.up >= absence.next_try
            && entry.forget_from_unix_ms.is_none_or(|from| now.unix_ms >= from)
            && self.machine_elsewhere(entry).is_none()
    }

    /// The present node, under another name, that the machine of an entry is: it lives.
    fn machine_elsewhere(&self, entry: &Entry) -> Option<&str> {
        let same = |node: &&NodeObject| node.machine == entry.machine;
        self.present.values().find(same).map(|node| node.name.as_str())
    }

    /// The missing nodes whose machine lives under another name, with that.
    pub(crate) fn renamed(&self) -> Vec<(&str, &str)> {
        let missing = self.entries.values().filter(|entry| entry.missing_since_unix_ms.is_some());
        missing
            .filter_map(|entry| Some((entry.name.as_str(), self.machine_elsewhere(entry)?)))
            .collect()
    }

    /// Takes the outcome of a try.
    pub(crate) fn ended(&mut self, uid: &str, outcome: &Ended, now: Now) {
        let (Some(entry), Some(absence)) = (self.entries.get_mut(uid), self.absences.get_mut(uid))
        else {
            return;
        };
        match outcome {
            Ended::Gone => {
                self.entries.remove(uid);
                self.absences.remove(uid);
            }
            Ended::Removed { quarantine } => {
                let wait = as_millis(*quarantine + limits::FORGET_AFTER);
                entry.forget_from_unix_ms = Some(now.unix_ms.saturating_add(wait));
                absence.tries = 0;
            }
            Ended::Later(_) => {
                let doubled = limits::RETRY_MIN.saturating_mul(1 << absence.tries.min(16));
                absence.next_try = now.up + doubled.min(limits::RETRY_MAX);
                absence.tries = absence.tries.saturating_add(1);
            }
        }
    }
}

/// True if an object is a new registration of the machine whose object is missing.
fn is_again(entry: &Entry, node: &NodeObject) -> bool {
    node.name == entry.name && node.machine == entry.machine
}

#[cfg(test)]
mod tests;
