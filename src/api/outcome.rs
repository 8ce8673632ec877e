//! Calls on their way to the coordinator, and what comes back.

use std::future::Future;

use super::{AppState, Phase};
use crate::cni::error::{Code, Error};
use crate::core::coordinator::{Call, CallError, Outcome};
use crate::core::range_set::AssignError;

/// Sends a call to the coordinator, once calls are served; the outcome comes later.
pub(super) async fn execute(node: &AppState, call: Call) -> impl Future<Output = Outcome> + use<> {
    // Calls wait until the notes that plugins left are acted on. A closed channel means that the
    // daemon is gone, and so is the coordinator.
    if *node.phase.borrow() == Phase::Starting {
        let _ = node.phase.clone().wait_for(|phase| *phase != Phase::Starting).await;
    }
    node.machines.execute(call)
}

/// The error object for a failed call: its code and what to do about it.
pub(super) fn explain(error: CallError) -> Error {
    let (code, remedy) = match &error {
        CallError::Assign { error, .. } => match error {
            AssignError::Exhausted { .. } => (
                Code::Exhausted,
                "add a range, or find what is not released: leasehold check, leasehold allocations",
            ),
            AssignError::Taken { .. } => {
                (Code::Taken, "ask for another address, or see who has it: leasehold allocations")
            }
            AssignError::Gateway(_) => (Code::Taken, "ask for another address"),
            AssignError::Stage { .. } => {
                (Code::Taken, "ask for an address of the pod's stage, or for none")
            }
            AssignError::Gone { .. } => (
                Code::Exhausted,
                "start that node again; or, if it is gone for good, leasehold node remove NAME \
                 --yes",
            ),
            AssignError::NoBlock(_) => (Code::TryAgain, "see why: leasehold status"),
            AssignError::Halted(_) => (Code::TryAgain, "see why: leasehold status"),
            AssignError::Busy => (Code::TryAgain, "try again"),
        },
        CallError::NotAllAsked(_) => {
            (Code::Taken, "each must be in a range set of its own, between its start and end")
        }
        // The message says it all.
        CallError::AlreadyHeld { .. } => (Code::AlreadyHeld, ""),
        CallError::Overtaken(_) => (Code::Overtaken, "ADD again if the container is still wanted"),
        CallError::BlockSize { .. } => {
            (Code::Config, "leave blockSize out, or make it the same on every node")
        }
        CallError::Store(cause)
        | CallError::NotRecorded(cause)
        | CallError::RenewalNotRecorded(cause) => (
            Code::TryAgain,
            match cause.is_of_the_store() {
                true => "see whether etcd can be reached: leasehold status",
                false => "see why: leasehold status",
            },
        ),
        CallError::TooManySets => (
            Code::TryAgain,
            "networks that hold nothing are forgotten: see leasehold networks for the others",
        ),
        CallError::Journal(_) => {
            (Code::Io, "free or mend the disk of the state directory: Leasehold restarts then")
        }
        CallError::Busy(_) | CallError::Stopping | CallError::TooOld(_) => {
            (Code::TryAgain, "try again")
        }
    };
    Error::new(code, error.to_string()).with_details(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::attachment::AttachmentId;
    use crate::core::coordinator::HeldOtherwise;

    #[test]
    fn a_remedy_is_not_said_twice() {
        let id = AttachmentId { network: "n".into(), container_id: "c".into(), ifname: "e".into() };
        let (id, held, why) = (id.into(), Vec::new(), HeldOtherwise::MoreSets);
        let error = explain(CallError::AlreadyHeld { id, held, why });
        assert!(error.msg.ends_with("DEL it first") && error.details.is_empty(), "{error:?}");
    }
}
