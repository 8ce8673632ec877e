//! A CNI call as a typed request: the types only.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::core::container_id::ContainerId;
use crate::core::range::Ranges;
use crate::core::stage::Stage;

use super::error::Error;
use super::result::Route;
use super::version::Version;

/// A CNI command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    /// Give the attachment its addresses.
    Add,
    /// Take them back.
    Del,
    /// Is all as the ADD left it?
    Check,
    /// Release what is not in the list of attachments that are still there.
    Gc,
    /// Could an ADD be served now?
    Status,
    /// Which versions are there?
    Version,
}

impl Verb {
    /// All commands.
    pub const ALL: [Self; 6] =
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// As in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The command with exactly this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    /// The version that brought the command, if it came later than the others.
    pub fn since(self) -> Option<Version> {
        match self {
            Self::Check => Some(Version::V0_4_0),
            Self::Gc | Self::Status => Some(Version::V1_1_0),
            Self::Add | Self::Del | Self::Version => None,
        }
    }
}

/// One call, parsed and checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// The command.
    pub verb: Verb,
    /// The configuration's version; for a DEL and a VERSION of one that is not supported, the
    /// newest.
    pub version: Version,
    /// The network's name; empty for VERSION.
    pub network: Arc<str>,
    /// The network out of whose pool an ADD gets its addresses: the one whose central
    /// configuration it uses, or else `network`.
    pub pool: Arc<str>,
    /// When the plugin's process started, in nanoseconds on the boot clock; only the plugin says.
    pub started_at: Option<u64>,
    /// DEL: release only what the ADD with the same `started_at` made.
    pub undo: bool,
    /// The container's network namespace, as the runtime gave it; may be empty.
    pub netns: Box<str>,
    /// What the command needs to know.
    pub body: Body,
}

/// What a command needs to know.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// ADD.
    Add(Box<Add>),
    /// DEL.
    Del(Del),
    /// CHECK.
    Check(Check),
    /// GC.
    Gc(Gc),
    /// STATUS.
    Status(Status),
    /// VERSION.
    Version {
        /// `cniVersion` as the caller sent it, which the answer repeats; may be empty.
        echo: Box<str>,
    },
}

/// Which interface of which container: an attachment within its network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id {
    /// The container id.
    pub container_id: ContainerId,
    /// The name of the interface in the container.
    pub ifname: Box<str>,
}

/// The pod that a container belongs to, if the runtime says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pod {
    /// The namespace; empty when the runtime (podman, say) has none.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

/// What an ADD wants.
#[derive(Clone, PartialEq, Debug)]
pub struct Add {
    /// For whom.
    pub id: Id,
    /// The range sets, at least one; an ADD gives one address of each.
    pub sets: Vec<Ranges>,
    /// Addresses that are asked for, each once.
    pub asked: Vec<IpAddr>,
    /// The pod's stage.
    pub stage: Option<Stage>,
    /// The pod.
    pub pod: Option<Pod>,
    /// Routes for the result.
    pub routes: Vec<Route>,
    /// The `resolv.conf` whose contents go into the result.
    pub resolv_conf: Option<PathBuf>,
}

/// What a DEL wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Del {
    /// Whose addresses.
    pub id: Id,
}

/// What a CHECK compares.
#[derive(Clone, PartialEq, Debug)]
pub struct Check {
    /// Whose addresses.
    pub id: Id,
    /// The range sets, at least one.
    pub sets: Vec<Ranges>,
    /// The addresses in `prevResult`, in its order; none without a `prevResult`.
    pub prev_ips: Option<Vec<IpNet>>,
}

/// What a GC may release.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gc {
    /// The attachments that stay; one may be there twice. None: the caller does not say, and
    /// nothing is released.
    pub valid: Option<Vec<Id>>,
}

/// What a STATUS asks about.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The range sets; none when the ranges come with each attachment (`runtimeConfig.ipRanges`).
    pub sets: Vec<Ranges>,
}

/// What a body holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Calls {
    /// One call.
    One(Request),
    /// An array of calls, each good or bad for itself, in order.
    Many(Vec<Result<Request, Error>>),
}
