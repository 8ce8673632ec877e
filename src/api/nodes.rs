//! `/v1/nodes`: the nodes of the cluster, and taking one out of service or out of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::AppState;
use super::cluster::{Refusal, Store, answer};
use super::lists::Whole;
use super::zero;
use crate::core::ids::{Epoch, Revision};
use crate::core::keys::{
    ALLOCATIONS, BLOCKS, DRAINS, NODES, RESTORED, SESSIONS, node_key, session_key,
};
use crate::core::leaseholder::is_awaited;
use crate::core::operator::{
    self, DrainError, DrainNode, DrainNodeCommand, RemoveError, RemoveNode, RemoveNodeCommand,
};
use crate::core::time::UnixTime;
use crate::core::txn::{KeyValue, StoreError};
use crate::core::value::{BlockStatus, Value};
use crate::limits;
use crate::words::machine::digest_of;

/// One node of the cluster.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// Its name.
    pub node: String,
    /// True if it is the node that answers.
    pub local: bool,
    /// The number of times that a daemon of it has joined or an operator has removed it. None (0 in
    /// JSON): it has no key, only blocks that name it.
    #[serde(with = "zero")]
    pub epoch: Option<Epoch>,
    /// Its machine: a digest of `/etc/machine-id`, which is nobody else's business; empty if that
    /// has none.
    pub machine_id: String,
    /// The version of its daemon.
    pub version: String,
    /// The time at which its daemon started; in JSON in milliseconds since 1970, 0: not known.
    #[serde(rename = "sinceUnixMs", with = "zero")]
    pub since: Option<UnixTime>,
    /// The time of its last write that the store has a time of; in JSON in milliseconds since 1970,
    /// 0: none.
    #[serde(rename = "lastWriteUnixMs", with = "zero")]
    pub last_write: Option<UnixTime>,
    /// True if it has a session: its daemon runs and reaches the store.
    pub live: bool,
    /// True if a restore of the store waits for it to say what it holds.
    #[serde(default)]
    pub awaited: bool,
    /// The time since which an operator drains it, in milliseconds since 1970.
    pub draining_since_unix_ms: Option<u64>,
    /// The time at which an operator removed it, in milliseconds since 1970.
    pub removed_unix_ms: Option<u64>,
    /// Its blocks out of which nothing is handed out yet.
    pub spare: u64,
    /// Its blocks out of which addresses are handed out.
    pub active: u64,
    /// Its blocks that nobody has until their quarantine ends.
    pub quarantined: u64,
    /// Its blocks that it gave back when it stopped, until their lease ends.
    #[serde(default)]
    pub parked: u64,
    /// The addresses that its containers hold, by its records; they are counted only if some node
    /// with blocks is gone.
    #[serde(default)]
    pub held: Option<u64>,
    /// The reason why its key cannot be read, if it cannot.
    pub unreadable: Option<String>,
}

/// The options of a node's removal.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remove {
    /// The machine that the node must be: its `/etc/machine-id`, or the digest of it that lists
    /// show. With it, a repetition succeeds too.
    #[serde(default)]
    pub incarnation: Option<String>,
    /// True if the node is removed although it lives, or is the one that answers.
    #[serde(default)]
    pub force: bool,
    /// The number of seconds for which nobody gets its blocks; [`limits::QUARANTINE`] unless given.
    /// If it is given, a quarantine that would last longer is shortened.
    #[serde(default)]
    pub quarantine_s: Option<u64>,
    /// True for a dry run: the answer says what would be done, and nothing is done.
    #[serde(default)]
    pub dry_run: bool,
}

/// The effect of a removal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum RemovalOutcome {
    /// The node was removed.
    Removed,
    /// It was removed before; its blocks are in quarantine.
    AlreadyRemoved,
    /// It was removed before and had no blocks left: the store has forgotten it.
    Forgotten,
    /// The name belongs to another machine by now: nothing was done.
    Succeeded,
}

impl From<operator::NodeFate> for RemovalOutcome {
    fn from(fate: operator::NodeFate) -> Self {
        match fate {
            operator::NodeFate::Removed => Self::Removed,
            operator::NodeFate::AlreadyRemoved => Self::AlreadyRemoved,
            operator::NodeFate::Forgotten => Self::Forgotten,
            operator::NodeFate::Succeeded => Self::Succeeded,
        }
    }
}

/// The outcome of a node's removal or, in a dry run, what it would be.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// The node.
    pub node: String,
    /// The effect of the removal.
    pub outcome: RemovalOutcome,
    /// True in a dry run: nothing was done.
    pub dry_run: bool,
    /// Its epoch now. None (0 in JSON): it never had one.
    #[serde(with = "zero")]
    pub epoch: Option<Epoch>,
    /// Blocks in quarantine now.
    pub quarantined: usize,
    /// Spare blocks, free at once.
    pub freed: usize,
    /// The number of seconds that the quarantine lasts.
    pub quarantine_s: u64,
    /// Records of its allocations that were deleted.
    pub records: usize,
    /// True if it had a session.
    pub was_live: bool,
    /// The time of its last write that the store has a time of; in JSON in milliseconds since 1970,
    /// 0: none.
    #[serde(rename = "lastWriteUnixMs", with = "zero")]
    pub last_write: Option<UnixTime>,
}

/// The request to drain a node, or to end that.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// True if the node is no longer to be drained.
    #[serde(default)]
    pub undo: bool,
}

/// The outcome of such a request.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Drained {
    /// The node.
    pub node: String,
    /// True if the node is to be drained now.
    pub draining: bool,
    /// True if that is new.
    pub changed: bool,
    /// True if the node lives: if it does not, it will know when it does.
    pub live: bool,
}

/// Adds the routes of all reads.
pub fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/nodes", web::get().to(list));
}

/// Adds the routes of all writes.
pub fn writes(config: &mut web::ServiceConfig) {
    config
        .route("/v1/nodes/{node}/remove", web::post().to(remove))
        .route("/v1/nodes/{node}/drain", web::post().to(drain));
}

async fn list(node: web::Data<AppState>) -> HttpResponse {
    let work = AppState::clone(&node);
    let rows = async move { rows(&work).await.map_err(Refusal::from) };
    node.lists.answer_whole(Whole::Nodes, rows).await
}

async fn rows(node: &AppState) -> Result<Vec<NodeRow>, StoreError> {
    let store = Store::new(&node.store);
    let mut rows: BTreeMap<String, NodeRow> = BTreeMap::new();
    let [mark] = store.keys([RESTORED]).await?;
    let mark = mark.map(|mark| mark.mod_revision);
    store.each(NODES, |key| observe_node(&mut rows, &key, mark)).await?;
    let mut sessions = Vec::new();
    store.each(SESSIONS, |key| sessions.push(key.key)).await?;
    for row in rows.values_mut() {
        row.live = sessions.contains(&session_key(&row.node));
    }
    store.each(DRAINS, |key| observe_drain(&mut rows, &key)).await?;
    store.each(BLOCKS, |key| observe_block(&mut rows, &key)).await?;
    if rows.values().any(|row| row.active > 0 && !row.live) {
        rows.values_mut().for_each(|row| row.held = Some(0));
        store.each(ALLOCATIONS, |key| observe_record(&mut rows, &key)).await?;
    }
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
        epoch: None,
        machine_id: String::new(),
        version: String::new(),
        since: None,
        last_write: None,
        live: false,
        awaited: false,
        draining_since_unix_ms: None,
        removed_unix_ms: None,
        spare: 0,
        active: 0,
        quarantined: 0,
        parked: 0,
        held: None,
        unreadable: None,
    }
}

/// Takes what a node's key says. `mark`: the revision at which a restore of the store was marked,
/// if one is being settled.
fn observe_node(rows: &mut BTreeMap<String, NodeRow>, key: &KeyValue, mark: Option<Revision>) {
    let Some(name) = key.key.strip_prefix(NODES) else { return };
    let row = rows.entry(name.to_owned()).or_insert_with(|| row(name));
    row.awaited = mark.is_some_and(|mark| is_awaited(key, mark));
    match &key.value {
        Value::Node(node) => {
            row.epoch = Some(node.epoch);
            row.machine_id = node.machine_id.as_deref().map(digest_of).unwrap_or_default();
            row.version = node.version.to_string();
            row.since = Some(node.since);
            row.last_write = Some(node.since);
            row.removed_unix_ms = node.removed.map(UnixTime::as_millis);
        }
        Value::Unreadable(why) => row.unreadable = Some(why.to_string()),
        _ => {}
    }
}

fn observe_drain(rows: &mut BTreeMap<String, NodeRow>, key: &KeyValue) {
    let name = key.key.strip_prefix(DRAINS).unwrap_or_default();
    if let (Some(row), Value::Flag(since)) = (rows.get_mut(name), &key.value) {
        row.draining_since_unix_ms = Some(since.as_millis());
    }
}

fn observe_block(rows: &mut BTreeMap<String, NodeRow>, key: &KeyValue) {
    let Value::Block(block) = &key.value else { return };
    let row = rows.entry(block.owner.to_string()).or_insert_with(|| row(&block.owner));
    match block.status {
        BlockStatus::Spare => row.spare += 1,
        BlockStatus::Active => row.active += 1,
        BlockStatus::Quarantined => row.quarantined += 1,
        BlockStatus::Parked => row.parked += 1,
    }
    if block.status != BlockStatus::Quarantined {
        row.last_write = row.last_write.max(Some(block.since));
    }
}

fn observe_record(rows: &mut BTreeMap<String, NodeRow>, key: &KeyValue) {
    let Value::Allocation(record) = &key.value else { return };
    if let Some(row) = rows.get_mut(&*record.node) {
        *row.held.get_or_insert(0) += 1;
        row.last_write = row.last_write.max(Some(record.since));
    }
}

/// A node's name is part of keys.
fn check_name(name: &str) -> Result<(), Refusal> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && name.chars().all(good) {
        return Ok(());
    }
    Err(Refusal::wrong(format!("{name:?} cannot be the name of a node: see `leasehold node list`")))
}

fn unknown(name: &str) -> Refusal {
    Refusal::absent(format!("the cluster has no node {name}: see `leasehold node list`"))
}

async fn drain(
    node: web::Data<AppState>,
    name: web::Path<String>,
    drain: web::Json<Drain>,
) -> HttpResponse {
    answer(set_drain(&Store::new(&node.store), &name, drain.undo).await)
}

async fn set_drain(store: &Store, name: &str, undo: bool) -> Result<Drained, Refusal> {
    check_name(name)?;
    let command = DrainNode::new(DrainNodeCommand { node: name.into(), undo });
    let ended = store.run(command).await.map_err(|error| undrained(name, error))?;
    let operator::Drained { draining, changed, live } = ended;
    if changed {
        let by = if undo { "drain undone" } else { "drain" };
        tracing::info!(node = name, "an operator's {by}");
    }
    Ok(Drained { node: name.to_owned(), draining, changed, live })
}

/// Says why a node is not drained, and what to do.
fn undrained(name: &str, error: DrainError) -> Refusal {
    match error {
        DrainError::UnknownNode => unknown(name),
        DrainError::Busy => Refusal::conflict(format!(
            "another command changed the drain of node {name} at the same time: see `leasehold \
             node list`, then ask again"
        )),
        DrainError::Store(error) => error.into(),
    }
}

async fn remove(
    node: web::Data<AppState>,
    name: web::Path<String>,
    remove: web::Json<Remove>,
) -> HttpResponse {
    // A daemon that has only the name of the node is not the node.
    let local = node.about.node == *name && node.standing.borrow().epoch.is_some();
    answer(take_out(&Store::new(&node.store), &name, &remove, local).await)
}

/// The id of the machine that somebody means by it or by its digest.
async fn machine_of(store: &Store, name: &str, meant: &str) -> Result<Arc<str>, Refusal> {
    let [key] = store.keys([&node_key(name)]).await?;
    let known = key.and_then(|key| match key.value {
        Value::Node(node) => node.machine_id,
        _ => None,
    });
    let is_meant = |id: &Arc<str>| digest_of(id) == meant;
    Ok(known.filter(is_meant).unwrap_or_else(|| meant.into()))
}

async fn take_out(
    store: &Store,
    name: &str,
    remove: &Remove,
    local: bool,
) -> Result<Removed, Refusal> {
    check_name(name)?;
    let &Remove { force, quarantine_s, dry_run, .. } = remove;
    let quarantine = quarantine_s.map(Duration::from_secs);
    let incarnation = match &remove.incarnation {
        Some(meant) => Some(machine_of(store, name, meant).await?),
        None => None,
    };
    let node = name.into();
    let command = RemoveNodeCommand { node, incarnation, local, force, quarantine, dry_run };
    let ended = store.run(RemoveNode::new(command)).await;
    let removed = ended.map_err(|error| unremoved(name, &error))?;
    if !dry_run {
        tracing::warn!(
            node = name, outcome = ?removed.fate, quarantined = removed.quarantined,
            freed = removed.freed, records = removed.records, "an operator's removal of a node"
        );
    }
    Ok(Removed {
        node: name.to_owned(),
        outcome: removed.fate.into(),
        dry_run,
        epoch: removed.epoch,
        quarantined: removed.quarantined,
        freed: removed.freed,
        quarantine_s: removed.quarantine.as_secs(),
        records: removed.records,
        was_live: removed.was_live,
        last_write: removed.last_write,
    })
}

/// Says why a node was not removed, and what to do.
fn unremoved(name: &str, error: &RemoveError) -> Refusal {
    let conflict = match error {
        RemoveError::UnknownNode => return unknown(name),
        RemoveError::Quarantine(min, max) => {
            let (min, max) = (min.as_secs(), max.as_secs());
            return Refusal::wrong(format!("a quarantine lasts from {min} s to {max} s"));
        }
        RemoveError::Store { error, begun } => return Refusal::of_store(error, *begun),
        RemoveError::Unreadable => format!(
            "the value of {} in the cluster's store cannot be read: look at it with etcdctl",
            node_key(name)
        ),
        RemoveError::NoIncarnation => format!(
            "the cluster's store does not say which machine node {name} is: look at it with \
             `leasehold node list`, and remove it without --incarnation"
        ),
        RemoveError::Local => format!(
            "node {name} is the one that answers: drain it (leasehold drain) and stop its daemon, \
             or remove it by asking another node; --force removes it all the same"
        ),
        RemoveError::Live => format!(
            "node {name} is still running: drain it (leasehold node drain {name}) and stop its \
             daemon, or use --force; then addresses that its containers use may be given to others"
        ),
        RemoveError::CameBack => format!(
            "node {name} came back while it was being removed: it takes its blocks back; see \
             `leasehold node list`"
        ),
        RemoveError::QuarantineOver => format!(
            "the cluster's store was too slow: the quarantine ended before all blocks of node \
             {name} were in it; see `leasehold node list`, and remove the node again"
        ),
        RemoveError::Busy => format!(
            "the blocks or records of node {name} changed at each of {} tries: if it is running, \
             drain it (leasehold node drain {name}) and stop its daemon; if others remove it too, \
             ask again",
            limits::CHANGE_TRIES_MAX
        ),
    };
    Refusal::conflict(conflict)
}
