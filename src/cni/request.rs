//! A CNI call as a typed request: the types only.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::core::container_id::ContainerId;
use crate::core::range::Ranges;
use crate::core::stage::Stage;
use crate::core::time::StartTime;

use super::error::Error;
use super::resolv::ResolvConf;
use super::result::Route;
use super::unknown::UnknownKey;
use super::version::Version;

/// A CNI command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    /// Gives the attachment its addresses.
    Add,
    /// Releases the addresses of the attachment.
    Del,
    /// Checks that the attachment still holds the addresses of its ADD.
    Check,
    /// Releases the attachments that are not in the list of valid ones.
    Gc,
    /// Tells whether the node can serve an ADD now.
    Status,
    /// Lists the supported versions.
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

    /// The version that introduced the command, if it is newer than the other commands.
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
    /// The configuration's version; the newest one for a DEL or a VERSION with an unsupported
    /// version.
    pub version: Version,
    /// The network's name; empty for VERSION.
    pub network: Arc<str>,
    /// The network out of whose pool an ADD gets its addresses: the one whose central
    /// configuration it uses, or else `network`.
    pub pool: Arc<str>,
    /// The start time of the plugin's process; only the plugin sends it.
    pub started_at: Option<StartTime>,
    /// The time since which the plugin's process has found no daemon, if it had to wait. Only the
    /// plugin sends it.
    pub waited_since: Option<StartTime>,
    /// DEL: release only what the ADD with the same `started_at` made.
    pub undo: bool,
    /// The container's network namespace, as the runtime gave it; may be empty.
    pub netns: Box<str>,
    /// The part that depends on the command.
    pub body: Body,
}

/// The part of a call that depends on the command.
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

/// An interface of a container: an attachment within its network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id {
    /// The container id.
    pub container_id: ContainerId,
    /// The name of the interface in the container.
    pub ifname: Arc<str>,
}

/// The pod of a container, if the runtime names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pod {
    /// The namespace; empty if the runtime has none, such as podman.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

/// The request of an ADD.
#[derive(Clone, PartialEq, Debug)]
pub struct Add {
    /// The attachment that gets the addresses.
    pub id: Id,
    /// The range sets, at least one; an ADD gives one address of each.
    pub sets: Vec<Ranges>,
    /// The requested addresses, each once.
    pub requested: Vec<IpAddr>,
    /// The pod's stage.
    pub stage: Option<Stage>,
    /// The pod.
    pub pod: Option<Pod>,
    /// Routes for the result.
    pub routes: Vec<Route>,
    /// The `resolv.conf` whose contents go into the result.
    pub resolv_conf: Option<ResolvConf>,
    /// The directory in which host-local had its files for this configuration, if not the usual
    /// one.
    pub data_dir: Option<PathBuf>,
    /// Keys without effect.
    pub unknown: Vec<UnknownKey>,
}

/// The request of a DEL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Del {
    /// The attachment whose addresses are released.
    pub id: Id,
    /// As in an [`Add`], if it can be read.
    pub data_dir: Option<PathBuf>,
}

/// The request of a CHECK.
#[derive(Clone, PartialEq, Debug)]
pub struct Check {
    /// The attachment whose addresses are checked.
    pub id: Id,
    /// The range sets, at least one.
    pub sets: Vec<Ranges>,
    /// The addresses in `prevResult`, in its order; `None` without a `prevResult`.
    pub prev_ips: Option<Vec<IpNet>>,
}

/// The request of a GC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gc {
    /// The attachments that stay; one may be there twice. With `None` the caller sent no list, and
    /// nothing is released.
    pub valid: Option<Vec<Id>>,
}

/// The request of a STATUS.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The range sets; none when the ranges come with each attachment (`runtimeConfig.ipRanges`).
    pub sets: Vec<Ranges>,
    /// The addresses that every ADD of this configuration asks for.
    pub requested: Vec<IpAddr>,
    /// As in an [`Add`].
    pub resolv_conf: Option<ResolvConf>,
    /// As in an [`Add`].
    pub data_dir: Option<PathBuf>,
}

/// The calls in a body.
#[derive(Clone, PartialEq, Debug)]
pub enum Calls {
    /// One call.
    One(Request),
    /// An array of calls, each good or bad for itself, in order.
    Many(Vec<Result<Request, Error>>),
}
