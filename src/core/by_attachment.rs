//! Holdings in tables that are looked up by attachment, without a copy of its names for a key.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::attachment::{AttachmentId, Holding};
use super::container_id::ContainerId;

/// A holding, hashed, compared and found by its attachment.
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
