//! Attachments and what they hold.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::stage::Stage;

/// The key of all CNI state (CNI specification 1.1, section 2): one interface of one container on
/// one network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttachmentId {
    /// The CNI network, by its `name`.
    pub network: Arc<str>,
    /// `CNI_CONTAINERID`.
    pub container_id: Box<str>,
    /// `CNI_IFNAME`.
    pub ifname: Arc<str>,
}

/// The pod that a runtime named in `CNI_ARGS`; for people, never for decisions about ownership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`, or empty.
    pub namespace: Box<str>,
    /// `K8S_POD_NAME`.
    pub name: Box<str>,
}

/// The network namespace of an attachment, as its runtime named it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Netns {
    /// `CNI_NETNS`: the path of the namespace, or empty.
    pub path: Box<str>,
    /// The namespace's inode number, if its path goes by a process id, which another process may
    /// get; 0: not known.
    pub inode: u32,
}

impl From<&str> for Netns {
    fn from(path: &str) -> Self {
        Self { path: path.into(), inode: 0 }
    }
}

/// A list of addresses. Most attachments hold one, which takes no memory of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// One address.
    One(IpAddr),
    /// Any other number of them.
    Some(Box<[IpAddr]>),
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Some(addresses) => addresses,
        }
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        match addresses[..] {
            [address] => Self::One(address),
            _ => Self::Some(addresses.into()),
        }
    }
}

/// The addresses that one attachment holds: its allocations, which live and end together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Who holds them.
    pub id: AttachmentId,
    /// The network out of whose pool the addresses are: the attachment's own, or the one whose
    /// central configuration it uses.
    pub pool: Arc<str>,
    /// One address per range set, in the order of the sets.
    pub addresses: Addresses,
    /// Rises with every ADD of this node: tells two holdings of one attachment apart.
    pub sequence: u64,
    /// When the plugin process of the ADD started, in nanoseconds on the boot clock.
    pub started_at: Option<u64>,
    /// When the ADD was answered, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The pod's stage.
    pub stage: Option<Stage>,
    /// The pod, when the runtime names one.
    pub pod: Option<Box<Pod>>,
    /// Its network namespace.
    pub netns: Netns,
}

/// A holding in an index: hashed, compared and found by its attachment.
#[derive(Clone, Debug)]
pub struct ByAttachment(pub Arc<Holding>);

impl PartialEq for ByAttachment {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ByAttachment {}

impl Hash for ByAttachment {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl Borrow<AttachmentId> for ByAttachment {
    fn borrow(&self) -> &AttachmentId {
        &self.0.id
    }
}
