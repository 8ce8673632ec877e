//! The error of an ADD that failed: of a pool that has nothing left it says how large the pool is,
//! and what stands in the way.

use std::sync::Arc;
use std::time::Duration;

use super::AppState;
use super::news;
use super::outcome;
use super::pools::Quarantined;
use crate::cni::error::Error;
use crate::core::coordinator::CallError;
use crate::core::ids::LeaseId;
use crate::core::range_set::AssignError;
use crate::core::txn::{Answer, Request};
use crate::events::{KeptEvent, Recent};
use crate::{clock, limits};

/// The error object of an ADD out of this pool.
pub(super) async fn explain(node: &AppState, pool: &Arc<str>, error: CallError) -> Error {
    let shortage = shortage(node, pool, &error).await;
    let error = outcome::explain(error);
    match shortage {
        Some(details) => error.with_details(details),
        None => error,
    }
}

/// Returns the details of the error when a pool has no address left: the size of the pool, and
/// which blocks cannot be used.
async fn shortage(node: &AppState, pool: &Arc<str>, error: &CallError) -> Option<String> {
    let CallError::Assign { error, .. } = error else { return None };
    let (AssignError::Exhausted { allowed, .. } | AssignError::Gone { allowed, .. }) = error else {
        return None;
    };
    let size: u128 = allowed.iter().map(|range| range.count_in(range.addresses())).sum();
    if let Some(Quarantined { addresses, node: removed, lease }) =
        node.pools.quarantined(pool, allowed)
    {
        let left = match lease {
            Some(lease) => time_left(node, lease).await,
            None => None,
        };
        let until = left.map(|left| format!(" until {}", clock::rfc3339(clock::unix() + left)));
        return Some(format!(
            "network {pool} has {size} addresses, and {addresses} of them are in quarantine{} \
             since node {removed} was removed: wait, or shorten it (leasehold node remove \
             {removed} --yes --quarantine 1m)",
            until.unwrap_or_default()
        ));
    }
    Some(match error {
        AssignError::Gone { node: owner, .. } => absence(&node.recent, owner),
        _ => format!(
            "network {pool} has {size} addresses: add a range, or find what is not released: \
             leasehold check, leasehold allocations"
        ),
    })
}

/// Says since when a node is away, if this daemon saw it go, and what to do about it.
fn absence(recent: &Recent, owner: &str) -> String {
    let events = recent.changed_since(0).into_iter().rev();
    let left = |event: &KeptEvent| {
        event.what.kind == news::SESSION.went.0 && event.what.node.as_deref() == Some(owner)
    };
    let since = match events.into_iter().find(left) {
        Some(event) => format!("its session ended at {}", clock::rfc3339(event.last)),
        None => "leasehold node list shows its last write".to_owned(),
    };
    format!(
        "{since}: start its daemon; or, if the node is gone for good, leasehold node remove \
         {owner} --yes"
    )
}

/// The time that a lease has left, if the store says so soon.
async fn time_left(node: &AppState, lease: LeaseId) -> Option<Duration> {
    let asked = node.store.ask(Request::TimeLeft(lease));
    match tokio::time::timeout(limits::TIME_LEFT_WAIT_MAX, asked).await {
        Ok(Ok(Answer::Left(left))) => left,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Happening;

    #[test]
    fn an_absence_is_dated_by_the_last_end_of_the_session() {
        let recent = Recent::default();
        let unseen = absence(&recent, "web-1");
        assert!(unseen.starts_with("leasehold node list shows its last write: "), "{unseen}");
        for (kind, node) in [("nodeLeft", "web-2"), ("nodeJoined", "web-1")] {
            let (network, text) = (None, format!("{node} {kind}"));
            let node = Some(node.into());
            recent.add(Happening { kind, node, network, text, of_block: false });
        }
        assert_eq!(absence(&recent, "web-1"), unseen);
        let said = absence(&recent, "web-2");
        assert!(said.starts_with("its session ended at 20"), "{said}");
        assert!(said.contains("leasehold node remove web-2 --yes"), "{said}");
    }
}
