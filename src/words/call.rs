//! Calls that fail, in host-local's words where it has some.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use crate::core::coordinator::{CallError, Crowd, HeldOtherwise};
use crate::core::range_set::AssignError;
use crate::core::stage::Stage;
use crate::limits;

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assign { set, error } => write!(f, "failed to allocate for range {set}: {error}"),
            Self::NotAllAsked(asked) => {
                write!(f, "failed to allocate all requested IPs: {}", Spaced(asked))
            }
            Self::AlreadyHeld { id, held, why } => {
                write!(f, "{} has been allocated to {}, {why}", Spaced(held), id.container_id)
            }
            Self::Overtaken(container) => write!(
                f,
                "a later DEL of {container} on this network came first: nothing was allocated"
            ),
            Self::TooOld(container) => {
                write!(
                    f,
                    "this ADD of {container} began too long ago: the daemon no longer knows \
                     whether a DEL came after it"
                )
            }
            Self::BlockSize { agreed, configured } => write!(
                f,
                "the range set has blocks of {} addresses, its configuration says {}",
                agreed.addresses(),
                configured.addresses()
            ),
            Self::Store(cause) if cause.is_of_the_store() => write!(
                f,
                "the cluster's store could not be asked for the network's block size: {cause}"
            ),
            Self::Store(cause) => {
                write!(f, "this node does not know the network's block size: {cause}")
            }
            Self::NotRecorded(cause) => write!(
                f,
                "the allocation was not recorded in the cluster's store, and was undone: {cause}"
            ),
            Self::RenewalNotRecorded(cause) => write!(
                f,
                "the allocation is held as before, but its renewal was not recorded in the \
                 cluster's store: {cause}"
            ),
            Self::TooManySets => {
                write!(
                    f,
                    "this node has {} range sets, which is the most it can have",
                    limits::RANGE_SETS_MAX
                )
            }
            Self::Journal(failure) => write!(f, "the journal on this node failed: {failure}"),
            Self::Stopping => f.write_str("the daemon on this node stops"),
            Self::Busy(crowd) => write!(f, "too many calls wait already ({crowd})"),
        }
    }
}

impl Error for CallError {}

impl fmt::Display for AssignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { allowed, stage } => {
                write!(f, "no IP addresses available in range set: {allowed}")?;
                match stage {
                    Some(stage) => write!(f, " (of the addresses listed for stage {stage})"),
                    None => Ok(()),
                }
            }
            Self::Taken { address, allowed } => {
                write!(f, "requested IP address {address} is not available in range set {allowed}")
            }
            Self::Gateway(address) => write!(f, "requested ip {address} is subnet's gateway"),
            Self::Stage { address, stage } => {
                write!(f, "requested IP address {address} is not for a pod {}", OfStage(*stage))
            }
            Self::NoBlock(cause) => write!(f, "no block of addresses could be leased: {cause}"),
            Self::Gone { allowed, node, gone_for } => {
                write!(
                    f,
                    "no IP addresses available in range set {allowed}: what is left is in blocks \
                     of node {node}, which is not alive"
                )?;
                match gone_for.as_secs() {
                    0 => Ok(()),
                    seconds => write!(f, ", and has not been for at least {seconds} s"),
                }
            }
            Self::Halted(cause) => write!(f, "this node hands out no addresses: {cause}"),
            Self::Busy => write!(
                f,
                "{} calls wait for a block of addresses already",
                limits::ASSIGNS_WAITING_MAX
            ),
        }
    }
}

impl Error for AssignError {}

impl fmt::Display for HeldOtherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherPool => "out of another network's pool than this ADD names: DEL it first",
            Self::OtherAddresses => "and this ADD asks for other addresses: DEL it first",
            Self::OutOfRanges => {
                "and one of these is in no range of this configuration: DEL it first"
            }
            Self::MoreSets => {
                "and this configuration has more range sets than it has addresses: DEL it first"
            }
        })
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "calls on this node",
            Self::Network => "calls of one network",
            Self::Attachment => "calls of one attachment",
        })
    }
}

/// Addresses with a space between each two.
struct Spaced<'a>(&'a [IpAddr]);

impl fmt::Display for Spaced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// "of stage ..." or "without a stage".
struct OfStage(Option<Stage>);

impl fmt::Display for OfStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(stage) => write!(f, "of stage {stage}"),
            None => f.write_str("without a stage"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::core::range::{Range, RangeSpec, Ranges};

    /// A node that is met for the first time has no known time of absence: none is said.
    #[test]
    fn the_absence_of_a_node_is_said_as_far_as_it_is_known() {
        let (start, end, gateway) = (None, None, None);
        let (subnet, sandbox, smallflow) = ("10.0.0.0/24".parse().unwrap(), vec![], vec![]);
        let spec = RangeSpec { subnet, start, end, gateway, sandbox, smallflow };
        let range = Range::new(spec).unwrap();
        let allowed = Arc::new(Ranges::new(vec![range], None).unwrap());
        let said = |millis| {
            let (allowed, node) = (allowed.clone(), "web-1".into());
            AssignError::Gone { allowed, node, gone_for: Duration::from_millis(millis) }.to_string()
        };
        assert!(said(0).ends_with("of node web-1, which is not alive"), "{}", said(0));
        assert_eq!(said(0), said(999));
        assert!(said(1_000).ends_with("alive, and has not been for at least 1 s"));
    }
}
