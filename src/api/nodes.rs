//! `/v1/nodes`: the nodes of the cluster, and taking one out of service or out of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::AppState;
use super::cluster::{Refusal, Store, answer};
use crate::core::ids::LeaseId;
use crate::core::keys::{ALLOCATIONS, BLOCKS, NODES, SESSIONS, drain_key, node_key, session_key};
use crate::core::removal::{self, Removal};
use crate::core::txn::{Compare, KeyValue, StoreError, Txn, Write};
use crate::core::value::{BlockStatus, NodeValue, Value};
use crate::{clock, limits};

/// The prefix of all drain keys.
const DRAINS: &str = "drains/";

/// One node of the cluster.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// Its name.
    pub node: String,
    /// It is the one that answers.
    pub local: bool,
    /// How often a daemon of it has joined, and operators have removed it; 0: it has no key, only
    /// blocks that name it.
    pub epoch: u64,
    /// Its machine, by `/etc/machine-id`; empty if that has none.
    pub machine_id: String,
    /// The version of its daemon.
    pub version: String,
    /// When its daemon started, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The last thing it wrote of which the store has a time, likewise.
    pub last_write_unix_ms: u64,
    /// It has a session: its daemon runs and reaches the store.
    pub live: bool,
    /// Since when an operator wants its blocks back, likewise.
    pub draining_since_unix_ms: Option<u64>,
    /// When an operator removed it, likewise.
    pub removed_unix_ms: Option<u64>,
    /// Its blocks out of which nothing is handed out yet.
    pub spare: u64,
    /// Its blocks out of which addresses are handed out.
    pub active: u64,
    /// Its blocks that nobody has until their quarantine ends.
    pub quarantined: u64,
    /// Why its key cannot be read, if so.
    pub unreadable: Option<String>,
}

/// How to remove a node.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remove {
    /// Although it lives, or is the one that answers.
    #[serde(default)]
    pub force: bool,
    /// For how many seconds nobody gets its blocks.
    #[serde(default = "quarantine")]
    pub quarantine_s: u64,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

fn quarantine() -> u64 {
    limits::QUARANTINE.as_secs()
}

/// What a removal did.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// The node was removed.
    Removed,
    /// It was removed before; its blocks are in quarantine.
    AlreadyRemoved,
    /// It was removed before and had no blocks any more: the store does not know it any more.
    Forgotten,
}

/// What was done to a node, or would be.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// The node.
    pub node: String,
    /// What became of it.
    pub outcome: Fate,
    /// It only would.
    pub dry_run: bool,
    /// Its epoch now.
    pub epoch: u64,
    /// Blocks in quarantine now.
    pub quarantined: usize,
    /// Spare blocks, free at once.
    pub freed: usize,
    /// For how many seconds the quarantine lasts.
    pub quarantine_s: u64,
    /// Records of its allocations that were deleted.
    pub records: usize,
    /// Whether it had a session.
    pub was_live: bool,
    /// The last thing it wrote of which the store has a time, in milliseconds since 1970.
    pub last_write_unix_ms: u64,
}

/// Whether to drain a node.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// Not any more.
    #[serde(default)]
    pub undo: bool,
}

/// What became of it.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Drained {
    /// The node.
    pub node: String,
    /// Whether it is to be drained now.
    pub draining: bool,
    /// Whether that is new.
    pub changed: bool,
    /// Whether it lives: if not, it will know when it does.
    pub live: bool,
}

pub(super) async fn list(node: web::Data<AppState>) -> HttpResponse {
    answer(rows(&node).await.map_err(Refusal::from))
}

async fn rows(node: &AppState) -> Result<Vec<NodeRow>, StoreError> {
    let store = Store::new(&node.store);
    let mut rows: BTreeMap<String, NodeRow> = BTreeMap::new();
    store.each(NODES, |key| note_node(&mut rows, &key)).await?;
    let mut sessions = Vec::new();
    store.each(SESSIONS, |key| sessions.push(key.key)).await?;
    for row in rows.values_mut() {
        row.live = sessions.contains(&session_key(&row.node));
    }
    store.each(DRAINS, |key| note_drain(&mut rows, &key)).await?;
    store.each(BLOCKS, |key| note_block(&mut rows, &key)).await?;
    let mut rows: Vec<NodeRow> = rows.into_values().collect();
    for row in &mut rows {
        row.local = row.node == node.about.node;
    }
    Ok(rows)
}

fn row(node: &str) -> NodeRow {
    NodeRow {
        node: node.to_owned(),
        local: false,
        epoch: 0,
        machine_id: String::new(),
        version: String::new(),
        since_unix_ms: 0,
        last_write_unix_ms: 0,
        live: false,
        draining_since_unix_ms: None,
        removed_unix_ms: None,
        spare: 0,
        active: 0,
        quarantined: 0,
        unreadable: None,
    }
}

fn note_node(rows: &mut BTreeMap<String, NodeRow>, key: &KeyValue) {
    let Some(name) = key.key.strip_prefix(NODES) else { return };
    let row = rows.entry(name.to_owned()).or_insert_with(|| row(name));
    match &key.value {
        Value::Node(node) => {
            row.epoch = node.epoch;
            row.machine_id = node.machine_id.to_string();
            row.version = node.version.to_string();
            (row.since_unix_ms, row.last_write_unix_ms) = (node.since_unix_ms, node.since_unix_ms);
            row.removed_unix_ms = node.removed_unix_ms;
        }
        Value::Unreadable(why) => row.unreadable = Some(why.to_string()),
        _ => {}
    }
}

fn note_drain(rows: &mut BTreeMap<String, NodeRow>, key: &KeyValue) {
    let name = key.key.strip_prefix(DRAINS).unwrap_or_default();
    if let (Some(row), Value::Flag(since)) = (rows.get_mut(name), &key.value) {
        row.draining_since_unix_ms = Some(*since);
    }
}

fn note_block(rows: &mut BTreeMap<String, NodeRow>, key: &KeyValue) {
    let Value::Block(block) = &key.value else { return };
    let row = rows.entry(block.owner.to_string()).or_insert_with(|| row(&block.owner));
    match block.status {
        BlockStatus::Spare => row.spare += 1,
        BlockStatus::Active => row.active += 1,
        BlockStatus::Quarantined => row.quarantined += 1,
    }
    if block.status != BlockStatus::Quarantined {
        row.last_write_unix_ms = row.last_write_unix_ms.max(block.since_unix_ms);
    }
}

/// A node's name is part of keys.
fn check_name(name: &str) -> Result<(), Refusal> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && name.chars().all(good) {
        return Ok(());
    }
    Err(Refusal::wrong(format!("{name:?} is no node's name: see `leasehold node list`")))
}

fn unknown(name: &str) -> Refusal {
    Refusal::absent(format!("no node {name} in the cluster: see `leasehold node list`"))
}

pub(super) async fn drain(
    node: web::Data<AppState>,
    name: web::Path<String>,
    drain: web::Json<Drain>,
) -> HttpResponse {
    answer(set_drain(&Store::new(&node.store), &name, drain.undo).await)
}

async fn set_drain(store: &Store, name: &str, undo: bool) -> Result<Drained, Refusal> {
    check_name(name)?;
    let key = drain_key(name);
    for _ in 0..limits::CHANGE_TRIES_MAX {
        let found = store.keys([&node_key(name), &session_key(name), &key]).await?;
        let [known, session, drain] = found;
        // An unknown node may have left a drain behind.
        if known.is_none() && (drain.is_none() || !undo) {
            return Err(unknown(name));
        }
        let (draining, live) = (!undo, session.is_some());
        let done = |changed| Drained { node: name.to_owned(), draining, changed, live };
        if drain.is_some() == draining {
            return Ok(done(false));
        }
        let revision = drain.map_or(0, |drain| drain.mod_revision);
        let write = match undo {
            true => Write::Delete(key.clone()),
            false => Write::Put(key.clone(), Value::Flag(clock::unix_ms()), None),
        };
        let when = vec![Compare::ModRevision(key.clone(), revision)];
        if store.txn(Txn { when, then: vec![write] }).await?.is_some() {
            let by = if undo { "drain undone" } else { "drain" };
            tracing::info!(node = name, "an operator's {by}");
            return Ok(done(true));
        }
    }
    Err(Refusal::conflict(format!("others drain node {name} at the same time: look again")))
}

pub(super) async fn remove(
    node: web::Data<AppState>,
    name: web::Path<String>,
    remove: web::Json<Remove>,
) -> HttpResponse {
    let local = node.about.node == *name;
    let store = Store::new(&node.store);
    let result = take_out(&store, &name, &remove, local).await;
    if let Ok(removed) = &result
        && !removed.dry_run
    {
        tracing::warn!(
            node = removed.node, outcome = ?removed.outcome, quarantined = removed.quarantined,
            freed = removed.freed, records = removed.records, "an operator's removal of a node"
        );
    }
    answer(result)
}

/// What the store says of a node that is to be removed.
struct Seen {
    /// Its key with its revision.
    known: Option<(NodeValue, u64)>,
    live: bool,
    blocks: Vec<KeyValue>,
    records: Vec<KeyValue>,
    last_write_unix_ms: u64,
}

impl Seen {
    async fn look(store: &Store, name: &str) -> Result<Self, Refusal> {
        // The node's key first: whatever the node claims later changes it.
        let [known, session] = store.keys([&node_key(name), &session_key(name)]).await?;
        let known = match known.map(|key| (key.value, key.mod_revision)) {
            None => None,
            Some((Value::Node(node), revision)) => Some((node, revision)),
            Some(_) => {
                return Err(Refusal::conflict(format!(
                    "the value of {} in the store cannot be read: see it with etcdctl",
                    node_key(name)
                )));
            }
        };
        let (mut blocks, mut records) = (Vec::new(), Vec::new());
        let mut last_write_unix_ms = known.as_ref().map_or(0, |(node, _)| node.since_unix_ms);
        for (prefix, keys) in [(BLOCKS, &mut blocks), (ALLOCATIONS, &mut records)] {
            let take = |key: KeyValue| {
                if !removal::is_of(name, &key) {
                    return;
                }
                let since = match &key.value {
                    Value::Block(block) if removal::is_to_take(&key) => block.since_unix_ms,
                    Value::Allocation(allocation) => allocation.since_unix_ms,
                    _ => 0,
                };
                last_write_unix_ms = last_write_unix_ms.max(since);
                keys.push(key);
            };
            store.each(prefix, take).await?;
        }
        let live = session.is_some();
        Ok(Self { known, live, blocks, records, last_write_unix_ms })
    }

    fn check(&self, name: &str, remove: &Remove, local: bool) -> Result<(), Refusal> {
        if self.known.is_none() && self.blocks.is_empty() {
            return Err(unknown(name));
        }
        if local && !remove.force {
            return Err(Refusal::conflict(format!(
                "node {name} is this one, whose daemon answers: to take it out of service, drain \
                 it (leasehold drain); or ask another node, or say --force"
            )));
        }
        if self.live && !remove.force {
            return Err(Refusal::conflict(format!(
                "node {name} lives: drain it instead (leasehold node drain {name}), then stop its \
                 daemon; or say --force, and what its containers hold may be given to others"
            )));
        }
        Ok(())
    }
}

async fn take_out(
    store: &Store,
    name: &str,
    remove: &Remove,
    local: bool,
) -> Result<Removed, Refusal> {
    check_name(name)?;
    let (min, max) = (limits::QUARANTINE_MIN.as_secs(), limits::QUARANTINE_MAX.as_secs());
    if !(min..=max).contains(&remove.quarantine_s) {
        return Err(Refusal::wrong(format!("quarantine: from {min} s to {max} s are allowed")));
    }
    for _ in 0..limits::CHANGE_TRIES_MAX {
        let seen = Seen::look(store, name).await?;
        seen.check(name, remove, local)?;
        if let Some(removed) = try_once(store, name, remove, &seen).await? {
            return Ok(removed);
        }
    }
    Err(Refusal::conflict(format!(
        "node {name} keeps changing what it holds, so it lives: drain it instead \
         (leasehold node drain {name})"
    )))
}

/// One try; nothing when the node has changed meanwhile and nothing was done.
async fn try_once(
    store: &Store,
    name: &str,
    remove: &Remove,
    seen: &Seen,
) -> Result<Option<Removed>, Refusal> {
    let known = seen.known.as_ref().map(|(node, revision)| (node, *revision));
    let to_take: Vec<KeyValue> =
        seen.blocks.iter().filter(|key| removal::is_to_take(key)).cloned().collect();
    let before = known.filter(|(node, _)| node.removed_unix_ms.is_some() && !seen.live);
    let outcome = match before {
        Some(_) if seen.blocks.is_empty() => Fate::Forgotten,
        Some(_) if to_take.is_empty() => Fate::AlreadyRemoved,
        _ => Fate::Removed,
    };
    let spares = to_take.iter().filter(|key| is_spare(key)).count();
    let epoch = match outcome {
        Fate::Removed | Fate::AlreadyRemoved => Removal::epoch(known.map(|(node, _)| node)),
        Fate::Forgotten => known.map_or(0, |(node, _)| node.epoch),
    };
    let removed = Removed {
        node: name.to_owned(),
        outcome,
        dry_run: remove.dry_run,
        epoch,
        quarantined: seen.blocks.len() - spares,
        freed: spares,
        quarantine_s: remove.quarantine_s,
        records: seen.records.len(),
        was_live: seen.live,
        last_write_unix_ms: seen.last_write_unix_ms,
    };
    if remove.dry_run {
        return Ok(Some(removed));
    }
    let mut revision = known.map_or(0, |(_, revision)| revision);
    // Said anew of a node that was removed before, so that it counts after a restore of the store.
    if outcome != Fate::Forgotten {
        let Some(at) = begin(store, name, remove, known, &to_take).await? else {
            return Ok(None);
        };
        revision = at;
    }
    for records in seen.records.chunks(limits::REMOVED_PER_TXN_MAX) {
        let txn = removal::delete_records(name, revision, records);
        if store.txn(txn).await?.is_none() {
            return came_back(name, outcome);
        }
    }
    if let (Fate::Forgotten, Some((node, _))) = (outcome, known) {
        let lease = store.grant(limits::FORGOTTEN.as_secs()).await?;
        if store.txn(removal::forget(name, node, revision, lease)).await?.is_none() {
            end(store, lease).await;
            return came_back(name, outcome);
        }
    }
    Ok(Some(removed))
}

fn is_spare(key: &KeyValue) -> bool {
    matches!(&key.value, Value::Block(block) if block.status == BlockStatus::Spare)
}

/// What follows a removal is refused.
fn came_back<T>(name: &str, outcome: Fate) -> Result<Option<T>, Refusal> {
    match outcome {
        Fate::Removed | Fate::AlreadyRemoved => Err(Refusal::conflict(format!(
            "node {name} came back while it was removed, or another operator removes it too: see \
             `leasehold node list`"
        ))),
        Fate::Forgotten => Ok(None),
    }
}

/// Raises the epoch and takes all blocks; gives the revision of the node's key.
async fn begin(
    store: &Store,
    name: &str,
    remove: &Remove,
    known: Option<(&NodeValue, u64)>,
    blocks: &[KeyValue],
) -> Result<Option<u64>, Refusal> {
    let quarantine = match blocks {
        [] => 0, // nothing will hang on it
        _ => store.grant(remove.quarantine_s).await?,
    };
    let now_unix_ms = clock::unix_ms();
    let removal = Removal { node: name.into(), force: remove.force, quarantine, now_unix_ms };
    let (first, rest) = blocks.split_at(blocks.len().min(limits::REMOVED_PER_TXN_MAX));
    let Some(revision) = store.txn(removal.begin(known, first)).await? else {
        end(store, quarantine).await;
        return Ok(None);
    };
    let epoch = Removal::epoch(known.map(|(node, _)| node));
    for more in rest.chunks(limits::REMOVED_PER_TXN_MAX) {
        if store.txn(removal.go_on(revision, epoch, more)).await?.is_none() {
            return came_back(name, Fate::Removed);
        }
    }
    // etcd ends the lease by itself, the embedded store only with its process.
    let (store, quarantine_s) = (store.clone(), remove.quarantine_s);
    actix_rt::spawn(async move {
        tokio::time::sleep(Duration::from_secs(quarantine_s)).await;
        end(&store, quarantine).await;
    });
    Ok(Some(revision))
}

/// Ends a lease, if there is one. If that fails, etcd does it.
async fn end(store: &Store, quarantine: LeaseId) {
    if quarantine != 0 {
        let _ = store.revoke(quarantine).await;
    }
}
