//! `/v1/networks`: the centrally kept `ipam` objects in the cluster's store.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::AppState;
use super::cluster::{Refusal, Store, answer};
use super::zero;
use crate::cni::central::{check, check_keys, check_name};
use crate::core::address::{AddressRange, BlockSize, Family};
use crate::core::ids::Revision;
use crate::core::keys::{ALLOCATIONS, NETWORKS, network_key};
use crate::core::leaseholder::BlockSizeError;
use crate::core::operator::{
    ChangeNetwork, ChangeNetworkCommand, ChangeNetworkError, ChangedNetwork, Expected,
    NetworkChange, NetworkObject, ObjectReader,
};
use crate::core::range::{Range, Ranges};
use crate::core::txn::{KeyValue, Span};
use crate::core::value::{Geometry, NetworkValue, Value};
use crate::limits;

/// One network, as the store has it.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRow {
    /// Its name.
    pub network: String,
    /// Its `ipam` object, if that is kept centrally.
    pub ipam: Option<Json>,
    /// The block sizes on which the nodes have agreed.
    pub geometry: Vec<GeometryRow>,
    /// The revision of its key: a change that names it cannot undo another one.
    pub revision: u64,
    /// The reason why its key cannot be read, if it cannot.
    pub unreadable: Option<String>,
}

/// The block size of some addresses of a network.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct GeometryRow {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The prefix length of new blocks.
    pub block_size: u8,
    /// The first and the last address of each range.
    pub ranges: Vec<(String, String)>,
}

/// The conditions of a change.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// The revision that the network's key must have; 0: the key must not exist.
    pub revision: Option<u64>,
    /// True if an object with keys that have no effect is accepted too.
    #[serde(default)]
    pub unknown: bool,
    /// True if the change is made even if the addresses are another network's too, or the network
    /// is in use.
    #[serde(default)]
    pub force: bool,
}

/// The effect of a change.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// The network has an object now, and had none.
    Created,
    /// It has another one.
    Changed,
    /// It has had just this one.
    Unchanged,
    /// It no longer has one.
    Deleted,
}

impl From<NetworkChange> for Change {
    fn from(change: NetworkChange) -> Self {
        match change {
            NetworkChange::Created => Self::Created,
            NetworkChange::Changed => Self::Changed,
            NetworkChange::Unchanged => Self::Unchanged,
            NetworkChange::Deleted => Self::Deleted,
        }
    }
}

/// The outcome of a change to a network.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The network.
    pub network: String,
    /// The effect of the change.
    pub outcome: Change,
    /// The revision of its key now. None (0 in JSON): it has no key.
    #[serde(with = "zero")]
    pub revision: Option<Revision>,
}

/// Adds the routes of all reads.
pub fn reads(config: &mut web::ServiceConfig) {
    config
        .route("/v1/networks", web::get().to(list))
        .route("/v1/networks/{network}", web::get().to(get));
}

/// Adds the routes of all writes.
pub fn writes(config: &mut web::ServiceConfig) {
    config
        .route("/v1/networks/{network}", web::put().to(put))
        .route("/v1/networks/{network}", web::delete().to(delete));
}

async fn list(node: web::Data<AppState>) -> HttpResponse {
    let (store, work) = (Store::new(&node.store), AppState::clone(&node));
    let listed = async move {
        let mut rows = Vec::new();
        store.each(NETWORKS, |key| rows.extend(row(&key))).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            // A deleted network leaves only its block size behind, which does not make it a
            // network.
            let is_network = row.ipam.is_some() || row.unreadable.is_some();
            if is_network || is_in_use(&work, &store, &row.network).await? {
                shown.push(row);
            }
        }
        Ok::<_, Refusal>(shown)
    };
    node.lists.answer(listed).await
}

/// Returns whether any container holds an address out of the network's pool, here or on another
/// node.
async fn is_in_use(node: &AppState, store: &Store, network: &str) -> Result<bool, Refusal> {
    if node.index.uses_pool(network) {
        return Ok(true);
    }
    let records = Span::prefix(&format!("{ALLOCATIONS}{network}/"), 1);
    let found = store.read(vec![records]).await?;
    Ok(found.spans.iter().any(|keys| !keys.is_empty()))
}

/// The core's view of stored objects.
const READER: ObjectReader = ObjectReader { ranges: ranges_of, same: is_same };

/// The addresses of a network's object; none if it cannot be read.
fn ranges_of(ipam: &str) -> Vec<(Family, AddressRange)> {
    let sets = check(ipam.as_bytes()).unwrap_or_default();
    let ranges = sets.iter().flat_map(|set| set.iter());
    ranges.map(|range| (range.family(), range.addresses())).collect()
}

/// Returns whether two objects say the same; the order of keys says nothing.
fn is_same(a: &str, b: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<Json>(text).ok();
    json(a).is_some_and(|a| json(b) == Some(a))
}

async fn get(node: web::Data<AppState>, network: web::Path<String>) -> HttpResponse {
    answer(find(&Store::new(&node.store), &network).await)
}

async fn find(store: &Store, network: &str) -> Result<NetworkRow, Refusal> {
    let key = named(network)?;
    let [found] = store.keys([&key]).await?;
    found.as_ref().and_then(row).ok_or_else(|| absent(network))
}

fn absent(network: &str) -> Refusal {
    Refusal::absent(format!(
        "network {network} has no central configuration: see `leasehold network list`"
    ))
}

fn row(key: &KeyValue) -> Option<NetworkRow> {
    let network = key.key.strip_prefix(NETWORKS)?.to_owned();
    let (value, unreadable) = match &key.value {
        Value::Network(value) => (value.clone(), None),
        Value::Unreadable(why) => (NetworkValue::default(), Some(why.to_string())),
        _ => return None,
    };
    let ipam = value.ipam.as_deref().and_then(|ipam| serde_json::from_str(ipam).ok());
    let geometry = value.geometry.iter().map(geometry).collect();
    Some(NetworkRow { network, ipam, geometry, revision: key.mod_revision.get(), unreadable })
}

fn geometry(geometry: &Geometry) -> GeometryRow {
    let text = |number| geometry.family.address(number).to_string();
    GeometryRow {
        family: geometry.family.to_string(),
        block_size: geometry.block_size.prefix(geometry.family),
        ranges: geometry
            .ranges
            .iter()
            .map(|range| (text(range.first()), text(range.last())))
            .collect(),
    }
}

/// The key of a network that may have that name.
fn named(network: &str) -> Result<String, Refusal> {
    check_name(network).map_err(|rule| Refusal::wrong(format!("{network:?} {rule}")))?;
    Ok(network_key(network))
}

async fn put(
    node: web::Data<AppState>,
    network: web::Path<String>,
    at: web::Query<At>,
    payload: web::Payload,
) -> HttpResponse {
    let body = payload.to_bytes_limited(limits::IPAM_BYTES_MAX);
    let body = match tokio::time::timeout(limits::REQUEST_WAIT_MAX, body).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(error))) => Err(Refusal::wrong(format!("request body: {error}"))),
        Ok(Err(_)) => {
            let max = limits::IPAM_BYTES_MAX;
            Err(Refusal::wrong(format!("the ipam object is larger than {max} bytes")))
        }
        Err(_) => Err(Refusal::wrong("the request body did not come in time")),
    };
    let result = match body.and_then(|body| object(&body, at.unknown)) {
        Ok(object) => change(&node, &network, &at, Some(object)).await,
        Err(refusal) => Err(refusal),
    };
    answer(result)
}

/// The object, if it is good. `unknown`: keys without effect are no fault.
fn object(body: &[u8], unknown: bool) -> Result<NetworkObject, Refusal> {
    let (sets, without_effect) = check_keys(body).map_err(|error| match &*error.details {
        "" => Refusal::wrong(error.msg),
        details => Refusal::wrong(format!("{}: {details}", error.msg)),
    })?;
    if !unknown && !without_effect.is_empty() {
        let keys: Vec<String> = without_effect.iter().map(ToString::to_string).collect();
        return Err(Refusal::wrong(format!(
            "{}; leave it out, or store it all the same with --allow-unknown",
            keys.join("; ")
        )));
    }
    let json: Json =
        serde_json::from_slice(body).map_err(|error| Refusal::wrong(error.to_string()))?;
    Ok(NetworkObject { text: json.to_string().into(), sets })
}

async fn delete(
    node: web::Data<AppState>,
    network: web::Path<String>,
    at: web::Query<At>,
) -> HttpResponse {
    answer(change(&node, &network, &at, None).await)
}

/// Writes a network's object, or deletes it, and waits until this node has seen it.
async fn change(
    node: &AppState,
    network: &str,
    at: &At,
    object: Option<NetworkObject>,
) -> Result<Changed, Refusal> {
    named(network)?;
    let sets = object.as_ref().map(|object| object.sets.clone()).unwrap_or_default();
    let command = ChangeNetworkCommand {
        network: network.into(),
        object,
        expected: at.revision.map_or(Expected::Any, |at| Expected::Exactly(Revision::new(at))),
        force: at.force,
        used_here: node.index.uses_pool(network),
    };
    let ended = Store::new(&node.store).run(ChangeNetwork::new(command, READER)).await;
    let changed = ended.map_err(|error| unchanged(network, at, &sets, error))?;
    let ChangedNetwork { change, revision } = changed;
    if change != NetworkChange::Unchanged {
        tracing::info!(network, outcome = ?change, "an operator's central configuration");
        let seen = node.networks.seen(network, revision);
        let _ = tokio::time::timeout(limits::SEEN_WAIT_MAX, seen).await;
    }
    Ok(Changed { network: network.to_owned(), outcome: change.into(), revision })
}

/// Says why a network's object was not changed, and what to do.
fn unchanged(network: &str, at: &At, sets: &[Ranges], error: ChangeNetworkError) -> Refusal {
    let conflict = match error {
        ChangeNetworkError::Absent => return absent(network),
        ChangeNetworkError::Store(error) => return error.into(),
        ChangeNetworkError::BlockSize(_, BlockSizeError::Failed(cause)) => cause.to_string(),
        ChangeNetworkError::BlockSize(i, BlockSizeError::Size { agreed, configured }) => {
            return Refusal::wrong(does_not_fit(i, &sets[i], agreed, configured));
        }
        ChangeNetworkError::Overlaps(overlaps) => shared(network, &overlaps),
        ChangeNetworkError::InUse => format!(
            "containers hold addresses of network {network} (leasehold allocations --pool \
             {network}): without its configuration every ADD and CHECK of theirs fails; DEL still \
             works. To delete it all the same, say --force"
        ),
        ChangeNetworkError::Moved(revision) => format!(
            "network {network} has changed meanwhile: its revision is {}, not {}",
            zero::or_zero(revision),
            at.revision.unwrap_or_default()
        ),
        ChangeNetworkError::Unreadable => format!(
            "the value of {} in the store cannot be read: see it with etcdctl",
            network_key(network)
        ),
        ChangeNetworkError::Busy => {
            format!("others change network {network} at the same time: try again")
        }
    };
    Refusal::conflict(conflict)
}

fn shared(network: &str, overlaps: &[(Range, Arc<str>)]) -> String {
    let of = |(range, other): &(Range, _)| format!("{range} with network {other}");
    let overlaps: Vec<String> = overlaps.iter().map(of).collect();
    format!(
        "network {network} shares addresses: {}; each network has a pool of its own, so the same \
         address would be handed out in both. Use one network for both (\"network\" in the CNI \
         file), give other ranges, or store it all the same with --force",
        overlaps.join(", ")
    )
}

/// Blocks are cut by the sizes on which the nodes have agreed: an object that they would have to
/// refuse is refused before they see it.
fn does_not_fit(i: usize, set: &Ranges, agreed: BlockSize, configured: BlockSize) -> String {
    let size = |size: BlockSize| format!("/{}", size.prefix(set.family()));
    let (agreed, configured) = (size(agreed), size(configured));
    match (set.block_size, set.family()) {
        (Some(_), family) => {
            let key = if family == Family::V4 { "blockSize" } else { "blockSize6" };
            format!(
                "ipam.{key} is {configured} for range set {i} ({set}), and the nodes have agreed \
                 on blocks of {agreed} there: leave {key} out, or use addresses that were never in \
                 this network"
            )
        }
        (None, _) => format!(
            "range set {i} ({set}) joins addresses with blocks of {configured} and of {agreed}, by \
             what the nodes have agreed on: keep them in range sets of their own"
        ),
    }
}
