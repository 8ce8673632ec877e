//! Holdings in tables that are looked up by attachment, without a copy of its names for a key.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::attachment::{AttachmentId, Holding};
use super::container_id::ContainerId;

/// A holding, hashed, compared and found by its attachment. Those of one container are side by side
/// in order.
#[derive(Debug)]
pub struct ByAttachment(pub Arc<Holding>);

/// The parts by which attachments differ, wherever they are kept.
pub trait Key {
    /// Returns network, container and interface.
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

impl Ord for dyn Key + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let (network, container, ifname) = self.parts();
        let (other_network, other_container, other_ifname) = other.parts();
        (container, network, ifname).cmp(&(other_container, other_network, other_ifname))
    }
}

impl PartialOrd for dyn Key + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

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

impl Ord for ByAttachment {
    fn cmp(&self, other: &Self) -> Ordering {
        (self as &dyn Key).cmp(other)
    }
}

impl PartialOrd for ByAttachment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

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
