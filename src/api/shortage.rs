//! The error of an ADD that failed: of a pool that has nothing left it says how large the pool is,
//! and what stands in the way.

use std::sync::Arc;
use std::time::Duration;

use super::AppState;
use super::outcome;
use super::pools::Quarantined;
use crate::cni::error::Error;
use crate::core::coordinator::CallError;
use crate::core::ids::LeaseId;
use crate::core::range_set::AssignError;
use crate::core::txn::{Answer, Request};
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
    matches!(error, AssignError::Exhausted { .. }).then(|| {
        format!(
            "network {pool} has {size} addresses: add a range, or find what is not released: \
             leasehold check, leasehold allocations"
        )
    })
}

/// The time that a lease has left, if the store says so soon.
async fn time_left(node: &AppState, lease: LeaseId) -> Option<Duration> {
    let asked = node.store.ask(Request::TimeLeft(lease));
    match tokio::time::timeout(limits::TIME_LEFT_WAIT_MAX, asked).await {
        Ok(Ok(Answer::Left(left))) => left,
        _ => None,
    }
}
