//! `/v1/history`: who held an address, or what a pod held, and when.
//!
//! Each node keeps its own past holdings, in its journal, and asks the others for theirs. What a
//! node that is gone knew is not to be had, and the answer names such nodes.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::cluster::Refusal;
use super::peers::{self, Question, Subject};
use super::{AppState, EMBEDDED};
use crate::actors::Index;
use crate::core::attachment::Holding;
use crate::core::time::UnixTime;
use crate::journal::past::{End, Past, PastHolding};
use crate::limits;

/// The subject of a history; everything that is given must fit.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Query {
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The beginning of the container's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_prefix: Option<String>,
    /// True if only the node that answers is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
}

/// One holding, past or present.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct HistoryRow {
    /// The node.
    pub node: String,
    /// The network.
    pub network: String,
    /// The network out of whose pool the addresses are.
    pub pool: String,
    /// Every address of the attachment.
    pub addresses: Vec<IpAddr>,
    /// The container.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// The pod's namespace, if the runtime named one.
    pub namespace: Option<String>,
    /// The pod's name, if the runtime named one.
    pub pod: Option<String>,
    /// The pod's stage.
    pub stage: Option<String>,
    /// The time since which it was held, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The time at which it ended, in milliseconds since 1970; null: it is held.
    pub ended_unix_ms: Option<u64>,
    /// `released`, `reboot`, or `held`.
    pub end: String,
    /// The sequence number of the holding.
    pub sequence: u64,
}

/// The answer.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The holdings, the latest first.
    pub rows: Vec<HistoryRow>,
    /// Nodes that were asked and did not answer: those that are gone, that do not reach the
    /// cluster's store, or whose daemon is of an older version.
    pub unanswered: Vec<String>,
    /// True if a node has more rows than it may tell: ask for less.
    pub more: bool,
}

/// The answer of one node.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct OwnAnswer {
    rows: Vec<HistoryRow>,
    more: bool,
}

/// The past as a node knows it by itself.
#[derive(Clone)]
pub struct Own {
    node: Arc<str>,
    index: Arc<Index>,
    past: Past,
    /// One at a time: the store is for other things.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Own {
    /// The knowledge of a node.
    pub fn new(node: &str, index: Arc<Index>, past: Past) -> Self {
        Self { node: node.into(), index, past, turn: Arc::default() }
    }

    /// Returns the holdings of this node that fit. It may take a tenth of a second.
    fn find(&self, query: &Query) -> anyhow::Result<OwnAnswer> {
        let max = limits::HISTORY_ROWS_MAX;
        let held = self.index.all().into_iter().filter(|holding| query.fits(holding));
        let mut rows: Vec<HistoryRow> = held.map(|held| row(&self.node, &held, None)).collect();
        let past = self.past.find(max + 1, |holding| query.fits(holding))?;
        rows.extend(past.iter().map(|past| row(&self.node, &past.holding, Some(past))));
        let more = rows.len() > max;
        latest_first(&mut rows);
        rows.truncate(max);
        Ok(OwnAnswer { rows, more })
    }

    /// Returns the holdings of this node that fit.
    pub(super) async fn tell(&self, query: Query) -> Result<OwnAnswer, Refusal> {
        let own = self.clone();
        let found = tokio::task::spawn_blocking(move || own.find(&query)).await;
        let found = found.map_err(|error| Refusal::fault(error.to_string()))?;
        found.map_err(|error| Refusal::fault(format!("the past holdings: {error:#}")))
    }
}

fn latest_first(rows: &mut [HistoryRow]) {
    rows.sort_by_key(|row| {
        std::cmp::Reverse((row.ended_unix_ms.unwrap_or(u64::MAX), row.since_unix_ms))
    });
}

impl Query {
    fn fits(&self, holding: &Holding) -> bool {
        let pod = holding.pod.as_deref();
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        self.address.is_none_or(|address| holding.addresses.contains(&address))
            && is(&self.pod, pod.map_or("", |pod| &pod.name))
            && is(&self.namespace, pod.map_or("", |pod| &pod.namespace))
            && (self.container_prefix.as_ref())
                .is_none_or(|prefix| holding.container_id.starts_with(prefix))
    }
}

fn row(node: &str, holding: &Holding, past: Option<&PastHolding>) -> HistoryRow {
    let pod = holding.pod.as_deref();
    HistoryRow {
        node: node.to_owned(),
        network: holding.scope.network.to_string(),
        pool: holding.scope.pool.to_string(),
        addresses: holding.addresses.to_vec(),
        container_id: holding.container_id.to_string(),
        ifname: holding.scope.ifname.to_string(),
        namespace: pod.map(|pod| pod.namespace.to_string()),
        pod: pod.map(|pod| pod.name.to_string()),
        stage: holding.stage.map(|stage| stage.as_str().to_owned()),
        since_unix_ms: holding.since.as_millis(),
        ended_unix_ms: past.map(|past| UnixTime::as_millis(past.ended)),
        end: match past.map(|past| past.end) {
            None => "held",
            Some(End::Released) => "released",
            Some(End::Reboot) => "reboot",
        }
        .to_owned(),
        sequence: holding.sequence.get(),
    }
}

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/history", web::get().to(show));
}

async fn show(
    node: web::Data<AppState>,
    request: HttpRequest,
    query: web::Query<Query>,
) -> HttpResponse {
    if let Err(refusal) = node.listener.shows_details(&request) {
        return *refusal;
    }
    let (work, query) = (AppState::clone(&node), query.into_inner());
    // It goes on when the client goes away: the question does not stay in the store.
    node.lists
        .answer(async move {
            let asked = tokio::spawn(async move { history(&work, query).await });
            asked.await.map_err(|error| Refusal::fault(error.to_string()))?
        })
        .await
}

async fn history(node: &AppState, query: Query) -> Result<History, Refusal> {
    if query.address.is_none() && query.pod.is_none() && query.container_prefix.is_none() {
        return Err(Refusal::wrong("give an address, a pod or the beginning of a container's id"));
    }
    let OwnAnswer { rows, more } = node.history.tell(query.clone()).await?;
    let mut all = History { rows, more, unanswered: vec![] };
    if query.local || node.about.store == EMBEDDED {
        return Ok(all);
    }
    let turn = tokio::time::timeout(limits::HISTORY_WAIT_MAX * 2, node.history.turn.lock()).await;
    let _turn = turn.map_err(|_| Refusal::busy("others ask for histories too: ask again"))?;
    let question = Question::of_all(Subject::History, &query);
    let asked = peers::ask::<OwnAnswer>(node, question, limits::HISTORY_WAIT_MAX).await;
    let answers = asked.map_err(|refusal| refusal.advising("--local asks this node alone"))?;
    for OwnAnswer { rows, more } in answers.told.into_values() {
        all.rows.extend(rows);
        all.more |= more;
    }
    all.unanswered = answers.silent.into_iter().chain(answers.gone).collect();
    latest_first(&mut all.rows);
    Ok(all)
}
