//! The allocations of all nodes, by the records in the cluster's store.

use std::net::IpAddr;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::allocations::{self, AllocationRow, Filter};
use super::cluster::{Refusal, Store};
use super::{AppState, EMBEDDED, refuse};
use crate::core::keys::{ALLOCATIONS, allocation_key, allocation_place};
use crate::core::txn::{KeyValue, Span, StoreError};
use crate::core::value::Value;
use crate::limits;

/// Adds the routes of all reads.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    config.route("/v1/records", web::get().to(list));
}

async fn list(
    node: web::Data<AppState>,
    request: HttpRequest,
    filter: web::Query<Filter>,
) -> HttpResponse {
    if let Err(refusal) = node.listener.shows_details(&request) {
        return *refusal;
    }
    if node.about.store == EMBEDDED {
        // There is no other node, and nothing is recorded twice.
        return allocations::list(node, request, filter).await;
    }
    if let Some(fault) = filter.fault() {
        return refuse(StatusCode::BAD_REQUEST, fault);
    }
    let (store, filter) = (Store::new(&node.store), filter.into_inner());
    let rows = async move {
        let advice = "without --all-nodes, what this node holds is listed";
        rows(&store, &filter).await.map_err(|error| Refusal::from(error).advising(advice))
    };
    node.lists.answer(rows).await
}

/// A page of rows, in the order of the keys, which is by pool and address.
async fn rows(store: &Store, filter: &Filter) -> Result<Vec<AllocationRow>, StoreError> {
    let mut span = span_of(filter);
    let mut rows = Vec::new();
    if span.first >= span.past {
        return Ok(rows);
    }
    let texts = filter.texts();
    loop {
        let page = store.with_texts(span.clone(), &texts).await?;
        let of_page = page.found.iter().filter_map(row);
        let of_page = of_page.filter(|(address, row)| filter.fits(row, *address));
        rows.extend(of_page.map(|(_, row)| row).take(filter.limit() - rows.len()));
        match page.rest {
            Some(rest) if rows.len() < filter.limit() => span = rest,
            _ => return Ok(rows),
        }
    }
}

/// The keys among which the rows are.
fn span_of(filter: &Filter) -> Span {
    let mut span = Span::prefix(ALLOCATIONS, limits::KEYS_PER_READ_MAX);
    let pool = filter.pool.as_deref().filter(|pool| !pool.is_empty());
    match (pool, filter.address, filter.block) {
        (Some(pool), Some(address), _) => span = Span::key(&allocation_key(pool, address)),
        (Some(pool), None, Some(block)) => {
            span.first = allocation_key(pool, block.network());
            // Behind the last key.
            span.past = allocation_key(pool, block.broadcast()) + "\0";
        }
        (Some(pool), None, None) => {
            span = Span::prefix(&format!("{ALLOCATIONS}{pool}/"), limits::KEYS_PER_READ_MAX);
        }
        (None, ..) => {}
    }
    if let Some((pool, address)) = filter.after() {
        // The first key behind that one.
        span.first = span.first.max(allocation_key(pool, address) + "\0");
    }
    span
}

fn row(key: &KeyValue) -> Option<(IpAddr, AllocationRow)> {
    let Value::Allocation(value) = &key.value else { return None };
    let (pool, address) = allocation_place(&key.key)?;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let row = AllocationRow {
        node: value.node.to_string(),
        network: value.network.as_deref().unwrap_or(pool).to_owned(),
        pool: pool.to_owned(),
        address: address.to_string(),
        container_id: value.container_id.to_string(),
        ifname: value.ifname.to_string(),
        namespace: text(&value.namespace),
        pod: text(&value.pod),
        stage: text(&value.stage),
        since_unix_ms: value.since.as_millis(),
        sequence: value.sequence.get(),
    };
    Some((address, row))
}
