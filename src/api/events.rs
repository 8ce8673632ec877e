//! `/v1/events`: what happened lately, as this node knows it.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{AppState, cause};
use crate::core::coordinator::CallError;
use crate::events::{Happening, KeptEvent};

/// The last events.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// The time since which events are kept: the start of the daemon, in milliseconds since 1970.
    pub since: u64,
    /// The events, in the order of their last change.
    pub events: Vec<EventRow>,
}

/// An event.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct EventRow {
    /// Its number.
    pub number: u64,
    /// The number of its last change: ask for what changed since then.
    pub changed: u64,
    /// Its kind, in one word.
    pub kind: String,
    /// The time at which it happened first, in milliseconds since 1970.
    pub first_unix_ms: u64,
    /// The time at which it happened last, in milliseconds since 1970.
    pub last_unix_ms: u64,
    /// The number of times that it happened.
    pub count: u64,
    /// The node that it is about.
    pub node: Option<String>,
    /// The network that it is about.
    pub network: Option<String>,
    /// The sentence that says it.
    pub text: String,
}

/// The filter that chooses events.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventFilter {
    /// Only events that changed after this.
    #[serde(default)]
    pub changed_since: u64,
}

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/events", web::get().to(list));
}

async fn list(node: web::Data<AppState>, filter: web::Query<EventFilter>) -> HttpResponse {
    let events = node.recent.changed_since(filter.changed_since).iter().map(row).collect();
    HttpResponse::Ok().json(Events { since: node.recent.since().as_millis(), events })
}

fn row(event: &KeptEvent) -> EventRow {
    let text = |of: &Option<Arc<str>>| of.as_ref().map(ToString::to_string);
    EventRow {
        number: event.number,
        changed: event.changed,
        kind: event.what.kind.to_owned(),
        first_unix_ms: event.first.as_millis(),
        last_unix_ms: event.last.as_millis(),
        count: event.count,
        node: text(&event.what.node),
        network: text(&event.what.network),
        text: event.what.text.clone(),
    }
}

/// Keeps that an ADD was refused. The container is not named: everybody may see events.
pub(super) fn add_refusal(node: &AppState, network: &Arc<str>, error: &CallError) {
    let label = cause::label(error);
    let kind = if label == "exhausted" { "exhausted" } else { "refused" };
    let text = match label {
        "exhausted" => format!("an ADD of {network} was refused: every address is taken"),
        label => format!("an ADD of {network} was refused ({label})"),
    };
    let (about, network) = (Some(node.about.node.as_str().into()), Some(network.clone()));
    node.recent.add(Happening { kind, node: about, network, text, of_block: false });
}
