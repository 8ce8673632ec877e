//! `POST /v1/gc`: releases what a check found, after a second look at each finding.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::compare::Record;
use super::finding::{Finding, Kind};
use super::namespaces::{self, NamespaceScan};
use crate::api::cluster::{Refusal, Store, answer};
use crate::api::peers::{self, Question, Subject};
use crate::api::{AppState, EMBEDDED, outcome, refuse};
use crate::core::attachment::AttachmentId;
use crate::core::coordinator::{Call, Del, HoldingSelector, Outcome};
use crate::core::ids::{Revision, Sequence};
use crate::core::operator::{DeleteRecord, DeleteRecordCommand, RecordFate};
use crate::core::txn::{KeyValue, StoreError};
use crate::limits;

/// The request to release what a check found.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collect {
    /// The findings of a check, at most [`limits::FINDINGS_PER_REQUEST_MAX`].
    pub findings: Vec<Finding>,
    /// True if findings that are not certain are to be released too.
    #[serde(default)]
    pub force: bool,
    /// True for a dry run: the answer says what would be done, and nothing is done.
    #[serde(default)]
    pub dry_run: bool,
}

/// The fate of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum GcOutcome {
    /// Its addresses are free again (they cool first).
    Released,
    /// Its record was deleted.
    Deleted,
    /// Its record will be written again.
    Recorded,
    /// One of these would have been done: a dry run.
    Would,
    /// The finding is no longer true, or not certain.
    Skipped,
    /// It is not this node's, or nothing that could be released.
    NotHere,
    /// It could not be done.
    Failed,
}

/// The fate of a finding, and the reason for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// The fate.
    pub outcome: GcOutcome,
    /// The reason why it was not done, unless it was.
    pub reason: Option<String>,
}

impl Collected {
    fn of(outcome: GcOutcome) -> Self {
        Self { outcome, reason: None }
    }

    fn because(outcome: GcOutcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: Some(reason.into()) }
    }

    fn skipped(reason: impl Into<String>) -> Self {
        Self::because(GcOutcome::Skipped, reason)
    }
}

impl From<StoreError> for Collected {
    fn from(error: StoreError) -> Self {
        let why = format!("the cluster's store: {error}; check again when it answers");
        Self::because(GcOutcome::Failed, why)
    }
}

/// The handler: an answer for each finding, in their order. Those of other nodes go to their nodes.
pub(super) async fn handle(node: web::Data<AppState>, collect: web::Json<Collect>) -> HttpResponse {
    let collect = collect.into_inner();
    if collect.findings.len() > limits::FINDINGS_PER_REQUEST_MAX {
        let why = format!("at most {} findings at a time", limits::FINDINGS_PER_REQUEST_MAX);
        return refuse(StatusCode::BAD_REQUEST, why);
    }
    answer(collect_everywhere(&node, collect).await)
}

async fn collect_everywhere(node: &AppState, all: Collect) -> Result<Vec<Collected>, Refusal> {
    let Collect { findings, force, dry_run } = all;
    let live = if node.about.store == EMBEDDED { BTreeSet::new() } else { node.pools.sessions() };
    let goes_to = |found: &Finding| -> String {
        let elsewhere = found.kind.is_of_its_node() && live.contains(&found.node);
        if elsewhere { found.node.clone() } else { node.about.node.clone() }
    };
    let mut by_node: BTreeMap<String, Collect> = BTreeMap::new();
    for found in &findings {
        let part = by_node.entry(goes_to(found)).or_insert_with(|| Collect {
            findings: vec![],
            force,
            dry_run,
        });
        part.findings.push(found.clone());
    }
    let here = by_node.remove(&node.about.node);
    let mut done: BTreeMap<String, VecDeque<Collected>> = BTreeMap::new();
    if let Some(here) = here {
        done.insert(node.about.node.clone(), collect(node, &here).await?.into());
    }
    let mut unasked = None;
    if !by_node.is_empty() {
        let question = Question::of_each(Subject::Gc, by_node);
        // What was released here is told all the same.
        match peers::ask(node, question, limits::PEERS_CHECK_WAIT).await {
            Ok(answers) => done.extend(answers.told),
            Err(refusal) => unasked = Some(refusal.into_reason()),
        }
    }
    let of = |found: &Finding| {
        let answer = done.get_mut(&goes_to(found)).and_then(VecDeque::pop_front);
        answer.unwrap_or_else(|| {
            let why = unasked.clone().unwrap_or_else(|| {
                format!(
                    "node {} did not answer within {} s: run `leasehold gc` there",
                    found.node,
                    limits::PEERS_CHECK_WAIT.as_secs()
                )
            });
            Collected::because(GcOutcome::Failed, why)
        })
    };
    Ok(findings.iter().map(of).collect())
}

/// Releases what this node holds, and records that nobody does. It is called on the thread of the
/// actors.
pub(in crate::api) async fn collect(
    node: &AppState,
    collect: &Collect,
) -> Result<Vec<Collected>, Refusal> {
    let Collect { findings, force, dry_run } = collect;
    let (force, dry_run) = (*force, *dry_run);
    let looks = findings.iter().any(|found| found.kind == Kind::NamespaceGone);
    let look = tokio::time::timeout(limits::CHECK_WAIT_MAX, async {
        if looks { namespaces::inspect(node).await } else { NamespaceScan::default() }
    });
    let allowed = look.await.map_err(|_| {
        Refusal::busy(
            "the network namespaces cannot be looked at in time: see whether their file system \
             answers",
        )
    })?;
    let mut all = Vec::with_capacity(findings.len());
    for found in findings {
        let collected = match found.kind {
            _ if found.node != node.about.node && found.kind != Kind::RecordWithoutAllocation => {
                let why = match found.kind.is_of_its_node() {
                    true => format!("node {} holds it: run `leasehold gc` there", found.node),
                    false => found.remedy.clone(),
                };
                Collected::because(GcOutcome::NotHere, why)
            }
            Kind::NamespaceGone => release(node, found, &allowed, force, dry_run).await,
            Kind::NotNamedByGc => match holding_of(found) {
                Ok(of) => release_kept(node, of, force, dry_run).await,
                Err(failed) => failed,
            },
            Kind::RecordWithoutAllocation => delete(node, found, dry_run).await,
            Kind::AllocationWithoutRecord => record(node, found, dry_run),
            Kind::BlocksOfDeadNode | Kind::Duplicate | Kind::Unreadable => {
                Collected::because(GcOutcome::NotHere, found.remedy.clone())
            }
        };
        all.push(collected);
    }
    Ok(all)
}

/// The attachment and sequence number of a finding.
fn holding_of(found: &Finding) -> Result<(AttachmentId, Sequence), Collected> {
    match (&found.container_id, &found.ifname, found.sequence) {
        (Some(container), Some(ifname), Some(sequence)) => {
            let id = AttachmentId {
                network: found.network.as_str().into(),
                container_id: container.as_str().into(),
                ifname: ifname.as_str().into(),
            };
            Ok((id, Sequence::new(sequence)))
        }
        _ => {
            let why = "the report names no container, interface and sequence number: make a new \
                       one with `leasehold check -o json`";
            Err(Collected::because(GcOutcome::Failed, why))
        }
    }
}

async fn release(
    node: &AppState,
    found: &Finding,
    allowed: &NamespaceScan,
    force: bool,
    dry_run: bool,
) -> Collected {
    let (id, sequence) = match holding_of(found) {
        Ok(of) => of,
        Err(failed) => return failed,
    };
    match node.index.find(&id) {
        None => return Collected::skipped("it no longer holds an address"),
        Some(now) if now.sequence != sequence => {
            return Collected::skipped(format!(
                "its sequence number is {} now: the container was added again since",
                now.sequence
            ));
        }
        Some(_) => {}
    }
    let lacks = |lacking: &&namespaces::Lacking| {
        lacking.holding.is_of(&id) && lacking.holding.sequence == sequence
    };
    let Some(lacking) = allowed.lacking.iter().find(lacks) else {
        return Collected::skipped("its network namespace is there");
    };
    if !lacking.certain && !force {
        return Collected::skipped(format!(
            "{}: make sure that its container is gone, then say --force",
            lacking.why()
        ));
    }
    if dry_run {
        return Collected::of(GcOutcome::Would);
    }
    end(node, id, sequence).await
}

/// Releases an attachment that was kept, by force only.
async fn release_kept(
    node: &AppState,
    (id, sequence): (AttachmentId, Sequence),
    force: bool,
    dry_run: bool,
) -> Collected {
    let kept = node.checks.kept.held(node);
    let Some(kept) = kept.iter().find(|now| now.is_of(&id) && now.sequence == sequence) else {
        return Collected::skipped(
            "it no longer holds an address, it was added again, or a GC has named it since",
        );
    };
    if !force {
        return Collected::skipped(format!(
            "{}: make sure that its container is gone, then say --force",
            namespaces::why_kept(&kept.netns)
        ));
    }
    if dry_run {
        return Collected::of(GcOutcome::Would);
    }
    let collected = end(node, id.clone(), sequence).await;
    if collected.outcome == GcOutcome::Released {
        let (network, container) = (&*id.network, &*id.container_id.to_text());
        tracing::warn!(
            network,
            container,
            ifname = &*id.ifname,
            "released by `leasehold gc --force`, although its container may run"
        );
    }
    collected
}

/// Ends a holding, if it still is the one with that sequence number.
pub(in crate::api) async fn end(
    node: &AppState,
    id: AttachmentId,
    sequence: Sequence,
) -> Collected {
    let del = Del { id, selector: HoldingSelector::Sequence(sequence) };
    match outcome::execute(node, Call::Del(del)).await.await {
        Outcome::Ended(0) => Collected::skipped("it has changed in this moment"),
        Outcome::Ended(_) => Collected::of(GcOutcome::Released),
        Outcome::Failed(error) => {
            let error = outcome::explain(error);
            Collected::because(GcOutcome::Failed, format!("{}: {}", error.msg, error.details))
        }
        Outcome::Added(_) => Collected::because(GcOutcome::Failed, "not a release"),
    }
}

/// Deletes a record of this node, or of one that is no longer in the cluster.
async fn delete(node: &AppState, found: &Finding, dry_run: bool) -> Collected {
    let (Some(key), Some(revision)) = (&found.key, found.revision.and_then(Revision::new)) else {
        let why = "the report names no key and revision: make a new one with `leasehold check -o \
                   json`";
        return Collected::because(GcOutcome::Failed, why);
    };
    let own = node.about.node.as_str().into();
    let command = DeleteRecordCommand { key: key.clone(), revision, node: own, dry_run };
    let held = |key: &KeyValue| {
        let record = Record::of(key)?;
        let held = node.index.find(&record.attachment());
        Some(held.is_some_and(|held| record.is_of(&held)))
    };
    match Store::new(&node.store).run(DeleteRecord::new(command, held)).await {
        Ok(fate) => fate_of_record(fate, dry_run),
        Err(error) => error.into(),
    }
}

fn fate_of_record(fate: RecordFate, dry_run: bool) -> Collected {
    match fate {
        RecordFate::Deleted if dry_run => Collected::of(GcOutcome::Would),
        RecordFate::Deleted => Collected::of(GcOutcome::Deleted),
        RecordFate::Changed => Collected::skipped("the record was written again or deleted since"),
        RecordFate::ChangedMeanwhile => {
            Collected::skipped("the record was written again in this moment")
        }
        RecordFate::NoRecord => Collected::skipped("the key is not that of a record"),
        RecordFate::Held => Collected::skipped("this node holds the allocation"),
        RecordFate::NodeIsThere(owner) => {
            let why = format!("node {owner} is in the cluster: run `leasehold check` there");
            Collected::because(GcOutcome::NotHere, why)
        }
    }
}

/// Has the record of an allocation written again.
fn record(node: &AppState, found: &Finding, dry_run: bool) -> Collected {
    let (id, sequence) = match holding_of(found) {
        Ok(of) => of,
        Err(failed) => return failed,
    };
    let Some(holding) = node.index.find(&id).filter(|now| now.sequence == sequence) else {
        return Collected::skipped("this node no longer holds it");
    };
    if dry_run {
        return Collected::of(GcOutcome::Would);
    }
    // On the thread of the actors: nothing ends it between the look and the note.
    node.machines.publish(holding);
    Collected::of(GcOutcome::Recorded)
}
