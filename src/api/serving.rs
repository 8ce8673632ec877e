//! STATUS: whether an ADD of a configuration can be served now. A STATUS refuses a configuration
//! that an ADD refuses for every pod, in the ADD's own words.

use std::net::IpAddr;
use std::sync::Arc;

use super::AppState;
use super::cause::{NOT_IMPORTED, STORE};
use super::cluster::Store;
use super::foreign::Asking;
use super::outcome::explain;
use super::resolv_conf;
use crate::cni::error::{Code, Error};
use crate::cni::offer::offers_any;
use crate::cni::request::Status;
use crate::core::address::BlockSize;
use crate::core::attachment::AttachmentId;
use crate::core::cause::Cause;
use crate::core::coordinator::CallError;
use crate::core::keys::network_key;
use crate::core::node::Unable;
use crate::core::range::Ranges;
use crate::core::range_set::AssignError;
use crate::core::value::{Geometry, Value};
use crate::limits;

/// Answers a STATUS.
///
/// # Errors
/// An ADD could not be served: [`Code::NotAvailable`], or the code of the ADD if that would never
/// be served with this configuration.
pub(super) async fn can_serve(
    node: &AppState,
    network: Arc<str>,
    pool: Arc<str>,
    status: Status,
) -> Result<String, Error> {
    let sets: Vec<Arc<Ranges>> = status.sets.into_iter().map(Arc::new).collect();
    if let Some(index) = sets.iter().position(|set| !offers_any(set)) {
        return Err(unable(format!(
            "range {index}: every address is reserved, listed for a stage or a gateway, so none is \
             left for an ADD that asks for none: {}",
            sets[index]
        )));
    }
    if let Some(error) = misasked(&sets, &status.requested) {
        return Err(explain(error));
    }
    if let Some(file) = &status.resolv_conf {
        resolv_conf::read(file).await?;
    }
    let id = AttachmentId { network, container_id: "".into(), ifname: "".into() };
    let (requested, data_dir) = (&*status.requested, status.data_dir);
    let asking =
        Asking { id: &id, pool: &pool, sets: &sets, requested, data_dir, takes_over: false };
    // A runtime takes a node out of service for which STATUS fails, and what runs there with it.
    let fails_when_full = node.policy.status_fails_when_full;
    match admit(node, &asking).await {
        Err((STORE, _)) if !fails_when_full && is_in_service(node) => {}
        admitted => admitted.map_err(|(_, error)| now(error))?,
    }
    if let Some(error) = other_block_size(node, &pool, &sets).await {
        return Err(explain(error));
    }
    match node.machines.can_serve(pool, &sets).await {
        Err(cause) if !fails_when_full && is_of_the_cluster(&cause) && is_in_service(node) => {
            Ok(String::new())
        }
        Err(cause) => Err(unable(cause.to_string())),
        Ok(Some(full)) if fails_when_full => {
            let ranges = &sets[full];
            Err(unable(format!("no IP addresses available: range {full}: {ranges}")))
        }
        Ok(_) => Ok(String::new()),
    }
}

/// Returns whether the other nodes have the same cause, or may have it at any time: it says nothing
/// about this one.
fn is_of_the_cluster(cause: &Unable) -> bool {
    let (Unable::NewSet(_, cause) | Unable::Set(_, cause)) = cause else { return false };
    match cause {
        Cause::Store(_)
        | Cause::NoAnswerInTime
        | Cause::NotRecordedInTime
        | Cause::LeaseGone
        | Cause::OfflineLimit
        | Cause::Restored { .. }
        | Cause::UnreadableValue(_)
        | Cause::OwnerSilent(_)
        | Cause::BlocksMoving
        | Cause::NetworkChanging
        | Cause::NotJoined => true,
        Cause::Draining
        | Cause::Unconfirmed
        | Cause::TakenOver { .. }
        | Cause::OtherMachine { .. }
        | Cause::NameInUse { .. }
        | Cause::OtherDirectory { .. }
        | Cause::OtherBoot { .. }
        | Cause::TooManySets => false,
    }
}

/// Returns whether this node has been in service: it joined since its daemon started, or
/// containers hold its addresses. Nothing runs on one that has not, and it may have a wrong
/// password.
fn is_in_service(node: &AppState) -> bool {
    node.standing.borrow().epoch.is_some() || !node.index.is_empty()
}

/// Admits an ADD unless another plugin holds addresses of its network that were not taken over.
///
/// # Errors
/// The cause, as metrics have it, and the answer.
pub(super) async fn admit(
    node: &AppState,
    asking: &Asking<'_>,
) -> Result<(), (&'static str, Error)> {
    node.foreign.admit(node, asking).await.map_err(|error| (NOT_IMPORTED, error))?;
    node.older.admit(node, asking).await
}

fn unable(cause: String) -> Error {
    Error::new(Code::NotAvailable, cause)
}

/// An ADD is to be tried again; a STATUS says that none can be served.
fn now(error: Error) -> Error {
    Error { code: Code::NotAvailable, ..error }
}

/// Returns why no ADD can have all the addresses that it asks for: each must be in a range set of
/// its own, and none a gateway.
pub(super) fn misasked(sets: &[Arc<Ranges>], requested: &[IpAddr]) -> Option<CallError> {
    let mut unmet = requested.to_vec();
    for (set, ranges) in sets.iter().enumerate() {
        let Some(at) = unmet.iter().position(|&at| ranges.find_address(at).is_some()) else {
            continue;
        };
        let address = unmet.remove(at);
        let range = ranges.find_address(address);
        if range.is_some_and(|range| range.gateway == address) {
            return Some(CallError::Assign { set, error: AssignError::Gateway(address) });
        }
    }
    (!unmet.is_empty() && !sets.is_empty()).then_some(CallError::NotAllAsked(unmet))
}

/// Returns the error of an ADD if a `blockSize` is another one than nodes agreed on. While the
/// store does not answer, only this node's own range sets are known; an ADD knows no more.
pub(super) async fn other_block_size(
    node: &AppState,
    pool: &str,
    sets: &[Arc<Ranges>],
) -> Option<CallError> {
    if sets.iter().all(|set| set.block_size.is_none()) {
        return None;
    }
    let described = node.machines.describe_sets().await.into_iter().map(|set| set.identity);
    let own = described.filter(|set| *set.network == *pool).map(|set| Geometry {
        family: set.family,
        block_size: set.block_size,
        ranges: set.ranges,
    });
    let mut known: Vec<Geometry> = own.collect();
    let asked = Store::new(&node.store);
    let key = network_key(pool);
    if let Ok(Ok([Some(key)])) =
        tokio::time::timeout(limits::TIME_LEFT_WAIT_MAX, asked.keys([&key])).await
        && let Value::Network(network) = key.value
    {
        known.extend(network.geometry);
    }
    sets.iter().find_map(|set| {
        let configured = set.block_size?;
        let agreed = known.iter().find(|known| has_part_of(known, set))?.block_size;
        (agreed != configured).then_some(CallError::BlockSize { agreed, configured })
    })
}

fn has_part_of(known: &Geometry, set: &Ranges) -> bool {
    let whole = |size: BlockSize| known.ranges.iter().map(move |range| range.whole_blocks(size));
    known.family == set.family()
        && set.iter().any(|range| {
            let addresses = range.addresses();
            whole(known.block_size)
                .any(|of| of.first() <= addresses.last() && addresses.first() <= of.last())
        })
}
