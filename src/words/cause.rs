//! Reasons why a node leases no blocks or hands out nothing.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::core::cause::Cause;
use crate::core::node::Unable;
use crate::core::txn::StoreError;
use crate::limits;

use super::machine::digest_of;

/// The nodes for which a restore of the cluster's store waits, in words.
struct Settling<'a>(&'a [Arc<str>]);

impl fmt::Display for Settling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no block is leased until every node has said what it holds")?;
        let named = self.0.len().min(limits::NODES_NAMED_MAX);
        let (nodes, more) = self.0.split_at(named);
        if nodes.is_empty() {
            let least = limits::RESTORE_SETTLE.as_secs();
            return write!(f, ", and for {least} s at least (leasehold node list)");
        }
        write!(f, ": waiting for {}", nodes.join(", "))?;
        if !more.is_empty() {
            write!(f, " and {} more", more.len())?;
        }
        f.write_str(
            " (start the daemons of these nodes; leasehold node remove those that are gone for \
             good)",
        )
    }
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("the daemon on this node stops"),
            Self::Journal(cause) => write!(f, "the journal on this node failed: {cause}"),
            Self::NewSet(index, cause) | Self::Set(index, cause) => {
                write!(f, "range {index}: {cause}")
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::UnreadableValue(key) => {
                write!(f, "the value of {key} in the cluster's store cannot be read")
            }
            Self::NoAnswerInTime => {
                f.write_str("the cluster's store, or the nodes asked, did not answer in time")
            }
            Self::NotRecordedInTime => {
                f.write_str("the cluster's store did not take the record in time")
            }
            Self::NotJoined => f.write_str("this node has not joined the cluster yet"),
            Self::LeaseGone => f.write_str("this node's etcd lease ran out a moment ago"),
            Self::OfflineLimit => {
                f.write_str("the cluster's store was not reached for longer than offlineLimit")
            }
            Self::Draining => {
                f.write_str("an operator drains this node (leasehold node drain --undo ends that)")
            }
            Self::Unconfirmed => f.write_str(
                "the machine was started again, and the cluster's store has not confirmed yet \
                 which blocks are this node's",
            ),
            Self::Restored { awaited } => {
                let settling = Settling(awaited);
                write!(f, "the cluster's store was restored from a backup: {settling}")
            }
            Self::OwnerSilent(node) => write!(
                f,
                "node {node} is alive and holds some of the addresses that are left, but did not \
                 answer within {} ms",
                limits::ASK_WAIT.as_millis()
            ),
            Self::BlocksMoving => {
                f.write_str("blocks change hands faster than their owners can be asked")
            }
            Self::TooManySets => write!(
                f,
                "this node has {} range sets, which is the most it can have: networks that are new \
                 here are refused",
                limits::RANGE_SETS_MAX
            ),
            Self::NetworkChanging => {
                f.write_str("the network's key in the cluster's store keeps changing")
            }
            Self::TakenOver { .. }
            | Self::OtherMachine { .. }
            | Self::OtherDirectory { .. }
            | Self::OtherBoot { .. }
            | Self::NameInUse { .. } => conflict(self, f),
        }
    }
}

/// Two daemons have, or had, one name.
fn conflict(cause: &Cause, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match cause {
        Cause::TakenOver { node } => write!(
            f,
            "another daemon took over node {node}: stop one of them, or give it another name \
             (--node)"
        ),
        Cause::OtherMachine { node, stored, own } => write!(
            f,
            "node {node} is machine {} in the cluster's store, and this is machine {}: give this \
             node another name (--node), or remove the old one (leasehold node remove {node})",
            digest_of(stored),
            digest_of(own)
        ),
        Cause::OtherDirectory { node, stored, own, lives } => write!(
            f,
            "node {node} has another state directory ({}){}, and its blocks are not this one's \
             ({}): give this node another name (--node, with a new state directory), or, if the \
             other one will not come back, remove it (leasehold node remove {node})",
            short(stored),
            if *lives { " and is alive" } else { "" },
            short(own)
        ),
        Cause::OtherBoot { node, ttl } => write!(
            f,
            "a daemon of node {node} is alive, or died within the last {} s, and it started in \
             another boot than this one: it waits until the other's lease has run out. If this \
             machine is a copy of another one, give it another name (--node) and a new state \
             directory",
            ttl.as_secs()
        ),
        Cause::NameInUse { node, ttl } => write!(
            f,
            "a daemon of node {node} is alive, or died within the last {} s, and the state \
             directory of this one is new: it waits until the other's lease has run out",
            ttl.as_secs()
        ),
        _ => Ok(()),
    }
}

/// The beginning of an identity, which suffices to tell two apart.
fn short(identity: &str) -> &str {
    identity.get(..8).unwrap_or(identity)
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(said) | Self::Unknown(said) => f.write_str(said),
            Self::LeaseGone => f.write_str("an etcd lease is gone"),
            Self::OddAnswer => f.write_str("it gave an answer that does not fit the request"),
        }
    }
}

impl Error for StoreError {}
