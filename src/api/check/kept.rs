//! The holdings that a GC of the runtime did not name, and that this daemon kept because their
//! network namespaces are there, or may be. `leasehold check` lists them, and
//! `leasehold gc --force` releases them all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::finding::{Finding, Kind};
use super::namespaces::why_kept;
use crate::api::AppState;
use crate::core::attachment::{AttachmentId, Holding};
use crate::core::container_id::ContainerId;
use crate::core::ids::Sequence;

/// The attachments that were kept, each with the sequence number that it had. A daemon that starts
/// knows of none; the next GC of the runtime tells it.
#[derive(Clone, Default, Debug)]
pub(in crate::api) struct Kept(Arc<Mutex<BTreeMap<AttachmentId, Sequence>>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, Sequence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a GC of a network: these attachments were named, and these others were kept.
    pub(in crate::api) fn learn(
        &self,
        network: &str,
        named: &[(ContainerId, Arc<str>)],
        kept: &[Arc<Holding>],
    ) {
        let mut all = self.lock();
        for (container_id, ifname) in named {
            let (container_id, ifname) = (container_id.clone(), (**ifname).into());
            all.remove(&AttachmentId { network: network.into(), container_id, ifname });
        }
        all.extend(kept.iter().map(|holding| (holding.id(), holding.sequence)));
    }

    /// Returns those that are held still, and forgets the others.
    pub(super) fn held(&self, node: &AppState) -> Vec<Arc<Holding>> {
        let mut held = Vec::new();
        self.lock().retain(|id, sequence| {
            let now = node.index.find(id).filter(|now| now.sequence == *sequence);
            held.extend(now.clone());
            now.is_some()
        });
        held
    }

    /// Returns a finding for each that is held still.
    pub(super) fn findings(&self, node: &AppState) -> Vec<Finding> {
        let finding = |holding: Arc<Holding>| {
            Finding {
                certain: false,
                netns: Some(holding.netns.path.to_string()),
                ..Finding::of_holding(Kind::NotNamedByGc, &node.about.node, &holding)
            }
            .says(
                format!("a GC of the runtime did not name it, and {}", why_kept(&holding.netns)),
                "make sure that its container is gone: then `leasehold gc --force` releases it",
            )
        };
        self.held(node).into_iter().map(finding).collect()
    }
}
