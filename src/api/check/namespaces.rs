//! Judges whether the network namespaces of attachments are there, as this daemon sees it.
//!
//! A daemon in a container may not see what its host has: namespaces are mounts, or belong to
//! processes. So one that is not there is gone for certain only if this daemon saw it when it was
//! given an address, and if it can see others in the same place now, or if that is the very
//! directory in which it saw some ([`Places`]).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::Arc;

use rustix::fs::stat;
use rustix::io::Errno;

use super::places::{Places, place};
use crate::api::AppState;
use crate::api::netns::{inode, other_name, sees_every_process};
use crate::core::attachment::{AttachmentId, Holding, Netns};
use crate::core::container_id::ContainerId;
use crate::{limits, metrics};

/// The result of a look at the path of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NamespaceState {
    /// The namespace.
    There,
    /// Nothing.
    Gone,
    /// Another namespace: that of a process which got the same id, or of a later one by the name.
    Another,
    /// Something else than a namespace.
    NoNamespace,
    /// It cannot be looked at.
    Unknown,
}

/// An attachment whose namespace is not there.
#[derive(Clone, Debug)]
pub(super) struct Lacking {
    pub(super) holding: Arc<Holding>,
    pub(super) seen: NamespaceState,
    /// True if that is beyond doubt.
    pub(super) certain: bool,
}

impl Lacking {
    /// Says in a sentence what was seen.
    pub(super) fn why(&self) -> String {
        let netns = &self.holding.netns;
        let mut why = match self.seen {
            NamespaceState::Another => format!("another network namespace is at {}", netns.path),
            NamespaceState::NoNamespace => {
                format!("the file at {} is not a network namespace", netns.path)
            }
            _ => format!("nothing is at {}", netns.path),
        };
        if netns.inode.is_none() {
            why.push_str("; this daemon did not see it either when it gave the address");
        } else if !self.certain {
            why.push_str("; this daemon may not see it");
        }
        why
    }
}

/// The result of a look at all namespaces.
#[derive(Default, Debug)]
pub(super) struct NamespaceScan {
    /// Attachments of the node.
    pub(super) attachments: usize,
    /// Attachments with a namespace.
    pub(super) looked: usize,
    /// Attachments whose namespace is not there.
    pub(super) lacking: Vec<Lacking>,
    /// Namespaces that cannot be looked at.
    unknown: usize,
    /// The places where none of these can be seen, each with the number of those that are missing.
    blind: Vec<(String, usize)>,
}

impl NamespaceScan {
    /// Says what could not be judged, why, and what to do.
    pub(super) fn unjudged(&self) -> Vec<String> {
        let blind = self.blind.iter().map(|(place, count)| {
            format!(
                "all {count} network namespaces in {place} appear gone, which more likely means \
                 that this daemon cannot see them: run it outside of a container, or give it the \
                 host's {place}"
            )
        });
        let unknown = (self.unknown > 0).then(|| {
            format!(
                "{} network namespaces cannot be looked at: run the daemon as root, and see that \
                 their paths are absolute",
                self.unknown
            )
        });
        blind.chain(unknown).collect()
    }

    /// Returns whether there is a place where nothing can be seen.
    pub(super) fn is_blind(&self) -> bool {
        !self.blind.is_empty()
    }

    /// The attachments whose namespaces are gone for certain.
    pub(super) fn gone(&self) -> impl Iterator<Item = &Arc<Holding>> {
        self.lacking.iter().filter(|lacking| lacking.certain).map(|lacking| &lacking.holding)
    }
}

/// Looks at the namespaces of everything that the node holds. A thread of its own waits for the
/// file system. There is one look at a time, so a look that never ends takes only one thread.
pub(super) async fn inspect(node: &AppState) -> NamespaceScan {
    let alone = node.checks.looking.clone().lock_owned().await;
    let (index, places) = (node.index.clone(), node.checks.places.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let _alone = alone;
        allowed(index.all(), &places)
    });
    let allowed = looked.await.unwrap_or_default();
    let certain = allowed.gone().count();
    let doubtful = allowed.lacking.len() - certain + allowed.unknown;
    metrics::namespaces(allowed.looked - certain - doubtful, certain, doubtful);
    allowed
}

/// The attachments that a node holds on a network and that a list does not name.
#[derive(Default, Debug)]
pub(in crate::api) struct Unnamed {
    /// Attachments whose containers may run: their namespace is there, the very one of their ADD,
    /// or this daemon cannot tell.
    pub(in crate::api) kept: Vec<Arc<Holding>>,
    /// The others: their namespace was seen at their ADD, and is gone.
    pub(in crate::api) others: Vec<AttachmentId>,
}

/// Looks at the namespaces of what a list of attachments does not name.
pub(in crate::api) async fn unnamed(
    node: &AppState,
    network: &Arc<str>,
    named: &[(ContainerId, Arc<str>)],
) -> Unnamed {
    let named: HashSet<(&ContainerId, &str)> =
        named.iter().map(|(id, ifname)| (id, &**ifname)).collect();
    let is_unnamed = |holding: &Arc<Holding>| {
        let scope = &holding.scope;
        scope.network == *network && !named.contains(&(&holding.container_id, &*scope.ifname))
    };
    let held: Vec<Arc<Holding>> =
        node.index.by_container("").flatten().filter(is_unnamed).collect();
    let all = held.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let (kept, others): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|holding| !is_over(&holding.netns));
        Unnamed { kept, others: others.iter().map(|holding| holding.id()).collect() }
    });
    // Without a look nothing is known.
    judged.await.unwrap_or(Unnamed { kept: all, others: Vec::new() })
}

/// Returns whether a namespace was seen once and is gone. One that was never seen, such as that of
/// a container that was taken over from another plugin, may be there.
fn is_over(netns: &Netns) -> bool {
    // A namespace with an inode number is in a place where looking never waits.
    netns.inode.is_some() && matches!(see(netns), NamespaceState::Gone | NamespaceState::Another)
}

/// Says why an attachment is kept that a GC does not name.
pub(in crate::api) fn why_kept(netns: &Netns) -> &'static str {
    match netns.inode {
        Some(_) => "its network namespace is there, or cannot be looked at",
        None => "this daemon has never seen its network namespace, so its container may run",
    }
}

fn see(netns: &Netns) -> NamespaceState {
    let path = &*netns.path;
    if !path.starts_with('/') {
        return NamespaceState::Unknown;
    }
    let found = stat(path);
    let found = match (found, other_name(path)) {
        (Err(Errno::NOENT), Some(other)) => stat(other),
        (found, _) => found,
    };
    match (found, inode(path)) {
        (Err(Errno::NOENT), _) => NamespaceState::Gone,
        (Err(_), _) => NamespaceState::Unknown,
        (Ok(_), None) => NamespaceState::NoNamespace,
        (Ok(_), Some(inode)) => match netns.inode {
            Some(known) if u64::from(known.get()) != inode => NamespaceState::Another,
            _ => NamespaceState::There,
        },
    }
}

/// Returns whether namespaces can be seen in a place, though none of those that are looked for is
/// there.
fn shows_namespaces(place: &str) -> bool {
    if place == "/proc" {
        return sees_every_process();
    }
    let Some(entries) = fs::read_dir(place).ok().or_else(|| fs::read_dir(other_name(place)?).ok())
    else {
        return false;
    };
    let mut entries = entries.take(limits::NAMESPACE_SIGNS_MAX).flatten();
    entries.any(|entry| entry.path().to_str().is_some_and(|path| inode(path).is_some()))
}

fn allowed(all: Vec<Arc<Holding>>, known: &Places) -> NamespaceScan {
    let mut allowed = NamespaceScan { attachments: all.len(), ..NamespaceScan::default() };
    // For each place: the number of those that were seen at their ADD and are there, and the number
    // of those that are not there.
    let mut places: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for holding in all {
        // Without a namespace nothing is known, so nothing is gone.
        if holding.netns.path.is_empty() {
            continue;
        }
        allowed.looked += 1;
        let seen = see(&holding.netns);
        let [there, lacking] = places.entry(place(&holding.netns.path)).or_default();
        match seen {
            // A process of that id is no sign that this is the one that was meant.
            NamespaceState::There => *there += usize::from(holding.netns.inode.is_some()),
            NamespaceState::Unknown => allowed.unknown += 1,
            _ => {
                *lacking += 1;
                allowed.lacking.push(Lacking { holding, seen, certain: false });
            }
        }
    }
    let seen = places.iter().filter(|(place, [there, _])| *there > 0 && *place != "/proc");
    seen.for_each(|(place, _)| known.observe(place));
    let blind = |&(place, &[there, lacking]): &(&String, &[usize; 2])| {
        there == 0 && lacking > 0 && !shows_namespaces(place) && !known.is_same(place)
    };
    allowed.blind = (places.iter().filter(blind))
        .map(|(place, &[_, lacking])| (place.clone(), lacking))
        .collect();
    for lacking in &mut allowed.lacking {
        let place = place(&lacking.holding.netns.path);
        let blind = allowed.blind.iter().any(|(blind, _)| *blind == place);
        // A file without its mount may be the mount of a host that is not passed on.
        let gone = matches!(lacking.seen, NamespaceState::Gone | NamespaceState::Another);
        lacking.certain = gone && !blind && lacking.holding.netns.inode.is_some();
    }
    allowed
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::api::netns::named;

    fn held(netns: Netns) -> Arc<Holding> {
        let addresses = vec!["10.0.0.2".parse().unwrap()];
        Arc::new(Holding { netns, ..Holding::plain("c", addresses) })
    }

    #[test]
    fn a_gc_may_release_only_what_was_seen_and_is_gone() {
        let there = named("/proc/self/ns/net".into());
        let gone = Netns { path: "/proc/4194305/ns/net".into(), inode: NonZeroU32::new(7) };
        let another = Netns { inode: NonZeroU32::new(7), ..there.clone() };
        let unseen = Netns { inode: None, ..gone.clone() };
        let imported = named("unknown".into());
        let file = Netns { path: "/proc/self/status".into(), inode: NonZeroU32::new(7) };
        for (netns, over) in [
            (there, false),
            (gone, true),
            (another, true),
            (unseen, false),
            (imported, false),
            (Netns::default(), false),
            (file, false),
        ] {
            assert_eq!(is_over(&netns), over, "{netns:?}");
        }
    }

    /// The view of a daemon that knows no directory.
    fn allowed(all: Vec<Arc<Holding>>) -> NamespaceScan {
        super::allowed(all, &Places::open("/nonexistent/places".into(), "boot"))
    }

    #[test]
    fn without_a_namespace_nothing_is_gone() {
        let seen = allowed(vec![held(Netns::default()), held(named("/proc/self/ns/net".into()))]);
        assert_eq!((seen.attachments, seen.looked, seen.lacking.len()), (2, 1, 0));
        assert!(seen.unjudged().is_empty(), "{seen:?}");
    }

    #[test]
    fn only_what_was_seen_can_be_gone_for_certain() {
        let there = named("/proc/self/ns/net".into());
        assert_ne!(there.inode, None);
        // No process has this id.
        let gone = Netns { path: "/proc/4194305/ns/net".into(), inode: NonZeroU32::new(7) };
        let unseen = Netns { inode: None, ..gone.clone() };
        let other = Netns { inode: gone.inode, ..there.clone() };
        let all = [there, gone, unseen, other].map(held).to_vec();
        let certain: Vec<_> = allowed(all).lacking.iter().map(|l| (l.seen, l.certain)).collect();
        assert_eq!(
            certain,
            [
                (NamespaceState::Gone, true),
                (NamespaceState::Gone, false),
                (NamespaceState::Another, true)
            ]
        );
    }
}
