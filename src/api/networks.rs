//! `/v1/networks`: the centrally kept `ipam` objects in the cluster's store.

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
use crate::core::leaseholder::{BlockSizeError, block_sizes_fit};
use crate::core::range::Ranges;
use crate::core::txn::{Compare, KeyValue, Span, Txn, Write};
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

/// Refuses ranges that another network has too: each network has a pool of its own, so the same
/// address would be handed out in both.
async fn apart(store: &Store, network: &str, sets: &[Ranges]) -> Result<(), Refusal> {
    let mut overlaps = Vec::new();
    let compare = |key: KeyValue| {
        let Some(other) = key.key.strip_prefix(NETWORKS).filter(|other| *other != network) else {
            return;
        };
        let Value::Network(value) = &key.value else { return };
        let others = ranges_of(value);
        let shared = sets.iter().flat_map(|set| set.iter()).find(|range| {
            let meets = |&(family, other): &(Family, AddressRange)| {
                family == range.family() && other.meets(range.addresses())
            };
            others.iter().any(meets)
        });
        if let Some(range) = shared {
            overlaps.push(format!("{range} with network {other}"));
        }
    };
    store.each(NETWORKS, compare).await?;
    if overlaps.is_empty() {
        return Ok(());
    }
    Err(Refusal::conflict(format!(
        "network {network} shares addresses: {}; each network has a pool of its own, so the same \
         address would be handed out in both. Use one network for both (\"network\" in the CNI \
         file), give other ranges, or store it all the same with --force",
        overlaps.join(", ")
    )))
}

/// The addresses of a network: of its object, and of what nodes have used.
fn ranges_of(value: &NetworkValue) -> Vec<(Family, AddressRange)> {
    let object = value.ipam.as_deref().and_then(|ipam| check(ipam.as_bytes()).ok());
    let sets = object.unwrap_or_default();
    let of_object = sets.iter().flat_map(|set| set.iter());
    let mut ranges: Vec<_> = of_object.map(|range| (range.family(), range.addresses())).collect();
    // Without an object, what nodes have agreed on is all that is known.
    if ranges.is_empty() {
        for geometry in &value.geometry {
            ranges.extend(geometry.ranges.iter().map(|&range| (geometry.family, range)));
        }
    }
    ranges
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

/// An object that is to be kept.
struct Object {
    json: Json,
    sets: Vec<Ranges>,
}

/// The object, if it is good. `unknown`: keys without effect are no fault.
fn object(body: &[u8], unknown: bool) -> Result<Object, Refusal> {
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
    let json = serde_json::from_slice(body).map_err(|error| Refusal::wrong(error.to_string()))?;
    Ok(Object { json, sets })
}

/// Blocks are cut by the sizes on which the nodes have agreed: an object that they would have to
/// refuse is refused before they see it.
fn fit(known: &NetworkValue, sets: &[Ranges]) -> Result<(), Refusal> {
    let (i, fixed, configured) = match block_sizes_fit(known, sets) {
        Ok(()) => return Ok(()),
        Err((_, BlockSizeError::Failed(cause))) => {
            return Err(Refusal::conflict(cause.to_string()));
        }
        Err((i, BlockSizeError::Size { agreed: fixed, configured })) => (i, fixed, configured),
    };
    let set = &sets[i];
    let size = |size: BlockSize| format!("/{}", size.prefix(set.family()));
    let (fixed, configured) = (size(fixed), size(configured));
    Err(Refusal::wrong(match (set.block_size, set.family()) {
        (Some(_), family) => {
            let key = if family == Family::V4 { "blockSize" } else { "blockSize6" };
            format!(
                "ipam.{key} is {configured} for range set {i} ({set}), and the nodes have agreed \
                 on blocks of {fixed} there: leave {key} out, or use addresses that were never in \
                 this network"
            )
        }
        (None, _) => format!(
            "range set {i} ({set}) joins addresses with blocks of {configured} and of {fixed}, by \
             what the nodes have agreed on: keep them in range sets of their own"
        ),
    }))
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
    object: Option<Object>,
) -> Result<Changed, Refusal> {
    let store = Store::new(&node.store);
    if !at.force {
        named(network)?;
        match &object {
            Some(object) => apart(&store, network, &object.sets).await?,
            None if is_in_use(node, &store, network).await? => {
                return Err(Refusal::conflict(format!(
                    "containers hold addresses of network {network} (leasehold allocations --pool \
                     {network}): without its configuration every ADD and CHECK of theirs \
                     fails; DEL still works. To delete it all the same, say --force"
                )));
            }
            None => {}
        }
    }
    let changed = write(&store, network, at.revision, object).await?;
    if changed.outcome != Change::Unchanged {
        tracing::info!(network, outcome = ?changed.outcome, "an operator's central configuration");
        let seen = node.networks.seen(network, changed.revision);
        let _ = tokio::time::timeout(limits::SEEN_WAIT_MAX, seen).await;
    }
    Ok(changed)
}

async fn write(
    store: &Store,
    network: &str,
    at: Option<u64>,
    object: Option<Object>,
) -> Result<Changed, Refusal> {
    let key = named(network)?;
    for _ in 0..limits::CHANGE_TRIES_MAX {
        let [found] = store.keys([&key]).await?;
        let read = found.as_ref().map(|found| found.mod_revision);
        if let Some(at) = at.filter(|at| Revision::new(*at) != read) {
            let revision = zero::or_zero(read);
            return Err(Refusal::conflict(format!(
                "network {network} has changed meanwhile: its revision is {revision}, not {at}"
            )));
        }
        let known = match found.map(|found| found.value) {
            None => NetworkValue::default(),
            Some(Value::Network(known)) => known,
            Some(_) => {
                return Err(Refusal::conflict(format!(
                    "the value of {key} in the store cannot be read: see it with etcdctl"
                )));
            }
        };
        let before = known.ipam.as_deref().map(serde_json::from_str::<Json>);
        let outcome = match (&object, &before) {
            (Some(object), Some(Ok(before))) if object.json == *before => Change::Unchanged,
            (Some(_), Some(_)) => Change::Changed,
            (Some(_), None) => Change::Created,
            (None, Some(_)) => Change::Deleted,
            (None, None) => return Err(absent(network)),
        };
        let network = network.to_owned();
        if outcome == Change::Unchanged {
            return Ok(Changed { network, outcome, revision: read });
        }
        if let Some(object) = &object {
            fit(&known, &object.sets)?;
        }
        // The block sizes stay: blocks are cut by them.
        let ipam = object.as_ref().map(|object| object.json.to_string().into());
        let value = NetworkValue { ipam, ..known };
        let gone = value == NetworkValue::default();
        let then = match gone {
            true => Write::Delete(key.clone()),
            false => Write::Put(key.clone(), Value::Network(value), None),
        };
        let when = vec![Compare::unchanged(key.clone(), read)];
        if let Some(revision) = store.txn(Txn { when, then: vec![then] }).await? {
            let revision = (!gone).then_some(revision);
            return Ok(Changed { network, outcome, revision });
        }
    }
    Err(Refusal::conflict(format!("others change network {network} at the same time: try again")))
}
