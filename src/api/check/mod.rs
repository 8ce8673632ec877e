//! `/v1/check` and `/v1/gc`: what leaked, and its release.
//!
//! Only this daemon can judge what its node holds: it looks for network namespaces where it runs
//! itself. Of other nodes it sees what they wrote to the cluster's store.

mod compare;
mod finding;
pub mod gc;
mod kept;
pub(super) mod namespaces;
pub(super) mod places;
mod pods;
pub mod sweep;

use std::collections::HashSet;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use tokio::sync::Mutex;

use self::compare::Comparison;
pub use self::finding::{Finding, Kind, LookedAt, Report};
use self::kept::Kept;
use self::namespaces::Lacking;
pub use self::places::Places;
use super::cluster::{Refusal, Store};
use super::lists::Whole;
use super::{AppState, EMBEDDED};
use crate::core::attachment::Netns;
use crate::core::cause::Cause;
use crate::core::keys::{ALLOCATIONS, BLOCKS, NODES, SESSIONS};
use crate::core::time::BootTime;
use crate::core::txn::StoreError;
use crate::{clock, limits, metrics};

/// Lets one check run at a time, and one look at the network namespaces.
#[derive(Clone, Debug)]
pub struct Checks {
    checking: Arc<Mutex<()>>,
    looking: Arc<Mutex<()>>,
    /// The attachments that a GC did not name and that were kept.
    pub(in crate::api) kept: Kept,
    /// The directories of network namespaces.
    pub(in crate::api) places: Places,
}

impl Checks {
    /// No check yet: nothing was found.
    pub fn new(places: Places) -> Self {
        metrics::findings(Kind::ALL.map(|kind| (kind.as_str(), 0)));
        let (checking, looking, kept) = (Arc::default(), Arc::default(), Kept::default());
        Self { checking, looking, kept, places }
    }
}

/// Adds the routes of all reads.
pub fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/check", web::get().to(handle));
}

/// Adds the routes of all writes.
pub fn writes(config: &mut web::ServiceConfig) {
    config.route("/v1/gc", web::post().to(gc::handle));
}

/// Takes in the directory of a container's namespace, if it is the first one there that is seen.
pub(super) fn observe_place(node: &AppState, netns: &Netns) {
    let place = places::place(&netns.path);
    if netns.inode.is_some() && place != "/proc" && node.checks.places.is_new(&place) {
        let places = node.checks.places.clone();
        tokio::task::spawn_blocking(move || places.observe(&place));
    }
}

async fn handle(node: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    if let Err(refusal) = node.listener.shows_details(&request) {
        return *refusal;
    }
    let work = AppState::clone(&node);
    let report = async move {
        let _alone = work.checks.checking.lock().await;
        let report = tokio::time::timeout(limits::CHECK_WAIT_MAX, check(&work)).await;
        report.map_err(|_| {
            Refusal::busy(format!(
                "the check did not end within {} s: see whether the cluster's store and the file \
                 systems of the network namespaces answer, and ask again",
                limits::CHECK_WAIT_MAX.as_secs()
            ))
        })
    };
    node.lists.answer_whole(Whole::Check, report).await
}

async fn check(node: &AppState) -> Report {
    let mut report = Report::new(&node.about.node, clock::unix().as_millis());
    let allowed = namespaces::inspect(node).await;
    report.looked_at.attachments = allowed.attachments;
    report.looked_at.namespaces = allowed.looked;
    report.findings = allowed.lacking.iter().map(|l| of_namespace(&node.about.node, l)).collect();
    report.findings.extend(node.checks.kept.findings(node));
    report.unchecked.extend(allowed.unjudged());
    if let Err(why) = compare_twice(node, &mut report).await {
        report.unchecked.push(why);
    }
    metrics::findings(Kind::ALL.map(|kind| {
        (kind.as_str(), report.findings.iter().filter(|found| found.kind == kind).count())
    }));
    report.end()
}

/// Makes a finding of an attachment that lacks its network namespace.
fn of_namespace(node: &str, lacking: &Lacking) -> Finding {
    let holding = &lacking.holding;
    let remedy = match lacking.certain {
        true => "`leasehold gc` releases it",
        false => "make sure that its container is gone: then `leasehold gc --force` releases it",
    };
    Finding {
        certain: lacking.certain,
        netns: Some(holding.netns.path.to_string()),
        ..Finding::of_holding(Kind::NamespaceGone, node, holding)
    }
    .says(lacking.why(), remedy)
}

/// Compares the cluster's store with what the node holds. What is found is looked at again after
/// a moment, when every record that was due is written: only what is found both times counts.
async fn compare_twice(node: &AppState, report: &mut Report) -> Result<(), String> {
    let unread = |error: StoreError| {
        format!(
            "records and blocks: the cluster's store cannot be read ({error}): see that it \
             answers, and check again"
        )
    };
    let began = clock::boot();
    let first = compare(node).await.map_err(unread)?;
    report.looked_at = LookedAt { ..first.looked_at(report.looked_at) };
    report.unchecked.extend(first.unchecked());
    let first = first.findings();
    if first.is_empty() {
        return Ok(());
    }
    let lagging = wait_for_lag(node, began).await;
    let second = compare(node).await.map_err(unread)?.findings();
    let before: HashSet<_> = first.iter().map(Finding::identity).collect();
    let judged = |found: &Finding| !(lagging.is_some() && found.kind.is_of_a_record());
    let twice = |found: &Finding| before.contains(&found.identity()) && judged(found);
    let (certain, left): (Vec<_>, Vec<_>) = second.into_iter().partition(twice);
    report.findings.extend(certain);
    match lagging {
        Some(why) if left.iter().any(|found| found.kind.is_of_a_record()) => Err(why),
        _ => Ok(()),
    }
}

/// Waits until every record is in the store that was to be written when the check began; or says
/// why it is not.
async fn wait_for_lag(node: &AppState, began: BootTime) -> Option<String> {
    loop {
        tokio::time::sleep(limits::CHECK_PAUSE).await;
        let Some(figures) = node.machines.figures().await else {
            return Some("records: the daemon does not answer itself: see its log".to_owned());
        };
        let (member, stalled) = {
            let standing = node.standing.borrow();
            (standing.member, standing.stalled.clone())
        };
        let waited = clock::boot().since(began);
        if member && figures.record_lag < waited {
            return None;
        }
        if waited >= limits::CHECK_LAG_MAX && !member {
            let cause = stalled.unwrap_or(Cause::NotJoined);
            return Some(format!("records of this node: {cause}"));
        }
        if waited >= limits::CHECK_LAG_MAX {
            return Some(format!(
                "records of this node: {} wait to be written, the oldest for {} ms: see `leasehold \
                 status` for what keeps them, and check again",
                figures.records_waiting,
                figures.record_lag.as_millis()
            ));
        }
    }
}

async fn compare(node: &AppState) -> Result<Comparison, StoreError> {
    let store = Store::new(&node.store);
    let find = |id: &_| node.index.look_up(id);
    let mut comparison = Comparison::new(&node.about.node, node.index.all());
    if node.about.store == EMBEDDED {
        comparison.unrecorded.clear(); // only this node sees that store
    }
    store.each(ALLOCATIONS, |key| comparison.record(&key, find)).await?;
    // A node that joins has a session before it has a block.
    store.each(BLOCKS, |key| comparison.block(&key)).await?;
    store.each(NODES, |key| comparison.node(&key)).await?;
    store.each(SESSIONS, |key| comparison.session(&key.key)).await?;
    comparison.still_held(find);
    Ok(comparison)
}
