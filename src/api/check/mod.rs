//! `/v1/check` and `/v1/gc`: what leaked, and its release.
//!
//! Only a daemon can judge what its node holds: it looks for network namespaces where it runs
//! itself. For the whole cluster, the daemon that is asked reads the cluster's store once, and asks
//! the others what their nodes hold.

mod blocks;
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
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use self::compare::{Comparison, Strays};
pub use self::finding::{Finding, Kind, LookedAt, Report};
use self::kept::Kept;
use self::namespaces::Lacking;
pub use self::places::Places;
use super::cluster::{Refusal, Store};
use super::guard::Listener;
use super::lists::Whole;
use super::peers::{self, Answers, Question, Subject};
use super::{AppState, EMBEDDED};
use crate::core::attachment::Netns;
use crate::core::cause::Cause;
use crate::core::keys::{ALLOCATIONS, BLOCKS, NODES, SESSIONS, allocation_key};
use crate::core::time::BootTime;
use crate::core::txn::{Span, StoreError};
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

/// The nodes of which a check is to tell.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Query {
    /// True if the other nodes are asked too.
    #[serde(default)]
    all_nodes: bool,
}

/// The part of the cluster's store that a check reads.
enum Reach {
    /// All of it.
    Whole,
    /// The records in the blocks of this node, and those with these keys. Blocks and sessions are
    /// taken as the node knows them anyway.
    Own(Vec<String>),
}

async fn handle(
    node: web::Data<AppState>,
    request: HttpRequest,
    query: web::Query<Query>,
) -> HttpResponse {
    if let Err(refusal) = node.listener.shows_details(&request) {
        return *refusal;
    }
    let (work, all_nodes) = (AppState::clone(&node), query.all_nodes);
    let report = async move {
        let (report, strays) = check_alone(&work, Reach::Whole).await?;
        Ok(match all_nodes && work.about.store != EMBEDDED {
            true => with_others(&work, report, strays).await,
            false => report,
        })
    };
    // All nodes have work with it: over TCP it is not done again at once.
    let rest = match (&node.listener, all_nodes) {
        (Listener::Tcp(_), true) => limits::CHECK_OF_ALL_REST,
        _ => Duration::ZERO,
    };
    let whole = if all_nodes { Whole::CheckOfAll } else { Whole::Check };
    node.lists.answer_whole_after(whole, rest, report).await
}

/// Checks what this node holds, for a check that another node makes.
pub(super) async fn tell(node: &AppState, strays: Vec<String>) -> Result<Report, Refusal> {
    let (mut report, _) = check_alone(node, Reach::Own(strays)).await?;
    // The asker knows of those by itself.
    report.findings.retain(|found| found.kind != Kind::BlocksOfDeadNode);
    Ok(report.end(limits::FINDINGS_PER_NODE_MAX))
}

/// Checks what this node holds, for its metrics.
async fn check_own(node: AppState) {
    if let Err(refusal) = check_alone(&node, Reach::Own(vec![])).await {
        tracing::debug!(?refusal, "the daemon's own check");
    }
}

/// Does a check when no other one is under way.
async fn check_alone(node: &AppState, reach: Reach) -> Result<(Report, Strays), Refusal> {
    let _alone = node.checks.checking.lock().await;
    let report = tokio::time::timeout(limits::CHECK_WAIT_MAX, check(node, &reach)).await;
    report.map_err(|_| {
        Refusal::busy(format!(
            "the check did not end within {} s: see whether the cluster's store and the file \
             systems of the network namespaces answer, and ask again",
            limits::CHECK_WAIT_MAX.as_secs()
        ))
    })
}

/// Adds to a report of this node what the others find.
async fn with_others(node: &AppState, mut report: Report, strays: Strays) -> Report {
    if strays.values().map(Vec::len).sum::<usize>() == limits::STRAYS_MAX {
        report.unchecked.push(format!(
            "{} records or more are in no block of their node, and only so many are looked at: run \
             `leasehold check` on each node",
            limits::STRAYS_MAX
        ));
    }
    let question = Question::of_each(Subject::Check, strays);
    let asked = peers::ask::<Report>(node, question, limits::PEERS_CHECK_WAIT).await;
    let Answers { told, silent, .. } = match asked {
        Ok(answers) => answers,
        Err(refusal) => {
            report.unchecked.push(format!("the other nodes: {}", refusal.into_reason()));
            return report.end(limits::FINDINGS_MAX);
        }
    };
    let mut known: HashSet<_> = report.findings.iter().map(Finding::identity).collect();
    for (name, of) in told {
        report.looked_at.attachments += of.looked_at.attachments;
        report.looked_at.namespaces += of.looked_at.namespaces;
        report.left_off += of.left_off;
        let new = of.findings.into_iter().filter(|found| known.insert(found.identity()));
        report.findings.extend(new);
        report.unchecked.extend(of.unchecked.iter().map(|why| format!("node {name}: {why}")));
    }
    // The findings about its blocks tell of a node without a session.
    let unheard = silent.iter().map(|name| {
        format!(
            "node {name}: it did not answer within {} s: run `leasehold check` there",
            limits::PEERS_CHECK_WAIT.as_secs()
        )
    });
    report.unchecked.extend(unheard);
    report.end(limits::FINDINGS_MAX)
}

async fn check(node: &AppState, reach: &Reach) -> (Report, Strays) {
    let mut report = Report::new(&node.about.node, clock::unix().as_millis());
    let allowed = namespaces::inspect(node).await;
    report.looked_at.attachments = allowed.attachments;
    report.looked_at.namespaces = allowed.looked;
    report.findings = allowed.lacking.iter().map(|l| of_namespace(&node.about.node, l)).collect();
    report.findings.extend(node.checks.kept.findings(node));
    report.unchecked.extend(allowed.unjudged());
    let compared = compare_twice(node, reach, &mut report).await;
    let judged = Kind::ALL.iter().filter(|kind| compared.is_ok() || !kind.is_of_the_store());
    metrics::findings(judged.map(|&kind| {
        (kind.as_str(), report.findings.iter().filter(|found| found.kind == kind).count())
    }));
    let strays = compared.unwrap_or_else(|why| {
        report.unchecked.push(why);
        Strays::new()
    });
    (report.end(limits::FINDINGS_MAX), strays)
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
async fn compare_twice(
    node: &AppState,
    reach: &Reach,
    report: &mut Report,
) -> Result<Strays, String> {
    let unread = |error: StoreError| {
        format!(
            "records and blocks: the cluster's store cannot be read ({error}): see that it \
             answers, and check again"
        )
    };
    let began = clock::boot();
    let first = compare(node, reach).await.map_err(unread)?;
    report.looked_at = first.looked_at(report.looked_at);
    report.unchecked.extend(first.unchecked());
    let (strays, first) = (first.strays(), first.findings());
    if first.is_empty() {
        return Ok(strays);
    }
    let lagging = wait_for_lag(node, began).await;
    let second = compare(node, reach).await.map_err(unread)?.findings();
    let before: HashSet<_> = first.iter().map(Finding::identity).collect();
    let judged = |found: &Finding| !(lagging.is_some() && found.kind.is_of_a_record());
    let twice = |found: &Finding| before.contains(&found.identity()) && judged(found);
    let (certain, left): (Vec<_>, Vec<_>) = second.into_iter().partition(twice);
    report.findings.extend(certain);
    match lagging {
        Some(why) if left.iter().any(|found| found.kind.is_of_a_record()) => Err(why),
        _ => Ok(strays),
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

async fn compare(node: &AppState, reach: &Reach) -> Result<Comparison, StoreError> {
    let store = Store::new(&node.store);
    let find = |id: &_| node.index.look_up(id);
    let mut comparison = Comparison::new(&node.about.node, node.index.all());
    if node.about.store == EMBEDDED {
        comparison.unrecorded.clear(); // only this node sees that store
    }
    match reach {
        Reach::Whole => {
            // A node that joins has a session before it has a block.
            store.each(BLOCKS, |key| comparison.block(&key)).await?;
            store.each(ALLOCATIONS, |key| comparison.record(&key, find)).await?;
            store.each(NODES, |key| comparison.node(&key)).await?;
            store.each(SESSIONS, |key| comparison.session(&key.key)).await?;
        }
        Reach::Own(strays) => {
            let everything = node.pools.everything().await;
            everything.blocks.into_iter().for_each(|block| comparison.known_block(block));
            everything.sessions.iter().for_each(|name| comparison.live(name));
            let mut spans = own_blocks(node).await;
            spans.extend(strays.iter().map(|key| Span::key(key)));
            for span in spans {
                store.each_in(span, |key| comparison.record(&key, find)).await?;
            }
            // Those of nodes that are gone are judged by a check of the whole store.
            comparison.of_others.clear();
        }
    }
    comparison.still_held(find);
    Ok(comparison)
}

/// Returns where the records of this node's allocations are.
async fn own_blocks(node: &AppState) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut last: Option<(Arc<str>, IpNet)> = None;
    loop {
        let after = last.as_ref().map(|(network, net)| (&**network, *net));
        let page = node.machines.blocks(None, after, limits::KEYS_PER_READ_MAX).await;
        let full = page.len() == limits::KEYS_PER_READ_MAX;
        for block in &page {
            let (network, family) = (&block.pool.network, block.pool.family);
            let at = |address| allocation_key(network, family.address(address));
            let mut span = Span::prefix(ALLOCATIONS, limits::KEYS_PER_READ_MAX);
            // Behind the last key.
            (span.first, span.past) = (at(block.cidr.first()), at(block.cidr.last()) + "\0");
            spans.push(span);
        }
        let next = page.last().map(|b| (b.pool.network.clone(), b.cidr.net(b.pool.family)));
        last = next.or(last);
        if !full {
            return spans;
        }
    }
}
