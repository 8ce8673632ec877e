//! Asks the daemons of the other nodes what only they know, for an operator.
//!
//! Daemons have no connections to each other, so a node asks through the cluster's store: it writes
//! a question, the others write their answers beside it, and the asker deletes all of it. While
//! nobody asks, it costs nothing. A node that is gone cannot answer, and is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::AppState;
use super::cluster::{Refusal, Store};
use crate::clock;
use crate::core::ids::LeaseId;
use crate::core::keys::{ASKED, NODES, SESSIONS, answers_prefix};
use crate::core::txn::{KeyValue, StoreError, Txn, Watched, Write};
use crate::core::value::Value;

/// The subject of a question.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) enum Subject {
    /// The holdings that fit, past ones too.
    History,
    /// The leaks of each node.
    Check,
    /// The release of leaks.
    Gc,
}

/// A question to the other nodes.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Question {
    pub(super) subject: Subject,
    /// The words to every node.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub(super) of_all: Json,
    /// The words to single nodes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) of_each: BTreeMap<String, Json>,
}

/// A question with the node that asks, and the lease on which the answers are to hang.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Sent {
    pub(super) from: String,
    pub(super) lease: i64,
    pub(super) question: Question,
}

/// The answers to a question.
#[derive(Debug)]
pub(super) struct Answers<T> {
    /// The answers that came, by node.
    pub(super) told: BTreeMap<String, T>,
    /// Nodes with a session that did not answer in time.
    pub(super) silent: BTreeSet<String>,
    /// Nodes without a session.
    pub(super) gone: BTreeSet<String>,
}

/// The numbers of the questions of this daemon. They go on behind those of an earlier one, whose
/// answers may still be there.
#[derive(Clone, Debug)]
pub struct Peers(Arc<AtomicU64>);

impl Default for Peers {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(clock::unix().as_millis())))
    }
}

/// Asks all other nodes, and waits so long for the answers of those that live.
///
/// # Errors
/// This node is not a member of the cluster now, or the store does not answer.
pub(super) async fn ask<T: DeserializeOwned>(
    node: &AppState,
    question: Question,
    patience: Duration,
) -> Result<Answers<T>, Refusal> {
    let Some(lease) = node.standing.borrow().lease else {
        return Err(Refusal::busy(
            "the other nodes cannot be asked, since this one is not a member of the cluster now: \
             `leasehold status` says why",
        ));
    };
    let store = Store::new(&node.store);
    let (mut waiting, gone) = others(&store, &node.about.node, &question).await?;
    let id = format!("{}.{}", node.about.node, node.peers.0.fetch_add(1, Ordering::Relaxed));
    let answers_at = answers_prefix(&id);
    let mut answers = node.store.watch(answers_at.clone());
    let sent = Sent { from: node.about.node.clone(), lease: lease.get(), question };
    put(&store, format!("{ASKED}{id}"), &sent, lease).await?;
    let mut told = BTreeMap::new();
    let listen = async {
        while !waiting.is_empty()
            && let Some(report) = answers.recv().await
        {
            let keys = match report {
                Watched::Listed(keys) => keys,
                Watched::Put(key) => vec![key],
                Watched::Deleted(_) => vec![],
            };
            for key in keys {
                let Some(from) = key.key.strip_prefix(&answers_at) else { continue };
                // One of another version counts as silent.
                if let Some(answer) = read::<T>(&key)
                    && waiting.remove(from)
                {
                    told.insert(from.to_owned(), answer);
                }
            }
        }
    };
    // The answer names the nodes that have not answered by then.
    let _ = tokio::time::timeout(patience, listen).await;
    let past = |prefix: &str| format!("{}0", prefix.trim_end_matches('/'));
    let then = vec![
        Write::Delete(format!("{ASKED}{id}")),
        Write::DeleteIn(answers_at.clone(), past(&answers_at)),
    ];
    if let Err(error) = store.txn(Txn { when: vec![], then }).await {
        tracing::debug!(%error, "a question to other nodes stays until this node's lease ends");
    }
    Ok(Answers { told, silent: waiting, gone })
}

/// Returns the other nodes that a question is for: those with a session, and those without.
async fn others(
    store: &Store,
    me: &str,
    question: &Question,
) -> Result<(BTreeSet<String>, BTreeSet<String>), StoreError> {
    let mut all = BTreeSet::new();
    store
        .each(NODES, |key| {
            if let (Some(name), Value::Node(of)) = (key.key.strip_prefix(NODES), &key.value)
                && of.removed.is_none()
                && name != me
                && question.is_for(name)
            {
                all.insert(name.to_owned());
            }
        })
        .await?;
    let mut live = BTreeSet::new();
    let name = |key: KeyValue| key.key.strip_prefix(SESSIONS).map(str::to_owned);
    store.each(SESSIONS, |key| live.extend(name(key))).await?;
    Ok(all.into_iter().partition(|name| live.contains(name)))
}

/// Writes a question or an answer.
pub(super) async fn put(
    store: &Store,
    key: String,
    value: &impl Serialize,
    lease: LeaseId,
) -> Result<(), StoreError> {
    let text = serde_json::to_string(value).unwrap_or_default();
    let then = vec![Write::Put(key, Value::Text(text.into()), Some(lease))];
    store.txn(Txn { when: vec![], then }).await.map(drop)
}

/// Reads a question or an answer; nothing if it is of another version.
pub(super) fn read<T: DeserializeOwned>(key: &KeyValue) -> Option<T> {
    match &key.value {
        Value::Text(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

impl Question {
    /// A question that says the same to all nodes.
    pub(super) fn of_all(subject: Subject, what: &impl Serialize) -> Self {
        Self { subject, of_all: json(what), of_each: BTreeMap::new() }
    }

    /// A question to all nodes that says something in addition to some of them.
    pub(super) fn of_each(subject: Subject, what: BTreeMap<String, impl Serialize>) -> Self {
        let of_each = what.into_iter().map(|(node, what)| (node, json(&what))).collect();
        Self { subject, of_all: Json::Null, of_each }
    }

    /// Returns whether a node is to answer.
    pub(super) fn is_for(&self, node: &str) -> bool {
        match self.subject {
            Subject::History | Subject::Check => true,
            Subject::Gc => self.of_each.contains_key(node),
        }
    }
}

fn json(what: &impl Serialize) -> Json {
    serde_json::to_value(what).unwrap_or_default()
}
