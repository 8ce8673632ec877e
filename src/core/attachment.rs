//! Attachments and what they hold.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use super::container_id::ContainerId;
use super::ids::Sequence;
use super::stage::Stage;
use super::time::{StartTime, UnixTime};

/// The key of all CNI state (CNI specification 1.1, section 2): one interface of one container on
/// one network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttachmentId {
    /// The CNI network, by its `name`.
    pub network: Arc<str>,
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub ifname: Arc<str>,
}

impl AttachmentId {
    /// Returns a key before every attachment of a container: no network and no interface has an
    /// empty name.
    pub fn first_of(container_id: ContainerId) -> Self {
        Self { network: "".into(), container_id, ifname: "".into() }
    }
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
    /// get; none, if it is not known.
    pub inode: Option<NonZeroU32>,
}

impl From<&str> for Netns {
    fn from(path: &str) -> Self {
        Self { path: path.into(), inode: None }
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

/// The values that nearly all attachments of a network share. Memory holds them once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Scope {
    /// The CNI network, by its `name`.
    pub network: Arc<str>,
    /// `CNI_IFNAME`.
    pub ifname: Arc<str>,
    /// The network out of whose pool the addresses are: the same, or the one whose central
    /// configuration it uses.
    pub pool: Arc<str>,
}

/// The addresses that one attachment holds: its allocations, which live and end together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The network and the other shared values.
    pub scope: Arc<Scope>,
    /// The container.
    pub container_id: ContainerId,
    /// One address per range set, in the order of the sets.
    pub addresses: Addresses,
    /// Rises with every ADD of this node: tells two holdings of one attachment apart.
    pub sequence: Sequence,
    /// The time at which the plugin process of the ADD started.
    pub started_at: Option<StartTime>,
    /// The time at which the ADD was answered.
    pub since: UnixTime,
    /// The pod's stage.
    pub stage: Option<Stage>,
    /// The pod, when the runtime names one.
    pub pod: Option<Box<Pod>>,
    /// Its network namespace.
    pub netns: Netns,
}

impl Holding {
    /// Returns a holding of these addresses in network `net`, with nothing else about it.
    #[cfg(test)]
    pub(crate) fn plain(container_id: &str, addresses: Vec<IpAddr>) -> Self {
        let scope = Scope { network: "net".into(), ifname: "eth0".into(), pool: "net".into() };
        Self {
            scope: scope.into(),
            container_id: container_id.into(),
            addresses: addresses.into(),
            sequence: Sequence::FIRST,
            started_at: None,
            since: UnixTime::EPOCH,
            stage: None,
            pod: None,
            netns: Netns::default(),
        }
    }

    /// Returns whether the attachment holds the addresses.
    pub fn is_of(&self, id: &AttachmentId) -> bool {
        self.container_id == id.container_id
            && self.scope.ifname == id.ifname
            && self.scope.network == id.network
    }

    /// Returns the attachment that holds the addresses.
    pub fn id(&self) -> AttachmentId {
        AttachmentId {
            network: self.scope.network.clone(),
            container_id: self.container_id.clone(),
            ifname: self.scope.ifname.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the two counters of its `Arc` and the allocator's own eight bytes: 160.
    #[test]
    fn a_holding_is_small() {
        assert!(size_of::<Holding>() <= 136, "{} bytes", size_of::<Holding>());
    }
}
